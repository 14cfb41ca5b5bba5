"""The trend of a published collection, cell by cell, as a collection of its own."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from services.core import layout
from services.core.catalog import read_version
from services.core.dataset import Dataset
from services.core.errors import Refused
from services.core.grid import Window, windows
from services.core.product import SMALL_GRID, Product
from services.core.quantity import Quantity
from services.core.store import Store
from services.core.style import Style
from services.core.time_axis import Step, TimeAxis
from services.pipeline.recipe import Input
from services.validation.trend import LEAST_MONTHS, LEAST_YEARS, ols

MONTH, YEAR = Step.parse("P1M"), Step.parse("P1Y")

SIDE = 128
"""Cells along a side of what is fitted at a time: 225 months of it are 30 MB as floats."""

WATER = {"mm": 1e-6, "cm": 1e-5, "m": 1e-3}
"""km3 of water on 1 km2 for one of these."""

_STEPS = 32767
"""Steps of an int16 on either side of 0."""


type Fit = Callable[[NDArray[np.floating[Any]], NDArray[np.int64]], Iterable[NDArray[np.float64]]]
"""Series ``(time, series)`` and their months to arrays ``(series,)``, NaN where there is nothing to tell."""


@dataclass(frozen=True, kw_only=True)
class TrendRecipe:
    """``a + b t + c cos(2 pi t) + s sin(2 pi t)`` of every cell: b, its standard error, and its p value.

    See ``services.validation.trend.ols``: the standard error is widened for lag-1 autocorrelation. Of yearly values
    a + b t is fitted.
    """

    store: Store
    source: str
    """Id of the collection."""

    version: str
    version_sha256: str
    quantity: Quantity
    """What the trend is of."""

    months: TimeAxis
    """Periods that are fitted, monthly or yearly."""

    whole: Product
    """The collection's declaration."""

    @classmethod
    def of(
        cls,
        store: Store,
        dataset: Dataset,
        *,
        variable: str | None,
        periods: str | None,
        least: int = LEAST_MONTHS,
        yearly: bool = False,
    ) -> Self:
        """The trend of a version.

        Args:
            store: where it lies.
            dataset: the version.
            variable: of which quantity; None: the first.
            periods: a ``datetime=`` expression; None: all.
            least: months that it needs.
            yearly: whether periods of a year will do, too; LEAST_YEARS of them.

        Raises:
            Refused: if the collection has other periods or too few.
            TimeOutsideAxis: if no period is chosen.
        """
        product = dataset.product
        by_year = yearly and product.length == YEAR
        if product.length != MONTH and not by_year:
            to = "months or years" if yearly else "months"
            raise Refused(f"{product.id} has periods of {product.step}; a trend is fitted to {to}")
        chosen = dataset.time if periods is None else dataset.time.take(list(dataset.time.select(periods)))
        unit, needed = ("years", LEAST_YEARS) if by_year else ("months", least)
        if len(chosen) < needed:
            raise Refused(f"{product.id} has {len(chosen)} {unit} of those asked for; a trend needs {needed}")
        return cls(
            store=store,
            source=product.id,
            version=dataset.version.id,
            version_sha256=layout.digest(dataset.version.to_bytes()),
            quantity=product.quantity(variable),
            months=chosen,
            whole=product,
        )

    @cached_property
    def product(self) -> Product:
        """The declaration: one period that spans all months."""
        one, of = self.quantity, self.quantity.name
        span = f"{self.months.ids[0]}/{self.months.ids[-1]}"
        integral: dict[str, str | float | int] = {}
        if one.units in WATER:
            integral = {"area_integral_factor": WATER[one.units], "area_integral_units": "km3 yr-1"}
        reach = max(abs(one.style.minimum), abs(one.style.maximum)) / self._years if one.style else 1.0
        trend = Quantity(
            name="trend",
            units=f"{one.units} yr-1",
            long_name=f"Trend of {one.long_name[0].lower()}{one.long_name[1:]}",
            cell_methods="area: mean",
            style=Style(colormap_name="rdbu", minimum=-reach, maximum=reach),
            attributes={"trend_of": f"{self.source}/{of}", self._unit: span, **integral},
            **self._packing,
        )
        error = Quantity(
            name="trend_standard_error",
            units=f"{one.units} yr-1",
            long_name="Standard error of the trend, widened for lag-1 autocorrelation of the residuals",
            role="uncertainty",
            ancillary_of="trend",
            cell_methods="area: mean",
            style=Style(colormap_name="viridis", minimum=0.0, maximum=reach / 4),
            **self._packing,
        )
        p_value = Quantity(
            name="trend_p_value",
            units="1",
            long_name="Two-sided p value of the trend",
            dtype="uint8",
            scale_factor=0.005,
            add_offset=0.0,
            fill_value=255,
            quantum=0.005,
            role="uncertainty",
            ancillary_of="trend",
            cell_methods="area: mean",
            style=Style(colormap_name="viridis_r", minimum=0.0, maximum=0.2),
        )
        return replace(
            self.whole,
            id=f"{self.source}_trend",
            title=f"{self.whole.title}: trend",
            description=(
                f"Linear trend of `{of}` of the collection `{self.source}` from {span}, by least squares{self._cycle}. "
                "Standard error and p value allow for lag-1 autocorrelation of what is left (Santer et "
                f"al., 2000). Of version {self.version}. {self.whole.description}"
            ),
            step=f"P{self._span}{self.months.step.unit}",
            quantities=(trend, error, p_value),
            map_block=1,
            series_block=None if self.whole.grid.cells <= SMALL_GRID else 120,
            cog_period="step",
            fixed_mask=False,
        )

    @property
    def _packing(self) -> dict[str, Any]:
        """How slopes are stored: as int16 where the series' own packing bounds them, else as floats."""
        one = self.quantity
        if not one.is_integer or np.dtype(one.dtype).itemsize > 2:
            return {"dtype": "float32"}
        # no line through values of this range is steeper than one and a half times the range over all months
        steepest = 1.5 * float(np.iinfo(one.dtype).max) * 2 * (one.scale_factor or 1.0) / self._years
        least = steepest / _STEPS
        power = math.floor(math.log10(least))
        step = float(f"{math.ceil(least / 10.0**power)}e{power}")
        return {"dtype": "int16", "scale_factor": step, "add_offset": 0.0, "fill_value": -32768, "quantum": step}

    @property
    def _span(self) -> int:
        """Months or years from the first to the last."""
        return self.months.starts[-1] - self.months.starts[0] + 1

    @property
    def _years(self) -> float:
        return self._span if self.is_yearly else self._span / 12

    @property
    def is_yearly(self) -> bool:
        """Whether periods are years."""
        return self.months.step == YEAR

    @property
    def _unit(self) -> str:
        return "years" if self.is_yearly else "months"

    @property
    def _cycle(self) -> str:
        return "" if self.is_yearly else " with an annual cycle"

    def periods(self) -> TimeAxis:
        """One period: all months."""
        return TimeAxis(step=self.product.length, starts=(self.months.starts[0],))

    def inputs(self) -> tuple[Input, ...]:
        """The version, by its own digest; it names the digests of everything in it."""
        name = f"{self.source}/versions/{self.version}.json"
        return (Input(name=name, size=0, sha256=self.version_sha256),)

    def models(self) -> Mapping[str, str]:
        """None."""
        return {}

    def model_directories(self) -> Mapping[str, Path]:
        """None."""
        return {}

    def facts(self) -> Mapping[str, Any]:
        """What is fitted."""
        return {
            "trend_of": self.source,
            "variable": self.quantity.name,
            "version": self.version,
            self._unit: list(self.months.ids),
            "method": f"least squares{self._cycle}; errors widened for lag-1 autocorrelation (Santer et al.)",
        }

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:  # noqa: ARG002 - there is one
        """Stored values ``(1, y, x)``; the series of SIDE x SIDE cells are in memory at a time."""
        return self.cell_by_cell(self.product, window, _slopes_of_years if self.is_yearly else _slopes)

    def cell_by_cell(self, product: Product, window: Window, fit: Fit) -> dict[str, NDArray[Any]]:
        """Stored values ``(1, y, x)`` of what is fitted to the series of each cell, SIDE x SIDE cells at a time.

        Args:
            product: what is made.
            window: cells of its grid.
            fit: of the series and months gives an array for each quantity, in order.
        """
        stored = {one.name: np.full((1, *window.shape), one.fill, dtype=one.dtype) for one in product.quantities}
        months = np.array(self.months.starts)
        for part in windows(window.shape, (SIDE, SIDE)):
            here = Window(
                row=window.row + part.row, column=window.column + part.column, height=part.height, width=part.width
            )
            series = self.series(here).reshape(len(months), -1)
            some = ~np.isnan(series).all(axis=0)
            if not some.any():
                continue
            for quantity, values in zip(product.quantities, fit(series[:, some], months), strict=True):
                whole = np.full(some.size, np.nan)
                whole[some] = values
                stored[quantity.name][0, part.rows, part.columns] = quantity.pack(whole.reshape(part.shape))
        return stored

    def map_of(
        self, start: int, window: Window, level: int = 0, quantity: Quantity | None = None
    ) -> NDArray[np.floating[Any]]:
        """One month of a window of a level, of this quantity or another one, ``(y, x)``, NaN where missing."""
        one = quantity or self.quantity
        position = self._dataset.time.starts.index(start)
        decoded: NDArray[np.floating[Any]] = one.decode(self._dataset.read_map(one, position, level, window))
        return decoded

    def series(self, window: Window) -> NDArray[np.floating[Any]]:
        """The months of a window as they are fitted, ``(time, y, x)``, NaN where missing."""
        positions = [self._dataset.time.starts.index(start) for start in self.months.starts]
        decoded: NDArray[np.floating[Any]] = self.quantity.decode(
            self._dataset.read_series(self.quantity, positions, window)
        )
        return decoded

    @cached_property
    def _dataset(self) -> Dataset:
        return Dataset(self.store, read_version(self.store, self.source, self.version))

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def _slopes(series: NDArray[np.floating[Any]], months: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    found = ols(series, months)
    return found.slope, found.standard_error, found.p_value


def _slopes_of_years(series: NDArray[np.floating[Any]], years: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    found = ols(series, 12 * years, harmonics=0, least=LEAST_YEARS, every=12)
    return found.slope, found.standard_error, found.p_value
