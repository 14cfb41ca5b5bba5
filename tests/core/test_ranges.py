"""Ranges read by an event loop: from servers that answer in every way but the right one, and over kept connections."""

import asyncio
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from services.core.store import ranges
from services.core.store.ranges import NotAnswered, Ranges

BODY = bytes(range(256)) * 40


class Server:
    """Answers each request as ``reply`` says, which is given the range that was asked for."""

    def __init__(self, reply: Callable[[int, int], bytes | None]) -> None:
        self.reply = reply
        self.connections = self.ended = 0
        self.pause = 0.0
        self.asked: list[str] = []
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def __call__(self, tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[Ranges]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        scheme = "https" if tls else "http"
        port = server.sockets[0].getsockname()[1]

        def sign(keys: Sequence[str], seconds: int) -> list[str]:
            return [f"{scheme}://127.0.0.1:{port}/bucket/{key}?until={seconds}" for key in keys]

        given = {"ca_bundle": None, "connect_seconds": 2.0, "read_seconds": 2.0, **options}
        try:
            yield Ranges("the store", sign, **given)
        finally:
            server.close()
            for writer in self._writers:
                writer.close()
            await asyncio.sleep(0.05)  # until both sides know

    def send(self, data: bytes) -> None:
        """Send what nobody asked for to all."""
        for writer in self._writers:
            writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except (asyncio.IncompleteReadError, ConnectionError):
                self.ended += 1  # by the client
                return
            self.asked.append(head)
            first, last = head.partition("bytes=")[2].split("\r\n")[0].split("-")
            answer = self.reply(int(first), int(last))
            if answer is None:
                continue
            await asyncio.sleep(self.pause)
            writer.write(answer)
            await writer.drain()
            if b"close: x" in answer[:200]:
                writer.close()
                return


def said(body: bytes, status: str = "206 Partial Content", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def right(first: int, last: int) -> bytes:
    return said(BODY[first : last + 1])


_factory: list[Callable[[], asyncio.AbstractEventLoop]] = []


@pytest.fixture(params=["asyncio", "uvloop"], autouse=True)
def _loops(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test with the loop of tests and with the one of servers."""
    _factory[:] = [uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop]
    yield
    _factory.clear()


def run[Answer](of: Callable[[], Awaitable[Answer]]) -> Answer:
    async def main() -> Answer:
        return await of()

    with asyncio.Runner(loop_factory=_factory[0]) as runner:
        return runner.run(main())


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
        (lambda *_: said(BODY, "200 OK"), "answered 200"),
        (lambda *_: said(b"short", "200 OK"), "answered 200"),
        (lambda *_: said(b"<Error/>", "403 Forbidden"), "answered 403"),
        (lambda *_: said(b"", "404 Not Found"), "answered 404"),
        (lambda *_: said(b"", "503 Slow Down", "Connection: close\r\n"), "answered 503"),
        (lambda first, last: said(BODY[first : last + 2]), "more than was asked"),
        (lambda first, last: right(first, last)[:-3], "in time"),
        (lambda *_: said(b"half", more="close: x\r\n").replace(b"Length: 4", b"Length: 10"), "broke off"),
        (lambda first, last: right(first, last) + said(b"another"), "more than was asked"),
        (lambda first, last: right(first, last) + b"HTTP/1.1 206 x\r\nContent-Length: 5\r\n\r\n", "nobody asked for"),
        (lambda *_: said(BODY[:100], more="Content-Range: bytes 0-99/10240\r\n"), "another range"),
        (lambda *_: b"nonsense\r\n\r\n", "no way of HTTP"),
        (lambda *_: None, "in time"),
    ],
    ids=[
        "whole",
        "200",
        "403",
        "404",
        "503",
        "more",
        "less",
        "broken off",
        "two",
        "the head of another",
        "another range",
        "no HTTP",
        "silence",
    ],
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


def test_the_range_that_an_answer_names_is_the_one_that_was_asked_for() -> None:
    server = Server(
        lambda first, last: said(BODY[first : last + 1], more=f"Content-Range: bytes {first}-{last}/10240\r\n")
    )

    async def reads() -> bytes:
        async with server() as found:
            return await found.read("a/b", 20, 5)

    assert run(reads) == BODY[20:25]


def test_after_failures_in_a_row_nothing_is_tried_for_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ranges, "REST_SECONDS", 0.3)
    server = Server(lambda *_: said(b"<Error/>", "403 Forbidden"))

    async def reads() -> None:
        async with server() as found:
            for _ in range(2):
                for _ in range(2):
                    with pytest.raises(NotAnswered, match="403"):
                        await found.read("a/b", 5, 100)
                server.reply = right
                assert await found.read("a/b", 5, 100) == BODY[5:105], "two are no row"
                server.reply = lambda *_: said(b"<Error/>", "403 Forbidden")
            assert not caplog.records
            for _ in range(3):
                with pytest.raises(NotAnswered, match="403"):
                    await found.read("a/b", 5, 100)
            asked = len(server.asked)
            with pytest.raises(NotAnswered, match="threads read"):
                await found.read("a/b", 5, 100)
            assert len(server.asked) == asked
            await asyncio.sleep(0.4)
            server.reply = right
            assert await found.read("a/b", 5, 100) == BODY[5:105]

    run(reads)
    (one,) = caplog.records
    assert "the store: threads read" in one.getMessage()
    assert "it answered 403" in one.getMessage()


def test_connections_that_waited_long_are_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "IDLE_SECONDS", 0.2)
    server = Server(right)

    async def reads() -> None:
        async with server() as found:
            await asyncio.gather(*(found.read("a/b", n, 10) for n in range(3)))
            await asyncio.sleep(0.3)
            assert await found.read("a/b", 5, 100) == BODY[5:105]
            assert server.connections == 4
            await asyncio.sleep(0.05)
            assert server.ended == 3

    run(reads)


def test_one_that_is_forgotten_costs_one_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "FAULTS_IN_A_ROW", 99)
    server = Server(right)

    async def reads() -> None:
        async with server(read_seconds=0.2) as found:
            await asyncio.gather(*(found.read("a/b", n, 10) for n in range(4)))
            server.reply = lambda *_: None
            with pytest.raises(NotAnswered, match="in time"):
                await found.read("a/b", 5, 100)
            await asyncio.sleep(0.05)
            assert server.ended == 4, "the others may be forgotten too"
            server.reply = right
            assert await found.read("a/b", 5, 100) == BODY[5:105]

    run(reads)


def test_only_so_many_connections_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "MOST_IDLE", 2)
    server = Server(right)

    async def reads() -> None:
        async with server() as found:
            await asyncio.gather(*(found.read("a/b", n, 10) for n in range(5)))
            await asyncio.sleep(0.05)
            assert (server.connections, server.ended) == (5, 3)

    run(reads)


def test_the_wait_for_one_answer_does_not_end_the_next() -> None:
    server = Server(right)

    async def reads() -> None:
        async with server(read_seconds=0.4) as found:
            await found.read("a/b", 0, 10)
            await asyncio.sleep(0.25)
            server.pause = 0.25
            assert await found.read("a/b", 5, 100) == BODY[5:105]

    run(reads)
    assert server.connections == 1


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
    key, certificate, asked, leaf = (tmp_path / f"{name}.pem" for name in ("key", "authority", "asked", "leaf"))
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=none\n")
    # as older tools make them: without the identifier of a key, which Python by itself asks for
    openssl = shutil.which("openssl")
    assert openssl is not None, "keys are made with it"
    for command in (
        f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout {key} -out {certificate}",
        f"req -new -key {key} -subj /CN=store -out {asked}",
        f"x509 -req -in {asked} -CA {certificate} -CAkey {key} -days 2 -extfile {tmp_path / 'names'} -out {leaf}",
    ):
        subprocess.run([openssl, *command.split()], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf, key)

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

    server = Server(right)

    async def reads() -> None:
        async with server() as found:
            inner = found._sign

            def noted(keys: Sequence[str], seconds: int) -> Sequence[str]:
                signed.extend(keys)
                return inner(keys, seconds)

            found._sign = noted
            for key in ("a", "b", "a", "c", "a", "b"):
                await found.read(key, 0, 1)
            assert signed == ["a", "b", "c", "b"], "the least recently used one goes"
            found._head("b", time.monotonic() + ranges.SIGNED_SECONDS / 2)
            assert signed[-2:] == ["b", "b"]
            server.reply = lambda *_: said(b"<Error/>", "403 Forbidden")
            with pytest.raises(NotAnswered):
                await found.read("b", 0, 1)
            server.reply = right
            await found.read("b", 0, 1)
            assert signed[-3:] == ["b", "b", "b"], "what was refused is not used again"

    run(reads)


def test_what_is_expected_is_signed_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    signed: list[list[str]] = []

    async def reads() -> None:
        async with Server(right)() as found:
            inner = found._sign

            def noted(keys: Sequence[str], seconds: int) -> Sequence[str]:
                signed.append(list(keys))
                return inner(keys, seconds)

            found._sign = noted
            found.expect(["a/b", "a/c"])
            assert await found.read("a/c", 5, 100) == BODY[5:105]
            assert signed == [["a/b", "a/c"]], "once, and together"
            found.expect(["a/c", "a/d"])
            assert signed[1:] == [["a/d"]], "what is known is not signed again"
            monkeypatch.setattr(ranges, "MOST_SIGNED", 5)
            found.expect([f"a/{letter}" for letter in "efghi"])
            assert signed[2:] == [["a/e", "a/f"]], "nothing that is known has to go"
            later = time.monotonic() + ranges.SIGNED_SECONDS / 2
            monkeypatch.setattr(ranges, "time", SimpleNamespace(monotonic=lambda: later))
            found.expect(["a/c"])
            assert signed[3:] == [["a/c"]], "unless it is old"
            assert list(found._signed) == ["a/c"], "and what is old makes room"

    run(reads)


def test_who_has_no_time_left_counts_as_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A store that never answers is not asked for ever by requests whose time ends sooner than the wait for it."""
    server = Server(lambda *_: None)

    async def reads() -> None:
        async with server() as found:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await found.read("a/b", 5, 100)
            with pytest.raises(NotAnswered, match="threads read"):
                await found.read("a/b", 5, 100)

    run(reads)
    assert len(server.asked) == 3
    (one,) = caplog.records
    assert "nobody could wait longer" in one.getMessage()


def test_who_stopped_waiting_is_told_nothing_when_the_time_is_over() -> None:
    faults: list[object] = []

    async def reads() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(told))
        async with Server(lambda *_: None)(read_seconds=0.1) as found:
            task = asyncio.create_task(found.read("a/b", 0, 1000))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.sleep(0.2)

    run(reads)
    assert not faults


def test_what_comes_unasked_ends_a_connection() -> None:
    server = Server(right)

    async def reads() -> None:
        async with server() as found:
            await found.read("a/b", 0, 10)
            server.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            await asyncio.sleep(0.05)
            assert await found.read("a/b", 5, 100) == BODY[5:105]

    run(reads)
    assert server.connections == 2


def test_a_loop_that_ends_leaves_no_connection() -> None:
    """An open one would be told of as a ResourceWarning, which fails a test."""
    ended: list[int] = []
    server = Server(right)

    async def reads() -> None:
        async with server() as found:
            await found.read("a/b", 0, 10)
            assert found._end is not None
            await found._end.aclose()  # as the loop does
            await asyncio.sleep(0.05)
            ended.append(server.ended)

    run(reads)
    assert ended == [1]
