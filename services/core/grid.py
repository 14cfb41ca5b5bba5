"""Where values lie: a regular longitude/latitude grid in exact fractions of a degree, and how it is cut into chunks."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from services.core.errors import DeclarationError, PositionOutside

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

CIRCLE = Fraction(360)
"""One turn of longitude in degrees."""

_SEMI_MAJOR_KM = 6378.137
_FLATTENING = 1 / 298.257223563
"""WGS84."""

SHARD_CHUNKS = 4
"""Chunks per shard along each of y and x (DESIGN 3)."""

WIDEST_LEVEL_CELL = Fraction(360, 256)
"""Levels are made while their cell is no wider than this: the pixel of a 256-pixel tile of the whole world."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A rectangle of cells of one level: half-open ranges of rows (north to south) and columns (west to east)."""

    row: int
    column: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.row < 0 or self.column < 0 or self.height < 1 or self.width < 1:
            raise DeclarationError(
                f"a window needs row, column >= 0 and height, width >= 1, not "
                f"({self.row}, {self.column}, {self.height}, {self.width})"
            )

    @property
    def rows(self) -> slice:
        """The rows as a slice."""
        return slice(self.row, self.row + self.height)

    @property
    def columns(self) -> slice:
        """The columns as a slice."""
        return slice(self.column, self.column + self.width)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return (self.height, self.width)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A regular grid in EPSG:4326, north up, longitudes rising from ``west``.

    Values belong to cells ``step_x`` by ``step_y`` degrees; a node grid (values on -90, -89.75, ...) is the grid of
    cells centred on its nodes, so ``north`` may be 90 degrees plus half a cell.

    Raises:
        DeclarationError: if the numbers contradict each other.
    """

    west: Fraction
    """Western edge of the first column, degrees, in [-180 - step_x / 2, 180)."""

    north: Fraction
    """Northern edge of the first row, degrees."""

    step_x: Fraction
    """Width of a cell, degrees."""

    step_y: Fraction
    """Height of a cell, degrees, positive."""

    width: int
    """Number of columns."""

    height: int
    """Number of rows."""

    chunk_y: int
    """Rows of a chunk."""

    chunk_x: int
    """Columns of a chunk."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise DeclarationError(f"a grid needs at least one cell, not {self.width} x {self.height}")
        if self.step_x <= 0 or self.step_y <= 0:
            raise DeclarationError(f"cells must have a size, not {self.step_x} x {self.step_y} degrees")
        if not 1 <= self.chunk_y <= self.height or not 1 <= self.chunk_x <= self.width:
            raise DeclarationError(
                f"a chunk of {self.chunk_x} x {self.chunk_y} does not lie in a grid of {self.width} x {self.height}"
            )
        if self.width * self.step_x > CIRCLE:
            raise DeclarationError(
                f"{self.width} columns of {self.step_x} degrees pass a whole turn of 360 degrees: "
                "is a seam column stored twice?"
            )
        if not -180 - self.step_x / 2 <= self.west < 180:
            raise DeclarationError(f"the western edge must lie in -180..180 degrees, not at {float(self.west)}")
        half = self.step_y / 2
        if self.north > 90 + half or self.south < -90 - half:
            raise DeclarationError(
                f"latitudes {float(self.south)}..{float(self.north)} pass the poles by more than half a cell"
            )

    @classmethod
    def of(
        cls,
        *,
        west: Fraction | str | int,
        north: Fraction | str | int,
        step_x: Fraction | str,
        step_y: Fraction | str | None = None,
        width: int,
        height: int,
    ) -> "Grid":
        """A grid with the chunks of DESIGN 3; numbers may be written as fractions (``"1/120"``)."""
        chunk = chunk_width(width, Fraction(step_x))
        return cls(
            west=Fraction(west),
            north=Fraction(north),
            step_x=Fraction(step_x),
            step_y=Fraction(step_x if step_y is None else step_y),
            width=width,
            height=height,
            chunk_y=min(chunk, height),
            chunk_x=min(chunk, width),
        )

    @property
    def east(self) -> Fraction:
        """Eastern edge of the last column, degrees; may pass 180 where the grid crosses the antimeridian."""
        return self.west + self.width * self.step_x

    @property
    def south(self) -> Fraction:
        """Southern edge of the last row, degrees."""
        return self.north - self.height * self.step_y

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self.height, self.width)

    @property
    def cells(self) -> int:
        """Number of cells of one map."""
        return self.height * self.width

    @property
    def is_global(self) -> bool:
        """Whether the columns go all the way round, so that the last one touches the first."""
        return self.width * self.step_x == CIRCLE

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine coefficients a, b, c, d, e, f: x = a * column + c, y = e * row + f."""
        return (float(self.step_x), 0.0, float(self.west), 0.0, -float(self.step_y), float(self.north))

    @cached_property
    def geobox(self) -> "GeoBox":
        """The same grid as an odc-geo GeoBox."""
        from odc.geo.geobox import GeoBox  # noqa: PLC0415 - a second to load, and few ask for it

        return GeoBox(self.shape, Affine(*self.transform), "EPSG:4326")

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees, cut at the poles and, for a global grid, -180..180."""
        west, east = (Fraction(-180), Fraction(180)) if self.is_global else (self.west, self.east)
        return (float(west), float(max(self.south, Fraction(-90))), float(east), float(min(self.north, Fraction(90))))

    @cached_property
    def longitudes(self) -> NDArray[np.float64]:
        """Centres of the columns, degrees east, west to east; may pass 180 at the antimeridian."""
        return _centres(self.west, self.step_x, self.width)

    @cached_property
    def latitudes(self) -> NDArray[np.float64]:
        """Centres of the rows, degrees north, north to south."""
        return _centres(self.north, -self.step_y, self.height)

    @cached_property
    def row_areas(self) -> NDArray[np.float64]:
        """Relative area of a cell of each row, ``(y,)``: sin(north edge) - sin(south edge) on the sphere.

        The part of a cell beyond a pole has no area. A level is a mean inside one column's width, so that the
        width cancels and only this factor is left.
        """
        edges = float(self.north) - float(self.step_y) * np.arange(self.height + 1, dtype=np.float64)
        sines = np.sin(np.radians(np.clip(edges, -90.0, 90.0)))
        return sines[:-1] - sines[1:]

    @cached_property
    def row_areas_km2(self) -> NDArray[np.float64]:
        """Area of a cell of each row on the WGS84 ellipsoid, ``(y,)``, km2; the part beyond a pole has none.

        The strips of ``ground_km2`` between its edges.
        """
        edges = float(self.north) - float(self.step_y) * np.arange(self.height + 1, dtype=np.float64)
        up = ground_km2(edges)
        areas: NDArray[np.float64] = float(self.step_x) * (up[:-1] - up[1:])
        return areas

    @cached_property
    def levels(self) -> int:
        """Number of levels including level 0: halved while a cell is no wider than a world tile's pixel."""
        count, step, size = 1, self.step_x, min(self.width, self.height)
        while step * 2 <= WIDEST_LEVEL_CELL and size > 1:
            count, step, size = count + 1, step * 2, -(-size // 2)
        return count

    def level(self, number: int) -> "Grid":
        """The grid of a level: cells 2^number times as wide and high, sizes rounded up, same north-west corner."""
        if not 0 <= number < self.levels:
            raise DeclarationError(f"level {number} is not one of the {self.levels} levels of this grid")
        if number == 0:
            return self
        factor = 2**number
        height, width = -(-self.height // factor), -(-self.width // factor)
        return _LevelGrid(
            west=self.west,
            north=self.north,
            step_x=self.step_x * factor,
            step_y=self.step_y * factor,
            width=width,
            height=height,
            chunk_y=min(self.chunk_y, height),
            chunk_x=min(self.chunk_x, width),
        )

    def coarsest(self, pixel: float) -> int:
        """The coarsest level whose cell is no wider in longitude than ``pixel`` degrees, else level 0 (DESIGN 3)."""
        level = 0
        while level + 1 < self.levels and float(self.step_x) * 2 ** (level + 1) <= pixel * (1 + 1e-9):
            level += 1
        return level

    @property
    def shard_shape(self) -> tuple[int, int]:
        """Rows and columns of a shard; a grid smaller than a shard has one."""
        return (
            self.chunk_y * min(SHARD_CHUNKS, -(-self.height // self.chunk_y)),
            self.chunk_x * min(SHARD_CHUNKS, -(-self.width // self.chunk_x)),
        )

    def shards(self) -> Iterator[Window]:
        """The windows of the whole shards, row by row."""
        yield from windows(self.shape, self.shard_shape)

    def chunks(self) -> Iterator[Window]:
        """The windows of the chunks, row by row."""
        yield from windows(self.shape, (self.chunk_y, self.chunk_x))

    @cached_property
    def _corner(self) -> tuple[float, float, float, float]:
        """Western and northern edge, and a cell's width and height: to divide a fraction takes its time."""
        return float(self.west), float(self.north), float(self.step_x), float(self.step_y)

    def locate(self, longitude: float, latitude: float) -> tuple[int, int]:
        """Row and column of the cell that holds a place.

        Args:
            longitude: degrees east, any turn (-180..360).
            latitude: degrees north.

        Raises:
            PositionOutside: if no cell holds it.
        """
        if not (math.isfinite(longitude) and math.isfinite(latitude)):
            raise PositionOutside(f"longitude {longitude}, latitude {latitude} is no place")
        edge_x, edge_y, step_x, step_y = self._corner
        turns = (longitude - edge_x) % 360.0
        column = int(turns / step_x)
        if column == self.width and turns <= float(self.width * self.step_x):
            column -= 1  # the eastern edge itself
        row = math.floor((edge_y - latitude) / step_y)
        if row == self.height and latitude >= float(self.south):
            row -= 1  # the southern edge itself
        if not (0 <= row < self.height and 0 <= column < self.width and -90 <= latitude <= 90):
            west, south, east, north = self.bounds
            raise PositionOutside(
                f"longitude {longitude:g}, latitude {latitude:g} lies outside the grid "
                f"({west:g}..{east:g} east, {south:g}..{north:g} north)"
            )
        return row, column

    def subgrid(self, window: Window) -> "Grid":
        """The grid of a window of this one, with chunks of its own."""
        if window.row + window.height > self.height or window.column + window.width > self.width:
            raise DeclarationError(f"window {window} passes a grid of {self.width} x {self.height} cells")
        west = self.west + window.column * self.step_x
        if west >= 180:
            west -= CIRCLE
        return Grid.of(
            west=west,
            north=self.north - window.row * self.step_y,
            step_x=self.step_x,
            step_y=self.step_y,
            width=window.width,
            height=window.height,
        )


@dataclass(frozen=True, kw_only=True)
class _LevelGrid(Grid):
    """A level above 0: its last column and row may pass the edge of the level-0 grid, so fewer checks hold."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise DeclarationError(f"a level needs at least one cell, not {self.width} x {self.height}")


def ground_km2(latitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area between the equator and parallels on the WGS84 ellipsoid, km2 for a degree of longitude; south is negative.

    A = b^2 dlon q with q(p) = sin p / (2 (1 - e^2 sin^2 p)) + artanh(e sin p) / (2 e) (Snyder, 1987, USGS Professional
    Paper 1395, equation 3-12, which has twice this q times 1 - e^2). As a northing it makes a map of equal areas.

    Args:
        latitudes: degrees, of any shape; beyond a pole there is no more.
    """
    sine = np.sin(np.radians(np.clip(latitudes, -90.0, 90.0)))
    squared = _FLATTENING * (2 - _FLATTENING)
    eccentricity = math.sqrt(squared)
    q = sine / (2 * (1 - squared * sine**2)) + np.arctanh(eccentricity * sine) / (2 * eccentricity)
    ground: NDArray[np.float64] = (_SEMI_MAJOR_KM * (1 - _FLATTENING)) ** 2 * math.radians(1.0) * q
    return ground


def _centres(edge: Fraction, step: Fraction, count: int) -> NDArray[np.float64]:
    # a quotient of whole numbers is rounded once: every centre is the float nearest to the exact value
    first, scale = edge + step / 2, (edge + step / 2).denominator * step.denominator
    start, stride = int(first * scale), int(step * scale)
    return np.fromiter(((start + stride * number) / scale for number in range(count)), np.float64, count)


def windows(shape: tuple[int, int], size: tuple[int, int]) -> Iterator[Window]:
    """Cut a rectangle of cells into windows of at most ``size``, row by row."""
    for row in range(0, shape[0], size[0]):
        for column in range(0, shape[1], size[1]):
            yield Window(
                row=row,
                column=column,
                height=min(size[0], shape[0] - row),
                width=min(size[1], shape[1] - column),
            )


def chunk_width(width: int, step: Fraction) -> int:
    """Columns of a chunk: 360 / 2^n degrees nearest to 512 columns for a global grid, else 512 (DESIGN 3).

    A Web Mercator tile then touches at most two chunks.
    """
    if width * step != CIRCLE:
        return min(512, width)
    halvings = [width >> n for n in range(width.bit_length()) if width % (1 << n) == 0]
    nearest = min(halvings, key=lambda columns: abs(np.log(columns / 512)))
    return nearest if 256 <= nearest <= 1024 or nearest == width < 256 else min(512, width)


MOST_PIECES = 64
"""Series chunks along a side of a shard, where that can be: its index, 16 bytes for each, then has at most 64 KiB."""

WIDEST_PIECE = 64
"""Cells along a side of a series chunk: a place reads all of them. A prime width above has chunks of one cell."""


def inner_chunk(chunk: int) -> int:
    """Rows or columns of a series chunk: of the divisors of a map chunk the one nearest to 8 (decision 0010).

    A series of one place reads all cells of its chunk, and keeps them; but each chunk has its place in an index.
    """
    narrow = [cells for cells in range(1, min(chunk, WIDEST_PIECE) + 1) if chunk % cells == 0]
    few = [cells for cells in narrow if chunk // cells <= MOST_PIECES]
    return min(few or narrow[-1:], key=lambda cells: abs(np.log(cells / 8)))
