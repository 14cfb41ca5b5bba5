"""Which cells a box or an area touches, cut at the grid's seam, and how their values are read with least work."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core import layout
from services.core.dataset import Dataset, Run
from services.core.errors import PositionOutside
from services.core.grid import CIRCLE, Grid, Window
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.segment import ArrayLayout, Layout
from tiler import deadline
from tiler.geometry import HALF_TURN, TURN, Box
from tiler.memory import need

SLIVER = 1e-6
"""Share of a cell below which an overlap is a rounding error of the coordinates."""


MOST_HELD = 4_000_000
"""Values of one quantity that are read in one go."""

MOST_DECODED = 16_000_000
"""Values of chunks that are kept for others when single cells are taken out of them."""

SHARDS_AT_ONCE = 16
"""Shards that are read before it is asked whether anybody still waits."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A rectangle of level-0 cells; on a global grid it may pass the last column and go on at the first."""

    grid: Grid
    row: int
    height: int
    column: int
    """First column, inside the grid."""

    width: int

    @property
    def count(self) -> int:
        """Number of cells."""
        return self.height * self.width

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self.height, self.width)

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """The same cells as one window, or two where they pass the grid's seam, west to east."""
        first = min(self.width, self.grid.width - self.column)
        parts = [Window(row=self.row, column=self.column, height=self.height, width=first)]
        if first < self.width:
            parts.append(Window(row=self.row, column=0, height=self.height, width=self.width - first))
        return tuple(parts)

    @cached_property
    def longitudes(self) -> NDArray[np.float64]:
        """Centres of the columns, rising, ``(x,)``; they pass 180 where the cells cross the antimeridian."""
        parts = [self.grid.longitudes[window.columns] + TURN * turn for turn, window in enumerate(self.windows)]
        centres = np.concatenate(parts)
        return centres - TURN if centres[0] >= HALF_TURN else centres

    @cached_property
    def latitudes(self) -> NDArray[np.float64]:
        """Centres of the rows, north to south, ``(y,)``."""
        return self.grid.latitudes[self.row : self.row + self.height]

    @cached_property
    def row_areas(self) -> NDArray[np.float64]:
        """Relative area of a cell of each row, ``(y,)``."""
        return self.grid.row_areas[self.row : self.row + self.height]

    def trimmed(self, inside: NDArray[np.bool_]) -> tuple["Cells", NDArray[np.bool_]]:
        """The same without the outer rows and columns in which nothing is inside, and what is inside of it.

        Args:
            inside: ``(y, x)``, with at least one cell.
        """
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        top, left = int(rows[0]), int(columns[0])
        height, width = int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
        cells = Cells(
            grid=self.grid,
            row=self.row + top,
            height=height,
            column=(self.column + left) % self.grid.width,
            width=width,
        )
        return cells, inside[top : top + height, left : left + width]

    @property
    def box(self) -> Box:
        """Outer edges of the cells: west, south, east, north."""
        half_x, half_y = float(self.grid.step_x) / 2, float(self.grid.step_y) / 2
        x, y = self.longitudes, self.latitudes
        return (
            float(x[0]) - half_x,
            max(float(y[-1]) - half_y, -90.0),
            float(x[-1]) + half_x,
            min(float(y[0]) + half_y, 90.0),
        )


