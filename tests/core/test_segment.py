"""Reading stored arrays and segments, against numpy."""

import asyncio
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, override

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.core import layout
from services.core.errors import Damaged, StoreUnavailable
from services.core.grid import Window
from services.core.segment import (
    INDEX,
    SEEN,
    ArrayLayout,
    ChunkKey,
    Segment,
    SegmentCog,
    StoredArray,
    normal_index,
    pack_indexes,
    unpack_indexes,
)
from services.core.settings import StoreSettings
from services.core.shards import ABSENT, decode_index, encode_shard, index_length
from services.core.store import Observed, Operation, Store

type Shape3 = tuple[int, int, int]


class Counting(Observed):
    """Notes every operation."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.operations: list[Operation] = []

    def around[Answer](self, operation: Operation, call: Callable[[], Answer]) -> Answer:
        self.operations.append(operation)
        return call()


def new_store() -> Store:
    return Store.open(f"memory://{uuid.uuid4().hex}", StoreSettings())


def stored(values: NDArray[Any], shard: Shape3, chunk: Shape3, fill: np.generic, *, listed: bool) -> StoredArray:
    """An array in a store of its own; ``listed``: with its indexes, as a segment's maps have them."""
    store = new_store()
    counts = tuple(-(-n // s) for n, s in zip(values.shape, shard, strict=True))
    indexes = []
    for at in np.ndindex(*counts):
        piece = values[tuple(slice(i * s, (i + 1) * s) for i, s in zip(at, shard, strict=True))]
        body = encode_shard(piece, shard, chunk, fill)
        store.create(f"a/b/c/{at[0]}/{at[1]}/{at[2]}", body)
        indexes.append(normal_index(decode_index("k", body[-index_length(shard, chunk) :])))
    described = ArrayLayout(
        shape=values.shape,
        dtype=values.dtype.name,
        chunk=chunk,
        shard=shard,
        fill=float(fill) if values.dtype.kind == "f" else int(fill),
    )
    table = unpack_indexes(pack_indexes(np.stack(indexes)), described)
    return StoredArray(store=store, prefix="a/b", layout=described, indexes=table if listed else None)


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[Any], StoredArray]:
    dtype = draw(st.sampled_from(["int16", "uint8", "float32"]))
    fill = np.dtype(dtype).type("nan" if dtype == "float32" else 7)
    chunk = tuple(draw(st.integers(1, 4)) for _ in range(3))
    shard = tuple(c * draw(st.integers(1, 3)) for c in chunk)
    shape = tuple(draw(st.integers(1, 2 * s + 1)) for s in shard)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.integers(0, 100, shape).astype(dtype)
    values[rng.random(shape) < draw(st.sampled_from([0.0, 0.6, 1.0]))] = fill
    return values, stored(values, shard, chunk, fill, listed=draw(st.booleans()))  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(cases(), st.data())
def test_any_window_of_any_times_equals_numpy(case: tuple[NDArray[Any], StoredArray], data: st.DataObject) -> None:
    values, array = case
    depth, height, width = values.shape
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = Window(
        row=row,
        column=column,
        height=data.draw(st.integers(1, height - row)),
        width=data.draw(st.integers(1, width - column)),
    )
    times = data.draw(st.lists(st.integers(0, depth - 1), max_size=6))
    found = array.read(times, window)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values[times][:, window.rows, window.columns])
    np.testing.assert_array_equal(array.read(range(depth), window), values[:, window.rows, window.columns])


VALUES = np.arange(4 * 12 * 20, dtype=np.int16).reshape(4, 12, 20)
SHARD, CHUNK = (2, 8, 10), (1, 4, 5)


def an_array(*, listed: bool) -> tuple[StoredArray, Counting]:
    array = stored(VALUES, SHARD, CHUNK, np.int16(7), listed=listed)
    counting = Counting(array.store)
    return replace(array, store=counting), counting


def test_a_map_window_needs_one_request_for_each_shard_it_touches() -> None:
    array, counting = an_array(listed=True)
    array.read([1], Window(row=0, column=0, height=8, width=10))
    assert [(one.name, one.keys) for one in counting.operations] == [("get_ranges", ("a/b/c/0/0/0",))]
    counting.operations.clear()
    array.read([1], Window(row=7, column=9, height=2, width=2))
    assert sorted(one.keys[0] for one in counting.operations) == [f"a/b/c/0/{y}/{x}" for y in (0, 1) for x in (0, 1)]


