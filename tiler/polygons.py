"""How much of each cell an area covers, on the sphere, and means over it."""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon

from services.core.errors import RequestTooLarge
from services.core.grid import CIRCLE, Window
from tiler.cells import SLIVER, Cells
from tiler.geometry import Box, rings

EARTH_RADIUS_KM = 6371.0088
"""Mean radius R1 of the Earth (IUGG)."""

MOST_CROSSINGS = 2_000_000
"""Pieces into which the cells' edges may cut an outline; a zigzag of few vertices can make very many."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(5)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2

_NEARLY = 1e-9
"""Rounding of a sum over a row of cells: a fraction this near to 1 is 1."""


def boxes_of(area: MultiPolygon) -> list[Box]:
    """The bounding box of each part."""
    return [(west, south, east, north) for west, south, east, north in shapely.bounds(list(area.geoms)).tolist()]


@dataclass(frozen=True, kw_only=True)
class Outline:
    """The edges of an area, ready to be laid over cells."""

    edges: NDArray[np.float64]
    """``(n, 4)``: longitude and latitude of both ends, degrees."""

    west: float
    east: float
    size: float
    """Of the area, square degrees."""

    @classmethod
    def of(cls, area: MultiPolygon) -> "Outline":
        """The outline of an area."""
        west, _, east, _ = area.bounds
        return cls(edges=_edges(area), west=float(west), east=float(east), size=float(area.area))

    def covered(self, cells: Cells, least: float | None = None) -> NDArray[np.float64]:
        """What ``covered_fraction`` answers."""
        grid = cells.grid
        if least is None:
            # an area much smaller than a cell is no sliver of it
            least = SLIVER * min(1.0, self.size / float(grid.step_x * grid.step_y))
        turn = float(CIRCLE / grid.step_x)
        # a piece counts for the rows that it passes through, and for no other
        north = float(grid.north) - cells.row * float(grid.step_y)
        south = north - cells.height * float(grid.step_y)
        low, high = np.minimum(self.edges[:, 1], self.edges[:, 3]), np.maximum(self.edges[:, 1], self.edges[:, 3])
        edges = self.edges[(high > south) & (low < north)]
        out: list[NDArray[np.float64]] = []
        for window in cells.windows:
            total = np.zeros(window.shape, dtype=np.float64)
            for turns in range(-2, 3):
                left = (self.west - float(grid.west)) / float(grid.step_x) + turns * turn - window.column
                right = (self.east - float(grid.west)) / float(grid.step_x) + turns * turn - window.column
                if right > 0 and left < window.width:
                    total += _swept(edges, cells, window, turns * turn)
            out.append(total)
        swept = out[0] if len(out) == 1 else np.concatenate(out, axis=1)
        fraction = np.clip(swept / cells.row_areas[:, np.newaxis], 0.0, 1.0)
        fraction[fraction > 1 - _NEARLY] = 1.0
        fraction[fraction < least] = 0.0
        return fraction


def covered_fraction(area: MultiPolygon, cells: Cells, least: float | None = None) -> NDArray[np.float64]:
    """Share of each cell's area on the sphere that an area covers, ``(y, x)``, 0..1.

    The outline is cut at every edge of a cell; each piece adds the area between itself and the eastern edge of its
    cell to that cell, and its whole height to all cells further east of it (signed by its direction, so that inside
    remains). Heights are measured in the sine of the latitude, so areas are those on the sphere: the integral of
    cos(latitude) along a straight piece, by 5-point Gauss-Legendre (relative error below 1e-12 for cells up to 10
    degrees).

    Args:
        area: longitude and latitude in degrees.
        cells: which.
        least: a smaller share is none; if not given, a millionth, or of an area smaller than a cell a millionth of it.

    Raises:
        RequestTooLarge: if the outline crosses too many cells.
    """
    return Outline.of(area).covered(cells, least)


def area_km2(area: MultiPolygon) -> float:
    """Area on the sphere whose edges are straight in longitude and latitude, square kilometres."""
    total = 0.0
    for x0, y0, x1, y1 in _edges(area).tolist():
        pieces = max(int(np.ceil(abs(y1 - y0))), 1)
        cuts = np.linspace(0.0, 1.0, pieces + 1)[:-1, np.newaxis] + _NODES / pieces
        along = (x0 + (x1 - x0) * cuts) * np.cos(np.radians(y0 + (y1 - y0) * cuts))
        total += float((along * _WEIGHTS).sum()) / pieces * (y1 - y0)
    return abs(total) * (np.pi / 180) ** 2 * EARTH_RADIUS_KM**2


def mean_of(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Weighted mean of at least one value, ``(n,)``; of equal values it is that value to the last digit.

    What is averaged is how far values lie from the first one: sums of the values themselves round off.
    """
    first = values[0]
    return float(first + ((values - first) * weights).sum() / weights.sum())


