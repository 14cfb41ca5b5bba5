"""A field against wells: trends in cm a year on months that both have, and anomalies.

Field and well are compared in the months that both have a value in, so that neither is judged on months the other has
not seen; with a coarse reference field beside it the scores say what the finer field has gained.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.validation import trend
from services.validation.selection import ANNUAL_READINGS, REASONS, STRICT, Rules, Wells, left_out, tells_annual

type Floats = NDArray[np.floating[Any]]

type Method = Literal["ols", "theil_sen"]

UNITS_APART = 30.0
"""Wells and field may vary this many times as much as each other. Our choice: it tells m from cm, not mm from cm."""

LEAST_CELLS = 3
"""Cells with wells that a score needs."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """How well trends and anomalies of one field agree with those of wells; NaN where it cannot be told."""

    trend_r2: float
    """1 - sum of squared differences / sum of squared departures of the wells' trends from their mean
    (Nash-Sutcliffe); it is 0 for the wells' mean everywhere. Not the squared correlation."""

    trend_rmse: float
    """cm a year."""

    trend_bias: float
    """Field minus wells, cm a year."""

    trend_correlation: float
    """Pearson's, over cells."""

    trend_median: float
    """Of the field's trends, cm a year."""

    same_sign: float
    """Share of cells in which field and wells rise or fall together."""

    anomaly_correlation: float
    """Median over cells of Pearson's correlation of the series."""

    deseasonalised_correlation: float
    """The same with both series less their annual cycle, of wells that are read often enough to tell one."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What a field has over the reference, positive where it is better."""

    trend_rmse: float
    """1 - rmse / rmse of the reference."""

    trend_r2: float
    """Difference."""

    trend_correlation: float
    """Difference."""

    nearer: float
    """Share of cells whose trend is nearer to that of the wells than the reference's; 0.5 is none."""

    anomaly_correlation: float
    """Median over cells of the difference."""

    deseasonalised_correlation: float
    """The same without annual cycles."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """What was scored, a row for each cell of the field that has wells; arrays are ``(cell,)``.

    A cell with several wells has the median of theirs, of each well's trend and of the field's on that well's months:
    a median of the series would step where a well begins or ends (our choice).
    """

    cell: NDArray[np.int64]
    """As the caller numbers them."""

    wells: NDArray[np.int64]
    """Wells that were used."""

    longitudes: NDArray[np.float64]
    """Median of the wells'."""

    latitudes: NDArray[np.float64]
    """Median of the wells'."""

    well: NDArray[np.float64]
    """Trend of the wells, cm a year."""

    field: NDArray[np.float64]
    """Trend of the field."""

    reference: NDArray[np.float64] | None
    """Trend of the reference."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A field against wells."""

    excluded: dict[str, int]
    """Wells left out, by reason; all of REASONS, 0 where none."""

    reasons: tuple[str, ...]
    """Of each well, ``(site,)``; empty for one that was used."""

    with_annual: int
    """Wells used whose trend was fitted beside an annual cycle."""

    well_median: float
    """Median of the cells' well trends, cm a year."""

    cells: Cells
    """What was scored."""

    field: Match
    """Of the field."""

    reference: Match | None
    """Of the reference, if one was given."""

    gain: Gain | None
    """Of the field over the reference."""

    method: Method
    """How trends were fitted."""

    rules: Rules
    """What wells had to hold."""

    def to_json(self) -> dict[str, Any]:
        """As JSON data, None where a number cannot be told; without the single cells."""
        used = self.reasons.count("")
        return {
            "wells": len(self.reasons),
            "used": used,
            "excluded": self.excluded,
            "cells": len(self.cells.cell),
            "with_annual": self.with_annual,
            "well_median": _known(self.well_median),
            "method": self.method,
            "rules": _numbers(self.rules),
            "field": _numbers(self.field),
            "reference": None if self.reference is None else _numbers(self.reference),
            "gain": None if self.gain is None else _numbers(self.gain),
        }


