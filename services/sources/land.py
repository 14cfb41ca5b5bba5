"""A land mask as a tiled GeoTIFF, from the array that the package global-land-mask ships (NOAA GLOBE)."""

import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from services.core.errors import InputRefused
from services.core.grid import Grid
from services.sources.broken import reading
from services.sources.lonlat import HALF_TURN, exact_axis

BLOCK = 512
"""Rows and columns of a block: what is read at once of the array, too."""

LAND, WATER = 1, 0

GRID = Grid.of(west=-180, north=90, step_x="1/120", width=43200, height=21600)
"""The array's: GLOBE's 30 arc seconds."""


def write_land_mask(source: Path, target: Path) -> None:
    """Turn the array (True where there is ocean, rows from north to south) into a raster of 1 for land, 0 for water.

    Uint8, deflated, blocks of 512 x 512, EPSG:4326; a strip of blocks is held at a time. The package's coordinates are
    its cells' north-western corners (90 .. -89.9917, -180 .. 179.9917), not their centres.

    Args:
        source: the ``.npz`` with ``mask`` (bool), ``lat`` and ``lon`` (degrees).
        target: the GeoTIFF; replaced once it is whole.

    Raises:
        InputRefused: if the file is broken or holds another array.
    """
    scratch = target.with_name(f".{target.name}.part")
    with reading(str(source)):
        try:
            with zipfile.ZipFile(source) as archive:
                grid = _grid(str(source), archive)
                with archive.open("mask.npy") as stream:
                    _write(scratch, grid, _strips(str(source), stream, grid))
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)


def _grid(name: str, archive: zipfile.ZipFile) -> Grid:
    lacking = [part for part in ("mask", "lat", "lon") if f"{part}.npy" not in archive.namelist()]
    if lacking:
        raise InputRefused(f"{name} has no {' and no '.join(lacking)}: it is not global-land-mask's file")
    corners: list[NDArray[Any]] = []
    for part in ("lat", "lon"):
        with archive.open(f"{part}.npy") as stream:
            corners.append(np.lib.format.read_array(stream, allow_pickle=False))
    latitudes = exact_axis(name, "latitude", corners[0], None, HALF_TURN)
    longitudes = exact_axis(name, "longitude", corners[1], None, Fraction(360))
    if latitudes.step >= 0 or longitudes.step <= 0:
        raise InputRefused(f"{name}: its latitudes do not fall or its longitudes do not rise")
    return Grid.of(
        west=longitudes.first,
        north=latitudes.first,
        step_x=longitudes.step,
        step_y=-latitudes.step,
        width=longitudes.count,
        height=latitudes.count,
    )


def _strips(name: str, stream: IO[bytes], grid: Grid) -> Iterator[NDArray[np.uint8]]:
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = header(stream)
    if shape != grid.shape or by_columns or dtype != np.bool_:
        raise InputRefused(f"{name}: its mask is {dtype} of shape {shape}, and its coordinates are of {grid.shape}")
    for row in range(0, grid.height, BLOCK):
        rows = min(BLOCK, grid.height - row)
        body = stream.read(rows * grid.width)
        if len(body) != rows * grid.width:
            raise InputRefused(f"{name}: its mask ends in row {row + len(body) // grid.width + 1} of {grid.height}")
        ocean = np.frombuffer(body, dtype=np.bool_).reshape(rows, grid.width)
        yield np.where(ocean, np.uint8(WATER), np.uint8(LAND))


def _write(target: Path, grid: Grid, strips: Iterator[NDArray[np.uint8]]) -> None:
    with rasterio.open(
        target,
        "w",
        driver="GTiff",
        width=grid.width,
        height=grid.height,
        count=1,
        dtype="uint8",
        crs="EPSG:4326",
        transform=rasterio.Affine(*grid.transform),
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        compress="deflate",
    ) as dataset:
        dataset.set_band_description(1, "land")
        dataset.units = ("1",)
        row = 0
        for strip in strips:
            dataset.write(strip, 1, window=RasterWindow(0, row, grid.width, len(strip)))
            row += len(strip)
