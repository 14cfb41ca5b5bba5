"""Writes the carbon of the sample Earth as the missions', the network's and users' files: what ``xco2_global`` reads.

=================================================  ====================================================================
oco2_LtCO2_YYMMDD_*.nc4, oco3_LtCO2_YYMMDD_*.nc4   soundings of a day, as Lite files of build 11
xxYYYYMMDD_YYYYMMDD.public.qc.nc                   spectra of a station, as GGG2020's public files; 23 of them
era5_monthly_YYYY.nc                               t2m d2m sp tp u10 v10, swvl1 (land alone): packed int16, 0..360
ndvi_YYYY-MM.tif                                   int16 x 0.0001, missing over sea and in polar night
lst_YYYY-MM.tif                                    uint16 x 0.02 K, missing over sea and under lasting clouds
night_lights_YYYY-MM.tif                           uint16 x 0.1, missing over sea and in bright nights
emissions_YYYY-MM.tif                              the inventory, t of carbon a month and cell: a sum
elevation.tif population.tif land_cover.tif        what stays; people of the cell; classes as IGBP's
land_fraction.tif                                  share of land, 1
xco2.toml                                          what is what
manifest.json                                      seed, size, generator, bytes and sha256 of each file
=================================================  ====================================================================

Covariates begin eleven months before the first month with soundings, for a sequence of twelve.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import h5netcdf
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from services.core.errors import InputRefused
from services.core.grid import Grid
from services.sample.carbon import MEMORY, SPANS, Carbon, Size
from services.sample.carbon_lite import lite_name, write_lite
from services.sample.carbon_seen import BARE, CROPS, FOREST, GRASS, ICE, TOWNS, Covariates
from services.sample.carbon_soundings import INSTRUMENTS, Satellite
from services.sample.carbon_stations import STATIONS, Spectra, network, station_file_name, write_station
from services.sample.manifest import MANIFEST, SYNTHETIC, Progress, generator, replaced, write_set
from services.sample.noise import Field
from services.sample.solutions import month_name, month_starts, months_between

EVERY: dict[Size, int] = {"small": 17, "study": 1}
"""Days from one with soundings to the next: no divisor of OCO-2's repeat of 16, so that all its tracks are flown."""

DENSITY: dict[Size, float] = {"small": 2.0, "study": 1.0}
"""Frames that are kept in terms of the instruments' spacing."""

_GENERATOR = (
    "manifest.py",
    "carbon.py",
    "carbon_cells.py",
    "carbon_emitters.py",
    "carbon_files.py",
    "carbon_lite.py",
    "carbon_orbits.py",
    "carbon_seen.py",
    "carbon_soundings.py",
    "carbon_stations.py",
    "carbon_weather.py",
    "earth.py",
    "modes.py",
    "noise.py",
    "recent.py",
    "solutions.py",
    "natural_earth_land.tif",
)


@dataclass(frozen=True, kw_only=True)
class _Era5:
    """A variable as ERA5 packs it."""

    covariate: str
    name: str
    units: str
    long_name: str
    scale: float
    offset: float


_ERA5 = (
    _Era5(covariate="temperature", name="t2m", units="K", long_name="2 metre temperature", scale=0.002, offset=260.0),
    _Era5(
        covariate="dew_point",
        name="d2m",
        units="K",
        long_name="2 metre dewpoint temperature",
        scale=0.002,
        offset=260.0,
    ),
    _Era5(covariate="pressure", name="sp", units="Pa", long_name="Surface pressure", scale=1.0, offset=75000.0),
    _Era5(covariate="rain", name="tp", units="m", long_name="Total precipitation", scale=1e-6, offset=0.03),
    _Era5(
        covariate="east", name="u10", units="m s**-1", long_name="10 metre U wind component", scale=0.001, offset=0.0
    ),
    _Era5(
        covariate="north", name="v10", units="m s**-1", long_name="10 metre V wind component", scale=0.001, offset=0.0
    ),
    _Era5(
        covariate="soil_moisture",
        name="swvl1",
        units="m**3 m**-3",
        long_name="Volumetric soil water layer 1",
        scale=0.00002,
        offset=0.3,
    ),
)
_ERA5_FILL = -32767


