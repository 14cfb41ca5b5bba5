"""Area-weighted monthly means of the globe, zones and polygons of a collection, and what is fitted to them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import Refused
from services.core.grid import windows
from services.pipeline.trend import TrendRecipe
from services.sources.polygons import Polygons, covered
from services.validation.season import season
from services.validation.trend import annual_cycle, ols
from services.validation.zonal import band_name, band_of_rows

ZONES = (10.0, 30.0)
"""Degrees of latitude of the bands. Our choice."""

HARMONICS = 2

LEAST_SHARE = 0.5
"""Share of a region's area that a month must have values for. Our choice: below it a mean is that of another place."""

type Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Means:
    """Monthly means of regions."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    """globe, zone 10, zone 30 or polygon."""

    means: Values
    """``(month, region)`` in the collection's units; NaN where less than ``LEAST_SHARE`` of the region is known."""

    shares: Values
    """Of the region's area that has values, ``(month, region)``, 0..1."""

    areas: Values
    """km2, ``(region,)``."""


def region_means(trend: TrendRecipe, polygons: Polygons | None) -> Means:
    """Means of all cells whose centre lies in a region, weighted by their exact areas; a strip of rows at a time.

    Regions without a cell are left out.
    """
    grid, months = trend.whole.grid, trend.months.starts
    count = 0 if polygons is None else len(polygons)
    sums, known = np.zeros((2, len(months), grid.height))
    inside_sums, inside_known = np.zeros((2, len(months), count))
    inside_areas = np.zeros(count)
    areas = grid.row_areas_km2
    for strip in windows(grid.shape, (grid.chunk_y, grid.width)):
        index = None if polygons is None else covered(polygons, grid, strip).ravel()
        weight = np.repeat(areas[strip.rows], strip.width)
        if index is not None:
            held = index >= 0
            inside_areas += np.bincount(index[held], weights=weight[held], minlength=count)
        for place, month in enumerate(months):
            values = trend.map_of(month, strip)
            there = ~np.isnan(values)
            sums[place, strip.rows] = np.where(there, values, 0.0).sum(axis=1)
            known[place, strip.rows] = there.sum(axis=1)
            if index is not None:
                flat = held & there.ravel()
                at = index[flat]
                inside_known[place] += np.bincount(at, weights=weight[flat], minlength=count)
                inside_sums[place] += np.bincount(at, weights=(weight * values.ravel())[flat], minlength=count)
    names, kinds, found, shares, whole = [], [], [], [], []
    for name, kind, rows in _zones(trend):
        total = float(areas[rows].sum()) * grid.width
        area = (known[:, rows] * areas[rows]).sum(axis=1)
        names.append(name)
        kinds.append(kind)
        found.append(_divided((sums[:, rows] * areas[rows]).sum(axis=1), area))
        shares.append(area / total)
        whole.append(total)
    for number in range(count) if polygons is not None else ():
        if inside_areas[number] > 0:
            names.append(polygons.names[number] if polygons is not None else "")
            kinds.append("polygon")
            found.append(_divided(inside_sums[:, number], inside_known[:, number]))
            shares.append(inside_known[:, number] / inside_areas[number])
            whole.append(float(inside_areas[number]))
    means, share = np.stack(found, axis=1), np.stack(shares, axis=1)
    means[share < LEAST_SHARE] = np.nan
    return Means(names=tuple(names), kinds=tuple(kinds), means=means, shares=share, areas=np.array(whole))


def table(means: Means, months: NDArray[np.int64], level: float = 0.95) -> list[dict[str, Any]]:
    """Growth with its interval, and the annual cycle, of every region; None where it cannot be told."""
    found = ols(means.means, months, harmonics=HARMONICS)
    low, high = found.interval(level)
    cycle = season(annual_cycle(means.means, months, harmonics=HARMONICS))
    known = ~np.isnan(means.means)
    mean = _divided(np.where(known, means.means, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))
    return [
        {
            "region": name,
            "kind": means.kinds[at],
            "area_km2": round(float(means.areas[at]), 1),
            "months": int(found.months[at]),
            "share_of_area": _number(means.shares[:, at].mean()),
            "mean": _number(mean[at]),
            "growth": _number(found.slope[at]),
            "standard_error": _number(found.standard_error[at]),
            "low": _number(low[at]),
            "high": _number(high[at]),
            "p_value": _number(found.p_value[at]),
            "lag1_autocorrelation": _number(found.r1[at]),
            "degrees_of_freedom": _number(found.freedom[at]),
            "amplitude": _number(cycle.amplitude[at]),
            "maximum_month": _number(cycle.maximum[at]),
        }
        for at, name in enumerate(means.names)
    ]


def _zones(trend: TrendRecipe) -> Iterator[tuple[str, str, NDArray[np.intp]]]:
    """Name, kind and rows of the globe (or all there is of it) and the zones that the grid has rows in."""
    grid = trend.whole.grid
    yield ("globe" if grid.is_global else "all cells"), "globe", np.arange(grid.height)
    for width in ZONES:
        bands = band_of_rows(grid, width)
        for band in np.unique(bands).tolist():
            yield band_name(band, width), f"zone {width:g}", np.flatnonzero(bands == band)


def _divided(total: Values, by: Values) -> Values:
    found: Values = np.divide(total, by, out=np.full(total.shape, np.nan), where=by > 0)
    return found


def _number(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def check_covered(means: Means, asked: Polygons | None) -> None:
    """Refuse polygons none of which holds a cell.

    Raises:
        Refused: naming the file.
    """
    if asked is not None and "polygon" not in means.kinds:
        raise Refused(f"{asked.documents[0].name}: no polygon holds the centre of a cell of the collection")
