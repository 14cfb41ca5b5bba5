"""The map page: one HTML document, and its scripts, styles and coastlines, all from this origin."""

import gzip
import hashlib
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from services.core.errors import QueryError
from tiler import stac
from tiler.accept import accepts_gzip, prefers_html
from tiler.answer import IMMUTABLE, REVALIDATED
from tiler.parameters import OPEN
from tiler.state import State

STATIC = Path(__file__).with_name("static")

MEDIA_TYPES = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".mjs": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }
)
"""What is served; other files beside them (licences, the page's own template) are not."""

LIBRARIES = (
    "vendor/maplibre-gl/maplibre-gl.mjs",
    "vendor/maplibre-gl/maplibre-gl-worker.mjs",
    "vendor/maplibre-gl/maplibre-gl.css",
    "vendor/topojson-client/topojson-client.min.js",
    "vendor/uplot/uPlot.esm.js",
    "vendor/uplot/uPlot.min.css",
    "vendor/world-atlas/countries-50m.json",
)
"""What ``make assets`` vendors and the page cannot do without."""

POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "worker-src 'self'",
    "img-src 'self' data: blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
)
"""Nothing inline and nothing from elsewhere: a title that holds markup can do nothing, whatever the scripts do."""

SECURITY = MappingProxyType(
    {
        "Content-Security-Policy": "; ".join(POLICY),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
)

_DIGEST_LENGTH = 16
_DIGEST = re.compile(rf"[0-9a-f]{{{_DIGEST_LENGTH}}}/")
_SMALL = 1024
"""Bytes below which compressing saves nothing."""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A file of the page, in memory."""

    media_type: str
    body: bytes

    @cached_property
    def digest(self) -> str:
        """First digits of the content's sha256."""
        return hashlib.sha256(self.body).hexdigest()[:32]

    @cached_property
    def compressed(self) -> bytes | None:
        """The content in gzip; None where that is no smaller. The same bytes in every process."""
        if len(self.body) < _SMALL:
            return None
        packed = gzip.compress(self.body, compresslevel=9, mtime=0)
        return packed if len(packed) < len(self.body) else None


@dataclass(frozen=True, kw_only=True)
class Site:
    """All files of the page."""

    assets: Mapping[str, Asset]
    """By path below ``static/``."""

    template: str
    """The page, with ``{{root}}``, ``{{static}}`` and ``{{collection}}`` to be filled in."""

    @cached_property
    def digest(self) -> str:
        """Digest of all files: the page's addresses hold it, so that whatever lies under one never changes."""
        whole = hashlib.sha256(self.template.encode())
        for path, asset in sorted(self.assets.items()):
            whole.update(f"{path} {asset.digest}\n".encode())
        return whole.hexdigest()[:_DIGEST_LENGTH]

    @property
    def missing(self) -> list[str]:
        """Libraries that were not vendored."""
        return [path for path in LIBRARIES if path not in self.assets]

    def page(self, root: str, collection: str) -> bytes:
        """The page of one collection, or of the first one where the id is empty.

        Args:
            root: path under which the app is reached (ASGI root_path), without a slash at its end.
            collection: id of the collection to open.
        """
        values = {"root": root, "static": f"{root}/static/{self.digest}", "collection": collection}
        return re.sub(r"\{\{(\w+)\}\}", lambda name: html.escape(values[name[1]]), self.template).encode()


@cache
def site() -> Site:
    """The files of the page, read once in each process."""
    return read_site(STATIC)


def read_site(folder: Path) -> Site:
    """The files below a folder."""
    assets = {}
    for path in sorted(folder.rglob("*")):
        media_type = MEDIA_TYPES.get(path.suffix)
        if media_type is not None and path.is_file():
            assets[path.relative_to(folder).as_posix()] = Asset(media_type=media_type, body=path.read_bytes())
    return Site(assets=MappingProxyType(assets), template=(folder / "index.html").read_text(encoding="utf-8"))


def router(state: State) -> APIRouter:  # noqa: ARG001 - every router of the app is made from the state
    """The routes of the page: ``/``, ``/map``, ``/map/{collection_id}`` and ``/static/...``."""
    routes = APIRouter(include_in_schema=False)
    # Any parameter goes: links are decorated on their way (utm_source=...), and MapLibre asks for its worker with ?v=.
    for path, endpoint in (
        ("/", home),
        ("/map", map_page),
        ("/map/{collection_id}", map_page),
        ("/static/{path:path}", static),
    ):
        routes.add_api_route(path, endpoint, methods=["GET"], response_class=Response, openapi_extra=OPEN)
    return routes


def home(request: Request) -> Response:
    """The page for browsers, the landing document of the API for all others; ``f=html`` and ``f=json`` decide too."""
    asked = request.query_params.get("f")
    if asked not in {None, "html", "json"}:
        raise QueryError(
            f"f={asked} is not an encoding of this page: f=html is the map, f=json the API's landing document"
        )
    if asked == "html" or (asked is None and prefers_html(request.headers.get("accept", ""))):
        answer = map_page(request)
    else:
        answer = stac.landing(request)
    answer.headers.add_vary_header("Accept")
    return answer


def map_page(request: Request) -> Response:
    """The page, opened on the collection that the path names.

    Whether there is such a collection is what the page asks the API, as it does for one that is chosen in it.
    """
    files = site()
    if files.missing:
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"the map page's libraries are not installed ({files.missing[0]} is missing): run `make assets`",
        )
    root = request.scope.get("root_path", "").rstrip("/")
    body = files.page(root, request.path_params.get("collection_id", ""))
    headers = {**SECURITY, "Cache-Control": REVALIDATED}
    return _tagged(request, body, "text/html; charset=utf-8", hashlib.sha256(body).hexdigest()[:32], headers)


def static(request: Request, path: str) -> Response:
    """A file of the page; for ever under an address that holds the digest, else to be asked for again.

    A digest of another release is answered with the file of this one: while servers are replaced one by one, a page
    that the new one sent may ask the old one for its scripts.
    """
    files = site()
    is_current = path.startswith(f"{files.digest}/")
    name = path[_DIGEST_LENGTH + 1 :] if _DIGEST.match(path) else path
    asset = files.assets.get(name)
    if asset is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no file {PurePosixPath(name).name!r} of the map page")
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": IMMUTABLE if is_current else REVALIDATED,
        "Vary": "Accept-Encoding",
    }
    packed = asset.compressed if accepts_gzip(request.headers.get("accept-encoding", "")) else None
    if packed is None:
        return _tagged(request, asset.body, asset.media_type, asset.digest, headers)
    headers["Content-Encoding"] = "gzip"
    return _tagged(request, packed, asset.media_type, f"{asset.digest}-gzip", headers)


def _tagged(request: Request, body: bytes, media_type: str, tag: str, headers: dict[str, str]) -> Response:
    """The answer with its strong ETag, or 304 for who holds it."""
    etag = f'"{tag}"'
    known = {name.strip().removeprefix("W/") for name in request.headers.get("if-none-match", "").split(",")}
    if etag in known or "*" in known:
        kept = {name: value for name, value in headers.items() if name != "Content-Encoding"}
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={**kept, "ETag": etag})
    return Response(body, media_type=media_type, headers={**headers, "ETag": etag})
