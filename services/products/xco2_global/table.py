"""The table that the network learns from: cells with soundings, and their covariates over all months."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.xco2_global.signature import MONTHS
from models.xco2_global.table import Covariate, SequenceTable, create_values, make_rows
from services.core.errors import InputRefused
from services.core.grid import Window
from services.pipeline.recipe import Each
from services.products.xco2_global.background import Background, Fitted, fit
from services.products.xco2_global.covariates import Floats, series
from services.products.xco2_global.inputs import AROUND, Inputs
from services.products.xco2_global.observed import Observed
from services.validation import folds

type Note = Callable[[str], None]

GROUPS = 10
"""Into which blocks of BLOCK degrees and BLOCK_MONTHS months are dealt: one stops the training, one is for scores."""

STOPPING, SCORED = 0, 1
"""The groups of the one and the other."""

BLOCK, BLOCK_MONTHS = 10.0, 1
"""Degrees and months of a block that is held out as a whole, as haohuresearch/XCO2_reconstruction does."""

HELD_BYTES = 128 << 20
"""Of the features of a block of cells that is read at a time, 4 bytes each."""

FIRST_ERROR = 1.0
"""ppm by which cells depart from the background, for the weights of its fit (our choice)."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Cells with soundings that have a twelve months' sequence; all arrays are ``(cell,)``."""

    month: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    xco2: NDArray[np.float64]
    error: NDArray[np.float64]
    time: NDArray[np.float64]
    """Mean of the soundings, s since 1970."""

    group: NDArray[np.int64]
    """0..GROUPS-1, whole blocks of place and time together."""

    def __len__(self) -> int:
        return len(self.month)

    @property
    def moment(self) -> NDArray[np.float64]:
        """Months since 1970-01, as ``Background.at`` takes them."""
        return moments(self.month, self.time)

    def take(self, which: NDArray[Any]) -> "Seen":
        """Some of them."""
        return Seen(**{one.name: getattr(self, one.name)[which] for one in fields(self)})


def moments(month: NDArray[np.int64], time: NDArray[np.float64]) -> NDArray[np.float64]:
    """Months since 1970-01, whole in the middle of a month, of times of these months, s since 1970."""
    first, after = (one.astype("datetime64[M]").astype("datetime64[s]").astype(np.int64) for one in (month, month + 1))
    share = (time - first) / (after - first).astype(np.float64)
    found: NDArray[np.float64] = month.astype(np.float64) + share - 0.5
    return found


def seen(inputs: Inputs, observed: Observed, seed: int) -> Seen:
    """All cells with soundings in the months that the covariates reach, dealt to groups.

    Raises:
        InputRefused: if there are none, or too few blocks.
    """
    grid, periods = inputs.settings.grid, set(inputs.periods.starts)
    counts = {month: len(observed.cells(month)) for month in observed.months if month in periods}
    total = sum(counts.values())
    if not total:
        raise InputRefused(f"{inputs.directory}: no month has both soundings and twelve months of all covariates")
    month, row, column = (np.empty(total, dtype=np.int64) for _ in range(3))
    xco2, error, time = (np.empty(total) for _ in range(3))
    labels = np.empty((total, 3), dtype=np.int16)
    first = 0
    for one, count in counts.items():
        cells, part = observed.cells(one), slice(first, first + count)  # a month at a time is held beside all
        month[part], row[part], column[part] = one, cells.row, cells.column
        xco2[part], error[part], time[part] = cells.xco2, cells.error, cells.time
        place = grid.longitudes[cells.column], grid.latitudes[cells.row]
        labels[part] = folds.space_time(*place, month[part], BLOCK, BLOCK_MONTHS)
        first += count
    group = folds.dealt(labels, GROUPS, seed)
    return Seen(month=month, row=row, column=column, xco2=xco2, error=error, time=time, group=group)


def fitted(inputs: Inputs, cells: Seen, like: Fitted | None = None) -> Background:
    """The background, fitted to the cells that the network learns from; ``like`` as ``background.fit`` takes it."""
    learned = (cells.group != STOPPING) & (cells.group != SCORED)
    weights = 1 / (FIRST_ERROR**2 + cells.error[learned] ** 2)
    at = cells.moment[learned], cells.row[learned], cells.column[learned]
    return fit(inputs, *at, cells.xco2[learned], weights, like=like)


