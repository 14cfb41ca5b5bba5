"""Predictors over land of the coarse cells, month by month: made once from the inputs, kept beside the coarse field."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Window, windows
from services.pipeline.prepared import made_beside
from services.pipeline.recipe import Each
from services.products.gwsa.coarse import Coarse
from services.products.gwsa.declaration import FACTOR, FINE
from services.products.gwsa.inputs import Inputs
from services.products.gwsa.land import land_of
from services.products.gwsa.reach import Reach

type Floats = NDArray[np.float32]

STRIP = 8
"""Coarse rows that are read at a time."""

_FILE = "predictors.zarr"
_LAND = "land_area"


@dataclass(frozen=True, kw_only=True)
class Table:
    """The predictors of the coarse cells.

    Raises:
        InputRefused: from ``predictors``, if it is not there.
    """

    path: Path
    names: tuple[str, ...]
    """Predictors in order, without the time."""

    monthly: tuple[bool, ...]
    months: tuple[int, ...]
    """Those that all predictors have, months since 1970-01."""

    @cached_property
    def land(self) -> NDArray[np.float64]:
        """Area of land in each cell, relative to a fine cell's at the equator, ``(Y, X)``."""
        area: NDArray[np.float64] = np.asarray(self._group[_LAND][:])
        return area

    def predictors(self, month: int) -> Floats:
        """Means over land in a month, ``(predictor, Y, X)``; NaN where one is missing on all land of the cell."""
        position = self.months.index(month)
        layers = [
            self._group[name][position] if monthly else self._statics[name]
            for name, monthly in zip(self.names, self.monthly, strict=True)
        ]
        return np.stack(layers).astype(np.float32) if layers else np.empty((0, *self.land.shape), dtype=np.float32)

    @cached_property
    def _statics(self) -> dict[str, Floats]:
        return {
            name: self._group[name][:] for name, monthly in zip(self.names, self.monthly, strict=True) if not monthly
        }

    @cached_property
    def _group(self) -> Any:
        try:
            return zarr.open_group(self.path, mode="r")
        except (OSError, ValueError) as error:
            raise InputRefused(f"{self.path} cannot be read: {error}") from None


def tabulate(inputs: Inputs, coarse: Coarse, each: Each, note: Callable[[str], None]) -> Table:
    """Average the predictors over the land of each coarse cell, unless it is done.

    Args:
        inputs: hashed.
        coarse: prepared.
        each: does work on every item, on workers or here.
        note: told how far it is.

    Raises:
        InputRefused: if a predictor does not hold.
    """
    months = tuple(inputs.periods.starts)
    table = Table(
        path=coarse.directory / _FILE,
        names=tuple(raster.name for raster in inputs.predictors),
        monthly=tuple(raster.monthly for raster in inputs.predictors),
        months=months,
    )
    if table.path.is_dir():
        return table
    shape = coarse.window.shape
    try:
        with made_beside(table.path) as part:
            _make_arrays(part, inputs, months, shape)
            work = partial(_average, inputs, part, coarse.window)
            items = [(-1, None), *enumerate(months)] if any(table.monthly) else [(-1, None)]
            for number, _ in enumerate(each(work, items), start=1):
                if number % 12 == 0 or number == len(items):
                    note(f"predictors over land: {number} of {len(items)} maps averaged")
    except OSError as error:
        raise InputRefused(f"{table.path} cannot be written: {error}") from None
    return table


def _make_arrays(part: Path, inputs: Inputs, months: tuple[int, ...], shape: tuple[int, int]) -> None:
    group = zarr.create_group(part, zarr_format=3)
    group.create_array(_LAND, shape=shape, chunks=shape, dtype="float64", dimension_names=("y", "x"))
    for raster in inputs.predictors:
        size, names = ((len(months), *shape), ("time", "y", "x")) if raster.monthly else (shape, ("y", "x"))
        group.create_array(
            raster.name,
            shape=size,
            chunks=(1, *shape) if raster.monthly else shape,
            dtype="float32",
            fill_value=np.nan,
            dimension_names=names,
            attributes={"units": raster.units},
        )


def _average(inputs: Inputs, part: Path, window: Window, item: tuple[int, int | None]) -> None:
    """Average the static predictors (month None, and the area of land), or the monthly ones of a month."""
    position, month = item
    rasters = [raster for raster in inputs.predictors if raster.monthly == (month is not None)]
    found = {raster.name: np.full(window.shape, np.nan, dtype=np.float32) for raster in rasters}
    land_area = np.zeros(window.shape)
    for strip in windows(window.shape, (STRIP, window.width)):
        fine = Window(
            row=(window.row + strip.row) * FACTOR,
            column=(window.column + strip.column) * FACTOR,
            height=strip.height * FACTOR,
            width=strip.width * FACTOR,
        )
        areas = land_of(inputs.land, Reach.of(fine)) * FINE.row_areas[fine.rows][:, None]
        shape = (strip.height, FACTOR, strip.width, FACTOR)
        land_area[strip.rows] = areas.reshape(shape).sum(axis=(1, 3)) / FINE.row_areas.max()
        for raster in rasters:
            values = raster.read(month, FINE, fine)
            weights = np.where(np.isnan(values), 0.0, areas)
            total = weights.reshape(shape).sum(axis=(1, 3))
            sums = (np.nan_to_num(values) * weights).reshape(shape).sum(axis=(1, 3))
            found[raster.name][strip.rows] = np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0)
    group: Any = zarr.open_group(part, mode="r+")
    for name, values in found.items():
        if month is None:
            group[name][:] = values
        else:
            group[name][position] = values
    if month is None:
        group[_LAND][:] = land_area
