"""What holds for every request, whatever route it takes: caps, load, deadline, HEAD, CORS."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.responses import Response, StreamingResponse

from services.core.settings import Settings
from tiler import deadline
from tiler.chunks import ChunkCache
from tiler.envelope import Envelope, Ready
from tiler.errors import add_handlers
from tiler.fast_tiles import TileCache
from tiler.memory import Budget
from tiler.metrics import Metrics
from tiler.proxies import Proxies


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Lets slow requests go on; they do at the latest when the test ends."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def wrapped(gate: threading.Event) -> Callable[..., TestClient]:
    """A small app in an envelope with settings of the test's own."""

    def make(threads: int = 2, **settings: float) -> TestClient:
        app = FastAPI()
        add_handlers(app)

        @app.get("/quick")
        def quick() -> dict[str, str]:
            return {"a": "b"}

        @app.get("/slow")
        def slow() -> str:
            gate.wait(10)
            return "late"

        @app.get("/reads")
        def reads() -> str:
            for _ in range(50):
                app.state.reads += 1
                time.sleep(0.05)
                deadline.check()
            return "late"

        app.state.reads = 0
        app.state.seconds = 0.0
        """After which an answer comes that the event loop waits for; None comes after less than none."""

        async def coming() -> Ready | None:
            await asyncio.sleep(abs(app.state.seconds))
            return Ready(200, [(b"content-length", b"4")], b"here", "/comes") if app.state.seconds >= 0 else None

        @app.get("/comes")
        def comes() -> str:
            return "by a route"

        @app.get("/stream")
        def stream() -> Response:
            return StreamingResponse(iter([b"one", b"two"]))

        @app.post("/body")
        async def body(request: Request) -> int:
            return len(await request.body())

        @app.get("/fails")
        def fails() -> None:
            raise RuntimeError("unforeseen")

        @app.get("/healthz")
        def health() -> str:
            return "fine"

        chosen = Settings(**settings)  # type: ignore[arg-type]  # each has its own type
        metrics = Metrics(ChunkCache(0), TileCache(0))
        envelope = Envelope(
            app.build_middleware_stack(),
            settings=chosen,
            metrics=metrics,
            threads=threads,
            proxies=Proxies(),
            budget=Budget(2**30, spare=0, give_way=lambda _: None, waiting=1),
            at_once=lambda scope: coming if scope["path"] == "/comes" else None,
        )
        app.build_middleware_stack = lambda: envelope  # type: ignore[method-assign]
        app.state.metrics = metrics
        return TestClient(app, raise_server_exceptions=False)

    return make


def test_every_get_answers_head(wrapped: Callable[..., TestClient]) -> None:
    client = wrapped()
    for path in ("/quick", "/stream"):
        full, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers.get("content-length") == full.headers.get("content-length")
        assert head.headers.get("content-type") == full.headers.get("content-type")
    assert client.head("/body").status_code == 405
    assert client.head("/nope").status_code == 404


