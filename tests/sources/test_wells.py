"""Wells of every kind of table and of NetCDF, and the storage that their levels mean."""

import gzip
from pathlib import Path

import h5netcdf
import numpy as np
import pandas as pd
import pytest
from scipy.io import netcdf_file

from services.core.errors import InputRefused
from services.sources.wells import Wells, open_wells

LONG = """# levels of three wells
site,time,value
a,2004-01-15,10
b,2004-01-02,20.5
a,2004-03-01,12
a,2004-03-31,13
c,2004-02-01,
b,2004/3/7,NA
"""
SITES = """site,longitude,latitude,specific_yield
a,90.5,24.25,0.2
b,,,
d,91,25,0.1
"""


def month(text: str) -> int:
    return int(np.datetime64(text, "M").astype(int))


def table(path: Path, text: str, encoding: str = "utf-8") -> str:
    path.write_bytes(text.encode(encoding))
    return str(path)


def expected_of_long(found: Wells) -> None:
    assert found.sites == ("a", "b", "c")
    assert found.months == tuple(month(text) for text in ("2004-01", "2004-02", "2004-03"))
    nan = np.nan
    np.testing.assert_array_equal(found.levels, [[10, 20.5, nan], [nan] * 3, [12.5, nan, nan]])
    np.testing.assert_array_equal(found.readings, [[1, 1, 0], [0, 0, 0], [2, 0, 0]])


def test_a_long_table_and_its_sites(tmp_path: Path) -> None:
    found = open_wells(
        table(tmp_path / "w.csv", LONG),
        table(tmp_path / "s.csv", SITES),
        measures="head",
        units="m",
        specific_yield=0.15,
    )
    expected_of_long(found)
    nan = np.nan
    np.testing.assert_array_equal(found.longitude, [90.5, nan, nan])
    np.testing.assert_array_equal(found.latitude, [24.25, nan, nan])
    np.testing.assert_array_equal(found.specific_yield, [0.2, 0.15, 0.15])
    assert found.unread == ("d",)
    # 2.5 m of head times 0.2 are 50 cm of water
    np.testing.assert_allclose(found.storage(), [[-25, 0, nan], [nan] * 3, [25, nan, nan]])


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8-sig"), (";", "cp1252"), ("\t", "utf-8")])
def test_delimiters_and_encodings(tmp_path: Path, delimiter: str, encoding: str) -> None:
    text = LONG.replace(",", delimiter).replace("a" + delimiter, "Brünn" + delimiter)
    found = open_wells(table(tmp_path / "w.csv", text, encoding), measures="head", units="m")
    assert found.sites[0] == "Brünn"
    assert np.isnan(found.specific_yield).all()
    assert np.isnan(found.storage()).all()


def test_wide_tables_say_the_same(tmp_path: Path) -> None:
    per_site = "time,a,b,c\n2004-01-15,10,20.5,\n2004-03-01,12,,\n2004-03-31,13,NaN,-9999\n"
    per_date = "well,2004-01,2004-03-01,2004-03-31\na,10,12,13\nb,20.5,,\nc,,,\n"
    packed = tmp_path / "wide.csv.gz"
    packed.write_bytes(gzip.compress(per_site.encode()))
    for path in (str(packed), table(tmp_path / "d.csv", per_date)):
        expected_of_long(open_wells(path, measures="head", units="m"))


def test_depth_falls_when_storage_rises(tmp_path: Path) -> None:
    path = table(tmp_path / "w.csv", "site,date,depth_to_water\na,2004-01,10\na,2004-02,8\n")
    deep = open_wells(path, measures="depth", units="m", specific_yield=0.1).storage()
    high = open_wells(path, measures="head", units="m", specific_yield=0.1).storage()
    np.testing.assert_allclose(deep, [[-10], [10]])
    np.testing.assert_array_equal(deep, -high)


