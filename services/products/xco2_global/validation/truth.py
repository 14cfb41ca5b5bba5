"""A version of the sample Earth against what is true there: all of it synthetic.

Every cell and month of the version is compared; what is obvious, and the network without soundings, stand beside it on
MOST_PLACES cells in MOST_MONTHS months. All is weighted by area.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from services.core.errors import InputRefused
from services.core.grid import Window
from services.products.xco2_global.declaration import INFERRED, UNCERTAINTY, XCO2
from services.products.xco2_global.validation.guesses import Guesses
from services.products.xco2_global.validation.points import Points, Values, drawn, features, said_by
from services.products.xco2_global.validation.published import Published
from services.products.xco2_global.validation.scores import INTERVAL, LEVELS
from services.sample.carbon import Carbon
from services.sample.carbon_files import read_world
from services.validation import trend
from services.validation.metrics import ErrorSums
from services.validation.report import NotComputed, Note, Rows

HELD_CELLS = 2_000_000
"""Of a month that are compared at a time."""

MOST_PLACES = 3000
"""Cells at which all is compared (our choice: trees and network are asked there)."""

MOST_MONTHS = 36
"""Months of these, spread evenly (our choice)."""

LAND = 0.5
"""Share of land from which a cell counts as land (our choice)."""

HARMONICS = 2
"""Of the year, beside the growth."""

KINDS = ("all", "without_soundings", "with_soundings", "land", "sea", "land_without_soundings", "sea_without_soundings")


@dataclass(kw_only=True)
class Gathered:
    """Sums of a kind of cells."""

    errors: ErrorSums = field(default_factory=ErrorSums)
    weight: float = 0.0
    within: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(LEVELS)))
    """Weight of the cells within the intervals of LEVELS."""

    def add(self, values: Values, truth: Values, weights: Values, sigma: Values) -> None:
        """Compare cells, ``(cell,)`` each; those without a value are left out."""
        self.errors.add(values, truth, weights, sigma)
        known = np.isfinite(values) & np.isfinite(sigma)
        self.weight += float(weights[known].sum())
        for place, level in enumerate(LEVELS):
            reach = float(special.ndtri((1 + level) / 2)) * sigma[known]
            self.within[place] += float(weights[known] @ (np.abs(values - truth)[known] <= reach))

    def told(self) -> dict[str, Any]:
        """JSON data."""
        if not self.weight:
            return {"not_computed": "there is no such cell"}
        found = self.errors.errors()
        return {
            "cells": found.cells,
            "bias": found.bias,
            "rmse": found.rmse,
            "mae": found.mae,
            "r2": found.r2,
            "share_within": {
                f"{level:g}": float(part / self.weight) for level, part in zip(LEVELS, self.within, strict=True)
            },
        }


def against_truth(published: Published, ready: Guesses | None, seed: int, note: Note) -> tuple[dict[str, Any], Rows]:
    """Score the version, and what stands beside it, against the truth.

    Returns:
        JSON data, and a row for each month.

    Raises:
        NotComputed: if the inputs are real, or what is true there is not known.
    """
    if not published.synthetic:
        raise NotComputed("nobody knows the truth of the real Earth; it is scored on synthetic inputs only")
    try:
        world = read_world(published.source.directory)
    except InputRefused as reason:
        raise NotComputed(str(reason)) from None
    whole = {kind: Gathered() for kind in KINDS}
    rows: Rows = []
    means = np.full((len(published.dataset.time), 2), np.nan)
    for position, month in enumerate(published.dataset.time.starts):
        own = {kind: Gathered() for kind in KINDS}
        sums = np.zeros(3)
        for window in _strips(published):
            sums += _compare(published, world, (position, month), window, (whole, own))
        means[position] = sums[:2] / sums[2] if sums[2] else np.nan
        rows.append(_row(month, own, means[position]))
        note(f"truth: {position + 1} of {len(published.dataset.time)} months")
    beside = _beside(published, world, ready, seed, note)
    return {
        "synthetic": True,
        "weights": "areas of cells",
        "kinds": {kind: gathered.told() for kind, gathered in whole.items()},
        "growth": growth(means, np.array(published.dataset.time.starts)),
        "same_points": beside,
    }, rows


def growth(means: Values, months: NDArray[np.int64]) -> dict[str, Any]:
    """Ppm a year of two global means, and how far they lie apart.

    Args:
        means: published and true, ``(time, 2)``.
        months: since 1970-01, ``(time,)``.
    """
    found = trend.ols(np.column_stack([means, means[:, 0] - means[:, 1]]), months, harmonics=HARMONICS)
    if np.isnan(found.slope).any():
        return {"not_computed": f"{len(months)} months tell no growth beside {HARMONICS} harmonics of the year"}
    return {
        "published_ppm_a_year": float(found.slope[0]),
        "true_ppm_a_year": float(found.slope[1]),
        "difference_ppm_a_year": float(found.slope[2]),
        "standard_error_of_the_difference": float(found.standard_error[2]),
    }


def _strips(published: Published) -> Iterator[Window]:
    """Rows of the version that are compared together."""
    grid = published.dataset.product.grid
    height = max(HELD_CELLS // grid.width, 1)
    for row in range(0, grid.height, height):
        yield Window(row=row, column=0, height=min(height, grid.height - row), width=grid.width)


def _compare(
    published: Published,
    world: Carbon,
    month: tuple[int, int],
    window: Window,
    into: tuple[dict[str, Gathered], dict[str, Gathered]],
) -> NDArray[np.float64]:
    """Add a strip of a month (position and number); sums of published and true values, and of their weights."""
    position, number = month
    whole = published.whole(window)
    values, sigma, inferred = (published.values(one, position, window).ravel() for one in (XCO2, UNCERTAINTY, INFERRED))
    grid = published.source.settings.grid
    truth = world.xco2(number, grid, whole).astype(np.float64).ravel()
    weights = np.broadcast_to(grid.row_areas_km2[whole.rows][:, np.newaxis], window.shape).ravel()
    land = land_of(published, whole).ravel()
    none = inferred == 1
    chosen = {
        "all": np.ones(len(values), dtype=np.bool_),
        "without_soundings": none,
        "with_soundings": inferred == 0,
        "land": land >= LAND,
        "sea": land < LAND,
        "land_without_soundings": none & (land >= LAND),
        "sea_without_soundings": none & (land < LAND),
    }
    for kind, which in chosen.items():
        for gathered in into:
            gathered[kind].add(values[which], truth[which], weights[which], sigma[which])
    known = np.isfinite(values)
    weight = weights[known]
    return np.array([weight @ values[known], weight @ truth[known], weight.sum()])


def land_of(published: Published, window: Window) -> Values:
    """Share of land of cells of the settings' grid, ``(y, x)``; NaN everywhere where no file tells it."""
    if published.land is None:
        return np.full(window.shape, np.nan)
    return published.land.read(None, published.source.settings.grid, window).astype(np.float64)


