"""The metadata of a segment's Zarr arrays: GeoZarr, CF and consolidated, as the bytes of each object.

Conventions: GeoZarr multiscales, spatial and proj (their UUIDs are fixed by their specifications), CF-1.12.
"""

import base64
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from services.core import layout
from services.core.grid import Grid
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.segment import ArrayLayout
from services.core.time_axis import TimeAxis

MULTISCALES = {"uuid": "d35379db-88df-4056-af3a-620245f8e347", "name": "multiscales", "schema_version": "v1"}
SPATIAL = {"uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "name": "spatial:", "schema_version": "v1"}
PROJ = {"uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f", "name": "proj:", "schema_version": "v1"}

VALID_FRACTION_FULL = 255
"""Stored value of a wholly valid cell; 1 is the least that is not wholly missing, 254 the most that is not whole."""


@dataclass(frozen=True, kw_only=True)
class ArrayPlan:
    """One sharded array of a segment."""

    path: str
    """Below the segment."""

    layout: ArrayLayout
    metadata: dict[str, Any]
    """Its zarr.json."""

    @property
    def fill(self) -> np.generic:
        """The missing value as a scalar of the stored type."""
        scalar: np.generic = np.dtype(self.layout.dtype).type(self.layout.fill)
        return scalar


def map_arrays(product: Product, periods: TimeAxis) -> Iterator[ArrayPlan]:
    """Every array of maps.zarr: each quantity at each level, and its valid fraction above level 0."""
    for level in range(product.grid.levels):
        grid = product.grid.level(level)
        chunk, shard = layout.map_chunks(product, grid)
        for quantity in product.quantities:
            shape = (len(periods), grid.height, grid.width)
            extra = _ancillary(product, quantity, level)
            yield _quantity_array(layout.maps_path(level, quantity.name), quantity, shape, chunk, shard, extra)
            if level:
                depth = 1 if product.fixed_mask else len(periods)
                yield _fraction_array(
                    quantity,
                    level,
                    (depth, *grid.shape),
                    (1 if product.fixed_mask else chunk[0], *chunk[1:]),
                    (1 if product.fixed_mask else shard[0], *shard[1:]),
                    fixed=product.fixed_mask,
                )


def series_arrays(product: Product, periods: TimeAxis) -> Iterator[ArrayPlan]:
    """Every array of series.zarr."""
    if product.series_block is None:
        return
    chunk, shard = layout.series_chunks(product)
    for quantity in product.quantities:
        shape = (len(periods), *product.grid.shape)
        yield _quantity_array(
            layout.series_path(quantity.name), quantity, shape, chunk, shard, _ancillary(product, quantity, 0)
        )


def metadata_objects(product: Product, maps: TimeAxis, series: TimeAxis | None) -> dict[str, bytes]:
    """Path below the segment -> bytes, for everything but the shards: zarr.json files and coordinates."""
    objects: dict[str, bytes] = {}
    arrays = list(map_arrays(product, maps))
    root: dict[str, Any] = {}
    for level in range(product.grid.levels):
        grid = product.grid.level(level)
        inside: dict[str, Any] = {}
        for array in arrays:
            parent, _, name = array.path.rpartition("/")
            if parent == f"maps.zarr/{level}":
                inside[name] = array.metadata
                objects[f"{array.path}/zarr.json"] = layout.canonical(array.metadata)
        for name, (metadata, chunk) in coordinates(grid, maps, fixed_mask=product.fixed_mask and level > 0).items():
            inside[name] = metadata
            objects[f"maps.zarr/{level}/{name}/zarr.json"] = layout.canonical(metadata)
            objects[f"maps.zarr/{level}/{name}/{_only_chunk(metadata)}"] = chunk
        group = _group({**global_attributes(product), **_spatial(grid)}, inside)
        objects[f"maps.zarr/{level}/zarr.json"] = layout.canonical(group)
        root[str(level)] = _group({**global_attributes(product), **_spatial(grid)}, None)
        root.update({f"{level}/{name}": metadata for name, metadata in inside.items()})
    objects["maps.zarr/zarr.json"] = layout.canonical(
        _group({**global_attributes(product), **_multiscales(product.grid)}, root)
    )
    if series is not None and product.series_block is not None:
        members: dict[str, Any] = {}
        for array in series_arrays(product, series):
            members[array.path.rpartition("/")[2]] = array.metadata
            objects[f"{array.path}/zarr.json"] = layout.canonical(array.metadata)
        for name, (metadata, chunk) in coordinates(product.grid, series, fixed_mask=False).items():
            members[name] = metadata
            objects[f"series.zarr/{name}/zarr.json"] = layout.canonical(metadata)
            objects[f"series.zarr/{name}/{_only_chunk(metadata)}"] = chunk
        attributes = {**global_attributes(product), **_spatial(product.grid)}
        objects["series.zarr/zarr.json"] = layout.canonical(_group(attributes, members))
    return objects


type Coordinate = tuple[NDArray[Any], tuple[str, ...], dict[str, Any]]
"""Values, dimensions and CF attributes."""


def coordinates(grid: Grid, periods: TimeAxis, *, fixed_mask: bool) -> dict[str, tuple[dict[str, Any], bytes]]:
    """Coordinate name -> its zarr.json and its one chunk."""
    described = coordinate_values(grid, periods)
    if fixed_mask:
        first = described["time"][0][:1]
        described["mask_time"] = (first, ("mask_time",), {"long_name": "a mask that holds for all times"})
    return {name: _plain(*one) for name, one in described.items()}


def coordinate_values(grid: Grid, periods: TimeAxis) -> dict[str, Coordinate]:
    """Coordinates of maps by name: time with its bounds, y, x, and the grid mapping."""
    bounds = periods.bounds.astype("datetime64[s]").astype(np.int64)
    micro = periods.instants.astype(np.int64)
    whole = bool((micro % 1_000_000 == 0).all())
    scale, unit = (1_000_000, "seconds") if whole else (1, "microseconds")
    time_attributes = {
        "standard_name": "time",
        "long_name": "time",
        "axis": "T",
        "units": f"{unit} since 1970-01-01 00:00:00",
        "calendar": "proleptic_gregorian",
        "bounds": "time_bnds",
    }
    ends = bounds if whole else bounds * 1_000_000
    return {
        "time": (micro // scale, ("time",), time_attributes),
        "time_bnds": (ends, ("time", "bnds"), {"units": time_attributes["units"], "calendar": "proleptic_gregorian"}),
        "y": (
            grid.latitudes,
            ("y",),
            {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north", "axis": "Y"},
        ),
        "x": (
            grid.longitudes,
            ("x",),
            {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east", "axis": "X"},
        ),
        "spatial_ref": (np.zeros((), dtype=np.int64), (), _grid_mapping(grid)),
    }


def _grid_mapping(grid: Grid) -> dict[str, Any]:
    a, b, c, d, e, f = grid.transform
    return {
        "grid_mapping_name": "latitude_longitude",
        "geographic_crs_name": "WGS 84",
        "semi_major_axis": 6378137.0,
        "inverse_flattening": 298.257223563,
        "longitude_of_prime_meridian": 0.0,
        "crs_wkt": WGS84_WKT,
        "spatial_ref": WGS84_WKT,
        "GeoTransform": f"{c!r} {a!r} {b!r} {f!r} {d!r} {e!r}",
    }


def global_attributes(product: Product) -> dict[str, Any]:
    """What is said of a whole group or file, as CF names it."""
    attributes: dict[str, Any] = {
        **product.attributes,
        "Conventions": "CF-1.12",
        "title": product.title,
        "summary": product.description,
        "license": product.license,
        "id": product.id,
    }
    if product.citation:
        attributes["references"] = product.citation
    if product.synthetic:
        attributes["comment"] = "synthetic: values were made up for demonstration and are not measurements"
    return attributes


def _spatial(grid: Grid) -> dict[str, Any]:
    return {
        "zarr_conventions": [SPATIAL, PROJ],
        "proj:code": "EPSG:4326",
        "spatial:dimensions": ["y", "x"],
        "spatial:transform": list(grid.transform),
        "spatial:shape": list(grid.shape),
        "spatial:bbox": [float(grid.west), float(grid.south), float(grid.east), float(grid.north)],
        "spatial:registration": "pixel",
    }


def _multiscales(grid: Grid) -> dict[str, Any]:
    scales: list[dict[str, Any]] = []
    for level in range(grid.levels):
        at = grid.level(level)
        entry: dict[str, Any] = {
            "asset": str(level),
            "spatial:shape": list(at.shape),
            "spatial:transform": list(at.transform),
            "transform": {"scale": [2.0**level] * 2, "translation": [0.0, 0.0]},
        }
        if level:
            entry["derived_from"] = "0"
        scales.append(entry)
    spatial = _spatial(grid)
    spatial["zarr_conventions"] = [MULTISCALES, SPATIAL, PROJ]
    return {**spatial, "multiscales": {"layout": scales, "resampling_method": "average"}}


def _ancillary(product: Product, quantity: Quantity, level: int) -> list[str]:
    names = [other.name for other in product.quantities if other.ancillary_of == quantity.name]
    return [*names, layout.valid_fraction(quantity.name)] if level else names


def _quantity_array(
    path: str,
    quantity: Quantity,
    shape: tuple[int, int, int],
    chunk: tuple[int, int, int],
    shard: tuple[int, int, int],
    ancillary: list[str],
) -> ArrayPlan:
    attributes = layout.cf_attributes(quantity)
    if ancillary:
        attributes["ancillary_variables"] = " ".join(ancillary)
    fill: float = float("nan") if quantity.fill_value is None else int(quantity.fill_value)
    attributes["_FillValue"] = _fill_attribute(quantity.fill_value)
    return _sharded(path, quantity.dtype, fill, shape, chunk, shard, attributes)


def _fraction_array(
    quantity: Quantity,
    level: int,
    shape: tuple[int, int, int],
    chunk: tuple[int, int, int],
    shard: tuple[int, int, int],
    *,
    fixed: bool,
) -> ArrayPlan:
    attributes = {
        "long_name": f"share of the cell's area where {quantity.long_name} is valid",
        "units": "1",
        "scale_factor": 1 / VALID_FRACTION_FULL,
        "add_offset": 0.0,
        "cell_methods": "area: mean",
        "grid_mapping": "spatial_ref",
        "coordinates": "spatial_ref",
    }
    # 0 is both "nothing valid" and the fill of a chunk left out: the two say the same, so no _FillValue is set
    path = layout.maps_path(level, layout.valid_fraction(quantity.name))
    return _sharded(path, "uint8", 0, shape, chunk, shard, attributes, "mask_time" if fixed else "time")


def _sharded(
    path: str,
    dtype: str,
    fill: float,
    shape: tuple[int, int, int],
    chunk: tuple[int, int, int],
    shard: tuple[int, int, int],
    attributes: dict[str, Any],
    first: str = "time",
) -> ArrayPlan:
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shard)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if fill != fill else fill,  # noqa: PLR0124 - NaN
        "codecs": layout.codecs(dtype, chunk),
        "attributes": attributes,
        "dimension_names": [first, "y", "x"],
        "storage_transformers": [],
    }
    described = ArrayLayout(shape=shape, dtype=dtype, chunk=chunk, shard=shard, fill=fill)
    return ArrayPlan(path=path, layout=described, metadata=metadata)


def _fill_attribute(fill: float | None) -> str | int:
    # xarray writes and expects a float _FillValue of Zarr v3 as base64 of a little-endian double
    if fill is None:
        return base64.standard_b64encode(struct.pack("<d", float("nan"))).decode()
    return int(fill)


def _plain(
    values: NDArray[Any], dimensions: tuple[str, ...], attributes: dict[str, Any]
) -> tuple[dict[str, Any], bytes]:
    body = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(values.shape),
        "data_type": values.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(n, 1) for n in values.shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "attributes": attributes,
        "dimension_names": list(dimensions),
        "storage_transformers": [],
    }
    return metadata, body + google_crc32c.value(body).to_bytes(4, "little")


def _only_chunk(metadata: dict[str, Any]) -> str:
    return "/".join(["c", *("0" for _ in metadata["shape"])])


def _group(attributes: dict[str, Any], members: dict[str, Any] | None) -> dict[str, Any]:
    document: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    if members is not None:
        document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": members}
    return document


WGS84_WKT = (
    'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,AUTHORITY["EPSG","7030"]],'
    'AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,AUTHORITY["EPSG","8901"]],UNIT["degree",0.0174532925199433,'
    'AUTHORITY["EPSG","9122"]],AXIS["Latitude",NORTH],AXIS["Longitude",EAST],AUTHORITY["EPSG","4326"]]'
)
