"""The real sets as a user would name them, and an independent reading of each: xarray and rasterio, nothing of ours."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import xarray as xr

from services.core.grid import Grid


def opened(path: Path, engine: Any, **options: Any) -> xr.Dataset:
    return xr.open_dataset(path, engine=engine, **options)


def turned(data: xr.Dataset) -> xr.Dataset:
    """0..360 to -180..180, by xarray's own means."""
    name = "lon" if "lon" in data else "longitude"
    return data.assign_coords({name: (data[name].astype("float64") + 180.0 + 1e-4) % 360.0 - 180.0 - 1e-4}).sortby(name)


def north_up(data: xr.DataArray, grid: Grid) -> xr.DataArray:
    """(time, y, x) on the grid by its own coordinates; loaded."""
    return rows_and_columns(on_grid(data, grid))


def rows_and_columns(data: xr.DataArray) -> xr.DataArray:
    """Axes in the order of ours; transposing loads what is lazy."""
    return data.transpose("time", *axes(data)).sortby("time")


def on_grid(data: xr.DataArray, grid: Grid) -> xr.DataArray:
    """Put on the grid by its own coordinates; lazy as it was, its axes in the order they were."""
    chosen: dict[str, slice | np.ndarray[Any, Any]] = {}
    for name, centres in zip(axes(data), (grid.latitudes, grid.longitudes), strict=True):
        places = data.get_index(name).get_indexer(pd.Index(centres), method="nearest", tolerance=1e-3)
        assert (places >= 0).all(), f"{name}: {int((places < 0).sum())} cells of the grid are none of the source"
        steps = set(np.diff(places).tolist())
        # a slice is read far faster than the same places one by one
        if steps == {1}:
            chosen[name] = slice(int(places[0]), int(places[-1]) + 1)
        elif steps == {-1}:
            chosen[name] = slice(int(places[0]), None if places[-1] == 0 else int(places[-1]) - 1, -1)
        else:
            chosen[name] = places
    return data.isel(chosen)


def axes(data: xr.DataArray) -> tuple[str, str]:
    """Names of the latitude and longitude dimensions."""
    latitude, longitude = (next(str(d) for d in data.dims if str(d).startswith(start)) for start in ("lat", "lon"))
    return latitude, longitude


def of_bands(path: Path, times: Any, *, mask_and_scale: bool) -> xr.DataArray:
    """A raster whose bands are times, read by rasterio."""
    with rasterio.Env(GRIB_NORMALIZE_UNITS="NO"), rasterio.open(path) as dataset:
        values, place, (scale, offset) = dataset.read(), dataset.transform, (dataset.scales[0], dataset.offsets[0])
    if mask_and_scale:
        values = values * scale + offset
    rows, columns = (np.arange(size) + 0.5 for size in values.shape[1:])
    coordinates = {"time": times, "latitude": place.f + place.e * rows, "longitude": place.c + place.a * columns}
    return xr.DataArray(values, dims=("time", "latitude", "longitude"), coords=coordinates)


def oco2_seasia(folder: Path, *, mask_and_scale: bool = True) -> xr.DataArray:
    parts = []
    for path in sorted(folder.glob("*.nc")):
        with opened(path, "scipy", mask_and_scale=mask_and_scale) as data:
            names = {k: v for k, v in {"latitude": "lat", "longitude": "lon"}.items() if k in data}
            parts.append(data.rename(names).co2.transpose("time", "lat", "lon").sortby(["lat", "lon"]).load())
    # float32 coordinates of the files differ in their last digits
    parts = [part.assign_coords(lat=parts[0].lat, lon=parts[0].lon) for part in parts]
    joined: xr.DataArray = xr.concat(parts, "time", join="exact")
    return joined.sortby("time")


def turbidity(path: Path, *, mask_and_scale: bool = True) -> xr.DataArray:
    months = np.arange("2001-01", "2002-01", dtype="datetime64[M]").astype("datetime64[ns]")
    return of_bands(path, months, mask_and_scale=mask_and_scale)


def grace(path: Path, *, mask_and_scale: bool = True) -> xr.DataArray:
    with opened(path, "h5netcdf", mask_and_scale=mask_and_scale) as data:
        found: xr.DataArray = turned(data).lwe_thickness.load()
        return found


