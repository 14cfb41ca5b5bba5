"""The service as an ASGI app: which routes there are and what they share."""

import asyncio
import importlib.metadata
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import Depends, FastAPI
from starlette.types import ASGIApp

from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from tiler import edr, errors, health, maps, pages, points, stac
from tiler.catalogue import LiveCatalogue
from tiler.chunks import ChunkCache
from tiler.description import add_description
from tiler.envelope import Envelope
from tiler.fast_series import FastSeries
from tiler.fast_tiles import FastTiles, TileCache
from tiler.memory import Budget, Shares, watched
from tiler.metrics import Metrics
from tiler.parameters import refuse_unknown
from tiler.proxies import Proxies
from tiler.state import State
from tiler.warm_up import WarmUp

DESCRIPTION = """\
Maps, points and time series of published carbon and groundwater products.

`/collections` lists what there is. Routes below `/collections/{id}` answer from the version that is current; the same
routes below `/collections/{id}/instances/{version}` answer from that version for ever. Each answer names its version in
the header `Cenote-Version`.
"""

THREADS = min(32, 4 * (os.cpu_count() or 1))
"""Requests that are worked on at the same time in one process; most of the time they wait for the store."""


def create_app(settings: Settings, store: Store | None = None) -> FastAPI:
    """The service over the collections of a store; nothing is read before it starts.

    Args:
        settings: what is served and how much one request may ask for.
        store: where products lie; opened from ``settings.store`` and the environment's credentials if not given.

    Raises:
        SettingsError: if the caches leave no room for requests.
    """
    store = store if store is not None else Store.open(settings.store, StoreSettings.from_environment())
    shares = Shares.of(settings)
    chunks = ChunkCache(shares.chunks)
    warm_up = WarmUp(chunks, int(shares.chunks * settings.warm_share))
    catalogue = LiveCatalogue(store, settings, cache=chunks, seen=warm_up.seen)
    state = State(settings=settings, store=store, chunks=chunks, catalogue=catalogue)
    tiles = TileCache(shares.tiles)
    budget = Budget(
        shares.work, spare=shares.work - shares.chunks, give_way=chunks.give_way, waiting=max(1, THREADS // 2)
    )
    metrics = Metrics(chunks, tiles)
    proxies = Proxies([network.strip() for network in settings.trusted_proxies.split(",") if network.strip()])

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        watch = asyncio.create_task(watched(settings.memory_mb, lambda now: metrics.weigh(now, budget.taken)))
        warm_up.start(catalogue)
        yield
        watch.cancel()
        warm_up.close()
        catalogue.close()

    class Service(FastAPI):
        def build_middleware_stack(self) -> ASGIApp:
            # outside of Starlette's own layers, so that an answer of theirs is completed too
            series = FastSeries(super().build_middleware_stack(), state)
            fast = FastTiles(series, state, tiles)
            return Envelope(
                fast,
                settings=settings,
                metrics=metrics,
                threads=THREADS,
                proxies=proxies,
                budget=budget,
                again=fast.again,
                at_once=lambda scope: fast.at_once(scope) or series.at_once(scope),
            )

    app = Service(
        title="cenote",
        version=importlib.metadata.version("cenote"),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # tiler/description.py
        lifespan=lifespan,
        dependencies=[Depends(refuse_unknown)],
        redirect_slashes=False,
        # it has metrics of its own; asking whether somebody wants FastAPI's takes longer than to find a tile
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.cenote = state
    app.state.warm_up = warm_up
    errors.add_handlers(app)
    add_description(app)
    app.include_router(health.router(state, metrics))
    for module in (maps, edr, points, stac, pages):
        app.include_router(module.router(state))
    return app
