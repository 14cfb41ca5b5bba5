"""The months without a GRACE solution: filled by a method of choice, flagged, and with the error that blanking shows.

Which method is the default was measured on 204 river basins: ``infra/reports/gwsa_gaps.json``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.time_axis import TimeAxis
from services.products.gwsa import ssa
from services.products.gwsa.seasonal import bridge, climatology_trend, lag_one

type Series = NDArray[np.float64]
"""``(time, series)``: a row for every month, NaN where missing."""

type Method = Callable[[Series], Series]
"""Fills every gap of series that have values; known values stay as they are."""

type Blanks = Sequence[NDArray[np.int64]]
"""Rows that are hidden together, one array for each trial."""

LONG = 6
"""Months from which a gap is long. Our choice: GRACE has gaps of one, two and eleven."""

YEARS = (2004, 2007, 2010, 2013)
"""Years that are blanked one at a time (Yi and Sneeuw, 2021)."""

LENGTHS = (1, 1, 2)
"""Lengths of short gaps to blank, in months; of GRACE's seventeen five have two."""


@dataclass(frozen=True, kw_only=True)
class Filled:
    """Series without gaps; a series that had no value at all stays missing."""

    values: Series
    """``(time, series)``, in the units of the input."""

    uncertainty: Series
    """Standard deviation of the filling's error, ``(time, series)``, same units; 0 at months that were not filled."""

    filled: NDArray[np.bool_]
    """Whether a value was filled in, ``(time, series)``."""


@dataclass(frozen=True, kw_only=True)
class SSA:
    """Singular spectrum analysis of one window and order; settings of ssa.fill."""

    window: int
    order: int

    def __call__(self, values: Series) -> Series:
        """The series with their gaps filled."""
        return ssa.fill(values, self.window, self.order)


@dataclass(frozen=True, kw_only=True)
class ByLength:
    """One method for short gaps and another one for long gaps."""

    short: Method
    long: Method

    def __call__(self, values: Series) -> Series:
        """The series with their gaps filled."""
        return np.where(lengths(values) < LONG, self.short(values), self.long(values))


def by_linear(values: Series) -> Series:
    """Straight lines across gaps."""
    return bridge(values, 1.0)


def by_climatology_trend(values: Series) -> Series:
    """The mean of the calendar month plus the trend."""
    return np.where(np.isnan(values), climatology_trend(values), values)


def by_climatology_trend_linear(values: Series) -> Series:
    """Climatology and trend, plus straight lines across gaps of what is left."""
    fit = climatology_trend(values)
    return np.where(np.isnan(values), fit + bridge(values - fit, 1.0), values)


def by_climatology_trend_ar1(values: Series) -> Series:
    """Climatology and trend, plus the first-order autoregression of what is left, given both ends of a gap."""
    fit = climatology_trend(values)
    residual = values - fit
    return np.where(np.isnan(values), fit + bridge(residual, lag_one(residual)), values)


METHODS: dict[str, Method] = {
    "climatology_trend_ar1": by_climatology_trend_ar1,
    "climatology_trend_linear": by_climatology_trend_linear,
    "climatology_trend": by_climatology_trend,
    "ssa": ByLength(short=SSA(window=48, order=16), long=SSA(window=36, order=9)),
    "linear": by_linear,
}
"""Method by name; the first is the default."""


def fill(values: Series, method: Method, *, short: Blanks, long: Blanks) -> Filled:
    """Fill series, flag what was filled, and state its error from blanks of the same kind.

    Memory is a few times that of the values, whatever the method.

    Args:
        values: ``(time, series)``, a row for every month, NaN where missing.
        method: one of METHODS or another.
        short: blanks that tell the error in gaps shorter than LONG, as from ``scattered``.
        long: the same of longer ones, as from ``years``.

    Raises:
        InputRefused: if a value is infinite, a series has too few values for the method, or no blank meets a value.
    """
    if np.isinf(values).any():
        raise InputRefused(f"{int(np.isinf(values).sum())} values are infinite")
    some = ~np.isnan(values).all(axis=0)
    known = values[:, some]
    gaps = np.isnan(known)
    errors = np.where(lengths(known) < LONG, blanked_rms(known, method, short), blanked_rms(known, method, long))
    result = Filled(
        values=np.full_like(values, np.nan),
        uncertainty=np.full_like(values, np.nan),
        filled=np.zeros(values.shape, dtype=np.bool_),
    )
    result.values[:, some] = method(known)
    result.uncertainty[:, some] = np.where(gaps, errors, 0.0)
    result.filled[:, some] = gaps
    return result


