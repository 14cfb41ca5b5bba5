"""Global NetCDF variables that hold a region: what is not written is missing and takes no room."""

from typing import Any

import h5netcdf
import numpy as np

from services.sample.groundwater import Region


def variable_of(
    file: h5netcdf.File,
    name: str,
    dimensions: tuple[str, ...],
    dtype: type[np.generic],
    chunks: tuple[int, ...],
    fill: float,
) -> Any:
    """A variable of which only the chunks that are written take room."""
    variable = file.create_variable(
        name,
        dimensions,
        dtype=dtype,
        chunks=chunks,
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        fillvalue=dtype(fill),
    )
    variable.attrs["missing_value"] = dtype(fill)
    return variable


def cells_of(place: Region, *, west: int, cells: int) -> tuple[slice, slice]:
    """Rows, north to south, and columns of a region in a global grid from ``west``, so many cells to a degree."""
    return place.within(Region(west=west, south=-90, east=west + 360, north=90), cells)
