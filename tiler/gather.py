"""Which cells lie under the pixels of a tile, worked out once, and their values taken from the chunks that hold them.

The same cells as ``tiler.warp.Gather`` finds, which works them out anew for each image: a tile's place is asked for
again and again, for other periods and quantities on the same grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Grid
from services.core.quantity import Quantity
from tiler.warp import OUTSIDE, Float, Index, Target, columns_under, fractional, rows_under

WINDOWED = 0.7
"""Cells for each pixel below which all cells under a tile are drawn and then spread over its pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Neighbouring pixels along one axis whose cells lie in one chunk."""

    chunk: int
    """Place of the chunk among ``Axis.chunks``."""

    pixels: slice
    window: slice
    """The cells of the chunk that hold them all."""

    cells: NDArray[np.intp]
    """Of each pixel, counted inside the window."""


class Axis:
    """The cells along one axis of an image.

    Args:
        cells: for each pixel its cell; ``OUTSIDE`` where there is none.
        length: cells of a chunk.
    """

    def __init__(self, cells: Index, length: int) -> None:
        numbers = cells // length
        edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(cells)]
        places = [int(numbers[edge]) for edge in edges[:-1]]
        self.size = len(cells)
        self.chunks = sorted({number for number in places if number >= 0})
        self.within: NDArray[np.intp] = np.empty(len(cells), dtype=np.intp)
        """Place of each pixel's cell in the windows, one after the other; ``count`` where there is none."""

        runs, self.count = [], 0
        outside = []
        for number, (first, stop) in zip(places, pairwise(edges), strict=True):
            if number < 0:
                outside.append(slice(first, stop))
                continue
            inside = (cells[first:stop] - number * length).astype(np.intp)
            low, high = int(inside.min()), int(inside.max()) + 1
            inside -= low
            self.within[first:stop] = inside + self.count
            self.count += high - low
            runs.append(
                Run(
                    chunk=self.chunks.index(number),
                    pixels=slice(first, stop),
                    window=slice(low, high),
                    cells=inside,
                )
            )
        for pixels in outside:
            self.within[pixels] = self.count
        self.runs = tuple(runs)
        self.is_covered = not outside

    @property
    def bytes(self) -> int:
        """Memory."""
        return 2 * self.within.nbytes + 400 * (1 + len(self.runs))


class Places(Protocol):
    """Where the values of a tile are."""

    chunks: tuple[tuple[int, int], ...]
    """The chunks that are touched, by row and column."""

    bytes: int
    """Memory."""

    def taken(self, chunks: Sequence[NDArray[Any]], fill: np.generic) -> NDArray[Any]:
        """The values that ``spread`` makes a tile of.

        Args:
            chunks: those of ``chunks``, each ``(y, x)``.
            fill: what is where no cell lies.
        """
        ...

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """What was taken, or made of it value by value, over the pixels ``(y, x)``."""
        ...


