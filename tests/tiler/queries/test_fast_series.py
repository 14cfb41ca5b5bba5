"""Series of a place answered without the routes, against those of the routes: the same bodies, headers and errors."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, override
from urllib.parse import parse_qsl

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from services.core.errors import StoreUnavailable
from services.core.settings import Settings
from services.core.store import Observed, Operation, Store
from tiler import fast_series
from tiler.app import THREADS, create_app
from tiler.fast_series import FastSeries, _base_of, _but_the_place, _items, parsed_of

FIRST = "xco2_test/position?coords=POINT(10 20)"


class Watched:
    """Counts what the layer lets pass."""

    def __init__(self, app: ASGIApp, counted: list[str]) -> None:
        self._app, self._counted = app, counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._counted.append(scope["path"])
        await self._app(scope, receive, send)


class Without:
    """No such layer."""

    def __init__(self, app: ASGIApp, *_: object) -> None:
        self._app = app

    def at_once(self, _: Scope) -> None:
        """Nothing is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


@dataclass(frozen=True)
class Both:
    """A service, and the same without its layer for series."""

    fast: TestClient
    slow: TestClient
    passed: list[str]

    def same(self, path: str, *, is_fast: bool = True, **options: Any) -> Any:
        """Ask both, the fast one twice: at first it may have to wait. All answers must be equal."""
        plain = self.slow.get(f"/collections/{path}", **options)
        before = len(self.passed)
        for _ in range(2):
            quick = self.fast.get(f"/collections/{path}", **options)
            assert quick.status_code == plain.status_code, path
            assert quick.content == plain.content, path
            mine, theirs = dict(quick.headers), dict(plain.headers)
            # the routes send CSV piece by piece
            assert mine.pop("content-length", None) in {str(len(quick.content)), None}
            theirs.pop("content-length", None)
            assert mine == theirs, path
        assert (len(self.passed) == before) == is_fast, path
        return quick


@pytest.fixture(scope="module")
def both(world: Any) -> Iterator[Both]:
    passed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tiler.app.FastSeries", lambda app, state: FastSeries(Watched(app, passed), state))
        fast = stacked(create_app(Settings(store=world.url), world.store))
        patch.setattr("tiler.app.FastSeries", Without)
        slow = stacked(create_app(Settings(store=world.url), world.store))
    here = ("127.0.0.1", 50000)  # a proxy that is trusted
    plainly = {"accept-encoding": "identity"}  # parts and a whole are not compressed to the same bytes
    with (
        TestClient(fast, client=here, headers=plainly) as quick,
        TestClient(slow, client=here, headers=plainly) as plain,
    ):
        yield Both(fast=quick, slow=plain, passed=passed)


def stacked(app: FastAPI) -> FastAPI:
    """The app with the layers it was made with."""
    app.middleware_stack = app.build_middleware_stack()
    return app


@pytest.mark.parametrize("f", ["", "&f=CoverageJSON", "&f=GeoJSON", "&f=CSV", "&f=json", "&f=text/csv"])
@pytest.mark.parametrize(
    "path",
    [
        FIRST,
        "xco2_test/position?coords=point( -179.99 -12.5 )&parameter-name=xco2",
        "xco2_test/position?parameter-name=soundings,xco2&coords=POINT(359.5 89.9)&datetime=2015-03/2016",
        "xco2_test/position?coords=POINT%20(1%2020.25)&datetime=latest",
        "xco2_test/position?coords=POINT(10+20)",
        "pacific-days/position?coords=POINT(-170.5 10)",
        "sines/position?coords=POINT(1 1)",
        "flux_hours/position?coords=POINT(80 40)",
    ],
)
def test_a_series_is_that_of_the_routes(both: Both, path: str, f: str) -> None:
    both.same(path + f)


@pytest.mark.parametrize("accept", ["text/csv", "application/geo+json;q=0.5, text/csv;q=0.4", "text/html"])
def test_the_accept_header_decides_as_it_does_there(both: Both, accept: str) -> None:
    both.same(FIRST, headers={"accept": accept})


def test_a_version_that_is_named(both: Both, world: Any) -> None:
    version = world.sources["xco2_test"].version.id
    answer = both.same(f"xco2_test/instances/{version}/position?coords=POINT(10 20)")
    assert "immutable" in answer.headers["cache-control"]


