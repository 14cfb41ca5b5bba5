"""Volume change of a region: slopes times the areas of cells, and an error that knows how far cells err together."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from services.core.errors import InputRefused
from services.core.grid import Grid

type Floats = NDArray[np.floating[Any]]

MEAN_RADIUS_KM = 6371.0088
"""For distances: they weigh correlations, and need no ellipsoid."""

LENGTH_KM = 300.0
"""How far errors go together. Our choice: what GRACE resolves."""

BLOCKS_PER_LENGTH = 8
"""Blocks of cells are no wider than the length over this. Our choice: the error is then within half a percent."""

KM3_PER_CM_KM2 = 1e-5

REACH = 4.0
"""Lengths beyond which a correlation, below 2e-7, counts as none."""

AT_ONCE = 4_000_000
"""Distances that are held in memory together."""


@dataclass(frozen=True, kw_only=True)
class VolumeChange:
    """What a region gains or loses in a year."""

    km3_per_year: float
    """Sum of slope times area; of water, 1 km3 is 1 Gt."""

    standard_error: float
    """Of that sum, with the correlation of ``length_km``."""

    independent: float
    """What the error would be if every cell erred on its own: the least."""

    together: float
    """What the error would be if all cells erred together: the most."""

    area_km2: float
    """Area that has a slope."""

    missing_km2: float
    """Area of the region that has none; it is not in the sum."""

    cells: int
    """Cells that have a slope."""

    without_error: int
    """Cells of these whose slope has no standard error; they count with the mean of the others', weighted by area."""

    length_km: float
    """Correlation of two cells a distance d apart: exp(-(d / length_km)^2)."""

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def volume_change(
    slopes: Floats,
    standard_errors: Floats,
    grid: Grid,
    *,
    share: Floats | None = None,
    length_km: float = LENGTH_KM,
) -> VolumeChange:
    """Sum of slope times area, and its error.

    The variance of a sum of w_i b_i is the sum over i and j of w_i s_i w_j s_j exp(-(d_ij / L)^2), with weights w of
    area, standard errors s and great-circle distances d (a Gaussian: our choice; mascons and smoothed harmonics err
    together over some 300 km). With L = 0 this is the error of independent cells, which falls with their square root;
    with L beyond the region it is the sum of all errors. Cells are first gathered to blocks of at most L / 8, each
    taken as one place in the middle of its error: 1.4 million cells of 1 km become some hundreds.

    Args:
        slopes: ``(y, x)`` cm per year, NaN where missing.
        standard_errors: ``(y, x)`` cm per year, NaN where they cannot be told.
        grid: of these cells.
        share: share of each cell that lies in the region and on land, ``(y, x)`` 0..1; all of it by default.
        length_km: L, 0 or more; infinity if all err together.

    Raises:
        InputRefused: if shapes do not fit, numbers cannot be, or no cell of the region has a slope with an error.
    """
    areas = _areas(slopes, standard_errors, grid, share, length_km)
    known = np.isfinite(slopes) & (areas > 0)
    stated = known & np.isfinite(standard_errors)
    if not stated.any():
        raise InputRefused(f"none of {int((areas > 0).sum())} cells of the region has a slope with a standard error")
    mean = np.average(standard_errors[stated], weights=areas[stated])
    error = np.where(known, np.where(stated, standard_errors, mean) * areas, 0.0) * KM3_PER_CM_KM2
    return VolumeChange(
        km3_per_year=float((slopes[known] * areas[known]).sum() * KM3_PER_CM_KM2),
        standard_error=float(np.sqrt(_variance(error, grid, length_km))),
        independent=float(np.sqrt((error**2).sum())),
        together=float(error.sum()),
        area_km2=float(areas[known].sum()),
        missing_km2=float(areas[~known].sum()),
        cells=int(known.sum()),
        without_error=int((known & ~stated).sum()),
        length_km=float(length_km),
    )


def _areas(
    slopes: Floats, standard_errors: Floats, grid: Grid, share: Floats | None, length_km: float
) -> NDArray[np.float64]:
    """Area of the region in each cell, ``(y, x)`` km2."""
    for name, field in (("slopes", slopes), ("standard errors", standard_errors), ("shares", share)):
        if field is not None and field.shape != grid.shape:
            raise InputRefused(f"{name} of {field.shape} cells do not fit a grid of {grid.shape}")
    if (standard_errors < 0).any():
        raise InputRefused(f"a standard error is never {np.nanmin(standard_errors):g}")
    if not length_km >= 0:
        raise InputRefused(f"errors go together over 0 km or more, not {length_km}")
    part = np.ones(grid.shape) if share is None else np.asarray(share, dtype=np.float64)
    if not ((part >= 0) & (part <= 1)).all():
        raise InputRefused("the share of a cell that lies in a region is 0 to 1")
    return part * grid.row_areas_km2[:, None]


def _variance(error: NDArray[np.float64], grid: Grid, length_km: float) -> float:
    """Sum over all pairs of places of error times error times correlation; ``error`` is ``(y, x)``, 0 or more."""
    if np.isinf(length_km):
        return float(error.sum() ** 2)
    if length_km == 0 or not error.any():
        return float((error**2).sum())
    weight, place, latitude = _blocks(error, grid, length_km / BLOCKS_PER_LENGTH)
    # rows of blocks are in order, north to south, so what is near enough lies in one run of them
    reach = np.degrees(REACH * length_km / MEAN_RADIUS_KM) + 1e-9
    first = np.searchsorted(-latitude, -latitude - reach)
    last = np.searchsorted(-latitude, -latitude + reach, side="right")
    total, start = 0.0, 0
    while start < len(weight):
        band = int(last[start] - first[start])
        stop = min(start + max(1, min(band, AT_ONCE // band)), len(weight))
        near = slice(int(first[start]), int(last[stop - 1]))
        chord = cdist(place[start:stop], place[near])
        distance = 2 * MEAN_RADIUS_KM * np.arcsin(np.minimum(chord / 2, 1.0))
        total += float(weight[start:stop] @ np.exp(-((distance / length_km) ** 2)) @ weight[near])
        start = stop
    return total


def _blocks(
    error: NDArray[np.float64], grid: Grid, size_km: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Sums of error over blocks ``(block,)``, their unit vectors ``(block, 3)`` and latitudes, north to south.

    A block is ``tall`` rows and, by its latitude, ``wide`` columns of cells, at least one of each.
    """
    degree = np.radians(1.0) * MEAN_RADIUS_KM
    tall = max(1, int(size_km / (float(grid.step_y) * degree)))
    weights, longitudes, latitudes = [], [], []
    for top in range(0, grid.height, tall):
        rows = error[top : top + tall]
        if not rows.any():
            continue
        middle = grid.latitudes[top : top + tall]
        width = float(grid.step_x) * degree * max(np.cos(np.radians(np.abs(middle).min())), 1e-6)
        wide = min(max(1, int(size_km / width)), grid.width)
        starts = np.arange(0, grid.width, wide)
        weight = np.add.reduceat(rows.sum(axis=0), starts)
        held = weight > 0
        east = np.add.reduceat(rows.sum(axis=0) * grid.longitudes, starts)[held] / weight[held]
        north = np.add.reduceat(middle @ rows, starts)[held] / weight[held]
        order = np.argsort(-north, kind="stable")
        weights.append(weight[held][order])
        longitudes.append(east[order])
        latitudes.append(north[order])
    weight, east, north = (np.concatenate(parts) for parts in (weights, longitudes, latitudes))
    lam, phi = np.radians(east), np.radians(north)
    place = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1)
    return weight, place, north
