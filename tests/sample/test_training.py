import hashlib
from pathlib import Path

import numpy as np
import pytest

from models.card import ModelCard
from models.predictor import Predictor
from models.table import Table
from services.core.errors import InputRefused, ModelRefused, SettingsError
from services.core.grid import Window
from services.products.sample_earth import export, train, write_sample
from services.products.sample_earth.features import FEATURES, features
from services.products.sample_earth.observations import read_observations
from services.products.sample_earth.predictors import Predictors
from services.products.sample_earth.training import write_training_table
from services.sample.inputs import write_inputs


def test_rows_of_the_table_are_the_features_of_their_cells(written: Path, tmp_path: Path) -> None:
    digest = write_training_table(written, tmp_path / "t.csv")
    table = Table.read(tmp_path / "t.csv")
    assert table.sha256 == digest
    assert list(table.columns) == ["site", "period", *FEATURES, "xco2_ppm", "xco2_true_ppm"]
    observations = read_observations(written)
    assert len(table) == len(observations)
    predictors = Predictors.find(written)
    columns = {name: table.numbers(name) for name in FEATURES}
    by_key = {(one.site, one.month): one for one in observations}
    months = np.array([int(np.datetime64(period, "M").astype(int)) for period in table.text("period")])
    for at in range(0, len(table), 97):
        one = by_key[table.text("site")[at], int(months[at])]
        window = Window(row=one.row, column=one.column, height=1, width=1)
        expected = features(predictors, one.month, window)[0]
        np.testing.assert_array_equal([np.float32(columns[name][at]) for name in FEATURES], expected)
        assert table.numbers("xco2_ppm")[at] == one.reported


@pytest.mark.slow
def test_the_table_is_the_same_twice(written: Path, tmp_path: Path) -> None:
    assert write_training_table(written, tmp_path / "a.csv") == write_training_table(written, tmp_path / "b.csv")


@pytest.mark.slow
def test_training_and_exporting_make_a_model_that_beats_the_simple_guess(written: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    train(written, tmp_path / "out", 1, lines.append)
    export(tmp_path / "out", tmp_path / "model", lines.append)
    card = ModelCard.read(tmp_path / "model")
    assert card.training.table_sha256 == hashlib.sha256((tmp_path / "out" / "training.csv").read_bytes()).hexdigest()
    scores = {score.output: score.metrics for score in card.scores}
    assert scores["xco2"]["rmse_ppm"] < scores["xco2"]["rmse_of_background_and_zonal_season_ppm"]
    Predictor.open(tmp_path / "model").check()
    assert any(line.startswith("epoch") for line in lines)


def test_an_export_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="does not hold the weights"):
        export(tmp_path, tmp_path / "out", lambda _: None)
    (tmp_path / "weights.safetensors").write_bytes(b"<html>")
    with pytest.raises(ModelRefused, match="does not hold the weights"):
        export(tmp_path, tmp_path / "out", lambda _: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("site,longitude", "station,longitude", "the columns are"),
        (",2019-11,", ",november,", r"site_observations\.csv, observation 1: 'november' is not an ISO 8601"),
        ("S0000,-58.7594", "S0000,east", "observation 1: could not convert"),
        ("-33.2216", "-93.2216", "observation 1: .* outside the grid"),
    ],
)
def test_observations_that_do_not_hold_are_refused(inputs: Path, old: str, new: str, message: str) -> None:
    path = inputs / "site_observations.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputRefused, match=message):
        read_observations(inputs)


def test_the_sample_tells_how_far_it_is_and_refuses_another_size(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has the sizes small, study, not 'large'"):
        write_sample(tmp_path, "large", lambda _: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_write_sample_is_write_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.sample.inputs.SPANS", {"small": ("2019-01", "2019-01")})
    monkeypatch.setattr("services.products.sample_earth.sample.SPANS", {"small": ("2019-01", "2019-01")})
    lines: list[str] = []
    write_sample(tmp_path, "small", lines.append)
    assert lines[-1].startswith("input files: 5 of 5 written")
    assert len(write_inputs(tmp_path, "small")) == 5