def test_a_client_that_holds_it_is_told_so(both: Both) -> None:
    tag = both.same(FIRST).headers["etag"]
    assert both.same(FIRST, headers={"if-none-match": tag}).status_code == 304
    assert both.same(FIRST, headers={"if-none-match": '"other"'}).status_code == 200


def test_head_is_get_without_its_body(both: Both) -> None:
    both.same(FIRST)
    answer = both.fast.head(f"/collections/{FIRST}")
    assert answer.status_code == 200
    assert not answer.content
    assert answer.headers["etag"] == both.fast.get(f"/collections/{FIRST}").headers["etag"]


def test_behind_a_proxy_the_tag_names_the_address_that_is_seen(both: Both) -> None:
    seen = {"x-forwarded-proto": "https", "x-forwarded-host": "maps.example.org", "x-forwarded-prefix": "/co2"}
    assert both.same(FIRST, headers=seen).headers["etag"] != both.same(FIRST).headers["etag"]


@pytest.mark.parametrize(
    "path",
    [
        "nowhere/position?coords=POINT(10 20)",
        f"xco2_test/instances/{'0' * 20}/position?coords=POINT(10 20)",
        "xco2_test/position?coords=POINT(10 95)",
        "xco2_test/position?coords=POINT(400 5)",
        "xco2_test/position?coords=POINT(10)",
        "xco2_test/position?coords=MULTIPOINT((10 20),(11 21))",
        "xco2_test/position?coords=POINT(10 20)&coords=POINT(10 21)",
        "xco2_test/position?coords=POINT(1e1 20)",
        "xco2_test/position",
        "pacific-days/position?coords=POINT(0 0)",
        f"{FIRST}&f=netcdf",
        f"{FIRST}&f=xml",
        f"{FIRST}&z=3",
        f"{FIRST}&datetime=",
        f"{FIRST}&datetime=1999",
        f"{FIRST}&datetime=2016/2015",
        f"{FIRST}&parameter-name=xco3",
        f"{FIRST}&variable=xco2",
        f"{FIRST}&crs=EPSG:4326",
    ],
)
def test_what_it_does_not_know_is_left_to_the_routes(both: Both, path: str) -> None:
    if path.endswith("netcdf"):
        # a file of its own each time
        plain, quick = (client.get(f"/collections/{path}") for client in (both.slow, both.fast))
        assert (plain.status_code, quick.headers["etag"]) == (200, plain.headers["etag"])
        return
    both.same(path, is_fast=False)


