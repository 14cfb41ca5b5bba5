import multiprocessing
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from models import predictor as predictor_module
from models.card import ModelCard
from models.errors import InputMismatch, ModelRefused, PredictionFailed
from models.predictor import Predictor
from models.rules import apply_rules
from models.sample_earth import DIRECTORY

type MakeModel = Callable[..., bytes]
type MakeCard = Callable[..., ModelCard]


@pytest.fixture
def linear(make_linear: MakeModel, make_card: MakeCard) -> Predictor:
    model = make_linear()
    return Predictor.open(model, make_card(model))


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(1).uniform(-9, 9, (11, 3)).astype(np.float32)


def test_answers_equal_the_onnx_reference_implementation(
    linear: Predictor, make_linear: MakeModel, rows: np.ndarray
) -> None:
    answers: Any = ReferenceEvaluator(make_linear()).run(None, {"x": rows})
    y, z = answers
    answer = linear.predict(rows)
    assert list(answer) == ["y", "z"]
    assert {values.dtype for values in answer.values()} == {np.dtype("float32")}
    np.testing.assert_allclose(answer["y"], y, rtol=0, atol=1e-5)
    np.testing.assert_allclose(answer["z"], z * 10 + 400, rtol=0, atol=1e-4)


def test_arrays_by_input_and_by_feature_name_are_the_same_rows(linear: Predictor, rows: np.ndarray) -> None:
    whole = linear.predict(rows)
    columns = {"c": rows[:, 2], "a": rows[:, 0], "b": rows[:, 1]}
    for other in (linear.predict({"x": rows}), linear.predict(columns), linear.predict(rows.astype(np.float64))):
        for name, values in whole.items():
            np.testing.assert_array_equal(other[name], values)


def test_missing_and_range_rules_are_those_of_the_card(linear: Predictor) -> None:
    nan = np.nan
    given = np.array(
        [[1, 1, 1], [nan, 1, 1], [1, nan, 1], [1, 1, nan], [11, 1, 1], [1, 11, 1], [1, 1, 11], [1, 1, -np.inf]],
        dtype=np.float32,
    )
    meant = np.array(
        [[1, 1, 1], [nan] * 3, [1, 2, 1], [nan] * 3, [nan] * 3, [1, 2, 1], [1, 1, 10], [1, 1, -10]], dtype=np.float32
    )
    kept = given.copy()
    answer = linear.predict(given)
    np.testing.assert_array_equal(answer["y"], meant @ np.array([[1.0, -2.0], [0.5, 0.25], [3.0, 1.0]], np.float32))
    np.testing.assert_array_equal(answer["z"], meant.sum(1) * 10 + 400)
    np.testing.assert_array_equal(given, kept)


@pytest.mark.parametrize("range_rule", ["clip", "missing"])
def test_a_missing_number_that_is_passed_reaches_the_graph_as_nan(
    make_linear: MakeModel, make_description: Callable[..., dict[str, Any]], range_rule: str
) -> None:
    model = make_linear()
    card = make_description(model)
    for feature in card["inputs"][0]["features"]:
        feature |= {"missing": "pass", "fill_value": None, "out_of_range": range_rule}
    tensor = ModelCard.model_validate(card | {"golden": _golden_of(card)}).inputs[0]
    values = np.array([[np.nan, 1, -np.inf], [11, -11, 3]], dtype=np.float32)
    assert not apply_rules(tensor, values).any()
    low, high = (-10, 10) if range_rule == "clip" else (np.nan, np.nan)
    np.testing.assert_array_equal(values, np.array([[np.nan, 1, low], [high, low, 3]], dtype=np.float32))
    # these rows are no lost rows: a graph that gives NaN for them has failed, and says so
    predictor = Predictor.open(model, ModelCard.model_validate(card | {"golden": _golden_of(card)}))
    predictor.check()
    with pytest.raises(PredictionFailed, match="no finite y for a row of valid inputs"):
        predictor.predict(np.array([[1, 1, 1], [np.nan, 1, 1]], dtype=np.float32))


def _golden_of(card: dict[str, Any]) -> dict[str, Any]:
    """The golden answer of the test card without its row that lacks a number."""
    return {
        "rows": 1,
        "inputs": {"x": card["golden"]["inputs"]["x"][:3]},
        "outputs": {"y": card["golden"]["outputs"]["y"][:2], "z": card["golden"]["outputs"]["z"][:1]},
        "tolerance": card["golden"]["tolerance"],
    }


