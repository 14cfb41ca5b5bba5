"""Which map of which file is which period."""

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from services.core.errors import DeclarationError, InputRefused
from services.core.time_axis import Step, TimeAxis, Unit
from services.sources import periods
from services.sources.periods import Microseconds, Pattern, Regular, Spans, TimeOption
from services.sources.raster import Description

MONTHS_IN_YEAR = 12
_SHOWN = 12
"""Missing periods that are named one by one."""

_PARTS: dict[str, str] = {"M": "months", "D": "days", "h": "hours", "m": "minutes"}


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The time axis of a set of files and where each period's map is."""

    axis: TimeAxis
    slots: tuple[tuple[int, int], ...]
    """Number of the file and of the map in it, for each period."""

    facts: tuple[tuple[str, str], ...]


def timed(
    names: Sequence[str], described: Sequence[Description], option: TimeOption | None, step: Step | None
) -> Timing:
    """Give each map its period.

    Args:
        names: the files.
        described: the same files as their readers see them.
        option: what the user says about time.
        step: length of a period where it is known (a collection is continued); None: to be found.

    Raises:
        InputRefused: if nothing says the time of a map, or two maps have one period.
    """
    match option:
        case Regular():
            spans = _counted(described, option)
            fact = f"counted from {np.datetime64(option.start, option.step.unit)} in steps of {option.step} (--time)"
        case Pattern():
            spans, fact = _named(names, described, option)
        case Step():
            spans = periods.floored(_own(names, described), option)
            fact = f"the files' own times, in periods of {option} (--time)"
        case None:
            spans, fact = _said(names, described, step)
    if step is not None and spans.step != step:
        raise InputRefused(f"{names[0]}: periods are {spans.step} long, and those of the collection {step}")
    return _arranged(names, described, spans, fact)


def _counted(described: Sequence[Description], option: Regular) -> Spans:
    count = sum(description.slices for description in described)
    return periods.started(option.step, [option.start + number * option.step.count for number in range(count)])


def _own(names: Sequence[str], described: Sequence[Description]) -> Microseconds:
    parts: list[Microseconds] = []
    for name, description in zip(names, described, strict=True):
        if description.times is None:
            raise InputRefused(f"{name} says no time; say it with --time START/STEP or a pattern of the file names")
        parts.append(description.times)
    return np.concatenate(parts)


def _said(names: Sequence[str], described: Sequence[Description], step: Step | None) -> tuple[Spans, str]:
    if any(description.times is not None for description in described):
        times = _own(names, described)
        _refuse_equal(names, described, times)
        bounds = [description.bounds for description in described]
        if all(edge is not None for edge in bounds):
            spans = periods.bounded(times, np.concatenate([edge for edge in bounds if edge is not None]))
            if spans is not None:
                return spans, f"time bounds of the files, {spans.step} long"
        if step is not None:
            return periods.floored(times, step), f"the files' own times, in the collection's periods of {step}"
        found = periods.inferred(_all_of(names), times)
        return periods.floored(times, found), f"the files' own times, which fall in periods of {found}"
    if not any(periods.parse_label(label) for description in described for label in description.labels):
        pattern = periods.pattern_of([_base(name) for name in names])
        if pattern is not None and all(description.slices == 1 for description in described):
            return _told_by_names(names, described, pattern, step)
    return _labelled(names, described, step)


def _told_by_names(
    names: Sequence[str], described: Sequence[Description], pattern: Pattern, step: Step | None
) -> tuple[Spans, str]:
    """Files of one map each that say no time, and whose names differ in a month or day alone."""
    spans, fact = _named(names, described, pattern)
    if step is not None:
        spans = periods.floored(np.asarray(spans.times, dtype=np.int64), step)
    return spans, f"{fact}, as the files say none (--time says otherwise)"


def _refuse_equal(names: Sequence[str], described: Sequence[Description], times: Microseconds) -> None:
    values, counts = np.unique(times, return_counts=True)
    if counts.max(initial=0) < 2:
        return
    slots = _slots(described)
    one, other = np.flatnonzero(times == values[counts > 1][0])[:2].tolist()
    moment = np.datetime64(int(times[one]), "us").astype("datetime64[s]")
    _refuse_twice(names, slots[one], slots[other], f"the time {moment}Z")


