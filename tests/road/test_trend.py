"""A published collection, its trend as one of its own, and the sum of that over an area as the service says it."""

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from pyproj import Geod

from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.errors import Refused, TimeOutsideAxis
from services.core.grid import Grid, Window
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from services.core.style import Style
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Input
from services.pipeline.trend import TrendRecipe
from services.pipeline.verify import verify
from tests.pipeline.synthetic import render
from tiler.app import create_app

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
GRID = Grid.of(west=70, north=30, step_x="1/4", width=40, height=24)
PRODUCT = Product(
    id="water", title="Water", description="Made up.", grid=GRID, step="P1M", quantities=(STORAGE,), synthetic=True
)
MONTHS = 120


@dataclass(frozen=True, kw_only=True)
class Falling:
    """Storage that falls faster in the south and the east, with a year's cycle; the north-west corner is sea."""

    product: Product = PRODUCT
    higher: int = 0
    """cm, everywhere."""

    @staticmethod
    def slopes() -> NDArray[np.float64]:
        """cm per year."""
        slopes = -0.2 * np.arange(24)[:, None] - 0.05 * np.arange(40)
        slopes[:3, :4] = np.nan
        return slopes

    def periods(self) -> TimeAxis:
        axis = TimeAxis.regular("2003-01", "P1M", MONTHS + 1)
        return axis.take([place for place in range(MONTHS + 1) if place != 57])  # a month is absent

    def inputs(self) -> tuple[Input, ...]:
        return (Input(name="made up", size=1, sha256=f"{self.higher:064x}"),)

    def models(self) -> dict[str, str]:
        return {}

    def model_directories(self) -> dict[str, Path]:
        return {}

    def facts(self) -> dict[str, Any]:
        return {}

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        months = np.array(periods.starts)[:, None, None]
        noise = np.random.default_rng(5).normal(0, 0.5, (1200, *GRID.shape))[months[:, 0, 0]]
        values = self.slopes() * (months - 450) / 12 + 3 * np.sin(2 * np.pi * months / 12) + noise + self.higher
        return {"storage": STORAGE.pack(values)[:, window.rows, window.columns]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Store]:
    url = str(tmp_path_factory.mktemp("trend") / "store")
    store = Store.open(url, StoreSettings())
    render(store, Falling())
    render(store, recipe_of(store))
    return url, store


def recipe_of(store: Store, **asked: str) -> TrendRecipe:
    dataset = Dataset(store, current_version(store, "water")[1])
    return TrendRecipe.of(store, dataset, variable=asked.get("variable"), periods=asked.get("periods"))


def published(store: Store) -> Dataset:
    return Dataset(store, current_version(store, "water_trend")[1])


def test_slopes_are_those_of_numpys_least_squares(place: tuple[str, Store]) -> None:
    _, store = place
    dataset = published(store)
    whole = Window(row=0, column=0, height=24, width=40)
    trend, error, p_value = (q.decode(dataset.read_map(q, 0, 0, whole)) for q in dataset.product.quantities)
    months = np.array(Falling().periods().starts)
    stored = STORAGE.decode(Falling().compute(Falling().periods(), whole)["storage"]).reshape(MONTHS, -1)
    years = months / 12
    design = np.stack([np.ones(MONTHS), years - years.mean(), np.cos(2 * np.pi * years), np.sin(2 * np.pi * years)], 1)
    sea = np.isnan(Falling.slopes())
    fitted = np.linalg.lstsq(design, stored[:, ~sea.ravel()], rcond=None)[0][1]
    step = dataset.product.quantities[0].scale_factor
    assert step is not None
    assert step < 0.01
    assert np.abs(trend[~sea] - fitted).max() <= step / 2 * 1.0001
    assert np.abs(trend[~sea] - Falling.slopes()[~sea]).max() < 0.1
    for values in (trend, error, p_value):
        assert np.array_equal(np.isnan(values), sea)
    # white noise of 0.5 cm: sigma / sqrt(sum of squared departures of the years)
    expected = 0.5 / np.sqrt(((years - years.mean()) ** 2).sum())
    assert np.median(error[~sea]) == pytest.approx(expected, rel=0.25)
    assert (p_value[10:] < 0.01).all()


