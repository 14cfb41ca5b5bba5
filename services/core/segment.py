"""A segment: immutable Zarr arrays and COGs for a run of periods, sealed by its objects.json; and how to read it."""

import base64
import bisect
import json
import math
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from services.core import layout
from services.core.errors import Damaged, ObjectMissing
from services.core.grid import Window
from services.core.shards import ABSENT, Shape3, decode_chunk, decode_index, index_length
from services.core.store import Store
from services.core.time_axis import TimeAxis

type Layout = Literal["maps", "series"]

type ChunkKey = tuple[str, int, int, int]
"""Array prefix and chunk position (time, y, x); or ``INDEX``, a shard's number and 0."""

INDEX = -1
"""In the place of a chunk's time: not a chunk, but the index of a shard."""

ENTRY_BYTES = 450
"""Memory of an entry of ``Segment.objects``: its key, sha256, size, and the dictionaries' share."""
ARRAY_BYTES = 10_000
"""Memory of an array's metadata and of what is made of them."""
PERIOD_BYTES = 80
"""Memory of a period: its start, and the source's own time."""
SEEN = 64
"""Shard indexes that an array keeps by itself where nobody gave it a cache."""


type SegmentKey = tuple[str, str, str]
"""Collection id, segment id and the sha256 of its objects.json."""


READ_BYTES = 16 * 2**20
"""Decoded bytes of several blocks of periods that are read side by side; a single block may be larger."""

READERS = 8
"""Shards that a process reads at the same time for those who need many."""


