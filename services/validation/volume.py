"""Volume change of a region: slopes times the areas of cells, and an error that knows how far cells err together."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from services.core.errors import InputRefused
from services.core.grid import Grid, Window

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
class RegionSum:
    """Sum of value times area over a region, of a trend of water what it gains or loses in a year."""

    total: float
    """Sum of value times area; of cm a year as ``volume_change`` has it km3 a year, which of water are Gt a year."""

    standard_error: float
    """Of that sum, with the correlation of ``length_km``; NaN, as the next two, where no cell has an error."""

    independent: float
    """What the error would be if every cell erred on its own: the least."""

    together: float
    """What the error would be if all cells erred together: the most."""

    area_km2: float
    """Area that has a value."""

    missing_km2: float
    """Area of the region that has none; it is not in the sum."""

    cells: int
    """Cells that have a value."""

    without_error: int
    """Cells of these whose value has no standard error; they count with the mean of the others', weighted by area."""

    length_km: float
    """Correlation of two cells a distance d apart: exp(-(d / length_km)^2)."""

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    def times(self, factor: float) -> "RegionSum":
        """In another unit, one of which is ``1 / factor`` of these; more than 0."""
        names = ("total", "standard_error", "independent", "together")
        return replace(self, **{name: factor * getattr(self, name) for name in names})


