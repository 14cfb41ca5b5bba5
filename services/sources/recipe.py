"""Published rasters as a recipe of the pipeline: the same values, on our grid, in storage's types."""

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Window
from services.core.product import Product
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Input
from services.sources import handles
from services.sources.files import Source, check_unchanged
from services.sources.lonlat import Layout
from services.sources.packing import Packing, convert
from services.sources.raster import Access, Opened


@dataclass(frozen=True, kw_only=True)
class Run:
    """Periods in a row whose maps lie in a row in one file."""

    position: int
    """Of the first period on the whole axis."""

    count: int
    source: int
    """Number of the file."""

    first: int
    """Number of the first map in the file."""

    packing: int
    """Number of the packing."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Where the map of each period is, as few numbers as possible: many files share layouts and packings."""

    sources: tuple[Source, ...]
    accesses: tuple[Access, ...]
    layouts: tuple[Layout, ...]
    packings: tuple[Packing, ...]
    shapes: tuple[tuple[int, int], ...]
    """Number of the access and of the layout of each source."""

    runs: tuple[Run, ...]
    """By position, covering the axis."""


@dataclass(frozen=True, kw_only=True)
class IngestRecipe:
    """The ``Recipe`` of ``cenote ingest``; values are those of the files."""

    product: Product
    table: Table
    axis: str
    """The time axis as ``packed_axis`` writes it, so that 200 000 hours are one line when this travels."""

    conclusions: str
    """What was concluded, as JSON."""

    def periods(self) -> TimeAxis:
        """As ``Recipe.periods``."""
        return self._periods

    def inputs(self) -> tuple[Input, ...]:
        """As ``Recipe.inputs``, by name."""
        found = [Input(name=source.name, size=source.size, sha256=source.sha256) for source in self.table.sources]
        return tuple(sorted(found, key=lambda item: (item.name, item.sha256)))

    def models(self) -> Mapping[str, str]:
        """None: nothing is predicted."""
        return {}

    def model_directories(self) -> Mapping[str, Path]:
        """None."""
        return {}

    def facts(self) -> Mapping[str, Any]:
        """As ``Recipe.facts``."""
        facts: dict[str, Any] = json.loads(self.conclusions)
        return facts

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        """As ``Recipe.compute``: values read from the files and put in place.

        Raises:
            InputRefused: if a file is broken, or changed since it was looked at, or its seam columns differ.
        """
        quantity = self.product.quantities[0]
        out = np.full((len(periods), *window.shape), quantity.fill, dtype=quantity.dtype)
        for run, numbers, places in self._reads(periods):
            source = self.table.sources[run.source]
            access = self.table.accesses[self.table.shapes[run.source][0]]
            layout = self.table.layouts[self.table.shapes[run.source][1]]
            packing = self.table.packings[run.packing]
            with handles.opened(source) as file:
                pair = layout.seam_pair(window)
                if pair is not None:
                    check_seam(source.name, file, access, layout, packing, numbers, window)
                for columns, target in layout.source_columns(window):
                    values = file.read(access, numbers, layout.source_rows(window), columns)
                    stored = convert(source.name, layout.upright(values), packing, quantity)
                    if stored.dtype.kind == "f" and np.isinf(stored).any():
                        at = int(np.isinf(stored).any(axis=(1, 2)).argmax())
                        raise InputRefused(
                            f"{source.name}: {quantity.name} holds infinite values in {periods.ids[places][at]}"
                        )
                    out[places, :, target] = stored
        return {quantity.name: out}

    def check_inputs(self) -> None:
        """Look at every file once more.

        Raises:
            InputRefused: if one is not what it was when it was looked at first.
        """
        for source in self.table.sources:
            check_unchanged(source)

    def _reads(self, periods: TimeAxis) -> Iterator[tuple[Run, slice, slice]]:
        """What to read for some periods: the run, the maps of its file, and where they go."""
        starts = self._periods.starts
        positions = [bisect_left(starts, start) for start in periods.starts]
        for start, position in zip(periods.starts, positions, strict=True):
            if position == len(starts) or starts[position] != start:
                name = TimeAxis(step=periods.step, starts=(start,)).ids[0]
                raise InputRefused(f"{self.product.id}: no input holds the period {name}")
        firsts = self._firsts
        done = 0
        while done < len(positions):
            run = self.table.runs[bisect_left(firsts, positions[done] + 1) - 1]
            end = done + 1
            while end < len(positions) and positions[end] == positions[end - 1] + 1 < run.position + run.count:
                end += 1
            first = run.first + positions[done] - run.position
            yield run, slice(first, first + end - done), slice(done, end)
            done = end

    @cached_property
    def _periods(self) -> TimeAxis:
        return unpacked_axis(self.axis)

    @cached_property
    def _firsts(self) -> list[int]:
        return [run.position for run in self.table.runs]

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def packed_axis(axis: TimeAxis) -> str:
    """An axis as JSON: runs of periods, and the source's own times as microseconds behind the starts."""
    document = TimeAxis(step=axis.step, starts=axis.starts).to_json()
    if axis.times is not None:
        plain = axis.bounds[:, 0].astype("datetime64[us]").astype(np.int64)
        behind: list[int] = (np.asarray(axis.times, dtype=np.int64) - plain).tolist()
        document["behind"] = behind[0] if len(set(behind)) == 1 else behind
    return json.dumps(document, separators=(",", ":"))


def unpacked_axis(text: str) -> TimeAxis:
    """The axis that ``packed_axis`` wrote."""
    document = json.loads(text)
    behind = document.pop("behind", None)
    axis = TimeAxis.from_json(document)
    if behind is None:
        return axis
    plain = axis.bounds[:, 0].astype("datetime64[us]").astype(np.int64)
    times: list[int] = (plain + np.asarray(behind, dtype=np.int64)).tolist()
    return TimeAxis(step=axis.step, starts=axis.starts, times=tuple(times))


def check_seam(
    name: str,
    file: Opened,
    access: Access,
    layout: Layout,
    packing: Packing,
    numbers: slice,
    window: Window,
) -> None:
    """Check that the first and the last column, which lie one turn apart, are equal, so that one can be left out.

    Raises:
        InputRefused: if they differ.
    """
    rows = layout.source_rows(window)
    ends = [file.read(access, numbers, rows, slice(at, at + 1)) for at in (0, layout.columns - 1)]
    raw = [packing.read(np.ma.getdata(values)) for values in ends]
    gone = [packing.is_missing(values) | np.ma.getmaskarray(end) for values, end in zip(raw, ends, strict=True)]
    differ = (gone[0] != gone[1]) | (~gone[0] & ~gone[1] & (raw[0] != raw[1]))
    if differ.any():
        _, row, _ = (int(at) for at in np.argwhere(differ)[0])
        raise InputRefused(
            f"{name}: its first and last column lie one turn of 360 degrees apart and differ in {int(differ.sum())} "
            f"cells, first in row {rows.start + row + 1}; which one is right?"
        )
