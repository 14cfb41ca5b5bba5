"""A version as STAC: the collection document that also serves OGC API EDR, and its items, as plain dictionaries.

STAC 1.1.0 with the datacube 2.2.0, render 2.0.0, version 1.2.0, projection 2.0.0, raster 2.0.0 and
scientific 1.0.0 extensions.
Nothing here knows the web: whoever serves a document gives the links and says how a storage key becomes an address.
"""

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from services.core import layout
from services.core.catalog import ListedCog, Run, Version, segment_of
from services.core.errors import NotFound, QueryError
from services.core.grid import Grid
from services.core.product import Product
from services.core.quantity import Quantity, unit_label
from services.core.time_axis import Instants, TimeAxis, start_of

STAC_VERSION = "1.1.0"
DATACUBE = "https://stac-extensions.github.io/datacube/v2.2.0/schema.json"
RENDER = "https://stac-extensions.github.io/render/v2.0.0/schema.json"
VERSION = "https://stac-extensions.github.io/version/v1.2.0/schema.json"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
SCIENTIFIC = "https://stac-extensions.github.io/scientific/v1.0.0/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
ZARR_TYPE = "application/vnd.zarr; version=3"

CRS84 = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"
GREGORIAN = "http://www.opengis.net/def/uom/ISO-8601/0/Gregorian"
CF_NAMES = "http://vocab.nerc.ac.uk/standard_name/"
UDUNITS = "https://www.unidata.ucar.edu/software/udunits/"

MOST_TIMES = 1000
"""Times that a collection lists one by one; a longer axis is told as runs ``R<count>/<start>/<step>``."""

type Document = dict[str, Any]
type Link = dict[str, Any]
type Href = Callable[[str], str]
"""Storage key -> address."""


def collection(version: Version, *, links: Sequence[Link], href: Href, times: bool = True) -> Document:
    """The collection document of a version.

    Args:
        version: what is published.
        links: its links, already addressed.
        href: makes the address of an asset from its storage key.
        times: whether its times are listed one by one; without, it stays as short however many there are.
    """
    product = version.product
    document: Document = {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [DATACUBE, RENDER, VERSION],
        "id": product.id,
        "title": product.title,
        "description": product.description,
        "license": product.license,
        "extent": {
            "spatial": {"bbox": [bbox(product.grid)], "crs": CRS84},
            "temporal": {
                "interval": [_interval(version.time)],
                **({"values": _time_values(version.time), "trs": GREGORIAN} if times else {}),
            },
        },
        "version": version.id,
        "experimental": product.synthetic,
        "links": [*links],
        "assets": _zarr_assets(version, href),
        "item_assets": {quantity.name: _cog_fields(quantity) for quantity in product.quantities if version.cogs},
        "cube:dimensions": _dimensions(version, times=times),
        "cube:variables": {quantity.name: _variable(product, quantity) for quantity in product.quantities},
        "renders": renders(version),
        "crs": ["CRS84"],
        "parameter_names": parameters(product),
        "summaries": {"cenote:models": sorted(models(version))},
        "cenote:synthetic": product.synthetic,
        "cenote:models": models(version),
        "cenote:step": product.step,
    }
    if version.scores:
        # each says of itself whether it is of synthetic data
        document["cenote:scores"] = [{"card": digest, **entry} for digest, entry in sorted(version.scores.items())]
    if product.keywords:
        document["keywords"] = list(product.keywords)
    if product.providers:
        document["providers"] = [
            {"name": one.name, "roles": list(one.roles), **({"url": one.url} if one.url else {})}
            for one in product.providers
        ]
    if product.citation:
        document["sci:citation"] = product.citation
        document["stac_extensions"].append(SCIENTIFIC)
    if not document["item_assets"]:
        del document["item_assets"]
    if not document["summaries"]["cenote:models"]:
        del document["summaries"]
    return document


def models(version: Version) -> dict[str, str]:
    """Model name -> sha256 of every model that values of a version come from."""
    found: dict[str, str] = {}
    for _, origin in sorted(version.provenance.items()):
        found.update(origin.get("models", {}))
    return dict(sorted(found.items()))


