"""Inputs of the block study: the sample Earth's groundwater over 70-80 E, 20-30 N, 19 predictors at 1/120 degree.

Mascons and GLDAS come from the sample's own writers, for another region; the land mask is the real one of NOAA GLOBE.
Elevation, slope, sand, irrigation, vegetation and rain follow the sample's formulas, so that there is detail to be
learned; the other predictors are noise of about the same roughness. All values are synthetic, only the coasts are not.
"""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from services.sample import modes
from services.sample.aquifers import AQUIFERS, Aquifer
from services.sample.groundwater import Groundwater, Region, row_of
from services.sample.groundwater_missions import CSR, JPL, write_csr, write_gldas, write_jpl
from services.sample.groundwater_seen import Seen
from services.sample.manifest import SYNTHETIC, replaced
from services.sample.noise import Field, noise, sphere
from services.sample.solutions import FIRST, LAST, month_name, months_between
from services.sources.land import write_land_mask

BLOCK = Region(west=70, south=20, east=80, north=30)
"""What issue 5 names."""

REAL_MASK = "rasters/globe_land_mask_1km.npz"

AREA = 2
"""Degrees around the block that are balanced: all that decides about its edge."""

MISSING = -32768
SPECKLE = 12
"""Steps of a stored number that neighbours differ by at random: without them files would be smaller than real ones."""

MORE_AQUIFERS = (("Block Foothills", 77.5, 28.2, 2.2, 1.1), ("Block Desert", 72.2, 27.2, 1.7, 1.6))
"""Name, centre and half axes in degrees: where the sample has no aquifer."""


@dataclass(frozen=True)
class Block(Groundwater):
    """The sample Earth's groundwater in the block."""

    @property
    def region(self) -> Region:
        """The block."""
        return BLOCK

    @cached_property
    def landless_noise(self) -> dict[str, Field]:
        """Rough fields of standard deviation 1 that predictors without a formula are made of."""
        known = self.known.grid(120)
        points = sphere(known.longitudes, known.latitudes)
        return {
            name: noise(points, seed=self.seed, name=f"block {name}", frequency=frequency, octaves=octaves)
            for name, frequency, octaves in (("a", 90, 5), ("b", 140, 5), ("c", 200, 4))
        }


@dataclass(frozen=True, kw_only=True)
class Static:
    """A predictor that stays."""

    units: str
    step: float
    """Value of a step of the stored number."""

    values: Callable[[Block], Field]


@dataclass(frozen=True, kw_only=True)
class Monthly:
    """``mean + season * wave(month - phase) + weather * (rain, felt or air)``, each with detail of its own."""

    units: str
    step: float
    mean: Callable[[Block], Field]
    season: Callable[[Block], Field | float]
    phase: float
    """When in the year it is highest, share of the year."""

    weather: Callable[[Block], Field | float]
    kind: str
    """Of the weather: rain, felt (three months before) or air."""

    greening: Callable[[Block], Field | float] = lambda _: 0.0
    """A year."""


def _rough(name: str, mean: float, spread: float) -> Callable[[Block], Field]:
    return lambda world: np.float32(mean) + np.float32(spread) * world.landless_noise[name]


def _monthly(units: str, step: float, mean: float, spread: float, phase: float, kind: str, name: str) -> Monthly:
    return Monthly(
        units=units,
        step=step,
        mean=_rough(name, mean, spread),
        season=_rough("abc"["bca".index(name)], 2 * spread, 0.3 * spread),
        phase=phase,
        weather=_rough("abc"["cab".index(name)], spread, 0.2 * spread),
        kind=kind,
    )


STATIC: dict[str, Static] = {
    "elevation": Static(units="m", step=0.1, values=lambda world: world.elevation),
    "slope": Static(units="degree", step=0.001, values=lambda world: world.slope),
    "sand": Static(units="1", step=0.0001, values=lambda world: world.sand),
    "irrigated": Static(units="1", step=0.0001, values=lambda world: world.irrigated),
    "clay": Static(units="1", step=0.0001, values=lambda world: np.float32(0.5) * (1 - world.sand)),
    "porosity": Static(units="1", step=0.0001, values=_rough("a", 0.4, 0.05)),
    "permeability": Static(units="1", step=0.001, values=_rough("b", -13.0, 1.5)),
}
"""Seven; the last is a logarithm."""

