"""Small published products, made by the real pipeline, and the service over them."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from services.core.catalog import Version, read_pointer, read_version
from services.core.grid import Grid, Window
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from services.core.style import Style
from services.core.time_axis import TimeAxis
from services.pipeline.code import Code
from services.pipeline.plan import plan
from services.pipeline.publish import compose, publish
from services.pipeline.recipe import Input
from services.pipeline.run import run
from tiler.app import create_app

CODE = Code(version="0", source="0" * 64)


class Quiet:
    """Progress that nobody watches."""

    def start(self, stage: str, total: int, done: int) -> None: ...

    def advance(self, stage: str, task: str) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """A recipe whose values are given: quantity name -> stored values ``(time, y, x)``."""

    product: Product
    axis: TimeAxis
    values: Mapping[str, NDArray[Any]]
    origin: str = "test"
    made_by: Mapping[str, str] = field(default_factory=dict)

    def periods(self) -> TimeAxis:
        return self.axis

    def inputs(self) -> tuple[Input, ...]:
        return (Input(name=self.origin, size=1, sha256="0" * 64),)

    def models(self) -> Mapping[str, str]:
        return self.made_by

    def model_directories(self) -> Mapping[str, Path]:
        return {}

    def facts(self) -> Mapping[str, Any]:
        return {}

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        places = [self.axis.starts.index(start) for start in periods.starts]
        return {name: array[places][:, window.rows, window.columns] for name, array in self.values.items()}


def publish_arrays(store: Store, recipe: Arrays, *, periods: str | None = None, keep: bool = True) -> str:
    """Render and publish given values; returns the version."""
    current: Version | None = None
    if found := read_pointer(store, recipe.product.id):
        current = read_version(store, recipe.product.id, found[0].version)
    made = plan(
        product=recipe.product,
        available=recipe.axis,
        current=current,
        code=CODE,
        inputs=recipe.inputs(),
        models=dict(recipe.models()),
        periods=periods,
        keep=keep,
    )
    outcome = run(store, made, recipe, None, Quiet())
    return publish(store, compose(made, outcome, current)).version


def own_coordinates(grid: Grid, periods: int) -> NDArray[np.float64]:
    """An image whose values are their own coordinates: longitude + 10 000 x latitude, plus 1e8 for each period."""
    place = grid.longitudes[np.newaxis, :] + 10_000.0 * grid.latitudes[:, np.newaxis]
    return np.stack([place + 1e8 * period for period in range(periods)])


def a_product(identifier: str, grid: Grid, *quantities: Quantity, **more: Any) -> Product:
    """A monthly product."""
    return Product(
        id=identifier,
        title=f"Test product {identifier}",
        description="Made up for a test.",
        grid=grid,
        step=more.pop("step", "P1M"),
        quantities=quantities,
        **{"cog_period": None, "series_block": None if grid.cells <= 65536 else 120, **more},
    )


PLACE = Quantity(name="place", units="1", long_name="Own coordinates", dtype="float64")
XCO2 = Quantity(
    name="xco2",
    units="1e-6",
    long_name="Column-averaged CO2",
    standard_name="dry_atmosphere_mole_fraction_of_carbon_dioxide",
    dtype="int16",
    scale_factor=0.01,
    add_offset=400.0,
    fill_value=-32768,
    style=Style(minimum=380.0, maximum=420.0, colormap_name="viridis"),
)
XCO2_STD = Quantity(
    name="xco2_std",
    units="1e-6",
    long_name="Uncertainty",
    dtype="float32",
    role="uncertainty",
    ancillary_of="xco2",
)


def xco2_values(grid: Grid, periods: int, shift: float = 0.0) -> NDArray[np.float64]:
    """Smooth values with holes, different in each period, ppm."""
    rng = np.random.default_rng(7)
    wave = np.sin(np.radians(grid.longitudes))[np.newaxis, :] * np.cos(np.radians(grid.latitudes))[:, np.newaxis]
    out = np.stack([400.0 + 10 * wave + period + shift for period in range(periods)])
    out[:, rng.random(grid.shape) < 0.15] = np.nan
    out[:, : grid.height // 8, : grid.width // 4] = np.nan
    return out


@dataclass(frozen=True)
class World:
    """A store with published collections."""

    store: Store
    url: str
    versions: Mapping[str, str]
    recipes: Mapping[str, Arrays]


GRIDS = {
    "global": Grid.of(west=-180, north=90, step_x="1/2", width=720, height=360),
    "nodes": Grid.of(west="-721/4", north="361/4", step_x="1/2", width=720, height=361),
    "region": Grid.of(west="72.25", north="55", step_x="1/10", width=300, height=200),
    "seam": Grid.of(west=150, north=20, step_x="1/2", width=120, height=80),
    "odd": Grid.of(west=-180, north=90, step_x="40/111", width=999, height=417),
    "fine": Grid.of(west=100, north=30, step_x="1/20", width=300, height=200),
}
"""Global; global on nodes; a region; a region across the antimeridian; a width that levels do not divide; 0.05 deg."""


def build_world(store: Store, url: str) -> World:
    """Publish the collections that the tests of the service ask for."""
    recipes: dict[str, Arrays] = {}
    for name, periods in (("global", 1), ("nodes", 2), ("region", 1), ("seam", 2), ("fine", 1)):
        grid = GRIDS[name]
        product = a_product(f"place_{name}", grid, PLACE)
        axis = TimeAxis.regular("2020-01", "P1M", periods)
        recipes[product.id] = Arrays(product=product, axis=axis, values={"place": own_coordinates(grid, periods)})
    grid = Grid.of(west=-180, north=90, step_x="1/2", width=720, height=360)
    product = a_product("xco2", grid, XCO2, XCO2_STD, synthetic=True)
    axis = TimeAxis.of_ids(product.length, ["2019-11", "2019-12", "2020-01", "2020-03"])
    values = xco2_values(grid, len(axis))
    recipes["xco2"] = Arrays(
        product=product,
        axis=axis,
        values={"xco2": XCO2.pack(values), "xco2_std": (values / 400).astype("float32")},
        made_by={"net": "ab" * 32},
    )
    versions = {name: publish_arrays(store, recipe) for name, recipe in recipes.items()}
    return World(store=store, url=url, versions=versions, recipes=recipes)


@pytest.fixture(scope="session", params=["directory", pytest.param("minio", marks=pytest.mark.s3)])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same collections on a directory and on real MinIO."""
    if request.param == "directory":
        url = str(tmp_path_factory.mktemp("world"))
        return build_world(Store.open(url, StoreSettings()), url)
    server = request.getfixturevalue("minio")
    url = f"s3://{server.new_bucket()}/world"
    settings = StoreSettings(
        endpoint=server.endpoint,
        region=server.region,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
    )
    return build_world(Store.open(url, settings), url)


@pytest.fixture(scope="session")
def app(world: World) -> FastAPI:
    """The service over them."""
    # nothing is read but what tests ask for, some of which count it
    return create_app(Settings(store=world.url, warm_share=0), world.store)


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client of the service."""
    with TestClient(app) as found:
        yield found


@pytest.fixture(scope="session")
def live(app: FastAPI) -> Iterator[str]:
    """Address of the service on loopback, for clients that bring their own HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def service() -> Iterator[Callable[..., TestClient]]:
    """Makes a service over a store of the test's own; ends it with the test."""
    clients: list[TestClient] = []

    def serve(store: Store, **settings: Any) -> TestClient:
        made = TestClient(create_app(Settings(**settings), store))
        made.__enter__()
        clients.append(made)
        return made

    yield serve
    for one in clients:
        one.__exit__(None, None, None)


@pytest.fixture
def directory(tmp_path: Path) -> Store:
    """An empty store."""
    return Store.open(str(tmp_path / "store"), StoreSettings())
