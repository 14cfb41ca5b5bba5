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
manifest.json                                              seed, size, generator, bytes and sha256 of each file
=========================================================  ============================================================

Global files have their whole shape, and values in the region and its margin; the rest is missing and takes no room.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
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
from services.sample.groundwater import KNOWN, SURROUNDINGS, Coarse, Groundwater, Region, Size, Well
from services.sample.manifest import SYNTHETIC, Progress, generator, replaced, write_set
from services.sample.modes import BASELINE
from services.sample.noise import draws, noise, sphere
from services.sample.solutions import FIRST, LAST, month_name, months_between, solutions

PREDICTOR_MONTHS: dict[Size, tuple[str, str]] = {"small": ("2016-01", "2020-12"), "study": (FIRST, LAST)}
"""First and last month of the monthly predictors; GRACE, GLDAS and wells are always whole."""

CSR_NOISE = 1.0
"""Standard deviation of the errors of a CSR solution, cm; they are alike over about NOISE_LENGTH."""

JPL_NOISE = 1.2
"""Standard deviation of the errors of a JPL mascon, cm, each its own."""

NOISE_LENGTH = 300.0  # km

WELL_NOISE = 0.10
"""Standard deviation of a reading, m."""

_CSR = "CSR_GRACE_GRACE-FO_RL0603_Mascons_all-corrections.nc"
_JPL = "GRCTellus.JPL.200204_202012.GLO.RL06.3M.MSCNv04CRI.nc"
_MASCON = 3  # degrees
_GRACE_FILL = -99999.0
_GLDAS_FILL = -9999.0
_PACKED_FILL = -32767
_NDVI_FILL = -3000
_EARTH_RADIUS = 6371.0  # km

