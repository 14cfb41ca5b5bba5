"""Statistics weighted by area on the sphere: of a whole map, or of the part of it that a polygon covers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon

from services.core.errors import PositionOutside, RequestTooLarge
from services.core.grid import Grid
from services.core.settings import Settings
from tiler.cells import Cells, cells_touching
from tiler.polygons import EARTH_RADIUS_KM, boxes_of, covered_fraction
from tiler.request import Requested

MOST_CELLS = 4_000_000
"""Cells that are held at once; larger areas are read from the finest level that has no more."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Cells with a value, and how much of the ground each stands for."""

    values: NDArray[np.float64]
    """Decoded, ``(n,)``; NaN where missing."""

    area: NDArray[np.float64]
    """Square kilometres of each cell inside the area and with data, ``(n,)``."""

    cover: NDArray[np.float64]
    """Share of each cell inside the area, 0..1, ``(n,)``."""

    asked_km2: float
    """Ground inside the area, with data or without."""

    level: int
    """Where the values come from; 0 is full resolution."""


def whole_map(chosen: Requested, settings: Settings, max_size: int | None) -> Sample:
    """The cells of a map, of the finest level whose longest side is at most ``max_size``."""
    return _sample(chosen, None, settings, max_size)


def inside(chosen: Requested, area: MultiPolygon, settings: Settings) -> Sample:
    """The cells that a polygon covers, in part or whole.

    Raises:
        PositionOutside: if it covers none.
        RequestTooLarge: if even the coarsest level has too many.
    """
    return _sample(chosen, area, settings, None)


def describe_sample(
    sample: Sample, percentiles: Sequence[float], bins: int, limits: tuple[float, float] | None
) -> dict[str, Any]:
    """Titiler's statistics of a band, its mean, standard deviation, median and percentiles weighted by area.

    ``count`` and ``sum`` count a cell by the share of it that is inside, as in titiler; ``area_km2`` is the ground with
    data and ``valid_percent`` its share of all the ground asked for.
    """
    present = ~np.isnan(sample.values) & (sample.area > 0)
    values, area, cover = sample.values[present], sample.area[present], sample.cover[present]
    asked = int(np.count_nonzero(sample.cover))
    out: dict[str, Any] = {
        "min": None,
        "max": None,
        "mean": None,
        "count": float(cover.sum()),
        "sum": None,
        "std": None,
        "median": None,
        "majority": None,
        "minority": None,
        "unique": 0.0,
        "histogram": [[0] * bins, [0.0] * (bins + 1)],
        "valid_percent": 0.0,
        "masked_pixels": float(asked - values.size),
        "valid_pixels": float(values.size),
        "area_km2": float(area.sum()),
        "level": sample.level,
        **{f"percentile_{percentile:g}": None for percentile in percentiles},
    }
    if not values.size:
        return out
    keys, counts = np.unique(values, return_counts=True)
    mean = float(np.average(values, weights=area))
    heights, edges = np.histogram(values, bins=bins, range=limits)
    shares = [0.5, *(percentile / 100 for percentile in percentiles)]
    found = np.quantile(values, shares, weights=area, method="inverted_cdf").tolist()
    out |= {
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": mean,
        "sum": float((values * cover).sum()),
        "std": math.sqrt(float(np.average((values - mean) ** 2, weights=area))),
        "median": float(found[0]),
        "majority": float(keys[counts.argmax()]),
        "minority": float(keys[counts.argmin()]),
        "unique": float(keys.size),
        "histogram": [heights.tolist(), edges.tolist()],
        "valid_percent": round(100 * float(area.sum()) / sample.asked_km2, 2),
        **{
            f"percentile_{percentile:g}": float(value) for percentile, value in zip(percentiles, found[1:], strict=True)
        },
    }
    return out


def _sample(chosen: Requested, area: MultiPolygon | None, settings: Settings, max_size: int | None) -> Sample:
    dataset = chosen.served.dataset
    for number in _levels(dataset.product.grid):
        grid = dataset.product.grid.level(number)
        if max_size is not None and max(grid.shape) > max_size and number + 1 < dataset.product.grid.levels:
            continue
        cells = _whole(grid) if area is None else cells_touching(grid, boxes_of(area))
        if cells.count <= min(MOST_CELLS, settings.max_cells):
            break
    else:
        raise RequestTooLarge(f"the area has {cells.count} cells at the coarsest level: ask for a smaller one")
    cover = np.ones(cells.shape) if area is None else covered_fraction(area, cells)
    if not cover.any():
        raise PositionOutside("the area covers no cell of the grid")
    values = _values(chosen, number, cells)
    with_data = _fraction(chosen, number, cells)
    if chosen.minus is not None:
        if chosen.minus.served.dataset.product.grid != dataset.product.grid:
            raise PositionOutside("statistics of a difference need two versions on the same grid")
        values = values - _values(chosen.minus, number, cells)
        with_data = np.minimum(with_data, _fraction(chosen.minus, number, cells))
    ground = cells.row_areas[:, np.newaxis] * math.radians(float(grid.step_x)) * EARTH_RADIUS_KM**2
    used = cover.ravel() > 0
    return Sample(
        values=values.ravel()[used],
        area=(cover * ground * with_data).ravel()[used],
        cover=cover.ravel()[used],
        asked_km2=float((cover * ground).sum()),
        level=number,
    )


def _levels(grid: Grid) -> list[int]:
    """Levels whose cells tile the circle: one that was rounded up overlaps itself at the seam."""
    return [number for number in range(grid.levels) if not grid.is_global or grid.width % 2**number == 0]


def _whole(grid: Grid) -> Cells:
    return Cells(grid=grid, row=0, height=grid.height, column=0, width=grid.width)


def _values(chosen: Requested, level: int, cells: Cells) -> NDArray[np.float64]:
    dataset, quantity = chosen.served.dataset, chosen.quantity
    parts = [dataset.read_map(quantity, chosen.position, level, window) for window in cells.windows]
    return quantity.decode(np.concatenate(parts, axis=1)).astype(np.float64)


def _fraction(chosen: Requested, level: int, cells: Cells) -> NDArray[np.float64]:
    if level == 0:
        return np.ones(cells.shape)  # a cell without data is NaN already
    dataset = chosen.served.dataset
    parts = [dataset.read_valid_fraction(chosen.quantity, chosen.position, level, w) for w in cells.windows]
    return np.concatenate(parts, axis=1).astype(np.float64)
