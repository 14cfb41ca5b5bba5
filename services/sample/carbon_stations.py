"""23 stations like TCCON's, at the real sites' places: what they measure on clear days, and their public files.

A spectrum reads the truth at its place and moment, an offset of its station, an error of its day and one of its own,
of which the last is stated. Names of variables, units and fills are those of GGG2020's public files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
from numpy.typing import NDArray

from services.sample.carbon import Carbon, month_and_share, to_x2007, zonal
from services.sample.carbon_orbits import DAY, sun_zenith
from services.sample.manifest import SYNTHETIC
from services.sample.noise import draws

OFFSET = 0.20
"""Standard deviation of the stations' offsets, ppm."""

DAILY = 0.25
"""Standard deviation of an error that lasts for the day, ppm."""

OWN = 0.40
"""Standard deviation of a spectrum's own error in high sun, ppm; it is what ``xco2_error`` states."""

CLEAR = 0.22
"""Share of the days with spectra."""

HOURS: NDArray[np.float64] = np.concatenate([[9.0, 10.0, 11.0], 12 + 0.125 * np.arange(24), [15.5, 16.5]])
"""Local solar hours of a clear day's spectra: one each 7.5 minutes around the overpass."""

LEVELS = 51

_HIGHEST_SUN_ZENITH = 82.0  # degrees, as in the network's files


@dataclass(frozen=True, kw_only=True)
class Station:
    """One station."""

    site: str
    """Two letters."""

    name: str
    latitude: float
    longitude: float

    altitude: float
    """km."""


STATIONS = tuple(
    Station(site=site, name=name, latitude=latitude, longitude=longitude, altitude=altitude)
    for site, name, latitude, longitude, altitude in (
        ("an", "anmeyondo01", 36.54, 126.33, 0.03),
        ("bi", "bialystok01", 53.23, 23.02, 0.18),
        ("br", "bremen01", 53.10, 8.85, 0.03),
        ("bu", "burgos01", 18.53, 120.65, 0.04),
        ("ci", "pasadena01", 34.14, -118.13, 0.23),
        ("db", "darwin01", -12.46, 130.93, 0.04),
        ("df", "edwards01", 34.96, -117.88, 0.70),
        ("et", "easttroutlake01", 54.35, -104.99, 0.50),
        ("gm", "garmisch01", 47.48, 11.06, 0.75),
        ("hf", "hefei01", 31.90, 117.17, 0.03),
        ("iz", "izana01", 28.30, -16.48, 2.37),
        ("js", "saga01", 33.24, 130.29, 0.01),
        ("ka", "karlsruhe01", 49.10, 8.44, 0.11),
        ("ll", "lauder02", -45.04, 169.68, 0.37),
        ("oc", "lamont01", 36.60, -97.49, 0.32),
        ("or", "orleans01", 47.97, 2.11, 0.13),
        ("pa", "parkfalls01", 45.94, -90.27, 0.47),
        ("ra", "reunion01", -20.90, 55.49, 0.09),
        ("so", "sodankyla01", 67.37, 26.63, 0.19),
        ("sp", "nyalesund01", 78.92, 11.92, 0.02),
        ("tk", "tsukuba02", 36.05, 140.12, 0.03),
        ("wg", "wollongong01", -34.41, 150.88, 0.03),
        ("xh", "xianghe01", 39.80, 116.96, 0.04),
    )
)
"""Real places; nothing else of them is real here."""


@dataclass(frozen=True, kw_only=True)
class Spectra:
    """What a station got, in order of time; all ``(n,)``."""

    station: Station

    time: NDArray[np.float64]
    """s since 1970-01-01 UTC."""

    sun_zenith: NDArray[np.float64]
    """Degrees."""

    truth: NDArray[np.float64]
    """ppm on X2019."""

    xco2: NDArray[np.float64]
    """As measured, ppm on X2019."""

    error: NDArray[np.float64]
    """Stated: standard deviation of a spectrum's own error, ppm."""


def offset_of(world: Carbon, station: Station) -> float:
    """What a station reads too much, ppm."""
    return OFFSET * float(draws(1, seed=world.seed, name=f"station {station.site}")[0])


