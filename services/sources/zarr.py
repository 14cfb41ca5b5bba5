"""Zarr v2 and v3 groups, local or remote, read in place."""

import base64
import binascii
import struct
from collections.abc import Collection
from typing import Any

import fsspec.core
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from services.core.errors import InputRefused
from services.sources import cf
from services.sources.raster import Access, Description


class Group:
    """An open Zarr group."""

    def __init__(self, location: str, name: str) -> None:
        self._name = name
        self._remote: Any = None
        store: FsspecStore | str = location
        if "://" in location:
            self._remote, path = fsspec.core.url_to_fs(location, asynchronous=True, skip_instance_cache=True)
            store = FsspecStore(self._remote, path=path, read_only=True)
        try:
            self._group = _group(store, name)
        except BaseException:
            self._end()
            raise

    def container(self, rasters: Collection[str] | None = None) -> cf.Container:
        """What the group's top level holds; of arrays of three and more dimensions, only ``rasters``."""
        attributes = {key: cf.normal_attribute(value) for key, value in self._group.attrs.asdict().items()}
        members = dict(self._group.members())
        variables = {
            key: self._variable(key, item)
            for key, item in members.items()
            if isinstance(item, zarr.Array) and (rasters is None or key in rasters or item.ndim <= 2)
        }
        return cf.Container(
            name=self._name,
            variables=variables,
            attributes=attributes,
            groups=tuple(sorted(key for key, item in members.items() if isinstance(item, zarr.Group))),
            zarr_format=self._group.metadata.zarr_format,
        )

    def read(self, access: Access, slices: slice, rows: slice, columns: slice) -> NDArray[Any]:
        """As ``Opened.read``."""
        array = self._group[access.variable]
        if not isinstance(array, zarr.Array):
            raise InputRefused(f"{self._name}: {access.variable} is no array any more")
        return cf.ordered(np.asarray(array[cf.key(access.roles, slices, rows, columns)]), access.roles)

    def close(self) -> None:
        """As ``Opened.close``."""
        self._group.store.close()
        self._end()

    def _end(self) -> None:
        if self._remote is not None:
            sync(_disconnected(self._remote))
            self._remote = None

    def chunks(self, variable: str) -> tuple[int, ...]:
        """Shape of the variable's chunks."""
        array = self._group[variable]
        return tuple(array.chunks) if isinstance(array, zarr.Array) else ()

    def _variable(self, key: str, array: "zarr.Array[Any]") -> cf.Variable:
        attributes: dict[str, Any] = {k: cf.normal_attribute(v) for k, v in array.attrs.asdict().items()}
        dtype = np.dtype(array.dtype)
        if array.metadata.zarr_format == 2:
            dimensions = attributes.pop("_ARRAY_DIMENSIONS", ())
            dimensions = [dimensions] if isinstance(dimensions, str) else dimensions
            if "_FillValue" not in attributes and array.fill_value is not None:
                # v2 has one fill value, and who reads it as xarray does takes it for missing
                attributes["_FillValue"] = array.fill_value
        else:
            dimensions = array.metadata.dimension_names or ()
            if "_FillValue" in attributes:
                attributes["_FillValue"] = _fill(attributes["_FillValue"], dtype)
        named = tuple(str(d) for d in dimensions)
        if len(named) != array.ndim:
            named = tuple(f"{key}_{number}" for number in range(array.ndim))
        return cf.Variable(
            name=key,
            dimensions=named,
            shape=tuple(array.shape),
            dtype=dtype.newbyteorder("=") if dtype.kind in "iufb" else np.dtype(object),
            read=lambda at: np.asarray(array[at or ...]).astype(dtype.newbyteorder("="), copy=False),
            attributes=attributes,
        )


def describe(location: str, name: str, wanted: str | None) -> Description:
    """Describe a Zarr group."""
    opened = Group(location, name)
    try:
        return cf.describe(opened.container(), wanted)
    finally:
        opened.close()


def _group(store: FsspecStore | str, name: str) -> zarr.Group:
    found = zarr.open(store, mode="r")
    if not isinstance(found, zarr.Group):
        raise InputRefused(f"{name} is a Zarr array, not a group with coordinates beside it")
    return found


async def _disconnected(remote: Any) -> None:
    # what fsspec does by itself for a file system that is not asynchronous
    clients, session = getattr(remote, "_s3creator", None), getattr(remote, "_session", None)
    if clients is not None:
        await clients.__aexit__(None, None, None)
    elif session is not None:
        await session.close()


def _fill(value: Any, dtype: np.dtype[Any]) -> Any:
    # xarray writes a float _FillValue of Zarr v3 as base64 of a little-endian double
    if isinstance(value, str) and dtype.kind == "f":
        try:
            return struct.unpack("<d", base64.standard_b64decode(value))[0]
        except (binascii.Error, struct.error):
            return value
    return value
