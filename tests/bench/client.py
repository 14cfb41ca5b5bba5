"""The load: a process of its own that asks servers over kept-alive connections and times each answer.

It reads one job a line from stdin and writes one result a line to stdout. HTTP is parsed by httptools; MapServer is
asked by FastCGI itself, so that no web server in between is charged to it (it closes the connection after each answer,
as it does behind nginx).
"""

import asyncio
import json
import struct
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import httptools

HTTP, FASTCGI = "http", "fastcgi"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to ask, how often, and how many at once."""

    address: int | str
    """Port of loopback, or path of a Unix socket."""
    requests: list[tuple[str, str, str]]
    """Method, target and body, asked in turn and again from the first."""
    protocol: str = HTTP
    clients: int = 1
    seconds: float = 60.0
    """No request is begun after so long."""
    limit: int = 1_000_000
    """Most requests."""
    keep: bool = False
    """Whether bodies are wanted."""


@dataclass(kw_only=True)
class Result:
    """What came back."""

    latencies: list[float] = field(default_factory=list)
    """Milliseconds of each answer, in the order of the answers."""
    wall: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    received: int = 0
    """Bytes of all bodies."""
    bodies: list[str] = field(default_factory=list)
    """Latin-1 text, if wanted, in the order of the answers."""


class _Http(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self.body: list[bytes] = []
        self.parser: Any = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def on_body(self, part: bytes) -> None:
        self.body.append(part)

    def on_message_complete(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result((self.parser.get_status_code(), b"".join(self.body)))
        self.body = []

    async def ask(self, address: int | str, message: bytes) -> tuple[int, bytes]:
        loop = asyncio.get_running_loop()
        if self.transport is None:
            self.parser = httptools.HttpResponseParser(self)
            await loop.create_connection(lambda: self, "127.0.0.1", int(address))
        assert self.transport is not None
        self.waiter = loop.create_future()
        self.transport.write(message)
        return await self.waiter


class _FastCgi:
    """A connection for each request."""

    async def ask(self, address: int | str, message: bytes) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_unix_connection(str(address))
        try:
            writer.write(message)
            answer = bytearray()
            while True:
                _, kind, _, length, padding, _ = struct.unpack("!BBHHBB", await reader.readexactly(8))
                content = await reader.readexactly(length + padding)
                if kind == 6:  # FCGI_STDOUT
                    answer += content[:length]
                elif kind == 3:  # FCGI_END_REQUEST
                    break
        finally:
            writer.close()
        head, _, body = bytes(answer).partition(b"\r\n\r\n")
        said = [line for line in head.split(b"\r\n") if line.lower().startswith(b"status:")]
        # MapServer says a fault as text with status 200
        status = int(said[0].split()[1]) if said else 200 if b"image/" in head else 500
        return status, body


def http_message(method: str, target: str, body: str) -> bytes:
    """A request as bytes."""
    data = body.encode()
    length = f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n" if data else ""
    return f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n{length}\r\n".encode() + data


def fastcgi_message(method: str, target: str) -> bytes:
    """A request as FastCGI records: BEGIN (responder, not kept), PARAMS, no stdin."""
    _, _, query = target.partition("?")
    pairs = {"REQUEST_METHOD": method, "QUERY_STRING": query, "SERVER_PROTOCOL": "HTTP/1.1"}
    params = b"".join(
        struct.pack("!BI", len(name), len(value) | 0x80000000) + name.encode() + value.encode()
        for name, value in pairs.items()
    )
    return b"".join(
        struct.pack("!BBHHBB", 1, kind, 1, len(content), 0, 0) + content
        for kind, content in ((1, struct.pack("!HB5x", 1, 0)), (4, params), (4, b""), (5, b""))
    )


async def load(job: Job) -> Result:
    """Carry a job out."""
    messages = [
        http_message(*request) if job.protocol == HTTP else fastcgi_message(*request[:2]) for request in job.requests
    ]
    result, statuses = Result(), Counter[str]()
    begun = 0
    connections = [_Http() if job.protocol == HTTP else _FastCgi() for _ in range(job.clients)]
    if job.protocol == HTTP:
        # a connection's first request would also time its making
        for connection in connections:
            assert isinstance(connection, _Http)
            await asyncio.get_running_loop().create_connection(
                lambda connection=connection: connection,  # type: ignore[misc]
                "127.0.0.1",
                int(job.address),
            )
    start = time.perf_counter()

    async def client(connection: _Http | _FastCgi) -> None:
        nonlocal begun
        while begun < job.limit and (now := time.perf_counter()) - start < job.seconds:
            message = messages[begun % len(messages)]
            begun += 1
            status, body = await connection.ask(job.address, message)
            result.latencies.append((time.perf_counter() - now) * 1000)
            statuses[str(status)] += 1
            result.received += len(body)
            if job.keep:
                result.bodies.append(body.decode("latin-1"))

    await asyncio.gather(*(client(connection) for connection in connections))
    result.wall = time.perf_counter() - start
    result.statuses = dict(statuses)
    for connection in connections:
        if isinstance(connection, _Http) and connection.transport is not None:
            connection.transport.close()
    return result


def main() -> None:
    """Carry out jobs until stdin ends."""
    for line in sys.stdin:
        document = json.loads(line)
        requests = [(str(method), str(target), str(body)) for method, target, body in document.pop("requests")]
        try:
            answer = asdict(asyncio.run(load(Job(requests=requests, **document))))
        except (OSError, asyncio.IncompleteReadError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
