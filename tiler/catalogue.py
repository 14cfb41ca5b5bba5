"""What is published right now, as a server process knows it: collections, their pointers, and opened versions."""

import contextlib
import itertools
import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from services.core import layout
from services.core.catalog import Pointer, read_pointer, read_version
from services.core.dataset import Dataset
from services.core.errors import CenoteError, CollectionNotFound, Damaged, StoreUnavailable, VersionNotFound
from services.core.segment import ChunkCache, Segment, SegmentKey
from services.core.settings import Settings
from services.core.store import Store
from tiler.fresh import Clock, Fresh
from tiler.loading import Beside, LoadingCache
from tiler.memory import Shares

logger = logging.getLogger(__name__)

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")
_VERSION = re.compile(rf"[0-9a-f]{{{layout.ID_LENGTH}}}")

KNOWN_IDS = 1024
"""Ids whose pointer is remembered, those under which nothing is published among them."""

KNOWN_LISTINGS = 64
"""Collections whose versions' names are remembered."""

OPENED_BYTES = 1500
"""Memory of an opened version or segment, beside what it counts itself."""

READERS = 4
"""Threads that read pointers and listings."""

WATCHED = 32
"""Collections of which a new version is looked for though nobody asks: no more, so that those asked for stay open."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """The version that answers a request, from its first to its last byte."""

    dataset: Dataset
    version: str
    """Id of the version."""

    seq: int | None
    """The pointer's sequence number; None where the request names the version."""

    is_current: bool
    """Whether the collection's pointer named it when it was last read."""

    is_stale: bool = False
    """Whether the store did not answer, so that a newer version may be out."""

    @property
    def id(self) -> str:
        """Collection id."""
        return self.dataset.product.id


