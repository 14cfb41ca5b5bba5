"""Which soundings and which cells stand for what a TCCON station saw.

Soundings: the rules of Das et al. (2025, Earth Space Sci., doi 10.1029/2024EA003935) and of C. O'Dell's collocations
as L. Manella's program has them (science/xco2.md 2): spectra within an hour of a sounding, more than 15 of them,
averaged; a sounding within a box about the station, with exceptions. Cells of a gridded product: the one that holds the
station, against the month's mean of spectra from 12 to 14 h local solar time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Grid, Window

type Floats = NDArray[np.floating[Any]]

HOURS = 1.0
"""Spectra count within so many hours of a sounding, either way."""

ABOVE_SPECTRA = 15
"""A sounding needs more spectra than that."""

NOON = (12.0, 14.0)
"""Local solar hours whose spectra make the means that gridded products are held against, the last one excluded."""

LEAST_SPECTRA = 15
"""Spectra that a month's mean needs. Our choice: sources say a threshold and not which."""

LEAST_DAYS = 3
"""Days that a month's mean needs. Our choice."""

PASS_GAP = 1800.0
"""Seconds without a sounding after which the next is of another overpass. Our choice: an orbit takes 99 minutes, and a
box of 10 degrees one and a half."""

_DAY = 86400.0


