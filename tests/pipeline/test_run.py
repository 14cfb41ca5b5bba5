"""A run does what the ledger lacks, whatever stopped the one before, and gives the same bytes."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, override

import pytest
from numpy.typing import NDArray

from services.core import layout
from services.core.catalog import read_pointer
from services.core.errors import Damaged, InputRefused, NothingToDo, Refused, RenderFailed
from services.core.grid import Window
from services.core.settings import StoreSettings
from services.core.store import Store
from services.core.time_axis import TimeAxis
from services.pipeline import publish as publishing
from services.pipeline import run as running
from services.pipeline.code import Code, this_code
from services.pipeline.plan import Plan
from services.pipeline.verify import verify
from tests.pipeline.faults import Crash, Watched
from tests.pipeline.synthetic import (
    PACKED,
    PLAIN,
    REGION,
    Planted,
    Quiet,
    composed,
    contents,
    months,
    planned,
    product,
    render,
    write_model,
)

PRODUCT = product(grid=replace(REGION, width=23, height=17))
MAPS = 2 * len(list(PRODUCT.grid.shards()))
"""Regions of two months."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "calls"
    folder.mkdir()
    return folder


@pytest.fixture
def recipe(log: Path) -> Planted:
    return Planted(product=PRODUCT, axis=months(2), log=str(log))


