"""Writes the groundwater of the sample Earth as the missions' and users' files: what product ``gwsa`` reads.

=========================================================  ============================================================
CSR_GRACE_GRACE-FO_RL0603_Mascons_all-corrections.nc       192 solutions, 0.25 degree, cm, south up, longitudes 0..360
GRCTellus.JPL.200204_202012.GLO.RL06.3M.MSCNv04CRI.nc      the same months, constant on 3 degree mascons, uncertainty
GLDAS_NOAH025_M.AYYYYMM.021.nc4                            soil moisture, snow, canopy water, kg m-2, south up
land_mask.tif                                              1/120 degree
elevation.tif slope.tif sand.tif irrigated.tif             predictors that stay, 1/120 degree
ndvi_YYYY-MM.tif                                           1/60 degree, int16 x 0.0001
precipitation.nc                                           0.1 degree, mm, longitudes 0..360, latitudes falling
air_temperature.nc                                         0.25 degree, K, packed int16, longitudes 0..360
root_zone_soil_moisture.zarr                               0.1 degree, m3 m-3, Zarr version 3
aquifers.geojson                                           three polygons
wells.csv, wells_sites.csv                                 depth to water, m; places and specific yields
gwsa.toml                                                  what is what
footprint.toml                                             what drives the climate's part of a trend, and irrigation
manifest.json                                              seed, size, generator, bytes and sha256 of each file
=========================================================  ============================================================

Global files have their whole shape, and values in the region and its margin; the rest is missing and takes no room.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import rasterio
import zarr
from numpy.typing import NDArray
from rasterio.transform import Affine

from services.core.grid import Grid
from services.sample.aquifers import AQUIFERS
from services.sample.groundwater import KNOWN, Groundwater, Size
from services.sample.groundwater_missions import CSR, JPL, write_csr, write_gldas, write_jpl
from services.sample.groundwater_seen import Seen
from services.sample.groundwater_wells import Well, wells_of
from services.sample.manifest import SYNTHETIC, Progress, generator, replaced, write_set
from services.sample.noise import draws
from services.sample.solutions import FIRST, LAST, month_name, month_starts, months_between
from services.sample.sparse import cells_of, variable_of

PREDICTOR_MONTHS: dict[Size, tuple[str, str]] = {"small": ("2016-01", "2020-12"), "study": (FIRST, LAST)}
"""First and last month of the monthly predictors; GRACE, GLDAS and wells are always whole."""

WELL_NOISE = 0.10
"""Standard deviation of a reading, m."""

_PACKED_FILL = -32767
_NDVI_FILL = -3000

_GENERATOR = (
    "manifest.py",
    "groundwater_files.py",
    "groundwater.py",
    "groundwater_missions.py",
    "groundwater_seen.py",
    "groundwater_wells.py",
    "aquifers.py",
    "modes.py",
    "solutions.py",
    "sparse.py",
    "earth.py",
    "noise.py",
    "natural_earth_land.tif",
)

_STATIC = {
    "elevation": ("m", "int16", 1.0, -32768),
    "slope": ("degree", "float32", 1.0, -9999.0),
    "sand": ("1", "float32", 1.0, -9999.0),
    "irrigated": ("1", "uint8", 0.01, 255),
}
"""Unit, type as stored, scale, missing."""

AREA = 2
"""Degrees around the region that are balanced: what decides about a cell at its edge lies in them."""

_SETTINGS = f"""# {SYNTHETIC}
synthetic = true
area = [{{west}}, {{south}}, {{east}}, {{north}}]

[grace]
files = "CSR_GRACE*.nc"

[grace.other]
files = "GRCTellus*.nc"

[gldas]
files = "GLDAS_NOAH025_M.A*.nc4"

[land]
files = "land_mask.tif"

[regions]
files = "aquifers.geojson"
name = "name"

[[predictors]]
name = "elevation"
files = "elevation.tif"
units = "m"

[[predictors]]
name = "slope"
files = "slope.tif"
units = "degree"

[[predictors]]
name = "sand"
files = "sand.tif"
units = "1"

