"""What a directory of inputs holds: ``xco2.toml`` says which file is what; all that it names is opened and checked."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from services.core import layout
from services.core.errors import InputRefused, SettingsError
from services.core.grid import Grid
from services.core.time_axis import Step, TimeAxis
from services.pipeline.recipe import Input
from services.products.xco2_global.declaration import GRID, global_grid
from services.sources import co2_scale, files
from services.sources.along_track import ErrorModel
from services.sources.carbontracker import Background as Columns
from services.sources.carbontracker import open_background
from services.sources.cells import LEAST_ERROR, MOST_ERROR
from services.sources.field import Field as Raster
from services.sources.field import open_field
from services.sources.files import Source
from services.sources.lite_layout import Conversion, Quality
from services.sources.named_files import Files, Name, Part, read_settings, relative
from services.sources.noaa_monthly import Monthly, open_noaa_monthly
from services.sources.oco_lite import Lite, open_lite
from services.sources.soundings import MODES, Scale

SETTINGS = "xco2.toml"
README = "services/products/xco2_global/README.md"

MONTH = Step.parse("P1M")

HISTORY = 11
"""Months of covariates before the one that is asked for."""

WIDEST_AROUND = 10
"""Degrees: of a wider neighbourhood a whole turn of a fine raster would be read for every strip of cells."""

AROUND = "_around"
"""What follows a covariate's name in that of the mean of what lies around."""

type Aggregate = Literal["mean", "sum", "classes"]


class ConversionSettings(Part):
    """How XCO2 on the other scale becomes XCO2 on the run's: factor * ppm + offset.

    There is no default: the step from scale to scale of samples in tanks is not a retrieval's (``co2_scale``).
    """

    have: co2_scale.Scale
    factor: float = 1.0
    offset: float = 0.0
    """ppm."""

    source: str
    """Where the numbers are from, for the record of the run."""


class SoundingSettings(Files):
    """Lite files, and how they become cells."""

    scale: Scale = "X2019"
    conversion: ConversionSettings | None = None
    """For files that lack ``scale``; without it they are refused."""

    quality: Quality = "good"
    modes: tuple[str, ...] = MODES
    subtract_offsets: bool = False
    """Whether modes and instruments are brought, over land and over sea, to the one with the most soundings there."""

    correlation_km: float = Field(default=ErrorModel().length_km, gt=0)
    """Along-track length of the error of a sounding; see ``services.sources.along_track``."""

    correlated: float = Field(default=ErrorModel().correlated, ge=0, le=1)
    floor: float = Field(default=ErrorModel().floor, ge=0)
    sigma: float | None = Field(default=None, ge=LEAST_ERROR, le=MOST_ERROR)
    """ppm, the error of every sounding; None: the uncertainty that each states."""

    without_uncertainty: Literal["refuse", "leave_out"] = "refuse"
    """What becomes of soundings that state none, or one that cannot be."""

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if self.sigma is not None and self.without_uncertainty != "refuse":
            raise ValueError("sigma gives every sounding an uncertainty: without_uncertainty says nothing beside it")
        return self

    @property
    def errors(self) -> ErrorModel:
        """The error model of a cell's mean."""
        return ErrorModel(length_km=self.correlation_km, correlated=self.correlated, floor=self.floor, sigma=self.sigma)


class StationSettings(Files):
    """TCCON's files, which validation alone reads."""

    convert: bool = False
    """Whether those of the other CO2 scale are converted, as GGG2014's for a run on X2019; else they are refused."""


class BackgroundSettings(Part):
    """What the network's departures are from."""

    kind: Literal["zonal", "mauna_loa", "carbontracker"] = "zonal"
    files: str | list[str] | None = None
    convert: bool = False
    """Whether files on the other CO2 scale are converted, as samples in tanks are; else they are refused."""

    stated: co2_scale.Scale | None = None
    """The scale of CarbonTracker's files; None: that of the release that they are named after."""

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if (self.files is None) != (self.kind == "zonal"):
            wanted = "needs no files" if self.kind == "zonal" else "needs files"
            raise ValueError(f"the background {self.kind!r} {wanted}")
        if self.kind == "zonal" and self.convert:
            raise ValueError("the background 'zonal' has no files to convert")
        if self.kind != "carbontracker" and self.stated is not None:
            raise ValueError("stated is for the background 'carbontracker' alone: NOAA's text states its scale")
        return self


