"""Growth of XCO2: slope of least squares beside two annual harmonics, cell by cell and of regions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.dataset import Dataset
from services.core.grid import Window
from services.core.product import Product
from services.core.store import Store
from services.core.style import Style
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Input
from services.pipeline.trend import TrendRecipe
from services.products.xco2_global.analysis import Analysis
from services.products.xco2_global.regions import HARMONICS, check_covered, region_means, table
from services.sources.polygons import Polygons, open_polygons
from services.validation.report import as_csv
from services.validation.trend import ols

FEW = 3.0
"""Degrees of freedom below which an interval of 95 % is told to be wide: Student's t is 3.2 there, and 13 at 1."""


@dataclass(frozen=True, kw_only=True)
class GrowthRecipe(Analysis):
    """``growth``, its standard error and p value; the table of regions is among the facts."""

    polygons: Polygons | None = None
    """Continents, or whatever else the user named; none are shipped."""

    @classmethod
    def open(
        cls,
        store: Store,
        dataset: Dataset,
        *,
        variable: str | None,
        periods: str | None,
        polygons: Path | None = None,
        label: str | None = None,
    ) -> "GrowthRecipe":
        """The growth in a version.

        Args:
            store: where it lies.
            dataset: the version.
            variable: of which quantity, in ppm; None: the first.
            periods: a ``datetime=`` expression; None: all.
            polygons: GeoJSON or shapefile of regions for the table.
            label: the property that names them.

        Raises:
            Refused: if the collection is not monthly, not in ppm, or has fewer than 24 months.
            InputRefused: if the polygons are broken.
        """
        trend = TrendRecipe.of(store, dataset, variable=variable, periods=periods)
        held = None if polygons is None else open_polygons(str(polygons), label=label)
        return cls(trend=trend, polygons=held)

    @cached_property
    def product(self) -> Product:
        """The declaration: one period that spans all months."""
        whole = self.trend.product
        slope, error, p_value = whole.quantities
        return replace(
            whole,
            id=f"{self.trend.source}_growth",
            title=f"{self.trend.whole.title}: growth",
            description=(
                f"Growth rate: slope of least squares beside two annual harmonics, of {self.of}. Standard error and p "
                "value allow for lag-1 autocorrelation of what is left (Santer et al., 2000). "
                f"{self.trend.whole.description}"
            ),
            quantities=(
                replace(
                    slope,
                    name="growth",
                    long_name="Growth of column-averaged carbon dioxide",
                    style=Style(colormap_name="viridis", minimum=1.5, maximum=3.5),
                ),
                replace(
                    error,
                    name="growth_standard_error",
                    long_name="Standard error of the growth, widened for lag-1 autocorrelation of the residuals",
                    ancillary_of="growth",
                    style=Style(colormap_name="magma", minimum=0.0, maximum=0.5),
                ),
                replace(
                    p_value,
                    name="growth_p_value",
                    long_name="Two-sided p value of the growth",
                    ancillary_of="growth",
                ),
            ),
        )

    def periods(self) -> TimeAxis:
        """One period: all months."""
        return self.trend.periods()

    def inputs(self) -> tuple[Input, ...]:
        """The version, and the file of polygons."""
        held = () if self.polygons is None else self.polygons.documents
        return (*self.trend.inputs(), *(Input(name=one.name, size=one.size, sha256=one.sha256) for one in held))

    def facts(self) -> Mapping[str, Any]:
        """What is fitted, and the table."""
        return {
            "growth_of": self.origin(),
            "method": "least squares with two annual harmonics; errors widened for lag-1 autocorrelation",
            "units": self.product.quantities[0].units,
            "means": "weighted by cells' areas on the ellipsoid; interval of 95 %",
            "table": self.table,
        }

    @cached_property
    def table(self) -> list[dict[str, Any]]:
        """Rows of the globe, zones and polygons."""
        means = region_means(self.trend, self.polygons)
        check_covered(means, self.polygons)
        return table(means, np.array(self.trend.months.starts))

    def summary(self) -> list[str]:
        """The table, for people."""
        lines = [f"{'region':<16}{'ppm/yr':>9}{'95 % interval':>18}{'p':>9}{'months':>8}"]
        for row in self.table:
            bounds = "not told" if row["low"] is None else f"{row['low']:.3f}..{row['high']:.3f}"
            grows = "not told" if row["growth"] is None else f"{row['growth']:.3f}"
            p_value = "" if row["p_value"] is None else f"{row['p_value']:.1g}"
            lines.append(f"{row['region']:<16}{grows:>9}{bounds:>18}{p_value:>9}{row['months']:>8}")
        freedom = [row["degrees_of_freedom"] for row in self.table if row["growth"] is not None]
        if any(one is None or one < FEW for one in freedom):
            lines.append(
                "not told, or very wide: what trend and season leave changes so slowly there that the months count as "
                "few independent ones (degrees_of_freedom of growth.csv); a longer series tells more"
            )
        if self.polygons is None:
            lines.append("continents: none, as no outlines are shipped; --polygons FILE adds those of a file")
        return lines

    def reports(self) -> Mapping[str, str]:
        """The table as a file."""
        return {"growth.csv": as_csv(self.table)}

    def check_inputs(self) -> None:
        """Look at the polygons once more."""
        if self.polygons is not None:
            self.polygons.check_unchanged()

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:  # noqa: ARG002 - there is one
        """Stored values ``(1, y, x)``; a part of the window is in memory at a time."""
        return self.trend.cell_by_cell(self.product, window, _fit)


def _fit(series: NDArray[np.floating[Any]], months: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    found = ols(series, months, harmonics=HARMONICS)
    return found.slope, found.standard_error, found.p_value
