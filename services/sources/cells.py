"""Soundings to monthly cells of a grid, in any order and any batches, for the same bytes.

What is kept of a cell is sums for each two seconds in which an instrument saw it, a stretch of some 14 km. They are
whole numbers (fixed point), so that adding them is exact and no order of files, batches or workers shows. Memory grows
with the cells seen and the overpasses that saw them, not with soundings. Stretches become overpasses at the end.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused, SettingsError
from services.core.grid import Grid
from services.sources.along_track import EARTH_KM, GAP_MINUTES, ErrorModel
from services.sources.soundings import Scale, Soundings

type Floats = NDArray[np.floating[Any]]

GRID = Grid.of(west=-180, north=90, step_x="1/20", width=7200, height=3600)
"""The product's grid."""

ORIGIN = 400.0
"""ppm that sums are taken about."""

LEAST_ERROR, MOST_ERROR = 0.05, 50.0
"""ppm that no stated uncertainty passes. Our choice."""

STRETCH = 2.0
"""Seconds whose soundings are added up."""

MOST_IN_A_STRETCH = 1 << 18
"""Soundings of one cell in one stretch that the sums are sure to hold; OCO-2 takes 48 in all."""

BATCH = 1 << 17
"""Soundings that are reduced together: some 30 MB."""

_TIME_BITS = 31
_INSTRUMENT_BITS = 2
_TIMES = (1 << _TIME_BITS) - 1
_GAP = round(60 * GAP_MINUTES / STRETCH)

_SCALES = np.array([0, 24, 26, 30, 26, 30, 30, 20, 20, 14])
"""Binary digits after the point of each sum, so that MOST_IN_A_STRETCH of the largest terms that Soundings lets through
fit in 63 bits: count, departure from ORIGIN, its square, weight, weight times departure, weight times error and its
square (ppm), kilometres east and north of the cell's centre, and their square."""

_COUNT, _X, _XX, _W, _WX, _WS, _WWSS, _EAST, _NORTH, _FAR = range(len(_SCALES))


@dataclass(frozen=True, kw_only=True)
class Gridding:
    """How soundings become cells; a few hundred bytes to pickle.

    Raises:
        SettingsError: if soundings of one declared error are to be weighted by it.
    """

    grid: Grid = GRID
    scale: Scale = "X2019"
    """Of CO2; soundings on another one are refused."""

    weighting: Literal["plain", "inverse_variance"] = "plain"
    """Of soundings in a cell's mean: all alike, or by 1 / uncertainty^2."""

    errors: ErrorModel = field(default_factory=ErrorModel)
    """Of the mean."""

    def __post_init__(self) -> None:
        if self.weighting == "inverse_variance" and self.errors.sigma is not None:
            raise SettingsError(f"all soundings have the error {self.errors.sigma} ppm: there is nothing to weight by")


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A month's cells with soundings, from north to south and west to east; all arrays are ``(cell,)``."""

    month: int
    """Since 1970-01."""

    row: NDArray[np.int32]
    column: NDArray[np.int32]
    xco2: NDArray[np.float64]
    """Mean of the soundings, ppm."""

    count: NDArray[np.int32]
    """Soundings."""

    overpasses: NDArray[np.int32]
    """Times that an instrument passed."""

    std: NDArray[np.float64]
    """Sample standard deviation of the soundings, ppm, unweighted; NaN for one sounding."""

    error: NDArray[np.float64]
    """Standard error of the mean by the error model, ppm: of the retrieval, not of the days without an overpass."""

    time: NDArray[np.float64]
    """Mean time of the soundings, weighted as their values are, s since 1970-01-01 UTC, to STRETCH."""

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Sums of some soundings: 88 bytes for each cell and stretch of two seconds that an instrument saw it in.

    Equal for equal soundings, however they were split; ``merge`` adds any number of them.
    """

    gridding: Gridding
    keys: NDArray[np.int64] = field(repr=False)
    """Cell, instrument and stretch since 1970 in one number each, rising, ``(key,)``."""

    sums: NDArray[np.int64] = field(repr=False)
    """``(key, sum)``, fixed point."""

    outside: int
    """Soundings that no cell of the grid holds."""

    @property
    def soundings(self) -> int:
        """Soundings that lie in a cell."""
        return int(self.sums[:, _COUNT].sum())

    @cached_property
    def _months(self) -> NDArray[np.int64]:
        # months begin with a stretch
        seconds = (self.keys & _TIMES) * int(STRETCH)
        return seconds.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)

    @property
    def months(self) -> tuple[int, ...]:
        """Months since 1970-01 that have soundings, rising."""
        return tuple(np.unique(self._months).tolist())

    def only(self, month: int) -> "Gathered":
        """The sums of one month."""
        mine = self._months == month
        return Gathered(gridding=self.gridding, keys=self.keys[mine], sums=self.sums[mine], outside=0)

    def cells(self, month: int) -> Cells:
        """The cells of a month since 1970-01; none where it has no soundings.

        The mean is sum w x / sum w over all soundings. Its variance is a sum over overpasses, which are independent, of
        what ``ErrorModel`` says of each stretch, of each two stretches and of the floor, over the square of sum w.
        """
        mine = self._months == month
        who, when = self.keys[mine] >> _TIME_BITS, self.keys[mine] & _TIMES
        sums = np.ldexp(self.sums[mine].astype(np.float64), -_SCALES)
        first = _firsts(len(who), np.diff(who) != 0, np.diff(when) > _GAP)
        passes = _sums(sums, first)
        variance = _sums(self._correlated(sums, first), first) + (self.gridding.errors.floor * passes[:, _W]) ** 2
        cell = who[first] >> _INSTRUMENT_BITS
        begin = _firsts(len(cell), np.diff(cell) != 0)
        whole = _sums(passes, begin)
        # since the month began, as the sums of times since 1970 have more digits than a float
        start = int(np.datetime64(month, "M").astype("datetime64[s]").astype(np.int64))
        late = _sums(_sums(sums[:, _W] * ((when + 0.5) * STRETCH - start), first), begin) / whole[:, _W]
        count = whole[:, _COUNT]
        about = whole[:, _XX] - whole[:, _X] ** 2 / np.maximum(count, 1)
        spread = np.sqrt(np.maximum(about, 0.0) / np.maximum(count - 1, 1))
        return Cells(
            month=month,
            row=(cell[begin] // self.gridding.grid.width).astype(np.int32),
            column=(cell[begin] % self.gridding.grid.width).astype(np.int32),
            xco2=ORIGIN + whole[:, _WX] / whole[:, _W],
            count=count.astype(np.int32),
            overpasses=np.diff(np.append(begin, len(first))).astype(np.int32),
            std=np.where(count > 1, spread, np.nan),
            error=np.sqrt(_sums(variance, begin)) / whole[:, _W],
            time=start + late,
        )

    def _correlated(self, sums: Floats, first: NDArray[np.int64]) -> Floats:
        """Each stretch's own variance, and twice its covariance with those of its overpass that follow, ``(key,)``."""
        model, count = self.gridding.errors, sums[:, _COUNT]
        east, north = sums[:, _EAST] / count, sums[:, _NORTH] / count
        around = np.maximum(sums[:, _FAR] / count - east**2 - north**2, 0.0)
        # two different soundings are 2 n / (n - 1) variances apart in the mean square, and a sixth of the square of the
        # length of the line that they lie on; a single one has no length
        length = np.sqrt(12 * around * count / np.maximum(count - 1, 1))
        found = model.together(length, sums[:, _WS], sums[:, _WWSS])
        overpass = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(sums))))
        for lag in range(1, len(sums)):
            one = np.flatnonzero(overpass[lag:] == overpass[:-lag])
            if not one.size:
                break
            two = one + lag
            distance = np.hypot(east[two] - east[one], north[two] - north[one])
            lengths, spread = (length[one], length[two]), (sums[one, _WS], sums[two, _WS])
            found[one] += 2 * model.apart(distance, lengths, spread)
        return found