[[predictors]]
name = "irrigated"
files = "irrigated.tif"
units = "1"

[[predictors]]
name = "ndvi"
files = "ndvi_*.tif"
units = "1"
monthly = true
time = "ndvi_{{{{year}}}}-{{{{month}}}}"

[[predictors]]
name = "precipitation"
files = "precipitation.nc"
variable = "precipitation"
units = "mm"
monthly = true

[[predictors]]
name = "air_temperature"
files = "air_temperature.nc"
variable = "t2m"
units = "K"
monthly = true

[[predictors]]
name = "root_zone_soil_moisture"
files = "root_zone_soil_moisture.zarr"
variable = "root_zone_soil_moisture"
units = "m3 m-3"
monthly = true

[wells]
files = "wells.csv"
sites = "wells_sites.csv"
measures = "depth"
units = "m"
specific_yield = 0.15
"""

_FOOTPRINT = f"""# {SYNTHETIC}
least = 0.5

[[climate]]
name = "precipitation"
files = "precipitation.nc"
variable = "precipitation"
units = "mm"

[proxy]
name = "irrigated"
files = "irrigated.tif"
units = "1"
least = 0.25
"""


def write_groundwater(
    directory: Path,
    size: Size = "small",
    progress: Progress | None = None,
    *,
    seed: int = Groundwater().seed,
    months: tuple[str, str] | None = None,
) -> Path:
    """Write the input directory of product ``gwsa``, or keep what is already as it would be written.

    Args:
        directory: made if it is not there; other files in it are left alone.
        size: ``small`` is 6 x 5 degrees with monthly predictors of 60 months, ``study`` 10 x 8 degrees with all 225.
        progress: told of every step.
        seed: of the Earth.
        months: first and last month of the monthly predictors instead of the size's.

    Returns:
        The directory.
    """
    span = months or PREDICTOR_MONTHS[size]
    world = Groundwater(size, seed=seed)
    made_from = {
        "generator": generator(*_GENERATOR),
        "seed": seed,
        "size": size,
        "region": asdict(world.region),
        "months": list(span),
    }
    write_set(directory, made_from, lambda: _write_all(directory, world, months_between(*span).tolist()), progress)
    return directory


def _write_all(directory: Path, world: Groundwater, months: list[int]) -> Iterator[tuple[str, int]]:
    tasks = dict(_tasks(world, Seen(world=world), months))
    for name, write in tasks.items():
        with replaced(directory / name) as part:
            write(part)
        yield name, len(tasks)


def _tasks(world: Groundwater, seen: Seen, months: list[int]) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Each file and what writes it."""
    settings = _SETTINGS.format(**asdict(world.region.wider(AREA)))
    yield "gwsa.toml", lambda part: part.write_text(settings)
    yield "footprint.toml", lambda part: part.write_text(_FOOTPRINT)
    yield "aquifers.geojson", _write_aquifers
    yield "land_mask.tif", partial(_write_land, world=world)
    for name in _STATIC:
        yield f"{name}.tif", partial(_write_static, name=name, world=world)
    yield "precipitation.nc", partial(_write_precipitation, seen=seen, months=months)
    yield "air_temperature.nc", partial(_write_temperature, seen=seen, months=months)
    yield "root_zone_soil_moisture.zarr", partial(_write_root_zone, seen=seen, months=months)
    for month in months:
        yield f"ndvi_{month_name(month)}.tif", partial(_write_ndvi, month=month, seen=seen)
    for month in months_between(FIRST, LAST).tolist():
        name = f"GLDAS_NOAH025_M.A{month_name(month).replace('-', '')}.021.nc4"
        yield name, partial(write_gldas, month=month, seen=seen)
    yield CSR, partial(write_csr, seen=seen)
    yield JPL, partial(write_jpl, seen=seen)
    yield "wells_sites.csv", partial(_write_sites, wells=wells_of(world))
    yield "wells.csv", partial(_write_readings, world=world)


# -- rasters


