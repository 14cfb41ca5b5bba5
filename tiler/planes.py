"""Maps as tiles are drawn of them: chunks of a level, and where each tile's cells lie."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray
from rio_tiler.utils import CRS_to_uri

from services.core.segment import StoredArray
from services.core.settings import Settings
from tiler.averages import Averages, averages_of
from tiler.chunks import ChunkCache
from tiler.gather import Axis, Corners, Places, Separable, columns_of, corners_of, rows_of, scattered_of
from tiler.loading import LoadingCache
from tiler.matrices import matrix_set
from tiler.memory import need
from tiler.reader import draw_values, pixel_bytes, tile_target
from tiler.request import Requested
from tiler.shortcut import NotMine, WouldWait
from tiler.warp import Level, Target, check_cells

type Method = Literal["nearest", "bilinear", "average"]
"""How values come from cells to pixels."""

PLACES_BYTES = 32 * 2**20
"""Memory for the cells under tiles: thousands of separable tiles, or 60 of another projection."""

AXES_BYTES = 8 * 2**20
"""Memory for rows and columns of cells, which the tiles beside and below each other share."""


class TilePlace(NamedTuple):
    """Address of a tile, as read: the matrix set may not have it."""

    tms: str
    z: int
    x: int
    y: int
    size: int | None
    """Width in pixels; the matrix set's own if None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Array:
    """A level of a plane."""

    stored: StoredArray
    block: int
    """Chunk along time that holds the period."""

    within: int
    """Place of the period in that chunk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Located[P]:
    """The cells of one level under a tile."""

    target: Target
    level: int
    cells: P
    headers: tuple[tuple[bytes, bytes], ...]
    """Those that say where the tile lies."""


class Plane:
    """One quantity in one period of a version.

    Args:
        requested: which; what is to be subtracted from it is left alone.
    """

    def __init__(self, requested: Requested) -> None:
        self.requested = requested
        self.quantity = requested.quantity
        self.fill = requested.quantity.fill
        self.grid = requested.served.dataset.product.grid
        self.key = repr(self.grid)
        """Of the grid; a text, whose hash is worked out once."""

        self._levels: dict[int, _Array] = {}

    def array(self, number: int, *, may_wait: bool) -> _Array:
        """A level.

        Raises:
            WouldWait: if its segment is not open yet and must be.
            NotMine: if its chunks are not those of the grid.
        """
        found = self._levels.get(number)
        if found is None:
            if not may_wait:
                raise WouldWait
            chosen = self.requested
            grid = self.grid.level(number)
            level = Level(
                dataset=chosen.served.dataset,
                quantity=self.quantity,
                position=chosen.position,
                number=number,
                name=self.quantity.name,
            )
            stored, local = level.stored
            length, *chunk = stored.layout.chunk
            if chunk != [grid.chunk_y, grid.chunk_x] or stored.dtype != self.fill.dtype:
                raise NotMine(stored.prefix)
            block, within = divmod(local, length)
            found = self._levels[number] = _Array(stored=stored, block=block, within=within)
        return found


class Planes:
    """Reads tiles of planes; safe to share between threads.

    Args:
        settings: how much one request may read.
        chunks: the cache that all planes read through.
    """

    def __init__(self, settings: Settings, chunks: ChunkCache) -> None:
        self._settings = settings
        self._chunks = chunks
        self._axes: LoadingCache[tuple[object, ...], Axis] = LoadingCache(AXES_BYTES, lambda axis: axis.bytes)
        self._places: LoadingCache[tuple[str, TilePlace, Method], Located[Any]] = LoadingCache(
            PLACES_BYTES, lambda located: int(located.cells.bytes) + 600
        )

    def nearest(self, plane: Plane, place: TilePlace, *, may_wait: bool) -> Located[Places]:
        """The cells under the centres of a tile's pixels.

        Raises:
            WouldWait: if that is to be worked out and takes long.
            TileOutsideBounds: if there is no such tile.
        """
        return self._located(plane, place, "nearest", may_wait=may_wait)

    def values(self, plane: Plane, place: TilePlace, method: Method, *, may_wait: bool) -> NDArray[Any]:
        """Decoded values ``(y, x)`` of a tile's pixels; NaN is missing.

        Raises:
            WouldWait: if not all of it is in memory and it must be.
        """
        if method == "nearest":
            located = self.nearest(plane, place, may_wait=may_wait)
            return plane.quantity.decode(located.cells.spread(self.taken(plane, located, may_wait=may_wait)))
        blended = self._located(plane, place, method, may_wait=may_wait)
        if may_wait:
            target = blended.target
            need(pixel_bytes(target, method) * target.width * target.height)
        if not isinstance(blended.cells, Corners | Averages):
            if not may_wait:
                raise WouldWait
            return draw_values(plane.requested, blended.target, method, self._settings)
        chunks = self._read(plane, blended.level, blended.cells.chunks, may_wait=may_wait)
        return blended.cells.values(chunks, plane.quantity)

    def taken(self, plane: Plane, located: Located[Places], *, may_wait: bool) -> NDArray[Any]:
        """The stored values that ``located.cells.spread`` makes a tile of.

        Raises:
            WouldWait: if not all of it is in memory and it must be.
            RequestTooLarge: if more cells would be read than a request may.
            Damaged: if a chunk does not hold.
        """
        chunks = self._read(plane, located.level, located.cells.chunks, may_wait=may_wait)
        return located.cells.taken(chunks, plane.fill)

    def _read(
        self, plane: Plane, level: int, wanted: Sequence[tuple[int, int]], *, may_wait: bool
    ) -> list[NDArray[Any]]:
        array = plane.array(level, may_wait=may_wait)
        stored, block, within = array.stored, array.block, array.within
        length, height, width = stored.layout.chunk
        check_cells(len(wanted) * length * height * width, self._settings.max_cells)
        if may_wait:
            need(2 * stored.dtype.itemsize * len(wanted) * length * height * width)
            found = stored.chunks([(block, y, x) for y, x in wanted])
        else:
            present = self._chunks.present([(stored.prefix, block, y, x) for y, x in wanted])
            if present is None:
                raise WouldWait
            found = present
        return [values[within] for values in found]

    def _located(self, plane: Plane, place: TilePlace, method: Method, *, may_wait: bool) -> Located[Any]:
        key = (plane.key, place, method)
        known = self._places.use(key)
        if known is not None:
            return known
        tms = matrix_set(place.tms)
        target = tile_target(tms, place.x, place.y, place.z, place.size)
        if not (may_wait or target.is_separable):
            raise WouldWait
        level = plane.grid.coarsest(target.pixel_degrees)
        grid = plane.grid.level(level)
        cells: Places | Corners | Averages
        if not target.is_separable:
            cells = scattered_of(grid, target)
        elif method == "bilinear":
            cells = corners_of(grid, target, is_global=plane.grid.is_global)
        elif method == "average":
            cells = averages_of(grid, target, is_global=plane.grid.is_global)
        else:
            left, bottom, right, top = target.bounds
            rows, columns = (plane.key, level, place.tms, top, bottom), (plane.key, level, place.tms, left, right)
            cells = Separable(
                self._axes.get((*rows, target.height, "y"), lambda: rows_of(grid, target)),
                self._axes.get((*columns, target.width, "x"), lambda: columns_of(grid, target)),
            )
        target = replace(target)  # without the places of its pixels, which it would keep and nobody weighed
        box = ",".join(str(edge) for edge in target.bounds)
        headers = ((b"content-crs", _crs(place.tms).encode()), (b"content-bbox", box.encode()))
        found = Located(target=target, level=level, cells=cells, headers=headers)
        self._places.put(key, found)
        return found


@cache
def _crs(tms: str) -> str:
    return f"<{CRS_to_uri(matrix_set(tms).rasterio_crs)}>"
