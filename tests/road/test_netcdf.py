"""Files of a collection for other people: read by xarray and GDAL as what is stored, and ingested as what they were."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from typer.testing import CliRunner

from services.cli import app
from services.core.errors import InputRefused, Refused

HEIGHT, WIDTH = 600, 640
"""More rows than a chunk has, and not a multiple of it."""


def run(store: Path, *words: str | Path, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["--store", str(store), *(str(word) for word in words)])
    assert result.exit_code == code, (result.output, result.exception)
    return json.loads(result.stdout) if code == 0 and "--json" in words else result


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    """ppm ``(time, y, x)``, rows from south to north as the published files may have them; NaN in a corner."""
    random = np.random.default_rng(3)
    found = np.round(400 + random.normal(scale=3, size=(3, HEIGHT, WIDTH)), 2).astype(np.float32)
    found[1, :50, 7:300] = np.nan
    return found


@pytest.fixture(scope="module")
def store(values: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("netcdf")
    latitudes = 10 + 0.05 * (np.arange(HEIGHT) + 0.5)
    longitudes = 100 + 0.05 * (np.arange(WIDTH) + 0.5)
    for number, month in enumerate(("2019-11", "2019-12", "2020-01")):
        xr.Dataset(
            {"xco2": (("lat", "lon"), values[number], {"units": "ppm"})}, coords={"lat": latitudes, "lon": longitudes}
        ).to_netcdf(place / f"XCO2_{month.replace('-', '')}.nc", engine="h5netcdf")
    run(
        place / "store",
        *("ingest", "xco2_published", place / "XCO2_*.nc", "--time", "XCO2_{year}{month}", "--quantum", "0.01"),
        *("--title", "Published XCO2"),
    )
    return place / "store"


def test_xarray_and_gdal_read_the_values_the_times_and_where_they_lie(
    store: Path, values: np.ndarray, tmp_path: Path
) -> None:
    told = run(store, "netcdf", "xco2_published", "--out", tmp_path / "deep" / "out", "--json")
    files = [Path(name) for name in told["files"]]
    assert [path.name for path in files] == [
        f"xco2_published_{month}.nc" for month in ("2019-11", "2019-12", "2020-01")
    ]
    assert {path.name for path in files[0].parent.iterdir()} == {path.name for path in files}
    assert told["bytes"] == sum(path.stat().st_size for path in files)
    with xr.open_mfdataset(files, engine="h5netcdf", decode_coords="all") as found:
        assert found.xco2.dims == ("time", "y", "x")
        assert found.xco2.shape == values.shape
        np.testing.assert_allclose(found.xco2.values, values[:, ::-1], atol=1e-4)
        assert found.xco2.attrs["units"] == "ppm"
        assert found.y.values[0] == pytest.approx(10 + 0.05 * (HEIGHT - 0.5))
        assert str(found.time.values[2])[:7] == "2020-01"
        np.testing.assert_array_equal(
            found.time_bnds.values[1], np.array(["2019-12-01", "2020-01-01"], dtype="datetime64[ns]")
        )
        assert found.attrs["Conventions"] == "CF-1.12"
        assert found.attrs["title"] == "Published XCO2"
        assert found.attrs["version"] == told["version"]
        when, _, what = found.attrs["history"].partition(" ")
        assert abs((datetime.fromisoformat(when) - datetime.now(UTC)).total_seconds()) < 600
        assert re.fullmatch(rf"cenote \S+ netcdf xco2_published --version {told['version']}", what)
    with xr.open_dataset(files[0], engine="h5netcdf", mask_and_scale=False) as raw:
        assert raw.xco2.dtype.kind in "iu", "stored as it is packed"
        assert raw.xco2.attrs["scale_factor"] == 0.01
    with rasterio.open(f"netcdf:{files[1]}:xco2") as gdal:
        assert gdal.bounds == pytest.approx((100, 10, 100 + 0.05 * WIDTH, 10 + 0.05 * HEIGHT))
        assert gdal.crs.to_epsg() == 4326
        read = gdal.read(1, masked=True) * gdal.scales[0] + gdal.offsets[0]
        np.testing.assert_allclose(read.filled(np.nan), values[1, ::-1], atol=1e-4)


def test_what_was_handed_out_is_ingested_as_it_was(store: Path, values: np.ndarray, tmp_path: Path) -> None:
    run(store, "netcdf", "xco2_published", "--out", tmp_path, "--periods", "2019-12/2020-01")
    run(store, "ingest", "again", tmp_path / "*.nc", "--variable", "xco2", "--units", "ppm")
    run(store, "netcdf", "again", "--out", tmp_path / "again")
    with xr.open_mfdataset(str(tmp_path / "again" / "*.nc"), engine="h5netcdf") as found:
        np.testing.assert_allclose(found.xco2.values, values[1:, ::-1], atol=1e-4)


def test_a_file_is_replaced_whole_or_stays(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "xco2_published_2020-01.nc"
    kept.write_bytes(b"mine")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("services.pipeline.netcdf._write_quantity", full)
        found = run(store, "netcdf", "xco2_published", "--out", tmp_path, "--periods", "2020-01", code=1).exception
        assert isinstance(found, InputRefused)
        assert str(found).endswith("cannot be written: No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]
    assert kept.read_bytes() == b"mine"
    run(store, "netcdf", "xco2_published", "--out", tmp_path, "--periods", "2020-01")
    assert kept.read_bytes()[:4] == b"\x89HDF"


def test_periods_that_are_not_there_are_named(store: Path, tmp_path: Path) -> None:
    found = run(store, "netcdf", "xco2_published", "--out", tmp_path, "--periods", "2031-01", code=1).exception
    assert isinstance(found, Refused)
    assert "xco2_published has no periods 2031-01" in str(found)
    assert list(tmp_path.iterdir()) == []
