"""Statistics weighted by area: of a whole map, or of the part of it that a polygon covers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon

from services.core.errors import PositionOutside, QueryError, RequestTooLarge
from services.core.grid import Grid, Window
from services.core.quantity import Quantity
from services.core.settings import Settings
from tiler.cells import Cells, cells_touching
from tiler.geometry import area_of_geojson
from tiler.memory import need
from tiler.numbers import decoded_numbers
from tiler.options import StatisticsParams
from tiler.polygons import boxes_of, covered_fraction, mean_of
from tiler.request import Requested

MOST_CELLS = 3_000_000
"""Cells that are held at once; larger areas are read from the finest level that has no more."""

INTEGRAL_FACTOR, INTEGRAL_UNITS = "area_integral_factor", "area_integral_units"
"""Attributes of a quantity: its value on 1 km2 in other units, and which."""

CELL_BYTES = 80
"""Memory for a cell at the peak: value, area, cover, and what is sorted (measured)."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Cells with a value, and how much of the ground each stands for."""

    values: NDArray[np.float64]
    """Decoded, none missing, ``(n,)``."""

    area: NDArray[np.float64]
    """Relative area of each cell inside the area and with data, ``(n,)``; on the sphere, as levels are averaged."""

    touched: int
    """Cells inside in part or whole, with data or without."""

    asked: float
    """Relative area inside, with data or without."""

    count: float
    """Cells with data, each counted by its share inside."""

    sum: float
    """Of the values, each times that share."""

    ground: float
    """Inside and with data, square kilometres on the WGS84 ellipsoid."""

    integral: float
    """Of the values over that ground, their unit times square kilometres."""

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


def describe_sample(sample: Sample, quantity: Quantity, options: StatisticsParams) -> dict[str, Any]:
    """Titiler's statistics of a band, its mean, standard deviation, median and percentiles weighted by area.

    Statistics that are values themselves (``min``, ``median``, percentiles ...) have the places that values are told
    with. ``count`` and ``sum`` count a cell by the share of it that is inside, as in titiler; ``area_km2`` is the
    ground with data and ``valid_percent`` its share of all the ground asked for. A quantity that says what its sum over
    an area is (its attributes ``area_integral_factor`` and ``area_integral_units``) gets it as ``integral``: of a trend
    in cm yr-1, km3 yr-1.
    """
    percentiles, bins = options.percentiles, options.histogram_bins
    values, area = sample.values, sample.area
    out: dict[str, Any] = {
        "min": None,
        "max": None,
        "mean": None,
        "count": sample.count,
        "sum": None,
        "std": None,
        "median": None,
        "majority": None,
        "minority": None,
        "unique": 0.0,
        "histogram": [[0] * bins, [0.0] * (bins + 1)],
        "valid_percent": 0.0,
        "masked_pixels": float(sample.touched - values.size),
        "valid_pixels": float(values.size),
        "area_km2": sample.ground,
        "level": sample.level,
        **{f"percentile_{percentile:g}": None for percentile in percentiles},
        "description": quantity.name,
        "units": quantity.units,
    }
    factor = quantity.attributes.get(INTEGRAL_FACTOR)
    if isinstance(factor, float):
        out |= {"integral": None, "integral_units": quantity.attributes.get(INTEGRAL_UNITS)}
    if not values.size:
        return out
    if isinstance(factor, float):
        out["integral"] = sample.integral * factor
    mean = mean_of(values, area)
    std = math.sqrt(mean_of((values - mean) ** 2, area))
    heights, edges = np.histogram(values, bins=bins, range=options.limits or _limits(values, bins))
    order = np.argsort(values)
    rising = values[order]
    firsts = np.flatnonzero(np.diff(rising, prepend=-np.inf))
    counts = np.diff(firsts, append=rising.size)
    below = np.cumsum(area[order])
    below /= below[-1]
    shares = [0.5, *(percentile / 100 for percentile in percentiles)]
    quantiles = rising[np.searchsorted(below, shares)]  # the smallest value that such a share does not exceed
    names = ["median", *(f"percentile_{percentile:g}" for percentile in percentiles)]
    extremes = [rising[0], rising[-1], rising[firsts[counts.argmax()]], rising[firsts[counts.argmin()]]]
    chosen = zip(
        ["min", "max", "majority", "minority", *names],
        decoded_numbers(quantity, np.array([*extremes, *quantiles])),
        strict=True,
    )
    out |= {
        **dict(chosen),
        "mean": mean,
        "sum": sample.sum,
        "std": std,
        "unique": float(firsts.size),
        "histogram": [heights.tolist(), edges.tolist()],
        "valid_percent": round(100 * float(area.sum()) / sample.asked, 2),
    }
    return out


