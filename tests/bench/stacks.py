"""The synthetic rasters of the bench: what they look like, and their source files.

Smooth red noise in space and time, a season, a trend, a little white noise: pictures and compressed sizes like those of
the real products, and no measurement of anything.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

SEED = 20150
MISSING = -32768
LAND = Path(__file__).resolve().parents[2] / "services" / "sample" / "natural_earth_land.tif"
BAND_ROWS = 600
"""Rows that are made at once."""

type Field = NDArray[np.float32]
type Degrees = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A time series of maps: stored int16 ``round((value - offset) / scale)``, north up, EPSG:4326."""

    id: str
    variable: str
    units: str
    west: int
    north: int
    step: Fraction
    width: int
    height: int
    months: int
    scale: float
    offset: float
    ranges: tuple[float, float]
    """Colour scale that is not saturated in any month."""
    first: str = "2002-01"
    land_only: bool = False

    @property
    def periods(self) -> list[str]:
        """Ids of the months, in order."""
        start = np.datetime64(self.first, "M")
        return [str(start + np.timedelta64(month, "M")) for month in range(self.months)]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north."""
        return (
            float(self.west),
            float(self.north - self.step * self.height),
            float(self.west + self.step * self.width),
            float(self.north),
        )


XCO2 = Stack(
    id="xco2",
    variable="xco2",
    units="ppm",
    west=-180,
    north=90,
    step=Fraction(1, 20),
    width=7200,
    height=3600,
    months=84,
    scale=0.01,
    offset=400.0,
    ranges=(380.0, 420.0),
)
"""The global XCO2 product's grid."""

GWSA = Stack(
    id="gwsa",
    variable="gwsa",
    units="cm",
    west=-20,
    north=75,
    step=Fraction(1, 120),
    width=21600,
    height=9000,
    months=12,
    scale=0.1,
    offset=0.0,
    ranges=(-20.0, 20.0),
    land_only=True,
)
"""A quarter of the groundwater product's grid: Europe, Africa, Asia."""

REGION = replace(XCO2, west=0, north=60, width=900, height=900)
"""45 x 45 degrees of the XCO2 grid, so that long series need no long time to make."""

REGIONS = tuple(replace(REGION, id=f"region_{months}", months=months) for months in (12, 84, 225))
FULL = (XCO2, GWSA, *REGIONS)

TINY = replace(XCO2, id="tiny", step=Fraction(1, 2), width=720, height=360, months=3)
"""For the self-test."""


def stored(stack: Stack) -> Iterator[NDArray[np.int16]]:
    """The stored maps of a stack, ``(height, width)`` each, month by month."""
    latitude = stack.north - float(stack.step) * (np.arange(stack.height) + 0.5)
    longitude = stack.west + float(stack.step) * (np.arange(stack.width) + 0.5)
    red = [_Red(stack.variable, size, seed) for seed, size in enumerate((10.0, 2.0, 0.5))]
    land = _land(latitude, longitude) if stack.land_only else None
    for month in range(stack.months):
        random = np.random.default_rng([SEED, zlib.crc32(stack.id.encode()), month])
        season = np.float32(4.0 * np.sin(2 * np.pi * month / 12))
        smooth = _summed([field.month(month) for field in red], [5.0, 2.0, 0.7])
        out = np.empty((stack.height, stack.width), dtype=np.int16)
        for top in range(0, stack.height, BAND_ROWS):
            rows = slice(top, min(top + BAND_ROWS, stack.height))
            middle = np.float32((stack.ranges[0] + stack.ranges[1]) / 2)
            values = np.broadcast_to(
                (middle + season * np.sin(np.radians(latitude[rows])))[:, None], (rows.stop - top, stack.width)
            ).astype(np.float32)
            values += _at(smooth, latitude[rows], longitude)
            # white noise of a fifth of a quantum: a little of what no codec can remove
            values += np.float32(0.2 * stack.scale) * random.standard_normal(values.shape, dtype=np.float32)
            out[rows] = np.rint((values - np.float32(stack.offset)) / np.float32(stack.scale))
            if land is not None:
                out[rows][~land[rows]] = MISSING
        yield out


