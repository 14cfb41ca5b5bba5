import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from rio_cogeo.cogeo import cog_validate

from services.sample.earth import Earth
from services.sample.inputs import SPANS, months_of, write_inputs
from services.sample.manifest import MANIFEST

pytestmark = pytest.mark.slow  # as a whole

MONTHS = ("2019-11", "2020-02")
JANUARY = np.datetime64("2020-01", "M")


def _digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def test_xarray_reads_the_era5_form_with_the_values_of_the_earth(written: Path, earth: Earth) -> None:
    truth = earth.month(JANUARY)
    with xr.open_dataset(written / "era5_monthly_2020.nc", engine="h5netcdf") as data:
        assert [str(time)[:7] for time in data.time.values] == ["2020-01", "2020-02"]
        assert float(data.longitude[0]) == 0.125
        assert float(data.longitude[-1]) == 359.875
        assert float(data.latitude[0]) == 89.875
        assert (data.t2m.units, data.swvl1.units) == ("K", "m**3 m**-3")
        assert data.t2m.encoding["dtype"] == np.int16
        assert "synthetic" in data.attrs["history"]
        west = data.isel(time=0).assign_coords(longitude=(data.longitude + 180) % 360 - 180).sortby("longitude")
        np.testing.assert_allclose(west.t2m.values, truth.temperature, rtol=0, atol=0.0026)
        np.testing.assert_array_equal(np.isnan(west.swvl1.values), np.isnan(truth.soil_moisture))
        np.testing.assert_allclose(west.swvl1.values, truth.soil_moisture, rtol=0, atol=1.1e-5)


def test_rasterio_reads_the_rasters_with_the_values_of_the_earth(written: Path, earth: Earth) -> None:
    truth = earth.month(JANUARY)
    with rasterio.open(written / "ndvi_2020-01.tif") as dataset:
        values = dataset.read(1, masked=True) * dataset.scales[0]
        np.testing.assert_allclose(values.filled(np.nan), truth.vegetation, rtol=0, atol=5.1e-5)
        assert dataset.tags()["PERIOD"] == "2020-01"
        assert "synthetic" in dataset.tags()["NOTE"]
        assert dataset.bounds == (-180, -90, 180, 90)
    valid, errors, warnings = cog_validate(written / "static_0p25.tif", quiet=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(written / "static_0p25.tif") as dataset:
        assert dataset.descriptions == ("elevation", "land_fraction", "settlement")
        assert dataset.units == ("m", "1", "1")
        fields = (earth.elevation, earth.land_fraction, earth.settlement)
        for band, scale, field in zip(dataset.read(), dataset.scales, fields, strict=True):
            np.testing.assert_allclose(band * scale, field, rtol=0, atol=scale * 0.501)
        assert "synthetic" in dataset.tags()["NOTE"]


def test_the_observations_scatter_around_the_truth(written: Path, earth: Earth) -> None:
    lines = (written / "site_observations.csv").read_text().splitlines()
    assert "synthetic" in lines[0]
    rows = [line.split(",") for line in lines[3:]]
    assert len(rows) > 2500
    errors = []
    fields = {str(month): earth.month(month) for month in months_of(MONTHS)}
    for _, longitude, latitude, period, reported, truth in rows:
        row, column = int((90 - float(latitude)) * 4), int((float(longitude) + 180) * 4)
        assert fields[period].xco2[row, column] == pytest.approx(float(truth), abs=0.0006)
        assert fields[period].sun[row, column] >= 0.05
        errors.append(float(reported) - float(truth))
    assert abs(np.mean(errors)) < 0.05
    assert 0.5 < np.std(errors) < 1.0


def test_a_second_call_changes_nothing_and_is_quick(inputs: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in inputs.iterdir()}
    started, steps = time.process_time(), []
    files = write_inputs(inputs, months=MONTHS, progress=lambda *step: steps.append(step))
    assert time.process_time() - started < 1
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in inputs.iterdir()} == before
    assert [path.name for path in files] == sorted(path.name for path in before if path.name != MANIFEST)
    assert steps == []


@pytest.mark.slow
def test_a_spoilt_file_is_written_again_and_the_others_are_kept(inputs: Path, written: Path) -> None:
    spoilt, gone, stranger = inputs / "era5_monthly_2020.nc", inputs / "ndvi_2020-01.tif", inputs / "mine.txt"
    content = bytearray(spoilt.read_bytes())
    content[len(content) // 2] ^= 4
    spoilt.write_bytes(content)
    gone.unlink()
    stranger.write_text("mine")
    kept = (inputs / "era5_monthly_2019.nc").stat()
    steps: list[tuple[int, int, str]] = []
    write_inputs(inputs, months=MONTHS, progress=lambda *step: steps.append(step))
    assert stranger.read_text() == "mine"
    stranger.unlink()
    assert _digests(inputs) == _digests(written)
    assert (inputs / "era5_monthly_2019.nc").stat().st_ino == kept.st_ino
    assert [step[0] for step in steps] == list(range(1, steps[-1][1] + 1))
    assert not list(inputs.glob(".*"))


@pytest.mark.slow
def test_other_months_replace_these_and_a_month_does_not_depend_on_its_company(inputs: Path, written: Path) -> None:
    write_inputs(inputs, months=("2019-12", "2019-12"))
    assert sorted(path.name for path in inputs.glob("*.nc")) == ["era5_monthly_2019.nc"]
    assert [path.name for path in inputs.glob("ndvi_*")] == ["ndvi_2019-12.tif"]
    assert (inputs / "ndvi_2019-12.tif").read_bytes() == (written / "ndvi_2019-12.tif").read_bytes()
    with (
        xr.open_dataset(inputs / "era5_monthly_2019.nc", engine="h5netcdf") as alone,
        xr.open_dataset(written / "era5_monthly_2019.nc", engine="h5netcdf") as company,
    ):
        np.testing.assert_array_equal(alone.t2m[0].values, company.t2m[1].values)


@pytest.mark.slow
def test_another_seed_is_another_earth(tmp_path: Path, written: Path) -> None:
    write_inputs(tmp_path, months=("2019-12", "2019-12"), seed=8)
    assert (tmp_path / "ndvi_2019-12.tif").read_bytes() != (written / "ndvi_2019-12.tif").read_bytes()
    assert json.loads((tmp_path / MANIFEST).read_text())["seed"] == 8


def test_the_manifest_tells_what_is_there(written: Path) -> None:
    manifest = json.loads((written / MANIFEST).read_text())
    assert "synthetic" in manifest["note"]
    found = _digests(written)
    found.pop(MANIFEST)
    assert {name: facts["sha256"] for name, facts in manifest["files"].items()} == found
    assert all((written / name).stat().st_size == facts["bytes"] for name, facts in manifest["files"].items())


def test_a_size_is_named_by_its_months() -> None:
    assert len(months_of(SPANS["small"])) == 36
    assert len(months_of(SPANS["study"])) == 84


@pytest.mark.slow
def test_the_small_size_is_written_in_20_seconds_and_150_megabytes(tmp_path: Path) -> None:
    started = os.times()
    files = write_inputs(tmp_path, "small")
    ended = os.times()
    assert ended.user + ended.system - started.user - started.system < 20
    assert len(files) == 36 + 3 + 3
    assert sum(path.stat().st_size for path in files) < 150e6
