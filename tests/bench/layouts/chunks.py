"""Codecs on map chunks and on series chunks, widths and orders of series chunks, and packing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.shards import index_length
from tests.bench import stacks
from tests.bench.layouts import material
from tests.bench.layouts.coding import TODAY, VALUES, aligned_codecs, chosen, codecs, coded
from tests.bench.layouts.cuts import Levels, Stored, Tile, put, sample
from tests.bench.layouts.material import FILL, Full
from tests.bench.layouts.tables import Cell, Table
from tests.bench.layouts.timing import medians
from tests.bench.stacks import MISSING, Stack
from tiler.gather import Separable
from tiler.palette import Painter, palette

MAP_CELLS = 4_000_000
"""Cells of map chunks that codecs are tried on, about."""

SERIES_CELLS = 24 * 900
"""Cells, of all months, that codecs are tried on."""

KEEP_BITS = 15
"""Of the mantissa of a float32: steps of 0.008 ppm at 400 ppm, as near to the packing's 0.01 as bits allow."""

ORDERS = ("t y x", "y x t")
"""Of a series chunk in memory; the first is ours."""

SERIES = ((material.XCO2_REGION, 84, material.XCO2), (material.GWSA_REGION, 120, material.GWSA))
"""Values, months of a block, and the product that they are a part of."""


def map_codecs() -> list[Table]:
    """Every codec on map chunks of both products, packed and as floats."""
    out = []
    for stack, width in ((stacks.XCO2, 450), (material.GWSA_BLOCK, 675)):
        packed = [piece[np.newaxis] for piece in _map_pieces(material.month(stack), width)]
        floats = [material.unrounded(piece, stack) for piece in packed]
        cases: dict[str, Sequence[NDArray[Any]]] = {
            "int16": packed,
            "int16 with noise": [material.rough(piece) for piece in packed],
            "float32": floats,
        }
        if stack is stacks.XCO2:
            cases[f"float32 of {KEEP_BITS} bits"] = [material.rounded_bits(piece, KEEP_BITS) for piece in floats]
        out += [
            _codec_table(f"map codecs, {stack.variable} {kind}", f"map chunk (1, {width}, {width})", pieces)
            for kind, pieces in cases.items()
        ]
    return out


