"""Open files, a few per process, so that neighbouring windows do not open and decode the same file again."""

import atexit
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from services.sources import files, geotiff, grib, netcdf3, netcdf4, zarr
from services.sources.broken import reading
from services.sources.files import Source
from services.sources.raster import Description, Opened

MOST = 128
"""Files that a process keeps open: more than are read in turn for one map, else none would be open when its turn comes
again. A month of xco2_global takes twelve of each covariate that has a file a month."""

CONTAINERS = (netcdf3.Classic, netcdf4.Hdf5, zarr.Group)
"""Open files of named arrays, which have a ``container()``."""

type _Key = tuple[str, str, int]


class _Handle:
    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.lock = threading.Lock()
        self.users = 0


_open: OrderedDict[_Key, _Handle] = OrderedDict()
_guard = threading.Lock()


def describe(source: Source, wanted: str | None) -> Description:
    """What a source's reader says about it.

    Args:
        source: the file or store.
        wanted: name of the variable; None: the only one.

    Raises:
        InputRefused: if it is broken, or says too little or too much.
    """
    path = files.local(source) if source.kind != "zarr" else source.location
    with reading(source.name):
        match source.kind:
            case "netcdf3":
                return netcdf3.describe(path, source.name, wanted)
            case "netcdf4":
                return netcdf4.describe(path, source.name, wanted)
            case "zarr":
                return zarr.describe(path, source.name, wanted)
            case "geotiff":
                return geotiff.describe(path, source.name, wanted)
            case "grib":
                return grib.describe(path, source.name, wanted)


@contextmanager
def opened(source: Source) -> Iterator[Opened]:
    """An open source, for one thread at a time; whatever goes wrong with it is said with its name.

    Raises:
        InputRefused: if it is broken, or not what it was when it was looked at.
    """
    path = files.local(source)
    key = (source.location, source.stamp, source.size)
    with reading(source.name):
        with _guard:
            handle = _open.get(key)
            if handle is None:
                handle = _open[key] = _Handle(_opened(source, path))
            _open.move_to_end(key)
            handle.users += 1
        try:
            with handle.lock:
                yield handle.opened
        finally:
            with _guard:
                handle.users -= 1
                _let_go(MOST)


def close_all() -> None:
    """Close every file that this process keeps open and nobody reads."""
    with _guard:
        _let_go(0)


def _opened(source: Source, path: str) -> Opened:
    match source.kind:
        case "netcdf3":
            return netcdf3.Classic(path, source.name)
        case "netcdf4":
            return netcdf4.Hdf5(path, source.name)
        case "zarr":
            return zarr.Group(path, source.name)
        case "geotiff":
            return geotiff.Tiff(path, source.name)
        case "grib":
            return grib.Grib(path, source.name)


def _let_go(most: int) -> None:
    idle = [key for key, handle in _open.items() if not handle.users]
    for key in idle[: max(len(_open) - most, 0)]:
        _open.pop(key).opened.close()


def _forget() -> None:
    # a forked child must neither use nor close its parent's files
    global _guard  # noqa: PLW0603 - a lock held in the parent would stay held for ever
    _guard = threading.Lock()
    _open.clear()


atexit.register(close_all)
os.register_at_fork(after_in_child=_forget)
