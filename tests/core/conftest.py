"""A proxy that does to S3 traffic what networks and overloaded servers do."""

import http.client
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, override
from urllib.parse import urlsplit

import pytest

REFUSALS = {
    "503": (503, "SlowDown"),
    "500": (500, "InternalError"),
    "403": (403, "AccessDenied"),
    "404": (404, "NoSuchKey"),
    "409": (409, "ConditionalRequestConflict"),
}
FAULTS = {*REFUSALS, "reset", "stall", "truncate", "stall-body", "lost", "trickle", "flip", "flip-sent", "pass"}


class FaultProxy(ThreadingHTTPServer):
    """Forward requests to an S3 server, but for those that a fault is planned for.

    Faults: an HTTP status; ``reset`` before anything was done; ``stall`` for ever; ``truncate`` and ``stall-body`` in
    the middle of the answer's body, or ``trickle`` through it byte by byte; ``lost`` (done, but the connection is reset
    instead of the answer); ``flip`` a bit of the answer's body or, ``flip-sent``, of the request's; ``pass`` is none.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.requests: list[str] = []
        self.planned: deque[str] = deque()
        self.always: str | None = None
        self.closing = threading.Event()

    def plan(self, *faults: str, always: str | None = None) -> None:
        """Let the next requests meet these faults, one each, and all later ones ``always`` (None: pass)."""
        assert FAULTS.issuperset({*faults, always or "503"})
        self.requests.clear()
        self.planned = deque(faults)
        self.always = always

    def next_fault(self, request: str) -> str | None:
        self.requests.append(request)
        return self.planned.popleft() if self.planned else self.always

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: connections that break are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    server: FaultProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def forward(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.next_fault(f"{self.command} {urlsplit(self.path).path}")
        if fault in REFUSALS:
            status, code = REFUSALS[fault]
            self.answer(status, [("Content-Type", "application/xml")], f"<Error><Code>{code}</Code></Error>".encode())
            return
        if fault == "reset":
            self.reset()
            return
        if fault == "stall":
            self.server.closing.wait()
            return
        if fault == "flip-sent":
            sent = flipped(sent)
        status, headers, body = self.ask_upstream(sent)
        if fault == "lost":
            self.reset()
        elif fault in {"truncate", "stall-body"}:
            self.answer(status, headers, body, len(body) // 2)
            if fault == "stall-body":
                self.server.closing.wait()
            self.reset()
        elif fault == "trickle":
            self.answer(status, headers, body, 0)
            for byte in body:
                if self.server.closing.wait(0.1):
                    break
                self.wfile.write(bytes([byte]))
        else:
            self.answer(status, headers, flipped(body) if fault == "flip" else body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward  # noqa: N815 - the names that http.server calls

    def ask_upstream(self, sent: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(sent or None)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes, end: int | None = None) -> None:
        self.send_response_only(status)
        lengths = {"content-length", "transfer-encoding", "connection"}
        if self.command == "HEAD":
            lengths.discard("content-length")
        else:
            headers = [*headers, ("content-length ", str(len(body)))]
        for name, value in headers:
            if name.lower() not in lengths:
                self.send_header(name.strip(), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:end])
        self.wfile.flush()

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def flipped(body: bytes) -> bytes:
    """Flip one bit in the middle."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body


@pytest.fixture
def fault_proxy() -> Iterator[Callable[[str], FaultProxy]]:
    """Start a proxy before an S3 server's endpoint."""
    started: list[tuple[FaultProxy, threading.Thread]] = []

    def start(upstream: str) -> FaultProxy:
        proxy = FaultProxy(upstream)
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        started.append((proxy, thread))
        return proxy

    yield start
    for proxy, thread in started:
        proxy.closing.set()
        proxy.shutdown()
        proxy.server_close()
        thread.join(timeout=5)
