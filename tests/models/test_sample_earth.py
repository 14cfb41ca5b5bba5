import hashlib
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from models.card import ModelCard
from models.errors import TableRefused
from models.predictor import Predictor
from models.sample_earth import DIRECTORY
from models.sample_earth.net import FLOOR, SampleEarthNet, negative_log_likelihood
from models.sample_earth.signature import INPUTS, OUTPUTS
from models.sample_earth.train import WEIGHTS_FILE, export, load, train

pytestmark = pytest.mark.slow  # as a whole


def test_the_shipped_model_equals_its_card_and_is_small() -> None:
    card = ModelCard.read(DIRECTORY)
    content = (DIRECTORY / "model.onnx").read_bytes()
    assert hashlib.sha256(content).hexdigest() == card.sha256
    assert (DIRECTORY / "card.json").read_text() == card.to_json()
    assert (card.inputs, card.outputs) == (INPUTS, OUTPUTS)
    assert sum((DIRECTORY / name).stat().st_size for name in ("model.onnx", "card.json", WEIGHTS_FILE)) < 200_000
    assert card.training.synthetic
    assert all(score.synthetic for score in card.scores)
    Predictor.open(DIRECTORY).check()


def test_the_shipped_weights_give_the_shipped_card_and_the_same_answers(tmp_path: Path) -> None:
    card, shipped = export(DIRECTORY / WEIGHTS_FILE, tmp_path), ModelCard.read(DIRECTORY)
    same = {"sha256", "created_by", "ir_version", "golden"}
    assert card.model_dump(exclude=same) == shipped.model_dump(exclude=same)
    assert card.golden.inputs == shipped.golden.inputs
    random = np.random.default_rng(1)
    low, high = ([getattr(f, end) for f in INPUTS[0].features] for end in ("valid_min", "valid_max"))
    rows = random.uniform(low, high, (5000, len(low))).astype(np.float32)
    network, _ = load(DIRECTORY / WEIGHTS_FILE)
    with torch.no_grad():
        value, sigma = network(torch.from_numpy(rows))
    for directory in (DIRECTORY, tmp_path):
        answer = Predictor.open(directory).predict(rows)
        np.testing.assert_allclose(answer["xco2"], value.numpy(), rtol=0, atol=1e-3)
        np.testing.assert_allclose(answer["xco2_uncertainty"], sigma.numpy(), rtol=1e-4, atol=1e-4)


def test_the_scores_beat_the_simple_guess_and_the_uncertainty_is_calibrated() -> None:
    scores = {score.output: score.metrics for score in ModelCard.read(DIRECTORY).scores}
    assert scores["xco2"]["rmse_ppm"] < 0.85 * scores["xco2"]["rmse_of_background_and_zonal_season_ppm"]
    assert abs(scores["xco2"]["bias_ppm"]) < 0.05
    assert abs(scores["xco2_uncertainty"]["within_1_sigma"] - 0.683) < 0.03
    assert abs(scores["xco2_uncertainty"]["within_2_sigma"] - 0.954) < 0.02


def test_the_loss_is_scipys_normal_likelihood_without_its_constant() -> None:
    from scipy import stats  # noqa: PLC0415 - the second implementation

    value, sigma, seen = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0.5, 1.0, 2.0]), torch.tensor([1.2, 0.5, 4.0])
    expected = -stats.norm.logpdf(seen.numpy(), value.numpy(), sigma.numpy()).mean() - 0.5 * np.log(2 * np.pi)
    assert float(negative_log_likelihood(value, sigma, seen)) == pytest.approx(expected, rel=1e-6)


def test_the_network_follows_the_background_and_states_no_less_than_its_floor() -> None:
    torch.manual_seed(0)
    network = SampleEarthNet().eval()
    rows = torch.randn(50, 13)
    later = rows.clone()
    later[:, 0] += 100
    with torch.no_grad():
        (value, sigma), (shifted, same) = network(rows), network(later)
    torch.testing.assert_close(shifted, value + 100)
    torch.testing.assert_close(same, sigma)
    assert float(sigma.min()) >= FLOOR


def _table(path: Path, sites: int = 60, months: int = 12) -> Path:
    """A small made-up table whose answer depends on temperature and whose error grows with settlement."""
    random = np.random.default_rng(5)
    names = [feature.name for feature in INPUTS[0].features]
    lines = ["# synthetic", ",".join(["site", "period", *names, "xco2_ppm", "xco2_true_ppm"])]
    for site in range(sites):
        settlement = random.uniform(0, 1)
        for month in range(months):
            temperature = random.uniform(250, 300)
            truth = 410 + (temperature - 275) / 10
            seen = truth + (0.2 + settlement) * random.standard_normal()
            values = [410, 0, 1, 1, 0, 0, temperature, "", 0.3, 100, 1, settlement, 0.8]
            lines.append(",".join(map(str, [f"S{site}", f"2019-{month + 1:02d}", *values, seen, truth])))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_training_learns_value_and_uncertainty_and_exports_a_model_that_answers(tmp_path: Path) -> None:
    lines: list[str] = []
    weights = train(_table(tmp_path / "t.csv"), tmp_path / "out", 3, epochs=40, report=lines.append)
    assert sum(line.startswith("epoch") for line in lines) >= 10
    card = export(weights, tmp_path / "out")
    assert card.training.table_sha256 == hashlib.sha256((tmp_path / "t.csv").read_bytes()).hexdigest()
    assert card.training.seed == 3
    answer = Predictor.open(tmp_path / "out").predict(
        np.array(
            [
                [410, 0, 1, 1, 0, 0, temperature, np.nan, 0.3, 100, 1, settlement, 0.8]
                for temperature, settlement in ((255, 0.5), (295, 0.5), (275, 0.05), (275, 0.95))
            ]
        )
    )
    np.testing.assert_allclose(answer["xco2"][:2], [408, 412], atol=0.6)
    assert answer["xco2_uncertainty"][3] > 1.5 * answer["xco2_uncertainty"][2]
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_outputs()] == ["xco2", "xco2_uncertainty"]


def test_training_twice_gives_the_same_weights(tmp_path: Path) -> None:
    table = _table(tmp_path / "t.csv", sites=40)
    files = [train(table, tmp_path / name, 3, epochs=3, report=lambda _: None) for name in ("a", "b")]
    other = train(table, tmp_path / "c", 4, epochs=3, report=lambda _: None)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes() != other.read_bytes()


def test_a_table_without_enough_sites_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableRefused, match="no usable row in the part"):
        train(_table(tmp_path / "t.csv", sites=1), tmp_path, epochs=1, report=lambda _: None)
    assert not (tmp_path / WEIGHTS_FILE).exists()


def test_a_torn_export_is_refused_at_open(tmp_path: Path) -> None:
    """A new model beside an old card: what a crash between the two files leaves."""
    weights = train(_table(tmp_path / "t.csv", sites=40), tmp_path, 3, epochs=1, report=lambda _: None)
    export(weights, tmp_path)
    shutil.copy(DIRECTORY / "card.json", tmp_path / "card.json")
    with pytest.raises(ValueError, match="it is damaged or another model"):
        Predictor.open(tmp_path)