class LiveCatalogue:
    """Collections and versions of a store; safe to share between threads.

    A pointer or listing is never older than ``settings.pointer_seconds``, unless the store does not answer: then what
    is known goes on being served, and says so.

    Args:
        store: where they lie; only read.
        settings: how late a new version may be seen.
        clock: monotonic seconds.
        cache: where decoded chunks are kept.
        seen: told each version that a pointer names for the first time, once it is open. It must return at once, and
            its segments it opens beside those who answer requests (``tiler.loading.Beside``).

    Attributes:
        closed: all called when a version or segment was closed for want of memory, so that nobody else keeps it open.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        clock: Clock = time.monotonic,
        cache: ChunkCache | None = None,
        seen: Callable[[Dataset], None] = lambda _: None,
    ) -> None:
        self.closed: list[Callable[[], None]] = []
        share = Shares.of(settings)
        self._store = store
        self._seen = seen
        self._seconds = settings.pointer_seconds
        self._clock = clock
        self._cache = cache
        self._executor = ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="catalogue")
        self._lock = threading.Lock()
        self._pointers: OrderedDict[str, Fresh[Pointer | None]] = OrderedDict()
        self._versions: OrderedDict[str, Fresh[tuple[str, ...]]] = OrderedDict()
        self._datasets: LoadingCache[tuple[str, str], Dataset] = LoadingCache(
            share.versions,
            lambda dataset: _weight(f"version {dataset.version.id}", dataset.memory, share.versions),
            self._was_closed,
        )
        self._segments: LoadingCache[SegmentKey, Segment] = LoadingCache(
            share.segments,
            lambda segment: _weight(segment.prefix, segment.memory, share.segments),
            self._was_closed,
        )
        self._listing = self._fresh(lambda: tuple(sorted(store.children(""))))

    def dataset(self, collection: str, version: str | None = None) -> Served:
        """The current version of a collection, or a named one.

        Raises:
            CollectionNotFound: if nothing is published under the id.
            VersionNotFound: if the collection has no such version.
            StoreUnavailable: if the store does not answer and nothing is known.
            Damaged: if pointer or version do not hold.
        """
        if not _ID.fullmatch(collection):
            raise CollectionNotFound(f"there is no collection {collection!r}")
        if version is None:
            pointer, is_stale = self._pointer(collection).get()
            if pointer is None:
                raise CollectionNotFound(f"there is no collection {collection!r}")
            return Served(
                dataset=self._open(collection, pointer.version, pointer.sha256),
                version=pointer.version,
                seq=pointer.seq,
                is_current=True,
                is_stale=is_stale,
            )
        if not _VERSION.fullmatch(version):
            raise VersionNotFound(f"collection {collection!r} has no version {version!r}")
        known = self._pointers.get(collection)
        current = known.peek() if known is not None else None
        return Served(
            dataset=self._open(collection, version),
            version=version,
            seq=None,
            is_current=current is not None and current.version == version,
        )

    def at_once(self, collection: str, version: str | None = None) -> Served | None:
        """What ``dataset`` gives, where that is known without waiting for anything; else None."""
        known = self._pointers.get(collection)
        if version is not None:
            opened = self._datasets.use((collection, version))
            current = known.peek() if known is not None else None
            is_current = current is not None and current.version == version
            return None if opened is None else Served(dataset=opened, version=version, seq=None, is_current=is_current)
        fresh = None if known is None else known.at_once()
        if fresh is None or fresh[0] is None:
            return None
        opened = self._datasets.use((collection, fresh[0].version))
        if opened is None:
            return None
        return Served(dataset=opened, version=fresh[0].version, seq=fresh[0].seq, is_current=True)

    def current(self, collection: str) -> str | None:
        """The current version of a collection, where that is known without waiting for anything; else None.

        Raises:
            CenoteError: what the last read found wrong with what is stored.
        """
        known = self._pointers.get(collection)
        fresh = None if known is None else known.at_once()
        return None if fresh is None or fresh[0] is None else fresh[0].version

    def holds(self, served: Served) -> bool:
        """Whether an opened version is the one that is kept: others are heavy, and to be held by nobody else."""
        return self._datasets.peek((served.id, served.version)) is served.dataset

    def pointer(self, collection: str) -> Pointer:
        """The pointer of a collection, for those who tell of versions rather than of data.

        Raises:
            CollectionNotFound: if nothing is published under the id.
        """
        if _ID.fullmatch(collection):
            pointer, _ = self._pointer(collection).get()
            if pointer is not None:
                return pointer
        raise CollectionNotFound(f"there is no collection {collection!r}")

    def ids(self) -> list[str]:
        """Ids of the published collections, sorted."""
        names, _ = self._listing.get()
        found = []
        for name in names:
            if name == layout.MODELS_PREFIX or not _ID.fullmatch(name):
                continue
            try:
                pointer, _ = self._pointer(name).get()
            except CenoteError:
                found.append(name)  # it is there, and whoever opens it is told what is wrong with it
                continue
            if pointer is not None:
                found.append(name)
        return found

    def every(self) -> tuple[list[Served], list[str]]:
        """The current version of each collection, and the ids of those that cannot be opened.

        One damaged collection must not take the others off a list; its fault is logged.
        """
        found, broken = [], []
        for name in self.ids():
            try:
                found.append(self.dataset(name))
            except CenoteError as error:
                logger.warning("collection %s is left out of the list: %s", name, error)
                broken.append(name)
        return found, broken

    def versions(self, collection: str) -> list[str]:
        """Ids of the stored versions of a collection, sorted; the current one is among them.

        Raises:
            CollectionNotFound: if nothing is published under the id.
        """
        current = self.pointer(collection).version
        with self._lock:
            listing = self._versions.get(collection)
            if listing is None:
                listing = self._versions[collection] = self._fresh(lambda: self._list_versions(collection))
                while len(self._versions) > KNOWN_LISTINGS:
                    self._versions.popitem(last=False)
        names, _ = listing.get()
        return sorted({*names, current})

    def check(self) -> None:
        """Return if the store answers.

        Raises:
            StoreUnavailable: if it does not, or did not a moment ago.
        """
        _, is_stale = self._listing.get()
        if is_stale:
            raise StoreUnavailable("the store does not answer")

    def watch(self) -> Iterator[str]:
        """Read the pointers of collections one by one, and with them what was published meanwhile; yields their ids.

        Raises:
            StoreUnavailable: if the store does not answer.
        """
        names, _ = self._listing.get()
        published = (name for name in names if name != layout.MODELS_PREFIX and _ID.fullmatch(name))
        for name in itertools.islice(published, WATCHED):
            with contextlib.suppress(CenoteError):  # the request that needs it raises it
                self._pointer(name).get()
            yield name

    @property
    def is_stale(self) -> bool:
        """Whether the store failed to answer when it was last asked for the collections."""
        return self._listing.is_failing

    def close(self) -> None:
        """End the reading threads; what they are doing is waited for."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _was_closed(self) -> None:
        for told in self.closed:
            told()

    def _fresh[T](self, read: Callable[[], T]) -> Fresh[T]:
        return Fresh(read, seconds=self._seconds, clock=self._clock, executor=self._executor)

    def _pointer(self, collection: str) -> Fresh[Pointer | None]:
        found = self._pointers.get(collection)
        if found is None:
            with self._lock:
                found = self._pointers.get(collection)
                if found is None:
                    found = self._pointers[collection] = self._fresh(lambda: self._read_pointer(collection))
                    if len(self._pointers) > KNOWN_IDS:
                        # Ids that nobody published go first: they come from whoever tries names.
                        empty = (name for name, known in self._pointers.items() if known.peek() is None)
                        del self._pointers[next(empty)]
        return found

    def _read_pointer(self, collection: str) -> Pointer | None:
        found = read_pointer(self._store, collection)
        if found is None:
            return None
        pointer, _ = found
        with contextlib.suppress(Damaged):  # the request that needs it raises it
            # opened here, so that no request waits for a version that was just published
            opened = self._open(collection, pointer.version, pointer.sha256)
            fresh = self._pointers.get(collection)
            known = None if fresh is None else fresh.peek()
            if known is None or known.version != pointer.version:
                self._seen(Dataset(self._store, opened.version, self._cache, Beside(self._segments)))
        return pointer

    def _open(self, collection: str, version: str, sha256: str | None = None) -> Dataset:
        return self._datasets.get(
            (collection, version),
            lambda: Dataset(
                self._store, read_version(self._store, collection, version, sha256), self._cache, self._segments
            ),
        )

    def _list_versions(self, collection: str) -> tuple[str, ...]:
        prefix = layout.versions_prefix(collection)
        names = (listed.removesuffix(".json") for listed in self._store.children(prefix))
        return tuple(sorted(name for name in names if _VERSION.fullmatch(name)))


def _weight(what: str, weight: int, most: int) -> int:
    if weight > most:
        logger.warning(
            "%s takes %d MiB in memory and %d are kept at most, so that it is read anew for each request; "
            "a larger CENOTE_MEMORY_MB makes room for it",
            what,
            weight >> 20,
            most >> 20,
        )
    return weight + OPENED_BYTES