def calls(log: Path) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Periods and window of every call of ``compute``."""
    told = [json.loads(path.read_text()) for path in sorted(log.iterdir())]
    return [(tuple(one["periods"]), tuple(one["window"])) for one in told]


def ledger(store: Store, plan: Plan) -> set[str]:
    prefix = f"{layout.segment_prefix(plan.product.id, plan.segment)}ledger"
    return {listed.key.rpartition("/")[2].removesuffix(".json") for listed in store.list(prefix)}


def test_a_render_computes_every_region_of_every_period_once_and_never_more_than_a_shard(
    store: Store, recipe: Planted, log: Path
) -> None:
    progress = Quiet()
    made = planned(store, recipe)
    composed(store, recipe, made, progress=progress)
    grid = PRODUCT.grid
    seen = calls(log)
    assert len(seen) == len(set(seen)) == MAPS
    tall, wide = grid.shard_shape
    assert max(window[2] for _, window in seen) <= tall < grid.height
    assert max(window[3] for _, window in seen) <= wide < grid.width
    assert sum(len(periods) * window[2] * window[3] for periods, window in seen) == 2 * grid.cells
    assert sorted(progress.finished) == sorted(task.id for task in made.all_tasks())
    assert ledger(store, made) == {task.id for task in made.all_tasks()} | {"metadata"}


def test_a_finished_run_is_not_done_again(memory: Store, recipe: Planted, log: Path) -> None:
    made = planned(memory, recipe)
    first = composed(memory, recipe, made)
    before = contents(memory, "")
    progress = Quiet()
    outcome = running.run(memory, made, recipe, None, progress)
    assert (outcome.executed, outcome.recorded) == (0, len(ledger(memory, made)))
    assert outcome.sha256 == first.segments[made.segment]
    assert len(calls(log)) == MAPS
    assert contents(memory, "") == before


@pytest.mark.parametrize("share", [0.15, 0.4, 0.65, 0.9])
def test_what_a_crash_left_is_finished_and_only_what_was_not_recorded_is_computed(
    memory: Store, recipe: Planted, log: Path, share: float
) -> None:
    made = planned(memory, recipe)
    undisturbed = Store.open(f"{memory.url}-undisturbed", StoreSettings())
    watched = Watched(undisturbed)
    composed(watched, recipe, made)
    prefix = layout.segment_prefix("synthetic", made.segment)
    expected = contents(undisturbed, prefix)
    number = int(len(watched.operations) * share)

    for call in log.iterdir():
        call.unlink()
    dying = Watched(memory)
    dying.crash_at(number, applied=False)
    with pytest.raises(Crash):
        composed(dying, recipe, made)
    recorded = ledger(memory, made)
    tasks = {task.id for task in made.all_tasks()}
    assert recorded < tasks | {"metadata"}
    started = len(calls(log))

    progress = Quiet()
    outcome = running.run(memory, made, recipe, None, progress)
    assert set(progress.finished) == tasks - recorded
    assert outcome.executed == len(tasks - recorded)
    assert len(calls(log)) - started == sum(1 for task in tasks - recorded if task.startswith("maps"))
    if recorded:
        assert progress.notes[0] == f"resuming: {len(recorded)} tasks of segment {made.segment} are recorded"
    assert contents(memory, prefix) == expected


def test_a_failing_task_is_named_and_the_others_are_recorded(memory: Store, recipe: Planted, log: Path) -> None:
    failing = replace(recipe, failing={"2001-02": "fail"})
    made = planned(memory, failing)
    with pytest.raises(
        RenderFailed,
        match=rf"{MAPS // 2} of {MAPS} tasks failed \(maps-1-0-0: made-up failure of 2001-02; .*same command goes on",
    ):
        composed(memory, failing, made)
    assert ledger(memory, made) == {"metadata"} | {task.id for task in made.tasks("maps") if task.block == 0}
    assert read_pointer(memory, "synthetic") is None
    # the cause is put right, and what was recorded counts
    before = len(calls(log))
    render(memory, recipe)
    assert {periods for periods, _ in calls(log)[before:]} == {("2001-02",)}


def test_a_refused_input_ends_the_run_at_once_and_publishes_nothing(memory: Store, recipe: Planted, log: Path) -> None:
    refusing = replace(recipe, failing={"2001-01": "refuse"})
    with pytest.raises(InputRefused, match="made-up file of 2001-01 is broken"):
        render(memory, refusing)
    assert len(calls(log)) == 1
    assert read_pointer(memory, "synthetic") is None
    assert memory.children("synthetic") == ["segments"]


class Wrong(Planted):
    """Gives what was not declared."""

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        values = super().compute(periods, window)
        match self.failing["how"]:
            case "absent":
                del values["flux"]
            case "shape":
                values["flux"] = values["flux"][:, 1:]
            case "type":
                values["flux"] = values["flux"].astype("float64")
            case "infinite":
                values["flux"][0, 0, 0] = float("inf")
        return values


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ("absent", RenderFailed, "the recipe gave no values of flux"),
        ("shape", RenderFailed, r"gave flux as float32 \(1, 15, 20\), declared is float32 \(1, 16, 20\)"),
        ("type", RenderFailed, r"gave flux as float64 \(1, 16, 20\), declared is float32 \(1, 16, 20\)"),
        ("infinite", InputRefused, "flux holds infinite values"),
    ],
)
def test_a_recipe_that_does_not_keep_its_declaration_fails(
    memory: Store, how: str, error: type[Exception], said: str
) -> None:
    wrong = Wrong(product=PRODUCT, axis=months(1), failing={"how": how})
    with pytest.raises(error, match=said):
        render(memory, wrong)
    assert read_pointer(memory, "synthetic") is None


def test_stored_bytes_that_differ_are_refused_and_fresh_starts_another_segment(memory: Store, recipe: Planted) -> None:
    made = planned(memory, recipe)
    composed(memory, recipe, made)
    prefix = layout.segment_prefix("synthetic", made.segment)
    shard, record = f"{prefix}maps.zarr/0/heat/c/0/0/0", f"{prefix}ledger/maps-0-0-0.json"
    whole = memory.get(shard)
    # the record is lost and the bytes are damaged, or are of other values: the task is done again and finds them
    for body, fact in (
        (whole[:5] + bytes([whole[5] ^ 1]) + whole[6:], "the checksum of a chunk does not hold"),
        (whole[:-2], "the checksum of its index does not hold"),
        (
            memory.get(f"{prefix}maps.zarr/0/heat/c/1/0/0"),
            "it holds other values than this task computes; render --fresh",
        ),
    ):
        memory.delete([record])
        memory.overwrite(shard, body)
        with pytest.raises(Damaged, match=fact):
            running.run(memory, made, recipe, None, Quiet())
    memory.overwrite(shard, whole)
    assert running.run(memory, made, recipe, None, Quiet()).executed == 1
    cog = f"{prefix}cog/heat/2001-01.tif"
    memory.overwrite(cog, memory.get(cog)[:-1])
    memory.delete([f"{prefix}ledger/cog-heat-2001-01.json"])
    with pytest.raises(Damaged, match="it is not what this task writes; render --fresh"):
        running.run(memory, made, recipe, None, Quiet())
    fresh = running.next_attempt(memory, made)
    assert fresh.segment == f"{made.segment.removesuffix('-1')}-2"
    again = running.run(memory, fresh, recipe, None, Quiet())
    assert again.executed == sum(1 for _ in fresh.all_tasks())
    assert running.next_attempt(memory, made).attempt == 3


class Pieces(Watched):
    """Notes how much of each object passes through memory at a time."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.files: set[str] = set()
        self.largest: dict[str, int] = {}

    @override
    def create(self, key: str, data: bytes | Path) -> None:
        if isinstance(data, Path):
            self.files.add(key)
        super().create(key, data)

    @override
    def get(self, key: str) -> bytes:
        return self._noted(key, super().get(key))

    @override
    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._noted(key, super().get_range(key, start, length))

    def _noted(self, key: str, data: bytes) -> bytes:
        self.largest[key] = max(self.largest.get(key, 0), len(data))
        return data