def cells_touching(grid: Grid, boxes: Sequence[Box]) -> Cells:
    """The smallest rectangle of cells that holds every cell which shares ground with one of the boxes.

    Raises:
        PositionOutside: if the grid has none.
    """
    touched = np.zeros(grid.width, dtype=bool)
    top, bottom = grid.height, 0
    for box in boxes:
        first, last = _range(
            float(grid.north) - box[3], float(grid.north) - box[1], float(grid.step_y), 0.0, grid.height
        )
        if first >= last:
            continue
        for part in _columns(grid, box):
            touched[part] = True
            top, bottom = min(top, first), max(bottom, last)
    columns = np.flatnonzero(touched)
    if not columns.size:
        west, south, east, north = grid.bounds
        raise PositionOutside(
            f"what was asked for lies outside the grid ({west:g}..{east:g} east, {south:g}..{north:g} north)"
        )
    start, width = int(columns[0]), int(columns[-1] - columns[0]) + 1
    if grid.is_global and columns.size < grid.width:
        # on a closed circle the rectangle starts behind the widest gap
        gaps = np.diff(np.append(columns, columns[0] + grid.width))
        behind = int(np.argmax(gaps))
        start = int(columns[(behind + 1) % columns.size])
        width = grid.width - int(gaps[behind]) + 1
    return Cells(grid=grid, row=top, height=bottom - top, column=start, width=width)


def columns_touching(cells: Cells, box: Box) -> NDArray[np.bool_]:
    """Which columns of a rectangle share ground with a box, ``(x,)``."""
    touched = np.zeros(cells.grid.width, dtype=bool)
    for part in _columns(cells.grid, box):
        touched[part] = True
    return np.concatenate([touched[window.columns] for window in cells.windows])


def _columns(grid: Grid, box: Box) -> Iterator[slice]:
    """Which columns of a grid share ground with a box: on a regional one it may meet both ends."""
    turn = float(CIRCLE / grid.step_x)
    for turns in range(-2, 3):
        left, right = _range(
            box[0] - float(grid.west), box[2] - float(grid.west), float(grid.step_x), turns * turn, grid.width
        )
        if left < right:
            yield slice(left, right)


def _range(low: float, high: float, step: float, shift: float, size: int) -> tuple[int, int]:
    first = int(np.floor(low / step + shift + SLIVER))
    last = max(int(np.ceil(high / step + shift - SLIVER)), first + 1)
    return max(first, 0), min(last, size)


def read_cells(dataset: Dataset, quantity: Quantity, positions: Sequence[int] | range, cells: Cells) -> NDArray[Any]:
    """Stored values ``(time, y, x)``, from whichever layout has to decode less."""
    parts = [read_window(dataset, quantity, positions, window) for window in cells.windows]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def read_window(dataset: Dataset, quantity: Quantity, positions: Sequence[int] | range, window: Window) -> NDArray[Any]:
    """Stored values ``(time, y, x)`` of a window, from whichever layout has to decode less."""
    if not reads_maps(dataset, len(positions), window):
        return dataset.read_series(quantity, positions, window)
    return dataset.read_maps(quantity, positions, window)


def reads_maps(dataset: Dataset, periods: int, window: Window) -> bool:
    """Whether the maps hold a window of so many periods in fewer decoded values than the series do."""
    product = dataset.product
    if product.series_block is None:
        return False
    map_chunk, _ = layout.map_chunks(product, product.grid)
    series_chunk, _ = layout.series_chunks(product)
    return _decoded(map_chunk, periods, window) < _decoded(series_chunk, periods, window)


