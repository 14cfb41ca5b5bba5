import hashlib
import json
import multiprocessing
import pickle
import shutil
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr

from models.sample_earth import DIRECTORY
from models.sample_earth.train import WEIGHTS_FILE, load
from services import products
from services.core.errors import DeclarationError, InputRefused, ModelRefused
from services.core.grid import Window
from services.core.time_axis import TimeAxis
from services.products.sample_earth import PRODUCT, open_recipe, render
from services.products.sample_earth.declaration import UNCERTAINTY, XCO2
from services.products.sample_earth.features import FEATURES, features
from services.products.sample_earth.predictors import Predictors
from services.products.sample_earth.render import SampleEarth
from services.sample.earth import Earth

pytestmark = pytest.mark.slow  # as a whole

BERING = Window(row=60, column=1340, height=100, width=100)
EUROPE = Window(row=120, column=680, height=90, width=150)


@pytest.fixture(scope="module")
def recipe(written: Path) -> SampleEarth:
    return open_recipe(written)


def _features_by_xarray(directory: Path, window: Window) -> np.ndarray:
    """January 2020, a second way: whole files, xarray and rasterio, float64."""
    with xr.open_dataset(directory / "era5_monthly_2020.nc", engine="h5netcdf") as data:
        era5 = data.sel(time="2020-01").squeeze("time").load()
    era5 = era5.assign_coords(longitude=(era5.longitude + 180) % 360 - 180).sortby("longitude")
    with rasterio.open(directory / "ndvi_2020-01.tif") as dataset:
        ndvi = (dataset.read(1, masked=True) * dataset.scales[0]).filled(np.nan)
    with rasterio.open(directory / "static_0p25.tif") as dataset:
        static = dataset.read() * np.array(dataset.scales)[:, None, None]
    line = next(
        line for line in (directory / "co2_background_monthly.txt").read_text().splitlines() if "2020  1" in line
    )
    latitude, longitude = np.meshgrid(np.radians(era5.latitude), np.radians(era5.longitude), indexing="ij")
    declination = np.radians(23.45) * np.sin(2 * np.pi * (284 + 365 / 24) / 365)
    one = np.ones((720, 1440))
    stack = [
        float(line.split()[-1]) * one,
        np.sin(np.pi / 12) * one,
        np.cos(np.pi / 12) * one,
        np.cos(latitude) * np.cos(longitude),
        np.cos(latitude) * np.sin(longitude),
        np.sin(latitude),
        era5.t2m.values,
        era5.swvl1.values,
        ndvi,
        *static,
        np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination),
    ]
    return np.stack([field[window.rows, window.columns] for field in stack], axis=-1).reshape(-1, len(FEATURES))


@pytest.mark.parametrize("window", [EUROPE, BERING])
def test_features_equal_a_second_implementation(written: Path, recipe: SampleEarth, window: Window) -> None:
    january = recipe.periods().starts[2]
    found = features(recipe.predictors, january, window)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, _features_by_xarray(written, window), rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("window", [EUROPE, BERING])
def test_maps_equal_torch_on_features_read_another_way(written: Path, recipe: SampleEarth, window: Window) -> None:
    rows = _features_by_xarray(written, window)
    lost = rows[:, 12] < 0.05
    network, _ = load(DIRECTORY / WEIGHTS_FILE)
    with torch.no_grad():
        value, sigma = network(torch.from_numpy(np.nan_to_num(rows).astype(np.float32)))
    stored = recipe.compute(recipe.periods().take([2]), window)
    for quantity, expected in ((XCO2, value), (UNCERTAINTY, sigma)):
        found = quantity.decode(stored[quantity.name])[0].ravel()
        assert stored[quantity.name].dtype == np.dtype(quantity.dtype)
        np.testing.assert_array_equal(np.isnan(found), lost)
        assert quantity.scale_factor is not None
        half = quantity.scale_factor / 2
        np.testing.assert_allclose(found[~lost], expected.numpy()[~lost], rtol=0, atol=half + 2e-3 * half)


def test_any_cut_into_windows_and_periods_gives_the_same_bytes(recipe: SampleEarth) -> None:
    whole = recipe.compute(recipe.periods(), EUROPE)
    assert whole["xco2"].shape == (4, 90, 150)
    for position in (0, 3):
        alone = recipe.compute(recipe.periods().take([position]), EUROPE)
        for name, values in alone.items():
            np.testing.assert_array_equal(values[0], whole[name][position])
    for row, column, height, width in ((0, 0, 1, 1), (7, 40, 13, 99), (89, 0, 1, 150)):
        part = Window(row=EUROPE.row + row, column=EUROPE.column + column, height=height, width=width)
        for name, values in recipe.compute(recipe.periods(), part).items():
            np.testing.assert_array_equal(values, whole[name][:, row : row + height, column : column + width])


