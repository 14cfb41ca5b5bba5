"""A rio-tiler reader over one published map, or the difference of two; nothing is read through GDAL."""

import math
from dataclasses import dataclass
from typing import Any

import attr
import numpy as np
import rasterio.features
from affine import Affine
from morecantile import Tile, TileMatrixSet
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import transform_bounds, transform_geom
from rio_tiler.constants import WGS84_CRS
from rio_tiler.errors import TileOutsideBounds
from rio_tiler.io import BaseReader
from rio_tiler.models import BandStatistics, ImageData, Info, PointData

from services.core.errors import QueryError, RequestTooLarge
from services.core.grid import Window
from services.core.settings import Settings
from tiler.averages import averaged
from tiler.drawing import Drawn, drawn_by_default
from tiler.memory import need
from tiler.options import OVERVIEW_SIZE
from tiler.request import Requested
from tiler.warp import METRES_PER_DEGREE, TURN, Bounds, Gather, Level, Target, warped

NEAREST = "nearest"
BILINEAR = "bilinear"
AVERAGE = "average"


@dataclass(frozen=True, kw_only=True)
class MapSource:
    """A map that was asked for, and how much may be read to draw it."""

    requested: Requested
    settings: Settings

    @property
    def drawn(self) -> Drawn:
        """How it is drawn when the request does not say."""
        chosen = self.requested
        drawn = drawn_by_default(chosen.served.dataset.version, chosen.quantity)
        return drawn if chosen.minus is None else drawn.difference


