"""The groundwater's input files: read with xarray, rasterio, csv and tomllib, and balanced by hand."""

import csv
import datetime as dt
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr

from services.products.gwsa.months import assign
from services.sample.aquifers import AQUIFERS
from services.sample.groundwater import KNOWN, REGIONS, Groundwater
from services.sample.groundwater_files import PREDICTOR_MONTHS, write_groundwater
from services.sample.groundwater_missions import CSR, CSR_NOISE, JPL, JPL_NOISE, csr_errors
from services.sample.groundwater_seen import Seen
from services.sample.groundwater_wells import wells_of
from services.sample.manifest import MANIFEST
from services.sample.solutions import FIRST, LAST, MISSING, month_name, month_number, months_between
from tests.products.gwsa.gaps_study import published_missing
from tests.samples import sample_seconds

pytestmark = pytest.mark.slow  # as a whole

WATER = (
    "SoilMoi0_10cm_inst",
    "SoilMoi10_40cm_inst",
    "SoilMoi40_100cm_inst",
    "SoilMoi100_200cm_inst",
    "SWE_inst",
    "CanopInt_inst",
)
HELD = [month_name(month) for month in months_between(FIRST, LAST) if month_name(month) not in MISSING]
BASELINE = [month_name(month) for month in months_between("2004-01", "2009-12")]
REGION = {"lat": slice(20, 25), "lon": slice(68, 74)}
JANUARY = month_number("2020-01")


def gldas_name(month: str) -> str:
    return f"GLDAS_NOAH025_M.A{month.replace('-', '')}.021.nc4"


def undecoded(path: Path) -> xr.Dataset:
    return xr.open_dataset(path, engine="h5netcdf", decode_times=False)


