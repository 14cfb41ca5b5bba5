"""The weather over the sample Earth's carbon: what its covariates show, by month on a lattice of one degree.

Everywhere: air temperature, dew point, pressure, rain and wind. On land: soil moisture, vegetation, skin temperature.
Each is a climate by place and season plus patterns times numbers a month. All numbers are made up.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.core.errors import InputRefused
from services.sample.earth import Earth, month_phase, noon_sun, normal_temperature, wet_belts
from services.sample.modes import FIRST_MONTH, Lattice, Modes, red
from services.sample.noise import Field, noise
from services.sample.recent import Recent
from services.sample.solutions import month_name, month_number

GLOBE = Lattice(west=-180, north=90, width=360, height=180, step=1.0)
"""Where the weather is made."""

QUARTER = Lattice(west=-180, north=90, width=1440, height=720, step=0.25)
"""Where ``Earth`` has its land, heights and settlements."""

LAST_MONTH = month_number("2022-12")
MONTHS = LAST_MONTH + 1 - FIRST_MONTH

_PATTERNS = 32
_SIZE = 11.0
"""Of the patterns: they lose their likeness over some 400 km (see ``noise``)."""

_MEMORY = {"warm": 0.45, "dry": 0.55, "rain": 0.2, "pressure": 0.2, "east": 0.2, "north": 0.25, "clouds": 0.2}
"""The kinds of weather, and what is left of each in the next month."""

_HELD = 18
"""Months that are kept: a year of memory and some more."""

_LAPSE_HEIGHT = 8000.0  # m


@dataclass(frozen=True, kw_only=True)
class Sky:
    """One month, each ``(180, 360)`` float32 on ``GLOBE``, everywhere: also land's fields over sea."""

    temperature: Field
    """2 m, K."""

    dew_point: Field
    """2 m, K."""

    pressure: Field
    """At the surface, Pa."""

    rain: Field
    """Mean of the month's days, m."""

    east: Field
    """Eastward wind, m s-1."""

    north: Field
    """Northward wind, m s-1."""

    soil_moisture: Field
    """m3 m-3."""

    vegetation: Field
    """Vegetation index, 0..1; 0 where there is no land."""

    skin: Field
    """Temperature of the ground at 10:30, K."""

    cloud: Field
    """How cloudy, 0..1."""


@dataclass(frozen=True, kw_only=True)
class Weather:
    """Of one seed; a month does not depend on which others are made."""

    seed: int

    @cached_property
    def earth(self) -> Earth:
        """Coasts, heights and settlements."""
        return Earth(seed=self.seed)

    @cached_property
    def land(self) -> Field:
        """Share of land on ``GLOBE``, 0..1."""
        return degree_means(self.earth.land.astype(np.float32))

    @cached_property
    def elevation(self) -> Field:
        """On ``GLOBE``, m."""
        return degree_means(self.earth.elevation)

    def month(self, month: int) -> Sky:
        """The weather of a month since 1970-01.

        Raises:
            InputRefused: if the Earth has none then.
        """
        return self._recent(int(month))

    def departure(self, name: str, month: int) -> Field:
        """One kind of weather as a departure from the climate: standard deviation 1 at each place, over long times."""
        return self._patterns.field(self._series[name][row_of(month)])

    @cached_property
    def _recent(self) -> Recent[int, Sky]:
        return Recent(self._make, count=_HELD)

    @cached_property
    def _patterns(self) -> Modes:
        return Modes(lattice=GLOBE, seed=self.seed, name="carbon weather", count=_PATTERNS, frequency=_SIZE, octaves=2)

    @cached_property
    def _series(self) -> dict[str, NDArray[np.float64]]:
        return {
            name: red(_PATTERNS, memory=memory, seed=self.seed, name=f"carbon {name}", months=MONTHS)
            for name, memory in _MEMORY.items()
        }

    def _make(self, month: int) -> Sky:
        latitudes = GLOBE.latitudes
        sine = np.sin(np.radians(latitudes))[:, None]
        phase = month_phase(np.datetime64(month, "M"))
        year = np.cos(2 * np.pi * (phase - 0.54))
        warm, dry, rain, pressure, east, north, clouds = (self.departure(name, month) for name in _MEMORY)
        recent = sum((self.departure("rain", month - late) for late in range(3)), np.float32(0)) / np.float32(
            np.sqrt(3)
        )

        temperature = normal_temperature(latitudes, phase, self._continent, self.elevation)
        temperature = temperature + (1.2 + 1.3 * np.abs(sine)) * warm
        wet = np.clip(0.06 + 0.72 * wet_belts(latitudes, phase)[:, None] + 0.11 * self._wet_places, 0.02, 1)
        gap = 5 + 13 * (1 - wet) * self.land * _logistic((temperature - 278) / 6) + 2.6 * dry - 0.6 * rain
        depression = 1.2 * np.logaddexp(0, gap / 1.2)
        growing = _logistic((temperature - 281) / 4)
        soil = np.clip(0.05 + 0.36 * wet + 0.05 * recent, 0.01, 0.55)
        vegetation = np.clip(0.04 + 0.95 * (wet + 0.13 * recent) * growing, 0, 0.95) * (self.land > 0)
        sun = np.clip(noon_sun(latitudes, phase), 0, None)[:, None]
        values: dict[str, NDArray[Any]] = {
            "temperature": temperature,
            "dew_point": temperature - depression,
            "pressure": 101325 * np.exp(-self.elevation / _LAPSE_HEIGHT) + (150 + 350 * np.abs(sine)) * pressure,
            "rain": (0.0003 + 0.006 * wet) * np.exp(0.45 * rain - 0.1),
            "east": -5 * np.cos(3 * np.radians(latitudes))[:, None] * np.cos(sine) + 1.8 * east,
            "north": 1.2 * np.sin(2 * np.radians(latitudes - 8 * year))[:, None] * -1 + 1.8 * north,
            "soil_moisture": soil,
            "vegetation": vegetation,
            "skin": temperature + 9 * sun * (1 - vegetation) * self.land + 0.5 * dry,
            "cloud": _logistic((wet - 0.5) * 2.2 + 0.8 * clouds + 0.3 * rain - 0.35 * self.land),
        }
        return Sky(**{name: value.astype(np.float32) for name, value in values.items()})

    @cached_property
    def _continent(self) -> Field:
        """How far from the sea's influence, 0..1."""
        smooth: Field = ndimage.gaussian_filter(self.land, sigma=3.5, mode=("nearest", "wrap"))
        return smooth

    @cached_property
    def _wet_places(self) -> Field:
        return noise(GLOBE.points, seed=self.seed, name="carbon wetness", frequency=5, octaves=3)


def degree_means(quarter: NDArray[np.float32]) -> Field:
    """Means over the one degree cells of values on ``QUARTER``."""
    means: Field = quarter.reshape(180, 4, 360, 4).mean(axis=(1, 3), dtype=np.float32)
    return means


def row_of(month: int) -> int:
    """Where a month lies in the series of the weather.

    Raises:
        InputRefused: if it does not.
    """
    row = int(month) - FIRST_MONTH
    if not 0 <= row < MONTHS:
        raise InputRefused(
            f"the sample's carbon has weather from {month_name(FIRST_MONTH)} to {month_name(LAST_MONTH)}, "
            f"not for {month_name(month)}"
        )
    return row


def _logistic(values: NDArray[Any]) -> NDArray[Any]:
    share: NDArray[Any] = 1 / (1 + np.exp(-values))
    return share
