"""STAC API and OGC API documents: landing, collections, versions as instances, items, search.

The documents come from ``services.core.stac``; here are their addresses, their paging and the queries on them.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import shapely
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry
from starlette.responses import Response

from services.core import stac
from services.core.errors import (
    CenoteError,
    CollectionNotFound,
    NotFound,
    QueryError,
    RequestTooLarge,
    TimeOutsideAxis,
)
from tiler import conformance, downloads
from tiler.answer import describe
from tiler.catalogue import Served
from tiler.documents import GEOJSON, Json, collection_url, ends, json_response, link, root_of
from tiler.edr import QUERIES, Body, read_json
from tiler.formats import EDR_FORMATS
from tiler.geometry import TURN, Box, read_box
from tiler.loading import LoadingCache
from tiler.request import COLLECTION, INSTANCE, FromPath
from tiler.state import State, state_of

logger = logging.getLogger(__name__)

WEB_MAP_LINKS = "https://stac-extensions.github.io/web-map-links/v1.2.0/schema.json"

TITLE = "cenote: carbon and groundwater products"

MOST_ITEMS = 1000
"""Items on one page, however many are asked for."""

ITEMS_ON_PAGE = 10

MOST_INSTANCES = 100
"""Versions that a list of them describes."""

SCHEMA = "application/schema+json"

_ITEMS: LoadingCache[str, stac.Items] = LoadingCache(64)
"""By version id, which is the digest of all that items are made of."""

type Limit = Annotated[int, Query(ge=1, le=10_000, description=f"Items on a page; {MOST_ITEMS} at most are sent.")]
type Token = Annotated[str | None, Query(description="Where the page begins; from a link with rel=next.")]
type Bbox = Annotated[str | None, Query(description="west,south,east,north; west > east crosses the antimeridian.")]
type When = Annotated[
    str | None, Query(alias="datetime", description="RFC 3339 instant or interval `a/b`; an open end is `..`.")
]


def router(state: State) -> APIRouter:
    """All documents but the landing one, which shares its address with the map page."""
    routes = APIRouter(tags=["STAC"])
    routes.include_router(conformance.router(state))
    routes.include_router(downloads.router(state))
    routes.add_api_route("/collections", collections, methods=["GET"], operation_id="collections")
    routes.add_api_route("/search", search, methods=["GET"], operation_id="search")
    routes.add_api_route("/search", search_of_body, methods=["POST"], operation_id="searchOfBody")
    routes.add_api_route("/queryables", queryables, methods=["GET"], operation_id="queryables")
    routes.add_api_route(f"{COLLECTION}/instances", instances, methods=["GET"], operation_id="instances")
    for prefix, suffix in ((COLLECTION, ""), (INSTANCE, "OfVersion")):
        for path, route in (
            ("", collection),
            ("/items", items),
            ("/items/{item_id}", item),
            ("/queryables", collection_queryables),
        ):
            routes.add_api_route(f"{prefix}{path}", route, methods=["GET"], operation_id=f"{route.__name__}{suffix}")
    return routes


# The landing document


def landing(request: Request) -> Response:
    """The landing document of STAC API, OGC API EDR and OGC API Features, as JSON."""
    root = root_of(request)
    catalogue = state_of(request).catalogue
    links = [
        link("self", f"{root}/"),
        link("root", f"{root}/"),
        link("conformance", f"{root}/conformance", title="conformance classes"),
        link("data", f"{root}/collections", title="collections"),
        link("search", f"{root}/search", GEOJSON, title="item search", method="GET"),
        link("search", f"{root}/search", GEOJSON, title="item search", method="POST"),
        link("http://www.opengis.net/def/rel/ogc/1.0/queryables", f"{root}/queryables", SCHEMA),
        link("service-desc", f"{root}/api", "application/vnd.oai.openapi+json;version=3.1", title="OpenAPI"),
        link("service-doc", f"{root}/map", "text/html", title="map"),
        *(link("child", collection_url(request, name), title=name) for name in catalogue.ids()),
    ]
    return json_response(
        request,
        {
            "type": "Catalog",
            "stac_version": stac.STAC_VERSION,
            "id": "cenote",
            "title": TITLE,
            "description": "Maps, points and time series of published carbon and groundwater products.",
            "conformsTo": list(conformance.CLASSES),
            "links": links,
        },
    )


# Collections and their versions


def collections(request: Request, f: Json = None) -> Response:  # noqa: ARG001 - f is checked by its type
    """All collections, each as its current version has it."""
    broken: list[str] = []
    documents = [collection_document(request, served) for served in _all_served(request, broken)]
    root = root_of(request)
    return json_response(
        request,
        {
            "collections": documents,
            "links": list(ends(request, f"{root}/collections")),
            "numberMatched": len(documents),
            "numberReturned": len(documents),
            **({"cenote:unavailable": broken} if broken else {}),
        },
    )


def collection(request: Request, served: FromPath, f: Json = None) -> Response:  # noqa: ARG001
    """A collection: STAC with the datacube, render and version extensions, and what EDR asks of it."""
    describe(request, served, names_version=True)
    if "version" in request.path_params:
        return _plain(instance_document(request, served))
    return _plain(collection_document(request, served))


def instances(request: Request, collection_id: str, f: Json = None) -> Response:  # noqa: ARG001
    """The versions of a collection that are kept, the current one first, each with its own data queries."""
    catalogue = state_of(request).catalogue
    current = catalogue.pointer(collection_id).version
    names = [name for name in catalogue.versions(collection_id) if name != current]
    documents: list[stac.Document] = []
    broken: list[str] = []
    for name in [current, *names][:MOST_INSTANCES]:
        try:
            documents.append(instance_document(request, catalogue.dataset(collection_id, name)))
        except CenoteError as error:
            logger.warning("version %s of %s is left out of the list: %s", name, collection_id, error)
            broken.append(name)
    address = f"{collection_url(request, collection_id)}/instances"
    return json_response(
        request,
        {
            "links": [
                *ends(request, address),
                link("collection", collection_url(request, collection_id)),
            ],
            "instances": documents,
            "numberMatched": 1 + len(names),
            "numberReturned": len(documents),
            **({"cenote:unavailable": broken} if broken else {}),
        },
    )


def collection_document(request: Request, served: Served) -> stac.Document:
    """The collection document with the addresses of this service."""
    address = collection_url(request, served.id)
    version = served.dataset.version
    links = [
        *_links(request, served, address),
        link("parent", f"{root_of(request)}/"),
        link("version-history", f"{address}/instances", title="versions"),
    ]
    if version.parent is not None:
        links.append(link("predecessor-version", collection_url(request, served.id, version.parent)))
    return _described(request, served, address, links)


def instance_document(request: Request, served: Served) -> stac.Document:
    """The same of a named version; its id is the version's, as EDR has it."""
    address = collection_url(request, served.id, served.version)
    current = collection_url(request, served.id)
    version = served.dataset.version
    links = [
        *_links(request, served, address),
        link("parent", current),
        link("collection", current),
        link("latest-version", current),
    ]
    if version.parent is not None:
        links.append(link("predecessor-version", collection_url(request, served.id, version.parent)))
    document = _described(request, served, address, links)
    return {**document, "id": served.version, "cenote:collection": served.id}


