"""Run the service: one process or several behind one socket, ended gently by SIGTERM or Ctrl-C."""

import functools
import gc
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable
from types import FrameType
from typing import cast, override

import uvicorn
from fastapi import FastAPI
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from services.core.errors import Refused
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from tiler.app import create_app
from tiler.joined import JoinedProtocol
from tiler.memory import MIB, Shares, resident, tune_malloc
from tiler.metrics import SHARED_FOLDER

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 10
"""Requests that are being answered when the service is told to stop have so long."""
STOP_SECONDS = 5
"""And a server process that has no more requests to end; then it is killed."""

KEEP_ALIVE_SECONDS = 75
"""Longer than reverse proxies keep an idle connection, so that they never send into one that is being closed."""

BACKLOG = 2048
START_SECONDS = 90
"""A worker process may take so much longer until its first answer, on a slow or crowded machine."""

HUNG_SECONDS = 30
"""A worker process that does not stir for so long is killed and started again."""


def serve(
    settings: Settings,
    store_settings: StoreSettings,
    *,
    host: str,
    port: int,
    workers: int,
    note: Callable[[str], None],
) -> None:
    """Serve until told to stop.

    Args:
        settings: what is served.
        store_settings: how its store is reached.
        host: address to listen on.
        port: port to listen on.
        workers: server processes; a process answers Python-bound requests one at a time.
        note: where messages for a person go.

    Raises:
        SettingsError: if the store's address or credentials cannot be.
        Refused: if nobody can listen there, or the server processes do not start.
    """
    Shares.of(settings)  # refused here, before anything listens
    store = Store.open(settings.store, store_settings)
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    note(f"serving {store} at http://{shown}:{listener.getsockname()[1]}/ (map), /collections, /api; Ctrl-C ends it")
    with listener, tempfile.TemporaryDirectory(prefix="cenote-metrics-") as folder:
        if workers == 1:
            _Server(_config(settings, store, 1)).run([listener])
            return
        # counted in a folder, since each process sees a part of the requests only
        os.environ[SHARED_FOLDER] = folder
        try:
            # spawned, never forked: a client of the store that was forked hangs
            supervisor = _Supervisor(_config(settings, store, workers), [listener], settings.memory_mb)
            supervisor.run()
        finally:
            del os.environ[SHARED_FOLDER]
        if supervisor.failed:
            raise Refused("the server processes could not start; what they said is above")


def application(settings: Settings, store: Store) -> FastAPI:
    """The app of a server process, with its messages on stderr."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    tune_malloc()
    app = create_app(settings, store)
    # what was imported lives as long as the process; to look through it now and then holds up all requests for 0.2 s
    gc.collect()
    gc.freeze()
    return app


class _Server(uvicorn.Server):
    """Ends with exit status 0 after a gentle stop, and at once when told twice."""

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


class _Worker(Process):
    """A server process that is asked whether it lives without waiting for its answer.

    uvicorn's own waits for up to the time-out, and meanwhile a signal, or another worker's death, goes unnoticed: a
    worker that is still importing, or that dies between two questions, stopped the supervisor for that long.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        # it imports for a while before it can answer
        self._heard = time.monotonic() + START_SECONDS
        self._asked = False
        self.is_serving = False
        """Whether it answers requests, as it said last."""

    @override
    def is_alive(self, timeout: float = HUNG_SECONDS) -> bool:
        """Whether it runs and has answered within the last ``timeout`` seconds."""
        if not self.process.is_alive():
            return False
        now = time.monotonic()
        try:
            if self._asked and self.parent_conn.poll(0):
                self.is_serving = bool(self.parent_conn.recv())
                self._heard, self._asked = now, False
            if not self._asked:
                self.parent_conn.send(b"ping")
                self._asked = True
        except (OSError, EOFError):
            return False
        return now - self._heard < timeout


class _Supervisor(Multiprocess):
    """Starts workers, replaces those that died, hang or take too much memory, and ends them when told to.

    Args:
        config: of the workers.
        sockets: what they listen on.
        bound_mb: memory that a worker may take, MiB.
    """

    failed = False
    """Whether a worker ended before it could serve."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], bound_mb: int) -> None:
        super().__init__(config, sockets)
        self._bound_mb = bound_mb
        self._leaving: list[tuple[Process, Process, float]] = []
        """Worker that is to end, the one that takes its place, and until when it may take to end."""

    @override
    def init_processes(self) -> None:
        for _ in range(self.processes_num):
            self.processes.append(self._started())

    @override
    def keep_subprocess_alive(self) -> None:
        for at, worker in enumerate(self.processes):
            if worker.is_alive(timeout=self.config.timeout_worker_healthcheck):
                self._check_memory(at, worker)
                continue
            worker.kill()
            worker.join()
            if worker.exitcode == STARTUP_FAILURE:
                # another one would fail in the same way
                self.failed = True
                self.should_exit.set()
                return
            logger.warning("server process %s ended with %s; another one takes its place", worker.pid, worker.exitcode)
            mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # it has no types
            self.processes[at] = self._started()
        self._end_leaving()

    def _check_memory(self, at: int, worker: Process) -> None:
        """Start another worker in the place of one that takes more than it may, which goes on until that one serves."""
        taken = resident(worker.pid) // MIB
        if taken <= self._bound_mb or self._leaving:  # one at a time
            return
        logger.warning(
            "server process %s takes %d MiB and CENOTE_MEMORY_MB is %d; another one takes its place",
            worker.pid,
            taken,
            self._bound_mb,
        )
        self.processes[at] = self._started()
        self._leaving.append((worker, self.processes[at], 0.0))

    def _end_leaving(self) -> None:
        for entry in list(self._leaving):
            old, new, deadline = entry
            now = time.monotonic()
            if not old.process.is_alive():
                old.process.join()
                mark_process_dead(old.pid)  # type: ignore[no-untyped-call]  # it has no types
                self._leaving.remove(entry)
            elif deadline and now > deadline:
                old.kill()
            elif not deadline and (cast("_Worker", new).is_serving or not new.process.is_alive()):
                old.terminate()
                self._leaving[self._leaving.index(entry)] = (old, new, now + DRAIN_SECONDS + STOP_SECONDS)

    @override
    def terminate_all(self) -> None:
        for old, _, _ in self._leaving:
            old.terminate()
        super().terminate_all()

    @override
    def join_all(self) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS + STOP_SECONDS
        for worker in (*self.processes, *(old for old, _, _ in self._leaving)):
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                logger.warning("server process %s does not end and is killed", worker.pid)
                worker.process.kill()
                worker.process.join()

    def _started(self) -> Process:
        worker = _Worker(self.config, self.sockets)
        worker.start()
        return worker


def _config(settings: Settings, store: Store, workers: int) -> uvicorn.Config:
    return uvicorn.Config(
        functools.partial(application, settings, store),
        factory=True,
        workers=workers,
        lifespan="on",
        http=JoinedProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # tiler/proxies.py knows the path prefix and the host too
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_worker_healthcheck=HUNG_SECONDS,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Refused(
            f"nobody can listen on {host} port {port}: {error.strerror or error}; try another --port"
        ) from None
    listener.set_inheritable(True)
    return listener