def test_long_answers_are_left_to_the_routes(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiler.fast_series.MOST_VALUES", 10)
    both.same(f"{FIRST}&datetime=2015-01/2015-07", is_fast=False)
    both.same(f"{FIRST}&datetime=2015-01/2015-03")


def test_what_is_decoded_much_for_is_left_to_the_routes(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiler.fast_series.MOST_DECODED", 1000)
    both.same(f"{FIRST}&datetime=2015-02/2015-04", is_fast=False)


def test_a_version_that_is_too_heavy_to_be_kept_is_kept_by_nobody(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiler.catalogue.LiveCatalogue.holds", lambda *_: False)
    kept: list[object] = []
    monkeypatch.setattr("tiler.loading.LoadingCache.put", lambda *given: kept.append(given[2]))
    with TestClient(create_app(Settings(store=world.url, warm_share=0), world.store)) as client:
        assert client.get(f"/collections/{FIRST}").status_code == 200
        assert client.get("/collections/xco2_test/tiles/WebMercatorQuad/0/0/0.png").status_code == 200
    assert not [value for value in kept if type(value).__name__ in {"_Prepared", "Chosen"}]


def test_the_caps_are_those_of_the_routes(world: Any) -> None:
    app = create_app(Settings(store=world.url, max_values=29), world.store)
    with TestClient(app) as client:
        assert client.get(f"/collections/{FIRST}&parameter-name=xco2").status_code == 413


def test_a_second_answer_waits_for_nothing(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    both.same(FIRST)
    monkeypatch.setattr(FastSeries, "__call__", None)
    assert both.fast.get(f"/collections/{FIRST}").status_code == 200


class Fetching(Observed):
    """A store that an event loop can read from, as it can from S3; notes what is read, and how."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.fetched: list[str] = []
        self.read: list[str] = []
        self.pause = 0.0
        self.fault: Exception | None = None
        self.is_garbled = False

    @override
    def around[Answer](self, operation: Operation, call: Callable[[], Answer]) -> Answer:
        if operation.name == "get_ranges":
            self.read += operation.keys
        return call()

    @property
    @override
    def fetches(self) -> bool:
        return True

    @override
    async def fetch(self, key: str, start: int, length: int) -> bytes:
        self.fetched.append(key)
        await asyncio.sleep(self.pause)
        if self.fault is not None:
            raise self.fault
        inner = self.inner
        body = await inner.fetch(key, start, length) if inner.fetches else inner.get_range(key, start, length)
        return body[::-1] if self.is_garbled else body


@dataclass(frozen=True)
class Loop:
    """A service over such a store, which has read one place."""

    client: TestClient
    store: Fetching
    wanted: bytes
    """The answer that the routes give for another one."""


OTHER = "xco2_test/position?coords=POINT(40 30)"


@pytest.fixture
def loop(both: Both, world: Any) -> Iterator[Loop]:
    store = Fetching(world.store)
    with TestClient(create_app(Settings(store=world.url, warm_share=0), store)) as client:
        assert client.get(f"/collections/{FIRST}").status_code == 200
        assert len(store.read) == 3  # chunks of three quantities, by a thread: their shards were new
        assert not store.fetched
        store.read.clear()
        yield Loop(client=client, store=store, wanted=both.slow.get(f"/collections/{OTHER}").content)


def test_another_place_of_a_shard_is_answered_by_the_event_loop(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FastSeries, "__call__", None)
    for _ in range(2):
        assert loop.client.get(f"/collections/{OTHER}").content == loop.wanted
    assert (len(loop.store.fetched), loop.store.read) == (3, [])


def test_what_many_ask_for_at_once_is_fetched_once(loop: Loop) -> None:
    loop.store.pause = 0.3
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(loop.client.get, [f"/collections/{OTHER}"] * 8))
    assert [answer.content for answer in answers] == [loop.wanted] * 8
    assert (len(loop.store.fetched), loop.store.read) == (3, [])


@pytest.mark.parametrize("fault", ["an error", "bytes that changed"])
def test_what_could_not_be_fetched_is_read_by_threads(loop: Loop, fault: str) -> None:
    loop.store.pause = 0.2
    loop.store.fault = StoreUnavailable("reset by peer") if fault == "an error" else None
    loop.store.is_garbled = True
    many = THREADS + 4
    with ThreadPoolExecutor(many) as threads:
        answers = list(threads.map(loop.client.get, [f"/collections/{OTHER}"] * many))
    assert [answer.content for answer in answers] == [loop.wanted] * many
    assert len(loop.store.fetched) >= 3
    assert len(loop.store.read) == 3


@pytest.mark.parametrize("way", ["HEAD", "gzip"])
def test_what_is_fetched_is_sent_in_every_way(loop: Loop, way: str) -> None:
    if way == "HEAD":
        answer = loop.client.head(f"/collections/{OTHER}", headers={"accept-encoding": "identity"})
        assert (answer.content, answer.headers["content-length"]) == (b"", str(len(loop.wanted)))
    else:
        answer = loop.client.get(f"/collections/{OTHER}", headers={"accept-encoding": "gzip"})
        assert (answer.content, answer.headers["content-encoding"]) == (loop.wanted, "gzip")
    assert len(loop.store.fetched) == 3


def test_a_fault_behind_the_fetch_is_logged_and_the_routes_answer(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr("tiler.series_body.SeriesBody.filled", broken)
    assert loop.client.get(f"/collections/{OTHER}").content == loop.wanted
    assert "was left to threads" in caplog.text
    assert "cenote_requests_running 0" in loop.client.get("/metrics").text


def test_what_surrounds_the_values_is_made_once_while_they_come(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    inner = fast_series._around

    async def fetch(self: Fetching, key: str, start: int, length: int) -> bytes:
        events.append("asked")
        await asyncio.sleep(0.05)
        events.append("fetched")
        return self.inner.get_range(key, start, length)

    def around(begun: Any) -> Any:
        events.append("around")
        return inner(begun)

    monkeypatch.setattr(Fetching, "fetch", fetch)
    monkeypatch.setattr(fast_series, "_around", around)
    assert loop.client.get(f"/collections/{OTHER}").content == loop.wanted
    assert events == ["asked", "asked", "asked", "around", "fetched", "fetched", "fetched"]


def test_nothing_is_made_for_nobody(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another request loads a chunk, a thread waits for it; what surrounds the values it makes itself."""
    made: list[str] = []
    inner = fast_series._around

    def around(begun: Any) -> Any:
        made.append(threading.current_thread().name)
        return inner(begun)

    loop.store.pause = 0.3
    monkeypatch.setattr(fast_series, "_around", around)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(loop.client.get, [f"/collections/{OTHER}"] * 4))
    assert [answer.content for answer in answers] == [loop.wanted] * 4
    assert len(made) == 4


def test_who_has_no_time_left_leaves_nothing_undone(both: Both, world: Any) -> None:
    """The loop's read is cancelled at the time limit; threads that wait for the same chunks read them."""
    store = Fetching(world.store)
    settings = Settings(store=world.url, warm_share=0, request_seconds=3)
    wanted = both.slow.get(f"/collections/{OTHER}").content
    with TestClient(create_app(settings, store)) as client:
        assert client.get(f"/collections/{FIRST}").status_code == 200
        store.pause = 30
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(client.get, [f"/collections/{OTHER}"] * 4))
        assert {answer.status_code for answer in answers} <= {200, 503}
        assert answers[0].status_code == 503 or len({answer.status_code for answer in answers}) == 2
        assert all(answer.content == wanted for answer in answers if answer.status_code == 200)
        assert "cenote_requests_running 0.0" in client.get("/metrics").text
        assert not client.app.state.cenote.chunks._loads  # type: ignore[attr-defined]  # a FastAPI app
        store.pause = 0
        assert client.get(f"/collections/{OTHER}").content == wanted


def test_no_read_that_waits_is_made_on_the_event_loop(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index of a shard that goes while its chunk is on its way is not read again by the loop."""
    inner = Fetching.fetch

    async def forgetting(self: Fetching, *given: Any) -> bytes:
        loop.client.app.state.cenote.chunks.clear()  # type: ignore[attr-defined]  # a FastAPI app
        return await inner(self, *given)

    readers = set()
    monkeypatch.setattr(Fetching, "fetch", forgetting)
    monkeypatch.setattr(Fetching, "get_suffix", lambda *_: readers.add(threading.current_thread().name))
    assert loop.client.get(f"/collections/{OTHER}").content == loop.wanted
    assert len(loop.store.fetched) == 3
    assert not readers


def test_long_hosts_are_not_kept(loop: Loop) -> None:
    _base_of.cache_clear()
    for number in range(3):
        answer = loop.client.get(f"/collections/{OTHER}", headers={"host": "a" * 300 + str(number)})
        assert answer.status_code == 200
    assert _base_of.cache_info().currsize == 0


def test_many_reads_are_left_to_threads(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiler.fast_series.MOST_GETS", 2)
    assert loop.client.get(f"/collections/{OTHER}").content == loop.wanted
    assert (loop.store.fetched, len(loop.store.read)) == ([], 3)


def test_what_takes_long_to_decode_is_left_to_threads(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiler.fast_series.MOST_FETCHED", 10_000)
    assert loop.client.get(f"/collections/{OTHER}").content == loop.wanted
    assert (loop.store.fetched, len(loop.store.read)) == ([], 3)


def test_addresses_are_parsed_once() -> None:
    _but_the_place.cache_clear()
    for longitude in (1, 1, 3):
        text = f"f=CSV&coords=POINT({longitude}%202)&datetime=2020".encode()
        found = parsed_of("/collections/a/position", text)
        assert found is not None
        assert found.place == (longitude, 2)
        assert found.query == (("f", "CSV"), ("coords", f"POINT({longitude} 2)"), ("datetime", "2020"))
        assert (found.collection, found.f, found.interval) == ("a", "CSV", "2020")
    assert _but_the_place.cache_info().misses == 1
    place = b"coords=POINT(1%202)"
    for judged in (b"x" + place, place + b"&" + place, b"coords=", b"f=CSV", b"coords"):
        assert parsed_of("/collections/a/position", judged) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "&&a=1&",
        "a",
        "a=&b",
        "=1",
        "a=1=2&a=3",
        "coords=POINT(1+2)&f=%43SV",
        "a%3D=%26&b+c=d+e%2B",
        "x=%E4%B8%AD&y=%zz%4&z=%C3",
        "a;b=1;c=2",
        "\u00e9=\u00ff%20",
    ],
)
def test_a_query_is_read_as_the_routes_read_it(text: str) -> None:
    assert _items(text) == tuple(parse_qsl(text, keep_blank_values=True))