def test_a_cog_is_never_wholly_in_memory(memory: Store, recipe: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("services.core.store.interface", "services.pipeline.verify"):
        monkeypatch.setattr(f"{module}.PART_BYTES", 500)
    store = Pieces(memory)
    made = planned(store, recipe)
    version = composed(store, recipe, made)
    prefix = layout.segment_prefix("synthetic", made.segment)
    cogs = {f"{prefix}{cog.path}" for cog in made.cogs}
    assert store.files == cogs
    assert all(store.size(key) > 500 for key in cogs)
    # the records are lost: what is there is compared, and recorded with the same digest
    records = {key: store.get(key) for key in (f"{prefix}ledger/{task.id}.json" for task in made.tasks("cog"))}
    store.delete(records)
    assert composed(store, recipe, made) == version
    assert {key: store.get(key) for key in records} == records
    publishing.publish(store, version)
    assert verify(store, "synthetic").findings == ()
    assert {store.largest[key] for key in cogs} == {500}


def test_a_record_or_a_seal_that_is_damaged_is_an_error_that_names_it(memory: Store, recipe: Planted) -> None:
    made = planned(memory, recipe)
    composed(memory, recipe, made)
    prefix = layout.segment_prefix("synthetic", made.segment)
    record, seal = f"{prefix}ledger/maps-0-0-0.json", f"{prefix}objects.json"
    for key, body in (
        (record, b"{}"),
        (record, b""),
        (record, b"\xff\xfe"),
        (seal, b"{}"),
        (seal, memory.get(seal)[1:]),
    ):
        whole = memory.get(key)
        memory.overwrite(key, body)
        with pytest.raises(Damaged, match=key.rpartition("/")[2].replace(".", r"\.")):
            running.run(memory, made, recipe, None, Quiet())
        memory.overwrite(key, whole)


@dataclass(frozen=True, kw_only=True)
class Restless(Planted):
    """Its inputs have changed when it is done."""

    def check_inputs(self) -> None:
        raise InputRefused("made-up file changed while it was being ingested")


def test_what_was_computed_from_inputs_that_changed_is_not_sealed(memory: Store) -> None:
    recipe = Restless(product=PRODUCT, axis=months(2))
    with pytest.raises(InputRefused, match="changed while"):
        render(memory, recipe)
    assert not [listed for listed in memory.list("") if listed.key.endswith("objects.json")]


def test_a_segment_id_names_everything_that_decides_its_bytes(memory: Store, recipe: Planted, tmp_path: Path) -> None:
    made = planned(memory, recipe)
    assert planned(memory, replace(recipe, log=None, slow=1.0)).segment == made.segment
    net = write_model(tmp_path / "net", b"net")
    others = [
        planned(memory, replace(recipe, shift=1)),
        planned(memory, replace(recipe, axis=months(3))),
        planned(memory, replace(recipe, axis=months(2, "2001-02"))),
        planned(memory, replace(recipe, product=replace(PRODUCT, title="Another"))),
        planned(
            memory, replace(recipe, product=replace(PRODUCT, quantities=(replace(PACKED, add_offset=21.0), PLAIN)))
        ),
        planned(memory, replace(recipe, product=replace(PRODUCT, map_block=2))),
        planned(memory, replace(recipe, product=replace(PRODUCT, cog_period="P1Y"))),
        planned(memory, replace(recipe, product=replace(PRODUCT, fixed_mask=True))),
        planned(memory, replace(recipe, models_at={"net": str(net)})),
        planned(memory, recipe, code=Code(version=this_code().version, source="0" * 64)),
        planned(memory, recipe, code=Code(version="99", source=this_code().source)),
        made.with_attempt(2),
    ]
    assert len({made.segment, *(other.segment for other in others)}) == len(others) + 1
    # the same work on top of another version is the same segment only if it copies the same bytes
    render(memory, recipe)
    first = planned(memory, replace(recipe, axis=months(3)))
    render(memory, replace(recipe, shift=5), periods="2001-01")
    second = planned(memory, replace(recipe, axis=months(3)))
    assert first.segment != second.segment
    assert first.copied != second.copied


def test_a_recipe_is_not_needed_where_nothing_is_fresh_and_missed_where_something_is(memory: Store) -> None:
    made = planned(memory, Planted(product=PRODUCT, axis=months(1)))
    with pytest.raises(RenderFailed, match="the recipe gave no values of heat"):
        running.run(memory, made, None, None, Quiet())


def test_nothing_to_do_is_said(memory: Store, recipe: Planted) -> None:
    render(memory, recipe)
    with pytest.raises(NothingToDo, match="nothing to do: synthetic already has all 2 periods that the inputs allow"):
        planned(memory, recipe)
    with pytest.raises(Refused, match="the inputs of synthetic do not allow 2003-01: no period contains 2003-01-01"):
        planned(memory, recipe, periods="2003-01")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"grid": replace(REGION, width=23, height=16)}, "grid 23 x 17 cells .* and this has 23 x 16 cells"),
        ({"step": "P1D"}, "step P1M and this has P1D"),
        ({"map_block": 2}, "map block 1 and this has 2"),
        ({"cog_period": None}, "COG period step and this has None"),
        ({"fixed_mask": True}, "fixed mask False and this has True"),
        ({"quantities": (PACKED,)}, r"variables \['heat', 'flux'\] and this has \['heat'\]"),
        ({"quantities": (replace(PACKED, scale_factor=0.02), PLAIN)}, "scale_factor 0.01 and this has 0.02"),
        ({"quantities": (replace(PACKED, add_offset=None), PLAIN)}, "add_offset 20.0 and this has None"),
        ({"quantities": (replace(PACKED, fill_value=-1), PLAIN)}, "fill_value 1000 and this has -1"),
        ({"quantities": (replace(PACKED, units="degC"), PLAIN)}, "units K and this has degC"),
        ({"quantities": (PACKED, replace(PLAIN, dtype="float64"))}, "dtype float32 and this has float64"),
    ],
)
def test_an_append_with_another_shape_or_packing_is_refused(
    memory: Store, recipe: Planted, change: dict[str, object], said: str
) -> None:
    render(memory, replace(recipe, log=None))
    declared = replace(PRODUCT, **change)  # type: ignore[arg-type]
    axis = months(9) if declared.step == "P1M" else TimeAxis.regular("2005-01-01", "P1D", 2)
    with pytest.raises(Refused, match=said):
        render(memory, Planted(product=declared, axis=axis))


def test_words_and_colours_of_a_product_may_change_with_an_append(memory: Store, recipe: Planted) -> None:
    render(memory, recipe)
    renamed = replace(PRODUCT, title="Better", quantities=(replace(PACKED, style=None, quantum=0.05), PLAIN))
    render(memory, Planted(product=renamed, axis=months(3)))


def test_progress_is_told_in_stages(memory: Store, recipe: Planted) -> None:
    progress = Quiet()
    composed(memory, recipe, planned(memory, recipe), progress=progress)
    assert [note.split()[0] for note in progress.notes] == ["maps", "levels", "series", "cog"]


def test_a_worker_count_of_0_is_this_process() -> None:
    with running.cluster(0) as client:
        assert client is None


def test_a_scheduler_that_does_not_answer_or_is_not_encrypted_is_refused() -> None:
    for address in ("tcp://192.0.2.1:8786", "192.0.2.1:8786", "tcp://dask.example.org:8786"):
        with pytest.raises(Refused, match="is not encrypted"), running.cluster(1, address):
            pass
