"""CF time coordinates to microseconds since 1970, in the standard calendar."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused

STANDARD = frozenset({"standard", "gregorian", "proleptic_gregorian", "none", ""})
"""Calendars that are the standard one for every date since 1582."""

SECOND = 1_000_000
"""Microseconds of a second."""

_LENGTHS = {
    "microsecond": 1,
    "millisecond": 1_000,
    "second": SECOND,
    "minute": 60 * SECOND,
    "hour": 3_600 * SECOND,
    "day": 86_400 * SECOND,
    "week": 7 * 86_400 * SECOND,
}
_SHORT = {
    "us": "microsecond",
    "microsec": "microsecond",
    "ms": "millisecond",
    "msec": "millisecond",
    "s": "second",
    "sec": "second",
    "min": "minute",
    "h": "hour",
    "hr": "hour",
    "d": "day",
}
_SINCE = re.compile(r"^\s*(?P<unit>[A-Za-z]+)\s+since\s+(?P<date>.+?)\s*$", re.IGNORECASE)
_DATE = re.compile(
    r"^(?P<Y>-?[0-9]{1,4})-(?P<M>[0-9]{1,2})-(?P<D>[0-9]{1,2})"
    r"(?:[T ]+(?P<h>[0-9]{1,2})(?::(?P<m>[0-9]{1,2})(?::(?P<s>[0-9]{1,2}(?:\.[0-9]*)?))?)?)?"
    r"\s*(?P<z>Z|UTC|GMT|[+-][0-9]{1,2}:?(?:[0-9]{2})?)?$"
)
_ABSOLUTE = re.compile(r"^\s*day as %Y%m%d(?:\.%f)?\s*$")
_GREGORIAN_SINCE = (1582, 10, 15)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What ``units`` and ``calendar`` of a time coordinate say."""

    unit: str
    """``day`` and so on; ``month`` and ``year`` are calendar ones; ``absolute`` is ``day as %Y%m%d.%f``."""

    epoch: int
    """Microseconds from 1970 to the reference; 0 for ``absolute``."""


def is_time_unit(units: Any) -> bool:
    """Whether an attribute reads like the unit of a time coordinate."""
    return isinstance(units, str) and bool(_SINCE.match(units) or _ABSOLUTE.match(units))


def parse_reference(name: str, units: str, calendar: str | None) -> Reference:
    """Understand ``units`` and ``calendar`` of a time coordinate.

    Raises:
        InputRefused: for another calendar or a unit that is none.
    """
    kind = (calendar or "standard").strip().lower()
    if kind not in STANDARD:
        raise InputRefused(
            f"{name}: its calendar is {calendar!r}; only the standard one is accepted "
            "(convert it first, for example with `cdo setcalendar`)"
        )
    if _ABSOLUTE.match(units):
        return Reference(unit="absolute", epoch=0)
    match = _SINCE.match(units)
    if not match:
        raise InputRefused(f"{name}: {units!r} is not a unit of time such as 'days since 1970-01-01'")
    word = match["unit"].lower()
    word = _SHORT.get(word, _SHORT.get(word.rstrip("s"), word.rstrip("s")))
    if word not in _LENGTHS and word not in {"month", "year"}:
        raise InputRefused(f"{name}: {match['unit']!r} is not a unit of time such as days or hours")
    date = _DATE.match(match["date"])
    if not date:
        raise InputRefused(f"{name}: {match['date']!r} is not a date that times can be counted from")
    return Reference(unit=word, epoch=_epoch(name, date, proleptic=kind == "proleptic_gregorian"))


