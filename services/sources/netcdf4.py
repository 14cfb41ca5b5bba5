"""NetCDF-4 (HDF5) through h5netcdf; stored values stay as they are."""

from collections.abc import Collection
from functools import partial
from typing import Any

import h5netcdf
import h5py
import numpy as np
from numpy.typing import NDArray

from services.sources import cf
from services.sources.raster import Access, Description

CHUNK_CACHE = 16 * 2**20
"""Bytes of decoded HDF5 chunks that each variable keeps as long as its file is open: neighbouring windows then do not
decode a chunk twice."""


class _File(h5netcdf.File):  # type: ignore[misc]
    """A file whose ``__del__`` does not stumble where the constructor did."""

    _writable = False


class Hdf5:
    """An open NetCDF-4 file."""

    def __init__(self, path: str, name: str) -> None:
        self._raw = h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE)
        try:
            self._file = _File(self._raw, "r", phony_dims="access")
        except BaseException:
            self._raw.close()
            raise
        self._name = name
        self._held: dict[str, h5py.Dataset] = {}

    def container(self, rasters: Collection[str] | None = None) -> cf.Container:
        """What the file's top level holds.

        Args:
            rasters: of variables of three and more dimensions, only these: to read the attributes of forty takes long.
        """
        variables: dict[str, cf.Variable] = {}
        sizes: dict[str, int] = {}
        for name in self._file.variables:
            variable = self._file.variables[name]
            dimensions = tuple(variable.dimensions)
            if rasters is not None and name not in rasters and len(dimensions) > 2:
                continue
            for dimension in dimensions:
                if dimension not in sizes:  # h5netcdf looks through the whole file for the size of an unlimited one
                    sizes[dimension] = int(self._file.dimensions[dimension].size)
            # h5netcdf looks a variable up in the file for each of its properties: once each
            stored, attributes = variable.dtype, variable.attrs
            dtype = stored if isinstance(stored, np.dtype) else np.dtype(object)
            plain = dtype.newbyteorder("=") if dtype.kind in "iuf" and dtype.names is None else np.dtype(object)
            variables[name] = cf.Variable(
                name=name,
                dimensions=dimensions,
                shape=tuple(sizes[dimension] for dimension in dimensions),
                dtype=plain,
                read=partial(self._values, name),
                attributes={k: cf.normal_attribute(attributes[k]) for k in attributes},
            )
        return cf.Container(
            name=self._name,
            variables=variables,
            attributes={k: cf.normal_attribute(self._file.attrs[k]) for k in self._file.attrs},
            groups=tuple(self._file.groups),
        )

    def read(self, access: Access, slices: slice, rows: slice, columns: slice) -> NDArray[Any]:
        """As ``Opened.read``."""
        return cf.ordered(self._values(access.variable, cf.key(access.roles, slices, rows, columns)), access.roles)

    def close(self) -> None:
        """As ``Opened.close``."""
        self._held.clear()
        self._file.close()
        self._raw.close()

    def _values(self, name: str, key: tuple[slice | int, ...]) -> NDArray[Any]:
        values = np.asarray(self._array(name)[key or ...])
        native: NDArray[Any] = values.astype(values.dtype.newbyteorder("="), copy=False)
        return native

    def _array(self, name: str) -> "h5py.Dataset | h5netcdf.Variable":
        """HDF5's own array where it holds all that the variable does; of an unlimited dimension it may hold less.

        h5netcdf looks the array up in the file at every reading, which takes longer than to read a small window, and
        lets go of it, and HDF5 of its decoded chunks.
        """
        held = self._held.get(name)
        if held is not None:
            return held
        variable = self._file.variables[name]
        array = self._raw[variable.name]
        if array.shape != variable.shape or h5py.check_string_dtype(array.dtype) or array.dtype.names:
            return variable
        self._held[name] = array
        return array


def describe(path: str, name: str, wanted: str | None) -> Description:
    """Describe a NetCDF-4 file."""
    opened = Hdf5(path, name)
    try:
        return cf.describe(opened.container(), wanted)
    finally:
        opened.close()
