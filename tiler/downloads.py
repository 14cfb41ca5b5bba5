"""The stored objects of a version - COG files and Zarr arrays - for clients that the store itself does not let in."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from services.core import layout
from services.core.errors import NotFound
from services.core.store import Store
from tiler.answer import IMMUTABLE, describe
from tiler.catalogue import Served
from tiler.documents import collection_url
from tiler.errors import NotModified
from tiler.memory import need
from tiler.request import INSTANCE, FromPath
from tiler.state import State, state_of

PIECE_BYTES = 4 * 2**20
"""Read from the store at a time."""

HEAD_KEY = "cenote.is_head"
"""Where a scope says that a HEAD is answered as a GET whose body is thrown away: then nothing has to be read."""

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

_MEDIA_TYPES = {
    ".json": "application/json",
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """Bytes of an object."""

    start: int
    length: int


def router(state: State) -> APIRouter:  # noqa: ARG001 - every router of the app is made from the state
    """``assets/{path}`` of named versions; what lies there never changes."""
    routes = APIRouter(tags=["STAC"])
    routes.add_api_route(
        f"{INSTANCE}/assets/{{path:path}}", asset, methods=["GET"], response_class=Response, operation_id="asset"
    )
    return routes


def asset_url(request: Request, served: Served, key: str) -> str:
    """Address of an object, or of a Zarr group, from its storage key."""
    path = key.removeprefix(f"{served.id}/")
    return f"{collection_url(request, served.id, served.version)}/assets/{path}"


def asset(request: Request, served: FromPath, path: str) -> Response:
    """An object of one of the version's segments, as `segments/{segment}/{path}`; one byte range may be asked for."""
    key, size, sha256 = find(served, path)
    describe(request, served, parts=[key])
    tag = f'"{sha256}"'
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": IMMUTABLE,
        "Content-Type": _MEDIA_TYPES.get(path[path.rfind(".") :], "application/octet-stream"),
    }
    # what describe set holds the address; the content's own digest is the better tag
    set_headers(request, headers)
    if tag in request.headers.get("if-none-match", ""):
        raise NotModified(HTTPStatus.NOT_MODIFIED.phrase)
    part = Part(start=0, length=size)
    status = HTTPStatus.OK
    if request.headers.get("if-range", tag) == tag:
        asked = byte_range(request.headers.get("range", ""), size)
        if asked is not None:
            part, status = asked, HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {part.start}-{part.start + part.length - 1}/{size}"
    headers["Content-Length"] = str(part.length)
    if request.scope.get(HEAD_KEY):
        return Response(status_code=status, headers=headers)
    need(2 * min(PIECE_BYTES, part.length))
    pieces = _pieces(state_of(request).store, key, part)
    first = next(pieces, b"")  # read before the status is sent, so that an object that is missing is told as an error
    return StreamingResponse(chain([first], pieces), status_code=status, headers=headers)


def find(served: Served, path: str) -> tuple[str, int, str]:
    """Key, size and sha256 of an object that a sealed segment of the version lists.

    Raises:
        NotFound: if it lists none such; whatever else the store holds is not served.
    """
    head, _, rest = path.partition("/")
    name, _, inside = rest.partition("/")
    version = served.dataset.version
    if head == "segments" and name in version.segments:
        entry = served.dataset.segment(name).objects.get(inside)
        if entry is not None:
            return f"{layout.segment_prefix(served.id, name)}{inside}", int(entry["size"]), str(entry["sha256"])
    raise NotFound(f"version {served.version} of collection {served.id!r} has no file {path[:200]!r}")


def byte_range(header: str, size: int) -> Part | None:
    """The one range of a Range header; None where it has none or several, which are answered whole (RFC 9110 14.2).

    Raises:
        HTTPException: 416 if it begins behind the end.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        start = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        if match[2] and int(match[2]) < start:
            return None
    else:
        start, last = max(size - int(match[2]), 0), size - 1
    if start >= size or last < start:
        raise HTTPException(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"the file has {size} bytes, so there is no range {header}",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return Part(start=start, length=last - start + 1)


def set_headers(request: Request, headers: dict[str, str]) -> None:
    """Put headers in the place of those that ``describe`` set."""
    described = request.scope["cenote.headers"]
    for name in ("ETag", "Cache-Control"):
        described[name] = headers[name]


def _pieces(store: Store, key: str, part: Part) -> Iterator[bytes]:
    end = part.start + part.length
    for start in range(part.start, end, PIECE_BYTES):
        yield store.get_range(key, start, min(PIECE_BYTES, end - start))
