"""``cenote analyse ID trend --polygons``: volumes of rectangles in closed form, in facts, files and the service."""

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from pyproj import Geod
from typer.testing import CliRunner

from services.cli import app
from services.core.catalog import current_version, version_ids
from services.core.dataset import Dataset
from services.core.grid import Window
from services.core.product import Product
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Input
from services.pipeline.verify import verify
from tests.pipeline.synthetic import render
from tests.road.test_trend import GRID, PRODUCT, STORAGE, Falling
from tiler.app import create_app

WHOLE = Window(row=0, column=0, height=24, width=40)
BOXES = {
    "inner": (73, 25, 78.25, 28),
    "cut": (71.1, 24.6, 76.93, 28.31),
    "over": (72, 24.5, 77, 27),
    "beyond": (68, 26, 75, 31),
    "nowhere": (10, 10, 12, 12),
}


def geodesic_km2(west: float, south: float, east: float, north: float) -> float:
    """A parallel is no geodesic: many points make it one."""
    across = np.linspace(west, east, 5000)
    longitudes = np.concatenate([across, across[::-1]])
    latitudes = np.concatenate([np.full(across.size, south), np.full(across.size, north)])
    return float(abs(Geod(ellps="WGS84").polygon_area_perimeter(longitudes, latitudes)[0]) / 1e6)


