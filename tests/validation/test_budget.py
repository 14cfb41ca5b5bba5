"""The water balance against pandas on the real California files, and by hand on small series."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from services.core.errors import InputRefused
from services.sources.nasa_series import RegionSeries, read
from services.validation.budget import Term, what_is_left
from services.validation.trend import ols

FOLDER = "groundwater/california_nasa_grace"
FILES = ("GRACE_{}_mask", "NLDAS_{}_mask_*", "SNODAS_{}_mask", "CDEC_{}_mask")


def files(realdata: Path, region: str) -> list[Path]:
    found = [sorted((realdata / FOLDER).glob(f"anomaly_timeseries_{name.format(region)}.csv")) for name in FILES]
    return [path for [path] in found]


def term(series: RegionSeries) -> Term:
    return Term(
        name=series.name,
        months=series.months,
        values=series.values,
        errors=series.errors,
        area_km2=series.area_km2,
    )


def by_pandas(path: Path) -> pd.DataFrame:
    data = pd.read_csv(path, comment="#")
    data.index = pd.PeriodIndex(pd.to_datetime(data.pop("date")), freq="M")
    return data.set_axis(["value", "error"], axis=1)


def test_sacramento(realdata: Path) -> None:
    total, *parts = (term(read(path)) for path in files(realdata, "sacramento"))
    found = what_is_left(total, parts)
    # as stated in issue 5, criterion 3: of the terms as they come, before each loses its own 2004-2009 mean
    assert len(found.months) == 233
    assert found.months[0] == 408
    assert (round(found.as_given[0], 3), round(found.error[0], 3)) == (1.775, 3.372)
    known = [by_pandas(path) for path in files(realdata, "sacramento")]
    joined = pd.concat(known, axis=1, join="inner", keys=range(4))
    values = joined.xs("value", axis=1, level=1)
    means = [data.value["2004":"2009"].mean() for data in known]
    assert [len(data.value["2004":"2009"]) for data in known] == [72] * 4
    expected = (values.to_numpy() - np.array(means)) @ np.array([1, -1, -1, -1])
    np.testing.assert_allclose(found.storage, expected, atol=1e-12)
    np.testing.assert_allclose(found.error, np.hypot.reduce(joined.xs("error", axis=1, level=1).to_numpy(), axis=1))
    assert found.storage[:72].mean() == pytest.approx(0, abs=1e-12)
    inside = (found.months >= 408) & (found.months < 552)
    slope = ols(found.storage[inside, None], found.months[inside])
    assert slope.months[0] == 129
    # km3 a year, 2004-2015, beside an annual cycle; r1 of 0.7 leaves 18 degrees of freedom of 125
    assert slope.slope[0] == pytest.approx(-1.52, abs=0.005)
    assert slope.standard_error[0] == pytest.approx(0.26, abs=0.005)


def test_californias_reservoirs_are_too_short(realdata: Path) -> None:
    total, *parts = (term(read(path)) for path in files(realdata, "california"))
    said = r"CDEC_california_mask\.csv has 3 months in the baseline 2004-01 to 2009-12, and a mean needs 60"
    with pytest.raises(InputRefused, match=said):
        what_is_left(total, parts)
    assert len(what_is_left(total, parts[:2]).months) == 235


def test_two_regions_do_not_mix(realdata: Path) -> None:
    total, *parts = (term(read(path)) for path in files(realdata, "sacramento"))
    other = term(read(files(realdata, "california")[1]))
    with pytest.raises(InputRefused, match=r"is of 156268 km2 and .*SNODAS_sacramento.* are they of one region"):
        what_is_left(total, [other, *parts[1:]])


def made(name: str, months: list[int], values: list[float], error: float = 1.0) -> Term:
    return Term(name=name, months=np.array(months), values=np.array(values), errors=np.full(len(months), error))


def test_by_hand() -> None:
    total = made("tws", [0, 1, 3, 4], [10, 12, 20, 30], 3.0)
    part = made("sm", [1, 2, 3, 4], [1, 2, 5, 9], 4.0)
    found = what_is_left(total, [part], baseline=(0, 3), least=2)
    assert found.months.tolist() == [1, 3, 4]
    assert found.as_given.tolist() == [11, 15, 21]
    # each less the mean of all of its own months, 11 and 1.5, not of those in common
    assert found.storage.tolist() == [11 - 9.5, 15 - 9.5, 21 - 9.5]
    assert found.error.tolist() == [5, 5, 5]


def test_what_does_not_fit_is_refused() -> None:
    total = made("tws", [0, 1, 2], [1, 2, 3])
    with pytest.raises(InputRefused, match="nothing was given"):
        what_is_left(total, [], baseline=(0, 3), least=1)
    with pytest.raises(InputRefused, match="tws, sm have no month in common"):
        what_is_left(made("tws", [0, 2], [1, 2]), [made("sm", [1, 3], [1, 2])], baseline=(0, 4), least=1)
    with pytest.raises(InputRefused, match=r"sm has 1 months in the baseline 1970-01 to 1970-03, and a mean needs 2"):
        what_is_left(total, [made("sm", [2, 3, 4], [1, 2, 3])], baseline=(0, 3), least=2)
    with pytest.raises(InputRefused, match="sm: its months do not rise"):
        made("sm", [2, 2], [1, 2])
    with pytest.raises(InputRefused, match="sm: a value or an error is no number"):
        made("sm", [2, 3], [1, np.nan])
    with pytest.raises(InputRefused, match="sm: months, values and errors have the shapes"):
        made("sm", [2, 3], [1.0])