@dataclass(frozen=True, kw_only=True)
class Box:
    """How far a sounding may lie from a station."""

    latitude: float
    """Degrees, either way, that edge included."""

    longitude: float
    """Degrees, either way, that edge included."""

    land_only: bool = False

    def holds(self, north: Floats, east: Floats, land: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Whether soundings lie within.

        Args:
            north: their latitudes less the station's, ``(sounding,)``.
            east: their longitudes less the station's, any turn, ``(sounding,)``.
            land: which were retrieved over land; None: not known, which a box of land only refuses.

        Raises:
            InputRefused: if land must be known and is not.
        """
        turned = (np.asarray(east, dtype=np.float64) + 180.0) % 360.0 - 180.0
        inside: NDArray[np.bool_] = (np.abs(north) <= self.latitude) & (np.abs(turned) <= self.longitude)
        if not self.land_only:
            return inside
        if land is None:
            raise InputRefused("this station takes soundings over land only, and nothing says which are")
        return inside & land


USUAL = Box(latitude=1.25, longitude=2.5)
SOUTHERN = Box(latitude=5.0, longitude=30.0)
SOUTHERN_FROM = -25.0
"""Degrees north, at which and south of which SOUTHERN holds."""

EXCEPTIONS: Mapping[str, Box] = {
    "ci": Box(latitude=0.25, longitude=0.25, land_only=True),
    "df": Box(latitude=0.5, longitude=2.5),
    "or": Box(latitude=0.75, longitude=2.5),
    "tk": Box(latitude=1.25, longitude=0.5),
}
"""Pasadena (Caltech) in its basin, Edwards (Dryden, Armstrong) north of it, Orleans beside Paris, Tsukuba beside
Tokyo."""


def box(site: str, latitude: float) -> Box:
    """The box of a station, by its two letters and latitude."""
    return EXCEPTIONS.get(site) or (SOUTHERN if latitude <= SOUTHERN_FROM else USUAL)


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Soundings with what their station saw; every array is ``(match,)``."""

    sounding: NDArray[np.int64] = field(repr=False)
    """Number of each among the soundings given, rising."""

    reference: NDArray[np.float64] = field(repr=False)
    """Mean of the spectra, ppm."""

    error: NDArray[np.float64] = field(repr=False)
    """Mean of the spectra's stated errors, ppm: of one spectrum, as what they share does not average out (our choice).
    NaN where one is not stated."""

    spectra: NDArray[np.int64] = field(repr=False)
    """How many they are."""

    def __len__(self) -> int:
        return len(self.sounding)


@dataclass(frozen=True, kw_only=True)
class Means:
    """Means of a station's spectra over days or months; every array is ``(mean,)``."""

    period: NDArray[np.int64] = field(repr=False)
    """Days or months since 1970, rising."""

    xco2: NDArray[np.float64] = field(repr=False)
    """ppm."""

    error: NDArray[np.float64] = field(repr=False)
    """Of a day, the mean of the spectra's stated errors; of a month, the standard error of the mean of its days."""

    spectra: NDArray[np.int64] = field(repr=False)
    days: NDArray[np.int64] = field(repr=False)


def match_soundings(
    site: str,
    place: tuple[float, float],
    spectra: tuple[Floats, Floats, Floats],
    soundings: tuple[Floats, Floats, Floats],
    *,
    land: NDArray[np.bool_] | None = None,
    hours: float = HOURS,
    above: int = ABOVE_SPECTRA,
) -> Matches:
    """Soundings near a station, each with the mean of the spectra about its time.

    Args:
        site: the station's two letters.
        place: its latitude and longitude, degrees.
        spectra: times (s since 1970, rising), columns and errors (ppm), ``(spectrum,)`` each.
        soundings: times (s since 1970), latitudes and longitudes, ``(sounding,)`` each.
        land: which soundings were retrieved over land.
        hours: as HOURS.
        above: as ABOVE_SPECTRA.

    Raises:
        InputRefused: if times of spectra fall, or the station needs to know land and does not.
    """
    seen, xco2, error = (np.asarray(column, dtype=np.float64) for column in spectra)
    time, latitude, longitude = (np.asarray(column, dtype=np.float64) for column in soundings)
    if (np.diff(seen) < 0).any():
        raise InputRefused(f"{site}: times of spectra fall")
    near = np.flatnonzero(box(site, place[0]).holds(latitude - place[0], longitude - place[1], land))
    first = np.searchsorted(seen, time[near] - 3600.0 * hours, side="left")
    behind = np.searchsorted(seen, time[near] + 3600.0 * hours, side="right")
    enough = behind - first > above
    near, first, behind = near[enough], first[enough], behind[enough]
    count = behind - first
    return Matches(
        sounding=near.astype(np.int64),
        reference=_mean_between(xco2, first, behind),
        error=_mean_between(error, first, behind),
        spectra=count.astype(np.int64),
    )


def overpasses(time: Floats) -> NDArray[np.int64]:
    """Number of the overpass that each sounding is of, ``(sounding,)``, for times in any order."""
    order = np.argsort(time, kind="stable")
    new = np.diff(np.asarray(time, dtype=np.float64)[order], prepend=-np.inf) > PASS_GAP
    found = np.empty(len(order), dtype=np.int64)
    found[order] = np.cumsum(new) - 1
    return found


def local_hours(time: Floats, longitude: Floats | float) -> NDArray[np.float64]:
    """Mean solar time at a place, hours 0..24: UTC and an hour for 15 degrees, without the equation of time."""
    found: NDArray[np.float64] = (np.asarray(time, dtype=np.float64) / 3600.0 + np.asarray(longitude) / 15.0) % 24.0
    return found


def daily(time: Floats, xco2: Floats, error: Floats, *, longitude: float = 0.0) -> Means:
    """Means of spectra over days.

    Args:
        time: s since 1970 UTC, ``(spectrum,)``.
        xco2: ppm.
        error: ppm; NaN where none is stated.
        longitude: of the place whose days they are; 0 for days of UTC.
    """
    day = np.floor((np.asarray(time, dtype=np.float64) + 240.0 * longitude) / _DAY).astype(np.int64)
    days, member, count = np.unique(day, return_inverse=True, return_counts=True)
    of_day = [np.bincount(member, weights=np.asarray(column, dtype=np.float64)) / count for column in (xco2, error)]
    return Means(period=days, xco2=of_day[0], error=of_day[1], spectra=count, days=np.ones_like(count))


def monthly(
    time: Floats,
    xco2: Floats,
    longitude: float,
    *,
    hours: tuple[float, float] = NOON,
    least_spectra: int = LEAST_SPECTRA,
    least_days: int = LEAST_DAYS,
) -> Means:
    """Means of the months of spectra about noon: of the means of days, so that a clear day is no month (our choice).

    Args:
        time: s since 1970 UTC, ``(spectrum,)``.
        xco2: ppm.
        longitude: of the station; days and months are local.
        hours: as NOON.
        least_spectra: as LEAST_SPECTRA.
        least_days: as LEAST_DAYS.

    Returns:
        Months that have enough of both.
    """
    local = local_hours(time, longitude)
    noon = (local >= hours[0]) & (local < hours[1])
    of_day = daily(time[noon], xco2[noon], np.full(int(noon.sum()), np.nan), longitude=longitude)
    month = of_day.period.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    months, member, days = np.unique(month, return_inverse=True, return_counts=True)
    mean = np.bincount(member, weights=of_day.xco2) / days
    squares = np.bincount(member, weights=(of_day.xco2 - mean[member]) ** 2)
    spectra = np.bincount(member, weights=of_day.spectra).astype(np.int64)
    error = np.sqrt(squares / np.maximum(days - 1, 1) / days)
    error[days < 2] = np.nan
    kept = (spectra >= least_spectra) & (days >= least_days)
    return Means(period=months[kept], xco2=mean[kept], error=error[kept], spectra=spectra[kept], days=days[kept])


def cells_about(grid: Grid, longitude: float, latitude: float, *, size: int = 1) -> Window:
    """The cell of a grid that holds a place, or ``size`` x ``size`` cells about it as far as the grid goes.

    Raises:
        PositionOutside: if no cell holds it.
        InputRefused: if ``size`` has no middle.
    """
    if size < 1 or size % 2 == 0:
        raise InputRefused(f"{size} x {size} cells have no middle one")
    row, column = grid.locate(longitude, latitude)
    top, left = max(row - size // 2, 0), max(column - size // 2, 0)
    bottom, right = min(row + size // 2 + 1, grid.height), min(column + size // 2 + 1, grid.width)
    return Window(row=top, column=left, height=bottom - top, width=right - left)


def _mean_between(
    values: NDArray[np.float64], first: NDArray[np.int64], behind: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Means of values[first:behind], NaN where one is missing."""
    known = np.isfinite(values)
    origin = float(values[known].mean()) if known.any() else 0.0
    # sums of departures keep their digits where a million values are near 400
    total = np.concatenate([[0.0], np.cumsum(np.where(known, values - origin, 0.0))])
    missing = np.concatenate([[0], np.cumsum(~known)])
    count = behind - first
    mean: NDArray[np.float64] = origin + (total[behind] - total[first]) / np.maximum(count, 1)
    mean[(missing[behind] > missing[first]) | (count == 0)] = np.nan
    return mean
