"""Run the service: one process or several behind one socket, ended gently by SIGTERM or Ctrl-C."""

import functools
import logging
import os
import socket
import tempfile
from collections.abc import Callable
from types import FrameType
from typing import override

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from services.core.errors import Refused
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from tiler.app import create_app
from tiler.metrics import SHARED_FOLDER

DRAIN_SECONDS = 10
"""Requests that are being answered when the service is told to stop have so long."""

KEEP_ALIVE_SECONDS = 75
"""Longer than reverse proxies keep an idle connection, so that they never send into one that is being closed."""

BACKLOG = 2048
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
        Refused: if nobody can listen there.
    """
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
            Multiprocess(_config(settings, store, workers), sockets=[listener]).run()
        finally:
            del os.environ[SHARED_FOLDER]


def application(settings: Settings, store: Store) -> FastAPI:
    """The app of a server process, with its messages on stderr."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return create_app(settings, store)


class _Server(uvicorn.Server):
    """Ends with exit status 0 after a gentle stop, and at once when told twice."""

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def _config(settings: Settings, store: Store, workers: int) -> uvicorn.Config:
    return uvicorn.Config(
        functools.partial(application, settings, store),
        factory=True,
        workers=workers,
        lifespan="on",
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