def decode(name: str, values: NDArray[Any], reference: Reference) -> NDArray[np.int64]:
    """Values of a time coordinate as microseconds since 1970, same shape.

    Floats that lie within their own precision of a whole second are taken to mean it.

    Raises:
        InputRefused: if a value is missing, or no whole month of a calendar unit.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputRefused(f"{name}: a time is missing")
    if reference.unit == "absolute":
        return _absolute(name, values)
    if reference.unit in {"month", "year"}:
        return _calendar(name, values, reference)
    length = _LENGTHS[reference.unit]
    if values.dtype.kind in "iu":
        if values.size and max(abs(int(values.min())), abs(int(values.max()))) > 2**62 // length:
            raise InputRefused(
                f"{name}: times reach {int(np.abs(values).max())} {reference.unit}s, beyond any calendar"
            )
        return values.astype(np.int64) * length + reference.epoch
    if values.size and float(np.abs(values).max()) * length > 2.0**62:
        raise InputRefused(
            f"{name}: times reach {float(np.abs(values).max()):g} {reference.unit}s, beyond any calendar"
        )
    precision = np.spacing(np.abs(values)).astype(np.float64) * length
    exact = [Fraction(float(value)) * length for value in values.ravel()]
    whole = np.asarray([round(value) for value in exact], dtype=np.int64).reshape(values.shape) + reference.epoch
    seconds = (whole + SECOND // 2) // SECOND * SECOND
    snap = (np.abs(whole - seconds) <= precision + 1) & (precision < SECOND / 100)
    return np.where(snap, seconds, whole)


def _absolute(name: str, values: NDArray[Any]) -> NDArray[np.int64]:
    days = np.floor(values).astype(np.int64)
    text = [f"{day // 10000:04d}-{day // 100 % 100:02d}-{day % 100:02d}" for day in days.ravel().tolist()]
    try:
        dates = np.asarray(text, dtype="datetime64[D]").astype("datetime64[us]").astype(np.int64).reshape(values.shape)
    except ValueError:
        raise InputRefused(f"{name}: a time is no date written as %Y%m%d ({text[0]})") from None
    rest = np.rint((values.astype(np.float64) - days) * 86_400).astype(np.int64) * SECOND
    moved: NDArray[np.int64] = dates + rest
    return moved


def _calendar(name: str, values: NDArray[Any], reference: Reference) -> NDArray[np.int64]:
    if values.dtype.kind == "f" and (values != np.floor(values)).any():
        raise InputRefused(
            f"{name}: times are fractions of a {reference.unit}, whose length is not fixed; only whole ones can be read"
        )
    start = np.datetime64(reference.epoch, "us")
    day = (start.astype("datetime64[D]") - start.astype("datetime64[M]").astype("datetime64[D]")).astype(np.int64)
    if day > 27:
        raise InputRefused(
            f"{name}: times count {reference.unit}s from day {day + 1} of a month, which not all months have"
        )
    months = values.astype(np.int64) * (12 if reference.unit == "year" else 1)
    first = start.astype("datetime64[M]")
    within = start - first.astype("datetime64[us]")
    dates = (first + months.astype("timedelta64[M]")).astype("datetime64[us]") + within
    return np.asarray(dates.astype(np.int64))


def _epoch(name: str, date: re.Match[str], *, proleptic: bool) -> int:
    year, month, day = int(date["Y"]), int(date["M"]), int(date["D"])
    clock = (int(date["h"] or 0), int(date["m"] or 0), Fraction(date["s"] or 0))
    if not (1 <= month <= 12 and 1 <= day <= 31 and clock[0] <= 24 and clock[1] < 60 and clock[2] < 61):
        raise InputRefused(f"{name}: {date[0]!r} is not a date that times can be counted from")
    # the standard calendar is Julian before 1582-10-15: 'days since 1-1-1' counts two days more than proleptic
    number = (
        _julian(year, month, day)
        if not proleptic and (year, month, day) < _GREGORIAN_SINCE
        else _gregorian(year, month, day)
    )
    zone = date["z"] or "Z"
    shift = 0
    if zone[0] in "+-":
        digits = zone[1:].replace(":", "")
        hours, minutes = (digits[:-2], digits[-2:]) if len(digits) > 2 else (digits, "0")
        shift = (int(hours) * 60 + int(minutes)) * 60 * (1 if zone[0] == "+" else -1)
    seconds = (clock[0] * 60 + clock[1]) * 60 - shift
    return (number * 86_400 + seconds) * SECOND + round(clock[2] * SECOND)


def _gregorian(year: int, month: int, day: int) -> int:
    first = np.datetime64(f"{year:05d}-{month:02d}" if year < 0 else f"{year:04d}-{month:02d}", "M")
    return int(first.astype("datetime64[D]").astype(np.int64)) + day - 1


def _julian(year: int, month: int, day: int) -> int:
    # Meeus, Astronomical Algorithms, ch. 7, as a whole number of days since 1970-01-01
    if month <= 2:
        year, month = year - 1, month + 12
    return (1461 * (year + 4716)) // 4 + (306001 * (month + 1)) // 10000 + day - 1524 - 2440588
