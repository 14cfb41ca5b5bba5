"""How much of each cell of a grid a polygon covers, and how much of a polygon no cell covers, on the ellipsoid."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray

from services.core.grid import Grid, Window, ground_km2, windows

TURNS = (-360.0, 0.0, 360.0)

LONGEST = 0.05
"""Degrees of an outline that are taken as straight in equal areas, too: some 1e-7 of an area. Our choice."""

NEAR = 32
"""Cells along a side of a square that the outline is cut out for first, so that a cell is cut from few vertices."""

NOISE = 1e-9
"""Share of a cell or a polygon that rounding makes."""

type Outline = shapely.Polygon | shapely.MultiPolygon


@dataclass(frozen=True)
class Coverage:
    """Of one polygon, whose edges are straight in longitude and latitude."""

    outline: Outline
    """Degrees; longitudes may go on beyond 180."""

    @cached_property
    def ground(self) -> Any:
        """The outline with areas in km2: degrees of longitude, and ``ground_km2`` of latitudes."""
        return shapely.transform(shapely.segmentize(self.outline, LONGEST), _flat)

    @property
    def area_km2(self) -> float:
        """On the WGS84 ellipsoid."""
        return float(self.ground.area)

    def outside_km2(self, grid: Grid) -> float:
        """Area of it that no cell of a grid covers; 0 where all of it lies in the grid."""
        whole = _box(grid, Window(row=0, column=0, height=grid.height, width=grid.width))
        left = self.ground
        for turn in TURNS:
            left = left.difference(shapely.box(whole[0] + turn, whole[1], whole[2] + turn, whole[3]))
        return float(left.area) if left.area > NOISE * self.area_km2 else 0.0

    def touches(self, grid: Grid, window: Window) -> bool:
        """Whether it may cover a part of a window: by its bounds alone."""
        low_x, low_y, high_x, high_y = self.ground.bounds
        west, south, east, north = _box(grid, window)
        return low_y < north and high_y > south and any(low_x < east + t and high_x > west + t for t in TURNS)

    def shares(self, grid: Grid, window: Window) -> NDArray[np.float64]:
        """Share of each cell's area that it covers, ``(y, x)``, 0..1.

        GDAL tells which cells lie inside and which the outline touches; those are cut by shapely in equal areas.

        Args:
            grid: any grid.
            window: cells of it.
        """
        out = np.zeros(window.shape)
        step_x, step_y = float(grid.step_x), float(grid.step_y)
        west, north = float(grid.west + window.column * grid.step_x), float(grid.north - window.row * grid.step_y)
        low_x, _, high_x, _ = self.outline.bounds
        for turn in TURNS:
            left = west + turn
            if not (low_x < left + window.width * step_x and high_x > left):
                continue
            xs = left + step_x * np.arange(window.width + 1)
            ys = ground_km2(north - step_y * np.arange(window.height + 1, dtype=np.float64))
            whole = shapely.box(xs[0], ys[-1], xs[-1], ys[0])
            here = shapely.intersection(self.ground, whole)
            if here.is_empty or here.equals(whole):  # most windows of a large polygon
                out += float(not here.is_empty)
                continue
            place = Affine(step_x, 0.0, left, 0.0, -step_y, north)
            inside = _burnt(self.outline, place, window.shape, touched=False).astype(np.float64)
            edge = _burnt(self.outline.boundary, place, window.shape, touched=True)
            for square in windows(window.shape, (NEAR, NEAR)):
                y, x = np.nonzero(edge[square.rows, square.columns])
                if not y.size:
                    continue
                y, x = y + square.row, x + square.column
                cells = shapely.box(xs[x], ys[y + 1], xs[x + 1], ys[y])
                bounds = (xs[x.min()], ys[y.max() + 1], xs[x.max() + 1], ys[y.min()])
                near = shapely.intersection(here, shapely.box(*bounds))
                areas = shapely.area(cells)
                covered = shapely.area(shapely.intersection(near, cells))
                inside[y, x] = np.divide(covered, areas, out=np.zeros(y.size), where=areas > 0)
            out += inside
        out[out < NOISE] = 0.0
        out[out > 1 - NOISE] = 1.0
        return out


def _flat(places: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([places[:, 0], ground_km2(places[:, 1])], axis=1)


def _box(grid: Grid, window: Window) -> tuple[float, float, float, float]:
    """West, south, east, north: degrees of longitude, and ``ground_km2``."""
    west, north = grid.west + window.column * grid.step_x, grid.north - window.row * grid.step_y
    ends = ground_km2(np.array([float(north - window.height * grid.step_y), float(north)]))
    return float(west), float(ends[0]), float(west + window.width * grid.step_x), float(ends[1])


def _burnt(shape: Any, place: Affine, size: tuple[int, int], *, touched: bool) -> NDArray[np.bool_]:
    burnt = rasterio.features.rasterize([shape], out_shape=size, transform=place, dtype="uint8", all_touched=touched)
    return np.asarray(burnt, dtype=np.bool_)
