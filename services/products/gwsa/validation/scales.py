"""The fine field averaged to 1/4 degree against the balance: before it is closed, and as it is published."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Window
from services.products.gwsa.declaration import FACTOR, FINE, GWSA
from services.products.gwsa.detail import Detail
from services.products.gwsa.land import land_of
from services.products.gwsa.reach import Reach
from services.products.gwsa.refine import DETAIL_HALO, HALO, STEPS, Blocks, interpolated
from services.products.gwsa.validation.published import Published, block_means, fine_window
from services.validation.metrics import ErrorSums
from services.validation.report import NotComputed

BOUND = (GWSA.scale_factor or 0.0) / 2 + 1e-5
"""cm that an average of stored values may lie beside the balance: half a step, and the float32 that it is kept in."""


@dataclass(frozen=True, kw_only=True)
class _Sums:
    before: ErrorSums
    after: ErrorSums


def cross_scale(published: Published, detail: Detail | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Average to 1/4 degree over land and compare with the balance.

    Before closure is the interpolated coarse field plus what the models say, with their shares and weights: how far
    they would carry the balance off by themselves.

    Args:
        published: the version.
        detail: the models; None: the version has none.

    Returns:
        JSON data, and a row for each month.

    Raises:
        NotComputed: if the version holds no whole cell of 1/4 degree with a value.
    """
    tiles, of = published.tiles()
    positions = published.positions()
    whole, rows, largest = _sums(), list[dict[str, Any]](), 0.0
    for position in positions:
        month, of_month = published.dataset.time.starts[position], _sums()
        for tile in tiles:
            wanted = published.coarse.read(GWSA.name, month, Reach.of(tile))
            areas = FINE.row_areas[fine_window(tile).rows][:, None]
            mean, area = block_means(published.values(position, tile), areas)
            off = np.abs(mean - wanted)
            largest = max(largest, float(np.nanmax(off, initial=0.0)))
            for sums in (whole, of_month):
                sums.after.add(mean, wanted, area)
            if detail is not None:
                said = unclosed(published, detail, tile, month)
                for sums in (whole, of_month):
                    sums.before.add(said, wanted, area)
        row = {"month": str(np.datetime64(month, "M"))}
        for name, one in (("before", of_month.before), ("after", of_month.after)):
            row |= {f"{name}_{key}": value for key, value in _told(one).items() if key != "not_computed"}
        rows.append(row)
    if "not_computed" in _told(whole.after):
        raise NotComputed("no cell of 1/4 degree has both a published value and a balance in the months looked at")
    before = _told(whole.before)
    if detail is None:
        before = {"not_computed": "the version was rendered without models"}
    elif not detail.digests:
        before = {"not_computed": "no region's detail is worth anything, so no model is asked"}
    return {
        "months": len(positions),
        "tiles": len(tiles),
        "tiles_in_all": of,
        "before_closure": before,
        "after_closure": _told(whole.after),
        "largest_after_closure_cm": largest,
        "bound_cm": BOUND,
        "within_bound": largest <= BOUND,
    }, rows


def unclosed(published: Published, detail: Detail, tile: Window, month: int) -> NDArray[np.float64]:
    """Means over land of the field before it is closed, ``(Y, X)`` cm, NaN without land."""
    wide = Reach.of(tile).grown(HALO)
    coarse = published.coarse.read(GWSA.name, month, wide)
    cells = wide.times(FACTOR)
    land = land_of(published.source.land, cells) & np.isfinite(coarse).repeat(FACTOR, 0).repeat(FACTOR, 1)
    rows = np.clip(cells.places(FINE)[0], 0, FINE.height - 1)
    blocks = Blocks.of(FACTOR, land, FINE.row_areas[rows])
    ring, side = slice(HALO - 1, 1 - HALO), slice(DETAIL_HALO * FACTOR, -DETAIL_HALO * FACTOR)
    field = interpolated(blocks.sharpened(coarse, STEPS)[ring, ring], FACTOR)
    field += detail.ask(published.source, published.coarse, wide, blocks, month).values[side, side]
    return blocks.inside(HALO).means(field)


def _sums() -> _Sums:
    return _Sums(before=ErrorSums(), after=ErrorSums())


def _told(sums: ErrorSums) -> dict[str, Any]:
    try:
        errors = sums.errors()
    except ValueError as error:
        return {"not_computed": str(error)}
    return {"cells": errors.cells, "r2": errors.r2, "rmse_cm": errors.rmse, "bias_cm": errors.bias}
