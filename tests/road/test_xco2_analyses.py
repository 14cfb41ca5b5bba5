"""A published XCO2 of known growth, season, anomaly and plumes; its analyses by the command, and as they are served."""

import csv
import json
import pickle
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from scipy import stats
from typer.testing import CliRunner

from services.cli import app
from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.errors import InputRefused, Refused, SettingsError
from services.core.grid import Window
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Input
from services.pipeline.verify import verify
from services.products.xco2_global.amplitude import AmplitudeRecipe
from services.products.xco2_global.anomaly import AnomalyRecipe
from services.products.xco2_global.declaration import UNCERTAINTY, XCO2, global_grid
from services.products.xco2_global.growth import GrowthRecipe
from services.products.xco2_global.hotspots import HotspotsRecipe
from services.sample.carbon_files import write_carbon
from services.validation.hotspots import matched
from tests.pipeline.synthetic import render
from tiler.app import create_app

GRID = global_grid(Fraction(1))
MONTHS = TimeAxis.regular("2018-01", "P1M", 36)
PRODUCT = Product(
    id="column",
    title="XCO2",
    description="Made up.",
    grid=GRID,
    step="P1M",
    quantities=(XCO2, UNCERTAINTY),
    series_block=None,
    synthetic=True,
)
WHOLE = Window(row=0, column=0, height=180, width=360)
PLUMES = ((-100.5, 40.5), (179.5, -30.5), (30.5, 0.5))
SEA = (slice(60, 66), slice(100, 110))
"""Without a value in any month."""


def growth() -> NDArray[np.float64]:
    """ppm a year, ``(y, x)``."""
    made: NDArray[np.float64] = 2.4 + 0.004 * GRID.latitudes[:, None] + 0.1 * np.cos(np.radians(GRID.longitudes))
    return made


def height() -> NDArray[np.float64]:
    """Half of the seasonal amplitude, ppm, ``(y, 1)``; the peak is in the middle of April."""
    made: NDArray[np.float64] = 0.5 + 2.5 * np.clip(GRID.latitudes, 0, None)[:, None] / 90
    return made