def test_without_a_listed_index_a_shard_is_asked_for_its_index_once() -> None:
    array, counting = an_array(listed=False)
    for _ in range(3):
        array.read([0, 1], Window(row=0, column=0, height=1, width=1))
    names = [one.name for one in counting.operations]
    assert names.count("get_suffix") == 1
    assert set(names) == {"get_suffix", "get_ranges"}


class Fetching(Counting):
    """A store that an event loop can read from."""

    @property
    @override
    def fetches(self) -> bool:
        return True

    @override
    async def fetch(self, key: str, start: int, length: int) -> bytes:
        return self.inner.get_range(key, start, length)


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("is_cached", [True, False])
def test_a_chunk_is_fetched_once_the_index_of_its_shard_is_known(*, listed: bool, is_cached: bool) -> None:
    with_gap = VALUES.copy()
    with_gap[0, 4:8, :5] = 7
    array = stored(with_gap, SHARD, CHUNK, np.int16(7), listed=listed)
    store = Fetching(array.store)
    array = replace(array, store=store, cache=Remembering() if is_cached else None)
    assert (array.known_extent((0, 0, 0)) is not None) == listed
    array.load([(0, 0, 0)])
    assert array.known_extent((0, 0, 1)) == array.extent((0, 0, 1))
    assert (array.known_extent((0, 2, 0)) is not None) == listed
    store.operations.clear()
    for position in ((0, 0, 0), (0, 0, 1), (1, 1, 1), (0, 1, 0)):
        extent = array.known_extent(position)
        assert extent is not None
        np.testing.assert_array_equal(asyncio.run(array.fetch(extent)), array.load([position])[0])
    assert {one.name for one in store.operations} == {"get_ranges"}  # those of load
    for outside in ((0, 0, 99), (0, 99, 0), (99, 0, 0), (0, 0, -1)):
        with pytest.raises(IndexError, match="has no chunk"):
            array.known_extent(outside)


def test_a_chunk_of_missing_values_needs_no_request() -> None:
    empty = np.full((1, 8, 10), 7, dtype=np.int16)
    array = stored(empty, (1, 8, 10), (1, 4, 5), np.int16(7), listed=True)
    counting = Counting(array.store)
    np.testing.assert_array_equal(
        replace(array, store=counting).read([0], Window(row=0, column=0, height=8, width=10)), empty
    )
    assert counting.operations == []


