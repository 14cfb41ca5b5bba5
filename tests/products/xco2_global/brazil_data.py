"""The real cells of OCO-2 over South America, and what is known where no sounding fell.

``oco2_brazil_025deg_daily`` holds daily means in cells of about 1/4 degree, raw: neither filtered by quality nor
corrected for bias. A month's file ends with its name; 2017-08 is absent, as the instrument was out.
"""

import gzip
import hashlib
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.sources.noaa_monthly import open_noaa_monthly
from services.validation.baselines import Background, Rows

FOLDER = "xco2/oco2_brazil_025deg_daily"
MAUNA_LOA = "xco2/noaa/co2_mlo_surface-insitu_1_ccgg_MonthlyData.txt"
LAND = "rasters/globe_land_mask_1km.npz"
TURBIDITY = "rasters/linke_turbidity_12month_cog.tif"

OUTAGE = "2017-08"
FIRST, LAST = "2014-09", "2018-12"

SCALE: Any = "X2007"
"""Of OCO-2's version 10; Mauna Loa is converted to it."""

COLUMNS = ("longitude", "latitude", "time..YYYYMMDDHHMMSS.", "xco2..Moles.Mole...1..")

MOST_OFF = 3.0
"""Robust standard deviations (1.4826 times the median absolute deviation) that the filter lets a day's cell lie off the
median of all cells of its month."""

type Values = NDArray[np.float64]


