"""The head of an answer and its body reach a client together."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from tests.tiler.test_server import published, running
from tiler.joined import MOST_JOINED, Joined, JoinedProtocol

__all__ = ["published"]

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Sent(asyncio.Transport):
    """Notes what it is to do."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.done: list[bytes | str] = []

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.done.append(data)

    def close(self) -> None:
        self.done.append("closed")

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:  # noqa: ARG002
        self.done.append("handed over")


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ([HEAD, b"body"], [HEAD + b"body"]),
        ([HEAD, b"body", b"more", HEAD, b"body"], [HEAD + b"body", b"more", HEAD + b"body"]),
        ([HEAD, b"b" * MOST_JOINED], [HEAD + b"b" * MOST_JOINED]),
        ([HEAD, b"b" * (MOST_JOINED + 1)], [HEAD, b"b" * (MOST_JOINED + 1)]),
        ([HEAD, HEAD, HEAD], [HEAD + HEAD, HEAD]),
        ([HEAD, b"", b"body"], [HEAD, b"body"]),
        ([HEAD], [HEAD]),
    ],
)
def test_a_head_goes_with_what_follows_it(written: list[bytes], sent: list[bytes]) -> None:
    async def write() -> list[bytes | str]:
        under = Sent()
        joined = Joined(under)
        for data in written:
            joined.write(data)
        await asyncio.sleep(0)
        return under.done

    assert asyncio.run(write()) == sent


def test_no_head_is_lost_where_nothing_follows() -> None:
    async def end() -> list[bytes | str]:
        under = Sent()
        joined = Joined(under)
        joined.write(HEAD)
        joined.set_protocol(asyncio.Protocol())
        joined.write(HEAD)
        joined.close()
        await asyncio.sleep(0)
        assert joined.get_extra_info("peername") == ("127.0.0.1", 1)
        return under.done

    assert asyncio.run(end()) == [HEAD, "handed over", HEAD, "closed"]


def test_a_client_that_closes_its_half_has_its_head() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"body"})

    async def ask() -> list[bytes]:
        config = uvicorn.Config(app, http=JoinedProtocol, lifespan="off", log_config=None)
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: JoinedProtocol(config, state, {}), "127.0.0.1", 0)
        answers = []
        for _ in range(20):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
            writer.write_eof()
            answers.append(await reader.read())
            writer.close()
        server.close()
        return answers

    assert all(answer.startswith(b"HTTP/1.1 200") for answer in asyncio.run(ask()))


@pytest.mark.slow
def test_the_server_answers_in_one_piece(tmp_path: Path, published: str) -> None:
    target = "/collections/demo/position?coords=POINT(1%201)"
    with (
        running(tmp_path, published, 1) as (_, url),
        socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as client,
    ):
        for method in ["GET"] * 30 + ["HEAD"]:
            client.sendall(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head, _, body = client.recv(2**20).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert body.endswith(b"}") if method == "GET" else not body