def time_blocks(dataset: Dataset, positions: range, cells: Cells, most: int) -> Iterator[range]:
    """Cut positions into runs of at most about ``most`` values that do not split a block of what is read."""
    product = dataset.product
    block = product.map_block
    if product.series_block is not None and not reads_maps(dataset, len(positions), cells.windows[0]):
        block = product.series_block
    periods = max(most // cells.count // block, 1) * block
    for first in range(positions.start, positions.stop, periods):
        yield range(first, min(first + periods, positions.stop))


def _decoded(chunk: tuple[int, int, int], periods: int, window: Window) -> int:
    rows = (window.row + window.height - 1) // chunk[1] - window.row // chunk[1] + 1
    columns = (window.column + window.width - 1) // chunk[2] - window.column // chunk[2] + 1
    return -(-periods // chunk[0]) * rows * columns * chunk[0] * chunk[1] * chunk[2]


def read_places(
    dataset: Dataset, quantity: Quantity, positions: range, places: Sequence[tuple[int, int]]
) -> NDArray[Any]:
    """Stored values ``(place, time)`` of single cells, given as (row, column), each chunk being read once.

    Places are taken chunk by chunk and shard by shard, whatever their order; a run of chunks is held at a time.
    """
    out = np.empty((len(places), len(positions)), dtype=np.dtype(quantity.dtype))
    if not places:
        return out
    rows, columns = np.array(places, dtype=np.intp).T
    source = source_of(dataset.product, len(positions), rows, columns)
    for run in dataset.runs(quantity, positions, source):
        groups = _by_chunk(run.array.layout, rows, columns)
        size = math.prod(run.array.layout.chunk)

        def take(number: int, values: NDArray[Any], groups: Any = groups, run: Run = run) -> None:
            y, x, members = groups[number]
            _, height, width = values.shape
            found = run.of(values)[:, rows[members] - y * height, columns[members] - x * width]
            if run.is_whole:
                out[members] = found.T
            else:
                out[members[:, np.newaxis], run.asked] = found.T

        wanted = [(run.block, y, x) for y, x, _ in groups]
        if len(groups) * size <= MOST_DECODED:
            need(run.array.dtype.itemsize * len(groups) * size)
            for number, values in enumerate(run.array.chunks(wanted)):
                take(number, values)
            continue
        # what passes through would push everything else out of the cache
        for first, last in _few_shards(run.array.layout, groups):
            deadline.check()
            run.array.visit(
                wanted[first:last],
                lambda number, values, first=first, take=take: take(first + number, values),  # type: ignore[misc]
            )
    return out


def _few_shards(stored: ArrayLayout, groups: Sequence[tuple[int, int, Any]]) -> Iterator[tuple[int, int]]:
    """Cut cells by chunk into runs of whole shards, as many as are read in a fraction of a second."""
    _, down, across = stored.inner_counts
    shards = [(y // down, x // across) for y, x, _ in groups]
    edges = [0, *(number for number in range(1, len(shards)) if shards[number] != shards[number - 1]), len(shards)]
    for first in range(0, len(edges) - 1, SHARDS_AT_ONCE):
        yield edges[first], edges[min(first + SHARDS_AT_ONCE, len(edges) - 1)]


def source_of(product: Product, periods: int, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Layout:
    """The layout that decodes less for some cells in so many periods."""
    return min(sources(product), key=lambda one: _decoded_at(one[1], periods, rows, columns))[0]


def sources(product: Product) -> Iterator[tuple[Layout, tuple[int, int, int]]]:
    """The layouts that hold full resolution, and the shapes that their chunks have if they are written today.

    To choose by; where values lie in chunks is told by each array (``Run.array``), which may be older.
    """
    yield "maps", layout.map_chunks(product, product.grid)[0]
    if product.series_block is not None:
        yield "series", layout.series_chunks(product)[0]


def _decoded_at(chunk: tuple[int, int, int], periods: int, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> int:
    """Values that are decoded for single cells."""
    chunks = np.unique(rows // chunk[1] * (1 << 32) + columns // chunk[2]).size
    return -(-periods // chunk[0]) * chunks * int(np.prod(chunk))


def _by_chunk(
    stored: ArrayLayout, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> list[tuple[int, int, NDArray[np.intp]]]:
    """Cells by the chunk that holds them: its row and column, and places of the cells; chunks of a shard together."""
    _, height, width = stored.chunk
    _, down, across = stored.inner_counts
    ys, xs = rows // height, columns // width
    order = np.lexsort((xs, ys, xs // across, ys // down))
    ys, xs = ys[order], xs[order]
    starts = np.flatnonzero(np.concatenate([[True], (np.diff(ys) != 0) | (np.diff(xs) != 0)]))
    members = np.split(order, starts[1:])
    return [(int(ys[start]), int(xs[start]), found) for start, found in zip(starts, members, strict=True)]
