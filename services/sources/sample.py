"""A few values of many, to choose colours and a packing by."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Grid, Window
from services.sources import files, handles
from services.sources.recipe import Run, Table

WHOLE = 262_144
"""Cells up to which a map is looked at as a whole."""

SIDE = 128
"""Rows and columns of a window that is looked at of a larger map."""

PERIODS = 4
ACROSS = 5
"""Windows along each side of a larger map."""

MANY = 16
"""Windows along each side where the few held nothing."""

CHUNKS = 24
"""Stored chunks of a Zarr store that are looked at where windows held nothing."""


def sampled(table: Table, grid: Grid) -> NDArray[np.float64]:
    """Valid decoded values of a few windows of a few periods, in a fixed order; empty if none were found.

    Raises:
        InputRefused: if a file is broken.
    """
    runs = _spread(table)
    if grid.cells <= WHOLE:
        return _values(table, runs, [Window(row=0, column=0, height=grid.height, width=grid.width)])
    values = _values(table, runs, list(_lattice(grid, ACROSS)))
    if not values.size:
        values = _stored_chunks(table)
    if not values.size:
        values = _values(table, runs[:1], list(_lattice(grid, MANY)))
    return values


def _spread(table: Table) -> list[tuple[Run, int]]:
    total = table.runs[-1].position + table.runs[-1].count
    wanted = sorted({round(at) for at in np.linspace(0, total - 1, PERIODS)})
    found: list[tuple[Run, int]] = []
    for position in wanted:
        run = next(run for run in table.runs if run.position <= position < run.position + run.count)
        found.append((run, run.first + position - run.position))
    return found


def _lattice(grid: Grid, across: int) -> Iterator[Window]:
    height, width = min(SIDE, grid.height), min(SIDE, grid.width)
    rows = {round((grid.height - height) * (number + 0.5) / across) for number in range(across)}
    columns = {round((grid.width - width) * (number + 0.5) / across) for number in range(across)}
    for row in sorted(rows):
        for column in sorted(columns):
            yield Window(row=row, column=column, height=height, width=width)


def _values(table: Table, maps: list[tuple[Run, int]], windows: list[Window]) -> NDArray[np.float64]:
    found: list[NDArray[np.float64]] = []
    for run, number in maps:
        layout = table.layouts[table.shapes[run.source][1]]
        for window in windows:
            for columns, _ in layout.source_columns(window):
                found.append(_read(table, run, slice(number, number + 1), layout.source_rows(window), columns))
    return np.concatenate(found) if found else np.empty(0)


def _read(table: Table, run: Run, numbers: slice, rows: slice, columns: slice) -> NDArray[np.float64]:
    access = table.accesses[table.shapes[run.source][0]]
    packing = table.packings[run.packing]
    with handles.opened(table.sources[run.source]) as file:
        values = file.read(access, numbers, rows, columns)
    decoded = packing.decode(packing.read(np.ma.getdata(values)))
    kept: NDArray[np.float64] = decoded[~np.ma.getmaskarray(values) & np.isfinite(decoded)]
    return kept


def _stored_chunks(table: Table) -> NDArray[np.float64]:
    run = table.runs[0]
    source = table.sources[run.source]
    if source.kind != "zarr":
        return np.empty(0)
    access = table.accesses[table.shapes[run.source][0]]
    with handles.opened(source) as file:
        shape = getattr(file, "chunks", lambda _: ())(access.variable)
    keys = sorted(key for path in files.objects(source) if (key := _indices(path, access.variable, len(shape))))
    found: list[NDArray[np.float64]] = []
    for key in [keys[at] for at in sorted({round(at) for at in np.linspace(0, len(keys) - 1, CHUNKS)})] if keys else []:
        box: dict[Any, slice] = {"t": slice(0, 1)}
        for role, number, size in zip(access.roles, key, shape, strict=True):
            box[role] = slice(number * size, (number + 1) * size)
        found.append(_read(table, run, box["t"], box["y"], box["x"]))
    return np.concatenate(found) if found else np.empty(0)


def _indices(path: str, variable: str, count: int) -> tuple[int, ...] | None:
    rest = path.removeprefix(f"{variable}/").removeprefix("c/").replace("/", ".").split(".")
    if len(rest) != count or not all(part.isdigit() for part in rest):
        return None
    return tuple(int(part) for part in rest)
