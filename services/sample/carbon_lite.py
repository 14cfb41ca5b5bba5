"""Writes a day of the sample's soundings as a Lite file: names, groups, types, fills and scales as build 11 has them.

``xco2`` is on the scale X2007, ``xco2_x2019`` beside it on X2019; both are marked as made up in the attributes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from services.sample.carbon import month_and_share, to_x2007, zonal
from services.sample.carbon_orbits import FOOTPRINTS, SWATH, across
from services.sample.carbon_soundings import Pass, airmass
from services.sample.manifest import SYNTHETIC

LEVELS = 20

FILL = -999999.0

_NAMES = {
    "oco2": "oco2_LtCO2_{day}_B11210Ar_240820000231s.nc4",
    "oco3": "oco3_LtCO2_{day}_B11072Ar_240915205334s.nc4",
}
_PLATFORMS = {"oco2": ("OCO-2", "OCO-2"), "oco3": ("ISS", "OCO-3")}

_SIGMA: NDArray[np.float64] = np.concatenate([[1e-4], np.arange(1, LEVELS) / (LEVELS - 1)])
"""Levels from space to the ground, in terms of the surface's pressure."""

_WEIGHTS: NDArray[np.float64] = np.where((np.arange(LEVELS) == 0) | (np.arange(LEVELS) == LEVELS - 1), 0.5, 1.0) / (
    LEVELS - 1
)
"""Shares of the column by level; linear between levels, so the outer ones count by half."""

_LEVEL_PRIOR_HEIGHT = 0.3
"""ppm by which the prior is above the zonal truth."""


@dataclass(frozen=True, kw_only=True)
class _Variable:
    """One variable of a file."""

    name: str
    values: NDArray[Any]
    units: str
    long_name: str
    over: tuple[str, ...] = ()
    """Dimensions after the soundings."""

    group: str | None = None


def lite_name(instrument: str, day: np.datetime64) -> str:
    """What the file of a day is called."""
    return _NAMES[instrument].format(day=str(day).replace("-", "")[2:])


def write_lite(path: Path, seen: Pass) -> None:
    """Write a day's file.

    Args:
        path: of the file.
        seen: at least one sounding.
    """
    platform, sensor = _PLATFORMS[seen.instrument.name]
    attributes = {
        "Conventions": "CF-1.6",
        "title": f"{sensor} L2FP Lite Output",
        "institution": SYNTHETIC,
        "Platform": platform,
        "Sensor": sensor,
        "BuildId": "B11.2.10" if sensor == "OCO-2" else "B11.0.72",
        "history": SYNTHETIC,
    }
    # By h5py: thousands of files, and a file takes a third of the time it takes by h5netcdf.
    with h5py.File(path, "w") as file:
        for key, value in attributes.items():
            file.attrs[key] = np.bytes_(value)
        scales = {name: _dimension(file, name, length) for name, length in _DIMENSIONS.items()}
        for one in _variables(seen):
            held = _variable(file, one)
            if one.name == "sounding_id":
                held.make_scale("sounding_id")
                scales["sounding_id"] = held
                continue
            for axis, name in enumerate(("sounding_id", *one.over)):
                held.dims[axis].attach_scale(scales[name])


_DIMENSIONS = {"levels": LEVELS, "vertices": 4, "epoch_dimension": 7, "footprints": FOOTPRINTS}


def _dimension(file: h5py.File, name: str, length: int) -> h5py.Dataset:
    """A dimension that is no variable, but for the levels: marked as the NetCDF-4 format does."""
    values = np.arange(1, length + 1, dtype=np.int16) if name == "levels" else np.zeros(length, dtype=np.float32)
    held = file.create_dataset(name, data=values)
    held.make_scale(name if name == "levels" else f"This is a netCDF dimension but not a netCDF variable.{length:10d}")
    return held


