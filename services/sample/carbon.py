"""The carbon of the sample Earth: the true XCO2 in any month or moment, at any place, and what can be known of it.

It is fixed here, before any model sees it. XCO2 (ppm, on the scale X2019) is

    background + season                growth that differs by year, a gradient, a year's cycle by latitude
  + transport + drought + uptake       follow from covariates of this month and of those before it, not in proportion
  + emissions                          plumes of emitters in the month's wind, and a haze over settled land
  + unseen                             smooth in space and time, a function of no covariate

What is left of it beside climatology and trend has a standard deviation of at least 1 ppm, and ``unseen`` is at least a
third of that variance; the tests hold it to both. Within a month the background and the season move on, and passing
weather of a few days, whose mean over the month is 0 everywhere, adds to them; the rest holds for the month, so that
``xco2`` is exactly the mean of ``at`` over the month. All numbers are made up.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.sample.carbon_cells import over_cells
from services.sample.carbon_emitters import HALF, Emissions, Emitter
from services.sample.carbon_weather import GLOBE, MONTHS, Weather, degree_means, row_of
from services.sample.earth import Earth, smoothstep
from services.sample.modes import FIRST_MONTH, Modes, red
from services.sample.noise import Field, draws, noise
from services.sample.recent import Recent
from services.sample.solutions import month_name, month_number

type Size = Literal["small", "study"]

SPANS: dict[Size, tuple[str, str]] = {"small": ("2019-01", "2021-12"), "study": ("2015-01", "2021-12")}
"""First and last month with soundings."""

STEPS: dict[Size, str] = {"small": "2", "study": "1/2"}
"""Cells of the covariates, degrees."""

MEMORY = 12
"""Months, the month itself among them, that the truth follows from."""

MEAN_GROWTH = 2.4
"""ppm a year from 2015-01-01 to 2022-01-01, exactly: what it swings by has whole cycles in these seven years."""

PASSING = 0.35
"""Standard deviation within a month of weather that passes in days, ppm."""

SCALE = "X2019"

_START = month_number("2015-01")
_FIRST_LEVEL = 397.6  # ppm at the start of 2015
_SWINGS = ((0.45, 3.5, 0.6), (0.25, 7 / 3, 4.0))
"""Of the growth: ppm a year, years of a cycle, radians."""

_TRANSPORT = 2.05  # ppm
_DROUGHT = 3.3  # ppm
_UPTAKE = 10.0  # ppm of full growth that lasts
_UNSEEN = 0.74  # ppm
_HAZE = 1.1  # ppm

_LAGS = np.arange(MEMORY)
_FADING = {
    "transport": np.exp(-_LAGS / 1.2),
    "drought": (_LAGS + 1) * np.exp(-_LAGS / 2.2),
    "uptake": np.exp(-_LAGS / 2.5),
}
"""How much a month counts in those after it; shares of the sum."""

_FINEST = 0.5
"""Degrees: larger cells are means over points so far apart or closer."""

_WAVES = 16


@dataclass(frozen=True)
class Carbon:
    """The truth of one size. Sizes differ in span and cells alone; a month does not depend on which others are made."""

    size: Size = "small"
    seed: int = field(default=Earth().seed, kw_only=True)

    @cached_property
    def grid(self) -> Grid:
        """The cells of this size's covariates, global."""
        step = STEPS[self.size]
        height = {"2": 90, "1/2": 360}[step]
        return Grid.of(west=-180, north=90, step_x=step, width=2 * height, height=height)

    # -- the truth

    def xco2(self, month: int, grid: Grid | None = None, window: Window | None = None) -> Field:
        """Means over the cells and the month.

        Args:
            month: months since 1970-01, from 2002-01 to 2022-12.
            grid: of any resolution, this size's if None.
            window: cells of it; all if None.

        Returns:
            ppm, ``(y, x)``, everywhere.
        """
        parts = self.components(month, grid, window)
        total = np.zeros(next(iter(parts.values())).shape)
        for part in parts.values():
            total += part
        return total.astype(np.float32)

    def components(self, month: int, grid: Grid | None = None, window: Window | None = None) -> dict[str, Field]:
        """The parts that ``xco2`` is the sum of, by name, ppm, ``(y, x)``; arguments as there."""
        grid = grid or self.grid
        known = self._monthly(month)

        def parts(longitudes: NDArray[np.float64], latitudes: NDArray[np.float64]) -> dict[str, Field]:
            modulation = GLOBE.at(self._modulation, longitudes, latitudes)
            season = _season(month + 0.5, latitudes, mean=True)[:, None] * modulation
            level = background(month + 0.5, mean=True) + _gradient(latitudes)
            made = {"background": np.broadcast_to(level[:, None], season.shape), "season": season}
            made |= {name: GLOBE.at(values, longitudes, latitudes) for name, values in known.items()}
            made["emissions"] = made["emissions"] + HALF.at(self._plumes(month), longitudes, latitudes)
            return made

        return over_cells(parts, grid, window, finest=_FINEST)

    def at(
        self, time: NDArray[np.float64], latitude: NDArray[np.float64], longitude: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The column at moments and places, ppm, ``(n,)``.

        Args:
            time: s since 1970-01-01 UTC, ``(n,)``.
            latitude: degrees north, ``(n,)``.
            longitude: degrees east, ``(n,)``.
        """
        if len(time) == 0:
            return np.empty(0)
        months, share = month_and_share(time)
        moment = months + share
        modulation = GLOBE.at_points(self._modulation, longitude, latitude)
        column: NDArray[np.float64] = (
            background(moment) + _gradient(latitude) + _season(moment, latitude) * modulation
        ) + self._passing(share, latitude, longitude)
        for month in np.unique(months).tolist():
            of_month = months == month
            place = (longitude[of_month], latitude[of_month])
            column[of_month] += GLOBE.at_points(self._held(month), *place) + HALF.at_points(self._plumes(month), *place)
        return column

    def emitters(self) -> tuple[Emitter, ...]:
        """Places and strengths, which the inventory lacks and which it has in vain."""
        return self.emissions.emitters

    # -- parts

    @cached_property
    def weather(self) -> Weather:
        """What the covariates show."""
        return Weather(seed=self.seed)

    @cached_property
    def emissions(self) -> Emissions:
        """What emits."""
        return Emissions(weather=self.weather)

    def _monthly(self, month: int) -> dict[str, Field]:
        """The parts of a month on ``GLOBE``, without plumes, ppm."""
        return self._recent_parts(int(month))

    def _held(self, month: int) -> Field:
        """Their sum."""
        parts = list(self._monthly(month).values())
        return np.sum(parts, axis=0, dtype=np.float32)

    def _plumes(self, month: int) -> Field:
        return self._recent_plumes(int(month))

    @cached_property
    def _recent_parts(self) -> Recent[int, dict[str, Field]]:
        return Recent(self._make_parts, count=3)

    @cached_property
    def _recent_plumes(self) -> Recent[int, Field]:
        return Recent(self.emissions.plumes, count=3)

    @cached_property
    def _recent_causes(self) -> Recent[int, dict[str, Field]]:
        return Recent(self._causes, count=MEMORY + 3)

    def _causes(self, month: int) -> dict[str, Field]:
        """What one month does to those after it, from its covariates alone."""
        sky = self.weather.month(month)
        growing = np.exp(-(((sky.temperature - 294) / 14) ** 2))
        moist = smoothstep(0.06, 0.26, sky.soil_moisture)
        return {
            "transport": np.tanh(sky.north / np.float32(2.5)),
            "drought": sky.temperature - sky.dew_point,
            "uptake": (sky.vegetation * growing * (np.float32(0.3) + np.float32(0.7) * moist)).astype(np.float32),
        }

    def _make_parts(self, month: int) -> dict[str, Field]:
        if row_of(month) < MEMORY:
            raise InputRefused(
                f"the sample's carbon is made from {month_name(FIRST_MONTH + MEMORY)} on, not for {month_name(month)}"
            )
        felt: dict[str, Field] = {}
        for name, weights in _FADING.items():
            total = np.zeros((GLOBE.height, GLOBE.width), dtype=np.float32)
            for late, weight in enumerate(weights / weights.sum()):
                total += np.float32(weight) * self._recent_causes(month - late)[name]
            felt[name] = total
        sine = np.abs(np.sin(np.radians(GLOBE.latitudes))).astype(np.float32)[:, None]
        unseen = self._unseen.field(self._unseen_series[row_of(month)])
        return {
            "transport": np.float32(-_TRANSPORT) * (np.float32(1.25) - np.float32(0.5) * sine) * felt["transport"],
            "drought": np.float32(_DROUGHT) * np.tanh((felt["drought"] - np.float32(9)) / np.float32(6)),
            "uptake": np.float32(-_UPTAKE) * (felt["uptake"] - np.float32(0.12) * (self.weather.land > 0)),
            "emissions": self._haze,
            "unseen": np.float32(_UNSEEN) * unseen,
        }

    @cached_property
    def _haze(self) -> Field:
        """Of settled land, smoothed by the winds; it stays."""
        settled = degree_means(self.weather.earth.settlement)
        smooth: Field = np.float32(_HAZE) * ndimage.gaussian_filter(settled, sigma=2.5, mode=("nearest", "wrap"))
        return smooth

    @cached_property
    def _modulation(self) -> Field:
        """How much larger or smaller the season is at a place than at its latitude."""
        uneven = noise(GLOBE.points, seed=self.seed, name="carbon season", frequency=4, octaves=2)
        return (1 + np.float32(0.12) * uneven).astype(np.float32)

    @cached_property
    def _unseen(self) -> Modes:
        return Modes(lattice=GLOBE, seed=self.seed, name="carbon unseen", count=24, frequency=14)

    @cached_property
    def _unseen_series(self) -> NDArray[np.float64]:
        return red(24, memory=0.35, seed=self.seed, name="carbon unseen", months=MONTHS)

    def _passing(
        self, share: NDArray[np.float64], latitude: NDArray[np.float64], longitude: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Waves round the Earth with whole numbers of periods in a month, so that each place's monthly mean is 0."""
        y, x = np.radians(latitude), np.radians(longitude)
        points = np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)])
        angle = self._directions @ points + self._periods[:, None] * (2 * np.pi * share) + self._phases[:, None]
        total: NDArray[np.float64] = PASSING * np.sqrt(2 / _WAVES) * np.cos(angle).sum(axis=0)
        return total

    @cached_property
    def _directions(self) -> NDArray[np.float64]:
        """Radians of phase per Earth's radius, ``(wave, 3)``."""
        towards = draws(3 * _WAVES, seed=self.seed, name="carbon waves").reshape(_WAVES, 3)
        waves: NDArray[np.float64] = 14 * towards / np.linalg.norm(towards, axis=1, keepdims=True)
        return waves

    @cached_property
    def _periods(self) -> NDArray[np.int64]:
        """How many in a month: 5 to 11, periods of three to six days."""
        return 5 + np.arange(_WAVES) % 7

    @cached_property
    def _phases(self) -> NDArray[np.float64]:
        return 2 * np.pi * draws(_WAVES, seed=self.seed, name="carbon phases")


