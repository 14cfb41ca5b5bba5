"""Series of means over an area: its inside from a coarse level, what lies along its outline from full resolution.

A cell of a level is the mean of the valid full-resolution cells in it, weighted by area, so where it lies inside the
area as a whole it stands for all of them. Two things are lost by it: levels are stored in whole steps of the packing,
and the valid share of a cell in steps of 1/255. What both can add up to is worked out for each period and told; where
it passes the quantity's quantum, a finer level is taken, down to full resolution, where nothing is lost.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon

from services.core import layout
from services.core.dataset import Dataset, Run
from services.core.errors import RequestTooLarge
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.segment import Layout
from services.core.shards import Shape3
from tiler import deadline
from tiler.cells import Cells, cells_touching, sources
from tiler.memory import need
from tiler.polygons import Outline, boxes_of, covered_fraction

MOST_COARSE = 1_000_000
"""Cells of a level's map above which it is no coarse one."""

COARSE_BYTES = 16 * 2**20
"""Memory for covered shares and sums, beside the chunks."""

STREAMED = 16
"""Values that are summed as they come and count as one that is held."""

PIECES_AT_ONCE = 16_000_000
"""Decoded values of chunks that are held at a time."""

_FAR = 1 << 32
"""A row of chunks and a column in one number."""

ADDED_AT_ONCE = 100_000
"""Values of small pieces that are summed in one go."""

WINDOW_CELLS = 1_000_000
"""Cells of full resolution whose weights are worked out, or held, at a time."""

WINDOW_ROWS = 40
"""Of which rows, where chunks are lower: to cut an outline to a window takes half a millisecond."""

MOST_KEPT = 32_000_000
"""Decoded values of chunks that are kept for the next mean over the same area."""

FRACTION_STEPS = 255
"""Steps in which a level tells how much of a cell was valid."""

_NOISE = 1e-12
"""Covered share below which a cell of a level is outside: what sums of a row of cells round off."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """Area-weighted means of some periods, all ``(time,)``."""

    value: NDArray[np.float64]
    """Decoded; NaN where nothing of the area was valid."""

    valid: NDArray[np.float64]
    """Part of the area that was valid, in columns of level 0 times differences of the sine of latitude."""

    error: NDArray[np.float64]
    """How far ``value`` may lie from that of full resolution, in the quantity's unit; 0 where it was read."""


class _At(NamedTuple):
    """A chunk at full resolution."""

    y: int
    x: int


type _Rows = list[tuple[int, NDArray[np.intp]]]
"""Rows of chunks, and the rising columns of those that are meant: one by one they would be millions of objects."""


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """The cells of a chunk that count."""

    at: _At
    inside: NDArray[np.intp]
    """Where they lie in the chunk, counted row by row."""

    weights: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Division:
    """An area as whole cells of a level and cells of full resolution."""

    level: int
    """0: there are none of a level."""

    cells: Cells
    """Rectangle of that level around the area."""

    whole: NDArray[np.bool_]
    """Its cells that lie inside as a whole ``(y, x)``."""

    edge: NDArray[np.bool_]
    """Its cells that the outline cuts; level 0: all that it covers in part or whole."""

    source: Layout
    """Where full resolution is read."""

    chunks: Callable[[Shape3], _Rows]
    """Its chunks that hold a cell of ``edge``, by the shape of chunks."""

    touched: int
    """Values that are read, for all periods."""


