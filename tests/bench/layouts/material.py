"""The values that the sweep is made on: synthetic maps and series of ``tests.bench.stacks``, and real ones."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from numpy.typing import NDArray

from services.core.grid import WIDEST_LEVEL_CELL, Grid, inner_chunk
from services.core.quantity import Quantity
from tests.bench import stacks
from tests.bench.servers import ROOT
from tests.bench.stacks import MISSING, SEED, Stack
from tests.realsets import oco2_seasia

GWSA_BLOCK = replace(stacks.GWSA, west=0, north=90, width=10800, height=10800)
"""90 x 90 degrees of the groundwater grid, cut where the whole is cut: Europe, north Africa, west Asia, much sea."""

XCO2_REGION = replace(stacks.XCO2, west=0, north=60, width=450, height=450, months=225)
"""One map chunk."""

GWSA_REGION = replace(stacks.GWSA, west=7, north=49, width=675, height=675, months=225)
"""One map chunk, with a coast."""

FILL = np.int16(MISSING)

STRIP = 4_000_000
"""Cells that are held as floats at a time."""


@dataclass(frozen=True, kw_only=True)
class Full:
    """A whole product, of which only parts are made here."""

    id: str
    grid: Grid
    months: int


XCO2 = Full(
    id="xco2",
    grid=Grid.of(west=-180, north=90, step_x=Fraction(1, 20), width=7200, height=3600),
    months=84,
)
GWSA = Full(
    id="gwsa",
    grid=Grid.of(west=-180, north=90, step_x=Fraction(1, 120), width=43200, height=18000),
    months=225,
)


def quantity(stack: Stack, dtype: str = "int16") -> Quantity:
    """How the values of a stack are stored."""
    packed = dtype == "int16"
    return Quantity(
        name=stack.variable,
        units=stack.units,
        long_name=stack.variable,
        dtype=dtype,
        scale_factor=stack.scale if packed else None,
        add_offset=stack.offset if packed else None,
        fill_value=MISSING if packed else None,
    )


def grid_of(stack: Stack, chunk: int) -> Grid:
    """The grid of a stack, with chunks of so many rows and columns."""
    whole = Grid.of(west=stack.west, north=stack.north, step_x=stack.step, width=stack.width, height=stack.height)
    return cut(whole, chunk)


def cut(grid: Grid, chunk: int) -> Grid:
    """The same grid with other chunks."""
    return replace(grid, chunk_y=min(chunk, grid.height), chunk_x=min(chunk, grid.width))


def level_grids(grid: Grid, factor: int = 2) -> list[Grid]:
    """The grids of all levels, each ``factor`` times as coarse as the one before; with 2 those of ``Grid.level``."""
    out, coarse = [grid], factor
    while grid.step_x * coarse <= WIDEST_LEVEL_CELL and min(grid.shape) > coarse // factor:
        height, width = -(-grid.height // coarse), -(-grid.width // coarse)
        out.append(
            # made of a level: its last row and column may pass the edge
            replace(
                grid.level(1),
                step_x=grid.step_x * coarse,
                step_y=grid.step_y * coarse,
                width=width,
                height=height,
                chunk_y=min(grid.chunk_y, height),
                chunk_x=min(grid.chunk_x, width),
            )
        )
        coarse *= factor
    return out


def coarser(values: NDArray[np.int16], factor: int) -> NDArray[np.int16]:
    """Means of the valid values of ``factor`` x ``factor`` cells, ``(y, x)``.

    Not weighted by area, as those of services.pipeline.levels are: bytes and times do not tell the difference.
    """
    if factor == 1:
        return values
    height, width = (-(-size // factor) for size in values.shape)
    out = np.empty((height, width), dtype=np.int16)
    strip = max(1, STRIP // (values.shape[1] * factor))
    for top in range(0, height, strip):
        part = values[top * factor : (top + strip) * factor]
        lacking = [(0, -size % factor) for size in part.shape]
        part = np.pad(part, lacking, constant_values=MISSING)
        valid = part != MISSING
        shape = (part.shape[0] // factor, factor, width, factor)
        total = np.where(valid, part, np.int16(0)).reshape(shape).sum(axis=3, dtype=np.int32).sum(axis=1)
        count = valid.reshape(shape).sum(axis=3, dtype=np.int32).sum(axis=1)
        mean = np.rint(total / np.maximum(count, 1))
        out[top : top + strip] = np.where(count > 0, mean, MISSING).astype(np.int16)
    return out


@cache
def month(stack: Stack) -> NDArray[np.int16]:
    """The first map of a stack, ``(y, x)``, read-only."""
    values = next(stacks.stored(stack))
    values.flags.writeable = False
    return values


def cube(stack: Stack, months: int) -> NDArray[np.int16]:
    """The first months of a stack, ``(time, y, x)``, read-only."""
    return _cube(stack)[:months]


@cache
def _cube(stack: Stack) -> NDArray[np.int16]:
    out = np.empty((stack.months, stack.height, stack.width), dtype=np.int16)
    for number, values in enumerate(stacks.stored(stack)):
        out[number] = values
    out.flags.writeable = False
    return out


def rough(stored: NDArray[np.int16]) -> NDArray[np.int16]:
    """The same with white noise of three steps: a product finer than the smooth fields it is made of."""
    random = np.random.default_rng([SEED, *stored.shape])
    noise = np.rint(3 * random.standard_normal(stored.shape, dtype=np.float32)).astype(np.int16)
    return np.where(stored == MISSING, FILL, stored + noise)


def series_width(grid: Grid) -> int:
    """Rows and columns of a series chunk today."""
    return inner_chunk(grid.chunk_x)


def decoded(stored: NDArray[np.int16], stack: Stack) -> NDArray[np.float32]:
    """Values of a stack; NaN where missing."""
    values = stored * np.float32(stack.scale) + np.float32(stack.offset)
    values[stored == MISSING] = np.nan
    return values


def unrounded(stored: NDArray[np.int16], stack: Stack) -> NDArray[np.float32]:
    """What a model would have given before it was packed: noise of one step is added again; NaN where missing."""
    random = np.random.default_rng([SEED, *stored.shape])
    noise = random.random(stored.shape, dtype=np.float32)
    noise -= np.float32(0.5)
    noise *= np.float32(stack.scale)
    noise += decoded(stored, stack)
    return noise


def rounded_bits(values: NDArray[np.float32], keep: int) -> NDArray[np.float32]:
    """Values with ``keep`` bits of their mantissa, rounded to nearest even; NaN stays.

    Reference: Kloewer et al. (2021), Compressing atmospheric data into its real information content,
    https://doi.org/10.1038/s43588-021-00156-2
    """
    drop = 23 - keep
    bits = values.view(np.uint32)
    half = np.uint32((1 << (drop - 1)) - 1) + ((bits >> np.uint32(drop)) & np.uint32(1))
    out = ((bits + half) & ~np.uint32((1 << drop) - 1)).view(np.float32)
    return np.where(np.isnan(values), values, out)


def pieces(values: NDArray[Any], size: tuple[int, int], most: int) -> list[NDArray[Any]]:
    """Whole pieces of the two last axes that hold a value, contiguous; a seeded sample of at most ``most``."""
    height, width = values.shape[-2:]
    places = [
        (top, left)
        for top in range(0, height - size[0] + 1, size[0])
        for left in range(0, width - size[1] + 1, size[1])
    ]
    random = np.random.default_rng([SEED, *size])
    out: list[NDArray[Any]] = []
    for number in random.permutation(len(places)):
        top, left = places[number]
        piece = values[..., top : top + size[0], left : left + size[1]]
        if (~np.isnan(piece) if piece.dtype.kind == "f" else piece != MISSING).any():
            out.append(np.ascontiguousarray(piece))
        if len(out) == most:
            break
    return out


def land_cells(full: Full, stack: Stack) -> float:
    """Cells of a product that hold values: all, or those that the sample Earth's mask of a quarter of a degree has."""
    if not stack.land_only:
        return float(full.grid.cells)
    with rasterio.open(stacks.LAND) as source:
        land = source.read(1) > 0
    rows = slice(int((90 - full.grid.north) * 4), int((90 - full.grid.south) * 4))
    return float(land[rows].mean()) * full.grid.cells