def to_x2007(ppm: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the CO2 scale X2019 to the one before: X2019 = 1.00079 X2007 - 0.142 ppm (Hall et al., 2021, AMT 14)."""
    older: NDArray[np.float64] = (ppm + 0.142) / 1.00079
    return older


def background(moment: Any, *, mean: bool = False) -> Any:
    """The level without gradient and season, ppm.

    Args:
        moment: months since 1970-01 with fractions.
        mean: over the month around it instead of at the moment.
    """
    years = (np.asarray(moment, dtype=np.float64) - _START) / 12
    level = _FIRST_LEVEL + MEAN_GROWTH * years
    for swing, period, phase in _SWINGS:
        wide = np.sinc(1 / (12 * period)) if mean else 1.0
        level = level + wide * swing * period / (2 * np.pi) * np.sin(2 * np.pi * years / period + phase)
    return level


def _gradient(latitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    gradient: NDArray[np.float64] = 1.1 * np.tanh(latitudes / 22)
    return gradient


def _season(moment: Any, latitudes: NDArray[np.float64], *, mean: bool = False) -> NDArray[np.float64]:
    """The year's cycle by latitude, ppm: large and late in spring in the north, small and turned round in the south."""
    share = np.asarray(moment, dtype=np.float64) / 12
    height = 3.0 * smoothstep(0, 62, latitudes) - 0.6 * smoothstep(0, -50, latitudes)
    late = 0.27 + 0.05 * np.sin(np.radians(latitudes))
    cycle = (np.sinc(1 / 12) if mean else 1.0) * np.cos(2 * np.pi * (share - late))
    cycle = cycle + 0.35 * (np.sinc(2 / 12) if mean else 1.0) * np.cos(4 * np.pi * (share - late - 0.16))
    season: NDArray[np.float64] = height * cycle
    return season


def zonal(moment: Any, latitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Background, gradient and the latitude's season, ppm: what a retrieval takes for granted beforehand.

    Args:
        moment: months since 1970-01 with fractions.
        latitudes: degrees north, of the same shape or a scalar moment.
    """
    level: NDArray[np.float64] = background(moment) + _gradient(latitudes) + _season(moment, latitudes)
    return level


def month_and_share(time: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Months since 1970-01 of moments in s since 1970-01-01, and what share of the month is over, each ``(n,)``."""
    months = np.floor(time).astype("datetime64[s]").astype("datetime64[M]")
    starts = months.astype("datetime64[s]").astype(np.int64)
    ends = (months + np.timedelta64(1, "M")).astype("datetime64[s]").astype(np.int64)
    return months.astype(np.int64), (time - starts) / (ends - starts)
