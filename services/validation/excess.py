"""What stands out of a field locally, month by month: less what lies around and what guides around explain.

Emission plumes are a degree or two wide. Coasts, islands, deserts and forests are as sharp and as lasting, and larger
gradients are larger; so the background of a cell is the regression on *guides* (share of land, temperature, ...) of the
cells around it, weighted by a Gaussian of ``REACH`` degrees. Nothing that follows emissions may be a guide. Scales were
chosen on the sample Earth (synthetic) with other seeds than those that are scored.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.core.errors import InputRefused
from services.core.grid import Grid
from services.validation.zonal import band_of_rows

type Floats = NDArray[np.floating[Any]]

REACH = 1.25
"""Standard deviation of the Gaussian that weighs what lies around, degrees. Our choice: of 1, 1.25 and 1.5 the best; at
4 degrees, and with no guide, coasts are taken for emitters."""

RIDGE = 0.005
"""Added to the variances of the guides, each of which has a variance of 1 over the globe: where they hardly vary they
explain nothing."""

BLUR = 0.25
"""Standard deviation of the Gaussian that takes noise between cells off, degrees."""

SOFT = 0.5
"""Standard deviation of the Gaussian that guides are smoothed by, degrees: winds move the air over a coast, so that a
column follows it less sharply. Our choice: sharp coasts on the sample Earth make false peaks."""

WIDEST = 1.0
"""Degrees of a cell from which on a plume is not seen any more."""

NARROWEST = 0.15
"""Cosine of latitude below which cells are not taken for narrower any more."""


@dataclass(frozen=True, kw_only=True)
class Around:
    """Local background on a grid: guides and their moments, made once for all months."""

    grid: Grid
    guides: Floats
    """``(guide, y, x)``, standardised."""

    inverse: Floats
    """Of the guides' covariances, ``(y, x, guide, guide)``."""

    @classmethod
    def of(cls, grid: Grid, guides: Floats) -> "Around":
        """Prepare guides.

        Args:
            grid: of the field; cells of at most ``WIDEST`` degrees.
            guides: ``(guide, y, x)`` in any units; there may be none. A missing value counts as the guide's mean.

        Raises:
            InputRefused: if the cells are too wide or shapes do not fit.
        """
        if max(grid.step_x, grid.step_y) > WIDEST:
            raise InputRefused(
                f"cells of {float(grid.step_x):g} degrees do not show plumes; hotspots need {WIDEST:g} or finer"
            )
        if guides.ndim != 3 or guides.shape[1:] != grid.shape:
            raise InputRefused(f"guides {guides.shape} are not (guide, y, x) of a grid of {grid.shape}")
        areas = np.broadcast_to(grid.row_areas_km2[:, np.newaxis], grid.shape)
        scaled = (
            np.stack([_standardised(guide, areas) for guide in guides]) if len(guides) else np.empty((0, *grid.shape))
        )
        edge = gaussian(np.ones(grid.shape), grid, SOFT)
        scaled = np.stack([gaussian(guide, grid, SOFT) / edge for guide in scaled]) if len(guides) else scaled
        weight = gaussian(np.ones(grid.shape), grid, REACH)
        means = [gaussian(guide, grid, REACH) / weight for guide in scaled]
        count = len(scaled)
        inverse = np.empty((*grid.shape, count, count), dtype=np.float32)
        for one in range(count):
            for other in range(one + 1):
                both = gaussian(scaled[one] * scaled[other], grid, REACH) / weight - means[one] * means[other]
                inverse[..., one, other] = inverse[..., other, one] = both + RIDGE * (one == other)
        for row in range(grid.height if count else 0):
            inverse[row] = np.linalg.inv(inverse[row].astype(np.float64))
        return cls(grid=grid, guides=scaled, inverse=inverse)

    def excess(self, field: Floats) -> NDArray[np.float64]:
        """The field less its local background, smoothed over ``BLUR``, ``(y, x)``; NaN where the field is missing."""
        known = ~np.isnan(field)
        if not known.any():
            return np.full(field.shape, np.nan)
        # less a value of its own, sums keep their digits; the missing take no part but in the guides' moments
        values = np.where(known, field - np.mean(field[known]), 0.0)
        weight = gaussian(known.astype(np.float64), self.grid, REACH)
        weight = np.where(weight > 1e-9, weight, np.nan)
        level = gaussian(values, self.grid, REACH) / weight
        covariances = np.empty((*field.shape, len(self.guides)))
        departures = np.empty_like(covariances)
        for number, guide in enumerate(self.guides):
            mean = gaussian(guide * known, self.grid, REACH) / weight
            covariances[..., number] = gaussian(guide * values, self.grid, REACH) / weight - mean * level
            departures[..., number] = guide - mean
        explained = np.einsum("yxg,yxgh,yxh->yx", departures, self.inverse, covariances)
        left = np.where(known, values - level - explained, 0.0)
        smooth = gaussian(left, self.grid, BLUR) / gaussian(known.astype(np.float64), self.grid, BLUR).clip(1e-9)
        return np.where(known, smooth, np.nan)


