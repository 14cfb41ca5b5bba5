"""The sample Earth itself: real coastlines, everything else made up, and the XCO2 that its sites would see.

Numbers are chosen to look plausible on a map (growth of 2.4 ppm a year, a northern seasonal cycle, drawdown by
vegetation, plumes of settlements). They are no measurement and no model of the atmosphere.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from scipy import ndimage

from services.sample.noise import Field, noise, sphere

HEIGHT, WIDTH = 720, 1440
STEP = 0.25

LATITUDES: NDArray[np.float64] = 90 - STEP / 2 - STEP * np.arange(HEIGHT, dtype=np.float64)
"""Centres of rows, degrees north, north to south."""

LONGITUDES: NDArray[np.float64] = -180 + STEP / 2 + STEP * np.arange(WIDTH, dtype=np.float64)
"""Centres of columns, degrees east, west to east."""

DARK = 0.05
"""Cosine of the noon sun's zenith angle below which nothing is seen: polar night and its rim."""

_LAND_FILE = Path(__file__).with_name("natural_earth_land.tif")
_COARSE = 4

# longitude, latitude, radius in degrees, height in m
_HIGHLANDS = (
    (88, 34, 11, 4300),
    (-70, -22, 6, 3000),
    (-76, -8, 5, 2600),
    (-72, -36, 4, 1600),
    (-110, 41, 9, 1700),
    (-120, 54, 6, 1200),
    (38, 9, 6, 1700),
    (33, -3, 7, 1000),
    (27, -28, 6, 1100),
    (45, 37, 7, 1300),
    (10, 46, 3, 1300),
    (100, 47, 8, 1000),
    (130, 66, 10, 600),
    (-42, 73, 9, 2600),
    (140, -6, 3, 1200),
)

# longitude, latitude, radius in degrees, strength
_REGIONS = (
    (116, 35, 8, 1.0),
    (107, 29, 4, 0.6),
    (78, 26, 8, 0.8),
    (77, 14, 5, 0.4),
    (8, 50, 6, 0.6),
    (38, 53, 7, 0.3),
    (-80, 40, 7, 0.7),
    (-96, 32, 6, 0.4),
    (-119, 36, 3, 0.5),
    (139, 36, 3, 0.7),
    (127, 37, 2, 0.8),
    (50, 27, 5, 0.6),
    (31, 30, 2, 0.7),
    (28, -26, 2, 0.7),
    (108, -7, 3, 0.7),
    (101, 14, 3, 0.4),
    (-47, -22, 4, 0.5),
    (-99, 19, 2, 0.6),
    (4, 7, 3, 0.4),
    (147, -36, 3, 0.3),
)


@dataclass(frozen=True, kw_only=True)
class Month:
    """The fields of one month, each ``(720, 1440)`` float32, north up, from -180."""

    temperature: Field
    """2 m air temperature, K, everywhere."""

    soil_moisture: Field
    """Volumetric soil moisture, m3 m-3; NaN over sea."""

    vegetation: Field
    """Vegetation index, 1; NaN over sea and where the sun is too low."""

    sun: Field
    """Cosine of the noon sun's zenith angle at mid-month, 1."""

    xco2: Field
    """The truth, ppm, everywhere; nobody sees it but the tests."""


