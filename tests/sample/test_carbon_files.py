"""The input directory of xco2_global: what it holds, as other readers see it, and that it is made alike each time."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr

from services.sample.carbon import Carbon
from services.sample.carbon_files import write_carbon
from services.sample.carbon_seen import Covariates
from services.sample.carbon_stations import DAILY, OWN, STATIONS, network, offset_of
from services.sample.solutions import month_name, month_number, months_between

JANUARY = month_number("2020-01")


@pytest.fixture(scope="module")
def small() -> Covariates:
    """What the small size's covariates are."""
    return Covariates(world=Carbon("small"))


def test_the_directory_says_what_is_in_it(carbon_inputs: Path) -> None:
    settings = tomllib.loads((carbon_inputs / "xco2.toml").read_text())
    assert settings["synthetic"] is True
    assert settings["soundings"]["scale"] == "X2019"
    patterns = [*settings["soundings"]["files"], settings["stations"]["files"], settings["land"]["files"]]
    patterns += [one["files"] for one in settings["covariates"]]
    for pattern in patterns:
        assert list(carbon_inputs.glob(pattern)), pattern
    names = [one["name"] for one in settings["covariates"]]
    assert len(set(names)) == len(names) == 15
    (inventory,) = [one for one in settings["covariates"] if one["name"] == "emissions"]
    assert (inventory["units"], inventory["aggregate"], inventory["transform"]) == ("t month-1", "sum", "log1p")
    manifest = json.loads((carbon_inputs / "manifest.json").read_text())
    assert "synthetic" in manifest["note"]
    assert (manifest["seed"], manifest["size"], manifest["months"]) == (7, "small", ["2020-01", "2020-02"])
    assert set(manifest["files"]) | {"manifest.json"} == {path.name for path in carbon_inputs.iterdir()}
    # of the 17th days, those of two months
    assert len(list(carbon_inputs.glob("oco2_LtCO2_20*.nc4"))) in {3, 4}
    assert len(list(carbon_inputs.glob("*.public.qc.nc"))) == 23


def test_covariates_begin_eleven_months_before(carbon_inputs: Path) -> None:
    known = [month_name(month) for month in months_between("2019-02", "2020-02").tolist()]
    for name in ("ndvi", "lst", "night_lights", "emissions"):
        assert sorted(path.name for path in carbon_inputs.glob(f"{name}_*.tif")) == [f"{name}_{m}.tif" for m in known]
    with xr.open_mfdataset(sorted(carbon_inputs.glob("era5_monthly_*.nc")), engine="h5netcdf") as data:
        assert [str(time)[:7] for time in data.time.values] == known


def test_era5_is_packed_from_the_north_and_from_greenwich(carbon_inputs: Path, small: Covariates) -> None:
    expected = small.month(JANUARY)
    with xr.open_dataset(carbon_inputs / "era5_monthly_2020.nc", engine="h5netcdf") as data:
        assert float(data.longitude[0]) == 1.0
        assert float(data.longitude[-1]) == 359.0
        assert float(data.latitude[0]) == 89.0
        assert data.t2m.encoding["dtype"] == np.int16
        assert data.t2m.encoding["_FillValue"] == -32767
        for name, covariate, error in (
            ("t2m", "temperature", 0.0011),
            ("d2m", "dew_point", 0.0011),
            ("sp", "pressure", 0.51),
            ("tp", "rain", 5.1e-7),
            ("u10", "east", 0.00051),
            ("v10", "north", 0.00051),
            ("swvl1", "soil_moisture", 1.1e-5),
        ):
            found = data[name].isel(time=0).roll(longitude=90, roll_coords=True).values
            np.testing.assert_allclose(found, expected[covariate], rtol=0, atol=error, err_msg=name)
        assert data.t2m.units == "K"
        assert data.swvl1.isnull().mean() > 0.5
        assert not data.t2m.isnull().any()


def test_rasters_hold_the_covariates_and_are_missing_with_a_value(carbon_inputs: Path, small: Covariates) -> None:
    expected = small.month(JANUARY)
    for name, covariate, error in (
        ("ndvi_2020-01", "vegetation", 0.5001e-4),
        ("lst_2020-01", "skin", 0.0101),
        ("night_lights_2020-01", "night_lights", 0.0501),
        ("emissions_2020-01", "emissions", 0),
        ("elevation", "elevation", 0.501),
        ("population", "population", 0),
        ("land_cover", "land_cover", 0),
        ("land_fraction", "land_fraction", 0),
    ):
        with rasterio.open(carbon_inputs / f"{name}.tif") as dataset:
            assert dataset.crs.to_epsg() == 4326
            assert dataset.bounds == (-180, -90, 180, 90)
            assert "synthetic" in dataset.tags()["NOTE"]
            assert dataset.nodata is not None
            values = dataset.read(1, masked=True).astype(np.float64) * dataset.scales[0]
        np.testing.assert_allclose(values.filled(np.nan), expected[covariate], rtol=1e-6, atol=error, err_msg=name)


