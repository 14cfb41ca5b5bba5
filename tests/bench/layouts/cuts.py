"""What tiles touch of a grid that is cut into chunks and shards: counted for all tiles, measured on a sample."""

import math
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, override

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Grid, windows
from services.core.segment import ArrayLayout, StoredArray, normal_index, pack_indexes
from services.core.shards import Shape3, decode_index, encode_shard, index_length
from services.core.store.memory import Memory
from tests.bench.floor import pixel_degrees
from tests.bench.layouts.timing import medians
from tests.bench.stacks import SEED
from tiler.gather import Separable, columns_of, rows_of
from tiler.matrices import matrix_set
from tiler.reader import tile_target

MERCATOR = "WebMercatorQuad"

NEARBY = 2**20
"""Bytes between two ranges of one object up to which obstore asks for both, and what lies between, in one request."""

WAIT_MS = 20.0
"""Of a request to a store that is not near."""

BYTES_PER_MS = 100_000
"""100 MB/s."""

type Tile = tuple[int, int, int]
"""Zoom, column and row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counting(Memory):
    """A store that keeps what it was asked for."""

    asked: list[tuple[str, list[tuple[int, int]]]] = field(default_factory=list, repr=False, compare=False)
    kept: list[str] = field(default_factory=list, repr=False, compare=False)
    """Keys of its objects."""

    @override
    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.asked.append((key, list(ranges)))
        return Memory.get_ranges(self, key, ranges)

    @override
    def get_suffix(self, key: str, length: int) -> bytes:
        self.asked.append((key, [(0, length)]))
        return Memory.get_suffix(self, key, length)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Requests to a store, summed."""

    objects: float = 0
    """Shard objects, one after the other."""

    gets: float = 0
    needed: float = 0
    """Bytes of chunks and indexes."""

    fetched: float = 0
    """Bytes with what lies between chunks that are asked for together."""

    @classmethod
    def of(cls, asked: Iterable[tuple[str, Sequence[tuple[int, int]]]]) -> "Asked":
        """Ranges of each call, put together as obstore does."""
        calls = [(ranges, together(ranges)) for _, ranges in asked]
        return cls(
            objects=len(calls),
            gets=sum(len(spans) for _, spans in calls),
            needed=sum(length for ranges, _ in calls for _, length in ranges),
            fetched=sum(length for _, spans in calls for _, length in spans),
        )

    @classmethod
    def mean(cls, many: Sequence["Asked"]) -> "Asked":
        """The mean of several."""
        return cls(
            **{
                name: float(np.mean([getattr(one, name) for one in many]))
                for name in ("objects", "gets", "needed", "fetched")
            }
        )

    @property
    def wait_ms(self) -> float:
        """What a client would wait for a store that is not near: told, not measured."""
        return self.objects * WAIT_MS + self.fetched / BYTES_PER_MS


