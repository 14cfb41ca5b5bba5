"""Groundwater of a region as what is left of its total storage: GWS = TWS - (soil moisture, snow, reservoirs, ...)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused

BASELINE = (408, 480)
"""From and before: 2004-01 to 2009-12, in months since 1970-01."""

LEAST_BASELINE = 60
"""Months of the baseline that a term needs. Our choice: five of the six years."""

AREAS_APART = 0.1
"""Largest relative difference of the terms' areas. Our choice: masks of different grids differ by 2 %, regions by
more."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """A series of one kind of water in a region.

    Raises:
        InputRefused: if its arrays do not fit, its months do not rise, or a value is no number.
    """

    name: str
    """Of the file or series, for messages."""

    months: NDArray[np.integer]
    """Months since 1970-01 ``(time,)``, rising; a month without a value is left out."""

    values: NDArray[np.floating]
    """``(time,)`` in one unit for all terms."""

    errors: NDArray[np.floating]
    """Standard errors ``(time,)`` in that unit."""

    area_km2: float | None = None
    """Area that they are of, where it is known."""

    def __post_init__(self) -> None:
        shapes = {np.shape(self.months), np.shape(self.values), np.shape(self.errors)}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise InputRefused(f"{self.name}: months, values and errors have the shapes {sorted(shapes)}")
        if (np.diff(self.months) <= 0).any():
            raise InputRefused(f"{self.name}: its months do not rise")
        if not (np.isfinite(self.values).all() and np.isfinite(self.errors).all() and (self.errors >= 0).all()):
            raise InputRefused(f"{self.name}: a value or an error is no number, or an error is negative")


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What is left, in the months that all terms have; all arrays are ``(time,)``."""

    months: NDArray[np.int64]
    """Months since 1970-01, rising."""

    storage: NDArray[np.float64]
    """What is left, each term less its own mean over the baseline."""

    as_given: NDArray[np.float64]
    """What is left of the terms as they came, with the baselines of their makers."""

    error: NDArray[np.float64]
    """Root of the sum of the terms' squared errors: they are taken as independent, and the baselines as without error,
    as NASA's toolkit does."""


def what_is_left(
    total: Term,
    parts: Sequence[Term],
    *,
    baseline: tuple[int, int] = BASELINE,
    least: int = LEAST_BASELINE,
) -> Balance:
    """Total storage less its parts.

    Args:
        total: terrestrial water storage.
        parts: what is taken off it.
        baseline: from and before, months since 1970-01; a term's mean is over all of its own months within.
        least: months that each term needs there.

    Raises:
        InputRefused: if a term has too few months in the baseline, if the terms have no month in common, or if they are
            of different regions by their areas.
    """
    terms = (total, *parts)
    if len(terms) < 2:
        raise InputRefused(f"a balance takes something off {total.name}, and nothing was given")
    means = [_mean(term, baseline, least) for term in terms]
    _check_areas(terms)
    months = reduce(np.intersect1d, (term.months for term in terms))
    if months.size == 0:
        raise InputRefused(f"{', '.join(term.name for term in terms)} have no month in common")
    places = [np.searchsorted(term.months, months) for term in terms]
    signs = [1.0, *[-1.0] * len(parts)]
    values = [
        sign * np.asarray(term.values, dtype=np.float64)[place]
        for sign, term, place in zip(signs, terms, places, strict=True)
    ]
    squares = [np.asarray(term.errors, dtype=np.float64)[place] ** 2 for term, place in zip(terms, places, strict=True)]
    as_given = np.sum(values, axis=0)
    return Balance(
        months=months.astype(np.int64),
        storage=as_given - sum(sign * mean for sign, mean in zip(signs, means, strict=True)),
        as_given=as_given,
        error=np.sqrt(np.sum(squares, axis=0)),
    )


def _mean(term: Term, baseline: tuple[int, int], least: int) -> float:
    """Of a term over its months of the baseline."""
    inside = (term.months >= baseline[0]) & (term.months < baseline[1])
    if inside.sum() < least:
        span = f"{_label(baseline[0])} to {_label(baseline[1] - 1)}"
        raise InputRefused(
            f"{term.name} has {int(inside.sum())} months in the baseline {span}, and a mean needs {least}: "
            f"it has {len(term.months)} months in all"
        )
    return float(np.mean(term.values[inside], dtype=np.float64))


def _check_areas(terms: Sequence[Term]) -> None:
    known = [(term.area_km2, term.name) for term in terms if term.area_km2 is not None]
    if not known:
        return
    (least, small), (most, large) = min(known), max(known)
    if most > least * (1 + AREAS_APART):
        raise InputRefused(f"{large} is of {most:.0f} km2 and {small} of {least:.0f} km2: are they of one region?")


def _label(month: int) -> str:
    return f"{1970 + month // 12}-{month % 12 + 1:02d}"
