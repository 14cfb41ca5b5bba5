"""Columns of models, from files written as CarbonTracker's and CAMS's are documented, against xarray, closed forms."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.sources.carbontracker import column, open_background

LATITUDES, LONGITUDES = np.arange(-89.0, 90, 2), np.arange(-178.5, 180, 3)
DAYS_SINCE = "days since 2000-01-01 00:00:00 UTC"

type Axes = Mapping[str, tuple[tuple[str, ...], NDArray[Any], Mapping[str, Any]]]


def days(text: str) -> float:
    return float((np.datetime64(text, "m") - np.datetime64("2000-01-01", "m")) / np.timedelta64(1440, "m"))


def write(path: Path, variables: Axes) -> str:
    with h5netcdf.File(path, "w") as file:
        sizes: dict[str, int] = {}
        for dimensions, values, _ in variables.values():
            sizes |= dict(zip(dimensions, values.shape, strict=True))
        file.dimensions = sizes
        for name, (dimensions, values, said) in variables.items():
            variable = file.create_variable(name, dimensions, values.dtype, data=values)
            for key, value in said.items():
                variable.attrs[key] = value
    return str(path)


def coordinates(times: list[str]) -> dict[str, Any]:
    return {
        "time": (("time",), np.array([days(text) for text in times]), {"units": DAYS_SINCE}),
        "latitude": (("latitude",), LATITUDES, {"units": "degrees_north"}),
        "longitude": (("longitude",), LONGITUDES, {"units": "degrees_east"}),
    }


@pytest.fixture
def daily(tmp_path: Path) -> Callable[..., str]:
    """As NOAA publishes columns at 13:30 local time."""

    def make(day: str, release: str = "CT2022", unit: str = "micromol mol-1", factor: float = 1.0) -> str:
        values = np.random.default_rng(int(day[-2:])).normal(400, 2, (1, 90, 120)).astype(np.float32) * factor
        column = (("time", "latitude", "longitude"), values.astype(np.float32), {"units": unit})
        more = {"xco2": column, "co2_400m": (column[0], column[1] + 1, column[2])}
        return write(tmp_path / f"{release}.xCO2_1330_glb3x2_{day}.nc", {**coordinates([f"{day}T12:00"]), **more})

    return make


@pytest.fixture
def layers(tmp_path: Path) -> Callable[..., str]:
    """As NOAA publishes mole fractions of layers; the ground first."""

    def make(name: str, times: list[str], *, humid: bool = True, **changes: Any) -> str:
        generator = np.random.default_rng(len(name))
        shape = (len(times), 4, 90, 120)
        surface = generator.uniform(6e4, 1.02e5, (1, 1, 90, 120)).repeat(len(times), axis=0)
        share = np.array([1.0, 0.85, 0.5, 0.2, 0.0])[None, :, None, None]
        co2 = 395 + 10 * generator.random(shape, dtype=np.float32)
        axes = ("time", "level", "latitude", "longitude")
        humidity = generator.random(shape, dtype=np.float32) / 50
        made: dict[str, Any] = {
            "level": (("level",), np.arange(1.0, 5.0), {"positive": "up"}),
            "boundary": (("boundary",), np.arange(1.0, 6.0), {"positive": "up"}),
            "co2": (axes, co2, {"units": "micromol mol-1", "_FillValue": np.float32(-1e34)}),
            "pressure": (("time", "boundary", *axes[2:]), (share * surface).astype(np.float32), {"units": "Pa"}),
            **({"specific_humidity": (axes, humidity, {"units": "kg water (kg air)^-1"})} if humid else {}),
        }
        return write(tmp_path / f"{name}.nc", {**coordinates(times), **made, **changes})

    return make


def january(daily: Callable[..., str], last: int = 31, **how: Any) -> list[str]:
    return [daily(f"2015-01-{day:02d}", **how) for day in range(1, last + 1)]


MONTH = int(np.datetime64("2015-01", "M").astype(int))


def test_the_mean_of_a_month_of_columns(daily: Callable[..., str]) -> None:
    paths = january(daily)
    found = pickle.loads(pickle.dumps(open_background(paths[::-1])))  # noqa: S301 - our own
    assert found.months == (MONTH,)
    assert (found.grid.width, found.grid.height, str(found.grid.step_x), str(found.grid.step_y)) == (120, 90, "3", "2")
    parts = []
    for path in paths:
        with xr.open_dataset(path, engine="h5netcdf") as data:
            parts.append(data.xco2.astype("float64").sortby("latitude", ascending=False).load())
    expected = xr.concat(parts, "time").mean("time").values
    np.testing.assert_allclose(found.monthly(MONTH), expected, rtol=1e-12)
    assert len(found.inputs()) == 31
    # finer cells are bilinear between centres: at a corner of four, their mean
    fine = Grid.of(west=-180, north=90, step_x="1/20", width=7200, height=3600)
    corner = Window(row=1 * 40 - 1, column=60 - 1, height=2, width=2)
    values = found.read(MONTH, fine, corner)
    np.testing.assert_allclose(values.mean(), expected[:2, :2].mean(), rtol=1e-6)
    assert values.std() < 0.2


def test_a_month_needs_its_days(daily: Callable[..., str]) -> None:
    found = open_background([*january(daily, 19), *(daily(f"2015-02-{day:02d}") for day in range(1, 21))])
    assert found.months == (MONTH + 1,)
    with pytest.raises(InputRefused, match="columns of 19 days of 2015-01; a mean needs 20"):
        found.monthly(MONTH)
    with pytest.raises(InputRefused, match="columns of 0 days of 2016-01"):
        found.monthly(MONTH + 12)


@pytest.mark.parametrize(("unit", "factor"), [("mol mol-1", 1e-6), ("1e-6", 1.0), ("ppm", 1.0), ("1", 1e-6)])
def test_units(daily: Callable[..., str], unit: str, factor: float) -> None:
    found = open_background(january(daily, 20, unit=unit, factor=factor))
    assert 395 < found.monthly(MONTH).mean() < 405


def test_a_wrong_unit_and_scale(daily: Callable[..., str]) -> None:
    with pytest.raises(InputRefused, match=r"a column of 0\.000.* ppm cannot be"):
        open_background(january(daily, 20, unit="ppm", factor=1e-6)).monthly(MONTH)
    with pytest.raises(InputRefused, match=r"CT2019B.* is on the scale X2007 and this run is on X2019"):
        open_background([daily("2015-03-01", release="CT2019B")])
    paths = [daily(f"2015-04-{day:02d}", release="CT2019B") for day in range(1, 21)]
    plain, there = open_background(paths, scale="X2007"), open_background(paths, convert=True)
    month = plain.months[0]
    np.testing.assert_allclose(there.monthly(month), plain.monthly(month) * 1.00079 - 0.142, rtol=1e-12)
    with pytest.raises(InputRefused, match="named after no release whose scale is known"):
        open_background([daily("2015-05-01", release="model")])


def test_files_of_one_time_or_of_another_day(daily: Callable[..., str], tmp_path: Path) -> None:
    path = Path(daily("2015-01-01"))
    other = path.rename(tmp_path / "CT2022.xCO2_1330_glb3x2_2015-03-07.nc")
    with pytest.raises(InputRefused, match="is named 2015-03-07, and its first time is 2015-01-01T12:00"):
        open_background([str(other)])
    again = other.rename(tmp_path / "CT2022.again.nc")
    with pytest.raises(InputRefused, match="both hold the column of 2015-01-01T12:00"):
        open_background([daily("2015-01-01"), str(again)])


def test_columns_of_layers(layers: Callable[..., str]) -> None:
    path = layers("CT2022.molefrac_glb3x2_2015-01", ["2015-01-16T12:00"])
    found = open_background([path])
    assert found.months == (MONTH,)
    with xr.open_dataset(path, engine="h5netcdf") as opened:
        data = opened.astype("float64").sortby("latitude", ascending=False).isel(time=0).load()
    thickness = -data.pressure.diff("boundary").rename(boundary="level").assign_coords(level=data.level)
    weight = thickness * (1 - data.specific_humidity)
    np.testing.assert_allclose(found.monthly(MONTH), data.co2.weighted(weight).mean("level").values, rtol=1e-12)


def test_of_eight_times_a_day_each_cell_takes_its_own_afternoon(layers: Callable[..., str]) -> None:
    paths = []
    for day in range(1, 21):
        times = [f"2015-01-{day:02d}T{hour:02d}:30" for hour in range(1, 24, 3)]
        # every map says its own number, whatever the layer
        co2 = np.broadcast_to(400.0 + np.arange(8)[:, None, None, None], (8, 4, 90, 120)).astype(np.float32)
        changed = {"co2": (("time", "level", "latitude", "longitude"), co2, {"units": "micromol mol-1"})}
        paths.append(layers(f"CT2022.molefrac_glb3x2_2015-01-{day:02d}", times, humid=False, **changed))
    found = open_background(paths).monthly(MONTH)
    hours = (1.5 + 3 * (found[0] - 400) + LONGITUDES / 15) % 24
    assert (np.abs(hours - 13.5) <= 1.5 + 1e-6).all()


def test_a_column_by_closed_forms() -> None:
    pressure = np.array([1000.0, 700.0, 300.0, 0.0])
    assert column(np.full(3, 400.0), pressure) == pytest.approx(400.0)
    co2 = np.array([410.0, 400.0, 390.0])
    expected = (410 * 300 + 400 * 400 + 390 * 300) / 1000
    assert column(co2, pressure) == pytest.approx(expected)
    assert column(co2[::-1], pressure[::-1]) == pytest.approx(expected)
    humidity = np.array([0.02, 0.005, 0.0])
    dry = np.array([300 * 0.98, 400 * 0.995, 300.0])
    assert column(co2, pressure, humidity) == pytest.approx((co2 * dry).sum() / dry.sum())
    assert np.isnan(column(np.array([410.0, np.nan, 390.0]), pressure))
    with pytest.raises(InputRefused, match="3 layers have 4 interfaces, not 3"):
        column(co2, pressure[:3])
    with pytest.raises(InputRefused, match="does not fall all the way up"):
        column(co2, np.array([1000.0, 700.0, 800.0, 0.0]))
    with pytest.raises(InputRefused, match="a specific humidity of 20 is no kg kg-1"):
        column(co2, pressure, humidity * 1000)


def test_cams(tmp_path: Path) -> None:
    times = [f"2015-01-{day:02d}T{hour:02d}:00" for day in range(1, 32) for hour in (0, 12)]
    values = np.random.default_rng(3).normal(4e-4, 2e-6, (62, 90, 120)).astype(np.float32)
    said = {"units": "mol mol-1"}
    path = write(
        tmp_path / "cams73_latest_co2_col_surface_inst_201501.nc",
        {**coordinates(times), "XCO2": (("time", "latitude", "longitude"), values, said)},
    )
    with pytest.raises(InputRefused, match="no release whose scale is known"):
        open_background([path])
    found = open_background([path], stated="X2019").monthly(MONTH)
    noon, midnight = (values[half::2].astype(np.float64).mean(axis=0)[::-1] * 1e6 for half in (1, 0))
    np.testing.assert_allclose(found[:, 60], noon[:, 60], rtol=1e-12)
    np.testing.assert_allclose(found[:, 0], midnight[:, 0], rtol=1e-12)
