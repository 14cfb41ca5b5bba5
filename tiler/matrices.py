"""Tile matrix sets: titiler's, and the part of one that a grid touches."""

from dataclasses import dataclass
from functools import cache
from typing import Annotated

from fastapi import Path
from morecantile import TileMatrixSet
from morecantile import tms as every_tms
from rio_tiler.errors import TileOutsideBounds

from services.core.grid import Grid
from tiler.reader import native_zoom
from tiler.warp import Bounds

NAMES: tuple[str, ...] = tuple(sorted(every_tms.list()))

type MatrixSetId = Annotated[str, Path(alias="tileMatrixSetId", description=f"One of {', '.join(NAMES)}.")]

EDGE = 1e-9
"""A tile that a box touches by less than this share of itself is not part of it."""


@cache
def matrix_set(name: str) -> TileMatrixSet:
    """A tile matrix set by its id.

    Raises:
        TileOutsideBounds: if there is none; the message names those there are.
    """
    if name not in NAMES:
        raise TileOutsideBounds(f"there is no tile matrix set {name[:60]!r}; there are {', '.join(NAMES)}")
    found: TileMatrixSet = every_tms.get(name)
    return found


def zoom_of(tms: TileMatrixSet, tile_matrix: str) -> int:
    """The zoom of a tile matrix by its id.

    Raises:
        TileOutsideBounds: if there is none.
    """
    for matrix in tms.tileMatrices:
        if matrix.id == tile_matrix:
            return int(matrix.id)
    raise TileOutsideBounds(f"{tms.id} has no tile matrix {tile_matrix[:60]!r}; it has {tms.minzoom} to {tms.maxzoom}")


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Which part of a matrix set shows a grid."""

    bounds: Bounds
    """West, south, east, north in degrees, inside the grid and inside the matrix set; -180..180."""

    minzoom: int
    maxzoom: int
    """First zoom at which no cell is narrower than a pixel."""


def extent(tms: TileMatrixSet, grid: Grid, tilesize: int | None = None) -> Extent:
    """Where and how deep tiles of a grid are worth asking for."""
    west, south, east, north = grid.bounds
    if east > 180:
        west, east = -180.0, 180.0
    left, bottom, right, top = tms.bbox
    if left > right:
        left, right = -180.0, 180.0
    inside = (max(west, left), max(south, bottom), min(east, right), min(north, top))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        inside = (west, south, east, north)  # no tile shows it; say at least where it lies
    cell = float(min(grid.step_x, grid.step_y))
    return Extent(bounds=inside, minzoom=int(tms.minzoom), maxzoom=native_zoom(tms, cell, tilesize))
