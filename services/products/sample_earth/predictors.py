"""The predictor files of a directory: found, checked once, then read window by window.

Every check that fails names the file and the fact. Files may cover different spans; a month counts when all have it,
but a month that is missing between others is refused, because a silent gap would be taken for the shore of the data.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Input
from services.products.sample_earth.declaration import PRODUCT

type Floats = NDArray[np.float32]

BACKGROUND = "co2_background_monthly.txt"
STATIC = "static_0p25.tif"
ERA5_UNITS = {"t2m": {"K"}, "swvl1": {"m**3 m**-3", "m3 m-3"}}
STATIC_UNITS = {"elevation": "m", "land_fraction": "1", "settlement": "1"}

_NDVI_NAME = re.compile(r"^ndvi_(\d{4}-(?:0[1-9]|1[0-2]))\.tif$")
_ERA5_NAME = re.compile(r"^era5_monthly_(\d{4})\.nc$")
_TIME_UNITS = re.compile(r"^(seconds|hours|days) since (\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.0+)?)?Z?$")
_UNITS = {"seconds": "s", "hours": "h", "days": "D"}
_STANDARD_CALENDARS = {"standard", "gregorian", "proleptic_gregorian"}
_UNEVEN = 0.01
"""Largest departure of a coordinate from its place, in cells."""


@dataclass(frozen=True, kw_only=True)
class Era5Month:
    """Where a month lies in a file of ERA5 form."""

    file: str
    position: int
    """Index along time."""

    shift: int
    """Column of the file that holds our first one."""

    rising: bool
    """Whether its latitudes rise."""


@dataclass(frozen=True, kw_only=True)
class Predictors:
    """All inputs of the sample Earth: paths and numbers only, so that it travels to workers.

    Raises:
        InputRefused: from ``find``, naming the file and what is wrong; and from the reading methods, if a file is no
            longer the one that was found.
    """

    directory: Path
    files: tuple[Input, ...]
    """Every file that is read, by name."""

    months: tuple[int, ...]
    """Months since 1970-01 that all predictors have, without a gap."""

    background: tuple[float, ...]
    """CO2 background of each month, ppm."""

    era5: tuple[Era5Month, ...]
    """Place of each month."""

    @classmethod
    def find(cls, directory: Path) -> "Predictors":
        """Look through a directory and check every file that the product reads."""
        if not directory.is_dir():
            raise InputRefused(f"{directory} is no directory of inputs; `cenote sample` writes the sample Earth's")
        background = _read_background(directory / BACKGROUND)
        _check_static(directory / STATIC)
        era5 = _find_era5(directory)
        ndvi = _find_ndvi(directory)
        held = {BACKGROUND: set(background), "era5_monthly_*.nc": set(era5), "ndvi_*.tif": set(ndvi)}
        for name, found in held.items():
            _refuse_gap(directory, name, found)
        months = sorted(set.intersection(*held.values()))
        if not months:
            spans = ", ".join(f"{name} {_name(min(found))}..{_name(max(found))}" for name, found in held.items())
            raise InputRefused(f"{directory}: no month is in all predictors ({spans})")
        names = {BACKGROUND, STATIC, *(era5[month].file for month in months), *(ndvi[month] for month in months)}
        return cls(
            directory=directory,
            files=tuple(_input(directory / name) for name in sorted(names)),
            months=tuple(months),
            background=tuple(background[month] for month in months),
            era5=tuple(era5[month] for month in months),
        )

    @property
    def periods(self) -> TimeAxis:
        """The months as an axis."""
        return TimeAxis(step=PRODUCT.length, starts=self.months)

    def position(self, month: int) -> int:
        """Index of a month (since 1970-01) among ``months``."""
        if month not in self.months:
            raise InputRefused(
                f"{self.directory} has no predictors for {_name(month)}, only "
                f"{_name(self.months[0])}..{_name(self.months[-1])}"
            )
        return month - self.months[0]

    def read_era5(self, variable: str, position: int, window: Window) -> Floats:
        """``t2m`` in K or ``swvl1`` in m3 m-3 of a month, ``(y, x)``; NaN where missing."""
        place = self.era5[position]
        path = self._verified(place.file)
        with _netcdf(path) as file:
            return _era5_window(file.variables[variable], place, window)

    def read_ndvi(self, position: int, window: Window) -> Floats:
        """Vegetation index of a month, ``(y, x)``; NaN where missing."""
        path = self._verified(f"ndvi_{_name(self.months[position])}.tif")
        with _raster(path) as dataset:
            return _bands(path, dataset, window)[0]

    def read_static(self, window: Window) -> dict[str, Floats]:
        """Elevation in m, land fraction and settlement as shares, each ``(y, x)``."""
        path = self._verified(STATIC)
        with _raster(path) as dataset:
            return dict(zip(STATIC_UNITS, _bands(path, dataset, window), strict=True))

    def _verified(self, name: str) -> Path:
        """The path of a file whose content is still what was found: hashed once per process and change."""
        path = self.directory / name
        expected = next(file for file in self.files if file.name == name)
        try:
            state = path.stat()
            same = state.st_size == expected.size and _digest(path, state.st_size, state.st_mtime_ns) == expected.sha256
        except OSError as error:
            raise InputRefused(f"{path} cannot be read: {error.strerror}") from None
        if not same:
            raise InputRefused(f"{path} is no longer the file that was planned with (sha256 {expected.sha256[:12]}...)")
        return path


def _read_background(path: Path) -> dict[int, float]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputRefused(f"{path} cannot be read: {error}") from None
    if not any(line.startswith("#") and re.search(r"\bunits:\s*ppm\b", line) for line in lines):
        raise InputRefused(f"{path}: no comment says 'units: ppm'")
    found: dict[int, float] = {}
    for number, line in enumerate(lines, start=1):
        if line.startswith("#") or not line.strip():
            continue
        try:
            year, month, _, value = (float(part) for part in line.split())
        except ValueError:
            raise InputRefused(f"{path}, line {number}: not 'year month decimal value': {line!r}") from None
        start = (int(year) - 1970) * 12 + int(month) - 1
        if not (1 <= month <= 12 and month == int(month)):
            raise InputRefused(f"{path}, line {number}: {month:g} is no month")
        if start in found:
            raise InputRefused(f"{path}, line {number}: {_name(start)} stands twice")
        if value > 0:  # NOAA marks a missing month with a negative value
            found[start] = value
    if not found:
        raise InputRefused(f"{path} holds no month")
    return found


def _check_static(path: Path) -> None:
    with _raster(path) as dataset:
        _check_grid(path, dataset)
        found = dict(zip(dataset.descriptions, dataset.units, strict=True))
        if list(dataset.descriptions) != list(STATIC_UNITS):
            raise InputRefused(f"{path}: the bands are {list(dataset.descriptions)}, not {list(STATIC_UNITS)}")
        for name, unit in STATIC_UNITS.items():
            if found[name] != unit:
                raise InputRefused(f"{path}: {name} is in {found[name]!r}, not in {unit!r}")


def _find_ndvi(directory: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for path in sorted(directory.glob("ndvi_*.tif")):
        match = _NDVI_NAME.match(path.name)
        if not match:
            raise InputRefused(f"{path}: the name does not say its month as ndvi_YYYY-MM.tif")
        with _raster(path) as dataset:
            _check_grid(path, dataset)
            if dataset.count != 1 or dataset.units[0] != "1":
                raise InputRefused(f"{path}: one band in '1' is expected, not {dataset.count} in {dataset.units}")
        found[int(np.datetime64(match[1], "M").astype(int))] = path.name
    if not found:
        raise InputRefused(f"{directory} holds no ndvi_YYYY-MM.tif")
    return found


def _find_era5(directory: Path) -> dict[int, Era5Month]:
    found: dict[int, Era5Month] = {}
    for path in sorted(directory.glob("era5_monthly_*.nc")):
        if not _ERA5_NAME.match(path.name):
            raise InputRefused(f"{path}: the name does not say its year as era5_monthly_YYYY.nc")
        with _netcdf(path) as file:
            shift, rising = _check_axes(path, file)
            for name, allowed in ERA5_UNITS.items():
                _check_variable(path, file, name, allowed)
            months = _months(path, file)
        for position, month in enumerate(months):
            if month in found:
                raise InputRefused(f"{path}: {_name(month)} is in {found[month].file} too")
            found[month] = Era5Month(file=path.name, position=position, shift=shift, rising=rising)
    if not found:
        raise InputRefused(f"{directory} holds no era5_monthly_YYYY.nc")
    return found


def _check_variable(path: Path, file: h5netcdf.File, name: str, allowed: set[str]) -> None:
    if name not in file.variables:
        raise InputRefused(f"{path} has no variable {name}")
    variable = file.variables[name]
    units = str(variable.attrs.get("units", ""))
    if units not in allowed:
        raise InputRefused(f"{path}: {name} is in {units or 'no unit'!r}, not in {' or '.join(sorted(allowed))!r}")
    if tuple(variable.dimensions) != ("time", "latitude", "longitude"):
        raise InputRefused(f"{path}: {name} lies along {variable.dimensions}, not along time, latitude, longitude")


def _check_axes(path: Path, file: h5netcdf.File) -> tuple[int, bool]:
    """Column of our west edge, and whether latitudes rise."""
    grid = PRODUCT.grid
    for name in ("time", "latitude", "longitude"):
        if name not in file.variables:
            raise InputRefused(f"{path} has no coordinate {name}")
    latitude = np.asarray(file.variables["latitude"][...], dtype=np.float64)
    longitude = np.asarray(file.variables["longitude"][...], dtype=np.float64)
    if (latitude.size, longitude.size) != grid.shape:
        raise InputRefused(f"{path}: {longitude.size} x {latitude.size} cells, not {grid.width} x {grid.height}")
    rising = bool(latitude[0] < latitude[-1])
    _check_even(path, "latitude", latitude[::-1] if rising else latitude, grid.latitudes, float(grid.step_y))
    shift = int(np.argmin(np.abs((longitude - grid.longitudes[0] + 180) % 360 - 180)))
    turned = (np.roll(longitude, -shift) + 180) % 360 - 180
    _check_even(path, "longitude", turned, grid.longitudes, float(grid.step_x))
    return shift, rising


def _check_even(path: Path, name: str, found: NDArray[np.float64], expected: NDArray[np.float64], step: float) -> None:
    off = np.abs(found - expected) / step
    if not off.max() <= _UNEVEN:
        worst = int(np.argmax(off))
        raise InputRefused(f"{path}: {name} {found[worst]:g} stands where the grid has {expected[worst]:g}")


def _months(path: Path, file: h5netcdf.File) -> list[int]:
    time = file.variables["time"]
    calendar = str(time.attrs.get("calendar", "standard"))
    if calendar not in _STANDARD_CALENDARS:
        raise InputRefused(f"{path}: calendar {calendar!r} is not the standard one")
    units = str(time.attrs.get("units", ""))
    match = _TIME_UNITS.match(units)
    if not match:
        raise InputRefused(f"{path}: time is in {units!r}, not in seconds, hours or days since a date")
    origin = np.datetime64(f"{match[2]}T{match[3] or '00:00'}", "s")
    numbers = np.asarray(time[...])
    if not np.isfinite(numbers).all():
        raise InputRefused(f"{path}: a time is missing")
    instants = origin + numbers.astype(np.int64).astype(f"timedelta64[{_UNITS[match[1]]}]").astype("timedelta64[s]")
    return [int(month) for month in instants.astype("datetime64[M]").astype(np.int64)]


def _refuse_gap(directory: Path, name: str, months: set[int]) -> None:
    for month in range(min(months), max(months) + 1):
        if month not in months:
            raise InputRefused(
                f"{directory / name}: {_name(month)} is missing between {_name(min(months))} and {_name(max(months))}"
            )


def _check_grid(path: Path, dataset: rasterio.DatasetReader) -> None:
    grid: Grid = PRODUCT.grid
    if dataset.crs is None or dataset.crs.to_epsg() != 4326:
        raise InputRefused(f"{path} is in {dataset.crs or 'no coordinate system'}, not in EPSG:4326")
    found = tuple(dataset.transform)[:6]
    if (dataset.height, dataset.width) != grid.shape or not np.allclose(found, grid.transform, rtol=0, atol=1e-6):
        raise InputRefused(
            f"{path}: {dataset.width} x {dataset.height} cells with transform {found}, "
            f"not {grid.width} x {grid.height} with {grid.transform}"
        )


def _era5_window(variable: h5netcdf.Variable, place: Era5Month, window: Window) -> Floats:
    height, width = variable.shape[1:]
    rows = window.rows
    if place.rising:
        rows = slice(height - window.row - window.height, height - window.row)
    first = (window.column + place.shift) % width
    parts = [variable[place.position, rows, part] for part in _around(first, window.width, width)]
    stored = np.concatenate(parts, axis=1)
    missing = [variable.attrs[name] for name in ("_FillValue", "missing_value") if name in variable.attrs]
    values = _scaled(stored, missing, variable.attrs.get("scale_factor", 1.0), variable.attrs.get("add_offset", 0.0))
    return values[::-1] if place.rising else values


def _around(first: int, count: int, width: int) -> Sequence[slice]:
    """The columns from ``first`` on, in one or two parts where they pass the seam."""
    if first + count <= width:
        return [slice(first, first + count)]
    return [slice(first, width), slice(0, first + count - width)]


def _bands(path: Path, dataset: rasterio.DatasetReader, window: Window) -> list[Floats]:
    try:
        stored = dataset.read(window=RasterWindow(window.column, window.row, window.width, window.height))
    except rasterio.errors.RasterioIOError as error:
        raise InputRefused(f"{path} cannot be read: {error.__cause__ or error}") from None
    return [
        _scaled(band, [] if nodata is None else [nodata], scale, offset)
        for band, nodata, scale, offset in zip(stored, dataset.nodatavals, dataset.scales, dataset.offsets, strict=True)
    ]


def _scaled(stored: NDArray[Any], missing: Sequence[Any], scale: float, offset: float) -> Floats:
    values = (stored * np.float64(scale) + np.float64(offset)).astype(np.float32)
    for value in missing:
        values[stored == value] = np.nan
    return values


@contextmanager
def _netcdf(path: Path) -> Iterator[h5netcdf.File]:
    try:
        with h5netcdf.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # what HDF5 says of a file that is broken somewhere
        raise InputRefused(f"{path} is no NetCDF-4 file that can be read: {error}") from error


def _raster(path: Path) -> rasterio.DatasetReader:
    try:
        return rasterio.open(path)
    except rasterio.errors.RasterioIOError as error:
        raise InputRefused(f"{path} is no raster that can be read: {error}") from None


def _input(path: Path) -> Input:
    state = path.stat()
    return Input(name=path.name, size=state.st_size, sha256=_digest(path, state.st_size, state.st_mtime_ns))


@cache
def _digest(path: Path, size: int, changed: int) -> str:  # noqa: ARG001 - a change makes another key
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(month: int) -> str:
    return str(np.datetime64(month, "M"))
