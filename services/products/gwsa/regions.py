"""Which model speaks where: aquifer regions on the coarse grid, and how neighbours blend at their borders."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.core.errors import InputRefused
from services.core.grid import Grid

type Labels = NDArray[np.int16]

BLEND = 2
"""Coarse cells on either side of a border, across which a model's share falls from 1 to 0: 0.5 degrees (our choice)."""

REACH = BLEND + 1
"""Coarse cells around a window that decide about the shares in it."""

BUFFER = 4
"""Coarse cells around a region whose rows it learns from too: 1 degree (our choice)."""

LEAST = 30
"""Cells with values below which a region is given to a neighbour (our choice)."""

REST_DEGREES = 45
"""Where no aquifer is known: squares so wide (our choice)."""


def divided(
    covered: NDArray[np.int16], names: Sequence[str], grid: Grid, valid: NDArray[np.bool_]
) -> tuple[Labels, tuple[str, ...]]:
    """Divide the coarse grid into regions.

    Cells with values that no polygon covers go to squares of REST_DEGREES; regions of fewer than LEAST cells go, the
    smallest first, to the region that they share the longest border with, else to the nearest. Cells without values
    take the region of the nearest cell that has one, so that interpolation at a shore finds its own region.

    Args:
        covered: index of the polygon that holds each cell's centre, -1 for none, ``(Y, X)``.
        names: of the polygons.
        grid: where the cells lie; the last column lies beside the first where it goes round the earth.
        valid: cells with values, ``(Y, X)``.

    Returns:
        Index of each cell's region ``(Y, X)``, and the regions' names, each once and fit for a file.

    Raises:
        InputRefused: if no cell has a value.
    """
    if not valid.any():
        raise InputRefused("no cell has a value, so there is no region to learn in")
    across = np.floor((grid.longitudes + 180) / REST_DEGREES).astype(np.int64) % (360 // REST_DEGREES)
    down = np.floor((90 - grid.latitudes) / REST_DEGREES).astype(np.int64)
    rest = down[:, None] * (360 // REST_DEGREES) + across + len(names)
    labels = np.where(covered >= 0, covered, rest)
    labels = _nearest(np.where(valid, labels, -1), around=grid.is_global)
    _merge(labels, valid, around=grid.is_global)
    kept = np.unique(labels)
    texts = [names[one] if one < len(names) else _rest_name(int(one) - len(names)) for one in kept]
    return np.searchsorted(kept, labels).astype(np.int16), _unique(texts)


def shares(labels: Labels) -> list[tuple[int, NDArray[np.float64]]]:
    """What each region's model weighs in the cells of a window, less REACH cells on each side.

    ``clip(0.5 + d / (2 BLEND), 0, 1)`` with d the distance to the region's border, positive inside, in cells; the
    shares of all regions are scaled to a sum of 1 (science/flux_gwsa.md B2.4).

    Args:
        labels: regions ``(Y, X)`` of the window with REACH cells around it.

    Returns:
        Region and its share ``(Y - 2 REACH, X - 2 REACH)``, for those that weigh anything; by rising number.
    """
    inner = (slice(REACH, -REACH), slice(REACH, -REACH))
    found: list[tuple[int, NDArray[np.float64]]] = []
    for region in np.unique(labels):
        own = labels == region
        if own.all():
            return [(int(region), np.ones(labels[inner].shape))]
        # distances go to centres of cells; the border lies half a cell before them
        inside, outside = (ndimage.distance_transform_edt(part) for part in (own, ~own))
        depth = np.where(own, inside - 0.5, 0.5 - outside)[inner]
        share = np.clip(0.5 + depth / (2 * BLEND), 0.0, 1.0)
        if share.any():
            found.append((int(region), share))
    total = np.sum([share for _, share in found], axis=0)
    return [(region, share / total) for region, share in found]


def with_buffer(labels: Labels, region: int, valid: NDArray[np.bool_], *, around: bool) -> NDArray[np.bool_]:
    """Cells with values whose rows a region learns from: its own and those within BUFFER cells, ``(Y, X)``.

    Args:
        labels: region of each cell, ``(Y, X)``.
        region: which one.
        valid: cells with values.
        around: whether the columns go round the earth, so that the last lies beside the first.
    """
    side = BUFFER if around else 0
    distance = _unrolled(ndimage.distance_transform_edt(_rolled(labels, side) != region), side)
    near: NDArray[np.bool_] = (distance <= BUFFER) & valid
    return near


def _rolled(cells: NDArray[Any], side: int) -> NDArray[Any]:
    """With so many columns of the other edge at each edge."""
    return np.pad(cells, ((0, 0), (side, side)), mode="wrap") if side else cells


def _unrolled(cells: NDArray[Any], side: int) -> NDArray[Any]:
    return cells[..., side : cells.shape[-1] - side]


def _nearest(labels: NDArray[np.int64], *, around: bool) -> NDArray[np.int64]:
    """Cells below 0 take the label of the nearest other."""
    # half a turn on each side is as far as a nearest cell can be
    side = -(-labels.shape[1] // 2) if around else 0
    wide = _rolled(labels, side)
    places = ndimage.distance_transform_edt(wide < 0, return_distances=False, return_indices=True)
    filled: NDArray[np.int64] = _unrolled(wide[tuple(places)], side)
    return filled


def _merge(labels: NDArray[np.int64], valid: NDArray[np.bool_], *, around: bool) -> None:
    while True:
        regions, counts = np.unique(labels[valid], return_counts=True)
        if len(regions) == 1 or counts.min() >= LEAST:
            return
        # ties go to the lower number: the outcome must not depend on the machine
        small = regions[counts.argmin()]
        own = labels == small
        side = 1 if around else 0
        beside = _unrolled(ndimage.binary_dilation(_rolled(own, side)), side) & ~own
        neighbours, borders = np.unique(labels[beside], return_counts=True)
        labels[own] = neighbours[borders.argmax()]


def _rest_name(number: int) -> str:
    per_row = 360 // REST_DEGREES
    west, north = number % per_row * REST_DEGREES - 180, 90 - number // per_row * REST_DEGREES
    return f"rest {abs(west)}{'w' if west < 0 else 'e'} {abs(north)}{'s' if north < 0 else 'n'}"


def _unique(texts: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for text in texts:
        plain = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "region"
        if not plain[0].isalpha():
            plain = f"region_{plain}"
        name, number = plain, 2
        while name in found:
            name, number = f"{plain}_{number}", number + 1
        found.append(name)
    return tuple(found)
