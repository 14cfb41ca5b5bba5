"""What the network leaves over at a place month after month: a plume that no covariate tells of, or one told in vain.

Arrays in, arrays out. Of what is left over in the cells of a lattice, month by month, the mean over the months is
taken, and plumes of a few widths are sought in it: at every cell the height of one upon an even ground is fitted to
what lies around by weighted least squares; the surest are taken off and told, and so on until none is sure or ROUNDS
are over (matching pursuit, Mallat and Zhang 1993; CLEAN, Hoegbom 1974). So a plume has its height between ground
tracks, where no sounding falls, as far as LEAST_SEEN lets it; a gradient is none, and elsewhere it is 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.core.grid import Grid
from services.products.xco2_global.nearby import Values
from services.validation.excess import NARROWEST
from services.validation.hotspots import arcs

WIDTHS = (0.45, 0.7, 1.0)
"""Standard deviations of plumes, degrees, where the lattice is fine enough (our choice, on the sample Earth).

A narrow one has less of what months have in common in its error, so that one of 0.7 or 1 degree comes out up to 1.4
times too high. To choose by the sum of squares does not, and tells plumes of the sample Earth too wide and too low.
"""

LEAST_CELLS = 0.9
"""In cells of the lattice: least standard deviation of a plume; a narrower one cannot be told from noise."""

AROUND = 4.5
"""In widths of a plume: standard deviation of the Gaussian that weighs what lies around (our choice)."""

SURE = 3.0
"""Standard errors of its height from which on it is told (our choice, on the sample Earth)."""

HEIGHT = 1.0
"""ppm: mean of how high plumes are. Beside a lone track a high one far off and a low one under it fit alike, and the
low one is likelier (our choice)."""

LASTING = 0.2
"""ppm: standard deviation of what is the same in all months in a cell, and no plume (our choice)."""

COAST = 0.5
"""ppm: the same where half of a cell is land: soundings see its land or its sea, month after month. Our choice; on the
sample Earth (synthetic) means of what is seen depart there by 0.4 ppm from those of whole cells."""

MONTHLY = 1.0
"""ppm: standard deviation of what the soundings of a month have in common near a plume (our choice): of what was seen
in few months, little is sure however many cells it was seen in."""

PATCH = 2.0
"""Widths of what they have in common."""

APART = 5.0
"""Widths between plumes that are taken off together; they are fitted each as if it were alone."""

LEAST = 0.02
"""ppm below which nothing is told."""

OFTEN = 0.25
"""Share of the months of the cell that is seen most: one that is seen so often tells what lasts (our choice)."""

LEAST_MONTHS = 6
"""Of such a cell, however few months there are: of two or three nothing is known to last (our choice)."""

LEAST_SEEN = 0.1
"""Share of a plume, by its square, that must lie in such cells: a few visits do not show what lasts, and an edge alone
not how high it is. With every third column seen it is 0.18 midway between two of them at the least width."""

REACH = 6.0
"""Widths from its middle where a plume ends."""

NOTHING = 1e-3
"""1/ppm^2 below which nothing is known: what is left of far soundings, and of rounding."""

ROUNDS = 20


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Of the months so far, weighted by 1 / variance; all arrays ``(y, x)`` of a lattice."""

    weight: Values
    one: Values
    """ppm."""

    square: Values
    months: NDArray[np.int64]

    @classmethod
    def nothing(cls, lattice: Grid) -> Self:
        """Of no month."""
        return cls(
            weight=np.zeros(lattice.shape),
            one=np.zeros(lattice.shape),
            square=np.zeros(lattice.shape),
            months=np.zeros(lattice.shape, np.int64),
        )

    def add(self, lattice: Grid, latitude: Values, longitude: Values, value: Values, variance: Values) -> None:
        """Add a month.

        Cells of one month in one cell of the lattice count as one: they are of an overpass or two.

        Args:
            lattice: of the sums.
            latitude: of cells with soundings, degrees, ``(cell,)``.
            longitude: degrees, ``(cell,)``.
            value: what is left over, ppm, ``(cell,)``; NaN where nothing is known.
            variance: of it, ppm^2, ``(cell,)``.
        """
        known = np.isfinite(value) & np.isfinite(variance)
        if not known.any():
            return
        row = ((float(lattice.north) - latitude[known]) / float(lattice.step_y)).astype(np.int64)
        column = ((longitude[known] - float(lattice.west)) / float(lattice.step_x)).astype(np.int64)
        place = np.clip(row, 0, lattice.height - 1) * lattice.width + column % lattice.width
        places, which, count = np.unique(place, return_inverse=True, return_counts=True)
        weight = 1.0 / variance[known]
        total = np.bincount(which, weight)
        mean = np.bincount(which, weight * value[known]) / total
        total /= count
        for kept, added in ((self.weight, total), (self.one, total * mean), (self.square, total * mean**2)):
            kept.ravel()[places] += added
        self.months.ravel()[places] += 1

    @property
    def mean(self) -> Values:
        """ppm; NaN where it was never seen."""
        return np.divide(self.one, self.weight, out=np.full_like(self.one, np.nan), where=self.months > 0)

    @property
    def variance(self) -> Values:
        """Of the mean, ppm^2: months vary about it as all of them do, in units of what they were weighted by.

        NaN where it was never seen.
        """
        seen = self.months > 0
        free = float((self.months[seen] - 1).sum())
        about = float((self.square[seen] - self.one[seen] ** 2 / self.weight[seen]).sum())
        factor = about / free if free else 1.0
        return np.divide(factor, self.weight, out=np.full_like(self.one, np.nan), where=seen)


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """Plumes of one width at every cell; all arrays ``(y, x)``."""

    lattice: Grid
    weight: Values
    width: float
    """Standard deviation, degrees."""

    plain: Values
    """Mean of the plume over what is seen around its middle."""

    free: Values
    """What tells of a height beside the ground, 1/ppm^2."""

    error: Values
    """Standard error of a height, ppm; infinite where none is told."""

    @classmethod
    def of(cls, sums: Sums, lattice: Grid, weight: Values, width: float) -> Self:
        """Of what is seen with these weights, 1/ppm^2."""
        around = AROUND * width

        def moment(field: Values, *widths: float) -> Values:
            return _sums_around(field, lattice, float(np.sum(1.0 / np.square(widths)) ** -0.5))

        ground, mixed = moment(weight, around), moment(weight, width, around)
        square = moment(weight, width, width, around)
        plain = _divided(mixed, ground, ground > NOTHING)
        free = square - mixed * plain
        near = moment(weight, width)
        months = _divided(moment(weight * sums.months, width), near, near > NOTHING)
        every = np.ones(lattice.shape)
        often = (sums.months >= max(OFTEN * sums.months.max(), LEAST_MONTHS)).astype(np.float64)
        seen = moment(often, width, width) / moment(every, width, width)
        told = (seen > LEAST_SEEN) & (ground > NOTHING) & (free > NOTHING) & (months > 0)
        patch = PATCH * width
        taken = _divided(moment(weight, patch, width, around) - plain * moment(weight, patch, around), free, told)
        error = np.sqrt(_divided(every, free, told) + (MONTHLY * taken) ** 2 * _divided(every, months, told))
        return cls(
            lattice=lattice,
            weight=weight,
            width=width,
            plain=plain,
            free=np.where(told, free, np.inf),
            error=np.where(told, error, np.inf),
        )

    def heights(self, left: Values) -> Values:
        """Of the plume that fits best at each cell, ppm; 0 where none is told."""
        around = AROUND * self.width
        values = self.weight * left
        narrow = _sums_around(values, self.lattice, (self.width**-2 + around**-2) ** -0.5)
        return (narrow - self.plain * _sums_around(values, self.lattice, around)) / self.free

    def likely(self, heights: Values) -> Values:
        """Logarithm of the odds of these heights against none, but for a constant; -inf where none is sure."""
        sure = np.abs(heights) / self.error
        return np.where(sure > SURE, 0.5 * sure**2 - np.abs(heights) / HEIGHT, -np.inf)


