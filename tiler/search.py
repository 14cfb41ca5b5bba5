"""STAC API item search, over all collections and within one, in the address or in a JSON body."""

from collections.abc import Sequence
from typing import Annotated, Any

import shapely
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry
from starlette.responses import Response

from services.core import stac
from services.core.errors import CollectionNotFound, QueryError, RequestTooLarge
from tiler.answer import describe
from tiler.body import Body, read_json
from tiler.catalogue import Served
from tiler.documents import GEOJSON, Json, address_of, collection_url, ends, json_response, link, plain_json, root_of
from tiler.geometry import Box, read_box
from tiler.items import ITEMS_ON_PAGE, MOST_ITEMS, Filter, Page, find, item_document, items_of
from tiler.request import COLLECTION, INSTANCE, FromPath
from tiler.state import State, state_of

type Limit = Annotated[int, Query(ge=1, le=10_000, description=f"Items on a page; {MOST_ITEMS} at most are sent.")]
type Token = Annotated[str | None, Query(description="Where the page begins; from a link with rel=next.")]
type Bbox = Annotated[str | None, Query(description="west,south,east,north; west > east crosses the antimeridian.")]
type When = Annotated[
    str | None, Query(alias="datetime", description="RFC 3339 instant or interval `a/b`; an open end is `..`.")
]


def router(state: State) -> APIRouter:  # noqa: ARG001 - every router of the app is made from the state
    """``/search``, and the items of each collection and version."""
    routes = APIRouter()
    routes.add_api_route("/search", search, methods=["GET"], operation_id="search")
    routes.add_api_route("/search", search_of_body, methods=["POST"], operation_id="searchOfBody")
    for prefix, suffix in ((COLLECTION, ""), (INSTANCE, "OfVersion")):
        for path, route in (("/items", items), ("/items/{item_id}", item)):
            routes.add_api_route(f"{prefix}{path}", route, methods=["GET"], operation_id=f"{route.__name__}{suffix}")
    return routes


def items(
    request: Request,
    served: FromPath,
    limit: Limit = ITEMS_ON_PAGE,
    token: Token = None,
    bbox: Bbox = None,
    datetime: When = None,
    f: Json = None,  # noqa: ARG001
) -> Response:
    """The items of a collection, newest first: one for each span of its COG files, else one for each period."""
    describe(request, served, names_version=True)
    wanted = Filter(box=_box(bbox), datetime=datetime, limit=limit, token=token)
    page = find(request, [served], wanted)
    address = f"{address_of(request, served)}/items"
    links = [*ends(request, address, GEOJSON), link("collection", collection_url(request, served.id))]
    if page.next is not None:
        links.append(link("next", str(_with_token(request, page.next)), GEOJSON, method="GET"))
    return plain_json(_feature_collection(page, links), GEOJSON)


def item(request: Request, served: FromPath, item_id: str, f: Json = None) -> Response:  # noqa: ARG001
    """One item."""
    describe(request, served, names_version=True)
    found = items_of(served)
    return plain_json(item_document(request, served, found, found.number(item_id)), GEOJSON)


def search(
    request: Request,
    collections: Annotated[str | None, Query(description="Ids, separated by commas.")] = None,
    ids: Annotated[str | None, Query(description="Item ids, separated by commas.")] = None,
    bbox: Bbox = None,
    intersects: Annotated[str | None, Query(description="GeoJSON geometry.")] = None,
    datetime: When = None,
    limit: Limit = ITEMS_ON_PAGE,
    token: Token = None,
) -> Response:
    """Items of all collections, newest first within each."""
    geometry = None if intersects is None else read_json(intersects, "intersects")
    wanted = _filter(request, _names(ids), _box(bbox), geometry, datetime, limit, token)
    page = find(request, _chosen(request, _names(collections)), wanted)
    links = list(ends(request, f"{root_of(request)}/search", GEOJSON))
    if page.next is not None:
        links.append(link("next", str(_with_token(request, page.next)), GEOJSON, method="GET"))
    return json_response(request, _feature_collection(page, links), GEOJSON)


class SearchBody(BaseModel):
    """The body of a POST to /search."""

    model_config = ConfigDict(extra="forbid")

    collections: list[str] | None = None
    ids: list[str] | None = None
    bbox: list[float] | None = None
    intersects: dict[str, Any] | None = None
    datetime: str | None = None
    limit: int = Field(default=ITEMS_ON_PAGE, ge=1, le=10_000)
    token: str | None = None


def search_of_body(request: Request, body: Body) -> Response:
    """The same with the parameters in a JSON body."""
    try:
        asked = SearchBody.model_validate(read_json(body))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "the body"
        raise QueryError(f"{where}: {fault['msg']}; a search has {', '.join(SearchBody.model_fields)}") from None
    box = None if asked.bbox is None else read_box(",".join(map(str, asked.bbox)))
    wanted = _filter(request, asked.ids, box, asked.intersects, asked.datetime, asked.limit, asked.token)
    page = find(request, _chosen(request, asked.collections), wanted)
    address = f"{root_of(request)}/search"
    links = list(ends(request, address, GEOJSON))
    if page.next is not None:
        more = {**asked.model_dump(exclude_none=True), "token": page.next}
        links.append(link("next", address, GEOJSON, method="POST", body=more, merge=False))
    return json_response(request, _feature_collection(page, links), GEOJSON)


def _filter(
    request: Request,
    ids: Sequence[str] | None,
    box: Box | None,
    intersects: Any,
    datetime: str | None,
    limit: int,
    token: str | None,
) -> Filter:
    if box is not None and intersects is not None:
        raise QueryError("bbox and intersects exclude each other; give one of them")
    geometry = None
    if intersects is not None:
        geometry = _geometry(intersects, state_of(request).settings.max_vertices)
    return Filter(
        ids=None if ids is None else frozenset(ids),
        box=box,
        geometry=geometry,
        datetime=datetime,
        limit=limit,
        token=token,
    )


def _geometry(document: Any, most: int) -> BaseGeometry:
    try:
        geometry = shape(document)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, shapely.errors.ShapelyError):
        raise QueryError("intersects is not a GeoJSON geometry") from None
    if shapely.get_num_coordinates(geometry) > most:
        raise RequestTooLarge(f"intersects has more than {most} vertices; simplify it")
    if geometry.is_empty or not geometry.is_valid:
        raise QueryError("intersects is not a valid geometry")
    found: BaseGeometry = geometry
    return found


def _chosen(request: Request, names: Sequence[str] | None) -> list[Served]:
    """The collections to search, in the order of their ids; those that do not exist have no items."""
    catalogue = state_of(request).catalogue
    if names is None:
        return catalogue.every()[0]
    found = []
    for name in sorted(set(names)):
        try:
            found.append(catalogue.dataset(name))
        except CollectionNotFound:
            continue
    return found


def _with_token(request: Request, token: str) -> Any:
    return request.url.include_query_params(token=token)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _box(text: str | None) -> Box | None:
    return None if text is None else read_box(text)


def _feature_collection(page: Page, links: Sequence[stac.Link]) -> stac.Document:
    return {
        "type": "FeatureCollection",
        "features": page.items,
        "links": list(links),
        "numberMatched": page.matched,
        "numberReturned": len(page.items),
    }
