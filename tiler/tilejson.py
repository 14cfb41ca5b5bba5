"""TileJSON 3.0: the tiles of one map for clients that know nothing else of the service."""

from typing import Any

from fastapi import Request
from morecantile import TileMatrixSet

from services.core.errors import QueryError
from tiler.legend import with_unit
from tiler.matrices import Extent, extent
from tiler.ogc_tiles import data_query, data_url
from tiler.options import TileSize
from tiler.reader import MapSource
from tiler.request import Requested

DEFAULT_TILE: TileSize = 512
"""Pixels of the tiles that a TileJSON names, as in titiler."""

OWN = ("tilesize", "tile_format", "minzoom", "maxzoom")
"""Parameters of the document, which tiles do not have or have otherwise."""


def tilejson(
    request: Request,
    source: MapSource,
    tms: TileMatrixSet,
    *,
    tilesize: TileSize,
    suffix: str,
    minzoom: int | None,
    maxzoom: int | None,
) -> dict[str, Any]:
    """The document; its tiles are those of the version and period that it was made of, for ever.

    Args:
        request: the request, whose other parameters go on to the tiles.
        source: the map.
        tms: matrix set.
        tilesize: width of the tiles in pixels.
        suffix: ending of the tiles' addresses.
        minzoom: in place of the matrix set's first.
        maxzoom: in place of the native zoom.

    Raises:
        QueryError: if the matrix set has no such zooms.
    """
    chosen = source.requested
    product = chosen.served.dataset.product
    where = extent(tms, product.grid, tilesize)
    low, high = _zooms(tms, where, minzoom, maxzoom)
    query, base = data_query(request, chosen, leave=OWN), data_url(request, chosen.served)
    west, south, east, north = where.bounds
    return {
        "tilejson": "3.0.0",
        "name": f"{product.title}: {subtitle(chosen)}",
        "description": product.description,
        "version": "1.0.0",
        "attribution": "; ".join(provider.name for provider in product.providers) or None,
        "scheme": "xyz",
        "tiles": [f"{base}/tiles/{tms.id}/{{z}}/{{x}}/{{y}}.{suffix}?{query}&tilesize={tilesize}"],
        "minzoom": low,
        "maxzoom": high,
        "bounds": list(where.bounds),
        "center": [(west + east) / 2, (south + north) / 2, low],
        "legend": f"{base}/legend.png?{query}",
        "tilesize": tilesize,
        "minmax": [[source.drawn.minimum, source.drawn.maximum]],
        "band_descriptions": [["b1", chosen.quantity.name]],
        "collection": chosen.served.id,
        "collection_version": chosen.served.version,
        "period": chosen.period,
    }


def subtitle(chosen: Requested) -> str:
    """Variable, unit and period of a map."""
    return f"{with_unit(chosen.quantity.long_name, chosen.quantity.units)}, {chosen.period}"


def _zooms(tms: TileMatrixSet, where: Extent, minzoom: int | None, maxzoom: int | None) -> tuple[int, int]:
    low, high = where.minzoom if minzoom is None else minzoom, where.maxzoom if maxzoom is None else maxzoom
    if not tms.minzoom <= low <= high <= tms.maxzoom:
        raise QueryError(
            f"{tms.id} has the zoom levels {tms.minzoom} to {tms.maxzoom}; minzoom={low} and maxzoom={high} do not fit"
        )
    return low, high
