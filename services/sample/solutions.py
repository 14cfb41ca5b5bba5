"""When the two GRACE missions have a solution: which months, and the days that each was made from."""

import numpy as np
from numpy.typing import NDArray

FIRST, LAST = "2002-04", "2020-12"
"""The months that a file spans."""

EPOCH = np.datetime64("2002-01-01", "D")
"""What the days of the mascon files count from."""

MISSING = (
    *("2002-06", "2002-07", "2003-06", "2011-01", "2011-06", "2012-05", "2012-10", "2013-03", "2013-08", "2013-09"),
    *("2014-02", "2014-07", "2014-12", "2015-06", "2015-10", "2015-11", "2016-04", "2016-09", "2016-10", "2017-02"),
    *("2017-07", "2017-08", "2017-09", "2017-10", "2017-11", "2017-12", "2018-01", "2018-02", "2018-03", "2018-04"),
    *("2018-05", "2018-08", "2018-09"),
)
"""Months without a solution, as NASA's JPL lists them."""

_OTHER_DAYS = {
    "2002-04": ("2002-04-05", "2002-05-01"),
    "2002-05": ("2002-05-02", "2002-05-18"),
    "2011-11": ("2011-10-17", "2011-11-16"),
    "2011-12": ("2011-12-17", "2012-01-17"),
    "2015-04": ("2015-03-28", "2015-04-27"),
    "2015-05": ("2015-04-12", "2015-05-12"),
    "2017-06": ("2017-06-01", "2017-06-20"),
}
"""First day and the day after the last, where these are not the calendar's: as in the mission's files, two solutions
have their middle in 2012-01 and two in 2015-04. Days within a day or two of the real ones; the first middle is day 107.
"""


def months_between(first: str, last: str) -> NDArray[np.int64]:
    """The months of a span, both ends in it, months since 1970-01."""
    return np.arange(month_number(first), month_number(last) + 1)


def month_number(month: str) -> int:
    """A month like ``2004-01`` as months since 1970-01."""
    return int(np.datetime64(month, "M").astype(np.int64))


def month_name(month: int) -> str:
    """Months since 1970-01 as ``2004-01``."""
    return str(np.datetime64(int(month), "M"))


def month_starts(months: NDArray[np.int64]) -> NDArray[np.datetime64]:
    """First days of months since 1970-01, datetime64[D]."""
    return months.astype("datetime64[M]").astype("datetime64[D]")


def solutions() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The months that have a solution, and its days.

    Returns:
        Months since 1970-01 ``(solution,)``, rising; first day and the day after the last of each ``(solution, 2)``,
        days since 2002-01-01.
    """
    held = [month for month in months_between(FIRST, LAST) if month_name(month) not in MISSING]
    days = [_days(month) for month in held]
    return np.array(held), np.array(days)


def _days(month: int) -> tuple[float, float]:
    start, end = _OTHER_DAYS.get(month_name(month), (f"{month_name(month)}-01", f"{month_name(month + 1)}-01"))
    first, after = ((np.datetime64(day, "D") - EPOCH).astype(float) for day in (start, end))
    return float(first), float(after)