def lasting(sums: Sums, lattice: Grid, land: Values | None = None) -> NDArray[np.float32]:
    """What lasts.

    Args:
        sums: of all months.
        lattice: theirs.
        land: share of land of its cells, ``(y, x)``, 0..1, NaN where it is not known; None: coasts are as all else.

    Returns:
        ppm, ``(y, x)``; 0 where nothing is sure.
    """
    known = ~np.isnan(sums.mean)
    share = np.zeros(lattice.shape) if land is None else np.clip(np.nan_to_num(land), 0.0, 1.0)
    variance = np.where(known, sums.variance, 1.0) + LASTING**2 + COAST**2 * 4.0 * share * (1.0 - share)
    weight = np.where(known, 1.0 / variance, 0.0)
    values = np.nan_to_num(sums.mean)
    least = LEAST_CELLS * max(float(lattice.step_x), float(lattice.step_y))
    shapes = [_Shape.of(sums, lattice, weight, width) for width in sorted({max(width, least) for width in WIDTHS})]
    found = np.zeros(lattice.shape)
    for _ in range(ROUNDS):
        heights = [shape.heights(values - found) for shape in shapes]
        likely = np.stack([shape.likely(height) for height, shape in zip(heights, shapes, strict=True)])
        best = likely.argmax(axis=0)
        places = list(_peaks(likely.max(axis=0), lattice, APART * shapes[-1].width))
        for row, column in places:
            which = int(best[row, column])
            _add_plume(found, lattice, row, column, heights[which][row, column], shapes[which].width)
        if not places:
            break
    return np.where(np.abs(found) < LEAST, 0.0, found).astype(np.float32)


