"""Which rows are held out together: at random, by place, by time, or by both; folds are dealt out by a seed.

Rows of one block are alike, so a fold that splits a block tells how well values are copied from next to them. Blocks
are dealt in the order of their labels, so that neither the order of rows nor their number shows.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused

type Labels = NDArray[np.integer[Any]]
"""``(row,)``, or ``(row, part)`` for labels of several parts."""

type Floats = NDArray[np.floating[Any]]


def dealt(labels: Labels, folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each row, ``(row,)``, 0..folds-1: blocks in the order of their labels, permuted.

    Every fold gets as many blocks as the others, or one more.

    Raises:
        InputRefused: if there are fewer blocks than folds, or fewer than two folds.
    """
    blocks, which = _numbered(labels)
    if not 2 <= folds <= blocks:
        raise InputRefused(f"{blocks} blocks cannot be dealt to {folds} folds, of which there are two at least")
    found: NDArray[np.int64] = np.random.default_rng(seed).permutation(np.arange(blocks) % folds)[which]
    return found


def withheld(labels: Labels, share: float, seed: int) -> NDArray[np.bool_]:
    """Which rows lie in the blocks held out, ``(row,)``: a share of the blocks, rounded, at least one and never all.

    Raises:
        InputRefused: if the share leaves nothing, or there are fewer than two blocks.
    """
    blocks, which = _numbered(labels)
    if not 0 < share < 1 or blocks < 2:
        raise InputRefused(f"a share of {share} of {blocks} blocks cannot be held out and learned without")
    count = min(max(round(share * blocks), 1), blocks - 1)
    found: NDArray[np.bool_] = (np.random.default_rng(seed).permutation(blocks) < count)[which]
    return found


def _numbered(labels: Labels) -> tuple[int, NDArray[np.int64]]:
    """How many blocks there are, and the place of each row's among them, ``(row,)``, in the order of their labels.

    Labels of several parts are made one number each, whose order is theirs: sorting rows of parts takes ten times the
    memory.
    """
    parts = labels.reshape(len(labels), -1)
    if not parts.size:
        return 0, np.zeros(0, dtype=np.int64)
    number = np.zeros(len(parts), dtype=np.int64)
    for part in parts.T:
        low, high = int(part.min()), int(part.max())
        number = number * (high - low + 1) + part - low
    blocks, which = np.unique(number, return_inverse=True)
    return len(blocks), which


def samples(rows: int) -> NDArray[np.int64]:
    """Every row a block of its own: what random folds are made of. Rows along one track leak to each other."""
    return np.arange(rows)


def space(longitude: Floats, latitude: Floats, degrees: float) -> NDArray[np.int64]:
    """Squares of some degrees, ``(row, 2)``, their edges at whole multiples from 180 W and the equator.

    Raises:
        InputRefused: if squares do not go round the earth in a whole number.
    """
    around = 360.0 / degrees if degrees > 0 else 0.0
    if around < 1 or abs(around - round(around)) > 1e-9:
        raise InputRefused(f"squares of {degrees:g} degrees do not go round the earth in a whole number")
    column = np.floor(((np.asarray(longitude, dtype=np.float64) + 180.0) % 360.0) / degrees).astype(np.int64)
    row = np.floor(np.asarray(latitude, dtype=np.float64) / degrees).astype(np.int64)
    return np.stack([row, column % round(around)], axis=1)


def time(months: Labels, run: int = 12) -> NDArray[np.int64]:
    """Runs of months since 1970-01, ``(row,)``; twelve are calendar years.

    Raises:
        InputRefused: if a run has no month.
    """
    if run < 1:
        raise InputRefused(f"a run of {run} months holds out nothing")
    return np.asarray(months, dtype=np.int64) // run


def space_time(longitude: Floats, latitude: Floats, months: Labels, degrees: float, run: int = 1) -> NDArray[np.int64]:
    """Squares of some degrees in runs of months, ``(row, 3)``."""
    return np.column_stack([time(months, run), space(longitude, latitude, degrees)])
