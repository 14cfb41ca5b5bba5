"""The same answers as NetCDF-4 files in memory: stored values with their packing, CF-1.12 attributes, ``time_bnds``."""

import io
from collections.abc import Mapping
from functools import cache
from typing import Any

import h5netcdf
import numpy as np
import rasterio.crs
import shapely
from numpy.typing import NDArray

from services.core import layout, stac
from services.core.quantity import Quantity
from services.core.time_axis import TimeAxis
from tiler.coverage import VALID_SHARE, Points, Raster, Source, Zonal, encode, mean_said, share_said

MEDIA_TYPE = "application/x-netcdf"

_LONGITUDE = {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east"}
_LATITUDE = {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north"}
_COMPRESSED = {"compression": "gzip", "compression_opts": 4, "shuffle": True}


def netcdf(answer: Points | Raster | Zonal) -> bytes:
    """A NetCDF-4 file.

    A raster has the dimensions ``(time, y, x)`` and the names of maps.zarr; points are discrete samplings
    ``(point, time)`` with ``featureType = "timeSeries"``; means are ``(time)``.
    """
    target = io.BytesIO()
    with h5netcdf.File(target, "w") as file:
        _global(file, answer)
        _time(file, answer.source.time)
        match answer:
            case Points():
                _points(file, answer)
            case Raster():
                _raster(file, answer)
            case Zonal():
                _zonal(file, answer)
    return target.getvalue()


def _global(file: Any, answer: Points | Raster | Zonal) -> None:
    source = answer.source
    metadata = source.metadata()
    attributes: dict[str, Any] = {
        **source.product.attributes,
        "Conventions": "CF-1.12",
        "title": source.product.title,
        "summary": source.product.description,
        "license": source.product.license,
        "collection": source.product.id,
        "version": source.contents.version,
        "models": ", ".join(f"{name}@{digest}" for name, digest in source.contents.models.items()) or "none",
        "query": encode(metadata["query"]).decode(),
    }
    if source.product.citation:
        attributes["references"] = source.product.citation
    if source.product.synthetic:
        attributes["comment"] = "synthetic: values were made up for demonstration and are not measurements"
    if isinstance(answer, Points):
        attributes["featureType"] = "timeSeries"
    if isinstance(answer, Zonal):
        attributes["area_wkt"] = shapely.to_wkt(answer.area, rounding_precision=-1)
        attributes["area_km2"] = answer.area_km2
    for name, value in attributes.items():
        file.attrs[name] = value


def _time(file: Any, time: TimeAxis) -> None:
    micro = time.instants.astype(np.int64)
    bounds = time.bounds.astype("datetime64[us]").astype(np.int64)
    whole = bool((micro % 1_000_000 == 0).all())
    unit, scale = ("seconds", 1_000_000) if whole else ("microseconds", 1)
    units = {"units": f"{unit} since 1970-01-01 00:00:00", "calendar": "proleptic_gregorian"}
    file.dimensions["time"] = len(time)
    file.dimensions["bnds"] = 2
    attributes = {**units, "standard_name": "time", "long_name": "time", "axis": "T", "bounds": "time_bnds"}
    _variable(file, "time", ("time",), micro // scale, attributes)
    _variable(file, "time_bnds", ("time", "bnds"), bounds // scale, units)


def _raster(file: Any, answer: Raster) -> None:
    cells = answer.cells
    file.dimensions["y"] = cells.height
    file.dimensions["x"] = cells.width
    _variable(file, "y", ("y",), cells.latitudes, {**_LATITUDE, "axis": "Y"})
    _variable(file, "x", ("x",), cells.longitudes, {**_LONGITUDE, "axis": "X"})
    _grid_mapping(file)
    for quantity in answer.source.quantities:
        attributes = _attributes(answer.source, quantity)
        _variable(
            file,
            quantity.name,
            ("time", "y", "x"),
            answer.values[quantity.name],
            attributes,
            fill=quantity.fill,
            options=_COMPRESSED,
        )


def _points(file: Any, answer: Points) -> None:
    spots = answer.spots
    file.dimensions["point"] = len(spots)
    number = {"long_name": "number of the place in the order asked, from 0", "cf_role": "timeseries_id"}
    _variable(file, "point", ("point",), np.arange(len(spots)), number)
    columns: tuple[tuple[str, list[float], dict[str, str]], ...] = (
        ("x", [spot.longitude for spot in spots], {**_LONGITUDE, "comment": "centre of the cell"}),
        ("y", [spot.latitude for spot in spots], {**_LATITUDE, "comment": "centre of the cell"}),
        ("asked_x", [spot.asked[0] for spot in spots], {"long_name": "longitude asked for", "units": "degrees_east"}),
        ("asked_y", [spot.asked[1] for spot in spots], {"long_name": "latitude asked for", "units": "degrees_north"}),
        (
            "distance",
            [spot.distance_km for spot in spots],
            {"long_name": "from the place to the centre", "units": "km"},
        ),
    )
    for name, values, attributes in columns:
        _variable(file, name, ("point",), np.asarray(values, dtype=np.float64), attributes)
    _grid_mapping(file)
    for quantity in answer.source.quantities:
        attributes_ = {**_attributes(answer.source, quantity), "coordinates": "y x"}
        stored = answer.values[quantity.name]
        _variable(file, quantity.name, ("point", "time"), stored, attributes_, fill=quantity.fill, options=_COMPRESSED)


def _zonal(file: Any, answer: Zonal) -> None:
    for quantity in answer.source.quantities:
        attributes = _attributes(answer.source, quantity)
        for packing in ("scale_factor", "add_offset", "grid_mapping"):
            attributes.pop(packing, None)
        attributes["long_name"] = mean_said(quantity)
        attributes["largest_error"] = answer.error[quantity.name]
        attributes["ancillary_variables"] = " ".join(
            filter(None, [f"{quantity.name}{VALID_SHARE}", attributes.get("ancillary_variables")])
        )
        _variable(file, quantity.name, ("time",), answer.means[quantity.name], attributes, fill=np.float64(np.nan))
        share = {"long_name": share_said(quantity), "units": "1"}
        _variable(file, f"{quantity.name}{VALID_SHARE}", ("time",), answer.valid_share[quantity.name], share)


def _attributes(source: Source, quantity: Quantity) -> dict[str, Any]:
    attributes = layout.cf_attributes(quantity)
    here = {other.name for other in source.quantities}
    names = [name for name in stac.ancillary_names(source.product, quantity) if name in here]
    if names:
        attributes["ancillary_variables"] = " ".join(names)
    return attributes


def _grid_mapping(file: Any) -> None:
    attributes = {
        "grid_mapping_name": "latitude_longitude",
        "geographic_crs_name": "WGS 84",
        "semi_major_axis": 6378137.0,
        "inverse_flattening": 298.257223563,
        "longitude_of_prime_meridian": 0.0,
        "crs_wkt": _wkt(),
        "spatial_ref": _wkt(),
    }
    _variable(file, "spatial_ref", (), np.zeros((), dtype=np.int64), attributes)


@cache
def _wkt() -> str:
    wkt: str = rasterio.crs.CRS.from_epsg(4326).to_wkt()
    return wkt


def _variable(
    file: Any,
    name: str,
    dimensions: tuple[str, ...],
    values: NDArray[Any],
    attributes: Mapping[str, Any],
    *,
    fill: np.generic | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    variable = file.create_variable(name, dimensions, values.dtype, data=values, fillvalue=fill, **(options or {}))
    for key, value in attributes.items():
        variable.attrs[key] = value
