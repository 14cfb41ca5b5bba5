"""Ground tracks of the sample's two satellites: a circular orbit over a turning, round Earth.

OCO-2 flies on 98.2 degrees, 233 times round in 16 days, northwards over the equator at 13:30 local time; OCO-3 hangs on
the space station, 51.6 degrees, at hours that drift by 24 minutes a day.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DAY = 86400.0

EARTH_RADIUS = 6371.0  # km

FOOTPRINTS = 8
SWATH = 10.0
"""Width of the eight footprints together, km."""

_EPOCH = float(np.datetime64("2014-09-06T00:00", "s").astype(np.int64))
"""s since 1970-01-01 at which orbit 0 of each crosses the equator northwards."""


@dataclass(frozen=True, kw_only=True)
class Orbit:
    """How a satellite goes round."""

    inclination: float
    """Degrees."""

    period: float
    """From one northward crossing of the equator to the next, s."""

    turn: float
    """How far the Earth turns below the orbit's plane in a day, degrees."""

    first_node: float
    """Longitude of orbit 0's northward crossing of the equator, degrees east."""

    def starting(self, first: float, last: float) -> NDArray[np.int64]:
        """Numbers of the orbits that are flown, in part at least, between two moments in s since 1970-01-01.

        An orbit begins a quarter before its northward crossing: at its southernmost point.
        """
        begin = (first - _EPOCH) / self.period + 0.25
        end = (last - _EPOCH) / self.period + 0.25
        return np.arange(int(np.floor(begin)), int(np.ceil(end)))

    def track(self, orbit: int, share: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Moments (s since 1970-01-01), latitudes and longitudes (degrees) below the satellite, ``(n,)`` each.

        Of spherical trigonometry: sin(lat) = sin(i) sin(u), tan(lon - node) = cos(i) tan(u), less the Earth's turn.

        Args:
            orbit: its number.
            share: of the way round from the northward crossing, -0.25..0.75.
        """
        time = _EPOCH + (orbit + share) * self.period
        tilt, along = np.radians(self.inclination), 2 * np.pi * share
        latitude = np.degrees(np.arcsin(np.sin(tilt) * np.sin(along)))
        east = np.degrees(np.arctan2(np.cos(tilt) * np.sin(along), np.cos(along)))
        longitude = self.first_node + east - self.turn * (orbit + share) * self.period / DAY
        return time, latitude, wrapped(longitude)


OCO2_ORBIT = Orbit(inclination=98.2, period=16 * DAY / 233, turn=360.0, first_node=13.5 * 15)
"""Its plane turns with the sun, so the Earth turns once a day below it, and noon stays where it is."""

OCO3_ORBIT = Orbit(inclination=51.64, period=5559.0, turn=360.9856 + 4.99, first_node=20.0)
"""The station's plane turns westwards by 5 degrees a day."""


def wrapped(longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longitudes in -180..180 degrees."""
    inside: NDArray[np.float64] = (longitude + 180) % 360 - 180
    return inside


def across(
    latitude: NDArray[np.float64], longitude: NDArray[np.float64], heading: NDArray[np.float64], km: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places so many km to the right of a heading (radians clockwise from north); on a plane, good for some 10 km."""
    step = np.degrees(km / EARTH_RADIUS)
    north = latitude - step * np.sin(heading)
    east = longitude + step * np.cos(heading) / np.cos(np.radians(latitude))
    return north, wrapped(east)


def heading_of(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where a track goes at each of its places, radians clockwise from north, ``(n,)``."""
    up = np.gradient(latitude)
    right = np.gradient(np.unwrap(longitude, period=360)) * np.cos(np.radians(latitude))
    heading: NDArray[np.float64] = np.arctan2(right, up)
    return heading


def sun_zenith(
    time: NDArray[np.float64], latitude: NDArray[np.float64], longitude: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The sun's zenith angle, degrees, ``(n,)``; the equation of time is left out.

    Declination by Cooper (1969), as in ``earth.noon_sun``.

    Args:
        time: s since 1970-01-01 UTC.
        latitude: degrees north.
        longitude: degrees east.
    """
    days = time / DAY
    year = days.astype("datetime64[D]").astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
    declination = np.radians(23.45 * np.sin(2 * np.pi * (285 + days - year) / 365))
    hour = 2 * np.pi * (days % 1 - 0.5) + np.radians(longitude)
    y = np.radians(latitude)
    cosine = np.sin(y) * np.sin(declination) + np.cos(y) * np.cos(declination) * np.cos(hour)
    zenith: NDArray[np.float64] = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return zenith
