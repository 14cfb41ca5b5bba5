"""What the first visitor needs, read before he comes.

Segments, the coarse levels of the latest period, and where series lie: the indexes of their shards, without which the
first series of each shard waits for two reads, one after the other. Requests for these shards are signed, too.
"""

import itertools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from services.core import layout
from services.core.catalog import Run
from services.core.dataset import Dataset
from services.core.errors import CenoteError, StoreUnavailable
from services.core.grid import CIRCLE, Grid
from services.core.quantity import Quantity
from services.core.segment import ChunkKey, StoredArray
from tiler.catalogue import LiveCatalogue
from tiler.chunks import ENTRY_BYTES, ChunkCache
from tiler.loading import Beside

logger = logging.getLogger(__name__)

SCREEN = 2048
"""Pixels of the longer side of a map that is shown whole: its levels down to this one are read."""

TILE = 256
"""Pixels of the tile that shows the whole world at zoom 0."""

LOOK_SECONDS = 30.0
"""So often new versions are looked for, for collections that nobody asks for meanwhile."""

MOST_EXPECTED = 256
"""Shards of a block of periods for which requests are signed ahead; where there are more, their first readers sign."""

MOST_WAITING = 64
"""Versions that wait to be read; what is published beyond is read by its first request."""

PATIENCE_SECONDS = 2.0
"""How long an ending process waits for a read that is under way; a store that hangs does not hold it up."""

type Position = tuple[int, int, int]
"""Of a chunk: time, y, x."""

type Kept = Beside[ChunkKey, NDArray[Any]]
"""Where what is read ahead is put."""

type Step = Callable[[Kept], None]
"""Reads from one shard."""


class Superseded(Exception):
    """What is being read is not wanted any more: a newer version is out, or the process ends."""


