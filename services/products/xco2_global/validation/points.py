"""Places and months that are compared, cells with soundings among them, and what a network gets there."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.xco2_global.signature import MONTHS
from services.core.grid import Grid
from services.products.xco2_global.background import Background
from services.products.xco2_global.inputs import Inputs
from services.products.xco2_global.network import Network
from services.products.xco2_global.table import Seen, blocks_of, read_block
from services.validation.baselines import Rows

type Values = NDArray[np.float64]
type Floats = NDArray[np.float32]
type Which = NDArray[np.bool_] | NDArray[np.integer[Any]]

AT_ONCE = 4096
"""Sequences that are held: 5 MB with 25 features."""

MOST_A_MONTH = 20_000
"""Cells of a month that neighbours are looked for among, drawn evenly where there are more (our choice: memory)."""


@dataclass(frozen=True, kw_only=True)
class Points:
    """Cells of the settings' grid in months; all arrays are ``(point,)``."""

    month: NDArray[np.int64] = field(repr=False)
    """Since 1970-01."""

    row: NDArray[np.int64] = field(repr=False)
    column: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.month)

    def take(self, which: Which) -> "Points":
        """Some of them."""
        return Points(month=self.month[which], row=self.row[which], column=self.column[which])

    def rows(self, grid: Grid) -> Rows:
        """Centres of the cells."""
        return Rows(longitude=grid.longitudes[self.column], latitude=grid.latitudes[self.row], month=self.month)


@dataclass(frozen=True, kw_only=True)
class Known:
    """Cells with soundings, and their means."""

    at: Points
    xco2: Values = field(repr=False)
    """ppm, ``(cell,)``."""

    error: Values = field(repr=False)
    """Standard error, ppm, ``(cell,)``."""

    def __len__(self) -> int:
        return len(self.at)

    def take(self, which: Which) -> "Known":
        """Some of them."""
        return Known(at=self.at.take(which), xco2=self.xco2[which], error=self.error[which])

    @classmethod
    def of(cls, cells: Seen, which: Which) -> "Known":
        """Some of the cells that the network is learned from."""
        at = Points(month=cells.month[which], row=cells.row[which], column=cells.column[which])
        return cls(at=at, xco2=cells.xco2[which], error=cells.error[which])


def of_whole_months(cells: Seen, background: Background) -> Seen:
    """Cells as if their soundings were spread over their months: moved by what the background does meanwhile.

    Neighbours and climatologies know months only; without this a model that knows the day would win by that alone.
    """
    grid = background.inputs.settings.grid
    then, whole = (background.at(when, cells.row, cells.column, grid) for when in (cells.moment, cells.month))
    return replace(cells, xco2=cells.xco2 + whole - then)


def thinned(month: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """At most MOST_A_MONTH of each month, drawn evenly, ``(row,)``."""
    kept = np.ones(len(month), dtype=np.bool_)
    generator = np.random.default_rng(seed)
    for one in np.unique(month):
        own = np.flatnonzero(month == one)
        if len(own) > MOST_A_MONTH:
            kept[own] = False
            kept[generator.choice(own, MOST_A_MONTH, replace=False)] = True
    return kept


def drawn(count: int, most: int, seed: int) -> NDArray[np.int64]:
    """Numbers below ``count``, at most so many, evenly and in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def sequences(source: Inputs, points: Points) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """What the network gets at points, some at a time.

    Yields:
        Numbers of points, and ``(point, 12, feature)``, oldest month first; NaN is missing.
    """
    if not len(points):
        return
    width = source.settings.grid.width
    places, place = np.unique(points.row * width + points.column, return_inverse=True)
    first = int(points.month.min()) - MONTHS + 1
    months = range(first, int(points.month.max()) + 1)
    for block in blocks_of(source, places, len(months)):
        numbers, values = read_block(source, months, block)
        where = np.full(len(places), -1, dtype=np.int64)
        where[numbers] = np.arange(len(numbers))
        here = np.flatnonzero(where[place] >= 0)
        for start in range(0, len(here), AT_ONCE):
            some = here[start : start + AT_ONCE]
            steps = (points.month[some] - first - (MONTHS - 1))[:, np.newaxis] + np.arange(MONTHS)
            yield some, values[where[place[some]][:, np.newaxis], steps]


def features(source: Inputs, points: Points) -> Floats:
    """What trees get at points: each feature's last month and its mean of the twelve, ``(point, 2 x feature)``."""
    found = np.empty((len(points), 2 * len(source.settings.features)), dtype=np.float32)
    for numbers, values in sequences(source, points):
        found[numbers] = last_and_mean(values)
    return found


def last_and_mean(values: Floats) -> Floats:
    """Of sequences ``(point, 12, feature)``; a mean is over the months that have a value, NaN where none has."""
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0).sum(axis=1, dtype=np.float64)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return np.concatenate([values[:, -1], mean.astype(np.float32)], axis=1)


def said_by(network: Network, source: Inputs, points: Points) -> tuple[Values, Values]:
    """The network's XCO2 and its spread at points, ppm, ``(point,)``: background and departure, no soundings."""
    values, spread = np.full(len(points), np.nan), np.full(len(points), np.nan)
    for numbers, asked in sequences(source, points):
        values[numbers], spread[numbers] = network.ask(asked)
    grid = source.settings.grid
    values += network.background(source).at(points.month, points.row, points.column, grid)
    return values, spread