class Remembering:
    """A cache that never forgets."""

    def __init__(self) -> None:
        self.held: dict[ChunkKey, NDArray[Any]] = {}

    def get_all(
        self, keys: Sequence[ChunkKey], load: Callable[[Sequence[ChunkKey]], Sequence[NDArray[Any]]]
    ) -> list[NDArray[Any]]:
        missing = [key for key in keys if key not in self.held]
        if missing:
            self.held.update(zip(missing, load(missing), strict=True))
        return [self.held[key] for key in keys]

    def use(self, key: ChunkKey) -> NDArray[Any] | None:
        return self.held.get(key)

    def get(self, key: ChunkKey, load: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        if key not in self.held:
            self.held[key] = load()
        return self.held[key]


def test_the_index_of_a_shard_is_kept_by_the_cache_and_by_nobody_else() -> None:
    array, counting = an_array(listed=False)
    cache = Remembering()
    cached = replace(array, cache=cache)
    window = Window(row=0, column=0, height=9, width=9)
    cached.read(range(4), window)
    kept = [value for key, value in cache.held.items() if key[1] == INDEX]
    assert kept
    assert {value.dtype.name for value in kept} == {"uint32"}
    assert not cached._seen
    asked = len(counting.operations)
    for key in [key for key in cache.held if key[1] != INDEX]:
        del cache.held[key]
    cached.read(range(4), window)
    again = counting.operations[asked:]
    assert again
    assert {operation.name for operation in again} == {"get_ranges"}, "an index that is kept is not read again"


def test_without_a_cache_few_indexes_are_kept() -> None:
    array, _ = an_array(listed=False)
    array._seen.update(dict.fromkeys(range(-SEEN, 0), np.zeros((1, 2))))
    array.read(range(1), Window(row=0, column=0, height=1, width=1))
    assert len(array._seen) == 1


def test_a_cache_is_asked_by_array_and_chunk_and_gives_the_same_values() -> None:
    array, counting = an_array(listed=True)
    cache = Remembering()
    cached = replace(array, cache=cache)
    window = Window(row=3, column=4, height=6, width=7)
    for _ in range(2):
        np.testing.assert_array_equal(cached.read(range(4), window), VALUES[:, window.rows, window.columns])
    assert cache.held.keys() == {("a/b", time, y, x) for time in range(4) for y in (0, 1, 2) for x in (0, 1, 2)}
    # a request for each shard, whatever the blocks of periods, not one for each chunk
    assert [one.name for one in counting.operations] == ["get_ranges"] * (2 * 2 * 2)
    # what a reader gets is its own: the cached chunk stays as it was
    mine = cached.read([0], Window(row=0, column=0, height=4, width=5))
    mine[:] = -1
    np.testing.assert_array_equal(cached.read([0], Window(row=0, column=0, height=4, width=5))[0], VALUES[0, :4, :5])


def test_a_cache_that_holds_some_chunks_is_filled_by_one_request_for_each_shard() -> None:
    array, counting = an_array(listed=True)
    cached = replace(array, cache=Remembering())
    cached.read([1], Window(row=0, column=0, height=1, width=1))
    counting.operations.clear()
    window = Window(row=0, column=0, height=12, width=10)
    np.testing.assert_array_equal(cached.read([1], window)[0], VALUES[1, window.rows, window.columns])
    # side by side, in any order
    assert sorted((one.name, *one.keys) for one in counting.operations) == [
        ("get_ranges", "a/b/c/0/0/0"),
        ("get_ranges", "a/b/c/0/1/0"),
    ]


def test_chunks_are_shown_past_the_cache_one_by_one() -> None:
    array, counting = an_array(listed=True)
    cache = Remembering()
    cached = replace(array, cache=cache)
    wanted = [(time, y, x) for time in (3, 0) for y in (2, 0, 1) for x in (1, 0)]
    kept = array.chunks(wanted)
    counting.operations.clear()
    seen: dict[int, np.ndarray[Any, Any]] = {}
    cached.visit(wanted, lambda number, values: seen.update({number: values.copy()}))
    assert sorted(seen) == list(range(len(wanted)))
    for number, values in seen.items():
        np.testing.assert_array_equal(values, kept[number])
    assert not cache.held
    read = [one.keys for one in counting.operations]
    assert len(read) == len(set(read)), "one request for each shard"


@pytest.mark.parametrize("listed", [True, False])
def test_a_missing_or_short_shard_is_damage_that_names_its_key(*, listed: bool) -> None:
    array, counting = an_array(listed=listed)
    key = "a/b/c/1/0/1"
    body = counting.inner.get(key)
    window = Window(row=0, column=10, height=1, width=1)
    counting.inner.delete([key])
    with pytest.raises(Damaged, match=f"'{key}' is damaged: it is missing"):
        array.read([2], window)
    counting.inner.create(key, body[:20])
    with pytest.raises(Damaged, match=key):
        array.read([2], window)
    # the others are read
    np.testing.assert_array_equal(array.read([0], window)[0], VALUES[0, :1, 10:11])


def test_a_store_that_is_away_is_not_damage() -> None:
    class Away(Counting):
        def around[Answer](self, operation: Operation, call: Callable[[], Answer]) -> Answer:  # noqa: ARG002
            raise StoreUnavailable("away")

    array, counting = an_array(listed=True)
    with pytest.raises(StoreUnavailable, match="away"):
        replace(array, store=Away(counting.inner)).read([0], Window(row=0, column=0, height=1, width=1))


@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.integers(0, 2**32 - 1), min_size=50, max_size=50))
@settings(deadline=None)
def test_indexes_survive_packing(shards: int, chunks: int, numbers: list[int]) -> None:
    described = ArrayLayout(shape=(shards, 1, chunks), dtype="int16", chunk=(1, 1, 1), shard=(1, 1, chunks), fill=0)
    table = np.array(numbers[: shards * chunks * 2], dtype=np.uint64).reshape(shards, chunks, 2)
    again = unpack_indexes(pack_indexes(table), described)
    np.testing.assert_array_equal(again, table)