_GENERATOR = (
    "manifest.py",
    "groundwater_files.py",
    "groundwater.py",
    "aquifers.py",
    "modes.py",
    "solutions.py",
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

_SETTINGS = f"""# {SYNTHETIC}
synthetic = true

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
time = "ndvi_{{year}}-{{month}}"

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
    total = len(months) + len(months_between(FIRST, LAST)) + len(_STATIC) + 10
    for name, write in (
        ("gwsa.toml", lambda part: part.write_text(_SETTINGS)),
        ("aquifers.geojson", _write_aquifers),
        ("land_mask.tif", lambda part: _write_land(part, world)),
        *((f"{name}.tif", lambda part, name=name: _write_static(part, name, world)) for name in _STATIC),
        ("precipitation.nc", lambda part: _write_precipitation(part, world, months)),
        ("air_temperature.nc", lambda part: _write_temperature(part, world, months)),
        ("root_zone_soil_moisture.zarr", lambda part: _write_root_zone(part, world, months)),
        *((f"ndvi_{month_name(at)}.tif", lambda part, at=at: _write_ndvi(part, at, world)) for at in months),
        *(
            (f"GLDAS_NOAH025_M.A{month_name(at).replace('-', '')}.021.nc4", lambda part, at=at: _gldas(part, at, world))
            for at in months_between(FIRST, LAST).tolist()
        ),
        (_CSR, lambda part: _write_csr(part, world)),
        (_JPL, lambda part: _write_jpl(part, world)),
        ("wells_sites.csv", lambda part: _write_sites(part, world.wells())),
        ("wells.csv", lambda part: _write_readings(part, world)),
    ):
        with replaced(directory / name) as part:
            write(part)
        yield name, total


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


def _write_ndvi(path: Path, month: int, world: Groundwater) -> None:
    values = world.vegetation(month)
    stored = np.where(np.isnan(values), _NDVI_FILL, np.rint(values * np.float32(1e4))).astype(np.int16)
    grid = world.region.wider(KNOWN).grid(60)
    tags = {"PERIOD": month_name(month)}
    _write_tiff(path, grid, stored, unit="1", name="NDVI", nodata=_NDVI_FILL, scale=0.0001, tags=tags)


def _write_precipitation(path: Path, world: Groundwater, months: list[int]) -> None:
    place = world.region.wider(KNOWN)
    with h5netcdf.File(path, "w") as file:
        file.attrs.update({"Conventions": "CF-1.8", "title": "monthly precipitation", "history": SYNTHETIC})
        latitudes, longitudes = 90 - 0.05 - 0.1 * np.arange(1800), 0.05 + 0.1 * np.arange(3600)
        _axes(file, months, ("lat", latitudes), ("lon", longitudes))
        variable = _variable(file, "precipitation", ("time", "lat", "lon"), np.float32, (1, 60, 60), -9999.0)
        variable.attrs.update({"units": "mm", "long_name": "precipitation of the month", "cell_methods": "time: sum"})
        rows, columns = _at(place, north=90, west=0, cells=10)
        for position, month in enumerate(months):
            variable[position, rows, columns] = world.precipitation(month)


def _write_temperature(path: Path, world: Groundwater, months: list[int]) -> None:
    place = world.region.wider(KNOWN)
    scale, offset = 0.002, 290.0
    with h5netcdf.File(path, "w") as file:
        file.attrs.update({"Conventions": "CF-1.8", "title": "monthly 2 m temperature", "history": SYNTHETIC})
        latitudes = (90 - 0.125 - 0.25 * np.arange(720)).astype(np.float32)
        longitudes = (0.125 + 0.25 * np.arange(1440)).astype(np.float32)
        _axes(file, months, ("latitude", latitudes), ("longitude", longitudes))
        dimensions = ("time", "latitude", "longitude")
        variable = _variable(file, "t2m", dimensions, np.int16, (1, 48, 48), _PACKED_FILL)
        variable.attrs.update(
            {"scale_factor": scale, "add_offset": offset, "units": "K", "long_name": "2 metre temperature"}
        )
        rows, columns = _at(place, north=90, west=0, cells=4)
        for position, month in enumerate(months):
            steps = np.rint((world.temperature(month).astype(np.float64) - offset) / scale)
            variable[position, rows, columns] = steps.astype(np.int16)


def _write_root_zone(path: Path, world: Groundwater, months: list[int]) -> None:
    name, grid = "root_zone_soil_moisture", world.region.wider(KNOWN).grid(10)
    group = zarr.create_group(store=path, zarr_format=3, attributes={"Conventions": "CF-1.8", "history": SYNTHETIC})
    days = np.array(months, dtype="datetime64[M]").astype("datetime64[D]").astype(np.int64)
    for axis, values, attributes in (
        ("time", days, {"units": "days since 1970-01-01", "calendar": "standard", "standard_name": "time"}),
        ("latitude", grid.latitudes, {"units": "degrees_north", "standard_name": "latitude"}),
        ("longitude", grid.longitudes, {"units": "degrees_east", "standard_name": "longitude"}),
    ):
        group.create_array(
            axis, data=np.asarray(values), dimension_names=(axis,), chunks=(len(values),), attributes=attributes
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
        array[start : start + len(some)] = np.stack([world.root_zone(month) for month in some])


# -- GLDAS


def _gldas(path: Path, month: int, world: Groundwater) -> None:
    name = month_name(month)
    place = world.region.wider(SURROUNDINGS)
    rows, columns = _at(place, north=90, west=-180, cells=4)
    upward = slice(600 - rows.stop, 600 - rows.start)
    first, after = (np.datetime64(name, "M") + late for late in (0, 1))
    days = [(day.astype("datetime64[D]") - np.datetime64("2000-01-01", "D")).astype(float) for day in (first, after)]
    with h5netcdf.File(path, "w") as file:
        file.attrs.update(
            {
                "missing_value": np.float32(_GLDAS_FILL),
                "title": "GLDAS2.1 LIS land surface model output monthly mean",
                "source": "Noah_v3.6",
                "institution": SYNTHETIC,
                "conventions": "CF-1.6",
            }
        )
        file.dimensions = {"time": 1, "bnds": 2, "lat": 600, "lon": 1440}
        time = file.create_variable("time", ("time",), data=np.array(days[:1]))
        time.attrs.update(
            {
                "units": "days since 2000-01-01 00:00:00",
                "long_name": "time",
                "begin_date": name.replace("-", "") + "01",
                "begin_time": "000000",
                "bounds": "time_bnds",
            }
        )
        file.create_variable("time_bnds", ("time", "bnds"), data=np.array([days]))
        for axis, values, unit in (
            ("lat", -59.875 + 0.25 * np.arange(600), "degrees_north"),
            ("lon", -179.875 + 0.25 * np.arange(1440), "degrees_east"),
        ):
            file.create_variable(axis, (axis,), data=values.astype(np.float32)).attrs["units"] = unit
        for quantity, water in world.gldas(month).items():
            dimensions = ("time", "lat", "lon")
            variable = _variable(file, quantity, dimensions, np.float32, (1, 40, 40), _GLDAS_FILL)
            variable.attrs.update({"units": "kg m-2", "cell_methods": "time: mean"})
            variable[0, upward, columns] = np.where(np.isnan(water), np.float32(_GLDAS_FILL), water)[::-1]


# -- GRACE


def csr_errors(world: Groundwater) -> Coarse:
    """What CSR's solutions are off the truth: cm, ``(solution, y, x)`` as ``Groundwater.twsa``, mean 0 over 2004-2009."""
    lattice = world.region.wider(SURROUNDINGS).grid(4)
    points = sphere(lattice.longitudes, lattice.latitudes)
    months, _ = solutions()
    errors = np.stack(
        [
            noise(
                points,
                seed=world.seed,
                name=f"csr {month_name(month)}",
                frequency=_EARTH_RADIUS / NOISE_LENGTH,
                octaves=1,
            )
            for month in months
        ]
    )
    return CSR_NOISE * _less_baseline(errors.astype(np.float64), months)


def _write_csr(path: Path, world: Groundwater) -> None:
    months, days = solutions()
    storage = np.stack([world.twsa(month) for month in months.tolist()])
    storage = _less_baseline(storage, months) + csr_errors(world)
    rows, columns = _at(world.region.wider(SURROUNDINGS), north=90, west=0, cells=4)
    with h5netcdf.File(path, "w") as file:
        file.attrs.update(
            {
                "Conventions": "CF-1.6",
                "title": "CSR GRACE and GRACE-FO RL06.3 Mascon Solutions",
                "institution": SYNTHETIC,
                "time_epoch": "2002-01-01T00:00:00Z",
            }
        )
        _grace_axes(file, days, height=720, step=0.25, units="Units")
        variable = _variable(file, "lwe_thickness", ("time", "lat", "lon"), np.float32, (32, 48, 48), _GRACE_FILL)
        variable.attrs.update({"units": "cm", "long_name": "Liquid_Water_Equivalent_Thickness"})
        variable[:, 720 - rows.stop : 720 - rows.start, columns] = storage[:, ::-1].astype(np.float32)


def _write_jpl(path: Path, world: Groundwater) -> None:
    months, days = solutions()
    place = world.region.wider(SURROUNDINGS)
    storage = np.stack([world.twsa(month) for month in months.tolist()])
    fine = place.grid(4)
    # each 0.25 degree cell's mascon, numbered from the south-west
    row = np.floor((fine.latitudes + 90) / _MASCON).astype(int)
    column = np.floor((fine.longitudes + 180) / _MASCON).astype(int)
    _, mascon = np.unique(row[:, None] * (360 // _MASCON) + column[None, :], return_inverse=True)
    count = int(mascon.max()) + 1
    area = np.broadcast_to(fine.row_areas[:, None], mascon.shape).ravel()
    whole = np.bincount(mascon.ravel(), weights=area, minlength=count)
    on_mascons = np.stack(
        [np.bincount(mascon.ravel(), weights=area * values.ravel(), minlength=count) / whole for values in storage]
    )
    errors = draws(len(months) * count, seed=world.seed, name="jpl").reshape(len(months), count)
    values = _less_baseline(on_mascons + JPL_NOISE * errors, months)
    stated = JPL_NOISE * (1 + 0.2 * np.abs(draws(count, seed=world.seed, name="jpl uncertainty")))
    rows, columns = _at(place, north=90, west=0, cells=2)
    upward, cells = slice(360 - rows.stop, 360 - rows.start), mascon[::2, ::2][::-1]
    with h5netcdf.File(path, "w") as file:
        file.attrs.update(
            {
                "Conventions": "CF-1.6, ACDD-1.3, ISO 8601",
                "title": "JPL GRACE and GRACE-FO MASCON RL06.3Mv04 CRI",
                "institution": SYNTHETIC,
                "time_epoch": "2002-01-01T00:00:00Z",
            }
        )
        _grace_axes(file, days, height=360, step=0.5, units="units")
        for name, filled in (("lwe_thickness", values), ("uncertainty", np.broadcast_to(stated, values.shape))):
            variable = _variable(file, name, ("time", "lat", "lon"), np.float64, (32, 24, 24), _GRACE_FILL)
            variable.attrs.update({"units": "cm", "long_name": name})
            variable[:, upward, columns] = filled[:, cells]


def _grace_axes(file: h5netcdf.File, days: NDArray[np.float64], *, height: int, step: float, units: str) -> None:
    """As the centres write them: south up, longitudes 0..360, middles of the solutions; CSR writes ``Units``."""
    file.dimensions = {"time": len(days), "bounds": 2, "lat": height, "lon": 2 * height}
    time = file.create_variable("time", ("time",), data=days.mean(axis=1))
    time.attrs.update({units: "days since 2002-01-01T00:00:00Z", "long_name": "Time", "axis": "T"})
    time.attrs.update({"calendar": "gregorian", "bounds": "time_bounds"})
    file.create_variable("time_bounds", ("time", "bounds"), data=days)
    for axis, values, unit in (
        ("lat", -90 + step / 2 + step * np.arange(height), "degrees_north"),
        ("lon", step / 2 + step * np.arange(2 * height), "degrees_east"),
    ):
        file.create_variable(axis, (axis,), data=values).attrs["units"] = unit


def _less_baseline(values: Coarse, months: NDArray[np.int64]) -> Coarse:
    """Less the mean of 2004-2009, which has all its solutions."""
    held = (months >= BASELINE[0]) & (months <= BASELINE[1])
    less: Coarse = values - values[held].mean(axis=0)
    return less


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
    wells, months = world.wells(), months_between(FIRST, LAST)
    at = np.array([world.cell_of(well.longitude, well.latitude) for well in wells]).T
    storage = np.stack([world.gwsa(month)[at[0], at[1]] for month in months.tolist()], axis=1)
    lines = ["site,time,depth_m"]
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
        (np.array(months, dtype="datetime64[M]") + late).astype("datetime64[h]") - np.datetime64("1900-01-01", "h")
        for late in (0, 1)
    ]
    time = file.create_variable("time", ("time",), data=hours[0].astype(np.int32))
    time.attrs.update({"units": "hours since 1900-01-01 00:00:00", "calendar": "gregorian", "bounds": "time_bnds"})
    file.create_variable("time_bnds", ("time", "bnds"), data=np.stack(hours, axis=1).astype(np.int32))
    for (name, values), unit in ((y, "degrees_north"), (x, "degrees_east")):
        file.create_variable(name, (name,), data=values).attrs["units"] = unit


def _variable(
    file: h5netcdf.File,
    name: str,
    dimensions: tuple[str, ...],
    dtype: type[np.generic],
    chunks: tuple[int, ...],
    fill: float,
) -> Any:
    """A variable of which only the chunks that are written take room."""
    variable = file.create_variable(
        name,
        dimensions,
        dtype=dtype,
        chunks=chunks,
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        fillvalue=dtype(fill),  # type: ignore[call-arg]
    )
    variable.attrs["missing_value"] = dtype(fill)  # type: ignore[call-arg]
    return variable


def _at(place: Region, *, north: int, west: int, cells: int) -> tuple[slice, slice]:
    """Rows, north to south, and columns of a region in a global grid, so many cells to a degree."""
    whole = Region(west=west, south=-90, east=west + 360, north=north)
    return place.within(whole, cells)