def gather(batches: Iterable[Soundings], gridding: Gridding) -> Gathered:
    """Sums of the soundings of a file, or of any other batches: what a worker returns.

    Raises:
        InputRefused: if soundings are on another scale, if one has no time or error that can be, or if a cell has more
            than MOST_IN_A_STRETCH in a stretch.
    """
    held = _nothing(gridding)
    new: list[Gathered] = []
    for batch in batches:
        for start in range(0, len(batch), BATCH):
            new.append(_reduced(batch, slice(start, start + BATCH), gridding))
            # merged when they have grown as large as what is held, so that each sum is copied a few times only
            if sum(len(one.keys) for one in new) > max(len(held.keys), BATCH):
                held, new = merge([held, *new]), []
    return merge([held, *new])


def merge(parts: Iterable[Gathered]) -> Gathered:
    """The sums of all soundings that the parts hold.

    Raises:
        SettingsError: if there is no part, or parts were gathered differently.
        InputRefused: if a cell has more than MOST_IN_A_STRETCH soundings in a stretch.
    """
    known = list(parts)
    if not known:
        raise SettingsError("no parts to merge: not even their grid is known")
    gridding = known[0].gridding
    if any(one.gridding != gridding for one in known):
        raise SettingsError("parts were gathered on different grids, or with different weights, errors or scales")
    keys, sums = _added(np.concatenate([one.keys for one in known]), np.concatenate([one.sums for one in known]))
    most = int(sums[:, _COUNT].max(initial=0))
    if most > MOST_IN_A_STRETCH:
        raise InputRefused(
            f"a cell of the grid has {most} soundings within {STRETCH:g} seconds: are they given more than once?"
        )
    return Gathered(gridding=gridding, keys=keys, sums=sums, outside=sum(one.outside for one in known))


def _nothing(gridding: Gridding) -> Gathered:
    return Gathered(
        gridding=gridding,
        keys=np.zeros(0, dtype=np.int64),
        sums=np.zeros((0, len(_SCALES)), dtype=np.int64),
        outside=0,
    )


