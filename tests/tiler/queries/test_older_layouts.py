"""A version whose segments were written by releases with other widths of series chunks: each is read as it lies."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, box

from services.core import layout
from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.grid import Grid, inner_chunk
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from services.core.time_axis import TimeAxis
from tests.tiler.conftest import XCO2, Arrays, a_product, publish_arrays
from tiler.app import create_app
from tiler.cells import cells_touching
from tiler.polygons import boxes_of, covered_fraction

BLOCK, PERIODS = 120, 123
GRID = replace(Grid.of(west=-20, north=30, step_x="1/4", width=160, height=120), chunk_x=80, chunk_y=80)
AREA = MultiPolygon([box(-9.9, 1.03, 17.77, 23.4)])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, NDArray[np.float64]]:
    """Months in two series blocks, the first of them in the chunks of an older release; and the values, ppm."""
    store = Store.open(str(tmp_path_factory.mktemp("older")), StoreSettings())
    dice = np.random.default_rng(11)
    values = 400 + dice.normal(0, 5, (PERIODS, *GRID.shape))
    values[dice.random(values.shape) < 0.1] = np.nan
    product = a_product("mixed", GRID, XCO2, series_block=BLOCK)
    axis = TimeAxis.regular("2010-01", "P1M", PERIODS)
    recipe = Arrays(product=product, axis=axis, values={"xco2": XCO2.pack(values)})
    first = replace(recipe, axis=axis.take(range(BLOCK)), values={"xco2": recipe.values["xco2"][:BLOCK]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "inner_chunk", lambda _: 40)
        publish_arrays(store, first)
    publish_arrays(store, recipe)
    dataset = Dataset(store, current_version(store, "mixed")[1])
    widths = [run.array.layout.chunk[2] for run in dataset.runs(XCO2, range(PERIODS), "series")]
    assert widths == [40, inner_chunk(80)]
    return store, np.asarray(XCO2.decode(XCO2.pack(values)), dtype=np.float64)


def numbers(values: list[Any]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


@pytest.mark.parametrize("place", [(-19.9, 29.9), (7.3, 11.1), (19.9, 0.1)])
@pytest.mark.parametrize("way", ["position, alone", "position, again", "positions"])
def test_places(mixed: tuple[Store, NDArray[np.float64]], place: tuple[float, float], way: str) -> None:
    store, values = mixed
    row, column = GRID.locate(*place)
    with TestClient(create_app(Settings(store=store.url, warm_share=0), store)) as client:
        if way == "positions":
            document = client.post("/collections/mixed/points", json={"coords": [place, (0, 1)]}).json()
            found = numbers(document["points"][0]["values"]["xco2"])
        else:
            for _ in range(1 + (way == "position, again")):
                document = client.get(f"/collections/mixed/position?coords=POINT({place[0]} {place[1]})").json()
            found = numbers(document["ranges"]["xco2"]["values"])
    np.testing.assert_allclose(found, values[:, row, column], rtol=0, atol=1e-9)


def test_a_cube(mixed: tuple[Store, NDArray[np.float64]]) -> None:
    store, values = mixed
    with TestClient(create_app(Settings(store=store.url, warm_share=0), store)) as client:
        document = client.get("/collections/mixed/cube?bbox=-5,1,-4.1,1.9").json()
    shape = document["ranges"]["xco2"]["shape"]
    found = numbers(document["ranges"]["xco2"]["values"]).reshape(shape)
    cells = cells_touching(GRID, [(-5, 1, -4.1, 1.9)])
    (window,) = cells.windows
    np.testing.assert_allclose(found, values[:, window.rows, window.columns], rtol=0, atol=1e-9)


def test_a_mean(mixed: tuple[Store, NDArray[np.float64]]) -> None:
    store, values = mixed
    west, south, east, north = AREA.bounds
    ring = f"{west} {south},{east} {south},{east} {north},{west} {north},{west} {south}"
    with TestClient(create_app(Settings(store=store.url, warm_share=0), store)) as client:
        answer = client.get(f"/collections/mixed/area?coords=POLYGON(({ring}))&aggregate=mean")
    found = numbers(answer.json()["ranges"]["xco2"]["values"])
    cells = cells_touching(GRID, boxes_of(AREA))
    (window,) = cells.windows
    weights = covered_fraction(AREA, cells) * cells.row_areas[:, np.newaxis]
    inside = values[:, window.rows, window.columns]
    valid = np.where(np.isnan(inside), 0.0, weights)
    wanted = np.nansum(inside * valid, axis=(1, 2)) / valid.sum(axis=(1, 2))
    # a mean may come from a level, within the quantum
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.01)
