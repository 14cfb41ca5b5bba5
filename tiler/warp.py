"""Maps on other grids: for each pixel the cell under its centre, gathered straight from the chunks that are touched."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from services.core import layout
from services.core.dataset import Dataset
from services.core.errors import RequestTooLarge
from services.core.grid import CIRCLE, Grid, Window
from services.core.quantity import Quantity
from services.core.segment import StoredArray
from tiler.loading import LoadingCache
from tiler.memory import need

TURN = 360.0
METRES_PER_DEGREE = math.pi * 6378137 / 180
"""Along the equator of WGS 84 and of Web Mercator's sphere."""

OUTSIDE = -1
"""Index of a pixel that no cell lies under."""

HALO = 8
"""Cells read around a window for filters that look beyond a pixel: lanczos of a pixel two cells wide reaches 6."""

_RADIUS = 6378137.0
_LONGLAT = frozenset({"EPSG:4326", "OGC:CRS84"})
_CYLINDRICAL = frozenset({"EPSG:3395"})
"""Longitude depends on x alone and latitude on y alone."""

type Bounds = tuple[float, float, float, float]
type Float = NDArray[np.float64]
type Index = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The pixels of an image: where their centres lie on the Earth."""

    crs: CRS
    bounds: Bounds
    """Left, bottom, right, top in ``crs``; right may pass 180 degrees."""

    width: int
    height: int

    @property
    def transform(self) -> Affine:
        """From pixels to ``crs``."""
        left, _, _, top = self.bounds
        return Affine.translation(left, top) @ Affine.scale(self.pixel_width, -self.pixel_height)

    @property
    def pixel_width(self) -> float:
        """In units of ``crs``."""
        return (self.bounds[2] - self.bounds[0]) / self.width

    @property
    def pixel_height(self) -> float:
        """In units of ``crs``."""
        return (self.bounds[3] - self.bounds[1]) / self.height

    @property
    def is_separable(self) -> bool:
        """Whether a row has one latitude and a column one longitude."""
        return self._name in _LONGLAT | _CYLINDRICAL | {"EPSG:3857"}

    @cached_property
    def centres(self) -> tuple[Float, Float]:
        """Longitudes and latitudes of the pixel centres in degrees.

        ``(x,)`` and ``(y,)`` where separable, else both ``(y, x)``; infinite where a pixel lies nowhere on Earth.
        """
        left, _, _, top = self.bounds
        x = left + (np.arange(self.width, dtype=np.float64) + 0.5) * self.pixel_width
        y = top - (np.arange(self.height, dtype=np.float64) + 0.5) * self.pixel_height
        if self._name in _LONGLAT:
            return x, y
        if self._name == "EPSG:3857":
            longitudes: Float = np.degrees(x / _RADIUS)
            latitudes: Float = np.degrees(np.arctan(np.sinh(y / _RADIUS)))
            return longitudes, latitudes
        if self._name in _CYLINDRICAL:
            return self._places(x, np.zeros_like(x))[0], self._places(np.zeros_like(y), y)[1]
        return _projected_centres(self.crs.to_wkt(), self.bounds, self.width, self.height)

    @cached_property
    def row_edges(self) -> Float:
        """Latitudes of the edges between rows of a separable target ``(y + 1,)``, north to south."""
        left, bottom, right, top = self.bounds
        half = self.pixel_height / 2
        bounds = (left, bottom - half, right, top + half)
        return Target(crs=self.crs, bounds=bounds, width=self.width, height=self.height + 1).centres[1]

    @cached_property
    def pixel_degrees(self) -> float:
        """Width of a pixel in degrees of longitude, at the image's centre where it varies."""
        if self._name in _LONGLAT:
            return self.pixel_width
        if self._name == "EPSG:3857" or self._name in _CYLINDRICAL:
            return math.degrees(self.pixel_width / _RADIUS)
        left, bottom, right, top = self.bounds
        x, y = (left + right) / 2, (bottom + top) / 2
        half_x, half_y = self.pixel_width / 2, self.pixel_height / 2
        longitudes, _ = self._places(np.array([x - half_x, x + half_x, x, x]), np.array([y, y, y - half_y, y + half_y]))
        if not np.isfinite(longitudes).all():
            return self.pixel_width * _degrees_per_unit(self.crs)
        # the turn of the projection at this place does not change how wide a square pixel is
        across, along = (_nearest_turn(float(longitudes[i + 1] - longitudes[i])) for i in (0, 2))
        return math.hypot(across, along)

    @cached_property
    def _name(self) -> str:
        return crs_name(self.crs)

    def _places(self, x: Float, y: Float) -> tuple[Float, Float]:
        return _places(self.crs.to_wkt(), x, y)


