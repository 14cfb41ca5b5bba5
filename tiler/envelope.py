"""The outermost layer: what holds for every request and every answer, whatever route it takes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.core.settings import Settings
from tiler import deadline
from tiler.answer import ANSWER_HEADERS, REVALIDATED, SCOPE_KEY
from tiler.compression import Compression
from tiler.downloads import HEAD_KEY
from tiler.errors import RETRY_SECONDS, Problem
from tiler.memory import Budget, Claim
from tiler.metrics import ROUTE_KEY, Metrics
from tiler.proxies import Proxies
from tiler.request import COLLECTION, INSTANCE

WATCHED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Routes for machines that watch: never refused for load, never counted."""

PIECE_BYTES = 256 * 1024
"""Sent at a time."""

STALL_SECONDS = 60.0
"""A client that takes no piece for so long is hung up on."""

NO_ROUTE = "none"
"""Route name of what no route answers."""

RANGES = ("Accept-Ranges", "Content-Range", "Content-Length")
"""What a reader of COG or Zarr in a browser needs to see."""

EXPOSED = ", ".join((*ANSWER_HEADERS, "ETag", "Content-Bbox", "Content-Crs", "Link", "Retry-After", *RANGES))
ALWAYS = {
    b"access-control-allow-origin": b"*",
    b"access-control-expose-headers": EXPOSED.encode(),
    b"x-content-type-options": b"nosniff",
}
"""Headers of every answer, errors too."""

_ALWAYS = tuple(ALWAYS.items())

_DECIDING = frozenset({b"if-none-match", b"x-forwarded-prefix"})
"""Headers that change what the address of a tile is answered."""

METHODS = "GET, HEAD, POST, OPTIONS"

PREFLIGHT = {
    "Access-Control-Allow-Methods": METHODS,
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Max-Age": "86400",
}


class ClientGone(Exception):
    """The client reads no more; the server closes its connection."""


