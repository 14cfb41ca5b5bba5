"""Ranges of bytes for an event loop: GETs of signed addresses over connections that are kept.

obstore reads by threads of its own, which wake the loop from another core: a range of 16 kB takes three times the CPU.
What is asked here is asked once; whatever is not as expected is for the caller to ask obstore.

Reference: RFC 9110, 14 (range requests); RFC 9112, 9.3 (connections that persist).
"""

import asyncio
import contextlib
import logging
import re
import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple, cast, override
from urllib.parse import urlsplit

import httptools

_LOG = logging.getLogger(__name__)

MOST_IDLE = 64
"""Connections that are kept for later requests."""

IDLE_SECONDS = 30.0
"""So long at most: what lies between may forget a silent connection and tell nobody."""

MOST_SIGNED = 2048
"""Objects whose signed requests are kept, 1 kB each: each shard is asked for again and again."""

SIGNED_SECONDS = 3600
"""How long an address is signed for; it is used for half of that, as clocks differ."""

FAULTS_IN_A_ROW = 3
REST_SECONDS = 60.0
"""After so many reads that failed nothing is tried for so long: threads read, and who operates the service is told."""

_RANGE = re.compile(rb"bytes (\d+)-\d+/(?:\d+|\*)")


class NotAnswered(OSError):
    """The answer was another than the range, or none."""


class _Signed(NamedTuple):
    """The beginning of a request for an object, up to its range."""

    head: bytes
    until: float
    """Time of ``time.monotonic()``."""


