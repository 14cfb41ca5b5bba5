import hashlib
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import xgboost
from onnx import helper

from models.card import ModelCard
from models.errors import InputMismatch, ModelRefused
from models.gwsa import native as native_module
from models.gwsa.export import export
from models.gwsa.native import NativePredictor
from models.gwsa.train import Settings, Trees
from models.predictor import Predictor
from tests.models.gwsa_rows import NAMES, learn, table

ROWS = table(700, seed=5)[0] * np.float32(1.5)  # some lie outside the training rows


@pytest.fixture(scope="module")
def trees() -> Trees:
    return learn(*table(), settings=Settings(trees=60, depth=6))


@pytest.fixture
def shipped(trees: Trees, tmp_path: Path) -> Path:
    given: dict[str, Any] = {"name": "gwsa_x", "version": "1", "description": "a test", "table": "made up"}
    export(
        trees,
        tmp_path,
        rows=ROWS[:50],
        held="another draw",
        command="cenote train gwsa",
        synthetic=True,
        scores=[],
        **given,
    )
    return tmp_path


def test_it_answers_as_the_graph_and_takes_what_the_graph_takes(trees: Trees, shipped: Path) -> None:
    native, graph = NativePredictor.open(shipped), Predictor.open(shipped)
    found = native.predict(ROWS)
    assert list(found) == ["gwsa"]
    assert found["gwsa"].dtype == np.float32
    np.testing.assert_allclose(found["gwsa"], graph.predict(ROWS)["gwsa"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found["gwsa"], trees.predict(ROWS))
    by_name = {name: ROWS[:, number] for number, name in enumerate(NAMES)}
    np.testing.assert_array_equal(native.predict(by_name)["gwsa"], found["gwsa"])
    assert native.predict(ROWS[:0])["gwsa"].shape == (0,)
    with pytest.raises(InputMismatch, match="input features has shape"):
        native.predict(ROWS[:, :3])


@pytest.mark.parametrize("batch", [1, 2, 63, 64, 65, 129])
def test_a_row_depends_on_neither_batch_nor_threads(trees: Trees, shipped: Path, batch: int) -> None:
    whole = NativePredictor.open(shipped, batch=10_000).predict(ROWS)["gwsa"]
    np.testing.assert_array_equal(NativePredictor.open(shipped, batch=batch).predict(ROWS)["gwsa"], whole)
    clipped = np.clip(
        ROWS, *(np.array([getattr(f, e) for f in trees.features], "f4") for e in ("valid_min", "valid_max"))
    )
    for threads in (1, 2, 4):
        booster = xgboost.Booster({"nthread": threads}, model_file=shipped / "booster.ubj")
        np.testing.assert_array_equal(booster.inplace_predict(clipped), whole)


def test_it_travels_to_another_process_and_serves_threads(shipped: Path) -> None:
    native = NativePredictor.open(shipped)
    here = native.predict(ROWS)["gwsa"]
    assert len(pickle.dumps(native)) < 10_000
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(answer["gwsa"], here) for answer in pool.map(native.predict, [ROWS] * 8))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(native.predict, ROWS).result(timeout=60)["gwsa"], here)


