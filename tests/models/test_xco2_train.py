import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from models.errors import InputMismatch, ModelRefused, TableRefused, TrainingRefused
from models.xco2_global.net import FLOOR, SequenceNet, negative_log_likelihood
from models.xco2_global.scaling import measure
from models.xco2_global.table import SequenceTable
from models.xco2_global.train import CHECKPOINT_FILE, RECORD_FILE, WEIGHTS_FILE, Settings, Trained, train
from tests.models.xco2_by_numpy import forward
from tests.models.xco2_tables import TINY, made_up

pytestmark = pytest.mark.slow  # as a whole: torch alone takes seconds to import

STOP = (0, 1)
LEARNING = replace(TINY, epochs=25, rate=1e-2, patience=25)


def _asked(table: SequenceTable) -> Any:
    return table.sequences(np.flatnonzero(np.isin(table.rows["group"], STOP)))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(made_up(), LEARNING, 0, STOP, tmp_path_factory.mktemp("learned"))


def test_the_network_is_what_its_layers_say_in_a_second_implementation(learned: Trained) -> None:
    sequences = _asked(made_up())
    sequences[5] = np.nan
    assert np.isnan(sequences).any()
    state = {name: tensor.numpy() for name, tensor in learned.network().state_dict().items()}
    expected = forward(np.clip(sequences, *_ranges(learned)), state)
    for found, wanted in zip(learned.predict(sequences).values(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)


def _ranges(trained: Trained) -> tuple[Any, Any]:
    return np.array([f.valid_min for f in trained.features]), np.array([f.valid_max for f in trained.features])


def test_attention_is_a_share_and_spreads_are_above_their_floor(learned: Trained) -> None:
    answer = learned.predict(_asked(made_up()) * 100)
    assert answer["attention"].shape == (len(answer["departure"]), 12)
    np.testing.assert_allclose(answer["attention"].sum(axis=1), 1, rtol=0, atol=1e-6)
    assert (answer["attention"] >= 0).all()
    assert (answer["spread"] >= FLOOR).all()


def test_a_row_does_not_know_its_neighbours(learned: Trained) -> None:
    sequences = _asked(made_up())[:9]
    together = learned.predict(sequences)
    sequences[1:] = np.nan
    beside_others = learned.predict(sequences)
    for name, values in together.items():
        np.testing.assert_array_equal(values[0], beside_others[name][0])
        np.testing.assert_allclose(values[0], learned.predict(sequences[:1])[name][0], rtol=0, atol=1e-6)


def test_nothing_known_gives_an_answer_with_a_wider_spread(tmp_path: Path) -> None:
    """A third of the cells has no covariate at all: nothing but the mean is then to be known, 2.2 ppm wide."""
    table = made_up()
    values = table.values.copy()
    values[::3] = np.nan
    trained = train(replace(table, values=values), replace(LEARNING, epochs=15), 0, STOP, tmp_path)
    nothing = trained.predict(np.full((3, 12, 5), np.nan))
    assert all(np.isfinite(values).all() for values in nothing.values())
    assert nothing["spread"].mean() > 1.5 * np.median(trained.predict(np.nan_to_num(_asked(table)))["spread"])


def test_covariates_of_other_cells_teach_less(learned: Trained, tmp_path: Path) -> None:
    """Shuffled, nothing is left to know but the mean."""
    shuffled = train(made_up(shuffled=True), LEARNING, 0, STOP, tmp_path)
    best, worst = (min(epoch.validation_rmse_ppm for epoch in one.record.epochs) for one in (learned, shuffled))
    spread = made_up().rows["target"].std()
    assert best < 0.75 * spread
    assert worst > 0.9 * spread


def test_a_network_without_training_answers_the_mean_of_the_targets() -> None:
    table = made_up()
    features, scaling = measure(table, np.arange(1000))
    np.testing.assert_allclose(scaling.target_mean, table.rows["target"][:1000].mean(), rtol=1e-6)
    network = SequenceNet(len(features), hidden=8)
    network.set_scaling(
        torch.from_numpy(scaling.mean),
        torch.from_numpy(scaling.deviation),
        scaling.target_mean,
        scaling.target_deviation,
    )
    departure, spread, _ = network.eval()(torch.full((3, 12, 5), torch.nan))
    np.testing.assert_allclose(departure.detach(), scaling.target_mean, atol=0.2 * scaling.target_deviation)
    np.testing.assert_allclose(spread.detach(), scaling.target_deviation, rtol=0.3)


def test_scaling_is_of_the_rows_that_are_learned_from() -> None:
    table, rows = made_up(), np.arange(0, 1500, 3)
    rows = np.concatenate([rows] * 12)  # more than are looked at in one go
    features, scaling = measure(table, rows)
    held = table.sequences(rows).reshape(-1, 5).astype(np.float64)
    np.testing.assert_allclose(scaling.mean, np.nanmean(held, axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scaling.deviation, np.nanstd(held, axis=0), rtol=1e-5)
    low, high = (
        np.array(ends, dtype=np.float32) for ends in zip(*((f.valid_min, f.valid_max) for f in features), strict=True)
    )
    np.testing.assert_array_equal(low, np.nanmin(held, axis=0))
    np.testing.assert_array_equal(high, np.nanmax(held, axis=0))


def test_the_likelihood_is_scipys_with_the_known_error_in_it() -> None:
    random = np.random.default_rng(0)
    departure, seen = random.normal(size=(2, 50))
    spread, error = random.uniform(0.1, 2, (2, 50))
    given = [torch.from_numpy(values) for values in (departure, spread, seen, error)]
    wanted = -norm.logpdf(seen, departure, np.sqrt(spread**2 + error**2)) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(negative_log_likelihood(*given), wanted, rtol=1e-12)
    beta = negative_log_likelihood(*given, beta=0.5)
    np.testing.assert_allclose(beta, wanted * np.sqrt(spread**2 + error**2), rtol=1e-12)
    # with beta 1 a departure learns as from squared errors, and no variance learns through its own weight
    given[0].requires_grad_()
    negative_log_likelihood(*given, beta=1.0).sum().backward()  # type: ignore[no-untyped-call]
    assert given[0].grad is not None
    np.testing.assert_allclose(given[0].grad, departure - seen, rtol=1e-10)


def test_the_spread_leaves_the_retrieval_error_out(tmp_path: Path) -> None:
    """Truth 0.8 ppm wide, seen with an error of 1.5 ppm: together 1.7."""
    random = np.random.default_rng(1)
    rows = made_up(rows=4000).rows.copy()
    rows["target"] = random.normal(scale=0.8, size=4000) + random.normal(scale=1.5, size=4000)
    found = {}
    for error in (1.5, 0.0):
        rows["error"] = error
        table = replace(made_up(rows=4000), rows=rows.copy())
        trained = train(table, replace(TINY, epochs=6), 0, STOP, tmp_path / str(error))
        found[error] = float(np.median(trained.predict(_asked(table))["spread"]))
    assert found[1.5] == pytest.approx(0.8, abs=0.15)
    assert found[0.0] == pytest.approx(1.7, abs=0.15)


def test_rows_count_by_their_weight_and_those_of_weight_0_not_at_all(tmp_path: Path) -> None:
    """Every third row is absurd; without weight it teaches nothing."""
    table = made_up()
    rows = table.rows.copy()
    rows["target"][::3] = 40
    rows["weight"][::3] = 0
    trained = train(replace(table, rows=rows), TINY, 0, STOP, tmp_path)
    assert trained.record.rows == np.count_nonzero(~np.isin(rows["group"], STOP) & (rows["weight"] > 0))
    assert trained.predict(_asked(table))["departure"].mean() == pytest.approx(2, abs=0.7)
    rows["weight"][::3] = 0.001
    light = train(replace(table, rows=rows), TINY, 0, STOP, tmp_path / "light")
    assert light.predict(_asked(table))["departure"].mean() == pytest.approx(2, abs=1)
    rows["weight"] = 1
    heavy = train(replace(table, rows=rows), TINY, 0, STOP, tmp_path / "heavy")
    assert heavy.predict(_asked(table))["departure"].mean() > 8


def test_withheld_groups_are_not_looked_at(tmp_path: Path) -> None:
    table = made_up()
    spoilt = table.rows.copy()
    spoilt["target"][np.isin(spoilt["group"], (8, 9))] += 50
    first = train(table, TINY, 0, STOP, tmp_path / "a", withheld_groups=(8, 9))
    second = train(replace(table, rows=spoilt), TINY, 0, STOP, tmp_path / "b", withheld_groups=(8, 9))
    assert first.weights == second.weights
    assert first.record.table_sha256 != second.record.table_sha256


def test_the_seed_decides_the_weights_and_leaves_the_callers_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = train(made_up(), TINY, 3, STOP, tmp_path / "a")
    assert torch.equal(torch.rand(3), expected)
    assert train(made_up(), TINY, 3, STOP, tmp_path / "b").weights == first.weights
    assert train(made_up(), TINY, 4, STOP, tmp_path / "c").weights != first.weights


class _EndedError(Exception):
    pass


def _ends_after(epoch: int) -> Callable[[str], None]:
    def tell(line: str) -> None:
        if line.startswith(f"epoch {epoch} "):
            raise _EndedError

    return tell


def test_an_ended_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = train(made_up(), TINY, 1, STOP, tmp_path / "whole")
    for epoch in (1, 3):
        with pytest.raises(_EndedError):
            train(made_up(), TINY, 1, STOP, tmp_path / "ended", _ends_after(epoch))
        assert not (tmp_path / "ended" / WEIGHTS_FILE).exists()
    said: list[str] = []
    again = train(made_up(), TINY, 1, STOP, tmp_path / "ended", said.append)
    assert "going on after epoch 3" in said
    assert again.weights == whole.weights
    assert [epoch.validation_loss for epoch in again.record.epochs] == [
        epoch.validation_loss for epoch in whole.record.epochs
    ]
    assert (whole.record.resumed, again.record.resumed) == (0, 2)
    once_more = train(made_up(), TINY, 1, STOP, tmp_path / "ended")  # nothing is left to learn
    assert once_more == again


def test_a_killed_process_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    """SIGKILL between steps of epoch 3, in a process of its own."""
    script = f"""
import os, signal
from pathlib import Path
from models.xco2_global.train import train
from tests.models.xco2_tables import TINY, made_up
def progress(done, steps):
    if done == steps // 4 * 2 + 3:
        os.kill(os.getpid(), signal.SIGKILL)
train(made_up(), TINY, 1, {STOP}, Path({str(tmp_path / "killed")!r}), progress=progress)
"""
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", script], check=False, cwd=root, env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [CHECKPOINT_FILE]
    again = train(made_up(), TINY, 1, STOP, tmp_path / "killed")
    assert again.record.resumed == 1
    assert again.weights == train(made_up(), TINY, 1, STOP, tmp_path / "whole").weights


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    train(made_up(), TINY, 1, STOP, tmp_path)
    with pytest.raises(TrainingRefused, match=r"begun with other seed: remove it"):
        train(made_up(), TINY, 2, STOP, tmp_path)
    with pytest.raises(TrainingRefused, match=r"begun with other settings, table_sha256"):
        train(made_up(seed=1), replace(TINY, hidden=9), 1, STOP, tmp_path)
    content = (tmp_path / CHECKPOINT_FILE).read_bytes()
    (tmp_path / CHECKPOINT_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(TrainingRefused, match=r"checkpoint\.safetensors is no checkpoint"):
        train(made_up(), TINY, 1, STOP, tmp_path)


def test_it_stops_when_nothing_gets_better_and_keeps_the_best(tmp_path: Path) -> None:
    settings = replace(TINY, epochs=40, rate=0.05, patience=2)
    trained = train(made_up(rows=400), settings, 0, STOP, tmp_path)
    losses = [epoch.validation_loss for epoch in trained.record.epochs]
    assert len(losses) < 40
    assert trained.record.best_epoch == int(np.argmin(losses)) + 1 == len(losses) - 2
    table = made_up(rows=400)
    rows = table.rows[np.isin(table.rows["group"], STOP)]
    answer = trained.predict(_asked(table))
    variance = answer["spread"].astype(float) ** 2 + rows["error"].astype(float) ** 2
    each = 0.5 * (np.log(variance) + (rows["target"] - answer["departure"]) ** 2 / variance)
    assert each.mean() == pytest.approx(min(losses), abs=1e-4)


def test_steps_are_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    train(made_up(), replace(TINY, epochs=2), 0, STOP, tmp_path, progress=lambda *step: told.append(step))
    assert told == [(step, 20) for step in range(1, 21)]


def test_a_record_says_how_the_weights_came_about(learned: Trained, tmp_path: Path) -> None:
    learned.write(tmp_path)
    assert Trained.read(tmp_path) == learned
    record = learned.record
    assert record.table_sha256 == made_up().sha256
    assert record.settings["hidden"] == 8
    assert record.versions["torch"] == torch.__version__
    assert record.cpu_s > 0
    (tmp_path / WEIGHTS_FILE).write_bytes(learned.weights[:-1] + b"x")
    with pytest.raises(ModelRefused, match=r"weights\.safetensors has sha256"):
        Trained.read(tmp_path)
    (tmp_path / RECORD_FILE).write_text("{}")
    with pytest.raises(ModelRefused, match=r"record\.json does not hold"):
        Trained.read(tmp_path)


def _spoilt(where: Any, value: float) -> SequenceTable:
    table = made_up()
    table.values[where] = value
    return table


@pytest.mark.parametrize(
    ("table", "groups", "error", "message"),
    [
        (lambda: _spoilt((slice(None), slice(None), 3), np.nan), STOP, TableRefused, "covariate3 has no number in any"),
        (lambda: _spoilt((slice(None), slice(None), 2), np.inf), STOP, TableRefused, "covariate2 is infinite"),
        (made_up, (), TrainingRefused, r"the validation groups \[\] hold no row"),
        (made_up, (77,), TrainingRefused, r"has no rows of the validation groups \[77\]"),
        (made_up, range(10), TableRefused, "0 rows are too few to learn from"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    tmp_path: Path, table: Callable[[], SequenceTable], groups: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        train(table(), TINY, 0, groups, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_bad_asking_is_refused(learned: Trained, tmp_path: Path) -> None:
    for changes, message in (
        ({"hidden": 0}, "hidden must be a whole number"),
        ({"dropout": 1.0}, "dropout must leave something"),
        ({"beta": 2.0}, "beta must be from 0 to 1"),
        ({"rate": 0.0}, "rate must be above 0"),
    ):
        with pytest.raises(TrainingRefused, match=message):
            Settings(**changes)
    with pytest.raises(TrainingRefused, match="a seed is a whole number"):
        train(made_up(), TINY, -1, STOP, tmp_path)
    with pytest.raises(TrainingRefused, match=r"groups \[1\] are named for validation and withheld"):
        train(made_up(), TINY, 0, STOP, tmp_path, withheld_groups=[1])
    with pytest.raises(TrainingRefused, match="auto, cpu or cuda, not 'tpu'"):
        train(made_up(), TINY, 0, STOP, tmp_path, device="tpu")
    with pytest.raises(InputMismatch, match=r"sequences \(row, 12, 5\) are needed, not \(3, 12, 4\)"):
        learned.predict(np.zeros((3, 12, 4)))
    with pytest.raises(TrainingRefused, match="a lower rate than 1e\\+30 may help"):
        train(made_up(), replace(TINY, rate=1e30), 0, STOP, tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingRefused, match="torch finds no GPU here"):
        train(made_up(), TINY, 0, STOP, tmp_path, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_the_same_thing(learned: Trained, tmp_path: Path) -> None:
    found = train(made_up(), LEARNING, 0, STOP, tmp_path, device="cuda")
    assert found.record.epochs[-1].validation_loss == pytest.approx(learned.record.epochs[-1].validation_loss, abs=0.05)
