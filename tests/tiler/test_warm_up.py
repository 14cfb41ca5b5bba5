"""What is published is read before anybody asks for it, and nobody is hurt by that."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import override

import numpy as np
import pytest
from fastapi.testclient import TestClient

from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.errors import StoreUnavailable
from services.core.grid import Grid
from services.core.settings import Settings
from services.core.store import Observed, Operation, Store
from services.core.time_axis import TimeAxis
from tests.tiler.conftest import XCO2, XCO2_STD, Arrays, a_product, publish_arrays
from tiler import warm_up
from tiler.app import create_app
from tiler.catalogue import LiveCatalogue
from tiler.chunks import ChunkCache
from tiler.loading import LoadingCache
from tiler.warm_up import WarmUp, planned_indexes, screen_levels

pytestmark = pytest.mark.slow

type Serve = Callable[..., TestClient]

GRID = Grid.of(west=-180, north=90, step_x="1/2", width=720, height=360)
C = "/collections/demo"
TILES = [
    f"{C}/tiles/WebMercatorQuad/{z}/{x}/{y}.png{query}"
    for z in range(3)
    for x in range(2**z)
    for y in range(2**z)
    for query in ("", "?tilesize=512")
]


class Held(Observed):
    """Writes down who reads what; the warm-up's reads can be made to fail or to wait."""

    __slots__ = ("fails", "gate", "seen", "waits")

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.seen: list[tuple[bool, str]] = []
        self.fails = False
        self.gate: threading.Event | None = None
        self.waits = threading.Event()

    @override
    def around[Answer](self, operation: Operation, call: Callable[[], Answer]) -> Answer:
        ahead = threading.current_thread().name == "warm-up"
        self.seen += [(ahead, key) for key in operation.keys]
        if ahead and self.gate is not None:
            self.waits.set()
            assert self.gate.wait(20)
        if ahead and self.fails:
            raise StoreUnavailable("away")
        return call()

    def data(self, *, ahead: bool) -> list[str]:
        """Keys of what was read but for pointers, versions and listings."""
        return [key for by, key in self.seen if by == ahead and "/segments/" in key]


def publish(store: Store, shift: float = 0, *, name: str = "demo", periods: int = 2) -> str:
    product = a_product(name, GRID, XCO2, XCO2_STD)
    rng = np.random.default_rng(1)
    values = rng.uniform(380, 400, (periods, *GRID.shape)) + shift
    recipe = Arrays(
        product=product,
        axis=TimeAxis.regular("2020-01", "P1M", periods),
        values={"xco2": XCO2.pack(values), "xco2_std": (values / 400).astype("float32")},
        origin=f"{shift}",
    )
    return publish_arrays(store, recipe, keep=False)


def wait_idle(client: TestClient) -> None:
    assert client.app.state.warm_up.wait_idle(20)  # type: ignore[attr-defined]  # a FastAPI app


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def see(client: TestClient, version: str) -> None:
    """Ask until the pointer is seen."""
    wait_for(lambda: client.get(C).headers["cenote-version"] == version)


@pytest.fixture
def store(directory: Store) -> Iterator[Held]:
    held = Held(directory)
    yield held
    if held.gate is not None:
        held.gate.set()


def test_the_first_tiles_of_a_version_published_meanwhile_need_no_read(store: Held, service: Serve) -> None:
    publish(store.inner)
    client = service(store)
    wait_idle(client)
    assert store.data(ahead=True), "at the start, of what is published then"
    for number in range(2):
        if number:
            see(client, publish(store.inner, number))
            wait_idle(client)
        store.seen.clear()
        answers = [client.get(path) for path in TILES]
        assert {answer.status_code for answer in answers} == {200}
        assert store.data(ahead=False) == []
        assert len({answer.content for answer in answers}) > 20, "pictures, not one empty one"
        client.get(f"{C}/position?coords=POINT(10 10)&parameter-name=xco2")
        read = store.data(ahead=False)
        assert len(read) == 1, "a chunk of the series, which is not read ahead; where it lies is known"
        assert "series.zarr/xco2/c/" in read[0]


def test_what_qualifies_a_quantity_and_what_is_past_is_left_to_requests(store: Held, service: Serve) -> None:
    publish(store.inner)
    client = service(store)
    wait_idle(client)
    assert not any("xco2_std" in key for key in store.data(ahead=True))
    store.seen.clear()
    client.get(f"{TILES[0]}?datetime=2020-01")
    assert len(store.data(ahead=False)) == 1


