"""Soundings of the sample's satellites on a day: where they look, what clouds leave, and what they get wrong.

A sounding is the truth at its place and moment, an offset of its instrument and mode, an error that is alike along the
track (exponential, LENGTH km), and an error of its own. Both errors grow with the airmass, as the stated uncertainty
does, which is their standard deviation together. Near clouds and under a low sun soundings are flagged bad, and are
low by some ppm. No error of vertical smoothing is made: the kernels are there, but the truth has no profile.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from services.sample.carbon import Carbon
from services.sample.carbon_orbits import (
    DAY,
    EARTH_RADIUS,
    FOOTPRINTS,
    OCO2_ORBIT,
    OCO3_ORBIT,
    SWATH,
    Orbit,
    across,
    heading_of,
    sun_zenith,
)
from services.sample.carbon_weather import GLOBE, QUARTER
from services.sample.noise import draws, noise
from services.sample.solutions import month_number

type Mode = Literal["land_nadir", "land_glint", "ocean_glint"]

MODES: tuple[Mode, ...] = ("land_nadir", "land_glint", "ocean_glint")

LENGTH = 60.0
"""km along the track over which errors are alike: their correlation falls to 1/e."""

ALONG: dict[Mode, float] = {"land_nadir": 0.60, "land_glint": 0.60, "ocean_glint": 0.45}
"""Standard deviation of the errors that are alike along the track, ppm, at an airmass of 2."""

OWN: dict[Mode, float] = {"land_nadir": 0.50, "land_glint": 0.55, "ocean_glint": 0.35}
"""Standard deviation of a sounding's own error, ppm, at an airmass of 2."""

BAD_BIAS, BAD_SPREAD = -2.0, 2.5
"""What bad soundings are off besides: mean and standard deviation, ppm."""

_PER_AIRMASS = 0.12
"""By how much errors grow from an airmass of 2 to one of 3."""

_HIGHEST_SUN_ZENITH = 78.0  # degrees
_BAD_SUN_ZENITH = 70.0  # degrees
_EDGE = 0.35
"""How near a cloud, in standard deviations of the field of clouds, a sounding is bad."""


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """One of the two."""

    name: Literal["oco2", "oco3"]
    orbit: Orbit

    spacing: float
    """s between the frames that the sample keeps; each keeps one footprint of eight, in turn."""

    first_month: int
    """From which it looks, months since 1970-01."""

    offsets: dict[Mode, float]
    """What it reads too much, ppm."""


