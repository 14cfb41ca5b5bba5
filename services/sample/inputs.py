"""Writes the sample Earth's input files, in the forms in which users have theirs.

==============================  ========================================================================
co2_background_monthly.txt      global monthly mean in ppm, white space between columns as NOAA writes it
era5_monthly_YYYY.nc            t2m and swvl1, packed int16, longitudes 0..360, latitudes falling, CF time
ndvi_YYYY-MM.tif                vegetation index, int16 x 0.0001, one GeoTIFF a month
static_0p25.tif                 a COG: elevation, land fraction, settlement, each with scale and unit
site_observations.csv           noisy XCO2 at fixed sites, with the truth in a column of its own
manifest.json                   what was written: seed, size, generator, bytes and sha256 of each file
==============================  ========================================================================
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5netcdf
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from services.sample.earth import DARK, HEIGHT, LATITUDES, LONGITUDES, STEP, WIDTH, Earth, Month, background
from services.sample.manifest import SYNTHETIC, Progress, generator, replaced, write_set

type Size = Literal["small", "study"]

SPANS: dict[Size, tuple[str, str]] = {"small": ("2019-01", "2021-12"), "study": ("2015-01", "2021-12")}
"""First and last month of each size."""

SITES = 900

_GENERATOR = ("manifest.py", "inputs.py", "earth.py", "noise.py", "natural_earth_land.tif")

_TRANSFORM = from_origin(-180, 90, STEP, STEP)
_FILL = -32767
_NDVI_FILL = -3000


def write_inputs(
    directory: Path,
    size: Size = "small",
    progress: Progress | None = None,
    *,
    seed: int = Earth().seed,
    months: tuple[str, str] | None = None,
) -> list[Path]:
    """Write the input files, or keep them where they are already what would be written.

    Args:
        directory: made if it is not there; other files in it are left alone.
        size: ``small`` is 36 months from 2019-01, ``study`` 84 months from 2015-01, both 0.25 degrees, global.
        progress: told of every step.
        seed: of the Earth.
        months: first and last month to write instead of the size's.

    Returns:
        The files, by name.
    """
    span = months or SPANS[size]
    made_from = {"generator": generator(*_GENERATOR), "seed": seed, "months": list(span)}
    return write_set(directory, made_from, lambda: _write_all(directory, Earth(seed=seed), months_of(span)), progress)


def months_of(span: tuple[str, str]) -> list[np.datetime64]:
    """The months of a span, datetime64[M]."""
    return list(np.arange(np.datetime64(span[0], "M"), np.datetime64(span[1], "M") + np.timedelta64(1, "M")))


def _write_all(directory: Path, earth: Earth, months: list[np.datetime64]) -> Iterator[tuple[str, int]]:
    years = sorted({int(str(month)[:4]) for month in months})
    total = len(months) + len(years) + 3
    with replaced(directory / "static_0p25.tif") as part:
        _write_static(part, earth)
    yield "static_0p25.tif", total
    with replaced(directory / "co2_background_monthly.txt") as part:
        _write_background(part, months)
    yield "co2_background_monthly.txt", total
    observations = _Observations(earth=earth)
    for year in years:
        name = f"era5_monthly_{year}.nc"
        with replaced(directory / name) as part:
            held = [month for month in months if str(month).startswith(str(year))]
            with h5netcdf.File(part, "w") as file:
                _declare_era5(file, held)
                for position, month in enumerate(held):
                    fields = earth.month(month)
                    file.variables["t2m"][position] = _era5_packed(fields.temperature, "t2m")
                    file.variables["swvl1"][position] = _era5_packed(fields.soil_moisture, "swvl1")
                    with replaced(directory / f"ndvi_{month}.tif") as ndvi:
                        _write_ndvi(ndvi, fields.vegetation, month)
                    observations.see(month, fields)
                    yield f"ndvi_{month}.tif", total
        yield name, total
    with replaced(directory / "site_observations.csv") as part:
        part.write_text(observations.text())
    yield "site_observations.csv", total


def _write_static(path: Path, earth: Earth) -> None:
    bands = [
        ("elevation", "m", 1.0, np.rint(earth.elevation)),
        ("land_fraction", "1", 0.01, np.rint(earth.land_fraction * 100)),
        ("settlement", "1", 0.001, np.rint(earth.settlement * 1000)),
    ]
    with rasterio.open(
        path,
        "w",
        driver="COG",
        width=WIDTH,
        height=HEIGHT,
        count=len(bands),
        dtype="int16",
        crs="EPSG:4326",
        transform=_TRANSFORM,
        nodata=_FILL,
        compress="DEFLATE",
        predictor="YES",
        level=6,
    ) as dataset:
        for number, (name, unit, _, values) in enumerate(bands, start=1):
            dataset.write(values.astype(np.int16), number)
            dataset.set_band_description(number, name)
            dataset.set_band_unit(number, unit)
        dataset.scales = [scale for _, _, scale, _ in bands]
        dataset.update_tags(NOTE=SYNTHETIC)


def _write_background(path: Path, months: list[np.datetime64]) -> None:
    rows = [
        f"# {SYNTHETIC}",
        "# global monthly mean CO2, dry air mole fraction, units: ppm",
        "# year month decimal value",
    ]
    for month in months:
        year, number = (int(part) for part in str(month).split("-"))
        rows.append(f"{year} {number:2d} {year + (number - 0.5) / 12:10.4f} {background(month):8.3f}")
    path.write_text("\n".join(rows) + "\n")


@dataclass(frozen=True, kw_only=True)
class _Packed:
    """How ERA5 packs a variable."""

    units: str
    long_name: str
    scale: float
    offset: float


_ERA5 = {
    "t2m": _Packed(units="K", long_name="2 metre temperature", scale=0.005, offset=260.0),
    "swvl1": _Packed(units="m**3 m**-3", long_name="Volumetric soil water layer 1", scale=0.00002, offset=0.3),
}


def _declare_era5(file: h5netcdf.File, months: list[np.datetime64]) -> None:
    file.attrs["Conventions"] = "CF-1.6"
    file.attrs["history"] = SYNTHETIC
    file.dimensions = {"time": len(months), "latitude": HEIGHT, "longitude": WIDTH}
    east = np.roll(LONGITUDES, WIDTH // 2) % 360
    hours = (np.asarray(months, dtype="datetime64[h]") - np.datetime64("1900-01-01T00", "h")).astype(np.int32)
    for name, values, attributes in (
        ("time", hours, {"units": "hours since 1900-01-01 00:00:00.0", "calendar": "gregorian", "long_name": "time"}),
        ("latitude", LATITUDES.astype(np.float32), {"units": "degrees_north", "long_name": "latitude"}),
        ("longitude", east.astype(np.float32), {"units": "degrees_east", "long_name": "longitude"}),
    ):
        variable = file.create_variable(name, (name,), data=values)
        for key, value in attributes.items():
            variable.attrs[key] = value
    for name, packed in _ERA5.items():
        variable = file.create_variable(
            name,
            ("time", "latitude", "longitude"),
            dtype=np.int16,
            chunks=(1, HEIGHT // 4, WIDTH // 4),
            compression="gzip",
            compression_opts=1,
            shuffle=True,
            fillvalue=np.int16(_FILL),
        )
        variable.attrs["scale_factor"] = packed.scale
        variable.attrs["add_offset"] = packed.offset
        variable.attrs["missing_value"] = np.int16(_FILL)
        variable.attrs["units"] = packed.units
        variable.attrs["long_name"] = packed.long_name


def _era5_packed(values: NDArray[np.float32], name: str) -> NDArray[np.int16]:
    packed = _ERA5[name]
    steps = np.rint((values.astype(np.float64) - packed.offset) / packed.scale)
    stored = np.where(np.isnan(steps), _FILL, steps).astype(np.int16)
    return np.roll(stored, WIDTH // 2, axis=1)


def _write_ndvi(path: Path, values: NDArray[np.float32], month: np.datetime64) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=WIDTH,
        height=HEIGHT,
        count=1,
        dtype="int16",
        crs="EPSG:4326",
        transform=_TRANSFORM,
        nodata=_NDVI_FILL,
        tiled=True,
        blockxsize=256,
        blockysize=256,
        compress="DEFLATE",
        predictor=2,
        zlevel=1,
    ) as dataset:
        dataset.write(np.where(np.isnan(values), _NDVI_FILL, np.rint(values * 1e4)).astype(np.int16), 1)
        dataset.scales = [0.0001]
        dataset.set_band_description(1, "NDVI")
        dataset.set_band_unit(1, "1")
        dataset.update_tags(NOTE=SYNTHETIC, PERIOD=str(month))


class _Observations:
    """What fixed sites report month by month: the truth of their cell and an error that differs from place to place."""

    def __init__(self, *, earth: Earth) -> None:
        self._earth = earth
        random = np.random.default_rng([earth.seed, SITES])
        latitude = np.degrees(np.arcsin(random.uniform(-1, 1, 40 * SITES)))
        longitude = random.uniform(-180, 180, 40 * SITES)
        row, column = ((90 - latitude) / STEP).astype(int), ((longitude + 180) / STEP).astype(int)
        # sites stand where people live, some on land elsewhere, few at sea
        wanted = 0.02 + 0.12 * earth.land[row, column] + 0.8 * earth.settlement[row, column]
        chosen = np.flatnonzero(random.uniform(0, 1, len(row)) < wanted)[:SITES]
        self._row, self._column = row[chosen], column[chosen]
        self._latitude, self._longitude = latitude[chosen], longitude[chosen]
        self._lines = [
            f"# {SYNTHETIC}",
            "# xco2_ppm is what a site reports; xco2_true_ppm is what it should have been, for scoring only",
            "site,longitude,latitude,period,xco2_ppm,xco2_true_ppm",
        ]

    def see(self, month: np.datetime64, fields: Month) -> None:
        random = np.random.default_rng([self._earth.seed, SITES, month.astype(int)])
        at = (self._row, self._column)
        sun, truth = fields.sun[at], fields.xco2[at]
        error = 0.45 + 0.6 * self._earth.settlement[at] + 0.35 * np.nan_to_num(fields.vegetation[at]) + 0.3 * (1 - sun)
        reported = truth + error * random.standard_normal(len(truth))
        seen = (sun >= DARK) & (random.uniform(0, 1, len(truth)) < 0.9)
        self._lines.extend(
            f"S{site:04d},{self._longitude[site]:.4f},{self._latitude[site]:.4f},{month},"
            f"{reported[site]:.3f},{truth[site]:.3f}"
            for site in np.flatnonzero(seen)
        )

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"
