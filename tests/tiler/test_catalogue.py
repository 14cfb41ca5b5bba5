"""How late a server may know of what is published, and what it does when the store is away."""

import threading
from collections.abc import Callable
from typing import override

import numpy as np
import pytest

from services.core import layout
from services.core.errors import CollectionNotFound, Damaged, StoreUnavailable, VersionNotFound
from services.core.grid import Grid
from services.core.settings import Settings
from services.core.store import Observed, Operation, Store
from services.core.time_axis import TimeAxis
from services.pipeline.publish import rollback
from tests.tiler.conftest import PLACE, Arrays, a_product, publish_arrays
from tiler.catalogue import LiveCatalogue
from tiler.fresh import RETRY_SECONDS

SMALL = Grid.of(west=0, north=4, step_x="1", width=4, height=4)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watched(Observed):
    """Counts operations, and fails or waits when told to."""

    __slots__ = ("fails", "gate", "seen")

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.seen: list[Operation] = []
        self.fails = False
        self.gate: threading.Event | None = None

    @override
    def around[Answer](self, operation: Operation, call: Callable[[], Answer]) -> Answer:
        self.seen.append(operation)
        if self.gate is not None:
            assert self.gate.wait(5)
        if self.fails:
            raise StoreUnavailable("away")
        return call()

    def reads(self, key: str) -> int:
        return sum(operation.keys == (key,) for operation in self.seen)


def publish(store: Store, value: float, *, name: str = "demo", keep: bool = False) -> str:
    product = a_product(name, SMALL, PLACE)
    values = {"place": np.full((1, 4, 4), float(value))}
    axis = TimeAxis.regular("2020-01", "P1M", 1)
    return publish_arrays(store, Arrays(product=product, axis=axis, values=values, origin=f"{value}"), keep=keep)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watched(directory: Store) -> Watched:
    return Watched(directory)


@pytest.fixture
def catalogue(watched: Watched, clock: Clock) -> LiveCatalogue:
    return LiveCatalogue(watched, Settings(pointer_seconds=2), clock)


def test_a_new_version_is_seen_two_seconds_later_at_most(
    catalogue: LiveCatalogue, watched: Watched, clock: Clock
) -> None:
    first = publish(watched.inner, 1)
    assert catalogue.dataset("demo").version == first
    second = publish(watched.inner, 2)
    assert second != first
    clock.now += 0.9
    assert catalogue.dataset("demo").version == first, "still fresh enough: not read again"
    clock.now += 1.2  # 2.1 in all
    found = catalogue.dataset("demo")
    assert (found.version, found.seq, found.is_current, found.is_stale) == (second, 2, True, False)
    rollback(watched.inner, "demo", first)
    clock.now += 2.01
    assert catalogue.dataset("demo").version == first
    assert catalogue.dataset("demo").seq == 3


def test_a_pointer_is_read_once_while_it_is_fresh(catalogue: LiveCatalogue, watched: Watched, clock: Clock) -> None:
    publish(watched.inner, 1)
    for _ in range(50):
        catalogue.dataset("demo")
    assert watched.reads(layout.pointer_key("demo")) == 1
    clock.now += 2.5
    for _ in range(50):
        catalogue.dataset("demo")
    assert watched.reads(layout.pointer_key("demo")) == 2


def test_one_read_at_a_time_and_nobody_waits_while_the_old_one_will_do(
    catalogue: LiveCatalogue, watched: Watched, clock: Clock
) -> None:
    first = publish(watched.inner, 1)
    catalogue.dataset("demo")
    clock.now += 1.5  # past half of the time: read again, in the background
    watched.gate = threading.Event()
    assert [catalogue.dataset("demo").version for _ in range(20)] == [first] * 20
    watched.gate.set()
    catalogue.close()
    assert watched.reads(layout.pointer_key("demo")) == 2


def test_zero_seconds_is_always_read_again(watched: Watched, clock: Clock) -> None:
    catalogue = LiveCatalogue(watched, Settings(pointer_seconds=0), clock)
    publish(watched.inner, 1)
    catalogue.dataset("demo")
    second = publish(watched.inner, 2)
    clock.now += 1e-6
    assert catalogue.dataset("demo").version == second