class Separable:
    """Places of a tile whose rows have one latitude and whose columns have one longitude."""

    def __init__(self, rows: Axis, columns: Axis) -> None:
        self._rows, self._columns = rows, columns
        self._is_covered = rows.is_covered and columns.is_covered
        self._is_windowed = (rows.count + 1) * (columns.count + 1) < WINDOWED * rows.size * columns.size
        self.chunks = tuple((y, x) for y in rows.chunks for x in columns.chunks)
        self.bytes = rows.bytes + columns.bytes + 500

    def taken(self, chunks: Sequence[NDArray[Any]], fill: np.generic) -> NDArray[Any]:
        """The values that ``spread`` makes a tile of (``Places``)."""
        return self._window(chunks, fill) if self._is_windowed else self._pixels(chunks, fill)

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """What was taken over the pixels (``Places``)."""
        if not self._is_windowed:
            return values
        return values.take(self._columns.within, axis=1, mode="clip").take(self._rows.within, axis=0, mode="clip")

    def _window(self, chunks: Sequence[NDArray[Any]], fill: np.generic) -> NDArray[Any]:
        """All cells under the tile, with a row and a column more for pixels that no cell lies under."""
        rows, columns = self._rows, self._columns
        across = len(columns.chunks)
        if self._is_covered:
            if len(rows.runs) == len(columns.runs) == 1:
                return np.ascontiguousarray(chunks[0][rows.runs[0].window, columns.runs[0].window])
            out = np.empty((rows.count, columns.count), dtype=fill.dtype)
        else:
            out = np.full((rows.count + 1, columns.count + 1), fill)
        top = 0
        for row in rows.runs:
            bottom = top + row.window.stop - row.window.start
            left = 0
            for column in columns.runs:
                right = left + column.window.stop - column.window.start
                out[top:bottom, left:right] = chunks[row.chunk * across + column.chunk][row.window, column.window]
                left = right
            top = bottom
        return out

    def _pixels(self, chunks: Sequence[NDArray[Any]], fill: np.generic) -> NDArray[Any]:
        """The value of each pixel: pieces of rows first, which are copied at once, and of these the columns.

        Only what lies under the tile is touched: most of a chunk is not in the processor's cache.
        """
        rows, columns = self._rows, self._columns
        across = len(columns.chunks)
        shape = (rows.size, columns.size)
        out = np.empty(shape, dtype=fill.dtype) if self._is_covered else np.full(shape, fill)
        for column in columns.runs:
            pieces = [chunks[row.chunk * across + column.chunk][row.window, column.window] for row in rows.runs]
            if len(pieces) == 1 and rows.is_covered:
                lines = pieces[0][rows.runs[0].cells]
            else:
                lines = np.empty((rows.size, column.window.stop - column.window.start), dtype=fill.dtype)
                if not rows.is_covered:
                    lines.fill(fill)
                for row, piece in zip(rows.runs, pieces, strict=True):
                    lines[row.pixels] = piece[row.cells]
            if len(column.cells) == columns.size:
                np.take(lines, column.cells, axis=1, out=out, mode="clip")
            else:
                out[:, column.pixels] = lines.take(column.cells, axis=1, mode="clip")
        return out