def test_a_second_call_keeps_and_other_months_make_the_same_files(carbon_inputs: Path, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in carbon_inputs.iterdir()}
    write_carbon(carbon_inputs, "small", months=("2020-01", "2020-02"))
    assert {path.name: path.stat().st_mtime_ns for path in carbon_inputs.iterdir()} == before
    other = write_carbon(tmp_path / "other", "small", months=("2020-02", "2020-02"))
    shared = {path.name for path in other.iterdir()} & set(before)
    assert {"emissions_2020-02.tif", "ndvi_2019-03.tif", "land_cover.tif", "xco2.toml"} <= shared
    assert any(name.startswith("oco2_LtCO2_2002") for name in shared)
    for name in shared - {"manifest.json", "era5_monthly_2019.nc", "era5_monthly_2020.nc"}:
        assert (other / name).read_bytes() == (carbon_inputs / name).read_bytes(), name


def test_stations_measure_the_truth_with_the_errors_they_state(carbon: Carbon) -> None:
    made = network(carbon, np.datetime64("2019-01-01", "D"), np.datetime64("2019-12-31", "D"))
    assert len({one.station.site for one in made}) == 23
    offsets = []
    for one in made:
        error = one.xco2 - one.truth - offset_of(carbon, one.station)
        offsets.append(offset_of(carbon, one.station))
        day = (one.time + one.station.longitude / 15 * 3600) // 86400
        assert (one.time.astype("datetime64[s]").astype("datetime64[Y]") == np.datetime64("2019", "Y")).all()
        days, first = np.unique(day, return_inverse=True)
        mean = np.bincount(first, error) / np.bincount(first)
        own = (error - mean[first]) / one.error
        assert own.std() == pytest.approx(1, abs=0.12), one.station.name
        assert one.error.min() >= OWN
        assert error.std() == pytest.approx(np.hypot(DAILY, one.error.mean()), abs=0.12)
        assert 25 < len(days) < 120
        hour = (one.time / 3600 + one.station.longitude / 15) % 24
        near = np.abs(hour - 13.5) <= 1
        assert np.median(np.bincount(first[near])) > 15
    assert 0.1 < np.std(offsets) < 0.3


def test_a_stations_file_has_the_networks_form(carbon_inputs: Path, small: Covariates) -> None:
    (path,) = carbon_inputs.glob("pa*.public.qc.nc")
    assert path.name == "pa20200101_20200229.public.qc.nc"
    made = network(small.world, np.datetime64("2020-01-01", "D"), np.datetime64("2020-02-29", "D"))
    (expected,) = [one for one in made if one.station.site == "pa"]
    with xr.open_dataset(path, engine="h5netcdf") as data:
        assert data.attrs["long_name"] == "parkfalls01"
        assert "synthetic" in data.attrs["source"]
        assert data.sizes == {"time": len(expected.time), "prior_altitude": 51, "ak_altitude": 51}
        np.testing.assert_allclose(data.xco2_x2019, expected.xco2, atol=2e-5)
        np.testing.assert_allclose(data.xco2_error, expected.error, rtol=1e-6)
        assert data.xco2.units == "ppm"
        assert data.xco2.wmo_or_analogous_scale == "WMO CO2 X2007"
        assert np.isnan(data.xco2.encoding["_FillValue"])
        closed = (data.integration_operator.astype(float) * data.prior_co2.values).sum("prior_altitude")
        np.testing.assert_allclose(closed, data.prior_xco2, atol=0.005)
        np.testing.assert_allclose(data.integration_operator.sum("prior_altitude"), 1, atol=1e-5)
        np.testing.assert_allclose(data.lat, 45.94, atol=1e-4)
        assert (data.extrapolation_flags_ak_xco2 == 0).all()
        hours = (data.time - data.time.dt.floor("D")).values / np.timedelta64(1, "h")
        np.testing.assert_allclose(hours, data.hour, atol=1e-3)
        np.testing.assert_array_equal(data.time.dt.dayofyear, data.day)


@pytest.mark.realdata
def test_stations_stand_where_the_real_ones_do(realdata: Path) -> None:
    known = {station.name[:5]: station for station in STATIONS}
    files = sorted((realdata / "xco2" / "tccon_ggg2014_csv").glob("*.csv.gz"))
    assert len(files) == 8
    for path in files:
        station = known[path.name[:5]]
        real = pd.read_csv(path, usecols=["tccon_latitude", "tccon_longitude"]).iloc[-1]
        assert station.latitude == pytest.approx(real.tccon_latitude, abs=0.02), path.name
        assert station.longitude == pytest.approx(real.tccon_longitude, abs=0.02), path.name
