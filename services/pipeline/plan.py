"""What a render will do: a pure function of a recipe, the periods asked for and what is published."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from services.core import layout
from services.core.catalog import Version
from services.core.errors import DeclarationError, NothingToDo, Refused, TimeOutsideAxis
from services.core.grid import Window, windows
from services.core.made_from import other_files, other_settings
from services.core.product import Product
from services.core.segment import SegmentCog
from services.core.time_axis import TimeAxis, blocks, parse_instant
from services.pipeline.code import Code
from services.pipeline.recipe import Input

type Stage = Literal["maps", "levels", "series", "cog"]

STAGES: tuple[tuple[Stage, ...], ...] = (("maps",), ("levels", "series", "cog"))
"""Tasks of a stage are independent; a stage starts when the one before it is recorded."""

WHOLE_MAP_BYTES = 256_000_000
"""Level-0 maps of a block up to which a task reads them once and keeps them, instead of a window at a time."""

GDAL_CACHE_BYTES = 64 << 20
"""GDAL's cache while it writes a file; its own default is 5 % of the machine's memory, for each process.

Measured with 12 bands of 7200 x 3600 float32: 300 MB at the most and 27 s, with 256 MiB 600 MB and 34 s.
"""


@dataclass(frozen=True, kw_only=True)
class Task:
    """An idempotent piece of work that writes whole objects and is recorded in the ledger under its id."""

    stage: Stage
    block: int = 0
    """Chunk along time of the segment's maps or series."""

    window: Window | None = None
    """Level-0 cells: a shard of the maps, or of the series."""

    quantity: str | None = None
    cog: SegmentCog | None = None

    @property
    def id(self) -> str:
        """Name in the ledger."""
        if self.cog is not None:
            return f"cog-{self.cog.quantity}-{self.cog.id.replace(':', '')}"
        where = "" if self.window is None else f"-{self.window.row}-{self.window.column}"
        what = "" if self.quantity is None else f"-{self.quantity}"
        return f"{self.stage}-{self.block}{where}{what}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One segment and the version that will list it."""

    product: Product
    fresh: TimeAxis
    """Periods that are computed."""

    maps: TimeAxis
    """Periods of the segment's maps: the fresh ones and what shares a map block with them."""

    series: TimeAxis | None
    """Periods of the segment's series: whole series blocks; None where series are read from the maps."""

    cogs: tuple[SegmentCog, ...]
    time: TimeAxis
    """Time axis of the version to come."""

    anchor: int
    parent: str | None
    """Version that it adds to or corrects."""

    keeps: bool
    """Whether periods of the parent that are not touched stay; otherwise the version starts anew."""

    inputs: tuple[Input, ...]
    models: dict[str, str]
    facts: dict[str, Any]
    copied: dict[str, str]
    """Segments of the parent that bytes are copied from -> sha256 of their objects.json."""

    code: Code
    attempt: int = 1
    remarks: tuple[str, ...] = ()
    """What people should know of the periods that are asked for, and of those that stay; nothing follows from it."""

    @property
    def digest(self) -> str:
        """Digest of everything that decides the bytes of the segment."""
        return layout.digest(
            layout.canonical(
                {
                    "format": layout.SEGMENT_FORMAT,
                    "product": self.product.to_json(),
                    "fresh": self.fresh.to_json(),
                    "maps": self.maps.to_json(),
                    "series": None if self.series is None else self.series.to_json(),
                    "cogs": [[cog.quantity, cog.id, list(cog.periods)] for cog in self.cogs],
                    "inputs": [[one.name, one.size, one.sha256] for one in self.inputs],
                    "models": self.models,
                    "facts": self.facts,
                    "copied": self.copied,
                    "code": self.code.to_json(),
                }
            )
        )

    @property
    def segment(self) -> str:
        """Segment id: a resumed run goes on in the same one."""
        return f"{self.digest[: layout.ID_LENGTH]}-{self.attempt}"

    def with_attempt(self, attempt: int) -> "Plan":
        """The same work in another segment, because stored bytes of an earlier one were damaged."""
        return replace(self, attempt=attempt)

    def map_blocks(self) -> list[range]:
        """Positions in ``maps`` of each chunk along time."""
        return _cut(len(self.maps), self.product.map_block)

    def series_blocks(self) -> list[range]:
        """Positions in ``series`` of each chunk along time."""
        return [] if self.series is None else _cut(len(self.series), self.product.series_block or 1)

    def tasks(self, stage: Stage) -> Iterator[Task]:
        """The tasks of a stage, in the order of the periods."""
        if stage == "maps":
            for block in range(len(self.map_blocks())):
                for window in self.product.grid.shards():
                    yield Task(stage="maps", block=block, window=window)
        elif stage == "levels" and self.product.grid.levels > 1:
            for block in range(len(self.map_blocks())):
                for quantity in self.product.quantities:
                    yield Task(stage="levels", block=block, quantity=quantity.name)
        elif stage == "series":
            grid = self.product.grid
            for block in range(len(self.series_blocks())):
                for window in windows(grid.shape, (grid.chunk_y, grid.chunk_x)):
                    yield Task(stage="series", block=block, window=window)
        elif stage == "cog":
            for cog in self.cogs:
                yield Task(stage="cog", cog=cog)

    def all_tasks(self) -> Iterator[Task]:
        """Every task."""
        for stages in STAGES:
            for stage in stages:
                yield from self.tasks(stage)

    def decoded_bytes(self, part: Window | None = None) -> int:
        """Bytes of the level-0 values that are computed, of a part of the grid or of all of it."""
        width = sum(np.dtype(quantity.dtype).itemsize for quantity in self.product.quantities)
        cells = self.product.grid.cells if part is None else part.height * part.width
        return len(self.fresh) * cells * width

    def task_memory(self) -> int:
        """Bytes that the largest task holds at a time, roughly: values, their floats, and what is being coded."""
        shard_y, shard_x = self.product.grid.shard_shape
        widest = max(np.dtype(quantity.dtype).itemsize for quantity in self.product.quantities)
        regions = self.product.map_block * shard_y * shard_x * len(self.product.quantities) * (widest + 16)
        grid = self.product.grid
        series = (self.product.series_block or 0) * grid.chunk_y * grid.chunk_x * widest * 3
        # a COG: one map or a strip of it, and what GDAL takes, which is more than what is sent of the file at a time
        one = grid.cells * widest
        file = one * max((len(cog.periods) for cog in self.cogs), default=0)
        cog = min(file, one, WHOLE_MAP_BYTES) + min(file, 4 * GDAL_CACHE_BYTES)
        return int(max(regions, series, cog))

    def lines(self, part: Window | None = None) -> list[str]:
        """What will be done, for people.

        Args:
            part: of the grid in which there may be values; None: all of it.
        """
        grid = self.product.grid
        narrow = part is not None and part.shape != grid.shape
        shards = [one for one in grid.shards() if part is None or _meet(one, part)]
        counts = {stage: sum(1 for _ in self.tasks(stage)) for stages in STAGES for stage in stages}
        gaps, values = _gaps(self.time), _size(self.decoded_bytes(part))
        return [
            f"{self.product.id}: {len(self.fresh)} period{'s' if len(self.fresh) != 1 else ''} to compute"
            + (f" ({self.fresh.ids[0]} to {self.fresh.ids[-1]})" if len(self.fresh) else "")
            + f", {len(self.time)} in the new version"
            + (f", {gaps} missing inside it" if gaps else ""),
            f"grid {grid.width} x {grid.height} cells of {_degrees(grid.step_x)} degrees, {grid.levels} levels"
            + (f"; values in {part.width} x {part.height} of them" if part is not None and narrow else ""),
            f"regions: {len(shards)} of {grid.shard_shape[1]} x {grid.shard_shape[0]} cells"
            + (f" with values, of {sum(1 for _ in grid.shards())}; tasks of the others do nothing" if narrow else ""),
            "tasks: " + ", ".join(f"{count} {stage}" for stage, count in counts.items() if count),
            f"values: {values} before compression; {_size(self.task_memory())} memory a worker",
            f"inputs: {len(self.inputs)} files, {_size(sum(one.size for one in self.inputs))}"
            + (f"; models: {', '.join(sorted(self.models))}" if self.models else ""),
            f"segment {self.segment}"
            + (f", on top of version {self.parent}" if self.parent else ", the first version"),
            *self.remarks,
        ]


