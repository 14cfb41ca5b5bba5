"""What part of a trend follows from the climate, and what is left: least squares of both at once.

A store that loses a share 1 / tau of its anomaly a month and is fed by a driver's departure p from its own mean of
the month of the year (a linear reservoir) holds

    x(t) = p(t) + exp(-1 / tau) x(t - 1),

so a series is taken as a + b t + c cos(2 pi t) + s sin(2 pi t) + sum of c_k x_k + e. b is the residual trend: what no
driver explains. Because all terms are fitted at once, c_k rests on what is left of x_k and of the series once both
have lost their line and year: a driver that happens to drift beside a steady loss does not take that loss for its
own, as it would if the series were regressed on the drivers first. The slopes of the series and of its explained part
then differ by b exactly (the identity of an omitted variable), in the months that are fitted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from services.core.errors import InputRefused
from services.validation.trend import Floats, Months, Trend, ols_beside

MEMORIES = (0, 3, 6, 12, 24, 48)
"""Months of tau that are tried; the one that leaves least is taken, series by series (our choice)."""

SHARE = 4
"""A memory is tried where the series is so many times as long (our choice): a longer one is little but a line."""

LEAST_MONTHS = 60
"""Values that an attribution needs (our choice): five years, of which the line, the year and a memory are told."""

LEVEL = 0.05
"""Of the two-sided test of the residual trend."""


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Trends of series in parts; every array is ``(series,)``, float64, NaN where it cannot be told."""

    total: NDArray[np.float64]
    """Slope of the series, per year."""

    climate: NDArray[np.float64]
    """Slope of what the drivers explain; ``total`` less ``residual``."""

    residual: Trend
    """What is left: slope, standard error and p value, widened for lag-1 autocorrelation."""

    memory: NDArray[np.float64]
    """tau that was taken, months."""

    explained: NDArray[np.float64]
    """Share of the variance about line and year that the drivers take away, 0..1."""

    def falls(self, least: float) -> NDArray[np.bool_]:
        """Where the residual trend is a loss of at least so much a year, at LEVEL."""
        told: NDArray[np.bool_] = (self.residual.slope <= -least) & (self.residual.p_value < LEVEL)
        return told & (self.residual.slope < 0)


def memories(count: int) -> tuple[int, ...]:
    """Those of MEMORIES that a series of so many months can tell."""
    return tuple(memory for memory in MEMORIES if memory * SHARE <= count)


def departures(values: Floats, months: Months, fitted: Months) -> NDArray[np.float64]:
    """Values less their mean of the month of the year over the fitted months.

    Args:
        values: ``(time, ...)`` in months without a gap, NaN where missing.
        months: of the rows.
        fitted: months of the means; each month of the year that occurs must be among them.

    Raises:
        InputRefused: if a month of the year has no fitted month.
    """
    left = np.asarray(values, dtype=np.float64).copy()
    within = np.isin(months, fitted)
    for month in range(12):
        own = months % 12 == month
        if not own.any():
            continue
        if not (own & within).any():
            raise InputRefused(f"no fitted month is month {month + 1} of a year, so no departure from it is known")
        left[own] -= left[own & within].mean(axis=0)
    return left


def remembered(departure: Floats, memory: float) -> NDArray[np.float64]:
    """What a store holds: x of the module's equation, ``(time, ...)``; it begins at the mean, that is at 0.

    Args:
        departure: p, in months without a gap.
        memory: tau in months; 0: x is p.
    """
    kept = float(np.exp(-1 / memory)) if memory > 0 else 0.0
    found: NDArray[np.float64] = lfilter([1.0], [1.0, -kept], np.asarray(departure, dtype=np.float64), axis=0)
    return found


def attributed(values: Floats, months: Months, taus: Sequence[int], driver: Callable[[int], Floats]) -> Attribution:
    """Part the trends of many series.

    The choice of a memory counts as one degree of freedom where there is a choice (our choice).

    Args:
        values: ``(time, series)``, NaN where missing.
        months: of the rows.
        taus: memories to choose from, months.
        driver: x of every driver with such a memory in these months, ``(driver, time, series)``; a series with a NaN
            in one has no attribution. It is asked for one memory after the other.

    Raises:
        InputRefused: if shapes or months do not fit, or there is no driver.
    """
    count = values.shape[1]
    found: dict[str, NDArray[Any]] = {}
    squares = np.full(count, np.inf)
    memory = np.full(count, np.nan)
    for tau in taus:
        columns = driver(tau)
        if not len(columns):
            raise InputRefused("a trend is attributed to at least one driver")
        fit = ols_beside(values, months, columns, chosen=int(len(taus) > 1), least=LEAST_MONTHS)
        better = fit.squares < squares  # NaN is not
        squares[better], memory[better] = fit.squares[better], tau
        for name in Trend.__dataclass_fields__:
            one = getattr(fit.trend, name)
            found[name] = np.where(better, one, found.get(name, np.full(count, np.nan)))
    found["months"] = (~np.isnan(values)).sum(axis=0).astype(np.int64)
    residual = Trend(**found)
    plain = ols_beside(values, months, np.empty((0, *values.shape)), least=LEAST_MONTHS)
    told = np.isfinite(squares)
    total = np.where(told, plain.trend.slope, np.nan)
    share = np.full(count, np.nan)
    varies = told & (plain.squares > 0)
    share[varies] = 1 - squares[varies] / plain.squares[varies]
    return Attribution(total=total, climate=total - residual.slope, residual=residual, memory=memory, explained=share)