@dataclass(frozen=True, kw_only=True)
class _Raster:
    """A GeoTIFF, one a month or one for all."""

    covariate: str
    units: str
    dtype: str
    scale: float
    fill: float


_MONTHLY = {
    "ndvi": _Raster(covariate="vegetation", units="1", dtype="int16", scale=0.0001, fill=-3000),
    "lst": _Raster(covariate="skin", units="K", dtype="uint16", scale=0.02, fill=0),
    "night_lights": _Raster(covariate="night_lights", units="nW cm-2 sr-1", dtype="uint16", scale=0.1, fill=65535),
    "emissions": _Raster(covariate="emissions", units="t month-1", dtype="float32", scale=1, fill=-9999),
}
_FIXED = {
    "elevation": _Raster(covariate="elevation", units="m", dtype="int16", scale=1, fill=-32768),
    "population": _Raster(covariate="population", units="1", dtype="float32", scale=1, fill=-9999),
    "land_cover": _Raster(covariate="land_cover", units="1", dtype="uint8", scale=1, fill=255),
    "land_fraction": _Raster(covariate="land_fraction", units="1", dtype="float32", scale=1, fill=-9999),
}

_HEAD = f"""# {SYNTHETIC}
synthetic = true
step = "STEP"

[soundings]
files = ["oco2_LtCO2_*.nc4", "oco3_LtCO2_*.nc4"]
scale = "X2019"

[stations]
files = "*.public*.nc"

[background]
kind = "zonal"

[land]
files = "land_fraction.tif"
"""

_SMALL_TRAINING = """\
# what is shipped learned with these, in a minute or two
[training]
hidden = 32
epochs = 12
"""

_MORE = {
    "night_lights": 'transform = "log1p"\n',
    "emissions": 'aggregate = "sum"\ntransform = "log1p"\n',
    "population": 'aggregate = "sum"\ntransform = "log1p"\n',
    "land_cover": f'aggregate = "classes"\nclasses = {[FOREST, GRASS, CROPS, TOWNS, ICE, BARE]}\n',
}

_AROUND = ("ndvi", "emissions", "land_fraction")
"""Covariates whose surroundings the network gets, too, where cells are narrower than a degree: winds move the air."""


def write_carbon(
    directory: Path,
    size: Size = "small",
    progress: Progress | None = None,
    *,
    seed: int = Carbon().seed,
    months: tuple[str, str] | None = None,
) -> Path:
    """Write the input directory of product ``xco2_global``, or keep what is already as it would be written.

    Args:
        directory: made if it is not there; other files in it are left alone.
        size: ``small`` is 2 degrees, 36 months from 2019-01, soundings of one day in 17; ``study`` 0.5 degrees, 84
            months from 2015-01, all days. Both are global.
        progress: told of every step.
        seed: of the Earth.
        months: first and last month with soundings instead of the size's.

    Returns:
        The directory.
    """
    span = months or SPANS[size]
    made_from = {"generator": generator(*_GENERATOR), "seed": seed, "size": size, "months": list(span)}
    write_set(directory, made_from, lambda: _write_all(directory, Carbon(size, seed=seed), span), progress)
    return directory


