"""Hotspots of a mean excess: peaks above what lies in a ring around them, as connected components round the Earth."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.core.grid import Grid
from services.validation.excess import NARROWEST, Lasting, robust_spread
from services.validation.zonal import band_of_rows

type Floats = NDArray[np.floating[Any]]

RING = (1.5, 3.0)
"""Degrees of arc from a cell within which what it must stand above lies."""

QUARTILE = 75
"""Percentile of the ring that counts: a ridge or a coast is as high on two sides and is none. Our choice."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What counts as a hotspot. Our choices, made on the sample Earth (synthetic) with other seeds than the scored."""

    peak: float = 0.75
    """Least height of the peak above its ring, in the field's units (ppm)."""

    edge: float = 0.7
    """Share of that height above which cells around belong to it."""

    spread: float = 4.0
    """Least height of the peak in robust standard deviations of its zonal band."""

    z: float = 3.0
    """Least z over time of the peak."""

    persistence: float = 0.4
    """Least share of months."""


@dataclass(frozen=True, kw_only=True)
class Hotspot:
    """A connected component."""

    longitude: float
    """Of the centroid, weighted by area and height above the edge; degrees east, -180..180."""

    latitude: float
    area_km2: float
    cells: int
    peak: float
    """Height above the ring, in the field's units."""

    mean_anomaly: float
    """Mean of the excess over its cells and the months, weighted by area, in the field's units."""

    robust_z: float
    """Peak over the robust standard deviation of its zonal band."""

    z: float
    """Largest over its cells."""

    persistence: float
    """Of the peak's cell."""

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Hotspots:
    """What was found."""

    labels: NDArray[np.int32]
    """``(y, x)``, place in ``table`` plus 1, 0 where there is none."""

    height: NDArray[np.float64]
    """Above the ring, ``(y, x)``."""

    table: tuple[Hotspot, ...]
    """Highest peak first."""


def find(lasting: Lasting, grid: Grid, limits: Limits | None = None) -> Hotspots:
    """Components of a mean excess that stand above their surroundings, lastingly."""
    chosen = limits or Limits()
    excess = np.nan_to_num(lasting.mean)
    height = excess - ring(excess, grid)
    spread = robust_spread(lasting.mean, band_of_rows(grid))[:, np.newaxis]
    with np.errstate(divide="ignore", invalid="ignore"):
        robust = np.where(spread > 0, height / spread, np.where(height > 0, np.inf, 0.0))
    numbers, count = labelled(height > chosen.peak * chosen.edge, wraps=grid.is_global)
    good = (
        (height >= chosen.peak)
        & (robust >= chosen.spread)
        & (np.nan_to_num(lasting.z) >= chosen.z)
        & (np.nan_to_num(lasting.persistence) >= chosen.persistence)
    )
    table: list[tuple[Hotspot, int]] = []
    areas = np.broadcast_to(grid.row_areas_km2[:, np.newaxis], grid.shape)
    members = _members(numbers, count)
    for number in np.unique(numbers[good]).tolist():
        cells = members[number]
        at = cells[np.where(good.ravel()[cells], height.ravel()[cells], -np.inf).argmax()]
        area = areas.ravel()[cells]
        weight = area * (height.ravel()[cells] - chosen.peak * chosen.edge)
        rows, columns = np.unravel_index(cells, grid.shape)
        middle = grid.longitudes[at % grid.width]
        # longitudes are told from the peak's, so that a component across the antimeridian has one centroid
        east = (grid.longitudes[columns] - middle + 180.0) % 360.0 - 180.0
        found = Hotspot(
            longitude=float((middle + np.average(east, weights=weight) + 180.0) % 360.0 - 180.0),
            latitude=float(np.average(grid.latitudes[rows], weights=weight)),
            area_km2=float(area.sum()),
            cells=len(cells),
            peak=float(height.ravel()[at]),
            mean_anomaly=float(np.average(excess.ravel()[cells], weights=area)),
            robust_z=float(min(robust.ravel()[at], 1e6)),
            z=float(np.nan_to_num(lasting.z).ravel()[cells].max()),
            persistence=float(lasting.persistence.ravel()[at]),
        )
        table.append((found, number))
    table.sort(key=lambda pair: (-pair[0].peak, pair[0].latitude, pair[0].longitude))
    places = np.zeros(count + 1, dtype=np.int32)
    for place, (_, number) in enumerate(table, start=1):
        places[number] = place
    return Hotspots(labels=places[numbers], height=height, table=tuple(found for found, _ in table))


def labelled(mask: NDArray[np.bool_], *, wraps: bool) -> tuple[NDArray[np.int64], int]:
    """Connected components, also over corners, ``(y, x)`` from 1 on, 0 outside, and how many.

    Args:
        mask: ``(y, x)``.
        wraps: whether the last column touches the first.
    """
    found, count = ndimage.label(mask, structure=np.ones((3, 3)))
    numbers: NDArray[np.int64] = found.astype(np.int64)
    if not wraps or count < 2:
        return numbers, count
    same = np.arange(count + 1)

    def root(number: int) -> int:
        while same[number] != number:
            number = int(same[number])
        return number

    last, first = numbers[:, -1], numbers[:, 0]
    for shift in (-1, 0, 1):
        neighbour = np.zeros_like(first)
        rows = slice(max(shift, 0), len(first) + min(shift, 0))
        others = slice(max(-shift, 0), len(first) + min(-shift, 0))
        neighbour[rows] = first[others]
        for one, other in zip(last[neighbour > 0].tolist(), neighbour[neighbour > 0].tolist(), strict=True):
            if one:
                low, high = sorted((root(one), root(other)))
                same[high] = low
    roots = np.array([root(number) for number in range(count + 1)])
    kept, merged = np.unique(roots, return_inverse=True)
    return merged[numbers], len(kept) - 1


def ring(field: Floats, grid: Grid) -> NDArray[np.float64]:
    """The ``QUARTILE`` percentile of what lies within ``RING`` degrees of arc of each cell, ``(y, x)``.

    Cells of a strip of five degrees share the shape of their ring, which goes with 1 / cos(latitude).
    """
    step_y, step_x = float(grid.step_y), float(grid.step_x)
    outer = RING[1]
    high = int(outer / step_y)
    strip = max(round(5.0 / step_y), 1)
    out = np.empty(grid.shape)
    mode: Literal["wrap", "edge"] = "wrap" if grid.is_global else "edge"
    for first in range(0, grid.height, strip):
        rows = slice(first, min(first + strip, grid.height))
        narrow = max(float(np.cos(np.radians(grid.latitudes[rows].mean()))), NARROWEST)
        wide = min(int(outer / step_x / narrow), (grid.width - 1) // 2)
        y = step_y * np.arange(-high, high + 1)
        x = step_x * narrow * np.arange(-wide, wide + 1)
        far = np.hypot(y[:, np.newaxis], x)
        top, bottom = max(first - high, 0), min(rows.stop + high, grid.height)
        padded = np.pad(field[top:bottom], ((0, 0), (wide, wide)), mode=mode)
        told = ndimage.percentile_filter(padded, QUARTILE, footprint=(far >= RING[0]) & (far <= outer), mode="nearest")
        out[rows] = told[first - top : rows.stop - top, wide : wide + grid.width]
    return out


def _members(numbers: NDArray[np.int64], count: int) -> list[NDArray[np.intp]]:
    """Flat places of the cells of each component, by number."""
    flat = numbers.ravel()
    order = np.argsort(flat, kind="stable")
    ends = np.searchsorted(flat[order], np.arange(count + 2))
    return [order[ends[number] : ends[number + 1]] for number in range(count + 1)]