@attr.s
class MapReader(BaseReader):
    """Tiles, parts and points of a map. ``input`` is a ``MapSource``; values are decoded, masked where missing."""

    def __attrs_post_init__(self) -> None:
        grid = self._requested.served.dataset.product.grid
        self.bounds = grid.bounds
        self.crs = WGS84_CRS
        self.transform = Affine(*grid.transform)
        self.height, self.width = grid.shape

    @property
    def _requested(self) -> Requested:
        source: MapSource = self.input
        return source.requested

    @property
    def _settings(self) -> Settings:
        source: MapSource = self.input
        return source.settings

    @property
    def minzoom(self) -> int:
        """The matrix's first: every grid has levels as coarse as a tile of the whole world."""
        return int(self.tms.minzoom)

    @property
    def maxzoom(self) -> int:
        """The first at which no cell is narrower than a pixel, so that nothing is lost."""
        return native_zoom(self.tms, float(min(self._grid.step_x, self._grid.step_y)))

    @property
    def _grid(self) -> Any:
        return self._requested.served.dataset.product.grid

    def info(self) -> Info:
        """What the map shows, for clients of titiler."""
        chosen = self._requested
        quantity, drawn = chosen.quantity, self.input.drawn
        return Info(
            bounds=self.bounds,
            crs="http://www.opengis.net/def/crs/EPSG/0/4326",
            band_metadata=[("b1", {"units": quantity.units, "long_name": quantity.long_name})],
            band_descriptions=[("b1", quantity.name)],
            dtype="float64" if quantity.is_packed or quantity.is_integer else quantity.dtype,
            nodata_type="Mask",
            width=self.width,
            height=self.height,
            period=chosen.period,
            minmax=[[drawn.minimum, drawn.maximum]],
        )

    def statistics(self, **options: Any) -> dict[str, BandStatistics]:
        """Statistics over pixels of a preview, as rio-tiler means them; the service's own are weighted by area."""
        found: dict[str, BandStatistics] = self.preview().statistics(**options)
        return found

    def tile(
        self,
        tile_x: int,
        tile_y: int,
        tile_z: int,
        tilesize: int | None = None,
        resampling_method: str = NEAREST,
        buffer: int = 0,
    ) -> ImageData:
        """A tile; transparent where it lies outside the data.

        Args:
            tile_x: column.
            tile_y: row.
            tile_z: zoom.
            tilesize: width in pixels; the matrix's own if not given.
            resampling_method: how pixels are made of cells.
            buffer: pixels around the tile that are drawn too.

        Raises:
            TileOutsideBounds: if the matrix has no such tile; the message says which it has.
        """
        target = tile_target(self.tms, tile_x, tile_y, tile_z, tilesize, buffer)
        return self._image(target, resampling_method)

    def part(
        self,
        bbox: Bounds,
        *,
        dst_crs: CRS | None = None,
        bounds_crs: CRS = WGS84_CRS,
        max_size: int | None = None,
        height: int | None = None,
        width: int | None = None,
        resampling_method: str = NEAREST,
    ) -> ImageData:
        """An image of a box, at full resolution if no size is given.

        Args:
            bbox: left, bottom, right, top in ``bounds_crs``; in degrees left may be east of right, across 180.
            dst_crs: reference system of the image; ``bounds_crs`` if not given.
            bounds_crs: reference system of the box.
            max_size: longest side in pixels.
            height: in pixels.
            width: in pixels.
            resampling_method: how pixels are made of cells.

        Raises:
            QueryError: if the box is empty.
            RequestTooLarge: if the image passes the cap.
        """
        crs = dst_crs or bounds_crs
        bounds = _checked(bbox, bounds_crs)
        if crs != bounds_crs:
            bounds = transform_bounds(bounds_crs, crs, *bounds, densify_pts=21)
            if not all(math.isfinite(edge) for edge in bounds):
                raise QueryError("the box has no place in the reference system of the image (dst_crs)")
        return self._image(self._sized(crs, bounds, max_size, height, width), resampling_method)

    def preview(
        self,
        *,
        max_size: int | None = OVERVIEW_SIZE,
        height: int | None = None,
        width: int | None = None,
        dst_crs: CRS | None = None,
        resampling_method: str = NEAREST,
    ) -> ImageData:
        """An image of the whole map."""
        return self.part(
            self.bounds,
            dst_crs=dst_crs,
            max_size=max_size,
            height=height,
            width=width,
            resampling_method=resampling_method,
        )

    def point(self, lon: float, lat: float, coord_crs: CRS = WGS84_CRS) -> PointData:
        """The value of the cell that holds a place, at full resolution.

        Raises:
            PositionOutside: if no cell holds it.
        """
        if coord_crs != WGS84_CRS:
            lon, lat = _place(lon, lat, coord_crs)
        chosen = self._requested
        value = _cell(chosen, lon, lat)
        if chosen.minus is not None:
            value = value - _cell(chosen.minus, lon, lat)
        return PointData(
            np.ma.MaskedArray(np.where(np.isnan(value), 0.0, value), mask=np.isnan(value)),
            band_descriptions=[chosen.quantity.name],
            coordinates=(lon, lat),
            crs=WGS84_CRS,
        )

    def feature(
        self,
        shape: dict[str, Any],
        *,
        dst_crs: CRS | None = None,
        shape_crs: CRS = WGS84_CRS,
        max_size: int | None = None,
        height: int | None = None,
        width: int | None = None,
        resampling_method: str = NEAREST,
    ) -> ImageData:
        """An image of a GeoJSON geometry's box, masked outside of the geometry (pixels that it touches stay)."""
        geometry = shape.get("geometry", shape)
        image = self.part(
            rasterio.features.bounds(geometry),
            dst_crs=dst_crs,
            bounds_crs=shape_crs,
            max_size=max_size,
            height=height,
            width=width,
            resampling_method=resampling_method,
        )
        if image.crs != shape_crs:
            geometry = transform_geom(shape_crs, image.crs, geometry)
        outside = rasterio.features.geometry_mask(
            [geometry], (image.height, image.width), image.transform, all_touched=True
        )
        image.array.mask |= outside[np.newaxis]
        return image

    def _sized(self, crs: CRS, bounds: Bounds, max_size: int | None, height: int | None, width: int | None) -> Target:
        left, bottom, right, top = bounds
        unit = 1.0 if crs.is_geographic else float(crs.linear_units_factor[1]) / METRES_PER_DEGREE
        full_width = max(1, round((right - left) * unit / float(self._grid.step_x)))
        full_height = max(1, round((top - bottom) * unit / float(self._grid.step_y)))
        if height is None and width is None:
            factor = 1.0 if max_size is None else min(1.0, max_size / max(full_width, full_height))
            width, height = max(1, round(full_width * factor)), max(1, round(full_height * factor))
        elif height is None or width is None:
            shape = (top - bottom) / (right - left)
            width = width or max(1, round((height or 1) / shape))
            height = height or max(1, round(width * shape))
        most = self._settings.max_image_size
        if max(width, height) > most:
            raise RequestTooLarge(
                f"the image would have {width} x {height} pixels and may have {most} x {most}: "
                f"name a size, such as max_size={min(OVERVIEW_SIZE, most)}, or a smaller box"
            )
        return Target(crs=crs, bounds=bounds, width=width, height=height)

    def _image(self, target: Target, method: str) -> ImageData:
        chosen = self._requested
        values = draw_values(chosen, target, method, self._settings)
        if chosen.minus is not None:
            values = values - draw_values(chosen.minus, target, method, self._settings)
        missing = np.isnan(values)
        return ImageData(
            np.ma.MaskedArray(np.where(missing, 0, values), mask=missing)[np.newaxis],
            crs=target.crs,
            bounds=target.bounds,
            band_descriptions=[chosen.quantity.name],
        )


def draw_values(chosen: Requested, target: Target, method: str, settings: Settings) -> NDArray[np.floating[Any]]:
    """Decoded values ``(y, x)`` under the pixels of a target; NaN is missing.

    Args:
        chosen: the map.
        target: the pixels.
        method: a name of ``rasterio.enums.Resampling``.
        settings: the cap on cells.

    Raises:
        RequestTooLarge: if more cells would be read than a request may.
        Damaged: if a chunk does not hold.
    """
    need(pixel_bytes(target, method) * target.width * target.height)
    level = Level.for_target(chosen.served.dataset, chosen.quantity, chosen.position, target)
    if method == NEAREST:
        return chosen.quantity.decode(Gather(level, target, settings.max_cells).nearest())
    if method == BILINEAR:
        return Gather(level, target, settings.max_cells, neighbours=True).bilinear()
    if method == AVERAGE and target.is_separable:
        return averaged(level, target, settings.max_cells)
    return warped(level, target, Resampling[method], settings.max_cells)