def _variable(file: h5py.File, one: "_Variable") -> h5py.Dataset:
    values = np.ascontiguousarray(one.values)
    fill = values.dtype.type(FILL) if values.dtype.kind == "f" else None
    held = file.create_dataset(
        one.name if one.group is None else f"{one.group}/{one.name}",
        data=values,
        chunks=values.shape,
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        fillvalue=fill,
    )
    held.attrs["units"] = np.bytes_(one.units)
    held.attrs["long_name"] = np.bytes_(one.long_name or one.name)
    if fill is not None:
        held.attrs["_FillValue"] = held.attrs["missing_value"] = np.array([fill])
    return held


def averaging_kernel(mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """The column's kernel by level, ``(n, LEVELS)``: about 0.25 in the stratosphere, about 1 below (our choice).

    Args:
        mass: airmass, ``(n,)``; the more of it, the less the stratosphere counts.
    """
    depth = _SIGMA[None, :] * (1 + 0.05 * (mass[:, None] - 2))
    kernel: NDArray[np.float64] = 1.045 - 0.815 * np.exp(-((depth / 0.17) ** 1.1)) - 0.07 * _SIGMA**2
    return kernel


def prior_profile(time: NDArray[np.float64], latitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """CO2 by level before a retrieval, ppm, ``(n, LEVELS)``: the zonal column, less above, more near the ground.

    Args:
        time: s since 1970-01-01 UTC.
        latitude: degrees north.
    """
    months, share = month_and_share(time)
    shape = -6.0 * np.exp(-_SIGMA / 0.12) + 1.5 * _SIGMA**4
    shape -= shape @ _WEIGHTS
    column = zonal(months + share, latitude) + _LEVEL_PRIOR_HEIGHT
    profile: NDArray[np.float64] = column[:, None] + shape
    return profile


def _variables(seen: Pass) -> Iterator[_Variable]:
    single = np.float32
    moment = np.floor(seen.time)
    tenth = np.round((seen.time - moment) * 10).astype(np.int64)
    date = _date(moment, tenth)
    mass = airmass(seen.sun_zenith, seen.view_zenith)
    # by day and whole degree, so that neighbours share theirs
    profile = prior_profile(np.floor(seen.time / 86400) * 86400, np.round(seen.latitude)).astype(single)
    yield _Variable(
        name="sounding_id",
        values=_identity(date, tenth, seen.footprint),
        units="YYYYMMDDhhmmssmf",
        long_name="OCO sounding ID",
    )
    yield _Variable(
        name="date", values=date, units="none", long_name="Observation date and time", over=("epoch_dimension",)
    )
    yield _Variable(name="time", values=seen.time, units="seconds since 1970-01-01 00:00:00", long_name="time")
    for name, values, units, long_name in (
        ("latitude", seen.latitude, "degrees_north", "latitude"),
        ("longitude", seen.longitude, "degrees_east", "longitude"),
        ("solar_zenith_angle", seen.sun_zenith, "degrees", "solar zenith angle"),
        ("sensor_zenith_angle", seen.view_zenith, "degrees", "sensor zenith angle"),
        ("xco2", to_x2007(seen.xco2), "ppm", "Bias-corrected XCO2 on X2007 scale"),
        ("xco2_x2019", seen.xco2, "ppm", "Bias-corrected XCO2 on X2019 scale"),
        ("xco2_uncertainty", seen.uncertainty, "ppm", "XCO2_Posterior_Error"),
        ("xco2_apriori", profile.astype(np.float64) @ _WEIGHTS, "ppm", "A priori XCO2 Value"),
    ):
        yield _Variable(name=name, values=values.astype(single), units=units, long_name=long_name)
    yield _Variable(
        name="xco2_quality_flag",
        values=seen.bad.astype(np.int8),
        units="none",
        long_name="XCO2 quality flag: 0=Good, 1=Bad",
    )
    yield _Variable(
        name="xco2_qf_bitflag",
        values=(seen.bad * 2).astype(np.int32),
        units="none",
        long_name="XCO2 quality bitflag: 0=Good, otherwise which tests failed",
    )
    corners = _corners(seen)
    for axis, name, units in ((0, "vertex_latitude", "degrees_north"), (1, "vertex_longitude", "degrees_east")):
        yield _Variable(name=name, values=corners[axis].astype(single), units=units, long_name=name, over=("vertices",))
    for name, levels, units, long_name in (
        ("pressure_levels", np.round(seen.pressure, 1)[:, None] * _SIGMA, "hPa", "Pressure_Levels"),
        ("pressure_weight", np.broadcast_to(_WEIGHTS, profile.shape), "none", "Pressure Weighting Function"),
        ("xco2_averaging_kernel", averaging_kernel(np.round(mass, 1)), "none", "XCO2 Column Averaging Kernel"),
        ("co2_profile_apriori", profile, "ppm", "CO2 Apriori Profile"),
    ):
        yield _Variable(name=name, values=levels.astype(single), units=units, long_name=long_name, over=("levels",))
    for group, name, held, units in (
        ("Sounding", "operation_mode", np.where(seen.mode == 0, 0, 1).astype(np.int8), "0=Nadir, 1=Glint, 2=Target"),
        ("Sounding", "land_water_indicator", np.where(seen.mode < 2, 0, 1).astype(np.int8), "0=Land, 1=Water"),
        ("Sounding", "footprint", seen.footprint.astype(np.int8), "none"),
        ("Sounding", "orbit", seen.orbit.astype(np.int32), "none"),
        ("Sounding", "altitude", seen.altitude.astype(single), "meters"),
        ("Sounding", "airmass", mass.astype(single), "none"),
        ("Retrieval", "psurf", seen.pressure.astype(single), "hPa"),
        ("Retrieval", "xco2_raw", to_x2007(seen.xco2).astype(single), "ppm"),
        ("Meteorology", "psurf_apriori", seen.pressure.astype(single), "hPa"),
        ("Meteorology", "windspeed_u_met", seen.wind[:, 0].astype(single), "m s-1"),
        ("Meteorology", "windspeed_v_met", seen.wind[:, 1].astype(single), "m s-1"),
    ):
        yield _Variable(name=name, values=held, units=units, long_name=name, group=group)


def _date(moment: NDArray[np.float64], tenth: NDArray[np.int64]) -> NDArray[np.int16]:
    """Year, month, day, hour, minute, second, millisecond, ``(n, 7)``."""
    at = moment.astype("datetime64[s]")
    day, month, year = at.astype("datetime64[D]"), at.astype("datetime64[M]"), at.astype("datetime64[Y]")
    second = (at - day).astype(np.int64)
    parts = (
        year.astype(np.int64) + 1970,
        (month - year).astype(np.int64) + 1,
        (day - month).astype(np.int64) + 1,
        second // 3600,
        second // 60 % 60,
        second % 60,
        tenth * 100,
    )
    return np.stack(parts, axis=1).astype(np.int16)


def _identity(date: NDArray[np.int16], tenth: NDArray[np.int64], footprint: NDArray[np.int64]) -> NDArray[np.int64]:
    """YYYYMMDDhhmmss, tenths of a second, footprint: 16 digits."""
    number = np.zeros(len(date), dtype=np.int64)
    for position in range(6):
        number = number * (1 if position == 0 else 100) + date[:, position]
    return (number * 10 + tenth) * 10 + footprint


def _corners(seen: Pass) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitudes and longitudes of a footprint's corners, ``(n, 4)`` each: 1.25 km across the track, 2.25 along it."""
    wide, long = SWATH / FOOTPRINTS / 2, 2.25 / 2
    corners = []
    for right, ahead in ((-wide, -long), (wide, -long), (wide, long), (-wide, long)):
        at = across(seen.latitude, seen.longitude, seen.heading, np.full(len(seen), right))
        corners.append(across(*at, seen.heading - np.pi / 2, np.full(len(seen), ahead)))
    latitude, longitude = (np.stack([corner[axis] for corner in corners], axis=1) for axis in (0, 1))
    return latitude, longitude