@dataclass(frozen=True, kw_only=True)
class Earth:
    """One sample Earth; equal seeds make equal ones, and a month does not depend on which others are made."""

    seed: int = 7

    @cached_property
    def land(self) -> NDArray[np.bool_]:
        """Where the centre of a cell is land (Natural Earth 1:50m, public domain)."""
        with rasterio.open(_LAND_FILE) as dataset:
            mask: NDArray[np.bool_] = dataset.read(1) == 1
        return mask

    @cached_property
    def land_fraction(self) -> Field:
        """Share of land, 0..1, smoothed over the neighbouring cells."""
        smooth: Field = ndimage.uniform_filter(self.land.astype(np.float32), size=3, mode=("nearest", "wrap"))
        return smooth

    @cached_property
    def elevation(self) -> Field:
        """Height above the sea, m, 0 over sea."""
        rough = 1 + np.float32(0.35) * self._noise("relief", frequency=12, octaves=5)
        height = 180 + 2600 * smoothstep(-62, -78, LATITUDES)[:, None]
        for longitude, latitude, radius, top in _HIGHLANDS:
            height = height + top * _bump(longitude, latitude, radius)
        inland = ndimage.gaussian_filter(self.land.astype(np.float32), sigma=3, mode=("nearest", "wrap"))
        raised: Field = np.clip(height * rough * inland, 1, 6000).astype(np.float32)
        raised[~self.land] = 0
        return raised

    @cached_property
    def settlement(self) -> Field:
        """How settled a place is, 0..1, 0 over sea."""
        density = np.full((HEIGHT, WIDTH), 0.02)
        for longitude, latitude, radius, strength in _REGIONS:
            density += strength * _bump(longitude, latitude, radius)
        patches = np.clip(0.45 + 0.55 * self._noise("settlement", frequency=30, octaves=3), 0, 2)
        settled = np.clip(density * patches * smoothstep(3500, 1500, self.elevation), 0, 1)
        smooth = ndimage.gaussian_filter(settled, sigma=1.5, mode=("nearest", "wrap"))
        settled_land: Field = np.where(self.land, smooth, 0).astype(np.float32)
        return settled_land

    def month(self, month: np.datetime64) -> Month:
        """Make one month.

        Args:
            month: datetime64[M].
        """
        phase = month_phase(month)
        sun = noon_sun(LATITUDES, phase)
        temperature = self._temperature(month, phase)
        wet = self._wetness(month, phase)
        warm = 1 / (1 + np.exp((281 - temperature) / 4))
        vegetation = np.clip(0.04 + 0.95 * wet * warm, 0, 0.95).astype(np.float32)
        vegetation[~self.land | (np.broadcast_to(sun[:, None], self.land.shape) < DARK)] = np.nan
        moisture = np.clip(0.04 + 0.42 * wet, 0.01, 0.6).astype(np.float32)
        moisture[~self.land] = np.nan
        return Month(
            temperature=temperature,
            soil_moisture=moisture,
            vegetation=vegetation,
            sun=np.broadcast_to(sun[:, None], self.land.shape).astype(np.float32),
            xco2=self._xco2(month, phase, temperature, np.nan_to_num(vegetation), np.nan_to_num(moisture)),
        )

    def _temperature(self, month: np.datetime64, phase: float) -> Field:
        normal = normal_temperature(LATITUDES, phase, self._continent, self.elevation)
        temperature: Field = (normal + 1.2 * self._weather("temperature", month)).astype(np.float32)
        return temperature

    def _wetness(self, month: np.datetime64, phase: float) -> Field:
        """0..1: wet where the sun stands high and in mid-latitudes, dry around 25 degrees."""
        wet = (
            0.06
            + 0.72 * wet_belts(LATITUDES, phase)[:, None]
            + 0.13 * self._wet_places
            + 0.04 * self._weather("wetness", month)
        )
        clipped: Field = np.clip(wet, 0.01, 1).astype(np.float32)
        return clipped

    def _xco2(
        self, month: np.datetime64, phase: float, temperature: Field, vegetation: Field, moisture: Field
    ) -> Field:
        sine = np.sin(np.radians(LATITUDES))
        gradient = 1.1 * np.tanh(LATITUDES / 22)
        cycle = np.cos(2 * np.pi * (phase - 0.26)) + 0.35 * np.cos(4 * np.pi * (phase - 0.42))
        season = (3.0 * smoothstep(0, 62, LATITUDES) - 0.5 * smoothstep(0, -50, LATITUDES)) * cycle
        growing = 1 / (1 + np.exp((287 - temperature) / 4))
        uptake = -2.4 * vegetation * growing
        respiration = 2.2 * moisture * growing
        plume = 4.0 * self._plumes
        height = np.float32(-0.25e-3) * self.elevation
        unseen = 0.35 * self._weather("xco2", month) * (0.7 + 0.6 * np.abs(sine))[:, None]
        zonal = background(month) + (gradient + season)[:, None]
        xco2: Field = (zonal + uptake + respiration + plume + height + unseen).astype(np.float32)
        return xco2

    @cached_property
    def _continent(self) -> Field:
        """How far from the sea's influence, 0..1."""
        smooth: Field = ndimage.gaussian_filter(self.land.astype(np.float32), sigma=14, mode=("nearest", "wrap"))
        return smooth

    @cached_property
    def _plumes(self) -> Field:
        smooth: Field = ndimage.gaussian_filter(self.settlement, sigma=2, mode=("nearest", "wrap"))
        return smooth

    @cached_property
    def _wet_places(self) -> Field:
        return self._noise("wetness", frequency=6, octaves=6)

    @cached_property
    def _points(self) -> Field:
        return sphere(LONGITUDES, LATITUDES)

    def _noise(self, name: str, *, frequency: float, octaves: int) -> Field:
        return noise(self._points, seed=self.seed, name=name, frequency=frequency, octaves=octaves)

    def _weather(self, name: str, month: np.datetime64) -> Field:
        """Smooth departures of one month, standard deviation about 1: made at 1 degree, interpolated between."""
        coarse = noise(
            sphere(LONGITUDES.reshape(-1, _COARSE).mean(1), LATITUDES.reshape(-1, _COARSE).mean(1)),
            seed=self.seed,
            name=f"{name} {month}",
            frequency=3,
            octaves=3,
        )
        return _between_rows(_between_columns(coarse))