def real_folder() -> Path | None:
    """Where real data lies, if it is there (tests/conftest.py)."""
    folder = Path(os.environ.get("CENOTE_SHARED_DATA") or ROOT.parent / "shared" / "data")
    return folder if (folder / "README.md").is_file() else None


def real_maps(folder: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """ERA5 soil moisture of the whole globe, 721 x 1440: packed with a step of 0.001 m3 m-3, and as it came."""
    with xr.open_dataset(folder / "desert" / "ERA5_AN_20100101_0000.nc", engine="h5netcdf") as data:
        values = data["swvl1"].to_numpy().astype(np.float32)
    packed = np.where(np.isnan(values), MISSING, np.rint(np.nan_to_num(values) / 0.001)).astype(np.int16)
    yield "ERA5 soil moisture, int16 of 0.001", packed
    yield "ERA5 soil moisture, float32", values


def real_series(folder: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Months of OCO-2 over South-East Asia, 51 x 111, step 0.01 ppm, and of GRACE, 180 x 360, as packed."""
    co2 = oco2_seasia(folder / "xco2" / "oco2_seasia_idw_monthly").to_numpy()
    packed = np.where(np.isfinite(co2), np.rint((np.nan_to_num(co2) - 400) / 0.01), MISSING)
    yield f"OCO-2 monthly, {len(co2)} months, int16 of 0.01 ppm", packed.astype(np.int16)
    path = folder / "groundwater" / "grace_csr_rl05_lwe_1deg_2002-2010.nc"
    with xr.open_dataset(path, engine="h5netcdf", mask_and_scale=False) as data:
        water = data["lwe_thickness"].to_numpy()
    yield f"GRACE, {len(water)} months, int16 as packed", water