def parameters(product: Product, names: Iterable[str] | None = None) -> dict[str, Document]:
    """EDR ``parameter_names``: what can be asked for, with units; CoverageJSON's come from the same facts."""
    wanted = None if names is None else set(names)
    return {
        quantity.name: parameter(product, quantity)
        for quantity in product.quantities
        if wanted is None or quantity.name in wanted
    }


def parameter(product: Product, quantity: Quantity) -> Document:
    """One EDR parameter; ancillary quantities name what they qualify, and are named by it."""
    observed: Document = {"label": quantity.long_name}
    if quantity.standard_name:
        observed["id"] = f"{CF_NAMES}{quantity.standard_name}/"
    document: Document = {
        "type": "Parameter",
        "id": quantity.name,
        "label": quantity.long_name,
        "data-type": "integer" if quantity.is_integer and not quantity.is_packed else "float",
        "unit": {"label": unit_label(quantity.units), "symbol": {"value": quantity.units, "type": UDUNITS}},
        "observedProperty": observed,
        "measurementType": {"method": quantity.cell_methods or "not stated", "duration": product.step},
        "cenote:role": quantity.role,
    }
    if quantity.ancillary_of:
        document["cenote:ancillary_of"] = quantity.ancillary_of
    ancillary = ancillary_names(product, quantity)
    if ancillary:
        document["cenote:ancillary"] = ancillary
    return document


def ancillary_names(product: Product, quantity: Quantity) -> list[str]:
    """Names of the quantities that qualify one."""
    return [other.name for other in product.quantities if other.ancillary_of == quantity.name]


def renders(version: Version) -> Document:
    """How each quantity is drawn where a request does not say (render extension)."""
    found: Document = {}
    for quantity in version.product.quantities:
        entry: Document = {"title": quantity.long_name, "assets": [quantity.name if version.cogs else "maps"]}
        style = version.style(quantity)
        entry |= {"rescale": [[style.minimum, style.maximum]], "colormap_name": style.colormap_name}
        found[quantity.name] = entry
    return found


def bbox(grid: Grid) -> list[float]:
    """West, south, east, north, each in -180..180; west > east where the grid crosses the antimeridian (RFC 7946)."""
    west, south, east, north = grid.bounds
    return [_wrapped(west), south, east - 360.0 if east > 180.0 else east, north]


def footprint(grid: Grid) -> Document:
    """The grid's outline as GeoJSON, cut at the antimeridian (RFC 7946, 3.1.9)."""
    west, south, east, north = bbox(grid)
    if west < east:
        return {"type": "Polygon", "coordinates": [_ring(west, south, east, north)]}
    return {
        "type": "MultiPolygon",
        "coordinates": [[_ring(west, south, 180.0, north)], [_ring(-180.0, south, east, north)]],
    }


def _wrapped(longitude: float) -> float:
    # the first column of a node grid may begin half a cell before -180
    return longitude + 360.0 if longitude < -180.0 else longitude


