"""Which periods the times of a source mean."""

import calendar
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.core.errors import DeclarationError, InputRefused, QueryError, SettingsError
from services.core.time_axis import Step, Unit, parse_instant

type Microseconds = NDArray[np.int64]

MONTHS = {
    **{name.lower(): number for number, name in enumerate(calendar.month_name) if name},
    **{name.lower(): number for number, name in enumerate(calendar.month_abbr) if name},
}
"""English month names, long and short -> 1..12."""

_FIELDS = {
    "year": "[0-9]{4}",
    "month": "[0-9]{2}",
    "day": "[0-9]{2}",
    "doy": "[0-9]{3}",
    "hour": "[0-9]{2}",
    "minute": "[0-9]{2}",
}
_FIELD = re.compile(r"\{([a-z]*)\}")
_YEAR = re.compile(r"(?<![0-9])(?:1[89]|20|21)[0-9]{2}(?![0-9])")
_LABEL_DATE = re.compile(
    r"(?<![0-9])([0-9]{4})-([0-9]{2})(?:-([0-9]{2})(?:[T ]([0-9]{2})(?::([0-9]{2}))?(?::00)?Z?)?)?(?![0-9-])"
)
_LABEL_DIGITS = re.compile(r"^((?:1[89]|20|21)[0-9]{2})([0-9]{2})([0-9]{2})?$")
_LABEL_MONTH = re.compile(
    r"^(?:((?:1[89]|20|21)[0-9]{2})[ _-]?)?([A-Za-z]{3,9})\.?(?:[ _-]?((?:1[89]|20|21)[0-9]{2}))?$"
)

_NAME_DATE = re.compile(
    r"(?<![0-9A-Za-z])(?P<year>(?:19|20|21)[0-9]{2})(?P<mark>[-_.]?)(?P<month>0[1-9]|1[0-2])"
    r"(?:(?P=mark)(?P<day>0[1-9]|[12][0-9]|3[01])(?![0-9A-Za-z]))?(?![0-9A-Za-z])"
)
"""A month or day in a file name: 201501, 2015_01, 2015-01-31; not within a longer number, nor beside a letter, as in
v201501 or 2015_10km."""

_SHORTEST_YEAR = np.timedelta64(183, "D")
_SHORTEST_MONTH = np.timedelta64(7, "D")
_FEW = 3
"""Times from which a common divisor of their distances says something about the step."""