def test_a_store_that_fails_the_warm_up_fails_nobody_else(
    store: Held, service: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    store.fails = True
    publish(store.inner)
    client = service(store)
    wait_idle(client)
    for path in (*TILES[:3], C, "/readyz"):
        assert client.get(path).status_code == 200, path
    see(client, publish(store.inner, 1))
    wait_idle(client)
    assert client.get(TILES[0]).status_code == 200
    store.fails = False
    see(client, publish(store.inner, 2))
    wait_idle(client)
    store.seen.clear()
    assert client.get(TILES[0]).status_code == 200
    assert store.data(ahead=False) == [], "the next version is read ahead again"
    # the process of the tests may well take more than a server may, which is told
    told = [record for record in caplog.records if record.name != "tiler.memory"]
    assert not any(record.levelname in {"WARNING", "ERROR"} for record in told)


@pytest.mark.parametrize("part", ["objects.json", "maps.zarr"])
def test_who_needs_what_is_being_read_ahead_reads_it_without_waiting(store: Held, service: Serve, part: str) -> None:
    publish(store.inner)
    store.gate = threading.Event()
    client = service(store)
    assert store.waits.wait(20)
    if part == "maps.zarr":
        gate, store.gate = store.gate, threading.Event()
        gate.set()  # on to the next read
        wait_for(lambda: any(part in key for key in store.data(ahead=True)))
    assert part in store.data(ahead=True)[-1]
    began = time.monotonic()
    assert client.get(TILES[0]).status_code == 200
    assert time.monotonic() - began < 5
    store.fails = True
    store.gate.set()
    wait_idle(client)
    assert client.get(TILES[0]).status_code == 200


def test_only_the_newest_version_is_read_however_often_it_is_flipped(store: Held, service: Serve) -> None:
    publish(store.inner)
    store.gate = threading.Event()
    client = service(store, pointer_seconds=0)
    assert store.waits.wait(20)
    for number in range(1, 4):
        see(client, publish(store.inner, number))
    first = store.data(ahead=True)
    assert len(first) == 1
    store.gate.set()
    wait_idle(client)
    later = {key.split("/")[2] for key in store.data(ahead=True)[1:]}
    current = client.app.state.cenote.catalogue.dataset("demo").dataset  # type: ignore[attr-defined]  # a FastAPI app
    assert later == {current.map_segment(1)}
    assert first[0].split("/")[2] not in later


def test_ending_does_not_wait_for_a_store_that_hangs(store: Held) -> None:
    publish(store.inner)
    store.gate = threading.Event()
    with TestClient(create_app(Settings(), store)):
        assert store.waits.wait(20)
        began = time.monotonic()
    assert time.monotonic() - began < warm_up.PATIENCE_SECONDS + 2


def test_a_version_is_found_though_nobody_asks(store: Held, service: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "LOOK_SECONDS", 0.1)
    client = service(store, pointer_seconds=0.1)
    publish(store.inner)
    wait_for(lambda: len(store.data(ahead=True)) > 1)
    wait_idle(client)
    store.seen.clear()
    publish(store.inner, 1)
    wait_for(lambda: len(store.data(ahead=True)) > 1)
    assert store.data(ahead=False) == []


def test_none_is_read_ahead_where_none_is_wanted(store: Held, service: Serve) -> None:
    publish(store.inner)
    for settings in ({"warm_share": 0}, {"cache_mb": 0}):
        see(service(store, **settings), publish(store.inner, len(settings)))
    assert store.data(ahead=True) == []


def test_what_is_read_ahead_stays_within_its_share_and_pushes_out_nothing_in_use(directory: Store) -> None:
    names = [f"demo{number}" for number in range(4)]
    for name in names:
        publish(directory, name=name, periods=1)
    used = np.zeros(2**20, dtype="int8")
    chunks = ChunkCache(8 * 2**20)
    for number in range(7):
        chunks.put(("used", number, 0, 0), used)
    before = chunks.counts.weight
    ahead = WarmUp(chunks, 2**20)
    catalogue = LiveCatalogue(directory, Settings(), cache=chunks, seen=ahead.seen)
    ahead.start(catalogue)
    assert ahead.wait_idle(20)
    ahead.close()
    catalogue.close()
    assert chunks.counts.weight - before <= 2**20
    assert chunks.counts.entries > 7 + 1, "more than one collection has something"
    assert all(chunks.peek(("used", number, 0, 0)) is not None for number in range(7))


def test_where_series_lie_is_read_from_the_latest_block_on_and_no_dead_one(directory: Store) -> None:
    grid = Grid.of(west=0, north=4, step_x="1", width=4, height=4)
    product = a_product("long", grid, XCO2, series_block=120)
    axis = TimeAxis.regular("2000-01", "P1M", 250)
    values = XCO2.pack(np.full((250, 4, 4), 400.0))
    every = Arrays(product=product, axis=axis, values={"xco2": values})
    publish_arrays(directory, replace(every, axis=axis.take(range(249)), values={"xco2": values[:249]}))
    publish_arrays(directory, every)  # its last block is the last month's segment's now
    dataset = Dataset(directory, current_version(directory, "long")[1])
    read = []
    for _, steps in planned_indexes(dataset):
        for step in steps:
            array, number = step.args  # type: ignore[attr-defined]  # a partial
            read.append((step.func.__name__, array.prefix.split("/")[2], number))  # type: ignore[attr-defined]
    latest, first = (run.segment for run in reversed(dataset.version.series))
    assert read == [
        (what, segment, number)
        for segment, number in ((latest, 0), (first, 1), (first, 0))
        for what in ("_expect", "_read_index")
    ]


def test_all_shards_of_a_block_are_expected_and_none_where_there_are_too_many(
    directory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = Grid.of(west=0, north=60, step_x="1/20", width=1200, height=1200)
    product = a_product("wide", grid, XCO2, series_block=120)
    values = XCO2.pack(np.full((1, 1200, 1200), 400.0))
    publish_arrays(
        directory, Arrays(product=product, axis=TimeAxis.regular("2000-01", "P1M", 1), values={"xco2": values})
    )
    dataset = Dataset(directory, current_version(directory, "wide")[1])
    expected: list[str] = []
    monkeypatch.setattr(type(directory), "expect", lambda _, keys: expected.extend(keys))

    def carry_out() -> list[str]:
        expected.clear()
        for _, steps in planned_indexes(dataset):
            for step in steps:
                step(None)  # type: ignore[arg-type]  # indexes of so small an array lie in objects.json
        return list(expected)

    found = carry_out()
    prefix = dataset.version.series[0].segment
    assert len(found) > 1
    assert sorted(found) == sorted(
        listed.key for listed in directory.list(f"wide/segments/{prefix}/series.zarr/xco2/c/")
    )
    monkeypatch.setattr(warm_up, "MOST_EXPECTED", len(found) - 1)
    assert carry_out() == []
    monkeypatch.undo()

    def unavailable(*_: object) -> None:
        raise StoreUnavailable("no key")

    monkeypatch.setattr(type(directory), "expect", unavailable)
    carry_out()  # indexes are read all the same


def test_what_does_not_fit_is_not_even_opened(store: Held) -> None:
    publish(store.inner)
    dataset = Dataset(store, current_version(store, "demo")[1])
    store.seen.clear()
    assert all(size > 1000 for size, _ in planned_indexes(dataset))
    assert store.data(ahead=False) == []


@pytest.mark.parametrize(
    ("grid", "levels"),
    [
        (Grid.of(west=-180, north=90, step_x="1/20", width=7200, height=3600), [4, 3, 2, 1]),
        (Grid.of(west=-180, north=90, step_x="1/120", width=43200, height=18000), [7, 6, 5, 4]),
        (Grid.of(west="72.25", north="55", step_x="1/10", width=640, height=400), [3, 2, 1, 0]),
        (Grid.of(west=0, north=4, step_x="1", width=4, height=4), [0]),
    ],
)
def test_levels_are_those_that_show_the_whole_grid_on_a_screen(grid: Grid, levels: list[int]) -> None:
    assert screen_levels(grid) == levels


def test_what_is_put_while_it_is_loaded_is_counted_once() -> None:
    cache: LoadingCache[str, bytes] = LoadingCache(100, len)

    def load() -> bytes:
        cache.put("key", b"x" * 40)
        return b"x" * 40

    cache.get("key", load)
    assert (cache.counts.weight, cache.counts.entries) == (40, 1)
