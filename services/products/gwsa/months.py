"""Which month each GRACE solution stands for.

Solutions are means of about a month, but not of calendar months: late in a mission two of them can have their middle in
one month (2015-04, 2018-11) while the month beside has none. Binning by calendar month would merge or lose one of them.
"""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.time_axis import TimeAxis

MONTHS = TimeAxis.regular("2002-04", "P1M", 225)
"""The product's months, 2002-04 to 2020-12, without a gap."""

EPOCH = "2002-01-01"
"""What the days of CSR's and JPL's mascon files count from."""

REACH = 16.0
"""Days that a solution's middle may lie outside its month. Our choice: half a month, so that none is moved by two."""

_SHIFTS = (0, -1, 1)

type Days = NDArray[np.floating[Any]]


def assign(days: Days, bounds: Days | None = None, *, epoch: str = EPOCH) -> NDArray[np.int64]:
    """The months of solutions, one each, in their order.

    A solution keeps the month that its middle lies in unless two want the same. Of all ways to give each a month of its
    own in order, the month before, the same or the month after, the one is taken that leaves the fewest days between
    middles and months (our choice; the sources move single files by hand).

    Args:
        days: middles of the solutions ``(solution,)``, days since ``epoch``, rising.
        bounds: first and last day of each ``(solution, 2)``, if the file tells; their middle is then used, and a month
            must share a day with the interval.
        epoch: ISO 8601 date.

    Returns:
        Months since 1970-01 ``(solution,)``, rising.

    Raises:
        InputRefused: if times are missing, fall or occur twice, contradict the bounds, or if a solution finds no month.
    """
    middles = np.asarray(days, dtype=np.float64)
    if middles.ndim != 1 or not np.isfinite(middles).all():
        raise InputRefused(f"GRACE times must be one row of finite days, not {middles.shape} with NaN or infinity")
    if bounds is not None:
        middles = _middles(middles, np.asarray(bounds, dtype=np.float64), epoch)
    for before, after in itertools.pairwise(middles):
        if after <= before:
            fact = "occur twice" if after == before else "are not in order"
            raise InputRefused(f"GRACE times {fact}: {_date(before, epoch)}, then {_date(after, epoch)}")
    own = (
        (np.datetime64(epoch, "D") + np.floor(middles).astype("timedelta64[D]"))
        .astype("datetime64[M]")
        .astype(np.int64)
    )
    months = own[:, None] + np.array(_SHIFTS)
    first, end = (_days_of(months + late, epoch) for late in (0, 1))
    cost = np.maximum(np.maximum(first - middles[:, None], middles[:, None] - end), 0.0)
    cost[cost > REACH] = np.inf
    if bounds is not None:
        edges = np.asarray(bounds, dtype=np.float64)
        cost[(edges[:, :1] >= end) | (edges[:, 1:] <= first)] = np.inf
    return _cheapest(months, cost, middles, epoch)


def spread(solutions: NDArray[np.floating[Any]], months: NDArray[np.int64], axis: TimeAxis) -> NDArray[np.float64]:
    """Solutions on a monthly axis.

    Args:
        solutions: values ``(solution, ...)``, NaN where missing.
        months: month of each, months since 1970-01, each once.
        axis: monthly periods; solutions of other months are left out.

    Returns:
        ``(time, ...)`` of the axis; NaN in months without a solution.
    """
    values = np.full((len(axis), *solutions.shape[1:]), np.nan)
    _, rows, found = np.intersect1d(axis.starts, months, assume_unique=True, return_indices=True)
    values[rows] = solutions[found]
    return values


def _middles(days: NDArray[np.float64], bounds: NDArray[np.float64], epoch: str) -> NDArray[np.float64]:
    if bounds.shape != (days.size, 2) or not np.isfinite(bounds).all():
        raise InputRefused(f"GRACE time bounds are {bounds.shape} for {days.size} times, or not finite")
    wrong = np.flatnonzero((bounds[:, 0] >= bounds[:, 1]) | (days < bounds[:, 0]) | (days > bounds[:, 1]))
    if wrong.size:
        start, end = bounds[wrong[0]]
        raise InputRefused(
            f"the GRACE time {_date(days[wrong[0]], epoch)} does not lie in its bounds "
            f"{_date(start, epoch)} to {_date(end, epoch)}"
        )
    middles: NDArray[np.float64] = bounds.mean(axis=1)
    return middles


def _cheapest(
    months: NDArray[np.int64], cost: NDArray[np.float64], middles: NDArray[np.float64], epoch: str
) -> NDArray[np.int64]:
    """Rising months, one of each row, of least total cost: dynamic programming over the rows."""
    total = np.zeros_like(cost)
    came = np.zeros(cost.shape, dtype=np.int64)
    for row in range(len(months)):
        reached = np.zeros(len(_SHIFTS))
        if row:
            # (this row's choice, the row before's): only from an earlier month
            steps = np.where(months[row - 1] < months[row][:, None], total[row - 1], np.inf)
            came[row] = steps.argmin(axis=1)
            reached = steps.min(axis=1)
        total[row] = reached + cost[row]
        if np.isinf(total[row]).all():
            raise InputRefused(
                f"the GRACE solution of {_date(middles[row], epoch)} finds no month of its own within "
                f"{REACH:g} days: those before it, the last of {_date(middles[max(row - 1, 0)], epoch)}, take them"
            )
    chosen = np.empty(len(months), dtype=np.int64)
    choice = int(total[-1].argmin()) if len(months) else 0
    for row in reversed(range(len(months))):
        chosen[row] = months[row, choice]
        choice = int(came[row, choice])
    return chosen


def _days_of(months: NDArray[np.int64], epoch: str) -> NDArray[np.float64]:
    """First days of months, days since the epoch."""
    first = months.astype("datetime64[M]").astype("datetime64[D]") - np.datetime64(epoch, "D")
    return first.astype(np.float64)


def _date(days: float, epoch: str) -> str:
    return str(np.datetime64(epoch, "D") + np.timedelta64(int(np.floor(days)), "D"))
