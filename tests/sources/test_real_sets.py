"""Every real set: what is ingested equals an independent reading of the same files, cell by cell."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.pipeline.recipe import Recipe
from services.sources.ingest import inspect
from services.sources.options import IngestOptions
from tests.realsets import era5_uk, north_up, opened, turned

type Whole = Callable[[Recipe], NDArray[Any]]


def test_oco2_seasia(realdata: Path, whole: Whole) -> None:
    folder = realdata / "xco2" / "oco2_seasia_idw_monthly"
    conclusion = inspect([str(folder / "*.nc")], IngestOptions())
    recipe = conclusion.recipe("seasia")
    axis = recipe.periods()
    assert (len(axis), axis.ids[0], axis.ids[-1], str(axis.step)) == (98, "2014-10", "2022-12", "P1M")
    assert "2017-08" not in axis.ids
    assert recipe.product.quantities[0].units == "ppm"
    assert "periods: 98 of P1M, 2014-10 to 2022-12, missing in between: 2017-08" in conclusion.lines()
    parts = []
    for path in sorted(folder.glob("*.nc")):
        with opened(path, "scipy") as data:
            parts.append(
                data.rename({k: v for k, v in {"latitude": "lat", "longitude": "lon"}.items() if k in data}).co2.load()
            )
    expected = xr.concat([north_up(part, recipe.product.grid) for part in parts], "time").sortby("time")
    values = whole(recipe)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, expected.values)
    np.testing.assert_array_equal(axis.instants, expected.time.values.astype("datetime64[us]"))
    assert len(recipe.inputs()) == 98
    assert all(item.size == (folder / Path(item.name).name).stat().st_size for item in recipe.inputs())


def test_linke_turbidity(realdata: Path, whole: Whole) -> None:
    path = realdata / "rasters" / "linke_turbidity_12month_cog.tif"
    with pytest.raises(InputRefused, match=r"linke_turbidity.*12 maps.*--time"):
        inspect([str(path)], IngestOptions(units="1"))
    recipe = inspect([str(path)], IngestOptions(units="1", time="2001-01/P1M")).recipe("turbidity")
    quantity = recipe.product.quantities[0]
    assert (quantity.dtype, quantity.scale_factor, quantity.units) == ("int16", 0.05, "1")
    assert recipe.product.grid == Grid.of(west=-180, north=90, step_x="1/6", width=2160, height=1080)
    assert recipe.periods().ids == tuple(f"2001-{month:02d}" for month in range(1, 13))
    with rasterio.open(path) as dataset:
        expected = dataset.read()
    values = whole(recipe)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(quantity.decode(values), expected * 0.05)


def test_grace(realdata: Path, whole: Whole) -> None:
    path = realdata / "groundwater" / "grace_csr_rl05_lwe_1deg_2002-2010.nc"
    recipe = inspect([str(path)], IngestOptions()).recipe("grace")
    quantity, axis = recipe.product.quantities[0], recipe.periods()
    assert (quantity.dtype, quantity.scale_factor, quantity.fill_value, quantity.units) == ("int16", 0.01, -32768, "cm")
    assert recipe.product.grid == Grid.of(west=-180, north=90, step_x="1", width=360, height=180)
    with opened(path, "h5netcdf", mask_and_scale=False) as packed, opened(path, "h5netcdf") as decoded:
        expected = north_up(turned(packed).lwe_thickness, recipe.product.grid)
        truth = north_up(turned(decoded).lwe_thickness, recipe.product.grid)
        months = [bytes(m).decode() if isinstance(m, bytes) else str(m) for m in packed.source_month.values]
        values = whole(recipe)
        np.testing.assert_array_equal(values, expected.values)
        np.testing.assert_allclose(quantity.decode(values), truth.values, rtol=1e-6)
        np.testing.assert_array_equal(axis.instants, expected.time.values.astype("datetime64[us]"))
    assert list(axis.ids) == months
    assert len(axis) == 102


def test_ostia(realdata: Path, whole: Whole) -> None:
    path = realdata / "rasters" / "ostia_monthly.nc"
    recipe = inspect([str(path)], IngestOptions()).recipe("ostia")
    grid, axis = recipe.product.grid, recipe.periods()
    assert grid == Grid.of(west="-2165/12", north="85/18", step_x="5/6", step_y="5/9", width=432, height=18)
    assert (axis.ids[0], axis.ids[-1], len(axis)) == ("2006-04", "2010-09", 54)
    with opened(path, "h5netcdf") as data:
        expected = north_up(turned(data[["surface_temperature"]]).surface_temperature, grid)
        np.testing.assert_array_equal(whole(recipe), expected.values)
        np.testing.assert_array_equal(axis.instants, expected.time.values.astype("datetime64[us]"))
        np.testing.assert_array_equal(axis.bounds.astype("datetime64[ns]"), data.time_bnds.values)
    assert np.isnan(expected.values).any()


@pytest.mark.parametrize("variable", ["pr", "tas"])
def test_bcsd(realdata: Path, whole: Whole, variable: str) -> None:
    path = realdata / "rasters" / "bcsd_obs_1999.nc"
    with pytest.raises(InputRefused, match=r"bcsd_obs_1999.nc has 2 raster variables.*--variable: pr, tas"):
        inspect([str(path)], IngestOptions())
    recipe = inspect([str(path)], IngestOptions(variable=variable)).recipe("bcsd")
    assert recipe.product.grid == Grid.of(west=-85, north="297/8", step_x="1/8", width=81, height=33)
    with opened(path, "scipy") as data:
        expected = north_up(data[variable], recipe.product.grid)
        np.testing.assert_array_equal(whole(recipe), expected.values)
        np.testing.assert_array_equal(recipe.periods().instants, expected.time.values.astype("datetime64[us]"))
    assert recipe.periods().ids == tuple(f"1999-{month:02d}" for month in range(1, 13))


def test_oco3(realdata: Path) -> None:
    path = realdata / "xco2" / "oco3_la_sams_post_qf_nearest.zarr"
    conclusion = inspect([str(path)], IngestOptions(variable="xco2"))
    recipe = conclusion.recipe("oco3")
    grid, axis = recipe.product.grid, recipe.periods()
    assert (grid.width, grid.height, grid.step_x.denominator, grid.step_y.denominator) == (14399, 7200, 14399, 7199)
    assert grid.is_global
    assert str(axis.step) == "P1D"
    assert any("the last column is the first again and dropped" in line for line in conclusion.lines())
    seen = 0
    with opened(path, "zarr", chunks=None) as data:
        np.testing.assert_array_equal(axis.instants, data.time.values.astype("datetime64[us]"))
        for key in sorted((path / "xco2").glob("0.*.*"))[::4]:
            _, east, south = (int(part) for part in key.name.split("."))
            rows = grid.height - min(7200, (south + 1) * 250), grid.height - south * 250
            window = Window(
                row=rows[0], column=east * 250, height=rows[1] - rows[0], width=min(250, 14399 - east * 250)
            )
            found = recipe.compute(axis, window)["xco2"]
            source = data.xco2.isel(
                longitude=slice(east * 250, east * 250 + window.width),
                latitude=slice(south * 250, south * 250 + window.height),
            )
            np.testing.assert_array_equal(found, source.transpose("time", "latitude", "longitude").values[:, ::-1])
            np.testing.assert_allclose(grid.longitudes[window.columns], source.longitude.values, atol=1e-4)
            np.testing.assert_allclose(grid.latitudes[window.rows][::-1], source.latitude.values, atol=1e-4)
            seen += int(np.isfinite(found).sum())
        edge = recipe.compute(axis.take([0]), Window(row=3000, column=14300, height=300, width=99))["xco2"]
        np.testing.assert_array_equal(
            edge[0], data.xco2.isel(time=0, longitude=slice(14300, 14399), latitude=slice(3900, 4200)).values.T[::-1]
        )
    assert seen > 10_000


def test_oco3_in_bounded_memory(realdata: Path) -> None:
    program = """
