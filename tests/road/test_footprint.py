"""A published collection, what of its trend a file of rain explains, and the sums of that as the service says them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from typer.testing import CliRunner

from services.cli import app
from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.errors import InputRefused, Refused, SettingsError
from services.core.grid import Grid, Window
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from services.core.style import Style
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Input
from services.pipeline.verify import verify
from services.products.gwsa.climate import Climate, around
from services.products.gwsa.declaration import COARSE
from services.products.gwsa.footprint import FootprintRecipe
from tests.pipeline.synthetic import render
from tiler.app import create_app

type Floats = NDArray[np.floating[Any]]

STORAGE = Quantity(
    name="storage",
    units="cm",
    long_name="Water",
    dtype="int16",
    scale_factor=0.02,
    add_offset=0.0,
    fill_value=-32768,
    quantum=0.02,
    style=Style(minimum=-30, maximum=30),
)
GRID = Grid.of(west=70, north=30, step_x="1/12", width=96, height=72)
"""8 x 6 degrees; a cell is a third of a coarse one along a side."""

PRODUCT = Product(
    id="aquifer", title="Water", description="Made up.", grid=GRID, step="P1M", quantities=(STORAGE,), synthetic=True
)
FIRST, MONTHS = 396, 144
"""2003-01 to 2014-12."""

MEMORY = 12
WHOLE = Window(row=0, column=0, height=72, width=96)


def rain(latitudes: Floats, longitudes: Floats) -> Floats:
    """mm, ``(time, y, x)`` from 4 years before the collection: planes, which linear interpolation keeps."""
    months = np.arange(FIRST - 48, FIRST + MONTHS)
    plain, north, east = np.random.default_rng(2).normal(size=(3, len(months), 1, 1))
    anomaly = plain + 0.2 * north * (latitudes[:, None] - 27) + 0.2 * east * (longitudes - 74)
    field: Floats = 200 + 50 * np.cos(2 * np.pi * months / 12)[:, None, None] + 25 * anomaly
    return field


def drawn() -> Floats:
    """cm a year that people take, ``(y, x)``: none in the west; sea in the north-west corner."""
    loss = np.zeros(GRID.shape)
    loss[:, 48:] = -1.5
    loss[:6, :6] = np.nan
    return loss


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Storage that rain fills, with a memory of a year, and people draw from."""

    product: Product = PRODUCT

    def periods(self) -> TimeAxis:
        return TimeAxis.regular("2003-01", "P1M", MONTHS)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(name="made up", size=1, sha256="0" * 64),)

    def models(self) -> dict[str, str]:
        return {}

    def model_directories(self) -> dict[str, Path]:
        return {}

    def facts(self) -> dict[str, Any]:
        return {}

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        every = rain(GRID.latitudes, GRID.longitudes)
        level = np.zeros_like(every)
        for month in range(1, len(every)):  # the recursion, month by month
            year = every[month % 12 :: 12].mean(axis=0)
            level[month] = np.exp(-1 / MEMORY) * level[month - 1] + (every[month] - year)
        fine = level[np.array(periods.starts) - FIRST + 48]
        months = np.array(periods.starts)[:, None, None]
        noise = np.random.default_rng(5).normal(0, 0.3, (MONTHS, *GRID.shape))[months[:, 0, 0] - FIRST]
        values = drawn() * (months - 468) / 12 + 0.05 * fine + 3 * np.sin(2 * np.pi * months / 12) + noise
        return {"storage": STORAGE.pack(values)[:, window.rows, window.columns]}


TOML = """[[climate]]
name = "rain"
files = "rain.nc"
units = "mm"

[proxy]
name = "pumps"
files = "pumps.nc"
units = "1"
least = 0.5
"""