def test_an_absent_chunk_has_no_length_in_a_listed_index() -> None:
    index = np.array([[ABSENT, ABSENT], [0, 12]], dtype=np.uint64)
    assert normal_index(index).tolist() == [[0, 0], [0, 12]]


METADATA = {
    "shape": [3, 4, 5],
    "data_type": "int16",
    "fill_value": -1,
    "chunk_grid": {"configuration": {"chunk_shape": [1, 4, 6]}},
    "codecs": [{"configuration": {"chunk_shape": [1, 2, 3]}}],
}


def test_a_layout_is_read_from_zarr_json() -> None:
    described = ArrayLayout.of_metadata("k", METADATA)
    assert (described.shape, described.shard, described.chunk) == ((3, 4, 5), (1, 4, 6), (1, 2, 3))
    assert (described.shard_counts, described.inner_counts) == ((3, 1, 1), (1, 2, 2))
    assert np.isnan(ArrayLayout.of_metadata("k", {**METADATA, "fill_value": "NaN"}).fill)


@pytest.mark.parametrize("lacking", ["shape", "data_type", "fill_value", "chunk_grid", "codecs"])
def test_a_zarr_json_that_lacks_something_is_damage(lacking: str) -> None:
    document = {name: value for name, value in METADATA.items() if name != lacking}
    with pytest.raises(Damaged, match=f"'k' is damaged: its array metadata lack '{lacking}'"):
        ArrayLayout.of_metadata("k", document)


def seal(store: Store, **changes: object) -> str:
    """An objects.json with nothing in it; its digest."""
    document = {
        "format": layout.SEGMENT_FORMAT,
        "objects": {"x": {"size": 3, "sha256": "0"}, "y": {"size": 4, "sha256": "1"}},
        "arrays": {"maps.zarr/0/a": METADATA},
        "shard_indexes": {},
        "maps": {"step": "P1M", "runs": [["2004-01", 3]]},
        "series": None,
        "cogs": [{"quantity": "a", "id": "2004", "periods": ["2004-01"]}],
        "masks": {},
        "statistics": {},
    }
    data = layout.canonical({**document, **changes})
    store.create(layout.objects_key("p", "s-1"), data)
    return layout.digest(data)


def test_a_segment_is_opened_by_the_digest_of_its_seal() -> None:
    store = new_store()
    digest = seal(store)
    segment = Segment(store, "p", "s-1", digest)
    assert segment.bytes == 7
    assert segment.maps_axis is not None
    assert segment.maps_axis.ids == ("2004-01", "2004-02", "2004-03")
    assert segment.series_axis is None
    assert segment.cogs == (SegmentCog(quantity="a", id="2004", periods=("2004-01",)),)
    assert segment.cogs[0].path == "cog/a/2004.tif"
    assert (segment.has("maps.zarr/0/a"), segment.has("maps.zarr/1/a")) == (True, False)
    assert segment.array("maps.zarr/0/a") is segment.array("maps.zarr/0/a")
    assert segment.metadata("maps.zarr/0/a") == METADATA
    with pytest.raises(Damaged, match=r"maps.zarr/1/a' is damaged: its segment lists no such array"):
        segment.array("maps.zarr/1/a")


def test_another_seal_none_or_one_of_another_format_is_damage() -> None:
    store = new_store()
    with pytest.raises(Damaged, match=r"p/segments/s-1/objects.json' is damaged: it is missing"):
        Segment(store, "p", "s-1", "0" * 64)
    seal(store)
    with pytest.raises(Damaged, match="its sha256 is not the one its version lists"):
        Segment(store, "p", "s-1", "0" * 64)
    later = new_store()
    digest = seal(later, format="cenote-segment/9")
    with pytest.raises(Damaged, match="its format is 'cenote-segment/9' and this release reads 'cenote-segment/2'"):
        Segment(later, "p", "s-1", digest)
    assert json.loads(later.get(layout.objects_key("p", "s-1")))["format"] == "cenote-segment/9"
