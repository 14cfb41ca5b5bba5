"""The CSVs of NASA's GRACE-California-Groundwater: all eight real ones against pandas, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from services.core.errors import InputRefused
from services.sources.nasa_series import label, read

FOLDER = "groundwater/california_nasa_grace"

SOLUTIONS = """# title: ["JPL"]
# months_missing: ["2004-02;2004-03"]
# total_area_GRACE: 73428.399
# total_area_units: km^2
#
date,tws,tws_error
01/15/2004,10.5,2.25
04/15/2004,-9.5,1.5
"""


def test_real_files(realdata: Path) -> None:
    paths = sorted((realdata / FOLDER).glob("*.csv"))
    assert len(paths) == 8
    for path in paths:
        found, known = read(path), pd.read_csv(path, comment="#")
        dates = pd.PeriodIndex(pd.to_datetime(known["date"]), freq="M")
        assert [label(month) for month in found.months] == [str(date) for date in dates]
        np.testing.assert_array_equal(found.values, known.iloc[:, 1])
        np.testing.assert_array_equal(found.errors, known.iloc[:, 2])
        assert found.variable == known.columns[1]
        assert (found.area_km2 is None) == ("CDEC" in path.name)


def test_what_the_real_files_say(realdata: Path) -> None:
    found = read(realdata / FOLDER / "anomaly_timeseries_GRACE_sacramento_mask.csv")
    assert found.area_km2 == 73428.399
    assert found.notes["title"] == "JPL GRACE and GRACE-FO MASCON RL06.3Mv04 CRI"
    assert len(found.listed_missing) == 33
    months = np.arange(found.months[0], found.months[-1] + 1)
    absent = np.setdiff1d(months, found.months)
    # binning by calendar month has cost the file two solutions that its own list does not miss
    assert [label(month) for month in np.setdiff1d(absent, found.listed_missing)] == ["2011-12", "2015-05"]


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tws.csv"
    path.write_text(SOLUTIONS)
    found = read(path)
    assert (found.name, found.variable, found.area_km2) == ("tws.csv", "tws", 73428.399)
    assert [label(month) for month in found.months] == ["2004-01", "2004-04"]
    assert (found.values.tolist(), found.errors.tolist()) == ([10.5, -9.5], [2.25, 1.5])
    assert [label(month) for month in found.listed_missing] == ["2004-02", "2004-03"]


@pytest.mark.parametrize("date", ["2004-01", "2004-01-01", "2004-01-01T00:00:00.000000000", "01/31/2004"])
def test_three_ways_to_write_a_date(tmp_path: Path, date: str) -> None:
    path = tmp_path / "swe.csv"
    path.write_text(f"date,anomaly,error\n{date},1,2\n")
    assert read(path).months.tolist() == [408]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("04/15/2004", "15/04/2004", r"line 8 of tws\.csv: '15/04/2004' is no date; is the day before the month\?"),
        ("04/15/2004", "2004-04", "'2004-04' is written unlike the first one"),
        ("04/15/2004", "April", "'April' is no date"),
        ("04/15/2004", "01/16/2004", "line 8 of tws.csv: 2004-01 occurs twice"),
        ("04/15/2004", "12/15/2003", "2003-12 follows 2004-01"),
        ("04/15/2004", "03/15/2004", "lists 2004-03 as missing and has a value for it"),
        ("-9.5,1.5", "-9.5", "line 8 of tws.csv has 2 fields"),
        ("-9.5,1.5", "nan,1.5", "line 8 of tws.csv: 'nan' is no number"),
        ("-9.5,1.5", ",1.5", "'' is no number"),
        ("-9.5,1.5", "-9.5,-1.5", "an error of -1.5"),
        ("tws,tws_error", "tws,swe_error", "the columns date, tws, swe_error"),
        ("km^2", "m^2", r"its area in m\^2"),
        ("73428.399", "large", "an area of 'large'"),
        ("2004-03", "2004-13", "lists '2004-13'"),
        ("# title", "# months_missing", "notes months_missing twice"),
    ],
)
def test_what_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in SOLUTIONS
    path = tmp_path / "tws.csv"
    path.write_text(SOLUTIONS.replace(old, new, 1))
    with pytest.raises(InputRefused, match=said):
        read(path)


def test_no_values_and_no_text(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty.csv", tmp_path / "binary.csv"
    empty.write_text("# title: x\ndate,tws,tws_error\n")
    binary.write_bytes(b"\x89HDF\r\n\xff\xfe")
    with pytest.raises(InputRefused, match=r"empty\.csv has no values"):
        read(empty)
    with pytest.raises(InputRefused, match=r"binary\.csv cannot be read as text"):
        read(binary)
    with pytest.raises(InputRefused, match=r"none\.csv cannot be read"):
        read(tmp_path / "none.csv")
