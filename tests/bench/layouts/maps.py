"""Widths of map chunks, sizes of shards, and the factor between levels: what tiles touch, and what they cost."""

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from services.core import shards
from services.core.grid import Grid
from tests.bench import stacks
from tests.bench.floor import pixel_degrees
from tests.bench.layouts import material
from tests.bench.layouts.coding import Fitted, blosc
from tests.bench.layouts.cuts import Cost, Levels, Tile, coarsest, costs, counts, sample, shard_shape
from tests.bench.layouts.material import FILL, Full
from tests.bench.layouts.tables import Cell, Table
from tests.bench.stacks import Stack

ZOOMS = range(9)
WIDTHS = {"xco2": (225, 450, 900, 256, 512, 1024), "gwsa": (675, 1350, 256, 512, 1024)}
"""Those that are 360 / 2^n degrees first."""

SHARDS = (2, 4, 8)
TODAY = {"xco2": 450, "gwsa": 675}
TILES = 12
"""Of each zoom that are read."""

REPEATS = 3
FACTORS = (2, 3, 4)

BLOSCS: dict[str, Any] = {
    f"blosc zstd {level} {shuffle}": blosc(level, shuffle) for level in (5, 3) for shuffle in ("bitshuffle", "shuffle")
} | {"blosc zstd 5 bitshuffle, fitted": Fitted()}

COSTS = ("k cells", "objects", "GETs", "kB needed", "kB fetched", "cold ms", "warm ms", "wait ms")


def _cost(cost: Cost) -> tuple[Cell, ...]:
    return (
        *(cost.cells / 1e3, cost.asked.objects, cost.asked.gets, cost.asked.needed / 1e3, cost.asked.fetched / 1e3),
        *(cost.cold_ms, cost.warm_ms, cost.wait_ms),
    )


def _sources() -> list[tuple[Full, Stack, NDArray[np.int16], Iterable[int]]]:
    """A product, the part of it that is made, its values, and the zooms whose tiles lie in it."""
    return [
        (material.XCO2, stacks.XCO2, material.month(stacks.XCO2), ZOOMS),
        (material.GWSA, material.GWSA_BLOCK, material.month(material.GWSA_BLOCK), range(2, 9)),
    ]


def touched() -> list[Table]:
    """Chunks and shard objects that tiles of the full products touch: counted for all tiles of each zoom."""
    rows: list[tuple[Cell, ...]] = []
    for full in (material.XCO2, material.GWSA):
        for width in WIDTHS[full.id]:
            grids = material.level_grids(material.cut(full.grid, width))
            found = [counts(grids, zoom, 4) for zoom in ZOOMS]
            for what, number in (("chunks", 0), ("shards of 4 x 4", 1)):
                means = [one[number].mean for one in found]
                rows.append((full.id, width, what, *means, max(one[number].most for one in found)))
    return [
        Table(
            id="map widths, touched",
            title="chunks and shard objects under a tile, mean of all tiles of a zoom (43200 x 18000 for gwsa)",
            columns=("product", "width", "touched", *(f"z{zoom}" for zoom in ZOOMS), "most"),
            rows=tuple(rows),
        )
    ]


def widths_and_shards() -> list[Table]:
    """Tiles read from maps that are cut in other ways."""
    means: list[tuple[Cell, ...]] = []
    details: list[tuple[Cell, ...]] = []
    objects: list[tuple[Cell, ...]] = []
    for full, stack, values, zooms in _sources():
        finest = material.level_grids(material.grid_of(stack, TODAY[full.id]))
        maps = [material.coarser(values, 2**number) for number in range(len(finest))]

        def cut_into(width: int, shard: int, stack: Stack = stack, maps: Any = maps) -> Levels:
            return Levels.of(material.level_grids(material.grid_of(stack, width)), maps, shard, FILL)

        cuts = {f"{width}": cut_into(width, 4) for width in WIDTHS[full.id]}
        by_zoom = _by_zoom(cuts, finest[0], zooms)
        for name, levels in cuts.items():
            every = [found[name] for found in by_zoom.values()]
            means.append((full.id, int(name), levels.bytes / 1e6, *_cost(Cost.mean(every))))
            details += [(full.id, int(name), zoom, *_cost(found[name])) for zoom, found in by_zoom.items()]
        _forget(cuts)
        cuts = {f"{shard}": cut_into(TODAY[full.id], shard) for shard in SHARDS}
        by_zoom = _by_zoom(cuts, finest[0], zooms)
        for name, levels in cuts.items():
            asked = Cost.mean([found[name] for found in by_zoom.values()]).asked
            objects.append((full.id, f"{name} x {name}", *_shard(full, levels, int(name)), asked.objects, asked.gets))
        _forget(cuts)
    return [
        Table(
            id="map widths, tiles",
            title="a tile by the width of a chunk, shards of 4 x 4: mean of z0..z8 (gwsa: z2..z8 of 90 x 90 degrees)",
            columns=("product", "width", "MB a month", *COSTS),
            rows=tuple(means),
        ),
        Table(
            id="map widths, tiles by zoom",
            title="the same by zoom",
            columns=("product", "width", "zoom", *COSTS),
            rows=tuple(details),
            is_detail=True,
        ),
        Table(
            id="shards",
            title="chunks of a shard: objects and indexes of the full product, size of an object, what a tile asks for",
            columns=(
                *("product", "chunks", "objects a month", "objects in all", "MB of indexes in all"),
                *("mean MB of an object of level 0", "largest MB", "MB decoded", "objects a tile", "GETs a tile"),
            ),
            rows=tuple(objects),
        ),
    ]


