"""The work of one task, on whatever process it lands: read, compute, write whole objects once, record."""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core import layout
from services.core.catalog import read_version
from services.core.dataset import Dataset
from services.core.errors import CenoteError, Damaged, InputRefused, ObjectExists, RenderFailed
from services.core.grid import Window
from services.core.quantity import Quantity
from services.core.segment import StoredArray, normal_index, pack_indexes
from services.core.shards import decode_chunk, decode_index, encode_shard, index_length
from services.core.spread import Spread
from services.core.store import Store
from services.core.time_axis import TimeAxis
from services.pipeline import zarr
from services.pipeline.cog import write_cog
from services.pipeline.ledger import Ledger, Record
from services.pipeline.levels import level_window
from services.pipeline.plan import WHOLE_MAP_BYTES, Plan, Task
from services.pipeline.recipe import Recipe


@dataclass(frozen=True)
class Workplace:
    """Everything a task needs besides itself: one per run and process, small enough to travel."""

    store: Store
    plan: Plan
    recipe: Recipe | None
    """None where everything is copied."""

    def __reduce__(self) -> tuple[type["Workplace"], tuple[Store, Plan, Recipe | None]]:
        return (Workplace, (self.store, self.plan, self.recipe))  # without what was opened

    @cached_property
    def prefix(self) -> str:
        """Key of the segment."""
        return layout.segment_prefix(self.plan.product.id, self.plan.segment)

    @cached_property
    def ledger(self) -> Ledger:
        """Records of the segment."""
        return Ledger(self.store, self.plan.product.id, self.plan.segment)

    @cached_property
    def base(self) -> Dataset:
        """The parent version, which untouched periods are copied from."""
        if self.plan.parent is None:
            raise RenderFailed("a first version has no parent to copy from")
        return Dataset(self.store, read_version(self.store, self.plan.product.id, self.plan.parent))

    @cached_property
    def arrays(self) -> dict[str, zarr.ArrayPlan]:
        """Arrays of the segment by path."""
        plan = self.plan
        found = list(zarr.map_arrays(plan.product, plan.maps))
        if plan.series is not None:
            found += zarr.series_arrays(plan.product, plan.series)
        return {array.path: array for array in found}

    def stored(self, path: str) -> StoredArray:
        """An array of the segment that is being written; its shard indexes are read from the shards."""
        return StoredArray(store=self.store, prefix=f"{self.prefix}{path}", layout=self.arrays[path].layout)


def run_task(place: Workplace, task: Task) -> str:
    """Do a task and record it.

    Returns:
        The task's id; everything else is in the ledger.

    Raises:
        InputRefused: if an input is broken.
        Damaged: if bytes that it reads, or that are already there under its keys, do not hold.
    """
    work: dict[str, Callable[[Workplace, Task], Record]] = {
        "maps": _maps,
        "levels": _levels,
        "series": _series,
        "cog": _cog,
    }
    try:
        record = work[task.stage](place, task)
    except CenoteError:
        raise
    except MemoryError:
        raise RenderFailed(f"task {task.id} ran out of memory; give the workers more, or fewer of them") from None
    place.ledger.write(record)
    return task.id


def write_metadata(place: Workplace) -> Record:
    """Write every zarr.json and coordinate of the segment; the client's own part."""
    plan = place.plan
    objects = zarr.metadata_objects(plan.product, plan.maps, plan.series)
    record = Record(task="metadata", objects={path: _create(place, path, body) for path, body in objects.items()})
    place.ledger.write(record)
    return record


def _maps(place: Workplace, task: Task) -> Record:
    plan, window = place.plan, task.window
    if window is None:
        raise RenderFailed(f"task {task.id} has no window")
    places = plan.map_blocks()[task.block]
    axis = plan.maps.take(places)
    fresh_starts = set(plan.fresh.starts)
    fresh = [i for i, start in enumerate(axis.starts) if start in fresh_starts]
    old = [i for i, start in enumerate(axis.starts) if start not in fresh_starts]
    computed: dict[str, NDArray[Any]] = {}
    if fresh and place.recipe is not None:
        computed = place.recipe.compute(axis.take(fresh), window)
    out = _Writer(place, task)
    for quantity in plan.product.quantities:
        values = np.full((len(axis), *window.shape), quantity.fill, dtype=quantity.dtype)
        if fresh:
            values[fresh] = _checked(computed, quantity, (len(fresh), *window.shape))
        for i in old:
            where = place.base.time.starts.index(axis.starts[i])
            values[i] = place.base.read_map(quantity, where, 0, window)
        out.spread(quantity, values)
        if plan.product.fixed_mask:
            out.mask(quantity, window, values)
        out.shard(layout.maps_path(0, quantity.name), (task.block, window.row, window.column), values)
    return out.record()