def _write_tiff(path: Path, grid: Grid, values: NDArray[Any], *, unit: str, name: str, **profile: Any) -> None:
    scale, tags = profile.pop("scale", 1.0), profile.pop("tags", {})
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=grid.width,
        height=grid.height,
        count=1,
        dtype=values.dtype.name,
        crs="EPSG:4326",
        transform=Affine(*grid.transform),
        tiled=True,
        blockxsize=256,
        blockysize=256,
        compress="DEFLATE",
        zlevel=1,
        predictor=3 if values.dtype.kind == "f" else 2,
        **profile,
    ) as dataset:
        dataset.write(values, 1)
        dataset.set_band_description(1, name)
        dataset.set_band_unit(1, unit)
        if scale != 1:
            dataset.scales = [scale]
        dataset.update_tags(NOTE=SYNTHETIC, **tags)


def _write_land(path: Path, world: Groundwater) -> None:
    grid = world.region.wider(KNOWN).grid(120)
    _write_tiff(path, grid, world.land.astype(np.uint8), unit="1", name="land")


def _write_static(path: Path, name: str, world: Groundwater) -> None:
    unit, dtype, scale, fill = _STATIC[name]
    values = getattr(world, name) / np.float32(scale)
    stored = np.where(world.land, values if dtype == "float32" else np.rint(values), fill).astype(dtype)
    grid = world.region.wider(KNOWN).grid(120)
    _write_tiff(path, grid, stored, unit=unit, name=name, nodata=fill, scale=scale)


def _write_ndvi(path: Path, month: int, seen: Seen) -> None:
    values = seen.vegetation(month)
    stored = np.where(np.isnan(values), _NDVI_FILL, np.rint(values * np.float32(1e4))).astype(np.int16)
    grid = seen.world.region.wider(KNOWN).grid(60)
    tags = {"PERIOD": month_name(month)}
    _write_tiff(path, grid, stored, unit="1", name="NDVI", nodata=_NDVI_FILL, scale=0.0001, tags=tags)


def _write_precipitation(path: Path, seen: Seen, months: list[int]) -> None:
    place = seen.world.region.wider(KNOWN)
    with h5netcdf.File(path, "w") as file:
        file.attrs.update({"Conventions": "CF-1.8", "title": "monthly precipitation", "history": SYNTHETIC})
        latitudes, longitudes = 90 - 0.05 - 0.1 * np.arange(1800), 0.05 + 0.1 * np.arange(3600)
        _axes(file, months, ("lat", latitudes), ("lon", longitudes))
        variable = variable_of(file, "precipitation", ("time", "lat", "lon"), np.float32, (1, 60, 60), -9999.0)
        variable.attrs.update({"units": "mm", "long_name": "precipitation of the month", "cell_methods": "time: sum"})
        rows, columns = cells_of(place, west=0, cells=10)
        for position, month in enumerate(months):
            variable[position, rows, columns] = seen.precipitation(month)


def _write_temperature(path: Path, seen: Seen, months: list[int]) -> None:
    place = seen.world.region.wider(KNOWN)
    scale, offset = 0.002, 290.0
    with h5netcdf.File(path, "w") as file:
        file.attrs.update({"Conventions": "CF-1.8", "title": "monthly 2 m temperature", "history": SYNTHETIC})
        latitudes = (90 - 0.125 - 0.25 * np.arange(720)).astype(np.float32)
        longitudes = (0.125 + 0.25 * np.arange(1440)).astype(np.float32)
        _axes(file, months, ("latitude", latitudes), ("longitude", longitudes))
        dimensions = ("time", "latitude", "longitude")
        variable = variable_of(file, "t2m", dimensions, np.int16, (1, 48, 48), _PACKED_FILL)
        variable.attrs.update(
            {"scale_factor": scale, "add_offset": offset, "units": "K", "long_name": "2 metre temperature"}
        )
        rows, columns = cells_of(place, west=0, cells=4)
        for position, month in enumerate(months):
            steps = np.rint((seen.temperature(month).astype(np.float64) - offset) / scale)
            variable[position, rows, columns] = steps.astype(np.int16)


