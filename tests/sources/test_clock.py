"""CF times against xarray's decoding, Python's calendar and Julian day numbers."""

import datetime as dt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xarray.coding.times import decode_cf_datetime

from services.core.errors import InputRefused
from services.sources import clock


def decoded(values: Any, units: str, calendar: str | None = None) -> np.ndarray:
    array = np.asarray(values)
    return clock.decode("t", array, clock.parse_reference("t", units, calendar)).astype("datetime64[us]")


@settings(deadline=None)  # a loaded machine is no failure
@given(
    st.sampled_from(["seconds", "minutes", "hours", "days", "milliseconds"]),
    st.integers(-2_208_988_800, 1_577_836_800),
    st.lists(st.integers(-20_000, 20_000), min_size=1, max_size=5),
    st.sampled_from(["standard", "gregorian", "proleptic_gregorian"]),
)
def test_whole_times_equal_xarray(unit: str, epoch: int, values: list[int], calendar: str) -> None:
    units = f"{unit} since {np.datetime64(epoch, 's').item():%Y-%m-%d %H:%M:%S}"
    expected = decode_cf_datetime(np.asarray(values), units, calendar)
    np.testing.assert_array_equal(decoded(values, units, calendar), expected.astype("datetime64[us]"))


@settings(deadline=None)  # a loaded machine is no failure
@given(st.integers(0, 200_000), st.sampled_from(["days since 1900-1-1 00:00:00", "days since 1970-01-01"]))
def test_fractions_of_a_day_mean_whole_hours(hour: int, units: str) -> None:
    start = np.datetime64(units.split()[2].replace("-1-1", "-01-01"), "h")
    assert decoded([hour / 24], units)[0] == start + np.timedelta64(hour, "h")


def test_fractions_that_are_no_whole_second_stay() -> None:
    assert decoded([0.25], "seconds since 2000-01-01")[0] == np.datetime64("2000-01-01T00:00:00.250")
    # float32 days hold no seconds: what is stored stays
    value = np.float32(41911.3)
    expected = np.datetime64("1900-01-01", "us") + np.timedelta64(round(float(value) * 86_400_000_000), "us")
    assert decoded(np.asarray([value]), "days since 1900-01-01")[0] == expected


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ("days since 2000-1-1", "2000-01-02T00:00"),
        ("day since 2000-01-01 12:00", "2000-01-02T12:00"),
        ("days since 2000-01-01T00:00:00Z", "2000-01-02T00:00"),
        ("days since 2000-01-01 00:00:00 UTC", "2000-01-02T00:00"),
        ("days since 2000-01-01 00:00:00 +02:00", "2000-01-01T22:00"),
        ("hours since 2000-01-01 00:00 -3", "2000-01-01T04:00"),
        ("hrs since 2000-01-01", "2000-01-01T01:00"),
        ("Hours since 2000-01-01 00:00:00.0", "2000-01-01T01:00"),
        ("months since 2000-01-01", "2000-02-01T00:00"),
        ("years since 2000-03-01", "2001-03-01T00:00"),
        ("weeks since 2000-01-01", "2000-01-08T00:00"),
    ],
)
def test_units_as_they_are_written(units: str, expected: str) -> None:
    assert decoded([1], units)[0] == np.datetime64(expected)


def test_absolute_days() -> None:
    found = decoded([20040131.0, 20040229.25], "day as %Y%m%d.%f")
    np.testing.assert_array_equal(found, np.asarray(["2004-01-31T00", "2004-02-29T06"], "datetime64[us]"))
    with pytest.raises(InputRefused, match="no date"):
        decoded([20040231.0], "day as %Y%m%d.%f")


def test_the_standard_calendar_is_julian_before_1582() -> None:
    # Julian day numbers: 0001-01-01 (Julian) is 1721423.5, 2000-01-01 is 2451544.5
    assert decoded([2451544.5 - 1721423.5], "days since 1-1-1 00:00:00", "standard")[0] == np.datetime64("2000-01-01")
    ordinal = dt.date(2000, 1, 1).toordinal() - 1
    assert decoded([ordinal], "days since 0001-01-01", "proleptic_gregorian")[0] == np.datetime64("2000-01-01")
    assert decoded([1], "days since 1582-10-04", "standard")[0] == np.datetime64("1582-10-15")


@pytest.mark.parametrize("calendar", ["noleap", "365_day", "360_day", "all_leap", "julian", "366_day"])
def test_other_calendars_are_refused(calendar: str) -> None:
    with pytest.raises(InputRefused, match=rf"its calendar is '{calendar}'"):
        clock.parse_reference("x.nc: time", "days since 2000-01-01", calendar)


@pytest.mark.parametrize("units", ["fortnights since 2000-01-01", "days since then", "days since 2000-13-01", "days"])
def test_other_units_are_refused(units: str) -> None:
    with pytest.raises(InputRefused, match=r"x\.nc: time"):
        clock.parse_reference("x.nc: time", units, None)


def test_missing_and_impossible_times_are_refused() -> None:
    with pytest.raises(InputRefused, match="a time is missing"):
        decoded([1.0, np.nan], "days since 2000-01-01")
    with pytest.raises(InputRefused, match="beyond any calendar"):
        decoded([10**15], "days since 2000-01-01")
    with pytest.raises(InputRefused, match="beyond any calendar"):
        decoded([1e15], "days since 2000-01-01")
    with pytest.raises(InputRefused, match="fractions of a month"):
        decoded([0.5], "months since 2000-01-01")
    with pytest.raises(InputRefused, match="which not all months have"):
        decoded([1], "months since 2000-01-31")