@lru_cache(maxsize=64)
def crs_name(crs: CRS) -> str:
    """``EPSG:3857`` and the like; the WKT where there is no such name."""
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.to_wkt())


@lru_cache(maxsize=64)
def _to_longlat(wkt: str) -> pyproj.Transformer:
    # its transformers are safe to share between threads since pyproj 3.1
    return pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(wkt), "OGC:CRS84", always_xy=True)


def _places(wkt: str, x: Float, y: Float) -> tuple[Float, Float]:
    longitudes, latitudes = _to_longlat(wkt).transform(x, y)
    return np.asarray(longitudes), np.asarray(latitudes)


CENTRES_BYTES = 16 * 2**20
"""Memory for places of pixels: 16 tiles of a projection, 256 pixels wide."""

_CENTRES: LoadingCache[tuple[str, Bounds, int, int], tuple[Float, Float]] = LoadingCache(
    CENTRES_BYTES, lambda places: sum(place.nbytes for place in places) + 2000
)


def _projected_centres(wkt: str, bounds: Bounds, width: int, height: int) -> tuple[Float, Float]:
    """Places of the pixel centres, ``(y, x)``, read-only.

    Kept, because transforming 65 536 places takes longer than all else, and a time slider asks for the same tile of
    one period after the other.
    """
    return _CENTRES.get((wkt, bounds, width, height), lambda: _centres(wkt, bounds, width, height))


def _centres(wkt: str, bounds: Bounds, width: int, height: int) -> tuple[Float, Float]:
    left, bottom, right, top = bounds
    x = left + (np.arange(width, dtype=np.float64) + 0.5) * ((right - left) / width)
    y = top - (np.arange(height, dtype=np.float64) + 0.5) * ((top - bottom) / height)
    found = _places(wkt, *np.meshgrid(x, y))
    for part in found:
        part.flags.writeable = False
    return found


def _degrees_per_unit(crs: CRS) -> float:
    return 1.0 if crs.is_geographic else float(crs.linear_units_factor[1]) / METRES_PER_DEGREE


def _nearest_turn(degrees: float) -> float:
    return (degrees + TURN / 2) % TURN - TURN / 2


def columns_under(grid: Grid, longitudes: Float) -> Index:
    """Columns of the cells under some longitudes, any turn; ``OUTSIDE`` where there is none."""
    return _whole(_turned(grid, longitudes) / float(grid.step_x), grid.width)


def rows_under(grid: Grid, latitudes: Float) -> Index:
    """Rows of the cells under some latitudes; ``OUTSIDE`` where there is none."""
    return _whole((float(grid.north) - latitudes) / float(grid.step_y), grid.height)


def fractional(grid: Grid, longitudes: Float, latitudes: Float) -> tuple[Float, Float]:
    """Columns and rows with their fractions: 0.5 is the centre of the first cell."""
    return _turned(grid, longitudes) / float(grid.step_x), (float(grid.north) - latitudes) / float(grid.step_y)


def _turned(grid: Grid, longitudes: Float) -> Float:
    """Degrees east of the grid's western edge, 0..360; not a number where a longitude is infinite."""
    with np.errstate(invalid="ignore"):
        degrees = np.mod(longitudes - float(grid.west), TURN)
    # the remainder of the smallest negative numbers rounds to a whole turn
    degrees[degrees >= TURN] = 0.0
    return degrees


def _whole(place: Float, count: int) -> Index:
    with np.errstate(invalid="ignore"):
        inside = (place >= 0) & (place < count)
    return np.where(inside, place, OUTSIDE).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of one quantity's map in one period."""

    dataset: Dataset
    quantity: Quantity
    position: int
    """Place of the period in the dataset's time axis."""

    number: int
    """0 is full resolution."""

    name: str
    """Array of the level: the quantity's, or its valid fraction."""

    @classmethod
    def for_target(cls, dataset: Dataset, quantity: Quantity, position: int, target: Target) -> "Level":
        """The coarsest level whose cell is no wider in longitude than a pixel of the target (DESIGN 3)."""
        number = dataset.product.grid.coarsest(target.pixel_degrees)
        return cls(dataset=dataset, quantity=quantity, position=position, number=number, name=quantity.name)

    @cached_property
    def grid(self) -> Grid:
        """Its grid."""
        return self.dataset.product.grid.level(self.number)

    @cached_property
    def stored(self) -> tuple[StoredArray, int]:
        """Its array, and the period's place in it."""
        return self.dataset.map_array(layout.maps_path(self.number, self.name), self.position)

    def chunks(self, wanted: list[tuple[int, int]], most: int) -> Mapping[tuple[int, int], NDArray[Any]]:
        """Chunks by their row and column, each ``(y, x)``, read-only.

        Args:
            wanted: which.
            most: cells that may be read.

        Raises:
            RequestTooLarge: before anything is read.
            Damaged: if one does not hold.
        """
        array, local = self.stored
        check_cells(len(wanted) * math.prod(array.layout.chunk), most)
        need(2 * array.dtype.itemsize * len(wanted) * math.prod(array.layout.chunk))
        block, within = divmod(local, array.layout.chunk[0])
        found = array.chunks([(block, y, x) for y, x in wanted])
        return {place: values[within] for place, values in zip(wanted, found, strict=True)}