class Gathered:
    """A region's cells, told window by window in any order; what is kept are sums over blocks of at most L / 8.

    The variance of a sum of w_i b_i is the sum over i and j of w_i s_i w_j s_j exp(-(d_ij / L)^2), with weights w of
    area, standard errors s and great-circle distances d (a Gaussian: our choice; mascons and smoothed harmonics err
    together over some 300 km). With L = 0 this is the error of independent cells, which falls with their square root;
    with L beyond the region it is the sum of all errors. Each block is taken as one place in the middle of its error:
    1.4 million cells of 1 km become some hundreds.

    Args:
        grid: of the cells.
        length_km: L, 0 or more; infinity if all err together.

    Raises:
        InputRefused: if the length cannot be.
    """

    def __init__(self, grid: Grid, length_km: float = LENGTH_KM) -> None:
        if not length_km >= 0:
            raise InputRefused(f"errors go together over 0 km or more, not {length_km}")
        self.grid, self.length_km = grid, length_km
        size = min(length_km, MEAN_RADIUS_KM * 1e3) / BLOCKS_PER_LENGTH
        degree = np.radians(1.0) * MEAN_RADIUS_KM
        self._tall = max(1, int(size / (float(grid.step_y) * degree)))
        nearest = np.minimum.reduceat(np.abs(grid.latitudes), np.arange(0, grid.height, self._tall))
        width = float(grid.step_x) * degree * np.maximum(np.cos(np.radians(nearest)), 1e-6)
        self._wide = np.clip((size / width).astype(np.int64), 1, grid.width)
        """Columns of the blocks of each row of blocks."""
        self._total = self._area = self._missing = self._squares = self._bare_squares = 0.0
        self._cells = self._bare = 0
        self._blocks: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []

    def add(self, values: Floats, standard_errors: Floats, share: Floats, window: Window) -> None:
        """Take a window's cells in; none may be told twice.

        Args:
            values: ``(y, x)``, NaN where missing.
            standard_errors: ``(y, x)``, NaN where they cannot be told.
            share: of each cell's area that lies in the region, ``(y, x)``, 0..1.
            window: of the grid.

        Raises:
            InputRefused: if shapes do not fit or numbers cannot be.
        """
        for name, field in (("values", values), ("standard errors", standard_errors), ("shares", share)):
            if field.shape != window.shape:
                raise InputRefused(f"{name} of {field.shape} cells do not fit a window of {window.shape}")
        if (standard_errors < 0).any():
            raise InputRefused(f"a standard error is never {np.nanmin(standard_errors):g}")
        if not ((share >= 0) & (share <= 1)).all():
            raise InputRefused("the share of a cell that lies in a region is 0 to 1")
        areas = share * self.grid.row_areas_km2[window.rows, None]
        known = np.isfinite(values) & (areas > 0)
        self._missing += float(areas[~known].sum())
        if not known.any():
            return
        rows, columns = np.nonzero(known)
        area, error = areas[known], np.asarray(standard_errors, dtype=np.float64)[known]
        bare = ~np.isfinite(error)
        error = np.where(bare, 0.0, error) * area
        unsaid = np.where(bare, area, 0.0)
        self._total += float((values[known] * area).sum())
        self._area += float(area.sum())
        self._squares += float((error**2).sum())
        self._bare_squares += float((unsaid**2).sum())
        self._cells += area.size
        self._bare += int(bare.sum())
        rows, columns = rows + window.row, columns + window.column
        row = rows // self._tall
        ids, at = np.unique(row * self.grid.width + columns // self._wide[row], return_inverse=True)
        east, north = self.grid.longitudes[columns], self.grid.latitudes[rows]
        terms = [one * where for one in (error, unsaid) for where in (1.0, east, north)]
        self._blocks.append((ids, np.stack([np.bincount(at, weights=term) for term in terms])))

    def sum(self) -> RegionSum:
        """What has been told so far."""
        stated = self._area - sum(float(terms[3].sum()) for _, terms in self._blocks)
        found = {"standard_error": np.nan, "independent": np.nan, "together": np.nan}
        if self._cells > self._bare:
            mean = sum(float(terms[0].sum()) for _, terms in self._blocks) / stated
            weight, place, latitude = self._places(mean)
            independent = self._squares + mean**2 * self._bare_squares
            together = float(weight.sum())
            if self.length_km == 0 or not weight.size:
                variance = independent
            elif np.isinf(self.length_km):
                variance = together**2
            else:
                variance = _variance(weight, place, latitude, self.length_km)
            found = {
                "standard_error": float(np.sqrt(variance)),
                "independent": float(np.sqrt(independent)),
                "together": together,
            }
        return RegionSum(
            total=self._total,
            area_km2=self._area,
            missing_km2=self._missing,
            cells=self._cells,
            without_error=self._bare,
            length_km=float(self.length_km),
            **found,
        )

    def _places(self, mean: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Sums of error over blocks ``(block,)``, their unit vectors ``(block, 3)``, latitudes north to south.

        Args:
            mean: error of the cells that state none.
        """
        ids, at = np.unique(np.concatenate([ids for ids, _ in self._blocks]), return_inverse=True)
        terms = np.concatenate([terms for _, terms in self._blocks], axis=1)
        joined = np.stack([np.bincount(at, weights=term, minlength=len(ids)) for term in terms])
        weight, east, north = joined[:3] + mean * joined[3:]
        some = weight > 0
        weight, east, north = weight[some], east[some] / weight[some], north[some] / weight[some]
        order = np.argsort(-north, kind="stable")
        weight, east, north = weight[order], east[order], north[order]
        lam, phi = np.radians(east), np.radians(north)
        place = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1)
        return weight, place, north


def volume_change(
    slopes: Floats,
    standard_errors: Floats,
    grid: Grid,
    *,
    share: Floats | None = None,
    length_km: float = LENGTH_KM,
) -> RegionSum:
    """Sum of slope times area in km3 a year, and its error; see ``Gathered``.

    Args:
        slopes: ``(y, x)`` cm per year, NaN where missing.
        standard_errors: ``(y, x)`` cm per year, NaN where they cannot be told.
        grid: of these cells.
        share: share of each cell that lies in the region and on land, ``(y, x)`` 0..1; all of it by default.
        length_km: L, 0 or more; infinity if all err together.

    Raises:
        InputRefused: if shapes do not fit, numbers cannot be, or no cell of the region has a slope with an error.
    """
    gathered = Gathered(grid, length_km)
    part = np.ones(grid.shape) if share is None else np.asarray(share, dtype=np.float64)
    gathered.add(slopes, standard_errors, part, Window(row=0, column=0, height=grid.height, width=grid.width))
    found = gathered.sum()
    if found.cells == found.without_error:
        raise InputRefused(f"none of {int((part > 0).sum())} cells of the region has a slope with a standard error")
    return found.times(KM3_PER_CM_KM2)


def _variance(
    weight: NDArray[np.float64], place: NDArray[np.float64], latitude: NDArray[np.float64], length_km: float
) -> float:
    """Sum over all pairs of places of weight times weight times correlation; north to south."""
    # places are in order, north to south, so what is near enough lies in one run of them
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
