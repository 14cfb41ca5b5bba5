"""Means of the cells under pixels whose edges are those of cells, where rounding must not count as ground."""

from typing import Any

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from services.core.grid import Grid
from services.core.quantity import Quantity
from tiler.averages import averages_of
from tiler.warp import Target

QUANTITY = Quantity(name="v", units="1", long_name="v")


@pytest.mark.parametrize("cells", [1, 2])
@pytest.mark.parametrize(("step", "west", "north"), [("1/10", 72, 50), ("1/20", 100, 30), ("1/4", -20, 40)])
def test_a_pixel_over_missing_cells_is_missing_however_edges_are_rounded(
    step: str, west: int, north: int, cells: int
) -> None:
    height, width = 100, 200
    grid = Grid.of(west=west, north=north, step_x=step, width=width, height=height)
    dice = np.random.default_rng(1)
    values = dice.normal(size=(height, width)).astype(np.float32)
    values[dice.random((height, width)) < 0.5] = np.nan
    size = float(grid.step_x)
    edge = 10 * cells
    target = Target(
        crs=CRS.from_epsg(4326),
        bounds=(
            west + edge * size,
            north - (height - edge) * size,
            west + (width - edge) * size,
            north - edge * size,
        ),
        width=(width - 2 * edge) // cells,
        height=(height - 2 * edge) // cells,
    )
    found = averages_of(grid, target, is_global=False)
    got = found.values([chunk_of(values, grid, *place) for place in found.chunks], QUANTITY)
    inner = values[edge : height - edge, edge : width - edge].astype(np.float64)
    blocks = inner.reshape(target.height, cells, target.width, cells)
    valid = ~np.isnan(blocks)
    with np.errstate(invalid="ignore"):
        wanted = np.where(valid, blocks, 0).sum(axis=(1, 3)) / valid.sum(axis=(1, 3))
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    by_gdal = np.full(wanted.shape, np.nan)
    reproject(
        values.astype(np.float64),
        by_gdal,
        src_transform=Affine(size, 0, west, 0, -size, north),
        src_crs="EPSG:4326",
        src_nodata=np.nan,
        dst_transform=target.transform,
        dst_crs="EPSG:4326",
        dst_nodata=np.nan,
        resampling=Resampling.average,
        tolerance=0,
    )
    np.testing.assert_allclose(got, by_gdal, atol=1e-6)


def chunk_of(values: NDArray[Any], grid: Grid, y: int, x: int) -> NDArray[Any]:
    """A whole chunk; missing beyond the grid."""
    out = np.full((grid.chunk_y, grid.chunk_x), np.nan, dtype=values.dtype)
    part = values[y * grid.chunk_y : (y + 1) * grid.chunk_y, x * grid.chunk_x : (x + 1) * grid.chunk_x]
    out[: part.shape[0], : part.shape[1]] = part
    return out
