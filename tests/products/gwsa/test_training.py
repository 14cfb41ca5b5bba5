"""Regions learned on a cluster: one by each worker, or one by all of them together (the sample Earth, synthetic)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from models.gwsa import train as learning
from models.gwsa.train import Trees
from services.pipeline import run as running
from services.products.gwsa import training
from services.products.gwsa.coarse import Coarse
from services.products.gwsa.training import train

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def client() -> Iterator[Client]:
    with running.cluster(2) as client:
        assert client is not None
        client.wait_for_workers(2)
        yield client


def test_a_region_of_many_rows_is_learned_by_all_workers_together(
    client: Client, written: Path, coarse: Coarse, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {name: Trees.read(models / name) for name in coarse.regions}
    large = max(alone, key=lambda name: alone[name].rows)
    counts = sorted(trees.rows for trees in alone.values())
    monkeypatch.setattr(training, "TOGETHER_ROWS", (counts[-2] + counts[-1]) // 2)
    asked: list[tuple[int, bool]] = []
    fit = learning.fit

    def watched(features: Any, *given: Any, **named: Any) -> Trees:
        asked.append((len(features), named["client"] is client))
        return fit(features, *given, **named)

    monkeypatch.setattr(learning, "fit", watched)  # in this process; the workers have the module of their own
    said: list[str] = []
    train(written, tmp_path / "out", 0, said.append, running.each(client))
    assert asked[0] == (alone[large].rows, True)
    assert all(by_all for _, by_all in asked), "folds too"
    assert len(asked) > 2
    assert [line for line in said if "learned by all workers at once" in line] == [
        line for line in said if line.startswith(f"{large} (3 of 3)")
    ]
    told, before = (json.loads((place / "trained.json").read_text()) for place in (tmp_path / "out", models))
    assert [entry["name"] for entry in told["regions"]] == list(coarse.regions)
    for name, trees in alone.items():
        found = Trees.read(tmp_path / "out" / name)
        assert found.table_sha256 == trees.table_sha256
        assert (found.booster != trees.booster) == (name == large), "a worker alone learns what this process does"
        rows = np.load(tmp_path / "out" / name / "rows.npy")
        # measured: 0.89; with 60 months of predictors 0.94, and 1.467 cm left beside 1.465
        assert np.corrcoef(found.predict(rows), trees.predict(rows))[0, 1] > 0.85
    for one, other in zip(told["regions"], before["regions"], strict=True):
        assert one["sigma_cm"] == pytest.approx(other["sigma_cm"], rel=0.05 if one["name"] == large else 1e-12)
