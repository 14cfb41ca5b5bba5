"""Coarser levels of a map: area-weighted, missing-aware means of level 0, and how much of each cell was valid."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Grid, Window, windows
from services.core.quantity import Quantity
from services.pipeline.zarr import VALID_FRACTION_FULL

STRIP_CELLS = 8_000_000
"""Level-0 cells that are held as floats at a time, whatever the size of the map."""


def level_window(
    read: Callable[[Window], NDArray[Any]], quantity: Quantity, grid: Grid, level: int, window: Window
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """A window of a level.

    A cell is the mean of the valid level-0 cells in it, each weighted by its area on the sphere (Grid.row_areas);
    cells that the grid does not reach weigh nothing. Means are taken of level 0, never of means.

    Args:
        read: gives stored level-0 values ``(y, x)`` of a window.
        quantity: what they are.
        grid: level 0.
        level: 1 or more.
        window: cells of that level.

    Returns:
        Stored values ``(y, x)`` and the valid share of each cell's area, 0..255 (255 only where all of it was valid,
        0 only where none was).
    """
    factor = 2**level
    total = np.zeros(window.shape)
    weight = np.zeros(window.shape)
    whole = np.zeros(window.shape)
    for part in windows(window.shape, (max(1, STRIP_CELLS // (factor * factor * window.width)), window.width)):
        top, left = (window.row + part.row) * factor, window.column * factor
        bottom = min(top + part.height * factor, grid.height)
        right = min(left + part.width * factor, grid.width)
        stored = read(Window(row=top, column=left, height=bottom - top, width=right - left))
        areas = grid.row_areas[top:bottom, np.newaxis]
        valid = ~quantity.missing(stored)
        values = np.where(valid, stored, 0).astype(np.float64)
        inside = np.broadcast_to(areas, stored.shape)
        for target, terms in ((total, values * areas), (weight, valid * areas), (whole, inside)):
            target[part.rows] = _block_sums(terms, factor, part.shape)
    some = weight > 0
    mean = np.divide(total, weight, out=np.zeros_like(total), where=some)
    # rounding of the sums must not carry a mean past the values it is made of where all of them are equal
    out = _stored(mean, some, quantity)
    share = np.divide(weight, whole, out=np.zeros_like(weight), where=whole > 0)
    fraction = np.clip(np.rint(share * VALID_FRACTION_FULL), 1, VALID_FRACTION_FULL - 1)
    fraction[~some] = 0
    fraction[np.isclose(share, 1.0, rtol=0, atol=1e-12)] = VALID_FRACTION_FULL
    return out, fraction.astype(np.uint8)


def _block_sums(terms: NDArray[np.float64], factor: int, shape: tuple[int, int]) -> NDArray[np.float64]:
    high, wide = shape[0] * factor, shape[1] * factor
    if terms.shape != (high, wide):
        padded = np.zeros((high, wide))
        padded[: terms.shape[0], : terms.shape[1]] = terms
        terms = padded
    sums: NDArray[np.float64] = terms.reshape(shape[0], factor, shape[1], factor).sum(axis=(1, 3))
    return sums


def _stored(mean: NDArray[np.float64], some: NDArray[np.bool_], quantity: Quantity) -> NDArray[Any]:
    dtype = np.dtype(quantity.dtype)
    if not quantity.is_integer:
        return np.where(some, mean, np.nan).astype(dtype)
    whole = np.rint(mean)
    fill = float(quantity.fill)
    # a mean that happens to be the missing value moves to its neighbour on the side it came from
    clash = some & (whole == fill)
    if clash.any():
        info = np.iinfo(dtype)
        up = ((mean >= fill) & (fill < info.max)) | (fill == info.min)
        whole = np.where(clash, np.where(up, fill + 1, fill - 1), whole)
    return np.where(some, whole, fill).astype(dtype)
