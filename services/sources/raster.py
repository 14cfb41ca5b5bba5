"""What a reader says about one file, and how its values are read: the same for every format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Grid
from services.sources.lonlat import Layout
from services.sources.packing import Packing

type Kind = Literal["netcdf3", "netcdf4", "zarr", "geotiff", "grib"]
type Role = Literal["t", "y", "x", "1"]

KIND_NAMES: dict[Kind, str] = {
    "netcdf3": "NetCDF (classic)",
    "netcdf4": "NetCDF-4 (HDF5)",
    "zarr": "Zarr",
    "geotiff": "GeoTIFF",
    "grib": "GRIB",
}

type Attributes = Mapping[str, str | float | int]


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where in a file the values of the variable are."""

    variable: str
    """Name of the array; empty for a GeoTIFF."""

    roles: tuple[Role, ...] = ("t", "y", "x")
    """What each dimension of the array is; ``1`` has one element only."""

    masked: bool = False
    """Whether a mask band of the file says what is missing (GeoTIFF)."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """One file, or one Zarr store, as its reader understood it."""

    access: Access
    grid: Grid
    layout: Layout
    slices: int
    """How many maps it holds, in order."""

    numbers: tuple[int, ...] | None = None
    """Number of each in the file; None: 0, 1, 2 ..."""

    packings: tuple[Packing, ...]
    """One for all slices, or one each."""

    times: NDArray[np.int64] | None = None
    """The file's own times, ``(slices,)``, microseconds since 1970."""

    bounds: NDArray[np.int64] | None = None
    """Start and end of each period as the file says, ``(slices, 2)``, microseconds since 1970."""

    labels: tuple[str | None, ...] = ()
    """Descriptions of bands, one each, or nothing."""

    units: str | None = None
    long_name: str | None = None
    standard_name: str | None = None
    cell_methods: str | None = None
    title: str | None = None
    attributes: Attributes = field(default_factory=dict)
    """Further attributes of the variable."""

    global_attributes: Attributes = field(default_factory=dict)
    facts: tuple[str, ...] = ()
    """What else was concluded, a sentence each."""

    first_longitude: float = 0.0
    """First column's centre as the file has it, degrees."""

    last_longitude: float = 0.0
    """Last column's centre as the file has it, degrees."""

    parts: tuple[str, ...] = ()
    """Of a Zarr store: the arrays that are read."""


class Opened(Protocol):
    """An open file; not for two threads at once."""

    def read(self, access: Access, slices: slice, rows: slice, columns: slice) -> NDArray[Any]:
        """Stored values ``(time, y, x)``, rows and columns in the file's own order, in the machine's byte order.

        With ``access.masked``, a ``numpy.ma.MaskedArray``.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...
