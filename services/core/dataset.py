"""An opened version: any map window at any level and any series, read from the segment that answers for the period."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core import layout
from services.core.catalog import Version, segment_of
from services.core.errors import Damaged
from services.core.grid import Window
from services.core.quantity import Quantity
from services.core.segment import ChunkCache, Segment, StoredArray
from services.core.store import Store


class Dataset:
    """A version and its segments, opened when first needed and kept; safe to share between threads.

    Args:
        store: where it lies.
        version: which version.
        cache: where decoded chunks may be kept; its keys hold the segment, so any number of versions may share it.
    """

    def __init__(self, store: Store, version: Version, cache: ChunkCache | None = None) -> None:
        self.store = store
        self.version = version
        self.product = version.product
        self.time = version.time
        self._cache = cache
        self._lock = threading.Lock()
        self._segments: dict[str, Segment] = {}
        self._maps = segment_of(version.maps)
        self._series = segment_of(version.series) if self.product.series_block is not None else self._maps
        self._local: dict[tuple[str, str], dict[int, int]] = {}

    def segment(self, name: str) -> Segment:
        """A segment of the version by id."""
        with self._lock:
            found = self._segments.get(name)
        if found is None:
            found = Segment(self.store, self.product.id, name, self.version.segments[name], self._cache)
            with self._lock:
                found = self._segments.setdefault(name, found)
        return found

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
        out = np.empty((len(positions), window.height, window.width), dtype=np.dtype(quantity.dtype))
        in_maps = self.product.series_block is None
        path = layout.maps_path(0, quantity.name) if in_maps else layout.series_path(quantity.name)
        groups: dict[str, list[tuple[int, int]]] = {}
        for order, position in enumerate(positions):
            start = self.time.starts[position]
            groups.setdefault(self._series[start], []).append((order, start))
        for name, members in groups.items():
            local = self._positions(name, "maps" if in_maps else "series")
            values = self.segment(name).array(path).read([local[start] for _, start in members], window)
            out[[order for order, _ in members]] = values
        return out

    def map_array(self, path: str, position: int) -> tuple[StoredArray, int]:
        """The maps array that answers for a period, and the period's place in it."""
        start = self.time.starts[position]
        name = self._maps[start]
        return self.segment(name).array(path), self._positions(name, "maps")[start]

    def map_segment(self, position: int) -> str:
        """Id of the segment whose maps answer for a period; with the parameters it names a tile's content."""
        return self._maps[self.time.starts[position]]

    def series_segments(self, positions: Sequence[int] | range) -> tuple[str, ...]:
        """Ids of the segments that answer for these periods' series, sorted."""
        return tuple(sorted({self._series[self.time.starts[position]] for position in positions}))

    def _positions(self, name: str, which: str) -> dict[int, int]:
        key = (name, which)
        if key not in self._local:
            segment = self.segment(name)
            axis = segment.maps_axis if which == "maps" else segment.series_axis
            if axis is None:
                raise Damaged(f"{segment.prefix}objects.json", f"it has no {which}")
            self._local[key] = {start: place for place, start in enumerate(axis.starts)}
        return self._local[key]
