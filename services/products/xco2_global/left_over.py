"""What the network leaves over: what lasts of it at a place, and the rest month by month, told once and kept.

It lies in ``prepared/DIGEST`` beside the cells; the digest is that of all inputs, of code and model. The covariates of
the cells are read for all months together, so that each file is read once and not twelve times.
"""

import io
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.xco2_global.signature import MONTHS
from services.core.errors import InputRefused, ModelRefused
from services.core.grid import Grid, Window
from services.pipeline.prepared import made_beside, prepared
from services.pipeline.recipe import Each
from services.products.xco2_global.covariates import covariate, series
from services.products.xco2_global.declaration import global_grid
from services.products.xco2_global.inputs import Inputs
from services.products.xco2_global.lasting import Sums, lasting
from services.products.xco2_global.nearby import Covariance, Left, Values, averaged, told
from services.products.xco2_global.network import Network
from services.products.xco2_global.observed import Observed
from services.products.xco2_global.table import blocks_of, moments
from services.sources.cells import Cells

type Note = Callable[[str], None]

FINEST = Fraction(1)
"""Degrees of the lattice that the signal is told on; that of the cells where they are coarser (our choice)."""

FINEST_LASTING = Fraction(1, 2)
"""Degrees of the lattice that what lasts is told on, likewise. Our choice: a plume is 0.9 cells of it wide, and a swath
sees every third column of it again and again; of a finer one it would see less."""

LAND = "land_fraction"
"""The covariate that tells coasts, if the inputs have one of this name."""

_LASTING = "lasting.npy"
_KEYS, _SAID = "keys.npy", "said.npy"


