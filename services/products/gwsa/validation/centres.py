"""How far two centres' solutions lie apart: the same satellites, weighed twice."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Window
from services.products.gwsa.declaration import BASE_MONTHS, COARSE, GWSA
from services.products.gwsa.reach import Reach
from services.products.gwsa.validation.published import Published
from services.validation import trend
from services.validation.report import NotComputed

type Floats = NDArray[np.float64]


def centres(published: Published) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Spread of the total water storage of both centres in the months that both have.

    Soil, snow and canopy water come off both alike, so that it is the spread of GWSA as well.

    Returns:
        JSON data, and a row for each month.

    Raises:
        NotComputed: if there is one centre only, or too little in common.
    """
    source = published.source
    if source.other is None:
        raise NotComputed("gwsa.toml names no second GRACE solution (grace.other)")
    window = published.cells
    months = np.array(sorted(set(source.solution_months) & set(source.other_months)), dtype=np.int64)
    base = np.isin(months, list(BASE_MONTHS))
    if not base.any():
        raise NotComputed("the two centres have no month of the baseline in common")
    valid = np.isfinite(published.coarse.read(GWSA.name, published.coarse.months[0], Reach.of(window)))
    mine = _anomalies(source.solution.read(window)[0], source.solution_months, months, base)[:, valid]
    other = _anomalies(source.other.read(window)[0], source.other_months, months, base)[:, valid]
    both = np.isfinite(mine).all(axis=0) & np.isfinite(other).all(axis=0)
    if not both.any():
        raise NotComputed("no published cell of 1/4 degree has values of both centres in every month")
    mine, other, weight = mine[:, both], other[:, both], weights_of(window)[valid][both]
    name = f"{source.solution.center} and {source.other.center}"
    told, rows = compared(mine, other, months, weight)
    return {"centres": name, "cells": int(both.sum()), "cells_without_both": int((~both).sum()), **told}, rows


def compared(
    mine: Floats, other: Floats, months: NDArray[np.int64], weight: Floats
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How far two sets of series of the same cells lie apart.

    Args:
        mine: cm, ``(time, cell)``, without a NaN.
        other: the same.
        months: of the rows.
        weight: of the cells.

    Returns:
        JSON data, and a row for each month.
    """
    apart = mine - other
    slopes = [trend.ols(one, months).slope for one in (mine, other)]
    known = ~np.isnan(slopes[0] - slopes[1])
    rows = [
        {"month": str(np.datetime64(int(month), "M")), "rms_difference_cm": _rms(row, weight)}
        for month, row in zip(months, apart, strict=True)
    ]
    return {
        "months": len(months),
        "rms_difference_cm": _rms(apart, weight),
        "median_correlation": float(np.median(_correlations(mine, other))),
        "rms_difference_of_trends_cm_a_year": _rms((slopes[0] - slopes[1])[known], weight[known])
        if known.any()
        else {"not_computed": f"{len(months)} months tell no trend"},
    }, rows


def _anomalies(values: Floats, own: tuple[int, ...], months: NDArray[np.int64], base: NDArray[np.bool_]) -> Floats:
    found = values[np.searchsorted(np.array(own), months)]
    anomalies: Floats = found - found[base].mean(axis=0)
    return anomalies


def weights_of(window: Window) -> Floats:
    """Areas of coarse cells, ``(Y, X)``, relative to one at the equator."""
    return np.broadcast_to(COARSE.row_areas[window.rows][:, None], window.shape)


def _rms(values: Floats, weight: Floats) -> float:
    weights = np.broadcast_to(weight, values.shape)
    return float(np.sqrt((values**2 * weights).sum() / weights.sum()))


def _correlations(one: Floats, other: Floats) -> Floats:
    """Pearson's of each column; 0 where one does not vary."""
    parts = [values - values.mean(axis=0) for values in (one, other)]
    spread = np.sqrt((parts[0] ** 2).sum(axis=0) * (parts[1] ** 2).sum(axis=0))
    product: Floats = (parts[0] * parts[1]).sum(axis=0)
    return np.divide(product, spread, out=np.zeros_like(product), where=spread > 0)
