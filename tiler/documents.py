"""JSON documents and the addresses in them."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import Query, Request
from pydantic_core import to_json
from starlette.responses import Response

from services.core import layout, stac
from tiler.answer import SCOPE_KEY, is_held
from tiler.catalogue import Served
from tiler.errors import NotModified

type Json = Annotated[Literal["json"] | None, Query(alias="f", description="Encoding: json.")]

JSON = "application/json"
GEOJSON = "application/geo+json"


def json_response(request: Request, document: stac.Document, media_type: str = JSON) -> Response:
    """A document with an ETag of its own content, for those that no single version makes.

    Raises:
        NotModified: if the client holds it.
    """
    body = to_json(document)
    if request.method == "GET":
        tag_content(request, f'"{layout.digest(body)[:32]}"')
    return Response(body, media_type=media_type)


def tag_content(request: Request, tag: str) -> None:
    """Set the ETag of an answer that no single version makes.

    Raises:
        NotModified: if the client holds it.
    """
    request.scope[SCOPE_KEY]["ETag"] = tag
    if is_held(tag, request.headers.get("if-none-match", "")):
        raise NotModified(HTTPStatus.NOT_MODIFIED.phrase)


def plain_json(document: stac.Document, media_type: str = JSON) -> Response:
    """A document whose tag ``describe`` has set."""
    return Response(to_json(document), media_type=media_type)


def root_of(request: Request) -> str:
    """Address of the service as the client sees it, without a slash at its end."""
    return str(request.base_url).rstrip("/")


def collection_url(request: Request, collection: str, version: str | None = None) -> str:
    """Address of a collection, or of a version of it."""
    address = f"{root_of(request)}/collections/{quote(collection, safe='')}"
    return address if version is None else f"{address}/instances/{quote(version, safe='')}"


def address_of(request: Request, served: Served) -> str:
    """Address of the collection or version that the request's own path names."""
    return collection_url(request, served.id, request.path_params.get("version"))


def link(rel: str, href: str, media_type: str = JSON, title: str | None = None, **more: Any) -> stac.Link:
    """One link."""
    return {"rel": rel, "href": href, "type": media_type, **({"title": title} if title else {}), **more}


def ends(request: Request, href: str, media_type: str = JSON) -> Iterable[stac.Link]:
    """The links that every document has: itself and the root."""
    return (link("self", href, media_type), link("root", f"{root_of(request)}/"))
