"""Predictors: static and monthly, of every format, in the unit that is asked for."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from rasterio.warp import Resampling, reproject

from services.core.errors import InputRefused, SettingsError
from services.core.grid import Grid, Window
from services.sources.field import open_field

FINE = Grid.of(west=-180, north=90, step_x="1/120", width=43200, height=18000)
COARSE = Grid.of(west=-180, north=90, step_x="1/4", width=1440, height=600)


@pytest.fixture
def written(raster: Any, write: Callable[..., str]) -> Callable[..., tuple[str, NDArray[Any]]]:
    def make(kind: str, name: str = "file", *, maps: int = 1, units: str | None = "m", **changes: Any) -> Any:
        values = np.random.default_rng(maps).normal(100, 20, (maps, 20, 30)).astype(np.float32)
        values[:, 3, 4] = -9999
        attributes = {"_FillValue": np.float32(-9999)} | ({"units": units} if units else {})
        plain = {
            "values": values,
            "longitudes": 70.125 + 0.25 * np.arange(30),
            "latitudes": 29.875 - 0.25 * np.arange(20),
            "attributes": attributes,
        }
        path = write(kind, raster(**{**plain, **changes}), name)
        return path, np.where(values == -9999, np.nan, values)

    return make


WINDOW = Window(row=240, column=1000, height=20, width=30)
"""Of COARSE, where the written rasters lie."""


@pytest.mark.parametrize("kind", ["netcdf3", "netcdf4", "zarr2", "zarr3", "geotiff"])
def test_a_static_raster_of_every_format(written: Callable[..., Any], kind: str) -> None:
    path, values = written(kind)
    found = pickle.loads(pickle.dumps(open_field("elevation", [path], "m")))  # noqa: S301 - our own
    assert found.months == ()
    assert found.grid == COARSE.subgrid(WINDOW)
    for month in (None, 400):
        read = found.read(month, COARSE, WINDOW)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, values[0])
    inputs = found.recipe.inputs()
    assert len(inputs) == 1
    assert len(inputs[0].sha256) == 64


def test_whole_numbers_with_a_scale(written: Callable[..., Any]) -> None:
    packed = np.arange(600, dtype=np.int16).reshape(1, 20, 30)
    attributes = {"_FillValue": np.int16(17), "scale_factor": 0.1, "add_offset": 5.0, "units": "1"}
    path, _ = written("netcdf4", values=packed, attributes=attributes)
    expected = np.where(packed[0] == 17, np.nan, packed[0] * 0.1 + 5.0).astype(np.float32)
    np.testing.assert_array_equal(open_field("ndvi", [path], "-").read(None, COARSE, WINDOW), expected)


def test_months_by_names_and_by_times(written: Callable[..., Any], tmp_path: Path) -> None:
    expected = {}
    for month in (12, 11, 10):
        values = np.full((1, 20, 30), float(month), dtype=np.float32)
        written("geotiff", f"ndvi_2016-{month:02d}", values=values, units="1", attributes={"units": "1"})
        expected[46 * 12 + month - 1] = month
    found = open_field("ndvi", [str(tmp_path / "ndvi_*.tif")], "1", time="ndvi_{year}-{month}", monthly=True)
    assert found.months == tuple(sorted(expected))
    for number, value in expected.items():
        np.testing.assert_array_equal(found.read(number, COARSE, WINDOW), np.float32(value))
    with pytest.raises(InputRefused, match=r"ndvi has no map of 2017-01; it has 2016-10 to 2016-12"):
        found.read(46 * 12 + 12, COARSE, WINDOW)
    with pytest.raises(InputRefused, match=r"ndvi is monthly: which month"):
        found.read(None, COARSE, WINDOW)
    path, values = written("netcdf4", "lai", maps=3, times=np.array([15.0, 45.0, 75.0]))
    lai = open_field("lai", [path], "m", monthly=True)
    assert [str(np.datetime64(month, "M")) for month in lai.months] == ["2001-01", "2001-02", "2001-03"]
    np.testing.assert_array_equal(lai.read(lai.months[1], COARSE, WINDOW), values[1])


def test_another_unit_is_refused(written: Callable[..., Any]) -> None:
    path, _ = written("geotiff", units="ft")
    with pytest.raises(InputRefused, match=r"file.tif: elevation is in 'ft', and 'm' is asked for"):
        open_field("elevation", [path], "m")
    path, _ = written("geotiff", "other", units="metres")
    assert open_field("elevation", [path], "m").units == "m"
    path, _ = written("geotiff", "silent", units=None)
    assert open_field("elevation", [path], "m").units == "m"


def test_the_number_of_maps_must_fit(written: Callable[..., Any]) -> None:
    path, _ = written("netcdf4", maps=2, times=np.array([0.0, 31.0]))
    with pytest.raises(InputRefused, match=r"file.nc: slope is static and there are 2 maps of it"):
        open_field("slope", [path], "m")
    path, _ = written("netcdf4", "days", maps=3, times=np.array([0.0, 1.0, 2.0]))
    with pytest.raises(InputRefused, match=r"days.nc: ndvi is monthly and its maps are periods of P1D"):
        open_field("ndvi", [path], "m", monthly=True)
    path, _ = written("netcdf4", "gap", maps=3, times=np.array([0.0, 31.0, 100.0]))
    with pytest.raises(InputRefused, match=r"gap.nc: ndvi has no map of 2001-03"):
        open_field("ndvi", [path], "m", monthly=True)
    with pytest.raises(SettingsError, match=r"slope has time = '2001/P1Y' and is not monthly"):
        open_field("slope", [path], "m", time="2001/P1Y")


def test_a_changed_file_is_noticed(written: Callable[..., Any]) -> None:
    path, _ = written("geotiff")
    found = open_field("elevation", [path], "m")
    found.read(None, COARSE, WINDOW)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputRefused, match=r"file.tif changed"):
        found.read(None, COARSE, WINDOW)
    with pytest.raises(InputRefused, match=r"file.tif changed"):
        found.recipe.check_inputs()


def test_the_monthly_climatology_of_turbidity(realdata: Path) -> None:
    path = realdata / "rasters" / "linke_turbidity_12month_cog.tif"
    found = open_field("turbidity", [str(path)], "1", time="2001-01/P1M", monthly=True)
    assert len(found.months) == 12
    window = Window(row=7000, column=30000, height=64, width=80)
    read = found.read(found.months[6], FINE, window)
    with xr.open_dataset(path, engine="rasterio", mask_and_scale=True) as data:
        july = data.band_data.isel(band=6).sel(x=slice(60, 80), y=slice(40, 25)).load()
    expected = july.interp(x=FINE.longitudes[window.columns], y=FINE.latitudes[window.rows])
    np.testing.assert_allclose(read, expected.values, rtol=1e-5)


def test_bangladesh_storage_coefficient_off_the_lattice(realdata: Path) -> None:
    path = realdata / "groundwater" / "bangladesh_gwsa" / "BGD_storage_coefficient.tif"
    found = open_field("storage", [str(path)], "percent")
    window = Window(row=255, column=1073, height=10, width=14)  # well inside
    read = found.read(None, COARSE, window)
    with rasterio.open(path) as dataset:
        values, place = dataset.read(1, masked=True), dataset.transform
    expected = np.full(window.shape, np.nan)
    reproject(
        values.filled(np.nan).astype(np.float64),
        expected,
        src_transform=place,
        dst_transform=Affine(*COARSE.subgrid(window).transform),
        src_crs="EPSG:4326",
        dst_crs="EPSG:4326",
        src_nodata=np.nan,
        dst_nodata=np.nan,
        resampling=Resampling.average,
        tolerance=0,
    )
    assert np.isfinite(read).mean() > 0.5
    np.testing.assert_array_equal(np.isnan(read), np.isnan(expected))
    np.testing.assert_allclose(read, expected, rtol=2e-3)  # GDAL weighs by degrees, not by area
