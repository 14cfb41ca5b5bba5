"""TCCON's stations, from real files and files written as GGG2014 and GGG2020 are, against xarray and csv."""

import csv
import gzip
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from services.core.errors import InputRefused, SettingsError
from services.sources.tccon import open_profiles, open_tccon

HARWELL = "xco2/tccon_ggg2020_nc/hw20230402_20230402.public.qc.nc"

type Columns = Mapping[str, tuple[NDArray[Any], Mapping[str, Any]]]


def write(path: Path, columns: Columns, attributes: Mapping[str, Any]) -> str:
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"time": len(next(iter(columns.values()))[0])}
        for name, (values, said) in columns.items():
            variable = file.create_variable(name, ("time",), values.dtype, data=values)
            for key, value in said.items():
                variable.attrs[key] = value
        for key, value in attributes.items():
            file.attrs[key] = value
    return str(path)


def ggg2014(**changes: Any) -> dict[str, tuple[NDArray[Any], dict[str, Any]]]:
    """As the header of rj20131116_20170315.public.nc has them, -1e38 for missing."""
    missing = np.float32(-1e38)
    values = {
        "time": np.array([16000.25, 16000.5, 16001.0, 16002.75]),
        "lat_deg": np.full(4, 43.46, dtype=np.float32),
        "long_deg": np.full(4, 143.77, dtype=np.float32),
        "zobs_km": np.full(4, 0.38, dtype=np.float32),
        "xco2_ppm": np.array([396.5, 397.25, -1e38, 398.0], dtype=np.float32),
        "xco2_ppm_error": np.array([0.5, -1e38, 0.25, 0.75], dtype=np.float32),
    }
    units = {"time": "days since 1970-01-01 00:00:00", "lat_deg": "degrees_north", "long_deg": "degrees_east"}
    units |= {"zobs_km": "km", "xco2_ppm": "ppm", "xco2_ppm_error": "ppm"}
    made: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
        name: (column, {"units": units[name], **({} if name == "time" else {"missing_value": missing})})
        for name, column in values.items()
    }
    return {name: column for name, column in {**made, **changes}.items() if column is not None}


def ggg2020(start: float = 1.7e9, **changes: Any) -> dict[str, tuple[NDArray[Any], dict[str, Any]]]:
    """As the real file of Harwell has them."""
    values = {
        "time": start + 60.0 * np.arange(5),
        "lat": np.full(5, 45.94, dtype=np.float32),
        "long": np.full(5, 269.73, dtype=np.float32),
        "zobs": np.full(5, 0.44, dtype=np.float32),
        "xco2": np.array([420.0, 421.0, np.nan, 422.0, 423.0], dtype=np.float32),
        "xco2_error": np.full(5, 0.5, dtype=np.float32),
        "xco2_x2019": np.array([420.05, 421.05, np.nan, 422.05, 423.05], dtype=np.float32),
        "xco2_error_x2019": np.full(5, 0.5001, dtype=np.float32),
    }
    units = {"time": "seconds since 1970-01-01", "lat": "degrees_north", "long": "degrees_east", "zobs": "km"}
    made: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
        name: (column, {"units": units.get(name, "ppm")}) for name, column in values.items()
    }
    return {name: column for name, column in {**made, **changes}.items() if column is not None}


PARK_FALLS = {"long_name": "parkfalls01", "short_location": "Park Falls, WI, USA"}


@pytest.fixture
def park_falls(tmp_path: Path) -> Callable[..., str]:
    def make(name: str = "pa20231101_20231130.public.qc.nc", start: float = 1.7e9, **changes: Any) -> str:
        return write(tmp_path / name, ggg2020(start, **changes), PARK_FALLS)

    return make


@pytest.mark.parametrize(("scale", "tail"), [("X2007", ""), ("X2019", "_x2019")])
def test_harwell(realdata: Path, scale: str, tail: str) -> None:
    found = pickle.loads(pickle.dumps(open_tccon([str(realdata / HARWELL)], scale=scale)))  # noqa: S301 - our own
    (station,) = found.stations
    assert (station.site, station.name, station.place, station.versions) == (
        "hw",
        "harwell01",
        "Harwell, UK",
        ("GGG2020",),
    )
    with xr.open_dataset(realdata / HARWELL, engine="h5netcdf", decode_times=False) as data:
        spectra = station.spectra
        assert len(spectra) == 64
        np.testing.assert_array_equal(spectra.time, data.time.values)
        np.testing.assert_array_equal(spectra.xco2, data[f"xco2{tail}"].values)
        np.testing.assert_array_equal(spectra.error, data[f"xco2_error{tail}"].values)
        np.testing.assert_array_equal(spectra.latitude, data.lat.values)
        np.testing.assert_allclose(spectra.longitude, data.long.values, atol=1e-12)
        np.testing.assert_array_equal(spectra.altitude, data.zobs.values.astype(np.float64) * 1000)
    assert found.notes == ()
    found.check_unchanged()