def together(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges as (offset, length), neighbours made one."""
    out: list[tuple[int, int]] = []
    for start, length in sorted(ranges):
        if out and start - sum(out[-1]) <= NEARBY:
            first, known = out[-1]
            out[-1] = (first, max(known, start + length - first))
        else:
            out.append((start, length))
    return out


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An array in memory, in the shards that services.core.shards writes."""

    array: StoredArray
    """Knows the indexes of its shards, as maps do."""

    store: Counting
    sizes: tuple[int, ...]
    """Bytes of each shard object."""

    packed: int
    """Bytes of its shard indexes as objects.json keeps them."""

    @property
    def bytes(self) -> int:
        """Of all shards."""
        return sum(self.sizes)

    @property
    def unknown(self) -> StoredArray:
        """The same array as a process sees it that asks for the indexes of its shards, as with series."""
        return StoredArray(store=self.store, prefix=self.array.prefix, layout=self.array.layout)

    def asked_by(self, work: Callable[[], object]) -> Asked:
        """What a piece of work asks the store for."""
        self.store.asked.clear()
        work()
        return Asked.of(self.store.asked)

    def forget(self) -> None:
        """Give the memory back."""
        self.store.delete(list(self.store.kept))


def put(values: NDArray[Any], chunk: Shape3, shard: Shape3, fill: np.generic) -> Stored:
    """Store an array ``(time, y, x)`` that is at most one shard deep, in chunks and shards of these shapes."""
    store = Counting(name=f"sweep-{uuid.uuid4().hex}")
    depth, height, width = values.shape
    described = ArrayLayout(
        shape=(depth, height, width), dtype=str(values.dtype), chunk=chunk, shard=shard, fill=fill.item()
    )
    array = StoredArray(store=store, prefix="a", layout=described)
    sizes, indexes = [], []
    for number, window in enumerate(windows((height, width), shard[1:])):
        body = encode_shard(values[:, window.rows, window.columns], shard, chunk, fill)
        store.create(array.shard_key(number), body)
        store.kept.append(array.shard_key(number))
        sizes.append(len(body))
        indexes.append(normal_index(decode_index("a", body[-index_length(shard, chunk) :])))
    table = np.stack(indexes)
    array = StoredArray(store=store, prefix="a", layout=described, indexes=table.astype(np.uint32))
    return Stored(array=array, store=store, sizes=tuple(sizes), packed=len(pack_indexes(table)))


@dataclass(frozen=True, kw_only=True)
class Levels:
    """One month in all its levels, cut in one way."""

    grids: tuple[Grid, ...]
    stored: tuple[Stored, ...]
    fill: np.generic

    @classmethod
    def of(cls, grids: Sequence[Grid], maps: Sequence[NDArray[Any]], shard: int, fill: np.generic) -> "Levels":
        """Store the maps of all levels.

        Args:
            grids: of the levels, each with its chunks.
            maps: ``(y, x)`` of each level.
            shard: chunks of a shard along each axis.
            fill: the missing value.
        """
        stored = []
        for grid, values in zip(grids, maps, strict=True):
            chunk = (1, grid.chunk_y, grid.chunk_x)
            stored.append(put(values[np.newaxis], chunk, (1, *shard_shape(grid, shard)), fill))
        return cls(grids=tuple(grids), stored=tuple(stored), fill=fill)

    @property
    def bytes(self) -> int:
        """Of all levels."""
        return sum(one.bytes for one in self.stored)

    def places(self, tile: Tile) -> tuple[int, Separable]:
        """The level that a tile is drawn of, and its cells there."""
        zoom, x, y = tile
        level = coarsest(self.grids, pixel_degrees(zoom))
        target = tile_target(matrix_set(MERCATOR), x, y, zoom)
        return level, Separable(rows_of(self.grids[level], target), columns_of(self.grids[level], target))

    def read(self, level: int, places: Separable) -> list[NDArray[Any]]:
        """The chunks of a tile, read and decoded."""
        return [chunk[0] for chunk in self.stored[level].array.chunks([(0, y, x) for y, x in places.chunks])]

    def gathered(self, places: Separable, chunks: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The stored values of a tile's pixels, of chunks in memory."""
        return places.spread(places.taken(chunks, self.fill))

    def forget(self) -> None:
        """Give the memory back."""
        for one in self.stored:
            one.forget()

    def drawn(self, tile: Tile) -> NDArray[Any]:
        """The stored values of a tile's pixels, ``(y, x)``."""
        level, places = self.places(tile)
        return self.gathered(places, self.read(level, places))

    def reading(self, level: int, places: Separable) -> Callable[[], object]:
        """Work: a cold tile."""
        return lambda: self.gathered(places, self.read(level, places))

    def gathering(self, level: int, places: Separable) -> Callable[[], object]:
        """Work: a warm tile."""
        chunks = self.read(level, places)
        return lambda: self.gathered(places, chunks)


def shard_shape(grid: Grid, chunks: int) -> tuple[int, int]:
    """Rows and columns of a shard of so many chunks along each axis; with 4 that of ``Grid.shard_shape``."""
    return (
        grid.chunk_y * min(chunks, -(-grid.height // grid.chunk_y)),
        grid.chunk_x * min(chunks, -(-grid.width // grid.chunk_x)),
    )


def coarsest(grids: Sequence[Grid], pixel: float) -> int:
    """The coarsest level whose cell is no wider than a pixel, else level 0; with factor 2 that of ``Grid.coarsest``."""
    fit = [number for number, grid in enumerate(grids) if float(grid.step_x) <= pixel * (1 + 1e-9)]
    return max(fit, default=0)


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Chunks or shards that tiles of one zoom touch."""

    mean: float
    most: int


def counts(grids: Sequence[Grid], zoom: int, shard: int) -> tuple[Counted, Counted]:
    """Chunks and shards touched by the tiles of a zoom, over all tiles that show any cell.

    Rows and columns are independent, so that the tiles of a zoom need but one look at each row and each column.
    """
    grid = grids[coarsest(grids, pixel_degrees(zoom))]
    rows, columns = [], []
    for number in range(1 << zoom):
        target = tile_target(matrix_set(MERCATOR), number, number, zoom)
        rows.append(rows_of(grid, target).chunks)
        columns.append(columns_of(grid, target).chunks)
    out = []
    for size in (1, shard):
        down, across = (
            np.array([len({chunk // size for chunk in chunks}) for chunks in axis if chunks])
            for axis in (rows, columns)
        )
        products = np.multiply.outer(down, across)
        out.append(Counted(mean=float(products.mean()), most=int(products.max())))
    return out[0], out[1]


def sample(bounds: tuple[float, float, float, float], zooms: Iterable[int], count: int) -> list[Tile]:
    """Tiles that lie wholly in a box or, where it is the globe, anywhere; at most ``count`` of each zoom, seeded."""
    west, south, east, north = bounds
    north, south = (max(-85.0, min(85.0, edge)) for edge in (north, south))
    out: list[Tile] = []
    for zoom in zooms:
        random = np.random.default_rng([SEED, zoom])
        first, last = _tile_column(west, zoom, math.ceil), _tile_column(east, zoom, math.floor)
        top, bottom = _tile_row(north, zoom, math.ceil), _tile_row(south, zoom, math.floor)
        if bounds[0] == -180 and bounds[2] == 180:
            first, last, top, bottom = 0, 1 << zoom, 0, 1 << zoom
        every = max(0, last - first) * max(0, bottom - top)
        for number in random.permutation(every)[:count] if every <= 10**6 else random.integers(0, every, count):
            y, x = divmod(int(number), last - first)
            out.append((zoom, first + x, top + y))
    return out


def _tile_column(longitude: float, zoom: int, whole: Callable[[float], int]) -> int:
    return whole(round((longitude + 180) / 360 * 2**zoom, 9))


def _tile_row(latitude: float, zoom: int, whole: Callable[[float], int]) -> int:
    y = (1 - math.asinh(math.tan(math.radians(latitude))) / math.pi) / 2
    row = whole(round(y * 2**zoom, 6))
    return min(1 << zoom, max(0, row))


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What tiles cost, each number the mean of a tile."""

    cells: float
    """Decoded."""

    asked: Asked
    cold_ms: float
    """CPU to read, check, decode and gather; where a tile's cells lie is known."""

    warm_ms: float
    """CPU to gather from chunks in memory."""

    @property
    def wait_ms(self) -> float:
        """What a client would wait for a tile without its picture: the store's part is told, not measured."""
        return self.asked.wait_ms + self.cold_ms

    @classmethod
    def mean(cls, many: Sequence["Cost"]) -> "Cost":
        """The mean of several."""
        return cls(
            cells=float(np.mean([one.cells for one in many])),
            asked=Asked.mean([one.asked for one in many]),
            cold_ms=float(np.mean([one.cold_ms for one in many])),
            warm_ms=float(np.mean([one.warm_ms for one in many])),
        )


def costs(cuts: dict[str, Levels], tiles: Sequence[Tile], repeats: int) -> dict[str, Cost]:
    """Read tiles from several cuts in turns; tiles beside the grid do not count."""
    out: dict[str, list[Cost]] = {name: [] for name in cuts}
    for tile in tiles:
        places = {name: levels.places(tile) for name, levels in cuts.items()}
        if not all(cells.chunks for _, cells in places.values()):
            continue
        cold = {name: cuts[name].reading(*found) for name, found in places.items()}
        warm = {name: cuts[name].gathering(*found) for name, found in places.items()}
        asked = {name: cuts[name].stored[level].asked_by(cold[name]) for name, (level, _) in places.items()}
        cold_ms, warm_ms = medians(cold, repeats), medians(warm, repeats)
        for name, (level, cells) in places.items():
            chunk = cuts[name].stored[level].array.layout.chunk
            out[name].append(
                Cost(
                    cells=len(cells.chunks) * float(np.prod(chunk)),
                    asked=asked[name],
                    cold_ms=cold_ms[name],
                    warm_ms=warm_ms[name],
                )
            )
    return {name: Cost.mean(found) for name, found in out.items()}
