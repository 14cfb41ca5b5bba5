"""HTTP connections that send the head of an answer together with its body.

uvicorn writes them one after the other: two system calls, and a client that is woken twice.
"""

import asyncio
from typing import Any, override

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_JOINED = 64 * 1024
"""Bytes of a body that are copied behind a head; to copy more takes longer than to write twice."""

_HEAD = b"HTTP/1."


class Joined:
    """A transport that keeps a head until what follows it is written, or until the loop's next turn.

    Args:
        transport: what sends.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send bytes."""
        head = self._head
        if head:
            self._head = b""
            if len(data) <= MOST_JOINED:
                self._transport.write(head + data)
                return
            self._transport.write(head)
        elif data.startswith(_HEAD):  # a body that begins like this is sent a turn later
            self._head = data
            self._loop.call_soon(self.flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close it when all is sent."""
        self.flush()
        self._transport.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand it over."""
        self.flush()
        self._transport.set_protocol(protocol)

    def flush(self) -> None:
        """Send what is kept."""
        head, self._head = self._head, b""
        if head:
            self._transport.write(head)


class JoinedProtocol(HttpToolsProtocol):
    """uvicorn's protocol over such transports."""

    _joined: Joined

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._joined = Joined(transport)
        super().connection_made(self._joined)  # type: ignore[arg-type]

    @override
    def eof_received(self) -> None:
        # a client that has asked all may have closed its half, and the loop then closes the other
        self._joined.flush()
        super().eof_received()