def features_of(document: dict[str, Any], most: int) -> list[tuple[dict[str, Any], MultiPolygon]]:
    """The features of a GeoJSON document, each with properties of its own, and their areas.

    Args:
        document: a FeatureCollection, a Feature, or a geometry.
        most: vertices that all areas may have between them.

    Raises:
        QueryError: if it holds none, or what is not an area, or properties that are not an object.
        RequestTooLarge: if they have more vertices.
    """
    match document:
        case {"type": "FeatureCollection", "features": [*features]} if features and all(
            isinstance(feature, dict) for feature in features
        ):
            pass
        case {"type": "FeatureCollection"}:
            raise QueryError("the FeatureCollection has no features")
        case {"type": "Feature"}:
            features = [document]
        case _:
            features = [{"type": "Feature", "geometry": document, "properties": {}}]
    found = []
    for number, feature in enumerate(features):
        if not isinstance(feature.get("properties"), dict | None):
            raise QueryError(f"the properties of feature {number} (from 0) are not an object")
        area = area_of_geojson(feature, most=most)
        most -= int(shapely.get_num_coordinates(area))
        found.append((dict(feature), area))
    return found


def _limits(values: NDArray[np.float64], bins: int) -> tuple[float, float]:
    """Smallest and largest value, moved apart where the edges of bins between them would be the same numbers."""
    low, high = float(values.min()), float(values.max())
    least = 4 * bins * float(np.spacing(max(abs(low), abs(high))))
    if low == high:
        least = max(least, 1.0)  # as numpy has it
    more = max((least - (high - low)) / 2, 0.0)
    return low - more, high + more


def _sample(chosen: Requested, within: MultiPolygon | None, settings: Settings, max_size: int | None) -> Sample:
    dataset = chosen.served.dataset
    for number in _levels(dataset.product.grid):
        grid = dataset.product.grid.level(number)
        if max_size is not None and max(grid.shape) > max_size and number + 1 < dataset.product.grid.levels:
            continue
        cells = _whole(grid) if within is None else cells_touching(grid, boxes_of(within))
        if cells.count <= min(MOST_CELLS, settings.max_cells):
            break
    else:
        raise RequestTooLarge(f"the area has {cells.count} cells at the coarsest level: ask for a smaller one")
    need(CELL_BYTES * cells.count)
    cover = np.ones(cells.shape) if within is None else covered_fraction(within, cells)
    if not cover.any():
        raise PositionOutside("the area covers no cell of the grid")
    values = _values(chosen, number, cells)
    with_data = _fraction(chosen, number, cells)
    if chosen.minus is not None:
        if chosen.minus.served.dataset.product.grid != dataset.product.grid:
            raise PositionOutside("statistics of a difference need two versions on the same grid")
        values -= _values(chosen.minus, number, cells)
        if with_data is not None:
            other = _fraction(chosen.minus, number, cells)
            with_data = other if other is None else np.minimum(with_data, other)
    return _weighed(values, cover, with_data, grid, cells.row, number)


def _weighed(
    values: NDArray[np.float64],
    cover: NDArray[np.float64],
    with_data: NDArray[np.float64] | None,
    grid: Grid,
    row: int,
    level: int,
) -> Sample:
    # in place: there may be millions of cells
    area, ground = (rows[row : row + len(values)] for rows in (grid.row_areas, grid.row_areas_km2))
    touched, asked = int(np.count_nonzero(cover)), float(cover.sum(axis=1) @ area)
    there = (cover > 0) & (area > 0)[:, np.newaxis]
    there &= ~np.isnan(values)
    if with_data is not None:
        there &= with_data > 0
    cover[~there] = 0.0
    values[~there] = 0.0
    count, total = float(cover.sum()), float(np.einsum("yx,yx->", values, cover))
    if with_data is not None:
        cover *= with_data
    rows, integrals = cover.sum(axis=1), np.einsum("yx,yx->y", values, cover)
    cover *= area[:, np.newaxis]
    return Sample(
        values=values[there],
        area=cover[there],
        touched=touched,
        asked=asked,
        count=count,
        sum=total,
        ground=float(rows @ ground),
        integral=float(integrals @ ground),
        level=level,
    )


def _levels(grid: Grid) -> list[int]:
    """Levels whose cells tile the circle: one that was rounded up overlaps itself at the seam."""
    return [number for number in range(grid.levels) if not grid.is_global or grid.width % 2**number == 0]


def _whole(grid: Grid) -> Cells:
    return Cells(grid=grid, row=0, height=grid.height, column=0, width=grid.width)


def _values(chosen: Requested, level: int, cells: Cells) -> NDArray[np.float64]:
    dataset, quantity = chosen.served.dataset, chosen.quantity
    out = np.empty(cells.shape)
    _fill(out, cells, lambda window: quantity.decode(dataset.read_map(quantity, chosen.position, level, window)))
    return out


def _fraction(chosen: Requested, level: int, cells: Cells) -> NDArray[np.float64] | None:
    """Share of each cell that has data; None where a cell without is NaN already."""
    if level == 0:
        return None
    dataset = chosen.served.dataset
    out = np.empty(cells.shape)
    _fill(out, cells, lambda window: dataset.read_valid_fraction(chosen.quantity, chosen.position, level, window))
    return out


def _fill(out: NDArray[Any], cells: Cells, read: Callable[[Window], NDArray[Any]]) -> None:
    column = 0
    for window in cells.windows:
        out[:, column : column + window.width] = read(window)
        column += window.width