def drawn(inputs: Inputs, cells: Seen, background: Background, seed: int) -> Seen:
    """Cells that have a background, drawn evenly where there are more than ``training.rows``."""
    known = ~np.isnan(background.at(cells.moment, cells.row, cells.column, inputs.settings.grid))
    usable = np.flatnonzero(known)
    if len(usable) > inputs.settings.training.rows:
        usable = np.sort(np.random.default_rng(seed).choice(usable, inputs.settings.training.rows, replace=False))
    return cells.take(usable)


def tabulate(
    inputs: Inputs, cells: Seen, background: Background, directory: Path, each: Each, note: Note
) -> SequenceTable:
    """Write the table: departures of cells from the background at the time of their soundings, and their covariates.

    Args:
        inputs: hashed.
        cells: as ``drawn``; rows of the table are in their order.
        background: whose departures are learned.
        directory: of the table; made if it is not there.
        each: reads blocks of the covariates.
        note: told how far it is.
    """
    settings, grid = inputs.settings, inputs.settings.grid
    target = cells.xco2 - background.at(cells.moment, cells.row, cells.column, grid)
    places, cell = np.unique(cells.row * grid.width + cells.column, return_inverse=True)
    months = range(int(cells.month.min()) - MONTHS + 1, int(cells.month.max()) + 1)
    values = create_values(directory, len(places), len(months), len(settings.features))
    blocks = list(blocks_of(inputs, places, len(months)))
    work = partial(read_block, inputs, months)
    for number, (numbers, found) in enumerate(each(work, blocks), 1):
        values[numbers] = found
        note(f"covariates: {number} of {len(blocks)} blocks of cells read")
    values.flush()
    names = {one.name: one for one in settings.covariates}
    table = SequenceTable(
        description=(
            f"departures of {len(cells)} cells' monthly means from the {background.fitted.kind} background, "
            f"{np.datetime64(months[MONTHS - 1], 'M')} to {np.datetime64(months[-1], 'M')}"
        ),
        synthetic=settings.synthetic,
        covariates=tuple(
            Covariate(name=name, units=units, long_name=_long_name(name, names))
            for name, units in settings.features.items()
        ),
        first_month=months[0],
        values=values,
        rows=make_rows(
            {
                "cell": cell,
                "month": cells.month,
                "target": target,
                "error": cells.error,
                "group": cells.group,
            }
        ),
        where=str(directory),
    )
    table.write(directory)
    return table


@dataclass(frozen=True, kw_only=True)
class Block:
    """Cells that are read together."""

    window: Window
    numbers: NDArray[np.int64]
    """Of its places among all."""

    places: NDArray[np.int64]
    """Of the same in the window, row by row."""


def blocks_of(inputs: Inputs, places: NDArray[np.int64], months: int) -> Iterator[Block]:
    """Blocks of cells, whose features over so many months take HELD_BYTES at most.

    Args:
        inputs: opened.
        places: row times the grid's width plus column, ``(cell,)``, each once.
        months: that are read of each.
    """
    if not len(places):
        return
    grid = inputs.settings.grid
    row, column = places // grid.width, places % grid.width
    most = max(HELD_BYTES // (4 * months * len(inputs.settings.features)), 1)
    height = max(int(np.sqrt(most)), 1)
    width = max(most // height, 1)
    label = (row // height) * (grid.width // width + 1) + column // width
    order = np.argsort(label, kind="stable")
    for numbers in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        rows, columns = row[numbers], column[numbers]
        window = Window(
            row=int(rows.min()),
            column=int(columns.min()),
            height=int(np.ptp(rows)) + 1,
            width=int(np.ptp(columns)) + 1,
        )
        inside = (rows - window.row) * window.width + columns - window.column
        yield Block(window=window, numbers=numbers, places=inside)


def read_block(inputs: Inputs, months: range, block: Block) -> tuple[NDArray[np.int64], Floats]:
    """Numbers of a block's places, and their features ``(place, month, feature)``."""
    return block.numbers, series(inputs, months, block.window)[block.places]


def _long_name(name: str, covariates: dict[str, Any]) -> str:
    told = {
        "sphere_x": "cosine of latitude times cosine of longitude",
        "sphere_y": "cosine of latitude times sine of longitude",
        "sphere_z": "sine of latitude",
        "season_sin": "sine of the month's place in the year",
        "season_cos": "cosine of the month's place in the year",
    }
    if name in told:
        return told[name]
    own = name.removesuffix(AROUND)
    if name not in covariates and own != name:
        return f"{_long_name(own, covariates)}; mean of what lies around"
    return f"{name}, as xco2.toml names it" if name in covariates else f"share of the class in {name}"