def network(world: Carbon, first: np.datetime64, last: np.datetime64) -> tuple[Spectra, ...]:
    """The spectra of all stations from a day to another, both in it; a day does not depend on the others.

    They are made together, so that each month of the truth is made once.

    Args:
        world: the truth.
        first: datetime64[D].
        last: datetime64[D].
    """
    moments = [_moments(world, station, first, last) for station in STATIONS]
    counts = [len(one["time"]) for one in moments]
    truth = world.at(
        np.concatenate([one["time"] for one in moments]),
        np.repeat([station.latitude for station in STATIONS], counts),
        np.repeat([station.longitude for station in STATIONS], counts),
    )
    made = []
    for station, one, true in zip(STATIONS, moments, np.split(truth, np.cumsum(counts)[:-1]), strict=True):
        error = OWN * (0.8 + 0.2 / np.cos(np.radians(one["sun_zenith"])))
        made.append(
            Spectra(
                station=station,
                time=one["time"],
                sun_zenith=one["sun_zenith"],
                truth=true,
                xco2=true + offset_of(world, station) + DAILY * one["daily"] + error * one["own"],
                error=error,
            )
        )
    return tuple(made)


def _moments(
    world: Carbon, station: Station, first: np.datetime64, last: np.datetime64
) -> dict[str, NDArray[np.float64]]:
    """When a station measures, and its errors as draws of standard deviation 1."""
    # days by the sun there, which begin half a day before or after those of UTC
    one = np.timedelta64(1, "D")
    numbers = np.arange(first - one, last + 2 * one).astype(np.int64)
    name, origin = f"station {station.site}", int(np.datetime64("2010-01-01", "D").astype(np.int64))
    until = int(numbers[-1]) - origin + 1
    luck, daily = (draws(until, seed=world.seed, name=f"{name} {what}")[numbers - origin] for what in ("clear", "day"))
    clear = luck < _CLEAR_BELOW
    numbers, daily = numbers[clear], daily[clear]
    own = draws(until * len(HOURS), seed=world.seed, name=f"{name} own").reshape(until, -1)[numbers - origin]
    time = numbers[:, None] * DAY + (HOURS - station.longitude / 15) * 3600
    made = {"time": time, "daily": np.broadcast_to(daily[:, None], time.shape), "own": own}
    flat = {key: values.ravel() for key, values in made.items()}
    places = np.full(time.size, station.latitude), np.full(time.size, station.longitude)
    flat["sun_zenith"] = sun_zenith(flat["time"], *places)
    start, end = (float(day.astype(np.int64)) * DAY for day in (first, last + one))
    kept = (flat["sun_zenith"] < _HIGHEST_SUN_ZENITH) & (flat["time"] >= start) & (flat["time"] < end)
    return {key: values[kept] for key, values in flat.items()}


_CLEAR_BELOW = -0.772
"""Of a standard normal distribution, the share CLEAR lies below it."""


def station_file_name(station: Station, first: np.datetime64, last: np.datetime64) -> str:
    """As the network names its public files."""
    return f"{station.site}{str(first).replace('-', '')}_{str(last).replace('-', '')}.public.qc.nc"


def write_station(path: Path, spectra: Spectra) -> None:
    """Write a station's file.

    Args:
        path: of the file.
        spectra: of one station.
    """
    count = len(spectra.time)
    with h5netcdf.File(path, "w") as file:
        file.attrs.update(
            {
                "source": SYNTHETIC,
                "title": "Atmospheric trace gas column-average dry-air mole fractions, as TCCON's public files",
                "long_name": spectra.station.name,
                "short_location": spectra.station.name,
                "file_format_version": "2020.B",
                "data_revision": "R0",
                "history": SYNTHETIC,
            }
        )
        file.dimensions = {"time": count, "prior_altitude": LEVELS, "ak_altitude": LEVELS}
        for name, over, values, attributes in _variables(spectra):
            variable = file.create_variable(
                name,
                over,
                data=values,
                chunks=(min(count, 2048), *values.shape[1:]) if over[0] == "time" and count else None,
                compression="gzip",
                compression_opts=1,
                shuffle=True,
                fillvalue=values.dtype.type(np.nan) if values.dtype.kind == "f" else None,
            )
            variable.attrs.update(attributes)


