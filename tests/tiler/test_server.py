"""The server as processes: started, asked, told to stop."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from services.core.errors import Refused
from services.core.grid import Grid
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from services.core.time_axis import TimeAxis
from tests.tiler.conftest import PLACE, Arrays, a_product, publish_arrays
from tiler.server import DRAIN_SECONDS, HUNG_SECONDS, STOP_SECONDS, serve

GRID = Grid.of(west=0, north=4, step_x="1", width=4, height=4)

PROGRAM = """\
import sys
from services.core.settings import Settings, StoreSettings
from tiler.server import DRAIN_SECONDS, HUNG_SECONDS, STOP_SECONDS, serve
if __name__ == "__main__":
    serve(
        Settings(store=sys.argv[1]), StoreSettings(), host="127.0.0.1", port=int(sys.argv[2]), workers=int(sys.argv[3]),
        note=lambda text: print(text, flush=True),
    )
"""


@pytest.fixture
def published(tmp_path: Path) -> str:
    url = str(tmp_path / "store")
    product = a_product("demo", GRID, PLACE)
    values = {"place": np.full((1, 4, 4), 7.0)}
    axis = TimeAxis.regular("2020-01", "P1M", 1)
    publish_arrays(Store.open(url, StoreSettings()), Arrays(product=product, axis=axis, values=values))
    return url


@contextlib.contextmanager
def running(folder: Path, store: str, workers: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(program), store, str(port), str(workers)]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, start_new_session=True
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert f"http://127.0.0.1:{port}/" in line, line + (server.stdout.read() if server.poll() is not None else "")
        yield server, f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # its own session: the server and its workers
        server.communicate()


def fetch(url: str) -> tuple[int, bytes]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.status, answer.read()


def test_garbage_is_not_sought_in_what_lives_as_long_as_the_process(published: str) -> None:
    code = (
        "import gc, sys; from services.core.settings import Settings, StoreSettings; from services.core.store import "
        "Store; from tiler.server import application; "
        "app = application(Settings(store=sys.argv[1]), Store.open(sys.argv[1], StoreSettings())); "
        "print(len(gc.get_objects()), gc.get_freeze_count())"
    )
    said = subprocess.run([sys.executable, "-c", code, published], check=True, capture_output=True, text=True).stdout
    left, frozen = map(int, said.split())
    assert frozen > 100_000
    assert left < frozen / 20


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_it_serves_and_ends_gently(tmp_path: Path, published: str, workers: int) -> None:
    with running(tmp_path, published, workers) as (server, url):
        for _ in range(10):
            assert b'"values":[7.0]' in fetch(f"{url}/collections/demo/point/1,1")[1]
        assert fetch(f"{url}/readyz")[0] == 200
        counted = fetch(f"{url}/metrics")[1].decode()
        line = next(one for one in counted.splitlines() if one.startswith("cenote_requests_total{"))
        assert line.endswith(" 10.0"), "all processes count together"
        answers: list[int] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                try:
                    answers.append(fetch(f"{url}/collections/demo/point/1,1")[0])
                except OSError:
                    return  # no longer listening

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.5)
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
        stop.set()
        asking.join(10)
        assert answers
        assert set(answers) == {200}


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(tmp_path: Path, published: str) -> None:
    with running(tmp_path, published, 2) as (server, url):
        fetch(f"{url}/healthz")
        workers = workers_of(server.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        wait_for(
            lambda: len(set(workers_of(server.pid)) - {workers[0]}) == 2, 30, "replacement of the one that was killed"
        )
        assert fetch(f"{url}/collections/demo/point/1,1")[0] == 200


@pytest.mark.slow
def test_a_worker_that_dies_without_an_answer_is_replaced(tmp_path: Path, published: str) -> None:
    with running(tmp_path, published, 2) as (server, url):
        wait_for(lambda: len(workers_of(server.pid)) == 2, 20, "two workers")
        first = workers_of(server.pid)[0]
        os.kill(first, signal.SIGSTOP)
        time.sleep(2)  # it has been asked whether it lives, and says nothing
        os.kill(first, signal.SIGKILL)
        # long before HUNG_SECONDS: nobody waits for the answer of the dead one
        wait_for(lambda: len(set(workers_of(server.pid)) - {first}) == 2, HUNG_SECONDS / 3, "replacement")
        assert fetch(f"{url}/collections/demo/point/1,1")[0] == 200


@pytest.mark.slow
def test_it_ends_when_told_though_a_worker_hangs(tmp_path: Path, published: str) -> None:
    with running(tmp_path, published, 2) as (server, _):
        wait_for(lambda: len(workers_of(server.pid)) == 2, 20, "two workers")
        os.kill(workers_of(server.pid)[0], signal.SIGSTOP)
        time.sleep(2)
        server.send_signal(signal.SIGTERM)
        assert server.wait(DRAIN_SECONDS + STOP_SECONDS + 5) == 0


def wait_for(holds: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.05)


def workers_of(parent: int) -> list[int]:
    """Processes that a process spawned to serve."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_child = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent
            if is_child and b"spawn_main" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def test_a_port_that_is_taken_is_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Refused, match=f"port {port}"):
            serve(Settings(store=str(tmp_path)), StoreSettings(), host="127.0.0.1", port=port, workers=1, note=print)
