"""GLDAS, a file a month: water in soil, snow and canopy, as NASA GES DISC publishes it; Noah 2.1 unless told otherwise.

Other land surface models name their soil otherwise, and lie on other grids: ``Variables`` says which are theirs.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.sources import files
from services.sources.files import Source
from services.sources.raster import Description
from services.sources.resample import resampled
from services.sources.units import water
from services.sources.variables import COARSE, Described, Stored, described

SOIL_LAYERS = ("SoilMoi0_10cm_inst", "SoilMoi10_40cm_inst", "SoilMoi40_100cm_inst", "SoilMoi100_200cm_inst")
"""Soil moisture content of the four layers of Noah."""

SNOW, CANOPY = "SWE_inst", "CanopInt_inst"
VARIABLES = (*SOIL_LAYERS, SNOW, CANOPY)

SHORTEST = 27 * 86_400_000_000
"""Microseconds of time bounds below which a file is none of a month: GES DISC has the same variables every 3 hours."""

_MONTH = np.dtype("datetime64[M]")
_NAMED = re.compile(r"\.A([0-9]{4})([0-9]{2})\.")
"""As GES DISC names a month's file: GLDAS_NOAH025_M.A200204.021.nc4."""


@dataclass(frozen=True, kw_only=True)
class Variables:
    """What a land surface model calls its water."""

    soil: tuple[str, ...]
    """Layers of the soil, which are added: together they reach as deep as the model's soil does."""

    snow: str
    canopy: str | None
    """None: it has none, which is no water."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them: the layers, snow, canopy."""
        return (*self.soil, self.snow, *(() if self.canopy is None else (self.canopy,)))