def test_a_process_keeps_the_sessions_used_last(
    make_linear: MakeModel, make_card: MakeCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor_module, "_KEPT", 4)
    weights = [np.full((3, 2), number, dtype=np.float32) for number in range(6)]
    models = [make_linear(matrix) for matrix in weights]
    golden = {"rows": 1, "inputs": {"x": [0.0, 0.0, 0.0]}, "tolerance": {"y": 1e-5, "z": 1e-3}}
    golden |= {"outputs": {"y": [0.0, 0.0], "z": [400.0]}}
    predictors = [Predictor.open(model, make_card(model, golden=golden)) for model in models]
    first = predictors[0]._session()
    for predictor in predictors[1:4]:
        predictor.check()
    assert predictors[0]._session() is first  # used again: now the youngest
    second = predictors[1]._session()
    for predictor in predictors[4:]:
        predictor.check()
    assert predictors[0]._session() is first
    assert predictors[1]._session() is second
    assert len(predictor_module._SESSIONS) == predictor_module._KEPT
    digests = [key[0] for key in predictor_module._SESSIONS]
    assert digests == [predictors[number].card.sha256 for number in (4, 5, 0, 1)]


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_the_batch_size_does_not_change_the_answer(
    make_linear: MakeModel, make_card: MakeCard, rows: np.ndarray, batch: int
) -> None:
    model = make_linear()
    card = make_card(model)
    whole = Predictor.open(model, card).predict(rows)
    other = Predictor.open(model, card, batch=batch).predict(rows)
    for name, values in whole.items():
        np.testing.assert_array_equal(other[name], values)


def test_a_row_of_the_shipped_model_does_not_depend_on_its_neighbours() -> None:
    predictor = Predictor.open(DIRECTORY)
    tensor = predictor.card.inputs[0]
    low, high = ([getattr(f, end) for f in tensor.features] for end in ("valid_min", "valid_max"))
    rows = np.random.default_rng(2).uniform(low, high, (3000, len(low))).astype(np.float32)
    rows[::5, 6] = np.nan
    whole = predictor.predict(rows)
    for size in (1, 3, 16, 999):
        parts = [predictor.predict(rows[start : start + size]) for start in range(0, 1000, size)]
        for name, values in whole.items():
            joined = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(joined, values[: len(joined)])


def test_no_rows_give_no_answers(linear: Predictor) -> None:
    answer = linear.predict(np.empty((0, 3), dtype=np.float32))
    assert answer["y"].shape == (0, 2)
    assert answer["z"].shape == (0,)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((2, 4), np.float32), r"input x has shape \(2, 4\), not \('rows', 3\)"),
        (np.zeros(3, np.float32), "input x has shape"),
        (np.zeros((2, 3), "U1"), "holds <U1, not numbers"),
        ({"a": np.zeros(2), "b": np.zeros(2)}, r"features \['c'\] are missing"),
        ({"a": np.zeros(2), "b": np.zeros(2), "c": np.zeros(3)}, "need one row axis of one length"),
        ({"x": np.zeros((2, 3)), "q": np.zeros(2)}, r"takes \['x'\], not \['q', 'x'\]"),
    ],
)
def test_arrays_that_do_not_fit_the_card_are_refused(linear: Predictor, inputs: object, message: str) -> None:
    with pytest.raises(InputMismatch, match=message):
        linear.predict(inputs)  # type: ignore[arg-type]


def test_a_fault_of_the_network_never_becomes_nan(make_linear: MakeModel, make_card: MakeCard) -> None:
    model = make_linear(np.full((3, 2), 3e38, dtype=np.float32))
    golden = {
        "rows": 1,
        "inputs": {"x": [0.0, 0.0, 0.0]},
        "outputs": {"y": [0.0, 0.0], "z": [400.0]},
        "tolerance": {"y": 1.0, "z": 1.0},
    }
    predictor = Predictor.open(model, make_card(model, golden=golden))
    with pytest.raises(PredictionFailed, match="gives no finite y for a row of valid inputs"):
        predictor.predict(np.full((1, 3), 9.0))


def test_another_digest_is_refused(make_linear: MakeModel, make_card: MakeCard) -> None:
    model = make_linear()
    card = make_card(model)
    with pytest.raises(ModelRefused, match=r"has sha256 .* its card says"):
        Predictor.open(make_linear(np.ones((3, 2), np.float32)), card)
    with pytest.raises(ModelRefused, match="that was asked for"):
        Predictor.open(model, card, sha256="0" * 64)
    with pytest.raises(ModelRefused, match="needs its card"):
        Predictor.open(model)


def test_every_flipped_bit_of_the_shipped_model_is_refused(tmp_path: Path) -> None:
    content = (DIRECTORY / "model.onnx").read_bytes()
    (tmp_path / "card.json").write_bytes((DIRECTORY / "card.json").read_bytes())
    for position in range(0, len(content), 397):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        (tmp_path / "model.onnx").write_bytes(flipped)
        with pytest.raises(ModelRefused, match="it is damaged or another model"):
            Predictor.open(tmp_path)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(ModelRefused, match=r"model\.onnx cannot be read: No such file"):
        Predictor.open(tmp_path)


