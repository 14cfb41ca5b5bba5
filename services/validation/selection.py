"""Which wells can judge a field, and why the others cannot: each well that is left out has exactly one reason."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused

type Floats = NDArray[np.floating[Any]]

NO_COORDINATES = "no coordinates"
OUTSIDE = "outside the field"
OUT_OF_RANGE = "a reading out of range"
TOO_FEW = "too few readings"
TOO_SHORT = "too short a span"
TOO_SPARSE = "too few of its months"
STEP = "a step"

REASONS = (NO_COORDINATES, OUTSIDE, OUT_OF_RANGE, TOO_FEW, TOO_SHORT, TOO_SPARSE, STEP)
"""Why a well is left out, in the order they are asked: each well has the first that holds."""

ANNUAL_READINGS = 24
ANNUAL_MONTHS = 6
"""Readings, and different calendar months among them, from which a well's annual cycle is fitted. Our choice: many
wells are read once a year."""

STEP_READINGS = 12
"""Readings from which a step can be told. Our choice: of fewer, a line and a step explain most noise."""

STEP_SIDE = 3
"""Readings on either side of a step. Our choice."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Which wells are used. Readings are counted in months in which the field has a value.

    Raises:
        InputRefused: if a number cannot be.
    """

    least_readings: int = 6
    least_years: float = 10.0
    """Between the first and the last reading."""

    least_share: float = 0.8
    """Of the field's months from a well's first reading to its last, those that it has been read in."""

    largest_cm: float = 3000.0
    """Largest distance of a reading from the well's median. Our choice: 200 m of head at a specific yield of 0.15."""

    step_cm: float = 50.0
    """Smallest step that counts. Our choice: 3 m of head at a specific yield of 0.15."""

    step_share: float = 0.75
    """Share of what trend and season leave unexplained that one step must explain to count. Our choice."""

    def __post_init__(self) -> None:
        if self.least_readings < 3 or self.least_years < 0 or not 0 <= self.least_share <= 1:
            raise InputRefused(
                f"wells need at least 3 readings, 0 years and a share of 0 to 1, not {self.least_readings}, "
                f"{self.least_years:g} and {self.least_share:g}"
            )
        if self.largest_cm <= 0 or self.step_cm <= 0 or not 0 < self.step_share <= 1:
            raise InputRefused("a well's range and step are more than 0 cm, and the share of a step is up to 1")


STRICT = Rules()
"""Ten years and 80 % of the months."""

LOOSE = Rules(least_readings=6, least_years=5.0, least_share=0.0)
"""Six readings over five years."""


@dataclass(frozen=True, kw_only=True)
class Wells:
    """Storage that wells have measured.

    Raises:
        InputRefused: if its arrays do not fit, or its months do not rise.
    """

    names: tuple[str, ...]
    """Of the sites, each once."""

    longitudes: NDArray[np.float64]
    """``(site,)`` degrees east, NaN where unknown."""

    latitudes: NDArray[np.float64]
    """``(site,)`` degrees north, NaN where unknown."""

    months: NDArray[np.int64]
    """``(time,)`` months since 1970-01, rising."""

    storage: NDArray[np.float64]
    """``(time, site)`` cm of water, rising when water is gained, of any datum; NaN where not read."""

    def __post_init__(self) -> None:
        sites = len(self.names)
        if self.storage.shape != (len(self.months), sites) or {self.longitudes.shape, self.latitudes.shape} != {
            (sites,)
        }:
            raise InputRefused(
                f"storage {self.storage.shape} of {sites} wells in {len(self.months)} months, with "
                f"{self.longitudes.shape} and {self.latitudes.shape} coordinates, does not fit together"
            )
        if (np.diff(self.months) <= 0).any():
            raise InputRefused("the months of wells must rise")
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise InputRefused(f"well {twice[0]} occurs twice")
        if np.isinf(self.storage).any():
            raise InputRefused("a well's storage is infinite")


def left_out(wells: Wells, site: int, seen: NDArray[np.bool_], rules: Rules) -> str:  # noqa: PLR0911 - one for each
    """Why a well is left out: one of REASONS, or nothing.

    Args:
        wells: all of them.
        site: which one.
        seen: months in which the field has a value at it, ``(time,)``.
        rules: what it has to hold.
    """
    if not (np.isfinite(wells.longitudes[site]) and np.isfinite(wells.latitudes[site])):
        return NO_COORDINATES
    if not seen.any():
        return OUTSIDE
    rows = np.flatnonzero(seen & ~np.isnan(wells.storage[:, site]))
    values, months = wells.storage[rows, site], wells.months[rows]
    if rows.size and np.abs(values - np.median(values)).max() > rules.largest_cm:
        return OUT_OF_RANGE
    if rows.size < rules.least_readings:
        return TOO_FEW
    if months[-1] - months[0] < 12 * rules.least_years:
        return TOO_SHORT
    if rows.size < rules.least_share * seen[rows[0] : rows[-1] + 1].sum():
        return TOO_SPARSE
    size, share = step(values, months)
    return STEP if abs(size) >= rules.step_cm and share >= rules.step_share else ""


def step(values: Floats, months: NDArray[np.integer[Any]]) -> tuple[float, float]:
    """The step that explains most of what trend and season leave of a series.

    Of every place with STEP_SIDE readings on either side, a least squares of the line, the annual cycle if the series
    can tell one, and a step there (Frisch and Waugh, 1933, Econometrica 1: the step less what the other terms explain
    of it).

    Args:
        values: ``(reading,)`` without NaN.
        months: of the readings, months since 1970-01, rising.

    Returns:
        Its size in the units of the values, upwards positive, and the share that it explains, 0..1; 0 and 0 with fewer
        than STEP_READINGS readings.
    """
    if len(values) < STEP_READINGS:
        return 0.0, 0.0
    years = (np.asarray(months, dtype=np.float64) + 0.5) / 12
    columns = [np.ones_like(years), years - years.mean()]
    if tells_annual(months):
        columns += [np.cos(2 * np.pi * years), np.sin(2 * np.pi * years)]
    basis = np.linalg.qr(np.stack(columns, axis=1))[0]
    residual = values - values.mean()
    residual = residual - basis @ (basis.T @ residual)
    left = float(residual @ residual)
    if left <= 1e-20 * float(values @ values):
        return 0.0, 0.0
    places = np.arange(STEP_SIDE, len(values) - STEP_SIDE + 1)
    risen = (np.arange(len(values))[:, None] >= places).astype(np.float64)
    risen -= basis @ (basis.T @ risen)
    square = (risen**2).sum(axis=0)
    # a step that the other terms explain is none
    told = square > 1e-9
    size = np.divide(residual @ risen, square, out=np.zeros_like(square), where=told)
    best = int(np.argmax(size**2 * square))
    return float(size[best]), float(size[best] ** 2 * square[best] / left)


def tells_annual(months: NDArray[np.integer[Any]]) -> bool:
    """Whether readings in these months are many and spread enough for an annual cycle."""
    return len(months) >= ANNUAL_READINGS and len(np.unique(np.asarray(months) % 12)) >= ANNUAL_MONTHS