class _Connection(asyncio.Protocol):
    """One connection, which answers one request at a time.

    Args:
        idle: where it waits for the next one.
    """

    def __init__(self, idle: "list[_Connection]") -> None:
        self.since = 0.0
        """Time of the loop at which it began to wait."""

        self._idle = idle
        self._transport: asyncio.WriteTransport
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._parts: list[bytes] = []
        self._first, self._left = 0, 0
        self._fault = ""
        self._begun = self._is_whole = self._stays = False

    def ask(self, head: bytes, start: int, length: int, seconds: float) -> "asyncio.Future[bytes]":
        """Begin to read a range; the answer may be shorter where the object ends.

        Raises:
            NotAnswered: from the future, if there is no such answer within ``seconds``.
        """
        loop = asyncio.get_running_loop()
        self._answer, self._parts, self._first, self._left = loop.create_future(), [], start, length
        self._begun = self._is_whole = False
        self._timer = loop.call_later(seconds, self.end, "it did not answer in time")
        self._transport.write(b"%sRange: bytes=%d-%d\r\n\r\n" % (head, start, start + length - 1))
        return self._answer

    def end(self, why: str) -> None:
        """Close it, and tell who waits for an answer why there is none."""
        if self in self._idle:
            self._idle.remove(self)
        if self._timer is not None:
            self._timer.cancel()
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():  # who waited may have gone
            answer.set_exception(NotAnswered(why))
        self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none of asyncio's classes

    @override
    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.end("it sent what nobody asked for")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.end(f"it answered in no way of HTTP ({error})")
            return
        status = self._parser.get_status_code() if self._begun else 0
        if self._left < 0:
            self._fault = "it sent more than was asked for"
        if status and status != HTTPStatus.PARTIAL_CONTENT and (self._parts or self._is_whole):
            self._fault = f"it answered {status}"
        if self._fault:
            self.end(self._fault)
        elif self._is_whole:
            self._give()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.end("the connection broke off")

    def on_message_begin(self) -> None:
        """An answer begins."""
        if self._begun:
            self._fault = "it sent what nobody asked for"
        self._begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of an answer."""
        if name.lower() == b"content-range":
            said = _RANGE.fullmatch(value)
            if said is None or int(said[1]) != self._first:
                self._fault = "it answered another range"

    def on_body(self, part: bytes) -> None:
        """A piece of an answer."""
        self._left -= len(part)
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """The end of an answer."""
        self._is_whole, self._stays = True, self._parser.should_keep_alive()

    def _give(self) -> None:
        parts = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        answer, self._answer, self._parts = self._answer, None, []
        if self._timer is not None:
            self._timer.cancel()
        if answer is not None and not answer.done():
            answer.set_result(parts)
        if self._stays and len(self._idle) < MOST_IDLE:
            self.since = asyncio.get_running_loop().time()
            self._idle.append(self)
        else:
            self.end("")


class Ranges:
    """Reads ranges of the objects of one store by one event loop; another loop begins anew.

    Args:
        name: of the store, for messages.
        sign: the addresses by which some objects may be read for so many seconds.
        ca_bundle: further certificates to trust.
        connect_seconds: longest wait for a connection.
        read_seconds: longest wait for an answer.
    """

    def __init__(
        self,
        name: str,
        sign: Callable[[Sequence[str], int], Sequence[str]],
        *,
        ca_bundle: Path | None,
        connect_seconds: float,
        read_seconds: float,
    ) -> None:
        self._name = name
        self._sign = sign
        self._ca_bundle = ca_bundle
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._origin = ("", 0)
        self._tls: ssl.SSLContext | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signed: OrderedDict[str, _Signed] = OrderedDict()
        self._idle: list[_Connection] = []
        self._end: AsyncGenerator[None] | None = None
        self._faults = 0
        self._rests_until = 0.0

    async def read(self, key: str, start: int, length: int) -> bytes:
        """So many bytes of an object from ``start`` on, fewer where it ends.

        Raises:
            NotAnswered: if the first attempt does not bring them, or nothing is tried after many that did not.
            OSError: if there is no connection.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._idle, self._rests_until, self._faults = loop, [], 0.0, 0
            self._end = _ended_with_the_loop(self._idle)
            await anext(self._end)
        if loop.time() < self._rests_until:
            raise NotAnswered("threads read for a while, after reads that failed")
        try:
            found = await self._asked(key, start, length, loop)
        except (OSError, asyncio.CancelledError) as error:  # who asked may have no time left
            self._failed(key, error, loop)
            raise
        self._faults = 0
        return found

    def expect(self, keys: Sequence[str]) -> None:
        """Sign requests for objects that will be asked for, as far as there is room, in a thread of the caller's.

        To sign takes an event loop that has other things to do a tenth of a millisecond, and a thread that signs many
        a fifth of that. It holds for half an hour; then who asks first signs again.
        """
        now = time.monotonic()
        for key, known in list(self._signed.items()):
            if now >= known.until:
                self._signed.pop(key, None)
        unknown = [key for key in keys if key not in self._signed][: max(MOST_SIGNED - len(self._signed), 0)]
        if unknown:
            self._keep(unknown, now)

    async def _asked(self, key: str, start: int, length: int, loop: asyncio.AbstractEventLoop) -> bytes:
        now, idle = loop.time(), self._idle
        head = self._head(key, time.monotonic())
        while idle:
            connection = idle.pop()
            if now - connection.since < IDLE_SECONDS:
                return await connection.ask(head, start, length, self._read_seconds)
            connection.end("")
        async with asyncio.timeout(self._connect_seconds):
            _, made = await loop.create_connection(lambda: _Connection(idle), *self._origin, ssl=self._tls)
        return await made.ask(head, start, length, self._read_seconds)

    def _failed(self, key: str, error: BaseException, loop: asyncio.AbstractEventLoop) -> None:
        self._signed.pop(key, None)  # it may be what was refused
        for connection in list(self._idle):  # as one was forgotten, others may be
            connection.end("")
        self._faults += 1
        if self._faults >= FAULTS_IN_A_ROW:
            self._faults, self._rests_until = 0, loop.time() + REST_SECONDS
            said = "%s: threads read for %.0f s, as the event loop failed to %d times in a row (%s)"
            why = str(error) or (
                "nobody could wait longer" if isinstance(error, asyncio.CancelledError) else "no reason"
            )
            _LOG.warning(said, self._name, REST_SECONDS, FAULTS_IN_A_ROW, why)

    def _head(self, key: str, now: float) -> bytes:
        """The beginning of a request; signed anew when half of its time is over."""
        known = self._signed.get(key)
        if known is None or now >= known.until:
            return self._keep([key], now)
        with contextlib.suppress(KeyError):  # a thread that signs others may have dropped it
            self._signed.move_to_end(key)
        return known.head

    def _keep(self, keys: Sequence[str], now: float) -> bytes:
        """Sign requests for some objects, and keep them; the beginning of the last."""
        head = b""
        for key, address in zip(keys, self._sign(keys, SIGNED_SECONDS), strict=True):
            parts = urlsplit(address)
            is_tls = parts.scheme == "https"
            if is_tls and self._tls is None:
                self._tls = _context(self._ca_bundle)
            self._origin = (parts.hostname or "", parts.port or (443 if is_tls else 80))
            target = f"{parts.path}?{parts.query}" if parts.query else parts.path
            head = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: cenote\r\n".encode("ascii")
            self._signed[key] = _Signed(head, now + SIGNED_SECONDS / 2)
            if len(self._signed) > MOST_SIGNED:
                self._signed.popitem(last=False)
        return head


async def _ended_with_the_loop(idle: list[_Connection]) -> AsyncGenerator[None]:
    """Close connections when a loop ends, which shuts down the asynchronous generators that have begun."""
    try:
        yield
    finally:
        for connection in list(idle):
            connection.end("")


def _context(ca_bundle: Path | None) -> ssl.SSLContext:
    """Checks chains and host names, and trusts what obstore does: certificates without key identifiers, too."""
    made = ssl.create_default_context()
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if ca_bundle is not None:
        made.load_verify_locations(ca_bundle)
    return made
