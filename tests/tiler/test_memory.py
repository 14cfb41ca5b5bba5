"""What a server process holds stays under its bound, whatever is asked of it at once."""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from starlette.types import Message, Receive, Scope, Send

from services.core.errors import RequestTooLarge, SettingsError
from services.core.grid import Grid
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from services.core.time_axis import TimeAxis
from tests.tiler.conftest import PLACE, Arrays, a_product, publish_arrays
from tests.tiler.load import SMALL_CACHES, between_large, publish_all, serving, soak, targets_of
from tests.tiler.test_server import fetch, wait_for, workers_of
from tiler import envelope, memory
from tiler.app import create_app
from tiler.catalogue import LiveCatalogue
from tiler.chunks import ENTRY_BYTES, ChunkCache
from tiler.envelope import Envelope
from tiler.fast_tiles import TileCache
from tiler.memory import MIB, Budget, Busy, Claim, Shares, need, resident, trim, tune_malloc
from tiler.metrics import Metrics
from tiler.proxies import Proxies

BOUND_MB = 640
ROUNDS = (2000, 1000, 1000)
"""Requests: until all kinds have been asked, and two rounds that are compared. By number and not by time, as a slow
machine would compare requests that are the first of their kind."""
SECONDS = 150.0
"""The longest a round may take."""
MOST_GROWTH = 1.1
"""From round to round; without eviction it is 1.3. ``make soak-memory`` is stricter."""


