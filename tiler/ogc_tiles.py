"""OGC API - Tiles: which tilesets a collection has, with links that clients of the standard can follow.

Reference: OGC 20-057, OGC API - Tiles - Part 1: Core. OpenLayers' OGCMapTile takes the template of ``rel=item``, which
must not be percent-encoded and has its row before its column.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from morecantile import TileMatrixSet
from rio_tiler.utils import CRS_to_uri
from titiler.core.utils import tms_limits

from tiler.catalogue import Served
from tiler.documents import collection_url, link, root_of
from tiler.matrices import NAMES, Extent, extent, matrix_set
from tiler.request import Requested

PNG = "image/png"
JPEG = "image/jpeg"

TILING_SCHEME = "http://www.opengis.net/def/rel/ogc/1.0/tiling-scheme"
TILESETS = "http://www.opengis.net/def/rel/ogc/1.0/tilesets-map"
DEFINITION = "http://www.opengis.net/def/tilematrixset/OGC/1.0"

REGISTERED = frozenset(
    {
        "CDB1GlobalGrid",
        "CanadianNAD83_LCC",
        "EuropeanETRS89_LAEAQuad",
        "GNOSISGlobalGrid",
        "UPSAntarcticWGS84Quad",
        "UPSArcticWGS84Quad",
        "UTM31WGS84Quad",
        "WGS1984Quad",
        "WebMercatorQuad",
        "WorldCRS84Quad",
        "WorldMercatorWGS84Quad",
    }
)
"""Sets with an address of their own in OGC's register."""

OWN = frozenset({"f", "crs"})
"""Parameters of the documents, which tiles do not have."""


def data_url(request: Request, served: Served) -> str:
    """Address below which this very version answers, whichever is current."""
    return collection_url(request, served.id, served.version)


def data_query(request: Request, chosen: Requested, *, leave: Sequence[str] = ()) -> str:
    """Query of an address that shows the same map for ever: variable and period are named."""
    mine = {"variable", "datetime", *OWN, *leave}
    more = [(name, value) for name, value in request.query_params.multi_items() if name not in mine]
    return urlencode([("variable", chosen.quantity.name), ("datetime", chosen.period), *more], safe=":,")


def tileset_list(request: Request, chosen: Requested, prefix: str) -> dict[str, Any]:
    """All tilesets of a collection.

    Args:
        request: the request.
        chosen: the map.
        prefix: path below the collection: ``tiles`` or ``map/tiles``.
    """
    return {
        "tilesets": [_tileset(request, chosen, prefix, matrix_set(name), limits=False) for name in NAMES],
        "links": [link("self", str(request.url))],
    }


def tileset(request: Request, chosen: Requested, prefix: str, tms: TileMatrixSet) -> dict[str, Any]:
    """One tileset."""
    return _tileset(request, chosen, prefix, tms, limits=True)


def _tileset(request: Request, chosen: Requested, prefix: str, tms: TileMatrixSet, *, limits: bool) -> dict[str, Any]:
    served, grid = chosen.served, chosen.served.dataset.product.grid
    where = extent(tms, grid)
    base, query = data_url(request, served), data_query(request, chosen)
    item = f"{base}/map/tiles/{tms.id}/{{tileMatrix}}/{{tileRow}}/{{tileCol}}?{query}"
    west, south, east, north = where.bounds
    crs = CRS_to_uri(tms.rasterio_crs)
    document: dict[str, Any] = {
        "title": f"{served.dataset.product.title}: {chosen.quantity.long_name}, {chosen.period} ({tms.id})",
        "dataType": "map",
        "crs": crs,
        "tileMatrixSetId": tms.id,
        "boundingBox": {
            "lowerLeft": [west, south],
            "upperRight": [east, north],
            "crs": "http://www.opengis.net/def/crs/OGC/1.3/CRS84",
        },
        "links": [
            link("self", f"{base}/{prefix}/{tms.id}?{query}", title=f"Tileset in {tms.id}"),
            link("item", item, PNG, "Tiles as PNG", templated=True),
            link("item", f"{item}&format=jpeg", JPEG, "Tiles as JPEG", templated=True),
            link(
                "tile",
                f"{base}/tiles/{tms.id}/{{z}}/{{x}}/{{y}}?{query}",
                PNG,
                "Tiles in the order zoom, column, row",
                templated=True,
            ),
            link(TILING_SCHEME, f"{root_of(request)}/tileMatrixSets/{tms.id}", title=f"Definition of {tms.id}"),
        ],
    }
    if tms.id in REGISTERED:
        document["tileMatrixSetURI"] = f"{DEFINITION}/{tms.id}"
    if limits:
        document["tileMatrixSetLimits"] = matrix_limits(tms, where)
    return document


def matrix_limits(tms: TileMatrixSet, where: Extent) -> list[dict[str, Any]]:
    """Rows and columns of each matrix that the grid touches.

    Around a pole and across a matrix set's edge a box in degrees says nothing of rows and columns; then all are listed.
    """
    if tms.rasterio_crs.is_geographic or tms.id in {"WebMercatorQuad", "WorldMercatorWGS84Quad"}:
        found: list[dict[str, Any]] = [
            dict(limit) for limit in tms_limits(tms, where.bounds, (where.minzoom, where.maxzoom))
        ]
        for limit, matrix in zip(found, _matrices(tms, where), strict=True):
            limit["maxTileRow"] = min(limit["maxTileRow"], matrix.matrixHeight - 1)
            limit["maxTileCol"] = min(limit["maxTileCol"], matrix.matrixWidth - 1)
        return found
    return [
        {
            "tileMatrix": matrix.id,
            "minTileRow": 0,
            "maxTileRow": matrix.matrixHeight - 1,
            "minTileCol": 0,
            "maxTileCol": matrix.matrixWidth - 1,
        }
        for matrix in _matrices(tms, where)
    ]


def _matrices(tms: TileMatrixSet, where: Extent) -> list[Any]:
    return [tms.matrix(zoom) for zoom in range(where.minzoom, where.maxzoom + 1)]