class WarmUp:
    """Reads ahead in a thread of its own, one shard at a time; the newest version of a collection only.

    Nobody waits for it: what it reads goes into the caches when it is there, and until then a request reads for itself
    (``tiler.loading.Beside``). A fault is logged and left to the request that meets it.

    Args:
        chunks: the cache that is filled.
        capacity: bytes of it that all collections together may take up; 0 reads nothing.
    """

    def __init__(self, chunks: ChunkCache, capacity: int) -> None:
        self._chunks = Beside(chunks)
        self._capacity = capacity
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, Dataset] = OrderedDict()
        self._taken: dict[str, int] = {}
        self._busy = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def seen(self, dataset: Dataset) -> None:
        """A version has become current; its segments are opened through caches that nobody waits for."""
        with self._changed:
            name = dataset.product.id
            if self._thread is None or self._closed:
                return
            if name in self._waiting or len(self._waiting) < MOST_WAITING:
                self._waiting[name] = dataset
                self._changed.notify_all()

    def start(self, catalogue: LiveCatalogue) -> None:
        """Begin with what is published now, and go on until ``close``."""
        if self._capacity > 0:
            # a daemon: a read of a store that hangs ends with the process, not the other way round
            self._busy = True
            self._thread = threading.Thread(target=self._run, args=(catalogue,), name="warm-up", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End it; to be called before the catalogue is closed."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(PATIENCE_SECONDS)

    def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing is left to be read, for so long at most; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._waiting or self._busy), seconds)

    def _run(self, catalogue: LiveCatalogue) -> None:
        look_at = time.monotonic()
        while True:
            with self._changed:
                if not self._waiting and time.monotonic() < look_at:
                    self._busy = False
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closed or self._waiting, look_at - time.monotonic())
                    self._busy = True
                if self._closed:
                    return
                waiting = self._waiting.popitem(last=False) if self._waiting else None
            try:
                if waiting is not None:
                    self._read(*waiting)
                else:
                    look_at = time.monotonic() + LOOK_SECONDS
                    self._look(catalogue)
            except Superseded:
                pass
            except CenoteError as error:
                # whoever asks for it meets it too, and is told
                logger.info("not read ahead: %s: %s", "the catalogue" if waiting is None else waiting[0], error)
            except Exception:
                if not self._closed:  # the catalogue's threads have ended
                    logger.exception("reading ahead failed; the next version is tried again")

    def _look(self, catalogue: LiveCatalogue) -> None:
        for _ in catalogue.watch():
            if self._closed:
                return

    def _read(self, name: str, dataset: Dataset) -> None:
        """Open what the latest period needs, then read levels from the coarsest on, then where series lie.

        What is larger than what is left of the share is passed over.
        """
        began, read = time.perf_counter(), 0
        others = sum(size for other, size in self._taken.items() if other != name)
        # an equal part of what is left, and something always for one that is published later
        left = min((self._capacity - others) // (1 + len(self._waiting)), self._capacity * 3 // 4)
        self._taken[name] = 0
        planned = itertools.chain[tuple[int, Iterable[Step]]](planned_levels(dataset), planned_indexes(dataset))
        for size, steps in planned:
            self._go_on(name)
            if size > left:
                continue
            left -= size
            self._taken[name] += size
            for step in steps:
                self._go_on(name)
                step(self._chunks)
                read += 1
        took = time.perf_counter() - began
        logger.info("%s %s: read ahead in %d steps, %.2f s", name, dataset.version.id, read, took)

    def _go_on(self, name: str) -> None:
        if self._closed or name in self._waiting:
            raise Superseded


def planned_levels(dataset: Dataset) -> Iterator[tuple[int, list[Step]]]:
    """The levels that show the latest period on a screen, the coarsest first: bytes, and how each shard is read.

    Arrays are opened as they come.

    Raises:
        CenoteError: if a segment cannot be opened.
    """
    if not len(dataset.time):
        return
    last = len(dataset.time) - 1
    shown = _shown(dataset)
    _open(dataset, shown, last)
    for number in screen_levels(dataset.product.grid):
        for quantity in shown:
            array, local = dataset.map_array(layout.maps_path(number, quantity.name), last)
            (length, height, width), (_, rows, columns) = array.layout.chunk, array.layout.shape
            _, down, across = array.layout.inner_counts
            by_shard: dict[tuple[int, int], list[Position]] = {}
            for y, x in itertools.product(range(-(-rows // height)), range(-(-columns // width))):
                by_shard.setdefault((y // down, x // across), []).append((local // length, y, x))
            size = sum(len(members) for members in by_shard.values()) * chunk_bytes(array)
            yield size, [partial(_read_chunks, array, members) for members in by_shard.values()]


def planned_indexes(dataset: Dataset) -> Iterator[tuple[int, Iterator[Step]]]:
    """Where series lie, those of the latest periods first: bytes, and how each shard's index is read.

    Bytes are told by the chunks that are written today, so that no segment is opened for what does not fit.

    Raises:
        CenoteError: if a segment cannot be opened; by the steps.
    """
    product = dataset.product
    if product.series_block is None:
        return  # its maps hold the series
    (_, height, width), (_, high, wide) = layout.series_chunks(product)
    shards = -(-product.grid.height // high) * -(-product.grid.width // wide)
    each = 8 * (high // height) * (wide // width) + ENTRY_BYTES
    for run in sorted(dataset.version.series, key=lambda run: run.periods.starts[-1], reverse=True):
        blocks = -(-len(run.periods) // product.series_block)
        for quantity in _shown(dataset):
            yield blocks * shards * each, _index_steps(dataset, run, quantity)


def _index_steps(dataset: Dataset, run: Run, quantity: Quantity) -> Iterator[Step]:
    """Blocks of which a run of periods is read, the latest first."""
    segment = dataset.segment(run.segment)
    array = segment.array(layout.series_path(quantity.name))
    _, down, across = array.layout.shard_counts
    places = segment.places("series", run.periods.starts)
    for block in sorted({place // array.layout.chunk[0] for place in places}, reverse=True):
        if down * across <= MOST_EXPECTED:
            yield partial(_expect, array, block)
        if array.indexes is None:
            for shard in range(block * down * across, (block + 1) * down * across):
                yield partial(_read_index, array, shard)


def _read_chunks(array: StoredArray, positions: list[Position], cache: Kept) -> None:
    replace(array, cache=cache).chunks(positions)


def _expect(array: StoredArray, block: int, _: Kept) -> None:
    try:
        array.expect(block)
    except StoreUnavailable as error:  # who reads meets it too, and the indexes are wanted all the same
        logger.info("not signed ahead: %s", error)


def _read_index(array: StoredArray, shard: int, cache: Kept) -> None:
    replace(array, cache=cache).index(shard)


def _shown(dataset: Dataset) -> list[Quantity]:
    """What people ask for first: not what qualifies another quantity."""
    product = dataset.product
    return [quantity for quantity in product.quantities if quantity.ancillary_of is None] or [product.quantity(None)]


def _open(dataset: Dataset, quantities: list[Quantity], last: int) -> None:
    """Open the segments of a period, and unpack where each chunk lies."""
    for quantity in quantities:
        for number in range(dataset.product.grid.levels):
            dataset.map_array(layout.maps_path(number, quantity.name), last)
        if dataset.product.series_block is not None:
            for name in dataset.series_segments([last]):
                dataset.segment(name).array(layout.series_path(quantity.name))


def screen_levels(grid: Grid) -> list[int]:
    """Levels that tiles are drawn of while the whole grid is seen on a screen, the coarsest first."""
    extent = float(max(grid.width * grid.step_x, grid.height * grid.step_y))
    pixel, found = float(CIRCLE) / TILE, list[int]()
    while True:
        level = grid.coarsest(pixel)
        if level not in found:
            found.append(level)
        if level == 0 or pixel <= extent / SCREEN * (1 + 1e-9):
            return found
        pixel /= 2


def chunk_bytes(array: StoredArray) -> int:
    """What a decoded chunk takes up in the cache."""
    length, height, width = array.layout.chunk
    return length * height * width * array.dtype.itemsize + ENTRY_BYTES
