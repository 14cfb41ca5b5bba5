"""What the network leaves over at a place month after month: a plume that no covariate tells of, or one told in vain.

Arrays in, arrays out. Of what is left over in the cells of a lattice, month by month, the mean over the months is
taken, and of it what stands out of its surroundings by more than ``SURE`` standard errors. Around such places it is
told by simple kriging (``nearby``) with a variance of its own for each: the square of what stands out less that of SURE
standard errors. So it comes to cells between that are never seen, is not drawn towards nothing where it is sure, and is
0 elsewhere.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Grid
from services.products.xco2_global.nearby import LENGTHS_KM, Covariance, Left, Values, told
from services.validation.excess import gaussian

AROUND = 2.5
"""Standard deviation of the Gaussian that weighs what lies around, degrees: plumes are a degree or two wide, what the
monthly signal tells of is wider (our choice)."""

SURE = 3.5
"""Standard errors by which a cell must stand out: one in 2000 does so by chance, mostly by next to nothing. Our choice,
on the sample Earth's study (synthetic): with 3 the error of the mean map over land grows, with 4 plumes are lower."""

SPREADS = 0.5
"""Standard deviation of the Gaussian over which the variance of a place goes to those near it, degrees (our choice)."""

LEAST_SIGNAL = 0.05
"""ppm: standard deviation below which nothing is told (our choice)."""

_ALONE = Covariance(signal=[1.0] + [0.0] * (len(LENGTHS_KM) - 1), track=[0.0] * len(LENGTHS_KM), rest=0.0, alone=1.0)
"""Of what stands out, in units of its own standard deviation: it falls to 1/e over the shortest of LENGTHS_KM."""


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


def lasting(sums: Sums, lattice: Grid) -> NDArray[np.float32]:
    """What lasts, ppm, ``(y, x)`` of the lattice; 0 where nothing stands out for sure."""
    mean, variance = sums.mean, sums.variance
    known = ~np.isnan(mean)
    if not known.any():
        return np.zeros(lattice.shape, np.float32)
    weight = np.where(known, 1.0 / np.where(known, variance, 1.0), 0.0)
    ordinary = known
    for _ in range(2):  # once more without what stands out
        usual = weight * ordinary
        over = gaussian(np.nan_to_num(mean) * usual, lattice, AROUND)
        under = gaussian(usual, lattice, AROUND)
        out = mean - np.divide(over, under, out=np.zeros_like(over), where=under > _FAR * usual.max())
        ordinary = known & (np.abs(np.nan_to_num(out)) <= SURE * np.sqrt(np.nan_to_num(variance)))
    energy = np.where(known & ~ordinary, np.nan_to_num(out) ** 2 - SURE**2 * np.nan_to_num(variance), 0.0)
    deviation = np.sqrt(_spread(energy, known, lattice))
    asked = deviation > LEAST_SIGNAL
    found = np.zeros(lattice.shape, np.float32)
    given = known & asked
    if not given.any():
        return found
    latitude, longitude = np.meshgrid(lattice.latitudes, lattice.longitudes, indexing="ij")
    left = Left(
        latitude=latitude[given],
        longitude=longitude[given],
        time=np.zeros(int(given.sum())),
        value=out[given] / deviation[given],
        noise=variance[given] / deviation[given] ** 2,
    )
    unit, _ = told(left, _ALONE, latitude[asked], longitude[asked])
    found[asked] = unit * deviation[asked]
    return found


_FAR = 1e-6
"""Share of the largest weight below which nothing lies around."""


def _spread(energy: Values, known: NDArray[np.bool_], lattice: Grid) -> Values:
    """The energy of a place, and near it: the larger of its own and the mean of the known ones around."""
    under = gaussian(known.astype(np.float64), lattice, SPREADS)
    near = gaussian(energy, lattice, SPREADS) / np.maximum(under, 0.05)
    found: Values = np.maximum(energy, np.maximum(near, 0.0))
    return found
