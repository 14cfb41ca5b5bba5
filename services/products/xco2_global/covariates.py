"""Covariates of months on the cells of a window, as the network gets them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.xco2_global.signature import MONTHS
from services.core.grid import Grid, Window
from services.products.xco2_global.inputs import PLACE_AND_SEASON, CovariateSettings, Inputs
from services.sources.field import Field

type Floats = NDArray[np.float32]

ABSENT = 0.5
"""Share of missing covariates in a sequence above which it is flagged (our choice)."""


def sequences(inputs: Inputs, month: int, window: Window) -> Floats:
    """What the network takes for a month in the cells of a window.

    Args:
        inputs: opened.
        month: since 1970-01; eleven before it are read too.
        window: cells of ``inputs.settings.grid``.

    Returns:
        ``(cell, 12, feature)``, cells row by row, oldest month first; NaN is missing.
    """
    return series(inputs, range(month - MONTHS + 1, month + 1), window)


def series(inputs: Inputs, months: Sequence[int], window: Window) -> Floats:
    """Features of the cells of a window in months in a row, ``(cell, month, feature)``; NaN is missing."""
    grid, settings = inputs.settings.grid, inputs.settings
    found = np.empty((*window.shape, len(months), len(settings.features)), dtype=np.float32)
    column = 0
    for asked, field in zip(settings.covariates, inputs.covariates, strict=True):
        width = len(asked.features)
        part = found[..., column : column + width]
        if field.monthly:
            for position, each in enumerate(months):
                part[..., position, :] = covariate(asked, field, each, grid, window)
        else:
            part[:] = covariate(asked, field, None, grid, window)[:, :, np.newaxis]
        column += width
    found[..., column:] = place_and_season(months, grid, window)
    return found.reshape(-1, len(months), len(settings.features))


def covariate(asked: CovariateSettings, field: Field, month: int | None, grid: Grid, window: Window) -> Floats:
    """One covariate in a month, ``(y, x, feature)``, aggregated and transformed as ``xco2.toml`` says."""
    if asked.aggregate == "classes":
        shares = [field.read(month, grid, window, _Share(number)) for number in asked.classes]
        return np.stack(shares, axis=-1)
    density = _Density(field.grid) if asked.aggregate == "sum" else None
    values = field.read(month, grid, window, density)
    if asked.transform == "log1p":
        # amounts; what packing left below 0 is none
        values = np.log1p(np.maximum(values, 0.0))
    return values[..., np.newaxis]


def place_and_season(months: Sequence[int], grid: Grid, window: Window) -> Floats:
    """``PLACE_AND_SEASON`` of cells and months, ``(y, x, month, 5)``."""
    latitude = np.radians(grid.latitudes[window.rows])[:, np.newaxis]
    longitude = np.radians(grid.longitudes[window.columns])
    angle = 2 * np.pi * ((np.array(months) % 12) + 0.5) / 12
    found = np.empty((*window.shape, len(months), len(PLACE_AND_SEASON)), dtype=np.float32)
    found[..., 0] = (np.cos(latitude) * np.cos(longitude))[..., np.newaxis]
    found[..., 1] = (np.cos(latitude) * np.sin(longitude))[..., np.newaxis]
    found[..., 2] = np.sin(latitude)[..., np.newaxis]
    found[..., 3], found[..., 4] = np.sin(angle), np.cos(angle)
    return found


class _Share:
    """1 where a cell is of a class, 0 where it is of another."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, values: NDArray[np.floating[Any]], _: Window) -> NDArray[np.floating[Any]]:
        return np.where(np.isnan(values), np.nan, (values == self._number).astype(np.float32))


class _Density:
    """A total of each cell per square kilometre of it, on the ellipsoid."""

    def __init__(self, grid: Grid) -> None:
        self._areas = replace(grid).row_areas_km2  # a twin's, as a cached property would travel with the grid

    def __call__(self, values: NDArray[np.floating[Any]], part: Window) -> NDArray[np.floating[Any]]:
        density: NDArray[np.floating[Any]] = values / self._areas[part.rows][:, np.newaxis]
        return density
