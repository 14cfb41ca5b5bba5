"""Which of the twelve months the network looks at: its attention, by band of latitude and season."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.xco2_global.signature import MONTHS
from services.core.grid import Window
from services.products.xco2_global.covariates import sequences
from services.products.xco2_global.validation.published import Published
from services.validation.report import NotComputed, Rows

BANDS = 6
"""Of latitude, of equal heights, of what the version covers."""

ROWS, CELLS = 2, 300
"""Rows of cells that are asked in a band, and cells of each at most (our choice: seconds)."""

SEASON = 12
"""Last months of the version that are asked: a year at most, every third of it."""


def attention(published: Published) -> tuple[dict[str, Any], Rows]:
    """Mean shares of the months in the network's answers.

    Returns:
        Numbers, and a row for each band and asked month with ``months_before_0`` (the month itself) to
        ``months_before_11``; the shares of a row add up to 1.

    Raises:
        NotComputed: if the model was not given.
    """
    network, dataset = published.the_network, published.dataset
    if not len(dataset.time):
        raise NotComputed("no month is published")
    grid = dataset.product.grid
    table: Rows = []
    total, cells = np.zeros(MONTHS), 0
    for month in dataset.time.starts[-SEASON::3]:
        for part in np.array_split(np.arange(grid.height), min(BANDS, grid.height)):
            shares = np.concatenate([_shares(published, month, int(row)) for row in _spread(part, ROWS)])
            looked = shares.mean(axis=0, dtype=np.float64)[::-1]
            edges = float(grid.north) - float(grid.step_y) * np.array([part[-1] + 1, part[0]])
            table.append(
                {
                    "month": str(np.datetime64(month, "M")),
                    "south": round(float(edges[0]), 4),
                    "north": round(float(edges[1]), 4),
                    "cells": len(shares),
                    **{f"months_before_{lag}": round(float(share), 4) for lag, share in enumerate(looked)},
                }
            )
            total, cells = total + looked * len(shares), cells + len(shares)
    return {
        "synthetic": published.synthetic,
        "model": network.digest,
        "cells": cells,
        "mean_share_of_months_before": [round(float(share), 4) for share in total / cells],
    }, table


def _shares(published: Published, month: int, row: int) -> NDArray[np.float32]:
    """Attention in some cells of a row of the version, ``(cell, 12)``, oldest month first."""
    window = Window(row=row, column=0, height=1, width=published.dataset.product.grid.width)
    asked = sequences(published.source, month, published.whole(window))
    return published.the_network.attention(asked[_spread(np.arange(len(asked)), CELLS)])


def _spread(numbers: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """So many of them at most, evenly from all."""
    count = min(most, len(numbers))
    return numbers[((np.arange(count) + 0.5) * len(numbers) / count).astype(np.int64)]
