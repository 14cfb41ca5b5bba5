"""The trend of a published collection with a table by polygon: km3 a year, and an error that knows distances."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import shapely.geometry
from scipy import special

from services.core.dataset import Dataset
from services.core.errors import Refused
from services.core.grid import Window
from services.core.store import Store
from services.pipeline.trend import WATER, TrendRecipe
from services.sources.coverage import Coverage
from services.sources.polygons import Polygons, open_polygons
from services.validation.report import Rows, as_csv, numbers
from services.validation.volume import LENGTH_KM, Gathered, RegionSum

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class RegionalTrend(TrendRecipe):
    """The same collection as without polygons, byte by byte; only the version's facts have the table."""

    polygons: Polygons

    @property
    def table(self) -> Rows:
        """A row for each polygon, in the file's order; see ``findings``, which is called first."""
        rows: Rows = vars(self)["found"]
        return rows

    def findings(self, dataset: Dataset) -> Mapping[str, Any]:
        """The table, from the trends that a version of this holds at full resolution.

        A chunk of the map is in memory at a time, and sums over blocks of 300 km / 8 of each polygon. Polygons may
        overlap: each has all that it covers. A cell on an outline counts by the share of its area inside. Errors go
        together over ``LENGTH_KM`` (our choice: what GRACE resolves); the interval is that of a normal distribution.

        Raises:
            InputRefused: if the polygons' file is not what it was.
        """
        grid = dataset.product.grid
        slope, error = dataset.product.quantities[:2]
        regions = [Coverage(outline) for outline in self.polygons.geometries]
        sums = [Gathered(grid) for _ in regions]
        for window in grid.chunks():
            here = [number for number, region in enumerate(regions) if region.touches(grid, window)]
            if not here:
                continue
            slopes, errors = (one.decode(dataset.read_map(one, 0, 0, window)) for one in (slope, error))
            for number in here:
                sums[number].add(slopes, errors, regions[number].shares(grid, window), window)
        self.polygons.check_unchanged()
        vars(self)["found"] = [
            self._row(name, region.area_km2, region.outside_km2(grid), one.sum())
            for name, region, one in zip(self.polygons.names, regions, sums, strict=True)
        ]
        return {
            "table": self.table,
            "table_units": self._table_units,
            "table_of": [{"name": one.name, "sha256": one.sha256} for one in self.polygons.documents],
            "length_of_errors_km": LENGTH_KM,
            "errors": (
                f"correlation exp(-(d / {LENGTH_KM:g} km)^2) of cells a distance d apart (our choice); independent: if "
                "every cell erred on its own, the least; together: if all erred as one, the most; interval of 95 %"
            ),
        }

    @property
    def _is_volume(self) -> bool:
        return self.quantity.units in WATER

    @property
    def _table_units(self) -> str:
        return "km3 yr-1" if self._is_volume else f"{self.quantity.units} yr-1"

    def _row(self, name: str, whole: float, outside: float, found: RegionSum) -> dict[str, Any]:
        """One polygon of ``whole`` km2: km3 a year, or of what is no water the mean; and errors in these units."""
        known = found.area_km2 > 0
        told = found.times(WATER[self.quantity.units] if self._is_volume else 1 / found.area_km2 if known else 1.0)
        reach = special.ndtri((1 + LEVEL) / 2) * told.standard_error
        nothing = float("nan")
        row: dict[str, Any] = numbers(
            {
                "region": name,
                **({"km3_per_year": told.total if known else nothing} if self._is_volume else {}),
                "mean_trend": found.total / found.area_km2 if known else nothing,
                "standard_error": told.standard_error,
                "independent": told.independent,
                "together": told.together,
                "low": told.total - reach,
                "high": told.total + reach,
                "area_km2": whole,
                "without_value_km2": found.missing_km2 + outside,
                "outside_km2": outside,
                "cells": found.cells,
                "cells_without_error": found.without_error,
            }
        )
        return row

    def summary(self) -> list[str]:
        """The table, for people."""
        what = "km3_per_year" if self._is_volume else "mean_trend"
        heads = ("error", "if independent", "if together", "95 % interval", "area km2", "no value km2", "cells")
        lines = [f"{'region':<16}{self._table_units:>12}" + "".join(f"{head:>16}" for head in heads)]
        for row in self.table:
            errors = [_said(row[name]) for name in ("standard_error", "independent", "together")]
            bounds = "not told" if row["low"] is None else f"{row['low']:.4g}..{row['high']:.4g}"
            areas = [f"{row['area_km2']:.0f}", f"{row['without_value_km2']:.0f}", str(row["cells"])]
            rest = "".join(f"{one:>16}" for one in (*errors, bounds, *areas))
            lines.append(f"{row['region']:<16}{_said(row[what]):>12}{rest}")
        lines += [
            f"{row['region']}: {row['outside_km2']:.0f} km2 of it lie outside the collection"
            for row in self.table
            if row["outside_km2"]
        ]
        return [*lines, f"error: those of cells go together over {LENGTH_KM:g} km (our choice)"]

    def reports(self) -> Mapping[str, str]:
        """The table as files."""
        features = [
            {"type": "Feature", "properties": row, "geometry": shapely.geometry.mapping(outline)}
            for row, outline in zip(self.table, self.polygons.geometries, strict=True)
        ]
        whole = {"type": "FeatureCollection", "features": features}
        return {"trend.csv": as_csv(self.table), "trend.geojson": json.dumps(whole) + "\n"}


def open_trend(
    store: Store,
    dataset: Dataset,
    *,
    variable: str | None,
    periods: str | None,
    polygons: Path | None = None,
    label: str | None = None,
) -> TrendRecipe:
    """The trend of a version, of months or years.

    Args:
        store: where it lies.
        dataset: the version.
        variable: of which quantity; None: the first.
        periods: a ``datetime=`` expression; None: all.
        polygons: GeoJSON or shapefile of regions for the table.
        label: the property that names them.

    Raises:
        Refused: as ``TrendRecipe.of``, and if no polygon lies on the grid.
        InputRefused: if the polygons are broken.
    """
    trend = TrendRecipe.of(store, dataset, variable=variable, periods=periods, yearly=True)
    if polygons is None:
        return trend
    held = open_polygons(str(polygons), label=label)
    grid = trend.whole.grid
    whole = Window(row=0, column=0, height=grid.height, width=grid.width)
    if not any(Coverage(outline).touches(grid, whole) for outline in held.geometries):
        west, south, east, north = grid.bounds
        raise Refused(
            f"{polygons}: no polygon lies on the grid of {trend.source} "
            f"({west:g}..{east:g} east, {south:g}..{north:g} north)"
        )
    return RegionalTrend(**{one.name: getattr(trend, one.name) for one in fields(TrendRecipe)}, polygons=held)


def _said(value: float | None) -> str:
    return "not told" if value is None else f"{value:.4g}"
