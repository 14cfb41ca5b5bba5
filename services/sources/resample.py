"""From the cells of one longitude/latitude grid to those of another: copied, bilinear, or means by shared area.

The weights of a target cell follow from the two grids alone, in exact fractions, and its terms are added in one order:
what a cell gets does not depend on the window it is asked in.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from services.core.grid import CIRCLE, Grid, Window

MOST_CELLS = 2**22
"""Cells of the source that are held at once, as long as one row of the target needs no more."""

_SAFE = 2**62
"""Whole numbers below are int64's."""

type Read = Callable[[Window], NDArray[np.floating[Any]]]
"""Values ``(y, x)`` or ``(layer, y, x)`` of a window of the source, NaN where missing."""


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """What the target's cells take along one axis."""

    places: NDArray[np.int64]
    """Rows or columns of the source ``(target, tap)``; -1 outside of it."""

    weights: NDArray[np.float64]
    """Weight of each ``(target, tap)``; 0 outside."""

    support: NDArray[np.bool_]
    """Taps of which one must be there ``(target, tap)``: that of the cell that holds the centre, or all of a mean."""

    how: Literal["copied", "interpolated", "averaged"]
    """What a target cell is of the source's."""

    def part(self, rows: slice) -> "_Axis":
        return replace(self, places=self.places[rows], weights=self.weights[rows], support=self.support[rows])


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One axis of both grids, counted from the source's first edge in whole numbers of one small unit."""

    step: int
    """Width of a cell of the source."""

    count: int
    target: NDArray[Any]
    """First edges of the target's cells."""

    width: int
    """Width of a target cell."""

    turn: int
    """A whole turn, 0 where there is none."""


def resampled(source: Grid, target: Grid, window: Window, read: Read) -> NDArray[np.float32]:
    """Values of one grid on the cells of another.

    Along each axis, the source's cells of the target's width and place are copied; wider ones, or as wide ones in other
    places, are interpolated linearly between centres; narrower ones are averaged by the area that they share with the
    target's cell (on the sphere). Weights of missing values are left out. A value is missing where the source's cell
    that holds the centre of the target's is, or, of a mean, where all of them are. A source that goes all the way round
    has no edge at the antimeridian.

    Args:
        source: the grid that ``read`` reads from.
        target: any grid.
        window: cells of ``target``.
        read: gives windows of the source.

    Returns:
        ``(y, x)`` of the window; NaN where missing or outside the source.
    """
    layers = resampled_layers(source, target, window, 1, lambda part: read(part)[np.newaxis])
    return layers.reshape(window.shape)


def resampled_layers(source: Grid, target: Grid, window: Window, layers: int, read: Read) -> NDArray[np.float32]:
    """As ``resampled``, of layers that are read together; each becomes what it would alone.

    Args:
        source: the grid that ``read`` reads from.
        target: any grid.
        window: cells of ``target``.
        layers: how many ``read`` gives.
        read: gives windows of the source, ``(layer, y, x)``.

    Returns:
        ``(layer, y, x)`` of the window; NaN where missing or outside the source.
    """
    out = np.full((layers, *window.shape), np.nan, dtype=np.float32)
    columns, rows = _columns(source, target, window), _rows(source, target, window)
    across = columns.places[columns.places >= 0]
    if not across.size:
        return out
    needed = np.unique(across)
    for part in _pieces(rows, needed.size * layers):
        some = rows.part(part)
        inside = some.places[some.places >= 0]
        if not inside.size:
            continue
        first = int(inside.min())
        height = int(inside.max()) + 1 - first
        values = np.concatenate(
            [
                read(Window(row=first, column=int(run[0]), height=height, width=run.size))
                for run in np.split(needed, np.flatnonzero(np.diff(needed) > 1) + 1)
            ],
            axis=2,
        )
        out[:, part] = _combined(values, some, first, columns, needed)
    return out