@dataclass(frozen=True, kw_only=True)
class Spans:
    """The periods of some slices, in the slices' order."""

    step: Step
    """Length of each."""

    starts: tuple[int, ...]
    """Start of each, in units of the step since 1970."""

    times: tuple[int, ...]
    """The source's own times, microseconds since 1970; the starts where it has none."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """``--time`` as a pattern of file names, such as ``GWSA_{year}``."""

    text: str
    expression: re.Pattern[str]
    unit: Unit
    """Unit of the period that a name stands for."""

    def start(self, name: str) -> np.datetime64:
        """Start of the period that a file name stands for, datetime64 of ``unit``.

        Raises:
            InputRefused: if the name does not match, in two ways, or with no date.
        """
        found = {match.groups() for match in self.expression.finditer(name)}
        if len(found) != 1:
            fact = "does not match" if not found else "matches in more than one way"
            raise InputRefused(f"{name}: the name {fact} --time {self.text!r}")
        match = self.expression.search(name)
        parts = match.groupdict() if match else {}
        try:
            if "doy" in parts:
                start = np.datetime64(parts["year"], "Y").astype("datetime64[D]") + np.timedelta64(
                    int(parts["doy"]) - 1, "D"
                )
                if int(parts["doy"]) < 1 or start.astype("datetime64[Y]") != np.datetime64(parts["year"], "Y"):
                    raise ValueError(f"day {parts['doy']}")  # noqa: TRY301 - said below, as every other wrong date
            else:
                start = np.datetime64(f"{parts['year']}-{parts.get('month', '01')}-{parts.get('day', '01')}", "D")
        except ValueError as error:
            raise InputRefused(f"{name}: the name read as --time {self.text!r} holds no date: {error}") from None
        hour, minute = int(parts.get("hour", 0)), int(parts.get("minute", 0))
        if hour > 23 or minute > 59:
            raise InputRefused(f"{name}: the name read as --time {self.text!r} holds no time: {hour}:{minute}")
        moment = start.astype("datetime64[m]") + np.timedelta64(hour * 60 + minute, "m")
        whole: np.datetime64 = moment.astype(f"datetime64[{self.unit}]")
        return whole


@dataclass(frozen=True, kw_only=True)
class Regular:
    """``--time START/STEP``: slices in order, one period each."""

    start: int
    """Start of the first, in units of the step since 1970."""

    step: Step


type TimeOption = Pattern | Regular | Step


def parse_time(text: str) -> TimeOption:
    """Read ``--time``.

    Raises:
        SettingsError: if it is neither a pattern, nor START/STEP, nor a STEP.
    """
    if "{" in text:
        return _pattern(text)
    try:
        if "/" in text:
            start, _, step_text = text.partition("/")
            step = Step.parse(step_text.strip())
            instant = parse_instant(start)[0]
            number = int(instant.astype(f"datetime64[{step.unit}]").astype(np.int64))
            if np.datetime64(number, step.unit).astype("datetime64[us]") != instant:
                raise SettingsError(f"--time {text!r}: {start} is not the start of a period of {step}")
            return Regular(start=number, step=step)
        return Step.parse(text.strip())
    except (DeclarationError, QueryError) as error:
        raise SettingsError(
            f"--time {text!r} is not a pattern of file names (GWSA_{{year}}), START/STEP (2001-01/P1M) or STEP (P1M): "
            f"{error}"
        ) from None


def inferred(name: str, times: Microseconds) -> Step:
    """The step that times suggest.

    The coarsest of a year, a month, some days, some hours, some minutes in which all times fall in different periods
    and at least half of the periods from the first to the last are there; else the coarsest of a day, an hour and a
    minute in which all times fall in different periods, so that a few scattered days are days with gaps.

    Args:
        name: of what, for messages.
        times: microseconds since 1970, in any order.

    Raises:
        InputRefused: if one time alone is given, two are equal, or no unit tells them apart.
    """
    ordered = np.unique(times)
    if ordered.size < times.size:
        raise InputRefused(f"{name}: two slices have the time {_moment(_twice(times))}")
    if ordered.size == 1:
        raise InputRefused(
            f"{name}: one time alone ({_moment(ordered[0])}) does not say how long its period is; say it with "
            "--time STEP (for example --time P1M)"
        )
    instants = ordered.astype("datetime64[us]")
    nearest = np.diff(instants).min()
    for unit, shortest in (("Y", _SHORTEST_YEAR), ("M", _SHORTEST_MONTH)):
        numbers = instants.astype(f"datetime64[{unit}]").astype(np.int64)
        if nearest >= shortest and _fills(numbers, 1):
            return Step(count=1, unit="Y" if unit == "Y" else "M")
    units: tuple[Unit, ...] = ("D", "h", "m")
    for unit in units:
        numbers = instants.astype(f"datetime64[{unit}]").astype(np.int64)
        count = math.gcd(*np.diff(numbers).tolist()) if numbers.size >= _FEW else 1
        if count and _fills(numbers, count):
            return Step(count=count, unit=unit)
    for unit in units:
        if (np.diff(instants.astype(f"datetime64[{unit}]").astype(np.int64)) > 0).all():
            return Step(count=1, unit=unit)
    raise InputRefused(f"{name}: times lie closer than a minute ({_moment(ordered[0])}, {_moment(ordered[1])})")


def bounded(times: Microseconds, bounds: Microseconds) -> Spans | None:
    """The periods that CF time bounds ``(time, 2)`` say, or None where they are not of one length, or overlap."""
    if not (bounds[:, 0] < bounds[:, 1]).all() or (times < bounds[:, 0]).any() or (times > bounds[:, 1]).any():
        return None
    edges = bounds.astype("datetime64[us]")
    units: tuple[Unit, ...] = ("Y", "M", "D", "h", "m")
    for unit in units:
        whole = edges.astype(f"datetime64[{unit}]")
        if (whole != edges).any():
            continue
        numbers = whole.astype(np.int64)
        lengths = np.unique(numbers[:, 1] - numbers[:, 0])
        if lengths.size > 1:
            continue
        starts = np.sort(numbers[:, 0])
        if (np.diff(starts) < lengths[0]).any():
            return None
        return Spans(
            step=Step(count=int(lengths[0]), unit=unit),
            starts=tuple(numbers[:, 0].tolist()),
            times=tuple(times.tolist()),
        )
    return None


def floored(times: Microseconds, step: Step) -> Spans:
    """The periods of a step that times fall in; a multiple is counted from the first time's unit."""
    numbers = times.astype("datetime64[us]").astype(f"datetime64[{step.unit}]").astype(np.int64)
    if step.count > 1:
        first = int(numbers.min())
        numbers = first + (numbers - first) // step.count * step.count
    return Spans(step=step, starts=tuple(numbers.tolist()), times=tuple(times.tolist()))


def started(step: Step, starts: Sequence[int]) -> Spans:
    """Periods without times of their own."""
    plain = np.asarray(starts, dtype=np.int64).astype(f"datetime64[{step.unit}]").astype("datetime64[us]")
    return Spans(step=step, starts=tuple(starts), times=tuple(plain.astype(np.int64).tolist()))


def subdivided(start: np.datetime64, unit: Unit, count: int) -> Spans | None:
    """The periods of ``count`` slices that fill a year, month or day: its months, days or hours.

    Returns:
        None where they do not fill it.
    """
    if count == 1:
        return started(Step(count=1, unit=unit), [int(start.astype(np.int64))])
    end = start + np.timedelta64(1, unit)
    finer: tuple[Unit, ...] = ("M", "D", "h", "m")
    for part in finer:
        first = int(start.astype(f"datetime64[{part}]").astype(np.int64))
        last = int(end.astype(f"datetime64[{part}]").astype(np.int64))
        if last - first == count:
            return started(Step(count=1, unit=part), range(first, last))
    return None