def _links(request: Request, served: Served, address: str) -> Iterator[stac.Link]:
    root = root_of(request)
    product = served.dataset.product
    yield from ends(request, address)
    yield link("items", f"{address}/items", GEOJSON, title="one item for each span of time")
    yield link("data", address, title="data queries: position, area, cube")
    yield link("http://www.opengis.net/def/rel/ogc/1.0/queryables", f"{address}/queryables", SCHEMA)
    yield link("alternate", f"{root}/map/{served.id}", "text/html", title="map")
    yield link("http://www.opengis.net/def/rel/ogc/1.0/tilesets-map", f"{address}/map/tiles", title="tilesets")
    yield link(
        "xyz", f"{address}/tiles/WebMercatorQuad/{{z}}/{{x}}/{{y}}.png", "image/png", title="tiles, newest period"
    )
    yield link("tilejson", f"{address}/WebMercatorQuad/tilejson.json", title="TileJSON, newest period")
    wmts: stac.Document = {"wmts:layer": [quantity.name for quantity in product.quantities]}
    yield link("wmts", f"{address}/WMTSCapabilities.xml", "application/xml", title="WMTS with time", **wmts)
    yield link("http://www.opengis.net/def/rel/ogc/1.0/legend", f"{address}/legend.png", "image/png", title="legend")
    if product.license not in {"other", "proprietary", "various"}:
        yield link("license", f"https://spdx.org/licenses/{product.license}.html", "text/html")


def _described(request: Request, served: Served, address: str, links: Sequence[stac.Link]) -> stac.Document:
    document = stac.collection(
        served.dataset.version, links=links, href=lambda key: downloads.asset_url(request, served, key)
    )
    document["stac_extensions"] = [*document["stac_extensions"], WEB_MAP_LINKS]
    document["output_formats"] = [one.value for one in EDR_FORMATS]
    document["data_queries"] = data_queries(address, is_instance=address.rpartition("/")[2] == served.version)
    return document