def score(
    wells: Wells,
    field: Floats,
    cells: NDArray[np.integer[Any]],
    *,
    reference: Floats | None = None,
    rules: Rules = STRICT,
    method: Method = "ols",
) -> Scores:
    """Judge a field by wells.

    Trends are of ``services.validation.trend``, beside an annual cycle for wells that are read often enough to tell one
    (ANNUAL_READINGS, ANNUAL_MONTHS), a line alone for the others; field and reference are fitted as the well is, in the
    same months.

    Args:
        wells: what they measured.
        field: ``(time, site)`` cm, in the wells' months and at the wells; NaN where missing.
        cells: number of the field's cell that each well lies in, ``(site,)``; below 0 where it lies in none.
        reference: as field; what the field must beat, as the coarse field interpolated to the wells.
        rules: which wells are used.
        method: of the trends.

    Raises:
        InputRefused: if shapes do not fit, if wells and field vary so differently that units must be wrong, or if fewer
            than LEAST_CELLS cells have wells.
    """
    fields = [np.asarray(one, dtype=np.float64) for one in (field, reference) if one is not None]
    for one in fields:
        if one.shape != wells.storage.shape:
            raise InputRefused(f"a field {one.shape} is not (time, site) of wells {wells.storage.shape}")
    if cells.shape != wells.storage.shape[1:]:
        raise InputRefused(f"{cells.shape} cells for {wells.storage.shape[1]} wells")
    seen = np.logical_and.reduce([np.isfinite(one) for one in fields]) & (cells >= 0)
    reasons = tuple(left_out(wells, site, seen[:, site], rules) for site in range(len(wells.names)))
    counts = Counter(reasons)
    used = np.array([reason == "" for reason in reasons])
    both = seen & ~np.isnan(wells.storage)
    series = [np.where(both, one, np.nan)[:, used] for one in (wells.storage, *fields)]
    _check_units(series[0], series[1])
    which, member = np.unique(cells[used], return_inverse=True)
    if len(which) < LEAST_CELLS:
        why = ", ".join(f"{counts[reason]} {reason}" for reason in REASONS if counts[reason])
        raise InputRefused(f"{int(used.sum())} of {used.size} wells, in {len(which)} cells, can judge the field: {why}")
    annual = _annual(series[0], wells.months)
    by_cell = [_median(_slopes(one, wells.months, annual, method), member) for one in series]
    raw, deseasonalised = _correlations(series, wells.months, annual)
    of_raw, of_deseasonalised = ([_median(one, member) for one in group] for group in (raw, deseasonalised))
    matches = [
        _match(by_cell[0], by_cell[place], of_raw[place - 1], of_deseasonalised[place - 1])
        for place in range(1, len(series))
    ]
    gain = None
    if reference is not None:
        nearer = np.abs(by_cell[1] - by_cell[0]) < np.abs(by_cell[2] - by_cell[0])
        gain = Gain(
            trend_rmse=1 - matches[0].trend_rmse / matches[1].trend_rmse if matches[1].trend_rmse else np.nan,
            trend_r2=matches[0].trend_r2 - matches[1].trend_r2,
            trend_correlation=matches[0].trend_correlation - matches[1].trend_correlation,
            nearer=float(nearer.mean()),
            anomaly_correlation=_middle(of_raw[0] - of_raw[1]),
            deseasonalised_correlation=_middle(of_deseasonalised[0] - of_deseasonalised[1]),
        )
    return Scores(
        excluded={reason: counts[reason] for reason in REASONS},
        reasons=reasons,
        with_annual=int(annual.sum()),
        well_median=_middle(by_cell[0]),
        cells=Cells(
            cell=which.astype(np.int64),
            wells=np.bincount(member),
            longitudes=_median(wells.longitudes[used], member),
            latitudes=_median(wells.latitudes[used], member),
            well=by_cell[0],
            field=by_cell[1],
            reference=by_cell[2] if reference is not None else None,
        ),
        field=matches[0],
        reference=matches[1] if reference is not None else None,
        gain=gain,
        method=method,
        rules=rules,
    )


