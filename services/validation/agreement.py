"""How well values agree with a reference at points: errors, both R2, and what is left beyond trend and season.

Two numbers are called R2 and both are given: ``r2`` is the coefficient of determination, 1 - SSE / SST, which a bias
lowers; ``r2_pearson`` is the squared correlation, which it does not. CO2 rises by more in three years than it varies
otherwise, so that either is near 1 for anything with a trend: ``detrended`` says what remains.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from services.core.errors import InputRefused

type Floats = NDArray[np.floating[Any]]
type Labels = NDArray[np.integer[Any]] | NDArray[np.str_]

HARMONICS = 2
"""Of the year, taken off with the trend. Our choice."""

LEAST_VALUES = 24
"""Pairs of a station that tell its trend and season. Our choice: two years of months."""

LEAST_YEARS = 1.0
"""Years from a station's first pair to its last that tell them apart. Our choice."""

DRAWS = 2000
"""Of the bootstrap."""

_DEPENDENT = 1e-4
"""Smallest singular value of a design, its columns scaled to unit length, that counts as independent. Our choice."""

_TERMS = ("n", "r", "v", "rr", "vv", "rv", "d", "dd", "absolute")


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Values against a reference, in their units; NaN where it cannot be told."""

    n: int
    """Pairs."""

    bias: float
    """Mean of value minus reference."""

    rmse: float
    mae: float

    sd: float
    """Standard deviation of the differences about their mean (of the pairs, divided by n)."""

    r2: float
    """1 - sum of squared differences / sum of squared departures of the reference from its mean, as scikit-learn's."""

    r2_pearson: float
    """Squared correlation."""

    slope: float
    """Of the line by which least squares give the value from the reference."""

    intercept: float

    def to_json(self) -> dict[str, Any]:
        """As JSON data, None where a number cannot be told."""
        return {name: value if np.isfinite(value) else None for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Detrended:
    """Pairs less their station's trend and season; those of stations that cannot tell them are left out."""

    values: NDArray[np.float64] = field(repr=False)
    """``(pair,)``."""

    reference: NDArray[np.float64] = field(repr=False)
    """``(pair,)``."""

    used: NDArray[np.bool_] = field(repr=False)
    """Which of the pairs given these are of."""

    left_out: tuple[str, ...]
    """Stations that are too short."""

    def agreement(self) -> Agreement:
        """Of what is left; its ``r2`` is the detrended and deseasonalised R2."""
        return agreement(self.values, self.reference)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A line for each station, and all pairs together."""

    stations: dict[str, Agreement]
    pooled: Agreement
    bias_spread: float
    """Standard deviation of the stations' biases, one weight each (divided by their number - 1)."""

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "pooled": self.pooled.to_json(),
            "bias_spread": self.bias_spread if np.isfinite(self.bias_spread) else None,
            "stations": {name: found.to_json() for name, found in self.stations.items()},
        }


def agreement(values: Floats, reference: Floats) -> Agreement:
    """Compare pairs.

    Args:
        values: ``(pair,)``.
        reference: ``(pair,)``.

    Raises:
        InputRefused: if there is no pair, or a value is missing: what is left out is the caller's to say.
    """
    one, other = _pairs(values, reference)
    origin = float(other.mean())
    sums = _sums(one - origin, other - origin)[None].sum(axis=1)
    found = _metrics(sums, origin)
    return Agreement(n=one.size, **{name: float(metric[0]) for name, metric in found.items()})