def _levels(place: Workplace, task: Task) -> Record:
    plan = place.plan
    quantity = plan.product.quantity(task.quantity)
    grid = plan.product.grid
    source = place.stored(layout.maps_path(0, quantity.name))
    out = _Writer(place, task)
    block = plan.map_blocks()[task.block]
    readers = [_map_reader(source, time, len(block)) for time in block]
    for level in range(1, grid.levels):
        for window in grid.level(level).shards():
            pairs = [level_window(read, quantity, grid, level, window) for read in readers]
            at = (task.block, window.row, window.column)
            out.shard(layout.maps_path(level, quantity.name), at, np.stack([values for values, _ in pairs]))
            fractions = layout.maps_path(level, layout.valid_fraction(quantity.name))
            if not plan.product.fixed_mask:
                out.shard(fractions, at, np.stack([share for _, share in pairs]))
            elif task.block == 0:
                out.shard(fractions, at, pairs[0][1][np.newaxis])
    return out.record()


def _series(place: Workplace, task: Task) -> Record:
    plan, window = place.plan, task.window
    if window is None or plan.series is None:
        raise RenderFailed(f"task {task.id} has no window")
    axis = plan.series.take(plan.series_blocks()[task.block])
    here = {start: i for i, start in enumerate(plan.maps.starts)}
    out = _Writer(place, task)
    for quantity in plan.product.quantities:
        values = np.empty((len(axis), *window.shape), dtype=quantity.dtype)
        mine = [(i, here[start]) for i, start in enumerate(axis.starts) if start in here]
        if mine:
            source = place.stored(layout.maps_path(0, quantity.name))
            values[[i for i, _ in mine]] = source.read([time for _, time in mine], window)
        others = [i for i, start in enumerate(axis.starts) if start not in here]
        if others:
            positions = {start: i for i, start in enumerate(place.base.time.starts)}
            wanted = [positions[axis.starts[i]] for i in others]
            values[others] = place.base.read_series(quantity, wanted, window)
        out.shard(layout.series_path(quantity.name), (task.block, window.row, window.column), values)
    return out.record()


def _cog(place: Workplace, task: Task) -> Record:
    plan, cog = place.plan, task.cog
    if cog is None:
        raise RenderFailed(f"task {task.id} names no COG")
    quantity = plan.product.quantity(cog.quantity)
    axis = TimeAxis.of_ids(plan.time.step, cog.periods)
    here = {start: i for i, start in enumerate(plan.maps.starts)}
    source = place.stored(layout.maps_path(0, quantity.name))

    @lru_cache(maxsize=1)  # bands are read one after another
    def reader(band: int) -> Callable[[Window], NDArray[Any]]:
        start = axis.starts[band]
        if start in here:
            return _map_reader(source, here[start])
        where = place.base.time.starts.index(start)
        return _map_reader(*place.base.map_array(layout.maps_path(0, quantity.name), where))

    def read(band: int, window: Window) -> NDArray[Any]:
        return reader(band)(window)

    with tempfile.TemporaryDirectory(prefix="cenote-cog-") as scratch:
        path = Path(scratch) / "cog.tif"
        write_cog(path, plan.product, quantity, cog.periods, read)
        entry = _create_file(place, cog.path, path)
    return Record(task=task.id, objects={cog.path: entry})