OCO2 = Instrument(
    name="oco2",
    orbit=OCO2_ORBIT,
    spacing=8.0,
    first_month=month_number("2014-09"),
    offsets={"land_nadir": 0.0, "land_glint": 0.15, "ocean_glint": -0.20},
)
OCO3 = Instrument(
    name="oco3",
    orbit=OCO3_ORBIT,
    spacing=15.0,
    first_month=month_number("2019-08"),
    offsets={"land_nadir": 0.50, "land_glint": 0.60, "ocean_glint": 0.30},
)
INSTRUMENTS = (OCO2, OCO3)


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What one instrument got on a day, in order of time; all ``(n,)``."""

    instrument: Instrument
    time: NDArray[np.float64]
    """s since 1970-01-01 UTC, in tenths."""

    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    heading: NDArray[np.float64]
    """Radians clockwise from north."""

    orbit: NDArray[np.int64]
    footprint: NDArray[np.int64]
    """1..8."""

    mode: NDArray[np.uint8]
    """Position in MODES."""

    sun_zenith: NDArray[np.float64]
    view_zenith: NDArray[np.float64]
    altitude: NDArray[np.float64]
    """Of the ground, m."""

    pressure: NDArray[np.float64]
    """At the surface, hPa."""

    wind: NDArray[np.float64]
    """Eastward and northward, m s-1, ``(n, 2)``."""

    truth: NDArray[np.float64]
    """ppm on X2019."""

    xco2: NDArray[np.float64]
    """As read, ppm on X2019."""

    uncertainty: NDArray[np.float64]
    """Stated: standard deviation of both errors together, ppm."""

    bad: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True, kw_only=True)
class Satellite:
    """An instrument over the true Earth. Days do not depend on which others are made."""

    world: Carbon
    instrument: Instrument

    density: float = 1.0
    """How many frames it keeps in terms of the instrument's spacing."""

    def day(self, day: np.datetime64) -> Pass:
        """All of a day in UTC, bad ones among them; there may be none.

        Args:
            day: datetime64[D].
        """
        start = float(day.astype("datetime64[s]").astype(np.int64))
        step = self.instrument.spacing / self.density
        shares = np.arange(-0.25, 0.75, step / self.instrument.orbit.period)
        columns = [
            self._orbit(number, shares, start) for number in self.instrument.orbit.starting(start, start + DAY).tolist()
        ]
        joined = {name: np.concatenate([one[name] for one in columns]) for name in columns[0]}
        return self._seen(joined, day)

    def _orbit(self, number: int, shares: NDArray[np.float64], start: float) -> dict[str, NDArray[np.float64]]:
        """The sunlit frames of one orbit that fall on the day, with the orbit's errors, standard deviation 1."""
        seed, name = self.world.seed, f"{self.instrument.name} {number}"
        time, latitude, longitude = self.instrument.orbit.track(number, shares)
        time = np.round(time, 1)
        km = 2 * np.pi * EARTH_RADIUS * (shares[1] - shares[0])
        alike = np.exp(-km / LENGTH)
        fresh = draws(len(shares), seed=seed, name=f"{name} along")
        fresh[1:] *= np.sqrt(1 - alike**2)
        frame = np.arange(len(shares))
        footprint = (3 * frame + number) % FOOTPRINTS + 1
        heading = heading_of(latitude, longitude)
        offset = (footprint - (FOOTPRINTS + 1) / 2) * SWATH / FOOTPRINTS
        y, x = across(latitude, longitude, heading, offset)
        made = {
            "time": time,
            "latitude": y,
            "longitude": x,
            "heading": heading,
            "orbit": np.full(len(shares), float(number)),
            "footprint": footprint.astype(np.float64),
            "sun_zenith": sun_zenith(time, y, x),
            "along": lfilter([1.0], [1.0, -alike], fresh),
            "own": draws(len(shares), seed=seed, name=f"{name} own"),
            "spoilt": draws(len(shares), seed=seed, name=f"{name} spoilt"),
        }
        kept = (made["sun_zenith"] < _HIGHEST_SUN_ZENITH) & (time >= start) & (time < start + DAY)
        return {key: values[kept] for key, values in made.items()}

    def _seen(self, frames: dict[str, NDArray[np.float64]], day: np.datetime64) -> Pass:
        latitude, longitude = frames["latitude"], frames["longitude"]
        land = self._land[_quarter(latitude, longitude)]
        glint = frames["orbit"] % 2 == 0
        # of a nadir orbit over water nothing comes back
        mode = np.select([land & ~glint, land], [0, 1], 2).astype(np.uint8)
        gap = self._gap(latitude, longitude, day)
        kept = (land | glint) & (gap > 0)
        frames = {name: values[kept] for name, values in frames.items()}
        mode, gap = mode[kept], gap[kept]
        latitude, longitude = frames["latitude"], frames["longitude"]
        view = np.where(mode == 0, 1.0, np.minimum(frames["sun_zenith"], 70.0) * 0.9)
        growth = 1 + _PER_AIRMASS * (airmass(frames["sun_zenith"], view) - 2)
        along, own = (np.array([spread[name] for name in MODES])[mode] * growth for spread in (ALONG, OWN))
        offset = np.array([self.instrument.offsets[name] for name in MODES])[mode]
        bad = (gap < _EDGE) | (frames["sun_zenith"] > _BAD_SUN_ZENITH)
        truth = self.world.at(frames["time"], latitude, longitude)
        error = along * frames["along"] + own * frames["own"]
        sky = self.world.weather.month(int(day.astype("datetime64[M]").astype(np.int64)))
        return Pass(
            instrument=self.instrument,
            **{name: frames[name] for name in ("time", "latitude", "longitude", "heading", "sun_zenith")},
            orbit=frames["orbit"].astype(np.int64),
            footprint=frames["footprint"].astype(np.int64),
            mode=mode,
            view_zenith=view,
            altitude=np.where(mode < 2, self.world.weather.earth.elevation[_quarter(latitude, longitude)], 0).astype(
                np.float64
            ),
            pressure=GLOBE.at_points(sky.pressure, longitude, latitude).astype(np.float64) / 100,
            wind=np.stack([GLOBE.at_points(one, longitude, latitude) for one in (sky.east, sky.north)], axis=1).astype(
                np.float64
            ),
            truth=truth,
            xco2=truth + offset + error + np.where(bad, BAD_BIAS + BAD_SPREAD * frames["spoilt"], 0),
            uncertainty=np.hypot(along, own),
            bad=bad,
        )

    @cached_property
    def _land(self) -> NDArray[np.bool_]:
        return self.world.weather.earth.land

    def _gap(
        self, latitude: NDArray[np.float64], longitude: NDArray[np.float64], day: np.datetime64
    ) -> NDArray[np.float64]:
        """How far from clouds, in standard deviations of their field; below 0 in them.

        Clouds are smooth over some 300 km, other ones each day, and more where the month is cloudy.
        """
        if len(latitude) == 0:
            return np.empty(0)
        y, x = np.radians(latitude), np.radians(longitude)
        points = np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)]).astype(np.float32)
        field = noise(points, seed=self.world.seed, name=f"clouds {day}", frequency=20, octaves=3)
        sky = self.world.weather.month(int(day.astype("datetime64[M]").astype(np.int64)))
        cloudy = GLOBE.at_points(sky.cloud, longitude, latitude)
        return (field - (4.2 * cloudy - 1.2)).astype(np.float64)


def airmass(sun_zenith: NDArray[np.float64], view_zenith: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the way down and up through a flat atmosphere: 1 / cos + 1 / cos."""
    mass: NDArray[np.float64] = 1 / np.cos(np.radians(sun_zenith)) + 1 / np.cos(np.radians(view_zenith))
    return mass


def _quarter(
    latitude: NDArray[np.float64], longitude: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cells of ``QUARTER`` that hold places."""
    row = np.clip((90 - latitude) / QUARTER.step, 0, QUARTER.height - 1).astype(np.int64)
    return row, ((longitude + 180) / QUARTER.step).astype(np.int64) % QUARTER.width