def _write_root_zone(path: Path, seen: Seen, months: list[int]) -> None:
    name, grid = "root_zone_soil_moisture", seen.world.region.wider(KNOWN).grid(10)
    group = zarr.create_group(store=path, zarr_format=3, attributes={"Conventions": "CF-1.8", "history": SYNTHETIC})
    days = month_starts(np.array(months)).astype(np.int64)
    for axis, values, attributes in (
        ("time", days, {"units": "days since 1970-01-01", "calendar": "standard", "standard_name": "time"}),
        ("latitude", grid.latitudes, {"units": "degrees_north", "standard_name": "latitude"}),
        ("longitude", grid.longitudes, {"units": "degrees_east", "standard_name": "longitude"}),
    ):
        group.create_array(
            axis, data=np.asarray(values), dimension_names=(axis,), chunks=(len(values),), attributes={**attributes}
        )
    array = group.create_array(
        name,
        shape=(len(months), *grid.shape),
        chunks=(min(12, len(months)), *grid.shape),
        dtype=np.float32,
        fill_value=np.nan,
        dimension_names=("time", "latitude", "longitude"),
        attributes={"units": "m3 m-3", "long_name": "volumetric soil moisture of the root zone"},
    )
    for start in range(0, len(months), 12):
        some = months[start : start + 12]
        array[start : start + len(some)] = np.stack([seen.root_zone(month) for month in some])


# -- aquifers and wells


def _write_aquifers(path: Path) -> None:
    features = [
        {
            "type": "Feature",
            "properties": {"name": aquifer.name, "note": SYNTHETIC},
            "geometry": {"type": "Polygon", "coordinates": [aquifer.ring().tolist()]},
        }
        for aquifer in AQUIFERS
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "note": SYNTHETIC, "features": features}) + "\n")


def _write_sites(path: Path, wells: list[Well]) -> None:
    lines = ["site,longitude,latitude,specific_yield"]
    for well in wells:
        place = "," if well.fault == "nowhere" else f"{well.longitude:.5f},{well.latitude:.5f}"
        lines.append(f"{well.name},{place},{well.specific_yield:.3f}")
    path.write_text("\n".join(lines) + "\n")


def _write_readings(path: Path, world: Groundwater) -> None:
    wells, months = wells_of(world), months_between(FIRST, LAST)
    at = np.array([world.cell_of(well.longitude, well.latitude) for well in wells]).T
    storage = np.stack([world.gwsa(month)[at[0], at[1]] for month in months.tolist()], axis=1)
    lines = ["site,time,depth"]
    for well, series in zip(wells, storage, strict=True):
        error, luck = (draws(len(months), seed=world.seed, name=f"{well.name} {what}") for what in ("error", "luck"))
        depth = well.depth - series / 100 / well.specific_yield + WELL_NOISE * error
        seen = luck < 1.2  # seven months in eight
        if well.fault == "short":
            seen = np.arange(len(months)) % 60 == 30
        if well.fault == "step":
            depth[len(months) // 2 :] += 8
        lines.extend(
            f"{well.name},{month_name(month)}-15,{value:.3f}"
            for month, value in zip(months[seen], depth[seen], strict=True)
        )
    path.write_text("\n".join(lines) + "\n")


# -- NetCDF


def _axes(file: h5netcdf.File, months: list[int], y: tuple[str, NDArray[Any]], x: tuple[str, NDArray[Any]]) -> None:
    file.dimensions = {"time": len(months), "bnds": 2, y[0]: len(y[1]), x[0]: len(x[1])}
    hours = [
        month_starts(np.array(months) + late).astype("datetime64[h]") - np.datetime64("1900-01-01", "h")
        for late in (0, 1)
    ]
    time = file.create_variable("time", ("time",), data=hours[0].astype(np.int32))
    time.attrs.update({"units": "hours since 1900-01-01 00:00:00", "calendar": "gregorian", "bounds": "time_bnds"})
    file.create_variable("time_bnds", ("time", "bnds"), data=np.stack(hours, axis=1).astype(np.int32))
    for (name, values), unit in ((y, "degrees_north"), (x, "degrees_east")):
        file.create_variable(name, (name,), data=values).attrs["units"] = unit
