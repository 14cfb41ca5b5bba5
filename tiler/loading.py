"""A bounded cache that loads each missing key once, however many threads ask for it at the same time."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CacheCounts:
    """What a cache has done so far."""

    hits: int
    """Answers from memory, those that waited for another's load among them."""

    misses: int
    """Loads begun."""

    entries: int
    weight: int
    """Sum of the weights of the entries."""


class _Load[V]:
    """A load under way; whoever waits for it gets its value or its error."""

    __slots__ = ("done", "error", "value")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.value: V
        self.error: BaseException | None = None


class LoadingCache[K: Hashable, V]:
    """Least recently used entries go first when the weights pass the capacity; safe to share between threads.

    Args:
        capacity: the largest sum of weights; 0 keeps nothing, and loads are still joined.
        weigh: weight of a value; one that is heavier than the capacity is handed out and not kept.
    """

    def __init__(self, capacity: int, weigh: Callable[[V], int] = lambda _: 1) -> None:
        self._capacity = capacity
        self._weigh = weigh
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._loads: dict[K, _Load[V]] = {}
        self._weight = 0
        self._hits = 0
        self._misses = 0

    def get(self, key: K, load: Callable[[], V]) -> V:
        """The value under a key; ``load`` makes it where it is missing.

        An error of ``load`` reaches everyone who waits for it, and is not kept: the next one tries again.
        """
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
                self._hits += 1
                return found[0]
            running = self._loads.get(key)
            if running is None:
                mine = self._loads[key] = _Load()
                self._misses += 1
            else:
                self._hits += 1
        if running is not None:
            running.done.wait()
            if running.error is not None:
                raise running.error
            return running.value
        try:
            mine.value = load()
        except BaseException as error:
            mine.error = error
            with self._lock:
                del self._loads[key]
            raise
        else:
            with self._lock:
                self._keep(key, mine.value)
                del self._loads[key]
            return mine.value
        finally:
            mine.done.set()

    def _keep(self, key: K, value: V) -> None:
        weight = self._weigh(value)
        if weight > self._capacity:
            return
        self._entries[key] = (value, weight)
        self._weight += weight
        while self._weight > self._capacity:
            _, (_, lightened) = self._entries.popitem(last=False)
            self._weight -= lightened

    def peek(self, key: K) -> V | None:
        """The value under a key if it is there; not counted as a use."""
        with self._lock:
            found = self._entries.get(key)
        return None if found is None else found[0]

    @property
    def counts(self) -> CacheCounts:
        """What it has done so far."""
        with self._lock:
            return CacheCounts(hits=self._hits, misses=self._misses, entries=len(self._entries), weight=self._weight)
