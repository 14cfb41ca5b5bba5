"""Monthly maps of XCO2 as their authors publish them: names, orders of latitude and units differ, months do not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Grid
from services.pipeline.recipe import Recipe
from services.sources.ingest import inspect
from services.sources.options import IngestOptions

type Written = Callable[..., list[str]]
type Whole = Callable[[Recipe], NDArray[Any]]

MONTHS = ("2015-01", "2015-02", "2015-03")
NORTH = 0.05 * np.arange(40, 0, -1, dtype=np.float64) + 10.0 - 0.025
EAST = -180 + 0.05 * np.arange(60, dtype=np.float64) + 0.025


@pytest.fixture
def published(tmp_path: Path) -> Written:
    """Three months by xarray, float32 with NaN for missing, coordinates in float32 as they mostly are."""

    def make(
        name: str,
        variable: str,
        *,
        units: str | None = "ppm",
        factor: float = 1.0,
        ascending: bool = True,
        timed: bool = False,
        names: tuple[str, str] = ("lat", "lon"),
    ) -> list[str]:
        paths: list[str] = []
        for number, month in enumerate(MONTHS):
            values = np.random.default_rng(number).normal(400, 2, (40, 60))
            values[:5] = np.nan
            axes = {names[0]: NORTH.astype(np.float32), names[1]: EAST.astype(np.float32)}
            data = xr.Dataset({variable: (names, (values * factor).astype(np.float32))}, coords=axes)
            for axis, degrees in zip(names, ("degrees_north", "degrees_east"), strict=True):
                data[axis].attrs["units"] = degrees
            if units is not None:
                data[variable].attrs["units"] = units
            if ascending:
                data = data.sortby(names[0])
            if timed:
                data = data.expand_dims(time=[np.datetime64(month, "ns")])
                data.time.encoding["units"] = "days since 2015-01-01"
            path = tmp_path / name.format(year=month[:4], month=month[5:])
            data.to_netcdf(
                path, engine="h5netcdf", encoding={variable: {"_FillValue": np.float32(np.nan), "zlib": True}}
            )
            paths.append(str(path))
        return paths

    return make


def expected(paths: list[str], variable: str) -> NDArray[np.float32]:
    parts = []
    for path in paths:
        with xr.open_dataset(path, engine="h5netcdf") as data:
            rows = next(str(name) for name in data.dims if str(name).startswith("lat"))
            parts.append(np.squeeze(data[variable].sortby(rows, ascending=False).values))
    return np.stack(parts)


@pytest.mark.parametrize(
    ("name", "variable", "how"),
    [
        ("XCO2_STK_{year}{month}.nc", "xco2", {}),
        ("xco2_pred_{year}_{month}.nc", "xco2_pred", {"ascending": False}),
        ("{year}{month}.nc", "XCO2", {"names": ("latitude", "longitude")}),
        ("XCO2_{year}-{month}_0.05deg.nc", "XCO2", {}),
        ("timed_{year}{month}.nc", "XCO2", {"timed": True}),
        ("at_{year}.{month}.nc", "xco2", {"timed": True, "ascending": False}),
    ],
)
def test_names_and_orders(published: Written, whole: Whole, name: str, variable: str, how: dict[str, Any]) -> None:
    paths = published(name, variable, **how)
    conclusion = inspect(paths[::-1], IngestOptions())
    assert "values: float32, missing is NaN" in conclusion.lines()
    recipe = conclusion.recipe("xco2_x")
    axis, quantity = recipe.periods(), recipe.product.quantities[0]
    assert axis.ids == MONTHS
    assert str(axis.step) == "P1M"
    assert (quantity.name, quantity.units, quantity.dtype) == (variable, "ppm", "float32")
    assert recipe.product.grid == Grid.of(west=-180, north=12, step_x="1/20", width=60, height=40)
    values = whole(recipe)
    np.testing.assert_array_equal(values, expected(paths, variable))
    assert np.isnan(values[:, :5]).all()
    assert not np.isnan(values[:, 5:]).any()
    if "timed" not in how:
        told = name.format(year="{year}", month="{month}")
        fact = f"time: the file names, read as '{told}', as the files say none (--time says otherwise)"
        assert fact in conclusion.lines()


@pytest.mark.parametrize(("units", "factor"), [("mol mol-1", 1e-6), ("mol/mol", 1e-6)])
def test_mole_fractions_stay_as_they_are_stated(published: Written, whole: Whole, units: str, factor: float) -> None:
    paths = published("{year}{month}.nc", "XCO2", units=units, factor=factor)
    conclusion = inspect(paths, IngestOptions())
    assert f"units: {units}; values stay as they are, times 1e+06 they are ppm" in conclusion.lines()
    recipe = conclusion.recipe("xco2_x")
    assert recipe.product.quantities[0].units == units
    np.testing.assert_array_equal(whole(recipe), expected(paths, "XCO2"))
    other = inspect(paths, IngestOptions(units="ppm"))
    assert f"units: ppm (--units); the files say {units}; nothing is converted" in other.lines()


def test_without_a_unit(published: Written) -> None:
    paths = published("{year}{month}.nc", "XCO2", units=None)
    with pytest.raises(InputRefused, match=r"201501.nc states no unit; say it with --units, for example --units ppm"):
        inspect(paths, IngestOptions())
    assert inspect(paths, IngestOptions(units="ppm")).quantity.units == "ppm"


def test_months_that_names_do_not_tell(published: Written, tmp_path: Path) -> None:
    one, *rest = published("XCO2_{year}{month}.nc", "XCO2")
    renamed = Path(one).rename(tmp_path / "XCO2_final_201501.nc")
    with pytest.raises(InputRefused, match=r"XCO2_final_201501.nc holds one map and does not say of when"):
        inspect([str(renamed), *rest], IngestOptions())
    twice = renamed.rename(tmp_path / "XCO2_201501_201502.nc")
    with pytest.raises(InputRefused, match="does not say of when"):
        inspect([str(twice)], IngestOptions())
    assert inspect([str(twice)], IngestOptions(time="XCO2_{year}{month}_")).axis.ids == ("2015-01",)
    version = twice.rename(tmp_path / "XCO2_v201501.nc")
    with pytest.raises(InputRefused, match="does not say of when"):
        inspect([str(version)], IngestOptions())


def test_a_set_goes_on_in_the_step_it_has(published: Written) -> None:
    paths = published("XCO2_{year}{month}15.nc", "XCO2")
    begun = inspect(paths[:2], IngestOptions())
    assert (str(begun.axis.step), begun.axis.ids) == ("P1M", MONTHS[:2])
    more = inspect(paths[2:], IngestOptions(), begun.product("xco2_x"))
    assert (str(more.axis.step), more.axis.ids) == ("P1M", MONTHS[2:])


def test_the_whole_globe_in_float32_coordinates(tmp_path: Path) -> None:
    """7200 x 3600 centres that float32 rounds are 1/20 of a degree, south first."""
    east = (-179.975 + 0.05 * np.arange(7200)).astype(np.float32)
    north = (-89.975 + 0.05 * np.arange(3600)).astype(np.float32)
    values = np.full((3600, 7200), np.nan, dtype=np.float32)
    values[1800:1900, 3000:3100] = 400.0 + np.arange(100, dtype=np.float32) / 100
    data = xr.Dataset({"XCO2": (("lat", "lon"), values, {"units": "ppm"})}, coords={"lat": north, "lon": east})
    data.lat.attrs["units"], data.lon.attrs["units"] = "degrees_north", "degrees_east"
    path = tmp_path / "201501.nc"
    chunks = {"XCO2": {"zlib": True, "complevel": 1, "chunksizes": (600, 1200)}}
    data.to_netcdf(path, engine="h5netcdf", encoding=chunks)
    conclusion = inspect([str(path)], IngestOptions())
    assert conclusion.grid == Grid.of(west=-180, north=90, step_x="1/20", width=7200, height=3600)
    assert conclusion.axis.ids == ("2015-01",)
