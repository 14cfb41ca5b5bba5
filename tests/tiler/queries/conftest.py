"""A few published collections, rendered by the real pipeline, and the arrays that they were made of."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
import xarray as xr
from fastapi import FastAPI
from numpy.typing import NDArray
from starlette.testclient import TestClient

from services.core.catalog import Version
from services.core.grid import Grid, Window
from services.core.product import Product, Provider
from services.core.quantity import Quantity
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from services.core.style import Style
from services.core.time_axis import Step, TimeAxis
from services.pipeline.code import Code
from services.pipeline.plan import plan
from services.pipeline.publish import compose, publish
from services.pipeline.recipe import Input
from services.pipeline.run import run
from tiler.app import create_app

type Arrays = dict[str, NDArray[Any]]

MODEL = {"made_up": "0123456789abcdef" * 4}


@dataclass(frozen=True, kw_only=True)
class ArrayRecipe:
    """A recipe whose values are there already."""

    product: Product
    time: TimeAxis
    values: Arrays = field(repr=False)
    """Quantity -> decoded ``(time, y, x)``, NaN where missing."""

    def periods(self) -> TimeAxis:
        return self.time

    def inputs(self) -> tuple[Input, ...]:
        return ()

    def models(self) -> Mapping[str, str]:
        return MODEL if self.product.synthetic else {}

    def model_directories(self) -> Mapping[str, Path]:
        return {}

    def facts(self) -> Mapping[str, Any]:
        return {}

    def compute(self, periods: TimeAxis, window: Window) -> Arrays:
        places = [self.time.starts.index(start) for start in periods.starts]
        return {
            quantity.name: quantity.pack(self.values[quantity.name][places][:, window.rows, window.columns])
            for quantity in self.product.quantities
        }


class Quiet:
    """Progress that nobody watches."""

    def start(self, stage: str, total: int, done: int) -> None: ...

    def advance(self, stage: str, task: str) -> None: ...

    def note(self, text: str) -> None: ...


def publish_first(store: Store, product: Product, axis: TimeAxis, values: Arrays) -> Version:
    """Render and publish arrays as the first version of a collection."""
    recipe = ArrayRecipe(product=product, time=axis, values=values)
    code = Code(version="0", source="0" * 64)
    work = plan(product=product, available=axis, current=None, code=code, models=dict(recipe.models()))
    version = compose(work, run(store, work, recipe, None, Quiet()), None)
    publish(store, version)
    return version


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a collection was made of."""

    product: Product
    time: TimeAxis
    values: Arrays
    version: Version

    @property
    def xarray(self) -> xr.Dataset:
        """The decoded source, as stored: packed values are rounded to their steps."""
        grid = self.product.grid
        return xr.Dataset(
            {
                quantity.name: (("time", "y", "x"), quantity.decode(quantity.pack(self.values[quantity.name])))
                for quantity in self.product.quantities
            },
            coords={"time": self.time.instants.astype("datetime64[ns]"), "y": grid.latitudes, "x": grid.longitudes},
        )


def months() -> TimeAxis:
    """Thirty months, one of them missing, whose nominal times are the middles."""
    every = TimeAxis.regular("2015-01", "P1M", 31)
    kept = every.take([place for place in range(31) if place != 7])
    middles = kept.bounds.astype("datetime64[us]").astype(np.int64).mean(axis=1).astype(np.int64)
    return TimeAxis(step=kept.step, starts=kept.starts, times=tuple(middles.tolist()))


def xco2() -> tuple[Product, TimeAxis, Arrays]:
    """Global, packed, with an uncertainty and a count; monthly with a COG per month."""
    grid = Grid.of(west=-180, north=90, step_x="1", width=360, height=180)
    product = Product(
        id="xco2_test",
        title="Column CO2 of the tests",
        description="Made up for the tests.",
        grid=grid,
        step="P1M",
        quantities=(
            Quantity(
                name="xco2",
                units="1e-6",
                long_name="column-averaged dry-air mole fraction of CO2",
                standard_name="dry_atmosphere_mole_fraction_of_carbon_dioxide",
                dtype="int16",
                scale_factor=0.01,
                add_offset=400.0,
                fill_value=-32768,
                style=Style(colormap_name="viridis", minimum=395.0, maximum=415.0),
            ),
            Quantity(
                name="xco2_uncertainty",
                units="1e-6",
                long_name="standard uncertainty of xco2",
                dtype="int16",
                scale_factor=0.01,
                fill_value=-32768,
                role="uncertainty",
                ancillary_of="xco2",
            ),
            Quantity(
                name="soundings",
                units="1",
                long_name="number of soundings",
                dtype="int32",
                fill_value=-1,
                role="count",
                ancillary_of="xco2",
            ),
        ),
        license="CC-BY-4.0",
        keywords=("carbon dioxide",),
        providers=(Provider(name="the tests", roles=("producer",)),),
        citation="Nobody (2020)",
        synthetic=True,
    )
    axis = months()
    random = np.random.default_rng(1)
    # each value tells its place, so that a shift of half a cell cannot hide
    y, x = np.meshgrid(grid.latitudes, grid.longitudes, indexing="ij")
    period = np.arange(len(axis))[:, np.newaxis, np.newaxis]
    value = 400 + x / 100 + y / 30 + period * 0.17 + random.normal(0, 0.1, (len(axis), *grid.shape))
    value[random.random(value.shape) < 0.2] = np.nan
    value[:, 150:, :] = np.nan
    uncertainty = np.where(np.isnan(value), np.nan, random.uniform(0.3, 2.0, value.shape))
    count = np.where(np.isnan(value), np.nan, random.integers(0, 5000, value.shape))
    return product, axis, {"xco2": value, "xco2_uncertainty": uncertainty, "soundings": count}


