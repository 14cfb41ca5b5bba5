"""A bounded cache that loads each missing key once, however many threads ask for it at the same time."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
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


class Load[V]:
    """A load under way; whoever waits for it gets its value or its error."""

    __slots__ = ("_running", "error", "is_alone", "value")

    def __init__(self) -> None:
        self._running = threading.Lock()  # an Event is made of six objects
        self._running.acquire()
        self.value: V
        self.error: BaseException | None = None
        self.is_alone = True

    def end(self) -> None:
        """Let those go on who wait."""
        self._running.release()

    def wait(self) -> None:
        """Wait for its end."""
        with self._running:
            pass


class LoadingCache[K: Hashable, V]:
    """Least recently used entries go first when the weights pass the capacity; safe to share between threads.

    Args:
        capacity: the largest sum of weights; 0 keeps nothing, and loads are still joined.
        weigh: weight of a value; one that is heavier than the capacity is handed out and not kept.
        dropped: told when something was dropped for want of room; it may not ask this cache.
    """

    def __init__(
        self,
        capacity: int,
        weigh: Callable[[V], int] = lambda _: 1,
        dropped: Callable[[], None] = lambda: None,
    ) -> None:
        self._capacity = capacity
        self._room = capacity
        self._weigh = weigh
        self._dropped = dropped
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._loads: dict[K, Load[V]] = {}
        self._weight = 0
        self._hits = 0
        self._misses = 0

    def get(self, key: K, load: Callable[[], V]) -> V:
        """The value under a key; ``load`` makes it where it is missing.

        An error of ``load`` reaches everyone who waits for it, and is not kept: the next one tries again.
        """
        return self.get_all([key], lambda _: [load()])[0]

    def get_all(self, keys: Sequence[K], load: Callable[[Sequence[K]], Sequence[V]]) -> list[V]:
        """The values under some keys; ``load`` makes those that are missing and that nobody else is making.

        An error of ``load`` is not kept. Who waits for one of several values that failed together makes that one
        again: the fault may be another's.
        """
        found: dict[K, V] = {}
        mine: dict[K, Load[V]] = {}
        theirs: dict[K, Load[V]] = {}
        with self._lock:
            for key in dict.fromkeys(keys):
                entry = self._entries.get(key)
                if entry is not None:
                    self._entries.move_to_end(key)
                    found[key] = entry[0]
                elif key in self._loads:
                    theirs[key] = self._loads[key]
                else:
                    mine[key] = self._loads[key] = Load()
            self._hits += len(found) + len(theirs)
            self._misses += len(mine)
        # own loads first, so that of two who wait for each other none waits for ever
        found |= self.fulfil(mine, load)
        for key, running in theirs.items():
            running.wait()
            if running.error is None:
                found[key] = running.value
            elif running.is_alone:
                raise running.error
            else:
                found[key] = self.get_all([key], load)[0]
        return [found[key] for key in keys]

    def claim(self, keys: Sequence[K]) -> dict[K, Load[V]] | None:
        """Begin to load some keys, for who must not wait; others do until ``fulfil`` or ``abandon`` is called.

        None where one of them is there meanwhile or being loaded by another, and nothing is begun.
        """
        with self._lock:
            if any(key in self._entries or key in self._loads for key in keys):
                return None
            mine: dict[K, Load[V]] = {key: Load() for key in keys}
            self._loads |= mine
            self._misses += len(mine)
        return mine

    def abandon(self, loads: dict[K, Load[V]]) -> None:
        """End loads that were begun without a value: whoever waits for one makes it."""
        with self._lock:
            for key, one in loads.items():
                one.error, one.is_alone = LookupError(key), False
                del self._loads[key]
        for one in loads.values():
            one.end()

    def fulfil(self, loads: dict[K, Load[V]], load: Callable[[Sequence[K]], Sequence[V]]) -> dict[K, V]:
        """The values of loads that were begun, made by ``load``, whose error is everyone's who waits for them."""
        if not loads:
            return {}
        made: dict[K, V] = {}
        weights: dict[K, int] = {}
        error: BaseException | None = None
        try:
            made = dict(zip(loads, load(list(loads)), strict=True))
            weights = {key: self._weigh(value) for key, value in made.items()}
        except BaseException as raised:
            error = raised
            raise
        finally:
            with self._lock:
                for key, one in loads.items():
                    if error is None:
                        one.value = made[key]
                        self._keep(key, one.value, weights[key])
                    one.error, one.is_alone = error, len(loads) == 1
                    del self._loads[key]
            for one in loads.values():
                one.end()
        return made

    def _keep(self, key: K, value: V, weight: int) -> None:
        earlier = self._entries.pop(key, None)  # put while it was being loaded
        if earlier is not None:
            self._weight -= earlier[1]
        if weight > self._room:
            return
        self._entries[key] = (value, weight)
        self._weight += weight
        self._fit()

    def _fit(self) -> None:
        if self._weight <= self._room:
            return
        while self._weight > self._room:
            _, (_, lightened) = self._entries.popitem(last=False)
            self._weight -= lightened
        self._dropped()

    def give_way(self, weight: int) -> None:
        """Keep so much less than the capacity from now on, for something else that needs the memory."""
        with self._lock:
            self._room = max(self._capacity - weight, 0)
            self._fit()

    def clear(self) -> None:
        """Keep nothing of what is kept now."""
        with self._lock:
            self._entries.clear()
            self._weight = 0

    def present(self, keys: Sequence[K]) -> list[V] | None:
        """The values under some keys if all of them are there, counted as used; else None, and nothing is counted.

        Waits for no load, so that an event loop may ask.
        """
        with self._lock:
            entries = self._entries
            try:
                found = [entries[key][0] for key in keys]
            except KeyError:
                return None
            for key in keys:
                entries.move_to_end(key)
            self._hits += len(found)
        return found

    def use(self, key: K) -> V | None:
        """The value under a key if it is there, counted as used; else None, and nothing is counted."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            self._entries.move_to_end(key)
            self._hits += 1
        return found[0]

    def put(self, key: K, value: V) -> None:
        """Keep a value that was made elsewhere, counted as a load."""
        weight = self._weigh(value)
        with self._lock:
            self._misses += 1
            if key not in self._entries:
                self._keep(key, value, weight)

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


class Beside[K: Hashable, V]:
    """A cache as they fill it whom nobody may have to wait for.

    What they load nobody else joins: a request that needs the same loads it itself, and is told no error but its own.

    Args:
        cache: where what was loaded is put.
    """

    def __init__(self, cache: LoadingCache[K, V]) -> None:
        self._cache = cache

    def get(self, key: K, load: Callable[[], V]) -> V:
        """The value under a key; ``load`` makes it where it is missing."""
        return self.get_all([key], lambda _: [load()])[0]

    def use(self, key: K) -> V | None:
        """The value under a key if it is there; not counted as a use."""
        return self._cache.peek(key)

    def get_all(self, keys: Sequence[K], load: Callable[[Sequence[K]], Sequence[V]]) -> list[V]:
        """The values under some keys; ``load`` makes those that are missing."""
        found = {key: value for key in keys if (value := self._cache.peek(key)) is not None}
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            for key, value in zip(missing, load(missing), strict=True):
                self._cache.put(key, value)
                found[key] = value
        return [found[key] for key in keys]
