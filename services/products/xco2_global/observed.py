"""Cells with soundings, month by month: computed once from the Lite files, kept beside them.

They lie in ``prepared/DIGEST`` of the directory of inputs; the digest is that of the Lite files, of what is asked of
them and of the code.
"""

import io
import json
import uuid
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from services.core.errors import InputRefused
from services.core.grid import Window
from services.pipeline.prepared import made_beside, prepared
from services.pipeline.recipe import Each
from services.products.xco2_global.inputs import Inputs
from services.sources.cells import Cells, Gridding, can_be, gather
from services.sources.oco_lite import Lite
from services.sources.soundings import GROUPS, INSTRUMENTS, Soundings
from services.validation.offsets import Cells as Meetings
from services.validation.offsets import MeetingCells, Offsets, estimate

type Note = Callable[[str], None]

SURFACES = tuple(
    tuple(f"{instrument} {mode}" for instrument in INSTRUMENTS for mode in modes)
    for modes in (("land_nadir", "land_glint", "land_target", "area_map"), ("ocean_glint", "ocean_target"))
)
"""Groups that see land, and groups that see the sea. They meet along coasts alone, in different air: what parts them
there is taken for the truth and stays (our choice; on the sample Earth it is 0.5 ppm of 0.7)."""

_FACTS = "facts.json"
_ARRAYS = ("row", "column", "xco2", "count", "overpasses", "std", "error", "time")


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The cells of some inputs: a place only, it travels to workers.

    Raises:
        InputRefused: from ``cells`` and ``facts``, if they are not prepared or cannot be read.
    """

    directory: Path
    """``prepared/DIGEST``."""

    months: tuple[int, ...]
    """Months since 1970-01 that there are Lite files of."""

    @classmethod
    def of(cls, inputs: Inputs) -> "Observed":
        """Where the cells of these inputs, with this code, are or will be."""
        told = {
            "inputs": [[one.name, one.size, one.sha256] for one in inputs.soundings.inputs()],
            "settings": inputs.settings.soundings.model_dump(mode="json"),
            "step": inputs.settings.step,
        }
        return cls(directory=prepared(inputs.directory, told), months=inputs.sounding_months)

    @property
    def is_prepared(self) -> bool:
        """Whether they are there."""
        return self.directory.is_dir()

    def cells(self, month: int) -> Cells:
        """The cells of a month; none where there are no Lite files of it."""
        if month not in self.months:
            whole, real = np.zeros(0, np.int32), np.zeros(0)
            return Cells(
                month=month,
                row=whole,
                column=whole,
                xco2=real,
                count=whole,
                overpasses=whole,
                std=real,
                error=real,
                time=real,
            )
        path = self.directory / _file(month)
        try:
            # from bytes, as np.load leaves a file open that is no archive
            with np.load(io.BytesIO(path.read_bytes())) as held:
                return Cells(month=month, **{name: held[name] for name in _ARRAYS})
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputRefused(
                f"{path} cannot be read ({error}); delete {self.directory}, and it is made anew"
            ) from None

    def window(self, month: int, window: Window) -> Cells:
        """Those that lie in a window, with rows and columns of it."""
        held = self.cells(month)
        row, column = held.row - window.row, held.column - window.column
        inside = (row >= 0) & (row < window.height) & (column >= 0) & (column < window.width)
        found = {name: getattr(held, name)[inside] for name in _ARRAYS}
        return Cells(month=month, **{**found, "row": row[inside], "column": column[inside]})

    @property
    def facts(self) -> dict[str, Any]:
        """What was concluded: soundings read and left out, offsets between modes."""
        path = self.directory / _FACTS
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputRefused(
                f"{path} cannot be read ({error}); delete {self.directory}, and it is made anew"
            ) from None
        return found


def prepare(inputs: Inputs, each: Each, note: Note) -> Observed:
    """Make the cells of every month, unless they are there; a month at a time, soundings streamed.

    Args:
        inputs: hashed.
        each: does the months.
        note: told how far it is.

    Raises:
        InputRefused: if a Lite file does not hold, or no sounding is left in all of them.
    """
    observed = Observed.of(inputs)
    if observed.is_prepared:
        return observed
    soundings, settings = inputs.soundings, inputs.settings
    gridding = Gridding(grid=settings.grid, scale=soundings.scale, errors=settings.soundings.errors)
    read = partial(_read, soundings, leave_out=settings.soundings.without_uncertainty == "leave_out")
    months = len(observed.months)
    tally: Counter[str] = Counter()
    meetings: dict[int, Meetings] = {}
    for number, one in enumerate(each(partial(_met, read), observed.months), 1):
        meetings[one.month] = one.meetings
        tally.update(one.tally)
        note(f"soundings: {number} of {months} months read for offsets")
    offsets = _estimated([meetings[month] for month in sorted(meetings)])  # sums have one order
    for line in offsets.lines() if offsets else ():
        note(line)
    subtracted = offsets.apart(SURFACES) if offsets and settings.soundings.subtract_offsets else None
    with made_beside(observed.directory) as part:
        part.mkdir(parents=True)
        cells = outside = 0
        work = partial(_gridded, read, gridding, subtracted, part)
        for number, (month, count, beyond) in enumerate(each(work, observed.months), 1):
            cells, outside = cells + count, outside + beyond
            note(f"cells: {number} of {months} months, {np.datetime64(month, 'M')} has {count}")
        facts = {
            "soundings": dict(sorted(tally.items())),
            "outside_the_grid": outside,
            "cells": cells,
            "offsets": None if offsets is None else offsets.to_json(),
            "offsets_subtracted": None if subtracted is None else subtracted.told(),
        }
        (part / _FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        if not cells:
            raise InputRefused(f"{inputs.directory}: no cell of the grid has a sounding")
    return observed


@dataclass(frozen=True, kw_only=True)
class _Met:
    month: int
    meetings: Meetings
    tally: Counter[str] = field(default_factory=Counter)


class _Read(Protocol):
    """Reads a month's soundings that become cells."""

    def __call__(self, month: int, tally: Counter[str]) -> Iterator[Soundings]: ...