def digests(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_csr_has_the_missions_form(groundwater: Path) -> None:
    with undecoded(groundwater / CSR) as data:
        assert data.lwe_thickness.dims == ("time", "lat", "lon")
        assert data.lwe_thickness.shape == (192, 720, 1440)
        assert data.lwe_thickness.encoding["dtype"] == np.float32
        assert data.lwe_thickness.units == "cm"
        np.testing.assert_allclose(data.lat, -89.875 + 0.25 * np.arange(720))
        np.testing.assert_allclose(data.lon, 0.125 + 0.25 * np.arange(1440))
        assert data.time.Units == "days since 2002-01-01T00:00:00Z"
        assert float(data.time[0]) == 107.0
        np.testing.assert_array_equal(data.time, data.time_bounds.mean("bounds"))
        assert "synthetic" in data.attrs["institution"]
        there = np.isfinite(data.lwe_thickness.isel(time=100)).sum(("lat", "lon"))
        inside = data.lwe_thickness.sel(lat=slice(17, 28), lon=slice(65, 77))
        assert int(there) == 48 * 44 == inside.isel(time=100).size
        assert np.isfinite(inside).all()
        mean = inside.values[[name in BASELINE for name in HELD]].mean(axis=0, dtype=np.float64)
        assert np.abs(mean).max() < 1e-5


@pytest.mark.parametrize("name", [CSR, JPL])
def test_each_solution_finds_its_month_and_binning_loses_two(groundwater: Path, name: str) -> None:
    with undecoded(groundwater / name) as data:
        days, bounds = data.time.values, data.time_bounds.values
    for months in (assign(days), assign(days, bounds)):
        assert [month_name(month) for month in months] == HELD
    binned = {str(np.datetime64("2002-01-01") + np.timedelta64(int(day), "D"))[:7] for day in days}
    assert set(HELD) - binned == {"2011-12", "2015-05"}


def test_the_missing_months_are_the_published_ones(realdata: Path) -> None:
    assert list(MISSING) == published_missing(realdata)


def test_gldas_has_the_models_form(groundwater: Path, seen: Seen) -> None:
    assert len(list(groundwater.glob("GLDAS_NOAH025_M.A??????.021.nc4"))) == 225
    path = groundwater / gldas_name("2020-01")
    with xr.open_dataset(path, engine="h5netcdf") as data:
        assert str(data.time.values[0])[:10] == "2020-01-01"
        assert set(WATER) <= set(data.data_vars)
        np.testing.assert_allclose(data.lat, -59.875 + 0.25 * np.arange(600))
        np.testing.assert_allclose(data.lon, -179.875 + 0.25 * np.arange(1440))
        assert "synthetic" in data.attrs["institution"]
        expected = seen.gldas(JANUARY)
        for name in WATER:
            assert data[name].dims == ("time", "lat", "lon")
            assert data[name].units == "kg m-2"
            found = data[name].sel(lat=slice(17, 28), lon=slice(65, 77)).values[0, ::-1]
            np.testing.assert_array_equal(found, expected[name])
            assert int(np.isfinite(data[name]).sum()) == np.isfinite(found).sum()
            assert np.nanmax(found) > np.nanmin(found) >= 0
    with h5netcdf.File(path) as file:
        raw = file.variables["SoilMoi0_10cm_inst"]
        assert raw[0, 0, 0] == raw.attrs["_FillValue"] == raw.attrs["missing_value"] == np.float32(-9999)


def test_the_water_balance_gives_back_the_coarse_truth_and_the_stated_noise(
    groundwater: Path, world: Groundwater
) -> None:
    water: dict[str, np.ndarray] = {}
    for month in HELD:
        with xr.open_dataset(groundwater / gldas_name(month), engine="h5netcdf") as data:
            parts = [data[name].sel(REGION).isel(time=0).astype(np.float64) for name in WATER]
            water[month] = sum(parts[1:], parts[0]).values / 10
    with undecoded(groundwater / CSR) as data:
        storage = dict(zip(HELD, data.lwe_thickness.sel(REGION).values.astype(np.float64), strict=True))
    balance = np.stack([storage[month] - water[month] for month in HELD])
    held = np.array([month in BASELINE for month in HELD])
    assert held.sum() == 72
    balance = (balance - balance[held].mean(axis=0))[:, ::-1]
    truth = np.stack([world.coarse(month_number(month)) for month in HELD])
    error = balance - truth
    there = np.isfinite(error[0])
    assert np.isfinite(error[:, there]).all()
    # where the model has at least half of a cell's land, and only there
    np.testing.assert_array_equal(there, world.land_share[4:-4, 4:-4] >= 0.5)
    assert 0.85 < there.sum() / np.isfinite(truth[0]).sum() < 1
    assert error[:, there].std() == pytest.approx(CSR_NOISE, abs=0.15)
    assert truth[:, there].std() > 3 * CSR_NOISE
    np.testing.assert_allclose(error[:, there], csr_errors(world)[:, 12:-12, 12:-12][:, there], rtol=0, atol=2e-5)
    # alike over 100 km, nothing to do with each other over 600 km
    spread = csr_errors(world)
    near = np.mean(spread[:, :, 4:] * spread[:, :, :-4]) / np.mean(spread**2)
    far = np.mean(spread[:, :, 24:] * spread[:, :, :-24]) / np.mean(spread**2)
    assert near > 0.6
    assert abs(far) < 0.15
    assert abs(np.mean(spread[1:] * spread[:-1])) < 0.1


def test_jpl_is_constant_on_mascons_and_states_its_uncertainty(groundwater: Path) -> None:
    with undecoded(groundwater / JPL) as data, undecoded(groundwater / CSR) as csr:
        assert data.lwe_thickness.shape == (192, 360, 720) == data.uncertainty.shape
        assert data.time.units == "days since 2002-01-01T00:00:00Z"
        assert (float(data.lat[0]), float(data.lon[0]), float(data.lon[-1])) == (-89.75, 0.25, 359.75)
        mascon = data.lwe_thickness.sel(lat=slice(21, 24), lon=slice(69, 72)).values
        assert mascon.shape == (192, 6, 6)
        assert (mascon == mascon[:, :1, :1]).all()
        next_one = data.lwe_thickness.sel(lat=slice(21, 24), lon=slice(72, 75)).values
        assert not (mascon[:, 0, 0] == next_one[:, 0, 0]).any()
        stated = data.uncertainty.sel(lat=slice(17, 28), lon=slice(65, 77)).values
        assert JPL_NOISE <= stated.min() < stated.max() < 2.5 * JPL_NOISE
        weights = np.cos(np.radians(csr.lat.sel(lat=slice(21, 24))))
        theirs = csr.lwe_thickness.sel(lat=slice(21, 24), lon=slice(69, 72)).weighted(weights).mean(("lat", "lon"))
        difference = mascon[:, 0, 0] - theirs.values
        assert 0.7 * JPL_NOISE < difference.std() < 2 * JPL_NOISE
        assert np.corrcoef(mascon[:, 0, 0], theirs.values)[0, 1] > 0.8
    with h5netcdf.File(groundwater / JPL) as file:
        assert file.variables["lwe_thickness"][0, 0, 0] == file.variables["lwe_thickness"].attrs["_FillValue"] == -99999


def test_the_land_and_what_stays_have_exact_cells(groundwater: Path, world: Groundwater) -> None:
    for name, unit, error in (
        ("land_mask", "1", 0),
        ("elevation", "m", 0.501),
        ("slope", "degree", 0),
        ("sand", "1", 0),
        ("irrigated", "1", 1e-6),
    ):
        with rasterio.open(groundwater / f"{name}.tif") as dataset:
            assert dataset.crs.to_epsg() == 4326
            assert dataset.transform.almost_equals(rasterio.Affine(1 / 120, 0, 67, 0, -1 / 120, 26), precision=1e-15)
            assert dataset.shape == (840, 960)
            assert dataset.block_shapes == [(256, 256)]
            assert dataset.units == (unit,)
            assert "synthetic" in dataset.tags()["NOTE"]
            values = dataset.read(1, masked=True) * dataset.scales[0]
            if name == "land_mask":
                assert dataset.dtypes == ("uint8",)
                assert dataset.nodata is None
                np.testing.assert_array_equal(values, world.land)
                continue
            np.testing.assert_array_equal(np.ma.getmaskarray(values), ~world.land)
            expected = getattr(world, name)[world.land]
            np.testing.assert_allclose(values.compressed(), expected, rtol=0, atol=error)


def test_the_months_of_the_predictors(groundwater: Path, seen: Seen) -> None:
    assert sorted(path.name for path in groundwater.glob("ndvi_*")) == [
        f"ndvi_{name}.tif" for name in ("2019-11", "2019-12", "2020-01", "2020-02")
    ]
    with rasterio.open(groundwater / "ndvi_2020-01.tif") as dataset:
        values = (dataset.read(1, masked=True) * dataset.scales[0]).filled(np.nan)
        assert dataset.dtypes == ("int16",)
        assert dataset.transform.almost_equals(rasterio.Affine(1 / 60, 0, 67, 0, -1 / 60, 26), precision=1e-15)
        np.testing.assert_allclose(values, seen.vegetation(JANUARY), rtol=0, atol=5.1e-5)
    with xr.open_dataset(groundwater / "precipitation.nc", engine="h5netcdf") as data:
        rain = data.precipitation.sel(time="2020-01-01")
        assert rain.units == "mm"
        assert (float(data.lat[0]), float(data.lon[-1])) == pytest.approx((89.95, 359.95))
        assert data.precipitation.shape == (4, 1800, 3600)
        there = rain.sel(lat=slice(26, 19), lon=slice(67, 75)).values
        np.testing.assert_array_equal(there, seen.precipitation(JANUARY))
        assert int(np.isfinite(rain).sum()) == there.size == 70 * 80
    with xr.open_dataset(groundwater / "air_temperature.nc", engine="h5netcdf") as data:
        warm = data.t2m.sel(time="2020-01-01", latitude=slice(26, 19), longitude=slice(67, 75))
        assert warm.units == "K"
        assert data.t2m.encoding["dtype"] == np.int16
        np.testing.assert_allclose(warm.values, seen.temperature(JANUARY), rtol=0, atol=0.00102)
    with xr.open_zarr(groundwater / "root_zone_soil_moisture.zarr", consolidated=False) as data:
        moisture = data.root_zone_soil_moisture
        assert moisture.units == "m3 m-3"
        assert "synthetic" in data.attrs["history"]
        np.testing.assert_array_equal(moisture.sel(time="2020-01-01").values, seen.root_zone(JANUARY))
        np.testing.assert_allclose(data.longitude, 67.05 + 0.1 * np.arange(80))


def test_predictors_are_missing_over_sea_alone_and_plausible(world: Groundwater, seen: Seen) -> None:
    july, january = month_number("2018-07"), month_number("2018-01")
    land = world.land.reshape(420, 2, 480, 2).any(axis=(1, 3))
    np.testing.assert_array_equal(np.isfinite(seen.vegetation(july)), land)
    assert np.nanmax(seen.vegetation(july)) < 0.99
    assert seen.precipitation(july).mean() > 5 * seen.precipitation(january).mean() > 0
    assert seen.precipitation(july).min() >= 0
    assert 285 < seen.temperature(january).mean() < seen.temperature(month_number("2018-06")).mean() < 312
    assert 0.01 < np.nanmin(seen.root_zone(july)) < np.nanmax(seen.root_zone(july)) < 0.55


def test_the_settings_name_files_that_are_there_with_the_units_that_they_have(groundwater: Path) -> None:
    settings = tomllib.loads((groundwater / "gwsa.toml").read_text())
    assert settings["synthetic"] is True
    named = [settings["grace"], settings["grace"]["other"], settings["gldas"], settings["land"], settings["regions"]]
    for entry in [*named, *settings["predictors"], settings["wells"]]:
        assert list(groundwater.glob(entry["files"])), entry
    assert (groundwater / settings["wells"]["sites"]).is_file()
    assert len(list(groundwater.glob(settings["grace"]["files"]))) == 1
    for entry in settings["predictors"]:
        path = next(groundwater.glob(entry["files"]))
        if path.suffix == ".tif":
            with rasterio.open(path) as dataset:
                assert dataset.units == (entry["units"],)
            continue
        store = path.suffix == ".zarr"
        with xr.open_zarr(path, consolidated=False) if store else xr.open_dataset(path, engine="h5netcdf") as data:
            assert data[entry["variable"]].units == entry["units"]
            assert entry["monthly"]


def test_the_aquifers_file_holds_the_polygons(groundwater: Path) -> None:
    collection = json.loads((groundwater / "aquifers.geojson").read_text())
    assert "synthetic" in collection["note"]
    assert [feature["properties"]["name"] for feature in collection["features"]] == [a.name for a in AQUIFERS]
    for feature, aquifer in zip(collection["features"], AQUIFERS, strict=True):
        polygon = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert polygon.is_valid
        assert polygon.equals(shapely.Polygon(aquifer.ring()))


def readings(directory: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    with (directory / "wells.csv").open() as file:
        for row in csv.DictReader(file):
            assert dt.date.fromisoformat(row["time"]).day == 15
            found.setdefault(row["site"], {})[row["time"][:7]] = float(row["depth"])
    return found


def test_wells_go_down_when_storage_falls_and_some_are_at_fault(groundwater: Path, world: Groundwater) -> None:
    found, wells = readings(groundwater), wells_of(world)
    with (groundwater / "wells_sites.csv").open() as file:
        sites = {row["site"]: row for row in csv.DictReader(file)}
    assert set(found) == set(sites) == {well.name for well in wells}
    assert len(wells) == 150
    assert all(name.startswith("synthetic-") for name in sites)
    faults = [well.fault for well in wells if well.fault]
    assert {fault: faults.count(fault) for fault in set(faults)} == {"short": 4, "step": 3, "nowhere": 3}
    truth = {month_name(month): world.gwsa(month) for month in months_between(FIRST, LAST).tolist()}
    errors = []
    for well in wells:
        depth, site = found[well.name], sites[well.name]
        assert min(depth.values()) > 0
        if well.fault == "nowhere":
            assert (site["longitude"], site["latitude"]) == ("", "")
            continue
        longitude, latitude = float(site["longitude"]), float(site["latitude"])
        cell = (int((25 - latitude) * 120), int((longitude - 68) * 120))
        storage = np.array([truth[month][cell] for month in depth])
        assert np.isfinite(storage).all()
        implied = -np.array(list(depth.values())) * float(site["specific_yield"]) * 100
        error = (implied - storage) / (float(site["specific_yield"]) * 100)
        if well.fault == "short":
            assert len(depth) == 4
        elif well.fault == "step":
            assert np.ptp(error) > 7.5
        else:
            assert 170 < len(depth) < 215
            errors.append((error - error.mean()).std())
    assert np.mean(errors) == pytest.approx(0.10, abs=0.01)


def test_the_same_again_is_the_same_and_no_month_depends_on_others(groundwater: Path, whole: Path) -> None:
    first, second = digests(groundwater), digests(whole)
    several = {MANIFEST, "precipitation.nc", "air_temperature.nc"}
    names = [name for name in first if name not in several and ".zarr" not in name]
    assert [name for name in names if first[name] != second[name]] == []
    assert sum(name.startswith("ndvi_") for name in names) == 4
    assert sum(name.startswith("GLDAS") for name in names) == 225
    variables = {"precipitation.nc": "precipitation", "air_temperature.nc": "t2m"}
    variables["root_zone_soil_moisture.zarr"] = "root_zone_soil_moisture"
    for name, variable in variables.items():
        how: dict[str, Any] = {"engine": "h5netcdf"}
        if name.endswith("zarr"):
            how = {"engine": "zarr", "consolidated": False}
        with xr.open_dataset(groundwater / name, **how) as few, xr.open_dataset(whole / name, **how) as many:
            same = many[variable].sel(time=few.time)
            assert same.sizes["time"] == 4
            assert few[variable].equals(same), name


def test_a_second_call_keeps_all_and_a_spoilt_store_is_made_again(groundwater: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    kept = {path: path.stat().st_mtime_ns for path in groundwater.rglob("*")}
    write_groundwater(groundwater, "small", lambda *step: steps.append(step), months=("2019-11", "2020-02"))
    assert steps == []
    assert {path: path.stat().st_mtime_ns for path in groundwater.rglob("*")} == kept
    manifest = json.loads((groundwater / MANIFEST).read_text())
    assert "synthetic" in manifest["note"]
    assert (manifest["size"], manifest["seed"], manifest["region"]["west"]) == ("small", 7, 68)
    store = manifest["files"]["root_zone_soil_moisture.zarr"]
    inside = [path for path in (groundwater / "root_zone_soil_moisture.zarr").rglob("*") if path.is_file()]
    assert store["bytes"] == sum(path.stat().st_size for path in inside)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in groundwater.iterdir():
        (copy / path.name).symlink_to(path)
    (copy / "root_zone_soil_moisture.zarr").unlink()
    (copy / MANIFEST).unlink()
    (copy / MANIFEST).write_text((groundwater / MANIFEST).read_text())
    write_groundwater(copy, "small", lambda *step: steps.append(step), months=("2019-11", "2020-02"))
    assert [step[0] for step in steps] == list(range(1, steps[-1][1] + 1))
    made = {name: facts for name, facts in digests(copy).items() if ".zarr" in name}
    assert made == {name: facts for name, facts in digests(groundwater).items() if ".zarr" in name}
    assert not list(copy.glob(".*"))


def test_the_small_size_is_written_in_a_minute_of_one_core_and_100_megabytes(
    whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert 1 < sample_seconds(tmp_path_factory, "gwsa") < 60
    written = json.loads((whole / MANIFEST).read_text())["files"]
    assert sum(one["bytes"] for one in written.values()) < 100e6
    assert sum(name.startswith("ndvi_") for name in written) == 60


def test_the_sizes_are_whole_degrees_around_each_other() -> None:
    small, study = REGIONS["small"], REGIONS["study"]
    assert PREDICTOR_MONTHS == {"small": ("2016-01", "2020-12"), "study": ("2002-04", "2020-12")}
    assert study.west < small.west < small.east < study.east
    assert study.south < small.south < small.north < study.north
    assert KNOWN >= 1
