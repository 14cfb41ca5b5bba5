"""How the product is computed: coarse balance, what each region's model says of the detail, closure, stored maps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.gwsa import DIRECTORY
from services.core.errors import InputRefused, ModelRefused
from services.core.grid import Window
from services.core.product import Product
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Each, Input
from services.products.gwsa.coarse import Coarse, prepare
from services.products.gwsa.cost import told
from services.products.gwsa.declaration import (
    CAUTION,
    EXTRAPOLATED,
    FACTOR,
    FILLED,
    FINE,
    GWSA,
    PRODUCT,
    UNCERTAINTY,
)
from services.products.gwsa.detail import Detail
from services.products.gwsa.given import about_months, check_given, part_of
from services.products.gwsa.inputs import SETTINGS, Inputs
from services.products.gwsa.land import land_of
from services.products.gwsa.levels import about_wells
from services.products.gwsa.reach import Reach
from services.products.gwsa.refine import DETAIL_HALO, HALO, Blocks, extended, interpolated, refined
from services.sources.polygons import covered


def open_recipe(inputs: Path, models: Path | None = None) -> "Gwsa":
    """Check the inputs and the models.

    Args:
        inputs: directory with gwsa.toml.
        models: what ``cenote export gwsa`` wrote; None: those shipped for the sample Earth, and for its inputs only.

    Raises:
        InputRefused: if an input does not hold; names file and fact.
        ModelRefused: if there are no models, or they do not hold, or were made for other predictors.
    """
    found = Inputs.find(inputs).hashed()
    if not found.settings.detail:
        return Gwsa(source=found, detail=None)
    if models is None and not found.settings.synthetic:
        raise ModelRefused(
            f"no models are shipped for {inputs}: `cenote train gwsa` and `cenote export gwsa` make them, and --models "
            f"names them; {SETTINGS} may say detail = false to do without"
        )
    return Gwsa(
        source=found,
        detail=Detail.open(
            models or DIRECTORY, found.features, found.settings.trees.engine, synthetic=found.settings.synthetic
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Gwsa:
    """The recipe."""

    source: Inputs
    detail: Detail | None
    """The models; None: the coarse field is only spread."""

    @cached_property
    def product(self) -> Product:
        """The declaration; synthetic where the inputs are."""
        if not self.source.settings.synthetic:
            return PRODUCT
        return replace(PRODUCT, title=f"{PRODUCT.title} (synthetic)", synthetic=True, license="CC0-1.0")

    def periods(self) -> TimeAxis:
        """The months that GRACE, GLDAS and the predictors reach."""
        return self.source.periods

    def inputs(self) -> tuple[Input, ...]:
        """Every file, by name."""
        return self.source.digests

    def models(self) -> Mapping[str, str]:
        """The regions' models."""
        return {} if self.detail is None else self.detail.digests

    def model_directories(self) -> Mapping[str, Path]:
        """Where they lie."""
        return {} if self.detail is None else self.detail.directories

    def facts(self) -> Mapping[str, Any]:
        """What decides the values besides inputs and models."""
        settings = self.source.settings
        months = TimeAxis(step=self.source.months.step, starts=self.source.months.starts).ids
        return {
            "synthetic": settings.synthetic,
            "grace": self.source.solution.center,
            "grace_months": [months[0], months[-1]],
            "solutions": len(self.source.solution_months),
            "fill": settings.grace.fill,
            "features": self.source.features,
            "settings": settings.deciding(),
            "detail": None if self.detail is None else self.detail.facts(),
        }

    def estimate(self, periods: TimeAxis, window: Window, shard: tuple[int, int]) -> list[str]:
        """What a render of some periods of a window will cost, as ``Recipe`` says it."""
        return told(self.detail, self.source.land, part_of(self.source, window), shard, len(periods))

    def reach(self, window: Window) -> Window:
        """The part of a window in which there may be values, as ``Recipe`` says it."""
        return part_of(self.source, window)

    def remarks(self, window: Window) -> list[str]:
        """What is given for a window, as ``Recipe`` says it.

        Raises:
            InputRefused: if it has no land, or a predictor has no value there.
        """
        check_given(self.source, part_of(self.source, window), self.source.periods.starts[0])
        return [about_months(self.source), *about_wells(self.source)]

    def prepare(self, each: Each, note: Callable[[str], None]) -> None:
        """Compute the coarse fields, unless they are there.

        Raises:
            ModelRefused: if the models were made for other regions.
        """
        coarse = prepare(self.source, each, note)
        if self.detail is not None:
            self.detail.check(coarse)

    def check_window(self, window: Window) -> None:
        """Refuse a part that has no value.

        Raises:
            InputRefused: if no land of it has a balance.
        """
        cells, _ = _whole_cells(window)
        valid = np.isfinite(self._coarse.read(GWSA.name, self._coarse.months[0], Reach.of(cells)))
        for row, column in np.argwhere(valid):
            here = Reach(row=cells.row + int(row), column=cells.column + int(column), height=1, width=1)
            if land_of(self.source.land, here.times(FACTOR)).any():
                return
        raise InputRefused(
            f"{self.source.directory}: none of the {valid.size} coarse cells of this part has both a balance and land: "
            "does it lie in the area of the inputs?"
        )

    def check_inputs(self) -> None:
        """Look at every file once more."""
        self.source.check_unchanged()

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        """Stored values ``(time, y, x)``; a month at a time is in memory.

        Raises:
            InputRefused: if a file is no longer what it was.
            ModelRefused: if a model is not the one that was planned with.
        """
        stored = {
            one.name: np.full((len(periods), *window.shape), one.fill, dtype=one.dtype) for one in PRODUCT.quantities
        }
        blocks, inside = _whole_cells(window)
        scene = _Scene.of(self.source, self._coarse, blocks)
        if scene is None:
            return stored
        for position, month in enumerate(periods.starts):
            for name, values in self._month(scene, month).items():
                stored[name][position] = values[inside]
        return stored

    def _month(self, scene: "_Scene", month: int) -> dict[str, NDArray[Any]]:
        coarse = scene.coarse.read(GWSA.name, month, scene.wide)
        variance = scene.coarse.read(UNCERTAINTY.name, month, scene.wide.grown(1 - HALO)) ** 2
        variance = interpolated(extended(variance, ~np.isnan(variance)), FACTOR)
        if self.detail is None:
            values = refined(scene.blocks, coarse)
            beyond = np.zeros(values.shape, dtype=np.bool_)
        else:
            said = self.detail.ask(scene.source, scene.coarse, scene.wide, scene.blocks, month)
            values = refined(scene.blocks, coarse, said.values)
            side = slice(DETAIL_HALO * FACTOR, -DETAIL_HALO * FACTOR)
            beyond, variance = said.extrapolated[side, side], variance + said.variance[side, side]
        filled = np.full(values.shape, scene.coarse.read_filled(month))
        layers: dict[str, NDArray[Any]] = {
            GWSA.name: values,
            UNCERTAINTY.name: np.sqrt(variance),
            FILLED.name: filled,
            EXTRAPOLATED.name: beyond,
            CAUTION.name: scene.caution,
        }
        gone = np.where(scene.blocks.inside(HALO).land, 0.0, np.nan)
        return {one.name: one.pack(layers[one.name] + gone) for one in PRODUCT.quantities}

    @cached_property
    def _coarse(self) -> Coarse:
        return Coarse.of(self.source)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """What holds for all months of a window of whole coarse cells."""

    source: Inputs
    coarse: Coarse
    wide: Reach
    """Coarse cells with HALO around them."""

    blocks: Blocks
    """Of ``wide``."""

    caution: NDArray[np.bool_]
    """Fine cells of the window."""

    @classmethod
    def of(cls, source: Inputs, coarse: Coarse, cells: Window) -> "_Scene | None":
        """None where the window has no value in any month."""
        wide = Reach.of(cells).grown(HALO)
        valid = np.isfinite(coarse.read(GWSA.name, coarse.months[0], wide))
        if not valid[HALO:-HALO, HALO:-HALO].any():
            return None
        fine = wide.times(FACTOR)
        land = land_of(source.land, fine) & np.repeat(np.repeat(valid, FACTOR, 0), FACTOR, 1)
        if not land.any():
            return None
        rows = np.clip(fine.places(FINE)[0], 0, FINE.height - 1)
        window = Window(
            row=cells.row * FACTOR,
            column=cells.column * FACTOR,
            height=cells.height * FACTOR,
            width=cells.width * FACTOR,
        )
        caution = np.zeros(window.shape, dtype=np.bool_)
        for polygons in source.cautions:
            caution |= covered(polygons, FINE, window) >= 0
        return cls(
            source=source,
            coarse=coarse,
            wide=wide,
            blocks=Blocks.of(FACTOR, land, FINE.row_areas[rows]),
            caution=caution,
        )


def _whole_cells(window: Window) -> tuple[Window, tuple[slice, slice]]:
    """The coarse cells that a window of fine ones touches, and where the window lies in them."""
    top, left = window.row // FACTOR, window.column // FACTOR
    bottom, right = -(-(window.row + window.height) // FACTOR), -(-(window.column + window.width) // FACTOR)
    rows, columns = window.row - top * FACTOR, window.column - left * FACTOR
    return (
        Window(row=top, column=left, height=bottom - top, width=right - left),
        (slice(rows, rows + window.height), slice(columns, columns + window.width)),
    )
