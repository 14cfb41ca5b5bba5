"""Which classes of which standards the service conforms to; only those that it implements."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from tiler.documents import Json, json_response
from tiler.state import State

OGC = "http://www.opengis.net/spec"
STAC_API = "https://api.stacspec.org/v1.0.0"

CLASSES = (
    f"{OGC}/ogcapi-common-1/1.0/conf/core",
    f"{OGC}/ogcapi-common-1/1.0/conf/json",
    f"{OGC}/ogcapi-common-2/1.0/conf/collections",
    f"{OGC}/ogcapi-edr-1/1.1/conf/core",
    f"{OGC}/ogcapi-edr-1/1.1/conf/collections",
    f"{OGC}/ogcapi-edr-1/1.1/conf/json",
    f"{OGC}/ogcapi-edr-1/1.1/conf/queries",
    f"{OGC}/ogcapi-edr-1/1.1/conf/covjson",
    f"{OGC}/ogcapi-edr-1/1.1/conf/geojson",
    f"{OGC}/ogcapi-features-1/1.0/conf/core",
    f"{OGC}/ogcapi-features-1/1.0/conf/geojson",
    f"{OGC}/ogcapi-tiles-1/1.0/conf/core",
    f"{OGC}/ogcapi-tiles-1/1.0/conf/tileset",
    f"{OGC}/ogcapi-tiles-1/1.0/conf/tilesets-list",
    f"{OGC}/ogcapi-tiles-1/1.0/conf/png",
    f"{STAC_API}/core",
    f"{STAC_API}/collections",
    f"{STAC_API}/ogcapi-features",
    f"{STAC_API}/item-search",
)
"""https://docs.ogc.org/is/19-086r6 (EDR 1.1), https://github.com/radiantearth/stac-api-spec (1.0.0)."""


def router(state: State) -> APIRouter:  # noqa: ARG001 - every router of the app is made from the state
    """``/conformance``."""
    routes = APIRouter(tags=["STAC"])
    routes.add_api_route("/conformance", conformance, methods=["GET"], operation_id="conformance")
    return routes


def conformance(request: Request, f: Json = None) -> Response:  # noqa: ARG001 - f is checked by its type
    """The conformance classes."""
    return json_response(request, {"conformsTo": list(CLASSES)})