def background(month: np.datetime64) -> float:
    """Global mean of the month, ppm, without a seasonal cycle: growth of 2.4 ppm a year that quickens and slackens."""
    years = (month - np.datetime64("2019-01", "M")).astype(int) / 12 + 1 / 24
    return float(408.6 + 2.4 * years + 0.35 * np.sin(2 * np.pi * years / 3.7))


def month_phase(month: np.datetime64) -> float:
    """The middle of the month as a share of the year, 0..1."""
    return float((month.astype("datetime64[M]").astype(int) % 12 + 0.5) / 12)


def noon_sun(latitudes: NDArray[np.float64], phase: float) -> NDArray[np.float64]:
    """Cosine of the noon sun's zenith angle; negative in polar night.

    Declination by Cooper (1969), Solar Energy 12: 23.45 sin(360 (284 + n) / 365) degrees on day n.
    """
    declination = 23.45 * np.sin(2 * np.pi * (284 + 365 * phase) / 365)
    cosine: NDArray[np.float64] = np.cos(np.radians(latitudes - declination))
    return cosine


def normal_temperature(
    latitudes: NDArray[np.float64], phase: float, continent: Field, elevation: Field
) -> NDArray[np.float64]:
    """2 m air temperature without weather, K, ``(y, x)``.

    Args:
        latitudes: of the rows, degrees north, ``(y,)``.
        phase: the share of the year that is over, 0..1.
        continent: how far from the sea's influence, 0..1, ``(y, x)``.
        elevation: m, ``(y, x)``.
    """
    sine = np.sin(np.radians(latitudes))[:, None]
    annual = 301 - 34 * sine**2 - 16 * sine**6
    swing = sine * (6 + 17 * continent) * -np.cos(2 * np.pi * (phase - 0.06))
    lapse = np.float32(-0.0055) * elevation
    normal: NDArray[np.float64] = annual + swing + lapse
    return normal


def wet_belts(latitudes: NDArray[np.float64], phase: float) -> NDArray[np.float64]:
    """Where the rain falls, 0..1 by latitude: under the high sun and in mid-latitudes."""
    follow = latitudes - 8 * np.sin(2 * np.pi * (phase - 0.3))
    belts: NDArray[np.float64] = np.exp(-((follow / 11) ** 2)) + 0.75 * np.exp(-(((np.abs(latitudes) - 54) / 15) ** 2))
    return belts


def _bump(longitude: float, latitude: float, radius: float) -> NDArray[np.float64]:
    """A smooth hill of height 1 around a place, by angular distance."""
    east = np.cos(np.radians(LONGITUDES - longitude))[None, :]
    here = np.radians(LATITUDES)[:, None]
    cosine = np.sin(here) * np.sin(np.radians(latitude)) + np.cos(here) * np.cos(np.radians(latitude)) * east
    hill: NDArray[np.float64] = np.exp((cosine - 1) / (1 - np.cos(np.radians(radius))) * 0.7)
    return hill


def smoothstep(low: float, high: float, values: NDArray[Any]) -> NDArray[Any]:
    """0 up to ``low``, 1 from ``high`` on, smooth between; falls where high < low."""
    share: NDArray[Any] = np.clip((values - low) / (high - low), 0, 1)
    smooth: NDArray[Any] = share * share * (3 - 2 * share)
    return smooth


_AHEAD: NDArray[np.float32] = ((np.arange(_COARSE) + 0.5) / _COARSE - 0.5).astype(np.float32)
"""Where fine cells lie from the centre of their coarse cell, in coarse cells."""


def _between_columns(coarse: Field) -> Field:
    """Linear interpolation along longitude, which goes round."""
    west, east = np.roll(coarse, 1, axis=1), np.roll(coarse, -1, axis=1)
    return _blend(coarse[..., None], west[..., None], east[..., None], _AHEAD).reshape(len(coarse), -1)


def _between_rows(coarse: Field) -> Field:
    """Linear interpolation along latitude; beyond the last centre the value stays."""
    north = np.concatenate([coarse[:1], coarse[:-1]])
    south = np.concatenate([coarse[1:], coarse[-1:]])
    return _blend(coarse[:, None], north[:, None], south[:, None], _AHEAD[:, None]).reshape(-1, coarse.shape[1])


def _blend(here: Field, before: Field, after: Field, ahead: Field) -> Field:
    other = np.where(ahead < 0, before, after)
    share = np.abs(ahead)
    blended: Field = here * (1 - share) + other * share
    return blended