def _read(soundings: Lite, month: int, tally: Counter[str], *, leave_out: bool) -> Iterator[Soundings]:
    """Soundings of a month; without those whose uncertainty is missing or cannot be, if they are to be left out."""
    for batch in soundings.read_month(month, tally):
        known = can_be(batch.uncertainty)
        if not leave_out or known.all():
            yield batch
            continue
        tally["without uncertainty"] += int((~known).sum())
        if known.any():
            yield batch.take(known)


def _met(read: _Read, month: int) -> _Met:
    gathered, tally = MeetingCells(), Counter[str]()
    for batch in read(month, tally):
        gathered.add(batch.months(), batch.latitude, batch.longitude, batch.group(), batch.xco2)
    return _Met(month=month, meetings=gathered.cells(), tally=tally)


def _estimated(meetings: list[Meetings]) -> Offsets | None:
    """Offsets against the group with the most soundings; None where there is one group only."""
    whole = Meetings.joined(meetings)
    counts = np.bincount(whole.group, weights=whole.count, minlength=len(GROUPS))
    if np.count_nonzero(counts) < 2:
        return None
    return estimate(whole, GROUPS, GROUPS[int(counts.argmax())])


def _gridded(read: _Read, gridding: Gridding, offsets: Offsets | None, part: Path, month: int) -> tuple[int, int, int]:
    def batches() -> Iterator[Soundings]:
        for batch in read(month, Counter()):
            yield batch if offsets is None else _without(batch, offsets)

    gathered = gather(batches(), gridding)
    cells = gathered.cells(month)
    place = part / _file(month)
    temporary = part / f".{uuid.uuid4().hex}.npz"
    np.savez(temporary, **{name: getattr(cells, name) for name in _ARRAYS})
    temporary.replace(place)  # whole, however often a task is done
    return month, len(cells), gathered.outside


def _without(batch: Soundings, offsets: Offsets) -> Soundings:
    return replace(batch, xco2=offsets.subtract(batch.xco2, batch.group(), leave_unconnected=True))


def _file(month: int) -> str:
    return f"{np.datetime64(month, 'M')}.npz"
