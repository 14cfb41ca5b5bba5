"""Cells with soundings held out in four ways, and what the others say of them.

- sample: cells and months at random; along a track the next cell is as good as a copy, so that this is too kind;
- space: squares of BLOCK degrees, all months;
- time: calendar years; neighbours are those of the month of the year before;
- space_time: squares of BLOCK degrees in a month, as the network is held out from.

A network takes too long to learn for each fold: these are of what learns in seconds from the same inputs. The network
has the blocks that its own training held out, and ``held_out`` puts it beside the same guesses on these.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.predictor import Predictor
from services.core.errors import InputRefused
from services.products.xco2_global.table import BLOCK, BLOCK_MONTHS, SCORED, Seen, fitted, seen
from services.products.xco2_global.validation.guesses import LEAST_ROWS, guesses
from services.products.xco2_global.validation.points import (
    Floats,
    Known,
    Values,
    drawn,
    features,
    of_whole_months,
    said_by,
    thinned,
)
from services.products.xco2_global.validation.published import Published
from services.products.xco2_global.validation.scores import INTERVAL, compared, table
from services.products.xco2_global.validation.splits import MOST_ROWS, SPLITS, labels
from services.validation import agreement, folds
from services.validation.report import NotComputed, Note, Rows

FOLDS = 5

MOST_HELD_OUT = 20_000
"""Of the network's held-out cells that are scored."""

NETWORK_ALONE = "the network takes too long to learn for each fold; held_out scores it on the blocks it never saw"


def cross_validated(published: Published, seed: int, note: Note) -> tuple[dict[str, Any], Rows]:
    """Hold out, fit and compare, in all ways.

    Returns:
        JSON data, and a row for each way and method.

    Raises:
        NotComputed: if there are too few cells.
    """
    source = published.source
    cells = seen(source, published.observed, seed)
    cells = of_whole_months(cells, fitted(source, cells))
    near = Known.of(cells, thinned(cells.month, seed))
    chosen = drawn(len(near), MOST_ROWS, seed)
    if len(chosen) < LEAST_ROWS:
        raise NotComputed(f"{len(chosen)} cells with soundings are too few to hold some out; {LEAST_ROWS} are needed")
    note(f"folds: covariates of {len(chosen)} cells")
    inputs = features(source, near.at.take(chosen))
    told: dict[str, Any] = {}
    rows: Rows = []
    for split in SPLITS:
        try:
            said, without = held_out(published, near, (chosen, inputs), split, seed, note)
            found = compared(said, near.xco2[chosen])
        except (NotComputed, InputRefused) as reason:
            told[split] = {"not_computed": str(reason)}
            note(f"folds, {split}: not computed: {reason}")
            continue
        told[split] = found if not without else {**found, "without_trees": without}
        rows += table(found, split=split)
    return {
        "synthetic": published.synthetic,
        "cells": len(cells),
        "folds": FOLDS,
        "block_degrees": BLOCK,
        "block_months": BLOCK_MONTHS,
        "seed": seed,
        "network": NETWORK_ALONE,
        "reference": "monthly means of cells with soundings, whose own errors are in every score",
        **told,
    }, rows


def held_out(
    published: Published, near: Known, chosen: tuple[NDArray[np.int64], Floats], split: str, seed: int, note: Note
) -> tuple[dict[str, Values], str]:
    """What is said of each chosen cell by what was fitted without its fold.

    Args:
        published: the version.
        near: all cells.
        chosen: numbers of those that are learned from and scored, and what trees get there.
        split: one of SPLITS.
        seed: of folds and trees.
        note: told how far it is.

    Returns:
        ppm, ``(chosen,)`` for each method, and why there are no trees.
    """
    numbers, inputs = chosen
    places = near.at.rows(published.source.settings.grid)
    own = labels(split, places)
    # a month that is held out whole leaves no neighbours to choose a number of
    tuned = labels("space_time", places) if split == "time" else own
    parts = min(FOLDS, len(np.unique(own, axis=0)))
    fold = folds.dealt(own, parts, seed)
    said: dict[str, Values] = {}
    without = ""
    for part in range(parts):
        note(f"folds: {split}, {part + 1} of {parts}")
        kept = fold != part
        asked, learned = numbers[~kept[numbers]], kept[numbers]
        fitted_to = (near.take(numbers[learned]), inputs[learned])
        ready = guesses(published.source, near.take(kept), fitted_to, tuned[kept], seed)
        without = ready.without
        answers = ready.said(near.at.take(asked), inputs[~learned], last_year=split == "time")
        for name, values in answers.items():
            said.setdefault(name, np.full(len(numbers), np.nan))[~learned] = values
    return said, without


def held_out_network(published: Published, note: Note) -> tuple[dict[str, Any], Rows]:
    """The network on the blocks that its training withheld, beside guesses that are fitted to all other cells.

    Returns:
        JSON data, and a row for each method.

    Raises:
        NotComputed: if the network is not given, or learned from other cells than there are here.
    """
    network, source = published.the_network, published.source
    card = Predictor.open(network.directory).card
    cells = seen(source, published.observed, card.training.seed)
    _check_background(published, cells)
    cells = of_whole_months(cells, network.background(source))
    scored = np.flatnonzero(cells.group == SCORED)
    scored = scored[drawn(len(scored), MOST_HELD_OUT, card.training.seed)]
    asked = Known.of(cells, scored)
    near = Known.of(cells, (cells.group != SCORED) & thinned(cells.month, card.training.seed))
    chosen = drawn(len(near), source.settings.training.rows, card.training.seed)
    learned = near.take(chosen)
    note(f"held out: {len(asked)} cells, guesses learn from {len(learned)}")
    grid = source.settings.grid
    blocks = labels("space_time", near.at.rows(grid))
    ready = guesses(source, near, (learned, features(source, learned.at)), blocks, card.training.seed)
    values, spread = said_by(network, source, asked.at)
    said = {"network": values, **ready.said(asked.at, features(source, asked.at))}
    found = compared(said, asked.xco2, labels("space_time", asked.at.rows(grid)), "network")
    known = np.isfinite(values)
    sigma = np.sqrt(spread[known] ** 2 + asked.error[known] ** 2)
    found |= {
        "synthetic": published.synthetic,
        "split": f"blocks of {BLOCK:g} degrees and {BLOCK_MONTHS} month that training withheld, seed "
        f"{card.training.seed}",
        "reference": "monthly means of cells with soundings, whose own errors are in every score",
        "network": "background and network alone: no sounding of the month, near or in the cell",
        "neighbours": ready.nearest,
        f"within_{INTERVAL * 100:g}_percent_interval": agreement.coverage(
            values[known], asked.xco2[known], sigma, level=INTERVAL
        ),
        "card": [one.metrics for one in card.scores],
    }
    if ready.without:
        found["without_trees"] = ready.without
    return found, table(found)


def _check_background(published: Published, cells: Seen) -> None:
    """The background is fitted to the cells that were learned from: another one tells of other cells or groups."""
    known = published.the_network.fitted
    mine = np.array(fitted(published.source, cells, like=known).fitted.coefficients)
    theirs = np.array(known.coefficients)
    if mine.shape != theirs.shape or not np.allclose(mine, theirs, rtol=1e-5, atol=1e-4):
        raise NotComputed(
            "the network learned from other cells than these inputs hold, so that which it never saw is not known"
        )