def _labelled(names: Sequence[str], described: Sequence[Description], step: Step | None) -> tuple[Spans, str]:
    times: list[int] = []
    units: set[Unit] = set()
    for name, description in zip(names, described, strict=True):
        labels = [periods.parse_label(label) for label in description.labels]
        found = [label for label in labels if label is not None]
        if not labels or len(found) < len(labels):
            _refuse_timeless(name, description)
        if len({label.instant(2000) for label in found}) < len(found):
            raise InputRefused(f"{name}: two of its bands are described with the same date")
        year = periods.year_of(_base(name))
        if year is None and any(label.year is None for label in found):
            raise InputRefused(
                f"{name}: its bands are months ({description.labels[0]} ...), but its name does not hold one year; say "
                "it with --time, for example --time 'NAME_{year}' or --time 2001-01/P1M"
            )
        units |= {label.unit for label in found}
        times += [int(label.instant(year or 0).astype(np.int64)) for label in found]
    moments = np.asarray(times, dtype=np.int64)
    if units == {"M"}:
        return periods.floored(moments, Step(count=1, unit="M")), "descriptions of the bands, which are months"
    found_step = step or periods.inferred(_all_of(names), moments)
    return periods.floored(moments, found_step), f"descriptions of the bands, which fall in periods of {found_step}"


def _refuse_timeless(name: str, description: Description) -> None:
    maps = "one map" if description.slices == 1 else f"{description.slices} maps"
    told = [label for label in description.labels if label]
    called = f" ({', '.join(told[:6])}{' ...' if len(told) > 6 else ''})" if told else ""
    raise InputRefused(
        f"{name} holds {maps}{called} and does not say of when; say it with --time: START/STEP (2001-01/P1M) counts "
        "maps in order, NAME_{year} or NAME_{year}{month} is a pattern of file names"
    )


def _named(names: Sequence[str], described: Sequence[Description], pattern: Pattern) -> tuple[Spans, str]:
    starts = [pattern.start(_base(name)) for name in names]
    monthly = pattern.unit == "Y" and any(
        description.slices == MONTHS_IN_YEAR or _months(description) for description in described
    )
    notes: list[str] = []
    parts = [
        _months_of_year(name, description, start, starts, notes)
        if monthly
        else _parts_of(name, description, start, pattern)
        for name, description, start in zip(names, described, starts, strict=True)
    ]
    steps = {part.step for part in parts}
    if len(steps) > 1:
        raise InputRefused(
            f"{_all_of(names)}: by --time {pattern.text!r} some files hold periods of "
            f"{' and others of '.join(sorted(str(step) for step in steps))}"
        )
    joined = Spans(
        step=steps.pop(),
        starts=tuple(start for part in parts for start in part.starts),
        times=tuple(time for part in parts for time in part.times),
    )
    fact = f"the file names, read as {pattern.text!r}"
    single = all(description.slices == 1 for description in described)
    if single and joined.step.unit in {"D", "h", "m"} and len(joined.starts) > 1:
        moments = np.asarray(joined.times, dtype=np.int64)
        if np.unique(moments).size == moments.size:  # else two files of one period are refused by name
            joined = periods.floored(moments, periods.inferred(_all_of(names), moments))
    elif not single:
        fact += f", bands are {_PARTS.get(joined.step.unit, 'periods')}"
    return joined, "; ".join([fact, *notes])


def _parts_of(name: str, description: Description, start: np.datetime64, pattern: Pattern) -> Spans:
    found = periods.subdivided(start, pattern.unit, description.slices)
    if found is None:
        raise InputRefused(
            f"{name} holds {description.slices} maps, which are neither the months, days nor hours of {start}; say "
            "--time START/STEP"
        )
    return found


def _months(description: Description) -> list[int] | None:
    labels = [periods.parse_label(label) for label in description.labels]
    if not labels or any(label is None or label.day is not None for label in labels):
        return None
    return [label.month for label in labels if label is not None]


