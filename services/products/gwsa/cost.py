"""What a render will cost: rows of land by samples of the mask, and a rate that is measured on the spot."""

import math
import time

import numpy as np

from services.core.grid import Grid, Window
from services.products.gwsa.declaration import FACTOR
from services.products.gwsa.detail import Detail
from services.products.gwsa.land import land_of
from services.products.gwsa.reach import Reach
from services.products.gwsa.refine import DETAIL_HALO
from services.sources.field import Field

SAMPLED = 300
"""Places where the land mask is looked at, a coarse cell each: the share is then known to some 3 %."""

ROWS = 8192
"""Rows that the largest model is asked to tell its rate."""


def told(detail: Detail | None, land: Field, window: Window, shard: tuple[int, int], periods: int) -> list[str]:
    """Lines for people.

    Args:
        detail: the models; None where none is asked.
        land: the mask.
        window: fine cells that are rendered.
        shard: rows and columns of a task's window.
        periods: months.
    """
    if detail is None or not detail.digests:
        return ["detail: no model is asked, the coarse field is spread"]
    share = _share(land, window)
    height, width = (min(whole, part) for whole, part in zip(window.shape, shard, strict=True))
    side = 2 * DETAIL_HALO * FACTOR
    around = (height + side) * (width + side) / (height * width)
    rows = share * window.height * window.width * periods * around
    rate = _rate(detail)
    amount = (
        f"detail: about {rows / 1e6:,.0f} million rows of land ({share:.1%} of the cells; with what lies around each "
        f"task {around:.2f} times those of the maps) for {len(detail.digests)} models of {len(detail.regions)} regions"
    )
    hours = (
        f"measured here: {rate:,.0f} rows a second on one core, so about {rows / rate / 3600:,.2f} core-hours, besides "
        "reading and writing"
    )
    return [amount, hours]


def _share(land: Field, window: Window) -> float:
    """Share of land in a window, looked for where the mask has values."""
    known = _common(land.grid, window)
    if known is None:
        return 0.0
    random = np.random.default_rng(0)
    rows = random.integers(known.row, known.row + known.height, SAMPLED)
    columns = random.integers(known.column, known.column + known.width, SAMPLED)
    cells = {(int(row), int(column)) for row, column in zip(rows, columns, strict=True)}
    shares = [
        land_of(land, Reach(row=row, column=column, height=1, width=1).times(FACTOR)).mean() for row, column in cells
    ]
    return float(np.mean(shares)) * known.height * known.width * FACTOR**2 / (window.height * window.width)


def _common(grid: Grid, window: Window) -> Window | None:
    """Coarse cells of a window of fine ones that a raster touches."""
    top, left = max(window.row // FACTOR, 0), max(window.column // FACTOR, 0)
    bottom, right = -(-(window.row + window.height) // FACTOR), -(-(window.column + window.width) // FACTOR)
    west, south, east, north = grid.bounds
    top, bottom = max(top, int((90 - north) * 4)), min(bottom, math.ceil((90 - south) * 4))
    left, right = max(left, int((west + 180) * 4)), min(right, math.ceil((east + 180) * 4))
    if top >= bottom or left >= right:
        return None
    return Window(row=top, column=left, height=bottom - top, width=right - left)


def _rate(detail: Detail) -> float:
    """Rows per second of CPU of the model that takes longest; rows are drawn from its predictors' ranges."""
    slowest = np.inf
    for predictor in detail.predictors.values():
        limits = predictor.card.inputs[0].features
        low, high = ([getattr(one, end) for one in limits] for end in ("valid_min", "valid_max"))
        rows = np.random.default_rng(0).uniform(low, high, (ROWS, len(limits))).astype(np.float32)
        predictor.predict(rows[:1024])
        start = time.process_time()
        predictor.predict(rows)
        slowest = min(slowest, ROWS / (time.process_time() - start))
    return float(slowest)
