from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from models import export as export_module
from models.card import Feature, InputTensor, ModelCard, OutputTensor, Training
from models.errors import ExportRefused, ModelRefused
from models.export import export
from models.predictor import Predictor

pytestmark = pytest.mark.slow  # as a whole


def _features(prefix: str) -> list[Feature]:
    rules: dict[str, Any] = {"valid_min": -3, "valid_max": 3, "out_of_range": "clip", "missing": "nan"}
    return [Feature(name=f"{prefix}{number}", units="1", long_name="a feature", **rules) for number in range(2)]


INPUTS = [
    InputTensor(name="series", shape=["batch", 5, 2], feature_axis=2, features=_features("series")),
    InputTensor(name="still", shape=["batch", 2], feature_axis=1, features=_features("still")),
]
OUTPUTS = [
    OutputTensor(name="value", units="1", long_name="value", shape=["batch"], scale=2.0, offset=400.0),
    OutputTensor(name="weights", units="1", long_name="attention", shape=["batch", 5]),
]
TRAINING = Training(table="none", table_sha256="0" * 64, rows=1, seed=1, command="none", synthetic=True)


class Attention(torch.nn.Module):
    """A series and still features, as the science products have them."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(2, 4, batch_first=True, bidirectional=True)
        self.score = torch.nn.Linear(8, 1)
        self.out = torch.nn.Linear(10, 1)

    def forward(self, series: torch.Tensor, still: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, _ = self.lstm(series)
        weights = torch.softmax(self.score(states).flatten(1), dim=1)
        context = (states * weights[:, :, None]).sum(1)
        return self.out(torch.cat([context, still], dim=1)).flatten(), weights


class Frozen(torch.nn.Module):
    """Works at the example's batch size only."""

    def forward(self, series: torch.Tensor, still: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return still.reshape(2, 2).sum(1), series.sum(2)


class Squeezed(torch.nn.Module):
    """Loses its batch axis at one row, as code of papers does."""

    def forward(self, series: torch.Tensor, still: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return still.sum(1, keepdim=True).squeeze(), series.sum(2)


def _export(network: torch.nn.Module, directory: Path, **changes: Any) -> ModelCard:
    random = np.random.default_rng(1)
    rows = {
        "series": random.uniform(-4, 4, (9, 5, 2)).astype(np.float32),
        "still": random.uniform(-4, 4, (9, 2)).astype(np.float32),
    }
    rows["series"][1, 2, 0] = np.nan
    given: dict[str, Any] = {
        "name": "attention",
        "version": "1",
        "description": "a test",
        "inputs": INPUTS,
        "outputs": OUTPUTS,
        "rows": rows,
        "tolerance": {"value": 1e-3, "weights": 1e-5},
        "training": TRAINING,
        "scores": [],
        "batch": 64,
    }
    given.update(changes)
    return export(network, directory, **given)


@pytest.mark.slow
def test_a_sequence_network_of_two_inputs_answers_in_onnx_as_in_torch(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = Attention()
    card = _export(network, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "model.onnx"]
    assert ModelCard.read(tmp_path) == card
    random = np.random.default_rng(2)
    inputs = {
        "series": random.uniform(-3, 3, (33, 5, 2)).astype(np.float32),
        "still": random.uniform(-3, 3, (33, 2)).astype(np.float32),
    }
    with torch.no_grad():
        value, weights = network(torch.from_numpy(inputs["series"]), torch.from_numpy(inputs["still"]))
    answer = Predictor.open(tmp_path).predict(inputs)
    np.testing.assert_allclose(answer["value"], value.numpy() * 2 + 400, rtol=0, atol=1e-4)
    np.testing.assert_allclose(answer["weights"], weights.numpy(), rtol=0, atol=1e-6)
    assert [value is None for value in card.golden.outputs["value"]] == [row == 1 for row in range(8)]


def test_the_file_tells_nothing_of_this_machine(tmp_path: Path) -> None:
    _export(Attention(), tmp_path)
    content = (tmp_path / "model.onnx").read_bytes()
    for word in (str(Path(__file__).parent), "site-packages", "test_export", str(Path.home()) + "/"):
        assert word.encode() not in content
    onnx.checker.check_model(onnx.load_model_from_string(content), full_check=True)


class Elsewhere(torch.nn.Module):
    """Answers as another network, except where the second still feature is high."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, series: torch.Tensor, still: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, weights = self.network(series, still)
        return value + 0.01 * (still[:, 1] > 1), weights


@pytest.mark.parametrize("highest", [2.0, -2.0])
def test_a_graph_that_answers_otherwise_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, highest: float
) -> None:
    """In golden rows (2) or in other rows only (-2), where the parity check alone sees it."""
    honest = export_module._to_onnx
    monkeypatch.setattr(export_module, "_to_onnx", lambda network, *rest: honest(Elsewhere(network).eval(), *rest))
    rows = {"series": np.zeros((9, 5, 2), np.float32), "still": np.full((9, 2), highest, np.float32)}
    rows["still"][8] = 2
    with pytest.raises(
        (ExportRefused, ModelRefused), match=r"differs from torch by 0\.0(2|199)|off by 0\.0(2|199)"
    ) as caught:
        _export(Attention(), tmp_path / "new", rows=rows)
    assert ("differs from torch" in str(caught.value)) == (highest < 0)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("network", "message"),
    [(Frozen(), "does not take 8 rows|free batch size"), (Squeezed(), r"shape \(\), not \(1,\)|the outputs of model")],
)
def test_a_network_with_a_frozen_batch_is_refused_and_nothing_is_written(
    tmp_path: Path, network: torch.nn.Module, message: str
) -> None:
    with pytest.raises((ExportRefused, ModelRefused), match=message):
        _export(network, tmp_path / "new")
    assert not (tmp_path / "new").exists()
