"""Gzip for answers in text: one layer, so that no route knows of it.

Pictures, COG and NetCDF are compressed already. What has byte ranges stays as it is stored. The files of the map page
bring their own gzip (``tiler.pages``).
"""

import re
from collections.abc import Iterable
from http import HTTPStatus

import anyio.to_thread
from isal import igzip_lib, isal_zlib
from starlette.types import Message, Scope, Send

from tiler.accept import accepts_gzip
from tiler.loading import LoadingCache

SMALL = 1024
"""Bytes below which compressing saves no packet."""

LEVEL = 1
"""Of isal. A series of 21 kB takes 25 us and 4.2 kB; zlib 6 takes 220 us and 3.7 kB, isal 3 58 us and 3.9 kB."""

KEPT_BYTES = 4 * 2**20
"""Memory for compressed documents that are asked for again."""

LARGEST_KEPT = 2**18
"""Bytes of a body whose compressed form is kept."""

MOST_AT_ONCE = 2**17
"""Bytes of a body that are compressed on the event loop: a quarter of a millisecond at most."""

ENTRY_BYTES = 500
"""Python's own memory for what is kept of a body."""

MARK = b'-gzip"'
"""End of the tag of a compressed answer."""

_GZIP_STREAM = 31
_TEXT = re.compile(rb"(?:text/(?:html|plain|csv|xml)|application/(?:[a-z0-9.-]+\+)?(?:json|xml))(?:;|$)", re.IGNORECASE)

type Header = tuple[bytes, bytes]
type Key = tuple[bytes, bytes, int]


class Compression:
    """Compresses answers, and knows their tags again.

    The tag of a compressed answer is the plain one with ``-gzip`` at its end. A client that takes gzip may hold either
    and is told that it still holds; one that does not cannot use the other's bytes.
    """

    def __init__(self) -> None:
        self._kept: LoadingCache[Key, bytes] = LoadingCache(KEPT_BYTES, lambda packed: len(packed) + ENTRY_BYTES)

    def asked(self, scope: Scope) -> Scope:
        """The request as the routes are to see it: tags of compressed answers are named in their plain form too."""
        for place, (name, value) in enumerate(scope["headers"]):
            if name == b"if-none-match" and MARK in value and _takes_gzip(scope["headers"]):
                headers = list(scope["headers"])
                headers[place] = (name, value + b", " + value.replace(MARK, b'"'))
                return {**scope, "headers": headers}
        return scope

    def around(self, scope: Scope, send: Send) -> Send:
        """What sends the answer to a request.

        Args:
            scope: the request.
            send: sends what it is given.
        """
        return _Answer(self, scope, send).send

    async def packed(self, start: Message, body: bytes) -> bytes:
        """A whole body, compressed; not anew if it carries a tag and was a moment ago.

        Args:
            start: the message that the answer begins with.
            body: all of it.
        """
        tag, kind = _value(start["headers"], b"etag"), _value(start["headers"], b"content-type")
        # the tag names every bit of the body; its length is for the fault that nobody has thought of
        key = (tag, kind, len(body)) if tag and len(body) <= LARGEST_KEPT else None
        found = self._kept.use(key) if key is not None else None
        if found is None:
            if len(body) <= MOST_AT_ONCE:
                found = _pack(body)
            else:
                found = await anyio.to_thread.run_sync(_pack, body)
            if key is not None:
                self._kept.put(key, found)
        return found


