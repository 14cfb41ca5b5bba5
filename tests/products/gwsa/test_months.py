"""Months of GRACE solutions: against the published list, the files' own months, and all ways tried one by one."""

import itertools
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import xarray as xr

from services.core.errors import InputRefused
from services.core.time_axis import TimeAxis
from services.products.gwsa.months import MONTHS, assign, spread
from tests.products.gwsa.gaps_study import published_missing


def days(*dates: str) -> np.ndarray:
    return np.array(
        [(np.datetime64(text, "h") - np.datetime64("2002-01-01", "h")).astype(float) / 24 for text in dates]
    )


def names(months: np.ndarray) -> list[str]:
    return [str(month) for month in months.astype("datetime64[M]")]


def days_of_years(years: np.ndarray) -> np.ndarray:
    """Decimal years as days since 2002-01-01."""
    whole = np.floor(years).astype(int)
    starts = np.array([date(year, 1, 1).toordinal() for year in whole])
    lengths = np.array([date(year + 1, 1, 1).toordinal() for year in whole]) - starts
    found: np.ndarray = starts + (years - whole) * lengths - date(2002, 1, 1).toordinal()
    return found


def test_the_axis_is_that_of_the_product() -> None:
    assert (len(MONTHS), MONTHS.ids[0], MONTHS.ids[-1]) == (225, "2002-04", "2020-12")


def test_all_188_solutions_keep_a_month_and_the_33_published_ones_are_missing(realdata: Path) -> None:
    years, values = scipy.io.loadmat(realdata / "groundwater" / "ssa_example_C30.mat")["ser"].T
    months = assign(days_of_years(years))
    axis = TimeAxis.regular("2002-04", "P1M", 221)
    series = spread(values, months, axis)
    assert np.isfinite(series).sum() == values.size == 188
    assert [axis.ids[row] for row in np.flatnonzero(np.isnan(series))] == published_missing(realdata)
    # what binning by the calendar, or by twelfths of a year, would lose besides
    missing = set(published_missing(realdata))
    binned = {str(date.fromordinal(date(2002, 1, 1).toordinal() + int(day)))[:7] for day in days_of_years(years)}
    assert set(axis.ids) - binned - missing == {"2015-05", "2017-03", "2018-10"}
    twelfths = {f"{int(year)}-{int(year % 1 * 12) + 1:02d}" for year in years}
    assert set(axis.ids) - twelfths - missing == {"2011-11", "2015-05"}


def test_the_file_of_1_degree_maps_says_the_same_months(realdata: Path) -> None:
    with xr.open_dataset(realdata / "groundwater" / "grace_csr_rl05_lwe_1deg_2002-2010.nc", engine="h5netcdf") as data:
        times = (data.time.values - np.datetime64("2002-01-01")) / np.timedelta64(1, "D")
        expected = [bytes(m).decode() if isinstance(m, bytes) else str(m) for m in data.source_month.values]
    assert names(assign(times)) == expected


def test_the_doubled_months_of_the_mascon_file_are_told_apart() -> None:
    times = days("2011-10-16", "2011-11-01", "2012-01-01T12", "2012-01-16", "2015-03-16", "2015-04-12", "2015-04-27")
    assert names(assign(times)) == ["2011-10", "2011-11", "2011-12", "2012-01", "2015-03", "2015-04", "2015-05"]


def test_a_solution_alone_keeps_its_month_even_at_its_edge() -> None:
    assert names(assign(days("2010-01-31T23", "2010-03-01T00"))) == ["2010-01", "2010-03"]


def test_a_row_of_solutions_moves_together() -> None:
    times = days("2011-10-16", "2011-10-31", "2011-11-27", "2012-01-16")
    assert names(assign(times)) == ["2011-10", "2011-11", "2011-12", "2012-01"]


@pytest.mark.parametrize("seed", range(20))
def test_no_other_way_leaves_fewer_days(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, 240, 7))
    starts = np.array([date(2001 + (m + 11) // 12, (m + 11) % 12 + 1, 1).toordinal() for m in range(12)])
    starts = starts - date(2002, 1, 1).toordinal()  # of 2001-12 on
    own = np.searchsorted(starts, times, side="right") - 1
    ways = {}
    for shifts in itertools.product((-1, 0, 1), repeat=7):
        months = own + np.array(shifts)
        if (np.diff(months) > 0).all() and months[0] >= 0:
            apart = [max(starts[m] - t, t - starts[m + 1], 0.0) for m, t in zip(months, times, strict=True)]
            if max(apart) <= 16:
                ways[tuple(months)] = sum(apart)
    if not ways:
        with pytest.raises(InputRefused, match="finds no month of its own"):
            assign(times)
        return
    found = assign(times) - (2001 - 1970) * 12 - 11
    assert ways[tuple(found)] == pytest.approx(min(ways.values()), abs=1e-9)


def test_bounds_give_the_middle_and_forbid_a_month_they_do_not_touch() -> None:
    first = days("2011-10-01", "2011-10-16")
    last = days("2011-11-01", "2011-11-16")
    bounds = np.stack([first, last], axis=1)
    assert names(assign(first, bounds)) == ["2011-10", "2011-11"]
    # both within October: the second has nothing of November in it, and the first nothing of September
    bounds = np.array([days("2011-10-02", "2011-10-28"), days("2011-10-05", "2011-10-31")])
    assert len(assign(bounds.mean(axis=1))) == 2
    with pytest.raises(InputRefused, match="2011-10-18 finds no month"):
        assign(bounds.mean(axis=1), bounds)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (days("2010-01-16", "2010-03-16", "2010-02-16"), "not in order: 2010-03-16, then 2010-02-16"),
        (days("2010-01-16", "2010-01-16"), "occur twice: 2010-01-16, then 2010-01-16"),
        (
            days("2010-01-14", "2010-01-15", "2010-01-16", "2010-01-17"),
            "solution of 2010-01-17 finds no month of its own within 16 days: .* the last of 2010-01-16, take",
        ),
        (np.array([1.0, np.nan]), "finite days"),
        (np.zeros((2, 2)), r"one row of finite days, not \(2, 2\)"),
    ],
)
def test_times_that_cannot_be_are_refused(times: np.ndarray, message: str) -> None:
    with pytest.raises(InputRefused, match=message):
        assign(times)


def test_bounds_that_cannot_be_are_refused() -> None:
    times = days("2010-01-16")
    with pytest.raises(InputRefused, match=r"bounds are \(1, 3\) for 1 times"):
        assign(times, np.zeros((1, 3)))
    with pytest.raises(InputRefused, match="2010-01-16 does not lie in its bounds 2010-02-01 to 2010-03-01"):
        assign(times, days("2010-02-01", "2010-03-01")[None])


def test_solutions_lie_on_the_axis_and_others_are_left_out() -> None:
    axis = TimeAxis.regular("2010-01", "P1M", 4)
    months = np.array([479, 480, 482, 484])  # 2009-12, 2010-01, 2010-03, 2010-05
    found = spread(np.array([[1.0, 10], [2, 20], [3, np.nan], [4, 40]]), months, axis)
    np.testing.assert_array_equal(found, [[2, 20], [np.nan] * 2, [3, np.nan], [np.nan] * 2])


def test_no_solution_is_no_month() -> None:
    assert assign(np.array([])).shape == (0,)