def plan(  # noqa: PLR0913 - everything that decides the work
    *,
    product: Product,
    available: TimeAxis,
    current: Version | None,
    code: Code,
    inputs: tuple[Input, ...] = (),
    models: dict[str, str] | None = None,
    facts: dict[str, Any] | None = None,
    periods: str | None = None,
    keep: bool = True,
) -> Plan:
    """Decide what to compute.

    Args:
        product: what is declared now.
        available: periods that the inputs allow.
        current: the published version, if there is one.
        code: identity of the code.
        inputs: files that are read.
        models: model name -> sha256.
        facts: what was concluded from the inputs.
        periods: a ``datetime=`` expression of periods to compute again; None computes those that ``current`` lacks.
        keep: whether periods of ``current`` stay; False starts a version anew with the available periods only.

    A version that periods are added to keeps the length of its series blocks; one that is started anew does not.

    Raises:
        NothingToDo: if the current version has all periods.
        Refused: if grid, packing or step differ from those published.
    """
    if current is not None and keep:
        if product.series_block is not None and current.product.series_block is not None:
            # of what was declared since, the published collection keeps its own: readers go by each array
            product = replace(product, series_block=current.product.series_block)
        _check_same_shape(product, current.product)
    base = current if keep else None
    have = set() if base is None else set(base.time.starts)
    if periods is None:
        chosen = [place for place, start in enumerate(available.starts) if start not in have]
    else:
        try:
            chosen = list(available.select(periods))
        except TimeOutsideAxis as error:
            raise Refused(f"the inputs of {product.id} do not allow {periods}: {error}") from None
    if not chosen:
        told = f"nothing to do: {product.id} already has all {len(available)} periods that the inputs allow"
        raise NothingToDo(told + ("" if current is None else _changed(current, inputs, models or {}, facts or {})))
    fresh = available.take(chosen)
    made = _assemble(product, fresh, base, current, code, inputs, models or {}, facts or {})
    remarks = [_beyond(available, periods), "" if base is None else _mixed(base, fresh, models or {}, facts or {})]
    return replace(made, remarks=tuple(remark for remark in remarks if remark))