MONTHLY: dict[str, Monthly] = {
    "ndvi": Monthly(
        units="1",
        step=0.0001,
        mean=lambda world: np.float32(0.12) + np.float32(0.5) * world.cover,
        season=lambda world: np.float32(0.15) * world.cover,
        phase=0.72,
        weather=lambda world: np.float32(0.1) * world.cover,
        kind="felt",
        greening=lambda world: np.float32(0.004) * world.irrigated,
    ),
    "precipitation": _monthly("mm", 0.1, 150.0, 40.0, 0.55, "rain", "a"),
    "air_temperature": Monthly(
        units="K",
        step=0.01,
        mean=lambda world: np.float32(300.5) - np.float32(0.0055) * world.elevation,
        season=lambda _: 6.0,
        phase=0.42,
        weather=lambda _: 0.6,
        kind="air",
    ),
    "root_zone_soil_moisture": Monthly(
        units="m3 m-3",
        step=0.0001,
        mean=lambda world: np.float32(0.36) - np.float32(0.28) * world.sand,
        season=lambda _: 0.05,
        phase=0.66,
        weather=lambda _: 0.03,
        kind="felt",
    ),
    "evapotranspiration": _monthly("mm", 0.1, 80.0, 20.0, 0.60, "felt", "b"),
    "runoff": _monthly("mm", 0.1, 30.0, 8.0, 0.58, "rain", "c"),
    "leaf_area_index": _monthly("m2 m-2", 0.001, 2.0, 0.5, 0.72, "felt", "a"),
    "land_surface_temperature": _monthly("K", 0.01, 303.0, 3.0, 0.40, "air", "b"),
    "humidity": _monthly("kg kg-1", 0.000001, 0.012, 0.002, 0.58, "rain", "c"),
    "wind": _monthly("m s-1", 0.001, 3.0, 0.5, 0.45, "air", "a"),
    "radiation": _monthly("W m-2", 0.1, 210.0, 20.0, 0.40, "air", "b"),
    "night_lights": _monthly("nW cm-2 sr-1", 0.001, 5.0, 1.5, 0.85, "air", "c"),
}
"""Twelve."""


