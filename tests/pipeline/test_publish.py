"""A publish is all or nothing, whoever crashes, whoever else publishes, whatever answer is lost."""

import datetime as dt
import json
import multiprocessing
import multiprocessing.synchronize
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.core import layout
from services.core.catalog import KEPT_WRITE_IDS, Version, current_version, read_pointer, read_version
from services.core.dataset import Dataset
from services.core.errors import (
    CollectionNotFound,
    Damaged,
    ModelRefused,
    PreconditionFailed,
    PublishConflict,
    StoreUnavailable,
    VersionNotFound,
)
from services.core.grid import Window
from services.core.settings import StoreSettings
from services.core.store import Operation, Store
from services.pipeline import copies, models
from services.pipeline import publish as publishing
from services.pipeline.verify import verify
from tests.pipeline.faults import Crash, Watched, clone
from tests.pipeline.synthetic import (
    ONE_SHARD,
    PACKED,
    Planted,
    composed,
    contents,
    months,
    planned,
    product,
    render,
    write_model,
)

pytestmark = pytest.mark.slow  # as a whole

POINTER = layout.pointer_key("synthetic")

TINY = product(
    grid=replace(ONE_SHARD, step_x=ONE_SHARD.step_x * 4, step_y=ONE_SHARD.step_y * 4),
    quantities=(PACKED,),
    cog_period=None,
)
"""One shard, one level, one quantity, no COG: few operations."""


def assert_published(store: Store, recipe: Planted) -> None:
    """Every value that a reader of the current version gets is the recipe's, in both layouts."""
    dataset = Dataset(store, current_version(store, recipe.product.id)[1])
    assert dataset.time == recipe.axis
    grid = recipe.product.grid
    whole = Window(row=0, column=0, height=grid.height, width=grid.width)
    for quantity in recipe.product.quantities:
        expected = recipe.stored(quantity, recipe.axis)
        series = dataset.read_series(quantity, range(len(recipe.axis)), whole)
        maps = np.stack([dataset.read_map(quantity, place, 0, whole) for place in range(len(recipe.axis))])
        np.testing.assert_array_equal(series, expected)
        np.testing.assert_array_equal(maps, expected)


@pytest.mark.parametrize("first", [True, False], ids=["first", "append"])
def test_a_publish_that_crashes_at_any_operation_leaves_old_or_new_and_the_next_one_reaches_the_new(
    memory: Store, *, first: bool
) -> None:
    old = Planted(product=TINY, axis=months(2))
    new = Planted(product=TINY, axis=months(3))
    if not first:
        render(memory, old)
    version = composed(memory, new, planned(memory, new))
    watched = Watched(clone(memory))
    publishing.publish(watched, version)
    count = len(watched.operations)
    assert count > 10  # probe, pointer, version, marks, seal, flip, copies
    seen = {"old": 0, "new": 0}
    for number in range(count):
        for applied in (False, True):
            store = clone(memory)
            dying = Watched(store)
            dying.crash_at(number, applied=applied)
            with pytest.raises(Crash):
                publishing.publish(dying, version)
            found = read_pointer(store, "synthetic")
            if found is not None and found[0].version == version.id:
                seen["new"] += 1
                assert_published(store, new)
            else:
                seen["old"] += 1
                if first:
                    assert found is None
                else:
                    assert_published(store, old)
            if found is not None:
                assert verify(store, "synthetic").findings == ()
            again = publishing.publish(store, version)
            assert again.version == version.id
            assert again.seq == (1 if first else 2)
            assert_published(store, new)
    assert verify(store, "synthetic").findings == ()
    assert min(seen.values()) > 0  # crashes fell on both sides of the flip


def test_a_render_that_crashes_at_any_operation_is_finished_by_the_next_with_the_same_bytes(memory: Store) -> None:
    recipe = Planted(product=TINY, axis=months(1))
    undisturbed = clone(memory)
    watched = Watched(undisturbed)
    render(watched, recipe)
    expected = {path: sha for path, sha in contents(undisturbed, "").items() if path != POINTER}
    for number in range(len(watched.operations)):
        for applied in (False, True):
            store = clone(memory)
            dying = Watched(store)
            dying.crash_at(number, applied=applied)
            with pytest.raises(Crash):
                render(dying, recipe)
            if read_pointer(store, "synthetic") is None:
                render(store, recipe)
            else:
                # a crash after the flip: only the advisory copies may be missing
                copies.refresh(store, "synthetic")
            found = {path: sha for path, sha in contents(store, "").items() if not path.startswith(".cenote-probe")}
            assert found.pop(POINTER)
            assert found == expected, (number, applied)