def _meet(one: Window, other: Window) -> bool:
    return (
        one.row < other.row + other.height
        and other.row < one.row + one.height
        and one.column < other.column + other.width
        and other.column < one.column + one.width
    )


def _changed(current: Version, inputs: tuple[Input, ...], models: dict[str, str], facts: dict[str, Any]) -> str:
    """What the published values do not follow from any more, and how to make them anew; empty where nothing is."""
    mine = {one.name: one.sha256 for one in inputs}
    for origin in current.provenance.values():
        if not origin.get("inputs"):
            continue  # copied, or of a recipe that reads nothing
        files = other_files(origin, mine)
        told = [f"{len(files)} of {len(mine)} files differ, first {files[0]}"] if files else []
        told += other_settings(origin, facts.get("settings", {}))
        told += ["models"] if origin.get("models", {}) != models else []
        if told:
            again = f"--periods {current.time.ids[0]}/{current.time.ids[-1]} makes them anew"
            return f"; they were made from other inputs than these ({', '.join(told)}): {again}"
    return ""


def _beyond(available: TimeAxis, periods: str | None) -> str:
    """That an interval reaches beyond what the inputs allow; empty where it does not."""
    first, _, last = (periods or "").partition("/")
    told = []
    if first not in {"", ".."} and last and parse_instant(first)[0] < available.bounds[0, 0]:
        told.append(f"begin with {available.ids[0]}")
    if last not in {"", ".."} and parse_instant(last)[1] >= available.bounds[-1, 1]:
        told.append(f"end with {available.ids[-1]}")
    return f"note: of {periods} the inputs {' and '.join(told)}" if told else ""


def _mixed(base: Version, fresh: TimeAxis, models: dict[str, str], facts: dict[str, Any]) -> str:
    """That periods which stay were made otherwise than those that are computed; empty where all are made alike.

    Files are not compared: later months come with new ones.
    """
    made = set(fresh.starts)
    told: dict[str, None] = {}
    others: set[int] = set()
    for run in base.maps:
        origin = base.provenance.get(run.segment, {})
        stay = set(run.periods.starts) - made
        if not stay or not origin.get("inputs"):
            continue  # copied, or of a recipe that reads nothing
        differ = other_settings(origin, facts.get("settings", {}))
        differ += ["models"] if origin.get("models", {}) != models else []
        if differ:
            told |= dict.fromkeys(differ)
            others |= stay
    if not others:
        return ""
    names = TimeAxis(step=base.time.step, starts=tuple(sorted(others))).ids
    span = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    return (
        f"note: {len(names)} of the periods that stay ({span}) were made with other {', '.join(told)} than these will "
        f"be; --periods {names[0]}/{names[-1]} makes them anew"
    )


