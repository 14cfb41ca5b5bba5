"""The same on dask workers: killed ones, other code, deadlines; in the end the same bytes as without dask."""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from distributed import Client

from services.core import layout
from services.core.catalog import read_pointer
from services.core.errors import Damaged, InputRefused, Refused, RenderFailed
from services.core.settings import StoreSettings
from services.core.store import Store
from services.pipeline import publish as publishing
from services.pipeline import run as running
from services.pipeline.verify import verify
from tests.pipeline.synthetic import (
    REGION,
    Planted,
    Quiet,
    composed,
    contents,
    current,
    months,
    planned,
    product,
    render,
)

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = product(grid=replace(REGION, width=23, height=17))
REGIONS = len(list(PRODUCT.grid.shards()))

RENDER = """
import sys
from dataclasses import replace
from services.core.settings import StoreSettings
from services.core.store import Store
from services.pipeline import run as running
from services.pipeline import publish as publishing
from tests.pipeline.synthetic import Planted, Quiet, composed, months, planned
from tests.pipeline.test_cluster import PRODUCT

if __name__ == "__main__":
    root, log, count, slow = sys.argv[1:]
    store = Store.open(root, StoreSettings())
    recipe = Planted(product=PRODUCT, axis=months(int(count)), log=log, slow=float(slow))
    made = planned(store, recipe)
    with running.cluster(2) as client:
        version = composed(store, recipe, made, client)
    print(publishing.publish(store, version).version)
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with running.cluster(2) as client:
        assert client is not None
        client.wait_for_workers(2)
        yield client


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def calls(log: Path) -> list[tuple[int, str]]:
    """Process and periods of every call of ``compute``, in order."""
    return [
        (int(path.name.rpartition("-")[2]), ",".join(json.loads(path.read_text() or '{"periods":[]}')["periods"]))
        for path in sorted(log.iterdir())
    ]


def until(what: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def end(pids: set[int]) -> None:
    """Wait for processes that lost their parent, and end those that stay."""
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            try:
                process.wait(timeout=3)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(timeout=10)


def test_what_is_started_after_a_cluster_does_not_start_as_its_workers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "OMP_NUM_THREADS", "PYTHONHASHSEED")
    monkeypatch.setenv(names[0], "1234567")
    for name in names[1:]:
        monkeypatch.delenv(name, raising=False)
    with running.cluster(1) as client:
        assert client is not None
        (in_worker,) = client.run(lambda: [os.environ.get(name) for name in names]).values()
    assert in_worker[:3] == ["1234567", str(256 << 20), "1"]
    assert [os.environ.get(name) for name in names] == ["1234567", None, None, None]


def test_a_killed_worker_and_a_killed_client_cost_only_what_was_not_recorded(tmp_path: Path) -> None:
    count = 4
    quiet = Planted(product=PRODUCT, axis=months(count))
    undisturbed = Store.open(str(tmp_path / "undisturbed"), StoreSettings())
    made = planned(undisturbed, quiet)
    composed(undisturbed, quiet, made)
    prefix = layout.segment_prefix("synthetic", made.segment)
    expected = contents(undisturbed, prefix)
    tasks = {task.id for task in made.all_tasks()}
    regions = {task for task in tasks if task.startswith("maps")}

    store = Store.open(str(tmp_path / "store"), StoreSettings())
    log = folder(tmp_path / "calls")
    script = tmp_path / "render_it.py"
    script.write_text(RENDER)
    command: list[str | Path] = [sys.executable, script, store.url, log, str(count), "0.3"]
    with (tmp_path / "messages").open("wb") as messages:
        first = subprocess.Popen(command, cwd=tmp_path, stdout=messages, stderr=messages)
    try:
        until(lambda: len(calls(log)) >= 4)
        victim = calls(log)[-1][0]
        assert victim != first.pid
        os.kill(victim, signal.SIGKILL)
        # another worker takes its place and its work
        so_far = len(calls(log))
        until(lambda: len(calls(log)) >= so_far + 3)
        assert first.poll() is None
        family = {process.pid for process in psutil.Process(first.pid).children(recursive=True)}
    finally:
        first.kill()
        first.wait(timeout=10)
    end(family | {pid for pid, _ in calls(log)})

    recorded = {key.rpartition("/")[2].removesuffix(".json") for key in ledger_keys(store, prefix)}
    assert recorded
    assert regions - recorded, "the client was killed too late to show anything"
    assert read_pointer(store, "synthetic") is None

    again = folder(tmp_path / "again")
    done = subprocess.run(
        [sys.executable, script, store.url, again, str(count), "0"],
        cwd=tmp_path,
        check=False,
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(calls(again)) == len(regions - recorded)
    version = current(store)
    assert version is not None
    assert version.id == done.stdout.strip()
    assert contents(store, prefix) == expected
    assert verify(store, "synthetic").findings == ()


def ledger_keys(store: Store, prefix: str) -> list[str]:
    return [listed.key for listed in store.list(f"{prefix}ledger")]


def test_workers_write_the_same_bytes_as_this_process(client: Client, tmp_path: Path) -> None:
    recipe = Planted(product=replace(PRODUCT, map_block=2, cog_period="P1Y"), axis=months(3))
    alone, together = (Store.open(str(tmp_path / name), StoreSettings()) for name in ("alone", "together"))
    render(alone, recipe)
    progress = Quiet()
    made = planned(together, recipe)
    publishing.publish(together, composed(together, recipe, made, client, progress))
    mine, theirs = (
        {path: sha for path, sha in contents(store, "").items() if path != layout.pointer_key("synthetic")}
        for store in (alone, together)
    )
    assert mine == theirs
    assert sorted(progress.finished) == sorted(task.id for task in made.all_tasks())


def test_a_run_on_s3_is_done_by_workers_with_its_credentials(client: Client, seaweedfs: object) -> None:
    store = Store.open(
        f"s3://{seaweedfs.new_bucket()}/cluster",  # type: ignore[attr-defined]
        StoreSettings.model_validate(
            {
                "endpoint": seaweedfs.endpoint,  # type: ignore[attr-defined]
                "region": seaweedfs.region,  # type: ignore[attr-defined]
                "access_key_id": seaweedfs.access_key,  # type: ignore[attr-defined]
                "secret_access_key": seaweedfs.secret_key,  # type: ignore[attr-defined]
            }
        ),
    )
    render(store, Planted(product=replace(PRODUCT, cog_period=None), axis=months(2)), client)
    assert verify(store, "synthetic").findings == ()


def test_failures_on_workers_are_named_and_the_others_recorded(client: Client, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"), StoreSettings())
    log = folder(tmp_path / "calls")
    recipe = Planted(product=PRODUCT, axis=months(3), log=str(log), failing={"2001-02": "bug"})
    made = planned(store, recipe)
    with pytest.raises(RenderFailed, match=rf"{REGIONS} of {3 * REGIONS} tasks failed") as failure:
        composed(store, recipe, made, client)
    assert "ZeroDivisionError('made-up mistake in 2001-02')" in str(failure.value)
    assert read_pointer(store, "synthetic") is None
    prefix = layout.segment_prefix("synthetic", made.segment)
    assert len(ledger_keys(store, prefix)) == 1 + 2 * REGIONS
    # what is no fault of the store is tried a few times, as the loss of a worker cannot be told from it
    assert sum(periods == "2001-02" for _, periods in calls(log)) <= REGIONS * (1 + running.RETRIES)
    before = len(calls(log))
    render(store, replace(recipe, failing={}), client)
    assert {periods for _, periods in calls(log)[before:]} == {"2001-02"}
    assert verify(store, "synthetic").findings == ()


def test_a_refused_input_is_not_tried_again_and_publishes_nothing(client: Client, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"), StoreSettings())
    log = folder(tmp_path / "calls")
    recipe = Planted(product=replace(PRODUCT, grid=replace(REGION, width=12, height=9)), axis=months(1), log=str(log))
    with pytest.raises(InputRefused, match=r"^made-up file of 2001-01 is broken$"):
        render(store, replace(recipe, failing={"2001-01": "refuse"}), client)
    assert len(calls(log)) == 1
    assert read_pointer(store, "synthetic") is None


def test_damage_that_a_worker_meets_names_the_key(client: Client, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"), StoreSettings())
    recipe = Planted(product=PRODUCT, axis=months(1))
    made = planned(store, recipe)
    prefix = layout.segment_prefix("synthetic", made.segment)
    key = f"{prefix}maps.zarr/0/heat/c/0/0/0"
    store.create(key, b"what somebody else wrote")
    with pytest.raises(Damaged, match=key) as damage:
        composed(store, recipe, made, client)
    assert damage.value.key == key


def test_a_task_that_never_ends_is_given_up(client: Client, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"), StoreSettings())
    recipe = Planted(product=replace(PRODUCT, grid=replace(REGION, width=12, height=9)), axis=months(1), slow=3.0)
    made = planned(store, recipe)
    with pytest.raises(RenderFailed, match="no task finished for 1 s; the same command goes on from the ledger"):
        running.run(store, made, recipe, client, Quiet(), task_seconds=1.0)
    running.run(store, made, recipe, client, Quiet(), task_seconds=30.0)


def burn(seconds: float) -> float:
    """Take CPU time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sum(range(10_000))
    return seconds