def write(stack: Stack, folder: Path) -> list[Path]:
    """The stack as GeoTIFF source files, one a year or month, whichever is smaller than a few hundred MB."""
    folder.mkdir(parents=True, exist_ok=True)
    per_file = max(1, min(stack.months, 100_000_000 // (stack.width * stack.height)))
    files: list[Path] = []
    transform = Affine.translation(stack.west, stack.north) @ Affine.scale(float(stack.step), -float(stack.step))
    maps = stored(stack)
    for first in range(0, stack.months, per_file):
        count = min(per_file, stack.months - first)
        path = folder / f"{stack.variable}_{first:04d}.tif"
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=stack.width,
            height=stack.height,
            count=count,
            dtype="int16",
            crs="EPSG:4326",
            transform=transform,
            nodata=MISSING,
            tiled=True,
            blockxsize=512,
            blockysize=512,
            compress="zstd",
            zstd_level=1,
            predictor=2,
            interleave="band",
        ) as target:
            for band in range(1, count + 1):
                target.write(next(maps), band)
            target.scales, target.offsets = [stack.scale] * count, [stack.offset] * count
        files.append(path)
    return files


class _Red:
    """Noise that is correlated over ``size`` degrees and some months; the same whatever part is asked for."""

    def __init__(self, name: str, size: float, number: int) -> None:
        self.shape = (round(180 / size) + 1, round(360 / size))
        self.random = np.random.default_rng([SEED, zlib.crc32(name.encode()), number])
        self.last = self.random.standard_normal(self.shape, dtype=np.float32)
        self.made = 0

    def month(self, number: int) -> Field:
        """The coarse field of a month; months are asked for in order."""
        while self.made < number:
            new = self.random.standard_normal(self.shape, dtype=np.float32)
            self.last = np.float32(0.8) * self.last + np.float32(0.6) * new
            self.made += 1
        # it wraps at the antimeridian
        return np.concatenate([self.last, self.last[:, :1]], axis=1)


def _summed(fields: list[Field], weights: list[float]) -> Field:
    """Weighted sum on the nodes of the finest field, the last one: nodes are nested, so nothing is lost by it."""
    height, width = fields[-1].shape
    latitude = 90 - 180 / (height - 1) * np.arange(height)
    longitude = -180 + 360 / (width - 1) * np.arange(width - 1)
    total = np.zeros((height, width - 1), dtype=np.float32)
    for field, weight in zip(fields, weights, strict=True):
        total += np.float32(weight) * _at(field, latitude, longitude)
    return np.concatenate([total, total[:, :1]], axis=1)


def _at(coarse: Field, latitude: Degrees, longitude: Degrees) -> Field:
    """Bilinear interpolation of a global field, rows first."""
    row = (90 - latitude) / 180 * (coarse.shape[0] - 1)
    column = ((longitude + 180) % 360) / 360 * (coarse.shape[1] - 1)
    top = np.minimum(row.astype(np.intp), coarse.shape[0] - 2)
    left = np.minimum(column.astype(np.intp), coarse.shape[1] - 2)
    down, right = (row - top).astype(np.float32)[:, None], (column - left).astype(np.float32)
    rows = coarse[top] * (1 - down) + coarse[top + 1] * down
    out: Field = np.take(rows, left, axis=1)
    out *= 1 - right
    out += np.take(rows, left + 1, axis=1) * right
    return out


def _land(latitude: Degrees, longitude: Degrees) -> NDArray[np.bool_]:
    with rasterio.open(LAND) as source:
        mask = source.read(1) > 0
    rows = ((90 - latitude) * 4).astype(np.intp)
    columns = (((longitude + 180) % 360) * 4).astype(np.intp)
    found: NDArray[np.bool_] = mask[rows][:, columns]
    return found
