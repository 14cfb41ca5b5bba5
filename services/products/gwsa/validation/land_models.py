"""How far the water of other land surface models lies from that of the balance, and so does GWSA."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.products.gwsa.balance import CM, STORES
from services.products.gwsa.declaration import BASE_MONTHS, GWSA
from services.products.gwsa.reach import Reach
from services.products.gwsa.validation.centres import compared, weights_of
from services.products.gwsa.validation.published import Published
from services.validation.report import NotComputed

type Floats = NDArray[np.float64]


def land_models(published: Published) -> tuple[dict[str, Any], list[dict[str, Any]], Floats]:
    """Spread of soil moisture, snow and canopy water together, in the months that both models have.

    Returns:
        JSON data; a row for each model and month; root mean square difference of each coarse cell over all models,
        cm, ``(Y, X)``, NaN where missing.

    Raises:
        NotComputed: if there is one model only, or no cell has values of two.
    """
    source = published.source
    if not source.other_land:
        raise NotComputed("gwsa.toml names no other land surface model (gldas.other)")
    window = published.cells
    valid = np.isfinite(published.coarse.read(GWSA.name, published.coarse.months[0], Reach.of(window)))
    parts: dict[str, Any] = {}
    every: list[dict[str, Any]] = []
    squares, models = np.zeros(window.shape), np.zeros(window.shape)
    for entry, model in zip(source.settings.gldas.other, source.other_land, strict=True):
        months = np.array([month for month in source.months.starts if month in model.months], dtype=np.int64)
        mine = _stores(published, months)
        other = np.stack([np.sum(list(model.read(int(month), window).values()), axis=0) for month in months]) * CM
        base = np.isin(months, list(BASE_MONTHS))
        other = other - other[base].mean(axis=0)
        both = valid & np.isfinite(mine).all(axis=0) & np.isfinite(other).all(axis=0)
        if not both.any():
            parts[entry.name] = {"not_computed": "no published cell of 1/4 degree has values of both models"}
            continue
        mine = mine - mine[base].mean(axis=0)
        told, rows = compared(mine[:, both], other[:, both], months, weights_of(window)[both])
        parts[entry.name] = {"cells": int(both.sum()), "cells_without_both": int((valid & ~both).sum()), **told}
        every += [{"land_model": entry.name, **row} for row in rows]
        squares[both] += ((mine - other)[:, both] ** 2).mean(axis=0)
        models += both
    if not every:
        raise NotComputed("no published cell of 1/4 degree has values of another land surface model")
    apart = np.sqrt(np.divide(squares, models, out=np.full(window.shape, np.nan), where=models > 0))
    return {"models": parts, "largest_rms_difference_cm": float(np.nanmax(apart))}, every, apart


def _stores(published: Published, months: NDArray[np.int64]) -> Floats:
    """Soil moisture, snow and canopy water of the balance, cm, ``(time, Y, X)``, as kept with the coarse field."""
    reach = Reach.of(published.cells)
    found = np.zeros((len(months), *reach.shape))
    for name in STORES:
        found += published.coarse.read_months(name, months.tolist(), reach)
    return found
