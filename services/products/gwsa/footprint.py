"""The footprint of abstraction: the part of a collection's trend that its climate does not explain, as a collection.

See ``services.validation.attribution`` for what is fitted. What is left of a trend holds all that the drivers do not
tell: abstraction first of all where a map says that water is drawn, but also a change of land use or of the ice, and
errors that drift. It is an upper bound of what people do, and the map does not enter it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.dataset import Dataset
from services.core.errors import Refused
from services.core.grid import Window, windows
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.store import Store
from services.core.style import Style
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Input
from services.pipeline.trend import TrendRecipe
from services.products.gwsa.climate import SETTINGS, Climate, around
from services.validation.attribution import LEAST_MONTHS, LEVEL, attributed, memories

SIDE = 64
"""Cells along a side of what is fitted at a time: 225 months of it and of a driver are 7 MB each as floats."""

PER_CM = {"mm": 10.0, "cm": 1.0, "m": 0.01}
"""Of one of these units of water to a cm."""


@dataclass(frozen=True, kw_only=True)
class FootprintRecipe:
    """Trend of every cell less what the climate explains of it, whether it is a loss, and how sure."""

    trend: TrendRecipe
    """The collection's version, its quantity, and the months that the drivers have too."""

    climate: Climate

    @classmethod
    def of(
        cls, store: Store, dataset: Dataset, *, inputs: Path, variable: str | None, periods: str | None
    ) -> "FootprintRecipe":
        """The footprint in a version.

        Args:
            store: where it lies.
            dataset: the version.
            inputs: directory with footprint.toml.
            variable: of which quantity, a depth of water; None: the first.
            periods: a ``datetime=`` expression; None: all.

        Raises:
            Refused: if the collection is not monthly or of water, or has too few months that the drivers have too.
            InputRefused: if a driver does not hold; names file and fact.
            TimeOutsideAxis: if no period is chosen.
        """
        trend = TrendRecipe.of(store, dataset, variable=variable, periods=periods)
        if trend.quantity.units not in PER_CM:
            raise Refused(
                f"{trend.source}: {trend.quantity.name} is in {trend.quantity.units}; a footprint is of water in "
                f"{', '.join(PER_CM)}"
            )
        climate = Climate.find(inputs)
        first, last = climate.span
        places = [place for place, month in enumerate(trend.months.starts) if first <= month <= last]
        if len(places) < LEAST_MONTHS:
            raise Refused(
                f"{trend.source} has {len(places)} of the months asked for that all drivers of {SETTINGS} have too "
                f"({np.datetime64(first, 'M')}..{np.datetime64(last, 'M')}); a footprint needs {LEAST_MONTHS}"
            )
        return cls(trend=replace(trend, months=trend.months.take(places)), climate=climate)

    @cached_property
    def product(self) -> Product:
        """The declaration: one period that spans all months."""
        of, one = self.trend.product, self.trend.quantity
        slope, error, p_value = of.quantities
        name = f"{one.long_name[0].lower()}{one.long_name[1:]}"
        names = ", ".join(driver.name for driver in self.climate.drivers)
        residual = replace(
            slope,
            name="residual_trend",
            long_name=f"Trend of {name} that the climate does not explain",
            attributes={**slope.attributes, "climate_drivers": names},
        )
        beside = replace(slope, name="climate_trend", long_name=f"Trend of {name} that the climate explains")
        footprint = Quantity(
            name="footprint",
            units="1",
            long_name=f"1 where the residual trend is a loss of {self._least:g} {slope.units} or more at the 5 % level",
            dtype="uint8",
            fill_value=255,
            quantum=0.01,
            role="flag",
            ancillary_of="residual_trend",
            style=Style(colormap_name="greys", minimum=0.0, maximum=1.0),
            attributes={"area_integral_factor": 1.0, "area_integral_units": "km2"},
        )
        return replace(
            of,
            id=f"{self.trend.source}_footprint",
            title=f"{self.trend.whole.title}: human footprint",
            description=(
                f"Trend of `{one.name}` of the collection `{self.trend.source}` in two parts, fitted at once: what its "
                f"climate explains ({names}, each as a linear reservoir holds it) and what is left, with standard "
                "error and p value that allow for lag-1 autocorrelation. **What is left is an upper bound of what "
                "people do**: it holds all slow changes that the drivers do not tell. Of version "
                f"{self.trend.version}. {self.trend.whole.description}"
            ),
            quantities=(
                residual,
                replace(error, name="residual_trend_standard_error", ancillary_of="residual_trend"),
                replace(p_value, name="residual_trend_p_value", ancillary_of="residual_trend"),
                beside,
                footprint,
            ),
        )

    @property
    def _least(self) -> float:
        return self.climate.settings.least * PER_CM[self.trend.quantity.units]

    def periods(self) -> TimeAxis:
        """One period: all months."""
        return self.trend.periods()

    def inputs(self) -> tuple[Input, ...]:
        """The version, and every file of footprint.toml."""
        return (*self.trend.inputs(), *self.climate.inputs())

    def models(self) -> Mapping[str, str]:
        """None."""
        return {}

    def model_directories(self) -> Mapping[str, Path]:
        """None."""
        return {}

    def facts(self) -> Mapping[str, Any]:
        """What is fitted."""
        return {
            "footprint_of": self.trend.source,
            "variable": self.trend.quantity.name,
            "version": self.trend.version,
            "months": list(self.trend.months.ids),
            "climate": [driver.name for driver in self.climate.drivers],
            "memories": list(memories(len(self.trend.months))),
            "loss_from": f"{self._least:g} {self.trend.quantity.units} yr-1",
            "level": LEVEL,
            "method": "least squares of line, annual cycle and drivers at once; errors widened for lag-1 "
            "autocorrelation; the memory that leaves least",
        }

    def check_inputs(self) -> None:
        """Look at every file once more."""
        self.climate.check_unchanged()

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        """Stored values ``(1, y, x)``; the series of SIDE x SIDE cells are in memory at a time.

        Raises:
            InputRefused: if a file is no longer what it was.
        """
        product, grid = self.product, self.product.grid
        stored = {
            one.name: np.full((len(periods), *window.shape), one.fill, dtype=one.dtype) for one in product.quantities
        }
        months = np.array(self.trend.months.starts, dtype=np.int64)
        taus = memories(len(months))
        weather = None
        for part in windows(window.shape, (SIDE, SIDE)):
            here = Window(
                row=window.row + part.row, column=window.column + part.column, height=part.height, width=part.width
            )
            values = self.trend.series(here).reshape(len(months), -1)
            some = ~np.isnan(values).all(axis=0)
            if not some.any():
                continue
            if weather is None:  # a window of sea reads no driver
                weather = self.climate.weather(months, around(grid, window))
            driver = partial(weather.held, grid=grid, window=here, cells=some)
            found = attributed(values[:, some], months, taus, driver)
            flag = np.where(np.isnan(found.residual.p_value), np.nan, found.falls(self._least))
            for quantity, one in zip(
                product.quantities,
                (found.residual.slope, found.residual.standard_error, found.residual.p_value, found.climate, flag),
                strict=True,
            ):
                whole = np.full(some.size, np.nan)
                whole[some] = one
                stored[quantity.name][0, part.rows, part.columns] = quantity.pack(whole.reshape(part.shape))
        return stored

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}
