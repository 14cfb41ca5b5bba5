"""The bench's data, made once below a folder: our store as a directory and in MinIO, and Zarr copies for the peers.

Each step leaves a mark when it is done; an interrupted one is made again from its start.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import zarr
import zarr.codecs
from numpy.typing import NDArray
from obstore.store import S3Store

from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.grid import Grid, Window
from services.core.quantity import Quantity
from services.core.settings import StoreSettings
from services.core.store import Store
from tests.bench.servers import S3, program
from tests.bench.stacks import MISSING, Stack, write

FORMAT = 6
"""Raised when what is made changes, so that older data is not taken for it."""

BUCKET = "bench"
MAP_CHUNK = 512
SERIES_CHUNK = 60
"""Rows and columns of a chunk that holds all months: 170 kB decoded, one object each."""

PEER_MONTHS = {"xco2": 36, "gwsa": 2}
"""Months in the peers' Zarr copy of the maps, where not all."""

SMALL_CELLS = 1_000_000
"""Grids that are done before worker processes have started."""

SERIES = "_series.zarr"

type Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where everything lies."""

    folder: Path

    @property
    def store(self) -> Path:
        """Our store."""
        return self.folder / "store"

    @property
    def zarrs(self) -> Path:
        """The peers' Zarr copies."""
        return self.folder / "zarr"

    @property
    def minio(self) -> Path:
        """MinIO's own folder."""
        return self.folder / "minio"

    def dataset(self, stack: Stack) -> Dataset:
        """The published version of a stack."""
        store = Store.open(str(self.store), StoreSettings())
        return Dataset(store, current_version(store, stack.id)[1])

    def cogs(self, stack: Stack) -> str:
        """Folder of the COGs of a stack, below the store."""
        (folder,) = (self.store / stack.id / "segments").glob(f"*/cog/{stack.variable}")
        return str(folder.relative_to(self.store))

    def map_copy(self, stack: Stack) -> Path:
        """Zarr with a chunk for each map block, all levels."""
        return self.zarrs / f"{stack.id}_maps.zarr"

    def series_copy(self, stack: Stack) -> Path:
        """Zarr with all months in each chunk."""
        return self.zarrs / f"{stack.id}{SERIES}"


def bench_cache() -> Path:
    """Where environments and data are kept, outside the tree."""
    named = os.environ.get("CENOTE_CACHE")
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cenote"
    return base.absolute() / "bench"


