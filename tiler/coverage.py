"""Answers of the data queries - points, grids, means over an area - as CoverageJSON, GeoJSON and CSV.

Numbers have the places that they are stored with (``tiler.numbers``); a missing value is ``null`` (in CSV: nothing),
never NaN.
References: OGC 21-069r2 (CoverageJSON), RFC 7946 (GeoJSON), RFC 4180 (CSV); NetCDF is in ``tiler.netcdf``.
"""

import copy
import csv
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic_core import to_json
from shapely.geometry import MultiPolygon

from services.core import stac
from services.core.product import Product
from services.core.quantity import Quantity, unit_label
from services.core.time_axis import TimeAxis
from tiler.cells import Cells
from tiler.geometry import Place, rings
from tiler.numbers import is_whole, mean_numbers, numbers, rounded

type Document = dict[str, Any]

FOREIGN = "cenote"
"""Member of a body that tells what its values are made of."""

MOST_BOUNDS = 10_000
"""Periods above which a CoverageJSON time axis leaves its bounds out; the step tells them."""

LINES_AT_ONCE = 65_536
"""Cells of a map whose lines of CSV are held at a time, 300 bytes each."""

VALID_SHARE = "_valid_share"
"""Ending of the series that tells how much of an area was valid."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What the values of answers are made of, whatever was asked for of them; what it says is worked out once."""

    product: Product
    version: str
    models: dict[str, str]
    """Model name -> sha256."""

    time: TimeAxis
    """The periods of the answers."""

    quantities: tuple[Quantity, ...]

    @cached_property
    def instants(self) -> list[str]:
        """The time of each period."""
        return stac.instants(self.time.instants)

    @cached_property
    def time_axis(self) -> Document:
        """The periods as a CoverageJSON axis."""
        axis: Document = {"values": self.instants}
        if len(self.time) <= MOST_BOUNDS:
            axis["bounds"] = stac.instants(self.time.bounds.ravel())
        return axis

    @cached_property
    def origin(self) -> Document:
        """Collection, version and what else a body says before the query."""
        product = self.product
        return {
            "collection": product.id,
            "title": product.title,
            "version": self.version,
            "models": self.models,
            "synthetic": product.synthetic,
            "license": product.license,
            "step": product.step,
        }

    @cached_property
    def ancillary(self) -> dict[str, list[str]]:
        """Quantity -> those here that qualify it."""
        here = {other.name for other in self.quantities}
        found = {
            quantity.name: [name for name in stac.ancillary_names(self.product, quantity) if name in here]
            for quantity in self.quantities
        }
        return {name: names for name, names in found.items() if names}

    @cached_property
    def parameters(self) -> Document:
        """CoverageJSON ``parameters``, and a group for each quantity that comes with ancillary ones."""
        parameters: Document = {}
        for quantity in self.quantities:
            described = stac.parameter(self.product, quantity)
            parameters[quantity.name] = {
                "type": "Parameter",
                "id": quantity.name,
                "label": {"en": quantity.long_name},
                "observedProperty": {
                    **({"id": described["observedProperty"]["id"]} if "id" in described["observedProperty"] else {}),
                    "label": {"en": quantity.long_name},
                },
                "unit": {"label": {"en": unit_label(quantity.units)}, "symbol": described["unit"]["symbol"]},
                **{key: value for key, value in described.items() if key.startswith("cenote:")},
            }
        groups = [
            {"type": "ParameterGroup", "label": {"en": f"{name} and what qualifies it"}, "members": [name, *names]}
            for name, names in self.ancillary.items()
        ]
        return {"parameters": parameters, **({"parameterGroups": groups} if groups else {})}


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the values of an answer are made of, and what was asked for."""

    contents: Contents
    query: dict[str, Any]

    @property
    def product(self) -> Product:
        """The collection's product."""
        return self.contents.product

    @property
    def time(self) -> TimeAxis:
        """The periods of the answer."""
        return self.contents.time

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The quantities of the answer."""
        return self.contents.quantities

    def metadata(self) -> Document:
        """What a body says of its origin."""
        contents = self.contents
        found = {**contents.origin, "query": self.query, "ancillary": contents.ancillary}
        if contents.product.citation:
            found["citation"] = contents.product.citation
        return found


class Spot(NamedTuple):
    """A place that was asked for and the cell that holds it."""

    asked: Place
    longitude: float
    """Centre of the cell."""

    latitude: float
    distance_km: float
    """From the place to the centre, along a great circle."""

    def to_json(self) -> Document:
        """What a body says of it."""
        return {
            "asked": {"longitude": self.asked[0], "latitude": self.asked[1]},
            "cell": {"longitude": self.longitude, "latitude": self.latitude},
            "distance_km": round(self.distance_km, 3),
        }


@dataclass(frozen=True, kw_only=True)
class Points:
    """Series at places."""

    source: Source
    spots: tuple[Spot, ...]
    values: dict[str, NDArray[Any]]
    """Quantity -> stored values ``(place, time)``."""

    several: bool
    """Whether several places were asked for, though it may be one."""

    ids: tuple[str | int | None, ...] = ()
    """Of the features that the places came as; empty where they came as none."""


@dataclass(frozen=True, kw_only=True)
class Raster:
    """Maps of some cells."""

    source: Source
    cells: Cells
    inside: NDArray[np.bool_] | None
    """``(y, x)``: which cells were asked for; None is all."""

    values: dict[str, NDArray[Any]]
    """Quantity -> stored values ``(time, y, x)``, missing outside."""


@dataclass(frozen=True, kw_only=True)
class Zonal:
    """Means over an area."""

    source: Source
    area: MultiPolygon
    area_km2: float
    means: dict[str, NDArray[np.float64]]
    """Quantity -> ``(time,)``, NaN where nothing of the area was valid."""

    valid_share: dict[str, NDArray[np.float64]]
    """Quantity -> share of the area that was valid ``(time,)``, 0..1."""

    error: dict[str, float]
    """Quantity -> how far a mean may lie from that of full resolution, in its unit; 0: it is of full resolution."""


def encode(document: Any) -> bytes:
    """JSON in which NaN is null."""
    return to_json(document, inf_nan_mode="null")


# CoverageJSON


def coverage_json(answer: Points | Raster | Zonal) -> bytes:
    """A Coverage, or a CoverageCollection where several places were asked for."""
    match answer:
        case Points():
            return encode(_points_coverage(answer))
        case Raster():
            return encode(_raster_coverage(answer))
        case Zonal():
            return encode(_zonal_coverage(answer))


def _points_coverage(answer: Points) -> Document:
    source = answer.source
    ids = answer.ids or (None,) * len(answer.spots)
    coverages = [
        _point_coverage(source, spot, _listed(answer, place), named)
        for place, (spot, named) in enumerate(zip(answer.spots, ids, strict=True))
    ]
    if not answer.several:
        return _alone(source, coverages[0], answer.spots[0])
    return {
        "type": "CoverageCollection",
        "domainType": "PointSeries",
        "coverages": coverages,
        **source.contents.parameters,
        FOREIGN: source.metadata(),
    }


def _listed(answer: Points, place: int) -> dict[str, list[Any]]:
    """Quantity -> the series of a place as numbers."""
    return {
        quantity.name: numbers(quantity, answer.values[quantity.name][place]) for quantity in answer.source.quantities
    }


def _point_coverage(
    source: Source, spot: Spot, listed: dict[str, list[Any]], named: str | int | None = None
) -> Document:
    return {
        "type": "Coverage",
        **({} if named is None else {"id": str(named)}),
        "domain": {
            "type": "Domain",
            "domainType": "PointSeries",
            "axes": {
                "x": {"values": [spot.longitude]},
                "y": {"values": [spot.latitude]},
                "t": source.contents.time_axis,
            },
            "referencing": _REFERENCING,
        },
        "ranges": {
            quantity.name: _range(
                "integer" if is_whole(quantity) else "float", ["t"], [len(source.time)], listed[quantity.name]
            )
            for quantity in source.quantities
        },
        FOREIGN: spot.to_json(),
    }


def _alone(source: Source, coverage: Document, spot: Spot) -> Document:
    """The coverage of the only place."""
    return {**coverage, **source.contents.parameters, FOREIGN: {**source.metadata(), **spot.to_json()}}


def _raster_coverage(answer: Raster) -> Document:
    source, cells = answer.source, answer.cells
    shape = [len(source.time), cells.height, cells.width]
    half_x, half_y = float(cells.grid.step_x) / 2, float(cells.grid.step_y) / 2
    return {
        "type": "Coverage",
        "domain": {
            "type": "Domain",
            "domainType": "Grid",
            "axes": {
                "x": _space_axis(cells.longitudes, half_x, 3 * 180.0),
                "y": _space_axis(cells.latitudes, half_y, 90.0),
                "t": source.contents.time_axis,
            },
            "referencing": _REFERENCING,
        },
        **source.contents.parameters,
        "ranges": {
            quantity.name: _range(
                "integer" if is_whole(quantity) else "float",
                ["t", "y", "x"],
                shape,
                numbers(quantity, answer.values[quantity.name].ravel()),
            )
            for quantity in source.quantities
        },
        FOREIGN: source.metadata(),
    }


def _zonal_coverage(answer: Zonal) -> Document:
    source = answer.source
    shape = [len(source.time)]
    domain: Document = {"type": "Domain", "axes": {"t": source.contents.time_axis}, "referencing": _REFERENCING}
    if len(answer.area.geoms) == 1:
        # CoverageJSON has no domain for one value over several polygons: then the geometry stands in the metadata only
        domain["domainType"] = "PolygonSeries"
        domain["axes"]["composite"] = {
            "dataType": "polygon",
            "coordinates": ["x", "y"],
            "values": [[ring.tolist() for ring in rings(answer.area)]],
        }
    parameters = copy.deepcopy(source.contents.parameters)
    ranges: Document = {}
    for quantity in source.quantities:
        name, share = quantity.name, f"{quantity.name}{VALID_SHARE}"
        parameters["parameters"][name]["description"] = {"en": mean_said(quantity)}
        parameters["parameters"][share] = {
            "type": "Parameter",
            "observedProperty": {"label": {"en": share_said(quantity)}},
            "unit": {"label": {"en": "1"}, "symbol": {"value": "1", "type": stac.UDUNITS}},
        }
        ranges[name] = _range("float", ["t"], shape, mean_numbers(quantity, answer.means[name]))
        ranges[share] = _range("float", ["t"], shape, rounded(answer.valid_share[name], SHARE_DECIMALS))
    return {
        "type": "Coverage",
        "domain": domain,
        **parameters,
        "ranges": ranges,
        FOREIGN: {**source.metadata(), **_zone(answer)},
    }


SHARE_DECIMALS = 6


def mean_said(quantity: Quantity) -> str:
    """What the mean of a quantity is, in words."""
    said = f"{quantity.long_name}: mean over the area, weighted by the area of each cell inside it on the sphere"
    if quantity.role == "uncertainty":
        return f"{said}; it is the uncertainty of the mean only if errors are fully correlated, else an upper bound"
    return said


def share_said(quantity: Quantity) -> str:
    """What the valid share of a quantity is, in words."""
    return f"{quantity.long_name}: share of the area that had valid values"


def _zone(answer: Zonal) -> Document:
    return {**_summed(answer), "geometry": _geojson(answer.area)}


def _summed(answer: Zonal) -> Document:
    """How the means were made; an error is rounded up."""
    error = {name: math.ceil(value * 1e6) / 1e6 for name, value in answer.error.items()}
    return {"aggregate": "mean", "area_km2": round(answer.area_km2, 3), "largest_error": error}


_REFERENCING: list[Document] = [
    {"coordinates": ["x", "y"], "system": {"type": "GeographicCRS", "id": stac.CRS84}},
    {"coordinates": ["t"], "system": {"type": "TemporalRS", "calendar": "Gregorian"}},
]


def _space_axis(centres: NDArray[np.float64], half: float, limit: float) -> Document:
    edges = np.stack([centres - half, centres + half], axis=1)
    if len(centres) > 1 and centres[0] > centres[-1]:
        edges = edges[:, ::-1]
    # to 1e-12 degrees, a millionth of a millimetre: sums of floats do not end in 9s then
    return {
        "values": np.round(centres, 12).tolist(),
        "bounds": np.round(np.clip(edges, -limit, limit), 12).ravel().tolist(),
    }


def _range(data_type: str, axes: Sequence[str], shape: Sequence[int], values: list[Any]) -> Document:
    return {"type": "NdArray", "dataType": data_type, "axisNames": axes, "shape": shape, "values": values}


# GeoJSON


def geojson(answer: Points | Raster | Zonal) -> bytes:
    """A FeatureCollection: a feature per place, per cell (only those asked for), or for the area.

    Each feature holds ``datetime`` (an array) and one array per quantity in the same order; ``parameters`` tells units.
    """
    match answer:
        case Points():
            features = _point_features(answer)
        case Raster():
            features = _cell_features(answer)
        case Zonal():
            features = [_zonal_feature(answer)]
    return encode(_features(answer.source, features))


def _features(source: Source, features: list[Document]) -> Document:
    return {
        "type": "FeatureCollection",
        "features": features,
        "numberReturned": len(features),
        "datetime": source.contents.instants,
        "parameters": stac.parameters(source.product, [quantity.name for quantity in source.quantities]),
        FOREIGN: source.metadata(),
    }


def _point_features(answer: Points) -> list[Document]:
    return [
        _point_feature(
            answer.source,
            spot,
            _listed(answer, place),
            place if not answer.ids or answer.ids[place] is None else answer.ids[place],
        )
        for place, spot in enumerate(answer.spots)
    ]


def _point_feature(source: Source, spot: Spot, listed: dict[str, list[Any]], named: str | int | None) -> Document:
    return {
        "type": "Feature",
        "id": named,
        "geometry": {"type": "Point", "coordinates": [spot.longitude, spot.latitude]},
        "properties": {"datetime": source.contents.instants, **listed, **spot.to_json()},
    }


def _cell_features(answer: Raster) -> list[Document]:
    source, cells = answer.source, answer.cells
    half_x, half_y = float(cells.grid.step_x) / 2, float(cells.grid.step_y) / 2
    inside = np.ones(cells.shape, dtype=bool) if answer.inside is None else answer.inside
    features: list[Document] = []
    for row, column in np.argwhere(inside).tolist():
        x, y = float(cells.longitudes[column]), float(cells.latitudes[row])
        south, north = max(y - half_y, -90.0), min(y + half_y, 90.0)
        west, east = (round(edge, 12) for edge in (x - half_x, x + half_x))
        south, north = (round(edge, 12) for edge in (south, north))
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        features.append(
            {
                "type": "Feature",
                "id": len(features),
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {
                    "longitude": round(x, 12),
                    "latitude": round(y, 12),
                    **{
                        quantity.name: numbers(quantity, answer.values[quantity.name][:, row, column])
                        for quantity in source.quantities
                    },
                },
            }
        )
    return features


def _zonal_feature(answer: Zonal) -> Document:
    source = answer.source
    properties: Document = {"datetime": source.contents.instants}
    for quantity in source.quantities:
        properties[quantity.name] = mean_numbers(quantity, answer.means[quantity.name])
        share = rounded(answer.valid_share[quantity.name], SHARE_DECIMALS)
        properties[f"{quantity.name}{VALID_SHARE}"] = share
    return {
        "type": "Feature",
        "id": 0,
        "geometry": _geojson(answer.area),
        "properties": {**properties, **_summed(answer)},
    }


def _geojson(area: MultiPolygon) -> Document:
    geometry: Document = shapely.geometry.mapping(area.geoms[0] if len(area.geoms) == 1 else area)
    return geometry


# One place


def series_document(source: Source, spot: Spot, listed: dict[str, list[Any]], *, is_features: bool) -> Document:
    """What ``coverage_json`` and ``geojson`` encode for the series of the only place.

    Args:
        source: what it is made of.
        spot: the place.
        listed: quantity -> its values as numbers.
        is_features: whether it is to be GeoJSON; else it is CoverageJSON.
    """
    if is_features:
        return _features(source, [_point_feature(source, spot, listed, 0)])
    return _alone(source, _point_coverage(source, spot, listed), spot)


# CSV


def points_csv(answer: Points) -> Iterator[bytes]:
    """A row per place and period; with several places their number comes first, in the order asked."""
    source = answer.source
    head = ["point"] if answer.several else []
    yield _rows([[*head, "longitude", "latitude", "time", *_headings(source)]])
    times = source.contents.instants
    for place, spot in enumerate(answer.spots):
        where = f"{place}," if answer.several else ""
        columns = [_texts(numbers(quantity, answer.values[quantity.name][place])) for quantity in source.quantities]
        yield _lines(f"{where}{spot.longitude},{spot.latitude},", times, columns)


def raster_csv(
    source: Source,
    cells: Cells,
    inside: NDArray[np.bool_] | None,
    blocks: Iterable[tuple[range, dict[str, NDArray[Any]]]],
) -> Iterator[bytes]:
    """A row per period and cell that was asked for, period by period, north to south, west to east.

    Args:
        source: what it is made of.
        cells: the rectangle.
        inside: which of its cells; None is all.
        blocks: places in ``source.time`` and quantity -> stored values ``(time, y, x)``, one run of periods at a time.
    """
    head = _rows([["time", "longitude", "latitude", *_headings(source)]])
    times = source.contents.instants
    chosen = np.ones(cells.shape, dtype=bool) if inside is None else inside
    x, y = ([str(degrees) for degrees in np.round(axis, 12).tolist()] for axis in (cells.longitudes, cells.latitudes))
    down = max(1, LINES_AT_ONCE // cells.width)
    bands = [slice(top, top + down) for top in range(0, cells.height, down)]

    def places(band: slice) -> list[str]:
        rows, columns = np.nonzero(chosen[band])
        return [
            f"{x[column]},{y[band.start + row]}" for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        ]

    alone = places(bands[0]) if len(bands) == 1 else None
    for periods, values in blocks:
        for (number, place), band in itertools.product(enumerate(periods), bands):
            shown = [
                _texts(numbers(quantity, values[quantity.name][number][band][chosen[band]]))
                for quantity in source.quantities
            ]
            lines = _lines(f"{times[place]},", places(band) if alone is None else alone, shown)
            # with the first values, so that who waits for the first part learns whether anything can be read
            yield head + lines
            head = b""


def zonal_csv(answer: Zonal) -> Iterator[bytes]:
    """A row per period: mean and valid share of each quantity."""
    source = answer.source
    headings: list[str] = []
    columns: list[list[str]] = []
    for quantity in source.quantities:
        headings += [f"{quantity.name} [{quantity.units}]", f"{quantity.name}{VALID_SHARE} [1]"]
        columns.append(_texts(mean_numbers(quantity, answer.means[quantity.name])))
        columns.append(_texts(rounded(answer.valid_share[quantity.name], SHARE_DECIMALS)))
    yield _rows([["time", *headings]])
    yield _lines("", source.contents.instants, columns)


def _headings(source: Source) -> list[str]:
    return [f"{quantity.name} [{quantity.units}]" for quantity in source.quantities]


def _texts(values: list[Any]) -> list[str]:
    """Numbers as the csv module writes them; nothing where missing."""
    return ["" if value is None or value != value else str(value) for value in values]  # noqa: PLR0124 - NaN


def _lines(head: str, first: Sequence[str], columns: Sequence[Sequence[str]]) -> bytes:
    """Rows of fields that need no quotes, which the csv module would look for in each of them."""
    rows = map(",".join, zip(first, *columns, strict=True))
    return "".join([f"{head}{row}\r\n" for row in rows]).encode()


def _rows(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
