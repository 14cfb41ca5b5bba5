"""NetCDF classic, 64-bit-offset and CDF-5 files, mapped into memory; stored values stay as they are.

The format has no checksums and its readers take what is missing at a file's end for zeros, so the header is read here
and held against the file's size. Format: https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html
"""

import contextlib
import math
import mmap
import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.sources import cf
from services.sources.raster import Access, Description

_DIMENSION, _VARIABLE, _ATTRIBUTE = 10, 11, 12
_CHAR = 2
_TYPES = {1: ">i1", 2: "S1", 3: ">i2", 4: ">i4", 5: ">f4", 6: ">f8", 7: ">u1", 8: ">u2", 9: ">u4", 10: ">i8", 11: ">u8"}
_OLD_TYPES = 6
"""Types 7 to 11 are those of CDF-5."""

_STREAMING = 0xFFFFFFFF
"""Number of records of a writer that did not come to tell."""


@dataclass(frozen=True, kw_only=True)
class _Array:
    """Where an array is in the file."""

    name: str
    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    begin: int
    strides: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """Offset behind the last byte."""
        if 0 in self.shape:
            return self.begin
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return self.begin + last + self.dtype.itemsize


class Classic:
    """An open file.

    Raises:
        InputRefused: if it is shorter than its header says, or the header contradicts itself.
    """

    def __init__(self, path: str, name: str) -> None:
        self._name = name
        with Path(path).open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            header = _Header(self._map, name)
            self._arrays, self._attributes = header.arrays, header.attributes
        except BaseException:
            self.close()
            raise

    def container(self, rasters: Collection[str] | None = None) -> cf.Container:
        """What the file holds; of variables of three and more dimensions, only ``rasters``."""
        variables = {
            name: cf.Variable(
                name=name,
                dimensions=array.dimensions,
                shape=array.shape,
                dtype=array.dtype.newbyteorder("=") if array.dtype.kind in "iuf" else np.dtype(object),
                read=partial(self._values, name),
                attributes=array.attributes,
            )
            for name, array in self._arrays.items()
            if rasters is None or name in rasters or len(array.shape) <= 2
        }
        return cf.Container(name=self._name, variables=variables, attributes=self._attributes)

    def read(self, access: Access, slices: slice, rows: slice, columns: slice) -> NDArray[Any]:
        """As ``Opened.read``."""
        return cf.ordered(self._values(access.variable, cf.key(access.roles, slices, rows, columns)), access.roles)

    def close(self) -> None:
        """As ``Opened.close``."""
        with contextlib.suppress(BufferError):  # an error on its way up still shows an array: it is unmapped after that
            self._map.close()

    def _values(self, name: str, key: tuple[slice | int, ...]) -> NDArray[Any]:
        array = self._arrays[name]
        mapped = np.ndarray(array.shape, array.dtype, self._map, array.begin, array.strides)
        values = np.array(mapped[key])  # a copy, so that nobody holds the mapping
        native: NDArray[Any] = values.astype(values.dtype.newbyteorder("="), copy=False)
        return native


def describe(path: str, name: str, wanted: str | None) -> Description:
    """Describe a file."""
    opened = Classic(path, name)
    try:
        return cf.describe(opened.container(), wanted)
    finally:
        opened.close()


