"""What cells with soundings tell of those near them: simple kriging of what the network leaves over.

Arrays in, arrays out. What is left over is seen less said in units of the network's spread. It is taken as the sum of

    a signal   of the true monthly mean, smooth in space:  sum over k of signal_k exp(-d / LENGTHS_KM_k)
    a track    what soundings of one overpass have in common and the month has not, errors of the retrieval and passing
               weather:  sum over k of track_k exp(-d / LENGTHS_KM_k) exp(-t / TOGETHER_HOURS)
    the rest   of each cell alone: its own part of the truth
    noise      of each cell alone: what of its stated error the track does not explain

with d the distance along a great circle and t the time between. A non-negative sum of exponentials can be a covariance
on the sphere (Gneiting, 2013, Bernoulli 19, 1327), and so can the product of one in space and one in time.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import nnls
from scipy.spatial import KDTree

from services.core.errors import SettingsError
from services.sources.along_track import EARTH_KM

type Values = NDArray[np.float64]

LENGTHS_KM = (100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0)
"""Over which the parts of a covariance fall to 1/e (our choice; what each counts is estimated)."""

TOGETHER_HOURS = 6.0
"""In which what an overpass has in common falls to 1/e: one lasts half an hour, the next at a place is a day or more
away (our choice)."""

APART_HOURS, SAME_HOURS = 24.0, 0.5
"""Pairs further apart than the former tell of the signal alone; closer than the latter, of the track too."""

DISTANCES_KM = (0.0, 60.0, 120.0, 200.0, 300.0, 450.0, 650.0, 900.0, 1250.0, 1750.0, 2500.0, 3500.0)
"""Edges of the bins in which pairs are averaged (our choice)."""

LEAST_REST = 0.05
"""Of the spread's variance that signal and rest have together at least (our choice)."""

LEAST_PAIRS = 200
"""That a bin needs to count (our choice)."""

MOST_A_MONTH = 10_000
"""Cells of a month whose pairs are looked at, drawn evenly where there are more (our choice: 50 million pairs)."""

LEAST_NOISE = 1e-4
"""In units of the spread squared: no cell is exact, and two at one place may not contradict each other."""

SUPERCELL = 1.0
"""Degrees, of a meridian, within which cells of one overpass are averaged before anything is solved (our choice)."""

NEIGHBOURS = 32
"""Averages that a place is told from, the nearest (our choice: 16 and 64 leave the same error on the
small sample, which has soundings of one day in 17; not measured where they are denser)."""

_AT_ONCE = 1024
"""Places that are solved together: some 30 MB."""

_PAIRS = 1 << 20
"""That are looked at together: some 100 MB."""

_KM = np.pi / 180 * EARTH_KM


