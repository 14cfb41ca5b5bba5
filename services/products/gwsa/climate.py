"""What a footprint is told from: ``footprint.toml`` names the climate's drivers and, maybe, where water is used.

Drivers are read on cells of 1/4 degree, which is finer than GRACE sees, and lie linearly between their centres.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Entry
from pydantic import model_validator

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.pipeline.recipe import Input
from services.products.gwsa.declaration import COARSE
from services.products.gwsa.reach import Reach
from services.products.gwsa.refine import extended
from services.sources import files
from services.sources.documents import Document
from services.sources.field import Field, open_field
from services.sources.named_files import Files, Name, Part, read_settings, relative
from services.validation.attribution import MEMORIES, departures, remembered

SETTINGS = "footprint.toml"
README = "services/products/gwsa/README.md"

type Floats = NDArray[np.float64]

BEFORE = 2 * max(MEMORIES)
"""Months before the first fitted one that a memory is filled with where a driver has them (our choice)."""


class DriverSettings(Files):
    """A monthly raster of the climate."""

    name: Name
    units: str = Entry(min_length=1)
    variable: str | None = None
    time: str | None = None
    """As ``cenote ingest --time``."""


class ProxySettings(Files):
    """A map of how much water is drawn, or of what goes with it: irrigated share, population, withdrawals."""

    name: Name
    units: str = Entry(min_length=1)
    variable: str | None = None
    least: float
    """From which a cell of 1/4 degree counts as one where water is drawn."""


class Settings(Part):
    """``footprint.toml``."""

    climate: list[DriverSettings] = Entry(min_length=1)
    proxy: ProxySettings | None = None
    least: float = Entry(default=0.5, ge=0)
    """cm a year that a cell must lose beyond what the climate explains to be flagged (our choice)."""

    @model_validator(mode="after")
    def _holds(self) -> Self:
        names = [one.name for one in self.climate]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"driver {twice[0]!r} stands twice")
        return self


@dataclass(frozen=True, kw_only=True)
class Climate:
    """Drivers and proxy: names, places and digests only, so that it travels to workers.

    Raises:
        InputRefused: from ``find``, naming the file and the fact.
    """

    directory: Path
    settings: Settings
    settings_file: Document
    drivers: tuple[Field, ...]
    proxy: Field | None

    @classmethod
    def find(cls, directory: Path) -> "Climate":
        """Open everything that ``footprint.toml`` names; every byte is read once, for the digests."""
        path = directory / SETTINGS
        settings, settings_file = read_settings(path, Settings, described=README)
        return cls(
            directory=directory.resolve(),
            settings=settings,
            settings_file=settings_file,
            drivers=tuple(
                open_field(
                    one.name,
                    one.paths(path, f"climate {one.name}"),
                    one.units,
                    variable=one.variable,
                    time=one.time,
                    monthly=True,
                )
                for one in settings.climate
            ),
            proxy=None
            if settings.proxy is None
            else open_field(
                settings.proxy.name,
                settings.proxy.paths(path, f"proxy {settings.proxy.name}"),
                settings.proxy.units,
                variable=settings.proxy.variable,
            ),
        )

    @property
    def _fields(self) -> tuple[Field, ...]:
        return (*self.drivers, *(() if self.proxy is None else (self.proxy,)))

    def inputs(self) -> tuple[Input, ...]:
        """Every file, by name."""
        read = [source for field in self._fields for source in field.recipe.table.sources]
        told = [(one.location, one.size, one.sha256) for one in read]
        told.append((self.settings_file.location, self.settings_file.size, self.settings_file.sha256))
        digests: dict[str, Input] = {}
        for location, size, sha256 in told:
            name = relative(self.directory, location)
            digests[name] = Input(name=name, size=size, sha256=sha256)
        return tuple(digests[name] for name in sorted(digests))

    def check_unchanged(self) -> None:
        """Look at every file once more.

        Raises:
            InputRefused: if one is not what it was.
        """
        for field in self._fields:
            for source in field.recipe.table.sources:
                files.check_unchanged(source)

    @cached_property
    def span(self) -> tuple[int, int]:
        """First and last month that all drivers have, months since 1970-01."""
        first = max(driver.months[0] for driver in self.drivers)
        last = min(driver.months[-1] for driver in self.drivers)
        if first > last:
            told = ", ".join(
                f"{one.name} {np.datetime64(one.months[0], 'M')}..{np.datetime64(one.months[-1], 'M')}"
                for one in self.drivers
            )
            raise InputRefused(f"{self.directory / SETTINGS}: the drivers have no month in common ({told})")
        return first, last

    def weather(self, fitted: NDArray[np.int64], cells: Reach) -> "Weather":
        """Departures of every driver from its own year, on a rectangle of coarse cells.

        A cell that lacks a driver in some month takes the mean of its neighbours that have it in all.

        Args:
            fitted: months that the year is the mean of, within ``span``, rising.
            cells: of COARSE; memory goes with it and with the months.

        Raises:
            InputRefused: if a file is broken or changed since it was looked at.
        """
        months = np.arange(max(self.span[0], int(fitted[0]) - BEFORE), int(fitted[-1]) + 1)
        found = np.full((len(self.drivers), len(months), *cells.shape), np.nan)
        parts = list(cells.parts(COARSE))
        for number, driver in enumerate(self.drivers):
            for position, month in enumerate(months.tolist()):
                for source, target in parts:
                    found[number, position][target] = driver.read(month, COARSE, source)
            left = departures(found[number], months, fitted)
            known = np.isfinite(left).all(axis=0)
            near = extended(known.astype(np.float64), known) > 0
            for position, field in enumerate(left):
                found[number, position] = np.where(near, extended(field, known), np.nan)
        return Weather(cells=cells, departures=found, at=np.searchsorted(months, fitted))


@dataclass(frozen=True, kw_only=True)
class Weather:
    """Departures of drivers on a rectangle of coarse cells, in months without a gap."""

    cells: Reach
    departures: Floats
    """``(driver, time, Y, X)``, NaN where missing."""

    at: NDArray[np.int64]
    """Where the fitted months lie in time."""

    def held(self, memory: int, *, grid: Grid, window: Window, cells: NDArray[np.bool_]) -> Floats:
        """What a store of such a memory holds of each, linear between centres of coarse cells.

        Args:
            memory: months; see ``services.validation.attribution``.
            grid: of longitudes and latitudes.
            window: of it, within the outermost centres of the rectangle.
            cells: those of the window that are asked for, ``(y * x,)``.

        Returns:
            ``(driver, time, cell)``, NaN where missing.
        """
        held = np.stack([remembered(one, memory)[self.at] for one in self.departures])
        rows, columns = _places(grid, window)
        upper, down = _between(rows - self.cells.row, self.cells.height)
        left, across = _between(columns - self.cells.column, self.cells.width)
        along = held[:, :, upper] * (1 - down[:, None]) + held[:, :, upper + 1] * down[:, None]
        between: Floats = along[..., left] * (1 - across) + along[..., left + 1] * across
        return between.reshape(*held.shape[:2], -1)[:, :, cells]


def around(grid: Grid, window: Window) -> Reach:
    """The coarse cells between whose centres those of a window's cells lie."""
    rows, columns = _places(grid, window)
    top, left = int(np.floor(rows[0])), int(np.floor(columns[0]))
    return Reach(
        row=top, column=left, height=int(np.floor(rows[-1])) + 2 - top, width=int(np.floor(columns[-1])) + 2 - left
    )


def _places(grid: Grid, window: Window) -> tuple[Floats, Floats]:
    """Rows and columns of COARSE at which the centres of cells lie, in fractions."""
    rows = (float(COARSE.north) - grid.latitudes[window.rows]) / float(COARSE.step_y) - 0.5
    columns = (grid.longitudes[window.columns] - float(COARSE.west)) / float(COARSE.step_x) - 0.5
    return rows, columns


def _between(places: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
    before = np.clip(np.floor(places).astype(np.int64), 0, count - 2)
    return before, places - before