class CovariateSettings(Files):
    """One covariate."""

    name: Name
    units: str = Field(min_length=1)
    variable: str | None = None
    monthly: bool = False
    time: str | None = None
    """As ``cenote ingest --time``."""

    aggregate: Aggregate = "mean"
    """``sum``: a total of each cell, which becomes a density per km2 so that sums over any ground stay what they are;
    ``classes``: numbers of ``classes``, each of which becomes a covariate: its share of the cell."""

    classes: tuple[int, ...] = ()
    transform: Literal["log1p"] | None = None
    around: float | None = Field(default=None, ge=0.001, le=WIDEST_AROUND, strict=True, allow_inf_nan=False)
    """Degrees: the network gets the mean of so wide a neighbourhood besides, as ``NAME_around``. Winds move the air, so
    that a column follows what lies around its cell, too (our choice)."""

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if self.around is not None and not _divides(self.around):
            raise ValueError(f"{self.name}: around = {self.around:g} does not divide 180 degrees")
        if (self.aggregate == "classes") != bool(self.classes):
            raise ValueError(f"{self.name}: classes = [..] goes with aggregate = 'classes', and with nothing else")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"{self.name}: a class stands twice")
        return self

    @property
    def features(self) -> dict[str, str]:
        """Names and units of what the network gets of it."""
        own = self._own
        return own if self.around is None else {**own, **{name + AROUND: units for name, units in own.items()}}

    @property
    def lattice_step(self) -> Fraction:
        """Degrees of the cells whose means are what lies around.

        Raises:
            ValueError: where nothing is asked for.
        """
        if self.around is None:
            raise ValueError(f"{self.name} has no around")
        return 180 / Fraction(round(180 / self.around))

    @property
    def _own(self) -> dict[str, str]:
        if self.aggregate == "classes":
            return {f"{self.name}_{number}": "1" for number in self.classes}
        units = f"{'' if self.units == '1' else self.units + ' '}km-2" if self.aggregate == "sum" else self.units
        return {self.name: f"ln(1+{units})" if self.transform else units}


class TrainingSettings(Part):
    """How the network learns; see ``models.xco2_global.train.Settings``."""

    hidden: int = Field(default=64, ge=1)
    epochs: int = Field(default=20, ge=1)
    """At most; the rate falls over them (our choice: of 60, the sample's cells were best said after 8)."""

    patience: int = Field(default=10, ge=1)
    batch: int = Field(default=512, ge=1)
    rate: float = Field(default=2e-3, gt=0)
    rows: int = Field(default=400_000, ge=1000)
    """Cells at most that it learns from, drawn evenly from all (our choice: memory and hours of one machine)."""


class HotspotSettings(Part):
    """What ``cenote analyse xco2_global hotspots`` looks for."""

    guides: tuple[Name, ...] | None = None
    """Covariates that explain sharp and lasting differences; None: those of ``hotspots.GUIDES`` that there are."""