def test_a_model_that_changed_together_with_its_digest_fails_its_golden_answer(
    make_linear: MakeModel, make_card: MakeCard
) -> None:
    model = make_linear(np.array([[1.0, -2.0], [0.5, 0.25], [3.0, 1.001]], dtype=np.float32))
    predictor = Predictor.open(model, make_card(model))
    with pytest.raises(ModelRefused, match=r"does not give its golden answer: y is off by 0\.003"):
        predictor.predict(np.zeros((1, 3)))


def test_a_golden_row_that_is_no_longer_missing_is_refused(make_linear: MakeModel, make_card: MakeCard) -> None:
    model = make_linear()
    card = make_card(model)
    inputs = card.model_dump()["inputs"]
    inputs[0]["features"][0] |= {"missing": "fill", "fill_value": 0.0}
    with pytest.raises(ModelRefused, match="y is missing elsewhere"):
        Predictor.open(model, make_card(model, inputs=inputs)).check()


@pytest.mark.parametrize(
    ("changes", "card_changes", "message"),
    [
        ({"x_shape": [4, 3]}, {}, r"the inputs of model linear are .*\[4, 3\]"),
        ({"x_shape": ["n", 5]}, {}, "the inputs of model linear are|does not take model"),
        ({"opset": 16}, {"opsets": {"ai.onnx": 17}}, "has opsets {'ai.onnx': 16}"),
        ({}, {"ir_version": 9}, "IR version 8, its card says .* 9"),
        ({"domain": "com.example", "domains": ["com.example"]}, {}, r"operators of com\.example"),
        ({"domains": ["com.microsoft"]}, {}, r"operators of com\.microsoft"),
    ],
)
def test_a_graph_that_is_not_the_cards_is_refused(
    make_linear: MakeModel,
    make_card: MakeCard,
    changes: dict[str, object],
    card_changes: dict[str, object],
    message: str,
) -> None:
    model = make_linear(**changes)
    card = make_card(model, **card_changes)
    with pytest.raises(ModelRefused, match=message):
        Predictor.open(model, card).check()


def test_an_output_that_the_card_does_not_name_is_refused(make_linear: MakeModel, make_card: MakeCard) -> None:
    model = make_linear()
    whole = make_card(model).model_dump(mode="json")
    fewer = whole | {"outputs": whole["outputs"][:1]}
    golden = whole["golden"]
    fewer["golden"] = golden | {"outputs": {"y": golden["outputs"]["y"]}, "tolerance": {"y": 1e-5}}
    with pytest.raises(ModelRefused, match="the outputs of model linear are"):
        Predictor.open(model, ModelCard.model_validate(fewer)).check()


def test_a_process_builds_one_session_for_all_threads_and_copies(linear: Predictor, rows: np.ndarray) -> None:
    before = len(predictor_module._SESSIONS)
    copies = [pickle.loads(pickle.dumps(linear)) for _ in range(8)]  # noqa: S301 - made one line above
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda copy: copy.predict(rows)["z"], copies))
    assert len(predictor_module._SESSIONS) <= before + 1
    assert copies[0]._session() is linear._session()
    assert all(np.array_equal(answer, answers[0]) for answer in answers)
    options = linear._session().get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert linear._session().get_providers() == ["CPUExecutionProvider"]


def test_it_travels_to_a_spawned_process_without_its_session() -> None:
    predictor = Predictor.open(DIRECTORY)
    rows = np.array([predictor.card.golden.inputs["features"]], dtype=np.float64).reshape(-1, 13)
    here = predictor.predict(rows)
    assert len(pickle.dumps(predictor)) < 20_000
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(predictor.predict, rows).result(timeout=60)
    for name, values in here.items():
        np.testing.assert_array_equal(there[name], values)


def test_a_forked_child_builds_its_own_session() -> None:
    script = """
        import os, warnings
        import numpy as np
        from models import predictor as module
        from models.predictor import Predictor
        from models.sample_earth import DIRECTORY
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside onnxruntime's threads is what is tested
        predictor = Predictor.open(DIRECTORY)
        rows = np.full((3, 13), 0.5); rows[:, 0] = 400; rows[:, 6] = 280
        answer, session = predictor.predict(rows), predictor._session()
        module._LOCK.acquire()
        child = os.fork()
        if child == 0:
            module_session = predictor._session()
            same = all(np.array_equal(predictor.predict(rows)[name], answer[name]) for name in answer)
            os._exit(0 if same and module_session is not session else 3)
        module._LOCK.release()
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or predictor._session() is not session)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, timeout=60)
    assert done.returncode == 0


def test_predicting_imports_no_torch() -> None:
    script = (
        "import sys; from models.predictor import Predictor; from models.sample_earth import DIRECTORY; "
        "Predictor.open(DIRECTORY).check(); "
        "sys.exit(bool({'torch', 'onnx', 'xgboost', 'services', 'tiler'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