def test_a_lost_acknowledgement_of_the_flip_is_success(memory: Store) -> None:
    watched = Watched(memory)
    recipe = Planted(product=TINY, axis=months(2))
    version = composed(memory, recipe, planned(memory, recipe))

    def lose(happen: Callable[[], None]) -> None:
        happen()
        raise StoreUnavailable("the connection was reset after the request was sent")

    watched.at_swap_of(POINTER, lose)
    done = publishing.publish(watched, version)
    assert (done.seq, done.changed) == (1, True)
    assert_published(memory, recipe)


def test_an_own_flip_that_is_answered_with_a_failed_precondition_is_success(memory: Store) -> None:
    watched = Watched(memory)
    recipe = Planted(product=TINY, axis=months(2))
    version = composed(memory, recipe, planned(memory, recipe))

    def twice(happen: Callable[[], None]) -> None:
        happen()
        raise PreconditionFailed(POINTER)  # a retry below us met its own first try

    watched.at_swap_of(POINTER, twice)
    assert publishing.publish(watched, version).changed
    assert_published(memory, recipe)


def test_a_lost_acknowledgement_is_recognised_after_others_published_on_top(memory: Store) -> None:
    watched = Watched(memory)
    recipe = Planted(product=TINY, axis=months(2))
    version = composed(memory, recipe, planned(memory, recipe))
    others = 0

    def overtaken(happen: Callable[[], None]) -> None:
        nonlocal others
        happen()
        for count in range(3, 3 + KEPT_WRITE_IDS - 1):
            render(memory, Planted(product=TINY, axis=months(count)))
            others += 1
        raise StoreUnavailable("no answer in time")

    watched.at_swap_of(POINTER, overtaken)
    assert publishing.publish(watched, version).seq == 1
    pointer = current_version(memory, "synthetic")[0]
    assert pointer.seq == 1 + others
    assert len(pointer.write_ids) == KEPT_WRITE_IDS


def test_a_flip_that_did_not_happen_is_an_error_and_changes_nothing(memory: Store) -> None:
    render(memory, Planted(product=TINY, axis=months(2)))
    before = memory.get(POINTER)
    recipe = Planted(product=TINY, axis=months(3))
    version = composed(memory, recipe, planned(memory, recipe))
    watched = Watched(memory)

    def fail(happen: Callable[[], None]) -> None:  # noqa: ARG001
        raise StoreUnavailable("the store is away")

    watched.at_swap_of(POINTER, fail)
    with pytest.raises(StoreUnavailable, match="the store is away"):
        publishing.publish(watched, version)
    assert memory.get(POINTER) == before


def test_two_publishers_at_once_one_wins_and_the_other_loses_nothing(store: Store) -> None:
    render(store, Planted(product=TINY, axis=months(2)))
    appending = Planted(product=TINY, axis=months(3))
    correcting = Planted(product=TINY, axis=months(2), shift=5)
    versions = [
        composed(store, appending, planned(store, appending)),
        composed(store, correcting, planned(store, correcting, periods="2001-01")),
    ]
    both_have_read = threading.Barrier(2)

    def attempt(version: Version) -> publishing.Published | PublishConflict:
        def meet(happen: Callable[[], None]) -> None:
            both_have_read.wait(timeout=60)
            happen()

        watched = Watched(store)
        watched.at_swap_of(POINTER, meet)
        try:
            return publishing.publish(watched, version)
        except PublishConflict as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(attempt, versions))
    lost = [place for place, answer in enumerate(answers) if isinstance(answer, PublishConflict)]
    assert len(lost) == 1
    assert str(answers[lost[0]]).startswith("another publisher of synthetic was first: current is version ")
    pointer, winner = current_version(store, "synthetic")
    assert winner.id == versions[1 - lost[0]].id
    assert pointer.seq == 2
    # what the loser rendered is there and counts when the same command is given again
    if lost[0] == 0:
        render(store, appending)
    else:
        render(store, correcting, periods="2001-01")
    dataset = Dataset(store, current_version(store, "synthetic")[1])
    whole = Window(row=0, column=0, height=TINY.grid.height, width=TINY.grid.width)
    values = dataset.read_series(PACKED, range(3), whole)
    np.testing.assert_array_equal(values[0], correcting.stored(PACKED, months(3))[0])
    np.testing.assert_array_equal(values[1:], appending.stored(PACKED, months(3))[1:])
    assert verify(store, "synthetic").findings == ()