@pytest.mark.parametrize(("units", "metres"), [("m", 1), ("ft", 0.3048), ("feet", 0.3048), ("cm", 0.01), ("mm", 0.001)])
def test_units(tmp_path: Path, units: str, metres: float) -> None:
    path = table(tmp_path / "w.csv", "site,time,value\na,2004-01,10\n")
    np.testing.assert_allclose(open_wells(path, measures="head", units=units).levels, [[10 * metres]])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("site,time,value\na,2004-01,1\na,2004-13,2\n", r"w.csv, line 3: '2004-13' is no date"),
        ("#\n#\nsite,time,value\na,31.01.2004,1\n", r"w.csv, line 4: '31.01.2004' is no date"),
        ("site,time,value\na,2004-01,1\na,2004-02,deep\n", r"w.csv, line 3: the level of a is 'deep', which is no num"),
        ("site,time,value\na,2004-01,inf\n", r"w.csv, line 2: the level of a is 'inf'"),
        ("site,time,value\na,2004-01,1,2\n", r"w.csv, line 2: 4 cells, and the header has 3"),
        ("site,time,value\n,2004-01,1\n", r"w.csv, line 2: no site is named"),
        ("site,time,metres\na,2004-01,1\n", r"w.csv has no column of values; call it value"),
        ("site,time,value\na,2004-01,\n", r"w.csv holds no reading"),
        ("site,time,value\na,2004-01,-99990\n", r"w.csv: well a has -99990 m in 2004-01, beyond 12000 m"),
        ("time,a,a\n2004-01,1,2\n", r"w.csv has 2 columns of the site a"),
        ("well,2004-01\na,1\na,2\n", r"w.csv has 2 rows of the site a"),
        ("name,colour\na,red\n", r"w.csv is no table of wells"),
        ("time,a\n2004-01,1\n2004,2\n", r"w.csv, line 3: '2004' is no date"),
        ("site\na\n", r"w.csv holds no table of two columns"),
        ("# only this\n", r"w.csv holds no table"),
    ],
)
def test_tables_that_cannot_be_are_refused(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(InputRefused, match=match):
        open_wells(table(tmp_path / "w.csv", text), measures="depth", units="m")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("site,longitude,latitude,sy\na,1,2,1.5\n", r"s.csv, line 2: a specific yield of 1.5 is not in 0..1"),
        ("site,longitude,latitude,sy\na,1,2,0\n", r"s.csv, line 2: a specific yield of 0 is not in 0..1"),
        ("site,longitude,latitude\na,1,2\nb,500,2\n", r"s.csv, line 3: a longitude of 500 is no place"),
        ("site,longitude,latitude\na,,2\n", r"s.csv, line 2: one of longitude and latitude is missing"),
        ("site,longitude,latitude\na,1,2\na,1,2\n", r"s.csv has 2 rows of the site a"),
        ("site,x,y\na,1,2\n", r"s.csv has no columns site, longitude and latitude"),
        ("site,longitude_a,longitude_b,lat\na,1,2,3\n", r"s.csv: which of the columns longitude_a, longitude_b"),
    ],
)
def test_tables_of_sites_that_cannot_be_are_refused(tmp_path: Path, text: str, match: str) -> None:
    wells = table(tmp_path / "w.csv", LONG)
    with pytest.raises(InputRefused, match=match):
        open_wells(wells, table(tmp_path / "s.csv", text), measures="depth", units="m")


def test_unknown_units_and_yields_are_refused(tmp_path: Path) -> None:
    wells = table(tmp_path / "w.csv", LONG)
    with pytest.raises(InputRefused, match=r"w.csv: its unit is 'fathom'; a length in m, cm, mm, km or ft"):
        open_wells(wells, measures="depth", units="fathom")
    for share in (0.0, 1.01, float("nan")):
        with pytest.raises(InputRefused, match=r"w.csv: a specific yield of .* is not in 0..1"):
            open_wells(wells, measures="depth", units="m", specific_yield=share)


def test_a_changed_table_is_noticed(tmp_path: Path) -> None:
    wells = table(tmp_path / "w.csv", LONG)
    found = open_wells(wells, measures="depth", units="m")
    found.check_unchanged()
    table(tmp_path / "w.csv", LONG.replace("12", "11"))
    with pytest.raises(InputRefused, match=r"w.csv changed since it was read"):
        found.check_unchanged()