def pacific() -> tuple[Product, TimeAxis, Arrays]:
    """A float grid across the antimeridian, daily, without COGs."""
    grid = Grid.of(west=165, north="20.5", step_x="1/2", step_y="1/4", width=60, height=70)
    product = Product(
        id="pacific-days",
        title="Across the antimeridian",
        description="Floats of the tests.",
        grid=grid,
        step="P1D",
        quantities=(Quantity(name="anomaly", units="cm", long_name="anomaly"),),
        cog_period=None,
    )
    axis = TimeAxis.regular("2019-12-20", "P1D", 25)
    random = np.random.default_rng(2)
    value = random.normal(0, 10, (len(axis), *grid.shape)).astype(np.float32)
    value[random.random(value.shape) < 0.1] = np.nan
    return product, axis, {"anomaly": value}


def hours() -> tuple[Product, TimeAxis, Arrays]:
    """A small hourly grid whose maps also serve the series; a COG per month."""
    grid = Grid.of(west="77.875", north="41.125", step_x="1/4", width=43, height=17)
    product = Product(
        id="flux_hours",
        title="Hours",
        description="One layout for maps and series.",
        grid=grid,
        step="PT1H",
        quantities=(Quantity(name="flux", units="g m-2 s-1", long_name="flux of CO2, upward", quantum=1e-4),),
        map_block=24,
        series_block=None,
        cog_period="P1M",
    )
    axis = TimeAxis(step=Step.parse("PT1H"), starts=TimeAxis.regular("2001-01-30T06", "PT1H", 80).starts)
    random = np.random.default_rng(3)
    return product, axis, {"flux": random.normal(0, 1, (len(axis), *grid.shape)).astype(np.float32)}


def sines() -> tuple[Product, TimeAxis, Arrays]:
    """Each cell holds the exact mean of sin(latitude) over its area on the sphere, so that means have a closed form."""
    grid = Grid.of(west=-180, north=90, step_x="5/2", step_y="3/2", width=144, height=120)
    product = Product(
        id="sines",
        title="Sines",
        description="Means with a closed form.",
        grid=grid,
        step="P1Y",
        quantities=(
            Quantity(name="sine", units="1", long_name="sine of latitude", dtype="float64"),
            Quantity(name="half", units="1", long_name="one, north of the equator only", dtype="float64"),
        ),
        cog_period=None,
    )
    edges = np.sin(np.radians(np.linspace(90, -90, grid.height + 1)))
    rows = (edges[:-1] + edges[1:]) / 2
    sine = np.broadcast_to(rows[:, np.newaxis], grid.shape)
    half = np.where(sine > 0, 1.0, np.nan)
    axis = TimeAxis.regular("1999", "P1Y", 1)
    return product, axis, {"sine": sine[np.newaxis].copy(), "half": half[np.newaxis]}


@dataclass(frozen=True, kw_only=True)
class World:
    """A store with the published collections, and the service over it."""

    store: Store
    url: str
    sources: dict[str, Source]
    app: FastAPI
    client: TestClient


@pytest.fixture(scope="session", params=["directory", pytest.param("minio", marks=pytest.mark.s3)])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Four published collections, on a directory and on real MinIO, and a client of the service over them."""
    settings = StoreSettings()
    if request.param == "directory":
        url = str(tmp_path_factory.mktemp("queries"))
    else:
        server = request.getfixturevalue("minio")
        url = f"s3://{server.new_bucket()}/queries"
        settings = StoreSettings(
            endpoint=server.endpoint,
            region=server.region,
            access_key_id=server.access_key,
            secret_access_key=server.secret_key,
        )
    store = Store.open(url, settings)
    sources = {}
    for product, axis, values in (xco2(), pacific(), hours(), sines()):
        version = publish_first(store, product, axis, values)
        sources[product.id] = Source(product=product, time=axis, values=values, version=version)
    app = create_app(Settings(store=url), store)
    with TestClient(app) as client:
        yield World(store=store, url=url, sources=sources, app=app, client=client)


@pytest.fixture(scope="session")
def address(world: World) -> Iterator[str]:
    """Address of the same service on a real socket of loopback."""
    server = uvicorn.Server(uvicorn.Config(world.app, log_level="warning", lifespan="off", ws="none"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=10)
