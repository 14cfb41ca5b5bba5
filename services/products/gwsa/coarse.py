"""The coarse field that everything is refined from: computed once from the inputs, kept beside them, read in windows.

It lies in ``prepared/DIGEST`` of the directory of inputs; the digest is that of every input and of the code, so that
another file or another rule never meets what was computed before.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from services.core import layout
from services.core.errors import InputRefused
from services.core.grid import Window, windows
from services.core.time_axis import TimeAxis
from services.pipeline.prepared import made_beside, prepared
from services.pipeline.recipe import Each
from services.products.gwsa.balance import LACKS, STORES, balance
from services.products.gwsa.declaration import BASELINE, COARSE
from services.products.gwsa.inputs import Inputs
from services.products.gwsa.land import cells_with_land
from services.products.gwsa.reach import Reach
from services.products.gwsa.regions import divided
from services.sources.polygons import covered

type Cells = NDArray[np.float64]

BAND_CELLS = 40 * 1440
"""Coarse cells that a task balances at a time: an array of all months is then 100 MB."""

NO_LAND = 255

_CHUNK = (32, 40, 90)
_FIELDS = ("gwsa", "gwsa_uncertainty", "twsa", *STORES)


@dataclass(frozen=True, kw_only=True)
class Coarse:
    """The prepared fields of some inputs: small, it travels to workers.

    Raises:
        InputRefused: from ``read`` and ``labels``, if they are not prepared or cannot be read.
    """

    directory: Path
    """``prepared/DIGEST``."""

    months: tuple[int, ...]
    """Of the fields, months since 1970-01."""

    window: Window
    """Coarse cells that were computed; nothing is known outside."""

    @classmethod
    def of(cls, inputs: Inputs) -> "Coarse":
        """Where the fields of these inputs, with this code, are or will be."""
        told = {
            "inputs": [[one.name, one.size, one.sha256] for one in inputs.digests],
            "settings": inputs.settings.deciding(),
        }
        return cls(
            directory=prepared(inputs.directory, told),
            months=tuple(inputs.months.starts),
            window=inputs.window,
        )

    @property
    def is_prepared(self) -> bool:
        """Whether they are there."""
        return self.directory.is_dir()

    @cached_property
    def regions(self) -> tuple[str, ...]:
        """Names of the regions."""
        return tuple(str(name) for name in json.loads(self._text("regions.json")))

    @cached_property
    def labels_sha256(self) -> str:
        """Digest of where the regions' cells lie."""
        window = self.window
        where = np.array([window.row, window.column, window.height, window.width], dtype="<i8")
        return layout.digest(where.tobytes() + self.read_labels().astype("<i2").tobytes())

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What was concluded: cells with values, cells left out."""
        found: dict[str, Any] = json.loads(self._text("facts.json"))
        return found

    def read(self, name: str, month: int, window: Reach) -> Cells:
        """One of the fields in a month, cm, ``(y, x)``, NaN where missing or beyond what was computed."""
        found = np.full(window.shape, np.nan)
        position = self._position(month)
        for source, target in window.parts(COARSE, self.window):
            found[target] = self._array(name)[position, source.rows, source.columns]
        return found

    def read_months(self, name: str, months: Sequence[int], window: Reach) -> NDArray[np.float32]:
        """A field in months in a row, as kept, ``(time, y, x)``, NaN where missing or beyond what was computed."""
        found = np.full((len(months), *window.shape), np.nan, dtype=np.float32)
        first = self._position(months[0])
        for source, target in window.parts(COARSE, self.window):
            part = self._array(name)[first : first + len(months), source.rows, source.columns]
            found[:, target[0], target[1]] = part
        return found

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Cells of ``window`` that have values."""
        some: NDArray[np.bool_] = np.isfinite(self._array("gwsa")[0])
        return some

    @property
    def goes_round(self) -> bool:
        """Whether the columns of ``window`` go round the earth."""
        return self.window.width == COARSE.width

    def read_filled(self, month: int) -> bool:
        """Whether a month was filled, which holds for all cells."""
        return bool(self._array("filled")[self._position(month)])

    def read_all(self, name: str) -> Cells:
        """A field with all months, ``(time, y, x)`` of ``window``, NaN where missing."""
        values: Cells = np.asarray(self._array(name)[:], dtype=np.float64)
        return values

    def read_lacks(self) -> NDArray[np.uint8]:
        """Why a cell of ``window`` has no value: a number of ``balance.LACKS``, NO_LAND where it holds no land."""
        lacks: NDArray[np.uint8] = np.asarray(self._array("lacks")[:])
        return lacks

    def read_labels(self) -> NDArray[np.int16]:
        """Region of every cell of ``window``."""
        labels: NDArray[np.int16] = np.asarray(self._array("region")[:])
        return labels

    def labels(self, window: Reach) -> NDArray[np.int16]:
        """Region of each cell; beyond what was computed that of the nearest cell."""
        rows, columns = window.places(COARSE)
        inside_rows = np.clip(rows - self.window.row, 0, self.window.height - 1)
        east = columns - self.window.column
        if self.window.width < COARSE.width:
            east = (east + COARSE.width // 2) % COARSE.width - COARSE.width // 2  # the shorter way round
        inside_columns = np.clip(east, 0, self.window.width - 1)
        labels: NDArray[np.int16] = self.read_labels()[np.ix_(inside_rows, inside_columns)]
        return labels

    def _position(self, month: int) -> int:
        return month - self.months[0]

    @cached_property
    def _group(self) -> Any:
        try:
            return zarr.open_group(self.directory / "coarse.zarr", mode="r")
        except (OSError, ValueError) as error:
            raise InputRefused(f"{self.directory} is not prepared or cannot be read: {error}") from None

    def _array(self, name: str) -> Any:
        return self._group[name]

    def _text(self, name: str) -> str:
        try:
            return (self.directory / name).read_text(encoding="utf-8")
        except OSError as error:
            raise InputRefused(f"{self.directory} is not prepared or cannot be read: {error}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def prepare(inputs: Inputs, each: Each, note: Callable[[str], None]) -> Coarse:
    """Compute the coarse fields of some inputs, unless they are there.

    Bands of rows are balanced wherever ``each`` works. Nothing is seen under its
    name before all is done; whoever prepares the same at the same time makes the same, and the first to finish stays.

    Args:
        inputs: hashed.
        each: does work on every item, on workers or here.
        note: told how far it is.

    Raises:
        InputRefused: if an input does not hold, or nothing has a value.
    """
    coarse = Coarse.of(inputs)
    if coarse.is_prepared:
        return coarse
    axis, window = inputs.months, inputs.window
    try:
        with made_beside(coarse.directory) as part:
            _make_arrays(part, axis, window)
            rows = max(_CHUNK[1], BAND_CELLS // window.width // _CHUNK[1] * _CHUNK[1])
            bands = list(windows(window.shape, (rows, window.width)))
            for number, _ in enumerate(each(partial(_band, inputs, part), bands), start=1):
                note(f"water balance: {number} of {len(bands)} bands of the 1/4 degree grid")
            facts = _divide(inputs, part)
            lacking = {reason: count for reason, count in facts["land_cells_without_value"].items() if count}
            if lacking:
                told = ", ".join(f"{count} {reason}" for reason, count in lacking.items())
                note(f"water balance: cells of 1/4 degree with land and no value: {told}")
            (part / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    except OSError as error:
        raise InputRefused(
            f"{coarse.directory.parent} cannot be written ({error.strerror}); the coarse fields are kept there"
        ) from None
    return coarse


def _make_arrays(part: Path, axis: TimeAxis, window: Window) -> None:
    part.mkdir(parents=True)
    group = zarr.create_group(part / "coarse.zarr", zarr_format=3)
    chunks = tuple(min(a, b) for a, b in zip(_CHUNK, (len(axis), *window.shape), strict=True))
    for name in _FIELDS:
        group.create_array(
            name,
            shape=(len(axis), *window.shape),
            chunks=chunks,
            dtype="float32",
            fill_value=np.nan,
            dimension_names=("time", "y", "x"),
            attributes={"units": "cm", "baseline": "/".join(BASELINE)},
        )
    rows = (chunks[1], window.width)
    for name, dtype in (("lacks", "uint8"), ("untold", "bool")):
        group.create_array(name, shape=window.shape, chunks=rows, dtype=dtype, dimension_names=("y", "x"))
    group.create_array("region", shape=window.shape, chunks=window.shape, dtype="int16", dimension_names=("y", "x"))
    filled = group.create_array(
        "filled", shape=(len(axis),), chunks=(len(axis),), dtype="bool", dimension_names=("time",)
    )
    filled[:] = False
    for name, values, units in (
        ("y", COARSE.latitudes[window.rows], "degrees_north"),
        ("x", COARSE.longitudes[window.columns], "degrees_east"),
    ):
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=values.shape,
            dtype="float64",
            dimension_names=(name,),
            attributes={"units": units},
        )
        array[:] = values
    time = group.create_array(
        "time",
        shape=(len(axis),),
        chunks=(len(axis),),
        dtype="int64",
        dimension_names=("time",),
        attributes={"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"},
    )
    time[:] = axis.bounds[:, 0].astype("datetime64[D]").astype(np.int64)


def _band(inputs: Inputs, part: Path, band: Window) -> None:
    """Balance the rows of a band, whole rows of chunks, and write them."""
    here = Window(row=inputs.window.row + band.row, column=inputs.window.column, height=band.height, width=band.width)
    found = balance(inputs, here)
    group: Any = zarr.open_group(part / "coarse.zarr", mode="r+")
    fields = {"gwsa": found.gwsa, "gwsa_uncertainty": found.uncertainty, "twsa": found.twsa, **found.stores}
    for name, values in fields.items():
        group[name][:, band.rows, :] = values.astype(np.float32)
    land = cells_with_land(inputs.land, here)
    group["lacks"][band.rows, :] = np.where(land, found.lacks, NO_LAND)
    group["untold"][band.rows, :] = land & found.untold


def _divide(inputs: Inputs, part: Path) -> dict[str, Any]:
    group: Any = zarr.open_group(part / "coarse.zarr", mode="r+")
    valid = np.isfinite(group["gwsa"][0])
    if not valid.any():
        raise InputRefused(f"{inputs.directory}: no cell has both GRACE and GLDAS values in the area that is asked for")
    window = inputs.window
    grid = COARSE.subgrid(window)
    inside, names = np.full(window.shape, -1, dtype=np.int16), tuple[str, ...]()
    if inputs.regions is not None:
        inside, names = covered(inputs.regions, COARSE, window), inputs.regions.names
    labels, regions = divided(inside, names, grid, valid)
    group["region"][:] = labels
    group["filled"][:] = ~np.isin(inputs.months.starts, inputs.solution_months)
    (part / "regions.json").write_text(json.dumps(regions), encoding="utf-8")
    lacks = group["lacks"][:]
    return {
        "cells": int(valid.sum()),
        "land_cells": int((lacks != NO_LAND).sum()),
        "land_cells_without_value": {
            reason: int((lacks == number).sum()) for number, reason in enumerate(LACKS) if reason
        },
        "land_cells_without_other_land_model": int(group["untold"][:].sum()),
        "months_filled": int((~np.isin(inputs.months.starts, inputs.solution_months)).sum()),
    }
