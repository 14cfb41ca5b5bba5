"""An opened version of several segments, against the values that were put in."""

import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.core.catalog import current_version, read_version
from services.core.dataset import Dataset, Opened
from services.core.errors import Damaged
from services.core.grid import Window
from services.core.segment import ChunkKey
from services.core.settings import StoreSettings
from services.core.store import Store
from services.core.time_axis import TimeAxis
from tests.pipeline.faults import Watched
from tests.pipeline.synthetic import PACKED, PLAIN, REGION, Planted, months, product, render

GRID = replace(REGION, width=23, height=17)
EVERY = Planted(product=product(grid=GRID, cog_period=None), axis=months(7))
HOURS = Planted(
    product=product("hours", step="PT1H", series_block=None, map_block=5, cog_period=None, grid=GRID),
    axis=TimeAxis.regular("2004-01-01", "PT1H", 13),
)


@pytest.fixture(scope="module")
def store() -> Store:
    """Months in three segments, one of them corrected; hours in two."""
    store = Store.open(f"memory://{uuid.uuid4().hex}", StoreSettings())
    render(store, replace(EVERY, axis=months(4)))
    render(store, EVERY)
    render(store, replace(EVERY, shift=3), periods="2001-02")
    render(store, replace(HOURS, axis=HOURS.axis.take(range(7))))
    render(store, HOURS)
    return store


def opened(store: Store, name: str = "synthetic") -> Dataset:
    return Dataset(store, current_version(store, name)[1])


def expected(name: str, quantity: Any) -> NDArray[Any]:
    if name == "hours":
        return HOURS.stored(quantity, HOURS.axis)
    values = EVERY.stored(quantity, EVERY.axis)
    values[1] = replace(EVERY, shift=3).stored(quantity, EVERY.axis)[1]
    return values


