"""OGC API EDR queries over a version: ``position``, ``area`` and ``cube``."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon
from starlette.responses import Response

from services.core import stac
from services.core.errors import PositionOutside, QueryError, RequestTooLarge
from services.core.grid import Grid
from services.core.quantity import Quantity
from services.core.settings import Settings
from tiler.answer import Source as Layout
from tiler.answer import describe
from tiler.body import Body, read_json
from tiler.catalogue import Served
from tiler.cells import MOST_HELD, Cells, cells_touching, columns_touching, read_cells, read_places, time_blocks
from tiler.coverage import (
    LINES_AT_ONCE,
    MOST_BOUNDS,
    Contents,
    Points,
    Raster,
    Source,
    Spot,
    Zonal,
    coverage_json,
    geojson,
    points_csv,
    raster_csv,
    zonal_csv,
)
from tiler.formats import EDR_FORMATS, F, Format, answer, chosen_format
from tiler.geometry import HALF_TURN, TURN, Place, area_of_geojson, read_area, read_box, read_places_text
from tiler.memory import need
from tiler.netcdf import netcdf
from tiler.polygons import EARTH_RADIUS_KM, area_km2, boxes_of, covered_fraction
from tiler.request import COLLECTION, INSTANCE, FromPath, Interval, pick_periods, pick_quantities
from tiler.state import State, state_of
from tiler.zonal import means_over

QUERIES = ("position", "area", "cube")

CRS_NAMES = frozenset(
    {
        "crs84",
        "ogc:crs84",
        "epsg:4326",
        "http://www.opengis.net/def/crs/ogc/1.3/crs84",
        "http://www.opengis.net/def/crs/ogc/0/crs84",
        "http://www.opengis.net/def/crs/epsg/0/4326",
        "https://www.opengis.net/def/crs/ogc/1.3/crs84",
        "https://www.opengis.net/def/crs/epsg/0/4326",
        "urn:ogc:def:crs:ogc:1.3:crs84",
        "urn:ogc:def:crs:epsg::4326",
    }
)

CELL_JSON_BYTES = 300
"""A cell as a GeoJSON feature, without its values."""

VALUE_JSON_BYTES = 9
"""A value in JSON."""

type Names = Annotated[
    str | None,
    Query(alias="parameter-name", description="Variables, separated by commas; all of them where none is named."),
]
type OtherNames = Annotated[str | None, Query(description="The same as `parameter-name`.", include_in_schema=False)]
type Crs = Annotated[
    str | None,
    Query(description="CRS84 or EPSG:4326; coordinates are longitude, latitude in both."),
]
type Coords = Annotated[str, Query(description="Well-known text, longitude first: `POINT(-89.6 20.9)`.")]


@dataclass(frozen=True, kw_only=True)
class DataQuery:
    """What the data queries have in common."""

    served: Served
    quantities: tuple[Quantity, ...]
    positions: range
    kind: Format
    settings: Settings
    query: dict[str, Any]
    """What the client wrote."""

    @property
    def grid(self) -> Grid:
        """Level 0."""
        return self.served.dataset.product.grid

    def source(self, quantities: tuple[Quantity, ...] | None = None) -> Source:
        """What the answer is made of."""
        return Source(
            contents=contents_of(self.served, self.quantities if quantities is None else quantities, self.positions),
            query=self.query,
        )

    def describe(self, request: Request, layout: Layout, *parts: Any) -> None:
        """Set the headers of the answer; a client that holds it is told so before anything is read."""
        describe(
            request,
            self.served,
            source=layout,
            quantities=self.quantities,
            positions=self.positions,
            names_version=True,
            parts=parts,
        )

    @property
    def bytes_each(self) -> int:
        """How long the answer is for each place, about."""
        # a time axis is written once per place: 24 bytes a time and twice that for its bounds
        per_period = 24 if len(self.positions) > MOST_BOUNDS else 72
        return len(self.positions) * (per_period + VALUE_JSON_BYTES * len(self.quantities)) + CELL_JSON_BYTES

    def check_values(self, places: int, what: str, most: int, hint: str = "") -> None:
        """Refuse an answer of too many values.

        Raises:
            RequestTooLarge: naming the numbers and what makes them smaller.
        """
        periods, variables = len(self.positions), len(self.quantities)
        count = places * periods * variables
        most = min(most, self.settings.max_cells)
        if count > most:
            raise RequestTooLarge(
                f"{periods} periods x {places} {what} x {variables} variables are {count} values and at most {most} "
                f"are answered at once: narrow datetime=, parameter-name= or the {what}{hint}"
            )

    def check_bytes(self, count: int) -> None:
        """Refuse an answer that would be longer than allowed.

        Raises:
            RequestTooLarge: naming the encodings that are shorter.
        """
        if (
            self.kind in {Format.COVERAGE_JSON, Format.GEOJSON, Format.JSON}
            and count > self.settings.max_response_bytes
        ):
            raise RequestTooLarge(
                f"the answer would be about {count} bytes long as {self.kind.value} and at most "
                f"{self.settings.max_response_bytes} are sent: ask for f=NetCDF or f=CSV, or for less"
            )

    def hold(self, places: int, count: int) -> None:
        """Take the memory that an answer for so many places, or so many bytes of JSON, needs at its peak (measured)."""
        each = max(quantity.fill.dtype.itemsize for quantity in self.quantities)
        values = places * len(self.positions) * len(self.quantities)
        match self.kind:
            case Format.NETCDF:
                need(values * (2 * each + 24))
            case Format.CSV:
                product = self.served.dataset.product
                block = places * len(self.quantities) * max(product.map_block, product.series_block or 0)
                need(2 * each * min(values, max(MOST_HELD, block)) + 300 * max(LINES_AT_ONCE, len(self.positions)))
            case _:
                need(8 * count)


def contents_of(served: Served, quantities: tuple[Quantity, ...], positions: range) -> Contents:
    """What answers from a version are made of."""
    dataset = served.dataset
    return Contents(
        product=dataset.product,
        version=served.version,
        models=stac.models(dataset.version),
        time=dataset.time.take(positions),
        quantities=quantities,
    )


@dataclass(frozen=True, kw_only=True)
class DataParams:
    """Which periods and variables."""

    datetime: Interval = None
    parameter_name: Names = None
    parameter_names: OtherNames = None
    variable: OtherNames = None
    crs: Crs = None


type FromData = Annotated[DataParams, Depends(DataParams)]


def data_query(request: Request, served: FromPath, given: FromData, f: F = None) -> DataQuery:
    """What position, area and cube have in common."""
    return data_query_of(request, served, given, f, EDR_FORMATS)


def data_query_of(
    request: Request, served: Served, given: DataParams, f: str | None, formats: tuple[Format, ...]
) -> DataQuery:
    """What a route has in common with the other data queries, whatever its encodings.

    Raises:
        QueryError: if a parameter is malformed.
        NotFound: if collection, version, variable or period does not exist.
    """
    crs = given.crs
    if crs is not None and crs.lower() not in CRS_NAMES:
        raise QueryError(f"crs={crs!r} is not served; only CRS84 and EPSG:4326 are (longitude, latitude in degrees)")
    names = given_names(given.parameter_name, given.parameter_names, given.variable)
    return DataQuery(
        served=served,
        quantities=pick_quantities(served, names),
        positions=pick_periods(served, given.datetime),
        kind=chosen_format(f, request.headers.get("accept", ""), formats),
        settings=state_of(request).settings,
        query=dict(request.query_params),
    )


def given_names(*spellings: str | None) -> str | None:
    """The names given under one of the spellings of ``parameter-name``.

    Raises:
        QueryError: if two of them are given.
    """
    given = [names for names in spellings if names is not None]
    if len(given) > 1:
        raise QueryError("variables are named twice; use parameter-name= only")
    return given[0] if given else None


type FromQuery = Annotated[DataQuery, Depends(data_query)]


def router(state: State) -> APIRouter:  # noqa: ARG001 - every router of the app is made from the state
    """``position``, ``area`` and ``cube`` of the current and of named versions."""
    routes = APIRouter(tags=["OGC API EDR"])
    for prefix, suffix in ((COLLECTION, ""), (INSTANCE, "OfVersion")):
        for route in (position, area, cube):
            routes.add_api_route(
                f"{prefix}/{route.__name__}",
                route,
                methods=["GET"],
                response_class=Response,
                operation_id=f"{route.__name__}{suffix}",
            )
        routes.add_api_route(
            f"{prefix}/area",
            area_of_body,
            methods=["POST"],
            response_class=Response,
            operation_id=f"areaOfBody{suffix}",
        )
    return routes


def position(request: Request, asked: FromQuery, coords: Coords) -> Response:
    """Series of the cells that hold one or several places: `POINT(lon lat)` or `MULTIPOINT((lon lat),(lon lat))`.

    Values are those of the cell that contains a place; its centre and the distance to it are told.
    """
    places = read_places_text(coords, most=asked.settings.max_places_get)
    return answer_places(request, asked, places, several="MULTI" in coords.upper())


def area(request: Request, asked: FromQuery, coords: Coords, aggregate: str | None = None) -> Response:
    """Maps of the cells that share ground with a POLYGON or MULTIPOLYGON; `aggregate=mean` gives their mean instead.

    Cells outside are null. A mean is weighted by the part of each cell's area on the sphere that lies inside; with it
    comes the share of the area that was valid. Inside a large area coarser levels are read; `largest_error` in the
    answer's metadata tells how far a mean may lie from that of full resolution (0: it is of full resolution).
    """
    return _answer_area(request, asked, read_area(coords, most=asked.settings.max_vertices), aggregate)


def area_of_body(request: Request, asked: FromQuery, body: Body, aggregate: str | None = None) -> Response:
    """The same for a geometry in the body: a GeoJSON Polygon, MultiPolygon or Feature."""
    geometry = area_of_geojson(read_json(body), most=asked.settings.max_vertices)
    return _answer_area(request, asked, geometry, aggregate)


def cube(
    request: Request,
    asked: FromQuery,
    bbox: Annotated[str, Query(description="west,south,east,north; west > east crosses the antimeridian.")],
) -> Response:
    """Maps of the cells that share ground with a box.

    A box that goes round to the other end of a regional grid leaves cells between its two parts: they are null.
    """
    box = read_box(bbox)
    cells = cells_touching(asked.grid, [box])
    _check_cells(asked, cells)
    columns = columns_touching(cells, box)
    return _answer_cells(request, asked, cells, None if columns.all() else np.broadcast_to(columns, cells.shape))


def spots_of(grid: Grid, places: list[Place]) -> tuple[tuple[Spot, ...], list[tuple[int, int]]]:
    """Each place with the cell that holds it, and the cells as (row, column).

    Raises:
        PositionOutside: if one lies outside the grid; the message says which.
    """
    spots: list[Spot] = []
    cells: list[tuple[int, int]] = []
    for number, (longitude, latitude) in enumerate(places):
        try:
            row, column = grid.locate(longitude, latitude)
        except PositionOutside as error:
            if len(places) == 1:
                raise
            raise PositionOutside(f"place {number} (from 0) of {len(places)}: {error}") from None
        x, y = float(grid.longitudes[column]), float(grid.latitudes[row])
        x = x - TURN if x >= HALF_TURN else x
        cells.append((row, column))
        distance = distance_km((longitude, latitude), (x, y))
        spots.append(Spot(asked=(longitude, latitude), longitude=x, latitude=y, distance_km=distance))
    return tuple(spots), cells


def distance_km(first: Place, second: Place) -> float:
    """Length of the great circle between two places on a sphere (haversine)."""
    x0, y0, x1, y1 = map(math.radians, (*first, *second))
    half = math.sin((y1 - y0) / 2) ** 2 + math.cos(y0) * math.cos(y1) * math.sin((x1 - x0) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(half)))


def series_at(request: Request, asked: DataQuery, places: list[Place], *, several: bool, bytes_each: int) -> Points:
    """Series at places, read chunk by chunk.

    Args:
        request: the request.
        asked: what is wanted at each place.
        places: longitude and latitude in degrees.
        several: whether several places were asked for, though it may be one.
        bytes_each: how long the answer is for each place, about.

    Raises:
        RequestTooLarge: if the answer would pass a cap; nothing has been read then.
        PositionOutside: if a place lies outside the grid.
    """
    asked.check_values(len(places), "places", asked.settings.max_values)
    asked.check_bytes(len(places) * bytes_each)
    asked.hold(len(places), len(places) * bytes_each)
    spots, cells = spots_of(asked.grid, places)
    asked.describe(request, "series")
    values = {
        quantity.name: read_places(asked.served.dataset, quantity, asked.positions, cells)
        for quantity in asked.quantities
    }
    return Points(source=asked.source(), spots=spots, values=values, several=several)


def answer_places(
    request: Request,
    asked: DataQuery,
    places: list[Place],
    *,
    several: bool,
    ids: tuple[str | int | None, ...] = (),
) -> Response:
    """Series at places in one of the EDR encodings; ids are those of the features that the places came as."""
    found = series_at(request, asked, places, several=several, bytes_each=asked.bytes_each)
    return _encoded(asked, replace(found, ids=ids), "position")


def _encoded(asked: DataQuery, found: Points | Raster | Zonal, query: str) -> Response:
    """An answer in the encoding that was asked for."""
    match asked.kind, found:
        case Format.CSV, Points():
            parts = points_csv(found)
            # a place in one piece as from tiler/fast_series.py: compressed it has the same tag, so be it the same bytes
            body: bytes | Iterator[bytes] = parts if found.several else b"".join(parts)
        case Format.CSV, Zonal():
            body = zonal_csv(found)
        case Format.NETCDF, _:
            body = netcdf(found)
        case Format.GEOJSON, _:
            body = geojson(found)
        case _:
            body = coverage_json(found)
    return answer(body, asked.kind, file_name(asked, query))


def _answer_area(request: Request, asked: DataQuery, geometry: MultiPolygon, aggregate: str | None) -> Response:
    if aggregate not in {None, "mean"}:
        raise QueryError(
            f"aggregate={aggregate!r} is not known; aggregate=mean is, and without it the maps are answered"
        )
    if aggregate == "mean":
        return _answer_mean(request, asked, geometry)
    cells = cells_touching(asked.grid, boxes_of(geometry))
    _check_cells(asked, cells)
    return _answer_cells(request, asked, *cells.trimmed(_inside(geometry, cells)))


def _check_cells(asked: DataQuery, cells: Cells) -> None:
    largest = asked.settings.max_cells
    most = largest if asked.kind is Format.CSV else asked.settings.max_values
    hint = f", or ask for f=CSV, which is streamed up to {largest}" if most < largest else ""
    asked.check_values(cells.count, "cells", most, hint)
    per_cell = CELL_JSON_BYTES if asked.kind is Format.GEOJSON else 0
    values = len(asked.positions) * len(asked.quantities)
    count = cells.count * (per_cell + VALUE_JSON_BYTES * values)
    asked.check_bytes(count)
    asked.hold(cells.count, count)


def _answer_cells(request: Request, asked: DataQuery, cells: Cells, inside: NDArray[np.bool_] | None) -> Response:
    asked.describe(request, "maps")
    source = asked.source()
    if asked.kind is Format.CSV:
        body = raster_csv(source, cells, inside, _blocks(asked, cells))
        return answer(body, asked.kind, file_name(asked, "cube"))
    stored: dict[str, NDArray[Any]] = {}
    for quantity in asked.quantities:
        stored[quantity.name] = read_cells(asked.served.dataset, quantity, asked.positions, cells)
        if inside is not None:
            stored[quantity.name][:, ~inside] = quantity.fill
    return _encoded(asked, Raster(source=source, cells=cells, inside=inside, values=stored), "cube")


def _inside(geometry: MultiPolygon, cells: Cells) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = covered_fraction(geometry, cells) > 0
    if not inside.any():
        raise PositionOutside("the area covers no cell of the grid by more than a millionth")
    return inside


def _blocks(asked: DataQuery, cells: Cells) -> Iterator[tuple[range, dict[str, NDArray[Any]]]]:
    """Values of some periods at a time, so that a long answer needs little memory."""
    dataset = asked.served.dataset
    for run in time_blocks(dataset, asked.positions, cells, MOST_HELD // len(asked.quantities)):
        first = run.start - asked.positions.start
        yield (
            range(first, first + len(run)),
            {quantity.name: read_cells(dataset, quantity, run, cells) for quantity in asked.quantities},
        )


def _answer_mean(request: Request, asked: DataQuery, geometry: MultiPolygon) -> Response:
    chosen = tuple(quantity for quantity in asked.quantities if quantity.role != "flag")
    if not chosen:
        raise QueryError(f"{asked.quantities[0].name} is a flag, and flags have no mean")
    asked.describe(request, "maps")
    found = means_over(asked.served.dataset, chosen, asked.positions, geometry, asked.settings.max_cells)
    size = area_km2(geometry)
    # a column is step_x wide, and areas are differences of sines
    km2_per_weight = math.radians(float(asked.grid.step_x)) * EARTH_RADIUS_KM**2
    zonal = Zonal(
        source=asked.source(chosen),
        area=geometry,
        area_km2=size,
        means={name: means.value for name, means in found.items()},
        valid_share={name: np.clip(means.valid * km2_per_weight / size, 0.0, 1.0) for name, means in found.items()},
        error={name: float(means.error.max()) for name, means in found.items()},
    )
    return _encoded(asked, zonal, "mean")


def file_name(asked: DataQuery, query: str) -> str:
    """Name without ending of an answer that is saved."""
    ids = asked.served.dataset.time.ids
    first, last = ids[asked.positions[0]], ids[asked.positions[-1]]
    when = first if first == last else f"{first}_{last}"
    return f"{asked.served.id}_{query}_{when}".replace(":", "")
