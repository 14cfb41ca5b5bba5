"""STAC API and OGC API documents: landing, collections, versions as instances, queryables.

The documents come from ``services.core.stac``; here are their addresses. Items are in ``tiler.items``, the queries on
them in ``tiler.search``.
"""

import logging
from collections.abc import Iterator, Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from services.core import stac
from services.core.errors import CenoteError
from tiler import conformance, downloads, search
from tiler.answer import describe
from tiler.catalogue import Served
from tiler.documents import GEOJSON, Json, address_of, collection_url, ends, json_response, link, plain_json, root_of
from tiler.edr import QUERIES
from tiler.formats import EDR_FORMATS
from tiler.request import COLLECTION, INSTANCE, FromPath
from tiler.state import State, state_of

logger = logging.getLogger(__name__)

WEB_MAP_LINKS = "https://stac-extensions.github.io/web-map-links/v1.2.0/schema.json"

TITLE = "cenote: carbon and groundwater products"

MOST_INSTANCES = 100
"""Versions that a list of them describes."""

SCHEMA = "application/schema+json"


def router(state: State) -> APIRouter:
    """All documents but the landing one, which shares its address with the map page."""
    routes = APIRouter(tags=["STAC"])
    routes.include_router(conformance.router(state))
    routes.include_router(downloads.router(state))
    routes.include_router(search.router(state))
    routes.add_api_route("/collections", collections, methods=["GET"], operation_id="collections")
    routes.add_api_route("/queryables", queryables, methods=["GET"], operation_id="queryables")
    routes.add_api_route(f"{COLLECTION}/instances", instances, methods=["GET"], operation_id="instances")
    for prefix, suffix in ((COLLECTION, ""), (INSTANCE, "OfVersion")):
        for path, route in (("", collection), ("/queryables", collection_queryables)):
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
    every, broken = state_of(request).catalogue.every()
    documents = [collection_document(request, served) for served in every]
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
        return plain_json(instance_document(request, served))
    return plain_json(collection_document(request, served))


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


# Queryables


def queryables(request: Request) -> Response:
    """What a search can ask for, as a JSON schema."""
    document = _schema(f"{root_of(request)}/queryables", "items")
    document["properties"]["collection"] = {"type": "string", "enum": state_of(request).catalogue.ids()}
    return json_response(request, document, SCHEMA)


def collection_queryables(request: Request, served: FromPath) -> Response:
    """What a query on the items of a collection can ask for, as a JSON schema."""
    describe(request, served, names_version=True)
    return plain_json(_schema(f"{address_of(request, served)}/queryables", served.dataset.product.title), SCHEMA)


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
