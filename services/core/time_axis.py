"""When values hold: half-open UTC periods of one length, in order, with gaps simply absent."""

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from services.core.errors import DeclarationError, QueryError, TimeOutsideAxis

type Unit = Literal["Y", "M", "D", "h", "m"]
type Instants = NDArray[np.datetime64]

_STEP = re.compile(r"^P(?:(?P<date>[1-9][0-9]*)(?P<dateunit>[YMWD])|T(?P<time>[1-9][0-9]*)(?P<timeunit>[HM]))$")
_INSTANT = re.compile(
    r"^(?P<Y>[0-9]{4})(?:-?(?P<M>[0-9]{2})(?:-?(?P<D>[0-9]{2})"
    r"(?:[T ](?P<h>[0-9]{2})(?::?(?P<m>[0-9]{2})(?::?(?P<s>[0-9]{2})(?:\.(?P<f>[0-9]{1,6})[0-9]*)?)?)?"
    r"(?P<z>Z|[+-][0-9]{2}:?[0-9]{2})?)?)?)?$"
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """The length of a period: a number of years, months, days, hours or minutes."""

    count: int
    """How many units, at least 1."""

    unit: Unit
    """A numpy datetime64 unit: Y, M, D, h (hours), m (minutes)."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise DeclarationError(f"a step needs at least one unit, not {self.count}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an ISO 8601 duration of one unit, such as ``P1M``, ``P8D``, ``PT1H``."""
        match = _STEP.fullmatch(text)
        if not match:
            raise DeclarationError(f"{text!r} is not an ISO 8601 duration of one unit such as P1M, P1D or PT1H")
        if match["date"]:
            count, unit = int(match["date"]), match["dateunit"]
            if unit == "W":
                return cls(count=7 * count, unit="D")
            return cls(count=count, unit="Y" if unit == "Y" else "M" if unit == "M" else "D")
        return cls(count=int(match["time"]), unit="h" if match["timeunit"] == "H" else "m")

    def __str__(self) -> str:
        """The ISO 8601 duration."""
        if self.unit in {"h", "m"}:
            return f"PT{self.count}{self.unit.upper()}"
        return f"P{self.count}{self.unit}"

    def delta(self) -> np.timedelta64:
        """The length as a timedelta64 of the unit."""
        return np.timedelta64(self.count, self.unit)


@dataclass(frozen=True, kw_only=True)
class TimeAxis:
    """Periods of one step, rising and disjoint; a missing period is absent.

    Raises:
        DeclarationError: if periods overlap, fall, or nominal times lie outside their period.
    """

    step: Step
    """Length of every period."""

    starts: tuple[int, ...]
    """Start of each period, in units of the step since 1970-01-01T00:00Z (2004-01 of a monthly axis is 408)."""

    times: tuple[int, ...] | None = None
    """The source's own time of each period, microseconds since 1970-01-01T00:00Z; None where it is the start."""

    def __post_init__(self) -> None:
        for before, after in zip(self.starts, self.starts[1:], strict=False):
            if after - before < self.step.count:
                raise DeclarationError(
                    f"periods {self._name(before)} and {self._name(after)} overlap or fall (step {self.step})"
                )
        if self.times is not None:
            if len(self.times) != len(self.starts):
                raise DeclarationError(f"{len(self.times)} times for {len(self.starts)} periods")
            bounds = self.bounds.astype("datetime64[us]").astype(np.int64)
            times = np.asarray(self.times, dtype=np.int64)
            outside = np.flatnonzero((times < bounds[:, 0]) | (times > bounds[:, 1]))
            if outside.size:
                first = int(outside[0])
                raise DeclarationError(
                    f"time {np.datetime64(self.times[first], 'us')} lies outside its period {self.ids[first]}"
                )

    @classmethod
    def regular(cls, start: str, step: str, count: int) -> Self:
        """``count`` periods without a gap, from ``start`` (ISO 8601) on."""
        length = Step.parse(step)
        first = int(parse_instant(start)[0].astype(f"datetime64[{length.unit}]").astype(np.int64))
        return cls(step=length, starts=tuple(range(first, first + count * length.count, length.count)))

    @classmethod
    def of_ids(cls, step: Step, ids: Sequence[str]) -> Self:
        """The periods with these ids."""
        return cls(step=step, starts=tuple(start_of(name, step) for name in ids))

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Period ids: ISO 8601 starts at the resolution of the axis (``2004-01``, ``2004-01-15T03``)."""
        return tuple(self._name(start) for start in self.starts)

    @cached_property
    def bounds(self) -> Instants:
        """Start and end of each period, ``(time, 2)``, datetime64 of the step's unit; the end is not part of it."""
        starts = np.asarray(self.starts, dtype=np.int64)
        return np.stack([starts, starts + self.step.count], axis=1).astype(f"datetime64[{self.step.unit}]")

    @cached_property
    def instants(self) -> Instants:
        """The source's own time of each period, ``(time,)``, datetime64[us]."""
        if self.times is None:
            return self.bounds[:, 0].astype("datetime64[us]")
        return np.asarray(self.times, dtype="datetime64[us]")

    def index(self, instant: np.datetime64) -> int:
        """Position of the period that contains an instant.

        Raises:
            TimeOutsideAxis: if none does; the message names the nearest periods.
        """
        position = self._begun(instant) - 1
        if position >= 0 and instant < self.bounds[position, 1]:
            return position
        near = [self.ids[i] for i in (position, position + 1) if 0 <= i < len(self)]
        raise TimeOutsideAxis(
            f"no period contains {instant.astype('datetime64[s]')}Z; "
            + (
                f"the nearest {'periods are' if len(near) > 1 else 'period is'} {' and '.join(near)}"
                if near
                else "there are none"
            )
        )

    def between(self, first: np.datetime64 | None, last: np.datetime64 | None) -> range:
        """Positions of the periods that touch the closed interval; an open end is None.

        Raises:
            TimeOutsideAxis: if none does.
        """
        if first is not None and last is not None and last < first:
            raise QueryError(f"the interval {first}/{last} ends before it starts")
        low = 0
        if first is not None:
            low = max(self._begun(first) - 1, 0)
            if len(self) and self.bounds[low, 1] <= first:
                low += 1
        high = len(self)
        if last is not None:
            high = self._begun(last)
        if low >= high:
            extent = f"; it has {self.ids[0]} to {self.ids[-1]}" if len(self) else ""
            ends = [".." if one is None else f"{one.astype('datetime64[s]')}Z" for one in (first, last)]
            raise TimeOutsideAxis(f"no period of the axis touches {'/'.join(ends)}{extent}")
        return range(low, high)

    def select(self, expression: str | None) -> range:
        """Positions for a ``datetime=``: an instant, ``a/b``, open ends (``..`` or nothing), ``latest``; None is all.

        A date written short stands for all of it where it ends an interval: ``2004/2005`` ends with December 2005.

        Raises:
            QueryError: if the text is none of these.
            TimeOutsideAxis: if it names no period.
        """
        if expression is None:
            return self.between(None, None)
        if expression == "latest":
            if not self.starts:
                raise TimeOutsideAxis("the axis has no period yet")
            return range(len(self) - 1, len(self))
        if "/" not in expression:
            position = self.index(parse_instant(expression)[0])
            return range(position, position + 1)
        ends = expression.split("/")
        if len(ends) != 2:
            raise QueryError(f"{expression!r} is not an interval a/b")
        first = None if ends[0] in {"", ".."} else parse_instant(ends[0])[0]
        last = None if ends[1] in {"", ".."} else parse_instant(ends[1])[1]
        return self.between(first, last)

    def take(self, positions: Sequence[int]) -> "TimeAxis":
        """The axis of some positions."""
        return TimeAxis(
            step=self.step,
            starts=tuple(self.starts[i] for i in positions),
            times=None if self.times is None else tuple(self.times[i] for i in positions),
        )

    def union(self, other: "TimeAxis") -> "TimeAxis":
        """The periods of both; where both have one, the time is ``other``'s."""
        if other.step != self.step:
            raise DeclarationError(f"an axis of step {other.step} does not continue one of step {self.step}")
        times = dict(zip(self.starts, self._microseconds(), strict=True))
        times.update(zip(other.starts, other._microseconds(), strict=True))  # noqa: SLF001 - the same class
        starts = tuple(sorted(times))
        return TimeAxis.with_times(self.step, starts, tuple(times[start] for start in starts))

    @classmethod
    def with_times(cls, step: Step, starts: tuple[int, ...], times: tuple[int, ...]) -> "TimeAxis":
        """An axis with the source's own times, which are left out where they all are the starts."""
        plain = np.asarray(starts, dtype=np.int64).astype(f"datetime64[{step.unit}]").astype("datetime64[us]")
        same = np.array_equal(plain.astype(np.int64), np.asarray(times, dtype=np.int64))
        return cls(step=step, starts=starts, times=None if same else times)

    def to_json(self) -> dict[str, Any]:
        """Runs of consecutive periods, so that 200 000 hours are one line."""
        runs: list[list[Any]] = []
        previous: int | None = None
        for start in self.starts:
            if previous is not None and start == previous + self.step.count:
                runs[-1][1] += 1
            else:
                runs.append([self._name(start), 1])
            previous = start
        document: dict[str, Any] = {"step": str(self.step), "runs": runs}
        if self.times is not None:
            document["times"] = [f"{instant}Z" for instant in self.instants]
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The axis that ``to_json`` wrote."""
        step = Step.parse(document["step"])
        starts: list[int] = []
        for name, count in document["runs"]:
            first = start_of(name, step)
            starts.extend(range(first, first + count * step.count, step.count))
        times = None
        if "times" in document:
            times = tuple(int(parse_instant(text)[0].astype(np.int64)) for text in document["times"])
        return cls(step=step, starts=tuple(starts), times=times)

    def _begun(self, instant: np.datetime64) -> int:
        """How many periods have begun at an instant."""
        return bisect.bisect_right(self.starts, int(instant.astype(f"datetime64[{self.step.unit}]").astype(np.int64)))

    def _microseconds(self) -> tuple[int, ...]:
        return tuple(self.instants.astype(np.int64).tolist())

    def _name(self, start: int) -> str:
        return str(np.datetime64(start, self.step.unit))


def start_of(name: str, step: Step) -> int:
    """The start of the period with an id, in units of the step since 1970."""
    return int(parse_instant(name)[0].astype(f"datetime64[{step.unit}]").astype(np.int64))


def parse_instant(text: str) -> tuple[np.datetime64, np.datetime64]:
    """Read an ISO 8601 date or time in UTC.

    Returns:
        First and last microsecond that the text covers (``2004-01`` covers the whole month), datetime64[us].

    Raises:
        QueryError: if it is not one.
    """
    match = _INSTANT.match(text.strip())
    if not match:
        raise QueryError(
            f"{text!r} is not an ISO 8601 date or time such as 2004-01, 2004-01-15 or 2004-01-15T03:00:00Z"
        )
    parts = match.groupdict()
    written: Literal["Y", "M", "D", "h", "m", "s"] = "s"
    for unit in ("Y", "M", "D", "h", "m", "s"):
        if parts[unit] is None:
            break
        written = unit
    date = f"{parts['Y']}-{parts['M'] or '01'}-{parts['D'] or '01'}"
    text = f"{date}T{parts['h'] or '00'}:{parts['m'] or '00'}:{parts['s'] or '00'}"
    try:
        instant = np.datetime64(text, "us")
    except ValueError:
        raise QueryError(f"{match[0]!r} is not a date of the calendar") from None
    if parts["f"]:
        instant += np.timedelta64(int(parts["f"].ljust(6, "0")), "us")
    zone = parts["z"]
    if zone and zone != "Z":
        minutes = int(zone[1:3]) * 60 + int(zone[-2:])
        instant -= np.timedelta64(minutes if zone[0] == "+" else -minutes, "m")
    if parts["s"] is not None:
        return instant, instant
    shift = instant - np.datetime64(text, "us")
    last = (np.datetime64(text, written) + np.timedelta64(1, written)).astype("datetime64[us]") - np.timedelta64(
        1, "us"
    )
    return instant, last + shift


def blocks(axis: TimeAxis, length: int, anchor: int) -> Iterator[tuple[int, list[int]]]:
    """Group positions into calendar blocks of ``length`` steps counted from ``anchor``.

    A block is a function of the period alone, so that adding or filling a period touches one block only,
    whatever else the axis holds.

    Args:
        axis: the axis.
        length: steps per block.
        anchor: start of block 0, in units of the step since 1970.

    Yields:
        Block number and the positions in it, in order.
    """
    current: int | None = None
    members: list[int] = []
    for position, start in enumerate(axis.starts):
        number = (start - anchor) // (axis.step.count * length)
        if number != current and members and current is not None:
            yield current, members
            members = []
        current = number
        members.append(position)
    if members and current is not None:
        yield current, members
