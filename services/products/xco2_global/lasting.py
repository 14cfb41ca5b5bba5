"""What the network leaves over at a place month after month: a plume that no covariate tells of, or one told in vain.

Arrays in, arrays out. Of what is left over in the cells of a lattice, month by month, the mean over the months is
taken, and plumes of one shape are sought in it: at every cell the height of one upon an even ground is fitted to what
lies around by weighted least squares; the surest is taken off and told, and so on until none is sure (matching pursuit,
Mallat and Zhang 1993; CLEAN, Hoegbom 1974). So a plume has its full height between ground tracks, where no sounding
ever falls, a gradient is none, and elsewhere it is 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.core.grid import Grid
from services.products.xco2_global.nearby import Values
from services.validation.excess import NARROWEST, gaussian
from services.validation.hotspots import arcs

WIDTH = 0.45
"""Standard deviation of a plume, degrees, where the lattice is fine enough (our choice, on the sample Earth)."""

LEAST_CELLS = 0.9
"""Standard deviation of a plume in cells of a lattice, at least: a narrower one cannot be told from noise."""

AROUND = 4.5
"""Widths of a plume: standard deviation of the Gaussian that weighs what lies around (our choice)."""

SURE = 3.0
"""Standard errors of its height by which a plume must be one (our choice, on the sample Earth)."""

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

LEAST_SEEN = 0.12
"""Share of a plume, by its square, that must lie in cells whose means are known as well as LASTING lets them: its edge
alone does not tell its height. With every third column seen so, it is 0.18 between them."""

LEAST_FREE = 0.02
"""Share of what tells of a plume that must be left beside the ground: with soundings on one side only, none is."""

REACH = 6.0
"""Widths from its middle where a plume ends."""

NOTHING = 1e-3
"""1/ppm^2 below which there are no soundings: what is left of far ones, and of rounding."""

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
    width = max(WIDTH, LEAST_CELLS * max(float(lattice.step_x), float(lattice.step_y)))
    around = AROUND * width

    def moment(field: Values, *widths: float) -> Values:
        """Of each cell: the sum over those around of weight, field and Gaussians of these widths."""
        return _sums_around(weight * field, lattice, float(np.sum(1.0 / np.square(widths)) ** -0.5))

    every = np.ones(lattice.shape)
    ground, mixed, square = moment(every, around), moment(every, width, around), moment(every, width, width, around)
    plain = _divided(mixed, ground, ground > NOTHING)
    free = square - mixed * plain
    near = moment(every, width)
    months = _divided(moment(sums.months.astype(np.float64), width), near, near > NOTHING)
    seen = gaussian(weight * LASTING**2, lattice, width / np.sqrt(2.0))
    told = (seen > LEAST_SEEN) & (ground > NOTHING) & (free > LEAST_FREE * square) & (months > 0)
    patch = PATCH * width
    taken = _divided(moment(every, patch, width, around) - plain * moment(every, patch, around), free, told)
    error = np.sqrt(_divided(every, free, told) + (MONTHLY * taken) ** 2 * _divided(every, months, told))
    found = np.zeros(lattice.shape)
    for _ in range(ROUNDS):
        left = values - found
        height = _divided(moment(left, width, around) - plain * moment(left, around), free, told)
        places = list(_peaks(_divided(np.abs(height), error, told), lattice, APART * width))
        for row, column in places:
            _add_plume(found, lattice, row, column, height[row, column], width)
        if not places:
            break
    return np.where(np.abs(found) < LEAST, 0.0, found).astype(np.float32)


def _divided(one: Values, other: Values, where: NDArray[np.bool_]) -> Values:
    """A quotient; 0 elsewhere."""
    return np.divide(one, other, out=np.zeros_like(one), where=where)


def _sums_around(field: Values, lattice: Grid, width: float) -> Values:
    """Sums of cells weighted by exp(-d^2 / 2 width^2), d their distance in degrees of arc."""
    cells: Values = 2 * np.pi * width**2 / (float(lattice.step_x) * float(lattice.step_y) * _narrow(lattice))
    return gaussian(field, lattice, width) * cells[:, np.newaxis]


def _add_plume(field: Values, lattice: Grid, row: int, column: int, height: float, width: float) -> None:
    up = lattice.latitudes - lattice.latitudes[row]
    right = (lattice.longitudes - lattice.longitudes[column] + 180.0) % 360.0 - 180.0
    near = np.abs(up) < REACH * width
    along = np.exp(-((right * _narrow(lattice)[row]) ** 2) / (2 * width**2))
    field[near] += height * np.outer(np.exp(-(up[near] ** 2) / (2 * width**2)), along)


def _narrow(lattice: Grid) -> Values:
    """Degrees of arc in a degree of longitude, as ``gaussian`` takes them."""
    found: Values = np.maximum(np.cos(np.radians(lattice.latitudes)), NARROWEST)
    return found


def _peaks(sure: Values, lattice: Grid, apart: float) -> Iterator[tuple[int, int]]:
    """Cells above SURE and all beside them, the surest first, no two of them nearer than ``apart`` degrees."""
    highest = ndimage.maximum_filter(sure, size=3, mode=("nearest", "wrap"))
    rows, columns = np.nonzero((sure == highest) & (sure > SURE))
    order = np.argsort(-sure[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    where = np.stack([lattice.longitudes[columns], lattice.latitudes[rows]], axis=1)
    free = np.ones(len(rows), dtype=np.bool_)
    for number in range(len(rows)):
        if free[number]:
            free &= arcs(where[number : number + 1], where)[0] >= apart
            yield int(rows[number]), int(columns[number])