def test_a_spawned_process_computes_the_same_bytes(recipe: SampleEarth) -> None:
    here = recipe.compute(recipe.periods().take([1]), BERING)
    assert len(pickle.dumps(recipe)) < 20_000
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(recipe.compute, recipe.periods().take([1]), BERING).result(timeout=120)
    for name, values in here.items():
        np.testing.assert_array_equal(there[name], values)


def test_the_map_is_near_the_truth_and_dark_where_the_sun_is(recipe: SampleEarth, earth: Earth) -> None:
    everywhere = Window(row=0, column=0, height=720, width=1440)
    stored = recipe.compute(recipe.periods().take([2]), everywhere)
    value, sigma = (quantity.decode(stored[quantity.name])[0] for quantity in (XCO2, UNCERTAINTY))
    truth = earth.month(np.datetime64("2020-01", "M"))
    dark = truth.sun < 0.05
    np.testing.assert_array_equal(np.isnan(value), dark)
    np.testing.assert_array_equal(np.isnan(sigma), dark)
    error = (value - truth.xco2)[~dark]
    assert np.sqrt((error**2).mean()) < 0.5
    assert abs(error.mean()) < 0.2
    assert XCO2.quantum is not None
    assert np.nanmin(sigma) / 10 >= XCO2.quantum


def test_it_says_what_it_reads_and_with_what(recipe: SampleEarth, written: Path) -> None:
    assert products.product("sample_earth").open_recipe is open_recipe
    assert recipe.product is PRODUCT
    assert PRODUCT.synthetic
    assert "synthetic" in PRODUCT.title.lower()
    assert recipe.periods() == TimeAxis.regular("2019-11", "P1M", 4)
    card = json.loads((DIRECTORY / "card.json").read_text())
    assert recipe.models() == {"sample_earth": hashlib.sha256((DIRECTORY / "card.json").read_bytes()).hexdigest()}
    assert card["sha256"] == hashlib.sha256((DIRECTORY / "model.onnx").read_bytes()).hexdigest()
    assert (recipe.model_directories()["sample_earth"] / "model.onnx").is_file()
    assert {file.name for file in recipe.inputs()} <= {path.name for path in written.iterdir()}
    assert json.loads(json.dumps(recipe.facts())) == recipe.facts()
    assert recipe.facts()["synthetic"] is True


def test_a_month_without_predictors_is_refused(recipe: SampleEarth) -> None:
    with pytest.raises(InputRefused, match="has no predictors for 2020-03"):
        recipe.compute(TimeAxis.regular("2020-03", "P1M", 1), EUROPE)


def test_another_model_than_the_planned_one_is_refused(recipe: SampleEarth) -> None:
    with pytest.raises(ModelRefused, match="planned with 000"):
        replace(recipe, card_sha256="0" * 64).compute(recipe.periods(), EUROPE)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("name",), "temperature_2m", "takes .*temperature_2m"),
        (("units",), "degC", "takes .*degC"),
        (None, None, "takes .*'soil_moisture': 'm3 m-3', 'temperature': 'K'"),
    ],
)
def test_a_card_with_other_features_is_refused(
    written: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: tuple[str] | None,
    value: str | None,
    message: str,
) -> None:
    shutil.copy(DIRECTORY / "model.onnx", tmp_path)
    card = json.loads((DIRECTORY / "card.json").read_text())
    listed = card["inputs"][0]["features"]
    if path is None:
        listed[6], listed[7] = listed[7], listed[6]
    else:
        listed[6][path[0]] = value
    (tmp_path / "card.json").write_text(json.dumps(card))
    monkeypatch.setattr(render, "DIRECTORY", tmp_path)
    with pytest.raises(ModelRefused, match=message):
        open_recipe(written)


def test_a_damaged_model_is_refused_before_anything_is_computed(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray((DIRECTORY / "model.onnx").read_bytes())
    content[5000] ^= 16
    (tmp_path / "model.onnx").write_bytes(content)
    shutil.copy(DIRECTORY / "card.json", tmp_path)
    monkeypatch.setattr(render, "DIRECTORY", tmp_path)
    with pytest.raises(ModelRefused, match="it is damaged or another model"):
        open_recipe(written)


def test_a_value_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(DeclarationError, match="does not fit int16"):
        XCO2.pack(np.array([410.0, 2000.0]))


def test_a_window_reads_only_itself(written: Path) -> None:
    """Memory follows the window: a point costs no more than its chunk."""
    found = Predictors.find(written)
    one = Window(row=300, column=700, height=1, width=1)
    assert features(found, found.months[0], one).shape == (1, len(FEATURES))
    tracemalloc.start()
    features(found, found.months[1], one)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 720 * 1440 * 2 / 4  # a quarter of one stored map