import resource, sys
from services.core.grid import Window
from services.sources.ingest import inspect
from services.sources.options import IngestOptions
recipe = inspect([sys.argv[1]], IngestOptions(variable="xco2")).recipe("oco3")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for period in (1, 5):
    recipe.compute(recipe.periods().take([period]), Window(row=2048, column=2048, height=2048, width=2048))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    path = realdata / "xco2" / "oco3_la_sams_post_qf_nearest.zarr"
    done = subprocess.run([sys.executable, "-c", program, path], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 150, f"{done.stdout.strip()} MiB for windows of 16 MiB of maps of 415 MiB"


def test_era5_grib(realdata: Path, whole: Whole) -> None:
    pytest.importorskip("eccodes", reason="the grib extra is not installed")
    path = realdata / "rasters" / "era5-2mt-2019-03-uk.grib"
    recipe = inspect([str(path)], IngestOptions()).recipe("era5")
    axis = recipe.periods()
    assert recipe.product.quantities[0].name == "t2m"
    assert recipe.product.quantities[0].units == "K"
    assert (len(axis), str(axis.step)) == (744, "PT1H")
    values = whole(recipe)
    expected = era5_uk(path)
    np.testing.assert_array_equal(values, north_up(expected, recipe.product.grid).values)
    np.testing.assert_array_equal(axis.instants, expected.time.values.astype("datetime64[us]"))


def test_l7_is_refused(realdata: Path) -> None:
    with pytest.raises(
        InputRefused, match=r"L7_ETMs.tif is on a projected grid \(EPSG:31985\).*gdalwarp -t_srs EPSG:4326"
    ):
        inspect([str(realdata / "rasters" / "L7_ETMs.tif")], IngestOptions(units="1", time="2000/P1Y"))


@pytest.mark.parametrize("variable", ["swvl1", "lsm"])
def test_era5_image(realdata: Path, whole: Whole, variable: str) -> None:
    path = realdata / "desert" / "ERA5_AN_20100101_0000.nc"
    recipe = inspect([str(path)], IngestOptions(variable=variable, time="P1D")).recipe("era5")
    assert recipe.product.grid == Grid.of(west="-1441/8", north="721/8", step_x="1/4", width=1440, height=721)
    assert recipe.periods().ids == ("2010-01-01",)
    with opened(path, "h5netcdf") as data:
        expected = north_up(turned(data[[variable]])[variable].expand_dims("time"), recipe.product.grid)
        np.testing.assert_array_equal(whole(recipe), expected.values)


def test_gldas_images(realdata: Path, whole: Whole) -> None:
    folder = realdata / "desert"
    names = sorted(str(path) for path in folder.glob("GLDAS_NOAH025_3H.A2016*.nc4"))
    recipe = inspect(names, IngestOptions(variable="SoilMoi0_10cm_inst")).recipe("gldas")
    assert len(recipe.periods()) == 2
    parts = []
    for name in names:
        with opened(Path(name), "h5netcdf") as data:
            parts.append(north_up(data.SoilMoi0_10cm_inst, recipe.product.grid).load())
    np.testing.assert_array_equal(whole(recipe), xr.concat(parts, "time").values)


def test_edgar_overlaps_itself(realdata: Path) -> None:
    path = realdata / "xco2" / "edgar_v60_co2_2015_coarse.nc"
    with pytest.raises(InputRefused, match=r"edgar.*71 columns .* pass a whole turn"):
        inspect([str(path)], IngestOptions(time="2015/P1Y"))


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("GLDAS_22_CLSM_GWS_M_2003_2017_BGD_025.nc4", "gwsa"),
        ("NDVI_M_2002_2017_BGD_025.nc4", "NDVI"),
        ("PR_AET_M_2002_2017_BGD_025.nc4", "aet"),
        ("TWSA_M_2002_2017_BGD_025.nc4", "twsa"),
    ],
)
def test_bangladesh(realdata: Path, whole: Whole, name: str, variable: str) -> None:
    path = realdata / "groundwater" / "bangladesh_gwsa" / name
    with pytest.raises(InputRefused, match=r"states no unit.*--units"):
        inspect([str(path)], IngestOptions(variable=variable))
    recipe = inspect([str(path)], IngestOptions(variable=variable, units="mm")).recipe("bangladesh")
    with opened(path, "h5netcdf") as data:
        expected = north_up(data[variable], recipe.product.grid)
        np.testing.assert_array_equal(whole(recipe), expected.values)
        np.testing.assert_array_equal(recipe.periods().instants, expected.time.values.astype("datetime64[us]"))
