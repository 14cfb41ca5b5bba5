"""OGC WMTS 1.0.0 capabilities with a time dimension, for QGIS, GDAL and OWSLib.

Reference: OGC 07-057r7. Tiles are fetched by ResourceURL (RESTful); there is no key-value interface.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode
from xml.etree.ElementTree import Element, SubElement, register_namespace, tostring

from fastapi import Request
from morecantile import TileMatrixSet
from rasterio.crs import CRS

from services.core.quantity import Quantity
from services.core.time_axis import TimeAxis
from tiler.catalogue import Served
from tiler.documents import collection_url
from tiler.legend import with_unit
from tiler.matrices import NAMES, Extent, extent, matrix_set
from tiler.ogc_tiles import matrix_limits

MEDIA_TYPE = "application/xml"
WMTS = "http://www.opengis.net/wmts/1.0"
OWS = "http://www.opengis.net/ows/1.1"
XLINK = "http://www.w3.org/1999/xlink"

TIME = "Time"
"""Identifier of the dimension, and the variable of the tile address that stands for it."""

for _prefix, _uri in (("", WMTS), ("ows", OWS), ("xlink", XLINK)):
    register_namespace(_prefix, _uri)


def capabilities(request: Request, served: Served, query: dict[str, str]) -> bytes:
    """The capabilities of a collection, one layer for each quantity.

    Args:
        request: the request.
        served: the version; a path that names none goes on to mean the current one.
        query: further parameters of the tiles, such as a range of colours.
    """
    product = served.dataset.product
    named = request.path_params.get("version")
    base = collection_url(request, served.id, named)
    root = Element(f"{{{WMTS}}}Capabilities", {"version": "1.0.0"})
    service = SubElement(root, f"{{{OWS}}}ServiceIdentification")
    _text(service, OWS, "Title", product.title)
    _text(service, OWS, "Abstract", product.description)
    _text(service, OWS, "ServiceType", "OGC WMTS")
    _text(service, OWS, "ServiceTypeVersion", "1.0.0")
    _operations(root, f"{base}/WMTSCapabilities.xml", f"{base}/tiles/")
    contents = SubElement(root, f"{{{WMTS}}}Contents")
    # WMTS has no word for rows of fewer, wider tiles
    sets = {name: matrix_set(name) for name in NAMES if not matrix_set(name).is_variable}
    extents = {name: extent(tms, product.grid) for name, tms in sets.items()}
    for quantity in product.quantities:
        _layer(contents, served, quantity, base, extents, query)
    for name, tms in sets.items():
        _matrix_set(contents, name, tms, extents[name])
    _link(SubElement(root, f"{{{WMTS}}}ServiceMetadataURL"), f"{base}/WMTSCapabilities.xml")
    body: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return body


def time_values(axis: TimeAxis) -> Iterator[str]:
    """Periods as WMTS writes them: ``first/last/step`` for those without a gap, else one by one."""
    step = axis.step.count
    first = 0
    for place in range(1, len(axis) + 1):
        if place == len(axis) or axis.starts[place] != axis.starts[place - 1] + step:
            yield axis.ids[first] if place - first == 1 else f"{axis.ids[first]}/{axis.ids[place - 1]}/{axis.step}"
            first = place


def _operations(root: Element, capabilities_url: str, tile_url: str) -> None:
    metadata = SubElement(root, f"{{{OWS}}}OperationsMetadata")
    for name, url in (("GetCapabilities", capabilities_url), ("GetTile", tile_url)):
        http = SubElement(
            SubElement(SubElement(metadata, f"{{{OWS}}}Operation", {"name": name}), f"{{{OWS}}}DCP"), f"{{{OWS}}}HTTP"
        )
        get = SubElement(http, f"{{{OWS}}}Get")
        _link(get, url)
        values = SubElement(SubElement(get, f"{{{OWS}}}Constraint", {"name": "GetEncoding"}), f"{{{OWS}}}AllowedValues")
        _text(values, OWS, "Value", "RESTful")


def _layer(
    contents: Element,
    served: Served,
    quantity: Quantity,
    base: str,
    extents: dict[str, Extent],
    query: dict[str, str],
) -> None:
    product, axis = served.dataset.product, served.dataset.time
    layer = SubElement(contents, f"{{{WMTS}}}Layer")
    _text(layer, OWS, "Title", with_unit(quantity.long_name, quantity.units))
    _text(layer, OWS, "Abstract", product.description)
    west, south, east, north = product.grid.bounds
    if east > 180:
        west, east = -180.0, 180.0
    box = SubElement(layer, f"{{{OWS}}}WGS84BoundingBox", {"crs": "urn:ogc:def:crs:OGC:2:84"})
    _text(box, OWS, "LowerCorner", f"{west:.10g} {south:.10g}")
    _text(box, OWS, "UpperCorner", f"{east:.10g} {north:.10g}")
    _text(layer, OWS, "Identifier", quantity.name)
    style = SubElement(layer, f"{{{WMTS}}}Style", {"isDefault": "true"})
    _text(style, OWS, "Identifier", "default")
    legend = urlencode({"variable": quantity.name, **query})
    SubElement(
        style, f"{{{WMTS}}}LegendURL", {"format": "image/png", f"{{{XLINK}}}href": f"{base}/legend.png?{legend}"}
    )
    formats = {"image/png": "png", "image/jpeg": "jpeg"}
    for media_type in formats:
        _text(layer, WMTS, "Format", media_type)
    dimension = SubElement(layer, f"{{{WMTS}}}Dimension")
    _text(dimension, OWS, "Identifier", TIME)
    _text(dimension, OWS, "UOM", "ISO8601")
    _text(dimension, WMTS, "Default", axis.ids[-1])
    _text(dimension, WMTS, "Current", "false")
    for value in time_values(axis):
        _text(dimension, WMTS, "Value", value)
    for name, where in extents.items():
        link = SubElement(layer, f"{{{WMTS}}}TileMatrixSetLink")
        _text(link, WMTS, "TileMatrixSet", name)
        limits = SubElement(link, f"{{{WMTS}}}TileMatrixSetLimits")
        for limit in matrix_limits(matrix_set(name), where):
            entry = SubElement(limits, f"{{{WMTS}}}TileMatrixLimits")
            _text(entry, WMTS, "TileMatrix", limit["tileMatrix"])
            for key in ("MinTileRow", "MaxTileRow", "MinTileCol", "MaxTileCol"):
                _text(entry, WMTS, key, str(limit[f"{key[0].lower()}{key[1:]}"]))
    fixed = urlencode({"variable": quantity.name, **query}, quote_via=quote)
    for media_type, suffix in formats.items():
        SubElement(
            layer,
            f"{{{WMTS}}}ResourceURL",
            {
                "format": media_type,
                "resourceType": "tile",
                "template": f"{base}/tiles/{{TileMatrixSet}}/{{TileMatrix}}/{{TileCol}}/{{TileRow}}.{suffix}"
                f"?{fixed}&datetime={{{TIME}}}",
            },
        )


def _matrix_set(contents: Element, name: str, tms: TileMatrixSet, where: Extent) -> None:
    element = SubElement(contents, f"{{{WMTS}}}TileMatrixSet")
    _text(element, OWS, "Identifier", name)
    _text(element, OWS, "SupportedCRS", crs_urn(tms.rasterio_crs))
    for zoom in range(where.minzoom, where.maxzoom + 1):
        matrix: Any = tms.matrix(zoom)
        entry = SubElement(element, f"{{{WMTS}}}TileMatrix")
        _text(entry, OWS, "Identifier", matrix.id)
        _text(entry, WMTS, "ScaleDenominator", repr(matrix.scaleDenominator))
        _text(entry, WMTS, "TopLeftCorner", " ".join(repr(part) for part in matrix.pointOfOrigin))
        for key in ("TileWidth", "TileHeight", "MatrixWidth", "MatrixHeight"):
            _text(entry, WMTS, key, str(getattr(matrix, f"{key[0].lower()}{key[1:]}")))


def crs_urn(crs: CRS) -> str:
    """``urn:ogc:def:crs:EPSG::3857``, as OGC wrote it in 2010."""
    authority, code = crs.to_authority()
    return f"urn:ogc:def:crs:{authority}:{'1.3' if authority == 'OGC' else ''}:{code}"


def _text(parent: Element, namespace: str, name: str, text: str) -> None:
    SubElement(parent, f"{{{namespace}}}{name}").text = text


def _link(element: Element, url: str) -> None:
    element.set(f"{{{XLINK}}}href", url)
