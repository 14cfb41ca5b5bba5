"""The product with what soundings tell of their neighbourhood: trained, exported and rendered on a short sample.

The network is tiny and learns for two epochs, so that it leaves much over.
"""

import json
import pickle
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from services.core.errors import InputRefused, ModelRefused
from services.core.grid import Window
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Here
from services.products.xco2_global import export, left_over, open_recipe, table, train
from services.products.xco2_global.covariates import sequences
from services.products.xco2_global.declaration import global_grid
from services.products.xco2_global.left_over import LeftOver, between
from services.products.xco2_global.observed import Observed
from services.products.xco2_global.render import Xco2
from services.sample.carbon import Carbon
from services.sample.carbon_files import write_carbon
from tests.samples import without_training

WHOLE = Window(row=0, column=0, height=90, width=180)
EMPTY = "2019-10"
"""The last month, whose Lite files are taken away."""


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_carbon(tmp_path_factory.mktemp("carbon"), months=("2019-08", EMPTY))
    for path in directory.glob("*_LtCO2_1910*"):
        path.unlink()
    settings = directory / "xco2.toml"
    settings.write_text(without_training(settings.read_text()) + "\n[training]\nhidden = 4\nepochs = 2\nrows = 1500\n")
    return directory


@pytest.fixture(scope="module")
def model(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="training needs the train extra")
    place = tmp_path_factory.mktemp("model")
    train(inputs, place / "trained", 0, quiet)
    nearby = json.loads((place / "trained" / "scores.json").read_text())["told_from_nearby"]
    assert nearby["rmse_ppm"] < nearby["rmse_of_the_network_alone_ppm"]
    export(place / "trained", place / "exported", quiet)
    return place / "exported"


@pytest.fixture(scope="module")
def recipe(inputs: Path, model: Path) -> Xco2:
    found = open_recipe(inputs, model)
    found.prepare(Here(), quiet)
    return found


def rendered(recipe: Xco2, month: int, window: Window = WHOLE) -> dict[str, Any]:
    """Physical values of a month, NaN where there is none."""
    axis = TimeAxis(step=recipe.periods().step, starts=(month,))
    stored = recipe.compute(axis, window)
    return {one.name: one.decode(stored[one.name][0]).astype(np.float64) for one in recipe.product.quantities}


def alone(recipe: Xco2) -> Xco2:
    source = recipe.source
    return replace(recipe, source=replace(source, settings=source.settings.model_copy(update={"nearby": False})))


def test_soundings_bring_it_nearer_to_the_truth_and_make_it_surer(recipe: Xco2) -> None:
    world, weight = Carbon(), np.cos(np.radians(recipe.source.settings.grid.latitudes))[:, None] * np.ones(180)
    for month in recipe.source.sounding_months:
        both, network = rendered(recipe, month), rendered(alone(recipe), month)
        truth, seen = world.xco2(month), both["observations"] > 0
        assert 0.02 < seen.mean() < 0.2
        assert ((both["inferred_only"] == 0) == seen).all()
        for where, gain in ((seen, 0.8), (~seen, 0.97)):
            off = [np.average((one["xco2"] - truth)[where] ** 2, weights=weight[where]) for one in (both, network)]
            assert off[0] < gain**2 * off[1]
        surer = both["xco2_uncertainty"] / network["xco2_uncertainty"]
        assert surer[seen].max() < np.percentile(surer[~seen], 75)
        assert surer[seen].mean() < 0.8 * surer[~seen].mean()


def test_a_month_without_soundings_is_rendered_and_less_sure(recipe: Xco2) -> None:
    first, last = recipe.source.sounding_months[0], recipe.periods().starts[-1]
    assert str(np.datetime64(last, "M")) == EMPTY
    assert last not in recipe.source.sounding_months
    without, with_soundings, network = rendered(recipe, last), rendered(recipe, first), rendered(alone(recipe), last)
    assert np.isfinite(without["xco2"]).all()
    assert (without["inferred_only"] == 1).all()
    assert (without["observations"] == 0).all()
    np.testing.assert_allclose(without["xco2"], network["xco2"])
    ratio = without["xco2_uncertainty"] / network["xco2_uncertainty"]
    assert np.ptp(ratio) < 0.02
    first_alone = rendered(alone(recipe), first)
    assert (with_soundings["xco2_uncertainty"] / first_alone["xco2_uncertainty"]).max() < ratio.mean() + 0.01
    assert with_soundings["xco2_uncertainty"].mean() < 0.97 * without["xco2_uncertainty"].mean()