@dataclass(frozen=True, kw_only=True)
class Column:
    """ppm with a growth, a season, a gradient and three plumes."""

    product: Product = PRODUCT

    def periods(self) -> TimeAxis:
        return MONTHS

    def inputs(self) -> tuple[Input, ...]:
        return (Input(name="made up", size=1, sha256="0" * 64),)

    def models(self) -> dict[str, str]:
        return {}

    def model_directories(self) -> dict[str, Path]:
        return {}

    def facts(self) -> dict[str, Any]:
        return {}

    def values(self, month: int) -> NDArray[np.float64]:
        years = (month + 0.5) / 12
        field = 410 + growth() * (years - 50) + height() * np.cos(2 * np.pi * (years - 3.5 / 12))
        field = field + 2 * np.tanh(GRID.latitudes / 22)[:, None]
        for longitude, latitude in PLUMES:
            east = (GRID.longitudes - longitude + 180) % 360 - 180
            far = np.hypot((GRID.latitudes - latitude)[:, None], east * np.cos(np.radians(latitude)))
            field = field + 4 * np.exp(-0.5 * (far / 0.6) ** 2)
        field = field + np.random.default_rng(month).normal(0, 0.1, GRID.shape)
        field[SEA] = np.nan
        made: NDArray[np.float64] = field
        return made

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        fields = np.stack([self.values(month) for month in periods.starts])[:, window.rows, window.columns]
        return {
            "xco2": XCO2.pack(fields),
            "xco2_uncertainty": UNCERTAINTY.pack(np.where(np.isnan(fields), np.nan, 0.5)),
        }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Store, Path]:
    root = tmp_path_factory.mktemp("column")
    url = str(root / "store")
    store = Store.open(url, StoreSettings())
    render(store, Column())
    ring = [[-20, 10], [40, 10], [40, 50], [-20, 50], [-20, 10]]
    feature = {
        "type": "Feature",
        "properties": {"name": "North"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    (root / "continents.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return url, store, root


def analyse(place: tuple[str, Store, Path], *words: str) -> dict[str, Any]:
    out = place[2] / "out"
    line = ["--store", place[0], "analyse", "column", *words, "--workers", "0", "--json", "--out", str(out)]
    result = CliRunner().invoke(app, line if words[0] != "anomaly" else line[:-2])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def published(store: Store, name: str) -> Dataset:
    return Dataset(store, current_version(store, name)[1])


def layers(dataset: Dataset, position: int = 0) -> dict[str, NDArray[Any]]:
    return {q.name: q.decode(dataset.read_map(q, position, 0, WHOLE)) for q in dataset.product.quantities}


def stored() -> xr.DataArray:
    fields = np.stack([XCO2.decode(XCO2.pack(Column().values(month))) for month in MONTHS.starts])
    return xr.DataArray(fields, dims=("time", "y", "x"))


def test_a_table_says_why_an_interval_is_not_told_or_wide(place: tuple[str, Store, Path]) -> None:
    _, store, _ = place
    recipe = GrowthRecipe.open(store, published(store, "column"), variable=None, periods=None)
    told = [row | {"degrees_of_freedom": 30.0} for row in recipe.table]

    def lines(rows: list[dict[str, Any]]) -> str:
        other = replace(recipe)
        vars(other)["table"] = rows
        return "\n".join(other.summary())

    assert "independent" not in lines(told)
    for few in (None, 1.2):
        assert "few independent ones (degrees_of_freedom of growth.csv)" in lines(
            [told[0] | {"degrees_of_freedom": few, "low": None}, *told[1:]]
        )


def test_growth_is_the_slope_of_numpys_least_squares_and_means_are_weighted(place: tuple[str, Store, Path]) -> None:
    _, store, root = place
    found = analyse(place, "growth", "--polygons", str(root / "continents.geojson"), "--label", "name")
    maps = layers(published(store, "column_growth"))
    years = (np.array(MONTHS.starts) + 0.5) / 12
    design = np.stack(
        [np.ones(36), years - 49.5, *[wave(k * 2 * np.pi * years) for k in (1, 2) for wave in (np.cos, np.sin)]], 1
    )
    series = stored()
    fit = np.linalg.lstsq(design, np.nan_to_num(series.values.reshape(36, -1)), rcond=None)[0][1].reshape(GRID.shape)
    known = ~np.isnan(series.values[0])
    assert np.array_equal(np.isnan(maps["growth"]), ~known)
    step = published(store, "column_growth").product.quantities[0].scale_factor or 0
    assert np.abs(maps["growth"] - fit)[known].max() <= step / 2 * 1.001
    assert np.abs(maps["growth"] - growth())[known].max() < 0.2
    assert (maps["growth_p_value"][known] < 0.01).all()
    rows = {row["region"]: row for row in found["facts"]["table"]}
    assert len(rows) == 1 + 18 + 6 + 1
    # weights of xarray: areas by another way, on the sphere
    edges = np.radians(90.0 - np.arange(181))
    sphere = xr.DataArray(np.sin(edges[:-1]) - np.sin(edges[1:]), dims="y")
    for name, part in (("globe", slice(None)), ("30N..20N", slice(60, 70)), ("60S..90S", slice(150, 180))):
        mean = series[:, part].weighted(sphere[part]).mean(("y", "x"))
        slope = np.linalg.lstsq(design, mean.values, rcond=None)[0][1]
        assert rows[name]["growth"] == pytest.approx(slope, abs=2e-4)
        assert rows[name]["low"] < rows[name]["growth"] < rows[name]["high"]
    assert rows["globe"]["growth"] == pytest.approx(2.4, abs=0.01)
    assert rows["globe"]["area_km2"] == pytest.approx(510_065_621.7, rel=1e-6)
    assert rows["30N..20N"]["share_of_area"] < 1
    inside = series[:, 40:80, 160:220].weighted(sphere[40:80]).mean(("y", "x"))
    assert rows["North"]["growth"] == pytest.approx(np.linalg.lstsq(design, inside.values, rcond=None)[0][1], abs=2e-4)
    with (root / "out" / "growth.csv").open() as file:
        assert [row["region"] for row in csv.DictReader(file)] == list(rows)
    for row in rows.values():
        reach = stats.t.ppf(0.975, row["degrees_of_freedom"]) * row["standard_error"]
        assert row["high"] - row["growth"] == pytest.approx(reach, rel=0.01, abs=2e-6)
        assert -1 <= row["lag1_autocorrelation"] <= 1
    assert (
        published(store, "column_growth").version.provenance.popitem()[1]["facts"]["table"] == found["facts"]["table"]
    )
    assert verify(store, "column_growth").findings == ()


def test_amplitude_and_its_month_are_those_put_in(place: tuple[str, Store, Path]) -> None:
    _, store, _ = place
    found = analyse(place, "amplitude")
    maps = layers(published(store, "column_amplitude"))
    known = ~np.isnan(maps["amplitude"])
    assert np.median(np.abs(maps["amplitude"] - 2 * height())[known]) < 0.1
    assert np.abs(maps["maximum_month"] - 3.5)[:30].max() < 0.3
    rows = {row["region"]: row for row in found["facts"]["table"]}
    north = np.average(2 * height()[:10, 0], weights=GRID.row_areas[:10])
    assert rows["90N..80N"]["amplitude"] == pytest.approx(north, abs=0.05)
    assert rows["90N..80N"]["maximum_month"] == pytest.approx(3.5, abs=0.05)


def test_an_anomaly_is_less_the_median_of_its_latitude(place: tuple[str, Store, Path]) -> None:
    url, store, _ = place
    analyse(place, "anomaly")
    dataset = published(store, "column_anomaly")
    assert dataset.time.ids == MONTHS.ids
    series = stored().values
    medians = []
    for band in range(18):
        cells = series[20, band * 10 : band * 10 + 10]
        # a weighted median by repetition
        times = np.rint(1e4 * GRID.row_areas[band * 10 : band * 10 + 10]).astype(int)
        medians.append(np.nanmedian(np.repeat(cells, times, axis=0)))
    line = np.interp(-GRID.latitudes, -(85 - 10.0 * np.arange(18)), medians)
    expected = series[20] - line[:, None]
    got = layers(dataset, 20)["anomaly"]
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    assert np.nanmax(np.abs(got - expected)) < 0.012
    # no step where bands meet: rows differ there as they do elsewhere
    steps = np.abs(np.diff(np.nanmedian(got, axis=1)))
    assert steps[9::10].max() < 3 * np.median(steps) + 0.05
    ring = [[0, 20], [30, 20], [30, 40], [0, 40], [0, 20]]
    body = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    with TestClient(create_app(Settings(store=url, warm_share=0), store)) as client:
        answer = client.post("/collections/column_anomaly/statistics?datetime=2019-09", json=body)
        assert answer.status_code == 200, answer.text
        mean = answer.json()["properties"]["statistics"]["b1"]["mean"]
        weights = np.broadcast_to(GRID.row_areas[50:70, None], (20, 30))
        assert mean == pytest.approx(np.average(got[50:70, 180:210], weights=weights), abs=2e-3)
        for name in ("growth", "amplitude", "hotspots"):
            if name == "hotspots":
                analyse(place, name)
            answer = client.post(f"/collections/column_{name}/statistics", json=body)
            assert answer.status_code == 200, answer.text


def test_hotspots_are_the_plumes_and_nothing_else(place: tuple[str, Store, Path]) -> None:
    _, store, root = place
    found = analyse(place, "hotspots", "--inputs", str(root / "none"))
    table = found["facts"]["table"]
    assert found["facts"]["guides"] == []
    assert found["facts"]["stated_uncertainty"] == "xco2_uncertainty"
    centroids = np.array([[row["longitude"], row["latitude"]] for row in table])
    assert len(table) == len(PLUMES) == len(matched(centroids, np.array(PLUMES), within=0.1))
    maps = layers(published(store, "column_hotspots"))
    for number, row in enumerate(table, start=1):
        assert (maps["hotspot"] == number).sum() == row["cells"]
        at = GRID.locate(row["longitude"], row["latitude"])
        assert maps["hotspot"][at] == number
        assert maps["persistence"][at] > 0.9
        assert maps["excess_z"][at] > 5
    assert np.array_equal(np.isnan(maps["excess"]), np.isnan(stored().values[0]))
    features = json.loads((root / "out" / "hotspots.geojson").read_text())["features"]
    assert [one["geometry"]["coordinates"] for one in features] == [
        [row["longitude"], row["latitude"]] for row in table
    ]
    assert (root / "out" / "hotspots.csv").read_text().count("\n") == len(table) + 1


def test_any_window_and_any_process_gives_the_same_bytes(place: tuple[str, Store, Path]) -> None:
    _, store, root = place
    dataset = published(store, "column")
    asked: dict[str, Any] = {"variable": None, "periods": None}
    part = Window(row=17, column=331, height=50, width=29)
    for recipe in (
        GrowthRecipe.open(store, dataset, **asked),
        AmplitudeRecipe.open(store, dataset, **asked),
        AnomalyRecipe.open(store, dataset, **asked),
        HotspotsRecipe.open(store, dataset, inputs=root / "none", **asked),
    ):
        axis = recipe.periods().take([0])
        whole = recipe.compute(axis, WHOLE)
        travelled = pickle.loads(pickle.dumps(recipe))  # noqa: S301 - our own bytes
        again = travelled.compute(axis, part)
        for name, values in again.items():
            np.testing.assert_array_equal(values, whole[name][:, part.rows, part.columns])


def test_guides_are_those_that_the_inputs_name(place: tuple[str, Store, Path], tmp_path: Path) -> None:
    _, store, _ = place
    inputs = write_carbon(tmp_path, months=("2019-08", "2019-08"))
    toml = inputs / "xco2.toml"
    text = toml.read_text()
    asked: dict[str, Any] = {"inputs": inputs, "variable": None, "periods": None}
    dataset = published(store, "column")
    assert set(HotspotsRecipe.open(store, dataset, **asked).guides) == {
        "land_fraction",
        "temperature",
        "dew_point",
        "ndvi",
    }
    for named, found in (('["elevation", "ndvi"]', {"ndvi", "elevation"}), ("[]", set())):
        toml.write_text(f"{text}\n[hotspots]\nguides = {named}\n")
        recipe = HotspotsRecipe.open(store, dataset, **asked)
        assert set(recipe.guides) == found
        assert recipe.product.quantities[0].attributes["guides"] == (", ".join(recipe.guides) or "none")
    for named in ("slope", "land_cover"):  # none there, and one of classes
        toml.write_text(f'{text}\n[hotspots]\nguides = ["ndvi", "{named}"]\n')
        with pytest.raises(InputRefused, match=rf"xco2.toml: .*hotspots.guides: '{named}' is no covariate .* ndvi"):
            HotspotsRecipe.open(store, dataset, **asked)


def test_what_cannot_be_analysed_is_refused(place: tuple[str, Store, Path]) -> None:
    url, store, root = place
    dataset = published(store, "column")
    asked: dict[str, Any] = {"variable": None, "periods": "2018-01/2018-12"}
    for opened in (GrowthRecipe.open, lambda *of, **named: HotspotsRecipe.open(*of, inputs=root / "none", **named)):
        with pytest.raises(Refused, match="column has 12 months of those asked for; a trend needs 24"):
            opened(store, dataset, **asked)
    assert len(AnomalyRecipe.open(store, dataset, **asked).medians) == 12
    far = {"type": "Polygon", "coordinates": [[[-80, 24], [-71, 24], [-71, 30], [-80, 30], [-80, 24]]]}
    (root / "far.geojson").write_text(json.dumps(far))
    # where there is no value the table says so
    row = GrowthRecipe.open(store, dataset, variable=None, periods=None, polygons=root / "far.geojson").table[-1]
    assert (row["region"], row["growth"], row["share_of_area"]) == ("1", None, 0.0)
    water = Quantity(name="water", units="cm", long_name="Water")
    other = Product(
        id="water", title="W", description="W.", grid=GRID, step="P1M", quantities=(water,), series_block=None
    )

    @dataclass(frozen=True, kw_only=True)
    class Water(Column):
        product: Product = other

        def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
            return {"water": np.zeros((len(periods), *window.shape), np.float32)}

    render(store, Water())
    with pytest.raises(Refused, match="water: water is in cm; this analysis is of mole fractions in 1e-6"):
        GrowthRecipe.open(store, published(store, "water"), variable=None, periods=None)
    result = CliRunner().invoke(app, ["--store", url, "analyse", "column", "anomaly", "--polygons", "a.geojson"])
    assert isinstance(result.exception, SettingsError)
    assert "--polygons: the analysis anomaly takes none" in str(result.exception)