class Covariance(BaseModel):
    """Variances in units of the network's spread squared, one of each of LENGTHS_KM."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    signal: list[float] = Field(min_length=len(LENGTHS_KM), max_length=len(LENGTHS_KM))
    track: list[float] = Field(min_length=len(LENGTHS_KM), max_length=len(LENGTHS_KM))
    rest: float = Field(ge=0)
    """Variance of a cell alone beyond its stated error."""

    alone: float = Field(ge=0)
    """Share of the stated error variance that a cell has alone."""

    factor: float = Field(default=1.0, gt=0)
    """By which standard deviations are multiplied, so that they hold in blocks that were told from others alone."""

    @property
    def variance(self) -> float:
        """Of the signal."""
        return sum(self.signal)

    def noise(self, error: Values) -> Values:
        """Variance of what is left over in cells that no other cell shares, from their stated errors over spreads."""
        found: Values = np.maximum(self.rest + self.alone * error**2, LEAST_NOISE)
        return found

    def deviation(self, variance: Values) -> Values:
        """Of the true cell mean, in units of the spread, where the signal is known to a variance.

        The rest counts as the cell's own part of the truth, as nothing tells it from noise (our choice).
        """
        found: Values = self.factor * np.sqrt(variance + self.rest)
        return found


@dataclass(frozen=True, kw_only=True)
class Left:
    """What is left over in some cells, or averages of it; all arrays are ``(cell,)``.

    Raises:
        SettingsError: if columns differ in length.
    """

    latitude: Values = field(repr=False)
    longitude: Values = field(repr=False)
    """Degrees."""

    time: Values = field(repr=False)
    """s since 1970, mean of what is averaged."""

    value: Values = field(repr=False)
    """Seen less said, in units of the spread."""

    noise: Values = field(repr=False)
    """Variance of it that no other cell shares, in units of the spread squared."""

    def __post_init__(self) -> None:
        shapes = {self.latitude.shape, self.longitude.shape, self.time.shape, self.value.shape, self.noise.shape}
        if shapes != {(len(self.latitude),)}:
            raise SettingsError(f"what is left over in cells has columns of the shapes {sorted(shapes)}")

    def __len__(self) -> int:
        return len(self.value)

    def take(self, which: NDArray[np.bool_] | NDArray[np.integer[Any]]) -> "Left":
        """Some of them."""
        return Left(
            latitude=self.latitude[which],
            longitude=self.longitude[which],
            time=self.time[which],
            value=self.value[which],
            noise=self.noise[which],
        )


def places(latitude: Values, longitude: Values) -> Values:
    """On the unit sphere, ``(place, 3)``."""
    y, x = np.radians(latitude), np.radians(longitude)
    return np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=-1)


def averaged(left: Left, degrees: float = SUPERCELL) -> Left:
    """Means of cells of one overpass within squares of about some degrees, by 1 / noise; their noise is independent."""
    row = np.floor((left.latitude + 90.0) / degrees)
    cosine = np.cos(np.radians(np.clip((row + 0.5) * degrees - 90.0, -89.5, 89.5)))
    column = np.floor((left.longitude + 180.0) / degrees * cosine)
    hour = np.floor(left.time / (3600.0 * 2 * SAME_HOURS))
    _, which = np.unique(np.stack([row, column, hour]), axis=1, return_inverse=True)
    which = which.ravel()
    weight = 1.0 / left.noise
    total = np.bincount(which, weight)

    def mean(values: Values) -> Values:
        found: Values = np.bincount(which, weight * values) / total
        return found

    at = np.stack([mean(one) for one in places(left.latitude, left.longitude).T], axis=-1)
    return Left(
        latitude=np.degrees(np.arctan2(at[:, 2], np.hypot(at[:, 0], at[:, 1]))),
        longitude=np.degrees(np.arctan2(at[:, 1], at[:, 0])),
        time=mean(left.time),
        value=mean(left.value),
        noise=1.0 / total,
    )


def told(left: Left, covariance: Covariance, latitude: Values, longitude: Values) -> tuple[Values, Values]:
    """The signal at places: its mean given what is left over in the nearest cells, and its variance (simple kriging).

    Args:
        left: averages, as of ``averaged``.
        covariance: of them.
        latitude: degrees, ``(place,)``.
        longitude: degrees, ``(place,)``.

    Returns:
        Mean and variance ``(place,)`` each, in units of the spread and its square; 0 and the signal's variance where
        there is nothing near.
    """
    mean, variance = np.zeros(len(latitude)), np.full(len(latitude), covariance.variance)
    if not len(left) or not covariance.variance:
        return mean, variance
    there, here = places(left.latitude, left.longitude), places(latitude, longitude)
    tree = KDTree(there)
    count = min(NEIGHBOURS, len(left))
    for first in range(0, len(here), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        chord, which = tree.query(here[part], k=[*range(1, count + 1)])
        towards = _summed(covariance.signal, _distance(chord))
        near = there[which]
        between = _distance(np.sqrt(np.maximum(2 - 2 * near @ near.transpose(0, 2, 1), 0.0)))
        hours = np.abs(left.time[which][:, :, None] - left.time[which][:, None, :]) / 3600.0
        whole = _summed(covariance.signal, between)
        whole += _summed(covariance.track, between) * np.exp(-hours / TOGETHER_HOURS)
        whole[:, np.arange(count), np.arange(count)] = covariance.variance + sum(covariance.track) + left.noise[which]
        weights = np.linalg.solve(whole, towards[..., None])[..., 0]
        mean[part] = (weights * left.value[which]).sum(axis=1)
        variance[part] -= (weights * towards).sum(axis=1)
    return mean, np.maximum(variance, 0.0)


def estimate(month: NDArray[np.integer[Any]], left: Left, held: NDArray[np.bool_], *, seed: int = 0) -> Covariance:
    """The covariance, from products of pairs of cells of one month, by non-negative least squares.

    Pairs more than APART_HOURS apart see the signal alone, those within SAME_HOURS the track too; bins of distance are
    weighted by the root of their pairs. At distance 0 signal and rest are the mean square of the cells that were held
    out, less their stated errors' squared; and track and noise are the latter. As cells that were learned from have
    smaller residuals, theirs are enlarged to the mean square of those held out.

    Args:
        month: ``(cell,)``.
        left: of cells, not averages; ``noise`` is the square of their stated error over the spread.
        held: which were not learned from, ``(cell,)``.
        seed: of the draw, where a month has more than MOST_A_MONTH cells.

    Raises:
        SettingsError: if no cell was held out.
    """
    if not held.any():
        raise SettingsError("a covariance of what is left over needs cells that were held out")
    square = float(np.mean(left.value[held] ** 2))
    value = left.value.copy()
    if not held.all():
        value[~held] *= np.sqrt(square / np.mean(left.value[~held] ** 2))
    bins = len(DISTANCES_KM) - 1
    sums, far, counts = np.zeros((2, bins)), np.zeros((2, bins)), np.zeros((2, bins))
    generator = np.random.default_rng(seed)
    for one in np.unique(month):
        mine = np.flatnonzero(month == one)
        if len(mine) > MOST_A_MONTH:
            mine = np.sort(generator.choice(mine, MOST_A_MONTH, replace=False))
        at, said, time = places(left.latitude[mine], left.longitude[mine]), value[mine], left.time[mine]
        step = max(_PAIRS // len(mine), 1)
        for first in range(0, len(mine), step):
            # each pair once: with those behind it
            here, behind = slice(first, first + step), slice(first, None)
            distance = _distance(np.sqrt(np.maximum(2 - 2 * at[here] @ at[behind].T, 0.0)))
            hours = np.abs(time[here, None] - time[behind]) / 3600.0
            product = said[here, None] * said[behind]
            bin_of = np.digitize(distance, DISTANCES_KM) - 1
            counted = (bin_of < bins) & ~np.tri(*distance.shape, dtype=np.bool_)
            for kind, chosen in enumerate((counted & (hours > APART_HOURS), counted & (hours < SAME_HOURS))):
                which = bin_of[chosen]
                counts[kind] += np.bincount(which, minlength=bins)
                sums[kind] += np.bincount(which, product[chosen], minlength=bins)
                far[kind] += np.bincount(which, distance[chosen], minlength=bins)
    stated, lengths = float(np.mean(left.noise[held])), len(LENGTHS_KM)
    truth = np.array([1.0] * lengths + [0.0] * lengths + [1.0, 0.0])
    rows, wanted, weights = [truth, 1 - truth], [max(square - stated, 0.0), stated], [np.sqrt(held.sum())] * 2
    for kind, number in zip(*np.nonzero(counts >= LEAST_PAIRS), strict=True):
        fall = np.exp(-far[kind, number] / counts[kind, number] / np.array(LENGTHS_KM))
        rows.append(np.concatenate([fall, fall * kind, [0.0, 0.0]]))
        wanted.append(sums[kind, number] / counts[kind, number])
        weights.append(np.sqrt(counts[kind, number]))
    scale = np.array(weights)
    found, _ = nnls(np.array(rows) * scale[:, None], np.array(wanted) * scale)
    signal, track, (rest, noise) = found[:lengths], found[lengths:-2], found[-2:]
    return Covariance(
        signal=[round(float(one), 6) for one in signal],
        track=[round(float(one), 6) for one in track],
        # errors that are stated too large leave no signal at all; a value is never sure for that
        rest=round(max(float(rest), LEAST_REST - float(signal.sum())), 6),
        alone=round(float(noise / stated), 6),
    )


def _distance(chord: Values) -> Values:
    """Along a great circle, km, of chords of the unit sphere."""
    found: Values = 2 * EARTH_KM * np.arcsin(np.minimum(chord / 2, 1.0))
    return found


def _summed(shares: list[float], distance: Values) -> Values:
    total = np.zeros(distance.shape)
    for share, length in zip(shares, LENGTHS_KM, strict=True):
        if share:
            total += share * np.exp(distance / -length)
    return total
