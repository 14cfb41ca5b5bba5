"""Training, its factor of the spread, and its end put off."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.xco2_global.table import SequenceTable
from services.core.errors import ModelRefused
from services.products.xco2_global import export, train
from services.products.xco2_global.inputs import Inputs
from services.products.xco2_global.observed import Observed
from services.products.xco2_global.residuals import spread_factor
from services.products.xco2_global.table import SCORED, STOPPING, seen

pytest.importorskip("torch", reason="it trains networks")


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.5])
def test_the_factor_of_a_spread_that_is_wrong_by_it(factor: float) -> None:
    spread = np.full(4, 0.8, dtype=np.float32)
    # residuals whose mean square is exactly what the true spread and the errors say
    error = np.full(4, 0.6, dtype=np.float32)
    size = float(np.sqrt((factor * 0.8) ** 2 + 0.6**2))
    residual = np.array([size, -size, size, -size], dtype=np.float32)
    assert spread_factor(residual, spread, error) == pytest.approx(factor, rel=2e-4)


def test_the_factor_of_many_draws() -> None:
    generator = np.random.default_rng(0)
    spread, error = (generator.uniform(*ends, 60_000).astype(np.float32) for ends in ((0.3, 1.5), (0.1, 0.9)))
    residual = generator.normal(0, np.sqrt((1.7 * spread) ** 2 + error**2)).astype(np.float32)
    assert spread_factor(residual, spread, error) == pytest.approx(1.7, abs=0.02)
    # residuals of none at all, or that nothing explains
    assert spread_factor(np.zeros(5, dtype=np.float32), spread[:5], error[:5]) == pytest.approx(0.1)
    assert spread_factor(np.full(5, 1e3, dtype=np.float32), spread[:5], error[:5]) == pytest.approx(10.0)


def test_what_it_writes(trained: Path, opened: Inputs) -> None:
    table = SequenceTable.read(trained / "table")
    cells = seen(opened, Observed.of(opened), 0)
    groups = table.rows["group"]
    assert len(table) == len(cells)
    np.testing.assert_array_equal(groups, cells.group)
    record = json.loads((trained / "record.json").read_text())
    assert (record["validation_groups"], record["withheld_groups"]) == ([STOPPING], [SCORED])
    assert record["rows"] == int((~np.isin(groups, [STOPPING, SCORED])).sum())
    assert record["settings"]["hidden"] == 8
    assert record["synthetic"]
    scores = json.loads((trained / "scores.json").read_text())
    own = table.rows[groups == SCORED]
    assert scores["cells"] == len(own)
    # targets are departures of the background, so that its own score is theirs
    assert scores["rmse_of_background_ppm"] == pytest.approx(float(np.sqrt(np.mean(own["target"] ** 2.0))), abs=1e-3)
    assert 0 < scores["rmse_ppm"] < 5
    # whole blocks of 10 degrees and a month are in one group
    block = np.stack(
        [
            cells.month,
            np.floor(opened.settings.grid.latitudes[cells.row] / 10),
            np.floor((opened.settings.grid.longitudes[cells.column] + 180) / 10),
        ],
        axis=1,
    )
    _, which = np.unique(block, axis=0, return_inverse=True)
    for number in np.unique(which.ravel())[::7]:
        assert len(set(cells.group[which.ravel() == number].tolist())) == 1


def test_ended_and_taken_up_again_gives_the_same(written: Path, trained: Path, tmp_path: Path) -> None:
    class Ended(Exception):
        pass

    def until_the_first_epoch(text: str) -> None:
        if text.startswith("epoch 1 "):
            raise Ended

    with pytest.raises(Ended):
        train(written, tmp_path, 0, until_the_first_epoch)
    assert not (tmp_path / "record.json").exists()
    told: list[str] = []
    train(written, tmp_path, 0, told.append)
    assert "going on after epoch 1" in told
    assert json.loads((tmp_path / "record.json").read_text())["resumed"] == 1
    for name in ("weights.safetensors", "background.json", "scores.json"):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes(), name


def test_export_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="is not what `cenote train xco2_global` writes"):
        export(tmp_path, tmp_path / "out", lambda _: None)