@dataclass(frozen=True, kw_only=True)
class Lasting:
    """How an excess lasts over the months; arrays are ``(y, x)`` float64, NaN where fewer than two months are there."""

    mean: NDArray[np.float64]
    z: NDArray[np.float64]
    """The mean over its standard error, which knows lag-1 autocorrelation and the stated uncertainty."""

    persistence: NDArray[np.float64]
    """Share of the months in which the excess passes one robust standard deviation of its zonal band, 0..1; chance
    gives about 0.16."""

    months: NDArray[np.int64]


class Months:
    """Gathers the excess of months, one after another; memory does not grow with them."""

    def __init__(self, grid: Grid) -> None:
        self._bands = band_of_rows(grid)
        self._sums = {name: np.zeros(grid.shape) for name in ("one", "squares", "pairs", "stated", "high")}
        self._count = np.zeros(grid.shape, dtype=np.int64)
        self._both = np.zeros(grid.shape, dtype=np.int64)
        self._before: tuple[int, NDArray[np.float64]] | None = None

    def add(self, month: int, excess: Floats, stated: Floats | None = None) -> None:
        """Add a month later than those before it.

        Args:
            month: since 1970-01; months that follow each other make pairs, those about a gap do not.
            excess: ``(y, x)``, NaN where missing.
            stated: standard deviation of the field's error, ``(y, x)``; None where none is stated.
        """
        known = ~np.isnan(excess)
        values = np.where(known, excess, 0.0)
        spread = robust_spread(excess, self._bands)
        self._count += known
        self._sums["one"] += values
        self._sums["squares"] += values**2
        self._sums["high"] += known & (values > spread[:, np.newaxis])
        if stated is not None:
            self._sums["stated"] += np.where(known & ~np.isnan(stated), stated, 0.0) ** 2
        if self._before is not None and self._before[0] == month - 1:
            before = self._before[1]
            both = known & ~np.isnan(before)
            self._both += both
            self._sums["pairs"] += np.where(both, values * np.nan_to_num(before), 0.0)
        self._before = month, np.where(known, excess, np.nan)

    def lasting(self) -> Lasting:
        """What was gathered.

        The variance of a month's value is that of the values over time or the mean stated one, whichever is larger; r,
        0 where it is below or no month follows another, leaves n (1 - r) / (1 + r) of n months (our choice: the stated
        error holds what neighbours share, too, so that z is rather too small than too large).
        """
        told = self._count >= 2
        count = np.maximum(self._count, 2).astype(np.float64)
        mean = self._sums["one"] / count
        variance = np.maximum(self._sums["squares"] - count * mean**2, 0.0) / (count - 1)
        pairs = self._sums["pairs"] / np.maximum(self._both, 1) - mean**2
        r = np.clip(np.divide(pairs, variance, out=np.zeros_like(pairs), where=variance > 0), 0.0, 0.95)
        larger = np.maximum(variance, self._sums["stated"] / count)
        error = np.sqrt(larger / count * (1 + r) / (1 - r))
        z = np.divide(mean, error, out=np.zeros_like(mean), where=error > 0)
        return Lasting(
            mean=np.where(told, mean, np.nan),
            z=np.where(told, z, np.nan),
            persistence=np.where(told, self._sums["high"] / count, np.nan),
            months=self._count,
        )


def robust_spread(field: Floats, bands: NDArray[np.int64]) -> NDArray[np.float64]:
    """1.4826 times the median absolute deviation of the cells of each row's band, ``(y,)``; NaN for an empty band."""
    spread = np.full(len(bands), np.nan)
    for band in np.unique(bands):
        cells = field[bands == band]
        cells = cells[~np.isnan(cells)]
        if cells.size:
            spread[bands == band] = 1.4826 * np.median(np.abs(cells - np.median(cells)))
    return spread


def gaussian(field: Floats, grid: Grid, degrees: float) -> NDArray[np.float64]:
    """A Gaussian of so many degrees of arc along both axes, ``(y, x)``; nothing lies beyond the grid's edges.

    Along a row its width goes with 1 / cos(latitude), so it is the same on the ground; a global grid goes round.
    """
    step_y, step_x = float(grid.step_y), float(grid.step_x)
    along = ndimage.gaussian_filter1d(
        np.asarray(field, np.float64), degrees / step_y, axis=0, mode="constant", truncate=4.0
    )
    narrow = np.maximum(np.cos(np.radians(grid.latitudes)), NARROWEST)
    width = degrees / step_x / narrow
    pad = 0 if grid.is_global else int(np.ceil(4 * width.max()))
    wide = np.pad(along, ((0, 0), (0, pad)))
    waves = np.fft.rfftfreq(wide.shape[1])
    response = np.exp(-2 * (np.pi * width[:, np.newaxis] * waves) ** 2)
    smooth: NDArray[np.float64] = np.fft.irfft(np.fft.rfft(wide, axis=1) * response, n=wide.shape[1], axis=1)
    return smooth[:, : grid.width]


def _standardised(guide: Floats, areas: Floats) -> NDArray[np.float64]:
    known = ~np.isnan(guide)
    if not known.any():
        return np.zeros(guide.shape)
    mean = np.average(guide[known], weights=areas[known])
    spread = np.sqrt(np.average((guide[known] - mean) ** 2, weights=areas[known]))
    return np.where(known, (guide - mean) / (spread or 1.0), 0.0)