def data_queries(address: str, *, is_instance: bool) -> stac.Document:
    """EDR ``data_queries`` of a collection or of a version of it."""
    formats = [one.value for one in EDR_FORMATS]
    said = {
        "position": "series of the cell that holds POINT(lon lat), or several places",
        "area": "maps of the cells in POLYGON(...), or with aggregate=mean their mean",
        "cube": "maps of the cells in a bounding box",
    }
    found: stac.Document = {}
    for query in QUERIES:
        variables: stac.Document = {
            "title": said[query],
            "query_type": query,
            "output_formats": formats,
            "default_output_format": formats[0],
            "crs_details": [{"crs": "CRS84", "wkt": _CRS84_WKT}],
        }
        if query == "cube":
            variables["height_units"] = []
        found[query] = {"link": _query_link(f"{address}/{query}", said[query], variables)}
    said_items = "one item for each span of time"
    found["items"] = {"link": _query_link(f"{address}/items", said_items, {"title": said_items, "query_type": "items"})}
    if not is_instance:
        said_versions = "the versions that are kept, each with the same queries"
        variables = {"title": said_versions, "query_type": "instances"}
        found["instances"] = {"link": _query_link(f"{address}/instances", said_versions, variables)}
    return found


def _query_link(href: str, title: str, variables: stac.Document) -> stac.Link:
    return {"href": href, "rel": "data", "type": "application/json", "title": title, "variables": variables}


_CRS84_WKT = (
    'GEOGCRS["WGS 84 (CRS84)",DATUM["World Geodetic System 1984",ELLIPSOID["WGS 84",6378137,298.257223563]],'
    'CS[ellipsoidal,2],AXIS["geodetic longitude (Lon)",east],AXIS["geodetic latitude (Lat)",north],'
    'UNIT["degree",0.0174532925199433],ID["OGC","CRS84"]]'
)


# Items and search


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which items are wanted."""

    ids: frozenset[str] | None = None
    box: Box | None = None
    geometry: BaseGeometry | None = None
    datetime: str | None = None
    limit: int = ITEMS_ON_PAGE
    token: str | None = None
    """``collection:item`` of the last item on the page before."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some items, newest first within each collection."""

    items: list[stac.Document]
    matched: int
    next: str | None
    """Token of the next page."""


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
    address = f"{_address(request, served)}/items"
    links = [*ends(request, address, GEOJSON), link("collection", collection_url(request, served.id))]
    if page.next is not None:
        links.append(link("next", str(_with_token(request, page.next)), GEOJSON, method="GET"))
    return _plain(_feature_collection(page, links), GEOJSON)


def item(request: Request, served: FromPath, item_id: str, f: Json = None) -> Response:  # noqa: ARG001
    """One item."""
    describe(request, served, names_version=True)
    found = items_of(served)
    return _plain(item_document(request, served, found, found.number(item_id)), GEOJSON)


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
    geometry = None if intersects is None else _json_of(intersects)
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


def find(request: Request, served: Sequence[Served], wanted: Filter) -> Page:
    """A page of the items that a filter lets through.

    Raises:
        QueryError: if datetime or token is malformed.
    """
    after = _position(served, wanted.token)
    limit = min(wanted.limit, MOST_ITEMS)
    found: list[stac.Document] = []
    matched = 0
    last: str | None = None
    for place, one in enumerate(served):
        source = items_of(one)
        numbers = _matching(one, source, wanted)
        matched += len(numbers)
        if after is not None and place < after[0]:
            continue
        for number in reversed(numbers):
            if after is not None and place == after[0] and number >= after[1]:
                continue
            if len(found) == limit:
                return Page(items=found, matched=matched + _rest(served, place, wanted), next=last)
            found.append(item_document(request, one, source, number))
            last = f"{one.id}:{source[number].id}"
    return Page(items=found, matched=matched, next=None)


def items_of(served: Served) -> stac.Items:
    """The items of a version, kept while it is in use."""
    return _ITEMS.get(served.dataset.version.id, lambda: stac.Items(served.dataset.version))


def item_document(request: Request, served: Served, source: stac.Items, number: int) -> stac.Document:
    """An item with the addresses of this service."""
    address = _address(request, served)
    span = source[number]
    links = [
        *ends(request, f"{address}/items/{span.id}", GEOJSON),
        link("parent", address),
        link("collection", address),
    ]
    if span.first == span.last:
        period = served.dataset.time.ids[span.first]
        tiles = f"{address}/tiles/WebMercatorQuad/{{z}}/{{x}}/{{y}}.png?datetime={period}"
        links.append(link("xyz", tiles, "image/png", title=f"tiles of {period}"))
    return source.document(number, links=links, href=lambda key: downloads.asset_url(request, served, key))