@pytest.fixture(autouse=True)
def _nobody_else_meets_our_claims() -> Iterator[None]:
    yield
    memory._claim.set(None)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_does_not_grow_whatever_is_asked(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    store = Store.open(url, StoreSettings())
    publish_all(store)
    environment = SMALL_CACHES | {"CENOTE_MEMORY_MB": str(BOUND_MB)}
    with serving(url, environment, tmp_path / "log") as (address, pid):
        targets = targets_of(address, store)
        rounds = [
            soak(address, pid, targets, count=count, seconds=SECONDS, seed=100 * number)
            for number, count in enumerate(ROUNDS)
        ]

        def claimed() -> float:
            return numbers_of(address)["cenote_claimed_bytes"]

        wait_for(lambda: claimed() == 0.0, 30, "return of what requests claimed")
        numbers = numbers_of(address)
    assert [one.faults for one in rounds] == [[], [], []]
    asked = [one.samples[-1][1] for one in rounds]
    assert all(done >= count for done, count in zip(asked, ROUNDS, strict=True)), f"too slow to say anything: {asked}"
    assert max(one.highest for one in rounds) < BOUND_MB
    early, late = (between_large([mib for *_, mib in one.samples]) for one in rounds[1:])
    assert late < early * MOST_GROWTH, f"{early:.0f} MiB after warm-up and {late:.0f} MiB at the end"
    assert numbers["cenote_chunk_cache_bytes"] <= int(SMALL_CACHES["CENOTE_CACHE_MB"]) * MIB
    assert numbers["cenote_chunk_cache_misses_total"] > 1000, "most was pushed out of the cache"
    assert 100 * MIB < numbers["process_resident_memory_bytes"] < BOUND_MB * MIB


def numbers_of(address: str) -> dict[str, float]:
    text = fetch(f"http://{address}/metrics")[1].decode()
    return {line.split(" ")[0]: float(line.split(" ")[1]) for line in text.splitlines() if line[0] != "#"}


PROGRAM = """\
import sys
import tiler.server
from services.core.settings import Settings, StoreSettings
if __name__ == "__main__":
    def heavy(process):
        seen.append(process)
        return 10**12 if process == seen[0] else 10**8
    seen = []
    tiler.server.resident = heavy
    tiler.server.serve(
        Settings(store=sys.argv[1]), StoreSettings(), host="127.0.0.1", port=int(sys.argv[2]), workers=2,
        note=lambda text: print(text, flush=True),
    )
"""


@pytest.mark.slow
def test_a_worker_that_takes_too_much_is_replaced_by_one_that_serves(tmp_path: Path, free_port: int) -> None:
    url = str(tmp_path / "store")
    product = a_product("demo", Grid.of(west=0, north=4, step_x="1", width=4, height=4), PLACE)
    axis = TimeAxis.regular("2020-01", "P1M", 1)
    made = Arrays(product=product, axis=axis, values={"place": np.full((1, 4, 4), 7.0)})
    publish_arrays(Store.open(url, StoreSettings()), made)
    program, log = tmp_path / "program.py", tmp_path / "log"
    program.write_text(PROGRAM)
    with log.open("wb") as messages:
        server = subprocess.Popen(
            [sys.executable, str(program), url, str(free_port)],
            stdout=messages,
            stderr=messages,
            start_new_session=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    try:
        address = f"http://127.0.0.1:{free_port}/collections/demo/point/1,1"
        wait_for(lambda: len(workers_of(server.pid)) >= 2, 30, "workers")
        first = set(workers_of(server.pid))
        answers: list[int] = []
        reset: list[int] = []
        stop = threading.Event()
        wait_for(lambda: "CENOTE_MEMORY_MB is 1024" in log.read_text(), 60, "message with the numbers")

        def ask() -> None:
            while not stop.is_set():
                try:
                    answers.append(fetch(address)[0])
                except ConnectionResetError:
                    reset.append(1)  # it was opened in the moment in which the old one stopped; clients try again

        asking = threading.Thread(target=ask)
        asking.start()
        wait_for(lambda: len(set(workers_of(server.pid)) & first) < 2, 60, "end of the old worker")
        stop.set()
        asking.join(30)
        assert len(workers_of(server.pid)) == 2
        assert answers
        assert set(answers) == {200}
        assert len(reset) <= 1
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its own session: the server and its workers
        server.wait()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_caches_that_leave_no_room_are_refused_with_the_numbers(tmp_path: Path) -> None:
    settings = Settings(store=str(tmp_path), memory_mb=700)
    with pytest.raises(SettingsError, match=r"CENOTE_MEMORY_MB is 700, .*CENOTE_CACHE_MB=256 .*=64 needs 1003: 432"):
        create_app(settings)
    create_app(Settings(store=str(tmp_path), memory_mb=1004))
    create_app(Settings(store=str(tmp_path), memory_mb=700, cache_mb=64, tile_cache_mb=16))


def test_the_shares_of_the_default_are_the_bound() -> None:
    shares = Shares.of(Settings())
    parts = shares.work + shares.tiles + shares.versions + shares.segments + memory.PROGRAM + memory.TABLES
    assert parts + 1024 * MIB * memory.SLACK_SHARE == 1024 * MIB
    assert shares.chunks + memory.LEAST_WORK <= shares.work


def a_budget(most: int, *, spare: int = 0, waiting: int = 1) -> tuple[Budget, list[int]]:
    told: list[int] = []
    return Budget(most * MIB, spare=spare * MIB, give_way=told.append, waiting=waiting), told


def test_what_does_not_fit_waits_its_turn() -> None:
    budget, told = a_budget(100, spare=50)
    first, second, small = budget.begin(), budget.begin(), budget.begin()
    first.need(80 * MIB)
    assert told == [30 * MIB], "the cache gives way to what is more than was spare"
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(second.need, 60 * MIB)
        time.sleep(0.1)
        assert not waits.done()
        small.need(MIB)  # not counted, and does not wait
        first.settle(0)
        waits.result(2)
    assert budget.taken == 60 * MIB
    assert told[-1] == 10 * MIB
    second.settle(0)
    assert (budget.taken, told[-1]) == (0, 0)


def test_who_waits_too_long_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PATIENCE_SECONDS", 0.2)
    budget, _ = a_budget(100, waiting=1)
    budget.begin().need(80 * MIB)
    second, third = budget.begin(), budget.begin()
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(second.need, 60 * MIB)
        wait_for(lambda: budget._waiting == 1, 2, "one that waits")
        with pytest.raises(Busy):
            third.need(60 * MIB)  # at once: as many wait as may
        with pytest.raises(Busy) as refused:
            waits.result(2)
    assert (refused.value.status_code, refused.value.headers) == (503, {"Retry-After": "2"})
    began = time.monotonic()
    with pytest.raises(Busy):
        second.need(60 * MIB)
    assert time.monotonic() - began < 0.1, "who was refused does not wait again"
    assert budget.taken == 80 * MIB


def test_a_request_holds_its_largest_need_and_not_their_sum() -> None:
    budget, _ = a_budget(100)
    claim = budget.begin()
    for count in (20, 50, 30):
        need(count * MIB)
    assert budget.taken == 50 * MIB
    with pytest.raises(RequestTooLarge, match=r"about 101 MiB .* may have 100"):
        need(101 * MIB)
    claim.settle(0)
    assert budget.taken == 0


def test_the_chunk_cache_gives_way_and_comes_back() -> None:
    size = 1000 + ENTRY_BYTES
    cache = ChunkCache(4 * size)

    def fill() -> int:
        for number in range(6):
            cache.get(("array", 0, 0, number), lambda: np.zeros(1000, dtype="uint8"))
        return cache.counts.entries

    assert fill() == 4
    cache.give_way(3 * size)
    assert cache.counts.entries == 1
    assert fill() == 1
    cache.give_way(10 * size)
    assert cache.counts.entries == 0
    cache.give_way(0)
    assert fill() == 4


def test_opened_versions_and_segments_are_weighed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(str(tmp_path), StoreSettings())
    grid = Grid.of(west=0, north=4, step_x="1", width=4, height=4)
    product = a_product("demo", grid, PLACE)
    axis = TimeAxis.regular("2020-01", "P1M", 2)
    versions = [
        publish_arrays(
            store,
            Arrays(product=product, axis=axis, values={"place": np.full((2, 4, 4), float(n))}, origin=f"{n}"),
            keep=False,
        )
        for n in range(5)
    ]
    monkeypatch.setattr(memory, "OPENED_SHARE", 4e-5)  # 42 KiB
    catalogue = LiveCatalogue(store, Settings())
    closed: list[int] = []
    catalogue.closed.append(lambda: closed.append(1))
    for version in versions:
        dataset = catalogue.dataset("demo", version).dataset
        for segment in dataset.version.segments:
            dataset.segment(segment).array("maps.zarr/0/place")
    share = Shares.of(Settings())
    for cache in (catalogue._datasets, catalogue._segments):
        assert 0 < cache.counts.weight <= share.segments
        assert cache.counts.entries < len(versions)
    assert closed
    catalogue.close()


def test_a_long_body_is_sent_as_fast_as_the_client_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "STALL_SECONDS", 0.2)
    body = bytes(range(256)) * 4096 * 3
    budget, _ = a_budget(100)
    taken: list[int] = []
    sent: list[Message] = []

    async def app(_: Scope, __: Receive, send: Send) -> None:
        need(50 * MIB)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    wrapped = Envelope(
        app,
        settings=Settings(),
        metrics=Metrics(ChunkCache(0), TileCache(0)),
        threads=1,
        proxies=Proxies(),
        budget=budget,
    )
    scope = {"type": "http", "path": "/long", "method": "GET", "query_string": b"", "headers": [], "scheme": "http"}
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "root_path": "", "raw_path": b"/long"}

    async def send(message: Message) -> None:
        taken.append(budget.taken)
        sent.append(message)

    asyncio.run(wrapped(dict(scope), receive, send))
    pieces = [message for message in sent if message["type"] == "http.response.body"]
    assert b"".join(message["body"] for message in pieces) == body
    assert max(len(message["body"]) for message in pieces) <= envelope.PIECE_BYTES
    assert [message["more_body"] for message in pieces] == [True] * (len(pieces) - 1) + [False]
    assert taken[-1] == len(body), "what is not sent yet is still counted, and the work no more"
    assert budget.taken == 0

    async def stalls(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    with pytest.raises(envelope.ClientGone):
        asyncio.run(wrapped(dict(scope), receive, stalls))
    assert budget.taken == 0
    # a stream of small parts too
    body = b"1,2,3\r\n" * 100
    with pytest.raises(envelope.ClientGone):
        asyncio.run(wrapped(dict(scope), receive, stalls))
    assert budget.taken == 0


def test_a_process_knows_what_it_takes() -> None:
    assert 20 * MIB < resident() < 100_000 * MIB
    assert resident(os.getpid()) > 20 * MIB
    assert resident(2**22 + 1) == 0


def test_nobody_claims_outside_a_request() -> None:
    memory._claim.set(None)
    need(10**15)
    assert isinstance(a_budget(1)[0].begin(), Claim)


def test_what_malloc_keeps_and_nobody_uses_is_given_back() -> None:
    blocks = [bytes(100_000) for _ in range(2000)]
    del blocks[::2], blocks[::2]  # every fourth is left, so that no end of the heap is free
    before = resident()
    trim()
    assert resident() < before - 50 * 2**20
    assert len(blocks) == 500


def test_what_the_environment_says_of_malloc_is_left_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)
    asked: list[tuple[int, int]] = []
    library = type("Library", (), {"mallopt": staticmethod(lambda *given: asked.append(given))})
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    tune_malloc()
    assert not asked
    assert "malloc is left as the environment says (MALLOC_ARENA_MAX)" in caplog.text
    monkeypatch.delenv("MALLOC_ARENA_MAX")
    tune_malloc()
    assert len(asked) == 3


def test_a_process_near_its_bound_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bool] = []
    monkeypatch.setattr(memory, "trim", lambda: given.append(True))
    monkeypatch.setattr(memory, "WATCH_SECONDS", 0.01)

    async def watch(taken: int) -> None:
        monkeypatch.setattr(memory, "resident", lambda: taken * 2**20)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(memory.watched(1000, lambda _: None), 0.2)

    asyncio.run(watch(690))
    assert not given
    asyncio.run(watch(710))
    assert given