def _beside(published: Published, world: Carbon, ready: Guesses | None, seed: int, note: Note) -> dict[str, Any]:
    """Version, network and guesses at the same cells and months."""
    source, dataset = published.source, published.dataset
    grid, own = source.settings.grid, dataset.product.grid
    place = drawn(own.height * own.width, MOST_PLACES, seed)
    row, column = place // own.width, place % own.width
    count = len(dataset.time)
    positions = np.unique(np.linspace(0, count - 1, min(count, MOST_MONTHS)).round().astype(int))
    months = np.array(dataset.time.starts)[positions]
    asked = Points(
        month=np.repeat(months, len(place)).astype(np.int64),
        row=np.tile(row + published.row, len(months)).astype(np.int64),
        column=np.tile(column + published.column, len(months)).astype(np.int64),
    )
    truth, values, inferred = (np.full((len(months), len(place)), np.nan) for _ in range(3))
    for number, position in enumerate(positions.tolist()):
        for window in _strips(published):
            here = (row >= window.row) & (row < window.row + window.height)
            at = (row[here] - window.row, column[here])
            values[number, here] = published.values(XCO2, position, window)[at]
            inferred[number, here] = published.values(INFERRED, position, window)[at]
            truth[number, here] = world.xco2(int(months[number]), grid, published.whole(window))[at]
    note(f"truth: guesses at {len(asked)} points")
    said = {"published": values.ravel()}
    if ready is not None:
        said |= ready.said(asked, features(source, asked))
    if published.network is not None:
        said["network"] = said_by(published.network, source, asked)[0]
    areas = grid.row_areas_km2[asked.row]
    none = inferred.ravel() == 1
    told: dict[str, Any] = {"places": len(place), "months": len(months)}
    for kind, which in (("all", np.ones(len(asked), dtype=np.bool_)), ("without_soundings", none)):
        told[kind] = _methods({name: one[which] for name, one in said.items()}, truth.ravel()[which], areas[which])
    return told


def _methods(said: dict[str, Values], truth: Values, areas: Values) -> dict[str, Any]:
    """Weighted scores on the points that all answer; how much less the RMSE is than that of the best guess."""
    both = np.isfinite(truth)
    for values in said.values():
        both &= np.isfinite(values)
    if not both.any():
        return {"not_computed": "no point has an answer of all"}
    told: dict[str, Any] = {}
    for name, values in said.items():
        sums = ErrorSums()
        sums.add(values[both], truth[both], areas[both])
        errors = sums.errors()
        told[name] = {"rmse": errors.rmse, "bias": errors.bias, "mae": errors.mae, "r2": errors.r2}
    others = {name: one["rmse"] for name, one in told.items() if name not in {"published", "network"}}
    found: dict[str, Any] = {"points": int(both.sum()), "methods": told}
    if others:
        best = min(others, key=lambda name: others[name])
        found |= {"best_guess": best, "rmse_below_best_guess": 1 - told["published"]["rmse"] / others[best]}
    return found


def _row(month: int, own: dict[str, Gathered], means: Values) -> dict[str, Any]:
    row: dict[str, Any] = {
        "month": str(np.datetime64(month, "M")),
        "global_mean": float(means[0]),
        "true_global_mean": float(means[1]),
    }
    for kind in ("all", "without_soundings", "with_soundings", "land", "sea"):
        told = own[kind].told()
        if "not_computed" not in told:
            row |= {
                f"rmse_{kind}": told["rmse"],
                f"bias_{kind}": told["bias"],
                f"within_95_{kind}": told["share_within"][f"{INTERVAL:g}"],
            }
    return row
