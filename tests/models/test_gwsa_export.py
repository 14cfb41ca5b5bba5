import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import xgboost
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from models.card import ModelCard
from models.errors import ExportRefused, InputMismatch, ModelRefused
from models.gwsa import export as export_module
from models.gwsa.export import PARITY, export
from models.gwsa.train import Settings, Trees
from models.predictor import Predictor
from tests.models.gwsa_rows import learn, table

HELD = table(300, seed=9)[0]


@pytest.fixture(scope="module")
def trees() -> Trees:
    return learn(*table())


def ship(trees: Trees, directory: Path, **changes: Any) -> ModelCard:
    given: dict[str, Any] = {
        "name": "gwsa_somewhere",
        "version": "1",
        "description": "a test",
        "rows": HELD,
        "held": "rows of another draw",
        "table": "made up",
        "command": "cenote train gwsa",
        "synthetic": True,
        "scores": [],
    }
    return export(trees, directory, **(given | changes))


@pytest.fixture(scope="module")
def shipped(trees: Trees, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("gwsa")
    ship(trees, directory)
    return directory


def test_the_card_says_what_the_trees_know(trees: Trees, shipped: Path) -> None:
    card = ModelCard.read(shipped)
    assert sorted(path.name for path in shipped.iterdir()) == ["booster.ubj", "card.json", "model.onnx"]
    assert card.features == ["elevation", "ndvi", "rain", "sand"]
    assert tuple(card.inputs[0].features) == trees.features
    assert [(output.name, output.units) for output in card.outputs] == [("gwsa", "cm")]
    assert card.training.table_sha256 == trees.table_sha256
    assert (card.training.rows, card.training.seed, card.training.synthetic) == (2000, 1, True)
    assert card.training.command == "cenote train gwsa"
    assert card.golden.tolerance == {"gwsa": PARITY * trees.spread}
    (parity,) = card.scores
    assert (parity.split, parity.rows) == ("ONNX against XGBoost: rows of another draw", len(HELD))
    assert parity.metrics["largest_difference_cm"] <= parity.metrics["largest_allowed_cm"] == PARITY * trees.spread
    missing = np.array([value is None for value in card.golden.inputs["features"]]).reshape(8, 4)
    assert missing.any(axis=0).all()
    assert missing[-1].all()
    assert None not in card.golden.outputs["gwsa"]
    assert card.created_by.endswith(f"with xgboost {xgboost.__version__}")
    assert card.opsets == {"ai.onnx": 20, "ai.onnx.ml": 5}


def test_the_graph_answers_as_xgboost_and_as_the_reference_implementation(trees: Trees, shipped: Path) -> None:
    booster = xgboost.Booster(model_file=shipped / "booster.ubj")
    rows, _ = table(500, seed=5)
    low, high = (np.array([getattr(f, end) for f in trees.features], np.float32) for end in ("valid_min", "valid_max"))
    rows = np.clip(rows, low, high)
    rows[::7, 0] = np.nan
    found = Predictor.open(shipped).predict(rows)["gwsa"]
    np.testing.assert_allclose(found, booster.predict(xgboost.DMatrix(rows)), rtol=0, atol=1e-5)
    answers: Any = ReferenceEvaluator((shipped / "model.onnx").read_bytes()).run(None, {"features": rows[:50]})
    np.testing.assert_allclose(found[:50], answers[0], rtol=0, atol=1e-5)


def test_values_outside_the_training_rows_count_as_the_nearer_end(trees: Trees, shipped: Path) -> None:
    far = np.array([[1e9, -1e9, np.nan, np.inf], [-np.inf, 0, 1, 2]], dtype=np.float32)
    np.testing.assert_allclose(Predictor.open(shipped).predict(far)["gwsa"], trees.predict(far), rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 64, 65, 300])
def test_a_row_does_not_depend_on_the_batch(shipped: Path, batch: int) -> None:
    whole = Predictor.open(shipped, batch=10_000).predict(HELD)["gwsa"]
    np.testing.assert_array_equal(Predictor.open(shipped, batch=batch).predict(HELD)["gwsa"], whole)


def test_the_same_trees_give_the_same_files(trees: Trees, shipped: Path, tmp_path: Path) -> None:
    trees.write(tmp_path / "trained")
    ship(Trees.read(tmp_path / "trained"), tmp_path / "again")
    for path in shipped.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    content = (shipped / "model.onnx").read_bytes()
    assert ModelCard.read(shipped).sha256 == hashlib.sha256(content).hexdigest()
    notes = {prop.key: prop.value for prop in onnx.load_model_from_string(content).metadata_props}
    assert notes == {"booster_sha256": hashlib.sha256(trees.booster).hexdigest()}