def means_over(
    dataset: Dataset, quantities: Sequence[Quantity], positions: range, area: MultiPolygon, most: int
) -> dict[str, Means]:
    """Means of quantities over an area, each cell weighted by the part of its area on the sphere that lies inside.

    Args:
        dataset: an opened version.
        quantities: which.
        positions: places of the periods in its time axis.
        area: longitude and latitude in degrees; edges are straight in them.
        most: values that may be held for one request; of these, which are summed as they come, more may be read.

    Raises:
        PositionOutside: if the grid has no cell there.
        RequestTooLarge: if more values would be read, or the outline crosses too many cells.
    """
    divisions = _divisions(dataset.product, len(positions), area)
    touched, most = divisions[0].touched * len(quantities), most * STREAMED
    if touched > most:
        raise RequestTooLarge(
            f"a mean over this area in {len(positions)} periods reads {touched} values and at most {most} are read for "
            "one request: narrow datetime=, parameter-name= or the area"
        )
    each = max(quantity.fill.dtype.itemsize for quantity in quantities)
    need((each + 8) * min(touched, PIECES_AT_ONCE) + COARSE_BYTES)
    outline = Outline.of(area)
    found: dict[str, Means] = {}
    left = list(quantities)
    for division in divisions:
        if division is not divisions[0] and division.touched * len(quantities) > most:
            break  # what was found is told with its error
        for quantity, means in _means(dataset, left, positions, division, outline):
            found[quantity.name] = means
        left = [quantity for quantity in left if not _is_good(quantity, found[quantity.name])]
        if not left:
            break
    if any(np.isinf(found[quantity.name].error).any() for quantity in left):
        raise RequestTooLarge(
            "nearly nothing of this area is valid, so that its mean needs full resolution, and it covers too much of "
            "that: narrow datetime= or the area"
        )
    return found


def _is_good(quantity: Quantity, means: Means) -> bool:
    """Whether the error is not worth telling: no larger than the quantum, or than a millionth where there is none."""
    step = quantity.quantum or (quantity.scale_factor or 1.0 if quantity.is_integer else None)
    present = ~np.isnan(means.value)
    limit = np.abs(means.value[present]) * 1e-6 if step is None else step
    return bool((means.error[present] <= limit).all())


# Which cells


def _divisions(product: Product, periods: int, area: MultiPolygon) -> list[_Division]:
    """The division that reads least, then finer ones, full resolution last."""
    grid = product.grid
    around = cells_touching(grid, boxes_of(area))
    finest = _finest(product, periods, around)
    coarse: list[_Division] = []
    for level in range(grid.levels - 1, 0, -1):
        cells = _coarser(around, level)
        if cells.count > MOST_COARSE or (coarse and cells.count * periods > coarse[-1].touched):
            break
        coarse.append(_coarse(product, periods, area, level, cells))
    best = min(coarse, key=lambda one: one.touched, default=finest)
    if best.touched >= finest.touched:
        return [finest]
    return [one for one in coarse if one.level <= best.level] + [finest]


def _coarser(cells: Cells, level: int) -> Cells:
    """The rectangle of a level that holds a rectangle of level 0; no sliver of it is left out."""
    factor, grid = 2**level, cells.grid.level(level)
    row, column = cells.row // factor, cells.column // factor
    height = (cells.row + cells.height - 1) // factor - row + 1
    last = cells.column + cells.width - 1
    beyond = last - cells.grid.width
    width = last // factor - column + 1 if beyond < 0 else grid.width - column + beyond // factor + 1
    return Cells(grid=grid, row=row, height=height, column=column, width=min(width, grid.width))