@dataclass(frozen=True, kw_only=True)
class LeftOver:
    """Fields of some inputs and a model: a place only, it travels to workers.

    Raises:
        InputRefused: from ``at``, if a field is not prepared or cannot be read.
    """

    directory: Path
    """``prepared/DIGEST``."""

    months: tuple[int, ...]
    """That have cells with soundings, since 1970-01; of others nothing is known."""

    covariance: Covariance
    step: Fraction
    """Degrees of the lattice of the signal."""

    step_lasting: Fraction
    """Degrees of the lattice of what lasts."""

    @classmethod
    def of(cls, inputs: Inputs, observed: Observed, network: Network) -> "LeftOver":
        """Where the fields of these inputs, with this code and model, are or will be.

        Raises:
            ModelRefused: if the model was exported before it knew what it leaves over.
        """
        if network.fitted.nearby is None:
            raise ModelRefused(
                f"{network.directory / network.document.name} has no covariance of what the network leaves over: "
                "`cenote train xco2_global` estimates it; or say nearby = false in xco2.toml"
            )
        asked = {
            "inputs": [[one.name, one.size, one.sha256] for one in inputs.digests],
            "settings": inputs.settings.deciding(),
            "model": [network.digest, network.document.sha256],
            "cells": observed.directory.name,
        }
        periods = set(inputs.periods.starts)
        return cls(
            directory=prepared(inputs.directory, asked),
            months=tuple(month for month in observed.months if month in periods),
            covariance=network.fitted.nearby,
            step=max(FINEST, inputs.settings.grid.step_x),
            step_lasting=max(FINEST_LASTING, inputs.settings.grid.step_x),
        )

    @property
    def is_prepared(self) -> bool:
        """Whether they are there."""
        return self.directory.is_dir()

    @property
    def lattice(self) -> Grid:
        """Whose centres the fields are told at."""
        return global_grid(self.step)

    @property
    def lattice_lasting(self) -> Grid:
        """Likewise, of what lasts."""
        return global_grid(self.step_lasting)

    def lasting(self, latitude: Values, longitude: Values) -> Values:
        """What lasts at places, ppm, of the shape of both together; bilinear between the centres of its lattice."""
        if not self.months:
            return np.zeros(np.broadcast_shapes(latitude.shape, longitude.shape))
        path = self.directory / _LASTING
        try:
            held = np.load(io.BytesIO(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise self._unreadable(path, error) from None
        return between(held.astype(np.float64), self.lattice_lasting, latitude, longitude)

    def at(self, month: int, grid: Grid, window: Window) -> tuple[Values, Values]:
        """In the cells of a window: what is left over and the standard deviation that stays, in units of the spread.

        Between the centres of the lattice mean and variance are bilinear; beyond the last before a pole they are its.

        Returns:
            ``(y, x)`` each; 0 and the deviation of a place far from all others in a month without soundings.
        """
        covariance = self.covariance
        if month not in self.months:
            nothing = np.zeros(window.shape)
            return nothing, covariance.deviation(nothing + covariance.variance)
        path = self.directory / _file(month)
        try:
            # from bytes, as np.load leaves a file open that is no archive
            with np.load(io.BytesIO(path.read_bytes())) as held:
                fields = [held[name].astype(np.float64) for name in ("mean", "variance")]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise self._unreadable(path, error) from None
        latitude, longitude = grid.latitudes[window.rows][:, None], grid.longitudes[window.columns]
        mean, variance = (between(one, self.lattice, latitude, longitude) for one in fields)
        return mean, covariance.deviation(variance)

    def _unreadable(self, path: Path, error: Exception) -> InputRefused:
        return InputRefused(f"{path} cannot be read ({error}); delete {self.directory}, and it is made anew")


def prepare(inputs: Inputs, observed: Observed, network: Network, each: Each, note: Note) -> LeftOver:
    """Make the field of every month with soundings, unless they are there.

    Args:
        inputs: hashed.
        observed: prepared.
        network: whose predictions the cells are compared with.
        each: reads and predicts blocks of cells, then does months.
        note: told how far it is.
    """
    left = LeftOver.of(inputs, observed, network)
    if left.is_prepared:
        return left
    with made_beside(left.directory) as part:
        part.mkdir(parents=True)
        if left.months:
            _predict(inputs, observed, network, left.months, part, each, note)
            places = _write_lasting(inputs, observed, network, left, part)
            note(f"left over: lasts in {places} cells of {float(left.step_lasting):g} degrees")
            work = partial(_told, inputs, observed, network, left, part)
            for number, month in enumerate(each(work, left.months), 1):
                note(f"left over: {number} of {len(left.months)} months told, {np.datetime64(month, 'M')}")
            (part / _SAID).unlink()
            (part / _KEYS).unlink()
    return left


def _predict(
    inputs: Inputs, observed: Observed, network: Network, months: tuple[int, ...], part: Path, each: Each, note: Note
) -> None:
    """Write what the network says in every cell with soundings: departure and spread, ``(cell, 2)``, and which it is.

    Cells lie place by place and month by month in these; their keys are place times the number of months plus the
    month's position.
    """
    grid = inputs.settings.grid
    keys = np.concatenate(
        [_keys(observed.cells(month), position, len(months), grid) for position, month in enumerate(months)]
    )
    keys.sort()
    np.save(part / _KEYS, keys)
    places, first = np.unique(keys // len(months), return_index=True)
    position = (keys % len(months)).astype(np.uint16)
    cells = np.diff(first, append=len(keys))
    said = np.lib.format.open_memmap(part / _SAID, "w+", np.float32, (len(keys), 2))
    blocks = list(blocks_of(inputs, places, months[-1] - months[0] + MONTHS))

    def asked() -> Iterator[_Asked]:
        for block in blocks:
            rows = _ranges(first[block.numbers], cells[block.numbers])
            which = np.repeat(block.places, cells[block.numbers])
            yield _Asked(window=block.window, rows=rows, places=which, position=position[rows])

    work = partial(_said, inputs, network, months)
    for count, (rows, found) in enumerate(each(work, asked()), 1):
        said[rows] = found
        note(f"left over: {count} of {len(blocks)} blocks of cells predicted")
    said.flush()


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Cells of a window that are predicted together; arrays are ``(cell,)``."""

    window: Window
    rows: NDArray[np.int64]
    """Of what is written."""

    places: NDArray[np.int64]
    """In the window, row by row."""

    position: NDArray[np.uint16]
    """Of its month among all."""


def _keys(cells: Cells, position: int, months: int, grid: Grid) -> NDArray[np.int64]:
    place = cells.row.astype(np.int64) * grid.width + cells.column
    return place * months + position


def _ranges(first: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """``first[0], first[0] + 1, ...``, each so many numbers, one range behind the other."""
    return np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())


def _said(
    inputs: Inputs, network: Network, months: tuple[int, ...], asked: _Asked
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    before = months[0] - MONTHS + 1
    places, place = np.unique(asked.places, return_inverse=True)
    values = series(inputs, range(before, months[-1] + 1), asked.window)[places]
    found = np.empty((len(asked.rows), 2), dtype=np.float32)
    for position in np.unique(asked.position):
        mine = np.flatnonzero(asked.position == position)
        last = months[position] - before + 1
        found[mine] = np.stack(network.ask(values[place[mine], last - MONTHS : last]), axis=1)
    return asked.rows, found


@dataclass(frozen=True, kw_only=True)
class _Residuals:
    """What is left over in the cells of a month; all arrays are ``(cell,)``."""

    latitude: Values
    longitude: Values
    time: Values
    value: Values
    """ppm; NaN where the network says nothing."""

    spread: Values
    """Of the network, ppm."""

    error: Values
    """Stated one of the cell, ppm."""


def _residuals(
    inputs: Inputs, observed: Observed, network: Network, left: LeftOver, part: Path, month: int
) -> _Residuals:
    grid, cells = inputs.settings.grid, observed.cells(month)
    keys = _keys(cells, left.months.index(month), len(left.months), grid)
    row = np.searchsorted(np.load(part / _KEYS, mmap_mode="r"), keys)
    said: NDArray[Any] = np.load(part / _SAID, mmap_mode="r")[row].astype(np.float64)
    when = moments(np.full(len(cells), month, dtype=np.int64), cells.time)
    background = network.background(inputs).at(when, cells.row, cells.column, grid)
    return _Residuals(
        latitude=grid.latitudes[cells.row],
        longitude=grid.longitudes[cells.column],
        time=cells.time,
        value=cells.xco2 - background - said[:, 0],
        spread=said[:, 1],
        error=cells.error,
    )


def _write_lasting(inputs: Inputs, observed: Observed, network: Network, left: LeftOver, part: Path) -> int:
    """Write what lasts, and say in how many cells of its lattice something does."""
    lattice = left.lattice_lasting
    sums = Sums.nothing(lattice)
    for month in left.months:
        over = _residuals(inputs, observed, network, left, part, month)
        sums.add(lattice, over.latitude, over.longitude, over.value, over.spread**2 + over.error**2)
    found = lasting(sums, lattice, _land(inputs, lattice))
    np.save(part / _LASTING, found)
    return int((found != 0).sum())


def _land(inputs: Inputs, lattice: Grid) -> Values | None:
    """The share of land of a lattice's cells, if it is a covariate in units of 1."""
    whole = Window(row=0, column=0, height=lattice.height, width=lattice.width)
    for settings, field in zip(inputs.settings.covariates, inputs.covariates, strict=True):
        plain = settings.aggregate == "mean" and settings.transform is None and settings.units == "1"
        if settings.name == LAND and plain and not field.monthly:
            found: Values = covariate(settings, field, None, lattice, whole)[0].astype(np.float64)
            return found
    return None


def _told(inputs: Inputs, observed: Observed, network: Network, left: LeftOver, part: Path, month: int) -> int:
    lattice, covariance = left.lattice, left.covariance
    over = _residuals(inputs, observed, network, left, part, month)
    lasts = replace(left, directory=part).lasting(over.latitude, over.longitude)
    all_of_it = Left(
        latitude=over.latitude,
        longitude=over.longitude,
        time=over.time,
        value=(over.value - lasts) / over.spread,
        noise=covariance.noise(over.error / over.spread),
    )
    known = all_of_it.take(np.isfinite(all_of_it.value))
    latitude, longitude = (one.ravel() for one in np.meshgrid(lattice.latitudes, lattice.longitudes, indexing="ij"))
    mean, variance = (
        one.reshape(lattice.height, lattice.width).astype(np.float32)
        for one in told(averaged(known), covariance, latitude, longitude)
    )
    temporary = part / f".{uuid.uuid4().hex}.npz"
    np.savez(temporary, mean=mean, variance=variance)
    temporary.replace(part / _file(month))  # whole, however often a task is done
    return month


def between(values: NDArray[Any], lattice: Grid, latitude: Values, longitude: Values) -> Values:
    """Bilinear between the centres of a global lattice; beyond the last before a pole it is that one's.

    Args:
        values: ``(y, x)`` of the lattice.
        lattice: global.
        latitude: degrees.
        longitude: degrees, of a shape that goes together with that of the latitudes.
    """
    y = (float(lattice.north) - latitude) / float(lattice.step_y) - 0.5
    x = (longitude - float(lattice.west)) / float(lattice.step_x) - 0.5
    y = np.clip(y, 0, lattice.height - 1)
    top = np.minimum(np.floor(y).astype(np.int64), lattice.height - 2)
    west = np.floor(x).astype(np.int64)
    down, east = y - top, x - west
    first, second = west % lattice.width, (west + 1) % lattice.width
    upper = (1 - east) * values[top, first] + east * values[top, second]
    lower = (1 - east) * values[top + 1, first] + east * values[top + 1, second]
    found: Values = (1 - down) * upper + down * lower
    return found


def _file(month: int) -> str:
    return f"{np.datetime64(month, 'M')}.npz"
