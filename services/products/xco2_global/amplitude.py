"""Seasonal amplitude of XCO2: peak less trough of two fitted annual harmonics, and when the peak is."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.dataset import Dataset
from services.core.grid import Window
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.store import Store
from services.core.style import Style
from services.core.time_axis import TimeAxis
from services.pipeline.trend import TrendRecipe
from services.products.xco2_global.analysis import PPM, Analysis
from services.products.xco2_global.regions import HARMONICS, region_means, table
from services.validation.report import as_csv
from services.validation.season import season
from services.validation.trend import annual_cycle

_MEAN_OF_COARSER = (
    "coarser levels average it, which tells nothing where peaks lie on both sides of New Year; read it at full detail"
)


@dataclass(frozen=True, kw_only=True)
class AmplitudeRecipe(Analysis):
    """``amplitude`` and ``maximum_month``; that of zonal means is among the facts."""

    @classmethod
    def open(cls, store: Store, dataset: Dataset, *, variable: str | None, periods: str | None) -> "AmplitudeRecipe":
        """The amplitude in a version; arguments and refusals as those of ``TrendRecipe.of``."""
        return cls(trend=TrendRecipe.of(store, dataset, variable=variable, periods=periods))

    @cached_property
    def product(self) -> Product:
        """The declaration: one period that spans all months."""
        amplitude = Quantity(
            name="amplitude",
            units=PPM,
            long_name="Seasonal amplitude of column-averaged carbon dioxide, peak less trough",
            dtype="uint16",
            # to 131 ppm
            scale_factor=0.002,
            add_offset=0.0,
            fill_value=65535,
            quantum=0.002,
            cell_methods="area: mean",
            style=Style(colormap_name="viridis", minimum=0.0, maximum=10.0),
        )
        maximum = Quantity(
            name="maximum_month",
            units="1",
            long_name="When the seasonal peak is, months since the start of the year (0.5: the middle of January)",
            dtype="uint8",
            scale_factor=0.05,
            add_offset=0.0,
            fill_value=255,
            quantum=0.05,
            cell_methods="area: mean",
            ancillary_of="amplitude",
            style=Style(colormap_name="twilight", minimum=0.0, maximum=12.0),
            attributes={"comment": _MEAN_OF_COARSER},
        )
        return replace(
            self.trend.product,
            id=f"{self.trend.source}_amplitude",
            title=f"{self.trend.whole.title}: seasonal amplitude",
            description=(
                f"Seasonal amplitude: peak less trough of two annual harmonics, of {self.of}, fitted beside a line, "
                f"and when the peak is. {self.trend.whole.description}"
            ),
            quantities=(amplitude, maximum),
        )

    def periods(self) -> TimeAxis:
        """One period: all months."""
        return self.trend.periods()

    def facts(self) -> Mapping[str, Any]:
        """What is fitted, and the table of zonal means."""
        return {
            "amplitude_of": self.origin(),
            "method": "least squares of a line and two annual harmonics",
            "table": self.table,
        }

    @cached_property
    def table(self) -> list[dict[str, Any]]:
        """Rows of the globe and the zones."""
        keys = ("region", "kind", "area_km2", "months", "amplitude", "maximum_month")
        rows = table(region_means(self.trend, None), np.array(self.trend.months.starts))
        return [{key: row[key] for key in keys} for row in rows]

    def summary(self) -> list[str]:
        """The table, for people."""
        lines = [f"{'region':<16}{'ppm':>9}{'peak month':>12}"]
        for row in self.table:
            size = "not told" if row["amplitude"] is None else f"{row['amplitude']:.2f}"
            month = "" if row["maximum_month"] is None else f"{row['maximum_month']:.1f}"
            lines.append(f"{row['region']:<16}{size:>9}{month:>12}")
        return lines

    def reports(self) -> Mapping[str, str]:
        """The table as a file."""
        return {"amplitude.csv": as_csv(self.table)}

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:  # noqa: ARG002 - one
        """Stored values ``(1, y, x)``; a part of the window is in memory at a time."""
        return self.trend.cell_by_cell(self.product, window, _fit)


def _fit(series: NDArray[np.floating[Any]], months: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    found = season(annual_cycle(series, months, harmonics=HARMONICS))
    return found.amplitude, found.maximum