@pytest.mark.parametrize("scale", ["X2007", "X2019"])
def test_the_prior_integrates_to_its_own_column(realdata: Path, scale: str) -> None:
    """The first spectrum, the median and the rms close within 0.018 ppm, the worst of 64 within 0.0243."""
    found = open_profiles(str(realdata / HARWELL), scale=scale)
    apart = np.abs(found.column(found.prior_co2) - found.prior_xco2)
    assert apart.shape == (64,)
    assert apart[0] < 0.018
    assert np.median(apart) < 0.018
    assert np.sqrt((apart**2).mean()) < 0.018
    assert apart.max() < 0.0245
    # the other scale's operator does not close
    other = open_profiles(str(realdata / HARWELL), scale="X2007" if scale == "X2019" else "X2019")
    assert np.abs(other.column(found.prior_co2) - found.prior_xco2).min() > 0.3


def test_eight_tables(realdata: Path) -> None:
    folder = realdata / "xco2" / "tccon_ggg2014_csv"
    found = open_tccon([str(folder / "*.csv.gz")], scale="X2007")
    assert [station.site for station in found.stations] == ["an", "bi", "iz", "ka", "or", "pa", "tk", "wg"]
    for station, path in zip(found.stations, sorted(folder.glob("*.gz")), strict=True):
        with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: row["tccon_datetime"])
        assert station.name == path.name.partition("_")[0]
        np.testing.assert_array_equal(station.spectra.xco2, [float(row["tccon_xco2"]) for row in rows])
        np.testing.assert_array_equal(station.spectra.error, [float(row["tccon_error"]) for row in rows])
        moments = np.array([row["tccon_datetime"].replace(" ", "T") for row in rows], dtype="datetime64[s]")
        np.testing.assert_array_equal(station.spectra.time, moments.astype(np.float64))
        assert station.longitude == pytest.approx(float(rows[0]["tccon_longitude"]))
    assert sum(len(station.spectra) for station in found.stations) == 71648
    assert len(found.inputs()) == 8
    with pytest.raises(InputRefused, match=r"anmeyondo01_tccon.csv.gz is on the scale X2007 and this run is on X2019"):
        open_tccon([str(folder / "*.csv.gz")])


def test_ggg2014(tmp_path: Path) -> None:
    attributes = {"longName": "rikubetsu01", "Location": "Rikubetsu, Hokkaido, Japan"}
    path = write(tmp_path / "rj20131116_20170315.public.nc", ggg2014(), attributes)
    (station,) = open_tccon([path], scale="X2007").stations
    assert (station.site, station.place, station.versions) == ("rj", "Rikubetsu, Hokkaido, Japan", ("GGG2014",))
    np.testing.assert_array_equal(station.spectra.xco2, [396.5, 397.25, 398.0])
    np.testing.assert_array_equal(station.spectra.error, [0.5, np.nan, 0.75])
    np.testing.assert_array_equal(station.spectra.time, np.array([16000.25, 16000.5, 16002.75]) * 86400)
    np.testing.assert_allclose(station.spectra.altitude, 380.0, rtol=1e-6)
    # without a unit of time: its year, day and hour, which may pass midnight
    parts: dict[str, Any] = {
        "year": (np.full(4, 2013, dtype=np.int32), {}),
        "day": (np.array([295, 295, 296, 296], dtype=np.int32), {}),
        "hour": (np.array([6.0, 12.0, 0.0, 42.0]), {}),
    }
    other = write(tmp_path / "rj20131116_20170316.public.nc", ggg2014(time=None, **parts), attributes)
    (again,) = open_tccon([other], scale="X2007").stations
    np.testing.assert_array_equal(again.spectra.time, station.spectra.time)


def test_ggg2014_is_converted_only_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "rj20131116_20170315.public.nc", ggg2014(), {"longName": "rikubetsu01"})
    with pytest.raises(InputRefused, match=r"rj20131116_20170315.public.nc is on the scale X2007 and this run is on"):
        open_tccon([path])
    found = open_tccon([path], convert=True)
    np.testing.assert_allclose(found.stations[0].spectra.xco2, np.array([396.5, 397.25, 398.0]) * 1.00079 - 0.142)
    np.testing.assert_allclose(found.stations[0].spectra.error[[0, 2]], np.array([0.5, 0.75]) * 1.00079)
    assert found.notes == ("GGG2014: X2007 converted to X2019 as samples in tanks are (Hall et al., 2021)",)
    assert found.scale == "X2019"


@pytest.mark.parametrize(("scale", "first"), [("X2007", 420.0), ("X2019", 420.05)])
def test_ggg2020_holds_both_scales(park_falls: Callable[..., str], scale: str, first: float) -> None:
    (station,) = open_tccon([park_falls()], scale=scale).stations
    assert (station.site, station.place) == ("pa", "Park Falls, WI, USA")
    assert station.spectra.xco2[0] == pytest.approx(first, abs=1e-4)
    assert len(station.spectra) == 4
    np.testing.assert_allclose(station.spectra.longitude, -90.27, atol=1e-4)