def test_cors_is_open_and_without_credentials(wrapped: Callable[..., TestClient]) -> None:
    client = wrapped()
    for answer in (client.get("/quick"), client.get("/nope"), client.get("/fails")):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
    preflight = client.options(
        "/body", headers={"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == "*"


def test_what_a_route_does_not_say_is_revalidated_and_errors_are_not_kept(
    wrapped: Callable[..., TestClient],
) -> None:
    client = wrapped()
    assert client.get("/quick").headers["cache-control"] == "public, max-age=0, must-revalidate"
    assert client.get("/nope").headers["cache-control"] == "no-store"
    assert client.get("/fails").headers["cache-control"] == "no-store"


def test_an_address_may_be_so_long(wrapped: Callable[..., TestClient]) -> None:
    client = wrapped(max_url_bytes=100)
    assert client.get("/quick?" + "a" * 94).status_code == 200
    answer = client.get("/quick?" + "a" * 95)
    assert answer.status_code == 414
    assert "101 bytes" in answer.json()["detail"]


def test_a_body_may_be_so_long_however_it_is_sent(wrapped: Callable[..., TestClient]) -> None:
    client = wrapped(max_body_bytes=1000)
    assert client.post("/body", content=b"x" * 1000).json() == 1000
    assert client.post("/body", content=b"x" * 1001).status_code == 413
    assert client.post("/body", content=iter([b"x" * 500] * 2)).json() == 1000
    answer = client.post("/body", content=iter([b"x" * 500] * 3))
    assert answer.status_code == 413
    assert "1000 bytes" in answer.json()["detail"]


async def asked(app: FastAPI, *paths: str) -> list[httpx.Response]:
    """The answers to requests that are all sent at once."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        return list(await asyncio.gather(*(client.get(path) for path in paths)))


def test_a_request_that_takes_too_long_is_ended(wrapped: Callable[..., TestClient], gate: threading.Event) -> None:
    app = wrapped(request_seconds=0.2).app
    assert isinstance(app, FastAPI)
    # the answer is sent although the thread is still at work; this client sees it once that ends
    threading.Timer(0.6, gate.set).start()
    slow, quick = asyncio.run(asked(app, "/slow", "/quick"))
    assert (slow.status_code, quick.status_code) == (503, 200)
    assert "too long" in slow.json()["detail"]
    assert slow.headers["retry-after"] == "2"
    assert slow.headers["access-control-allow-origin"] == "*"
    assert asyncio.run(asked(app, "/slow"))[0].status_code == 200


def test_the_thread_of_a_request_that_was_given_up_stops_at_its_next_read(wrapped: Callable[..., TestClient]) -> None:
    app = wrapped(request_seconds=0.2).app
    assert isinstance(app, FastAPI)
    slow, quick = asyncio.run(asked(app, "/reads", "/quick"))
    assert (slow.status_code, quick.status_code) == (503, 200)
    assert "too long" in slow.json()["detail"]
    assert 2 <= app.state.reads < 20
    deadline.check()  # that of the request only


def test_an_answer_that_the_event_loop_waits_for(wrapped: Callable[..., TestClient]) -> None:
    app = wrapped(request_seconds=0.3).app
    assert isinstance(app, FastAPI)
    for seconds, status, text in ((0.05, 200, "here"), (-0.05, 200, '"by a route"'), (5, 503, "too long")):
        app.state.seconds = seconds
        began = time.perf_counter()
        answer, quick = asyncio.run(asked(app, "/comes", "/quick"))
        assert (answer.status_code, quick.status_code) == (status, 200)
        assert text in answer.text
        assert time.perf_counter() - began < 2
        assert answer.headers["access-control-allow-origin"] == "*"
    text = app.state.metrics.text()[0].decode()
    assert "cenote_requests_running 0.0" in text
    assert 'cenote_requests_total{method="GET",route="/comes",status="200"} 2.0' in text
    assert 'status="503"} 1.0' in text


def test_who_waits_on_the_event_loop_is_counted_in_the_queue(wrapped: Callable[..., TestClient]) -> None:
    app = wrapped(threads=1, queue_factor=1).app
    assert isinstance(app, FastAPI)
    app.state.seconds = 0.2
    answers = asyncio.run(asked(app, "/comes", "/comes", "/quick", "/comes"))
    assert [answer.status_code for answer in answers] == [200, 200, 503, 503]
    assert asyncio.run(asked(app, "/quick"))[0].status_code == 200


def test_above_its_queue_the_service_says_so(wrapped: Callable[..., TestClient], gate: threading.Event) -> None:
    app = wrapped(threads=1, queue_factor=1).app
    assert isinstance(app, FastAPI)
    threading.Timer(0.3, gate.set).start()
    answers = asyncio.run(asked(app, "/slow", "/slow", "/quick", "/slow", "/healthz"))
    assert [answer.status_code for answer in answers] == [200, 200, 503, 503, 200], "who watches is never refused"
    assert answers[2].headers["retry-after"] == "2"
    assert asyncio.run(asked(app, "/quick"))[0].status_code == 200


def test_requests_are_counted_by_route_and_status(wrapped: Callable[..., TestClient]) -> None:
    client = wrapped()
    for path in ("/quick", "/quick", "/nope", "/fails", "/healthz"):
        client.get(path)
    client.head("/quick")
    text = client.app.state.metrics.text()[0].decode()  # type: ignore[attr-defined]  # a FastAPI app
    assert 'cenote_requests_total{method="GET",route="/quick",status="200"} 2.0' in text
    assert 'cenote_requests_total{method="HEAD",route="/quick",status="200"} 1.0' in text
    assert 'cenote_requests_total{method="GET",route="none",status="404"} 1.0' in text
    assert 'cenote_requests_total{method="GET",route="/fails",status="500"} 1.0' in text
    assert "healthz" not in text
    assert "cenote_requests_running 0.0" in text
