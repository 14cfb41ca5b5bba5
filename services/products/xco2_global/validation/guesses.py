"""What is obvious of XCO2 at some points: what every score stands beside.

- climatology_trend: constant, trend and HARMONICS of the year, smooth in space (polynomials of the place);
- background: the product's, fitted to the same cells; of a version: the model's own;
- nearest, inverse_distance: of the month's other cells; of a month without any, the last year's and the growth since;
- xgboost: departures from the background, learned from the network's inputs (last month and mean of the twelve).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from services.core.errors import InputRefused
from services.products.xco2_global.background import Background, fit
from services.products.xco2_global.inputs import Inputs
from services.products.xco2_global.table import FIRST_ERROR, fitted, seen
from services.products.xco2_global.validation.points import (
    Floats,
    Known,
    Points,
    Values,
    drawn,
    features,
    of_whole_months,
    thinned,
)
from services.products.xco2_global.validation.published import Published
from services.products.xco2_global.validation.splits import labels
from services.validation import baselines
from services.validation.report import NotComputed, Note

DEGREE = 3
"""Of the polynomials of the place in the climatology (our choice: 120 terms)."""

CHOICES = (2, 4, 8, 16, 32, 64, 128)
"""Neighbours that inverse distances may be of."""

PARTS = 5
"""Folds in which it is chosen, or as many as there are blocks."""

TUNED_MONTHS = 6
"""Spread evenly, in which the number of neighbours is chosen (our choice: it takes its time)."""

LEAST_ROWS = 150
"""Cells that a climatology of so many terms and trees need (our choice)."""

TREES = "xgboost"

type Trees = Callable[[Floats], Values]


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """Fitted to cells with soundings; nothing of the points that are asked but where and when they are."""

    source: Inputs
    near: Known
    """Cells among which neighbours are looked for."""

    learned: Known
    """Cells that all else is fitted to."""

    background: Background
    nearest: int
    """Neighbours of the inverse distances."""

    trees: Trees | None
    without: str
    """Why there are no trees."""

    def said(self, asked: Points, features: Floats | None, *, last_year: bool = False) -> dict[str, Values]:
        """XCO2 at points, ppm, ``(point,)`` for each name; NaN where there is nothing to go by.

        Args:
            asked: where and when.
            features: what trees get there; None: no trees are asked.
            last_year: whether neighbours are those of the month of the year before, as nothing of it is known.
        """
        grid = self.source.settings.grid
        rows, known, near = asked.rows(grid), self.learned.at.rows(grid), self.near.at.rows(grid)
        background = self.background.at(asked.month, asked.row, asked.column, grid)
        found = {
            "climatology_trend": baselines.climatology_trend(known, self.learned.xco2, rows, degree=DEGREE),
            "background": background,
        }
        for name, count in (("nearest", 1), ("inverse_distance", self.nearest)):
            values = (
                np.full(len(asked), np.nan)
                if last_year
                else baselines.inverse_distance(near, self.near.xco2, rows, nearest=count)
            )
            lost = np.isnan(values)
            if lost.any():
                then = rows.take(lost)
                values[lost] = baselines.last_year(near, self.near.xco2, then, nearest=count)
            found[name] = values
        if self.trees is not None and features is not None:
            found[TREES] = background + self.trees(features)
        return found


def guesses(
    source: Inputs,
    near: Known,
    learned: tuple[Known, Floats | None],
    labels: NDArray[np.integer[Any]],
    seed: int,
    *,
    background: Background | None = None,
) -> Guesses:
    """Fit all.

    Args:
        source: the inputs.
        near: cells among which neighbours are looked for.
        learned: cells that all else is fitted to, and what trees get there, ``(cell, feature)``; None: no trees.
        labels: of blocks of ``near``, of which the number of neighbours is chosen, ``(cell,)`` or ``(cell, part)``.
        seed: of blocks and trees.
        background: one that is fitted already.

    Raises:
        InputRefused: if there are too few cells.
    """
    cells, features = learned
    weights = 1 / (FIRST_ERROR**2 + cells.error**2)
    if background is None:
        background = fit(source, cells.at.month, cells.at.row, cells.at.column, cells.xco2, weights)
    trees, without = _trees(source, cells, features, background, weights, seed)
    months = np.unique(near.at.month)
    tuned = months[np.unique(np.linspace(0, len(months) - 1, min(len(months), TUNED_MONTHS)).round().astype(int))]
    here = np.isin(near.at.month, tuned)
    parts = min(PARTS, len(np.unique(labels[here], axis=0)))
    return Guesses(
        source=source,
        near=near,
        learned=cells,
        background=background,
        nearest=baselines.best_nearest(
            near.at.take(here).rows(source.settings.grid),
            near.xco2[here],
            labels[here],
            choices=CHOICES,
            parts=parts,
            seed=seed,
        ),
        trees=trees,
        without=without,
    )


def of_all_cells(published: Published, seed: int, note: Note) -> Guesses:
    """Fitted to all cells with soundings that the version was made from; the background is the model's own.

    Raises:
        NotComputed: if there are too few cells.
    """
    source = published.source
    try:
        cells = seen(source, published.observed, seed)
        cells = of_whole_months(cells, fitted(source, cells))
        near = Known.of(cells, thinned(cells.month, seed))
        # as many as the network draws: what trees learn from fewer says nothing of the network
        learned = near.take(drawn(len(near), source.settings.training.rows, seed))
        note(f"guesses: they learn from {len(learned)} of {len(cells)} cells with soundings")
        background = None if published.network is None else published.network.background(source)
        blocks = labels("space_time", near.at.rows(source.settings.grid))
        return guesses(source, near, (learned, features(source, learned.at)), blocks, seed, background=background)
    except InputRefused as reason:
        raise NotComputed(str(reason)) from None


def _trees(
    source: Inputs, cells: Known, features: Floats | None, background: Background, weights: Values, seed: int
) -> tuple[Trees | None, str]:
    """What learned departures, or why there is none."""
    if features is None:
        return None, "nothing was given to learn from"
    try:
        from models.xco2_global.native import fit as grow  # noqa: PLC0415 - xgboost is there only with the train extra
    except ModuleNotFoundError as error:
        return None, (
            f"it needs the package {error.name}: `.venv/bin/pip install -c constraints.txt xgboost-cpu` installs it "
            "(not on Linux: xgboost), elsewhere cenote's train extra"
        )
    at = cells.at
    target = cells.xco2 - background.at(at.month, at.row, at.column, source.settings.grid)
    usable = ~np.isnan(target)
    try:
        return grow(features[usable], target[usable].astype(np.float32), weights[usable].astype(np.float32), seed), ""
    except ModelError as error:
        return None, str(error)
