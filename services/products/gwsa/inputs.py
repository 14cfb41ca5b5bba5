"""What a directory of inputs holds: ``gwsa.toml`` says which file is what; all that it names is opened and checked."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from services.core import layout
from services.core.errors import InputRefused
from services.core.grid import Window
from services.core.time_axis import Step, TimeAxis
from services.pipeline.recipe import Input
from services.products.gwsa.declaration import BASE_MONTHS, BASELINE, COARSE
from services.products.gwsa.gaps import METHODS
from services.products.gwsa.months import assign
from services.sources import files
from services.sources.field import Field as Raster
from services.sources.field import open_field
from services.sources.files import Source
from services.sources.gldas import NOAH, Gldas, Variables, open_gldas
from services.sources.grace import Mascons, open_mascons
from services.sources.named_files import Files, Name, Part, read_settings, relative
from services.sources.polygons import Polygons, open_polygons

SETTINGS = "gwsa.toml"

MONTH = Step.parse("P1M")

README = "services/products/gwsa/README.md"


class GraceSettings(Files):
    """The mascon solution, how its gaps are filled, and how uncertain it is."""

    fill: str = next(iter(METHODS))
    uncertainty: float = Field(default=2.0, gt=0)
    """cm, where neither the file nor another centre's solution tells (our choice)."""

    other: Files | None = None
    """Another centre's solution: its difference is the uncertainty where the file tells none."""

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if self.fill not in METHODS:
            raise ValueError(f"there is no way of filling called {self.fill!r}; there are {', '.join(METHODS)}")
        return self


class LandModelSettings(Files):
    """Another land surface model, a file a month on any grid, and what it calls its water; Noah's names by default."""

    name: Name
    soil: list[str] = Field(default=list(NOAH.soil), min_length=1)
    snow: str = NOAH.snow
    canopy: str | None = NOAH.canopy
    """An empty text: it has none."""

    @property
    def variables(self) -> Variables:
        """As the reader takes them."""
        return Variables(soil=tuple(self.soil), snow=self.snow, canopy=self.canopy or None)


class GldasSettings(Files):
    """The land surface model, and how uncertain it is."""

    uncertainty: float = Field(default=0.2, gt=0)
    """Of each term, as a share of its standard deviation in time, where no other model tells (our choice)."""

    other: tuple[LandModelSettings, ...] = ()
    """Other models: how far their water lies from this one's is the uncertainty where they have values."""

    @model_validator(mode="after")
    def _holds(self) -> Self:
        names = [one.name for one in self.other]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"land surface model {twice[0]!r} stands twice")
        return self


class RegionSettings(Files):
    """Aquifer polygons."""

    name: str = "name"
    """The property that names a polygon."""


class PredictorSettings(Files):
    """One predictor."""

    name: Name
    units: str = Field(min_length=1)
    variable: str | None = None
    monthly: bool = False
    time: str | None = None
    """As ``cenote ingest --time``."""


class TreeSettings(Part):
    """How trees are grown; see ``models.gwsa.train.Settings``.

    Few and shallow ones did better than a peer's 500 of depth 10 on a real step in scale (gwsa_bangladesh.json).
    """

    trees: int = Field(default=100, ge=1)
    depth: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=0.1, gt=0, le=1)
    subsample: float = Field(default=0.85, gt=0, le=1)
    colsample: float = Field(default=0.8, gt=0, le=1)
    engine: Literal["onnx", "xgboost"] = "onnx"
    """What asks them when a map is rendered: the reference, or XGBoost itself, which is faster and must be installed
    wherever a task runs; its answers differ in the last digits."""


class CautionSettings(Files):
    """Where the balance misleads: polygons of glaciers, lakes or permafrost."""

    name: Name


class WellSettings(Files):
    """Wells for validation; see ``services.sources.wells``."""

    sites: str | None = None
    measures: Literal["head", "depth"] = "depth"
    units: str = "m"
    specific_yield: float | None = Field(default=None, gt=0, lt=1)