def test_a_forked_child_answers_though_another_thread_held_the_lock(shipped: Path) -> None:
    script = f"""
        import os, warnings
        import numpy as np
        from models.gwsa import native as module
        from models.gwsa.native import NativePredictor
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside onnxruntime's threads is what is tested
        native = NativePredictor.open({str(shipped)!r})
        rows = np.full((3, 4), 0.5, dtype=np.float32)
        answer = native.predict(rows)["gwsa"]
        module._LOCK.acquire()
        child = os.fork()
        if child == 0:
            os._exit(0 if np.array_equal(native.predict(rows)["gwsa"], answer) else 3)
        module._LOCK.release()
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=False, timeout=60, env=dict(os.environ)
    )
    assert done.returncode == 0


@pytest.mark.parametrize("trees_per_call", [1, 7, 59, 60, 61])
def test_the_trees_are_asked_in_groups_and_none_is_left_out(
    trees: Trees, shipped: Path, monkeypatch: pytest.MonkeyPatch, trees_per_call: int
) -> None:
    monkeypatch.setattr(native_module, "TREES_PER_CALL", trees_per_call)
    found = NativePredictor.open(shipped).predict(ROWS)["gwsa"]
    np.testing.assert_array_equal(found, trees.predict(ROWS))  # all at once


def test_a_process_reads_a_booster_once_and_keeps_those_used_last(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_module, "_KEPT", 4)
    native = NativePredictor.open(shipped)
    runner = native._runner()
    assert pickle.loads(pickle.dumps(native))._runner() is runner  # noqa: S301 - made here
    for number in range(4):
        other = native.card.model_copy(update={"version": f"other {number}"})
        NativePredictor(card=ModelCard.parse(other.to_json()), source=shipped, batch=1).check()
    assert len(native_module._BOOSTERS) == native_module._KEPT
    assert native.card.digest not in native_module._BOOSTERS


def test_another_booster_is_refused(trees: Trees, shipped: Path) -> None:
    other = learn(*table(), settings=trees.settings, seed=2)
    (shipped / "booster.ubj").write_bytes(other.booster)
    with pytest.raises(ModelRefused, match=r"booster\.ubj has sha256 .* model\.onnx was made of .*: it is damaged"):
        NativePredictor.open(shipped)
    Predictor.open(shipped).check()  # the graph stands by itself
    (shipped / "booster.ubj").unlink()
    with pytest.raises(ModelRefused, match=r"booster\.ubj cannot be read: No such file"):
        NativePredictor.open(shipped)


def _restamp(directory: Path, booster: bytes, note: str | None) -> None:
    """Let the graph vouch for a booster, and the card for that graph."""
    model = onnx.load_model(directory / "model.onnx")
    helper.set_model_props(model, {} if note is None else {"booster_sha256": note})
    (directory / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    card = json.loads((directory / "card.json").read_text())
    card["sha256"] = hashlib.sha256((directory / "model.onnx").read_bytes()).hexdigest()
    (directory / "card.json").write_text(json.dumps(card))
    (directory / "booster.ubj").write_bytes(booster)


def test_a_booster_that_is_vouched_for_and_answers_otherwise_is_refused(trees: Trees, shipped: Path) -> None:
    other = learn(*table(), settings=trees.settings, seed=2)
    _restamp(shipped, other.booster, hashlib.sha256(other.booster).hexdigest())
    with pytest.raises(ModelRefused, match="gwsa_x does not give its golden answer: gwsa is off by"):
        NativePredictor.open(shipped)
    features, target = table()
    narrow = learn(features[:, :3], target, names=NAMES[:3], units=["1"] * 3)
    _restamp(shipped, narrow.booster, hashlib.sha256(narrow.booster).hexdigest())
    with pytest.raises(ModelRefused, match="takes 3 features, its card names 4"):
        NativePredictor.open(shipped)
    _restamp(shipped, b"{}", hashlib.sha256(b"{}").hexdigest())
    with pytest.raises(ModelRefused, match=r"booster\.ubj is no booster"):
        NativePredictor.open(shipped)
    _restamp(shipped, trees.booster, None)
    with pytest.raises(ModelRefused, match="notes no booster_sha256"):
        NativePredictor.open(shipped)


def test_a_graph_that_parted_from_its_booster_is_refused(
    trees: Trees, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The booster gives the golden answer, the graph another: the comparison of the two alone sees it."""
    answer = Predictor.predict

    def off(self: Predictor, inputs: Any) -> Any:
        found = answer(self, inputs)
        return found if isinstance(self, NativePredictor) else {name: values + 1 for name, values in found.items()}

    monkeypatch.setattr(Predictor, "predict", off)
    with pytest.raises(ModelRefused, match=r"booster\.ubj gives gwsa 1 cm off model\.onnx"):
        NativePredictor.open(shipped)
    assert trees.rows


def test_bytes_alone_hold_no_booster(shipped: Path) -> None:
    with pytest.raises(ModelRefused, match="was given as bytes, which hold no booster"):
        NativePredictor.open((shipped / "model.onnx").read_bytes(), ModelCard.read(shipped))
