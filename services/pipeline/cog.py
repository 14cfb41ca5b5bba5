"""Cloud-optimized GeoTIFFs of a segment's maps: stored values, a band per period, described by it."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.shutil import copy as gdal_copy
from rasterio.transform import Affine
from rasterio.windows import Window as RasterWindow

from services.core.grid import Grid, Window, windows
from services.core.product import Product
from services.core.quantity import Quantity
from services.pipeline.plan import GDAL_CACHE_BYTES

BLOCK = 512
STRIP_ROWS = 512

GDAL_OPTIONS = {"GDAL_NUM_THREADS": "1", "GTIFF_WRITE_TOWGS84": "NO", "GDAL_CACHEMAX": GDAL_CACHE_BYTES}
"""One thread and one cache size: the same bytes and the same memory everywhere."""


def write_cog(
    path: Path,
    product: Product,
    quantity: Quantity,
    periods: tuple[str, ...],
    read: Callable[[int, Window], NDArray[Any]],
) -> None:
    """Write one COG file.

    Bands hold stored values with GDAL scale, offset and nodata; overviews are GDAL's averages, for other people's
    clients. Memory is bounded by a strip of rows and GDAL's cache, ``GDAL_CACHE_BYTES``.

    Args:
        path: file to write.
        product: whose.
        quantity: which.
        periods: period ids of the bands.
        read: gives stored values ``(y, x)`` of a band number (from 0) and a window of level 0.
    """
    grid = product.grid
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, rasterio.Env(**GDAL_OPTIONS):
        draft = Path(scratch) / "draft.tif"
        profile: dict[str, Any] = {
            "driver": "GTiff",
            "width": grid.width,
            "height": grid.height,
            "count": len(periods),
            "dtype": quantity.dtype,
            "crs": "EPSG:4326",
            "transform": Affine(*grid.transform),
            "nodata": np.nan if quantity.fill_value is None else quantity.fill_value,
            "tiled": True,
            "blockxsize": BLOCK,
            "blockysize": BLOCK,
            "interleave": "band",
            "BIGTIFF": "IF_SAFER",
        }
        with rasterio.open(draft, "w", **profile) as target:
            for band in range(len(periods)):
                for window in windows(grid.shape, (STRIP_ROWS, grid.width)):
                    target.write(read(band, window), band + 1, window=_raster(window))
            _describe(target, product, quantity, periods)
        gdal_copy(
            draft,
            path,
            driver="COG",
            COMPRESS="ZSTD",
            LEVEL="9",
            PREDICTOR="YES",
            BLOCKSIZE=BLOCK,
            OVERVIEWS="AUTO" if max(grid.shape) > BLOCK else "NONE",
            OVERVIEW_RESAMPLING=Resampling.average.name.upper(),
            INTERLEAVE="BAND",
            STATISTICS="YES",
            BIGTIFF="IF_SAFER",
        )


def _describe(target: Any, product: Product, quantity: Quantity, periods: tuple[str, ...]) -> None:
    tags = {
        "TITLE": product.title,
        "PRODUCT": product.id,
        "VARIABLE": quantity.name,
        "LONG_NAME": quantity.long_name,
        "UNITS": quantity.units,
        "PERIODS": ",".join(periods),
        "STEP": product.step,
    }
    if product.synthetic:
        tags["COMMENT"] = "synthetic: not measurements"
    target.update_tags(**tags)
    target.descriptions = periods
    target.units = (quantity.units,) * len(periods)
    if quantity.is_packed:
        target.scales = (quantity.scale_factor if quantity.scale_factor is not None else 1.0,) * len(periods)
        target.offsets = (quantity.add_offset if quantity.add_offset is not None else 0.0,) * len(periods)
    for band, period in enumerate(periods, start=1):
        target.update_tags(band, PERIOD=period)


def _raster(window: Window) -> RasterWindow:
    return RasterWindow(window.column, window.row, window.width, window.height)


def same_grid(path: Path, grid: Grid) -> bool:
    """Whether a file lies on a grid, to a millionth of a cell."""
    with rasterio.open(path) as source:
        close = np.allclose(source.transform[:6], grid.transform, rtol=0, atol=float(grid.step_x) * 1e-6)
        return bool(close) and (source.height, source.width) == grid.shape