@dataclass(frozen=True, kw_only=True)
class Label:
    """A date that a band's description tells, as far as it goes."""

    year: int | None
    month: int
    day: int | None = None
    minute: int | None = None
    """Minutes since midnight."""

    @property
    def unit(self) -> Unit:
        """Unit of the period that it stands for."""
        return "M" if self.day is None else "D" if self.minute is None else "m"

    def instant(self, year: int) -> np.datetime64:
        """Start of what it stands for, datetime64[us]; raises ValueError where there is no such date."""
        date = np.datetime64(f"{self.year or year:04d}-{self.month:02d}-{self.day or 1:02d}", "D")
        moment: np.datetime64 = date.astype("datetime64[us]") + np.timedelta64(self.minute or 0, "m")
        return moment


def parse_label(text: str | None) -> Label | None:
    """The date in a band's description (``2004-01``, ``2004-01-15``, ``200401``, ``January``, ``Jan 2004``), if any."""
    if text is None:
        return None
    text = text.strip()
    dates = set(_LABEL_DATE.findall(text))
    if len(dates) == 1:
        year, month, day, hour, minute = dates.pop()
        clock = int(hour) * 60 + int(minute or 0) if hour else None
        return _label(int(year), int(month), int(day) if day else None, clock)
    digits = _LABEL_DIGITS.match(text)
    if digits:
        return _label(int(digits[1]), int(digits[2]), int(digits[3]) if digits[3] else None, None)
    named = _LABEL_MONTH.match(text)
    if named and named[2].lower() in MONTHS and not (named[1] and named[3]):
        year_text = named[1] or named[3]
        return Label(year=int(year_text) if year_text else None, month=MONTHS[named[2].lower()])
    return None


def year_of(name: str) -> int | None:
    """The one year that a file name holds; None where there is none or more than one."""
    found = set(_YEAR.findall(name))
    return int(found.pop()) if len(found) == 1 else None


def pattern_of(names: Sequence[str]) -> Pattern | None:
    """The pattern that tells the month or day of file names by itself.

    Args:
        names: of files, without folders.

    Returns:
        None where a name holds no date or more than one, or names differ in more than their dates.
    """
    texts: set[str] = set()
    for name in names:
        dates = list(_NAME_DATE.finditer(name))
        if len(dates) != 1 or any(mark in name for mark in "{}*"):
            return None
        date = dates[0]
        fields = ["{year}", "{month}", *(["{day}"] if date["day"] else [])]
        texts.add(name[: date.start()] + date["mark"].join(fields) + name[date.end() :])
    if len(texts) != 1:
        return None
    return _pattern(texts.pop())


def _label(year: int, month: int, day: int | None, minute: int | None) -> Label | None:
    label = Label(year=year, month=month, day=day, minute=minute)
    try:
        label.instant(year)
    except ValueError:
        return None
    return label


def _pattern(text: str) -> Pattern:
    fields = _FIELD.findall(text)
    rest = _FIELD.sub("", text)
    unknown = [field for field in fields if field not in _FIELDS]
    if unknown or "{" in rest or "}" in rest:
        raise SettingsError(
            f"--time {text!r}: only {', '.join('{' + field + '}' for field in _FIELDS)} may stand in braces"
        )
    have = set(fields)
    chain = ["year", "doy" if "doy" in have else "month", "day", "hour", "minute"]
    if "doy" in have:
        chain.remove("day")
    if have != set(chain[: len(have)]) or len(have) != len(fields):
        raise SettingsError(
            f"--time {text!r}: a date is written {{year}}, {{year}}{{month}}, {{year}}{{month}}{{day}} or "
            "{year}{doy}, with {hour} and {minute} behind, each once"
        )
    expression = "".join(
        f"(?P<{part}>{_FIELDS[part]})" if number % 2 else re.escape(part).replace(r"\*", ".*?")
        for number, part in enumerate(_FIELD.split(text))
    )
    units: dict[str, Unit] = {"year": "Y", "month": "M", "day": "D", "doy": "D", "hour": "h", "minute": "m"}
    finest = units[chain[len(have) - 1]]
    return Pattern(text=text, expression=re.compile(expression), unit=finest)


def _fills(numbers: NDArray[np.int64], count: int) -> bool:
    if (np.diff(numbers) <= 0).any():
        return False
    present = (int(numbers[-1]) - int(numbers[0])) // count + 1
    return bool(2 * numbers.size >= present)


def _twice(times: Microseconds) -> np.int64:
    values, counts = np.unique(times, return_counts=True)
    first: np.int64 = values[counts > 1][0]
    return first


def _moment(time: np.int64) -> str:
    return f"{time.astype('datetime64[us]').astype('datetime64[s]')}Z"