class _Header:
    """The header of a file, read once from its start."""

    def __init__(self, data: mmap.mmap, name: str) -> None:
        self._data = data
        self._name = name
        self._at = 4
        version = data[3]
        self._wide = version == 5
        self._offset = 4 if version == 1 else 8
        records = self._count()
        self._dimensions = self._named_sizes()
        self.attributes = self._attribute_list()
        found = self._variable_list()
        streaming = records == (2**64 - 1 if self._wide else _STREAMING)
        self.arrays = self._laid_out(found, None if streaming else records)
        self._check()

    def _laid_out(
        self, found: list[tuple[str, list[int], dict[str, Any], int, int]], records: int | None
    ) -> dict[str, _Array]:
        moving = [item for item in found if item[1] and self._dimensions[item[1][0]][1] == 0]
        sizes = {item[0]: self._inner(item) * np.dtype(_TYPES[item[3]]).itemsize for item in moving}
        # records of several variables lie between each other, each rounded up to 4 bytes; those of one do not
        stride = next(iter(sizes.values())) if len(sizes) == 1 else sum(-(-size // 4) * 4 for size in sizes.values())
        if records is None:
            first = min((item[4] for item in moving), default=len(self._data))
            records = max(len(self._data) - first, 0) // stride if stride else 0
        arrays: dict[str, _Array] = {}
        for name, dims, attributes, kind, begin in found:
            dtype = np.dtype(_TYPES[kind])
            shape = [self._dimensions[d][1] for d in dims]
            strides = [math.prod(shape[at + 1 :]) * dtype.itemsize for at in range(len(shape))]
            if name in sizes:
                shape[0], strides[0] = records, stride
            if any(size == 0 and self._dimensions[d][1] == 0 for size, d in zip(shape[1:], dims[1:], strict=True)):
                raise InputRefused(f"{self._name} is broken: {name} has its record dimension in the middle")
            arrays[name] = _Array(
                name=name,
                dimensions=tuple(self._dimensions[d][0] for d in dims),
                shape=tuple(shape),
                dtype=dtype,
                begin=begin,
                strides=tuple(strides),
                attributes=attributes,
            )
        return arrays

    def _check(self) -> None:
        size = len(self._data)
        for array in self.arrays.values():
            if array.begin < self._at:
                raise InputRefused(
                    f"{self._name} is broken: {array.name} begins at byte {array.begin}, inside the header"
                )
            if array.end > size:
                raise InputRefused(
                    f"{self._name} is cut short: {array.name} ends at byte {array.end}, the file at {size}"
                )
        fixed = sorted((a for a in self.arrays.values() if not self._moving(a)), key=lambda a: (a.begin, a.end))
        for before, after in pairwise(fixed):
            if before.end > after.begin:
                raise InputRefused(f"{self._name} is broken: {before.name} and {after.name} lie on each other")

    def _moving(self, array: _Array) -> bool:
        return bool(array.shape) and dict(self._dimensions).get(array.dimensions[0]) == 0

    def _inner(self, item: tuple[str, list[int], dict[str, Any], int, int]) -> int:
        return math.prod(self._dimensions[d][1] for d in item[1][1:])

    def _named_sizes(self) -> list[tuple[str, int]]:
        return [(self._text(), self._count()) for _ in range(self._list(_DIMENSION))]

    def _attribute_list(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(self._list(_ATTRIBUTE)):
            name = self._text()
            kind, count = self._kind(), self._count()
            dtype = np.dtype(_TYPES[kind])
            body = self._take(count * dtype.itemsize)
            self._at += -len(body) % 4
            if kind == _CHAR:
                found[name] = cf.normal_attribute(body)
            else:
                found[name] = cf.normal_attribute(np.frombuffer(body, dtype).astype(dtype.newbyteorder("=")))
        return found

    def _variable_list(self) -> list[tuple[str, list[int], dict[str, Any], int, int]]:
        found: list[tuple[str, list[int], dict[str, Any], int, int]] = []
        for _ in range(self._list(_VARIABLE)):
            name = self._text()
            dims = [self._count() for _ in range(self._bounded(self._count()))]
            if any(d >= len(self._dimensions) for d in dims):
                raise InputRefused(f"{self._name} is broken: {name} has a dimension that is not there")
            attributes = self._attribute_list()
            kind = self._kind()
            self._count()  # its size, which is too small to hold that of large arrays: the shape says it
            begin = int.from_bytes(self._take(self._offset), "big")
            found.append((name, dims, attributes, kind, begin))
        if len({item[0] for item in found}) < len(found):
            raise InputRefused(f"{self._name} is broken: two variables have one name")
        return found

    def _list(self, tag: int) -> int:
        here = struct.unpack(">I", self._take(4))[0]
        count = self._count()
        if here not in {0, tag} or (here == 0 and count):
            raise InputRefused(
                f"{self._name} is broken: its header has {here} at byte {self._at} where a list of {tag} is due"
            )
        return self._bounded(count)

    def _bounded(self, count: int) -> int:
        if count > len(self._data):
            raise InputRefused(
                f"{self._name} is broken: its header counts {count} of something in {len(self._data)} bytes"
            )
        return count

    def _kind(self) -> int:
        kind = int(struct.unpack(">I", self._take(4))[0])
        if kind not in _TYPES or (kind > _OLD_TYPES and not self._wide):
            raise InputRefused(f"{self._name} is broken: its header names a type {kind}")
        return kind

    def _count(self) -> int:
        return int.from_bytes(self._take(8 if self._wide else 4), "big")

    def _text(self) -> str:
        body = self._take(self._count())
        self._at += -len(body) % 4
        return body.decode("utf-8", errors="replace")

    def _take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise InputRefused(f"{self._name} is cut short: its header does not end within {len(self._data)} bytes")
        body = self._data[self._at : self._at + count]
        self._at += count
        return body
