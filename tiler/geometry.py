"""Places, areas and boxes as requests write them (WKT, GeoJSON, ``w,s,e,n``), read and checked before any work."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon, shape
from shapely.geometry.base import BaseGeometry

from services.core.errors import QueryError, RequestTooLarge

WESTMOST, EASTMOST = -180.0, 360.0
"""Longitudes that are understood: both -180..180 and 0..360."""

HALF_TURN, TURN = 180.0, 360.0

type Place = tuple[float, float]
"""Longitude and latitude in degrees."""

type Box = tuple[float, float, float, float]
"""West, south, east, north in degrees; west <= east <= west + 360, so east may pass 180."""

POINTS = "POINT(lon lat) or MULTIPOINT((lon lat),(lon lat))"
AREAS = "POLYGON((lon lat,lon lat,lon lat,lon lat)) or MULTIPOLYGON(((...)),((...)))"


def check_place(longitude: float, latitude: float) -> Place:
    """A place on Earth.

    Raises:
        QueryError: if a coordinate is not a finite number of degrees in its range.
    """
    if not (math.isfinite(longitude) and math.isfinite(latitude)):
        raise QueryError(f"longitude {longitude} and latitude {latitude} must be finite numbers of degrees")
    if not WESTMOST <= longitude <= EASTMOST:
        raise QueryError(f"longitude {longitude:g} must lie in -180..360 degrees")
    if not -90 <= latitude <= 90:
        raise QueryError(f"latitude {latitude:g} must lie in -90..90 degrees (coordinates are written longitude first)")
    return longitude, latitude


def read_places_text(text: str, *, most: int) -> list[Place]:
    """The places of a WKT POINT or MULTIPOINT, in order.

    Raises:
        QueryError: if it is not one.
        RequestTooLarge: if it has more than ``most`` places.
    """
    geometry = _wkt(text, most, "places", POINTS)
    if geometry.geom_type not in {"Point", "MultiPoint"} or geometry.is_empty:
        raise QueryError(f"coords is {_called(geometry)}; position needs {POINTS}")
    return [check_place(float(x), float(y)) for x, y in shapely.get_coordinates(geometry).tolist()]


def read_area(text: str, *, most: int) -> MultiPolygon:
    """The area of a WKT POLYGON or MULTIPOLYGON.

    Raises:
        QueryError: if it is not one, or not a valid one.
        RequestTooLarge: if it has more than ``most`` vertices.
    """
    return check_area(_wkt(text, most, "vertices", AREAS), most=most)


def area_of_geojson(document: Any, *, most: int) -> MultiPolygon:
    """The area of a GeoJSON Polygon, MultiPolygon, or a Feature of one.

    Raises:
        QueryError: if it is not one, or not a valid one.
        RequestTooLarge: if it has more than ``most`` vertices.
    """
    if isinstance(document, dict) and document.get("type") == "Feature":
        document = document.get("geometry")
    if not isinstance(document, dict) or document.get("type") not in ("Polygon", "MultiPolygon"):
        raise QueryError("the body must be a GeoJSON Polygon or MultiPolygon, or a Feature of one")
    try:
        geometry = shape(document)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, shapely.errors.ShapelyError):
        raise QueryError(
            "the coordinates of the GeoJSON geometry are not rings of at least 4 [lon, lat] pairs"
        ) from None
    return check_area(geometry, most=most)


def check_area(geometry: BaseGeometry, *, most: int) -> MultiPolygon:
    """A valid area whose edges mean what they say.

    An edge is a straight line in longitude and latitude. One that spans more than half a turn could be meant to
    cross the antimeridian, so it is refused; a whole turn (-180 to 180) cannot be meant so.

    Raises:
        QueryError: if it is no area, not valid, or an edge is ambiguous.
        RequestTooLarge: if it has more than ``most`` vertices.
    """
    if not isinstance(geometry, Polygon | MultiPolygon) or geometry.is_empty:
        raise QueryError(f"the geometry is {_called(geometry)}; area needs {AREAS}")
    if geometry.has_z:
        raise QueryError("the geometry has heights; this data has none, leave them out")
    count = int(shapely.get_num_coordinates(geometry))
    if count > most:
        raise RequestTooLarge(f"the geometry has {count} vertices; at most {most} are allowed, so simplify it")
    for x, y in shapely.get_coordinates(geometry).tolist():
        check_place(x, y)
    area = geometry if isinstance(geometry, MultiPolygon) else MultiPolygon([geometry])
    # before it is looked at as a whole: an edge that goes the wrong way round crosses others
    for polygon in area.geoms:
        for ring in (polygon.exterior, *polygon.interiors):
            spans = np.abs(np.diff(shapely.get_coordinates(ring)[:, 0]))
            if bool(((spans > HALF_TURN) & (spans != TURN)).any()):
                raise QueryError(
                    f"an edge of the area spans {float(spans.max()):g} degrees of longitude, so it is not clear which "
                    "way round it goes; to cross the antimeridian write longitudes past 180 (170 to 190), else put a "
                    "vertex in between"
                )
    if not geometry.is_valid:
        raise QueryError(f"the area is not valid: {shapely.is_valid_reason(geometry).replace('[', ' at [')}")
    return area


def rings(area: MultiPolygon) -> Iterable[np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """The closed rings, ``(vertices, 2)``: exteriors anticlockwise, holes clockwise."""
    for polygon in area.geoms:
        oriented = shapely.orient_polygons(polygon)
        yield shapely.get_coordinates(oriented.exterior)
        for hole in oriented.interiors:
            yield shapely.get_coordinates(hole)


def read_box(text: str) -> Box:
    """A bounding box ``west,south,east,north``; west > east crosses the antimeridian.

    Raises:
        QueryError: if it is not one.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 6:
        raise QueryError("bbox has six numbers; this data has no heights, so write west,south,east,north")
    if len(numbers) != 4:
        raise QueryError(f"bbox={text[:80]!r} is not four numbers west,south,east,north")
    return check_box(numbers)


def check_box(numbers: Sequence[float]) -> Box:
    """A box of four numbers, its east moved past its west.

    Raises:
        QueryError: if a number is off the Earth, south > north, or it is wider than a whole turn.
    """
    west, south, east, north = numbers
    check_place(west, south)
    check_place(east, north)
    if south > north:
        raise QueryError(f"bbox has south {south:g} above north {north:g}; write west,south,east,north")
    if east < west:
        east += TURN
    if not east - west <= TURN or east < west:
        raise QueryError(f"bbox spans {east - west:g} degrees of longitude; it may span 360 at most")
    return west, south, east, north


def _wkt(text: str, most: int, what: str, wanted: str) -> BaseGeometry:
    # counted before it is parsed: a vertex is followed by a comma
    count = text.count(",") + 1
    if count > most:
        raise RequestTooLarge(f"coords has {count} {what}; at most {most} are allowed in one request")
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            geometry = shapely.from_wkt(text)
    except (shapely.errors.ShapelyError, TypeError, ValueError):
        raise QueryError(f"coords={text[:80]!r} is not well-known text; write {wanted}") from None
    if geometry.has_z:
        raise QueryError("coords has heights; this data has none, so write longitude and latitude only")
    found: BaseGeometry = geometry
    return found


def _called(geometry: BaseGeometry) -> str:
    name = geometry.geom_type.upper()
    article = "an" if name[0] in "AEIOU" else "a"
    return f"an empty {name}" if geometry.is_empty else f"{article} {name}"