def plan_compact(current: Version, code: Code) -> Plan:
    """Fold all segments of a version into one; every value is copied."""
    nothing = TimeAxis(step=current.time.step, starts=())
    facts = {"compact": "every value is copied from the parent version"}
    return _assemble(current.product, nothing, current, current, code, (), {}, facts, everything=True)


def _assemble(  # noqa: PLR0913
    product: Product,
    fresh: TimeAxis,
    base: Version | None,
    current: Version | None,
    code: Code,
    inputs: tuple[Input, ...],
    models: dict[str, str],
    facts: dict[str, Any],
    *,
    everything: bool = False,
) -> Plan:
    time = fresh if base is None else base.time.union(fresh)
    anchor = time.starts[0] if base is None else base.anchor
    touched = set(fresh.starts)

    def whole_blocks(length: int) -> TimeAxis:
        places = [
            place
            for _, members in blocks(time, length, anchor)
            if everything or any(time.starts[member] in touched for member in members)
            for place in members
        ]
        return time.take(places)

    maps = whole_blocks(product.map_block)
    series = None if product.series_block is None else whole_blocks(product.series_block)
    cogs = tuple(
        SegmentCog(quantity=quantity.name, id=name, periods=tuple(time.ids[place] for place in members))
        for name, members in cog_groups(product, time)
        if everything or any(time.starts[member] in touched for member in members)
        for quantity in product.quantities
    )
    copied: dict[str, str] = {}
    if base is not None:
        start_of = dict(zip(time.ids, time.starts, strict=True))
        taken = {
            *maps.starts,
            *(series.starts if series else ()),
            *(start_of[name] for cog in cogs for name in cog.periods),
        }
        taken -= touched
        for run in (*base.maps, *base.series):
            if taken & set(run.periods.starts):
                copied[run.segment] = base.segments[run.segment]
    return Plan(
        product=product,
        fresh=fresh,
        maps=maps,
        series=series,
        cogs=cogs,
        time=time,
        anchor=anchor,
        parent=None if current is None else current.id,
        keeps=base is not None,
        inputs=inputs,
        models=models,
        facts=facts,
        copied=copied,
        code=code,
    )


def cog_groups(product: Product, time: TimeAxis) -> Iterator[tuple[str, list[int]]]:
    """COG name and the positions of its bands: a calendar span, or one period each."""
    if product.cog_period is None:
        return
    length = {"P1Y": 4, "P1M": 7, "P1D": 10}.get(product.cog_period)
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(time.ids):
        groups.setdefault(name if length is None else name[:length], []).append(place)
    yield from groups.items()


def _check_same_shape(product: Product, published: Product) -> None:
    for what, new, old in (
        ("grid", product.grid, published.grid),
        ("step", product.step, published.step),
        ("map block", product.map_block, published.map_block),
        ("series block", product.series_block, published.series_block),
        ("COG period", product.cog_period, published.cog_period),
        ("fixed mask", product.fixed_mask, published.fixed_mask),
    ):
        if new != old:
            raise Refused(
                f"{product.id} is published with {what} {_say(old)} and this has {_say(new)}: give it another id"
            )
    new_names = [quantity.name for quantity in product.quantities]
    old_names = [quantity.name for quantity in published.quantities]
    if new_names != old_names:
        raise Refused(
            f"{product.id} is published with variables {old_names} and this has {new_names}: give it another id"
        )
    for quantity, old_quantity in zip(product.quantities, published.quantities, strict=True):
        for name in ("units", "dtype", "scale_factor", "add_offset", "fill_value"):
            mine, theirs = getattr(quantity, name), getattr(old_quantity, name)
            if mine != theirs:
                raise Refused(
                    f"{product.id}/{quantity.name} is published with {name} {theirs} and this has {mine}: "
                    "give it another id"
                )


def _say(value: Any) -> str:
    if hasattr(value, "step_x"):
        west, south, east, north = value.bounds
        cells = f"{value.width} x {value.height} cells of {_degrees(value.step_x)} degrees"
        return f"{cells} over {west:g},{south:g},{east:g},{north:g}"
    return str(value)


def _degrees(step: Any) -> str:
    return f"{float(step):g}" if round(float(step), 6) == float(step) else str(step)


def _cut(length: int, size: int) -> list[range]:
    return [range(first, min(first + size, length)) for first in range(0, length, size)]


def _gaps(time: TimeAxis) -> int:
    if not time.starts:
        return 0
    return (time.starts[-1] - time.starts[0]) // time.step.count + 1 - len(time)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise DeclarationError(f"not a size: {count}")