class _Writer:
    """Collects what a task writes."""

    def __init__(self, place: Workplace, task: Task) -> None:
        self._place = place
        self._task = task
        self._objects: dict[str, tuple[int, str]] = {}
        self._indexes: dict[str, dict[int, str]] = {}
        self._spreads: dict[str, Spread] = {}
        self._masks: dict[str, str] = {}

    def shard(self, path: str, at: tuple[int, int, int], values: NDArray[Any]) -> None:
        """Write one shard; ``at`` is its block along time and its first row and column."""
        array = self._place.arrays[path]
        size = array.layout.shard
        number = (at[0], at[1] // size[1], at[2] // size[2])
        body = encode_shard(values, size, array.layout.chunk, array.fill)
        key = f"{path}/c/{number[0]}/{number[1]}/{number[2]}"
        self._objects[key] = _create(self._place, key, body, array)
        if path.startswith("maps.zarr/"):
            footer = body[-index_length(size, array.layout.chunk) :]
            index = normal_index(decode_index(key, footer))[np.newaxis]
            order = int(np.ravel_multi_index(number, array.layout.shard_counts))
            self._indexes.setdefault(path, {})[order] = pack_indexes(index)

    def spread(self, quantity: Quantity, stored: NDArray[Any]) -> None:
        """Note how the values are spread."""
        valid = stored[~quantity.missing(stored)]
        self._spreads[quantity.name] = Spread.of(valid, int(stored.size), quantity.decode)

    def mask(self, quantity: Quantity, window: Window, stored: NDArray[Any]) -> None:
        """Note which cells of a region are valid; every period of a fixed mask must agree."""
        missing = quantity.missing(stored)
        if (missing != missing[0]).any():
            raise InputRefused(
                f"{self._place.plan.product.id}/{quantity.name} declares a mask that holds for all periods, and "
                f"periods of block {self._task.block} differ in it"
            )
        name = f"{quantity.name}/{window.row}/{window.column}"
        self._masks[name] = layout.digest(np.packbits(missing[0]).tobytes())

    def record(self) -> Record:
        """The record of the task."""
        return Record(
            task=self._task.id,
            objects=self._objects,
            indexes=self._indexes,
            spreads=self._spreads,
            masks=self._masks,
        )


def _map_reader(source: StoredArray, time: int, readers: int = 1) -> Callable[[Window], NDArray[Any]]:
    _, height, width = source.layout.shape
    if height * width * source.dtype.itemsize * readers > WHOLE_MAP_BYTES:
        return lambda window: source.read([time], window)[0]
    whole = source.read([time], Window(row=0, column=0, height=height, width=width))[0]
    return lambda window: whole[window.rows, window.columns]


def _checked(computed: dict[str, NDArray[Any]], quantity: Quantity, shape: tuple[int, ...]) -> NDArray[Any]:
    values = computed.get(quantity.name)
    if values is None:
        raise RenderFailed(f"the recipe gave no values of {quantity.name}")
    if values.shape != shape or values.dtype != np.dtype(quantity.dtype):
        raise RenderFailed(
            f"the recipe gave {quantity.name} as {values.dtype} {values.shape}, declared is {quantity.dtype} {shape}"
        )
    if not quantity.is_integer and np.isinf(values).any():
        raise InputRefused(f"{quantity.name} holds infinite values")
    return values


def _create(place: Workplace, path: str, body: bytes, array: zarr.ArrayPlan | None = None) -> tuple[int, str]:
    """Write an object once; where one is already there, that one counts if it is sound."""
    key = f"{place.prefix}{path}"
    try:
        place.store.create(key, body)
    except ObjectExists:
        found = place.store.get(key)
        if found != body:
            if array is None:
                raise Damaged(key, "it is not what this task writes; render --fresh starts another segment") from None
            _check_shard(key, found, array)
            raise Damaged(
                key, "it holds other values than this task computes; render --fresh starts another segment"
            ) from None
    return len(body), layout.digest(body)


def _create_file(place: Workplace, path: str, file: Path) -> tuple[int, str]:
    """Write a file once as ``_create`` does; it may be too large to be held."""
    key = f"{place.prefix}{path}"
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    try:
        place.store.create(key, file)
    except ObjectExists:
        there = hashlib.sha256()
        for part in place.store.parts(key):
            there.update(part)
        if there.hexdigest() != sha256:
            raise Damaged(key, "it is not what this task writes; render --fresh starts another segment") from None
    return file.stat().st_size, sha256


def _check_shard(key: str, body: bytes, array: zarr.ArrayPlan) -> None:
    index = normal_index(decode_index(key, body[-index_length(array.layout.shard, array.layout.chunk) :]))
    for offset, length in index.tolist():
        if length:
            decode_chunk(key, body[offset : offset + length], array.layout.chunk, np.dtype(array.layout.dtype))