def _ring(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def instant(moment: np.datetime64) -> str:
    """RFC 3339 UTC, without a fraction where it is zero."""
    return instants(np.asarray([moment]))[0]


def instants(moments: Instants) -> list[str]:
    """RFC 3339 UTC of each, with microseconds where one of them has a fraction of a second."""
    micro = moments.astype("datetime64[us]")
    whole = bool((micro.astype(np.int64) % 1_000_000 == 0).all())
    return [f"{text}Z" for text in np.datetime_as_string(micro, unit="s" if whole else "us").tolist()]


def last_second(end: np.datetime64) -> str:
    """The last second of a half-open period: STAC intervals are closed."""
    return instant(end.astype("datetime64[s]") - np.timedelta64(1, "s"))


def _interval(time: TimeAxis) -> list[str | None]:
    if not len(time):
        return [None, None]
    return [instant(time.bounds[0, 0]), last_second(time.bounds[-1, 1])]


def _time_values(time: TimeAxis) -> list[str]:
    if len(time) <= MOST_TIMES:
        return instants(time.instants)
    return [
        f"R{count}/{instant(np.datetime64(start_of(first, time.step), time.step.unit))}/{time.step}"
        for first, count in time.to_json()["runs"]
    ]


def _dimensions(version: Version, *, times: bool) -> Document:
    grid, time = version.product.grid, version.time
    west, south, east, north = (float(edge) for edge in (grid.west, grid.south, grid.east, grid.north))
    even = len(time) > 1 and time.starts[-1] - time.starts[0] == (len(time) - 1) * time.step.count
    temporal: Document = {
        "type": "temporal",
        "extent": _interval(time),
        "step": str(time.step) if even else None,
        "description": f"periods of {time.step}; missing ones are absent",
    }
    if times and 0 < len(time) <= MOST_TIMES:
        temporal["values"] = instants(time.instants)
    return {
        "x": {
            "type": "spatial",
            "axis": "x",
            "extent": [west, east],
            "step": float(grid.step_x),
            "reference_system": 4326,
        },
        "y": {
            "type": "spatial",
            "axis": "y",
            "extent": [south, north],
            "step": float(grid.step_y),
            "reference_system": 4326,
        },
        "time": temporal,
    }


def _variable(product: Product, quantity: Quantity) -> Document:
    return {
        "type": "data" if quantity.role == "value" else "auxiliary",
        "dimensions": ["time", "y", "x"],
        "description": quantity.long_name,
        "unit": quantity.units,
        **({"cenote:ancillary": names} if (names := ancillary_names(product, quantity)) else {}),
    }


def _zarr_assets(version: Version, href: Href) -> Document:
    assets: Document = {}
    groups: tuple[tuple[str, tuple[Run, ...], str, list[str]], ...] = (
        ("maps", version.maps, "maps at all levels", ["data", "overview"]),
        ("series", version.series, "the same values, contiguous in time", ["data"]),
    )
    for name, runs, said, roles in groups:
        for run in runs:
            key = f"{layout.segment_prefix(version.product.id, run.segment)}{name}.zarr"
            ids = run.periods.ids
            covers = f"{ids[0]} to {ids[-1]}" if len(ids) > 1 else ids[0]
            assets[name if len(runs) == 1 else f"{name}-{_plain(ids[0])}"] = {
                "href": href(key),
                "type": ZARR_TYPE,
                "title": f"Zarr: {said}, {covers}",
                "roles": roles,
                "cenote:key": key,
            }
    return assets


def _cog_fields(quantity: Quantity) -> Document:
    fields: Document = {
        "type": COG_TYPE,
        "title": quantity.long_name,
        "roles": ["data"],
        "data_type": quantity.dtype,
        "nodata": "nan" if quantity.fill_value is None else quantity.fill_value,
        "unit": quantity.units,
    }
    if quantity.is_packed:
        fields["raster:scale"] = 1.0 if quantity.scale_factor is None else quantity.scale_factor
        fields["raster:offset"] = 0.0 if quantity.add_offset is None else quantity.add_offset
    return fields


def _plain(name: str) -> str:
    return name.replace(":", "")


@dataclass(frozen=True, kw_only=True)
class Span:
    """What one item tells of: consecutive periods, and the files that hold them."""

    id: str
    """Item id."""

    first: int
    """Position of its first period."""

    last: int
    """Position of its last period."""

    cogs: tuple[ListedCog, ...]
    """A file for each quantity; empty where the product has no COGs."""


class Items:
    """The items of a version in the order of time: one for each span of its COG files, else one for each period.

    Args:
        version: whose.
    """

    def __init__(self, version: Version) -> None:
        self.version = version

    @cached_property
    def _spans(self) -> tuple[Span, ...]:
        places = {name: place for place, name in enumerate(self.version.time.ids)}
        groups: dict[str, list[ListedCog]] = {}
        for one in self.version.cogs:
            groups.setdefault(one.cog.id, []).append(one)
        spans = [
            Span(
                id=_plain(name),
                first=min(places[period] for one in members for period in one.cog.periods),
                last=max(places[period] for one in members for period in one.cog.periods),
                cogs=tuple(members),
            )
            for name, members in groups.items()
        ]
        return tuple(sorted(spans, key=lambda span: span.first))

    @cached_property
    def _firsts(self) -> list[int]:
        return [span.first for span in self._spans]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {span.id: number for number, span in enumerate(self._spans)}

    def __len__(self) -> int:
        return len(self._spans) if self.version.cogs else len(self.version.time)

    def __getitem__(self, number: int) -> Span:
        if self.version.cogs:
            return self._spans[number]
        return Span(id=_plain(self.version.time.ids[number]), first=number, last=number, cogs=())

    def touching(self, positions: range) -> range:
        """Numbers of the items that hold one of these consecutive positions."""
        if not self.version.cogs or not positions:
            return positions
        low = max(bisect.bisect_right(self._firsts, positions.start) - 1, 0)
        while low < len(self._spans) and self._spans[low].last < positions.start:
            low += 1
        return range(low, max(bisect.bisect_left(self._firsts, positions.stop), low))

    def number(self, name: str) -> int:
        """Number of the item with an id.

        Raises:
            NotFound: if there is none.
        """
        time = self.version.time
        found: int | None = None
        if self.version.cogs:
            found = self._numbers.get(name)
        else:
            try:
                start = start_of(name, time.step)
            except QueryError:
                start = None
            if start is not None:
                place = bisect.bisect_left(time.starts, start)
                if place < len(time) and time.starts[place] == start and _plain(time.ids[place]) == name:
                    found = place
        if found is None:
            raise NotFound(f"collection {self.version.product.id!r} has no item {name!r}")
        return found

    def document(self, number: int, *, links: Sequence[Link], href: Href) -> Document:
        """The item document.

        Args:
            number: which, in the order of time.
            links: its links, already addressed.
            href: makes the address of an asset from its storage key.
        """
        span, product, time = self[number], self.version.product, self.version.time
        positions = range(span.first, span.last + 1)
        properties: Document = {
            # the time of a single period; null (with start and end) for a span of several
            "datetime": instant(time.instants[span.first]) if span.first == span.last else None,
            "start_datetime": instant(time.bounds[span.first, 0]),
            "end_datetime": last_second(time.bounds[span.last, 1]),
            "title": f"{product.title}, {span.id}",
            "version": self.version.id,
            "proj:code": "EPSG:4326",
            "proj:shape": list(product.grid.shape),
            "proj:transform": list(product.grid.transform),
            "cenote:periods": [time.ids[position] for position in positions],
            "cenote:synthetic": product.synthetic,
            "renders": renders(self.version),
        }
        extensions = [VERSION, PROJECTION, RENDER]
        if any(product.quantity(one.cog.quantity).is_packed for one in span.cogs):
            extensions.append(RASTER)
        return {
            "type": "Feature",
            "stac_version": STAC_VERSION,
            "stac_extensions": extensions,
            "id": span.id,
            "collection": product.id,
            "geometry": footprint(product.grid),
            "bbox": bbox(product.grid),
            "properties": properties,
            "links": [*links],
            "assets": self._assets(span, href),
        }

    def _assets(self, span: Span, href: Href) -> Document:
        product = self.version.product
        assets: Document = {}
        for one in span.cogs:
            key = f"{layout.segment_prefix(product.id, one.segment)}{one.cog.path}"
            assets[one.cog.quantity] = {
                "href": href(key),
                **_cog_fields(product.quantity(one.cog.quantity)),
                "bands": [{"name": period} for period in one.cog.periods],
                "cenote:key": key,
            }
        if not span.cogs:
            segment = self._map_segments[self.version.time.starts[span.first]]
            key = f"{layout.segment_prefix(product.id, segment)}maps.zarr"
            assets["maps"] = {
                "href": href(key),
                "type": ZARR_TYPE,
                "title": "Zarr that holds this period's maps",
                "roles": ["data"],
                "cenote:key": key,
            }
        return assets

    @cached_property
    def _map_segments(self) -> dict[int, str]:
        return segment_of(self.version.maps)
