"""Climatology and trend of monthly series with gaps, and how a departure from them fades across a gap."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused

type Series = NDArray[np.float64]

MEMORY = 0.999
"""Largest lag-1 correlation that is used. Our choice: at 1 the closed form is 0 / 0."""


def climatology_trend(values: Series) -> Series:
    """Least squares of twelve monthly means and one slope, at every month.

    The slope is that of values and times less their means over each calendar month (Frisch and Waugh, 1933,
    Econometrica 1), so no system of equations is solved.

    Args:
        values: ``(time, series)``, monthly without a step left out, NaN where missing.

    Returns:
        The fit, ``(time, series)``.

    Raises:
        InputRefused: if a series has no value in a calendar month, or none twice.
    """
    known = ~np.isnan(values)
    month = np.arange(len(values)) % 12
    of_month = (np.arange(12)[:, None] == month).astype(np.float64)
    count = of_month @ known
    poor = np.flatnonzero((count == 0).any(axis=0) | (count < 2).all(axis=0))
    if poor.size:
        raise InputRefused(
            f"series {poor[0]} has {int(count[:, poor[0]].sum())} values, which leave calendar months without any: "
            "its climatology and trend cannot be told"
        )
    time = np.arange(len(values), dtype=np.float64)[:, None]
    present = np.where(known, values, 0.0)
    departure = time - (of_month @ (time * known) / count)[month]
    at_known = departure * known
    slope = (at_known * present).sum(axis=0) / (at_known**2).sum(axis=0)
    fit: Series = (of_month @ present / count)[month] + slope * departure
    return fit


def lag_one(residual: Series) -> NDArray[np.float64]:
    """Correlation of neighbouring months, 0 to MEMORY; 0 where all residuals are 0.

    The product of neighbours over the mean of their squares, months beside a gap left out; it cannot pass 1 (Burg's
    estimate at order 1: Burg, 1967). A negative one is taken as 0, as storage does not alternate (our choice).

    Args:
        residual: ``(time, series)``, NaN where missing.

    Returns:
        ``(series,)``.
    """
    one, other = residual[:-1], residual[1:]
    both = ~np.isnan(one) & ~np.isnan(other)
    product = (one * other).sum(axis=0, where=both)
    square = ((one**2 + other**2) / 2).sum(axis=0, where=both)
    return np.clip(np.divide(product, square, out=np.zeros_like(square), where=square > 0), 0.0, MEMORY)


def bridge(residual: Series, correlation: NDArray[Any] | float) -> Series:
    """Gaps filled with the conditional mean of a first-order autoregression, given the known values at both ends.

    With ends a and b, m steps apart, and correlation p, the value j steps after a is
    [p^j (1 - p^2(m - j)) a + p^(m - j) (1 - p^2j) b] / (1 - p^2m): the mean of a Gaussian given two others. A gap at
    the start or end of a series has one end, and p^j a. A correlation of 1 is linear interpolation, 0 gives 0.

    Args:
        residual: ``(time, series)``, NaN where missing, at least one value in each.
        correlation: of neighbouring months, 0 to 1, ``(series,)`` or one for all.

    Returns:
        ``(time, series)``; known values as they were.
    """
    known = ~np.isnan(residual)
    row = np.arange(len(residual))[:, None]
    before = np.maximum.accumulate(np.where(known, row, -1), axis=0)
    after = np.minimum.accumulate(np.where(known, row, len(row))[::-1], axis=0)[::-1]
    time, series = np.nonzero(~known)
    left, right = before[time, series], after[time, series]
    p = np.broadcast_to(np.asarray(correlation, dtype=np.float64), residual.shape[1:])[series]
    a = _weight(p, time - left, right - time, other=right < len(row))
    b = _weight(p, right - time, time - left, other=left >= 0)
    filled = residual.copy()
    # an end that is not there has no weight, but an index all the same
    ends = np.where(known, residual, 0.0)
    filled[time, series] = np.where(left >= 0, a * ends[np.maximum(left, 0), series], 0.0)
    filled[time, series] += np.where(right < len(row), b * ends[np.minimum(right, len(row) - 1), series], 0.0)
    return filled


def _weight(p: Series, near: NDArray[np.int64], far: NDArray[np.int64], *, other: NDArray[np.bool_]) -> Series:
    """Weight of an end ``near`` steps away, where there is another one ``far`` steps away on the other side, or not."""
    whole = near + far
    between = np.divide(
        p**near * (1 - p ** (2 * far)), 1 - p ** (2 * whole), out=np.asarray(far / whole, dtype=np.float64), where=p < 1
    )
    return np.where(other, between, p**near)
