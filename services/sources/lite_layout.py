"""Where the columns of a Lite file are and what they mean: its scale of CO2, its units, its flag."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused, SettingsError
from services.sources import lite_times
from services.sources.lite_columns import Column, attribute
from services.sources.soundings import Scale, ppm

type Quality = Literal["good", "any"]

FLAG = "xco2_quality_flag"

LAST_X2007 = 11
"""Generations up to this one have ``xco2`` on X2007 where the variable does not say so (science/xco2.md 1-common)."""

SAMPLE = 2**17
"""Soundings that a unit is told by."""

_SAID = re.compile(r"\bX(2007|2019)\b")
_OF_SCALE: tuple[tuple[Scale, str], ...] = (("X2019", "xco2_x2019"), ("X2007", "xco2_x2007"))


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How values on one scale of CO2 become values on another, as the user declares it: factor * ppm + offset.

    Raises:
        SettingsError: if it names no source, or changes 400 ppm by more than scales differ.
    """

    have: Scale
    wanted: Scale
    factor: float = 1.0
    offset: float = 0.0
    """Ppm."""

    source: str
    """Where the numbers are from, for the record of the run."""

    def __post_init__(self) -> None:
        if not self.source.strip():
            raise SettingsError(f"a conversion from {self.have} to {self.wanted} needs the source of its numbers")
        if "unknown" in {self.have, self.wanted} or self.have == self.wanted:
            raise SettingsError(f"a conversion from {self.have} to {self.wanted} is none between two known scales")
        change = self.apply(np.array([400.0]))[0] - 400.0
        if not abs(change) <= 2.0:  # NaN, too
            raise SettingsError(
                f"a conversion from {self.have} to {self.wanted} would change 400 ppm by {change:g} ppm; scales of CO2 "
                "differ by a fifth of a ppm"
            )

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ppm on the wanted scale."""
        return self.factor * values + self.offset


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the columns of a file are, and what they mean; files of one generation share it."""

    xco2: Column
    factor: float
    """Ppm in one of the file's unit."""

    converts: bool
    """Whether its scale is not the run's, and the run's conversion brings it there."""

    uncertainty: Column | None
    uncertainty_factor: float
    latitude: Column
    longitude: Column
    time: Column
    """Seconds, calendar dates, or ids, by its path."""

    epoch: float
    """Seconds from 1970 to what seconds are counted from."""

    flag: Column | None
    """None where quality is not asked for."""

    operation_mode: Column | None
    surface: Column | None


def laid_out(
    name: str, file: h5py.File, kind: tuple[Scale, int], quality: Quality, conversion: Conversion | None
) -> tuple[Layout, int]:
    """Where columns are, and how many soundings there are.

    Args:
        name: the file, for messages.
        file: opened.
        kind: the scale that is wanted, and the file's generation.
        quality: whether its flag is needed.
        conversion: to the scale that is wanted, if it lacks it.

    Raises:
        InputRefused: if a column, the scale or a unit is missing or contradicts another.
    """
    flag = Column.found(file, [FLAG]) if quality == "good" else None
    if quality == "good" and flag is None:
        raise InputRefused(
            f"{name} has no {FLAG}, so its good soundings cannot be told from bad ones; quality = 'any' takes all"
        )
    xco2, converts = _on_scale(name, file, kind, conversion)
    latitude, longitude = (_needed(name, file, [what]) for what in ("latitude", "longitude"))
    time, epoch = lite_times.column(name, file)
    uncertainty = Column.found(file, ["xco2_uncertainty"])
    factor = ppm(f"{name}: {xco2.path}", xco2.units, _some(file, xco2))
    layout = Layout(
        xco2=xco2,
        factor=factor,
        converts=converts,
        uncertainty=uncertainty,
        uncertainty_factor=_uncertainty_factor(name, uncertainty, factor),
        latitude=latitude,
        longitude=longitude,
        time=time,
        epoch=epoch,
        flag=flag,
        operation_mode=Column.found(file, ["Sounding/operation_mode"]),
        surface=Column.found(file, ["Sounding/land_water_indicator", "Retrieval/surface_type"]),
    )
    return layout, _count(name, file, layout)


def _needed(name: str, file: h5py.File, names: Sequence[str]) -> Column:
    found = Column.found(file, names)
    if found is None:
        raise InputRefused(f"{name} has no {' or '.join(names)}; it holds {', '.join(sorted(file)) or 'nothing'}")
    return found


def _on_scale(
    name: str, file: h5py.File, kind: tuple[Scale, int], conversion: Conversion | None
) -> tuple[Column, bool]:
    """The column to read, and whether it is to be converted."""
    wanted, generation = kind
    there: dict[Scale, Column] = {}
    plain = Column.found(file, ["xco2"])
    for scale, path in (*_OF_SCALE, ("unknown", "xco2")):
        column = Column.found(file, [path])
        if column is None:
            continue
        said = _scale_said(file[column.path])
        if scale == "unknown":
            there.setdefault(said or ("X2007" if generation <= LAST_X2007 else "unknown"), column)
        elif said not in {None, scale}:
            raise InputRefused(f"{name}: {path} says that it is on {said}")
        else:
            there[scale] = column
    if not there:
        _needed(name, file, ["xco2"])
    if wanted in there:
        return there[wanted], False
    if conversion is not None and conversion.have in there:
        return there[conversion.have], True
    known = " and ".join(scale for scale in there if scale != "unknown")
    told = f"XCO2 on {known} only" if known else f"{plain.path if plain else 'XCO2'} without saying on which scale"
    raise InputRefused(
        f"{name} holds {told}, and {wanted} is wanted; scales are not mixed: choose the other one with scale = "
        "under [soundings], leave the file out, or declare a [soundings.conversion]"
    )


def _scale_said(stored: h5py.Dataset) -> Scale | None:
    """What a variable's own words say; the first scale named is its own, another one may be told of behind it."""
    for key in ("long_name", "comment"):
        match = _SAID.search((attribute(stored, key) or "").upper())
        if match:
            return "X2007" if match[1] == "2007" else "X2019"
    return None


def _some(file: h5py.File, column: Column) -> NDArray[np.float64]:
    """Values enough to tell a unit by: the first soundings that have one."""
    count = file[column.path].shape[0] if file[column.path].ndim else 0
    for start in range(0, count, SAMPLE):
        values = column.read(file, slice(start, min(start + SAMPLE, count)))
        if np.isfinite(values).any():
            return values
    return np.empty(0)


def _uncertainty_factor(name: str, column: Column | None, factor: float) -> float:
    if column is None or column.units is None:
        return factor  # that of the values beside it
    return ppm(f"{name}: {column.path}", column.units, np.empty(0))


def _count(name: str, file: h5py.File, layout: Layout) -> int:
    """Soundings, after checking that every column has as many."""
    shape = file[layout.xco2.path].shape
    if len(shape) != 1:
        raise InputRefused(f"{name}: {layout.xco2.path} has the shape {shape}; a value for each sounding is wanted")
    columns = (
        layout.latitude,
        layout.longitude,
        layout.time,
        layout.uncertainty,
        layout.flag,
        layout.operation_mode,
        layout.surface,
    )
    for column in columns:
        if column is None:
            continue
        its = file[column.path].shape
        wanted = (*shape, 7) if column.path == "date" else shape
        if its != wanted:
            raise InputRefused(f"{name}: {layout.xco2.path} has the shape {shape} and {column.path} {its}")
    return int(shape[0])