def intervals(
    values: Floats,
    reference: Floats,
    blocks: Labels,
    *,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """How far each metric of ``agreement`` may be off: percentiles over whole blocks drawn with replacement.

    Pairs of a block may depend on one another, blocks may not (a station's month or quarter, say). Metrics of the
    pairs less trend and season take that fit as given.

    Args:
        values: ``(pair,)``.
        reference: ``(pair,)``.
        blocks: what block each pair is of, ``(pair,)``; at least two differ.
        level: share of the draws within.
        draws: how many.
        seed: of the draws.

    Raises:
        InputRefused: as ``agreement``, or if there is one block only.
    """
    one, other = _pairs(values, reference)
    if np.shape(blocks) != one.shape:
        raise InputRefused(f"{np.shape(blocks)} blocks for {one.size} pairs")
    _, member = np.unique(blocks, return_inverse=True)
    count = int(member.max()) + 1
    if count < 2:
        raise InputRefused("all pairs are of one block, which has nothing to be drawn against")
    origin = float(other.mean())
    terms = _sums(one - origin, other - origin)
    of_block = np.stack([np.bincount(member, weights=column, minlength=count) for column in terms.T], axis=1)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    found = _metrics(drawn @ of_block, origin)
    tail = (1 - level) / 2
    ends = {name: np.nanquantile(metric, [tail, 1 - tail]) for name, metric in found.items()}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def difference_interval(
    one: Floats,
    other: Floats,
    reference: Floats,
    blocks: Labels,
    *,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float, float]:
    """RMSE of one minus that of the other on the same pairs, with the ends of its interval, over drawn blocks.

    Args:
        one: ``(pair,)``.
        other: ``(pair,)``.
        reference: ``(pair,)``.
        blocks: as ``intervals``.
        level: as ``intervals``.
        draws: as ``intervals``.
        seed: as ``intervals``.

    Raises:
        InputRefused: as ``intervals``.
    """
    first, known = _pairs(one, reference)
    second, _ = _pairs(other, reference)
    _, member = np.unique(blocks, return_inverse=True)
    count = int(member.max()) + 1
    if np.shape(blocks) != known.shape or count < 2:
        raise InputRefused(f"{np.shape(blocks)} blocks, {count} of them different, for {known.size} pairs")
    sums = [np.bincount(member, weights=column) for column in (np.ones_like(known), (first - known) ** 2)]
    sums.append(np.bincount(member, weights=(second - known) ** 2))
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    pairs, squares, others = (drawn @ column for column in sums)
    apart = np.sqrt(squares / pairs) - np.sqrt(others / pairs)
    tail = (1 - level) / 2
    low, high = np.quantile(apart, [tail, 1 - tail])
    whole = np.sqrt(sums[1].sum() / known.size) - np.sqrt(sums[2].sum() / known.size)
    return float(whole), float(low), float(high)


def detrended(
    values: Floats,
    reference: Floats,
    years: Floats,
    stations: Labels,
    *,
    harmonics: int = HARMONICS,
    least: int = LEAST_VALUES,
) -> Detrended:
    """Take off trend and season: those of the reference, from both.

    For each station a + b t + sum(c cos(2 pi k t) + s sin(2 pi k t)), t in years, is fitted to its reference by least
    squares and subtracted from reference and values alike (our choice: a fit of its own would forgive the values a
    wrong trend, season or bias). ``r2`` of what is left is 1 for the reference itself, 0 for its fitted trend and
    season, and below for what is worse than these.

    Args:
        values: ``(pair,)``.
        reference: ``(pair,)``.
        years: time of each, ``(pair,)``.
        stations: which station each is of, ``(pair,)``.
        harmonics: of the year.
        least: pairs that a station needs, over at least LEAST_YEARS.

    Raises:
        InputRefused: if shapes do not fit, a value is missing, or no station can tell trend and season.
    """
    one, other = _pairs(values, reference)
    if np.shape(years) != one.shape or np.shape(stations) != one.shape:
        raise InputRefused(f"{np.shape(years)} times and {np.shape(stations)} stations for {one.size} pairs")
    fitted = np.full(one.shape, np.nan)
    left_out: list[str] = []
    for station in np.unique(stations):
        its = stations == station
        times = np.asarray(years, dtype=np.float64)[its]
        design = _design(times, harmonics)
        weakest = np.linalg.svd(design / np.linalg.norm(design, axis=0), compute_uv=False)[-1]
        enough = times.size >= max(least, design.shape[1] + 1) and np.ptp(times) >= LEAST_YEARS
        if not enough or weakest < _DEPENDENT:
            left_out.append(str(station))
            continue
        mean = other[its].mean()
        terms = np.linalg.lstsq(design, other[its] - mean, rcond=None)[0]
        fitted[its] = design @ terms + mean
    used = np.isfinite(fitted)
    if not used.any():
        raise InputRefused(f"no station has {least} pairs over {LEAST_YEARS:g} years that tell trend and season")
    return Detrended(values=(one - fitted)[used], reference=(other - fitted)[used], used=used, left_out=tuple(left_out))


def table(values: Floats, reference: Floats, stations: Sequence[str] | NDArray[np.str_]) -> Table:
    """Agreement of each station, and of all pairs together.

    Args:
        values: ``(pair,)``.
        reference: ``(pair,)``.
        stations: which station each is of.

    Raises:
        InputRefused: as ``agreement``.
    """
    labels = np.asarray(stations)
    if labels.shape != np.shape(values):
        raise InputRefused(f"{labels.shape} stations for {np.shape(values)} pairs")
    found = {
        str(name): agreement(values[labels == name], reference[labels == name]) for name in np.unique(labels).tolist()
    }
    biases = np.array([one.bias for one in found.values()])
    return Table(
        stations=found,
        pooled=agreement(values, reference),
        bias_spread=float(biases.std(ddof=1)) if biases.size > 1 else float("nan"),
    )


def coverage(values: Floats, reference: Floats, sigma: Floats, *, level: float = 0.95) -> float:
    """Share of the references within the central interval of a normal error about the values.

    Args:
        values: ``(pair,)``.
        reference: ``(pair,)``.
        sigma: standard deviation of their difference as it is stated, ``(pair,)``.
        level: of the interval; what the share is where sigma is right.

    Raises:
        InputRefused: as ``agreement``, or if a sigma is missing or negative.
    """
    one, other = _pairs(values, reference)
    if np.shape(sigma) != one.shape or not (np.asarray(sigma) >= 0).all():
        raise InputRefused("a stated standard deviation is missing or below 0")
    reach = float(special.ndtri((1 + level) / 2))
    return float((np.abs(one - other) <= reach * np.asarray(sigma, dtype=np.float64)).mean())


def _pairs(values: Floats, reference: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, other = np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape or not one.size:
        raise InputRefused(f"values {one.shape} and reference {other.shape} are no pairs")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise InputRefused(f"{int((~(np.isfinite(one) & np.isfinite(other))).sum())} of {one.size} pairs lack a value")
    return one, other


def _design(years: NDArray[np.float64], harmonics: int) -> NDArray[np.float64]:
    phase = 2 * np.pi * years
    waves = [wave(order * phase) for order in range(1, harmonics + 1) for wave in (np.cos, np.sin)]
    return np.stack([np.ones_like(years), years - years.mean(), *waves], axis=1)


def _sums(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each pair adds to the sums that metrics are of, ``(pair, _TERMS)``; values are near 0, so digits stay."""
    apart = one - other
    return np.stack(
        [np.ones_like(one), other, one, other**2, one**2, one * other, apart, apart**2, np.abs(apart)], axis=1
    )


def _metrics(sums: NDArray[np.float64], origin: float) -> dict[str, NDArray[np.float64]]:
    """Metrics of sums ``(draw, _TERMS)`` of values and reference less ``origin``, ``(draw,)`` each."""
    total = dict(zip(_TERMS, sums.T, strict=True))
    n = total["n"]
    reference, value = total["r"] / n, total["v"] / n
    spread = total["rr"] / n - reference**2
    spread_of_values = total["vv"] / n - value**2
    together = total["rv"] / n - reference * value
    bias, squared = total["d"] / n, total["dd"] / n
    # what rounding leaves of a constant is no spread
    varies = spread > 1e-14 * np.maximum(total["rr"] / n, 1.0)
    both = varies & (spread_of_values > 1e-14 * np.maximum(total["vv"] / n, 1.0))
    slope = _divided(together, spread, varies)
    return {
        "bias": bias,
        "rmse": np.sqrt(squared),
        "mae": total["absolute"] / n,
        "sd": np.sqrt(np.maximum(squared - bias**2, 0.0)),
        "r2": 1 - _divided(squared, spread, varies),
        "r2_pearson": _divided(together**2, spread * spread_of_values, both),
        "slope": slope,
        "intercept": value + origin - slope * (reference + origin),
    }


def _divided(one: NDArray[np.float64], other: NDArray[np.float64], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.divide(one, other, out=np.full_like(one, np.nan), where=where)
    return found