class Settings(Part):
    """``gwsa.toml``."""

    grace: GraceSettings
    gldas: GldasSettings
    land: Files
    regions: RegionSettings | None = None
    predictors: tuple[PredictorSettings, ...] = ()
    cautions: tuple[CautionSettings, ...] = ()
    trees: TreeSettings = TreeSettings()
    wells: WellSettings | None = None
    area: tuple[float, float, float, float] | None = None
    """West, south, east, north: nothing outside is computed. None: wherever GLDAS has values."""

    detail: bool = True
    """Whether models infer what varies within 1/4 degree; if not, the coarse field is only spread."""

    synthetic: bool = False

    def deciding(self) -> dict[str, Any]:
        """What the values follow from, as JSON data: not the wells, nor how trees are grown, which the models tell."""
        told = json.loads(layout.canonical(self.model_dump(mode="json", exclude={"wells"})))
        return {**told, "trees": {"engine": self.trees.engine}}

    @model_validator(mode="after")
    def _holds(self) -> Self:
        names = [one.name for one in self.predictors]
        twice = sorted({name for name in names if names.count(name) > 1} | (set(names) & set(TIME_FEATURES)))
        if twice:
            raise ValueError(f"predictor {twice[0]!r} stands twice, or has a name that is taken")
        if self.detail and not self.predictors:
            raise ValueError("no predictor is named, and detail = true (the default) needs one")
        if self.area is not None:
            west, south, east, north = self.area
            if not (-180 <= west < east <= 180 and -60 <= south < north <= 90):
                raise ValueError(f"area is west, south, east, north within -180, -60, 180, 90, not {list(self.area)}")
        return self


