"""What every answer says of itself: the version it is made of, its strong ETag, and how long it may be kept."""

import importlib.metadata
from collections.abc import Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, Literal

from fastapi import Request

from services.core import layout
from services.core.catalog import Version
from services.core.quantity import Quantity
from tiler.catalogue import Served
from tiler.errors import NotModified

type Source = Literal["maps", "series"]

SCOPE_KEY = "cenote.headers"
"""Where an ASGI scope keeps the headers of its answer until they are sent (tiler/envelope.py)."""

VERSION = "Cenote-Version"
COLLECTION = "Cenote-Collection"
PERIOD = "Cenote-Period"
MODEL = "Cenote-Model"
STALE = "Cenote-Stale"
SYNTHETIC = "Cenote-Synthetic"
ANSWER_HEADERS = (VERSION, COLLECTION, PERIOD, MODEL, STALE, SYNTHETIC)

IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATED = "public, max-age=0, must-revalidate"

MANY_PERIODS = 4096
"""Above so many periods the tag holds the version instead of each of them."""


def describe(
    request: Request,
    served: Served,
    *,
    source: Source | None = None,
    quantities: Sequence[Quantity] = (),
    positions: Sequence[int] | range = (),
    names_version: bool = False,
    parts: Sequence[Any] = (),
) -> None:
    """Set the headers of the answer, and end the request if the client already holds it.

    Call it as soon as it is known what the answer is made of, before anything is read. It may be called once more with
    more in it; the last call counts.

    Args:
        request: the request, whose path and query are part of the tag.
        served: the version that answers.
        source: layout the values come from; None where the body holds no values.
        quantities: what it shows.
        positions: of which periods.
        names_version: whether the body names the version or this server's address, so that another version's is
            another answer even where the values are equal.
        parts: JSON data of whatever else the body depends on.

    Raises:
        NotModified: if the client named the tag; nothing has been read then.
    """
    headers: dict[str, str] = request.scope.setdefault(SCOPE_KEY, {})
    headers |= said_of(served, source, positions)
    if request.method not in {"GET", "HEAD"}:
        headers["Cache-Control"] = "no-store"
        return
    named = request.path_params.get("version")
    path = request.url.path if named is None else request.url.path.replace(f"/instances/{named}", "", 1)
    tag = tag_of(
        content_of(served, source, quantities, positions, parts),
        path,
        query_key(request.query_params.multi_items()),
        layout.canonical([served.version, str(request.base_url), request.headers.get("accept", "")])
        if names_version
        else b"",
    )
    headers["ETag"] = tag
    headers["Cache-Control"] = REVALIDATED if named is None else IMMUTABLE
    if is_held(tag, request.headers.get("if-none-match", "")):
        raise NotModified(HTTPStatus.NOT_MODIFIED.phrase)


def said_of(served: Served, source: Source | None, positions: Sequence[int] | range) -> dict[str, str]:
    """The headers that say what an answer is made of; arguments are those of ``describe``."""
    version = served.dataset.version
    headers = {COLLECTION: served.id, VERSION: served.version}
    if served.is_stale:
        headers[STALE] = "1"
    if served.dataset.product.synthetic:
        headers[SYNTHETIC] = "1"
    if len(positions):
        first, last = version.time.ids[positions[0]], version.time.ids[positions[-1]]
        headers[PERIOD] = first if len(positions) == 1 else f"{first}/{last}"
        if models := models_of(version, _segments(served, source, positions)):
            headers[MODEL] = models
    return headers


def content_of(
    served: Served,
    source: Source | None,
    quantities: Sequence[Quantity],
    positions: Sequence[int] | range,
    parts: Sequence[Any],
) -> str:
    """Digest of what an answer is made of, but for what is asked of it; arguments are those of ``describe``."""
    version = served.dataset.version
    content: list[Any] = [
        encoder(),
        [quantity_key(quantity) for quantity in quantities],
        [version.segments[segment] for segment in _segments(served, source, positions)],
        _periods(served, positions),
        list(parts),
    ]
    if source is not None:
        content.append(str(served.dataset.product.grid))
    return layout.digest(layout.canonical(content))


def query_key(items: Sequence[tuple[str, str]]) -> bytes:
    """The parameters of a query, whatever their order, for ``tag_of``."""
    return layout.canonical(sorted(items))


def tag_of(content: str, path: str, query: bytes, more: bytes = b"") -> str:
    """The strong ETag of an answer.

    Args:
        content: what it is made of (``content_of``).
        path: of the request, without the version.
        query: of the request (``query_key``).
        more: JSON of what else its body depends on.
    """
    # JSON has no line breaks of its own, so that no path can pass for another path and query
    return f'"{layout.digest(b"\n".join((content.encode(), path.encode(), query, more)))[:32]}"'


def is_held(tag: str, header: str) -> bool:
    """Whether an If-None-Match names a tag, compared weakly as RFC 9110 13.1.2 asks."""
    return tag in header and tag in {held.strip().removeprefix("W/") for held in header.split(",")}


@cache
def encoder() -> str:
    """What turns values into bytes: other releases may draw the same values otherwise."""
    names = ("cenote", "titiler-core", "rio-tiler", "rasterio", "pillow", "isal", "numpy")
    return " ".join(f"{name}/{importlib.metadata.version(name)}" for name in names)


def quantity_key(quantity: Quantity) -> list[Any]:
    """What an answer depends on of a quantity's declaration, as JSON data."""
    return [repr(value) for value in quantity.__dict__.values()]


def models_of(version: Version, segments: Sequence[str]) -> str:
    """Names and digests of the models that made these segments, such as ``xco2@0a1b2c3d4e5f``; empty if none did."""
    found: dict[str, str] = {}
    left, seen = list(segments), set[str]()
    while left:
        segment = left.pop()
        entry = version.provenance.get(segment)
        if segment in seen or not isinstance(entry, dict):
            continue
        seen.add(segment)
        found.update({name: str(digest) for name, digest in (entry.get("models") or {}).items()})
        left += list(entry.get("copied") or {})  # what was copied is still what a model made elsewhere
    return ", ".join(f"{name}@{digest[:12]}" for name, digest in sorted(found.items()))


def _segments(served: Served, source: Source | None, positions: Sequence[int] | range) -> tuple[str, ...]:
    if source is None:
        return ()
    if source == "series":
        return served.dataset.series_segments(positions)
    return tuple(sorted({served.dataset.map_segment(position) for position in positions}))


def _periods(served: Served, positions: Sequence[int] | range) -> list[Any]:
    if len(positions) > MANY_PERIODS:
        return [served.version, positions[0], positions[-1], len(positions)]
    starts = served.dataset.time.starts
    return [str(served.dataset.time.step), *(starts[position] for position in positions)]
