"""Which period a time means."""

from typing import Literal

import numpy as np
import pytest

from services.core.errors import InputRefused, SettingsError
from services.core.time_axis import Step
from services.sources import periods
from services.sources.periods import Label, Pattern, Regular


def microseconds(*times: str) -> np.ndarray:
    return np.asarray(times, dtype="datetime64[us]").astype(np.int64)


def every(start: str, stop: str, step: int, unit: Literal["D", "h", "m"]) -> np.ndarray:
    times = np.arange(np.datetime64(start, unit), np.datetime64(stop, unit), np.timedelta64(step, unit))
    return times.astype("datetime64[us]").astype(np.int64)


@pytest.mark.parametrize(
    ("times", "step"),
    [
        (microseconds("2002-04-18T12", "2002-05-11", "2002-08-17", "2002-09-16T11"), "P1M"),
        (microseconds("2014-12-01", "2015-01-01"), "P1M"),
        (microseconds("1999-01-31", "1999-02-28", "1999-03-31"), "P1M"),
        (microseconds("2000-01-01", "2001-01-01", "2003-01-01"), "P1Y"),
        (microseconds("2000-07-02", "2001-07-02"), "P1Y"),
        (every("2015-01-16", "2015-06-01", 1, "D"), "P1D"),
        (every("2015-01-16", "2015-06-01", 8, "D"), "P8D"),
        (every("2015-01-01", "2015-01-20", 3, "h"), "PT3H"),
        (every("2015-01-01", "2015-01-20", 1, "h"), "PT1H"),
        (every("2015-01-01T00:30", "2015-01-02", 60, "m"), "PT1H"),
        (every("2015-01-01", "2015-01-02", 15, "m"), "PT15M"),
        # eight scattered days in thirty months are days with gaps (OCO-3), whatever their hour
        (microseconds("2020-03-03T08", "2020-05-05T07", "2020-05-27T07", "2022-10-28T07"), "P1D"),
        # MODIS composites begin anew each year
        (np.concatenate([every(f"{y}-01-01", f"{y + 1}-01-01", 8, "D") for y in (2001, 2002)]), "P1D"),
        (microseconds("2004-01-01", "2004-09-01"), "P1D"),
    ],
)
def test_inferred_steps(times: np.ndarray, step: str) -> None:
    shuffled = np.random.default_rng(0).permutation(times)
    found = periods.inferred("set", shuffled)
    assert str(found) == step
    spans = periods.floored(shuffled, found)
    assert len(set(spans.starts)) == times.size


def test_one_time_alone_is_refused() -> None:
    with pytest.raises(InputRefused, match=r"one time alone \(2004-01-01T00:00:00Z\).*--time STEP"):
        periods.inferred("set", microseconds("2004-01-01"))


def test_times_closer_than_a_minute_are_refused() -> None:
    with pytest.raises(InputRefused, match="closer than a minute"):
        periods.inferred("set", microseconds("2004-01-01T00:00:01", "2004-01-01T00:00:02", "2004-03-01T00:00:00"))


@pytest.mark.parametrize(
    ("edges", "step"),
    [
        ([("2006-04-01", "2006-05-01"), ("2006-05-01", "2006-06-01")], "P1M"),
        ([("2006-04-01", "2006-05-01")], "P1M"),
        ([("2006-12-01", "2007-03-01"), ("2007-03-01", "2007-06-01")], "P3M"),
        ([("2001-01-01", "2002-01-01")], "P1Y"),
        ([("2001-01-01", "2001-01-09")], "P8D"),
        ([("2001-01-01T03", "2001-01-01T06")], "PT3H"),
        ([("2001-02-01", "2001-02-28"), ("2001-03-01", "2001-03-31")], None),  # ends are last days: not of one length
        ([("2001-01-01", "2001-02-01"), ("2001-01-15", "2001-02-15")], None),  # overlap
        ([("2001-01-02", "2001-01-01")], None),
    ],
)
def test_time_bounds(edges: list[tuple[str, str]], step: str | None) -> None:
    bounds = np.asarray(edges, dtype="datetime64[us]").astype(np.int64)
    spans = periods.bounded(bounds.mean(axis=1).astype(np.int64), bounds)
    assert (None if spans is None else str(spans.step)) == step
    if spans is not None:
        starts = np.asarray(spans.starts).astype(f"datetime64[{spans.step.unit}]").astype("datetime64[us]")
        np.testing.assert_array_equal(starts.astype(np.int64), bounds[:, 0])


