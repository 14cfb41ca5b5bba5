"""What is obvious about a field that grows and has seasons: what a model of it has to beat.

Each takes rows that were seen, their values and rows that are asked for, and gives ``(row,)`` values of the latter; NaN
where it has nothing to go by. Nothing of the rows asked for is used but where and when they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from services.core.errors import InputRefused
from services.validation import folds

type Floats = NDArray[np.floating[Any]]
type Values = NDArray[np.float64]

HARMONICS = 2
"""Of the year. Our choice."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Where and when, one a row.

    Raises:
        InputRefused: if columns differ in length or a place is no number.
    """

    longitude: Values = field(repr=False)
    """``(row,)`` degrees east."""

    latitude: Values = field(repr=False)
    """``(row,)`` degrees north."""

    month: NDArray[np.int64] = field(repr=False)
    """``(row,)`` since 1970-01."""

    def __post_init__(self) -> None:
        shapes = {self.longitude.shape, self.latitude.shape, self.month.shape}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise InputRefused(f"rows have longitudes, latitudes and months of the shapes {sorted(shapes)}")
        if not (np.isfinite(self.longitude).all() and (np.abs(self.latitude) <= 90).all()):
            raise InputRefused("a row has no place on earth")

    def __len__(self) -> int:
        return len(self.month)

    def take(self, which: NDArray[np.bool_] | NDArray[np.integer[Any]]) -> "Rows":
        """Some of them."""
        return Rows(longitude=self.longitude[which], latitude=self.latitude[which], month=self.month[which])

    @property
    def places(self) -> Values:
        """On the unit sphere, ``(row, 3)``."""
        latitude, longitude = np.radians(self.latitude), np.radians(self.longitude)
        return np.stack(
            [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
        )


@dataclass(frozen=True, kw_only=True)
class Background:
    """A series of months that is known wherever one asks, as Mauna Loa's.

    Raises:
        InputRefused: if months do not rise one by one, or a value is no number.
    """

    months: NDArray[np.int64]
    """Since 1970-01, each one after the other, ``(time,)``."""

    values: Values
    """``(time,)``."""

    def __post_init__(self) -> None:
        if self.months.shape != self.values.shape or not (np.diff(self.months) == 1).all():
            raise InputRefused("a background's months must follow one another, with a value each")
        if not np.isfinite(self.values).all():
            raise InputRefused(f"a background has no value in {int((~np.isfinite(self.values)).sum())} of its months")

    def at(self, months: NDArray[np.integer[Any]]) -> Values:
        """Of some months.

        Raises:
            InputRefused: if it does not reach one of them.
        """
        place = months - self.months[0]
        if len(place) and not (place.min() >= 0 and place.max() < len(self.values)):
            raise InputRefused(
                f"a background of months {self.months[0]} to {self.months[-1]} since 1970-01 does not reach "
                f"{months.min()} to {months.max()}"
            )
        found: Values = self.values[place]
        return found

    def year_ending(self) -> "Background":
        """Mean of the twelve months that end with each: growth without the season, and without the future."""
        means = np.convolve(self.values, np.full(12, 1 / 12), mode="valid")
        return Background(months=self.months[11:], values=means)


def climatology_trend(seen: Rows, values: Floats, asked: Rows, *, degree: int = 0) -> Values:
    """Least squares of a + b t + HARMONICS of the year; with a degree, of a polynomial of the place for each term.

    The polynomial is of the coordinates on the unit sphere, which has neither seam nor pole; on a small part of it that
    is one of longitude and latitude. Terms that the rows cannot tell apart share their weight (least norm).
    """
    design = _design(seen, seen, degree)
    scale = np.sqrt((design**2).mean(axis=0))
    scale[scale == 0] = 1.0
    middle = float(np.mean(values))
    # beyond 1e-8 the normal matrix of a polynomial on a small region is noise
    terms = np.linalg.lstsq(design / scale, values - middle, rcond=1e-8)[0] / scale
    found: Values = middle + _design(asked, seen, degree) @ terms
    return found


def growth(seen: Rows, values: Floats) -> float:
    """Trend of the domain in units a year, beside HARMONICS of the year."""
    here = seen.take(np.zeros(2, dtype=np.int64))
    later = Rows(longitude=here.longitude, latitude=here.latitude, month=here.month + np.array([0, 12]))
    return float(np.diff(climatology_trend(seen, values, later))[0])


def background_season_anomaly(
    seen: Rows, values: Floats, asked: Rows, background: Background, *, degrees: float | None = 5.0
) -> Values:
    """A background, the domain's constant and HARMONICS of the year above it, and what is left of them in each block.

    Args:
        seen: rows that are fitted to.
        values: ``(row,)``.
        asked: rows that are wanted.
        background: must reach all months of both.
        degrees: side of the blocks, whose mean is 0 where nothing was seen; None for no blocks.
    """
    above = values - background.at(seen.month)
    terms = np.linalg.lstsq(_season(seen.month), above, rcond=None)[0]
    found: Values = background.at(asked.month) + _season(asked.month) @ terms
    if degrees is None:
        return found
    left = above - _season(seen.month) @ terms
    blocks = folds.space(
        np.concatenate([seen.longitude, asked.longitude]), np.concatenate([seen.latitude, asked.latitude]), degrees
    )
    _, which = np.unique(blocks, axis=0, return_inverse=True)
    which = which.ravel()
    counts = np.bincount(which[: len(seen)], minlength=which.max() + 1)
    sums = np.bincount(which[: len(seen)], left, minlength=len(counts))
    return found + (sums / np.maximum(counts, 1))[which[len(seen) :]]


def inverse_distance(seen: Rows, values: Floats, asked: Rows, *, nearest: int, power: float = 2.0) -> Values:
    """Mean of the nearest rows of the same month by distance^-power along great circles (Shepard, 1968).

    One is the nearest neighbour. Where some lie at the very place, the mean of those.

    Args:
        seen: rows with values.
        values: ``(row,)``.
        asked: rows that are wanted.
        nearest: how many, or all that the month has if they are fewer.
        power: of the distance.
    """
    found = np.full(len(asked), np.nan)
    for month in np.unique(asked.month):
        mine, theirs = asked.month == month, seen.month == month
        if theirs.any():
            there, here = seen.take(theirs).places, asked.take(mine).places
            found[mine] = _weighted(there, values[theirs], here, (nearest,), power)[:, 0]
    return found


def last_year(seen: Rows, values: Floats, asked: Rows, *, nearest: int, power: float = 2.0) -> Values:
    """The same month of the last year that has it, by ``inverse_distance``, and the domain's growth since.

    Rows of the asked month itself, or later, are not used.
    """
    yearly = growth(seen, values)
    found = np.full(len(asked), np.nan)
    for month in np.unique(asked.month):
        source = same_month_before(seen.month, int(month))
        if source is None:
            continue
        mine = asked.month == month
        there = asked.take(mine)
        then = Rows(longitude=there.longitude, latitude=there.latitude, month=np.full(len(there), source))
        near = inverse_distance(seen, values, then, nearest=nearest, power=power)
        found[mine] = near + yearly * (month - source) / 12
    return found


def same_month_before(months: NDArray[np.integer[Any]], month: int) -> int | None:
    """The last of some months that is the same of an earlier year; None if there is none."""
    earlier = months[(months < month) & ((months - month) % 12 == 0)]
    return int(earlier.max()) if len(earlier) else None


def best_nearest(
    seen: Rows,
    values: Floats,
    labels: NDArray[np.integer[Any]],
    *,
    choices: Sequence[int],
    parts: int = 5,
    seed: int = 0,
    power: float = 2.0,
) -> int:
    """How many neighbours leave the least squared error in blocks of the seen rows that are held out, part by part.

    Args:
        seen: rows with values; nothing else is looked at.
        values: ``(row,)``.
        labels: of the blocks, ``(row,)`` or ``(row, part)``.
        choices: of ``nearest``.
        parts: folds that the blocks are dealt to.
        seed: of the dealing.
        power: of the distance.

    Raises:
        InputRefused: if no month of a part has rows that are not held out.
    """
    squared, count = np.zeros(len(choices)), 0
    of = folds.dealt(labels, parts, seed)
    for part in range(parts):
        held = of == part
        for month in np.unique(seen.month[held]):
            asked, theirs = held & (seen.month == month), ~held & (seen.month == month)
            if theirs.any():
                there, here = seen.take(theirs).places, seen.take(asked).places
                said = _weighted(there, values[theirs], here, choices, power)
                squared += ((said - values[asked][:, None]) ** 2).sum(axis=0)
                count += int(asked.sum())
    if not count:
        raise InputRefused("no block could be held out with rows of its month left: there is nothing to choose by")
    return int(choices[int(np.argmin(squared))])


def _weighted(places: Values, values: Floats, asked: Values, counts: Sequence[int], power: float) -> Values:
    """Means over so many neighbours each, ``(row, count)``."""
    last = [min(count, len(values)) for count in counts]
    chord, which = KDTree(places).query(asked, k=[*range(1, max(last) + 1)])
    distance = 2 * np.arcsin(np.minimum(chord / 2, 1.0))
    # under a millimetre two places are one
    at = distance < 1e-10
    weight = np.where(at.any(axis=1, keepdims=True), at, 1.0 / np.maximum(distance, 1e-10) ** power)
    middle = float(values.mean())
    above = np.cumsum((values - middle)[which] * weight, axis=1) / np.cumsum(weight, axis=1)
    found: Values = middle + above[:, [one - 1 for one in last]]
    return found


def _season(months: NDArray[np.integer[Any]]) -> Values:
    """Constant and HARMONICS of the year, ``(row, term)``."""
    angle = 2 * np.pi * (np.asarray(months, dtype=np.float64) % 12) / 12
    waves = [wave(order * angle) for order in range(1, HARMONICS + 1) for wave in (np.cos, np.sin)]
    return np.stack([np.ones(len(angle)), *waves], axis=1)


def _design(rows: Rows, seen: Rows, degree: int) -> Values:
    """Terms of time, each times every monomial of the place up to a degree, ``(row, term)``; scaled by those seen."""
    years = (rows.month - float(seen.month.mean())) / 12
    time = np.column_stack([_season(rows.month), years])
    if not degree:
        return time
    middle, spread = seen.places.mean(axis=0), seen.places.std(axis=0)
    at = (rows.places - middle) / np.where(spread > 0, spread, 1.0)
    monomials = [
        np.prod(at[:, list(powers)], axis=1)
        for order in range(degree + 1)
        for powers in combinations_with_replacement(range(3), order)
    ]
    return np.concatenate([time * one[:, None] for one in monomials], axis=1)