def lengths(values: Series) -> NDArray[np.int64]:
    """Length in months of the gap that each month lies in, ``(time, series)``; 0 where there is a value."""
    gaps = np.isnan(values)
    row = np.arange(len(values))[:, None]
    before = np.maximum.accumulate(np.where(gaps, -1, row), axis=0)
    after = np.minimum.accumulate(np.where(gaps, len(values), row)[::-1], axis=0)[::-1]
    return np.where(gaps, after - before - 1, 0)


def years(axis: TimeAxis, chosen: Sequence[int] = YEARS) -> Blanks:
    """Blanks of whole calendar years of a monthly axis."""
    of_row = axis.bounds[:, 0].astype("datetime64[Y]").astype(np.int64) + 1970
    return [np.flatnonzero(of_row == year) for year in chosen]


def scattered(missing: NDArray[np.bool_], *, trials: int = 4, gaps: int = 9, seed: int = 0) -> Blanks:
    """Blanks of short gaps at random places, of LENGTHS in turn, none beside another gap, no month in two.

    Args:
        missing: months that have no value, ``(time,)``.
        trials: how many blanks.
        gaps: short gaps in each.
        seed: of the places.

    Raises:
        InputRefused: if the months do not hold so many.
    """
    random = np.random.default_rng(seed)
    free = ~missing
    blanks = []
    for _ in range(trials):
        known = ~missing
        rows: list[int] = []
        for number in range(gaps):
            size = LENGTHS[number % len(LENGTHS)]
            places = [
                start
                for start in range(1, len(missing) - size)
                if known[start - 1 : start + size + 1].all() and free[start : start + size].all()
            ]
            if not places:
                raise InputRefused(f"{int((~missing).sum())} known months do not hold {trials} x {gaps} blanks")
            start = int(random.choice(places))
            rows.extend(range(start, start + size))
            known[start : start + size] = False
        free[rows] = False
        blanks.append(np.array(sorted(rows)))
    return blanks


def blanked_rms(values: Series, method: Callable[[Series], Series], blanks: Blanks) -> NDArray[Any]:
    """What a method gets wrong in months that are hidden from it: root of the mean over blanks of the mean square.

    Args:
        values: ``(time, series)``, NaN where missing.
        method: gives ``(..., time, series)``; axes before these are variants, told apart in the answer.
        blanks: rows to hide together.

    Returns:
        ``(..., series)``, in the units of the values.

    Raises:
        InputRefused: if no blank holds a value of some series.
    """
    squares: Any = 0.0
    used = np.zeros(values.shape[1], dtype=np.int64)
    for rows in blanks:
        hidden = values.copy()
        hidden[rows] = np.nan
        truth = values[rows]
        there = ~np.isnan(truth)
        count = there.sum(axis=0)
        error = np.where(there, method(hidden)[..., rows, :] - truth, 0.0)
        squares = squares + (error**2).sum(axis=-2) / np.maximum(count, 1)
        used += count > 0
    if (used == 0).any():
        raise InputRefused(f"series {int((used == 0).argmax())} has no value in any of {len(blanks)} blanks")
    rms: NDArray[Any] = np.sqrt(squares / used)
    return rms


def choose(values: Series, blanks: Blanks, windows: Sequence[int], orders: Sequence[int]) -> SSA:
    """The window and order for all series together: least median over series of blanked rms / standard deviation.

    Yi and Sneeuw choose for each series; one pair for all is our choice, as four years are few to choose from.

    Args:
        values: ``(time, series)``, NaN where missing.
        blanks: rows to hide together.
        windows: lengths to try, in months.
        orders: numbers of components to try, rising.

    Raises:
        SettingsError: if a window or order does not fit the series.
        InputRefused: if no blank holds a value of some series, or none varies.
    """
    spread = np.nanstd(values, axis=0)
    if not (spread > 0).any():
        raise InputRefused(f"none of {spread.size} series varies: no window or order is better than another")
    scores = []
    for window in windows:
        errors = blanked_rms(values, partial(ssa.reconstructions, window=window, orders=orders), blanks)
        scores.append(np.median(errors[:, spread > 0] / spread[spread > 0], axis=1))
    best = divmod(int(np.argmin(scores)), len(orders))
    return SSA(window=windows[best[0]], order=orders[best[1]])