@pytest.fixture(scope="module", params=["synthetic", "hours"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_window_of_any_period_and_any_series_equals_the_source(
    store: Store, name: str, data: st.DataObject
) -> None:
    dataset = opened(store, name)
    quantity = data.draw(st.sampled_from([PACKED, PLAIN]))
    values = expected(name, quantity)
    row, column = data.draw(st.integers(0, GRID.height - 1)), data.draw(st.integers(0, GRID.width - 1))
    window = Window(
        row=row,
        column=column,
        height=data.draw(st.integers(1, GRID.height - row)),
        width=data.draw(st.integers(1, GRID.width - column)),
    )
    place = data.draw(st.integers(0, len(dataset.time) - 1))
    np.testing.assert_array_equal(
        dataset.read_map(quantity, place, 0, window), values[place, window.rows, window.columns]
    )
    np.testing.assert_array_equal(
        dataset.read_valid_fraction(quantity, place, 0, window),
        ~quantity.missing(values[place, window.rows, window.columns]),
    )
    places = data.draw(st.lists(st.integers(0, len(dataset.time) - 1), max_size=8))
    np.testing.assert_array_equal(
        dataset.read_series(quantity, places, window), values[places][:, window.rows, window.columns]
    )


def test_several_segments_answer_for_one_axis(store: Store) -> None:
    dataset = opened(store)
    owners = [dataset.map_segment(place) for place in range(7)]
    assert len(set(owners)) == 3
    assert owners[0] == owners[2] == owners[3]
    assert owners[4] == owners[5] == owners[6]
    assert len({owners[0], owners[1], owners[4]}) == 3
    # one series block: all of it is in the segment of the correction
    assert dataset.series_segments(range(7)) == (owners[1],)
    hours = opened(store, "hours")
    assert len(hours.series_segments(range(13))) == 2
    assert hours.series_segments([0]) == (hours.map_segment(0),)


def test_a_series_at_a_place_touches_one_shard_of_the_series(store: Store) -> None:
    watched = Watched(store)
    dataset = Dataset(watched, current_version(store, "synthetic")[1])
    watched.operations.clear()
    dataset.read_series(PACKED, range(7), Window(row=9, column=11, height=1, width=1))
    names = [(one.name, one.keys[0].partition("/segments/")[2].partition("/")[2]) for one in watched.operations]
    assert names == [
        ("get", "objects.json"),
        ("get_suffix", "series.zarr/heat/c/0/2/2"),
        ("get_ranges", "series.zarr/heat/c/0/2/2"),
    ]


def test_a_map_window_needs_no_request_for_an_index(store: Store) -> None:
    watched = Watched(store)
    dataset = Dataset(watched, current_version(store, "synthetic")[1])
    watched.operations.clear()
    for level in range(GRID.levels):
        dataset.read_map(PACKED, 6, level, Window(row=0, column=0, height=1, width=1))
        dataset.read_valid_fraction(PACKED, 6, level, Window(row=0, column=0, height=1, width=1))
    assert [one.name for one in watched.operations].count("get") == 1
    assert {one.name for one in watched.operations} == {"get", "get_ranges"}


class Cache:
    """Keeps everything, and loads once however many ask at the same time."""

    def __init__(self) -> None:
        self.lock, self.inner = threading.Lock(), threading.Lock()
        self.held: dict[ChunkKey, NDArray[Any]] = {}
        self.loads = 0

    def get_all(
        self, keys: Sequence[ChunkKey], load: Callable[[Sequence[ChunkKey]], Sequence[NDArray[Any]]]
    ) -> list[NDArray[Any]]:
        with self.lock:
            missing = [key for key in keys if key not in self.held]
            self.loads += len(missing)
            if missing:
                self.held.update(zip(missing, load(missing), strict=True))
            return [self.held[key] for key in keys]

    def use(self, key: ChunkKey) -> NDArray[Any] | None:
        return self.held.get(key)

    def get(self, key: ChunkKey, load: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        with self.inner:  # asked for within a load, by several threads
            if key not in self.held:
                self.loads += 1
                self.held[key] = load()
            return self.held[key]


def test_threads_and_versions_share_a_dataset_and_a_cache(store: Store) -> None:
    cache = Cache()
    _, version = current_version(store, "synthetic")
    both = [Dataset(store, version, cache) for _ in range(2)]
    values = expected("synthetic", PACKED)
    start = threading.Barrier(8)

    def look(number: int) -> None:
        start.wait()
        rng = np.random.default_rng(number)
        for _ in range(30):
            place, row, column = int(rng.integers(7)), int(rng.integers(15)), int(rng.integers(20))
            window = Window(row=row, column=column, height=2, width=3)
            dataset = both[number % 2]
            np.testing.assert_array_equal(
                dataset.read_map(PACKED, place, 0, window), values[place, window.rows, window.columns]
            )
            np.testing.assert_array_equal(
                dataset.read_series(PACKED, range(7), window), values[:, window.rows, window.columns]
            )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, range(8)))
    assert cache.loads == len(cache.held)
    # the segment is in every key: another version with other values shares nothing by chance
    assert all("/segments/" in key[0] for key in cache.held)


def test_versions_that_list_the_same_segment_open_it_once(store: Store) -> None:
    watched, segments = Watched(store), Opened()
    _, version = current_version(store, "synthetic")
    assert version.parent is not None
    before = read_version(store, "synthetic", version.parent)
    cell = Window(row=0, column=0, height=1, width=1)
    opened = []
    for one in (before, version):
        watched.operations.clear()
        dataset = Dataset(watched, one, segments=segments)
        for place in range(len(dataset.time)):
            dataset.read_map(PACKED, place, 0, cell)
        opened.append({key for op in watched.operations for key in op.keys if key.endswith("/objects.json")})
    both = set(before.segments) & set(version.segments)
    assert len(both) > 0
    assert [len(keys) for keys in opened] == [2, 1]


def test_a_segment_that_lacks_a_layout_is_damage(store: Store) -> None:
    dataset = opened(store, "hours")
    claimed = replace(dataset.version, product=replace(dataset.product, series_block=120), series=dataset.version.maps)
    with pytest.raises(Damaged, match=r"objects.json' is damaged: it has no series"):
        Dataset(store, claimed).read_series(PACKED, [0], Window(row=0, column=0, height=1, width=1))