class ChunkCache(Protocol):
    """Where decoded chunks may be kept between requests."""

    def get_all(
        self, keys: Sequence[ChunkKey], load: Callable[[Sequence[ChunkKey]], Sequence[NDArray[Any]]]
    ) -> list[NDArray[Any]]:
        """The chunks under some keys; ``load`` is given those that are missing, all in one call."""
        ...

    def get(self, key: ChunkKey, load: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """What is under one key; may be called within a load."""
        ...

    def use(self, key: ChunkKey) -> NDArray[Any] | None:
        """What is under one key, if it is there."""
        ...


class SegmentCache(Protocol):
    """Where opened segments may be kept, for all versions that list them."""

    def get(self, key: SegmentKey, load: Callable[[], "Segment"]) -> "Segment":
        """The segment under a key, opened by ``load`` where it is missing."""
        ...


@dataclass(frozen=True, kw_only=True)
class ArrayLayout:
    """What an array's zarr.json says, as far as reading needs it."""

    shape: Shape3
    """``(time, y, x)``."""

    dtype: str
    chunk: Shape3
    shard: Shape3
    fill: float | int
    """Missing value; NaN for floats."""

    @classmethod
    def of_metadata(cls, key: str, document: dict[str, Any]) -> "ArrayLayout":
        """Read a zarr.json of this layout.

        Raises:
            Damaged: if it is not one.
        """
        try:
            sharding = document["codecs"][0]
            fill = document["fill_value"]
            return cls(
                shape=tuple(document["shape"]),
                dtype=document["data_type"],
                chunk=tuple(sharding["configuration"]["chunk_shape"]),
                shard=tuple(document["chunk_grid"]["configuration"]["chunk_shape"]),
                fill=float("nan") if fill == "NaN" else fill,
            )
        except (KeyError, IndexError, TypeError) as error:
            raise Damaged(key, f"its array metadata lack {error}") from None

    @cached_property
    def shard_counts(self) -> Shape3:
        """Shards along each axis."""
        return tuple(-(-n // s) for n, s in zip(self.shape, self.shard, strict=True))  # type: ignore[return-value]

    @cached_property
    def inner_counts(self) -> Shape3:
        """Chunks per shard along each axis."""
        return tuple(s // c for s, c in zip(self.shard, self.chunk, strict=True))  # type: ignore[return-value]


class Extent(NamedTuple):
    """Where a chunk lies."""

    key: str
    """Of its shard."""

    start: int
    """First byte."""

    length: int
    """Bytes; none are a chunk of missing values."""


@dataclass(frozen=True, kw_only=True)
class StoredArray:
    """A sharded array, read chunk by chunk; every byte is checked by crc32c.

    Raises on reading:
        Damaged: if a shard is missing or its bytes do not hold.
        StoreUnavailable: if the store does not answer.
    """

    store: Store
    prefix: str
    """Key of the array, without a slash at its end."""

    layout: ArrayLayout
    indexes: NDArray[np.uint32] | None = None
    """Offset and length of every chunk, ``(shards, chunks, 2)``, from objects.json; None: read from the shards."""

    cache: ChunkCache | None = None
    _seen: dict[int, NDArray[Any]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored type."""
        return np.dtype(self.layout.dtype)

    def read(self, times: Sequence[int] | range, window: Window) -> NDArray[Any]:
        """Stored values ``(len(times), window.height, window.width)`` of a window inside the array."""
        chunk = self.layout.chunk
        out = np.empty((len(times), window.height, window.width), dtype=self.dtype)
        by_block: dict[int, list[tuple[int, int]]] = {}
        for position, time in enumerate(times):
            by_block.setdefault(time // chunk[0], []).append((position, time % chunk[0]))
        rows = range(window.row // chunk[1], (window.row + window.height - 1) // chunk[1] + 1)
        columns = range(window.column // chunk[2], (window.column + window.width - 1) // chunk[2] + 1)
        blocks = list(by_block)
        size = int(np.prod(chunk)) * self.dtype.itemsize
        # where one block is more than is read at once: a row of shards at a time, which are read side by side
        is_large = len(rows) * len(columns) * size > READ_BYTES
        for part in _cut(rows, self.layout.inner_counts[1]) if is_large else [rows]:
            places = [(y, x) for y in part for x in columns]
            at_once = max(1, READ_BYTES // (len(places) * size))
            runs = [blocks[first : first + at_once] for first in range(0, len(blocks), at_once)]
            wanted_of = [[(block, y, x) for block in run for y, x in places] for run in runs]
            self._fill(out, by_block, wanted_of, window)
        return out

    def _fill(
        self,
        out: NDArray[Any],
        by_block: dict[int, list[tuple[int, int]]],
        runs: Iterable[list[tuple[int, int, int]]],
        window: Window,
    ) -> None:
        """Put the values of chunks where ``read`` wants them, one run of chunks after the other."""
        chunk = self.layout.chunk
        for wanted in runs:
            for (block, y, x), values in zip(wanted, self.chunks(wanted), strict=True):
                top, left = max(y * chunk[1], window.row), max(x * chunk[2], window.column)
                bottom = min((y + 1) * chunk[1], window.row + window.height)
                right = min((x + 1) * chunk[2], window.column + window.width)
                target = (
                    slice(top - window.row, bottom - window.row),
                    slice(left - window.column, right - window.column),
                )
                source = (
                    slice(top - y * chunk[1], bottom - y * chunk[1]),
                    slice(left - x * chunk[2], right - x * chunk[2]),
                )
                for position, inside in by_block[block]:
                    out[position][target] = values[inside][source]

    def chunks(self, positions: Sequence[tuple[int, int, int]]) -> list[NDArray[Any]]:
        """The chunks at these positions, each the full chunk shape; what is beyond the array is missing."""
        if self.cache is None:
            return self.load(positions)
        keys = [(self.prefix, *position) for position in positions]
        return self.cache.get_all(keys, lambda missing: self.load([(t, y, x) for _, t, y, x in missing]))

    def load(self, positions: Sequence[tuple[int, int, int]]) -> list[NDArray[Any]]:
        """The chunks at these positions from the store, past the cache.

        One request for each shard, which the store may split where they lie far apart; shards are read side by side.
        """
        loaded: dict[int, NDArray[Any]] = {}
        self._visit(positions, loaded.__setitem__, is_kept=True)
        return [loaded[order] for order in range(len(positions))]

    def extent(self, position: tuple[int, int, int]) -> Extent:
        """Where a chunk lies; the index of its shard is read if it has to be."""
        shard, inner = self._address(position)
        return self._extent(shard, inner, self.index(shard))

    def known_extent(self, position: tuple[int, int, int]) -> Extent | None:
        """Where a chunk lies, if the index of its shard is in memory."""
        shard, inner = self._address(position)
        index = self._known_index(shard)
        return None if index is None else self._extent(shard, inner, index)

    def _extent(self, shard: int, inner: int, index: NDArray[Any]) -> Extent:
        return Extent(self.shard_key(shard), int(index[inner, 0]), int(index[inner, 1]))

    async def fetch(self, extent: Extent) -> NDArray[Any]:
        """The chunk that lies there, past the cache; the event loop waits for it and decodes it.

        Raises:
            StoreError, Damaged: whatever goes wrong (``Store.fetch``); ``load`` tells what it is.
        """
        key, start, length = extent
        if not length:
            return np.full(self.layout.chunk, self.layout.fill, dtype=self.dtype)
        return decode_chunk(key, await self.store.fetch(key, start, length), self.layout.chunk, self.dtype)

    def expect(self, block: int) -> None:
        """Prepare for ``fetch`` of the chunks of a block of periods, wherever they lie.

        Raises:
            StoreUnavailable: if the store cannot be asked.
        """
        _, down, across = self.layout.shard_counts
        first = block // self.layout.inner_counts[0] * down * across
        self.store.expect([self.shard_key(shard) for shard in range(first, first + down * across)])

    def visit(self, positions: Sequence[tuple[int, int, int]], use: Callable[[int, NDArray[Any]], None]) -> None:
        """Show chunks one by one, past the cache and in any order, and by several threads at a time.

        Each thread decodes into the same memory again and again: fresh memory for each chunk takes half as long again.

        Args:
            positions: which chunks.
            use: given the place of a chunk in ``positions`` and its values, which are gone when it returns.
        """
        self._visit(positions, use, is_kept=False)

    def _visit(
        self, positions: Sequence[tuple[int, int, int]], use: Callable[[int, NDArray[Any]], None], *, is_kept: bool
    ) -> None:
        by_shard: dict[int, list[tuple[int, int]]] = {}
        for order, position in enumerate(positions):
            shard, inner = self._address(position)
            by_shard.setdefault(shard, []).append((order, inner))
        wanted = [(shard, members, use, is_kept) for shard, members in by_shard.items()]
        if len(wanted) == 1:
            self._visit_shard(*wanted[0])
        else:
            side_by_side(self._visit_shard, wanted)

    def _visit_shard(
        self,
        shard: int,
        members: Sequence[tuple[int, int]],
        use: Callable[[int, NDArray[Any]], None],
        is_kept: bool,  # noqa: FBT001
    ) -> None:
        """Show chunks of one shard, given as (order, number in the shard)."""
        key = self.shard_key(shard)
        index = self.index(shard)
        ranges: list[tuple[int, int]] = []
        present: list[int] = []
        for order, inner in members:
            offset, length = int(index[inner, 0]), int(index[inner, 1])
            if length:
                ranges.append((offset, length))
                present.append(order)
            else:
                use(order, np.full(self.layout.chunk, self.layout.fill, dtype=self.dtype))
        if ranges:
            try:
                bodies = self.store.get_ranges(key, ranges)
            except ObjectMissing:
                raise Damaged(key, "it is missing") from None
            same = None if is_kept else np.empty(self.layout.chunk, dtype=self.dtype)
            for order, body in zip(present, bodies, strict=True):
                use(order, decode_chunk(key, body, self.layout.chunk, self.dtype, same))

    def _address(self, position: tuple[int, int, int]) -> tuple[int, int]:
        """Number of a chunk's shard, and its own in there, both in row order."""
        (t, y, x), (long, down, across) = position, self.layout.shard_counts
        of_t, of_y, of_x = self.layout.inner_counts
        if not (0 <= t < long * of_t and 0 <= y < down * of_y and 0 <= x < across * of_x):
            raise IndexError(f"{self.prefix} has no chunk {position}")
        shard = (t // of_t * down + y // of_y) * across + x // of_x
        return shard, (t % of_t * of_y + y % of_y) * of_x + x % of_x

    def shard_key(self, shard: int) -> str:
        """Key of a shard object by its number in row order."""
        _, down, across = self.layout.shard_counts
        return f"{self.prefix}/c/{shard // (down * across)}/{shard // across % down}/{shard % across}"

    def index(self, shard: int) -> NDArray[Any]:
        """Offset and length of each chunk of a shard, ``(chunks, 2)``; a length of 0 is a chunk of missing values.

        Kept by the cache: it may be read ahead.
        """
        index = self._known_index(shard)
        if index is not None:
            return index
        if self.cache is not None:
            return self.cache.get((self.prefix, INDEX, shard, 0), lambda: self._read_index(shard))
        if len(self._seen) >= SEEN:
            self._seen.clear()
        index = self._seen[shard] = self._read_index(shard)
        return index

    def _known_index(self, shard: int) -> NDArray[Any] | None:
        """The same if it is in memory."""
        if self.indexes is not None:
            found: NDArray[np.uint32] = self.indexes[shard]
            return found
        return self.cache.use((self.prefix, INDEX, shard, 0)) if self.cache is not None else self._seen.get(shard)

    def _read_index(self, shard: int) -> NDArray[Any]:
        key = self.shard_key(shard)
        try:
            footer = self.store.get_suffix(key, index_length(self.layout.shard, self.layout.chunk))
        except ObjectMissing:
            raise Damaged(key, "it is missing") from None
        index = normal_index(decode_index(key, footer))
        # half the memory, wherever a shard is no longer than 4 GiB
        return index.astype(np.uint32) if int(index.max()) < 2**32 else index


def _cut(places: range, length: int) -> Iterator[range]:
    """Cut a range where its numbers pass a multiple of ``length``."""
    first = places.start
    while first < places.stop:
        stop = min((first // length + 1) * length, places.stop)
        yield range(first, stop)
        first = stop


_readers: ThreadPoolExecutor | None = None
_readers_lock = threading.Lock()


def side_by_side[*Given, Found](read: Callable[[*Given], Found], given: Iterable[tuple[*Given]]) -> list[Found]:
    """What ``read`` gives for each, in order, ``READERS`` of them at a time in this process.

    Decoding lets other threads run, and waiting for a store takes no processor. The first error is raised; what has
    not begun then is left.
    """
    global _readers  # noqa: PLW0603 - threads are not inherited by a spawned process, and made when first needed
    with _readers_lock:
        if _readers is None:
            _readers = ThreadPoolExecutor(READERS, thread_name_prefix="shards")
    running = [_readers.submit(read, *one) for one in given]
    try:
        return [one.result() for one in running]
    finally:
        for one in running:
            one.cancel()


def normal_index(index: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """An index with offset and length 0 where a chunk is absent; no present chunk is that short."""
    return np.where(index == ABSENT, np.uint64(0), index)


def pack_indexes(indexes: NDArray[np.uint64]) -> str:
    """Shard indexes ``(shards, chunks, 2)`` as text for objects.json: little-endian uint32, deflated, base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(indexes, dtype="<u4").tobytes(), 6)).decode()


def unpack_indexes(text: str, layout_: ArrayLayout) -> NDArray[np.uint32]:
    """What ``pack_indexes`` wrote."""
    flat: NDArray[np.uint32] = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<u4")
    return flat.reshape(int(np.prod(layout_.shard_counts)), int(np.prod(layout_.inner_counts)), 2)


@dataclass(frozen=True, kw_only=True)
class SegmentCog:
    """One COG file of a segment."""

    quantity: str
    """Which quantity it shows."""

    id: str
    """ISO 8601 name of the span it covers (``2004``, ``2004-01``)."""

    periods: tuple[str, ...]
    """Period ids of its bands, in order."""

    @property
    def path(self) -> str:
        """Key below the segment."""
        return layout.cog_path(self.quantity, self.id)


class Segment:
    """A sealed segment, opened by the digest that a version lists.

    Args:
        store: where it lies.
        product: collection id.
        segment: segment id.
        sha256: digest of its objects.json.
        cache: where decoded chunks may be kept.

    Raises:
        Damaged: if objects.json is missing or is not the one that was listed.
    """

    def __init__(self, store: Store, product: str, segment: str, sha256: str, cache: ChunkCache | None = None) -> None:
        self.store = store
        self.id = segment
        self.prefix = layout.segment_prefix(product, segment)
        key = layout.objects_key(product, segment)
        try:
            data = store.get(key)
        except ObjectMissing:
            raise Damaged(key, "it is missing") from None
        if layout.digest(data) != sha256:
            raise Damaged(key, "its sha256 is not the one its version lists")
        document = json.loads(data)
        if document.get("format") != layout.SEGMENT_FORMAT:
            raise Damaged(
                key, f"its format is {document.get('format')!r} and this release reads {layout.SEGMENT_FORMAT!r}"
            )
        self.sha256 = sha256
        self.objects: dict[str, dict[str, Any]] = document["objects"]
        self.maps_axis = TimeAxis.from_json(document["maps"]) if document["maps"] else None
        self.series_axis = TimeAxis.from_json(document["series"]) if document["series"] else None
        self.cogs = tuple(
            SegmentCog(quantity=c["quantity"], id=c["id"], periods=tuple(c["periods"])) for c in document["cogs"]
        )
        self.masks: dict[str, str] = document["masks"]
        self._metadata: dict[str, dict[str, Any]] = document["arrays"]
        self._packed: dict[str, str] = document["shard_indexes"]
        self._arrays: dict[str, StoredArray] = {}
        self._lock = threading.Lock()
        self._cache = cache

    @property
    def bytes(self) -> int:
        """Bytes of all its objects but objects.json."""
        return sum(int(entry["size"]) for entry in self.objects.values())

    def has(self, path: str) -> bool:
        """Whether it holds an array."""
        return path in self._metadata

    @property
    def memory(self) -> int:
        """Bytes that it takes in memory once every array has been read; its chunks are its cache's."""
        with self._lock:
            packed = dict(self._packed)
            unpacked = sum(array.indexes.nbytes for array in self._arrays.values() if array.indexes is not None)
        layouts = {path: ArrayLayout.of_metadata(path, self._metadata[path]) for path in packed}
        unpacked += sum(8 * math.prod(of.shard_counts) * math.prod(of.inner_counts) for of in layouts.values())
        periods = sum(len(axis) for axis in (self.maps_axis, self.series_axis) if axis is not None)
        named = sum(len(cog.periods) for cog in self.cogs)
        return (
            unpacked
            + sum(len(text) for text in packed.values())
            + ENTRY_BYTES * len(self.objects)
            + ARRAY_BYTES * len(self._metadata)
            + PERIOD_BYTES * periods
            + 400 * len(self.cogs)
            + 80 * named
        )

    def places(self, of: Layout, starts: Sequence[int]) -> Sequence[int]:
        """Places of some periods in the arrays of one layout, by the periods' starts, rising.

        Raises:
            Damaged: if it has no such layout, or not one of the periods.
        """
        axis = self.maps_axis if of == "maps" else self.series_axis
        if axis is None:
            raise Damaged(f"{self.prefix}objects.json", f"it has no {of}")
        # looked for, since a table of 200 000 hours would be larger than all else that is kept of them
        first = bisect.bisect_left(axis.starts, starts[0])
        if axis.starts[first : first + len(starts)] == tuple(starts):
            return range(first, first + len(starts))
        found = [bisect.bisect_left(axis.starts, start) for start in starts]
        if not all(at < len(axis) and axis.starts[at] == start for at, start in zip(found, starts, strict=True)):
            raise Damaged(f"{self.prefix}objects.json", f"its {of} lack a period that its version lists there")
        return found

    def metadata(self, path: str) -> dict[str, Any]:
        """The zarr.json of an array."""
        return self._metadata[path]

    def array(self, path: str) -> StoredArray:
        """An array by its path below the segment (``maps.zarr/0/xco2``)."""
        with self._lock:
            if path not in self._arrays:
                key = f"{self.prefix}{path}"
                if path not in self._metadata:
                    raise Damaged(key, "its segment lists no such array")
                described = ArrayLayout.of_metadata(key, self._metadata[path])
                packed = self._packed.get(path)
                self._arrays[path] = StoredArray(
                    store=self.store,
                    prefix=key,
                    layout=described,
                    indexes=None if packed is None else unpack_indexes(packed, described),
                    cache=self._cache,
                )
                self._packed.pop(path, None)  # unpacked now, and not wanted twice
            return self._arrays[path]