def _edges(area: MultiPolygon) -> NDArray[np.float64]:
    """All edges ``(n, 4)``: longitude and latitude of both ends, degrees."""
    return np.concatenate([np.concatenate([ring[:-1], ring[1:]], axis=1) for ring in rings(area)])


def _swept(edges: NDArray[np.float64], cells: Cells, window: Window, shift: float) -> NDArray[np.float64]:
    """Area inside each cell of a window, ``(y, x)``, in columns times sine of latitude."""
    grid = cells.grid
    height, width = window.shape
    x0, y0, x1, y1 = edges.T
    u0, u1 = ((x - float(grid.west)) / float(grid.step_x) + shift - window.column for x in (x0, x1))
    v0, v1 = ((float(grid.north) - y) / float(grid.step_y) - window.row for y in (y0, y1))
    edge, cut = _cuts(u0, u1, v0, v1, height, width)
    same = edge[1:] == edge[:-1]
    edge, start, end = edge[1:][same], cut[:-1][same], cut[1:][same]
    middle = (start + end) / 2
    row = np.floor(v0[edge] + (v1 - v0)[edge] * middle).astype(np.int64)
    column = np.floor(u0[edge] + (u1 - u0)[edge] * middle).astype(np.int64)
    keep = (row >= 0) & (row < height) & (column < width)
    edge, start, end, row, column = edge[keep], start[keep], end[keep], row[keep], column[keep]

    nodes = start[:, np.newaxis] + (end - start)[:, np.newaxis] * _NODES
    latitude = y0[edge][:, np.newaxis] + (y1 - y0)[edge][:, np.newaxis] * nodes
    place = u0[edge][:, np.newaxis] + (u1 - u0)[edge][:, np.newaxis] * nodes
    # going south with the inside to the east, a piece opens what lies east of it
    rise = -np.radians((y1 - y0)[edge]) * (end - start)
    heights = np.cos(np.radians(latitude)) * _WEIGHTS * rise[:, np.newaxis]

    swept = np.zeros((height, width), dtype=np.float64)
    inside = column >= 0
    beyond = np.where(inside, column + 1, 0)
    further = beyond < width
    np.add.at(swept, (row[further], beyond[further]), heights[further].sum(axis=1))
    np.cumsum(swept, axis=1, out=swept)
    east = ((column[inside] + 1)[:, np.newaxis] - place[inside]) * heights[inside]
    np.add.at(swept, (row[inside], column[inside]), east.sum(axis=1))
    return swept


def _cuts(
    u0: NDArray[np.float64],
    u1: NDArray[np.float64],
    v0: NDArray[np.float64],
    v1: NDArray[np.float64],
    height: int,
    width: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where edges start, end and cross a cell's edge: edge number and place along it 0..1, sorted by both."""
    count = len(u0)
    numbers = [np.arange(count), np.arange(count)]
    places = [np.zeros(count), np.ones(count)]
    crossings = 2 * count
    for first, last, size in ((u0, u1, width), (v0, v1, height)):
        low = np.maximum(np.ceil(np.minimum(first, last)), 0).astype(np.int64)
        high = np.minimum(np.floor(np.maximum(first, last)), size).astype(np.int64)
        each = np.maximum(high - low + 1, 0)
        each[first == last] = 0
        crossings += int(each.sum())
        if crossings > MOST_CROSSINGS:
            raise RequestTooLarge(
                f"the outline crosses more than {MOST_CROSSINGS} edges of cells; simplify it or ask for a smaller area"
            )
        edge = np.repeat(np.arange(count), each)
        line = np.arange(len(edge)) - np.repeat(np.cumsum(each) - each, each) + low[edge]
        numbers.append(edge)
        places.append(np.clip((line - first[edge]) / (last - first)[edge], 0.0, 1.0))
    edge, place = np.concatenate(numbers), np.concatenate(places)
    order = np.lexsort((place, edge))
    return edge[order], place[order]