def series_codecs() -> list[Table]:
    """Every codec on series chunks of both products, in both orders of the axes."""
    out = []
    for stack, months, full in SERIES:
        width = material.series_width(full.grid)
        blocks = material.pieces(material.cube(stack, months), (width, width), SERIES_CELLS // width**2)
        out += [
            _codec_table(
                f"series codecs, {stack.variable} int16 {order}",
                f"series chunk of {months} months, {width} x {width} cells",
                _ordered(blocks, order),
            )
            for order in ORDERS
        ]
    return out


def real_codecs() -> list[Table]:
    """Every codec on real rasters, if they are there: does the ranking hold?"""
    folder = material.real_folder()
    if folder is None:
        return []
    chunks = [(name, values, 360, 360) for name, values in material.real_maps(folder)]
    chunks += [(name, values, 25, 30) for name, values in material.real_series(folder)]
    return [
        _codec_table(
            f"real codecs, {name}", f"chunk of {height} x {width} cells", material.pieces(values, (height, width), 24)
        )
        for name, values, height, width in chunks
    ]


def _map_pieces(values: NDArray[Any], width: int) -> list[NDArray[Any]]:
    return material.pieces(values, (width, width), MAP_CELLS // width**2)


def alignment() -> list[Table]:
    """Bits are shuffled in groups of eight values: what if a chunk, or its last block, is no multiple of eight?"""
    maps = {stack.variable: material.month(stack) for stack in (stacks.XCO2, material.GWSA_BLOCK)}
    cases = [("xco2 map", maps["xco2"], (width, width)) for width in (448, 450, 512)]
    cases += [("gwsa map", maps["gwsa"], (width, width)) for width in (672, 675)]
    cases += [
        (f"{stack.variable} series{kind}", values, (width, width))
        for stack, months, _ in SERIES
        for kind, values in (
            ("", material.cube(stack, months)),
            (" with noise", material.rough(material.cube(stack, months))),
        )
        for width in (25, 27, 30, 32)
    ]
    folder = material.real_folder()
    if folder is not None:
        real = [(*one, ((360, 360), (450, 450))) for one in material.real_maps(folder) if one[1].dtype == np.int16]
        real += [(*one, ((24, 32), (25, 30))) for one in material.real_series(folder)]
        cases += [(f"real {name.partition(',')[0]}", values, size) for name, values, sizes in real for size in sizes]
    rows: list[tuple[Cell, ...]] = []
    for name, values, size in cases:
        depth = values[..., 0, 0].size
        most = max(4, MAP_CELLS // (2 * depth * size[0] * size[1]))
        found = coded(material.pieces(values, size, most), aligned_codecs())
        shares = [one.share for one in found.values()]
        times = [one.decode_ms for one in found.values()]
        speeds = [one.write_speed for one in found.values()]
        rows.append((name, f"{depth} x {size[0]} x {size[1]}", depth * size[0] * size[1] % 8, *shares, *times, *speeds))
    shorter = ("b5", "b5 fitted", "b3", "s5", "s3")
    return [
        Table(
            id="alignment",
            title="blosc zstd: b bitshuffle, s shuffle, level; stored share, decode ms of 262 144 values, write MB/s",
            columns=(
                *("data", "chunk", "values mod 8"),
                *(f"{what} {name}" for what in ("share", "ms", "MB/s") for name in shorter),
            ),
            rows=tuple(rows),
        )
    ]


def _ordered(blocks: Sequence[NDArray[Any]], order: str) -> list[NDArray[Any]]:
    return [np.ascontiguousarray(block if order == ORDERS[0] else block.transpose(1, 2, 0)) for block in blocks]


def _codec_table(name: str, title: str, blocks: Sequence[NDArray[Any]]) -> Table:
    found = coded(blocks, codecs())
    today = found[TODAY]
    return Table(
        id=name,
        title=title,
        columns=("codec", "stored share", "times today's bytes", "write MB/s", "decode ms", "times today's decode"),
        rows=tuple(
            (
                codec,
                one.share,
                one.stored / today.stored,
                one.write_speed,
                one.decode_ms,
                one.decode_ms / today.decode_ms,
            )
            for codec, one in found.items()
        ),
    )


def series_widths() -> list[Table]:
    """Widths of series chunks: bytes, what one place costs, and what the indexes of the full product take."""
    places: list[tuple[Cell, ...]] = []
    indexes: list[tuple[Cell, ...]] = []
    for stack, months, full in SERIES:
        values = material.cube(stack, months)
        valid = int((values != MISSING).sum())
        # 60 divides neither 450 nor 675, and a chunk must divide its shard
        for width in (9, 15, 25, 30, 45, 75) if full is material.XCO2 else (9, 15, 27, 45, 75):
            stored = put(values, (months, width, width), values.shape, FILL)
            places += _one_place(stack, values, width)
            indexes.append((stack.variable, width, stored.bytes / valid, *_indexes(full, width, stored)))
            stored.forget()
    return [
        Table(
            id="series widths, one place",
            title="series of one place by the width of a chunk (84 months of XCO2, 120 of GWSA)",
            columns=("series", "width", "order", "codec", "bytes a value", "kB fetched", "decode ms"),
            rows=tuple(places),
        ),
        Table(
            id="series widths, indexes",
            title="bytes of a whole shard, and indexes of the full product for one block of time",
            columns=(
                *("series", "width", "bytes a valid value", "chunks", "MB in shards", "MB in objects.json"),
                "kB of a shard's index",
            ),
            rows=tuple(indexes),
        ),
    ]


def _one_place(stack: Stack, values: NDArray[np.int16], width: int) -> list[tuple[Cell, ...]]:
    blocks = material.pieces(values, (width, width), max(4, SERIES_CELLS // width**2))
    return [
        (
            stack.variable,
            width,
            order,
            name,
            one.stored / one.values,
            one.stored / one.blocks / 1e3,
            one.read_ms / one.blocks,
        )
        for order in ORDERS
        for name, one in coded(_ordered(blocks, order), chosen((TODAY, "pcodec 8"))).items()
    ]


def _indexes(full: Full, width: int, stored: Stored) -> tuple[int, float, float, float]:
    """Entries of all shards of a product, MB of their indexes in the shards and packed, kB of one shard's."""
    grid = full.grid
    shards = -(-grid.height // grid.chunk_y) * -(-grid.width // grid.chunk_x)
    length = index_length((1, grid.chunk_y, grid.chunk_x), (1, width, width))
    # one shard was made; the others' indexes pack as well as its own, but for those that are all sea
    return shards * (length // 16), shards * length / 1e6, shards * stored.packed / 1e6, length / 1e3


def packing() -> list[Table]:
    """Steps of a packed int16 against floats: bytes, decoding, and a warm tile up to the numbers of its colours."""
    rows: list[tuple[Cell, ...]] = []
    part = replace(material.GWSA_BLOCK, width=5400, height=5400)
    co2, water = material.month(stacks.XCO2), material.month(material.GWSA_BLOCK)[: part.height, : part.width]
    for stack, packed, width, zooms in ((stacks.XCO2, co2, 450, (4, 6)), (part, water, 675, (7, 9))):
        exact = material.unrounded(packed, stack)
        rounded = material.rounded_bits(exact, KEEP_BITS)
        kinds: dict[str, NDArray[Any]] = {
            "int16": packed,
            "float32 of the same steps": material.decoded(packed, stack),
            f"float32 of {KEEP_BITS} bits": rounded,
            "float32": exact,
        }
        errors = (stack.scale / 2, stack.scale / 2, float(np.nanmax(np.abs(rounded - exact))), 0.0)
        warm = _warm(stack, kinds, width, zooms)
        first = 0
        for (name, values), error, times in zip(kinds.items(), errors, warm, strict=True):
            one = coded(_map_pieces(values, width), chosen((TODAY,)))[TODAY]
            first = first or one.stored
            rows.append(
                (
                    *(f"{stack.variable} {name}", one.stored / one.values, one.stored / first, error),
                    *(one.write_ms * VALUES / one.values, one.decode_ms, *times),
                )
            )
    return [
        Table(
            id="packing",
            title="packing: CPU to write and decode 262 144 values, and of a warm tile until it is coloured",
            columns=(
                *("stored as", "bytes a value", "times int16", "largest error", "write ms", "decode ms"),
                *("tile ms, 1.3..1.8 cells a pixel", "tile ms, 0.3..0.4 cells a pixel"),
            ),
            rows=tuple(rows),
        )
    ]


def _warm(stack: Stack, kinds: dict[str, NDArray[Any]], width: int, zooms: Sequence[int]) -> list[list[float]]:
    """CPU ms of a warm tile of level 0 at some zooms, for each way to store: gather and colour."""
    grid = material.grid_of(stack, width)
    maps = {name: Levels.of([grid], [values], 4, _fill(values)) for name, values in kinds.items()}
    out: list[list[float]] = [[] for _ in kinds]
    for zoom in zooms:
        tiles = sample(grid.bounds, [zoom], 6)
        sums = np.zeros(len(kinds))
        for tile in tiles:
            works = {name: _drawing(stack, levels, tile) for name, levels in maps.items()}
            sums += list(medians(works, 15).values())
        for times, total in zip(out, sums, strict=True):
            times.append(float(total) / len(tiles))
    for levels in maps.values():
        levels.forget()
    return out


def _fill(values: NDArray[Any]) -> np.generic:
    return FILL if values.dtype == np.int16 else np.float32(np.nan)


def _drawing(stack: Stack, levels: Levels, tile: Tile) -> Callable[[], object]:
    described = material.quantity(stack, str(levels.fill.dtype))
    painter = Painter(described, stack.ranges, palette("viridis"))
    level, places = levels.places(tile)
    chunks = levels.read(level, places)

    def draw(places: Separable = places) -> object:
        taken = places.taken(chunks, levels.fill)
        painted = painter.stored(taken) if painter.has_table else painter.decoded(described.decode(taken))
        return painted.through(places.spread)

    return draw
