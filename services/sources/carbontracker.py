"""Columns of CO2 from models as a background: CarbonTracker's, and CAMS's.

Read are [F: NOAA's download page and programs of its users; no real file was at hand]

- columns at 13:30 local time, ``CT2022.xCO2_1330_glb3x2_2015-01-31.nc``: ``xco2(time, latitude, longitude)``, one map a
  day, 3 x 2 degrees, south first;
- mole fractions of layers, ``CT2022.molefrac_glb3x2_2015-01-31.nc`` (3-hourly) and ``..._2015-01.nc`` (a month's
  mean): ``co2(time, level, latitude, longitude)``, ``pressure(time, boundary, latitude, longitude)`` of the layers'
  interfaces and ``specific_humidity`` of the layers, level 1 at the ground;
- CAMS's columns, ``cams73_latest_co2_col_surface_inst_201501.nc``: ``XCO2`` in mol mol-1.

Our choices: names are looked for in either case; of several times a day each cell takes the one nearest to 13:30 local
solar time, as NOAA's own columns do; a month is the mean of its days and needs LEAST_DAYS of them; scales are those of
the observations that a release took in (SCALE_OF).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.pipeline.recipe import Input
from services.sources import cf, clock, co2_scale, files, handles
from services.sources.co2_scale import Scale
from services.sources.files import Source
from services.sources.lonlat import Layout
from services.sources.resample import resampled
from services.sources.units import mole_fraction

type Floats = NDArray[np.float64]
type Kind = Literal["column", "layers"]

LEAST_DAYS = 20
"""Days that the mean of a month needs. Our choice."""

OVERPASS = 13.5
"""Hours of local solar time at which OCO-2 passes, and NOAA's columns are."""

SCALE_OF: Mapping[str, Scale] = {
    **dict.fromkeys(("CT2013", "CT2015", "CT2016", "CT2017", "CT2019"), co2_scale.parsed("X2007")),
    **dict.fromkeys(("CT2022", "CT2025", "CT-NRT.v2023", "CT-NRT.v2024", "CT-NRT.v2025"), co2_scale.parsed("X2019")),
}
"""Scale of a release by the beginning of a file's name: that of the observations of its years [I]."""

_LOWEST, _HIGHEST = 250.0, 700.0
"""ppm beyond which no column lies. Our choice."""

_DRIEST, _WETTEST = -1e-4, 0.1
"""kg kg-1 that specific humidity lies within; what is beyond is g kg-1. Our choice."""

_DATED = re.compile(r"[._]([0-9]{4})-([0-9]{2})(?:-([0-9]{2}))?(?:[._]|$)")
_MEAN = re.compile(r"_mm_[0-9]{6}\.nc")
_BAND = 128
"""Rows of another grid that are held at a time: 4 MB of 7200 columns."""

_DAY = 86400 * clock.SECOND
_HOUR = 3600 * clock.SECOND


@dataclass(frozen=True, kw_only=True)
class _File:
    """One file: where its columns are and of when."""

    source: Source
    kind: Kind
    variable: str
    times: tuple[int, ...]
    """Of its maps, microseconds since 1970."""

    ppm: float
    """ppm per unit of the file."""

    whole: bool
    """Whether its one map is a month's mean."""


