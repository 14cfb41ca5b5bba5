"""Workers killed in the middle of a groundwater render (synthetic): in the end the bytes of an undisturbed one."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from distributed import Client

from services.core import layout
from services.core.settings import StoreSettings
from services.core.store import Store
from services.pipeline import run as running
from services.pipeline.subset import Subset, window_of
from services.pipeline.verify import verify
from services.products.gwsa.render import Gwsa, open_recipe
from tests.pipeline.synthetic import composed, contents, planned, render

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

AREA = "70,21,71.5,22"
PERIODS = "2017-03/2017-06"


@pytest.fixture
def client() -> Iterator[Client]:
    with running.cluster(2) as client:
        assert client is not None
        client.wait_for_workers(2)
        yield client


def linked(written: Path, folder: Path) -> Path:
    """The same inputs where nothing was prepared."""
    folder.mkdir()
    for path in written.iterdir():
        if path.name != "prepared":
            (folder / path.name).symlink_to(path)
    return folder


def part(whole: Gwsa) -> Subset:
    return Subset.of(whole, window_of(whole.product.grid, AREA), "killed")


def prepared(inputs: Path) -> dict[str, str]:
    """Path below ``prepared`` -> sha256 of every file."""
    base = inputs / "prepared"
    return {
        str(path.relative_to(base)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in base.rglob("*")
        if path.is_file()
    }


def kill_who_works_on(client: Client, word: str, work: Future[object], *, begun: Callable[[], bool]) -> int:
    """Kill the process of a worker in the middle of a task whose key has this word; the process's id.

    In the middle: the process is stopped after it took CPU time for the task, and killed if the task is still its own.
    """
    processes = {address: psutil.Process(pid) for address, pid in client.run(os.getpid).items()}
    before = {address: sum(process.cpu_times()[:2]) for address, process in processes.items()}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert not work.done(), "the work ended before anyone was killed"
        for address, keys in client.processing().items():
            process = processes[address]
            mine = {key for key in keys if word in str(key)}
            if not mine or not begun() or sum(process.cpu_times()[:2]) < before[address] + 0.2:
                continue
            process.suspend()
            time.sleep(0.1)  # what it said before it was stopped arrives
            if mine & set(client.processing()[address]):
                process.kill()
                process.wait(timeout=10)
                return int(process.pid)
            process.resume()
        time.sleep(0.02)
    raise AssertionError(f"nobody worked on {word}")


def test_killed_workers_leave_the_bytes_of_an_undisturbed_render(client: Client, written: Path, tmp_path: Path) -> None:
    quiet = part(open_recipe(linked(written, tmp_path / "quiet")))
    calm = Store.open(str(tmp_path / "calm"), StoreSettings())
    made = planned(calm, quiet, periods=PERIODS)
    composed(calm, quiet, made)
    prefix = layout.segment_prefix(quiet.product.id, made.segment)

    inputs = linked(written, tmp_path / "disturbed")
    recipe = part(open_recipe(inputs))
    store = Store.open(str(tmp_path / "store"), StoreSettings())
    assert planned(store, recipe, periods=PERIODS).segment == made.segment
    assert recipe.models(), "models are asked"
    before = set(client.run(os.getpid).values())
    with ThreadPoolExecutor(1) as pool:
        work: Future[object] = pool.submit(render, store, recipe, client, periods=PERIODS)
        scratch = inputs / "prepared"
        first = kill_who_works_on(client, "_band", work, begun=lambda: any(scratch.glob(".*.part/coarse.zarr")))
        assert not list(scratch.glob("[!.]*")), "what is being prepared was seen before it was whole"
        client.wait_for_workers(2, timeout=60)
        second = kill_who_works_on(client, f"{made.segment}-maps", work, begun=lambda: True)
        work.result(timeout=120)
    client.wait_for_workers(2, timeout=60)
    after = set(client.run(os.getpid).values())
    assert {first, second} & after == set()
    assert first in before
    assert prepared(inputs) == prepared(tmp_path / "quiet")
    assert contents(store, prefix) == contents(calm, prefix)
    assert verify(store, recipe.product.id).findings == ()
