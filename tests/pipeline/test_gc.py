"""gc takes two passes, keeps what any kept version lists, and cuts nobody off; its clock is the test's."""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import override

import numpy as np
import pytest

from services.core import layout
from services.core.catalog import DELETING, current_version, read_marks, read_pointer, read_version
from services.core.dataset import Dataset
from services.core.errors import CollectionNotFound, Damaged, PublishConflict, Refused, VersionNotFound
from services.core.grid import Window
from services.core.store import Operation, Store
from services.core.store.interface import Listed
from services.pipeline import gc
from services.pipeline import publish as publishing
from services.pipeline.verify import verify
from tests.pipeline.faults import Crash, Watched, clone
from tests.pipeline.synthetic import ONE_SHARD, PACKED, Planted, composed, contents, months, planned, product, render

pytestmark = pytest.mark.slow  # as a whole

TINY = product(
    grid=replace(ONE_SHARD, step_x=ONE_SHARD.step_x * 4, step_y=ONE_SHARD.step_y * 4),
    quantities=(PACKED,),
    cog_period=None,
)
WHOLE = Window(row=0, column=0, height=ONE_SHARD.height, width=ONE_SHARD.width)
DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)


class Clock:
    """Now, and as much later as the test says."""

    def __init__(self) -> None:
        self.later = dt.timedelta(0)

    def __call__(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + self.later


@pytest.fixture
def clock() -> Clock:
    return Clock()


def recipe(shift: int) -> Planted:
    return Planted(product=TINY, axis=months(1), shift=shift)


def anew(store: Store, shift: int) -> str:
    """Publish a version that shares nothing with the one before; its id."""
    return render(store, recipe(shift), keep=False).version


def segments(store: Store) -> set[str]:
    return set(store.children("synthetic/segments"))


def segment_of(store: Store, version: str) -> str:
    (name,) = read_version(store, "synthetic", version).segments
    return name


def collect(store: Store, clock: Clock) -> gc.Collected:
    return gc.collect(store, "synthetic", now=clock)


@pytest.fixture
def archive(memory: Store) -> tuple[Store, list[str]]:
    """Thirteen versions with a segment each: the first two are neither current, previous nor of the newest ten."""
    versions = [anew(memory, shift) for shift in range(gc.KEPT_VERSIONS + 2)]
    return memory, versions


def test_two_passes_a_day_apart_delete_what_no_kept_version_lists(
    archive: tuple[Store, list[str]], clock: Clock
) -> None:
    store, versions = archive
    publishing.pin(store, "synthetic", versions[0])
    doomed, pinned = segment_of(store, versions[1]), segment_of(store, versions[0])
    before = contents(store, "")
    size = sum(listed.size for listed in store.list(layout.segment_prefix("synthetic", doomed)))

    clock.later = 8 * DAY
    first = collect(store, clock)
    assert (first.marked, first.deleted, first.forgotten, first.freed) == ((doomed,), (), (), 0)
    assert {**before, **contents(store, "")}.keys() - before.keys() == {layout.marks_key("synthetic")}
    assert read_marks(store, "synthetic").keys() == {doomed}

    clock.later = 9 * DAY - HOUR
    assert collect(store, clock) == gc.Collected(product="synthetic", marked=(), deleted=(), forgotten=(), freed=0)

    clock.later = 9 * DAY + HOUR
    second = collect(store, clock)
    assert (second.marked, second.deleted, second.forgotten, second.freed) == ((), (doomed,), (versions[1],), size)
    assert doomed not in segments(store)
    assert pinned in segments(store)
    assert read_marks(store, "synthetic") == {}
    with pytest.raises(VersionNotFound, match="has no version"):
        read_version(store, "synthetic", versions[1])
    after = contents(store, "")
    gone = before.keys() - after.keys()
    assert {key for key in gone if doomed not in key} == {layout.version_key("synthetic", versions[1])}
    assert {key: after[key] for key in after if key != layout.marks_key("synthetic")}.items() <= before.items()
    for name in [versions[0], *versions[2:]]:
        assert verify(store, "synthetic", name).findings == ()


def test_readers_of_the_previous_version_go_on(archive: tuple[Store, list[str]], clock: Clock) -> None:
    store, versions = archive
    readers = {name: Dataset(store, read_version(store, "synthetic", name)) for name in versions[2:]}
    for later in (8 * DAY, 10 * DAY, 20 * DAY, 40 * DAY):
        clock.later = later
        collect(store, clock)
    for shift, (_, reader) in enumerate(readers.items(), start=2):
        np.testing.assert_array_equal(
            reader.read_series(PACKED, range(1), WHOLE), recipe(shift).stored(PACKED, months(1))
        )


def test_what_was_written_to_lately_is_spared(archive: tuple[Store, list[str]], clock: Clock) -> None:
    store, _ = archive
    clock.later = 7 * DAY - HOUR
    assert collect(store, clock).marked == ()
    assert read_marks(store, "synthetic") == {}
    clock.later = 7 * DAY + HOUR
    assert len(collect(store, clock).marked) == 2


def test_the_current_the_previous_and_the_pinned_are_kept_however_old(memory: Store, clock: Clock) -> None:
    versions = [anew(memory, shift) for shift in range(gc.KEPT_VERSIONS + 5)]
    publishing.pin(memory, "synthetic", versions[2])
    publishing.rollback(memory, "synthetic", versions[1])
    publishing.rollback(memory, "synthetic", versions[0])
    for later in (30 * DAY, 32 * DAY):
        clock.later = later
        collect(memory, clock)
    kept = {*versions[:3], *versions[-gc.KEPT_VERSIONS :]}
    assert {name for name in versions if memory_has(memory, name)} == kept
    for name in kept:
        assert verify(memory, "synthetic", name).findings == ()
    # once it is neither, it goes
    publishing.rollback(memory, "synthetic", versions[-1])
    publishing.rollback(memory, "synthetic", versions[-2])
    for later in (40 * DAY, 42 * DAY):
        clock.later = later
        collect(memory, clock)
    assert {name for name in versions if memory_has(memory, name)} == kept - set(versions[:2])


def memory_has(store: Store, version: str) -> bool:
    try:
        read_version(store, "synthetic", version)
    except VersionNotFound:
        return False
    return True


def test_a_segment_shared_with_a_kept_version_stays(memory: Store, clock: Clock) -> None:
    first = render(memory, Planted(product=TINY, axis=months(1)))
    for count in range(2, gc.KEPT_VERSIONS + 4):
        render(memory, Planted(product=TINY, axis=months(count)))
    _, version = current_version(memory, "synthetic")
    for later in (30 * DAY, 32 * DAY):
        clock.later = later
        collect(memory, clock)
    # every map is listed still; of the series only those of the newest ten versions
    assert set(version.segments) <= segments(memory)
    assert verify(memory, "synthetic").findings == ()
    assert segment_of(memory, first.version) in segments(memory) if memory_has(memory, first.version) else True
    for name in memory.children("synthetic/versions"):
        if memory_has(memory, name.removesuffix(".json")):
            listed = read_version(memory, "synthetic", name.removesuffix(".json")).segments
            if set(listed) <= segments(memory):
                assert verify(memory, "synthetic", name.removesuffix(".json")).findings == ()


def test_a_version_file_that_is_there_can_be_read(memory: Store, clock: Clock) -> None:
    """Versions are forgotten with the first segment that they lose."""
    for count in range(1, gc.KEPT_VERSIONS + 6):
        render(memory, Planted(product=TINY, axis=months(count)))
        anew(memory, 100 + count)
    for later in (30 * DAY, 32 * DAY):
        clock.later = later
        collect(memory, clock)
    names = [name.removesuffix(".json") for name in memory.children("synthetic/versions")]
    assert len(names) >= gc.KEPT_VERSIONS
    for name in names:
        assert verify(memory, "synthetic", name).findings == ()


def test_a_dry_run_says_the_same_and_writes_nothing(archive: tuple[Store, list[str]], clock: Clock) -> None:
    store, _ = archive
    for later in (8 * DAY, 10 * DAY):
        clock.later = later
        before = contents(store, "")
        watched = Watched(store)
        said = gc.collect(watched, "synthetic", now=clock, dry_run=True)
        assert {one.name for one in watched.operations}.isdisjoint({"create", "swap", "overwrite", "delete"})
        assert contents(store, "") == before
        assert said == collect(store, clock)
    assert said.deleted


def test_a_marked_segment_is_neither_rendered_into_nor_published(
    archive: tuple[Store, list[str]], clock: Clock
) -> None:
    store, versions = archive
    made = planned(store, recipe(0), keep=False)
    version = composed(store, recipe(0), made)  # the segment of the first version is complete: nothing to do
    assert set(version.segments) == {segment_of(store, versions[0])}
    clock.later = 8 * DAY
    assert set(version.segments) <= set(collect(store, clock).marked)
    pointer = current_version(store, "synthetic")[0]
    with pytest.raises(PublishConflict, match=r"segment \w+-1 of synthetic is marked for deletion by gc"):
        publishing.publish(store, version)
    with pytest.raises(PublishConflict, match="is marked for deletion by gc"):
        publishing.rollback(store, "synthetic", versions[0])
    with pytest.raises(Refused, match="is marked for deletion by gc; render with --fresh"):
        composed(store, recipe(0), made)
    assert current_version(store, "synthetic")[0] == pointer
    # another attempt is another segment; and after the deletion the first one is free again
    fresh = composed(store, recipe(0), made.with_attempt(2))
    publishing.publish(store, fresh)
    assert verify(store, "synthetic").findings == ()
    clock.later = 10 * DAY
    assert collect(store, clock).deleted
    with pytest.raises(PublishConflict, match="synthetic moved to version"):
        publishing.publish(store, version)


def test_a_segment_that_gc_deleted_meanwhile_is_not_published(archive: tuple[Store, list[str]], clock: Clock) -> None:
    """gc takes the mark back with the deletion: a publisher that was slow must not go by the marks alone."""
    store, versions = archive
    version = composed(store, recipe(0), planned(store, recipe(0), keep=False))
    clock.later = 8 * DAY
    collect(store, clock)
    clock.later = 10 * DAY
    collecting = Watched(store)

    def meet(number: int, operation: Operation, happen: Callable[[], None]) -> None:  # noqa: ARG001
        if operation.name == "list" and operation.keys[0].startswith("synthetic/versions"):
            happen()
            publishing.write_version(store, version)  # the publisher's first step, too late for this listing

    collecting.meet = meet
    assert set(version.segments) <= set(gc.collect(collecting, "synthetic", now=clock).deleted)
    with pytest.raises(PublishConflict, match=r"segment \w+-1 of synthetic was deleted by gc; render again"):
        publishing.publish(store, version)
    assert current_version(store, "synthetic")[0].version == versions[-1]
    assert verify(store, "synthetic").findings == ()


def test_a_rollback_to_what_gc_is_about_to_delete_takes_the_mark_back(
    archive: tuple[Store, list[str]], clock: Clock
) -> None:
    """A publisher that read the marks before gc wrote them: its segments are listed, so the next pass spares them."""
    store, versions = archive
    other = segment_of(store, versions[1])
    watched = Watched(store)
    clock.later = 8 * DAY

    def meanwhile(happen: Callable[[], None]) -> None:
        assert len(collect(store, clock).marked) == 2
        happen()

    watched.at_swap_of(layout.pointer_key("synthetic"), meanwhile)
    publishing.rollback(watched, "synthetic", versions[0])
    # it is marked and current: an append to it goes on all the same
    longer = Planted(product=TINY, axis=months(2))
    render(store, longer)
    clock.later = 10 * DAY
    assert collect(store, clock).deleted == (other,)
    assert segment_of(store, versions[0]) not in read_marks(store, "synthetic")
    assert verify(store, "synthetic").findings == ()
    assert verify(store, "synthetic", versions[0]).findings == ()


def test_a_render_that_was_given_up_is_deleted_and_one_that_goes_on_is_not(memory: Store, clock: Clock) -> None:
    anew(memory, 0)
    abandoned, resumed = (planned(memory, recipe(shift), keep=False) for shift in (1, 2))
    for made, shift in ((abandoned, 1), (resumed, 2)):
        watched = Watched(memory)
        watched.crash_at(30, applied=True)
        with pytest.raises(Crash):
            composed(watched, recipe(shift), made)
    clock.later = 8 * DAY
    assert set(collect(memory, clock).marked) == {abandoned.segment, resumed.segment}
    # somebody had started before the mark, and goes on writing
    clock.later = 9 * DAY + HOUR
    key = f"{layout.segment_prefix('synthetic', resumed.segment)}ledger/late.json"
    memory.create(key, b"{}")
    assert collect(Dated(memory, {key: clock() - HOUR}), clock).deleted == (abandoned.segment,)
    assert resumed.segment in segments(memory)
    assert read_marks(memory, "synthetic") == {}
    assert verify(memory, "synthetic").findings == ()


class Dated(Watched):
    """A store in which some objects were written when the test says."""

    def __init__(self, inner: Store, dates: dict[str, dt.datetime]) -> None:
        super().__init__(inner)
        self.dates = dates

    @override
    def list(self, prefix: str) -> Iterator[Listed]:
        for listed in super().list(prefix):
            yield listed._replace(last_modified=self.dates.get(listed.key, listed.last_modified))


def test_two_gcs_at_once_are_a_conflict(archive: tuple[Store, list[str]], clock: Clock) -> None:
    store, _ = archive
    clock.later = 8 * DAY
    watched = Watched(store)

    def meanwhile(happen: Callable[[], None]) -> None:  # noqa: ARG001
        collect(store, clock)

    watched.at_swap_of(layout.marks_key("synthetic"), meanwhile)
    with pytest.raises(PublishConflict, match="another gc of synthetic runs at the same time"):
        gc.collect(watched, "synthetic", now=clock)
    assert len(read_marks(store, "synthetic")) == 2


def test_a_gc_that_crashes_anywhere_is_finished_by_the_next(archive: tuple[Store, list[str]], clock: Clock) -> None:
    store, versions = archive
    for later in (8 * DAY, 10 * DAY):
        clock.later = later
        watched = Watched(clone(store))
        gc.collect(watched, "synthetic", now=clock)
        for number in range(len(watched.operations)):
            for applied in (False, True):
                other = clone(store)
                dying = Watched(other)
                dying.crash_at(number, applied=applied)
                with pytest.raises(Crash):
                    gc.collect(dying, "synthetic", now=clock)
                for name in other.children("synthetic/versions"):
                    identity = name.removesuffix(".json")
                    if identity not in versions[:2]:
                        assert set(read_version(other, "synthetic", identity).segments) <= segments(other)
                gc.collect(other, "synthetic", now=clock)
                if later == 10 * DAY:
                    assert len(segments(other)) == gc.KEPT_VERSIONS
                    assert len(other.children("synthetic/versions")) == gc.KEPT_VERSIONS
                assert verify(other, "synthetic").findings == ()
        collect(store, clock)


def test_what_a_first_render_left_is_deleted_and_what_one_still_writes_is_not(memory: Store, clock: Clock) -> None:
    failed, running = (planned(memory, recipe(shift)) for shift in (0, 1))
    for made, shift in ((failed, 0), (running, 1)):
        watched = Watched(memory)
        watched.crash_at(20, applied=True)
        with pytest.raises(Crash):
            composed(watched, recipe(shift), made)
    foreign = "photos/segments/2026/rome.jpg"
    memory.create(foreign, b"somebody else's")
    key = max(listed.key for listed in memory.list(layout.segment_prefix("synthetic", running.segment)))
    assert gc.collectable(memory) == ["synthetic"]
    for days in (6, 8, 10):
        clock.later = days * DAY
        dated = Dated(memory, {key: clock() - HOUR})
        said = collect(dated, clock)
        assert said.marked == ((failed.segment,) if days == 8 else ())
        assert said.deleted == ((failed.segment,) if days == 10 else ())
    # the render that went on is published after all
    publishing.publish(memory, composed(memory, recipe(1), running))
    assert verify(memory, "synthetic").findings == ()
    clock.later = 30 * DAY
    with pytest.raises(CollectionNotFound, match="there is no collection 'photos'"):
        gc.collect(memory, "photos", now=clock)
    assert memory.get(foreign)


def test_nothing_is_left_to_collect_of_what_was_never_published(memory: Store, clock: Clock) -> None:
    watched = Watched(memory)
    watched.crash_at(20, applied=True)
    with pytest.raises(Crash):
        composed(watched, recipe(0), planned(memory, recipe(0)))
    for later in (8 * DAY, 10 * DAY):
        clock.later = later
        collect(memory, clock)
    assert gc.collectable(memory) == []
    with pytest.raises(CollectionNotFound, match="there is no collection 'synthetic'"):
        collect(memory, clock)


def test_versions_outlive_a_pointer_that_was_lost(archive: tuple[Store, list[str]], clock: Clock) -> None:
    store, versions = archive
    store.delete([layout.pointer_key("synthetic")])
    for later in (30 * DAY, 32 * DAY):
        clock.later = later
        collect(store, clock)
    assert {name for name in versions if memory_has(store, name)} == set(versions[-gc.KEPT_VERSIONS :])
    for name in versions[-gc.KEPT_VERSIONS :]:
        assert verify(store, "synthetic", name).findings == ()


@pytest.mark.parametrize(
    ("kept_as", "fault"),
    [("current", "lost"), ("current", "damaged"), ("pinned", "lost"), ("pinned", "damaged"), ("recent", "damaged")],
)
def test_a_kept_version_that_cannot_be_read_keeps_every_segment(
    archive: tuple[Store, list[str]], clock: Clock, kept_as: str, fault: str
) -> None:
    store, versions = archive
    chosen = {"current": versions[-1], "pinned": versions[0], "recent": versions[5]}[kept_as]
    if kept_as == "pinned":
        publishing.pin(store, "synthetic", chosen)
    clock.later = 8 * DAY
    marked = collect(store, clock).marked
    key = layout.version_key("synthetic", chosen)
    store = Dated(store, {listed.key: listed.last_modified for listed in store.list(key.rpartition("/")[0])})
    whole = store.get(key)
    store.delete([key])
    if fault == "damaged":
        store.create(key, whole[:-1])
    before = contents(store, "")
    clock.later = 10 * DAY
    said = collect(store, clock)
    assert said.is_blocked
    assert (said.marked, said.deleted, said.forgotten) == ((), (), ())
    (sentence,) = said.damaged
    assert key in sentence
    assert "nothing of synthetic was marked or deleted" in sentence
    assert contents(store, "") == before
    if kept_as == "pinned":
        # what cannot be read can be let go
        assert publishing.pin(store, "synthetic", chosen, keep=False).pinned == ()
        assert not collect(store, clock).is_blocked
    else:
        store.delete([key])
        store.create(key, whole)
        assert collect(store, clock).deleted == marked


def test_a_damaged_version_that_is_not_kept_is_told_and_holds_nobody_up(
    archive: tuple[Store, list[str]], clock: Clock
) -> None:
    store, versions = archive
    clock.later = 8 * DAY
    marked = collect(store, clock).marked
    key = layout.version_key("synthetic", versions[1])
    store = Dated(store, {key: Clock()() - DAY})
    store.overwrite(key, b"{}")
    clock.later = 10 * DAY
    said = collect(store, clock)
    assert (said.deleted, said.forgotten, said.is_blocked) == (marked, (versions[0],), False)
    assert said.damaged == (f"the stored object {key!r} is damaged: its sha256 is not the one it is named by",)


def test_what_is_pinned_while_gc_looks_is_not_deleted(archive: tuple[Store, list[str]], clock: Clock) -> None:
    store, versions = archive
    clock.later = 8 * DAY
    collect(store, clock)
    clock.later = 10 * DAY
    pinned, other = (segment_of(store, name) for name in versions[:2])
    watched = Watched(store)

    def meet(number: int, operation: Operation, happen: Callable[[], None]) -> None:  # noqa: ARG001
        if operation == Operation(name="get", keys=(layout.version_key("synthetic", versions[-1]),)):
            happen()
            publishing.pin(store, "synthetic", versions[0])  # after gc read the pointer

    watched.meet = meet
    assert gc.collect(watched, "synthetic", now=clock).deleted == ()
    assert verify(store, "synthetic", versions[0]).findings == ()
    assert collect(store, clock).deleted == (other,)
    assert pinned in segments(store)


def test_what_is_being_deleted_cannot_be_pinned(archive: tuple[Store, list[str]], clock: Clock) -> None:
    store, versions = archive
    clock.later = 8 * DAY
    marked = collect(store, clock).marked
    clock.later = 10 * DAY
    watched = Watched(store)
    refused: list[str] = []

    def meet(number: int, operation: Operation, happen: Callable[[], None]) -> None:  # noqa: ARG001
        if operation.name == "delete" and not refused:
            with pytest.raises(PublishConflict, match=f"gc is deleting version {versions[0]} of synthetic"):
                publishing.pin(store, "synthetic", versions[0])
            refused.append(versions[0])

    watched.meet = meet
    assert gc.collect(watched, "synthetic", now=clock).deleted == marked
    assert refused
    pointer = read_pointer(store, "synthetic")
    assert pointer is not None
    assert pointer[0].pinned == ()
    assert not collect(store, clock).is_blocked


def test_a_gc_that_died_while_it_deleted_is_finished(archive: tuple[Store, list[str]], clock: Clock) -> None:
    store, _ = archive
    clock.later = 8 * DAY
    marked = collect(store, clock).marked
    clock.later = 10 * DAY
    watched = Watched(store)

    def meet(number: int, operation: Operation, happen: Callable[[], None]) -> None:  # noqa: ARG001
        if operation.name == "delete" and any(f"/{marked[0]}/" in key for key in operation.keys):
            raise Crash

    watched.meet = meet
    with pytest.raises(Crash):
        gc.collect(watched, "synthetic", now=clock)
    assert read_marks(store, "synthetic")[marked[0]] == DELETING
    assert set(collect(store, clock).deleted) == set(marked)


def test_versions_that_are_not_kept_are_read_only_when_something_is_deleted(
    archive: tuple[Store, list[str]], clock: Clock
) -> None:
    store, versions = archive
    old = {layout.version_key("synthetic", name) for name in versions[:2]}
    for later, read in ((8 * DAY, set()), (9 * DAY - HOUR, set()), (10 * DAY, old)):
        clock.later = later
        watched = Watched(store)
        gc.collect(watched, "synthetic", now=clock)
        assert {key for one in watched.operations if one.name == "get" for key in one.keys} & old == read


def test_gc_of_what_is_not_published_or_damaged_deletes_nothing(archive: tuple[Store, list[str]], clock: Clock) -> None:
    store, _ = archive
    for name in ("nobody", "models", "Not an id"):
        with pytest.raises(CollectionNotFound, match=f"there is no collection '{name}'"):
            gc.collect(store, name, now=clock)
    clock.later = 8 * DAY
    collect(store, clock)
    clock.later = 10 * DAY
    before = segments(store)
    marks = store.get(layout.marks_key("synthetic"))
    for garbage in (b"", b"[]", b'{"a":"yesterday"}', b"\xff"):
        store.overwrite(layout.marks_key("synthetic"), garbage)
        with pytest.raises(Damaged, match="it is not a list of marks"):
            collect(store, clock)
    store.overwrite(layout.marks_key("synthetic"), marks)
    assert segments(store) == before
    assert len(collect(store, clock).deleted) == 2


def test_gc_works_alike_on_every_store(store: Store, clock: Clock) -> None:
    for shift in range(gc.KEPT_VERSIONS + 1):
        anew(store, shift)
    for later in (8 * DAY, 10 * DAY):
        clock.later = later
        last = collect(store, clock)
    assert len(last.deleted) == 1
    listed = {listed.key.split("/")[2] for listed in store.list("synthetic/segments")}
    assert len(listed) == gc.KEPT_VERSIONS
    assert verify(store, "synthetic").findings == ()
