"""Monthly means of CO2 at a site of NOAA's Global Monitoring Laboratory, as Mauna Loa's, from its text files.

Read from the real ``co2_mlo_surface-insitu_1_ccgg_MonthlyData.txt``: lines of ``#`` that say what the columns are and
on which scale (``dataset_calibration_scale : CO2_X2019``), a line of their names, then a line a month. A month without
a mean has -999.99 and a flag whose first letter is no point; the header calls the fill -999.999. A flag of that kind
rejects a value whatever it is.
"""

import math
import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.sources import co2_scale, documents
from services.sources.co2_scale import Scale
from services.sources.documents import Document
from services.sources.units import mole_fraction

_NOTE = re.compile(r"#\s*(?P<key>\w[\w:]*?) : (?P<value>.*)")
_COLUMNS = ("site_code", "year", "month", "value", "value_std_dev", "qcflag")
_FILLS = frozenset({-999.99, -999.999, -99.99, -9.99})
_LOWEST, _HIGHEST = 250.0, 700.0
"""ppm beyond which no month at a background site lies. Our choice."""


@dataclass(frozen=True, kw_only=True)
class Monthly:
    """Monthly means at a site."""

    document: Document
    site: str
    """As ``MLO``."""

    name: str
    latitude: float
    longitude: float
    scale: Scale
    months: NDArray[np.int64] = field(repr=False)
    """Months since 1970-01, ``(time,)``, rising; a month without a mean is left out."""

    values: NDArray[np.float64] = field(repr=False)
    """ppm, ``(time,)``."""

    spread: NDArray[np.float64] = field(repr=False)
    """Standard deviation of what each mean is of, ppm, ``(time,)``; NaN where none is stated."""

    def at(self, month: int) -> float:
        """The mean of a month since 1970-01, ppm; NaN where there is none."""
        place = int(np.searchsorted(self.months, month))
        known = place < len(self.months) and self.months[place] == month
        return float(self.values[place]) if known else math.nan


def open_noaa_monthly(name: str, *, scale: str = "X2019", convert: bool = False) -> Monthly:
    """Read the monthly means of a site.

    Args:
        name: path of the text file.
        scale: that of the run.
        convert: whether values on the other scale are converted.

    Raises:
        InputRefused: if it is no such file, is on another scale, or a line cannot be.
        SettingsError: if there is no such scale.
    """
    wanted = co2_scale.parsed(scale)
    document, body = documents.read(name)
    lines = documents.text(name, body).splitlines()
    notes = {found["key"]: found["value"].strip() for line in lines if (found := _NOTE.fullmatch(line.rstrip()))}
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    lacking = [column for column in _COLUMNS if not rows or column not in rows[0][1]]
    if lacking:
        raise InputRefused(f"{name} is no monthly file of NOAA's: it has no column {' and no '.join(lacking)}")
    stated = co2_scale.named(notes.get("dataset_calibration_scale"))
    if stated is None:
        told = notes.get("dataset_calibration_scale")
        raise InputRefused(f"{name} says {f'the scale {told!r}' if told else 'no scale'}, neither X2007 nor X2019")
    co2_scale.check(name, stated=stated, wanted=wanted, convert=convert)
    unit = mole_fraction(f"{name}: value", notes.get("value:units"), of_one=False)
    header = rows[0][1]
    months: list[int] = []
    values: list[tuple[float, float]] = []
    for number, cells in rows[1:]:
        if len(cells) != len(header):
            raise InputRefused(f"{name}, line {number}: {len(cells)} cells, and the header has {len(header)}")
        row = dict(zip(header, cells, strict=True))
        month = _month(name, number, row)
        if months and month <= months[-1]:
            raise InputRefused(f"{name}, line {number}: {np.datetime64(month, 'M')} does not follow the month before")
        months.append(month)
        value, spread = (_number(name, number, row[key]) * unit for key in ("value", "value_std_dev"))
        if not row["qcflag"].startswith("."):
            value = math.nan
        if not math.isnan(value) and not _LOWEST <= value <= _HIGHEST:
            raise InputRefused(f"{name}, line {number}: {value:g} ppm is no mean of CO2 in clean air")
        values.append((value, spread))
    columns = np.array(values, dtype=np.float64).reshape(-1, 2).T
    kept = np.isfinite(columns[0])
    if not kept.any():
        raise InputRefused(f"{name} holds no month with a mean")
    return Monthly(
        document=document,
        site=rows[1][1][header.index("site_code")],
        name=notes.get("site_name", ""),
        latitude=_place(notes, "site_latitude"),
        longitude=_place(notes, "site_longitude"),
        scale=wanted,
        months=np.array(months, dtype=np.int64)[kept],
        values=co2_scale.converted(columns[0, kept], stated=stated, wanted=wanted),
        spread=columns[1, kept] * co2_scale.factor(stated=stated, wanted=wanted),
    )


def _month(name: str, line: int, row: dict[str, str]) -> int:
    try:
        year, month = int(row["year"]), int(row["month"])
        return int(np.datetime64(f"{year:04d}-{month:02d}", "M").astype(np.int64))
    except ValueError:
        raise InputRefused(f"{name}, line {line}: {row['year']} {row['month']} is no year and month") from None


def _number(name: str, line: int, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise InputRefused(f"{name}, line {line}: {cell!r} is no number")
    return math.nan if value in _FILLS else value


def _place(notes: dict[str, str], key: str) -> float:
    try:
        return float(notes[key])
    except (KeyError, ValueError):
        return math.nan
