"""Rows that no model has learned from, which an exported graph is compared on: those that a map asks."""

import numpy as np
from numpy.typing import NDArray

from services.core.errors import ModelRefused
from services.products.gwsa.coarse import Coarse
from services.products.gwsa.declaration import FACTOR, FINE
from services.products.gwsa.features import features, fine_predictors, smoothed
from services.products.gwsa.inputs import Inputs
from services.products.gwsa.land import land_of
from services.products.gwsa.reach import Reach
from services.products.gwsa.refine import DETAIL_HALO, Blocks

type Floats = NDArray[np.float32]

PLACES = 20
"""Coarse cells that rows are taken from, each in a month of its own (our choice)."""

ROWS = 2000
"""Rows in all, at most (our choice)."""

WHAT = "1/120 degree cells of the region, which no model learned from, and these with each predictor missing in turn"
"""What the rows are, for people."""


def held_out(inputs: Inputs, coarse: Coarse, cells: NDArray[np.bool_], learned: Floats, seed: int) -> Floats:
    """Fine cells of some coarse ones in some months, as a map asks a model of them.

    Training knows coarse cells in larger blocks; here it is fine cells in coarse ones. A row that stands in the
    training table all the same is left out.

    Args:
        inputs: where the predictors are.
        coarse: where values are.
        cells: coarse cells of ``coarse.window`` that have land, ``(Y, X)``.
        learned: the training table, ``(row, feature)``.
        seed: of the choice.

    Returns:
        ``(row, feature)``; NaN where a predictor is missing.

    Raises:
        InputRefused: if a predictor is no longer what it was.
        ModelRefused: if no row is left.
    """
    random = np.random.default_rng(seed)
    places = random.permutation(np.argwhere(cells))[:PLACES]
    months = np.sort(random.choice(inputs.periods.starts, len(places)))
    each = -(-ROWS // max(len(places), 1))
    found = []
    for (row, column), month in zip(places.tolist(), months.tolist(), strict=True):
        cell = Reach(row=coarse.window.row + row, column=coarse.window.column + column, height=1, width=1)
        asked = _asked(inputs, coarse, cell, month)
        found.append(random.permutation(asked)[:each])
    rows = np.concatenate(found) if found else np.empty((0, learned.shape[1]), dtype=np.float32)
    rows = rows[~_among(rows, learned)]
    if not len(rows):
        raise ModelRefused("every 1/120 degree cell that was looked at stands in the training table: nothing is new")
    return rows


def _asked(inputs: Inputs, coarse: Coarse, cell: Reach, month: int) -> Floats:
    """The land of a coarse cell in a month, ``(row, feature)``."""
    wide = cell.grown(DETAIL_HALO)
    fine = wide.times(FACTOR)
    valid = np.isfinite(coarse.read("gwsa", coarse.months[0], wide))
    land = land_of(inputs.land, fine) & np.repeat(np.repeat(valid, FACTOR, 0), FACTOR, 1)
    rows = np.clip(fine.places(FINE)[0], 0, FINE.height - 1)
    blocks = Blocks.of(FACTOR, land, FINE.row_areas[rows])
    predictors = fine_predictors(inputs, month, fine)
    smooth_means = smoothed(blocks, np.stack([blocks.means(one) for one in predictors]))
    side = slice(DETAIL_HALO * FACTOR, -DETAIL_HALO * FACTOR)
    asked: Floats = features(predictors[:, side, side], smooth_means, FACTOR, month)[land[side, side]]
    return asked


def _among(rows: Floats, learned: Floats) -> NDArray[np.bool_]:
    """Which rows stand in a table, ``(row,)``; NaN equals NaN."""
    row = np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))
    # 0.0 makes -0 a 0, so that equal numbers are equal bytes
    given, known = (
        np.ascontiguousarray(np.where(np.isnan(one), np.float32(np.nan), one) + np.float32(0.0))
        for one in (rows, learned)
    )
    among: NDArray[np.bool_] = np.isin(given.view(row).ravel(), known.view(row).ravel())
    return among