def ostia(path: Path, *, mask_and_scale: bool = True) -> xr.DataArray:
    with opened(path, "h5netcdf", mask_and_scale=mask_and_scale) as data:
        found: xr.DataArray = turned(data[["surface_temperature"]]).surface_temperature.load()
        return found


def bcsd(path: Path, variable: str, *, mask_and_scale: bool = True) -> xr.DataArray:
    with opened(path, "scipy", mask_and_scale=mask_and_scale) as data:
        found: xr.DataArray = data[variable].load()
        return found


def era5_uk(path: Path, *, mask_and_scale: bool = True) -> xr.DataArray:
    """By GDAL's own GRIB driver, which shares nothing with eccodes."""
    with rasterio.open(path) as dataset:
        valid = [int(dataset.tags(band)["GRIB_VALID_TIME"].split()[0]) for band in dataset.indexes]
    times = np.asarray(valid, dtype="datetime64[s]").astype("datetime64[ns]")
    return of_bands(path, times, mask_and_scale=mask_and_scale)


def oco3(path: Path, *, mask_and_scale: bool = True) -> xr.DataArray:
    """14400 x 7200, two of eight maps. The last column stands where the first does."""
    with opened(path, "zarr", chunks=None, mask_and_scale=mask_and_scale) as data:
        whole: xr.DataArray = data.xco2.load()
    return whole.isel(longitude=slice(0, -1))


@dataclass(frozen=True)
class RealSet:
    """A set, as a user would name it on the command line."""

    id: str
    files: str
    """Glob below the folder of real data."""

    point: tuple[float, float]
    """A place that has values."""

    read: Callable[..., xr.DataArray]
    """The independent reading: of the path, or of the folder of several files."""

    options: dict[str, str] = field(default_factory=dict)
    maps: int | None = None
    """Of a Zarr store of maps of 104 million cells, the first ones only: the others are alike, and take minutes."""

    def part(self, data: Path, folder: Path) -> Path:
        """The folder of real data, or one with the part of the set that is looked at: links and shorter axes."""
        if self.maps is None:
            return data
        copy = folder / self.files
        shutil.copytree(data / self.files, copy, copy_function=os.symlink)
        for name in (".zarray", ".zmetadata"):
            for path in sorted(copy.rglob(name)):
                document = json.loads(path.read_text(encoding="utf-8"))
                arrays = [document] if name == ".zarray" else document["metadata"].values()
                for array in arrays:
                    if len(array.get("shape", ())) in {1, 3} and array["shape"][0] == 8:
                        array["shape"][0] = self.maps
                path.parent.chmod(0o755)  # as the real folders cannot be written to
                path.unlink()
                path.write_text(json.dumps(document), encoding="utf-8")
        return folder

    def source(self, data: Path, *, mask_and_scale: bool) -> xr.DataArray:
        """Dimensions time, lat*, lon*; longitudes -180..180."""
        path = data / self.files
        return self.read(path.parent if "*" in path.name else path, mask_and_scale=mask_and_scale)


def _bcsd(variable: str) -> Callable[..., xr.DataArray]:
    return lambda path, **options: bcsd(path, variable, **options)


SETS = (
    RealSet("seasia", "xco2/oco2_seasia_idw_monthly/*.nc", (101.3, 3.1), oco2_seasia, {"units": "ppm"}),
    RealSet(
        "turbidity",
        "rasters/linke_turbidity_12month_cog.tif",
        (10.51, 52.3),
        turbidity,
        {"time": "2001-01/P1M", "units": "1"},
    ),
    RealSet("grace", "groundwater/grace_csr_rl05_lwe_1deg_2002-2010.nc", (-60.2, -3.4), grace),
    RealSet("ostia", "rasters/ostia_monthly.nc", (-140.1, 0.2), ostia),
    RealSet("bcsd_pr", "rasters/bcsd_obs_1999.nc", (-80.1, 35.2), _bcsd("pr"), {"variable": "pr"}),
    RealSet("bcsd_tas", "rasters/bcsd_obs_1999.nc", (-80.1, 35.2), _bcsd("tas"), {"variable": "tas"}),
    RealSet("uk", "rasters/era5-2mt-2019-03-uk.grib", (-1.3, 52.2), era5_uk),
    RealSet("oco3", "xco2/oco3_la_sams_post_qf_nearest.zarr", (-118.2, 34.1), oco3, {"variable": "xco2"}, maps=2),
)