class Scattered:
    """Places of a tile in any other projection.

    Args:
        rows: row of the cell under each pixel ``(y, x)``; ``OUTSIDE`` where there is none.
        columns: the same of the columns.
        chunk: rows and columns of a chunk.
    """

    def __init__(self, rows: Index, columns: Index, chunk: tuple[int, int]) -> None:
        self._shape = rows.shape
        rows, columns = rows.ravel(), columns.ravel()
        inside = np.flatnonzero((rows != OUTSIDE) & (columns != OUTSIDE))
        rows, columns = rows[inside], columns[inside]
        wide = int(columns.max()) // chunk[1] + 1 if inside.size else 1
        numbers = rows // chunk[0] * wide + columns // chunk[1]
        order = np.argsort(numbers, kind="stable")
        found, first = np.unique(numbers[order], return_index=True)
        cells = (rows % chunk[0] * chunk[1] + columns % chunk[1])[order].astype(np.int32)
        pixels = inside[order].astype(np.int32)
        edges = [*first.tolist(), len(order)]
        self._members = [(pixels[edge:stop], cells[edge:stop]) for edge, stop in pairwise(edges)]
        self.chunks: tuple[tuple[int, int], ...] = tuple((int(n) // wide, int(n) % wide) for n in found)
        self.bytes = pixels.nbytes + cells.nbytes + 500

    def taken(self, chunks: Sequence[NDArray[Any]], fill: np.generic) -> NDArray[Any]:
        """The value of each pixel (``Places``)."""
        out = np.full(self._shape, fill)
        flat = out.reshape(-1)
        for (pixels, cells), chunk in zip(self._members, chunks, strict=True):
            flat[pixels] = chunk.reshape(-1).take(cells, mode="clip")
        return out

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """What was taken (``Places``)."""
        return values


class Corners:
    """The four cells whose centres surround each pixel of a separable tile, and how much each weighs.

    Args:
        centre: the cells under the pixels.
        cells: of both axes the nearer and the farther cells, one after the other.
        below: share of the southern cells, ``(y, 1)``.
        right: share of the eastern cells, ``(1, x)``.
    """

    def __init__(self, centre: Separable, cells: Separable, below: Float, right: Float) -> None:
        self._centre, self._cells = centre, cells
        self._below, self._right = below, right
        self.chunks = cells.chunks
        self._own = [cells.chunks.index(place) for place in centre.chunks]
        self.bytes = centre.bytes + cells.bytes + below.nbytes + right.nbytes

    def values(self, chunks: Sequence[NDArray[Any]], quantity: Quantity) -> NDArray[np.floating[Any]]:
        """Decoded values ``(y, x)`` weighted between the four cells; NaN is missing.

        As ``tiler.warp.Gather.bilinear``, and in its order of adding, so that not a bit differs.
        """
        below, right = self._below, self._right
        height, width = below.shape[0], right.shape[1]
        under = self._centre.taken([chunks[place] for place in self._own], quantity.fill)
        decoded = quantity.decode(self._cells.taken(chunks, quantity.fill))
        missing = np.isnan(decoded)
        present = None
        if missing.any():
            decoded = np.where(missing, 0.0, decoded)
            present = self._cells.spread(~missing)
        is_finite = bool(np.isfinite(decoded).all())
        values = self._cells.spread(decoded)
        total, weights = np.zeros((height, width)), np.zeros((height, width))
        weighed = np.empty((height, width))
        for y, from_y in ((slice(height), 1 - below), (slice(height, None), below)):
            for x, from_x in ((slice(width), 1 - right), (slice(width, None), right)):
                weight, part = from_y * from_x, values[y, x]
                if present is not None:
                    weight *= present[y, x]
                if not is_finite:  # infinite and without weight is nothing
                    part = np.where(weight > 0, part, 0.0)
                total += np.multiply(part, weight, out=weighed)
                weights += weight
        with np.errstate(invalid="ignore"):
            total /= weights
        total[self._centre.spread(quantity.missing(under))] = np.nan
        return total


def rows_of(grid: Grid, target: Target) -> Axis:
    """The rows of cells under the pixel centres of a separable target."""
    return Axis(rows_under(grid, target.centres[1]), grid.chunk_y)


def columns_of(grid: Grid, target: Target) -> Axis:
    """The columns of cells under the pixel centres of a separable target."""
    return Axis(columns_under(grid, target.centres[0]), grid.chunk_x)


def scattered_of(grid: Grid, target: Target) -> Scattered:
    """The cells under the pixel centres of any other target."""
    longitudes, latitudes = target.centres
    return Scattered(rows_under(grid, latitudes), columns_under(grid, longitudes), (grid.chunk_y, grid.chunk_x))


def corners_of(grid: Grid, target: Target, *, is_global: bool) -> Corners:
    """The four cells around the pixel centres of a separable target.

    Args:
        grid: of the level that is read.
        target: the pixels.
        is_global: whether the level's first column lies beside its last.
    """
    longitudes, latitudes = target.centres
    x, y = fractional(grid, longitudes, latitudes)
    rows, columns = rows_under(grid, latitudes), columns_under(grid, longitudes)
    near_y, near_x = np.floor(y - 0.5), np.floor(x - 0.5)
    rows_beside = np.clip(np.concatenate([near_y, near_y + 1]), 0, grid.height - 1)
    columns_beside = np.concatenate([near_x, near_x + 1])
    columns_beside = np.mod(columns_beside, grid.width) if is_global else np.clip(columns_beside, 0, grid.width - 1)
    rows_beside[np.tile(rows == OUTSIDE, 2)] = OUTSIDE
    columns_beside[np.tile(columns == OUTSIDE, 2)] = OUTSIDE
    return Corners(
        Separable(Axis(rows, grid.chunk_y), Axis(columns, grid.chunk_x)),
        Separable(
            Axis(rows_beside.astype(np.int64), grid.chunk_y), Axis(columns_beside.astype(np.int64), grid.chunk_x)
        ),
        (y - 0.5 - near_y)[:, np.newaxis],
        (x - 0.5 - near_x)[np.newaxis, :],
    )