def write_inputs(
    directory: Path, shared: Path, engine: str, workers: int, note: Callable[[str], None]
) -> dict[str, Any]:
    """Write what is not there yet.

    Args:
        directory: made if it is not there; outside the checkout, some gigabytes.
        shared: where the real files are.
        engine: of ``[trees]`` in gwsa.toml, which is written anew each time.
        workers: processes that write rasters.
        note: told how far it is.

    Returns:
        Bytes and files of each kind.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "gwsa.toml").write_text(_settings(engine), encoding="utf-8")
    (directory / "aquifers.geojson").write_text(json.dumps(_aquifers()) + "\n", encoding="utf-8")
    if not (directory / "land_mask.tif").exists():
        write_land_mask(shared / REAL_MASK, directory / "land_mask.tif")
        note("land mask tiled")
    tasks = [task for task in _tasks() if not (directory / task[0]).exists()]
    with ProcessPoolExecutor(workers, initializer=os.nice, initargs=(10,)) as pool:
        for number, name in enumerate(pool.map(partial(write_one, directory), tasks), start=1):
            if number % 12 == 0 or number == len(tasks):
                note(f"inputs: {number} of {len(tasks)} written, last {name}")
    files = {path.name: path.stat().st_size for path in sorted(directory.iterdir()) if path.is_file()}
    monthly = [size for name, size in files.items() if any(name.startswith(f"{one}_2") for one in MONTHLY)]
    static = [files[f"{name}.tif"] for name in STATIC]
    return {
        "bytes": sum(files.values()),
        "monthly_predictors": {"files": len(monthly), "bytes": sum(monthly), "maps": 225 * len(MONTHLY)},
        "static_predictors": {"files": len(static), "bytes": sum(static)},
        "land_mask_bytes": files["land_mask.tif"],
    }


def _settings(engine: str) -> str:
    wide = BLOCK.wider(AREA)
    lines = [
        f"# {SYNTHETIC}",
        "synthetic = true",
        f"area = [{wide.west}, {wide.south}, {wide.east}, {wide.north}]",
        f'[trees]\ntrees = 500\ndepth = 10\nengine = "{engine}"',
        '[grace]\nfiles = "CSR_GRACE*.nc"',
        '[grace.other]\nfiles = "GRCTellus*.nc"',
        '[gldas]\nfiles = "GLDAS_NOAH025_M.A*.nc4"',
        '[land]\nfiles = "land_mask.tif"',
        '[regions]\nfiles = "aquifers.geojson"',
    ]
    for name, static in STATIC.items():
        lines.append(f'[[predictors]]\nname = "{name}"\nfiles = "{name}.tif"\nunits = "{static.units}"')
    for name, monthly in MONTHLY.items():
        lines.append(
            f'[[predictors]]\nname = "{name}"\nfiles = "{name}_2???.tif"\nunits = "{monthly.units}"\nmonthly = true'
        )
    return "\n".join(lines) + "\n"


def _aquifers() -> dict[str, Any]:
    more = [
        Aquifer(
            name=name,
            longitude=longitude,
            latitude=latitude,
            radius_x=across,
            radius_y=down,
            trend=0,
            pumping=0,
            sand=0,
            height=0,
            phase=0,
            response=0,
        )
        for name, longitude, latitude, across, down in MORE_AQUIFERS
    ]
    features = [
        {
            "type": "Feature",
            "properties": {"name": aquifer.name, "note": SYNTHETIC},
            "geometry": {"type": "Polygon", "coordinates": [aquifer.ring().tolist()]},
        }
        for aquifer in (*AQUIFERS, *more)
    ]
    return {"type": "FeatureCollection", "note": SYNTHETIC, "features": features}


def _tasks() -> Iterator[tuple[str, str, int]]:
    """Name of a file, what it holds, and which month or year."""
    yield CSR, "csr", 0
    yield JPL, "jpl", 0
    for month in months_between(FIRST, LAST).tolist():
        yield f"GLDAS_NOAH025_M.A{month_name(month).replace('-', '')}.021.nc4", "gldas", month
    for name in STATIC:
        yield f"{name}.tif", name, 0
    for year in range(int(FIRST[:4]), int(LAST[:4]) + 1):
        for name in MONTHLY:
            yield f"{name}_{year}.tif", name, year


@cache
def _world() -> Block:
    return Block()


def write_one(directory: Path, task: tuple[str, str, int]) -> str:
    """Write one file: its name, what it holds, and which month (months since 1970-01) or year."""
    name, what, when = task
    world = _world()
    seen = _seen()
    with replaced(directory / name) as part:
        match what:
            case "csr":
                write_csr(part, seen)
            case "jpl":
                write_jpl(part, seen)
            case "gldas":
                write_gldas(part, when, seen)
            case _ if what in STATIC:
                static = STATIC[what]
                _write_tiff(
                    part, [_stored(static.values(world), static.step, 0.0, what)], [what], static.units, static.step
                )
            case _:
                months = [month for month in months_between(FIRST, LAST).tolist() if 1970 + month // 12 == when]
                maps = [_map(what, month) for month in months]
                monthly = MONTHLY[what]
                _write_tiff(part, maps, [month_name(month) for month in months], monthly.units, monthly.step)
    return name


@cache
def _seen() -> Seen:
    return Seen(world=_world())


@cache
def _parts(name: str) -> tuple[Field, Field | float, Field | float, Field | float]:
    one, world = MONTHLY[name], _world()
    return one.mean(world), one.season(world), one.weather(world), one.greening(world)


@lru_cache(maxsize=36)  # a year of the three kinds
def _weather(kind: str, month: int) -> Field:
    """Standard deviation about 1, on the known cells."""
    world, at = _world(), row_of(month)
    known = world.known.grid(120)
    if kind == "felt":
        lattice = world.felt(month)
    else:
        pattern = world.rain if kind == "rain" else _seen()._air
        lattice = pattern.field(pattern.series[at])
    return world.lattice.at(lattice, known.longitudes, known.latitudes)


def _map(name: str, month: int) -> NDArray[np.int16]:
    one, (mean, season, weather, greening) = MONTHLY[name], _parts(name)
    wave = np.float32(np.cos(2 * np.pi * ((month % 12 + 0.5) / 12 - one.phase)))
    years = np.float32((month - modes.BASELINE[0]) / 12)
    values = mean + wave * season + years * greening
    values = values + weather * _weather(one.kind, month)
    return _stored(values, one.step, _offset(one.units), f"{name} {month}")


def _stored(values: Field, step: float, offset: float, name: str) -> NDArray[np.int16]:
    """Steps as int16, with speckle."""
    steps = np.rint((values - np.float32(offset)) / np.float32(step))
    start = np.random.default_rng(list(name.encode())).integers(0, 2**16)
    rough = np.roll(_speckle(), int(start))
    found: NDArray[np.int16] = np.clip(steps + rough.reshape(steps.shape), MISSING + 1, 32767).astype(np.int16)
    return found


def _offset(units: str) -> float:
    """So that temperatures fit int16."""
    return 280.0 if units == "K" else 0.0


@cache
def _speckle() -> NDArray[np.int16]:
    side = (BLOCK.east - BLOCK.west + 2) * 120
    return np.random.default_rng(0).integers(-SPECKLE, SPECKLE + 1, side * side).astype(np.int16)


def _write_tiff(path: Path, maps: list[NDArray[np.int16]], labels: list[str], units: str, step: float) -> None:
    grid = BLOCK.wider(1).grid(120)
    name = labels[0]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=grid.width,
        height=grid.height,
        count=len(maps),
        dtype="int16",
        crs="EPSG:4326",
        transform=Affine(*grid.transform),
        tiled=True,
        blockxsize=512,
        blockysize=512,
        interleave="band",
        compress="DEFLATE",
        zlevel=1,
        predictor=2,
        nodata=MISSING,
    ) as dataset:
        for band, (values, label) in enumerate(zip(maps, labels, strict=True), start=1):
            dataset.write(values, band)
            dataset.set_band_description(band, label)
            dataset.set_band_unit(band, units)
        dataset.scales = [step] * len(maps)
        dataset.offsets = [_offset(units)] * len(maps)
        dataset.update_tags(NOTE=SYNTHETIC, NAME=name)
