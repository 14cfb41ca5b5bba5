"""An opened version: any map window at any level and any series, read from the segment that answers for the period."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core import catalog, layout
from services.core.catalog import Version, segment_of
from services.core.grid import Window
from services.core.quantity import Quantity
from services.core.segment import ChunkCache, Layout, Segment, SegmentCache, SegmentKey, StoredArray
from services.core.stac import Items
from services.core.store import Store
from services.core.time_axis import TimeAxis

PERIOD_BYTES = 180
"""Memory of a period of a version: starts, ids, bounds, times, and whose they are; measured at 200 000 hours."""
TEXT_FACTOR = 8
"""How much larger a version is in memory than as JSON."""

REMEMBERED = 16
"""Spans of periods that a dataset remembers the place of."""

MOST_STRETCHES = 64
"""Stretches of such a span: maps of one period each are not worth it."""

MOST_REMEMBERED = 4096
"""Periods of such a span."""


class Opened:
    """A ``SegmentCache`` that keeps every segment."""

    def __init__(self) -> None:
        self._held: dict[SegmentKey, Segment] = {}

    def get(self, key: SegmentKey, load: Callable[[], Segment]) -> Segment:
        """The segment under a key; of two threads that open it at the same time, both get the first one's."""
        return self._held.get(key) or self._held.setdefault(key, load())


@dataclass(frozen=True, kw_only=True)
class _Stretch:
    """Periods that lie in the same chunks of a segment's arrays."""

    segment: str
    block: int
    asked: NDArray[np.intp]
    within: NDArray[np.intp]
    is_whole: bool
    """Whether it is all periods that were asked for, in their order."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Periods whose values lie in the same chunks of one array."""

    array: StoredArray
    block: int
    """Number of those chunks along time."""

    asked: NDArray[np.intp]
    """Places of the periods in what was asked for."""

    within: NDArray[np.intp]
    """Their places inside a chunk."""

    is_whole: bool
    """Whether it is all that was asked for, in that order."""

    def of(self, chunk: NDArray[Any]) -> NDArray[Any]:
        """The periods of a chunk ``(time, y, x)`` of this run; a view where they lie side by side."""
        first, last = int(self.within[0]), int(self.within[-1]) + 1
        return chunk[first:last] if last - first == len(self.within) else chunk[self.within]


