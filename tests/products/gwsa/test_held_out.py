"""Rows that the exported graphs are compared on: none of them was learned from (the sample Earth, synthetic)."""

from pathlib import Path

import numpy as np
import pytest

from models.card import ModelCard
from models.gwsa.train import Trees
from models.predictor import Predictor
from services.core.errors import ModelRefused
from services.pipeline.recipe import Here
from services.products.gwsa.coarse import Coarse
from services.products.gwsa.features import time_features
from services.products.gwsa.held_out import ROWS, WHAT, held_out
from services.products.gwsa.inputs import Inputs
from services.products.gwsa.regions import with_buffer
from services.products.gwsa.table import Table, tabulate
from services.products.gwsa.training import surroundings

pytestmark = pytest.mark.slow  # as a whole


@pytest.fixture(scope="module")
def table(opened: Inputs, coarse: Coarse) -> Table:
    return tabulate(opened, coarse, Here(), lambda _: None)


def learned(coarse: Coarse, table: Table, number: int) -> np.ndarray:
    """The training table of a region."""
    valid = coarse.valid & (table.land > 0)
    near = with_buffer(coarse.read_labels(), number, valid, around=False)
    scene, inner = surroundings(coarse, table, valid, near, table.months)
    top, left = inner.row - coarse.window.row, inner.column - coarse.window.column
    padded = np.pad(near, 64)
    inside = padded[64 + top : 64 + top + inner.height, 64 + left : 64 + left + inner.width]
    return scene.rows(inside, range(len(scene.months)))[0]


def test_no_row_was_learned_from_and_graphs_answer_as_trees(
    models: Path, opened: Inputs, coarse: Coarse, table: Table
) -> None:
    asked = 0
    for number, name in enumerate(coarse.regions):
        rows = np.load(models / name / "rows.npy")
        known = {row.tobytes() for row in learned(coarse, table, number)}
        assert len(known) > 1000
        assert not any(row.tobytes() in known for row in rows)
        assert 500 < len(rows) <= ROWS
        years = {np.float32(time_features(month)["year"]) for month in opened.periods.starts}
        assert len(set(rows[:, list(opened.features).index("year")]) & years) > 5, "many months"
        if not (models / name / "card.json").is_file():
            continue
        asked += 1
        trees, graph = Trees.read(models / name), Predictor.open(models / name)
        for position in range(-1, rows.shape[1]):
            changed = rows.copy()
            if position >= 0:
                changed[:, position] = np.nan
            off = np.abs(trees.predict(changed) - graph.predict(changed)["gwsa"]).max()
            assert off <= 1e-4 * trees.spread
        parity = ModelCard.read(models / name).scores[-1]
        assert parity.split == f"ONNX against XGBoost: {WHAT}"
        assert parity.rows == len(rows)
        assert parity.synthetic
        assert parity.metrics["largest_difference_cm"] <= parity.metrics["largest_allowed_cm"] <= 1e-4 * trees.spread
    assert asked


def test_the_same_seed_holds_out_the_same_rows_and_none_that_is_known(opened: Inputs, coarse: Coarse) -> None:
    cells = np.zeros(coarse.window.shape, dtype=bool)
    row, column = np.argwhere(coarse.valid)[coarse.valid.sum() // 2]
    cells[row, column] = True
    nothing = np.empty((0, len(opened.features)), dtype=np.float32)
    rows = held_out(opened, coarse, cells, nothing, 7)
    np.testing.assert_array_equal(held_out(opened, coarse, cells, nothing, 7), rows)
    assert len(rows) == 900, "all fine cells of the one coarse cell"
    known = rows[:400].copy()
    known[known == 0] = -0.0
    np.testing.assert_array_equal(held_out(opened, coarse, cells, known, 7), rows[400:])
    with pytest.raises(ModelRefused, match="stands in the training table: nothing is new"):
        held_out(opened, coarse, cells, rows, 7)