def _annual(storage: Floats, months: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which wells can tell an annual cycle, ``(site,)``."""
    able = np.array([tells_annual(months[~np.isnan(column)]) for column in storage.T], dtype=np.bool_)
    # six months in a row of one season may still not do
    fitted = ~np.isnan(trend.ols(storage, months, least=ANNUAL_READINGS).slope)
    return able & fitted


def _slopes(
    values: Floats, months: NDArray[np.int64], annual: NDArray[np.bool_], method: Method
) -> NDArray[np.float64]:
    """``(site,)`` per year."""
    slopes = np.empty(values.shape[1])
    for group, harmonics, least in ((annual, 1, ANNUAL_READINGS), (~annual, 0, 3)):
        some = values[:, group]
        if method == "ols":
            slopes[group] = trend.ols(some, months, harmonics=harmonics, least=least).slope
        else:
            slopes[group] = trend.theil_sen(some, months, harmonics=harmonics, least=least).slope
    return slopes


def _correlations(
    series: list[NDArray[np.float64]], months: NDArray[np.int64], annual: NDArray[np.bool_]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Of the well and each field, ``(site,)``: as they are, and less their annual cycles (NaN where not told)."""
    left = [
        np.where(annual, trend.deseasonalised(one, months, least=ANNUAL_READINGS), np.nan)
        if annual.any()
        else one * np.nan
        for one in series
    ]
    return (
        [_correlation(series[0], one) for one in series[1:]],
        [_correlation(left[0], one) for one in left[1:]],
    )


def _correlation(one: Floats, other: Floats) -> NDArray[np.float64]:
    """Pearson's, of each column over its rows without NaN; NaN where one of them does not vary."""
    known = ~np.isnan(one) & ~np.isnan(other)
    count = np.maximum(known.sum(axis=0), 1)
    parts = []
    for values in (one, other):
        present = np.where(known, values, 0.0)
        parts.append(np.where(known, present - present.sum(axis=0) / count, 0.0))
    spread = np.sqrt((parts[0] ** 2).sum(axis=0) * (parts[1] ** 2).sum(axis=0))
    product = (parts[0] * parts[1]).sum(axis=0)
    found: NDArray[np.float64] = np.divide(product, spread, out=np.full_like(product, np.nan), where=spread > 1e-12)
    return found


def _median(values: NDArray[np.float64], member: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of the wells of each cell, ``(cell,)``; those without a value do not count."""
    groups = [values[member == cell] for cell in range(int(member.max()) + 1)]
    return np.array([_middle(group) for group in groups])


def _middle(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")


def _check_units(storage: NDArray[np.float64], field: NDArray[np.float64]) -> None:
    """Both vary by about as much, or one of them is in another unit."""
    if storage.shape[1] == 0:
        return
    spread = [np.nanstd(one, axis=0) for one in (storage, field)]
    vary = (spread[0] > 0) & (spread[1] > 0)
    if not vary.any():
        return
    times = float(np.median(spread[0][vary] / spread[1][vary]))
    if not 1 / UNITS_APART <= times <= UNITS_APART:
        raise InputRefused(f"wells vary {times:.3g} times as much as the field: is the storage of both in cm of water?")


def _match(
    known: NDArray[np.float64], found: NDArray[np.float64], raw: NDArray[np.float64], left: NDArray[np.float64]
) -> Match:
    difference = found - known
    departures = float(((known - known.mean()) ** 2).sum())
    return Match(
        trend_r2=1 - float((difference**2).sum()) / departures if departures > 0 else float("nan"),
        trend_rmse=float(np.sqrt((difference**2).mean())),
        trend_bias=float(difference.mean()),
        trend_correlation=float(_correlation(known[:, None], found[:, None])[0]),
        trend_median=_middle(found),
        same_sign=float((np.sign(known) == np.sign(found)).mean()),
        anomaly_correlation=_middle(raw),
        deseasonalised_correlation=_middle(left),
    )


def _numbers(of: Rules | Match | Gain) -> dict[str, float | int | None]:
    return {name: _known(value) for name, value in vars(of).items()}


def _known(value: float) -> float | int | None:
    return None if np.isnan(value) else value