def read_world(directory: Path) -> Carbon:
    """The truth that the files of a directory were made from, as its manifest tells.

    Raises:
        InputRefused: if there is no manifest of these files, or other code than this made them.
    """
    try:
        told = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        size, seed, made_by = str(told["size"]), int(told["seed"]), str(told["generator"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputRefused(f"{directory} holds no {MANIFEST} of the sample Earth's carbon") from None
    if made_by != generator(*_GENERATOR):
        raise InputRefused(
            f"the files in {directory} were made by other code than this: what is true there is not known"
        )
    for known in SPANS:
        if size == known:
            return Carbon(known, seed=seed)
    raise InputRefused(f"{directory / MANIFEST}: the sample Earth's carbon has no size {size!r}")


def _write_all(directory: Path, world: Carbon, span: tuple[str, str]) -> Iterator[tuple[str, int]]:
    tasks = dict(_tasks(world, span))
    for name, write in tasks.items():
        with replaced(directory / name) as part:
            write(part)
        yield name, len(tasks)


def _tasks(world: Carbon, span: tuple[str, str]) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Each file and what writes it, month by month, so that a month is made once."""
    seen = Covariates(world=world)
    months = months_between(*span).tolist()
    known = list(range(months[0] - (MEMORY - 1), months[-1] + 1))
    yield "xco2.toml", lambda part: part.write_text(_settings(world.size, world.grid))
    for name, raster in _FIXED.items():
        yield f"{name}.tif", partial(_write_fixed, seen=seen, name=name, raster=raster)
    for year in sorted({month // 12 for month in known}):
        held = [month for month in known if month // 12 == year]
        yield f"era5_monthly_{1970 + year}.nc", partial(_write_era5, seen=seen, months=held)
    for month in known:
        for name, raster in _MONTHLY.items():
            write = partial(_write_month, seen=seen, month=month, raster=raster)
            yield f"{name}_{month_name(month)}.tif", partial(write, name=name)
    days = _days(months, world.size)
    satellites = [Satellite(world=world, instrument=one, density=DENSITY[world.size]) for one in INSTRUMENTS]
    for day in days:
        for satellite in satellites:
            if int(day.astype("datetime64[M]").astype(np.int64)) >= satellite.instrument.first_month:
                yield lite_name(satellite.instrument.name, day), partial(_write_day, satellite=satellite, day=day)
    first, last = (month_starts(np.array([month]))[0] for month in (months[0], months[-1] + 1))
    last = last - np.timedelta64(1, "D")
    spectra = _Network(world=world, first=first, last=last)
    for number, station in enumerate(STATIONS):
        yield station_file_name(station, first, last), partial(_write_spectra, spectra=spectra, number=number)


@dataclass(frozen=True, kw_only=True)
class _Network:
    """The stations' spectra, made when the first is written."""

    world: Carbon
    first: np.datetime64
    last: np.datetime64

    @cached_property
    def all(self) -> tuple[Spectra, ...]:
        return network(self.world, self.first, self.last)


def _days(months: list[int], size: Size) -> list[np.datetime64]:
    """The days with soundings: those whose number since 1970-01-01 the step divides, whatever the span."""
    first, after = month_starts(np.array([months[0], months[-1] + 1])).astype(np.int64).tolist()
    step = EVERY[size]
    return [np.datetime64(day, "D") for day in range(first + -first % step, after, step)]


def _write_day(path: Path, satellite: Satellite, day: np.datetime64) -> None:
    write_lite(path, satellite.day(day))


def _write_spectra(path: Path, spectra: _Network, number: int) -> None:
    write_station(path, spectra.all[number])


def _settings(size: Size, grid: Grid) -> str:
    parts = [_HEAD.replace("STEP", str(grid.step_x))]
    parts.extend(
        f'[[covariates]]\nname = "{one.covariate}"\nfiles = "era5_monthly_*.nc"\nvariable = "{one.name}"\n'
        f'units = "{one.units}"\nmonthly = true\n'
        for one in _ERA5
    )
    more = {name: _MORE.get(name, "") for name in (*_MONTHLY, *_FIXED)}
    if grid.step_x < 1:
        more |= {name: f"{more[name]}around = 1\n" for name in _AROUND}
    parts.extend(
        f'[[covariates]]\nname = "{name}"\nfiles = "{name}_*.tif"\nunits = "{raster.units}"\nmonthly = true\n'
        f'time = "{name}_{{year}}-{{month}}"\n{more[name]}'
        for name, raster in _MONTHLY.items()
    )
    parts.extend(
        f'[[covariates]]\nname = "{name}"\nfiles = "{name}.tif"\nunits = "{raster.units}"\n{more[name]}'
        for name, raster in _FIXED.items()
    )
    if size == "small":
        parts.append(_SMALL_TRAINING)
    return "\n".join(parts)


# -- rasters


def _write_fixed(path: Path, seen: Covariates, name: str, raster: _Raster) -> None:
    _write_tiff(path, seen.world.grid, seen.fixed()[raster.covariate], raster, name=name)


def _write_month(path: Path, seen: Covariates, month: int, raster: _Raster, name: str) -> None:
    values = seen.month(month)[raster.covariate]
    _write_tiff(path, seen.world.grid, values, raster, name=name, period=month_name(month))


def _write_tiff(path: Path, grid: Grid, values: Field, raster: _Raster, *, name: str, period: str = "") -> None:
    stored = values if raster.dtype == "float32" else np.rint(values / raster.scale)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=grid.width,
        height=grid.height,
        count=1,
        dtype=raster.dtype,
        crs="EPSG:4326",
        transform=Affine(*grid.transform),
        nodata=raster.fill,
        tiled=True,
        blockxsize=256,
        blockysize=256,
        compress="DEFLATE",
        predictor=3 if raster.dtype == "float32" else 2,
        zlevel=1,
    ) as dataset:
        dataset.write(np.where(np.isnan(values), raster.fill, stored).astype(raster.dtype), 1)
        dataset.set_band_description(1, name)
        dataset.set_band_unit(1, raster.units)
        if raster.scale != 1:
            dataset.scales = [raster.scale]
        dataset.update_tags(NOTE=SYNTHETIC, **({"PERIOD": period} if period else {}))


# -- ERA5


def _write_era5(path: Path, seen: Covariates, months: list[int]) -> None:
    """A year's file, or what is known of it: longitudes 0..360, latitudes falling, months at their first hour."""
    grid = seen.world.grid
    with h5netcdf.File(path, "w") as file:
        file.attrs.update({"Conventions": "CF-1.6", "history": SYNTHETIC})
        file.dimensions = {"time": len(months), "latitude": grid.height, "longitude": grid.width}
        starts = month_starts(np.array(months)).astype("datetime64[h]")
        hours = (starts - np.datetime64("1900-01-01T00", "h")).astype(np.int32)
        for axis, values, attributes in (
            ("time", hours, {"units": "hours since 1900-01-01 00:00:00.0", "calendar": "gregorian"}),
            ("latitude", grid.latitudes.astype(np.float32), {"units": "degrees_north"}),
            ("longitude", _eastward(grid.longitudes % 360).astype(np.float32), {"units": "degrees_east"}),
        ):
            file.create_variable(axis, (axis,), data=values).attrs.update({**attributes, "long_name": axis})
        for one in _ERA5:
            variable = file.create_variable(
                one.name,
                ("time", "latitude", "longitude"),
                dtype=np.int16,
                chunks=(1, grid.height, grid.width),
                compression="gzip",
                compression_opts=1,
                shuffle=True,
                fillvalue=np.int16(_ERA5_FILL),
            )
            variable.attrs.update(
                {
                    "scale_factor": one.scale,
                    "add_offset": one.offset,
                    "missing_value": np.int16(_ERA5_FILL),
                    "units": one.units,
                    "long_name": one.long_name,
                }
            )
        for position, month in enumerate(months):
            fields = seen.month(month)
            for one in _ERA5:
                file.variables[one.name][position] = _eastward(_packed(fields[one.covariate], one))


def _packed(values: Field, one: _Era5) -> NDArray[np.int16]:
    steps = np.rint((values.astype(np.float64) - one.offset) / one.scale)
    return np.where(np.isnan(steps), _ERA5_FILL, np.clip(steps, -32766, 32767)).astype(np.int16)


def _eastward[Values: np.generic](values: NDArray[Values]) -> NDArray[Values]:
    """From -180..180 to 0..360."""
    return np.roll(values, values.shape[-1] // 2, axis=-1)
