"""Which cells with soundings are held out together, in four ways."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.products.xco2_global.table import BLOCK, BLOCK_MONTHS
from services.validation import folds
from services.validation.baselines import Rows

if TYPE_CHECKING:
    from collections.abc import Callable

SPLITS = ("sample", "space", "time", "space_time")

MOST_ROWS = 20_000
"""Cells that are learned from and scored, drawn evenly (our choice: 20 fits of trees)."""


def labels(split: str, rows: Rows) -> NDArray[np.int64]:
    """Of the blocks that are held out together, ``(row,)`` or ``(row, part)``."""
    makes: dict[str, Callable[[], NDArray[np.int64]]] = {
        "sample": lambda: folds.samples(len(rows)),
        "space": lambda: folds.space(rows.longitude, rows.latitude, BLOCK),
        "time": lambda: folds.time(rows.month),
        "space_time": lambda: folds.space_time(rows.longitude, rows.latitude, rows.month, BLOCK, BLOCK_MONTHS),
    }
    return makes[split]()
