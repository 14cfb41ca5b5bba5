"""The cache that joins loads."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tiler.chunks import ENTRY_BYTES, ChunkCache
from tiler.loading import LoadingCache


def test_concurrent_asks_for_one_key_load_it_once() -> None:
    cache: LoadingCache[str, int] = LoadingCache(10)
    entered, go = threading.Event(), threading.Event()
    loads = []

    def load() -> int:
        loads.append(1)
        entered.set()
        assert go.wait(5)
        return 42

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(cache.get, "key", load)
        assert entered.wait(5)
        others = [pool.submit(cache.get, "key", load) for _ in range(7)]
        while cache.counts.hits < 7:
            pass
        go.set()
        assert [future.result(5) for future in (first, *others)] == [42] * 8
    assert len(loads) == 1
    assert cache.counts.misses == 1


def test_an_error_reaches_all_who_wait_and_is_not_kept() -> None:
    cache: LoadingCache[str, int] = LoadingCache(10)
    entered, go = threading.Event(), threading.Event()

    def fail() -> int:
        entered.set()
        assert go.wait(5)
        raise ValueError("no")

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(cache.get, "key", fail)]
        assert entered.wait(5)
        futures += [pool.submit(cache.get, "key", fail) for _ in range(2)]
        while cache.counts.hits < 2:
            pass
        go.set()
        for future in futures:
            with pytest.raises(ValueError, match="no"):
                future.result(5)
    assert cache.get("key", lambda: 7) == 7


def test_what_is_missing_is_loaded_in_one_call() -> None:
    cache: LoadingCache[str, str] = LoadingCache(10)
    asked: list[list[str]] = []

    def load(keys: Sequence[str]) -> list[str]:
        asked.append(list(keys))
        return [key.upper() for key in keys]

    assert cache.get_all(["a", "b"], load) == ["A", "B"]
    assert cache.get_all(["c", "b", "d", "c", "a"], load) == ["C", "B", "D", "C", "A"]
    assert asked == [["a", "b"], ["c", "d"]]
    assert (cache.counts.misses, cache.counts.hits) == (4, 2)


def test_one_damaged_value_of_several_harms_nobody_who_does_not_want_it() -> None:
    cache: LoadingCache[str, str] = LoadingCache(10)
    entered, go = threading.Event(), threading.Event()

    def load(keys: Sequence[str]) -> list[str]:
        if not entered.is_set():
            entered.set()
            assert go.wait(5)
        if "bad" in keys:
            raise ValueError("bad")
        return [key.upper() for key in keys]

    with ThreadPoolExecutor(2) as pool:
        both = pool.submit(cache.get_all, ["good", "bad"], load)
        assert entered.wait(5)
        one = pool.submit(cache.get_all, ["good"], load)
        while cache.counts.hits < 1:
            pass
        go.set()
        assert one.result(5) == ["GOOD"]
        with pytest.raises(ValueError, match="bad"):
            both.result(5)


def test_loads_of_different_keys_do_not_wait_for_each_other() -> None:
    cache: LoadingCache[str, int] = LoadingCache(10)
    both = threading.Barrier(2, timeout=5)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(cache.get, key, lambda: both.wait() and 0) for key in "ab"]
        assert [future.result(5) for future in futures] == [0, 0]


def test_the_least_recently_used_goes_first() -> None:
    cache: LoadingCache[str, str] = LoadingCache(2)
    for key in "ab":
        cache.get(key, lambda key=key: key)  # type: ignore[misc]
    cache.get("a", lambda: "again")
    cache.get("c", lambda: "c")
    assert cache.peek("a") == "a"
    assert cache.peek("b") is None
    assert cache.counts.entries == 2


def test_chunks_are_bounded_in_bytes() -> None:
    size = 1000 + ENTRY_BYTES
    cache = ChunkCache(3 * size)
    for number in range(5):
        chunk = cache.get(("array", 0, 0, number), lambda: np.zeros(1000, dtype="uint8"))
        assert chunk.nbytes == 1000
    assert cache.counts.entries == 3
    assert cache.counts.weight == 3 * size
    big = cache.get(("array", 0, 0, 9), lambda: np.zeros(10_000, dtype="uint8"))
    assert big.nbytes == 10_000
    assert cache.counts.entries == 3, "one that is larger than the cache is handed out and not kept"


def test_without_capacity_nothing_is_kept() -> None:
    cache = ChunkCache(0)
    cache.get(("array", 0, 0, 0), lambda: np.zeros(10))
    cache.get(("array", 0, 0, 0), lambda: np.zeros(10))
    assert cache.counts.misses == 2
    assert cache.counts.weight == 0


def test_a_claim_is_waited_for_like_any_load() -> None:
    cache: LoadingCache[str, int] = LoadingCache(10)
    claimed = cache.claim(["a", "b"])
    assert claimed is not None
    assert cache.claim(["c", "a"]) is None  # somebody loads it
    with ThreadPoolExecutor(2) as pool:
        joined = [pool.submit(cache.get, key, lambda: -1) for key in ("a", "b")]
        while cache.counts.hits < 2:
            pass
        assert cache.fulfil(claimed, lambda _: [1, 2]) == {"a": 1, "b": 2}
        assert [one.result(5) for one in joined] == [1, 2]
    assert cache.claim(["b"]) is None  # it is there
    assert cache.get("c", lambda: 3) == 3  # what was refused together with another was not begun
    assert cache.counts.misses == 3


@pytest.mark.parametrize("keys", [["a"], ["a", "b"]])
def test_who_waits_for_a_claim_that_is_abandoned_loads_himself(keys: list[str]) -> None:
    cache: LoadingCache[str, int] = LoadingCache(10)
    claimed = cache.claim(keys)
    assert claimed is not None
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(cache.get, "a", lambda: 7)
        while cache.counts.hits < 1:
            pass
        cache.abandon(claimed)
        assert joined.result(5) == 7
    assert cache.claim(["b"]) is not None