def _combined(
    values: NDArray[np.floating[Any]], rows: _Axis, first: int, columns: _Axis, needed: NDArray[np.int64]
) -> NDArray[np.float32]:
    y = np.where(rows.places >= 0, rows.places - first, 0)
    x = np.searchsorted(needed, np.where(columns.places >= 0, columns.places, needed[0]))
    if rows.how == columns.how == "copied":
        copied = values[:, y[:, :1], x[:, 0]].astype(np.float32)
        copied[:, (rows.places[:, :1] < 0) | (columns.places[:, 0] < 0)] = np.nan
        return copied
    # that axis first which leaves fewer values: a mean's rows, which also lie in one piece in memory; of interpolated
    # cells the columns, of as few rows as the source has. The grids decide which, not the window.
    steps = (_Step(rows, y, 0), _Step(columns, x, 1))
    one, other = steps if rows.how == "averaged" else steps[::-1]
    out = np.empty((len(values), len(y), len(x)), dtype=np.float32)
    whole: NDArray[np.float64] | None = None
    for layer, target in zip(values, out, strict=True):
        missing = np.isnan(layer)
        if missing.any():
            known, divisor = np.where(missing, 0.0, layer).astype(np.float64), _divisor(~missing, one, other)
        else:  # layers without gaps have one divisor
            whole = _divisor(~missing, one, other) if whole is None else whole
            known, divisor = layer.astype(np.float64), whole
        np.divide(other.sum(one.sum(known)), divisor, out=target, casting="same_kind")
    return out


@dataclass(frozen=True)
class _Step:
    """One axis of the target, along which values are added."""

    axis: _Axis
    at: NDArray[np.int64]
    """Places among the values that were read, ``(target, tap)``."""

    number: int
    """0 along rows, 1 along columns."""

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weighted sums of ``(y, x)`` along the axis, term after term: their order is part of the value."""
        total = self._taken(values, 0) * self._of(self.axis.weights, 0)
        for tap in range(1, self.at.shape[1]):
            term = self._taken(values, tap)
            term *= self._of(self.axis.weights, tap)
            total += term
        return total

    def any(self, there: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether one of the taps that must be there is."""
        found = self._taken(there, 0) & self._of(self.axis.support, 0)
        for tap in range(1, self.at.shape[1]):
            found |= self._taken(there, tap) & self._of(self.axis.support, tap)
        return found

    def _taken[T: np.generic](self, values: NDArray[T], tap: int) -> NDArray[T]:
        return values.take(self.at[:, tap], axis=self.number)

    def _of[T: np.generic](self, numbers: NDArray[T], tap: int) -> NDArray[T]:
        return numbers[:, tap, None] if self.number == 0 else numbers[:, tap]


def _divisor(there: NDArray[np.bool_], one: _Step, other: _Step) -> NDArray[np.float64]:
    """Sum of the weights of what is there; NaN where the value is missing."""
    weights = other.sum(one.sum(there.astype(np.float64)))
    return np.where(other.any(one.any(there)) & (weights > 0), weights, np.nan)


def _pieces(rows: _Axis, width: int) -> Iterator[slice]:
    """Runs of the target's rows that need no more than ``MOST_CELLS`` of the source, at least one row each."""
    count = len(rows.places)
    # a row outside has no lowest: the largest number, and -1 as its highest
    lowest: list[int] = np.where(rows.places >= 0, rows.places, np.iinfo(np.int64).max).min(axis=1).tolist()
    highest: list[int] = rows.places.max(axis=1).tolist()
    start = 0
    while start < count:
        end = start + 1
        low, high = lowest[start], highest[start]
        while end < count:
            low, high = min(low, lowest[end]), max(high, highest[end])
            if (high + 1 - low) * width > MOST_CELLS:
                break
            end += 1
        yield slice(start, end)
        start = end


