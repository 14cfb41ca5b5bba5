"""Emission hotspots: where XCO2 stands above its surroundings, month after month, and nothing but emissions tells why.

See ``services.validation.excess`` and ``services.validation.components`` for what is computed. It needs the whole map,
so it works on a level of the collection whose cells are about ``CELL`` degrees wide, a month at a time; each process
that computes a part does so once. A zonal median would drop out with the local background and is not taken off first.
"""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.dataset import Dataset
from services.core.errors import Refused
from services.core.grid import Grid, Window
from services.core.product import SMALL_GRID, Product
from services.core.quantity import Quantity
from services.core.store import Store
from services.core.style import Style
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Input
from services.pipeline.trend import TrendRecipe
from services.products.xco2_global.analysis import PPM, Analysis
from services.products.xco2_global.covariates import covariate
from services.products.xco2_global.inputs import SETTINGS, CovariateSettings, Inputs
from services.sources import files
from services.sources.field import Field
from services.validation.components import Hotspots, Limits, find
from services.validation.excess import BLUR, REACH, Around, Lasting, Months

CELL = 0.25
"""Degrees: the coarsest level whose cells are no wider is looked at; plumes are a degree wide. Our choice."""

GUIDES = ("land_fraction", "temperature", "dew_point", "ndvi")
"""Covariates that explain sharp and lasting differences, if the inputs have them and name no others. Our choice,
measured on the sample Earth: none of them follows emissions, as an inventory, lights or population would."""

GUIDE_MONTHS = 12
"""Of a monthly covariate, the last ones: their mean guides."""