def pixel_bytes(target: Target, method: str) -> int:
    """Memory for a pixel while it is drawn, at its peak: places, cells, weights, value, colour (measured)."""
    if method == BILINEAR:
        return 72 if target.is_separable else 176
    return 32 if target.is_separable and method == NEAREST else 80


def tile_target(tms: TileMatrixSet, x: int, y: int, z: int, tilesize: int | None = None, buffer: int = 0) -> Target:
    """The pixels of a tile.

    Args:
        tms: matrix set.
        x: column.
        y: row.
        z: zoom.
        tilesize: width in pixels; the matrix's own if not given.
        buffer: pixels around the tile that are wanted too.

    Raises:
        TileOutsideBounds: if the matrix has no such tile; the message says which it has.
    """
    check_tile(tms, x, y, z)
    matrix = tms.matrix(z)
    width, height = (tilesize, tilesize) if tilesize else (matrix.tileWidth, matrix.tileHeight)
    left, bottom, right, top = tms.xy_bounds(Tile(x=x, y=y, z=z))
    if buffer:
        across, along = (right - left) / width * buffer, (top - bottom) / height * buffer
        left, bottom, right, top = left - across, bottom - along, right + across, top + along
    return Target(
        crs=tms.rasterio_crs,
        bounds=(left, bottom, right, top),
        width=width + 2 * buffer,
        height=height + 2 * buffer,
    )


def check_tile(tms: TileMatrixSet, x: int, y: int, z: int) -> None:
    """Refuse a tile that a matrix set does not have.

    Raises:
        TileOutsideBounds: saying which it has.
    """
    if not tms.minzoom <= z <= tms.maxzoom:
        raise TileOutsideBounds(f"{tms.id} has the zoom levels {tms.minzoom} to {tms.maxzoom}, not {z}")
    matrix = tms.matrix(z)
    if not (0 <= x < matrix.matrixWidth and 0 <= y < matrix.matrixHeight):
        raise TileOutsideBounds(
            f"{tms.id} has {matrix.matrixWidth} x {matrix.matrixHeight} tiles at zoom {z} and none at x={x}, y={y}"
        )


def native_zoom(tms: TileMatrixSet, cell: float, tilesize: int | None = None) -> int:
    """The first zoom at which a pixel is no wider than a cell, so that drawing larger adds nothing.

    Args:
        tms: matrix set.
        cell: width of a cell in degrees.
        tilesize: width of a tile in pixels; the matrix's own if not given.
    """
    crs = tms.rasterio_crs
    unit = 1.0 if crs.is_geographic else float(crs.linear_units_factor[1]) / METRES_PER_DEGREE
    for matrix in tms.tileMatrices:
        pixel = matrix.cellSize * unit * (matrix.tileWidth / tilesize if tilesize else 1.0)
        if pixel <= cell * (1 + 1e-9):
            return int(matrix.id)
    return int(tms.maxzoom)


def _checked(bbox: Bounds, crs: CRS) -> Bounds:
    left, bottom, right, top = (float(edge) for edge in bbox)
    if not all(math.isfinite(edge) for edge in (left, bottom, right, top)):
        raise QueryError("the four numbers of a box must be finite")
    if crs.is_geographic:
        if right < left:
            right += TURN
        if not (left >= -TURN and right <= 2 * TURN and right - left <= TURN):
            raise QueryError(f"a box may span 360 degrees of longitude, not {right - left:g}")
        if not (bottom >= -90 and top <= 90):
            raise QueryError(
                f"latitudes must lie in -90..90 degrees, not {bottom:g}..{top:g}; boxes are west,south,east,north"
            )
    if left >= right or bottom >= top:
        raise QueryError(f"the box {left:g},{bottom:g},{right:g},{top:g} is empty; boxes are west,south,east,north")
    return left, bottom, right, top


def _place(x: float, y: float, crs: CRS) -> tuple[float, float]:
    target = Target(crs=crs, bounds=(x, y, x, y), width=1, height=1)
    longitudes, latitudes = target.centres
    lon, lat = float(longitudes.flat[0]), float(latitudes.flat[0])
    if not (math.isfinite(lon) and math.isfinite(lat)):
        raise QueryError(f"{x:g}, {y:g} is no place in {crs}")
    return lon, lat


def _cell(chosen: Requested, lon: float, lat: float) -> NDArray[np.floating[Any]]:
    row, column = chosen.served.dataset.product.grid.locate(lon, lat)
    window = Window(row=row, column=column, height=1, width=1)
    stored = chosen.served.dataset.read_map(chosen.quantity, chosen.position, 0, window)
    values: NDArray[np.floating[Any]] = chosen.quantity.decode(stored)[0]
    return values
