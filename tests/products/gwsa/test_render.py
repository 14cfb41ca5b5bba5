"""The rendered product on the sample Earth (synthetic): against the truth, closed, seamless, refused where it must."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from scipy import ndimage

from models.card import ModelCard
from services.core.errors import InputRefused, ModelRefused
from services.core.grid import Window
from services.pipeline.recipe import Here
from services.pipeline.subset import Subset, window_of
from services.products.gwsa.coarse import Coarse
from services.products.gwsa.declaration import FACTOR, FINE, GWSA, PRODUCT, UNCERTAINTY
from services.products.gwsa.detail import Detail
from services.products.gwsa.inputs import SETTINGS, Inputs
from services.products.gwsa.land import land_of
from services.products.gwsa.reach import Reach
from services.products.gwsa.refine import HALO, Blocks, refined
from services.products.gwsa.regions import REACH, shares
from services.products.gwsa.render import Gwsa, open_recipe
from services.sample.groundwater import Groundwater

pytestmark = pytest.mark.slow  # as a whole

REGION = Window(row=65 * 120, column=248 * 120, height=600, width=720)
"""68 to 74 E, 20 to 25 N."""

SCORED = (565, 571, 586)  # 2017-02, 2017-08 (filled), 2018-11

type Map = NDArray[np.float64]


def field(recipe: Gwsa, month: int, name: str = "gwsa", window: Window = REGION) -> Map:
    axis = recipe.periods()
    stored = recipe.compute(axis.take([axis.starts.index(month)]), window)[name][0]
    return PRODUCT.quantity(name).decode(stored).astype(np.float64)


def within(values: Map, some: NDArray[np.bool_]) -> Map:
    """Departures from the means of coarse cells."""
    shape = (values.shape[0] // FACTOR, FACTOR, values.shape[1] // FACTOR, FACTOR)
    total = np.where(some, values, 0.0).reshape(shape).sum(axis=(1, 3), keepdims=True)
    count = some.reshape(shape).sum(axis=(1, 3), keepdims=True)
    means = np.broadcast_to(total / np.maximum(count, 1), shape).reshape(values.shape)
    departures: Map = np.where(some, values - means, 0.0)[some]
    return departures


@pytest.fixture(scope="module")
def plain(recipe: Gwsa) -> Gwsa:
    """Conservative bilinear of the coarse field: no model."""
    return replace(recipe, detail=None)


def scores(recipe: Gwsa, world: Groundwater) -> tuple[float, float]:
    """RMSE against the truth, and correlation of what varies within coarse cells, over the scored months."""
    squares, ours, true = [], [], []
    for month in SCORED:
        found, truth = field(recipe, month), world.gwsa(month).astype(np.float64)
        some = np.isfinite(found) & np.isfinite(truth)
        assert some.mean() > 0.5
        squares.append((found - truth)[some] ** 2)
        ours.append(within(found, some))
        true.append(within(truth, some))
    correlation = np.corrcoef(np.concatenate(ours), np.concatenate(true))[0, 1]
    return float(np.sqrt(np.concatenate(squares).mean())), float(correlation)


def test_the_detail_beats_conservative_bilinear_and_shuffled_predictors_do_not(
    recipe: Gwsa, plain: Gwsa, world: Groundwater, written: Path, models: Path, tmp_path: Path
) -> None:
    rmse, correlation = scores(recipe, world)
    rmse_plain, correlation_plain = scores(plain, world)
    assert rmse < rmse_plain
    assert correlation > correlation_plain + 0.01
    folder = tmp_path / "inputs"
    folder.mkdir()
    for path in written.iterdir():
        if path.name != "prepared":
            (folder / path.name).symlink_to(path)
    for path in [path for path in folder.glob("*.tif") if path.name != "land_mask.tif"]:
        with rasterio.open(path) as file:
            values, profile, scales, units = file.read(), file.profile, file.scales, file.units
        path.unlink()
        with rasterio.open(path, "w", **profile) as file:
            file.write(np.roll(values, values.shape[2] // 3, axis=2))
            file.scales, file.units = scales, units
    shuffled = open_recipe(folder, models)
    shuffled.prepare(Here(), lambda _: None)
    rmse_shuffled, correlation_shuffled = scores(shuffled, world)
    assert rmse_shuffled > rmse_plain
    assert correlation_shuffled < correlation_plain


def scene(opened: Inputs, coarse: Coarse, month: int) -> tuple[Blocks, Map, Reach]:
    cells = Reach(row=65 * 4, column=248 * 4, height=20, width=24).grown(HALO)
    values = coarse.read("gwsa", month, cells)
    valid = np.repeat(np.repeat(np.isfinite(values), FACTOR, 0), FACTOR, 1)
    fine = cells.times(FACTOR)
    land = land_of(opened.land, fine) & valid
    return Blocks.of(FACTOR, land, FINE.row_areas[fine.row : fine.row + fine.height]), values, cells


def unpacked(recipe: Gwsa, opened: Inputs, coarse: Coarse, month: int) -> tuple[Map, Map, Map, Blocks]:
    """The field before packing, without detail, the wanted means, and the blocks of the region."""
    blocks, wanted, cells = scene(opened, coarse, month)
    assert recipe.detail is not None
    said = recipe.detail.ask(recipe.source, coarse, cells, blocks, month)
    assert np.ptp(said.values) > 1
    inner = wanted[HALO:-HALO, HALO:-HALO]
    return refined(blocks, wanted, said.values), refined(blocks, wanted), inner, blocks.inside(HALO)


@pytest.mark.parametrize("month", SCORED)
def test_coarse_means_are_kept(month: int, recipe: Gwsa, opened: Inputs, coarse: Coarse) -> None:
    fine, _, wanted, blocks = unpacked(recipe, opened, coarse, month)
    some = np.isfinite(blocks.means(np.zeros(blocks.areas.shape)))
    assert np.abs(blocks.means(fine) - wanted)[some].max() <= 1e-6
    stored = field(recipe, month)
    assert np.array_equal(np.isnan(stored), ~blocks.land)
    step = GWSA.scale_factor
    assert step is not None
    np.testing.assert_allclose(stored[blocks.land], fine[blocks.land], atol=step / 2 * 1.0001)
    assert np.abs(blocks.means(np.nan_to_num(stored)) - wanted)[some].max() <= step / 2


def steps(values: Map, edge: NDArray[np.bool_], near: NDArray[np.bool_] | None = None) -> float:
    """Median step between neighbours along rows, across edges over elsewhere (or over what is near)."""
    jumps = np.abs(np.diff(values, axis=1))
    some = np.isfinite(jumps)
    if near is not None:
        some &= near
    across = np.broadcast_to(edge, jumps.shape) & some
    return float(np.median(jumps[across]) / np.median(jumps[some & ~across]))


def test_there_is_no_seam_at_coarse_cells_and_at_regions(
    recipe: Gwsa, opened: Inputs, coarse: Coarse, world: Groundwater
) -> None:
    labels = coarse.labels(Reach(row=65 * 4, column=248 * 4, height=20, width=24).grown(REACH))
    assert len(shares(labels)) == 3, "three regions speak here"
    fine = np.repeat(np.repeat(labels[REACH:-REACH, REACH:-REACH], FACTOR, 0), FACTOR, 1)
    border = fine[:, 1:] != fine[:, :-1]
    cell = (np.arange(REGION.width - 1) % FACTOR) == FACTOR - 1
    # storage changes faster where aquifers meet, in the truth as in GRACE: a seam is a step among those beside it
    near = ndimage.binary_dilation(border, np.ones((1, 2 * FACTOR + 1), dtype=bool))
    at_cells, at_borders, over_all = [], [], []
    for month in SCORED:
        detailed, _, _, _ = unpacked(recipe, opened, coarse, month)
        at_cells.append(steps(detailed, cell))
        at_borders.append(steps(detailed, border, near))
        over_all.append(steps(detailed, border) / steps(world.gwsa(month).astype(np.float64), border))
    assert np.median(at_cells) <= 1.1
    assert np.median(at_borders) <= 1.1
    assert np.median(over_all) <= 1.1, "nor is there more of a step than in the truth"


def test_uncertainty_and_flags(recipe: Gwsa, plain: Gwsa, coarse: Coarse) -> None:
    axis = recipe.periods()
    two = recipe.compute(axis.take([axis.starts.index(571), axis.starts.index(586)]), REGION)
    filled = two["filled"]
    some = filled != 255
    assert set(np.unique(filled[0][some[0]])) == {1}
    assert set(np.unique(filled[1][some[1]])) == {0}
    sigma = UNCERTAINTY.decode(two["gwsa_uncertainty"])
    assert (sigma[some] > 0.5).all()
    assert np.median(sigma[0][some[0]]) > np.median(sigma[1][some[1]])
    assert (field(plain, 586, "gwsa_uncertainty")[some[1]] <= sigma[1][some[1]] + 1e-9).all(), "detail errs too"
    assert set(np.unique(two["caution"][some])) == {0}
    share = two["extrapolated"][some].mean()
    assert 0 < share < 0.6, "single cells pass what means of 900 of them reach"
    assert coarse.facts["months_filled"] == 33


def test_xgboost_itself_gives_the_same_to_a_step(recipe: Gwsa, models: Path) -> None:
    assert recipe.detail is not None
    native = replace(recipe, detail=replace(recipe.detail, engine="xgboost"))
    window = Window(row=REGION.row + 100, column=REGION.column + 300, height=150, width=200)
    step = GWSA.scale_factor
    assert step is not None
    np.testing.assert_allclose(
        field(native, 586, window=window), field(recipe, 586, window=window), atol=step * 1.001, equal_nan=True
    )
    assert native.facts() != recipe.facts()
    assert (models / "regions.json").is_file()


def spoilt(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models, tmp_path / "spoilt"))


def test_models_that_do_not_fit_are_refused(written: Path, models: Path, recipe: Gwsa, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"cenote train gwsa"):
        open_recipe(written, tmp_path)
    other = spoilt(models, tmp_path)
    document = json.loads((other / "regions.json").read_text())
    named = [one["name"] for one in document["regions"] if one["weight"] > 0]
    document["regions"][0]["weight"] = 1.5
    (other / "regions.json").write_text(json.dumps(document))
    with pytest.raises(ModelRefused, match=r"regions\.json does not hold: regions\.0\.weight"):
        open_recipe(written, other)
    document["regions"][0]["weight"] = 0.5
    (other / "regions.json").write_text(json.dumps({**document, "synthetic": False}))
    with pytest.raises(ModelRefused, match="the models are of measured inputs, these are synthetic"):
        open_recipe(written, other)
    (other / "regions.json").write_text(json.dumps({**document, "labels_sha256": "0" * 64}))
    with pytest.raises(ModelRefused, match="the same names and other cells"):
        open_recipe(written, other).prepare(Here(), lambda _: None)
    document["regions"] = [{"name": "elsewhere", "weight": 0.0, "sigma": 1.0}]
    (other / "regions.json").write_text(json.dumps(document))
    with pytest.raises(ModelRefused, match=r"models are of the regions elsewhere, the inputs have"):
        open_recipe(written, other).prepare(Here(), lambda _: None)
    shutil.copy(models / "regions.json", other / "regions.json")
    (other / named[0] / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelRefused, match="sha256"):
        open_recipe(written, other)
    taken = recipe.source.features
    first, *rest = taken
    for given, told in (
        ({name: taken[name] for name in rest}, rf"the models need {first}, which the inputs have not$"),
        ({**taken, "clay": "1"}, r"the models did not learn from clay, which the inputs have$"),
        ({**taken, first: "ft"}, rf"the models need {first} in 'm', and the inputs give it in 'ft'$"),
        ({name: taken[name] for name in (*rest, first)}, rf"the models need predictors in the order {first}, "),
    ):
        with pytest.raises(ModelRefused, match=told):
            Detail.open(models, given, synthetic=True)
    assert recipe.detail is not None
    changed = replace(recipe.detail, digests=dict.fromkeys(recipe.detail.digests, "0" * 64))
    with pytest.raises(ModelRefused, match="planned with 000"):
        field(replace(recipe, detail=changed), 586)


def test_a_part_without_any_value_is_refused(recipe: Gwsa) -> None:
    at_sea = Subset.of(recipe, window_of(PRODUCT.grid, "68,20,68.5,20.5"), "sea")
    far = Subset.of(recipe, window_of(PRODUCT.grid, "10,50,11,51"), "far")
    for part in (at_sea, far):
        with pytest.raises(InputRefused, match=r"none of the .* coarse cells of this part has both a balance and land"):
            part.prepare(Here(), lambda _: None)
    Subset.of(recipe, window_of(PRODUCT.grid, "70,22,71,23"), "land").prepare(Here(), lambda _: None)


def test_real_inputs_have_no_models_of_the_sample(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    for path in written.iterdir():
        if path.name not in {SETTINGS, "prepared"}:
            (folder / path.name).symlink_to(path)
    text = (written / SETTINGS).read_text()
    (folder / SETTINGS).write_text(text.replace("synthetic = true", "synthetic = false"))
    with pytest.raises(ModelRefused, match=r"no models are shipped for .*--models"):
        open_recipe(folder)
    (folder / SETTINGS).write_text(text.replace("synthetic = true", "detail = false"))
    without = open_recipe(folder)
    assert (without.models(), without.product) == ({}, PRODUCT)
    assert without.product.synthetic is False


def test_cards_say_where_the_models_come_from(recipe: Gwsa, models: Path) -> None:
    assert recipe.product.synthetic
    for name, directory in recipe.model_directories().items():
        card = ModelCard.read(directory)
        assert card.name == name
        assert card.training.synthetic
        score, parity = card.scores
        assert score.synthetic
        assert parity.metrics["largest_difference_cm"] <= parity.metrics["largest_allowed_cm"]
        metrics: dict[str, Any] = score.metrics
        assert metrics["rmse_with_weights_of_other_folds_cm"] <= metrics["rmse_of_conservative_bilinear_cm"]
    assert len(pickle.dumps(recipe)) < 500_000
    assert models.is_dir()