def _variables(spectra: Spectra) -> Iterator[tuple[str, tuple[str, ...], NDArray[Any], dict[str, Any]]]:
    single, station = np.float32, spectra.station
    altitude = _ALTITUDE
    day = spectra.time // DAY
    pressure, prior, operator = _columns(spectra)
    mass = np.round(1 / np.cos(np.radians(spectra.sun_zenith)), 1)
    kernel = (1.12 - 0.75 * (1 - np.exp(-((altitude / 22) ** 1.5))))[None, :] + 0.02 * (mass[:, None] - 1.5)
    seconds = {"units": "seconds since 1970-01-01", "calendar": "gregorian", "standard_name": "time"}
    whole = np.full(len(spectra.time), 1.0)
    yield "time", ("time",), spectra.time, {**seconds, "long_name": "time", "description": "UTC time"}
    yield "prior_altitude", ("prior_altitude",), altitude.astype(single), {"units": "km", "standard_name": "altitude"}
    yield "ak_altitude", ("ak_altitude",), altitude.astype(single), {"units": "km", "standard_name": "altitude"}
    yield (
        "ak_pressure",
        ("ak_altitude",),
        (1013.25 * np.exp(-altitude / _SCALE_HEIGHT)).astype(single),
        {"units": "hPa", "standard_name": "air_pressure"},
    )
    years = spectra.time.astype("datetime64[s]").astype("datetime64[Y]")
    days = spectra.time.astype("datetime64[s]").astype("datetime64[D]")
    yield "year", ("time",), (years.astype(np.int64) + 1970).astype(np.int16), {"units": "years"}
    yield "day", ("time",), ((days - years).astype(np.int64) + 1).astype(np.int16), {"units": "days"}
    for name, values, units, standard in (
        ("hour", (spectra.time - day * DAY) / 3600, "hours", "decimal_hour"),
        ("lat", station.latitude * whole, "degrees_north", "latitude"),
        ("long", station.longitude * whole, "degrees_east", "longitude"),
        ("zobs", station.altitude * whole, "km", "altitude"),
        ("solzen", spectra.sun_zenith, "degrees", "solar_zenith_angle"),
        ("airmass", 1 / np.cos(np.radians(spectra.sun_zenith)), "1", "airmass"),
        ("pout", pressure[:, 0], "hPa", "atmospheric_pressure"),
    ):
        yield name, ("time",), values.astype(single), {"units": units, "standard_name": standard}
    column = "column_average_dry_atmosphere_mole_fraction_of_carbon_dioxide"
    closed = (prior.astype(np.float64) * operator).sum(axis=1)
    for name, values, scale, standard in (
        ("xco2", to_x2007(spectra.xco2), "WMO CO2 X2007", column),
        ("xco2_error", spectra.error, None, f"{column} standard_error"),
        ("xco2_x2019", spectra.xco2, "WMO CO2 X2019", column),
        ("xco2_error_x2019", spectra.error, None, "xco2_error"),
        ("prior_xco2", closed, None, column),
        ("prior_xco2_x2019", closed, None, "xco2"),
    ):
        told = {"units": "ppm", "standard_name": standard, "long_name": name.replace("_", " ")}
        yield name, ("time",), values.astype(single), told | ({"wmo_or_analogous_scale": scale} if scale else {})
    yield (
        "extrapolation_flags_ak_xco2",
        ("time",),
        np.zeros(len(spectra.time), dtype=np.int8),
        {
            "flag_values": np.array([-2, -1, 0, 1, 2], dtype=np.int8),
            "flag_meanings": "clamped_to_min extrapolated_below interpolated extrapolated_above clamped_to_max",
        },
    )
    for name, axis, values, attributes in (
        ("ak_xco2", "ak_altitude", kernel, {"units": "1", "standard_name": "averaging_kernel"}),
        ("prior_co2", "prior_altitude", prior, {"units": "ppm", "long_name": "prior 1co2 profile"}),
        ("prior_pressure", "prior_altitude", pressure / 1013.25, {"units": "atm", "standard_name": "air_pressure"}),
        ("integration_operator", "prior_altitude", operator, {"units": "1"}),
    ):
        yield name, ("time", axis), np.asarray(values).astype(single), attributes


_ALTITUDE: NDArray[np.float64] = np.linspace(0, np.sqrt(70), LEVELS) ** 2
"""km, closer near the ground."""

_SCALE_HEIGHT = 7.6  # km


def _columns(spectra: Spectra) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Pressure (hPa), CO2 before the retrieval (ppm) and each level's share of the column, ``(n, LEVELS)`` each.

    They stay for a day. The shares are those of the pressure between the middles of the levels, so that the operator
    times the profile is the prior's column exactly.
    """
    days = np.floor(spectra.time / DAY) * DAY
    months, share = month_and_share(days)
    above = np.maximum(_ALTITUDE, spectra.station.altitude)
    pressure = 1013.25 * np.exp(-above / _SCALE_HEIGHT)
    edges = np.concatenate([pressure[:1], (pressure[1:] + pressure[:-1]) / 2, [0]])
    shares = (edges[:-1] - edges[1:]) / edges[0]
    shape = -7.0 * (1 - np.exp(-((_ALTITUDE / 16) ** 3))) + 1.2 * np.exp(-_ALTITUDE / 2)
    column = zonal(months + share, np.full(len(days), spectra.station.latitude))
    prior = column[:, None] + (shape - shape @ shares)
    whole = (len(days), LEVELS)
    return np.broadcast_to(pressure, whole), prior.astype(np.float32).astype(np.float64), np.broadcast_to(shares, whole)