def check_cells(count: int, most: int) -> None:
    """Refuse to read more cells than a request may.

    Raises:
        RequestTooLarge: naming both numbers.
    """
    if count > most:
        raise RequestTooLarge(
            f"{count} grid cells would be read and a request may read {most}: ask for a smaller area or a coarser image"
        )


class Gather:
    """The cells under the pixels of a target, and their chunks, each read once.

    Args:
        level: where values come from.
        target: where they go.
        most: cells that may be read.
        neighbours: whether the cells next to those are wanted too.
    """

    def __init__(self, level: Level, target: Target, most: int, *, neighbours: bool = False) -> None:
        self._level = level
        self._target = target
        grid = level.grid
        longitudes, latitudes = target.centres
        self._x, self._y = fractional(grid, longitudes, latitudes)
        self.columns = _whole(self._x, grid.width)
        self.rows = _whole(self._y, grid.height)
        reach = [self._stepped(dy, dx) for dy in (0, 1) for dx in (0, 1)] if neighbours else [(self.rows, self.columns)]
        wanted = {place for rows, columns in reach for place in self._chunks_under(rows, columns)}
        self._chunks = level.chunks(sorted(wanted), most)

    def nearest(self) -> NDArray[Any]:
        """Stored values ``(y, x)`` of the cells under the pixel centres; missing where there is none."""
        return self._taken(self.rows, self.columns)

    def bilinear(self) -> NDArray[np.floating[Any]]:
        """Decoded values ``(y, x)``, weighted between the four nearest cell centres; NaN is missing.

        A missing neighbour has no weight, and a pixel is missing exactly where ``nearest`` is, so that a coast does
        not move with the way it is drawn.
        """
        decode, centre = self._level.quantity.decode, self.nearest()
        x, y = self._x - 0.5, self._y - 0.5
        with np.errstate(invalid="ignore"):
            right, below = x - np.floor(x), y - np.floor(y)
        if self._target.is_separable:
            right, below = right[np.newaxis, :], below[:, np.newaxis]
        total = np.zeros(centre.shape)
        weights = np.zeros(centre.shape)
        for dy, from_y in ((0, 1 - below), (1, below)):
            for dx, from_x in ((0, 1 - right), (1, right)):
                values = decode(self._taken(*self._stepped(dy, dx)))
                weight = np.where(np.isnan(values), 0.0, from_y * from_x)
                total += np.where(weight > 0, values, 0.0) * weight
                weights += weight
        out: NDArray[np.floating[Any]] = np.full(centre.shape, np.nan)
        present = ~self._level.quantity.missing(centre)
        out[present] = total[present] / weights[present]
        return out

    def _stepped(self, dy: int, dx: int) -> tuple[Index, Index]:
        """Rows and columns of one of the four cells whose centres surround each pixel's."""
        grid = self._level.grid
        with np.errstate(invalid="ignore"):
            rows = np.clip(np.floor(self._y - 0.5) + dy, 0, grid.height - 1)
            columns = np.floor(self._x - 0.5) + dx
        if self._level.dataset.product.grid.is_global:
            columns = np.mod(columns, grid.width)
        else:
            columns = np.clip(columns, 0, grid.width - 1)
        return (
            np.where(self.rows == OUTSIDE, OUTSIDE, rows).astype(np.int64),
            np.where(self.columns == OUTSIDE, OUTSIDE, columns).astype(np.int64),
        )

    def _chunks_under(self, rows: Index, columns: Index) -> list[tuple[int, int]]:
        _, chunk_y, chunk_x = self._level.stored[0].layout.chunk
        if self._target.is_separable:
            ys, xs = (
                np.unique(index[index != OUTSIDE] // size) for index, size in ((rows, chunk_y), (columns, chunk_x))
            )
            return [(int(y), int(x)) for y in ys for x in xs]
        inside = (rows != OUTSIDE) & (columns != OUTSIDE)
        across = -(-self._level.grid.width // chunk_x)
        numbers = np.unique(rows[inside] // chunk_y * across + columns[inside] // chunk_x)
        return [divmod(int(number), across) for number in numbers]

    def _taken(self, rows: Index, columns: Index) -> NDArray[Any]:
        array, _ = self._level.stored
        _, chunk_y, chunk_x = array.layout.chunk
        out = np.full((self._target.height, self._target.width), self._level.quantity.fill, dtype=array.dtype)
        if self._target.is_separable:
            down = {int(y): np.flatnonzero(rows // chunk_y == y) for y in np.unique(rows[rows != OUTSIDE] // chunk_y)}
            right = {
                int(x): np.flatnonzero(columns // chunk_x == x)
                for x in np.unique(columns[columns != OUTSIDE] // chunk_x)
            }
            for y, in_y in down.items():
                for x, in_x in right.items():
                    values = self._chunks[y, x]
                    out[np.ix_(in_y, in_x)] = values[np.ix_(rows[in_y] - y * chunk_y, columns[in_x] - x * chunk_x)]
            return out
        inside = (rows != OUTSIDE) & (columns != OUTSIDE)
        for y, x in self._chunks_under(rows, columns):
            here = inside & (rows // chunk_y == y) & (columns // chunk_x == x)
            out[here] = self._chunks[y, x][rows[here] - y * chunk_y, columns[here] - x * chunk_x]
        return out


def warped(level: Level, target: Target, method: Resampling, most: int) -> NDArray[np.floating[Any]]:
    """Decoded values ``(y, x)`` by one of GDAL's filters on the window of the level that lies under the target.

    Args:
        level: where values come from.
        target: where they go.
        method: filter.
        most: cells that may be read.
    """
    grid = level.grid
    longitudes, latitudes = target.centres
    finite = np.isfinite(longitudes) & np.isfinite(latitudes) if not target.is_separable else None
    if finite is not None:
        longitudes, latitudes = longitudes[finite], latitudes[finite]
    out = np.full((target.height, target.width), np.nan)
    columns = _window_columns(level, longitudes, is_separable=target.is_separable)
    rows = _reach((float(grid.north) - latitudes) / float(grid.step_y))
    rows = range(max(rows.start, 0), min(rows.stop, grid.height))
    if not rows or not columns:
        return out
    check_cells(len(rows) * len(columns), most)
    # as stored, decoded, and in GDAL; and the image
    need((2 * level.quantity.fill.dtype.itemsize + 24) * len(rows) * len(columns) + 80 * out.size)
    source = np.full((len(rows), len(columns)), np.nan)
    for first, window, place in _windows(grid, rows, columns):
        stored = level.dataset.read_map(level.quantity, level.position, level.number, window)
        source[:, place - first.start : place - first.start + window.width] = level.quantity.decode(stored)
    west = float(grid.west) + columns.start * float(grid.step_x)
    north = float(grid.north) - rows.start * float(grid.step_y)
    reproject(
        source,
        out,
        src_transform=Affine(float(grid.step_x), 0, west, 0, -float(grid.step_y), north),
        src_crs="EPSG:4326",
        src_nodata=np.nan,
        dst_transform=target.transform,
        dst_crs=target.crs,
        dst_nodata=np.nan,
        resampling=method,
        tolerance=0,
    )
    return out


def _window_columns(level: Level, longitudes: Float, *, is_separable: bool) -> range:
    """Columns that a filter may look at; they count on past the last one where a global grid closes."""
    grid = level.grid
    is_global = level.dataset.product.grid.is_global
    if not is_separable:
        # the longitudes of an image around a pole go all the way round
        return range(-HALO, grid.width + HALO) if is_global else range(grid.width)
    # from the first pixel's turn on, so that an image across the seam stays in one piece
    reach = _reach((_turned(grid, longitudes[:1]) + (longitudes - longitudes[0])) / float(grid.step_x))
    if is_global:
        return reach
    turn = float(CIRCLE / grid.step_x)
    if reach.start >= grid.width:  # the image begins west of the grid
        reach = range(reach.start - round(turn), reach.stop - round(turn))
    return range(max(reach.start, 0), min(reach.stop, grid.width))


def _reach(place: Float) -> range:
    if not place.size:
        return range(0)
    return range(math.floor(float(place.min())) - HALO, math.floor(float(place.max())) + 1 + HALO)


def _windows(grid: Grid, rows: range, columns: range) -> "list[tuple[range, Window, int]]":
    """The windows of the grid that make up a range of columns that may pass its seam; with where each begins."""
    out: list[tuple[range, Window, int]] = []
    place = columns.start
    while place < columns.stop:
        column = place % grid.width
        width = min(grid.width - column, columns.stop - place)
        out.append((columns, Window(row=rows.start, column=column, height=len(rows), width=width), place))
        place += width
    return out