def publish(data: Data, stacks: Sequence[Stack], note: Note) -> None:
    """Make the source files of stacks and let ``cenote ingest`` publish them; the files are removed then."""
    for stack in stacks:
        with _step(data, f"published-{stack.id}", note) as wanted:
            if not wanted:
                continue
            shutil.rmtree(data.store / stack.id, ignore_errors=True)
            files = write(stack, data.folder / "sources" / stack.id)
            command: list[str | Path] = [program("cenote"), "--store", data.store, "ingest", stack.id, *files]
            command += ["--variable", stack.variable, "--units", stack.units, "--time", f"{stack.first}/P1M"]
            if stack.width * stack.height < SMALL_CELLS:
                command += ["--workers", "0"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            shutil.rmtree(data.folder / "sources" / stack.id)


def copy_maps(data: Data, stack: Stack, note: Note) -> None:
    """The peers' Zarr of maps: int16 with CF packing, unsharded chunks of one month, the same levels as ours."""
    with _step(data, f"maps-{stack.id}", note) as wanted:
        if not wanted:
            return
        dataset = data.dataset(stack)
        (quantity,) = dataset.product.quantities
        months = PEER_MONTHS.get(stack.id, stack.months)
        root = zarr.open_group(data.map_copy(stack), mode="w", zarr_format=3)
        for level in range(dataset.product.grid.levels):
            grid = dataset.product.grid.level(level)
            chunk = (1, min(MAP_CHUNK, grid.height), min(MAP_CHUNK, grid.width))
            target = _array(root.create_group(str(level)), stack, quantity, grid, months, chunk)
            for month in range(months):
                target[month] = dataset.read_map(
                    quantity, month, level, Window(row=0, column=0, height=grid.height, width=grid.width)
                )
        zarr.consolidate_metadata(root.store)


def copy_series(data: Data, stack: Stack, note: Note) -> None:
    """The peers' Zarr of series: the same values, all months in a chunk."""
    with _step(data, f"series-{stack.id}", note) as wanted:
        if not wanted:
            return
        dataset = data.dataset(stack)
        (quantity,) = dataset.product.quantities
        grid = dataset.product.grid
        root = zarr.open_group(data.series_copy(stack), mode="w", zarr_format=3)
        target = _array(root, stack, quantity, grid, stack.months, (stack.months, SERIES_CHUNK, SERIES_CHUNK))
        rows = 5 * SERIES_CHUNK
        for top in range(0, grid.height, rows):
            window = Window(row=top, column=0, height=min(rows, grid.height - top), width=grid.width)
            target[:, top : top + window.height] = dataset.read_series(quantity, range(stack.months), window)
        zarr.consolidate_metadata(root.store)


def upload(data: Data, server: S3, folders: Sequence[Path], note: Note) -> None:
    """Put folders of ours and of the peers into MinIO, byte by byte the same, under the same names.

    The peers' series are asked for there only, and removed here.
    """
    for folder in folders:
        with _step(data, f"uploaded-{folder.name}", note) as wanted:
            if not wanted:
                continue
            bucket = bucket_of(server)
            files = [path for path in folder.rglob("*") if path.is_file()]
            with ThreadPoolExecutor(8) as threads:
                list(
                    threads.map(
                        obstore.put,
                        repeat(bucket),
                        (str(path.relative_to(data.folder)) for path in files),
                        files,
                    )
                )
            if folder.name.endswith(SERIES):
                shutil.rmtree(folder)


def bucket_of(server: S3) -> S3Store:
    """A client of the bench's bucket."""
    return S3Store(
        BUCKET,
        endpoint=server.endpoint,
        region=server.region,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


def _array(
    group: zarr.Group, stack: Stack, quantity: Quantity, grid: Grid, months: int, chunk: tuple[int, int, int]
) -> "zarr.Array[Any]":
    """An empty array with the coordinates and attributes that CF, rioxarray and GeoZarr readers look for."""
    transform = list(grid.transform)
    group.attrs.update({"spatial:transform": transform, "proj:code": "EPSG:4326", "Conventions": "CF-1.11"})
    starts = np.array([np.datetime64(period, "D").astype(np.int64) for period in stack.periods[:months]])
    _coordinate(group, "time", starts, {"units": "days since 1970-01-01", "calendar": "standard", "axis": "T"})
    for name, values, axis, attributes in (
        ("y", grid.latitudes, "Y", {"standard_name": "latitude", "units": "degrees_north"}),
        ("x", grid.longitudes, "X", {"standard_name": "longitude", "units": "degrees_east"}),
    ):
        _coordinate(group, name, values, {"axis": axis, **attributes})
    group.create_array(
        "spatial_ref",
        shape=(),
        dtype="int64",
        attributes={
            "grid_mapping_name": "latitude_longitude",
            "crs_wkt": _WGS84,
            "spatial_ref": _WGS84,
            "GeoTransform": " ".join(map(str, [transform[2], transform[0], 0, transform[5], 0, transform[4]])),
        },
    )
    return group.create_array(
        stack.variable,
        shape=(months, grid.height, grid.width),
        chunks=chunk,
        dtype="int16",
        fill_value=MISSING,
        compressors=zarr.codecs.BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"),
        dimension_names=("time", "y", "x"),
        attributes={
            "units": stack.units,
            "scale_factor": quantity.scale_factor if quantity.scale_factor is not None else 1.0,
            "add_offset": quantity.add_offset if quantity.add_offset is not None else 0.0,
            "_FillValue": MISSING,
            "grid_mapping": "spatial_ref",
        },
    )


_WGS84 = (
    'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,AUTHORITY["EPSG","7030"]],'
    'AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,AUTHORITY["EPSG","8901"]],UNIT["degree",0.0174532925199433,'
    'AUTHORITY["EPSG","9122"]],AXIS["Latitude",NORTH],AXIS["Longitude",EAST],AUTHORITY["EPSG","4326"]]'
)


def _coordinate(group: zarr.Group, name: str, values: NDArray[Any], attributes: Mapping[str, str]) -> None:
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype,
        dimension_names=(name,),
        attributes=dict(attributes),
    )
    array[:] = values


@contextmanager
def _step(data: Data, name: str, note: Note) -> Iterator[bool]:
    """Whether a step is still to be done; it is marked when the block ends without an error."""
    mark = data.folder / "done" / name
    if mark.exists():
        yield False
        return
    mark.parent.mkdir(parents=True, exist_ok=True)
    note(f"data: {name.replace('-', ' ')} (once)")
    start = time.monotonic()
    yield True
    mark.touch()
    note(f"data: {name.replace('-', ' ')} took {time.monotonic() - start:.0f} s")
