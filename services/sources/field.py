"""A predictor: a raster of any format, resolution and extent, static or monthly, on the cells of another grid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused, SettingsError
from services.core.grid import Grid, Window
from services.core.time_axis import TimeAxis
from services.sources.ingest import inspect
from services.sources.options import IngestOptions
from services.sources.recipe import IngestRecipe
from services.sources.resample import resampled_layers
from services.sources.units import same

type Change = Callable[[NDArray[np.floating[Any]], Window], NDArray[np.floating[Any]]]
"""Decoded values ``(layer, y, x)`` of a window of the raster's own grid, and that window; gives layers of the same
cells, as many or more."""

ALWAYS = "1970-01-01/P1D"
"""The time that a static raster's one map is given, which nobody asks for."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A predictor as it was when it was looked at."""

    name: str
    units: str
    recipe: IngestRecipe
    monthly: bool

    @property
    def months(self) -> tuple[int, ...]:
        """Months since 1970-01, rising without a gap; empty where it is static."""
        return self.recipe.periods().starts if self.monthly else ()

    @property
    def grid(self) -> Grid:
        """The grid of its files."""
        return self.recipe.product.grid

    def read(self, month: int | None, grid: Grid, window: Window, change: Change | None = None) -> NDArray[np.float32]:
        """Values on the cells of another grid, as ``resampled`` makes them; whatever the window, the same.

        Args:
            month: months since 1970-01; None for a static field, which takes any.
            grid: any grid.
            window: cells of it; memory goes with it.
            change: what is made of the raster's own values before they are brought to the other grid.

        Returns:
            ``(y, x)``, NaN where missing or outside the raster.

        Raises:
            InputRefused: if the month is not there, or a file is broken or changed since it was looked at.
        """
        layers = self.read_layers(None if month is None else (month,), grid, window, change)
        return layers.reshape(window.shape)

    def read_layers(
        self,
        months: Sequence[int] | None,
        grid: Grid,
        window: Window,
        change: Change | None = None,
        *,
        layers: int | None = None,
    ) -> NDArray[np.float32]:
        """As ``read``, of months that are read together, which takes less than one after the other.

        Args:
            months: since 1970-01; None for a static field.
            grid: any grid.
            window: cells of it.
            change: as in ``read``.
            layers: how many ``change`` gives; None: as many as it gets.

        Returns:
            ``(layer, y, x)``, a layer a month where ``change`` makes nothing else of them.

        Raises:
            InputRefused: as ``read``.
        """
        axis = self._periods(months)
        quantity = self.recipe.product.quantities[0]

        def values(part: Window) -> NDArray[np.floating[Any]]:
            decoded: NDArray[np.floating[Any]] = quantity.decode(self.recipe.compute(axis, part)[quantity.name])
            return decoded if change is None else change(decoded, part)

        return resampled_layers(self.grid, grid, window, layers or len(axis), values)

    def _periods(self, months: Sequence[int] | None) -> TimeAxis:
        axis = self.recipe.periods()
        if not self.monthly:
            return axis
        if months is None:
            raise InputRefused(f"{self.name} is monthly: which month of it is meant?")
        first, last = axis.starts[0], axis.starts[-1]
        for month in months:
            if not first <= month <= last:
                raise InputRefused(
                    f"{self.name} has no map of {np.datetime64(month, 'M')}; it has {axis.ids[0]} to {axis.ids[-1]}"
                )
        return axis.take([month - first for month in months])


def open_field(
    name: str,
    files: Sequence[str],
    units: str,
    *,
    variable: str | None = None,
    time: str | None = None,
    monthly: bool = False,
) -> Field:
    """Look at the files of a predictor; every byte is read once, for the digests.

    Args:
        name: what the predictor is called.
        files: paths, globs or URLs.
        units: the unit that its values are to be in; nothing is converted.
        variable: which variable, where a file has several.
        time: as ``cenote ingest --time``, for monthly ones whose files do not say their times.
        monthly: whether there is a map a month; else there is one.

    Raises:
        InputRefused: if the files are in another unit, are not one map or one a month without a gap, or are broken.
        SettingsError: if ``time`` cannot be understood, or is given for a static one.
    """
    if not monthly and time is not None:
        raise SettingsError(f"{name} has time = {time!r} and is not monthly; leave time out, or say monthly = true")
    options = IngestOptions(variable=variable, units=units, time=time if monthly else ALWAYS)
    try:
        conclusion = inspect(files, options)
    except InputRefused as error:
        # who ingests says it on the command line
        raise InputRefused(str(error).replace("with --variable", f"with variable = '..' of {name}")) from None
    for source, stated in zip(conclusion.table.sources, conclusion.stated_units, strict=True):
        if stated is not None and not same(stated, units):
            raise InputRefused(f"{source.name}: {name} is in {stated!r}, and {units!r} is asked for")
    axis = conclusion.axis
    if not monthly and len(axis) > 1:
        raise InputRefused(f"{conclusion.table.sources[0].name}: {name} is static and there are {len(axis)} maps of it")
    if monthly:
        _check_months(name, conclusion.table.sources[0].name, axis)
    return Field(name=name, units=units, recipe=conclusion.recipe("predictor"), monthly=monthly)


def _check_months(name: str, file: str, axis: TimeAxis) -> None:
    if str(axis.step) != "P1M":
        raise InputRefused(f"{file}: {name} is monthly and its maps are periods of {axis.step}, not of a month")
    for before, after in pairwise(axis.starts):
        if after != before + 1:
            lost = [str(np.datetime64(month, "M")) for month in range(before + 1, after)]
            told = lost[0] if len(lost) == 1 else f"{lost[0]} to {lost[-1]}"
            raise InputRefused(f"{file}: {name} has no map of {told}, and has those before and behind")
