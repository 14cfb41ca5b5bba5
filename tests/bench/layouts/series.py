"""Blocks of time of the series, what an appended month costs, and whether level 0 is to be stored twice."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Window
from services.core.segment import StoredArray
from services.core.shards import encode_shard
from tests.bench.layouts import material
from tests.bench.layouts.cuts import Asked, Cost, Levels, Stored, costs, put, sample
from tests.bench.layouts.material import FILL
from tests.bench.layouts.tables import Cell, Table
from tests.bench.layouts.timing import medians
from tests.bench.stacks import MISSING, Stack

MONTHS = 225
BLOCKS = (12, 60, 120, 240)
PLACES = 8
REPEATS = 5
CASES = ((material.XCO2_REGION, material.XCO2), (material.GWSA_REGION, material.GWSA))

TWICE_MONTHS = 120
CHUNKS = ((1, 675), (120, 15), (12, 45), (12, 75), (12, 135))
"""Months and cells of chunks that tiles and series of the 1/120 degree product might be read from: the maps' and the
series' of today first, then some that might serve both."""
NATIVE = (7, 8)
"""Zooms that are drawn of level 0 where a pixel is no wider than two cells and no narrower than half of one."""
TILES = 12


def blocks() -> list[Table]:
    """Lengths of a block: a series of 225 months, and bytes that an appended month writes again."""
    rows: list[tuple[Cell, ...]] = []
    for stack, full in CASES:
        values = material.cube(stack, MONTHS)
        width = material.series_width(full.grid)
        valid = material.land_cells(full, stack)
        here = int((values[0] != MISSING).sum())
        for block in BLOCKS:
            chunk, shard = (block, width, width), (block, *values.shape[1:])
            stored = [put(values[first : first + block], chunk, shard, FILL) for first in range(0, MONTHS, block)]
            first_time, later, decode = _one_series(stored, stack)
            size = sum(one.bytes for one in stored) / here * valid
            again = [bytes_ * valid for bytes_ in _appended(values, block, width)]
            rows.append(
                (
                    *(stack.variable, block, first_time.gets, later.gets, later.fetched / 1e3, decode),
                    *(later.wait_ms + decode, size / 1e9, *(number / 1e6 for number in again)),
                )
            )
            for one in stored:
                one.forget()
    return [
        Table(
            id="series blocks",
            title="months of a block, archive of 225 months; bytes of the full product by its valid cells",
            columns=(
                *("series", "block", "GETs, new shard", "GETs", "kB", "CPU ms", "wait ms"),
                *("GB of the product", "MB an appended month writes, mean", "MB at most"),
            ),
            rows=tuple(rows),
        )
    ]


def _one_series(stored: Sequence[Stored], stack: Stack) -> tuple[Asked, Asked, float]:
    """What a series asks for, the mean of some places: in a new shard, and in a known one; and its CPU ms there."""
    random = np.random.default_rng(PLACES)
    known = [one.array for one in stored]
    first, later, times = [], [], []
    for _ in range(PLACES):
        y, x = (int(number) for number in random.integers(0, (stack.height, stack.width)))
        window = Window(row=y, column=x, height=1, width=1)
        first.append(_asked(stored, _reading([one.unknown for one in stored], window)))
        later.append(_asked(stored, _reading(known, window)))
        times.append(medians({"read": _reading(known, window)}, REPEATS)["read"])
    return Asked.mean(first), Asked.mean(later), float(np.mean(times))


def _asked(stored: Sequence[Stored], work: Callable[[], object]) -> Asked:
    for one in stored:
        one.store.asked.clear()
    work()
    return Asked.of([call for one in stored for call in one.store.asked])


def _reading(arrays: Sequence[StoredArray], window: Window) -> Callable[[], object]:
    return lambda: [array.read(range(array.layout.shape[0]), window) for array in arrays]


def _appended(values: NDArray[np.int16], block: int, width: int) -> tuple[float, float]:
    """Bytes of a block a valid cell, the mean over its life from one month to all, and at most."""
    side = width * 8
    part = values[:, -side:, :side]
    here = max(1, int((part[0] != MISSING).sum()))
    most = min(block, MONTHS)
    filled = sorted({1, *(round(most * share) for share in (0.25, 0.5, 0.75, 1.0))})
    sizes = [
        len(encode_shard(part[:months], (block, side, side), (block, width, width), FILL)) / here for months in filled
    ]
    every = np.interp(np.arange(1, most + 1), filled, sizes)
    return float(every.mean()), float(every.max())


def twice() -> list[Table]:
    """Tiles and series of the 1/120 degree product by the chunks of level 0 that they are read from."""
    stack = material.GWSA_REGION
    values = material.cube(stack, TWICE_MONTHS)
    here = int((values[0] != MISSING).sum())
    cells = material.land_cells(material.GWSA, stack)
    rows: list[tuple[Cell, ...]] = []
    tiles: dict[tuple[int, str], Cost] = {}
    arrays: dict[str, list[Stored]] = {}
    for months, width in CHUNKS:
        chunk, shard = (months, width, width), (months, *values.shape[1:])
        arrays[f"{months} x {width} x {width}"] = [
            put(values[first : first + months], chunk, shard, FILL) for first in range(0, TWICE_MONTHS, months)
        ]
    maps = {
        name: Levels(grids=(material.grid_of(stack, stored[0].array.layout.chunk[2]),), stored=(stored[0],), fill=FILL)
        for name, stored in arrays.items()
    }
    for zoom in NATIVE:
        found = costs(maps, sample(material.grid_of(stack, 675).bounds, [zoom], TILES), REPEATS)
        tiles |= {(zoom, name): cost for name, cost in found.items()}
    for name, stored in arrays.items():
        _, later, decode = _one_series(stored, stack)
        size = sum(one.bytes for one in stored) / here / TWICE_MONTHS
        rows.append((name, size, size * cells * material.GWSA.months / 1e9))
        for zoom in NATIVE:
            cost = tiles[zoom, name]
            rows[-1] += (cost.asked.gets, cost.asked.fetched / 1e3, cost.cold_ms, cost.wait_ms)
        rows[-1] += (later.gets, later.fetched / 1e3, decode, later.wait_ms + decode)
    for stored in arrays.values():
        for one in stored:
            one.forget()
    per_zoom = ("GETs", "kB", "CPU ms", "wait ms")
    return [
        Table(
            id="level 0 twice",
            title="gwsa, level 0 by the chunk that is read: a native tile of one month, and a series of 120 months; "
            "one shard object of 675 x 675 cells a block",
            columns=(
                *("chunk", "bytes a valid value", "GB of 225 months"),
                *(f"z{zoom} {name}" for zoom in NATIVE for name in per_zoom),
                *(f"series {name}" for name in per_zoom),
            ),
            rows=tuple(rows),
        )
    ]
