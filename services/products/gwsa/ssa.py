"""Singular spectrum analysis of many series with gaps, after Yi and Sneeuw (2021), doi 10.1029/2020JB021227.

A series is cut into all its windows, the rows of a matrix; its leading singular vectors are what the windows have in
common (trend, seasons, slow changes). Gaps begin as 0 and are overwritten with the rebuilt series until they settle
with one component, then with two, and so on.
"""

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from services.core.errors import InputRefused, SettingsError

type Series = NDArray[np.float64]

TOLERANCE = 0.01
"""Gaps have settled when the rms of their change is at most this share of their rms (Yi and Sneeuw)."""

ITERATIONS = 10_000

BATCH = 64
"""Series at a time: about 150 kB each with 225 months and a window of 72."""


def fill(values: Series, window: int, order: int, *, tolerance: float = TOLERANCE) -> Series:
    """The series with their gaps filled.

    Args:
        values: ``(time, series)``, regular in time, NaN where missing.
        window: length of the windows, in time steps.
        order: components that are kept, added one by one.
        tolerance: see TOLERANCE.

    Returns:
        ``(time, series)``; known values as they were.

    Raises:
        SettingsError: if the window or the order does not fit the series.
        InputRefused: if a series has no value, or does not settle.
    """
    return np.where(np.isnan(values), reconstructions(values, window, [order], tolerance=tolerance)[0], values)


def reconstructions(values: Series, window: int, orders: Sequence[int], *, tolerance: float = TOLERANCE) -> Series:
    """The series rebuilt from their leading components, at known times and in gaps.

    As orders are added one by one, the largest holds the lower ones: all cost no more than the largest.

    Args:
        values: ``(time, series)``, regular in time, NaN where missing.
        window: length of the windows, in time steps.
        orders: numbers of components to answer for, rising.
        tolerance: see TOLERANCE.

    Returns:
        ``(order, time, series)``.

    Raises:
        SettingsError: if the window or an order does not fit the series.
        InputRefused: if a series has no value, or does not settle.
    """
    length = len(values)
    # Windows of M and N - M + 1 give a matrix and its transpose: the same components, at the price of the shorter.
    short = min(window, length - window + 1)
    if short < 1:
        raise SettingsError(f"a window of {window} does not fit series of {length} steps")
    if not orders or min(orders) < 1 or max(orders) > short:
        raise SettingsError(f"orders must lie in 1 to {short} for a window of {window} in {length}, not {list(orders)}")
    empty = np.flatnonzero(np.isnan(values).all(axis=0))
    if empty.size:
        raise InputRefused(f"series {empty[0]} has no value to fill its gaps from")
    rebuilt = np.empty((len(orders), *values.shape))
    for start in range(0, values.shape[1], BATCH):
        part = slice(start, start + BATCH)
        rebuilt[:, :, part] = _settle(values[:, part].T, short, orders, tolerance).transpose(0, 2, 1)
    return rebuilt


def _settle(values: Series, window: int, orders: Sequence[int], tolerance: float) -> Series:
    """``(series, time)`` to ``(order, series, time)``."""
    gaps = np.isnan(values)
    current = np.where(gaps, 0.0, values)
    rebuilt = np.empty((len(orders), *values.shape))
    order = np.ones(len(values), dtype=np.int64)
    active = np.arange(len(values))
    for _ in range(ITERATIONS):
        last = current[active]
        found = _leading(last, window, order[active])
        missing = gaps[active]
        change = np.sqrt(((found - last) ** 2).sum(axis=1, where=missing))
        size = np.sqrt((last**2).sum(axis=1, where=missing))
        current[active] = np.where(missing, found, last)
        settled = change <= tolerance * size
        for number, wanted in enumerate(orders):
            done = settled & (order[active] == wanted)
            rebuilt[number, active[done]] = found[done]
        order[active[settled]] += 1
        active = active[order[active] <= max(orders)]
        if not active.size:
            return rebuilt
    raise InputRefused(f"{active.size} of {len(values)} series did not settle in {ITERATIONS} iterations")


def _leading(values: Series, window: int, orders: NDArray[np.int64]) -> Series:
    """Sum of the first components of complete series ``(series, time)``, as many of each as its order says."""
    length = values.shape[1]
    lagged = np.ascontiguousarray(sliding_window_view(values, window, axis=1))
    # right singular vectors of the trajectory matrix are eigenvectors of its square, which is the smaller problem
    vectors = np.linalg.eigh(lagged.transpose(0, 2, 1) @ lagged)[1][:, :, : -int(orders.max()) - 1 : -1]
    vectors = vectors * (np.arange(vectors.shape[2]) < orders[:, None])[:, None, :]
    matrix = (lagged @ vectors) @ vectors.transpose(0, 2, 1)
    # means over the antidiagonals, which all stand for the same time
    total = np.zeros_like(values)
    rows = length - window + 1
    for column in range(window):
        total[:, column : column + rows] += matrix[:, :, column]
    place = np.arange(length)
    times = np.minimum(np.minimum(place + 1, length - place), window)
    means: Series = total / times
    return means