def _months_of_year(
    name: str, description: Description, start: np.datetime64, all_starts: Sequence[np.datetime64], notes: list[str]
) -> Spans:
    year = int(start.astype("datetime64[Y]").astype(np.int64)) + 1970
    january = (year - 1970) * MONTHS_IN_YEAR
    count = description.slices
    labels = [periods.parse_label(label) for label in description.labels]
    other = next((label.year for label in labels if label is not None and label.year not in {None, year}), None)
    if other is not None:
        raise InputRefused(f"{name}: a band is described with the year {other}, and the name says {year}")
    months = _months(description)
    if months is not None:
        if len(set(months)) < len(months):
            raise InputRefused(f"{name}: two of its bands are described with the same month")
        if months != list(range(1, MONTHS_IN_YEAR + 1)):
            notes.append(f"{year}: months by the bands' descriptions, {_span(months)}")
        return periods.started(Step(count=1, unit="M"), [january + month - 1 for month in months])
    if count > MONTHS_IN_YEAR:
        raise InputRefused(f"{name} holds {count} maps, more than the months of {year}")
    if count == MONTHS_IN_YEAR:
        return periods.started(Step(count=1, unit="M"), range(january, january + MONTHS_IN_YEAR))
    if len(all_starts) < 2 or start != min(all_starts):
        raise InputRefused(
            f"{name} holds {count} maps and does not say which months of {year} they are; describe its bands "
            f"({year}-01 ...) or ingest it by itself with --time START/P1M"
        )
    months = list(range(MONTHS_IN_YEAR - count + 1, MONTHS_IN_YEAR + 1))
    notes.append(f"{year}, the first year, has {count} bands, taken for its last months, {_span(months)}")
    return periods.started(Step(count=1, unit="M"), [january + month - 1 for month in months])


def _span(months: Sequence[int]) -> str:
    return f"{calendar.month_name[months[0]]} to {calendar.month_name[months[-1]]}"


def _arranged(names: Sequence[str], described: Sequence[Description], spans: Spans, fact: str) -> Timing:
    slots = _slots(described)
    order = sorted(range(len(slots)), key=lambda index: spans.starts[index])
    for before, after in pairwise(order):
        if spans.starts[after] - spans.starts[before] < spans.step.count:
            period = np.datetime64(spans.starts[before], spans.step.unit)
            _refuse_twice(names, slots[before], slots[after], f"the period {period} ({spans.step})")
    try:
        axis = TimeAxis.with_times(
            spans.step, tuple(spans.starts[i] for i in order), tuple(spans.times[i] for i in order)
        )
    except DeclarationError as error:
        raise InputRefused(f"{_all_of(names)}: {error}") from None
    facts = (("time", fact), ("periods", _told(axis)))
    return Timing(axis=axis, slots=tuple(slots[i] for i in order), facts=facts)


def _slots(described: Sequence[Description]) -> list[tuple[int, int]]:
    return [(number, at) for number, description in enumerate(described) for at in range(description.slices)]


def _refuse_twice(names: Sequence[str], first: tuple[int, int], second: tuple[int, int], what: str) -> None:
    if first[0] == second[0]:
        where = f"maps {first[1] + 1} and {second[1] + 1} of {names[first[0]]} are both maps"
    else:
        where = f"{names[first[0]]} and {names[second[0]]} both hold a map"
    raise InputRefused(f"{where} of {what}; each period may be given once")


def _told(axis: TimeAxis) -> str:
    step = axis.step.count
    present = (axis.starts[-1] - axis.starts[0]) // step + 1
    text = f"{len(axis)} of {axis.step}, {axis.ids[0]} to {axis.ids[-1]}"
    if present == len(axis):
        return f"{text}, none missing"
    here = set(axis.starts)
    gone = present - len(axis)
    if gone > _SHOWN:
        return f"{text}, {gone} missing in between"
    lost = [start for start in range(axis.starts[0], axis.starts[-1], step) if start not in here]
    return f"{text}, missing in between: {', '.join(str(np.datetime64(s, axis.step.unit)) for s in lost)}"


def _base(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _all_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
