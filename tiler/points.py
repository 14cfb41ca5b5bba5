"""Series at up to thousands of places in one request, each chunk being read once."""

import re
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.core import stac
from services.core.errors import QueryError, RequestTooLarge
from tiler.body import Body, read_json
from tiler.coverage import FOREIGN, Points, encode, points_csv
from tiler.edr import (
    CELL_JSON_BYTES,
    VALUE_JSON_BYTES,
    DataQuery,
    FromData,
    answer_places,
    data_query_of,
    series_at,
)
from tiler.formats import POINTS_FORMATS, Format, answer
from tiler.geometry import Place, check_place
from tiler.numbers import json_rows
from tiler.request import COLLECTION, INSTANCE, FromPath
from tiler.state import State

WANTED = 'a GeoJSON FeatureCollection of Points, or {"coords": [[lon, lat], ...]}'

type Kind = Annotated[
    str | None,
    Query(alias="f", description="Encoding: JSON (plain arrays), CSV, CoverageJSON, GeoJSON or NetCDF."),
]


def points_query(request: Request, served: FromPath, given: FromData, f: Kind = None) -> DataQuery:
    """What a batch of points has in common with the other data queries."""
    return data_query_of(request, served, given, f, POINTS_FORMATS)


def router(state: State) -> APIRouter:  # noqa: ARG001 - every router of the app is made from the state
    """``points`` of the current and of named versions."""
    routes = APIRouter(tags=["points"])
    for prefix, suffix in ((COLLECTION, ""), (INSTANCE, "OfVersion")):
        routes.add_api_route(
            f"{prefix}/points", points, methods=["POST"], response_class=Response, operation_id=f"points{suffix}"
        )
    return routes


def points(request: Request, asked: Annotated[DataQuery, Depends(points_query)], body: Body) -> Response:
    """Series at many places, answered in the order asked.

    The body is a GeoJSON FeatureCollection of Points, or `{"coords": [[lon, lat], ...]}`. Ids of features come back in
    JSON, GeoJSON and CoverageJSON; CSV and NetCDF number the places from 0 in the order asked.
    """
    places, ids = read_body(read_json(body), most=asked.settings.max_places_post)
    asked = replace(asked, query={**asked.query, "points": len(places)})
    if asked.kind not in {Format.JSON, Format.CSV}:
        return answer_places(request, asked, places, several=True, ids=tuple(ids))
    bytes_each = len(asked.positions) * VALUE_JSON_BYTES * len(asked.quantities) + CELL_JSON_BYTES
    found = series_at(request, asked, places, several=True, bytes_each=bytes_each)
    name = f"{asked.served.id}_points"
    return answer(points_csv(found) if asked.kind is Format.CSV else plain_json(found, ids), asked.kind, name)


def read_body(document: Any, *, most: int) -> tuple[list[Place], list[str | int | None]]:
    """Places and the ids of their features, in order; heights are left out.

    Raises:
        QueryError: if it is neither of the two forms.
        RequestTooLarge: if there are more than ``most`` places.
    """
    ids: list[str | int | None]
    match document:
        case {"coords": list(coordinates)} if len(document) == 1:
            ids = [None] * len(coordinates)
        case {"type": "FeatureCollection", "features": list(features)}:
            coordinates = [_coordinates(number, feature) for number, feature in enumerate(features)]
            ids = [feature.get("id") if isinstance(feature.get("id"), str | int) else None for feature in features]
        case _:
            raise QueryError(f"the body must be {WANTED}")
    if not coordinates:
        raise QueryError(f"the body names no place; it must be {WANTED}")
    if len(coordinates) > most:
        raise RequestTooLarge(
            f"the body has {len(coordinates)} places and at most {most} are answered at once: send them in parts"
        )
    return [_place(number, pair) for number, pair in enumerate(coordinates)], ids


def _coordinates(number: int, feature: Any) -> Any:
    match feature:
        case {"geometry": {"type": "Point", "coordinates": coordinates}}:
            return coordinates
    raise QueryError(f"feature {number} (from 0) is not a Feature with a Point; the body must be {WANTED}")


def _place(number: int, pair: Any) -> Place:
    is_numbers = isinstance(pair, list) and all(
        isinstance(part, int | float) and not isinstance(part, bool) for part in pair
    )
    if not is_numbers or len(pair) not in {2, 3}:
        raise QueryError(f"place {number} (from 0) is not [longitude, latitude] in degrees")
    try:
        return check_place(float(pair[0]), float(pair[1]))
    except (QueryError, OverflowError) as error:
        raise QueryError(f"place {number} (from 0): {error}") from None


def plain_json(found: Points, ids: list[str | int | None]) -> bytes:
    """Plain arrays: ``time`` once, and for each place the values of each variable in its order.

    All but the values is written in one go around numbers that stand for them: values have quicker writers.
    """
    source = found.source
    rows = [json_rows(quantity, found.values[quantity.name]) for quantity in source.quantities]
    values = {quantity.name: _HOLE for quantity in source.quantities}
    around = encode(
        {
            "time": stac.instants(source.time.instants),
            "parameters": stac.parameters(source.product, [quantity.name for quantity in source.quantities]),
            "points": [
                {**({} if ids[number] is None else {"id": ids[number]}), **spot.to_json(), "values": values}
                for number, spot in enumerate(found.spots)
            ],
            FOREIGN: source.metadata(),
        }
    )
    # with a whole name before it: in texts, which may come from outside, the quote behind a name is escaped
    names = b"|".join(quantity.name.encode() for quantity in source.quantities)
    pieces = re.split(rb'("(?:' + names + rb')":)' + re.escape(encode(_HOLE)), around)
    parts = [pieces[0]]
    every = (row for place in zip(*rows, strict=True) for row in place)
    for row, name, behind in zip(every, pieces[1::2], pieces[2::2], strict=True):
        parts += name, row, behind
    return b"".join(parts)


_HOLE = 1.2345678909876543e300
"""Stands for the values of a place and quantity; nothing that is said of a place or a product is as large."""