@pytest.mark.parametrize(("unit", "factor"), [("1", 1e-6), ("mol mol-1", 1e-6), ("1e-6", 1.0), ("umol/mol", 1.0)])
def test_units_are_told_apart(park_falls: Callable[..., str], unit: str, factor: float) -> None:
    changes = {}
    for name, (values, _) in ggg2020().items():
        if name.startswith("xco2"):
            changes[name] = (values.astype(np.float64) * factor, {"units": unit})
    (station,) = open_tccon([park_falls(**changes)], scale="X2007").stations
    np.testing.assert_allclose(station.spectra.xco2, [420.0, 421.0, 422.0, 423.0], rtol=1e-9)
    np.testing.assert_allclose(station.spectra.error, 0.5, rtol=1e-9)


def test_flags(park_falls: Callable[..., str]) -> None:
    found = open_tccon([park_falls(flag=(np.array([0, 7, 0, 0, 1], dtype=np.int16), {}))])
    np.testing.assert_allclose(found.stations[0].spectra.xco2, [420.05, 422.05], atol=1e-4)
    assert len(found.notes) == 1
    assert found.notes[0].endswith("2 spectra of another flag than 0 left out")
    with pytest.raises(InputRefused, match=r"no spectrum with a column and flag 0, of 5"):
        open_tccon([park_falls("pa20231101_20231129.public.qc.nc", flag=(np.full(5, 3, dtype=np.int16), {}))])


def test_files_of_a_site_follow_one_another(park_falls: Callable[..., str]) -> None:
    later = park_falls("pa20240101_20240131.public.qc.nc", 1.704e9)
    first = park_falls()
    found = open_tccon([later, first])
    (station,) = found.stations
    assert len(station.spectra) == 8
    assert (np.diff(station.spectra.time) > 0).all()
    assert [len(one.sha256) for one in found.inputs()] == [64, 64]
    with pytest.raises(InputRefused, match=r"both hold spectra of pa from 2023-11-14 on"):
        open_tccon([first, park_falls("pa20231114_20231115.public.qc.nc", 1.7e9 + 90)])


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("pa20231101_20231130.public.qc.nc", {"xco2_x2019": None, "xco2_error_x2019": None}, "on the scale X2007"),
        ("pa20231101_20231130.public.qc.nc", {"xco2": None}, "neither xco2 .* nor xco2_ppm"),
        ("pa20231101_20231130.public.qc.nc", {"lat": None}, "has no lat or lat_deg"),
        ("hw20231101_20231130.public.qc.nc", {}, "named as hw's and says that it is parkfalls01's, which is pa"),
        (
            "pa20231101_20231130.public.qc.nc",
            {"xco2_x2019": (np.full(5, 420.0), {"units": "kg kg-1"})},
            "share of mass is no mole fraction",
        ),
        (
            "pa20231101_20231130.public.qc.nc",
            {"xco2_x2019": (np.full(5, -999.0), {"units": "ppm"})},
            "a column of -999 ppm is not within 250..600",
        ),
        ("pa20231101_20231130.public.qc.nc", {"xco2_x2019": (np.full(5, 420.0), {})}, "states no unit"),
        (
            "pa20231101_20231130.public.qc.nc",
            {"xco2_x2019": (np.full(5, 420.0), {"units": "ppm", "wmo_or_analogous_scale": "WMO CO2 X2007"})},
            "xco2_x2019 says that it is on X2007",
        ),
    ],
)
def test_refusals(park_falls: Callable[..., str], name: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputRefused, match=said):
        open_tccon([park_falls(name, **changes)])


def test_unknown_scales_and_sites(tmp_path: Path, park_falls: Callable[..., str]) -> None:
    with pytest.raises(SettingsError, match="scale = 'X85' is none of X2007 and X2019"):
        open_tccon([park_falls()], scale="X85")
    other = write(tmp_path / "station.nc", ggg2020(), {"long_name": "atlantis01"})
    with pytest.raises(InputRefused, match="'atlantis01', which is no site of TCCON that is known here"):
        open_tccon([other])
    with pytest.raises(InputRefused, match="no file of TCCON is named"):
        open_tccon([])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("402.4,0.7,yesterday,36.5,126.3", "line 3: 'yesterday' is no time"),
        ("402.4,0.7,2015-02-10 04:10:26,36.5", "line 3: 4 cells, and the header has 5"),
        ("n/k,0.7,2015-02-10 04:10:26,36.5,126.3", "line 3: 'n/k' is no number"),
        ("4.024,0.7,2015-02-10 04:10:26,36.5,126.3", "a column of 4.024 ppm"),
    ],
)
def test_broken_tables(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "anmeyondo01_tccon.csv"
    header = "tccon_xco2,tccon_error,tccon_datetime,tccon_latitude,tccon_longitude"
    path.write_text(f"{header}\n402.1,NA,2015-02-10 04:10:20,36.5,126.3\n{line}\n")
    with pytest.raises(InputRefused, match=said):
        open_tccon([str(path)], scale="X2007")
    path.write_text(f"{header}\n402.1,NA,2015-02-10 04:10:20,36.5,126.3\n")
    assert np.isnan(open_tccon([str(path)], scale="X2007").stations[0].spectra.error).all()
