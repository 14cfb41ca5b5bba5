from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from models import export as export_module
from models.card import ModelCard, Score
from models.errors import ExportRefused, InputMismatch
from models.predictor import Predictor
from models.xco2_global.export import TOLERANCE, export
from models.xco2_global.train import Trained, train
from tests.models.xco2_by_numpy import forward
from tests.models.xco2_tables import TINY, made_up

pytestmark = pytest.mark.slow  # as a whole


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(made_up(), replace(TINY, rate=1e-2), 0, (0, 1), tmp_path_factory.mktemp("learned"))


@pytest.fixture(scope="module")
def held() -> Any:
    table = made_up()
    return table.sequences(np.flatnonzero(table.rows["group"] < 2))


@pytest.fixture(scope="module")
def exported(learned: Trained, held: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("exported")
    score = Score(output="departure", split="groups 0 and 1", rows=2, metrics={"rmse_ppm": 1.0}, synthetic=True)
    export(learned, directory, rows=held, command="a test", scores=[score])
    return directory


@pytest.mark.parametrize("rows", [1, 2, 7, 64, 255, 288])
def test_the_graph_answers_as_torch_and_as_the_second_implementation(
    learned: Trained, held: Any, exported: Path, rows: int
) -> None:
    asked = held[:rows].copy()
    asked[rows // 2] = np.nan
    found = Predictor.open(exported, batch=100).predict(asked)
    by_torch = learned.predict(asked)
    ranges = [[getattr(feature, end) for feature in learned.features] for end in ("valid_min", "valid_max")]
    state = {name: tensor.numpy() for name, tensor in learned.network().state_dict().items()}
    by_numpy = dict(zip(by_torch, forward(np.clip(asked, *np.array(ranges)), state), strict=True))
    for name, tolerance in TOLERANCE.items():
        np.testing.assert_allclose(found[name], by_torch[name], rtol=0, atol=tolerance)
        np.testing.assert_allclose(found[name], by_numpy[name], rtol=0, atol=tolerance)
    assert found["departure"].shape == (rows,)
    np.testing.assert_allclose(found["attention"].sum(axis=1), 1, rtol=0, atol=1e-6)


def test_a_row_does_not_know_its_batch(held: Any, exported: Path) -> None:
    whole = Predictor.open(exported, batch=1000).predict(held)
    for batch in (1, 7, 64, 256):
        found = Predictor.open(exported, batch=batch).predict(held)
        for name, values in whole.items():
            np.testing.assert_allclose(found[name], values, rtol=0, atol=2e-6)
    other = held.copy()
    other[1:] = np.nan
    beside_others = Predictor.open(exported, batch=1000).predict(other)
    assert all(np.array_equal(values[0], beside_others[name][0]) for name, values in whole.items())


def test_no_rows_give_no_rows(exported: Path) -> None:
    """The predictor never asks the runtime for them: onnxruntime 1.31 ends the process at an LSTM of no rows."""
    found = Predictor.open(exported).predict(np.zeros((0, 12, 5)))
    assert [values.shape for values in found.values()] == [(0,), (0,), (0, 12)]


def test_the_recurrence_is_two_fused_nodes_and_nothing_is_squeezed(exported: Path) -> None:
    model = onnx.load_model(exported / "model.onnx")
    kinds = [node.op_type for node in model.graph.node]
    lstms = [node for node in model.graph.node if node.op_type == "LSTM"]
    assert [next(a.s for a in node.attribute if a.name == "direction") for node in lstms] == [b"bidirectional"] * 2
    assert not {"Squeeze", "Loop", "Scan", "If"} & set(kinds)


def test_the_card_says_what_goes_in_and_what_must_come_out(learned: Trained, exported: Path) -> None:
    card = ModelCard.read(exported)
    assert card.name == "xco2_global"
    assert card.inputs[0].shape == ["batch", 12, 5]
    assert [feature.units for feature in card.inputs[0].features] == ["1", "K", "1", "1", "m"]
    assert {feature.missing for feature in card.inputs[0].features} == {"pass"}
    assert [tensor.name for tensor in card.outputs] == ["departure", "spread", "attention"]
    assert card.golden.tolerance == TOLERANCE == {"departure": 1e-4, "spread": 1e-4, "attention": 1e-5}
    assert card.golden.rows == 8
    golden = np.array([np.nan if value is None else value for value in card.golden.inputs["sequence"]])
    assert np.isnan(golden.reshape(8, -1)[3]).all()
    assert None not in card.golden.outputs["departure"]
    assert (card.training.table_sha256, card.training.rows) == (learned.record.table_sha256, learned.record.rows)
    assert "made-up" in card.description
    assert card.scores[0].synthetic


def test_a_value_out_of_range_counts_as_the_nearer_end(learned: Trained, held: Any, exported: Path) -> None:
    far, edge = np.nan_to_num(held[:4], nan=0), np.nan_to_num(held[:4], nan=0)
    far[:, 3, 1], edge[:, 3, 1] = 1e6, learned.features[1].valid_max
    predictor = Predictor.open(exported)
    np.testing.assert_array_equal(predictor.predict(far)["departure"], predictor.predict(edge)["departure"])


class _Other(torch.nn.Module):
    """Answers as another network but for a departure that is 1 mppm higher where all is missing."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, sequence: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        departure, spread, attention = self.network(sequence)
        return departure + 1e-3 * torch.isnan(sequence).flatten(1).all(1), spread, attention


def test_a_graph_that_answers_otherwise_is_refused_and_nothing_is_written(
    learned: Trained, held: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = export_module._to_onnx
    monkeypatch.setattr(export_module, "_to_onnx", lambda network, *rest: honest(_Other(network).eval(), *rest))
    with pytest.raises(Exception, match=r"differs from torch by 0\.00(1|09)|off by 0\.00(1|09)"):
        export(learned, tmp_path / "new", rows=held, command="a test")
    assert not (tmp_path / "new").exists()


def test_rows_of_another_shape_and_none_are_refused(learned: Trained, tmp_path: Path) -> None:
    with pytest.raises(InputMismatch, match=r"sequences \(row, 12, 5\) are needed, not \(3, 11, 5\)"):
        export(learned, tmp_path / "new", rows=np.zeros((3, 11, 5)), command="a test")
    with pytest.raises(ExportRefused, match="no held-out rows"):
        export(learned, tmp_path / "new", rows=np.zeros((0, 12, 5)), command="a test")
    assert not (tmp_path / "new").exists()
