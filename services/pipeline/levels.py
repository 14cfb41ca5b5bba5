"""Coarser levels of a map: area-weighted, missing-aware means of level 0, and how much of each cell was valid."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Grid, Window, windows
from services.core.quantity import Quantity
from services.pipeline.zarr import VALID_FRACTION_FULL

FEW = 8
"""Neighbours up to which adding strided slices measured faster than numpy's reduction along a short axis."""

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
    # sums have 53 binary digits: of wider values a mean could leave the span of what it is made of, if by the last one
    wide = np.dtype(quantity.dtype).itemsize == 8
    lowest, highest = (np.zeros(window.shape if wide else (0, 0), dtype=quantity.dtype) for _ in range(2))
    for part in windows(window.shape, (max(1, STRIP_CELLS // (factor * factor * window.width)), window.width)):
        top, left = (window.row + part.row) * factor, window.column * factor
        bottom = min(top + part.height * factor, grid.height)
        right = min(left + part.width * factor, grid.width)
        stored = read(Window(row=top, column=left, height=bottom - top, width=right - left))
        areas = grid.row_areas[top:bottom, np.newaxis]
        valid = ~quantity.missing(stored)
        # along a row all cells weigh the same, so columns are summed first and weighed after
        along = _sums(np.where(valid, stored, stored.dtype.type(0)), factor, 1, window.width)
        counts = _sums(valid, factor, 1, window.width)
        whole_counts = _sums(np.ones((1, right - left)), factor, 1, window.width)
        total[part.rows] = _sums(along * areas, factor, 0, part.height)
        weight[part.rows] = _sums(counts * areas, factor, 0, part.height)
        whole[part.rows] = _sums(whole_counts * areas, factor, 0, part.height)
        if wide:
            lowest[part.rows] = _ends(stored, valid, factor, part.shape, np.minimum)
            highest[part.rows] = _ends(stored, valid, factor, part.shape, np.maximum)
    some = weight > 0
    mean = np.divide(total, weight, out=np.zeros_like(total), where=some)
    out = _stored(mean, some, quantity)
    if wide:
        out[some] = np.clip(out[some], lowest[some], highest[some])
    share = np.divide(weight, whole, out=np.zeros_like(weight), where=whole > 0)
    fraction = np.clip(np.rint(share * VALID_FRACTION_FULL), 1, VALID_FRACTION_FULL - 1)
    fraction[~some] = 0
    fraction[np.isclose(share, 1.0, rtol=0, atol=1e-12)] = VALID_FRACTION_FULL
    return out, fraction.astype(np.uint8)


def _sums(terms: NDArray[Any], factor: int, axis: int, count: int) -> NDArray[np.float64]:
    """Sums of ``factor`` neighbours along an axis, ``count`` of them; what lacks at the end counts as 0."""
    lacking = count * factor - terms.shape[axis]
    if lacking:
        terms = np.pad(terms, [(0, lacking if one == axis else 0) for one in (0, 1)])
    if factor <= FEW:
        steps = (terms[place::factor] if axis == 0 else terms[:, place::factor] for place in range(factor))
        out = next(steps).astype(np.float64)
        for step in steps:
            out += step
        return out
    shape = (count, factor, terms.shape[1]) if axis == 0 else (terms.shape[0], count, factor)
    sums: NDArray[np.float64] = terms.reshape(shape).sum(axis=axis + 1, dtype=np.float64)
    return sums


def _ends(
    stored: NDArray[Any], valid: NDArray[np.bool_], factor: int, shape: tuple[int, int], least: np.ufunc
) -> NDArray[Any]:
    """The smallest (``np.minimum``) or largest (``np.maximum``) valid value of each block; any value where none is."""
    limits = np.finfo(stored.dtype) if stored.dtype.kind == "f" else np.iinfo(stored.dtype)
    neutral = limits.max if least is np.minimum else limits.min
    padded = np.full((shape[0] * factor, shape[1] * factor), neutral, dtype=stored.dtype)
    np.copyto(padded[: stored.shape[0], : stored.shape[1]], stored, where=valid)
    ends: NDArray[Any] = least.reduce(padded.reshape(shape[0], factor, shape[1], factor), axis=(1, 3))
    return ends


def _stored(mean: NDArray[np.float64], some: NDArray[np.bool_], quantity: Quantity) -> NDArray[Any]:
    dtype = np.dtype(quantity.dtype)
    if not quantity.is_integer:
        return np.where(some, mean, np.nan).astype(dtype)
    info = np.iinfo(dtype)
    # the largest int64 is no float, and its neighbour above does not fit
    whole = np.clip(np.rint(mean), float(info.min), np.nextafter(float(info.max) + 1, 0))
    fill = float(quantity.fill)
    # a mean that happens to be the missing value moves to its neighbour on the side it came from
    clash = some & (whole == fill)
    if clash.any():
        up = ((mean >= fill) & (fill < info.max)) | (fill == info.min)
        whole = np.where(clash, np.where(up, fill + 1, fill - 1), whole)
    out: NDArray[Any] = np.where(some, whole, 0.0).astype(dtype)
    out[~some] = quantity.fill
    return out