def _divided(one: Values, other: Values, where: NDArray[np.bool_]) -> Values:
    """A quotient; 0 elsewhere."""
    return np.divide(one, other, out=np.zeros_like(one), where=where)


def _sums_around(field: Values, lattice: Grid, width: float) -> Values:
    """Sums of cells weighted by exp(-d^2 / 2 width^2), d in degrees of arc as at the middle's latitude."""
    step = float(lattice.step_y)
    up = step * np.arange(-int(REACH * width / step), int(REACH * width / step) + 1)
    rows = ndimage.correlate1d(field, np.exp(-(up**2) / (2 * width**2)), axis=0, mode="constant")
    right = (lattice.longitudes - lattice.longitudes[0] + 180.0) % 360.0 - 180.0
    along = np.exp(-((_narrow(lattice)[:, np.newaxis] * right) ** 2) / (2 * width**2))
    found: Values = np.fft.irfft(np.fft.rfft(rows, axis=1) * np.fft.rfft(along, axis=1), n=lattice.width, axis=1)
    return found


def _add_plume(field: Values, lattice: Grid, row: int, column: int, height: float, width: float) -> None:
    up = lattice.latitudes - lattice.latitudes[row]
    right = (lattice.longitudes - lattice.longitudes[column] + 180.0) % 360.0 - 180.0
    near = np.abs(up) < REACH * width
    along = np.exp(-((right * _narrow(lattice)[row]) ** 2) / (2 * width**2))
    field[near] += height * np.outer(np.exp(-(up[near] ** 2) / (2 * width**2)), along)


def _narrow(lattice: Grid) -> Values:
    """Degrees of arc in a degree of longitude, no fewer than NARROWEST."""
    found: Values = np.maximum(np.cos(np.radians(lattice.latitudes)), NARROWEST)
    return found


def _peaks(likely: Values, lattice: Grid, apart: float) -> Iterator[tuple[int, int]]:
    """Cells above all beside them, the likeliest first, no two of them nearer than ``apart`` degrees."""
    highest = ndimage.maximum_filter(likely, size=3, mode=("nearest", "wrap"))
    rows, columns = np.nonzero((likely == highest) & np.isfinite(likely))
    order = np.argsort(-likely[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    where = np.stack([lattice.longitudes[columns], lattice.latitudes[rows]], axis=1)
    free = np.ones(len(rows), dtype=np.bool_)
    for number in range(len(rows)):
        if free[number]:
            free &= arcs(where[number : number + 1], where)[0] >= apart
            yield int(rows[number]), int(columns[number])