class Settings(Part):
    """``xco2.toml``."""

    soundings: SoundingSettings
    stations: StationSettings | None = None
    background: BackgroundSettings = BackgroundSettings()
    land: Files | None = None
    covariates: Annotated[list[CovariateSettings], Field(min_length=1)]
    training: TrainingSettings = TrainingSettings()
    hotspots: HotspotSettings = HotspotSettings()
    step: str = "1/20"
    """Degrees of a cell, a fraction that divides 180."""

    nearby: bool = True
    """Whether the soundings of a month correct what the network says near them; if not, it speaks alone."""

    synthetic: bool = False

    def deciding(self) -> dict[str, Any]:
        """What the values follow from, as JSON data: not what validation and analyses read, nor how it learns."""
        told = self.model_dump(mode="json", exclude={"stations", "training", "hotspots", "land"})
        found: dict[str, Any] = json.loads(layout.canonical(told))
        return found

    @model_validator(mode="after")
    def _holds(self) -> Self:
        names = [name for one in self.covariates for name in one.features]
        twice = sorted({name for name in names if names.count(name) > 1} | (set(names) & set(PLACE_AND_SEASON)))
        if twice:
            raise ValueError(f"covariate {twice[0]!r} stands twice, or has a name that is taken")
        plain = [one.name for one in self.covariates if one.aggregate != "classes"]
        for guide in self.hotspots.guides or ():
            if guide not in plain:
                raise ValueError(
                    f"hotspots.guides: {guide!r} is no covariate with one value a cell; there are {', '.join(plain)}"
                )
        try:
            step = Fraction(self.step)
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"step = {self.step!r} is no fraction of a degree") from None
        if not (Fraction(1, 200) <= step <= 10 and (180 / step).denominator == 1):
            raise ValueError(f"step = {self.step!r} does not divide 180 degrees, or is not within 1/200..10")
        for one in self.covariates:
            if one.around is not None and one.lattice_step <= step:
                raise ValueError(f"{one.name}: around = {one.around:g} is no wider than a cell, of {self.step} degrees")
        return self

    @property
    def around(self) -> dict[str, float]:
        """Degrees of the neighbourhoods that are asked for, by covariate."""
        return {one.name: one.around for one in self.covariates if one.around is not None}

    @property
    def grid(self) -> Grid:
        """Of the cells."""
        step = Fraction(self.step)
        return GRID if step == GRID.step_x else global_grid(step)

    @property
    def features(self) -> dict[str, str]:
        """Names of what the network gets of each month, in order, and their units."""
        found = {name: unit for one in self.covariates for name, unit in one.features.items()}
        return {**found, **PLACE_AND_SEASON}