TIMES = np.array([0.0, 40.0, 85.0, 88.0])
VALUES = np.array([[10, 20.5, -999], [-999, -999, -999], [12, -999, -999], [13, -999, -999]], dtype=np.float32)


@pytest.mark.parametrize("order", [("time", "site"), ("site", "time")])
def test_netcdf4(tmp_path: Path, order: tuple[str, str]) -> None:
    path = tmp_path / "w.nc"
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"time": 4, "site": 3}
        file.create_variable("time", ("time",), data=TIMES).attrs["units"] = "days since 2004-01-01"
        file.create_variable("site", ("site",), data=np.array(["a", "b", "c"], dtype=h5netcdf.core.h5py.string_dtype()))
        for name, unit, where in (("lon", "degrees_east", [90, 91, 92]), ("lat", "degrees_north", [20, 21, 22])):
            file.create_variable(name, ("site",), data=np.array(where, dtype=np.float64)).attrs["units"] = unit
        values = VALUES if order[0] == "time" else VALUES.T
        depth = file.create_variable("depth", order, data=values, fillvalue=np.float32(-999))
        depth.attrs["units"] = "metres"
        file.create_variable("specific_yield", ("site",), data=np.array([0.2, 0.1, np.nan]))
    found = open_wells(str(path), measures="head", units="m", specific_yield=0.3)
    expected_of_long(found)
    np.testing.assert_array_equal(found.longitude, [90, 91, 92])
    np.testing.assert_array_equal(found.latitude, [20, 21, 22])
    np.testing.assert_array_equal(found.specific_yield, [0.2, 0.1, 0.3])
    assert [source.name for source in found.sources] == [str(path)]
    with pytest.raises(InputRefused, match=r"w.nc: depth is in 'metres', and 'ft' is asked for"):
        open_wells(str(path), measures="head", units="ft")


def test_classic_netcdf_with_characters(tmp_path: Path) -> None:
    path = tmp_path / "w.nc"
    with netcdf_file(path, "w") as file:
        for name, size in {"time": 4, "site": 3, "letters": 5}.items():
            file.createDimension(name, size)
        names = file.createVariable("well_id", "c", ("site", "letters"))
        names[:] = np.array([list("a\0\0\0\0"), list("b    "), list("c\0\0\0\0")], dtype="S1")
        for name, axis, values, units in (
            ("time", "time", TIMES, "days since 2004-01-01"),
            ("longitude", "site", np.array([1.0, 2.0, 3.0]), "degrees_east"),
            ("latitude", "site", np.array([1.0, 2.0, 3.0]), "degrees_north"),
        ):
            variable = file.createVariable(name, "f8", (axis,))
            variable[:] = values
            variable.units = units
        level = file.createVariable("level", "f4", ("time", "site"))
        level[:] = VALUES
        level.missing_value = np.float32(-999)
    expected_of_long(open_wells(str(path), measures="head", units="m"))


def test_the_real_ogallala_wells(realdata: Path) -> None:
    folder = realdata / "groundwater"
    names = [str(folder / name) for name in ("ogallala_wells_monthly_2001_2020.csv.gz", "ogallala_wells_meta.csv")]
    found = open_wells(names[0], names[1], measures="depth", units="m", specific_yield=0.15)
    raw = pd.read_csv(names[0], index_col=0)
    meta = pd.read_csv(names[1], index_col=0)
    assert found.sites == tuple(raw.columns)
    assert found.months == tuple(range(month("2001-01"), month("2021-01")))
    np.testing.assert_array_equal(found.levels, raw.to_numpy())
    np.testing.assert_array_equal(found.readings.sum(axis=0), meta.n_obs.reindex(raw.columns).to_numpy())
    assert np.isfinite(found.longitude).sum() == np.isfinite(found.latitude).sum() == 497
    np.testing.assert_array_equal(found.longitude, meta.longitude_from_id.reindex(raw.columns).to_numpy())
    expected = -15.0 * (raw - raw.mean()).to_numpy()
    np.testing.assert_allclose(found.storage(), expected, atol=1e-9)
    assert found.unread == ()
