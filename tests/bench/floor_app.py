"""The least that a Python server can do: an empty answer, and the bytes of a tile from memory. Plain ASGI."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

type Send = Callable[[dict[str, Any]], Awaitable[None]]

TILES = {path.stem: path.read_bytes() for path in Path(os.environ["BENCH_TILES"]).glob("*.png")}


async def app(scope: dict[str, Any], _receive: Any, send: Send) -> None:
    """``/{name}`` answers the bytes of that tile, any other path two bytes."""
    if scope["type"] != "http":
        return
    body = TILES.get(scope["path"][1:], b"ok")
    headers = [(b"content-type", b"image/png"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