def month_of(text: str) -> int:
    """Since 1970-01."""
    return int(np.datetime64(text, "M").astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class Monthly:
    """Means of the days of each cell and month; all arrays are ``(row,)``."""

    rows: Rows
    values: Values = field(repr=False)
    """ppm."""

    time: Values = field(repr=False)
    """Mean of the days' noons, s since 1970."""

    days: NDArray[np.int64] = field(repr=False)
    """That are averaged."""

    def __len__(self) -> int:
        return len(self.values)

    def take(self, which: NDArray[Any]) -> "Monthly":
        """Some of them."""
        return Monthly(
            rows=self.rows.take(which), values=self.values[which], time=self.time[which], days=self.days[which]
        )


@dataclass(frozen=True, kw_only=True)
class Days:
    """Daily cells, ppm."""

    longitude: Values = field(repr=False)
    latitude: Values = field(repr=False)
    month: NDArray[np.int64] = field(repr=False)
    time: Values = field(repr=False)
    """Noon of the day, s since 1970: the files tell no hour."""

    xco2: Values = field(repr=False)
    digests: dict[str, str]

    def filtered(self) -> "Days":
        """Without what lies MOST_OFF off its month: train and test alike."""
        kept = np.zeros(len(self.month), dtype=np.bool_)
        for month in np.unique(self.month):
            mine = self.month == month
            off = np.abs(self.xco2[mine] - np.median(self.xco2[mine]))
            kept[mine] = off <= MOST_OFF * 1.4826 * np.median(off)
        return Days(
            longitude=self.longitude[kept],
            latitude=self.latitude[kept],
            month=self.month[kept],
            time=self.time[kept],
            xco2=self.xco2[kept],
            digests=self.digests,
        )

    def monthly(self) -> Monthly:
        """Mean of the days of each cell and month."""
        keys = np.stack([self.month, np.round(self.latitude, 4) * 1e4, np.round(self.longitude, 4) * 1e4], axis=1)
        _, first, which = np.unique(keys.astype(np.int64), axis=0, return_index=True, return_inverse=True)
        which = which.ravel()
        days = np.bincount(which)
        return Monthly(
            rows=Rows(longitude=self.longitude[first], latitude=self.latitude[first], month=self.month[first]),
            values=np.bincount(which, self.xco2) / days,
            time=np.bincount(which, self.time) / days,
            days=days,
        )


def read_days(folder: Path) -> Days:
    """All files; the months are those from FIRST to LAST without OUTAGE, each once."""
    parts, months, noons, digests = [], [], [], {}
    for path in sorted((folder / FOLDER).glob("*.txt.gz")):
        body = path.read_bytes()
        digests[f"{FOLDER}/{path.name}"] = hashlib.sha256(body).hexdigest()
        lines = gzip.decompress(body).decode().splitlines()
        header = lines[0].split("\t")
        if any(name not in header for name in COLUMNS):
            raise InputRefused(f"{path.name} has the columns {header}, and {COLUMNS} are needed")
        places = [header.index(name) for name in COLUMNS]
        table = np.array([[row[place] for place in places] for row in (line.split("\t") for line in lines[1:])])
        month = month_of(path.name.split("_")[2][:4] + "-" + path.name.split("_")[2][4:6])
        days = [f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}T12" for stamp in table[:, 2]]
        noons.append(np.array(days, dtype="datetime64[s]").astype(np.float64))
        stated = {month_of(f"{time[:4]}-{time[4:6]}") for time in np.unique(table[:, 2])}
        if stated != {month}:
            raise InputRefused(f"{path.name} has days of other months than its name says")
        parts.append(table[:, [0, 1, 3]].astype(np.float64))
        months.append(np.full(len(table), month))
    present = [int(one[0]) for one in months]
    expected = [month for month in range(month_of(FIRST), month_of(LAST) + 1) if month != month_of(OUTAGE)]
    if present != expected:
        raise InputRefused(f"{FOLDER}: the months are not {FIRST} to {LAST} without {OUTAGE}, when OCO-2 was out")
    table = np.concatenate(parts)
    xco2 = table[:, 2] * 1e6  # mol/mol
    if not ((xco2 > 300) & (xco2 < 500)).all():
        raise InputRefused(f"{FOLDER}: a cell has {xco2.min():g}..{xco2.max():g} ppm")
    return Days(
        longitude=table[:, 0],
        latitude=table[:, 1],
        month=np.concatenate(months),
        time=np.concatenate(noons),
        xco2=xco2,
        digests=digests,
    )


def mauna_loa(folder: Path) -> Background:
    """Monthly means from 2011 to the last month that is asked for, ppm on SCALE."""
    found = open_noaa_monthly(str(folder / MAUNA_LOA), scale=SCALE, convert=True)
    used = (found.months >= month_of("2011-01")) & (found.months <= month_of(LAST))
    return Background(months=found.months[used], values=found.values[used])


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What is known of every cell, each from north to south and west to east; no sounding is in it."""

    longitude: Values = field(repr=False)
    """``(x,)`` centres."""

    latitude: Values = field(repr=False)
    """``(y,)`` centres, rising."""

    land: Values = field(repr=False)
    """Share of land of the cell, ``(y, x)``."""

    land_around: Values = field(repr=False)
    """Share of land within 5 cells on each side, ``(y, x)``."""

    turbidity: Values = field(repr=False)
    """Linke's, climatology of twelve months, ``(12, y, x)``: aerosol and water vapour."""

    def at(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of the cells."""
        found = []
        for centres, places in ((self.latitude, rows.latitude), (self.longitude, rows.longitude)):
            step = (centres[-1] - centres[0]) / (len(centres) - 1)
            place = np.rint((places - centres[0]) / step).astype(np.int64)
            assert np.abs(centres[place] - places).max(initial=0.0) < 0.01 * step
            found.append(place)
        return found[0], found[1]


def read_surroundings(folder: Path, rows: Rows) -> Surroundings:
    """Of all cells between the outermost ones that ever had a sounding."""
    longitude, latitude = (np.unique(np.round(one, 6)) for one in (rows.longitude, rows.latitude))
    edges = []
    for centres in (longitude, latitude):
        step = np.diff(centres)
        assert np.ptp(step) < 1e-4, "a row or column of cells never had a sounding"
        edges.append(np.linspace(centres[0], centres[-1], len(centres)))
    land = _land_share(folder / LAND, *(one for one in edges))
    with rasterio.open(folder / TURBIDITY) as source:
        column = np.floor((longitude - source.transform.c) / source.transform.a).astype(int)
        line = np.floor((latitude - source.transform.f) / source.transform.e).astype(int)
        turbidity = source.read().astype(np.float64)[:, line][:, :, column] * source.scales[0]
    padded = np.pad(land, 5, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (11, 11)).mean(axis=(2, 3))
    return Surroundings(longitude=longitude, latitude=latitude, land=land, land_around=around, turbidity=turbidity)


def _land_share(path: Path, longitude: Values, latitude: Values) -> Values:
    """From the mask at 1/120 degree, True for ocean, its corner at 90 N and 180 W; read as far as needed."""
    half = (longitude[1] - longitude[0]) / 2
    columns = np.rint((np.append(longitude - half, longitude[-1] + half) + 180) * 120).astype(int)
    half = (latitude[1] - latitude[0]) / 2
    lines = np.rint((90 - np.append(latitude - half, latitude[-1] + half)) * 120).astype(int)[::-1]
    with zipfile.ZipFile(path) as archive, archive.open("mask.npy") as stream:
        assert np.lib.format.read_magic(stream) == (1, 0)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        assert (shape, fortran, dtype) == ((21600, 43200), False, np.dtype(bool))
        for _ in range(lines[0]):
            stream.read(shape[1])
        ocean = np.stack(
            [
                np.frombuffer(stream.read(shape[1]), dtype=np.bool_)[columns[0] : columns[-1]]
                for _ in range(lines[-1] - lines[0])
            ]
        )
    land = np.add.reduceat(
        np.add.reduceat((~ocean).astype(np.float64), lines[:-1] - lines[0], axis=0), columns[:-1] - columns[0], axis=1
    )
    sizes = np.diff(lines)[:, None] * np.diff(columns)[None, :]
    share: Values = (land / sizes)[::-1]
    return share
