"""The fine field averaged to 1/4 degree against the balance: what the models alone say, and what is published."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Window
from services.products.gwsa.coarse import Coarse
from services.products.gwsa.declaration import FACTOR, FINE, GWSA
from services.products.gwsa.detail import Detail
from services.products.gwsa.land import land_of
from services.products.gwsa.reach import Reach
from services.products.gwsa.refine import interpolated
from services.products.gwsa.regions import REACH, shares
from services.products.gwsa.validation.published import NotComputed, Published, block_means, fine_window
from services.validation.metrics import ErrorSums

BOUND = (GWSA.scale_factor or 0.0) / 2 + 1e-5
"""cm that an average of stored values may lie beside the balance: half a step, and the float32 that it is kept in."""


@dataclass(frozen=True, kw_only=True)
class _Sums:
    before: ErrorSums
    after: ErrorSums


def cross_scale(published: Published, detail: Detail | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Average to 1/4 degree over land and compare with the balance.

    Before closure is what the models say at 1/120 degree, each with its blending share and without its detail weight:
    whether they would hold the balance by themselves. Cells near a region whose model is not asked are left out there.

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
    whole, rows, largest, silent = _sums(), list[dict[str, Any]](), 0.0, 0
    alone = None if detail is None else models_alone(detail)
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
            if alone is not None and detail is not None:
                said = _said(published, alone, tile, month)
                unasked = _unasked(published.coarse, detail, tile)
                silent += int((unasked & np.isfinite(said) & np.isfinite(wanted)).sum())
                said[unasked] = np.nan
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
        "before_closure": {**before, "cells_left_out_without_a_model": silent},
        "after_closure": _told(whole.after),
        "largest_after_closure_cm": largest,
        "bound_cm": BOUND,
        "within_bound": largest <= BOUND,
    }, rows


def models_alone(detail: Detail) -> Detail:
    """The same models without their detail weights: what ``ask`` then gives is a blend of what they say."""
    regions = tuple(one.model_copy(update={"weight": 1.0 if one.weight > 0 else 0.0}) for one in detail.regions)
    return replace(detail, regions=regions)


def _said(published: Published, alone: Detail, tile: Window, month: int) -> NDArray[np.float64]:
    """Means over land of what the models say, ``(Y, X)`` cm, NaN without land."""
    cells = Reach.of(tile)
    valid = np.isfinite(published.coarse.read(GWSA.name, month, cells))
    land = land_of(published.source.land, cells.times(FACTOR)) & valid.repeat(FACTOR, 0).repeat(FACTOR, 1)
    said = alone.ask(published.source, published.coarse, cells, land, month).values
    return block_means(np.where(land, said, np.nan), FINE.row_areas[fine_window(tile).rows][:, None])[0]


def _unasked(coarse: Coarse, detail: Detail, tile: Window) -> NDArray[np.bool_]:
    """Coarse cells in which a region speaks whose model is not asked, ``(Y, X)``."""
    weight = np.zeros((tile.height + 2, tile.width + 2))
    for number, share in shares(coarse.labels(Reach.of(tile).grown(REACH + 1))):
        if detail.regions[number].weight == 0:
            weight += share
    fine = interpolated(weight, FACTOR) > 0
    some: NDArray[np.bool_] = fine.reshape(tile.height, FACTOR, tile.width, FACTOR).any(axis=(1, 3))
    return some


def _sums() -> _Sums:
    return _Sums(before=ErrorSums(), after=ErrorSums())


def _told(sums: ErrorSums) -> dict[str, Any]:
    try:
        errors = sums.errors()
    except ValueError as error:
        return {"not_computed": str(error)}
    return {"cells": errors.cells, "r2": errors.r2, "rmse_cm": errors.rmse, "bias_cm": errors.bias}