class _Answer:
    """One answer on its way out. Its start waits for the first part of its body, which decides."""

    def __init__(self, compression: Compression, scope: Scope, send: Send) -> None:
        self._compression = compression
        self._asked: list[Header] = scope["headers"]
        self._send = send
        self._passes = False
        self._start: Message | None = None
        self._stream: isal_zlib.Compress | None = None

    async def send(self, message: Message) -> None:
        """Pass a message on, compressed where that is wanted."""
        if self._passes:
            await self._send(message)
        elif message["type"] == "http.response.start":
            if _is_text(message):
                self._start = message
                return
            self._passes = True
            if message["status"] == HTTPStatus.NOT_MODIFIED:
                self._name_held(message)
            await self._send(message)
        elif self._start is not None:
            start, self._start = self._start, None
            await self._begin(start, message)
        else:
            await self._part(message)

    async def _begin(self, start: Message, message: Message) -> None:
        body, goes_on = message.get("body", b""), message.get("more_body", False)
        # of what is too small too: the same answer may be sent whole or in parts
        start["headers"] = _varied(start["headers"])
        is_packed = (goes_on or len(body) >= SMALL) and _takes_gzip(self._asked)
        if is_packed and goes_on:
            self._stream = isal_zlib.compressobj(LEVEL, wbits=_GZIP_STREAM)
            start["headers"] = _compressed(start["headers"], None)
            await self._send(start)
            await self._part(message)
            return
        if is_packed:
            packed = await self._compression.packed(start, body)
            if len(packed) < len(body):
                start["headers"] = _compressed(start["headers"], len(packed))
                message = {**message, "body": packed}
        self._passes = True
        await self._send(start)
        await self._send(message)

    async def _part(self, message: Message) -> None:
        if self._stream is None:
            raise RuntimeError("a body before its start")
        body, goes_on = message.get("body", b""), message.get("more_body", False)
        if len(body) <= MOST_AT_ONCE:
            packed = self._stream.compress(body)
        else:
            packed = await anyio.to_thread.run_sync(self._stream.compress, body)
        if not goes_on:
            packed += self._stream.flush()
        if packed or not goes_on:
            await self._send({**message, "body": packed})

    def _name_held(self, start: Message) -> None:
        """Of the two tags of an answer that has not changed, name the one that the client holds."""
        tag = _value(start["headers"], b"etag")
        marked = tag[:-1] + MARK
        if tag and _takes_gzip(self._asked) and marked in _value(self._asked, b"if-none-match"):
            start["headers"] = _varied(_tagged(start["headers"]))


def _takes_gzip(asked: Iterable[Header]) -> bool:
    return accepts_gzip(_value(asked, b"accept-encoding").decode("latin-1"))


def _pack(body: bytes) -> bytes:
    packed: bytes = igzip_lib.compress(body, LEVEL, igzip_lib.COMP_GZIP)
    return packed


def _is_text(start: Message) -> bool:
    """Whether a body may be compressed, going by its headers."""
    kind = b""
    for name, value in start["headers"]:
        if name == b"content-type":
            kind = value
        elif name in {b"content-encoding", b"content-range", b"accept-ranges"}:
            return False
    return _TEXT.match(kind) is not None and start["status"] not in {
        HTTPStatus.NO_CONTENT,
        HTTPStatus.PARTIAL_CONTENT,
        HTTPStatus.NOT_MODIFIED,
    }


def _value(headers: Iterable[Header], wanted: bytes) -> bytes:
    return next((value for name, value in headers if name == wanted), b"")


def _compressed(headers: Iterable[Header], length: int | None) -> list[Header]:
    """Headers of the compressed answer.

    Args:
        headers: those of the plain one.
        length: bytes of its body; None where they are not known yet.
    """
    kept = [header for header in _tagged(headers) if header[0] != b"content-length"]
    kept.append((b"content-encoding", b"gzip"))
    if length is not None:
        kept.append((b"content-length", str(length).encode()))
    return kept


def _tagged(headers: Iterable[Header]) -> list[Header]:
    return [(name, value[:-1] + MARK if name == b"etag" else value) for name, value in headers]


def _varied(headers: Iterable[Header]) -> list[Header]:
    """Headers that say that the encoding hangs on what the client accepts."""
    headers = list(headers)
    for place, (name, value) in enumerate(headers):
        if name == b"vary":
            if b"accept-encoding" not in value.lower():
                headers[place] = (name, value + b", Accept-Encoding")
            return headers
    return [*headers, (b"vary", b"Accept-Encoding")]
