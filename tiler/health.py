"""Routes for machines that watch: alive, ready, metrics."""

import asyncio

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from services.core.errors import CenoteError
from tiler.errors import problem_of
from tiler.metrics import Metrics
from tiler.state import State


def router(state: State, metrics: Metrics) -> APIRouter:
    """``/healthz``, ``/readyz`` and ``/metrics``."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz", operation_id="healthz")
    async def alive() -> JSONResponse:
        """Whether the process answers at all; restart it if it does not."""
        return JSONResponse({"status": "alive"})

    @routes.get("/readyz", operation_id="readyz")
    async def ready() -> Response:
        """Whether the store can be reached; send requests elsewhere while this is 503."""
        try:
            # not in the request threads, which may all be waiting for the store
            await asyncio.to_thread(state.catalogue.check)
        except CenoteError as error:
            return problem_of(error).response()
        return JSONResponse({"status": "ready"})

    @routes.get("/metrics", operation_id="metrics")
    async def numbers() -> Response:
        """Numbers for Prometheus."""
        content, media_type = await asyncio.to_thread(metrics.text)
        return Response(content, headers={"Content-Type": media_type})

    return routes
