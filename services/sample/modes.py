"""Weather of the sample Earth as few smooth patterns, each with a number a month.

A field of a month is a sum of patterns on a lattice (0.25 degree for the groundwater), linear between its points. So a
month is cheap at any resolution, a mean over months is exact, and no month depends on which others are made.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from services.sample.noise import Field, draws, noise, sphere
from services.sample.solutions import month_number

STEP = 0.25

FIRST_MONTH = month_number("2001-01")
"""Before it there is no weather; what follows on three months before begins three months later."""

MONTHS = month_number("2020-12") + 1 - FIRST_MONTH

BASELINE = (month_number("2004-01"), month_number("2009-12"))
"""First and last month of the mean that anomalies are taken from."""


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """Centres of square cells that cover whole degrees, north up; one that goes all the way round has no seam."""

    west: int
    north: int
    width: int
    height: int

    step: float = STEP
    """Width and height of a cell, degrees."""

    @property
    def wraps(self) -> bool:
        """Whether the last column touches the first."""
        return self.width * self.step == 360

    @cached_property
    def longitudes(self) -> NDArray[np.float64]:
        """Of the columns, degrees east."""
        centres: NDArray[np.float64] = self.west + self.step / 2 + self.step * np.arange(self.width, dtype=np.float64)
        return centres

    @cached_property
    def latitudes(self) -> NDArray[np.float64]:
        """Of the rows, degrees north."""
        centres: NDArray[np.float64] = self.north - self.step / 2 - self.step * np.arange(self.height, dtype=np.float64)
        return centres

    @cached_property
    def points(self) -> Field:
        """On the unit sphere, ``(3, y, x)``."""
        return sphere(self.longitudes, self.latitudes)

    def at(self, values: Field, longitudes: NDArray[np.float64], latitudes: NDArray[np.float64]) -> Field:
        """Values linear between the points, ``(y, x)``; beyond the outermost they stay.

        Args:
            values: on the lattice, ``(y, x)``.
            longitudes: of the columns asked for, degrees east.
            latitudes: of the rows asked for, degrees north.
        """
        upper, lower, down = self._rows(latitudes)
        along = values[upper] * (1 - down[:, None]) + values[lower] * down[:, None]
        left, right, across = self._columns(longitudes)
        between = along[:, left] * (1 - across) + along[:, right] * across
        return between.astype(np.float32, copy=False)

    def at_points(self, values: Field, longitudes: NDArray[np.float64], latitudes: NDArray[np.float64]) -> Field:
        """Values linear between the points of the lattice at single places, ``(n,)``.

        Args:
            values: on the lattice, ``(y, x)``.
            longitudes: of the places, degrees east, ``(n,)``.
            latitudes: of the places, degrees north, ``(n,)``.
        """
        upper, lower, down = self._rows(latitudes)
        left, right, across = self._columns(longitudes)
        above = values[upper, left] * (1 - across) + values[upper, right] * across
        below = values[lower, left] * (1 - across) + values[lower, right] * across
        between = above * (1 - down) + below * down
        return between.astype(np.float32, copy=False)

    def _rows(self, latitudes: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64], Field]:
        return _between((self.north - self.step / 2 - latitudes) / self.step, self.height)

    def _columns(self, longitudes: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64], Field]:
        position = (longitudes - self.west - self.step / 2) / self.step
        if not self.wraps:
            return _between(position, self.width)
        before = np.floor(position)
        left = before.astype(np.int64) % self.width
        return left, (left + 1) % self.width, (position - before).astype(np.float32)


def _between(position: NDArray[np.float64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Field]:
    inside = np.clip(position, 0, count - 1)
    before = np.minimum(np.floor(inside).astype(np.int64), max(count - 2, 0))
    return before, np.minimum(before + 1, count - 1), (inside - before).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Modes:
    """Patterns of one kind of weather; at each place their sum has a standard deviation of 1 over long times."""

    lattice: Lattice
    seed: int
    name: str
    count: int

    frequency: float
    """Of the patterns: see ``noise``."""

    octaves: int = 1

    memory: float = 0.0
    """What is left of a month's weather in the next: first-order autoregression."""

    @cached_property
    def patterns(self) -> Field:
        """``(mode, y, x)`` on the lattice; their squares add up to 1 at each point."""
        raw = np.stack(
            [
                noise(
                    self.lattice.points,
                    seed=self.seed,
                    name=f"{self.name} {mode}",
                    frequency=self.frequency,
                    octaves=self.octaves,
                )
                for mode in range(self.count)
            ]
        )
        return (raw / np.sqrt((raw**2).sum(axis=0))).astype(np.float32, copy=False)

    @cached_property
    def series(self) -> NDArray[np.float64]:
        """``(month, mode)`` from FIRST_MONTH on."""
        return red(self.count, memory=self.memory, seed=self.seed, name=self.name)

    def field(self, numbers: NDArray[np.float64]) -> Field:
        """The sum of the patterns times a number for each, ``(y, x)`` on the lattice."""
        total = np.zeros(self.patterns.shape[1:], dtype=np.float32)
        for pattern, number in zip(self.patterns, numbers, strict=True):
            total += pattern * np.float32(number)
        return total


def red(count: int, *, memory: float, seed: int, name: str, months: int = MONTHS) -> NDArray[np.float64]:
    """Independent series of standard deviation 1 with a memory, ``(month, count)`` from FIRST_MONTH on.

    Args:
        count: of the series.
        memory: what is left of a month's weather in the next.
        seed: of the Earth.
        name: another name gives others.
        months: how many; the first ones are alike for any number.
    """
    fresh = np.stack([draws(months, seed=seed, name=f"{name} {number}") for number in range(count)], axis=1)
    for month in range(1, months):
        fresh[month] = memory * fresh[month - 1] + np.sqrt(1 - memory**2) * fresh[month]
    return fresh


def lagged(series: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the three months before a month were like together, scaled to keep the standard deviation of white series.

    Args:
        series: ``(month, mode)``.

    Returns:
        The same shape; the first three months, which lack their past, are 0.
    """
    felt = np.zeros_like(series)
    felt[3:] = (series[2:-1] + series[1:-2] + series[:-3]) / np.sqrt(3)
    return felt


def centred(series: NDArray[np.float64]) -> NDArray[np.float64]:
    """The series less their means over the baseline."""
    first, last = (month - FIRST_MONTH for month in BASELINE)
    less: NDArray[np.float64] = series - series[first : last + 1].mean(axis=0)
    return less