def _columns(source: Grid, target: Grid, window: Window) -> _Axis:
    west = [target.west + number * target.step_x for number in (window.column, window.column + 1)]
    unit, kind = _unit(source.west, source.step_x, *west, target.step_x, CIRCLE)
    turn = int(CIRCLE * unit)
    edges = np.arange(window.width, dtype=kind) * int(target.step_x * unit) + int((west[0] - source.west) * unit)
    span = int(source.step_x * unit) * source.width
    edges = edges % turn
    # a cell that begins east of the source may end in its first column, a turn further on
    edges = np.where(edges >= span, edges - turn, edges)
    line = _Line(
        step=int(source.step_x * unit),
        count=source.width,
        target=edges,
        width=int(target.step_x * unit),
        turn=turn if turn % int(source.step_x * unit) == 0 else 0,
    )
    return _axis(line, lambda low, high: (high - low) / float(line.width))


def _rows(source: Grid, target: Grid, window: Window) -> _Axis:
    # counted southwards from the source's northern edge
    north = target.north - window.row * target.step_y
    unit, kind = _unit(source.north, source.step_y, north, target.step_y)
    edges = np.arange(window.height, dtype=kind) * int(target.step_y * unit) + int((source.north - north) * unit)
    line = _Line(
        step=int(source.step_y * unit),
        count=source.height,
        target=edges,
        width=int(target.step_y * unit),
        turn=0,
    )
    top = float(source.north)

    def area(low: NDArray[Any], high: NDArray[Any]) -> NDArray[np.float64]:
        ends = [np.clip(top - end.astype(np.float64) / float(unit), -90.0, 90.0) for end in (low, high)]
        middle, half = np.radians((ends[0] + ends[1]) / 2), np.radians((ends[0] - ends[1]) / 2)
        # sin a - sin b without the difference of nearly equal numbers
        shared: NDArray[np.float64] = 2.0 * np.cos(middle) * np.sin(half) / np.radians(float(target.step_y))
        return shared

    return _axis(line, area)


def _axis(line: _Line, area: Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]) -> _Axis:
    edges = line.target
    if line.step == line.width and not (edges % line.step).any():
        places, inside = _placed(line, (edges // line.step)[:, None])
        return _Axis(places=places, weights=inside.astype(np.float64), support=inside, how="copied")
    if line.step < line.width:
        first = edges // line.step
        taps = int((-(-(edges + line.width) // line.step) - first).max())
        numbers = first[:, None] + np.arange(taps)
        low = np.maximum(edges[:, None], numbers * line.step)
        high = np.minimum((edges + line.width)[:, None], (numbers + 1) * line.step)
        places, inside = _placed(line, numbers)
        shares = high > low
        weights = np.where(inside & shares, area(low, np.maximum(high, low)), 0.0)
        return _Axis(places=np.where(shares, places, -1), weights=weights, support=weights > 0, how="averaged")
    # twice as fine a unit, so that centres are whole numbers
    centres, step = 2 * edges + line.width, 2 * line.step
    first = (centres - line.step) // step
    numbers = first[:, None] + np.arange(2)
    behind = ((centres - line.step) % step).astype(np.float64) / float(step)
    places, inside = _placed(line, numbers)
    holds = numbers == (centres // step)[:, None]
    weights = np.where(inside, np.stack([1.0 - behind, behind], axis=1), 0.0)
    return _Axis(places=places, weights=weights, support=inside & holds, how="interpolated")


def _placed(line: _Line, numbers: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Numbers of the source's cells, and which are there."""
    if line.turn:
        numbers = numbers % (line.turn // line.step)
    inside = np.asarray((numbers >= 0) & (numbers < line.count), dtype=np.bool_)
    return np.where(inside, numbers, -1).astype(np.int64), inside


def _unit(*lengths: Fraction) -> tuple[int, Any]:
    """How many of the largest unit of which all lengths are whole numbers make a degree, and a type that holds them."""
    unit = math.lcm(*(length.denominator for length in lengths))
    return unit, np.int64 if unit * 4 * 720 < _SAFE else object