def _finest(product: Product, periods: int, cells: Cells) -> _Division:
    everything = np.ones((1, 1), dtype=bool)
    first, last = cells.row, cells.row + cells.height - 1
    columns = (cells.column + np.arange(cells.width)) % cells.grid.width

    def chunks(chunk: Shape3) -> _Rows:
        across = np.unique(columns // chunk[2])
        return [(y, across) for y in range(first // chunk[1], last // chunk[1] + 1)]

    touched, source = _cheapest(product, periods, chunks)
    return _Division(
        level=0,
        cells=cells,
        whole=everything,
        edge=everything,
        source=source,
        chunks=chunks,
        touched=touched,
    )


def _coarse(product: Product, periods: int, area: MultiPolygon, level: int, cells: Cells) -> _Division:
    grid, factor = product.grid, 2**level
    fraction = covered_fraction(area, cells, least=_NOISE)
    rows = cells.row + np.arange(cells.height)
    columns = (cells.column + np.arange(cells.width)) % cells.grid.width
    # a cell that passes the grid's edge is only in part what the grid holds
    kept = ((rows + 1) * factor <= grid.height)[:, np.newaxis] & ((columns + 1) * factor <= grid.width)
    whole = (fraction == 1.0) & kept
    edge = (fraction > 0) & ~whole
    at_rows, at_columns = np.nonzero(edge)
    top, left = rows[at_rows] * factor, columns[at_columns] * factor
    bottom, right = np.minimum(top + factor, grid.height) - 1, np.minimum(left + factor, grid.width) - 1
    map_chunk, _ = layout.map_chunks(product, cells.grid)
    reads = 2 * _decoded(_touched(cells, map_chunk), map_chunk, periods)

    def chunks(chunk: Shape3) -> _Rows:
        return _chunks_under(top, bottom, left, right, chunk)

    touched, source = _cheapest(product, periods, chunks)
    return _Division(
        level=level, cells=cells, whole=whole, edge=edge, source=source, chunks=chunks, touched=reads + touched
    )


def _cheapest(product: Product, periods: int, chunks: Callable[[Shape3], _Rows]) -> tuple[int, Layout]:
    """The layout in which some chunks hold fewest values, and how many.

    By the shapes that chunks have today: of older segments up to four times as much is read.
    """
    return min((_decoded(_count(chunks(chunk)), chunk, periods), source) for source, chunk in sources(product))


def _count(rows: _Rows) -> int:
    return sum(columns.size for _, columns in rows)


def _touched(cells: Cells, chunk: Shape3) -> int:
    """Chunks that hold a cell of a rectangle."""
    return sum(
        ((window.row + window.height - 1) // chunk[1] - window.row // chunk[1] + 1)
        * ((window.column + window.width - 1) // chunk[2] - window.column // chunk[2] + 1)
        for window in cells.windows
    )


def _chunks_under(
    top: NDArray[np.intp],
    bottom: NDArray[np.intp],
    left: NDArray[np.intp],
    right: NDArray[np.intp],
    chunk: Shape3,
) -> _Rows:
    """Chunks that hold a cell of some rectangles, given by their first and last rows and columns."""
    found = np.empty(0, dtype=np.intp)
    high = int((bottom // chunk[1] - top // chunk[1]).max(initial=0))
    wide = int((right // chunk[2] - left // chunk[2]).max(initial=0))
    for down, across in itertools.product(range(high + 1), range(wide + 1)):
        ys = np.minimum(top // chunk[1] + down, bottom // chunk[1])
        xs = np.minimum(left // chunk[2] + across, right // chunk[2])
        found = np.union1d(found, ys * _FAR + xs)
    rows, firsts = np.unique(found // _FAR, return_index=True)
    return [(int(y), columns) for y, columns in zip(rows, np.split(found % _FAR, firsts[1:]), strict=False)]


def _decoded(chunks: int, chunk: Shape3, periods: int) -> int:
    return chunks * math.prod(chunk) * -(-periods // chunk[0])


def _pieces(product: Product, division: _Division, chunk: Shape3, outline: Outline) -> Iterator[_Piece]:
    """The cells at full resolution that count, chunk by chunk, with their weights."""
    grid, factor, cells = product.grid, 2**division.level, division.cells
    tall = max(1, WINDOW_ROWS // chunk[1])
    longest = max(1, WINDOW_CELLS // (tall * chunk[1] * chunk[2]))
    for members in _adjacent(division.chunks(chunk), tall, longest):
        deadline.check()
        ys, xs = [at.y for at in members], [at.x for at in members]
        top, left = min(ys) * chunk[1], min(xs) * chunk[2]
        height = min((max(ys) + 1) * chunk[1], grid.height) - top
        width = min((max(xs) + 1) * chunk[2], grid.width) - left
        window = Cells(grid=grid, row=top, height=height, column=left, width=width)
        weights = outline.covered(window) * window.row_areas[:, np.newaxis]
        # of a sliver at the edge of a row, what the area's own cells leave out is left out here, too
        rows = (top + np.arange(height)) // factor - cells.row
        columns = ((left + np.arange(width)) // factor - cells.column) % cells.grid.width
        weights *= ((rows >= 0) & (rows < cells.height))[:, np.newaxis] & (columns < cells.width)
        if division.level:
            edge = np.ix_(np.clip(rows, 0, cells.height - 1), np.clip(columns, 0, cells.width - 1))
            weights *= division.edge[edge]
        for at in members:
            y, x = at.y * chunk[1] - top, at.x * chunk[2] - left
            inside = weights[y : y + chunk[1], x : x + chunk[2]]
            rows, columns = np.nonzero(inside)
            if rows.size:
                yield _Piece(at=at, inside=rows * chunk[2] + columns, weights=inside[rows, columns])


def _adjacent(rows: _Rows, tall: int, longest: int) -> Iterator[list[_At]]:
    """Chunks that lie together: in ``tall`` rows of them and ``longest`` columns at most."""
    for _, band in itertools.groupby(rows, key=lambda row: row[0] // tall):
        held = list(band)
        every = np.unique(np.concatenate([columns for _, columns in held]))
        for run in np.split(every, np.flatnonzero(np.diff(every) != 1) + 1):
            for first in range(0, run.size, longest):
                part = run[first : first + longest]
                members = [
                    _At(y, x)
                    for y, columns in held
                    for x in columns[(columns >= part[0]) & (columns <= part[-1])].tolist()
                ]
                yield members


# Sums


class _Sums:
    """Weighted sums of stored values, each counted from the first valid one of its period.

    What is summed is how far values lie from each other: sums of the values themselves round off, so that the mean of
    equal values would not be that value.
    """

    def __init__(self, quantity: Quantity, periods: int) -> None:
        self.quantity = quantity
        self.first = np.full(periods, np.nan)
        self.weight = np.zeros(periods)
        self.total = np.zeros(periods)
        self.lost = np.zeros(periods)
        """Weight times what a stored step may be wrong by, in steps."""

        self.uncertain = np.zeros(periods)
        """Weight that cells of a level which are valid in part may have more or less."""

        self.near = np.zeros(periods)
        """A value near the mean, as stored."""

        self.shifted = np.zeros(periods)
        """Uncertain weights times how far their values lie from ``near``."""

    def add(self, asked: Sequence[int] | NDArray[np.intp], stored: NDArray[Any], weights: NDArray[np.float64]) -> None:
        """Add cells.

        Args:
            asked: places of the periods.
            stored: ``(periods, cells)``.
            weights: ``(cells,)`` or ``(periods, cells)``.
        """
        places = np.asarray(asked)
        valid = ~self.quantity.missing(stored)
        values = stored.astype(np.float64)
        some = valid.any(axis=1)
        fresh = np.flatnonzero(some & np.isnan(self.first[places]))
        self.first[places[fresh]] = values[fresh, valid[fresh].argmax(axis=1)]
        values -= np.where(some, self.first[places], 0.0)[:, np.newaxis]
        if not valid.all():
            values[~valid] = 0.0
            weights = weights * valid
        else:
            weights = np.broadcast_to(weights, values.shape)
        self.weight[places] += weights.sum(axis=1)
        self.total[places] += np.einsum("tc,tc->t", weights, values)

    def add_pieces(self, run: Run, pieces: Sequence[_Piece], chunks: Sequence[NDArray[Any]]) -> None:
        """Add the cells of pieces, taken out of their chunks ``(time, y, x)``; those of small pieces together."""
        cells: list[NDArray[Any]] = []
        weights: list[NDArray[np.float64]] = []
        held = 0
        for place, (piece, chunk) in enumerate(zip(pieces, chunks, strict=True), start=1):
            periods = run.of(chunk)
            cells.append(np.take(periods.reshape(len(periods), -1), piece.inside, axis=1))
            weights.append(piece.weights)
            held += cells[-1].size
            if held >= ADDED_AT_ONCE or place == len(pieces):
                self.add(run.asked, np.concatenate(cells, axis=1), np.concatenate(weights))
                cells, weights, held = [], [], 0

    def means(self) -> Means:
        """What they come to."""
        scale = self.quantity.scale_factor or 1.0
        weight = np.where(self.weight > 0, self.weight, np.nan)
        steps = self.total / weight
        value = (self.first + steps) * scale + (self.quantity.add_offset or 0.0)
        # of equal values it is what decoding gives
        equal = steps == 0
        value[equal] = (self.first * scale + (self.quantity.add_offset or 0.0))[equal]
        # of weights that are wrong by so much a mean is wrong by that times how far their values lie from it
        certain = weight - self.uncertain
        shifted = self.shifted + self.uncertain * np.abs(self.first + steps - self.near)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(certain > 0, (self.lost + shifted) / certain, np.inf)
        error[(self.lost == 0) & (self.uncertain == 0)] = 0.0
        return Means(value=value, valid=self.weight, error=np.where(np.isnan(weight), 0.0, error * scale))


def _means(
    dataset: Dataset, quantities: Sequence[Quantity], positions: range, division: _Division, outline: Outline
) -> list[tuple[Quantity, Means]]:
    sums = [_Sums(quantity, len(positions)) for quantity in quantities]
    if division.level and division.whole.any():
        for one in sums:
            _add_coarse(one, dataset, positions, division)
    runs = [(one, run) for one in sums for run in dataset.runs(one.quantity, positions, division.source)]
    for chunk in {run.array.layout.chunk for _, run in runs}:  # segments may be of different releases
        # what passes through would push everything else out of the cache
        decoded = _decoded(_count(division.chunks(chunk)), chunk, len(positions))
        is_kept = decoded * len(quantities) <= MOST_KEPT
        for batch in _batches(_pieces(dataset.product, division, chunk, outline), math.prod(chunk)):
            for one, run in runs:
                if run.array.layout.chunk != chunk:
                    continue
                deadline.check()
                wanted = [(run.block, *piece.at) for piece in batch]
                chunks = run.array.chunks(wanted) if is_kept else run.array.load(wanted)
                one.add_pieces(run, batch, chunks)
    return [(one.quantity, one.means()) for one in sums]


def _batches(pieces: Iterator[_Piece], size: int) -> Iterator[list[_Piece]]:
    """Pieces in lists of which neither the chunks, of ``size`` values each, nor the weights are too many."""
    batch: list[_Piece] = []
    cells = 0
    for piece in pieces:
        batch.append(piece)
        cells += piece.inside.size
        if cells >= WINDOW_CELLS or (len(batch) + 1) * size > PIECES_AT_ONCE:
            yield batch
            batch, cells = [], 0
    if batch:
        yield batch


def _add_coarse(sums: _Sums, dataset: Dataset, positions: range, division: _Division) -> None:
    quantity, cells, level = sums.quantity, division.cells, division.level
    # a cell of the level spans so many columns of level 0, in which weights are counted
    areas = np.broadcast_to(cells.row_areas[:, np.newaxis] * 2**level, cells.shape)[division.whole]
    for place, position in enumerate(positions):
        stored = _read(cells, lambda window, at=position: dataset.read_map(quantity, at, level, window))
        share = _read(cells, lambda window, at=position: dataset.read_valid_fraction(quantity, at, level, window))
        inside, valid = stored[division.whole], share[division.whole]
        sums.add([place], inside[np.newaxis], areas * valid)
        present = valid > 0
        if not present.any():
            continue
        partial = present & (valid < 1)
        most = areas * np.where(partial, np.minimum(valid + 1 / FRACTION_STEPS, 1.0), valid)
        sums.lost[place] = float(most[present] @ _lost_steps(quantity, inside[present]))
        sums.near[place] = sums.first[place] + sums.total[place] / sums.weight[place]
        if partial.any():
            uncertain = areas[partial] / FRACTION_STEPS
            sums.uncertain[place] = float(uncertain.sum())
            sums.shifted[place] = float(uncertain @ np.abs(inside[partial].astype(np.float64) - sums.near[place]))


def _lost_steps(quantity: Quantity, stored: NDArray[Any]) -> NDArray[np.float64]:
    """How far a level's stored value may lie from the mean that it stands for, in stored steps."""
    if not quantity.is_integer:
        return np.abs(stored.astype(np.float64)) * float(np.finfo(stored.dtype).eps)
    # a mean that would read as missing moved to the next step
    moved = np.abs(stored.astype(np.float64) - float(quantity.fill)) <= 1
    return np.where(moved, 1.5, 0.5)


def _read(cells: Cells, read: Any) -> NDArray[Any]:
    parts = [read(window) for window in cells.windows]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