def test_each_cell_is_predicted_with_its_own_month(
    recipe: Xco2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the network asked for whole maps; in many blocks, some of whose cells were seen in several months."""
    source, network = recipe.source, recipe.network
    observed, months = Observed.of(source), source.sounding_months
    blocks_of = table.blocks_of
    monkeypatch.setattr(table, "HELD_BYTES", 4 * 14 * len(source.settings.features) * 900)
    monkeypatch.setattr(left_over, "blocks_of", lambda *some: reversed(list(blocks_of(*some))))
    left_over._predict(source, observed, network, months, tmp_path, Here(), quiet)
    keys, said = np.load(tmp_path / left_over._KEYS), np.load(tmp_path / left_over._SAID)
    assert len(keys) == len(said) == sum(len(observed.cells(month)) for month in months)
    assert (np.diff(keys) > 0).all()
    assert len(np.unique(keys // len(months))) < len(keys)
    for position, month in enumerate(months):
        cells = observed.cells(month)
        whole = np.stack(network.ask(sequences(source, month, WHOLE)), axis=1)
        mine = keys % len(months) == position
        place = cells.row.astype(np.int64) * 180 + cells.column
        np.testing.assert_array_equal(keys[mine] // len(months), place)
        np.testing.assert_allclose(said[mine], whole[place], rtol=1e-4, atol=1e-5)


def test_windows_and_processes_do_not_show(recipe: Xco2) -> None:
    month = recipe.source.sounding_months[0]
    axis = TimeAxis(step=recipe.periods().step, starts=(month,))
    whole = recipe.compute(axis, WHOLE)
    part = Window(row=31, column=150, height=20, width=30)
    again = pickle.loads(pickle.dumps(recipe)).compute(axis, part)  # noqa: S301 - its own bytes
    for name, values in again.items():
        wanted = whole[name][:, part.rows, part.columns]
        # single-precision sums of batches of other lengths may differ in a quantum
        assert np.abs(values.astype(int) - wanted.astype(int)).max() <= 1, name


def test_what_was_made_is_kept_and_a_broken_file_is_named(recipe: Xco2) -> None:
    left = LeftOver.of(recipe.source, recipe._observed, recipe.network)
    assert left.is_prepared
    assert sorted(path.name for path in left.directory.iterdir()) == ["2019-08.npz", "2019-09.npz", "lasting.npy"]
    assert not list(left.directory.parent.glob(".*"))
    before = (left.directory / "2019-08.npz").stat().st_mtime_ns
    recipe.prepare(Here(), quiet)
    assert (left.directory / "2019-08.npz").stat().st_mtime_ns == before
    path = left.directory / "2019-09.npz"
    body = path.read_bytes()
    try:
        path.write_bytes(body[: len(body) // 2])
        with pytest.raises(InputRefused, match=re.escape(str(path))):
            rendered(recipe, left.months[1])
    finally:
        path.write_bytes(body)


def test_what_lasts_is_added_to_every_month(recipe: Xco2) -> None:
    """Also to one without soundings; the months' own fields are what is left."""
    left = LeftOver.of(recipe.source, recipe._observed, recipe.network)
    path = left.directory / "lasting.npy"
    body = path.read_bytes()
    planted = np.zeros(left.lattice_lasting.shape, np.float32)
    planted[40, 100:103] = 1.5
    first, last = recipe.source.sounding_months[0], recipe.periods().starts[-1]
    before = [rendered(recipe, month)["xco2"] for month in (first, last)]
    try:
        np.save(path, planted)
        for month, without in zip((first, last), before, strict=True):
            added = rendered(recipe, month)["xco2"] - without
            np.testing.assert_allclose(added, planted, atol=0.011)  # two quanta
    finally:
        path.write_bytes(body)


def test_what_lasts_is_not_told_twice(recipe: Xco2, tmp_path: Path) -> None:
    """Of what the months' soundings leave over it is taken off."""
    source, network, observed = recipe.source, recipe.network, Observed.of(recipe.source)
    left = LeftOver.of(source, observed, network)
    left_over._predict(source, observed, network, left.months, tmp_path, Here(), quiet)
    month, found = left.months[0], []
    for level in (0.0, 3.0):
        np.save(tmp_path / "lasting.npy", np.full(left.lattice_lasting.shape, level, np.float32))
        left_over._told(source, observed, network, left, tmp_path, month)
        with np.load(tmp_path / "2019-08.npz") as held:
            found.append(held["mean"])
    cells = observed.cells(month)
    at = left.lattice.shape[0] // WHOLE.height
    drop = (found[0] - found[1])[cells.row * at, cells.column * at]
    spread = np.load(tmp_path / left_over._SAID)[:, 1]
    assert drop.min() > 0
    assert np.median(drop) > 0.3 * 3.0 / np.median(spread)


def test_what_lasts_is_made_of_all_months(recipe: Xco2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, network, observed = recipe.source, recipe.network, Observed.of(recipe.source)
    left = LeftOver.of(source, observed, network)
    left_over._predict(source, observed, network, left.months, tmp_path, Here(), quiet)
    kept: list[Any] = []

    def lasting(sums: Any, lattice: Any, land: Any) -> Any:
        kept.extend((sums, land))
        return np.eye(*lattice.shape, dtype=np.float32)

    monkeypatch.setattr(left_over, "lasting", lasting)
    assert left_over._write_lasting(source, observed, network, left, tmp_path) == 90
    seen = np.zeros(WHOLE.shape, int)
    for month in left.months:
        cells = observed.cells(month)
        np.add.at(seen, (cells.row, cells.column), 1)
    np.testing.assert_array_equal(kept[0].months, seen)
    names = list(source.settings.features)
    land = sequences(source, left.months[0], WHOLE)[:, -1, names.index("land_fraction")]
    np.testing.assert_allclose(kept[1].ravel(), land, rtol=1e-6)  # cells of the lattice are those of the grid here
    inland = replace(source, settings=source.settings.model_copy(update={"covariates": source.settings.covariates[:2]}))
    inland = replace(inland, covariates=source.covariates[:2])
    assert left_over._land(inland, left.lattice_lasting) is None
    assert (np.load(tmp_path / "lasting.npy") == np.eye(90, 180)).all()


def test_another_model_is_another_field_and_one_without_a_covariance_is_refused(recipe: Xco2) -> None:
    network = recipe.network
    left = LeftOver.of(recipe.source, recipe._observed, network)
    other = replace(network, digest="0" * 64)
    assert LeftOver.of(recipe.source, recipe._observed, other).directory != left.directory
    older = replace(network, fitted=network.fitted.model_copy(update={"nearby": None}))
    with pytest.raises(ModelRefused, match="nearby = false"):
        LeftOver.of(recipe.source, recipe._observed, older)


def test_between_the_lattice_it_is_bilinear_round_the_globe() -> None:
    lattice, grid = global_grid(Fraction(10)), global_grid(Fraction(1, 2))
    values = np.random.default_rng(0).normal(size=(18, 36))
    wrapped = np.concatenate([values[:, -1:], values, values[:, :1]], axis=1)
    longitudes = np.concatenate([[-185.0], lattice.longitudes, [185.0]])
    known = RegularGridInterpolator((lattice.latitudes[::-1], longitudes), wrapped[::-1])
    y = np.clip(grid.latitudes, -85, 85)
    wanted = known(np.stack(np.meshgrid(y, grid.longitudes, indexing="ij"), axis=-1))
    np.testing.assert_allclose(between(values, lattice, grid.latitudes[:, None], grid.longitudes), wanted, atol=1e-12)
    rows, columns = np.array([0, 7, 359, 180]), np.array([719, 0, 300, 301])
    some = between(values, lattice, grid.latitudes[rows], grid.longitudes[columns])
    np.testing.assert_allclose(some, wanted[rows, columns], atol=1e-12)
    np.testing.assert_allclose(between(values, lattice, lattice.latitudes[:, None], lattice.longitudes), values)