def test_what_is_known_is_served_while_the_store_is_away(
    catalogue: LiveCatalogue, watched: Watched, clock: Clock
) -> None:
    version = publish(watched.inner, 1)
    assert catalogue.ids() == ["demo"]
    catalogue.check()
    clock.now += 10
    watched.fails = True
    found = catalogue.dataset("demo")
    assert (found.version, found.is_stale) == (version, True)
    with pytest.raises(StoreUnavailable):
        catalogue.check()
    assert catalogue.ids() == ["demo"]
    asked = len(watched.seen)
    for _ in range(20):
        assert catalogue.dataset("demo").is_stale
    assert len(watched.seen) == asked, "a store that just failed is left alone for a while"
    with pytest.raises(StoreUnavailable):
        catalogue.dataset("unknown")
    watched.fails = False
    clock.now += RETRY_SECONDS
    assert not catalogue.dataset("demo").is_stale
    catalogue.check()


def test_a_store_that_hangs_costs_a_request_one_second_at_most(
    catalogue: LiveCatalogue, watched: Watched, clock: Clock
) -> None:
    version = publish(watched.inner, 1)
    catalogue.dataset("demo")
    clock.now += 10
    watched.gate = threading.Event()
    found = catalogue.dataset("demo")
    assert (found.version, found.is_stale) == (version, True)
    clock.now += 1
    assert catalogue.dataset("demo").is_stale, "later requests do not wait at all"
    watched.gate.set()


def test_unknown_names_and_versions(catalogue: LiveCatalogue, watched: Watched) -> None:
    publish(watched.inner, 1)
    for name in ("nope", "..", "a/b", "demo/versions", "", "DEMO", "x" * 500):
        with pytest.raises(CollectionNotFound):
            catalogue.dataset(name)
    for version in ("latest", "../current", "0" * 20, "g" * 20):
        with pytest.raises(VersionNotFound):
            catalogue.dataset("demo", version)


def test_a_name_that_was_unknown_is_found_once_it_is_published(
    catalogue: LiveCatalogue, watched: Watched, clock: Clock
) -> None:
    with pytest.raises(CollectionNotFound):
        catalogue.dataset("demo")
    version = publish(watched.inner, 1)
    clock.now += 2.01
    assert catalogue.dataset("demo").version == version


def test_versions_by_name(catalogue: LiveCatalogue, watched: Watched, clock: Clock) -> None:
    first = publish(watched.inner, 1)
    second = publish(watched.inner, 2)
    assert catalogue.versions("demo") == sorted([first, second])
    old = catalogue.dataset("demo", first)
    assert (old.version, old.seq, old.is_current) == (first, None, False)
    assert catalogue.dataset("demo", second).is_current
    third = publish(watched.inner, 3)
    clock.now += 2.01
    assert catalogue.versions("demo") == sorted([first, second, third])


def test_opened_versions_are_shared_and_bounded(watched: Watched, clock: Clock) -> None:
    catalogue = LiveCatalogue(watched, Settings(), clock)
    publish(watched.inner, 1)
    assert catalogue.dataset("demo").dataset is catalogue.dataset("demo").dataset


def test_damage_is_an_error_and_not_an_old_answer(catalogue: LiveCatalogue, watched: Watched, clock: Clock) -> None:
    publish(watched.inner, 1)
    catalogue.dataset("demo")
    watched.inner.overwrite(layout.pointer_key("demo"), b"{}")
    clock.now += 2.01
    with pytest.raises(Damaged, match=r"demo/current\.json"):
        catalogue.dataset("demo")
    assert catalogue.ids() == ["demo"]


def test_a_damaged_version_file_is_an_error(catalogue: LiveCatalogue, watched: Watched, clock: Clock) -> None:
    publish(watched.inner, 1)
    catalogue.dataset("demo")
    second = publish(watched.inner, 2)
    key = layout.version_key("demo", second)
    data = bytearray(watched.inner.get(key))
    data[len(data) // 2] ^= 1
    watched.inner.overwrite(key, bytes(data))
    clock.now += 2.01
    for _ in range(2):
        with pytest.raises(Damaged, match=second):
            catalogue.dataset("demo")


def test_many_unknown_names_do_not_push_out_known_ones(catalogue: LiveCatalogue, watched: Watched) -> None:
    publish(watched.inner, 1)
    catalogue.dataset("demo")
    for number in range(1100):
        with pytest.raises(CollectionNotFound):
            catalogue.dataset(f"unknown{number}")
    asked = watched.reads(layout.pointer_key("demo"))
    catalogue.dataset("demo")
    assert watched.reads(layout.pointer_key("demo")) == asked