def _reduced(batch: Soundings, part: slice, gridding: Gridding) -> Gathered:
    latitude, longitude = batch.latitude[part], batch.longitude[part]
    value, time = batch.xco2[part], batch.time[part]
    if batch.scale != gridding.scale:
        raise InputRefused(f"soundings on the scale {batch.scale} are not mixed with cells on {gridding.scale}")
    _check_times(time)
    own = gridding.errors.sigma
    error = batch.uncertainty[part] if own is None else np.full(len(value), own)
    wrong = np.flatnonzero(~can_be(error))
    if wrong.size:
        raise InputRefused(
            f"{wrong.size} of {len(error)} soundings have no uncertainty within {LEAST_ERROR:g}..{MOST_ERROR:g} ppm "
            f"({error[wrong[0]]:g}), which the error of their mean needs: sigma = ppm under [soundings] gives all one, "
            'without_uncertainty = "leave_out" takes the others'
        )
    row, column, inside = _located(gridding.grid, longitude, latitude)
    east, north = _from_centre(gridding.grid, row, column, longitude[inside], latitude[inside])
    departure, error = value[inside] - ORIGIN, error[inside]
    weight = np.ones(len(error)) if gridding.weighting == "plain" else 1 / error**2
    spread = weight * error
    terms = (
        np.ones(len(error)),
        departure,
        departure**2,
        weight,
        weight * departure,
        spread,
        spread**2,
        east,
        north,
        east**2 + north**2,
    )
    fixed = np.stack([np.rint(np.ldexp(one, scale)) for one, scale in zip(terms, _SCALES, strict=True)], axis=1)
    who = ((row * gridding.grid.width + column) << _INSTRUMENT_BITS) | batch.instrument[part][inside].astype(np.int64)
    when = np.floor(time[inside] / STRETCH).astype(np.int64)
    keys, sums = _added((who << _TIME_BITS) | when, fixed.astype(np.int64))
    return Gathered(gridding=gridding, keys=keys, sums=sums, outside=int((~inside).sum()))


def can_be(error: Floats) -> NDArray[np.bool_]:
    """Whether uncertainties, ppm, are there and within LEAST_ERROR..MOST_ERROR, of the same shape."""
    found: NDArray[np.bool_] = (error >= LEAST_ERROR) & (error <= MOST_ERROR)
    return found


def _check_times(time: Floats) -> None:
    wrong = np.flatnonzero(~((time >= 0) & (time < STRETCH * (1 << _TIME_BITS))))
    if wrong.size:
        raise InputRefused(f"{wrong.size} soundings are not of 1970..2105, one at {time[wrong[0]]:g} s since 1970")


def _located(
    grid: Grid, longitude: Floats, latitude: Floats
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Row and column of the soundings inside, and which are: many places as ``Grid.locate`` finds one.

    A sounding on an edge falls to the east and south of it; at +180 that is the first column of a global grid. The
    southernmost edge, and the eastern one of a grid that does not go round, belong to the cells that end there.
    """
    turns = (longitude - float(grid.west)) % 360.0
    column = np.floor(turns / float(grid.step_x)).astype(np.int64)
    row = np.floor((float(grid.north) - latitude) / float(grid.step_y)).astype(np.int64)
    column[(column == grid.width) & (turns <= float(grid.width * grid.step_x))] -= 1
    row[(row == grid.height) & (latitude >= float(grid.south))] -= 1
    inside = (row >= 0) & (row < grid.height) & (column >= 0) & (column < grid.width)
    return row[inside], column[inside], inside


def _from_centre(
    grid: Grid, row: NDArray[np.int64], column: NDArray[np.int64], longitude: Floats, latitude: Floats
) -> tuple[Floats, Floats]:
    """Kilometres east and north of the centre of each sounding's cell, on the plane that touches there.

    The cosine is the row's, so that a sounding's distance does not depend on which others it is asked with.
    """
    longitudes, latitudes, cosine = _centres(grid)
    degree = np.pi / 180 * EARTH_KM
    east = (longitude - longitudes[column] + 180.0) % 360.0 - 180.0
    return degree * cosine[row] * east, degree * (latitude - latitudes[row])


@lru_cache(maxsize=4)
def _centres(grid: Grid) -> tuple[Floats, Floats, Floats]:
    """Centres of columns and rows, and cosines of the latter; not kept by the grid, as it would travel with them."""
    twin = replace(grid)
    return twin.longitudes, twin.latitudes, np.cos(np.radians(np.clip(twin.latitudes, -90.0, 90.0)))


def _added(keys: NDArray[np.int64], sums: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of equal keys added, keys rising."""
    order = np.argsort(keys, kind="stable")
    first = _firsts(len(keys), np.diff(keys[order]) != 0)
    if not first.size:
        return keys, sums
    return keys[order][first], np.add.reduceat(sums[order], first, axis=0)


def _sums(values: Floats, first: NDArray[np.int64]) -> Floats:
    """Sums of groups of rows."""
    return np.add.reduceat(values, first, axis=0) if first.size else values


def _firsts(rows: int, *ends: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where groups of some rows begin; the others say of each row but the last whether a group ends there."""
    if rows == 0:
        return np.zeros(0, dtype=np.int64)
    return np.concatenate([[0], np.flatnonzero(np.logical_or.reduce(ends)) + 1]).astype(np.int64)