def _by_zoom(cuts: dict[str, Levels], grid: Grid, zooms: Iterable[int]) -> dict[int, dict[str, Cost]]:
    out = {}
    for zoom in zooms:
        tiles: list[Tile] = sample(grid.bounds, [zoom], TILES)
        out[zoom] = costs(cuts, tiles, REPEATS)
    return out


def _forget(cuts: dict[str, Levels]) -> None:
    for levels in cuts.values():
        levels.forget()


def _shard(full: Full, levels: Levels, shard: int) -> tuple[Cell, ...]:
    """Objects a month and in all, MB of indexes in all, and sizes of an object of level 0."""
    objects = [_objects(grid, shard) for grid in material.level_grids(full.grid)]
    # each level but the first has an array of valid fractions: of every month, or one for a fixed mask (gwsa)
    fractions = sum(objects[1:])
    is_fixed = full is material.GWSA
    a_month = sum(objects) + (0 if is_fixed else fractions)
    in_all = full.months * a_month + (fractions if is_fixed else 0)
    made = sum(len(one.sizes) for one in levels.stored)
    # indexes by those that were made: of a part of the product, and of one month
    packed = sum(one.packed for one in levels.stored) / made * full.months * sum(objects)
    sizes = levels.stored[0].sizes
    height, width = shard_shape(full.grid, shard)
    return (
        *(a_month, in_all, packed / 1e6),
        *(float(np.mean(sizes)) / 1e6, max(sizes) / 1e6, height * width * 2 / 1e6),
    )


def _objects(grid: Grid, shard: int) -> int:
    height, width = shard_shape(grid, shard)
    return -(-grid.height // height) * -(-grid.width // width)


def written_by(codec: Any) -> AbstractContextManager[object]:
    """Shards are written in another codec of Blosc, of which a body says itself how it is to be read."""
    return mock.patch.object(shards, "_coder", return_value=codec)


def tile_codecs() -> list[Table]:
    """Tiles read from maps in today's cut, in other codecs."""
    rows: list[tuple[Cell, ...]] = []
    for full, stack, values, zooms in _sources():
        grids = material.level_grids(material.grid_of(stack, TODAY[full.id]))
        maps = [material.coarser(values, 2**number) for number in range(len(grids))]
        cuts: dict[str, Levels] = {}
        writing: dict[str, float] = {}
        for name, codec in BLOSCS.items():
            with written_by(codec):
                before = time.thread_time()
                cuts[name] = Levels.of(grids, maps, 4, FILL)
                writing[name] = time.thread_time() - before
        by_zoom = _by_zoom(cuts, grids[0], zooms)
        for name, levels in cuts.items():
            cost = Cost.mean([found[name] for found in by_zoom.values()])
            rows.append((full.id, name, levels.bytes / 1e6, writing[name], *_cost(cost)))
        _forget(cuts)
    return [
        Table(
            id="tile codecs",
            title="all levels of a month in other codecs: MB and CPU s to write, and a tile, mean of all zooms",
            columns=("product", "codec", "MB a month", "write s", *COSTS),
            rows=tuple(rows),
        )
    ]


def factors() -> list[Table]:
    """Levels that are 2, 3 or 4 times as coarse as the one before."""
    means: list[tuple[Cell, ...]] = []
    details: list[tuple[Cell, ...]] = []
    for full, stack, values, zooms in _sources():
        cuts: dict[str, Levels] = {}
        grid = material.grid_of(stack, TODAY[full.id])
        for factor in FACTORS:
            grids = material.level_grids(grid, factor)
            maps = [material.coarser(values, factor**number) for number in range(len(grids))]
            cuts[f"{factor}"] = Levels.of(grids, maps, 4, FILL)
        by_zoom = _by_zoom(cuts, grid, zooms)
        for name, levels in cuts.items():
            factor = int(name)
            whole = material.level_grids(full.grid, factor)
            wide = {zoom: _cells_a_pixel(whole, zoom) for zoom in zooms}
            touches = {zoom: counts(whole, zoom, 4)[0] for zoom in zooms}
            extra = sum(one.bytes for one in levels.stored[1:]) / levels.stored[0].bytes
            every = [found[name] for found in by_zoom.values()]
            most = max(one.most for one in touches.values())
            means.append((full.id, factor, len(whole), extra, max(wide.values()), most, *_cost(Cost.mean(every))))
            details += [
                (full.id, factor, zoom, wide[zoom], touches[zoom].mean, touches[zoom].most, *_cost(found[name]))
                for zoom, found in by_zoom.items()
            ]
        _forget(cuts)
    return [
        Table(
            id="level factors",
            title="factor between levels: bytes of levels beside level 0, cells under a pixel along x, and a tile",
            columns=("product", "factor", "levels", "extra bytes", "most cells a pixel", "most chunks", *COSTS),
            rows=tuple(means),
        ),
        Table(
            id="level factors by zoom",
            title="the same by zoom",
            columns=("product", "factor", "zoom", "cells a pixel", "mean chunks", "most chunks", *COSTS),
            rows=tuple(details),
            is_detail=True,
        ),
    ]


def _cells_a_pixel(grids: Sequence[Grid], zoom: int) -> float:
    pixel = pixel_degrees(zoom)
    return pixel / float(grids[coarsest(grids, pixel)].step_x)