@dataclass(frozen=True, kw_only=True)
class HotspotsRecipe(Analysis):
    """``excess``, its z and persistence, and the number of the hotspot that a cell belongs to."""

    uncertainty: Quantity | None
    """What the version states of its error."""

    covariates: tuple[tuple[CovariateSettings, Field], ...]
    """What guides the background; where there is nothing, coasts may be taken for hotspots."""

    limits: Limits = field(default_factory=Limits)

    @classmethod
    def open(
        cls, store: Store, dataset: Dataset, *, inputs: Path, variable: str | None, periods: str | None
    ) -> "HotspotsRecipe":
        """The hotspots of a version.

        Args:
            store: where it lies.
            dataset: the version.
            inputs: directory with xco2.toml; where there is none, nothing guides the background.
            variable: of which quantity, in ppm; None: the first.
            periods: a ``datetime=`` expression; None: all.

        Raises:
            Refused: if the collection is not monthly, not in ppm, too coarse, or has fewer than 24 months.
            InputRefused: if an input does not hold.
        """
        trend = TrendRecipe.of(store, dataset, variable=variable, periods=periods)
        stated = [
            one
            for one in trend.whole.quantities
            if one.role == "uncertainty" and one.ancillary_of == trend.quantity.name and one.units == PPM
        ]
        guides: tuple[tuple[CovariateSettings, Field], ...] = ()
        if (inputs / SETTINGS).is_file():
            found = Inputs.find(inputs)
            both = zip(found.settings.covariates, found.covariates, strict=True)
            named = found.settings.hotspots.guides
            chosen = GUIDES if named is None else named
            guides = tuple((settings, one) for settings, one in both if settings.name in chosen)
        recipe = cls(trend=trend, uncertainty=stated[0] if stated else None, covariates=guides)
        if max(recipe.grid.step_x, recipe.grid.step_y) > 1:
            raise Refused(
                f"{trend.source} has cells of {float(recipe.grid.step_x):g} degrees; hotspots need 1 degree or finer"
            )
        return recipe

    @property
    def level(self) -> int:
        """The level that is looked at."""
        grid, level = self.trend.whole.grid, 0
        while (
            level + 1 < grid.levels
            and float(grid.step_x) * 2 ** (level + 1) <= CELL
            and not grid.width % 2 ** (level + 1)
            and not grid.height % 2 ** (level + 1)
        ):
            level += 1
        return level

    @cached_property
    def grid(self) -> Grid:
        """The cells of that level."""
        one = self.trend.whole.grid.level(self.level)
        return Grid.of(
            west=one.west, north=one.north, step_x=one.step_x, step_y=one.step_y, width=one.width, height=one.height
        )

    @property
    def guides(self) -> tuple[str, ...]:
        """Names of the guides."""
        return tuple(settings.name for settings, _ in self.covariates)

    @cached_property
    def product(self) -> Product:
        """The declaration: one period that spans all months, cells of the level that is looked at."""
        whole = self.trend.product
        span = f"{self.trend.months.ids[0]}/{self.trend.months.ids[-1]}"
        excess = Quantity(
            name="excess",
            units=PPM,
            long_name="Mean of column-averaged carbon dioxide above its local background",
            dtype="int16",
            scale_factor=0.002,
            add_offset=0.0,
            fill_value=-32768,
            quantum=0.002,
            cell_methods="area: mean",
            style=Style(colormap_name="rdbu_r", minimum=-2.0, maximum=2.0),
            attributes={"months": span, "background_degrees": REACH, "guides": ", ".join(self.guides) or "none"},
        )
        z = replace(
            excess,
            name="excess_z",
            units="1",
            long_name="Mean excess over its standard error, lag-1 autocorrelation and stated error included",
            scale_factor=0.01,
            quantum=0.01,
            role="uncertainty",
            ancillary_of="excess",
            style=Style(colormap_name="rdbu_r", minimum=-8.0, maximum=8.0),
            attributes={},
        )
        persistence = replace(
            z,
            name="persistence",
            long_name="Share of months in which the excess passes a robust standard deviation of its zonal band",
            dtype="uint8",
            scale_factor=0.005,
            fill_value=255,
            quantum=0.005,
            style=Style(colormap_name="viridis", minimum=0.0, maximum=1.0),
        )
        number = Quantity(
            name="hotspot",
            units="1",
            long_name="Number of the hotspot, highest peak first; 0 where there is none",
            dtype="uint16",
            fill_value=65535,
            cell_methods="area: mean",
            role="flag",
            ancillary_of="excess",
            style=Style(colormap_name="viridis", minimum=0.0, maximum=50.0),
            attributes={"comment": "coarser levels average numbers: tell hotspots apart at full detail"},
        )
        return replace(
            whole,
            id=f"{self.trend.source}_hotspots",
            title=f"{self.trend.whole.title}: hotspots",
            description=(
                f"Emission hotspots in {self.of}: cells that stand above what lies around them and what "
                f"{', '.join(self.guides) or 'no covariate'} explains there, lastingly; connected components with "
                "centroid, area, mean excess and persistence. Detected, not attributed: **not an emission**. "
                f"{self.trend.whole.description}"
            ),
            grid=self.grid,
            quantities=(excess, z, persistence, number),
            series_block=None if self.grid.cells <= SMALL_GRID else 120,
        )

    def periods(self) -> TimeAxis:
        """One period: all months."""
        return self.trend.periods()

    def inputs(self) -> tuple[Input, ...]:
        """The version, and the files of the guides."""
        named = [one for _, guide in self.covariates for one in guide.recipe.inputs()]
        return (*self.trend.inputs(), *named)

    def facts(self) -> Mapping[str, Any]:
        """How, and the table."""
        return {
            "hotspots_of": self.origin(),
            "cells": f"{float(self.grid.step_x):g} degrees",
            "guides": list(self.guides),
            "background": f"regression on the guides, Gaussian of {REACH:g} degrees; smoothed over {BLUR:g} degrees",
            "limits": vars(self.limits),
            "stated_uncertainty": None if self.uncertainty is None else self.uncertainty.name,
            "table": [_rounded(one.to_json()) for one in computed(self)[1].table],
        }

    def summary(self) -> list[str]:
        """The table, for people."""
        table = computed(self)[1].table
        lines = [f"{len(table)} hotspots; guides: {', '.join(self.guides) or 'none, so coasts may be among them'}"]
        lines += [
            f"{place:>4}  {one.longitude:8.2f} {one.latitude:7.2f}  {one.area_km2:9.0f} km2  "
            f"{one.mean_anomaly:5.2f} ppm  persistence {one.persistence:.2f}"
            for place, one in enumerate(table, start=1)
        ]
        return lines

    def reports(self) -> Mapping[str, str]:
        """The table as files."""
        rows = [
            {"hotspot": place, **_rounded(one.to_json())} for place, one in enumerate(computed(self)[1].table, start=1)
        ]
        text = io.StringIO()
        if rows:
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": [row["longitude"], row["latitude"]]},
                "properties": {key: value for key, value in row.items() if key not in {"longitude", "latitude"}},
            }
            for row in rows
        ]
        whole = {"type": "FeatureCollection", "features": features}
        return {"hotspots.csv": text.getvalue(), "hotspots.geojson": json.dumps(whole, indent=1) + "\n"}

    def check_inputs(self) -> None:
        """Look at every file once more."""
        for _, guide in self.covariates:
            for source in guide.recipe.table.sources:
                files.check_unchanged(source)

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:  # noqa: ARG002 - there is one
        """Stored values ``(1, y, x)`` of a part of the whole map, which is held."""
        lasting, found = computed(self)
        missing = np.isnan(lasting.mean)
        values = {
            "excess": lasting.mean,
            "excess_z": np.clip(lasting.z, -300.0, 300.0),
            "persistence": lasting.persistence,
            "hotspot": np.where(missing, np.nan, found.labels),
        }
        return {
            one.name: one.pack(values[one.name][window.rows, window.columns])[np.newaxis]
            for one in self.product.quantities
        }

    def guide_maps(self) -> NDArray[np.float64]:
        """``(guide, y, x)``: static ones, and means of the last months of the others; where missing, as on sea, 0."""
        whole = Window(row=0, column=0, height=self.grid.height, width=self.grid.width)
        maps = np.empty((len(self.covariates), *self.grid.shape))
        last = self.trend.months.starts[-1]
        for place, (settings, guide) in enumerate(self.covariates):
            months = _last(guide, last)
            if not months:
                raise Refused(f"{guide.name} has no month up to {self.trend.months.ids[-1]}; it cannot guide")
            total, count = np.zeros(self.grid.shape), np.zeros(self.grid.shape)
            for month in months:
                one = covariate(settings, guide, month, self.grid, whole)[0]
                total += np.nan_to_num(one)
                count += ~np.isnan(one)
            maps[place] = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        return maps

    def __hash__(self) -> int:
        return hash((self.trend.source, self.trend.version, self.trend.months.starts))


@lru_cache(maxsize=1)
def computed(recipe: HotspotsRecipe) -> tuple[Lasting, Hotspots]:
    """The whole map, once in a process: a month at a time is in memory, and sums of them."""
    grid = recipe.grid
    around, months = Around.of(grid, recipe.guide_maps()), Months(grid)
    whole = Window(row=0, column=0, height=grid.height, width=grid.width)
    for month in recipe.trend.months.starts:
        excess = around.excess(recipe.trend.map_of(month, whole, recipe.level))
        stated = None
        if recipe.uncertainty is not None:
            stated = recipe.trend.map_of(month, whole, recipe.level, recipe.uncertainty)
        months.add(month, excess, stated)
    lasting = months.lasting()
    return lasting, find(lasting, grid, recipe.limits)


def _last(guide: Field, month: int) -> list[int | None]:
    """The last months of a guide up to one; None stands for a static one's map."""
    if not guide.monthly:
        return [None]
    return [*[one for one in guide.months if one <= month][-GUIDE_MONTHS:]]


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
