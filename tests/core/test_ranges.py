"""Ranges read by an event loop: from servers that answer in every way but the right one, and over kept connections."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.core.store import ranges
from services.core.store.ranges import NotAnswered, Ranges

BODY = bytes(range(256)) * 40


class Server:
    """Answers each request as ``reply`` says, which is given the range that was asked for."""

    def __init__(self, reply: Callable[[int, int], bytes | None]) -> None:
        self.reply = reply
        self.connections = 0
        self.asked: list[str] = []
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def __call__(self, tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[Ranges]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        scheme = "https" if tls else "http"
        port = server.sockets[0].getsockname()[1]

        def sign(key: str, seconds: int) -> str:
            return f"{scheme}://127.0.0.1:{port}/bucket/{key}?until={seconds}"

        given = {"ca_bundle": None, "connect_seconds": 2.0, "read_seconds": 2.0, **options}
        try:
            yield Ranges(sign, **given)
        finally:
            server.close()
            for writer in self._writers:
                writer.close()
            await asyncio.sleep(0.05)  # until both sides know

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except (asyncio.IncompleteReadError, ConnectionError):
                return  # the client has ended
            self.asked.append(head)
            first, last = head.partition("bytes=")[2].split("\r\n")[0].split("-")
            answer = self.reply(int(first), int(last))
            if answer is None:
                return
            writer.write(answer)
            await writer.drain()
            if b"close" in answer[:200]:
                writer.close()
                return


def said(body: bytes, status: str = "206 Partial Content", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def right(first: int, last: int) -> bytes:
    return said(BODY[first : last + 1])


def run[Answer](of: Callable[[], Awaitable[Answer]]) -> Answer:
    async def main() -> Answer:
        return await of()

    return asyncio.run(main())


def test_one_connection_answers_one_after_the_other_and_several_at_once() -> None:
    server = Server(right)

    async def reads() -> None:
        async with server() as found:
            for start in (0, 7, 300):
                assert await found.read("a/b", start, 1000) == BODY[start : start + 1000]
            assert server.connections == 1
            many = await asyncio.gather(*(found.read(f"c/{n}", n, 10 + n) for n in range(8)))
            assert many == [BODY[n : n + 10 + n] for n in range(8)]
            assert server.connections == 8
            await asyncio.gather(*(found.read(f"c/{n}", n, 10 + n) for n in range(8)))
            assert server.connections == 8

    run(reads)
    assert server.asked[0].startswith("GET /bucket/a/b?until=3600 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert "Range: bytes=7-1006\r\n" in server.asked[1]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (lambda *_: said(BODY, "200 OK"), "more than was asked|answered 200"),
        (lambda *_: said(b"short", "200 OK"), "answered 200"),
        (lambda *_: said(b"<Error/>", "403 Forbidden"), "answered 403"),
        (lambda *_: said(b"", "404 Not Found"), "answered 404"),
        (lambda *_: said(b"", "503 Slow Down", "Connection: close\r\n"), "answered 503"),
        (lambda first, last: said(BODY[first : last + 2]), "more than was asked"),
        (lambda first, last: right(first, last)[:-3], "in time"),
        (lambda *_: said(b"half", more="close: x\r\n").replace(b"Length: 4", b"Length: 10"), "broke off"),
        (lambda *_: b"nonsense\r\n\r\n", "no way of HTTP"),
        (lambda *_: None, "in time"),
    ],
    ids=["whole", "200", "403", "404", "503", "more", "less", "broken off", "no HTTP", "silence"],
)
def test_another_answer_is_a_fault_and_the_next_one_begins_anew(
    reply: Callable[[int, int], bytes | None], words: str
) -> None:
    server = Server(reply)

    async def reads() -> None:
        async with server(read_seconds=0.3) as found:
            with pytest.raises(NotAnswered, match=words):
                await found.read("a/b", 5, 100)
            server.reply = right
            assert await found.read("a/b", 5, 100) == BODY[5:105]

    run(reads)
    assert server.connections == 2


def test_a_range_that_passes_the_end_comes_short() -> None:
    async def reads() -> bytes:
        async with Server(right)() as found:
            return await found.read("a/b", len(BODY) - 4, 10)

    assert run(reads) == BODY[-4:]


def test_connections_that_the_server_closes_are_not_used_again() -> None:
    server = Server(lambda first, last: said(BODY[first : last + 1], more="Connection: close\r\n"))

    async def reads() -> None:
        async with server() as found:
            for _ in range(3):
                assert await found.read("a/b", 5, 100) == BODY[5:105]
                await asyncio.sleep(0.01)

    run(reads)
    assert server.connections == 3


def test_nobody_is_at_the_address() -> None:
    async def reads() -> None:
        async with Server(right)() as found:
            pass
        await found.read("a/b", 0, 1)

    with pytest.raises(OSError, match=r"(?i)connect"):
        run(reads)


def test_a_private_authority_is_trusted_where_it_is_named(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=store"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def reads(ca_bundle: Path | None) -> bytes:
        async with Server(right)(context, ca_bundle=ca_bundle) as found:
            return await found.read("a/b", 5, 100)

    assert run(lambda: reads(certificate)) == BODY[5:105]
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        run(lambda: reads(None))


def test_who_stops_waiting_leaves_the_connection_to_others() -> None:
    server = Server(right)

    async def reads() -> None:
        async with server() as found:
            await found.read("a/b", 0, 10)
            task = asyncio.create_task(found.read("a/b", 0, 1000))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0.1)
            assert await found.read("a/b", 3, 10) == BODY[3:13]

    run(reads)
    assert server.connections == 1


def test_addresses_are_signed_anew_in_time_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "MOST_SIGNED", 2)
    signed: list[str] = []

    async def reads() -> None:
        async with Server(right)() as found:
            inner = found._sign

            def noted(key: str, seconds: int) -> str:
                signed.append(key)
                return inner(key, seconds)

            found._sign = noted
            for key in ("a", "b", "a", "c", "a", "b"):
                await found.read(key, 0, 1)
            assert signed == ["a", "b", "c", "b"], "the least recently used one goes"
            found._head("b", asyncio.get_running_loop().time() + ranges.SIGNED_SECONDS / 2)
            assert signed[-2:] == ["b", "b"]

    run(reads)