class Ready(NamedTuple):
    """An answer that was made without a route."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    """All but those of every answer."""

    body: bytes
    route: str
    """Path template of the route that it is an answer of."""

    is_text: bool = False
    """Whether it may be compressed on its way."""


type Coming = Callable[[], Awaitable[Ready | None]]
"""Waits for an answer; None where the app is to answer after all."""


class Envelope:
    """Caps on address, body, load and time; HEAD; CORS; the headers that ``describe`` set; gzip; and the metrics.

    Args:
        app: what answers.
        settings: the caps.
        metrics: where requests are counted.
        threads: worker threads of the process.
        proxies: who may say how a request reached them.
        budget: the memory of all requests.
        again: finds the answer that the address of a GET was given before, where no header can change it.
        at_once: finds the answer to a GET where nothing has to be waited for, in less time than preparing to wait
            takes, or what waits for it; None where ``app`` is to answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        metrics: Metrics,
        threads: int,
        proxies: Proxies,
        budget: Budget,
        again: Callable[[Scope], Ready | None] = lambda _: None,
        at_once: Callable[[Scope], Ready | Coming | None] = lambda _: None,
    ) -> None:
        self._app = app
        self._again = again
        self._at_once = at_once
        self._settings = settings
        self._metrics = metrics
        self._most = threads * (1 + settings.queue_factor)
        self._proxies = proxies
        self._compression = Compression()
        self._budget = budget
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in WATCHED:
            exchange = _Exchange(scope, send, self._metrics, self._compression, self._budget.begin())
            await self._app(exchange.inner, receive, exchange.send)
            return
        began = time.perf_counter()
        if scope["method"] == "GET" and _is_plain(scope) and (ready := self._again(scope)) is not None:
            await self._send(scope, ready, began, send)
            return
        refusal = self._refusal(scope)
        scope = self._compression.asked(scope)
        coming = None
        if refusal is None and scope["method"] in {"GET", "HEAD"}:
            found = self._at_once(self._proxies.seen_from_outside(scope))
            if isinstance(found, Ready):
                await self._send(scope, found, began, send)
                return
            coming = found
        if coming is not None and (ready := await self._awaited(coming)) is not None:
            await self._send(scope, ready, began, send)
            return
        claim = self._budget.begin()
        exchange = _Exchange(scope, send, self._metrics, self._compression, claim)
        exchange.begin(began)
        if refusal is not None:
            await refusal(exchange.inner, receive, exchange.send)
            return
        seen = self._proxies.seen_from_outside(exchange.inner)
        exchange.inner = seen
        self._running += 1
        left = self._settings.request_seconds - (time.perf_counter() - began)
        timer = asyncio.get_running_loop().call_later(left, exchange.give_up)
        try:
            if left > 0:
                await self._app(seen, _counted(receive, self._settings.max_body_bytes), exchange.send)
            else:
                exchange.give_up()
        finally:
            self._running -= 1
            timer.cancel()
            try:
                await exchange.end()
            finally:
                claim.settle(0)

    async def _awaited(self, coming: Coming) -> Ready | None:
        """An answer that the event loop waits for; None where there is none in time."""
        self._running += 1
        self._metrics.begin()
        try:
            async with asyncio.timeout(self._settings.request_seconds):
                return await coming()
        except TimeoutError:
            return None
        finally:
            self._running -= 1
            self._metrics.left()

    async def _send(self, scope: Scope, ready: Ready, began: float, send: Send) -> None:
        seconds = time.perf_counter() - began
        headers = [*ready.headers, *_ALWAYS]
        if scope["method"] == "HEAD":
            send = _without_bodies(send)
        if ready.is_text:
            send = self._compression.around(scope, send)
        try:
            await send({"type": "http.response.start", "status": ready.status, "headers": headers})
            await send({"type": "http.response.body", "body": ready.body})
        finally:  # while the client reads
            self._metrics.answered(scope["method"], ready.route, ready.status, seconds)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that goes no further."""
        if scope["method"] == "OPTIONS":
            return Response(status_code=HTTPStatus.NO_CONTENT, headers={**PREFLIGHT, "Allow": METHODS})
        address = len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])
        if address > self._settings.max_url_bytes:
            return Problem(
                status=HTTPStatus.REQUEST_URI_TOO_LONG,
                detail=f"the address has {address} bytes and at most {self._settings.max_url_bytes} are read; "
                "large geometries go into the body of a POST",
            ).response()
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > self._settings.max_body_bytes:
            return Problem(
                status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail=_too_long(self._settings.max_body_bytes)
            ).response()
        if self._running >= self._most:
            return Problem(
                status=HTTPStatus.SERVICE_UNAVAILABLE,
                detail="the service has as many requests as it can answer; please try again",
                headers={"Retry-After": str(RETRY_SECONDS)},
            ).response()
        return None


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, send: Send, metrics: Metrics, compression: Compression, claim: Claim) -> None:
        passed = _paced(send, claim)
        self._send = compression.around(scope, _without_bodies(passed) if scope["method"] == "HEAD" else passed)
        self._metrics = metrics
        self._method = scope["method"]
        self._is_head = self._method == "HEAD"
        self._began = 0.0
        self._is_counted = False
        self._has_begun = False
        self._request = deadline.begin()
        self._late: asyncio.Task[None] | None = None
        self.inner: Scope = {**scope, SCOPE_KEY: {}}
        if self._is_head:
            # every GET answers HEAD; the body is made, measured and left out
            self.inner["method"] = "GET"
            self.inner[HEAD_KEY] = True

    def begin(self, now: float) -> None:
        """Count it."""
        self._is_counted = True
        self._began = now
        self._metrics.begin()

    def give_up(self) -> None:
        """Answer 503 now; the request's thread ends before it reads more (tiler/deadline.py), its answer is dropped."""
        if self._has_begun:
            return
        self._request.is_given_up = True
        self._late = asyncio.get_running_loop().create_task(self._answer_late())

    async def end(self) -> None:
        """Wait for what is still being sent."""
        if self._late is not None:
            await self._late

    async def send(self, message: Message) -> None:
        """Pass a message on, completed."""
        if not self._request.is_given_up:
            await self._pass(message)

    async def _answer_late(self) -> None:
        response = Problem(
            status=HTTPStatus.SERVICE_UNAVAILABLE,
            detail="the answer took too long; ask for less, or try again",
            headers={"Retry-After": str(RETRY_SECONDS)},
        ).response()

        async def nothing() -> Message:  # a plain response reads no request
            return {"type": "http.disconnect"}

        await response(self.inner, nothing, self._pass)

    async def _pass(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._has_begun = True
            self._complete(message)
            if self._is_counted:
                seconds = time.perf_counter() - self._began
                self._metrics.end(self._method, _route_name(self.inner), message["status"], seconds)
        await self._send(message)

    def _complete(self, message: Message) -> None:
        described: dict[str, str] = self.inner.get(SCOPE_KEY, {})
        ours = dict(ALWAYS)
        is_error = message["status"] >= HTTPStatus.BAD_REQUEST
        for name, value in described.items():
            if not is_error or name in ANSWER_HEADERS:
                ours[name.lower().encode("latin-1")] = value.encode("latin-1")
        if is_error:
            ours[b"cache-control"] = b"no-store"
        headers = [header for header in message.get("headers", ()) if header[0] not in ours]
        headers += ours.items()
        if not any(name == b"cache-control" for name, _ in headers):
            headers.append((b"cache-control", REVALIDATED.encode()))
        message["headers"] = headers


async def send_ready(ready: Ready, scope: Scope, send: Send) -> None:
    """Send an answer that was made without a route."""
    scope[ROUTE_KEY] = ready.route
    await send({"type": "http.response.start", "status": ready.status, "headers": ready.headers})
    await send({"type": "http.response.body", "body": ready.body})


def _is_plain(scope: Scope) -> bool:
    """Whether no header changes what an address is answered."""
    for name, _ in scope["headers"]:  # noqa: SIM110 - a generator takes as long as all the rest of an answer from memory
        if name in _DECIDING:
            return False
    return True


def _without_bodies(send: Send) -> Send:
    """A ``send`` for the answer to a HEAD: bodies are measured and left out."""

    async def without(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return without


def _paced(send: Send, claim: Claim) -> Send:
    """A ``send`` of long bodies in pieces.

    The server waits before each piece until the client has taken the last one: of a body sent in one piece it would
    keep all that a slow client leaves, and nobody would count it.
    """

    async def paced(message: Message) -> None:
        body = message.get("body", b"")
        if len(body) <= PIECE_BYTES:
            await _taken(send, message)
            return
        is_whole = not message.get("more_body", False)
        if is_whole:
            claim.settle(len(body))
        for start in range(0, len(body), PIECE_BYTES):
            is_last = is_whole and start + PIECE_BYTES >= len(body)
            await _taken(send, {**message, "body": body[start : start + PIECE_BYTES], "more_body": not is_last})

    return paced


async def _taken(send: Send, message: Message) -> None:
    try:
        async with asyncio.timeout(STALL_SECONDS):
            await send(message)
    except TimeoutError:
        raise ClientGone from None


def _route_name(scope: Scope) -> str:
    """Path template of the route that answers; a bounded number of names."""
    told: str | None = scope.get(ROUTE_KEY)
    if told is not None:
        return told
    path: str | None = getattr(scope.get("route"), "path", None)
    if path is None:
        return NO_ROUTE
    placed = scope.get("path_params", {})
    if "collection_id" not in placed or path.startswith(COLLECTION):
        return path
    return f"{INSTANCE if 'version' in placed else COLLECTION}{path}"


def _counted(receive: Receive, most: int) -> Callable[[], Awaitable[Message]]:
    """A ``receive`` that ends a body which is longer than it may be, however it is sent."""
    length = 0

    async def counted() -> Message:
        nonlocal length
        message = await receive()
        length += len(message.get("body", b""))
        if length > most:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_long(most))
        return message

    return counted


def _too_long(most: int) -> str:
    return f"the body of a request may have {most} bytes at most; send fewer vertices or places at a time"