TIME_FEATURES = {"year": "1", "season_sin": "1", "season_cos": "1"}
"""What every model knows besides the predictors, and its unit: decimal year, the month on the circle of the year."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """All inputs: names, places and digests only, so that it travels to workers.

    Raises:
        InputRefused: from ``find`` and ``hashed``, naming the file and the fact.
    """

    directory: Path
    settings: Settings
    solution: Mascons
    other: Mascons | None
    gldas: Gldas
    other_land: tuple[Gldas, ...]
    """Other land surface models, in the order of the settings."""

    land: Raster
    predictors: tuple[Raster, ...]
    regions: Polygons | None
    cautions: tuple[Polygons, ...]
    solution_months: tuple[int, ...]
    """Month of each solution, months since 1970-01."""

    other_months: tuple[int, ...]
    digests: tuple[Input, ...] = ()
    """Every file that is read, by name, once ``hashed``."""

    @classmethod
    def find(cls, directory: Path) -> "Inputs":
        """Open everything that ``gwsa.toml`` names."""
        directory = directory.resolve()  # so that a file has one name however its place is spelled
        path = directory / SETTINGS
        settings, _ = read_settings(path, Settings, described=README)
        solution = open_mascons(settings.grace.path(path, "grace"))
        other = None if settings.grace.other is None else open_mascons(settings.grace.other.path(path, "grace.other"))
        found = cls(
            directory=directory,
            settings=settings,
            solution=solution,
            other=other,
            gldas=open_gldas(settings.gldas.paths(path, "gldas")),
            other_land=tuple(
                open_gldas(one.paths(path, f"gldas.other {one.name}"), one.variables, any_grid=True)
                for one in settings.gldas.other
            ),
            land=open_field("land", settings.land.paths(path, "land"), "1"),
            predictors=tuple(
                open_field(
                    one.name,
                    one.paths(path, f"predictor {one.name}"),
                    one.units,
                    variable=one.variable,
                    time=one.time,
                    monthly=one.monthly,
                )
                for one in settings.predictors
            ),
            regions=None
            if settings.regions is None
            else open_polygons(settings.regions.path(path, "regions"), label=settings.regions.name),
            cautions=tuple(
                open_polygons(name) for one in settings.cautions for name in one.paths(path, f"caution {one.name}")
            ),
            solution_months=_months(solution),
            other_months=() if other is None else _months(other),
        )
        _check_spans(found)
        return found

    def sources(self) -> Iterator[Source]:
        """Every raster that is read."""
        yield self.solution.source
        if self.other is not None:
            yield self.other.source
        for model in (self.gldas, *self.other_land):
            yield from model.sources
        for raster in (self.land, *self.predictors):
            yield from raster.recipe.table.sources

    def check_unchanged(self) -> None:
        """Look at every file once more.

        Raises:
            InputRefused: if one is not what it was.
        """
        for source in self.sources():
            files.check_unchanged(source)
        for polygons in self._polygons:
            polygons.check_unchanged()

    @property
    def _polygons(self) -> tuple[Polygons, ...]:
        return (*(() if self.regions is None else (self.regions,)), *self.cautions)

    def hashed(self, progress: Callable[[int, int], None] | None = None) -> "Inputs":
        """The same with the digest of every file, which is read once for it."""
        sources = list(self.sources())
        plain = [source for source in sources if not source.sha256]  # predictors were hashed when they were opened
        known = [source for source in sources if source.sha256]
        digests: dict[str, Input] = {}
        outlines = [document for polygons in self._polygons for document in polygons.documents]
        read = [(one.location, one.size, one.sha256) for one in (*known, *files.hashed(plain, progress))]
        read += [(one.location, one.size, one.sha256) for one in outlines]
        for location, size, sha256 in read:
            name = relative(self.directory, location)
            digests[name] = Input(name=name, size=size, sha256=sha256)
        return replace(self, digests=tuple(digests[name] for name in sorted(digests)))

    @property
    def window(self) -> Window:
        """Coarse cells that are computed."""
        if self.settings.area is None:
            return Window(row=0, column=0, height=COARSE.height, width=COARSE.width)
        west, south, east, north = self.settings.area
        top, left = int((90 - north) // 0.25), int((west + 180) // 0.25)
        bottom, right = -int((south - 90) // 0.25), -int((-180 - east) // 0.25)
        return Window(
            row=top, column=left, height=min(bottom, COARSE.height) - top, width=min(right, COARSE.width) - left
        )

    @property
    def months(self) -> TimeAxis:
        """Every month from the first to the last that both GRACE and GLDAS reach, without a gap."""
        first = max(self.solution_months[0], self.gldas.months[0])
        last = min(self.solution_months[-1], self.gldas.months[-1])
        return TimeAxis(step=MONTH, starts=tuple(range(first, last + 1)))

    @property
    def periods(self) -> TimeAxis:
        """The months that the predictors have too."""
        starts = [
            month
            for month in self.months.starts
            if all(month in raster.months for raster in self.predictors if raster.monthly)
        ]
        return TimeAxis(step=MONTH, starts=tuple(starts))

    @property
    def features(self) -> dict[str, str]:
        """Names of what a model takes, in order, and their units."""
        return {**{raster.name: raster.units for raster in self.predictors}, **TIME_FEATURES}


def _months(solution: Mascons) -> tuple[int, ...]:
    bounds = None if solution.bounds is None else np.array(solution.bounds)
    return tuple(int(month) for month in assign(np.array(solution.days), bounds, epoch=solution.epoch))


def _check_spans(inputs: Inputs) -> None:
    spans = [("GRACE", inputs.solution_months), ("GLDAS", inputs.gldas.months)]
    if inputs.other is not None:
        spans.append((f"grace.other ({inputs.other.center})", inputs.other_months))
    for one, model in zip(inputs.settings.gldas.other, inputs.other_land, strict=True):
        spans.append((f"gldas.other {one.name}", model.months))
    for what, months in spans:
        if months[0] > BASE_MONTHS[0] or months[-1] < BASE_MONTHS[-1]:
            raise InputRefused(f"{what} reaches {_span(months)}; the baseline {'/'.join(BASELINE)} must lie in it")
    if not inputs.periods.starts:
        reach = ", ".join(f"{raster.name} {_span(raster.months)}" for raster in inputs.predictors if raster.monthly)
        raise InputRefused(f"no month is in all inputs (GRACE and GLDAS {_span(inputs.months.starts)}, {reach})")


def _span(months: Sequence[int]) -> str:
    return f"{np.datetime64(months[0], 'M')}..{np.datetime64(months[-1], 'M')}"
