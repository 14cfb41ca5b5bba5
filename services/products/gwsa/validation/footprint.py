"""How much of the depletion the climate does not explain, by region, and whether it lies where water is drawn.

At 1/4 degree, of the coarse field that the version keeps the means of: what the models add within a cell follows from
predictors, among them maybe the very map of irrigation, and would prove itself.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from services.core.errors import InputRefused
from services.core.grid import Window
from services.products.gwsa.climate import SETTINGS, Climate, around
from services.products.gwsa.declaration import COARSE, FACTOR, FINE, GWSA
from services.products.gwsa.reach import Reach
from services.products.gwsa.table import Table
from services.products.gwsa.validation.published import Published, block_means
from services.products.gwsa.validation.truth import cut, part_of_truth
from services.sample.groundwater import Groundwater, Size, clock
from services.validation.attribution import LEAST_MONTHS, Attribution, attributed, memories
from services.validation.report import NotComputed
from services.validation.volume import KM3_PER_CM_KM2, LENGTH_KM, volume_change

type Floats = NDArray[np.float64]

ALL = "all"
"""Name of the row that holds every cell."""

_RATES = ("trend", "irrigation", "unseen trend")
"""Parts of the sample Earth's groundwater that are steady, and no weather."""

_LATE = 600
"""A month far from the middle of the baseline, so that a steady part is divided by many years."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Trends of the coarse cells of the version, cm a year, ``(Y, X)``, NaN where missing."""

    cells: Window
    climate: Floats
    residual: Floats
    error: Floats
    """Standard error of ``residual``."""

    flag: NDArray[np.bool_]
    """Where it is a loss, as ``footprint.toml`` and the test have it."""

    land: Floats
    """Share of land, 0..1."""

    @property
    def total(self) -> Floats:
        """Of GWSA itself."""
        return self.climate + self.residual


def footprint(published: Published, table: Table) -> tuple[dict[str, Any], list[dict[str, Any]], Parts]:
    """Part the trends of the coarse cells and add them up over regions.

    Args:
        published: the version.
        table: predictors and land of its coarse cells.

    Returns:
        JSON data; a row for each region, and one for all; the fields.

    Raises:
        NotComputed: if there is no footprint.toml, or too few months.
        InputRefused: if it does not hold.
    """
    directory = published.source.directory
    if not (directory / SETTINGS).is_file():
        raise NotComputed(f"{directory} holds no {SETTINGS}, which names the drivers of the climate's part")
    climate = Climate.find(directory)
    first, last = climate.span
    months = np.array([month for month in published.dataset.time.starts if first <= month <= last], dtype=np.int64)
    if len(months) < LEAST_MONTHS:
        raise NotComputed(f"{len(months)} published months have all drivers; a footprint needs {LEAST_MONTHS}")
    parts, found = _parts(published, table, climate, months)
    labels, names = published.coarse.labels(Reach.of(parts.cells)), published.coarse.regions
    told = np.isfinite(parts.residual)
    some = [(names[number], labels == number) for number in np.unique(labels[told]).tolist()]
    rows = [_row(parts, name, own) for name, own in (*some, (ALL, np.ones(parts.cells.shape, dtype=np.bool_)))]
    settings = climate.settings
    return (
        {
            "synthetic": published.source.settings.synthetic,
            "climate": [driver.name for driver in climate.drivers],
            "months": len(months),
            "cells": int(told.sum()),
            "cells_without_drivers": int((_valid(published, parts.cells) & ~told).sum()),
            "loss_from_cm_a_year": settings.least,
            "median_share_of_variance_explained": _median(found.explained),
            "cells_of_a_memory_in_months": _counts(found.memory),
            "length_of_errors_km": LENGTH_KM,
            **{key: value for key, value in rows[-1].items() if key not in {"region", "cells"}},
            "regions": {row["region"]: {k: v for k, v in row.items() if k != "region"} for row in rows[:-1]},
            "proxy": _proxy(parts, climate),
            "truth": _truth(published, parts),
        },
        rows,
        parts,
    )


def _parts(
    published: Published, table: Table, climate: Climate, months: NDArray[np.int64]
) -> tuple[Parts, Attribution]:
    cells, coarse = published.cells, published.coarse
    span = range(int(months[0]), int(months[-1]) + 1)
    values = coarse.read_months(GWSA.name, span, Reach.of(cells))[months - months[0]].reshape(len(months), -1)
    weather = climate.weather(months, around(COARSE, cells))
    driver = partial(weather.held, grid=COARSE, window=cells, cells=np.ones(values.shape[1], dtype=np.bool_))
    found = attributed(values, months, memories(len(months)), driver)
    land = np.zeros(cells.shape)
    known = coarse.window
    whole = FACTOR * FINE.row_areas.reshape(-1, FACTOR).sum(axis=1) / FINE.row_areas.max()
    for source, target in Reach.of(cells).parts(COARSE, known):
        share = table.land[source.rows, source.columns] / whole[known.rows][source.rows][:, None]
        land[target] = np.clip(share, 0.0, 1.0)
    shape = cells.shape
    return (
        Parts(
            cells=cells,
            climate=found.climate.reshape(shape),
            residual=found.residual.slope.reshape(shape),
            error=found.residual.standard_error.reshape(shape),
            flag=found.falls(climate.settings.least).reshape(shape),
            land=land,
        ),
        found,
    )