def test_the_collection_says_what_it_is_of(place: tuple[str, Store]) -> None:
    _, store = place
    dataset = published(store)
    assert dataset.product.synthetic
    assert dataset.time.ids == ("2003-01",)
    assert str(dataset.time.step) == "P121M"
    assert dataset.product.quantities[0].units == "cm yr-1"
    (origin,) = dataset.version.provenance.values()
    assert origin["facts"]["trend_of"] == "water"
    assert origin["facts"]["version"] == current_version(store, "water")[1].id
    assert verify(store, "water_trend").findings == ()


def test_the_sum_over_an_area_is_the_closed_form_in_cubic_kilometres_a_year(place: tuple[str, Store]) -> None:
    url, store = place
    dataset = published(store)
    trend = dataset.product.quantities[0]
    rows, columns = slice(8, 20), slice(12, 33)
    whole = Window(row=0, column=0, height=24, width=40)
    slopes = trend.decode(dataset.read_map(trend, 0, 0, whole))[rows, columns]
    west, north = 70 + 12 / 4, 30 - 8 / 4
    east, south = 70 + 33 / 4, 30 - 20 / 4
    # each cell's area by another way: the geodesic of its outline, with its parallels cut fine
    expected = 0.0
    for row in range(12):
        top, bottom = north - row / 4, north - (row + 1) / 4
        across = np.linspace(0, 0.25, 200)
        lons = np.concatenate([across, across[::-1]])
        lats = np.concatenate([np.full(200, bottom), np.full(200, top)])
        km2 = abs(Geod(ellps="WGS84").polygon_area_perimeter(lons, lats)[0]) / 1e6
        expected += float(slopes[row].sum()) * km2 * 1e-5
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    body = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    with TestClient(create_app(Settings(store=url, warm_share=0), store)) as client:
        answer = client.post("/collections/water_trend/statistics", json=body)
        assert answer.status_code == 200, answer.text
        found = answer.json()["properties"]["statistics"]["b1"]
        assert found["integral_units"] == "km3 yr-1"
        assert found["integral"] == pytest.approx(expected, rel=1e-6)
        assert found["integral"] == pytest.approx(found["mean"] * found["area_km2"] * 1e-5, rel=1e-3)
        # a quantity that says nothing of the kind gets nothing
        plain = client.post("/collections/water/statistics?datetime=2003-01", json=body)
        assert "integral" not in plain.json()["properties"]["statistics"]["b1"]
        tile = client.get("/collections/water_trend/tiles/WebMercatorQuad/5/22/13.png")
        assert tile.status_code == 200
        site = client.get("/collections/water_trend/position?coords=POINT(75.1 26.1)&f=CSV")
        assert site.status_code == 200


def test_another_version_is_another_input() -> None:
    store = Store.open(f"memory://{uuid.uuid4().hex}", StoreSettings())
    render(store, Falling())
    first = recipe_of(store)
    assert recipe_of(store) == first
    assert recipe_of(store, periods="2003-01/2008-12").facts() != first.facts()
    render(store, Falling(higher=1), keep=False)
    second = recipe_of(store)
    assert second.inputs() != first.inputs()
    # what was planned with the first version goes on with it
    window = Window(row=5, column=5, height=2, width=2)
    for name, values in first.compute(first.periods(), window).items():
        np.testing.assert_array_equal(values, second.compute(second.periods(), window)[name])


def test_what_cannot_be_fitted_is_refused(place: tuple[str, Store]) -> None:
    _, store = place
    with pytest.raises(Refused, match="water has 12 months of those asked for; a trend needs 24"):
        recipe_of(store, periods="2003-01/2003-12")
    with pytest.raises(TimeOutsideAxis):
        recipe_of(store, periods="1990-01/1990-12")
    dataset = published(store)
    with pytest.raises(Refused, match="water_trend has periods of P121M; a trend is fitted to months"):
        TrendRecipe.of(store, dataset, variable=None, periods=None)
    assert json.dumps(dict(recipe_of(store).facts()))