class Dataset:
    """A version and its segments, opened when first needed and kept; safe to share between threads.

    Args:
        store: where it lies.
        version: which version.
        cache: where decoded chunks may be kept; its keys hold the segment, so any number of versions may share it.
        segments: where opened segments may be kept, shared likewise; its own if not given. Whoever shares it opens
            all segments with the same store and ``cache``.
    """

    def __init__(
        self, store: Store, version: Version, cache: ChunkCache | None = None, segments: SegmentCache | None = None
    ) -> None:
        self.store = store
        self.version = version
        self.product = version.product
        self.time = version.time
        self._cache = cache
        self._segments = Opened() if segments is None else segments
        self._known_stretches: dict[tuple[Layout, range], tuple[_Stretch, ...]] = {}
        self._maps = _segments_of(version.maps, version.time)
        self._series = (
            _segments_of(version.series, version.time) if self.product.series_block is not None else self._maps
        )

    @property
    def memory(self) -> int:
        """Bytes that it takes in memory, without its segments and chunks."""
        version = self.version
        named = sum(len(one.cog.periods) for one in version.cogs)
        remembered = 16 * REMEMBERED * min(len(self.time), MOST_REMEMBERED)
        return remembered + PERIOD_BYTES * len(self.time) + TEXT_FACTOR * len(version.to_bytes()) + 80 * named

    @cached_property
    def items(self) -> Items:
        """The items of its version, which are kept as long as it is."""
        return Items(self.version)

    def segment(self, name: str) -> Segment:
        """A segment of the version by id."""
        key = (self.product.id, name, self.version.segments[name])
        return self._segments.get(key, lambda: Segment(self.store, *key, self._cache))

    def read_map(self, quantity: Quantity, position: int, level: int, window: Window) -> NDArray[Any]:
        """Stored values ``(y, x)`` of a window of one period's map.

        Args:
            quantity: which.
            position: place of the period in ``time``.
            level: 0 is full resolution.
            window: cells of that level, inside its grid.
        """
        array, local = self.map_array(layout.maps_path(level, quantity.name), position)
        out: NDArray[Any] = array.read([local], window)[0]
        return out

    def read_valid_fraction(
        self, quantity: Quantity, position: int, level: int, window: Window
    ) -> NDArray[np.floating[Any]]:
        """Share of each cell's area that was valid, ``(y, x)``, 0..1; level 0 is 0 or 1."""
        if level == 0:
            stored = self.read_map(quantity, position, 0, window)
            return (~quantity.missing(stored)).astype(np.float64)
        array, local = self.map_array(layout.maps_path(level, layout.valid_fraction(quantity.name)), position)
        if array.layout.shape[0] == 1:
            local = 0  # a fixed mask is stored once
        share: NDArray[np.float64] = array.read([local], window)[0] / 255.0
        return share

    def read_series(self, quantity: Quantity, positions: Sequence[int] | range, window: Window) -> NDArray[Any]:
        """Stored level-0 values ``(len(positions), y, x)`` from the layout that is contiguous in time."""
        return self._read(quantity, positions, window, "series")

    def read_maps(self, quantity: Quantity, positions: Sequence[int] | range, window: Window) -> NDArray[Any]:
        """Stored level-0 values ``(len(positions), y, x)`` of a window of some periods' maps."""
        return self._read(quantity, positions, window, "maps")

    def _read(
        self, quantity: Quantity, positions: Sequence[int] | range, window: Window, source: Layout
    ) -> NDArray[Any]:
        out = np.empty((len(positions), window.height, window.width), dtype=np.dtype(quantity.dtype))
        path, lying, source = self._lying(quantity, source)
        groups: dict[str, list[tuple[int, int]]] = {}
        for order, position in enumerate(positions):
            groups.setdefault(lying[position], []).append((order, self.time.starts[position]))
        for name, members in groups.items():
            segment = self.segment(name)
            places = segment.places(source, [start for _, start in members])
            values = segment.array(path).read(places, window)
            out[[order for order, _ in members]] = values
        return out

    def _lying(self, quantity: Quantity, source: Layout) -> tuple[str, Sequence[str], Layout]:
        """Path of the level-0 array of a layout, the segment of each period, and which layout that is."""
        if source == "series" and self.product.series_block is not None:
            return layout.series_path(quantity.name), self._series, "series"
        return layout.maps_path(0, quantity.name), self._maps, "maps"

    def runs(self, quantity: Quantity, positions: Sequence[int] | range, source: Layout) -> Iterator[Run]:
        """Where the level-0 values of some periods lie, for who reads chunks of his own choice.

        Args:
            quantity: which.
            positions: places of the periods in ``time``.
            source: maps or series; a product of one layout has its maps only.
        """
        path, lying, source = self._lying(quantity, source)
        for stretch in self._stretches(positions, source, lying, path):
            yield Run(
                array=self.segment(stretch.segment).array(path),
                block=stretch.block,
                asked=stretch.asked,
                within=stretch.within,
                is_whole=stretch.is_whole,
            )

    def _stretches(
        self, positions: Sequence[int] | range, source: Layout, lying: Sequence[str], path: str
    ) -> tuple[_Stretch, ...]:
        """How some periods lie; all quantities of a product lie alike, and the same periods are asked for often."""
        key = (source, positions) if isinstance(positions, range) else None
        known = self._known_stretches.get(key) if key is not None else None
        if known is not None:
            return known
        groups: dict[tuple[str, int], tuple[list[int], list[int]]] = {}
        members: dict[str, list[tuple[int, int]]] = {}
        for order, position in enumerate(positions):
            members.setdefault(lying[position], []).append((order, self.time.starts[position]))
        for name, orders in members.items():
            segment = self.segment(name)
            depth = segment.array(path).layout.chunk[0]
            places = segment.places(source, [start for _, start in orders])
            for (order, _), place in zip(orders, places, strict=True):
                block, within = divmod(place, depth)
                asked, inside = groups.setdefault((name, block), ([], []))
                asked.append(order)
                inside.append(within)
        found = tuple(
            _Stretch(
                segment=name,
                block=block,
                asked=np.asarray(asked, dtype=np.intp),
                within=np.asarray(inside, dtype=np.intp),
                is_whole=len(asked) == len(positions),
            )
            for (name, block), (asked, inside) in groups.items()
        )
        if key is not None and len(positions) <= MOST_REMEMBERED and len(found) <= MOST_STRETCHES:
            while len(self._known_stretches) >= REMEMBERED:
                # another thread may have taken the oldest
                self._known_stretches.pop(next(iter(self._known_stretches), key), None)
            self._known_stretches[key] = found
        return found

    def map_array(self, path: str, position: int) -> tuple[StoredArray, int]:
        """The maps array that answers for a period, and the period's place in it."""
        start = self.time.starts[position]
        segment = self.segment(self._maps[position])
        return segment.array(path), segment.places("maps", [start])[0]

    def map_segment(self, position: int) -> str:
        """Id of the segment whose maps answer for a period; with the parameters it names a tile's content."""
        return self._maps[position]

    def series_segments(self, positions: Sequence[int] | range) -> tuple[str, ...]:
        """Ids of the segments that answer for these periods' series, sorted."""
        return tuple(sorted({self._series[position] for position in positions}))


def _segments_of(runs: Sequence[catalog.Run], time: TimeAxis) -> list[str]:
    """Id of the segment that answers for each period."""
    owner = segment_of(runs)
    return [owner[start] for start in time.starts]
