"""Cells of any grid and window, over which the sample Earth's carbon and its covariates are averaged."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.sample.noise import Field


def over_cells(
    parts: Callable[[NDArray[np.float64], NDArray[np.float64]], dict[str, Field]],
    grid: Grid,
    window: Window | None,
    *,
    finest: float,
) -> dict[str, Field]:
    """Means over cells: of the value at the centre, or of points ``finest`` degrees or less apart in larger cells.

    Args:
        parts: makes fields ``(y, x)`` for longitudes of columns and latitudes of rows.
        grid: of the cells.
        window: cells of it; all if None.
        finest: degrees.
    """
    window = window or Window(row=0, column=0, height=grid.height, width=grid.width)
    if window.row + window.height > grid.height or window.column + window.width > grid.width:
        raise InputRefused(f"{window} passes the {grid.height} x {grid.width} cells of the grid")
    count = int(np.ceil(float(grid.step_x) / finest - 1e-9))
    within = (np.arange(count) + 0.5) / count - 0.5
    longitudes = grid.longitudes[window.columns, None] + float(grid.step_x) * within
    latitudes = grid.latitudes[window.rows, None] - float(grid.step_y) * within
    fields = parts(longitudes.ravel(), latitudes.ravel())
    if count == 1:
        return fields
    return {
        name: values.reshape(window.height, count, window.width, count).mean(axis=(1, 3), dtype=np.float32)
        for name, values in fields.items()
    }


def latitudes_of(grid: Grid, window: Window | None) -> NDArray[np.float64]:
    """Centres of a window's rows, degrees north, ``(y,)``."""
    return grid.latitudes if window is None else grid.latitudes[window.rows]


def square_degrees(grid: Grid, window: Window | None) -> Field:
    """Of the cells of each row, in square degrees at the equator, ``(y, 1)``."""
    areas = np.degrees(grid.row_areas) * float(grid.step_x)
    cut = areas if window is None else areas[window.rows]
    return cut.astype(np.float32)[:, None]