NOAH = Variables(soil=SOIL_LAYERS, snow=SNOW, canopy=CANOPY)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Where the variables lie in a file: alike in most files of a set, so kept once."""

    stored: tuple[Stored, ...]
    """In the order of ``Variables.names``."""

    factors: tuple[float, ...]
    """kg m-2 per unit of the file, one each."""


@dataclass(frozen=True, kw_only=True)
class Gldas:
    """Months of a land surface model.

    Raises:
        InputRefused: if months fall, occur twice, or one between the first and the last has no file.
    """

    sources: tuple[Source, ...]
    """One file a month."""

    months: tuple[int, ...]
    """Month of each, months since 1970-01, rising without a gap."""

    shapes: tuple[Shape, ...]
    shape_of: tuple[int, ...]
    """Number of the shape of each file."""

    variables: Variables = NOAH
    grid: Grid = COARSE
    """Of the files."""

    def __post_init__(self) -> None:
        for before, after in pairwise(zip(self.months, self.sources, strict=True)):
            if after[0] == before[0]:
                raise InputRefused(f"{before[1].name} and {after[1].name} both hold {np.datetime64(after[0], 'M')}")
            if after[0] < before[0]:
                raise InputRefused(f"{after[1].name} is a month before {before[1].name}, which stands before it")
            if after[0] != before[0] + 1:
                lost = [str(np.datetime64(month, "M")) for month in range(before[0] + 1, after[0])]
                told = lost[0] if len(lost) == 1 else f"{lost[0]} to {lost[-1]}"
                raise InputRefused(f"GLDAS: no file holds {told}, between {before[1].name} and {after[1].name}")

    def read(self, month: int, window: Window) -> dict[str, NDArray[np.float64]]:
        """Water of a month.

        Args:
            month: months since 1970-01.
            window: cells of ``COARSE``.

        Returns:
            ``soil_moisture`` (the sum of the layers), ``snow`` and ``canopy``, each ``(y, x)`` in kg m-2; NaN
            where missing, in the sum where any layer is. Files on another grid are read as ``resampled`` makes them.

        Raises:
            InputRefused: if no file holds the month, or its file is broken or changed since it was looked at.
        """
        if not self.months[0] <= month <= self.months[-1]:
            first, last = (np.datetime64(self.months[at], "M") for at in (0, -1))
            raise InputRefused(f"GLDAS: no file holds {np.datetime64(month, 'M')}; there are {first} to {last}")
        at = month - self.months[0]
        shape = self.shapes[self.shape_of[at]]
        read = {
            name: self._on_coarse(stored, self.sources[at], window) * factor
            for name, stored, factor in zip(self.variables.names, shape.stored, shape.factors, strict=True)
        }
        soil = read[self.variables.soil[0]]
        for name in self.variables.soil[1:]:
            soil = soil + read[name]
        canopy = self.variables.canopy
        return {
            "soil_moisture": soil,
            "snow": read[self.variables.snow],
            "canopy": np.zeros_like(soil) if canopy is None else read[canopy],
        }

    def _on_coarse(self, stored: Stored, source: Source, window: Window) -> NDArray[np.float64]:
        def values(part: Window) -> NDArray[np.float64]:
            read: NDArray[np.float64] = stored.read(source, slice(0, 1), part)[0]
            return read

        if self.grid == COARSE:
            return values(window)
        return resampled(self.grid, COARSE, window, values).astype(np.float64)


def open_gldas(names: Sequence[str], variables: Variables = NOAH, *, any_grid: bool = False) -> Gldas:
    """Look at files of a land surface model, one a month, in any order.

    Args:
        names: paths, globs or URLs.
        variables: what the model calls its water.
        any_grid: whether the files may lie on another grid than Noah's, all on the same.

    Raises:
        InputRefused: if one is none of a month, lacks a variable, has another grid or unit, or a month is missing.
    """
    found: list[tuple[int, Described]] = []
    for source in files.found(names):
        look = described(source, variables.names)
        if not any_grid and look.first.grid != COARSE:
            grid = look.first.grid
            raise InputRefused(
                f"{source.name} has {grid.width} x {grid.height} cells of {grid.step_x} degrees and not GLDAS's "
                f"{COARSE.width} x {COARSE.height} of {COARSE.step_x} from 90 N to 60 S"
            )
        found.append((_month(source.name, look.first), look))
        if look.first.grid != found[0][1].first.grid:
            raise InputRefused(f"{source.name} has another grid than {found[0][1].source.name}")
    found.sort(key=lambda item: item[0])
    shapes = [
        Shape(
            stored=look.stored,
            factors=tuple(
                water(f"{look.source.name}: {name}", unit)
                for name, unit in zip(variables.names, look.units, strict=True)
            ),
        )
        for _, look in found
    ]
    distinct = tuple(dict.fromkeys(shapes))
    return Gldas(
        sources=tuple(look.source for _, look in found),
        months=tuple(month for month, _ in found),
        shapes=distinct,
        shape_of=tuple(distinct.index(shape) for shape in shapes),
        variables=variables,
        grid=found[0][1].first.grid,
    )


def _month(name: str, description: Description) -> int:
    """The month that a file is of by its time, which its name must not contradict."""
    times = description.times
    if times is None or times.size != 1:
        count = "no time" if times is None else f"{times.size} times"
        raise InputRefused(f"{name} says {count}; a monthly GLDAS file has one")
    start = int(times[0])
    if description.bounds is not None:
        start, end = (int(edge) for edge in description.bounds[0])
        if end - start < SHORTEST:
            hours = (end - start) / 3_600_000_000
            raise InputRefused(f"{name} holds {hours:g} hours, not a month; GLDAS_NOAH025_M are the monthly files")
    month = int(np.datetime64(start, "us").astype(_MONTH).astype(np.int64))
    told = _NAMED.search(name.rpartition("/")[2])
    if told and str(np.datetime64(month, "M")) != f"{told[1]}-{told[2]}":
        raise InputRefused(f"{name} is named {told[1]}-{told[2]}, and its time is in {np.datetime64(month, 'M')}")
    return month
