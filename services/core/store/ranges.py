"""Ranges of bytes for an event loop: GETs of signed addresses over connections that are kept.

obstore reads by threads of its own, which wake the loop from another core: a range of 16 kB takes three times the CPU.
What is asked here is asked once; whatever is not as expected is for the caller to ask obstore.

Reference: RFC 9110, 14 (range requests); RFC 9112, 9.3 (connections that persist).
"""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple, cast, override
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import httptools

MOST_IDLE = 64
"""Connections that are kept for later requests."""

MOST_SIGNED = 1024
"""Objects whose signed requests are kept, 1 kB each: each shard is asked for again and again."""

SIGNED_SECONDS = 3600
"""How long an address is signed for; it is used for half of that, as clocks differ."""


class NotAnswered(OSError):
    """The answer was another than the range, or none."""


class _Signed(NamedTuple):
    """The beginning of a request for an object, up to its range."""

    head: bytes
    until: float
    """Time of the loop."""


class _Connection(asyncio.Protocol):
    """One connection, which answers one request at a time.

    Args:
        idle: where it waits for the next one.
    """

    def __init__(self, idle: "list[_Connection]") -> None:
        self._idle = idle
        self._transport: asyncio.WriteTransport
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._parts: list[bytes] = []
        self._left = 0
        self._is_whole = self._stays = False

    def ask(self, head: bytes, start: int, length: int, seconds: float) -> "asyncio.Future[bytes]":
        """Begin to read a range; the answer may be shorter where the object ends.

        Raises:
            NotAnswered: from the future, if there is no such answer within ``seconds``.
        """
        loop = asyncio.get_running_loop()
        self._answer, self._parts, self._left, self._is_whole = loop.create_future(), [], length, False
        self._timer = loop.call_later(seconds, self._end, "it did not answer in time")
        self._transport.write(b"%sRange: bytes=%d-%d\r\n\r\n" % (head, start, start + length - 1))
        return self._answer

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none of asyncio's classes

    @override
    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self._end("it sent what nobody asked for")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"it answered in no way of HTTP ({error})")
            return
        status = self._parser.get_status_code()
        if self._left < 0:
            self._end("it sent more than was asked for")
        elif self._parts and status != HTTPStatus.PARTIAL_CONTENT:
            self._end(f"it answered {status}")
        elif self._is_whole:
            self._give(status)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._end("the connection broke off")

    def on_body(self, part: bytes) -> None:
        """A piece of an answer."""
        self._left -= len(part)
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """The end of an answer."""
        self._is_whole, self._stays = True, self._parser.should_keep_alive()

    def _give(self, status: int) -> None:
        if status != HTTPStatus.PARTIAL_CONTENT:
            self._end(f"it answered {status}")
            return
        parts = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        answer, self._answer, self._parts = self._answer, None, []
        if self._timer is not None:
            self._timer.cancel()
        if answer is not None and not answer.done():  # nobody may wait any more
            answer.set_result(parts)
        if self._stays and len(self._idle) < MOST_IDLE:
            self._idle.append(self)
        else:
            self._end("")

    def _end(self, why: str) -> None:
        if self in self._idle:
            self._idle.remove(self)
        if self._timer is not None:
            self._timer.cancel()
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(NotAnswered(why))
        self._transport.abort()


class Ranges:
    """Reads ranges of the objects of one store, by any event loop of this process.

    Args:
        sign: the address by which an object may be read for so many seconds.
        ca_bundle: further certificates to trust.
        connect_seconds: longest wait for a connection.
        read_seconds: longest wait for an answer.
    """

    def __init__(
        self,
        sign: Callable[[str, int], str],
        *,
        ca_bundle: Path | None,
        connect_seconds: float,
        read_seconds: float,
    ) -> None:
        self._sign = sign
        self._ca_bundle = ca_bundle
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._origin = ("", 0)
        self._tls: ssl.SSLContext | None = None
        self._signed: OrderedDict[str, _Signed] = OrderedDict()
        self._idle: WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Connection]] = WeakKeyDictionary()

    async def read(self, key: str, start: int, length: int) -> bytes:
        """So many bytes of an object from ``start`` on, fewer where it ends.

        Raises:
            NotAnswered: if the first attempt does not bring them.
            OSError: if there is no connection.
        """
        loop = asyncio.get_running_loop()
        head = self._head(key, loop.time())
        idle = self._idle.setdefault(loop, [])
        if idle:
            return await idle.pop().ask(head, start, length, self._read_seconds)
        async with asyncio.timeout(self._connect_seconds):
            _, connection = await loop.create_connection(lambda: _Connection(idle), *self._origin, ssl=self._tls)
        return await connection.ask(head, start, length, self._read_seconds)

    def _head(self, key: str, now: float) -> bytes:
        """The beginning of a request; signed anew when half of its time is over."""
        known = self._signed.get(key)
        if known is not None and now < known.until:
            self._signed.move_to_end(key)
            return known.head
        parts = urlsplit(self._sign(key, SIGNED_SECONDS))
        is_tls = parts.scheme == "https"
        if is_tls and self._tls is None:
            self._tls = ssl.create_default_context()
            if self._ca_bundle is not None:
                self._tls.load_verify_locations(self._ca_bundle)
        self._origin = (parts.hostname or "", parts.port or (443 if is_tls else 80))
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        head = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: cenote\r\n".encode("ascii")
        self._signed[key] = _Signed(head, now + SIGNED_SECONDS / 2)
        if len(self._signed) > MOST_SIGNED:
            self._signed.popitem(last=False)
        return head
