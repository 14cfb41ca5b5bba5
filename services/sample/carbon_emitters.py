"""The sample Earth's emitters: where they stand, what they emit, what the inventory says, and their plumes.

Of the 50 strongest, 10 are not in the inventory; 10 that the inventory has among its strongest emit nothing. All
numbers are made up.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from services.sample.carbon_weather import GLOBE, QUARTER, Weather
from services.sample.modes import Lattice
from services.sample.noise import Field
from services.sample.solutions import month_number

HALF = Lattice(west=-180, north=90, width=720, height=360, step=0.5)
"""Where plumes are made."""

STRONG, HIDDEN, SWITCHED_OFF, WEAK = 50, 10, 10, 240

TONNES_PER_PPM = 2.5e5
"""t of carbon a month that raise the column by 1 ppm where they leave, in still air."""

_STRONGEST, _LEAST_STRONG, _WEAKEST = 7.0, 3.2, 0.2
"""ppm in still air; a weak one has less than a third of the least strong."""

_APART, _APART_WEAK = 4.0, 1.5
"""Degrees between a strong one and the next strong one, and the next weak one."""

_REACH_Y, _REACH_X = 8, 14
"""Half-degree cells that a plume may reach from its source."""

_STILL = 2.5
"""m s-1 of wind that halve what is over a source."""

_DIFFUSE = 6.0e4
"""t of carbon a month from a whole square degree at the equator that is settled all over."""


@dataclass(frozen=True, kw_only=True)
class Emitter:
    """One emitter; its numbers are means over the year 2018."""

    longitude: float
    """Degrees east."""

    latitude: float
    """Degrees north."""

    emitted: float
    """t of carbon a month, in truth."""

    reported: float
    """t of carbon a month, in the inventory."""

    @property
    def hidden(self) -> bool:
        """Whether the inventory lacks it."""
        return self.reported == 0

    @property
    def switched_off(self) -> bool:
        """Whether only the inventory has it."""
        return self.emitted == 0


@dataclass(frozen=True, kw_only=True)
class Emissions:
    """All that emits, of one seed."""

    weather: Weather

    @cached_property
    def emitters(self) -> tuple[Emitter, ...]:
        """The 50 strongest in truth, those switched off, and the weak ones."""
        random = np.random.default_rng([self.weather.seed, 0xCA4B])
        longitudes, latitudes = self._places(random)
        strong = STRONG + SWITCHED_OFF
        strength = np.concatenate(
            [
                np.geomspace(_STRONGEST, _LEAST_STRONG, STRONG),
                np.geomspace(_STRONGEST, _LEAST_STRONG, SWITCHED_OFF + 2)[1:-1],
                np.geomspace(_LEAST_STRONG / 3.5, _WEAKEST, WEAK),
            ]
        )
        emitted = TONNES_PER_PPM * strength
        reported = emitted * np.exp(0.1 * random.standard_normal(len(strength)))
        reported[random.permutation(STRONG)[:HIDDEN]] = 0
        emitted[STRONG:strong] = 0
        return tuple(
            Emitter(longitude=float(x), latitude=float(y), emitted=float(true), reported=float(said))
            for x, y, true, said in zip(longitudes, latitudes, emitted, reported, strict=True)
        )

    def plumes(self, month: int) -> Field:
        """What the emitters add to the column, ppm on ``HALF``.

        A plume is highest at its source, falls off within a degree or two down the wind, and is narrower across it;
        more wind spreads it thinner.
        """
        sky = self.weather.month(month)
        emitters = [emitter for emitter in self.emitters if not emitter.switched_off]
        x, y, tonnes = (
            np.array([getattr(emitter, name) for emitter in emitters]) for name in ("longitude", "latitude", "emitted")
        )
        east, north = GLOBE.at_points(sky.east, x, y), GLOBE.at_points(sky.north, x, y)
        speed = np.hypot(east, north) + 1e-6
        rows = (
            np.floor((90 - y) / HALF.step).astype(np.int64)[:, None, None] + np.arange(-_REACH_Y, _REACH_Y + 1)[:, None]
        )
        columns = np.floor((x + 180) / HALF.step).astype(np.int64)[:, None, None] + np.arange(-_REACH_X, _REACH_X + 1)
        narrower = np.cos(np.radians(y))[:, None, None]
        up = (90 - HALF.step / 2 - HALF.step * rows) - y[:, None, None]
        right = ((-180 + HALF.step / 2 + HALF.step * columns) - x[:, None, None]) * narrower
        along = (right * (east / speed)[:, None, None] + up * (north / speed)[:, None, None]).astype(np.float32)
        across = (up * (east / speed)[:, None, None] - right * (north / speed)[:, None, None]).astype(np.float32)
        length = (0.5 + 0.12 * np.minimum(speed, 6)).astype(np.float32)[:, None, None]
        width = np.float32(0.42) + np.float32(0.2) * np.maximum(along, 0)
        fall = np.where(along > 0, np.exp(-along / length), np.exp(-0.5 * (along / np.float32(0.4)) ** 2))
        peak = tonnes / TONNES_PER_PPM * _STILL / (_STILL + speed) * self.rate(month)
        plume = peak[:, None, None] * fall * np.exp(-0.5 * (across / width) ** 2) * np.float32(0.42) / width
        # down to nothing before the stamp ends
        plume = plume * np.clip(_REACH_Y * HALF.step - np.hypot(along, across), 0, 1)
        inside = (rows >= 0) & (rows < HALF.height)
        cell = np.where(inside, rows, 0) * HALF.width + columns % HALF.width
        total = np.bincount(cell.ravel(), weights=(plume * inside).ravel(), minlength=HALF.width * HALF.height)
        return total.reshape(HALF.height, HALF.width).astype(np.float32)

    @staticmethod
    def rate(month: int) -> float:
        """What all emit in a month in terms of the mean of 2018: 1 % more a year, an eighth more in January."""
        years = (month - month_number("2018-07")) / 12
        return float((1 + 0.01 * years) * (1 + 0.125 * np.cos(2 * np.pi * (month % 12) / 12)))

    def _places(self, random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Strong ones first: where people live or, at times, far from them; on land, apart from each other."""
        settled = self.weather.earth.settlement
        chosen: list[tuple[float, float]] = []
        while len(chosen) < STRONG + SWITCHED_OFF + WEAK:
            longitude, latitude = random.uniform(-180, 180), np.degrees(np.arcsin(random.uniform(-0.8, 0.88)))
            row, column = int((90 - latitude) / QUARTER.step), int((longitude + 180) / QUARTER.step)
            if not self.weather.earth.land[row, column] or random.uniform() > 0.1 + 2 * settled[row, column]:
                continue
            apart = _APART if len(chosen) < STRONG + SWITCHED_OFF else _APART_WEAK
            others = np.array(chosen) if chosen else np.empty((0, 2))
            if len(chosen) >= STRONG + SWITCHED_OFF:
                others = others[: STRONG + SWITCHED_OFF]
            east = (others[:, 0] - longitude + 180) % 360 - 180
            if (np.hypot(east * np.cos(np.radians(latitude)), others[:, 1] - latitude) < apart).any():
                continue
            chosen.append((longitude, float(latitude)))
        places = np.array(chosen)
        return places[:, 0], places[:, 1]

    @cached_property
    def diffuse(self) -> Field:
        """What towns and roads emit, t of carbon a month from an area of a square degree at the equator, on QUARTER."""
        return self.weather.earth.settlement * np.float32(_DIFFUSE)