def _row(parts: Parts, name: str, own: NDArray[np.bool_]) -> dict[str, Any]:
    """Sums over a region: km3 a year, and how sure what is left is."""
    grid = COARSE.subgrid(parts.cells)
    area = np.where(own & np.isfinite(parts.residual), parts.land, 0.0) * grid.row_areas_km2[:, None]
    row: dict[str, Any] = {
        "region": name,
        "cells": int((own & np.isfinite(parts.residual)).sum()),
        "area_km2": float(area.sum()),
        "trend_km3_a_year": _volume(parts.total, area),
        "climate_km3_a_year": _volume(parts.climate, area),
        "residual_km3_a_year": _volume(parts.residual, area),
        "residual_standard_error_km3_a_year": None,
        "footprint_cells": int((own & parts.flag).sum()),
        "footprint_km2": float(area[parts.flag].sum()),
        "footprint_km3_a_year": _volume(np.where(parts.flag, parts.residual, 0.0), area),
    }
    try:
        change = volume_change(parts.residual, parts.error, grid, share=np.where(own, parts.land, 0.0))
    except InputRefused:
        return row  # no cell of it has an error: the sum has none either
    row["residual_standard_error_km3_a_year"] = change.standard_error
    return row


def _volume(slopes: Floats, area: Floats) -> float:
    return float((np.nan_to_num(slopes) * area).sum() * KM3_PER_CM_KM2)


def _proxy(parts: Parts, climate: Climate) -> dict[str, Any]:
    """How what is left goes with a map of where water is drawn.

    No p value: cells of 1/4 degree err together over LENGTH_KM, so that a region holds few independent ones.
    """
    settings, proxy = climate.settings.proxy, climate.proxy
    if settings is None or proxy is None:
        return {"not_computed": f"{SETTINGS} names no map of where water is drawn (proxy)"}
    drawn = np.full(parts.cells.shape, np.nan)
    for source, target in Reach.of(parts.cells).parts(COARSE):
        drawn[target] = proxy.read(None, COARSE, source)
    both = np.isfinite(drawn) & np.isfinite(parts.residual) & (parts.land > 0)
    if both.sum() < 3 or np.ptp(drawn[both]) == 0 or np.ptp(parts.residual[both]) == 0:
        return {"not_computed": f"{int(both.sum())} cells have {settings.name} and a trend, too few or all alike"}
    area = parts.land * COARSE.row_areas_km2[parts.cells.rows][:, None]
    used = both & (drawn >= settings.least)
    loss = np.where(both, np.maximum(-np.nan_to_num(parts.residual), 0.0), 0.0) * area
    sure = np.where(parts.flag, loss, 0.0)
    return {
        "name": settings.name,
        "used_from": settings.least,
        "cells": int(both.sum()),
        "squares_of_the_length_of_errors": float(area[both].sum() / LENGTH_KM**2),
        "rank_correlation_with_residual": _rank(drawn[both], parts.residual[both]),
        "rank_correlation_with_trend": _rank(drawn[both], parts.total[both]),
        "share_of_area_where_used": float(area[used].sum() / area[both].sum()),
        "share_of_residual_loss_where_used": float(loss[used].sum() / loss.sum()) if loss.any() else None,
        "share_of_footprint_loss_where_used": float(sure[used].sum() / sure.sum()) if sure.any() else None,
    }


def _truth(published: Published, parts: Parts) -> dict[str, Any]:
    """What is left against the steady part of the sample Earth's groundwater, which no weather makes."""
    if not published.source.settings.synthetic:
        return {"not_computed": "nobody knows it of the real Earth"}
    sizes: tuple[Size, ...] = ("small", "study")
    size = max(sizes, key=lambda one: sum(part.height * part.width for part in cut([parts.cells], one)))
    here = cut([parts.cells], size)
    if not here:
        return {"not_computed": "the sample Earth has no truth where the version lies"}
    tile = here[0]
    world, window = Groundwater(size), part_of_truth(tile, size)
    components = world.components(_LATE, window)
    sea = np.isnan(world.gwsa(_LATE, window))
    weights = np.broadcast_to(FINE.row_areas[tile.row * FACTOR :][: window.height, None], window.shape)
    steady, irrigated = (
        block_means(np.where(sea, np.nan, sum(components[name] for name in names) / clock(_LATE)[0]), weights)[0]
        for names in (_RATES, ("irrigation",))
    )
    inside = (
        slice(tile.row - parts.cells.row, tile.row - parts.cells.row + tile.height),
        slice(tile.column - parts.cells.column, tile.column - parts.cells.column + tile.width),
    )
    both = np.isfinite(steady) & np.isfinite(parts.residual[inside])
    if not both.any():
        return {"not_computed": "no cell has both a truth and a trend"}
    area = np.where(both, parts.land[inside] * COARSE.row_areas_km2[tile.rows][:, None], 0.0)
    residual, total, error = (one[inside][both] for one in (parts.residual, parts.total, parts.error))
    weight = area[both]
    return {
        "synthetic": True,
        "cells": int(both.sum()),
        "steady_km3_a_year": _volume(steady, area),
        "irrigation_km3_a_year": _volume(irrigated, area),
        "residual_km3_a_year": _volume(parts.residual[inside], area),
        "residual_rmse_cm_a_year": _rms(residual - steady[both], weight),
        "trend_rmse_cm_a_year": _rms(total - steady[both], weight),
        "within_two_standard_errors": float((np.abs(residual - steady[both]) <= 2 * error).mean()),
    }


def _valid(published: Published, cells: Window) -> NDArray[np.bool_]:
    return np.isfinite(published.coarse.read(GWSA.name, published.coarse.months[0], Reach.of(cells)))


def _rank(one: Floats, other: Floats) -> float:
    return float(stats.spearmanr(one, other).statistic)


def _rms(values: Floats, weight: Floats) -> float:
    return float(np.sqrt((values**2 * weight).sum() / weight.sum()))


def _counts(values: Floats) -> dict[str, int]:
    kinds, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    return {f"{kind:g}": count for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True)}


def _median(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None
