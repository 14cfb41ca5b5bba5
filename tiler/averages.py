"""Pixels as means of the cells under them: what ``resampling=average`` draws of a level that is finer than the image.

Each valid cell weighs as much of the pixel as it covers, in degrees along each axis, as GDAL's filter of that name has
it (tests/tiler/test_warp.py); a pixel that shares ground with no valid cell is missing. Rows and columns are weighed
one after the other, with weights that are worked out once for a tile's place.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.core.grid import CIRCLE, Grid
from services.core.quantity import Quantity
from tiler.gather import Axis, Separable
from tiler.warp import Float, Index, Level, Target, fractional

_NOTHING = 1e-9
"""Share of a pixel below which a cell covers nothing of it."""


class _Weights(NamedTuple):
    """How cells along one axis make up the pixels."""

    cells: Index
    """The cells that are needed, one after the other."""

    at: Index
    """Place in ``cells`` of each part of a pixel ``(parts, pixels)``."""

    shares: Float
    """Its weight; 0 where there is none."""


class Averages:
    """The cells under the pixels of a separable image, and how much of each pixel they cover."""

    def __init__(self, grid: Grid, rows: _Weights, columns: _Weights) -> None:
        self._rows, self._columns = rows, columns
        self._cells = Separable(Axis(rows.cells, grid.chunk_y), Axis(columns.cells, grid.chunk_x))
        self.chunks = self._cells.chunks
        weights = (*rows, *columns)
        self.bytes = self._cells.bytes + sum(array.nbytes for array in weights)

    def values(self, chunks: Sequence[NDArray[Any]], quantity: Quantity) -> NDArray[np.floating[Any]]:
        """Decoded means ``(y, x)``; NaN is missing.

        Args:
            chunks: those of ``chunks``, each ``(y, x)``.
            quantity: whose values they are.
        """
        taken = self._cells.taken(chunks, quantity.fill)
        decoded = quantity.decode(self._cells.spread(taken))
        missing = np.isnan(decoded)
        if missing.any():
            total = self._summed(np.where(missing, 0.0, decoded))
            weights = self._summed((~missing).astype(np.float64))
        else:
            total = self._summed(decoded.astype(np.float64))
            weights = self._rows.shares.sum(axis=0)[:, np.newaxis] * self._columns.shares.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            total /= weights
        total[weights <= 0] = np.nan
        return total

    def _summed(self, cells: Float) -> Float:
        """Weighted sums over the pixels of values of all cells."""
        lines = np.zeros((self._rows.at.shape[1], cells.shape[1]))
        for at, share in zip(self._rows.at, self._rows.shares, strict=True):
            lines += cells[at] * share[:, np.newaxis]
        out = np.zeros((lines.shape[0], self._columns.at.shape[1]))
        for at, share in zip(self._columns.at, self._columns.shares, strict=True):
            out += lines.take(at, axis=1) * share
        return out


def averages_of(grid: Grid, target: Target, *, is_global: bool) -> Averages:
    """The cells under the pixels of a separable target.

    Args:
        grid: of the level that is read.
        target: the pixels.
        is_global: whether the level's first column lies beside its last.
    """
    longitudes, _ = target.centres
    half = target.pixel_degrees / float(grid.step_x) / 2
    x, edges = fractional(grid, longitudes, target.row_edges)
    if is_global:
        # from the first pixel on in one piece, however often it goes round
        x = x[0] + np.arange(len(x)) * (2 * half)
    else:
        # what begins west of the grid was turned to its other side
        x = np.where(x - half > grid.width, x - float(CIRCLE / grid.step_x), x)
    return Averages(
        grid,
        _weights(edges[:-1], edges[1:], grid.height, is_closed=False),
        _weights(x - half, x + half, grid.width, is_closed=is_global),
    )


def averaged(level: Level, target: Target, most: int) -> NDArray[np.floating[Any]]:
    """Decoded means ``(y, x)`` under the pixels of a separable target; NaN is missing.

    Args:
        level: where values come from.
        target: where they go.
        most: cells that may be read.

    Raises:
        RequestTooLarge: before anything is read.
    """
    cells = averages_of(level.grid, target, is_global=level.dataset.product.grid.is_global)
    chunks = level.chunks(list(cells.chunks), most)
    return cells.values([chunks[place] for place in cells.chunks], level.quantity)


def _weights(first: Float, last: Float, count: int, *, is_closed: bool) -> _Weights:
    """The cells between the edges of each pixel, counted in cells, and how much of them lies there."""
    # a projection may reach further than the Earth
    nowhere = ~(np.isfinite(first) & np.isfinite(last))
    first, last = np.where(nowhere, -1.0, first), np.where(nowhere, -1.0, last)
    start = np.floor(first).astype(np.int64)
    parts = int((np.ceil(last).astype(np.int64) - start).max(initial=1))
    cells = start + np.arange(max(parts, 1))[:, np.newaxis]
    shares = np.clip(np.minimum(last, cells + 1) - np.maximum(first, cells), 0.0, None)
    # where edges of pixels and cells are the same, what rounding leaves is no ground
    shares[shares < _NOTHING * (last - first)] = 0.0
    if not is_closed:
        shares[(cells < 0) | (cells >= count)] = 0.0
    used = cells[shares > 0]
    if not used.size:
        return _Weights(np.zeros(1, dtype=np.int64), np.zeros_like(cells), shares)
    low, high = int(used.min()), int(used.max())
    needed = np.arange(low, high + 1)
    return _Weights(needed % count if is_closed else needed, np.clip(cells - low, 0, high - low), shares)