PLACE_AND_SEASON = {"sphere_x": "1", "sphere_y": "1", "sphere_z": "1", "season_sin": "1", "season_cos": "1"}
"""What the network knows besides covariates: the cell's centre on the unit sphere, the month on the circle of the year
(the former as in haohuresearch/XCO2_reconstruction)."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """All inputs: names, places and digests only, so that it travels to workers.

    Raises:
        InputRefused: from ``find`` and ``hashed``, naming the file and the fact.
    """

    directory: Path
    settings: Settings
    soundings: Lite
    covariates: tuple[Raster, ...]
    """In the order of the settings."""

    mauna_loa: Monthly | None
    columns: Columns | None
    digests: tuple[Input, ...] = ()
    """Every file that is read, by name, once ``hashed``."""

    @classmethod
    def find(cls, directory: Path) -> "Inputs":
        """Open everything that ``xco2.toml`` names."""
        directory = directory.resolve()  # so that a file has one name however its place is spelled
        path = directory / SETTINGS
        settings, _ = read_settings(path, Settings, described=README)
        asked = settings.soundings
        unknown = sorted(set(asked.modes) - set(MODES))
        if unknown:
            raise InputRefused(
                f"{path}: soundings.modes: there is no mode {unknown[0]!r}; there are {', '.join(MODES)}"
            )
        mauna_loa = columns = None
        of_background = settings.background
        if of_background.files is not None:
            names = Files(files=of_background.files).paths(path, "background")
            if of_background.kind == "carbontracker":
                columns = open_background(
                    names, scale=asked.scale, stated=of_background.stated, convert=of_background.convert
                )
            elif len(names) == 1:
                mauna_loa = open_noaa_monthly(names[0], scale=asked.scale, convert=of_background.convert)
            else:
                raise InputRefused(f"{path}: background must be one file, and {of_background.files!r} is {len(names)}")
        found = cls(
            directory=directory,
            settings=settings,
            soundings=open_lite(
                asked.paths(path, "soundings"),
                scale=asked.scale,
                quality=asked.quality,
                modes=asked.modes,
                conversion=_conversion(path, asked),
            ),
            covariates=tuple(
                open_field(
                    one.name,
                    one.paths(path, f"covariate {one.name}"),
                    one.units,
                    variable=one.variable,
                    time=one.time,
                    monthly=one.monthly,
                )
                for one in settings.covariates
            ),
            mauna_loa=mauna_loa,
            columns=columns,
        )
        for one, raster in zip(settings.covariates, found.covariates, strict=True):
            if one.around is not None and max(raster.grid.step_x, raster.grid.step_y) >= one.lattice_step:
                raise InputRefused(
                    f"{path}: {one.name}: around = {one.around:g} is no wider than the cells of its files, of "
                    f"{float(max(raster.grid.step_x, raster.grid.step_y)):g} degrees"
                )
        if not found.periods.starts:
            reach = ", ".join(f"{one.name} {_span(one.months)}" for one in found.covariates if one.monthly)
            raise InputRefused(
                f"{path}: no month has {HISTORY + 1} months of all covariates and of the background up to it "
                f"({reach or 'all are static'})"
            )
        return found

    @property
    def sources(self) -> tuple[Source, ...]:
        """Every file that is read again and again."""
        rasters = [source for one in self.covariates for source in one.recipe.table.sources]
        return (*self.soundings.sources, *rasters)

    def check_unchanged(self) -> None:
        """Look at every file once more.

        Raises:
            InputRefused: if one is not what it was.
        """
        for source in self.sources:
            files.check_unchanged(source)
        if self.mauna_loa is not None:
            self.mauna_loa.document.check_unchanged()
        if self.columns is not None:
            self.columns.check_unchanged()

    def hashed(self, progress: Callable[[int, int], None] | None = None) -> "Inputs":
        """The same with the digest of every file."""
        soundings = self.soundings.hashed(progress)
        read = [*soundings.inputs()]
        for one in self.covariates:  # hashed when they were opened
            read += [Input(name=s.location, size=s.size, sha256=s.sha256) for s in one.recipe.table.sources]
        if self.mauna_loa is not None:
            read.append(self.mauna_loa.document.input())
        if self.columns is not None:
            read += self.columns.inputs()
        named = {relative(self.directory, one.name): one for one in read}
        digests = tuple(replace(named[name], name=name) for name in sorted(named))
        return replace(self, soundings=soundings, digests=digests)

    @property
    def sounding_months(self) -> tuple[int, ...]:
        """Months since 1970-01 that there are Lite files of."""
        return self.soundings.months

    @property
    def periods(self) -> TimeAxis:
        """The months that twelve months of every covariate, and the background, reach up to.

        Without a monthly covariate: from the first month with Lite files to the last.
        """
        reach = [set(one.months) for one in self.covariates if one.monthly]
        if reach:
            known = set.intersection(*reach)
            months = [month for month in sorted(known) if all(month - back in known for back in range(HISTORY + 1))]
        else:
            months = list(range(self.sounding_months[0], self.sounding_months[-1] + 1))
        if self.columns is not None:
            of_columns = set(self.columns.months)
            months = [month for month in months if month in of_columns]
        if self.mauna_loa is not None:
            of_series = set(self.mauna_loa.months.tolist())
            months = [month for month in months if all(month - back in of_series for back in range(HISTORY + 1))]
        return TimeAxis(step=MONTH, starts=tuple(months))


def _divides(degrees: float) -> bool:
    """Whether 180 is so many times as wide, but for the digits that are left out of a fraction."""
    times = round(180 / degrees)
    return abs(180 / times - degrees) < 1e-6 * degrees


def _conversion(path: Path, asked: SoundingSettings) -> Conversion | None:
    if asked.conversion is None:
        return None
    try:
        return Conversion(wanted=asked.scale, **asked.conversion.model_dump())
    except SettingsError as error:
        raise InputRefused(f"{path}: soundings.conversion: {error}") from None


def _span(months: tuple[int, ...]) -> str:
    return f"{np.datetime64(months[0], 'M')}..{np.datetime64(months[-1], 'M')}"