def publish_in_turns(
    root: str, counts: list[int], ready: "multiprocessing.synchronize.Barrier", answers: "multiprocessing.Queue[str]"
) -> None:
    """Each turn: render that many months as a version of its own, wait for the other process, publish."""
    store = Store.open(root, StoreSettings())
    for count in counts:
        ready.wait(timeout=60)
        recipe = Planted(product=TINY, axis=months(count))
        version = composed(store, recipe, planned(store, recipe, keep=False))
        ready.wait(timeout=60)
        try:
            answers.put(publishing.publish(store, version).version)
        except PublishConflict as error:
            answers.put(str(error))


def test_two_processes_publish_to_a_directory_one_wins(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    store = Store.open(root, StoreSettings())
    render(store, Planted(product=TINY, axis=months(2)))
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(3), context.Queue()
    turns = [[3, 5, 7], [4, 6, 8]]
    both = [context.Process(target=publish_in_turns, args=(root, counts, ready, answers)) for counts in turns]
    for one in both:
        one.start()
    for turn, counts in enumerate(zip(*turns, strict=True)):
        ready.wait(timeout=60)
        ready.wait(timeout=60)
        said = [answers.get(timeout=60) for _ in both]
        pointer, version = current_version(store, "synthetic")
        assert sorted(answer == version.id for answer in said) == [False, True]
        conflicts = ("another publisher of synthetic was first", "synthetic moved to version")
        assert any(answer.startswith(conflicts) for answer in said)
        assert pointer.seq == 2 + turn
        assert len(version.time) in counts
    for one in both:
        one.join(timeout=60)
        assert one.exitcode == 0
    assert verify(store, "synthetic").findings == ()


def test_a_version_made_on_top_of_another_one_is_a_conflict(memory: Store) -> None:
    first = Planted(product=TINY, axis=months(2))
    late = composed(memory, first, planned(memory, first))
    render(memory, Planted(product=TINY, axis=months(3)))
    before = contents(memory, "")
    with pytest.raises(
        PublishConflict, match=r"synthetic moved to version [0-9a-f]{20} while this one was made on top of None"
    ):
        publishing.publish(memory, late)
    assert contents(memory, "") == before


def test_the_same_version_again_is_no_change(store: Store) -> None:
    recipe = Planted(product=TINY, axis=months(2))
    version = composed(store, recipe, planned(store, recipe))
    first = publishing.publish(store, version)
    before = contents(store, "")
    second = publishing.publish(store, version)
    assert (first.seq, first.changed, second.seq, second.changed) == (1, True, 1, False)
    assert contents(store, "") == before


def test_a_version_file_that_is_there_already_is_success_and_another_under_its_name_is_not(memory: Store) -> None:
    recipe = Planted(product=TINY, axis=months(2))
    version = composed(memory, recipe, planned(memory, recipe))
    publishing.write_version(memory, version)
    assert publishing.publish(memory, version).changed
    memory.overwrite(layout.version_key("synthetic", version.id), b"{}")
    with pytest.raises(Damaged, match="it is not the version it is named by"):
        publishing.write_version(memory, version)


def test_seq_rises_with_every_flip_and_eight_write_ids_are_kept(memory: Store) -> None:
    seen: list[str] = []
    for count in range(1, KEPT_WRITE_IDS + 4):
        render(memory, Planted(product=TINY, axis=months(count)))
        pointer = current_version(memory, "synthetic")[0]
        assert pointer.seq == count
        seen.insert(0, pointer.write_id)
        assert list(pointer.write_ids) == seen[:KEPT_WRITE_IDS]
    assert len(set(seen)) == len(seen)


def test_rollback_flips_to_an_older_version_and_forward_again(store: Store) -> None:
    old, new = Planted(product=TINY, axis=months(2)), Planted(product=TINY, axis=months(3))
    first, second = render(store, old), render(store, new)
    back = publishing.rollback(store, "synthetic", first.version)
    assert (back.seq, back.changed) == (3, True)
    pointer = current_version(store, "synthetic")[0]
    assert (pointer.version, pointer.previous) == (first.version, second.version)
    assert_published(store, old)
    assert not publishing.rollback(store, "synthetic", first.version).changed
    assert publishing.rollback(store, "synthetic", second.version).seq == 4
    assert_published(store, new)
    with pytest.raises(VersionNotFound, match="has no version '00000000000000000000'"):
        publishing.rollback(store, "synthetic", "0" * 20)
    with pytest.raises(CollectionNotFound, match="there is no collection 'nobody'"):
        publishing.rollback(store, "nobody", first.version)


def test_a_render_after_a_rollback_goes_on_from_the_older_version(memory: Store) -> None:
    first = render(memory, Planted(product=TINY, axis=months(2)))
    render(memory, Planted(product=TINY, axis=months(3)))
    publishing.rollback(memory, "synthetic", first.version)
    recipe = Planted(product=TINY, axis=months(4))
    render(memory, recipe)
    assert_published(memory, recipe)
    assert current_version(memory, "synthetic")[1].parent == first.version


def test_a_pin_is_kept_by_every_later_flip_until_it_is_taken_back(memory: Store) -> None:
    first = render(memory, Planted(product=TINY, axis=months(2)))
    assert publishing.pin(memory, "synthetic", first.version).pinned == (first.version,)
    assert publishing.pin(memory, "synthetic", first.version).pinned == (first.version,)
    second = render(memory, Planted(product=TINY, axis=months(3)))
    pointer = current_version(memory, "synthetic")[0]
    assert (pointer.pinned, pointer.version, pointer.seq) == ((first.version,), second.version, 2)
    assert publishing.pin(memory, "synthetic", first.version, keep=False).pinned == ()
    with pytest.raises(VersionNotFound, match="has no version"):
        publishing.pin(memory, "synthetic", "0" * 20)
    with pytest.raises(CollectionNotFound, match="there is no collection"):
        publishing.pin(memory, "nobody", first.version)


@pytest.mark.parametrize("body", [None, b"{}"], ids=["lost", "damaged"])
def test_a_pinned_version_that_cannot_be_read_can_be_let_go(memory: Store, body: bytes | None) -> None:
    first = render(memory, Planted(product=TINY, axis=months(2)))
    publishing.pin(memory, "synthetic", first.version)
    key = layout.version_key("synthetic", first.version)
    memory.delete([key])
    if body is not None:
        memory.create(key, body)
    assert publishing.pin(memory, "synthetic", first.version, keep=False).pinned == ()
    with pytest.raises((VersionNotFound, Damaged), match=first.version):
        publishing.pin(memory, "synthetic", first.version)


def test_a_pin_beside_a_publish_is_a_conflict_and_not_a_lost_flip(memory: Store) -> None:
    first = render(memory, Planted(product=TINY, axis=months(2)))
    watched = Watched(memory)

    def meanwhile(happen: Callable[[], None]) -> None:  # noqa: ARG001
        render(memory, Planted(product=TINY, axis=months(3)))

    watched.at_swap_of(POINTER, meanwhile)
    with pytest.raises(PublishConflict, match="was moved meanwhile"):
        publishing.pin(watched, "synthetic", first.version)
    pointer = current_version(memory, "synthetic")[0]
    assert (pointer.seq, pointer.pinned) == (2, ())


def test_the_time_of_a_flip_is_in_the_pointer_only(memory: Store) -> None:
    recipe = Planted(product=TINY, axis=months(2))
    version = composed(memory, recipe, planned(memory, recipe))
    moment = dt.datetime(2031, 4, 5, 6, 7, 8, tzinfo=dt.UTC)
    publishing.publish(memory, version, now=lambda: moment)
    assert current_version(memory, "synthetic")[0].flipped_at == "2031-04-05T06:07:08+00:00"
    assert [key for key in contents(memory, "") if b"2031-04-05" in memory.get(key)] == [POINTER]


def test_copies_that_cannot_be_written_do_not_fail_a_publish(memory: Store, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(memory)

    def meet(number: int, operation: Operation, happen: Callable[[], None]) -> None:  # noqa: ARG001
        if operation.name == "overwrite":
            raise StoreUnavailable("made-up failure")

    watched.meet = meet
    recipe = Planted(product=TINY, axis=months(2))
    render(watched, recipe)
    assert_published(memory, recipe)
    assert "copies of synthetic were not written: made-up failure" in caplog.text


def test_a_damaged_neighbour_does_not_keep_a_collection_from_the_catalog(memory: Store) -> None:
    memory.create("other/current.json", b"garbage")
    render(memory, Planted(product=TINY, axis=months(2)))
    links = json.loads(memory.get(layout.CATALOG_KEY))["links"]
    assert [link["href"] for link in links if link["rel"] == "child"] == [
        "./other/collection.json",
        "./synthetic/collection.json",
    ]


def test_the_first_version_or_one_whose_pointer_was_lost_is_made_current_by_rollback(memory: Store) -> None:
    recipe = Planted(product=TINY, axis=months(1))
    version = composed(memory, recipe, planned(memory, recipe))
    publishing.write_version(memory, version)
    with pytest.raises(CollectionNotFound):
        current_version(memory, "synthetic")
    assert publishing.rollback(memory, "synthetic", version.id) == publishing.Published(
        version=version.id, seq=1, changed=True
    )
    assert current_version(memory, "synthetic")[1] == version
    memory.delete([POINTER])
    publishing.rollback(memory, "synthetic", version.id)
    assert current_version(memory, "synthetic")[1] == version
    with pytest.raises(VersionNotFound):
        publishing.rollback(memory, "synthetic", "0" * 20)
    with pytest.raises(CollectionNotFound):
        publishing.rollback(memory, "nobody", version.id)


def test_models_are_kept_under_the_digest_of_their_card_and_checked(memory: Store, tmp_path: Path) -> None:
    net = write_model(tmp_path / "net", b"a network")
    recipe = Planted(product=TINY, axis=months(1), models_at={"net": str(net)})
    sha = recipe.models()["net"]
    render(memory, recipe)
    assert memory.get(layout.model_key("net", sha)) == b"a network"
    assert layout.digest(memory.get(layout.card_key("net", sha))) == sha
    models.keep(memory, {"net": sha}, {"net": net})
    with pytest.raises(ModelRefused, match="has another sha256 than the 000000000000 of the plan"):
        models.keep(memory, {"net": "0" * 64}, {"net": net})
    memory.overwrite(layout.model_key("net", sha), b"another")
    with pytest.raises(Damaged, match=r"model\.onnx' is damaged: it is not what its digest names"):
        models.keep(memory, {"net": sha}, {"net": net})
    (net / "model.onnx").write_bytes(b"else")
    with pytest.raises(ModelRefused, match=r"model\.onnx is not the model that its card names"):
        models.keep(memory, {"net": sha}, {"net": net})
    (net / "card.json").write_text("[]")
    with pytest.raises(ModelRefused, match=r"card\.json is no card"):
        models.keep(memory, {"net": layout.digest(b"[]")}, {"net": net})


def test_another_card_of_the_same_model_is_another_model(memory: Store, tmp_path: Path) -> None:
    one, other = (write_model(tmp_path / unit, b"a network", unit=unit) for unit in ("K", "degC"))
    first = Planted(product=TINY, axis=months(1), models_at={"net": str(one)})
    second = replace(first, models_at={"net": str(other)})
    assert planned(memory, first).segment != planned(memory, second).segment
    render(memory, first)
    render(memory, replace(second, axis=months(2)))
    assert verify(memory, "synthetic").findings == ()
    keys = {layout.card_key("net", recipe.models()["net"]) for recipe in (first, second)}
    assert {json.loads(memory.get(key))["unit"] for key in keys} == {"K", "degC"}


def test_a_version_has_the_scores_of_the_models_it_was_computed_with(memory: Store, tmp_path: Path) -> None:
    old, new = (write_model(tmp_path / name, name.encode(), scores=[{"name": name}]) for name in ("old", "new"))
    recipe = Planted(product=TINY, axis=months(2), models_at={"net": str(old)})
    render(memory, recipe)
    newer = replace(recipe, axis=months(3), models_at={"net": str(new)})
    render(memory, newer)
    told = current_version(memory, "synthetic")[1].scores
    assert told == {
        recipe.models()["net"]: {"model": "net", "scores": [{"name": "old"}]},
        newer.models()["net"]: {"model": "net", "scores": [{"name": "new"}]},
    }
    render(memory, newer, periods="2001-01/2001-02")
    again = current_version(memory, "synthetic")[1].scores
    assert again.keys() <= told.keys()
    render(memory, newer, keep=False)
    assert current_version(memory, "synthetic")[1].scores.keys() == {newer.models()["net"]}


def test_a_version_that_an_earlier_release_wrote_keeps_its_id(memory: Store) -> None:
    render(memory, Planted(product=TINY, axis=months(2)))
    _, version = current_version(memory, "synthetic")
    # the same declaration, written by a release that knew one field less
    data = version.to_bytes().replace(b'"synthetic":true,', b"").replace(b',"synthetic":true', b"")
    assert data != version.to_bytes()
    read = Version.from_bytes("somewhere", data)
    assert read.sha256 == layout.digest(data)
    assert read.id == layout.digest(data)[: layout.ID_LENGTH]
    memory.create(layout.version_key("synthetic", read.id), data)
    publishing.rollback(memory, "synthetic", read.id)
    assert read_version(memory, "synthetic", read.id).id == read.id
    recipe = Planted(product=TINY, axis=months(3))
    render(memory, recipe)
    assert_published(memory, recipe)