def write_inputs(place: Path, toml: str = TOML, first: int = FIRST - 48, last: int = FIRST + MONTHS - 1) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    months = np.arange(FIRST - 48, FIRST + MONTHS)
    some = (months >= first) & (months <= last)
    times = months[some].astype("datetime64[M]").astype("datetime64[ns]")
    latitudes, longitudes = 30.75 - 0.5 * np.arange(16), 69.25 + 0.5 * np.arange(20)
    field = xr.DataArray(
        rain(latitudes, longitudes)[some].astype(np.float32),
        dims=("time", "lat", "lon"),
        coords={"time": times, "lat": latitudes, "lon": longitudes},
        attrs={"units": "mm"},
        name="rain",
    )
    field.to_netcdf(place / "rain.nc", engine="h5netcdf")
    pumps = xr.DataArray(
        (field[0].values > -1) * (longitudes >= 74).astype(np.float32),
        dims=("lat", "lon"),
        coords={"lat": latitudes, "lon": longitudes},
        attrs={"units": "1"},
        name="pumps",
    )
    pumps.to_netcdf(place / "pumps.nc", engine="h5netcdf")
    (place / "footprint.toml").write_text(toml)
    return place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Store, Path]:
    root = tmp_path_factory.mktemp("footprint")
    url, inputs = str(root / "store"), write_inputs(root / "inputs")
    store = Store.open(url, StoreSettings())
    render(store, Drawn())
    words = ["--store", url, "analyse", "aquifer", "footprint", "--inputs", str(inputs), "--workers", "0"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, (result.output, result.exception)
    return url, store, inputs


def recipe_of(store: Store, inputs: Path, **asked: str) -> FootprintRecipe:
    dataset = Dataset(store, current_version(store, "aquifer")[1])
    return FootprintRecipe.of(
        store, dataset, inputs=inputs, variable=asked.get("variable"), periods=asked.get("periods")
    )


def layers(store: Store) -> dict[str, Floats]:
    dataset = Dataset(store, current_version(store, "aquifer_footprint")[1])
    return {
        one.name: np.asarray(one.decode(dataset.read_map(one, 0, 0, WHOLE)), dtype=np.float64)
        for one in dataset.product.quantities
    }


def test_what_people_draw_and_what_rain_fills_are_told_apart(place: tuple[str, Store, Path]) -> None:
    found = layers(place[1])
    land = ~np.isnan(drawn())
    for values in found.values():
        assert np.array_equal(~np.isnan(values), land)
    error = np.abs(found["residual_trend"] - drawn())[land]
    assert (error <= 2 * found["residual_trend_standard_error"][land]).mean() > 0.9
    assert np.median(error) < 0.02
    total = found["residual_trend"] + found["climate_trend"]
    assert np.median(np.abs(total - drawn())[land]) > 3 * np.median(error)  # the plain trend is led astray by rain
    assert np.array_equal(found["footprint"][land], drawn()[land] < 0)


def test_both_parts_are_the_trend(place: tuple[str, Store, Path]) -> None:
    _, store, inputs = place
    recipe = recipe_of(store, inputs)
    window = Window(row=30, column=40, height=7, width=9)
    plain = recipe.trend.compute(recipe.trend.periods(), window)["trend"][0]
    quantity = recipe.trend.product.quantities[0]
    found = layers(store)
    both = (found["residual_trend"] + found["climate_trend"])[window.rows, window.columns]
    assert np.abs(both - quantity.decode(plain)).max() <= 1.5001 * (quantity.scale_factor or 0)


def test_any_window_gives_the_same_bytes(place: tuple[str, Store, Path]) -> None:
    _, store, inputs = place
    recipe = recipe_of(store, inputs)
    whole = recipe.compute(recipe.periods(), WHOLE)
    for window in (Window(row=0, column=0, height=5, width=96), Window(row=61, column=70, height=11, width=13)):
        for name, values in recipe.compute(recipe.periods(), window).items():
            np.testing.assert_array_equal(values, whole[name][:, window.rows, window.columns])


def test_drivers_lie_linearly_between_centres_of_coarse_cells(place: tuple[str, Store, Path]) -> None:
    """Against xarray, on the same means over coarse cells."""
    _, _, inputs = place
    climate, window = Climate.find(inputs), Window(row=20, column=31, height=9, width=14)
    months = np.arange(FIRST, FIRST + MONTHS)
    weather = climate.weather(months, around(GRID, window))
    held = weather.held(0, grid=GRID, window=window, cells=np.ones(9 * 14, dtype=np.bool_))[0].reshape(-1, 9, 14)
    read = np.stack(
        [
            climate.drivers[0].read(int(month), COARSE, Window(row=240, column=1000, height=24, width=32))
            for month in months
        ]
    )
    field = xr.DataArray(
        read.astype(np.float64),
        dims=("time", "lat", "lon"),
        coords={"lat": COARSE.latitudes[240:264], "lon": COARSE.longitudes[1000:1032]},
    )
    year = field.groupby(xr.DataArray(months % 12, dims="time", name="month")).mean()
    left = field - year.sel(month=xr.DataArray(months % 12, dims="time")).drop_vars("month")
    part = GRID.subgrid(window)
    expected = left.interp(lat=part.latitudes, lon=part.longitudes)
    np.testing.assert_allclose(held, expected.values, rtol=0, atol=1e-9)


def test_the_service_sums_it_over_a_polygon(place: tuple[str, Store, Path]) -> None:
    url, store, _ = place
    found = layers(store)
    rows, columns = slice(24, 60), slice(54, 90)
    km2 = GRID.row_areas_km2[rows][:, None]
    expected = float((found["residual_trend"][rows, columns] * km2).sum() * 1e-5)
    west, north, east, south = 70 + 54 / 12, 30 - 24 / 12, 70 + 90 / 12, 30 - 60 / 12
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    body = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    with TestClient(create_app(Settings(store=url, warm_share=0), store)) as client:

        def asked(variable: str) -> dict[str, Any]:
            address = f"/collections/aquifer_footprint/statistics?variable={variable}"
            answer = client.post(address, json=body)
            assert answer.status_code == 200, answer.text
            statistics: dict[str, Any] = answer.json()["properties"]["statistics"]["b1"]
            return statistics

        residual, flag = asked("residual_trend"), asked("footprint")
    assert residual["integral_units"] == "km3 yr-1"
    assert residual["integral"] == pytest.approx(expected, rel=1e-6)
    assert residual["integral"] == pytest.approx(-1.5 * float(km2.sum()) * 36 * 1e-5, rel=0.01)
    assert flag["integral_units"] == "km2"
    assert flag["integral"] == pytest.approx(float((found["footprint"][rows, columns] * km2).sum()), rel=1e-6)


def test_the_collection_says_what_it_is_of(place: tuple[str, Store, Path]) -> None:
    _, store, inputs = place
    version = current_version(store, "aquifer_footprint")[1]
    (origin,) = version.provenance.values()
    assert origin["facts"]["climate"] == ["rain"]
    assert origin["facts"]["version"] == current_version(store, "aquifer")[1].id
    names = {one["name"] for one in origin["inputs"]}
    assert {"rain.nc", "pumps.nc", "footprint.toml"} <= names
    assert version.product.synthetic
    assert verify(store, "aquifer_footprint").findings == ()
    assert recipe_of(store, inputs) == recipe_of(store, inputs)


def test_months_that_the_drivers_lack_are_not_fitted(place: tuple[str, Store, Path], tmp_path: Path) -> None:
    _, store, _ = place
    recipe = recipe_of(store, write_inputs(tmp_path / "later", first=FIRST + 20))
    assert recipe.facts()["months"][0] == "2004-09"
    assert len(recipe.facts()["months"]) == MONTHS - 20
    few = write_inputs(tmp_path / "few", last=FIRST + 40)
    with pytest.raises(Refused, match=r"aquifer has 41 of the months asked for .* a footprint needs 60"):
        recipe_of(store, few)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("", ""), ""),
        (('units = "mm"', 'units = "cm"'), "rain is in 'mm', and 'cm' is asked for"),
        (('"rain.nc"', '"snow.nc"'), "climate rain names 'snow.nc'"),
        (("[[climate]]", "[[weather]]"), "footprint.toml: (climate|weather)"),
        (("least = 0.5", 'least = "much"'), "footprint.toml: proxy.least"),
    ],
)
def test_settings_that_do_not_hold_are_refused(
    place: tuple[str, Store, Path], tmp_path: Path, change: tuple[str, str], told: str
) -> None:
    inputs = write_inputs(tmp_path / "inputs", TOML.replace(*change))
    if not told:
        (inputs / "footprint.toml").unlink()
        told = "holds no footprint.toml"
    with pytest.raises(InputRefused, match=told):
        recipe_of(place[1], inputs)


def test_a_driver_that_changes_later_is_refused(place: tuple[str, Store, Path], tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "inputs")
    recipe = recipe_of(place[1], inputs)
    for name in ("rain.nc", "pumps.nc"):
        (inputs / name).unlink()  # some process holds them open
    write_inputs(inputs, last=FIRST + 100)
    with pytest.raises(InputRefused, match=re.escape("rain.nc")):
        recipe.compute(recipe.periods(), Window(row=30, column=30, height=2, width=2))
    with pytest.raises(InputRefused, match=re.escape("rain.nc")):
        recipe.check_inputs()


def test_the_command_says_what_it_does_not_take(place: tuple[str, Store, Path]) -> None:
    url, _, inputs = place
    for words, told in (
        (["trend", "--inputs", str(inputs)], "the analysis trend takes none"),
        (["mood"], "there is no analysis 'mood'; there are trend, footprint"),
    ):
        result = CliRunner().invoke(app, ["--store", url, "analyse", "aquifer", *words])
        assert isinstance(result.exception, SettingsError)
        assert told in str(result.exception)
