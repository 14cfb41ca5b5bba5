"""The annual cycle that harmonics tell: from trough to peak, and when the peak is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.floating[Any]]

POINTS = 48
"""Of the year, where the cycle is looked at first; two harmonics turn four times at most."""

STEPS = 6
"""Of Newton's method from the best of the points: to the last digit unless the peak is flat."""

BLOCK = 16384
"""Series that are worked on together."""


@dataclass(frozen=True, kw_only=True)
class Season:
    """Every array is ``(series,)`` float64, NaN where there is no cycle."""

    amplitude: NDArray[np.float64]
    """Peak less trough, in the units of the values."""

    maximum: NDArray[np.float64]
    """When the peak is, months since the start of the year, 0..12: 0.5 is the middle of January."""

    minimum: NDArray[np.float64]
    """When the trough is, likewise."""


def season(cycle: Floats) -> Season:
    """Peak and trough of c1 cos(p) + s1 sin(p) + c2 cos(2 p) + s2 sin(2 p) over the year, p = 2 pi t.

    Args:
        cycle: the terms in this order, ``(term, series)``, as ``services.validation.trend.annual_cycle`` gives them.
    """
    parts = [_season(np.asarray(cycle[:, at : at + BLOCK], np.float64)) for at in range(0, cycle.shape[1], BLOCK)]
    found = np.concatenate(parts, axis=1) if parts else np.empty((3, 0))
    return Season(amplitude=found[0], maximum=found[1], minimum=found[2])


def _season(cycle: NDArray[np.float64]) -> NDArray[np.float64]:
    known = ~np.isnan(cycle).any(axis=0)
    terms = np.where(known, cycle, 0.0)
    top, highest = _peak(terms)
    bottom, lowest = _peak(-terms)
    found = np.stack([highest + lowest, 12 * top, 12 * bottom])
    found[:, ~known] = np.nan
    return found


def _peak(terms: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of the year, 0..1, and height of the peak."""
    orders = np.arange(1, len(terms) // 2 + 1)[:, np.newaxis]
    cosines, sines = terms[0::2], terms[1::2]
    coarse = 2 * np.pi * orders * np.arange(POINTS) / POINTS
    heights = np.cos(coarse).T @ cosines + np.sin(coarse).T @ sines
    first = 2 * np.pi * heights.argmax(axis=0) / POINTS
    phase = first.copy()
    for _ in range(STEPS):
        cosine, sine = np.cos(orders * phase), np.sin(orders * phase)
        slope = (orders * (sines * cosine - cosines * sine)).sum(axis=0)
        bend = -(orders**2 * (cosines * cosine + sines * sine)).sum(axis=0)
        step = np.divide(slope, bend, out=np.zeros_like(slope), where=bend < 0)
        phase = np.clip(phase - step, first - 2 * np.pi / POINTS, first + 2 * np.pi / POINTS)
    height = (cosines * np.cos(orders * phase) + sines * np.sin(orders * phase)).sum(axis=0)
    # where the peak is flat Newton's steps may lead astray
    worse = height < heights.max(axis=0)
    phase[worse], height[worse] = first[worse], heights.max(axis=0)[worse]
    share = (phase / (2 * np.pi)) % 1.0
    return share, height
