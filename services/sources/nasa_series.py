"""Series of a region as NASA's GRACE-California-Groundwater publishes them: one CSV for each term of the balance.

A file has lines of ``#`` with what its makers noted (``# key: ["value"]``, or anything), a header
``date,NAME,NAME_error`` (reservoirs: ``date,anomaly,error``) and a line a month. Dates are written in three ways:
``01/15/2004`` (GRACE, month first), ``2004-01`` (SNODAS) or ``2004-01-01`` with or without a time of day (CDEC, NLDAS).
No file says the unit of its values: they are volumes in km3 (README of the data). A month without a value has no line.
"""

import csv
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused

_NOTE = re.compile(r"#\s*([A-Za-z]\w*): (.*)")
_DATES = (
    re.compile(r"(?P<month>\d\d)/(?P<day>\d\d)/(?P<year>\d{4})"),
    re.compile(r"(?P<year>\d{4})-(?P<month>\d\d)"),
    re.compile(r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)(T\d\d:\d\d:\d\d(\.\d+)?)?"),
)

MISSING = "months_missing"
"""The note that lists the months without a solution, ``2002-06;2002-07;...``."""


@dataclass(frozen=True, kw_only=True)
class RegionSeries:
    """One term of a region's balance."""

    name: str
    """The file's name."""

    variable: str
    """What its header calls the values, as ``tws``."""

    months: NDArray[np.int64]
    """Months since 1970-01, ``(time,)``, rising; a month without a value is left out."""

    values: NDArray[np.float64]
    """Anomalies in km3, ``(time,)``."""

    errors: NDArray[np.float64]
    """Their standard errors in km3, ``(time,)``, 0 or more."""

    area_km2: float | None
    """Area that the values are of, where the file says it."""

    listed_missing: NDArray[np.int64]
    """Months that the file says have no solution, ``(month,)``, months since 1970-01; it may lack others as well."""

    notes: dict[str, str] = field(default_factory=dict)
    """What the file's first lines say, by key; lists joined with ``;``."""


def read(path: Path) -> RegionSeries:
    """Read a file.

    Raises:
        InputRefused: if a line is not as above, if months do not rise or occur twice, if a month that is listed missing
            has a value, or if an area is not in km^2.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputRefused(f"{path.name} cannot be read as text: {error}") from error
    notes = _notes([line for line in lines if line.startswith("#")], path.name)
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if len(numbered) < 2:
        raise InputRefused(f"{path.name} has no values")
    variable = _variable(next(csv.reader([numbered[0][1]])), path.name)
    rows = [(number, next(csv.reader([line]))) for number, line in numbered[1:]]
    for number, row in rows:
        if len(row) != 3:
            raise InputRefused(f"line {number} of {path.name} has {len(row)} fields, not a date, a value and an error")
    months = _months([(number, row[0]) for number, row in rows], path.name)
    values = np.array([_number(row[1], number, path.name) for number, row in rows])
    errors = np.array([_number(row[2], number, path.name) for number, row in rows])
    if (errors < 0).any():
        raise InputRefused(f"{path.name} has an error of {errors.min():g}: a standard error is not negative")
    missing = _listed_missing(notes.get(MISSING, ""), path.name)
    wrong = np.intersect1d(missing, months)
    if wrong.size:
        raise InputRefused(f"{path.name} lists {label(int(wrong[0]))} as missing and has a value for it")
    return RegionSeries(
        name=path.name,
        variable=variable,
        months=months,
        values=values,
        errors=errors,
        area_km2=_area(notes, path.name),
        listed_missing=missing,
        notes=notes,
    )


def label(month: int) -> str:
    """``2004-01`` of a month since 1970-01."""
    return f"{1970 + month // 12}-{month % 12 + 1:02d}"


def _notes(lines: list[str], name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        match = _NOTE.fullmatch(line.rstrip())
        if match is None:
            continue  # an address, or an empty line: of no use to a reader
        key, text = match.groups()
        if key in found:
            raise InputRefused(f"{name} notes {key} twice")
        try:
            said = json.loads(text)
        except json.JSONDecodeError:
            said = text
        found[key] = ";".join(str(item) for item in said) if isinstance(said, list) else str(said)
    return found


def _variable(header: list[str], name: str) -> str:
    if len(header) != 3 or header[0] != "date" or header[2] not in {f"{header[1]}_error", "error"}:
        raise InputRefused(f"{name} has the columns {', '.join(header)}, not date, NAME, NAME_error")
    return header[1]


def _months(dates: list[tuple[int, str]], name: str) -> NDArray[np.int64]:
    """Of dates with their line numbers; all are written alike."""
    form = next((form for form in _DATES if form.fullmatch(dates[0][1])), None)
    months: list[int] = []
    for number, text in dates:
        match = form.fullmatch(text) if form else None
        if match is None:
            fact = "no date" if not any(other.fullmatch(text) for other in _DATES) else "written unlike the first one"
            raise InputRefused(f"line {number} of {name}: {text!r} is {fact}")
        parts = match.groupdict()
        month, day = int(parts["month"]), int(parts.get("day", 1))
        if not 1 <= month <= 12 or not 1 <= day <= 31:
            raise InputRefused(f"line {number} of {name}: {text!r} is no date; is the day before the month?")
        months.append((int(parts["year"]) - 1970) * 12 + month - 1)
        if len(months) > 1 and months[-1] <= months[-2]:
            fact = "occurs twice" if months[-1] == months[-2] else f"follows {label(months[-2])}"
            raise InputRefused(f"line {number} of {name}: {label(months[-1])} {fact}")
    return np.array(months, dtype=np.int64)


def _number(text: str, line: int, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputRefused(f"line {line} of {name}: {text!r} is no number")
    return value


def _listed_missing(text: str, name: str) -> NDArray[np.int64]:
    months = []
    for item in filter(None, text.split(";")):
        match = _DATES[1].fullmatch(item)
        if match is None or not 1 <= int(match["month"]) <= 12:
            raise InputRefused(f"{name} lists {item!r} among its missing months, which is no month")
        months.append((int(match["year"]) - 1970) * 12 + int(match["month"]) - 1)
    return np.array(sorted(months), dtype=np.int64)


def _area(notes: dict[str, str], name: str) -> float | None:
    areas = {key: text for key, text in notes.items() if key.startswith("total_area_") and key != "total_area_units"}
    if not areas:
        return None
    unit = notes.get("total_area_units", "km^2")
    if unit != "km^2":
        raise InputRefused(f"{name} has its area in {unit}, not km^2")
    if len(areas) > 1:
        raise InputRefused(f"{name} has {len(areas)} areas: {', '.join(areas)}")
    try:
        area = float(next(iter(areas.values())))
    except ValueError:
        area = -1.0
    if not 0 < area < np.inf:
        raise InputRefused(f"{name} has an area of {next(iter(areas.values()))!r}")
    return area