def test_an_item_may_take_long_while_a_worker_is_busy_with_it_and_not_while_it_waits(client: Client) -> None:
    work = running.each(client, idle_seconds=2.0)
    assert sorted(work(burn, [7.0, 0.1])) == [0.1, 7.0]
    with pytest.raises(RenderFailed, match="no task finished for 2 s; nothing of this step is kept, the same command"):
        list(work(time.sleep, [8.0]))


@contextlib.contextmanager
def dask(*words: str | Path, environment: dict[str, str] | None = None, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A dask process of the command line."""
    program = Path(sysconfig.get_path("scripts")) / "dask"
    with log.open("wb") as messages:
        process = subprocess.Popen(
            [program, *words], env=os.environ | (environment or {}), stdout=messages, stderr=messages, cwd=log.parent
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=10)


def test_a_scheduler_by_address_and_workers_of_other_code(tmp_path: Path) -> None:
    """Workers with the same code do the work; one whose source differs by a comment is refused."""
    copy = tmp_path / "copy"
    for package in ("services", "models", "tests"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__", "static"))
    edited = copy / "services" / "core" / "style.py"
    edited.write_text(edited.read_text() + "# edited\n")
    store = Store.open(str(tmp_path / "store"), StoreSettings())
    recipe = Planted(product=replace(PRODUCT, cog_period=None), axis=months(1))
    place = tmp_path / "scheduler.json"
    alone = ("--no-dashboard", "--no-nanny", "--nthreads", "1")
    with (
        dask(
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            place,
            log=tmp_path / "s",
        ),
        dask("worker", "--scheduler-file", place, "--host", "127.0.0.1", *alone, log=tmp_path / "w"),
    ):
        until(lambda: place.exists() and bool(place.read_text()))
        address = json.loads(place.read_text())["address"]
        with running.cluster(0, address) as client:
            assert client is not None
            client.wait_for_workers(1, timeout=30)
            render(store, recipe, client)
        assert verify(store, "synthetic").findings == ()
        other = {"PYTHONPATH": str(copy)}
        with (
            dask(
                "worker",
                "--scheduler-file",
                place,
                "--host",
                "127.0.0.1",
                *alone,
                environment=other,
                log=tmp_path / "o",
            ),
            running.cluster(0, address) as client,
        ):
            assert client is not None
            client.wait_for_workers(2, timeout=30)
            with pytest.raises(Refused, match=r"it runs cenote .* and the client .*: install the same code on both"):
                render(store, replace(recipe, axis=months(2)), client)
    version = current(store)
    assert version is not None
    assert len(version.time) == 1


def test_a_worker_that_is_slow_to_end_is_no_warning() -> None:
    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    heard: list[str] = []
    with running.cluster(0) as client:
        assert client is None
    logger, handler = logging.getLogger("distributed.nanny"), Heard()
    logger.addHandler(handler)  # whether it tells the root's, distributed decides when it is set up
    try:
        logger.warning("Worker process still alive after 4.0 seconds, killing")
        logger.warning("Worker exceeded 95% memory budget. Restarting")
    finally:
        logger.removeHandler(handler)
    assert heard == ["Worker exceeded 95% memory budget. Restarting"]
