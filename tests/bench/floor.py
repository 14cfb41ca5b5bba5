"""The floor: a tile drawn from a level that lies in memory - gather, one table, palette PNG - and nothing else."""

import struct
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from rio_tiler.colormap import cmap

from services.core.dataset import Dataset
from services.core.grid import Grid, Window
from tests.bench.stacks import MISSING, Stack

SIZE = 256
"""Pixels of a tile."""

type Axis = tuple[slice, slice, NDArray[np.intp]]
"""Pixels that lie on the grid, the cells they need, and which of these each takes."""


def pixel_degrees(zoom: int) -> float:
    """Degrees of longitude of a tile's pixel."""
    return 360.0 / (SIZE << zoom)


def viridis() -> list[tuple[int, int, int]]:
    """The 256 colours of the scale."""
    colours: Any = cmap.get("viridis")
    return [tuple(colours[shade][:3]) for shade in range(256)]


@dataclass(frozen=True)
class Floor:
    """One month of a stack."""

    dataset: Dataset
    stack: Stack
    month: int

    @cached_property
    def _levels(self) -> dict[int, tuple[Grid, NDArray[np.int16]]]:
        return {}

    @cached_property
    def table(self) -> NDArray[np.uint8]:
        """Stored value, seen as uint16, to palette index; 0 is missing."""
        low, high = self.stack.ranges
        stored = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.float64)
        values = stored * self.stack.scale + self.stack.offset
        index = 1 + np.clip((values - low) / (high - low) * 255, 0, 254)
        index[stored == MISSING] = 0
        return index.astype(np.uint8)

    @cached_property
    def palette(self) -> bytes:
        """PNG chunks of the palette."""
        colours = viridis()
        shades = [(0, 0, 0), *(colours[round(shade * 255 / 254)] for shade in range(255))]
        return _chunk(b"PLTE", bytes(part for shade in shades for part in shade)) + _chunk(b"tRNS", b"\0")

    def level(self, zoom: int) -> tuple[Grid, NDArray[np.int16]]:
        """The map of the level that a zoom is drawn from, whole, in memory."""
        grid = self.dataset.product.grid
        number = grid.coarsest(pixel_degrees(zoom))
        if number not in self._levels:
            grid = grid.level(number)
            (quantity,) = self.dataset.product.quantities
            window = Window(row=0, column=0, height=grid.height, width=grid.width)
            self._levels[number] = grid, self.dataset.read_map(quantity, self.month, number, window)
        return self._levels[number]

    def gather(self, zoom: int, x: int, y: int) -> NDArray[np.uint8]:
        """Palette indices of a tile, nearest cells."""
        grid, stored = self.level(zoom)
        rows_out, rows_in, rows = _rows(grid, zoom, y)
        columns_out, columns_in, columns = _columns(grid, zoom, x)
        out = np.zeros((SIZE, SIZE), dtype=np.uint8)
        cells = stored[rows_in, columns_in].take(rows, axis=0).take(columns, axis=1)
        out[rows_out, columns_out] = self.table[cells.view(np.uint16)]
        return out

    def draw(self, zoom: int, x: int, y: int) -> bytes:
        """A tile as PNG."""
        filtered = np.zeros((SIZE, SIZE + 1), dtype=np.uint8)
        filtered[:, 1:] = self.gather(zoom, x, y)
        return b"".join(
            (
                b"\x89PNG\r\n\x1a\n",
                _chunk(b"IHDR", struct.pack("!IIBBBBB", SIZE, SIZE, 8, 3, 0, 0, 0)),
                self.palette,
                _chunk(b"IDAT", isal_zlib.compress(filtered, 1)),
                _chunk(b"IEND", b""),
            )
        )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack("!I", len(content)) + kind + content + struct.pack("!I", zlib.crc32(kind + content))


@lru_cache(maxsize=4096)
def _rows(grid: Grid, zoom: int, y: int) -> Axis:
    pixels = (y * SIZE + np.arange(SIZE) + 0.5) / (SIZE << zoom)
    latitude = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * pixels)))).astype(np.float64)
    return _axis((float(grid.north) - latitude) / float(grid.step_y), grid.height)


@lru_cache(maxsize=4096)
def _columns(grid: Grid, zoom: int, x: int) -> Axis:
    longitude = (x * SIZE + np.arange(SIZE) + 0.5) * pixel_degrees(zoom) - 180
    return _axis((longitude - float(grid.west)) / float(grid.step_x), grid.width)


def _axis(places: NDArray[np.floating[Any]], count: int) -> Axis:
    """Places are in cells and rise: those on the grid are one run."""
    cells = np.floor(places).astype(np.intp)
    inside = np.flatnonzero((cells >= 0) & (cells < count))
    if not inside.size:
        return slice(0, 0), slice(0, 0), inside
    chosen = cells[inside]
    first, last = int(chosen[0]), int(chosen[-1])
    return slice(int(inside[0]), int(inside[-1]) + 1), slice(first, last + 1), chosen - first