def parts(box: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """km2 of a box in each cell of GRID."""
    found = np.zeros(GRID.shape)
    for row in range(24):
        north, south = min(30 - row / 4, box[3]), max(29.75 - row / 4, box[1])
        if north <= south:
            continue
        strip = geodesic_km2(0, south, 1, north)
        lows, highs = np.maximum(70 + np.arange(40) / 4, box[0]), np.minimum(70.25 + np.arange(40) / 4, box[2])
        found[row] = strip * np.clip(highs - lows, 0, None)
    return found


def dense_error(error: NDArray[np.floating[Any]]) -> float:
    """Square root of e' C e, of all pairs of cells; ``error`` is ``(y, x)``, standard error times area."""
    some = error > 0
    lon, lat = (axis[some] for axis in np.meshgrid(np.radians(GRID.longitudes), np.radians(GRID.latitudes)))
    half = np.sin((lat - lat[:, None]) / 2) ** 2
    half = half + np.cos(lat) * np.cos(lat[:, None]) * np.sin((lon - lon[:, None]) / 2) ** 2
    distance = 2 * 6371.0088 * np.arcsin(np.sqrt(half))
    return float(np.sqrt(error[some] @ np.exp(-((distance / 300) ** 2)) @ error[some]))


def outlines(path: Path, names: list[str]) -> Path:
    features = [
        {
            "type": "Feature",
            "properties": {"name": name},
            "geometry": shapely.geometry.mapping(shapely.box(*BOXES[name])),
        }
        for name in names
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Store, Path]:
    root = tmp_path_factory.mktemp("volume")
    url = str(root / "store")
    store = Store.open(url, StoreSettings())
    render(store, Falling())
    return url, store, outlines(root / "boxes.geojson", list(BOXES))


def analyse(url: str, *words: str, fails: bool = False) -> Any:
    line = ["--store", url, "analyse", *words, "--workers", "0"]
    result = CliRunner().invoke(app, line if fails else [*line, "--json"])
    assert (result.exit_code != 0) == fails, result.output
    return str(result.exception) if fails else json.loads(result.stdout)


def trends(store: Store) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    dataset = Dataset(store, current_version(store, "water_trend")[1])
    slope, error = dataset.product.quantities[:2]
    return slope.decode(dataset.read_map(slope, 0, 0, WHOLE)), error.decode(dataset.read_map(error, 0, 0, WHOLE))


def test_a_trend_that_is_published_gets_its_table(place: tuple[str, Store, Path]) -> None:
    url, store, boxes = place
    first = analyse(url, "water", "trend")
    assert "facts" not in first
    asked = ("water", "trend", "--polygons", str(boxes), "--label", "name")
    found = analyse(url, *asked)
    # the same segment, nothing computed again, another version that has the table
    assert (found["segment"], found["executed"]) == (first["segment"], 0)
    assert found["changed"]
    assert found["version"] != first["version"]
    version = current_version(store, "water_trend")[1]
    (origin,) = version.provenance.values()
    assert origin["facts"]["table"] == found["facts"]["table"]
    assert origin["facts"]["length_of_errors_km"] == 300
    assert origin["facts"]["trend_of"] == "water"
    assert verify(store, "water_trend").findings == ()


def test_rows_are_the_closed_form_and_errors_those_of_all_pairs(place: tuple[str, Store, Path]) -> None:
    url, store, boxes = place
    found = analyse(url, "water", "trend", "--polygons", str(boxes), "--label", "name")
    slopes, errors = trends(store)
    rows = {row["region"]: row for row in found["facts"]["table"]}
    assert list(rows) == list(BOXES)
    for name, box in BOXES.items():
        row, area = rows[name], parts(box)
        known = np.where(np.isnan(slopes), 0.0, area)
        assert row["area_km2"] == pytest.approx(geodesic_km2(*box), rel=1e-6)
        assert row["outside_km2"] == pytest.approx(geodesic_km2(*box) - area.sum(), rel=1e-5, abs=1e-3)
        assert row["without_value_km2"] == pytest.approx(geodesic_km2(*box) - known.sum(), rel=1e-5, abs=1e-2)
        assert row["cells"] == (known > 0).sum()
        if name == "nowhere":
            assert row["km3_per_year"] is row["mean_trend"] is row["standard_error"] is row["low"] is None
            continue
        expected = np.nansum(slopes * known)
        assert row["km3_per_year"] == pytest.approx(expected * 1e-5, rel=2e-6)
        assert row["mean_trend"] == pytest.approx(expected / known.sum(), rel=2e-6)
        error = np.nan_to_num(errors) * known * 1e-5
        assert row["standard_error"] == pytest.approx(dense_error(error), rel=5e-3)
        assert row["independent"] == pytest.approx(np.sqrt((error**2).sum()), rel=2e-6)
        assert row["together"] == pytest.approx(error.sum(), rel=2e-6)
        assert row["independent"] < 0.2 * row["standard_error"] < 0.2 * row["together"]
        half = 1.959964 * row["standard_error"]
        assert (row["low"], row["high"]) == pytest.approx((row["km3_per_year"] - half, row["km3_per_year"] + half))
    assert rows["inner"]["outside_km2"] == rows["cut"]["outside_km2"] == rows["inner"]["without_value_km2"] == 0
    # of the box beyond the grid the north-west corner of the grid has no value, too
    sea = rows["beyond"]["without_value_km2"] - rows["beyond"]["outside_km2"]
    assert sea == pytest.approx(geodesic_km2(70, 29.25, 71, 30), rel=1e-5)


def test_files_and_the_service_say_the_same(place: tuple[str, Store, Path], tmp_path: Path) -> None:
    url, store, boxes = place
    found = analyse(url, "water", "trend", "--polygons", str(boxes), "--label", "name", "--out", str(tmp_path))
    rows = {row["region"]: row for row in found["facts"]["table"]}
    with (tmp_path / "trend.csv").open() as file:
        told = list(csv.DictReader(file))
    assert [float(row["km3_per_year"] or "nan") for row in told][:4] == [row["km3_per_year"] for row in rows.values()][
        :4
    ]
    assert told[4]["km3_per_year"] == ""
    features = json.loads((tmp_path / "trend.geojson").read_text())["features"]
    assert [one["properties"] for one in features] == list(rows.values())
    assert shapely.geometry.shape(features[1]["geometry"]).bounds == BOXES["cut"]

    # the service says the same sums; only it knows no error
    with TestClient(create_app(Settings(store=url, warm_share=0), store)) as client:
        body = {"type": "FeatureCollection", "features": features[:4]}
        answer = client.post("/collections/water_trend/statistics", json=body)
        assert answer.status_code == 200, answer.text
        for feature in answer.json()["features"]:
            served = feature["properties"]["statistics"]["b1"]
            assert served["integral"] == pytest.approx(feature["properties"]["km3_per_year"], rel=1e-4)


def test_what_was_found_stays_until_something_else_is_asked(place: tuple[str, Store, Path], tmp_path: Path) -> None:
    url, store, boxes = place
    asked = ("water", "trend", "--label", "name", "--polygons")
    with_table = analyse(url, *asked, str(boxes))
    count = len(version_ids(store, "water_trend"))
    for again in (analyse(url, *asked, str(boxes)), analyse(url, "water", "trend")):
        assert (again["version"], again["changed"]) == (with_table["version"], False)
    assert len(version_ids(store, "water_trend")) == count
    other = analyse(url, *asked, str(outlines(tmp_path / "one.geojson", ["inner"])))
    assert other["changed"]
    (origin,) = current_version(store, "water_trend")[1].provenance.values()
    assert [row["region"] for row in origin["facts"]["table"]] == ["inner"]


def test_it_is_told_to_people(place: tuple[str, Store, Path]) -> None:
    url, _, boxes = place
    line = ["--store", url, "analyse", "water", "trend", "--polygons", str(boxes), "--label", "name", "--workers", "0"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    assert "km3 yr-1" in result.stdout
    assert "inner " in result.stdout
    assert "beyond: " in result.stdout
    assert "km2 of it lie outside the collection" in result.stdout
    assert "over 300 km (our choice)" in result.stdout


def test_what_cannot_be_is_refused(place: tuple[str, Store, Path], tmp_path: Path) -> None:
    url, _, boxes = place
    far = outlines(tmp_path / "far.geojson", ["nowhere"])
    said = analyse(url, "water", "trend", "--polygons", str(far), fails=True)
    assert "far.geojson: no polygon lies on the grid of water (70..80 east, 24..30 north)" in said
    assert "--label names the polygons" in analyse(url, "water", "trend", "--label", "name", fails=True)
    assert "no table to write" in analyse(url, "water", "trend", "--out", str(tmp_path), fails=True)
    assert "has no property 'nam'" in analyse(
        url, "water", "trend", "--polygons", str(boxes), "--label", "nam", fails=True
    )


PPM = replace(STORAGE, name="gas", units="1e-6")
YEARLY = replace(PRODUCT, id="yearly", step="P1Y", quantities=(PPM,))


@dataclass(frozen=True, kw_only=True)
class Years(Falling):
    """A gas of known slopes in 21 yearly values, one of which is absent."""

    product: Product = YEARLY
    count: int = 21

    def periods(self) -> TimeAxis:
        axis = TimeAxis.regular("2002", "P1Y", self.count + 1)
        return axis.take([place for place in range(self.count + 1) if place != 7])

    def inputs(self) -> tuple[Input, ...]:
        return (Input(name=f"{self.count}", size=1, sha256=f"{self.count:064x}"),)

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        years = np.array(periods.starts)[:, None, None]
        noise = np.random.default_rng(5).normal(0, 0.5, (80, *GRID.shape))[years[:, 0, 0]]
        values = self.slopes() * (years - 40) + noise
        return {"gas": PPM.pack(values)[:, window.rows, window.columns]}


def test_a_trend_of_years_has_no_cycle_and_what_is_no_water_no_volume(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    store = Store.open(url, StoreSettings())
    render(store, Years())
    boxes = outlines(tmp_path / "boxes.geojson", ["cut"])
    found = analyse(url, "yearly", "trend", "--polygons", str(boxes), "--label", "name")
    dataset = Dataset(store, current_version(store, "yearly_trend")[1])
    assert str(dataset.time.step) == "P22Y"
    assert dataset.product.quantities[0].units == "1e-6 yr-1"
    assert len(found["facts"]["years"]) == 21
    assert "annual" not in found["facts"]["method"]
    assert "annual" not in dataset.product.description
    slope, error = (one.decode(dataset.read_map(one, 0, 0, WHOLE)) for one in dataset.product.quantities[:2])
    years = np.array(Years().periods().starts, dtype=np.float64)
    values = PPM.decode(Years().compute(Years().periods(), WHOLE)["gas"]).reshape(21, -1)
    sea = np.isnan(Years.slopes())
    design = np.stack([np.ones(21), years - years.mean()], 1)
    terms, squares = np.linalg.lstsq(design, values[:, ~sea.ravel()], rcond=None)[:2]
    step = dataset.product.quantities[0].scale_factor or 0.0
    assert np.abs(slope[~sea] - terms[1]).max() <= step / 2 * 1.0001
    # none is less than that of independent years, which many have; a series all of memory has none
    plain = np.full(GRID.shape, np.nan)
    plain[~sea] = np.sqrt(squares / 19 / ((years - years.mean()) ** 2).sum())
    told = ~np.isnan(error)
    assert (~told & ~sea).sum() == 1
    assert (error[told] >= plain[told] - step).all()
    assert np.isclose(error[told], plain[told], atol=step).mean() > 0.5
    (row,) = found["facts"]["table"]
    area = np.where(sea, 0.0, parts(BOXES["cut"]))
    assert "km3_per_year" not in row
    assert found["facts"]["table_units"] == "1e-6 yr-1"
    assert row["mean_trend"] == pytest.approx(np.nansum(slope * area) / area.sum(), rel=2e-6)
    mean = np.nansum(error * area) / area[told].sum()
    weighted = np.where(told, error, mean) * area / area.sum()
    assert row["cells_without_error"] == (~told & (area > 0)).sum()
    assert row["together"] == pytest.approx(weighted.sum(), rel=2e-6)
    assert row["standard_error"] == pytest.approx(dense_error(weighted), rel=5e-3)
    render(store, Years(count=10), keep=False)
    assert "yearly has 10 years of those asked for; a trend needs 11" in analyse(url, "yearly", "trend", fails=True)
    assert "yearly has periods of P1Y; a trend is fitted to months" in analyse(url, "yearly", "growth", fails=True)
