"""Linear trends of many monthly series with gaps, with errors that autocorrelation has widened.

``ols`` is for maps: a million series of 225 months in seconds, a block of series at a time. ``theil_sen`` is for the
series of regions and wells: a library's, one series at a time.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from services.core.errors import InputRefused

type Floats = NDArray[np.floating[Any]]
"""``(time, series)`` unless said otherwise."""

type Months = NDArray[np.integer[Any]]
"""Months since 1970-01, ``(time,)``, rising; a month may be left out."""

LEAST_MONTHS = 24
"""Values that a trend needs. Our choice: two years."""

LEAST_YEARS = 11
"""Values that a trend of yearly values needs. Our choice: without a gap these make LEAST_PAIRS."""

LEAST_PAIRS = 10
"""Neighbouring months, both with a value, that tell the autocorrelation. Our choice."""

MEMORY = 0.999
"""Largest lag-1 autocorrelation that is used, so that the effective sample stays positive. Our choice."""

DEPENDENT = 1e-6
"""Smallest eigenvalue of a design, its columns scaled to unit length, that counts as independent. Our choice."""

BLOCK = 16384
"""Series that are fitted together: some 200 MB for 225 months."""


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Slopes of least squares; every array is ``(series,)``, float64, NaN where missing."""

    slope: NDArray[np.float64]
    """Per year, in the units of the values. NaN: fewer values than asked for, or months that cannot tell the terms
    apart (a series of Januaries has no annual cycle)."""

    standard_error: NDArray[np.float64]
    """Of the slope, per year, widened for autocorrelation. NaN also where that cannot be told: fewer than LEAST_PAIRS
    pairs of neighbouring months, or an effective sample of no more than two."""

    p_value: NDArray[np.float64]
    """Of a slope this far from zero if there is none, two-sided, 0..1; NaN where the standard error is."""

    r1: NDArray[np.float64]
    """Lag-1 autocorrelation of the residuals as estimated, -1..1; 0 where all residuals are 0."""

    freedom: NDArray[np.float64]
    """Effective degrees of freedom of the t distribution, not whole; NaN where the standard error is."""

    months: NDArray[np.int64]
    """Months with a value."""

    def interval(self, level: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper bound of the slope, ``(series,)`` each, of Student's t distribution."""
        reach = special.stdtrit(self.freedom, (1 + level) / 2) * self.standard_error
        return self.slope - reach, self.slope + reach


@dataclass(frozen=True, kw_only=True)
class RankTrend:
    """Slopes of ranks; every array is ``(series,)``, NaN where missing."""

    slope: NDArray[np.float64]
    """Theil and Sen's: the median of the slopes of all pairs, per year, in the units of the values."""

    low: NDArray[np.float64]
    """Lower bound of the slope at 95 % (Sen, 1968), as if values were independent."""

    high: NDArray[np.float64]
    """Upper bound."""

    tau: NDArray[np.float64]
    """Kendall's tau-b of values and times, -1..1."""

    p_value: NDArray[np.float64]
    """Of Mann and Kendall's test, two-sided, as if values were independent."""

    months: NDArray[np.int64]
    """Months with a value."""


def ols(values: Floats, months: Months, *, harmonics: int = 1, least: int = LEAST_MONTHS, every: int = 1) -> Trend:
    """Least squares of a + b t + c cos(2 pi t) + s sin(2 pi t), t in years; b and how sure it is.

    The standard error is that of ordinary least squares for an effective sample (Santer et al., 2000, J. Geophys. Res.
    105, 7337-7356): n_e = (n - m)(1 - r) / (1 + r), with n values, m terms of the annual cycle and r the lag-1
    autocorrelation of the residuals; variance of the residuals = sum of squares / (n_e - 2), and n_e - 2 degrees of
    freedom for p. Taking m off first is our choice: without autocorrelation all is that of ordinary least squares.

    r is that of months that follow one another (Burg's estimate at order 1, which cannot pass 1); months beside a gap
    take no part. For residuals of a line it comes out low by (2 + 4 r) / n (van Giersbergen, 2005, Econ. Lett. 89),
    which is put back; below 0 it counts as 0 (our choice: noise that alternates earns no narrower error). Gaps make the
    widening generous, as they part values that r takes for neighbours.

    Args:
        values: ``(time, series)``, any float type, NaN where missing.
        months: of the rows.
        harmonics: 1 for the annual cycle, 2 for the semi-annual one as well, 0 for none.
        least: values that a series needs, else it has no trend.
        every: months from a value to its neighbour: 12 for yearly values, which have no annual cycle (0 harmonics).

    Raises:
        InputRefused: if shapes or months do not fit.
    """
    design = _design(values, months, harmonics)
    follows = np.diff(months) == every
    parts = [
        _fit(np.asarray(values[:, start : start + BLOCK], dtype=np.float64), design, follows, least)
        for start in range(0, values.shape[1], BLOCK)
    ]
    return _joined(parts, 0).trend


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A trend beside other columns; every array has the series last, float64, NaN where missing."""

    trend: Trend
    """What is left of the trend once the columns have taken theirs."""

    coefficients: NDArray[np.float64]
    """``(column, series)``, units of the values per unit of the column."""

    squares: NDArray[np.float64]
    """Sum of squared residuals, ``(series,)``."""


def ols_beside(
    values: Floats, months: Months, columns: Floats, *, chosen: int = 0, harmonics: int = 1, least: int = LEAST_MONTHS
) -> Regression:
    """Least squares as ``ols``, beside columns that each series has of its own: a + b t + cycle + sum of c_k x_k.

    The trend is that of the values less c_k x_k, all fitted at once, so that a column which drifts takes no more of
    the trend than its month-to-month variations tell. Its error is that of ``ols`` with as many degrees of freedom
    fewer as there are columns, each of which is taken to lower r by (1 + 2 r) / n as the constant and the line do (our
    choice: columns are as smooth; with columns of noise the error comes out a little wide).

    Args:
        values: ``(time, series)``, NaN where missing.
        months: of the rows.
        columns: ``(column, time, series)``; a series with a NaN in one, in any month, has no trend.
        chosen: degrees of freedom that choosing the columns took, besides one for each.
        harmonics: as ``ols``.
        least: as ``ols``.

    Raises:
        InputRefused: if shapes or months do not fit.
    """
    design = _design(values, months, harmonics)
    if columns.ndim != 3 or columns.shape[1:] != values.shape:
        raise InputRefused(f"columns {columns.shape} are not (column, time, series) of values {values.shape}")
    follows = np.diff(months) == 1
    parts: list[Regression] = []
    for start in range(0, values.shape[1], BLOCK):
        some = slice(start, start + BLOCK)
        beside = np.asarray(columns[:, :, some], dtype=np.float64)
        lacking = np.isnan(beside).any(axis=(0, 1))
        series = np.where(lacking, np.nan, np.asarray(values[:, some], dtype=np.float64))
        parts.append(_fit(series, design, follows, least, np.where(lacking, 0.0, beside), chosen))
    return _joined(parts, len(columns))


def theil_sen(values: Floats, months: Months, *, harmonics: int = 1, least: int = LEAST_MONTHS) -> RankTrend:
    """Theil and Sen's slope and Mann and Kendall's test of the series less their annual cycle, both by scipy.

    Outliers hardly move the slope. Autocorrelation leaves it unbiased, but the bounds and p are those of independent
    values: positive autocorrelation makes them too narrow and too small (Hamed and Rao, 1998, J. Hydrol. 204), so read
    ``Trend.p_value`` beside them. Some milliseconds a series.

    Args:
        values: ``(time, series)``, NaN where missing.
        months: of the rows.
        harmonics: of the annual cycle to take off first, by least squares beside a line; 0 for none.
        least: values that a series needs, else it has no trend.

    Raises:
        InputRefused: if shapes or months do not fit.
    """
    left = deseasonalised(values, months, harmonics=harmonics, least=least)
    years = _years(months)
    known = ~np.isnan(left)
    found = np.full((5, values.shape[1]), np.nan)
    for series in np.flatnonzero(known.sum(axis=0) >= max(least, 2)):
        times, kept = years[known[:, series]], left[known[:, series], series]
        line = stats.theilslopes(kept, times)
        if kept.min() == kept.max():
            # tau of a constant is 0 / 0
            found[:, series] = (line.slope, line.low_slope, line.high_slope, 0.0, 1.0)
            continue
        rank = stats.kendalltau(times, kept)
        found[:, series] = (line.slope, line.low_slope, line.high_slope, rank.statistic, rank.pvalue)
    slope, low, high, tau, p_value = found
    return RankTrend(slope=slope, low=low, high=high, tau=tau, p_value=p_value, months=(~np.isnan(values)).sum(axis=0))


def deseasonalised(
    values: Floats, months: Months, *, harmonics: int = 1, least: int = LEAST_MONTHS
) -> NDArray[np.float64]:
    """The series less their annual cycle, which is fitted beside a line, so that a trend is not taken for a season.

    Args:
        values: ``(time, series)``, NaN where missing.
        months: of the rows.
        harmonics: 1 for the annual cycle, 2 for the semi-annual one as well, 0 for none.
        least: values that a series needs.

    Returns:
        ``(time, series)`` float64; NaN where missing, and for all of a series whose cycle cannot be told.

    Raises:
        InputRefused: if shapes or months do not fit.
    """
    design = _design(values, months, harmonics)
    left = np.empty(values.shape, dtype=np.float64)
    for start in range(0, values.shape[1], BLOCK):
        block = np.asarray(values[:, start : start + BLOCK], dtype=np.float64)
        _, terms, _ = _least_squares(block, design, least)
        left[:, start : start + BLOCK] = block - design[:, 2:] @ terms[2:]
        left[:, start : start + BLOCK][:, np.isnan(terms[0])] = np.nan
    return left


def annual_cycle(
    values: Floats, months: Months, *, harmonics: int = 2, least: int = LEAST_MONTHS
) -> NDArray[np.float64]:
    """The annual cycle that ``ols`` fits beside the line: cos(p), sin(p), cos(2 p), sin(2 p), p = 2 pi t.

    Args:
        values: ``(time, series)``, NaN where missing.
        months: of the rows.
        harmonics: as ``ols``.
        least: values that a series needs.

    Returns:
        ``(2 harmonics, series)`` float64, in the units of the values; NaN for a series whose cycle cannot be told.

    Raises:
        InputRefused: if shapes or months do not fit.
    """
    design = _design(values, months, harmonics)
    found = np.empty((design.shape[1] - 2, values.shape[1]))
    for start in range(0, values.shape[1], BLOCK):
        block = np.asarray(values[:, start : start + BLOCK], dtype=np.float64)
        found[:, start : start + BLOCK] = _least_squares(block, design, least)[1][2:]
    return found


def _years(months: Months) -> NDArray[np.float64]:
    """Middles of months in years since 1970, ``(time,)``."""
    return (np.asarray(months, dtype=np.float64) + 0.5) / 12.0


def _design(values: Floats, months: Months, harmonics: int) -> NDArray[np.float64]:
    """Columns 1, t less its middle, cosines and sines: ``(time, terms)``."""
    if harmonics not in {0, 1, 2}:
        raise InputRefused(f"a trend has 0, 1 or 2 harmonics of the year, not {harmonics}")
    if values.ndim != 2 or np.shape(months) != values.shape[:1]:
        raise InputRefused(f"values {values.shape} are not (time, series) of {np.shape(months)} months")
    if not np.issubdtype(np.asarray(months).dtype, np.integer) or (np.diff(months) <= 0).any():
        raise InputRefused("the months of a trend must be whole numbers that rise")
    if len(months) == 0:
        raise InputRefused("a trend of no months")
    years = _years(months)
    phase = 2 * np.pi * years
    waves = [wave(order * phase) for order in range(1, harmonics + 1) for wave in (np.cos, np.sin)]
    # a year far from 0 would make the line and the constant nearly the same column
    return np.stack([np.ones_like(years), years - (years[0] + years[-1]) / 2, *waves], axis=1)


def _least_squares(
    values: Floats, design: Floats, least: int, beside: Floats | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Values with 0 for missing ``(time, series)``, terms ``(terms, series)`` and variance of the slope per variance.

    Each series has the normal equations of its own months: sums over time of products of columns, for all at once.
    ``beside`` are columns of its own behind those of the design, ``(column, time, series)``, without a NaN.
    """
    known = ~np.isnan(values)
    shared = design.shape[1]
    own = np.empty((0, *values.shape)) if beside is None else beside * known
    terms = shared + len(own)
    pairs = [(one, other) for one in range(shared) for other in range(shared)]
    products = np.stack([design[:, one] * design[:, other] for one, other in pairs])
    gram = np.empty((terms, terms, values.shape[1])).transpose(2, 0, 1)
    gram[:, :shared, :shared] = (products @ known).T.reshape(-1, shared, shared)
    for at, column in enumerate(own, start=shared):
        gram[:, :shared, at] = gram[:, at, :shared] = (design.T @ column).T
        for other in range(shared, at + 1):
            gram[:, other, at] = gram[:, at, other] = (column * own[other - shared]).sum(axis=0)
    scale = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    enough = (known.sum(axis=0) >= max(least, terms + 1)) & (scale > 0).all(axis=1)
    scale[~enough] = 1.0
    gram = gram / (scale[:, :, None] * scale[:, None, :])
    gram[~enough] = np.eye(terms)
    poor = np.linalg.eigvalsh(gram)[:, 0] < DEPENDENT
    gram[poor] = np.eye(terms)
    inverse = np.linalg.inv(gram)
    # less a value of its own, a series far from 0 keeps its digits
    present = np.where(known, values, 0.0)
    origin = present.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    present = np.where(known, values - origin, 0.0)
    right = (design.T @ present).T
    if len(own):
        right = np.concatenate([right, (own * present).sum(axis=1).T], axis=1)
    found = (np.einsum("sij,sj->si", inverse, right / scale) / scale).T
    found[0] += origin
    found[:, ~enough | poor] = np.nan
    return np.where(known, values, 0.0), found, inverse[:, 1, 1] / scale[:, 1] ** 2


def _fit(
    values: NDArray[np.float64],
    design: NDArray[np.float64],
    follows: NDArray[np.bool_],
    least: int,
    beside: NDArray[np.float64] | None = None,
    chosen: int = 0,
) -> Regression:
    """A block of series; see ``ols`` and ``ols_beside``."""
    known = ~np.isnan(values)
    count = known.sum(axis=0).astype(np.float64)
    present, terms, variance = _least_squares(values, design, least, beside)
    fitted = ~np.isnan(terms[0])
    shared = design.shape[1]
    fit = design @ np.where(fitted, terms[:shared], 0.0)
    if beside is not None:
        fit = fit + (beside * np.where(fitted, terms[shared:], 0.0)[:, None, :]).sum(axis=0)
    residual = np.where(known & fitted, present - fit, 0.0)
    squares = (residual**2).sum(axis=0)
    # what rounding leaves of an exact fit is no noise
    size = (present**2).max(axis=0, initial=0.0) * count
    squares[squares <= size * 1e-24] = 0.0
    r1, pairs = _lag_one(residual, known, follows)
    r1[squares == 0] = 0.0
    # every column that is as smooth as a line takes as much of the autocorrelation as the constant and the line do
    smooth = 2 + len(terms) - shared + chosen
    widened = np.clip((count * r1 + smooth) / np.maximum(count - 2 * smooth, 1), 0.0, MEMORY)
    widened[(r1 <= 0) | (squares == 0)] = 0.0
    spent = len(terms) - 2 + chosen
    freedom = (count - spent) * (1 - widened) / (1 + widened) - 2
    told = fitted & (pairs >= LEAST_PAIRS) & (freedom > 0)
    freedom = np.where(told, freedom, np.nan)
    slope = terms[1]
    error = np.sqrt(squares / freedom * variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(slope == 0, 0.0, np.abs(slope) / error)
    p_value = 2 * special.stdtr(freedom, -ratio)
    trend = Trend(
        slope=slope,
        standard_error=error,
        p_value=np.where(told, p_value, np.nan),
        r1=np.where(fitted, r1, np.nan),
        freedom=freedom,
        months=count.astype(np.int64),
    )
    return Regression(trend=trend, coefficients=terms[shared:], squares=np.where(fitted, squares, np.nan))


def _joined(parts: list[Regression], columns: int) -> Regression:
    """Blocks of series as one."""
    if not parts:
        none = np.empty(0)
        trend = Trend(
            slope=none, standard_error=none, p_value=none, r1=none, freedom=none, months=np.empty(0, dtype=np.int64)
        )
        return Regression(trend=trend, coefficients=np.empty((columns, 0)), squares=none)
    whole = {one.name: np.concatenate([getattr(part.trend, one.name) for part in parts]) for one in fields(Trend)}
    return Regression(
        trend=Trend(**whole),
        coefficients=np.concatenate([part.coefficients for part in parts], axis=1),
        squares=np.concatenate([part.squares for part in parts]),
    )


def _lag_one(
    residual: NDArray[np.float64], known: NDArray[np.bool_], follows: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Burg's lag-1 autocorrelation and the pairs of neighbouring months it is of, ``(series,)`` each."""
    one, other = residual[:-1][follows], residual[1:][follows]
    both = known[:-1][follows] & known[1:][follows]
    product = (one * other).sum(axis=0)
    square = (((one**2) + (other**2)) * both).sum(axis=0) / 2
    r1 = np.divide(product, square, out=np.zeros_like(square), where=square > 0)
    return r1, both.sum(axis=0).astype(np.float64)