def test_trees_that_did_not_split_are_exported(tmp_path: Path) -> None:
    features, target = table(60)
    flat = learn(features, target / 100, settings=Settings(trees=3, depth=1, alpha=50.0))
    grown = learn(features, target)
    assert np.ptp(flat.predict(HELD)) == 0
    ship(flat, tmp_path / "flat")
    found = Predictor.open(tmp_path / "flat").predict(HELD)["gwsa"]
    np.testing.assert_allclose(found, flat.predict(HELD), rtol=0, atol=1e-6)
    ship(grown, tmp_path / "grown", rows=HELD[:1])


type Spoil = Callable[[onnx.NodeProto], None]


def _attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    found: list[onnx.AttributeProto] = [attribute for attribute in node.attribute if attribute.name == name]
    return found[0]


def _at_most(node: onnx.NodeProto) -> None:
    modes = numpy_helper.to_array(_attribute(node, "nodes_modes").t)
    _attribute(node, "nodes_modes").t.CopyFrom(numpy_helper.from_array(np.zeros_like(modes)))  # BRANCH_LEQ


def _rounded(node: onnx.NodeProto) -> None:
    splits = numpy_helper.to_array(_attribute(node, "nodes_splits").t)
    up = np.nextafter(splits, np.float32(np.inf))
    _attribute(node, "nodes_splits").t.CopyFrom(numpy_helper.from_array(up))


def _missing_elsewhere(position: int) -> Spoil:
    """NaN of one predictor goes the other way, in the last tree's splits alone."""

    def change(node: onnx.NodeProto) -> None:
        features, tracks = (
            _attribute(node, f"nodes_{name}").ints for name in ("featureids", "missing_value_tracks_true")
        )
        for number, feature in enumerate(features):
            if feature == position:
                tracks[number] = 1 - tracks[number]

    return change


def _one_leaf(node: onnx.NodeProto) -> None:
    weights = numpy_helper.to_array(_attribute(node, "leaf_weights").t).copy()
    weights[:16] += 0.01
    _attribute(node, "leaf_weights").t.CopyFrom(numpy_helper.from_array(weights))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_at_most, "gwsa_somewhere: at the thresholds of elevation, gwsa differs from XGBoost"),
        (_rounded, "gwsa_somewhere: at the thresholds of elevation, gwsa differs from XGBoost"),
        (_missing_elsewhere(0), r"golden answer|held-out rows|with elevation missing"),
        (_missing_elsewhere(3), r"golden answer|held-out rows|with sand missing"),
        (_one_leaf, r"golden answer|held-out rows"),
    ],
)
def test_a_graph_that_answers_otherwise_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Spoil, message: str
) -> None:
    honest = export_module._to_onnx

    def spoiled(*given: Any) -> bytes:
        model = onnx.load_model_from_string(honest(*given))
        spoil(model.graph.node[0])
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    monkeypatch.setattr(export_module, "_to_onnx", spoiled)
    features, target = table()
    features[:, 3] += np.linspace(0, 0.3, len(features))  # no held-out value lies at a threshold by chance
    with pytest.raises((ExportRefused, ModelRefused), match=message):
        ship(learn(features, target), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_difference_that_only_missing_predictors_show_is_found(
    trees: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held-out rows that lack nothing, and a golden answer without the predictor, say nothing of NaN."""
    honest = export_module._to_onnx

    def spoiled(*given: Any) -> bytes:
        model = onnx.load_model_from_string(honest(*given))
        _missing_elsewhere(2)(model.graph.node[0])
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    monkeypatch.setattr(export_module, "_to_onnx", spoiled)
    with pytest.raises(ExportRefused, match="gwsa_somewhere: with rain missing, gwsa differs from XGBoost by"):
        ship(trees, tmp_path / "new", rows=np.nan_to_num(HELD), golden_rows=1)
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_exported_is_refused(trees: Trees, tmp_path: Path) -> None:
    with pytest.raises(ExportRefused, match="no held-out rows"):
        ship(trees, tmp_path, rows=HELD[:0])
    with pytest.raises(InputMismatch, match="rows of 4 features"):
        ship(trees, tmp_path, rows=HELD[:, :3])
    two = xgboost.train({"max_depth": 2}, xgboost.DMatrix(HELD, np.ones((300, 2))), num_boost_round=2)
    with pytest.raises(ExportRefused, match="2 targets, not one"):
        ship(replace(trees, booster=bytes(two.save_raw("ubj"))), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_exporting_trees_imports_no_torch() -> None:
    script = "import sys; import models.gwsa.export; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60, env=dict(os.environ))
    assert done.returncode == 0
