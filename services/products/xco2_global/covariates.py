"""Covariates of months on the cells of a window, as the network gets them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.xco2_global.signature import MONTHS
from services.core.grid import Grid, Window
from services.products.xco2_global.declaration import global_grid
from services.products.xco2_global.inputs import PLACE_AND_SEASON, CovariateSettings, Inputs
from services.sources.field import Field
from services.sources.resample import resampled_layers

type Floats = NDArray[np.float32]

ABSENT = 0.5
"""Share of missing covariates in a sequence above which it is flagged (our choice)."""


def sequences(inputs: Inputs, month: int, window: Window, memory: Floats | None = None) -> Floats:
    """What the network takes for a month in the cells of a window.

    Args:
        inputs: opened.
        month: since 1970-01; eleven before it are read too.
        window: cells of ``inputs.settings.grid``.
        memory: as of ``series``.

    Returns:
        ``(cell, 12, feature)``, cells row by row, oldest month first; NaN is missing.
    """
    return series(inputs, range(month - MONTHS + 1, month + 1), window, memory)


def series(inputs: Inputs, months: Sequence[int], window: Window, memory: Floats | None = None) -> Floats:
    """Features of the cells of a window in months in a row.

    Args:
        inputs: opened.
        months: since 1970-01.
        window: cells of ``inputs.settings.grid``.
        memory: one-dimensional, large enough, where the result may lie, so that one window after the other does not
            ask the system for new memory; what lay there is gone.

    Returns:
        ``(cell, month, feature)``, cells row by row; NaN is missing.
    """
    grid, settings = inputs.settings.grid, inputs.settings
    # planes, each filled in one piece; who takes them in batches of cells turns them in the processor's cache
    shape = (len(settings.features), len(months), *window.shape)
    found = np.empty(shape, dtype=np.float32) if memory is None else memory[: math.prod(shape)].reshape(shape)
    first = 0
    for asked, field in zip(settings.covariates, inputs.covariates, strict=True):
        width = len(asked.features)
        found[first : first + width] = _layers(asked, field, months if field.monthly else None, grid, window)
        first += width
    found[first:] = place_and_season(months, grid, window)
    return found.reshape(*found.shape[:2], -1).transpose(2, 1, 0)


def covariate(asked: CovariateSettings, field: Field, month: int | None, grid: Grid, window: Window) -> Floats:
    """One covariate in a month, ``(feature, y, x)``, aggregated and transformed as ``xco2.toml`` says.

    Of the cells alone, not of what lies around.
    """
    return _transformed(asked, _aggregated(asked, field, None if month is None else (month,), grid, window))[:, 0]


def _layers(asked: CovariateSettings, field: Field, months: Sequence[int] | None, grid: Grid, window: Window) -> Floats:
    """A covariate in some months, or one that has none, ``(feature, month or 1, y, x)``."""
    own = _aggregated(asked, field, months, grid, window)
    if asked.around is None:
        return _transformed(asked, own)
    lattice = global_grid(asked.lattice_step)

    def means(part: Window) -> Floats:
        return _aggregated(asked, field, months, lattice, part).reshape(-1, *part.shape)

    around = resampled_layers(lattice, grid, window, own.shape[0] * own.shape[1], means).reshape(own.shape)
    return _transformed(asked, np.concatenate([own, around]))


def _aggregated(
    asked: CovariateSettings, field: Field, months: Sequence[int] | None, grid: Grid, window: Window
) -> Floats:
    count = 1 if months is None else len(months)
    if asked.aggregate == "classes":
        shape = (len(asked.classes), count, *window.shape)
        shares = field.read_layers(months, grid, window, _Shares(asked.classes), layers=len(asked.classes) * count)
        return shares.reshape(shape)
    return field.read_layers(months, grid, window, _Density(field.grid) if asked.aggregate == "sum" else None)[None]


def _transformed(asked: CovariateSettings, values: Floats) -> Floats:
    if asked.transform == "log1p":
        # amounts; what packing left below 0 is none
        np.log1p(np.maximum(values, 0.0, out=values), out=values)
    return values


def place_and_season(months: Sequence[int], grid: Grid, window: Window) -> Floats:
    """``PLACE_AND_SEASON`` of months and cells, ``(5, month, y, x)``."""
    latitude = np.radians(grid.latitudes[window.rows])[:, np.newaxis]
    longitude = np.radians(grid.longitudes[window.columns])
    angle = 2 * np.pi * ((np.array(months) % 12) + 0.5) / 12
    found = np.empty((len(PLACE_AND_SEASON), len(months), *window.shape), dtype=np.float32)
    found[0] = np.cos(latitude) * np.cos(longitude)
    found[1] = np.cos(latitude) * np.sin(longitude)
    found[2] = np.sin(latitude)
    found[3], found[4] = np.sin(angle)[:, np.newaxis, np.newaxis], np.cos(angle)[:, np.newaxis, np.newaxis]
    return found


class _Shares:
    """1 where a cell is of a class, 0 where it is of another; layers of one class behind those of the other."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = np.array(numbers).reshape(-1, 1, 1, 1)

    def __call__(self, values: NDArray[np.floating[Any]], _: Window) -> NDArray[np.floating[Any]]:
        shares = np.where(np.isnan(values), np.nan, (values == self._numbers).astype(np.float32))
        return shares.reshape(-1, *values.shape[1:])


class _Density:
    """A total of each cell per square kilometre of it, on the ellipsoid."""

    def __init__(self, grid: Grid) -> None:
        self._areas = replace(grid).row_areas_km2  # a twin's, as a cached property would travel with the grid

    def __call__(self, values: NDArray[np.floating[Any]], part: Window) -> NDArray[np.floating[Any]]:
        density: NDArray[np.floating[Any]] = values / self._areas[part.rows][:, np.newaxis]
        return density