def test_bounds_that_do_not_hold_their_time_are_not_used() -> None:
    bounds = microseconds("2001-01-01", "2001-02-01").reshape(1, 2)
    assert periods.bounded(microseconds("2001-03-01"), bounds) is None


@pytest.mark.parametrize(
    ("text", "name", "start"),
    [
        ("GWSA_{year}", "GWSA_2002.tif", "2002"),
        ("{year}{month}", "xco2_201403_v2.nc", "2014-03"),
        ("_{month}_{year}", "CO2_mx_monthly_10_2014.fnl.nc", "2014-10"),
        ("{year}-{month}-{day}", "chla-2004-02-29.nc", "2004-02-29"),
        ("{year}{doy}", "MOD13_2004060.tif", "2004-02-29"),
        ("{year}{month}{day}.{hour}{minute}", "A20150101.0330.nc4", "2015-01-01T03:30"),
        ("a*_{year}", "abc_2001.nc", "2001"),
    ],
)
def test_patterns(text: str, name: str, start: str) -> None:
    pattern = periods.parse_time(text)
    assert isinstance(pattern, Pattern)
    assert str(pattern.start(name)) == start


@pytest.mark.parametrize(
    ("text", "name", "fact"),
    [
        ("GWSA_{year}", "TWSA_2002.tif", "does not match"),
        ("{year}", "gw_2002_v2021.tif", "more than one way"),
        ("{year}-{month}", "a_2002-13.tif", "holds no date"),
        ("{year}{doy}", "a_2003366.tif", "holds no date"),
        ("{year}{doy}", "a_2003000.tif", "holds no date"),
        ("{year}{month}{day}T{hour}", "20030101T25", "holds no time"),
    ],
)
def test_names_that_do_not_fit_are_refused(text: str, name: str, fact: str) -> None:
    pattern = periods.parse_time(text)
    assert isinstance(pattern, Pattern)
    with pytest.raises(InputRefused, match=fact):
        pattern.start(name)


def test_start_and_step() -> None:
    assert periods.parse_time("2001-01/P1M") == Regular(start=372, step=Step(count=1, unit="M"))
    assert periods.parse_time("P8D") == Step(count=8, unit="D")
    assert periods.parse_time("2000-01-01T06/PT6H") == Regular(start=262974, step=Step(count=6, unit="h"))


@pytest.mark.parametrize(
    "text",
    [
        "{yeer}",
        "{month}",
        "{year}{year}",
        "{year}{day}",
        "2001-01",
        "2001-01/monthly",
        "x/P1M",
        "2001-01-15/P1M",
        "{year",
        "",
    ],
)
def test_options_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--time"):
        periods.parse_time(text)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("2004-01", Label(year=2004, month=1)),
        ("gwsa 2004-01", Label(year=2004, month=1)),
        ("2004-01-15", Label(year=2004, month=1, day=15)),
        ("2004-01-15T06:30:00Z", Label(year=2004, month=1, day=15, minute=390)),
        ("200401", Label(year=2004, month=1)),
        ("20040115", Label(year=2004, month=1, day=15)),
        ("January", Label(year=None, month=1)),
        ("sep", Label(year=None, month=9)),
        ("Jan 2004", Label(year=2004, month=1)),
        ("2004_December", Label(year=2004, month=12)),
        ("climatology-month-01", None),
        ("2004-13", None),
        ("band 3", None),
        ("", None),
        (None, None),
        ("2004-01 to 2004-03", None),
    ],
)
def test_labels(text: str | None, label: Label | None) -> None:
    assert periods.parse_label(text) == label


def test_year_of_a_name() -> None:
    assert periods.year_of("GWSA_2004.tif") == 2004
    assert periods.year_of("v2021_GWSA_2004.tif") is None
    assert periods.year_of("GWSA.tif") is None


@pytest.mark.parametrize(
    ("start", "unit", "count", "step"),
    [
        ("2004", "Y", 12, "P1M"),
        ("2004", "Y", 366, "P1D"),
        ("2003", "Y", 366, None),
        ("2004", "Y", 8784, "PT1H"),
        ("2004-02", "M", 29, "P1D"),
        ("2004-02", "M", 28, None),
        ("2004-02-01", "D", 24, "PT1H"),
        ("2004", "Y", 1, "P1Y"),
    ],
)
def test_slices_that_fill_a_period(start: str, unit: str, count: int, step: str | None) -> None:
    spans = periods.subdivided(np.datetime64(start), unit, count)  # type: ignore[arg-type]
    assert (None if spans is None else str(spans.step)) == step