@dataclass(frozen=True, kw_only=True)
class Background:
    """Monthly columns of a model on its own grid; small, so that it travels.

    Raises:
        InputRefused: if files are of one time.
    """

    grid: Grid
    scale: Scale
    stated: Scale
    """The scale that the files are on; values are converted to ``scale``."""

    files: tuple[_File, ...]
    """By time."""

    def __post_init__(self) -> None:
        seen: dict[int, str] = {}
        for file in self.files:
            for time in file.times:
                if time in seen:
                    moment = np.datetime64(time, "us").astype("datetime64[m]")
                    raise InputRefused(f"{seen[time]} and {file.source.name} both hold the column of {moment}")
                seen[time] = file.source.name

    @property
    def months(self) -> tuple[int, ...]:
        """Months since 1970-01 that have days enough, rising; one that lacks them may be missing in between."""
        found = {month for file in self.files for month in _months(file)}
        return tuple(month for month in sorted(found) if self._why_not(month) is None)

    def inputs(self) -> tuple[Input, ...]:
        """The files, as a recipe names what it was made from."""
        sources = (file.source for file in self.files)
        return tuple(Input(name=one.name, size=one.size, sha256=one.sha256) for one in sources)

    def check_unchanged(self) -> None:
        """Look at the files again.

        Raises:
            InputRefused: if one is not what it was.
        """
        for file in self.files:
            files.check_unchanged(file.source)

    def monthly(self, month: int) -> Floats:
        """The mean column of a month since 1970-01, ``(y, x)`` ppm on the model's grid, north up.

        Raises:
            InputRefused: if there are too few days of it, or a file is broken or changed since it was looked at.
        """
        why = self._why_not(month)
        if why is not None:
            raise InputRefused(why)
        return co2_scale.converted(_mean(self._of(month), self.grid, month), stated=self.stated, wanted=self.scale)

    def read(self, month: int, grid: Grid, window: Window) -> NDArray[np.float32]:
        """The same on the cells of another grid, bilinear between centres, whatever the window.

        Raises:
            InputRefused: as ``monthly``.
        """
        field = self.monthly(month)
        return resampled(self.grid, grid, window, lambda part: field[part.rows, part.columns])

    def cells(
        self, month: int, grid: Grid, rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]]
    ) -> NDArray[np.float32]:
        """The same in some cells of that grid, ``(cell,)``, in any order; a band of its rows is held at a time.

        Raises:
            InputRefused: as ``monthly``.
        """
        field, found = self.monthly(month), np.empty(len(rows), dtype=np.float32)
        for first in range(0, grid.height, _BAND):
            band = Window(row=first, column=0, height=min(_BAND, grid.height - first), width=grid.width)
            mine = np.flatnonzero((rows >= first) & (rows < first + band.height))
            if mine.size:
                values = resampled(self.grid, grid, band, lambda part: field[part.rows, part.columns])
                found[mine] = values[rows[mine] - first, columns[mine]]
        return found

    def _of(self, month: int) -> tuple[_File, ...]:
        return tuple(file for file in self.files if month in _months(file))

    def _why_not(self, month: int) -> str | None:
        found = self._of(month)
        if any(file.whole for file in found):
            return None
        days = {time // _DAY for file in found for time in file.times if _month(time) == month}
        if len(days) >= LEAST_DAYS:
            return None
        name = f"{found[0].source.name}: " if found else ""
        return f"{name}there are columns of {len(days)} days of {np.datetime64(month, 'M')}; a mean needs {LEAST_DAYS}"


def open_background(
    names: Sequence[str], *, scale: str = "X2019", stated: str | None = None, convert: bool = False
) -> Background:
    """Look at a model's columns; every byte is read once, for the digests.

    Args:
        names: paths, globs or URLs, in any order; all of one kind and grid.
        scale: that of the run.
        stated: the scale that the files are on; None: by the release that they are named after.
        convert: whether values on the other scale are converted.

    Raises:
        InputRefused: if a file has no columns or layers, is on another grid or scale, or its name contradicts its time.
        SettingsError: if there is no such scale.
    """
    wanted = co2_scale.parsed(scale)
    sources = files.hashed(files.found(names))
    on = _scale(sources[0].name) if stated is None else co2_scale.parsed(stated)
    co2_scale.check(sources[0].name, stated=on, wanted=wanted, convert=convert)
    looked = [_looked(source) for source in sources]
    grid = looked[0][1]
    for file, its in looked:
        if its != grid or file.kind != looked[0][0].kind:
            raise InputRefused(f"{file.source.name} and {sources[0].name} differ in their grid or are of two kinds")
        if stated is None and _scale(file.source.name) != on:
            raise InputRefused(f"{file.source.name} and {sources[0].name} are of releases on two scales")
    ordered = sorted((file for file, _ in looked), key=lambda file: file.times[0])
    return Background(grid=grid, scale=wanted, stated=on, files=tuple(ordered))


def column(
    co2: NDArray[np.floating[Any]],
    pressure: NDArray[np.floating[Any]],
    humidity: NDArray[np.floating[Any]] | None = None,
) -> Floats:
    """Column average of mole fractions in layers, ``sum(c dp (1 - q)) / sum(dp (1 - q))`` (science/xco2.md 1).

    Layers weigh by their mass of dry air, ``dp (1 - q) / g``; gravity is taken as one, which changes a column by some
    hundredths of a ppm (our choice). Without humidity the air counts as dry.

    Args:
        co2: dry mole fractions ``(level, ...)``, any unit.
        pressure: of the interfaces ``(level + 1, ...)``, from the ground up or from the top down.
        humidity: specific humidity of the layers, kg kg-1.

    Returns:
        ``(...)`` in the unit of ``co2``; NaN where a layer is missing.

    Raises:
        InputRefused: if shapes do not fit, pressure does not fall all the way, or humidity is no share of mass.
    """
    if pressure.shape != (co2.shape[0] + 1, *co2.shape[1:]):
        raise InputRefused(f"{co2.shape[0]} layers have {co2.shape[0] + 1} interfaces, not {pressure.shape[0]}")
    thickness = -np.diff(pressure.astype(np.float64), axis=0)
    known = np.isfinite(thickness)
    if not ((thickness > 0) | ~known).all() and not ((thickness < 0) | ~known).all():
        raise InputRefused("pressure at the interfaces of layers does not fall all the way up")
    weight = np.abs(thickness)
    if humidity is not None:
        if humidity.shape != co2.shape:
            raise InputRefused(f"humidity {humidity.shape} is not that of layers {co2.shape}")
        if (humidity < _DRIEST).any() or (humidity > _WETTEST).any():
            wettest = float(np.nanmax(np.abs(humidity)))
            raise InputRefused(f"a specific humidity of {wettest:g} is no kg kg-1")
        weight = weight * (1.0 - humidity.astype(np.float64))
    found: Floats = (co2.astype(np.float64) * weight).sum(axis=0) / weight.sum(axis=0)
    return found


@lru_cache(maxsize=24)  # the blocks of a map ask for the same month, and a sequence for its twelve
def _mean(found: tuple[_File, ...], grid: Grid, month: int) -> Floats:
    days: dict[int, list[tuple[int, Floats]]] = {}
    for file in found:
        which = [number for number, time in enumerate(file.times) if _month(time) == month or file.whole]
        for number, values in zip(which, _columns(file, which), strict=True):
            days.setdefault(file.times[number] // _DAY, []).append((file.times[number], values))
    total, count = np.zeros(grid.shape), np.zeros(grid.shape)
    for maps in days.values():
        chosen = _at_overpass([time for time, _ in maps], np.stack([values for _, values in maps]), grid)
        known = np.isfinite(chosen)
        total += np.where(known, chosen, 0.0)
        count += known
    mean: Floats = np.divide(total, count, out=np.full(grid.shape, np.nan), where=count > 0)
    wrong = (mean < _LOWEST) | (mean > _HIGHEST)
    if wrong.any():
        raise InputRefused(f"{found[0].source.name}: a column of {mean[wrong][0]:g} ppm cannot be: another unit?")
    mean.flags.writeable = False  # it is kept
    return mean


def _at_overpass(times: Sequence[int], maps: Floats, grid: Grid) -> Floats:
    """Of the maps of a day ``(time, y, x)`` the values nearest to the overpass, ``(y, x)``."""
    hours = np.array([time % _DAY / _HOUR for time in times])
    local = hours[:, None] + grid.longitudes[None, :] / 15.0
    apart = np.abs((local - OVERPASS + 12.0) % 24.0 - 12.0)
    chosen: Floats = np.take_along_axis(maps, apart.argmin(axis=0)[None, None, :], axis=0)[0]
    return chosen


def _months(file: _File) -> set[int]:
    return {_month(time) for time in file.times}


def _month(time: int) -> int:
    return int(np.datetime64(time, "us").astype("datetime64[M]").astype(np.int64))


def _scale(name: str) -> Scale:
    base = name.rpartition("/")[2]
    fitting = [begin for begin in SCALE_OF if base.startswith(begin)]
    if not fitting:
        raise InputRefused(f"{name} is named after no release whose scale is known; say stated = 'X2007' or 'X2019'")
    return SCALE_OF[fitting[0]]


def _looked(source: Source) -> tuple[_File, Grid]:
    with handles.opened(source) as file:
        if not isinstance(file, handles.CONTAINERS):
            raise InputRefused(f"{source.name} is no NetCDF file, as CarbonTracker's are")
        container = file.container()
        kind, variable = _kind(container)
        grid, _ = _place(container, variable)
        times = _times(container, variable)
        unit = mole_fraction(f"{source.name}: {variable.name}", variable.text("units") or None)
    whole = _check_name(source.name, times)
    return _File(source=source, kind=kind, variable=variable.name, times=times, ppm=unit, whole=whole), grid


def _kind(container: cf.Container) -> tuple[Kind, cf.Variable]:
    by_lower = {name.lower(): variable for name, variable in container.variables.items()}
    if "xco2" in by_lower:
        return "column", by_lower["xco2"]
    if "co2" in by_lower and "pressure" in by_lower:
        return "layers", by_lower["co2"]
    raise InputRefused(f"{container.name} has neither xco2 nor co2 of layers with their pressure")


def _place(container: cf.Container, variable: cf.Variable) -> tuple[Grid, Layout]:
    """Where the last two dimensions lie."""
    at: dict[str, cf.Variable] = {}
    for dimension in variable.dimensions[-2:]:
        for coordinate in container.along(dimension):
            at.setdefault(str(cf.coordinate_role(coordinate)), coordinate)
    if "latitude" not in at or "longitude" not in at or at["longitude"].dimensions != variable.dimensions[-1:]:
        raise InputRefused(
            f"{container.name}: {variable.name} lies along {', '.join(variable.dimensions)}; its last two are to be "
            "latitude and longitude"
        )
    return cf.located(container, at["longitude"], at["latitude"])


def _times(container: cf.Container, variable: cf.Variable) -> tuple[int, ...]:
    first = variable.dimensions[0]
    time = next((c for c in container.along(first) if cf.coordinate_role(c) == "time"), None)
    if time is None:
        raise InputRefused(f"{container.name}: {variable.name} has no time with its unit along {first}")
    label = f"{container.name}: {time.name}"
    reference = clock.parse_reference(label, time.text("units"), time.text("calendar") or None)
    return tuple(clock.decode(label, time.values(), reference).tolist())


def _check_name(name: str, times: tuple[int, ...]) -> bool:
    """Whether a file is a month's mean; its name must not contradict its times."""
    base = name.rpartition("/")[2]
    found = list(_DATED.finditer(base))
    if not found:
        return bool(_MEAN.search(base)) and len(times) == 1
    year, month, day = found[-1].groups()
    told = np.datetime64(f"{year}-{month}" + (f"-{day}" if day else ""))
    unit = "D" if day else "M"
    # a day's last map may stand at its end
    inside = {str(np.datetime64(time - 1, "us").astype(f"datetime64[{unit}]")) for time in times}
    inside |= {str(np.datetime64(time, "us").astype(f"datetime64[{unit}]")) for time in times[:-1] or times}
    if str(told) not in inside or len(inside) > 2:
        moment = np.datetime64(times[0], "us").astype("datetime64[m]")
        raise InputRefused(f"{name} is named {told}, and its first time is {moment}")
    return day is None and len(times) == 1


def _columns(file: _File, which: Sequence[int]) -> list[Floats]:
    """Columns of some of a file's maps, ``(y, x)`` ppm each, north up."""
    with handles.opened(file.source) as opened:
        if not isinstance(opened, handles.CONTAINERS):
            raise InputRefused(f"{file.source.name} is no NetCDF file any more")
        container = opened.container()
        variable = container.variables[file.variable]
        grid, layout = _place(container, variable)
        found: list[Floats] = []
        for number in which:
            key = (slice(number, number + 1), ...)
            values = _read(variable, key)
            if file.kind == "layers":
                values = _of_layers(container, variable, values, key)[np.newaxis]
            found.append(_upright(values * file.ppm, layout, grid)[0])
    return found


def _of_layers(container: cf.Container, co2: cf.Variable, values: Floats, key: tuple[Any, ...]) -> Floats:
    by_lower = {name.lower(): variable for name, variable in container.variables.items()}
    pressure, humidity = by_lower["pressure"], by_lower.get("specific_humidity")
    for other in (pressure, humidity):
        if other is not None and (len(other.dimensions) != 4 or other.dimensions[2:] != co2.dimensions[2:]):
            raise InputRefused(f"{container.name}: {other.name} lies along {', '.join(other.dimensions)}")
    try:
        return column(values[0], _read(pressure, key)[0], None if humidity is None else _read(humidity, key)[0])
    except InputRefused as error:
        raise InputRefused(f"{container.name}: {error}") from None


def _read(variable: cf.Variable, key: tuple[Any, ...]) -> Floats:
    packing = cf.packing_of(variable, classic=True)
    return packing.decode(packing.read(variable.read(key)))


def _upright(values: Floats, layout: Layout, grid: Grid) -> Floats:
    """Maps ``(time, y, x)`` as read, whole, on their grid."""
    window = Window(row=0, column=0, height=grid.height, width=grid.width)
    out = np.empty((values.shape[0], *grid.shape))
    for columns, target in layout.source_columns(window):
        out[:, :, target] = layout.upright(values[:, layout.source_rows(window), columns])
    return out