def _matching(served: Served, source: stac.Items, wanted: Filter) -> Sequence[int]:
    """Numbers of the items of a collection that match, in the order of time."""
    grid = served.dataset.product.grid
    if wanted.box is not None and not _overlaps(wanted.box, stac.bbox(grid)):
        return ()
    if wanted.geometry is not None and not shapely.intersects(wanted.geometry, shape(stac.footprint(grid))):
        return ()
    numbers = range(len(source))
    if wanted.datetime is not None:
        try:
            numbers = source.touching(served.dataset.time.select(wanted.datetime))
        except TimeOutsideAxis:
            return ()
    if wanted.ids is None:
        return numbers
    chosen = []
    for name in wanted.ids:
        try:
            number = source.number(name)
        except NotFound:
            continue
        if number in numbers:
            chosen.append(number)
    return sorted(chosen)


def _rest(served: Sequence[Served], place: int, wanted: Filter) -> int:
    return sum(len(_matching(one, items_of(one), wanted)) for one in served[place + 1 :])


def _position(served: Sequence[Served], token: str | None) -> tuple[int, int] | None:
    """Place of the collection and number of the item that a token names."""
    if token is None:
        return None
    name, _, item_id = token.partition(":")
    for place, one in enumerate(served):
        if one.id == name:
            try:
                return place, items_of(one).number(item_id)
            except NotFound:
                break
    raise QueryError(f"token={token[:80]!r} is not one that a next link gave for this search")


def _overlaps(box: Box, other: Sequence[float]) -> bool:
    west, south, east, north = other
    if east < west:
        east += TURN
    if south > box[3] or north < box[1]:
        return False
    return any(west + turn <= box[2] and box[0] <= east + turn for turn in (-TURN, 0.0, TURN))


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
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, shapely.errors.ShapelyError):
        raise QueryError("intersects is not a GeoJSON geometry") from None
    if shapely.get_num_coordinates(geometry) > most:
        raise RequestTooLarge(f"intersects has more than {most} vertices; simplify it")
    if geometry.is_empty or not geometry.is_valid:
        raise QueryError("intersects is not a valid geometry")
    found: BaseGeometry = geometry
    return found


def _chosen(request: Request, names: Sequence[str] | None) -> list[Served]:
    """The collections to search, in the order of their ids; those that do not exist have no items."""
    if names is None:
        return list(_all_served(request, []))
    catalogue = state_of(request).catalogue
    found = []
    for name in sorted(set(names)):
        try:
            found.append(catalogue.dataset(name))
        except CollectionNotFound:
            continue
    return found


def _all_served(request: Request, broken: list[str]) -> Iterator[Served]:
    catalogue = state_of(request).catalogue
    for name in catalogue.ids():
        try:
            yield catalogue.dataset(name)
        except CenoteError as error:
            # one damaged collection must not take the others off the list
            logger.warning("collection %s is left out of the list: %s", name, error)
            broken.append(name)


def _address(request: Request, served: Served) -> str:
    version = request.path_params.get("version")
    return collection_url(request, served.id, version)


def _with_token(request: Request, token: str) -> Any:
    return request.url.include_query_params(token=token)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _box(text: str | None) -> Box | None:
    return None if text is None else read_box(text)


def _json_of(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise QueryError("intersects is not a GeoJSON geometry") from None


def _feature_collection(page: Page, links: Sequence[stac.Link]) -> stac.Document:
    return {
        "type": "FeatureCollection",
        "features": page.items,
        "links": list(links),
        "numberMatched": page.matched,
        "numberReturned": len(page.items),
    }


# Queryables


def queryables(request: Request) -> Response:
    """What a search can ask for, as a JSON schema."""
    document = _schema(f"{root_of(request)}/queryables", "items")
    document["properties"]["collection"] = {"type": "string", "enum": state_of(request).catalogue.ids()}
    return json_response(request, document, SCHEMA)


def collection_queryables(request: Request, served: FromPath) -> Response:
    """What a query on the items of a collection can ask for, as a JSON schema."""
    describe(request, served, names_version=True)
    return _plain(_schema(f"{_address(request, served)}/queryables", served.dataset.product.title), SCHEMA)


def _schema(address: str, title: str) -> stac.Document:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": address,
        "type": "object",
        "title": title,
        "properties": {
            "id": {"type": "string", "title": "item id"},
            "datetime": {"type": "string", "format": "date-time", "title": "time"},
            "geometry": {"$ref": "https://geojson.org/schema/Geometry.json"},
        },
        "additionalProperties": False,
    }


def _plain(document: stac.Document, media_type: str = "application/json") -> Response:
    return Response(to_json(document), media_type=media_type)
