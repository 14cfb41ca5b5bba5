"""XCO2 less the median of its latitude in its month."""

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
from services.validation.zonal import WIDTH, band_of_rows, interpolated, weighted_median


@dataclass(frozen=True, kw_only=True)
class AnomalyRecipe(Analysis):
    """Monthly ``anomaly``, the same periods as the version's."""

    medians: tuple[tuple[float, ...], ...]
    """Of the bands from north to south, of each month; NaN for a band without a value."""

    @classmethod
    def open(cls, store: Store, dataset: Dataset, *, variable: str | None, periods: str | None) -> "AnomalyRecipe":
        """The anomaly of a version; arguments and refusals as those of ``TrendRecipe.of``."""
        trend = TrendRecipe.of(store, dataset, variable=variable, periods=periods, least=1)
        return cls(trend=trend, medians=tuple(zonal_medians(trend, month) for month in trend.months.starts))

    @cached_property
    def product(self) -> Product:
        """The declaration, with the steps of the source."""
        one = self.trend.quantity
        packing: dict[str, Any] = {"dtype": "float32"}
        if one.is_integer and np.dtype(one.dtype).itemsize <= 2:
            packing = {"dtype": "int16", "scale_factor": 0.005, "add_offset": 0.0, "fill_value": -32768}
        anomaly = Quantity(
            name="anomaly",
            units=PPM,
            long_name="Column-averaged carbon dioxide less the median of its latitude in the month",
            quantum=0.005,
            style=Style(colormap_name="rdbu_r", minimum=-4.0, maximum=4.0),
            attributes={"anomaly_of": f"{self.trend.source}/{one.name}", "band_degrees": WIDTH},
            **packing,
        )
        return replace(
            self.trend.whole,
            id=f"{self.trend.source}_anomaly",
            title=f"{self.trend.whole.title}: anomaly",
            description=(
                f"Anomaly of {self.of}: less the area-weighted median of the month's {WIDTH:g} degree zonal bands, "
                "linear between the middles of the bands (after Hakkarainen et al., 2016; bands and lines are our "
                f"choice). {self.trend.whole.description}"
            ),
            quantities=(anomaly,),
        )

    def periods(self) -> TimeAxis:
        """The months of the version that were asked for."""
        return self.trend.months

    def facts(self) -> Mapping[str, Any]:
        """What was subtracted."""
        return {
            "anomaly_of": self.origin(),
            "background": f"area-weighted median of zonal bands of {WIDTH:g} degrees, linear between their middles",
            "medians": [
                [None if np.isnan(value) else round(value, 6) for value in of_month] for of_month in self.medians
            ],
        }

    def summary(self) -> list[str]:
        """One line."""
        whole = np.array(self.medians)
        span = f"{np.nanmin(whole):.2f}..{np.nanmax(whole):.2f} ppm"
        return [f"medians of {whole.shape[1]} bands of {WIDTH:g} degrees: {span}"]

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        """Stored values ``(time, y, x)``; a map at a time is in memory as floats."""
        (quantity,) = self.product.quantities
        out = np.empty((len(periods), *window.shape), dtype=quantity.dtype)
        latitudes = self.trend.whole.grid.latitudes[window.rows]
        for place, month in enumerate(periods.starts):
            line = interpolated(np.array(self.medians[self.trend.months.starts.index(month)]), latitudes)
            out[place] = quantity.pack(self.trend.map_of(month, window) - line[:, np.newaxis])
        return {quantity.name: out}


def zonal_medians(trend: TrendRecipe, month: int) -> tuple[float, ...]:
    """Area-weighted medians of the cells of each band in a month, north to south; a band at a time is read."""
    grid = trend.whole.grid
    bands = band_of_rows(grid)
    found = []
    for band in range(round(180 / WIDTH)):
        rows = np.flatnonzero(bands == band)
        if not rows.size:
            found.append(float("nan"))
            continue
        part = Window(row=int(rows[0]), column=0, height=rows.size, width=grid.width)
        weights = np.repeat(grid.row_areas_km2[rows], grid.width)
        found.append(weighted_median(trend.map_of(month, part).ravel(), weights))
    return tuple(found)
