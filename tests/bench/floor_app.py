"""The least that a Python server can do: an empty answer, and the bytes of a tile from memory. Plain ASGI."""

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

type Send = Callable[[dict[str, Any]], Awaitable[None]]

FOLDER = Path(os.environ["BENCH_TILES"])
TILES = {path.stem: path.read_bytes() for path in FOLDER.glob("*.png")}
HEADERS = {
    path.stem: [(name.encode(), value.encode()) for name, value in json.loads(path.read_text())]
    for path in FOLDER.glob("*.json")
}
"""Of the answer whose body the tile was, so that the same bytes are sent."""


async def app(scope: dict[str, Any], _receive: Any, send: Send) -> None:
    """``/{name}`` answers the bytes of that tile, any other path two bytes."""
    if scope["type"] != "http":
        return
    name = scope["path"][1:]
    body = TILES.get(name, b"ok")
    headers = HEADERS.get(name) or [(b"content-type", b"image/png"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
