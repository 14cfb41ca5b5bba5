"""Numbers for Prometheus: requests by route and status, how long they took, and what the chunk cache does."""

import os
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from tiler.loading import LoadingCache

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus_client: a folder in which the worker processes of one service add up."""

ROUTE_KEY = "cenote.route"
"""Where an ASGI scope keeps the path template of what answered it, if that is no route of FastAPI's."""

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """The numbers of one app.

    Args:
        chunks: the cache of decoded chunks.
        tiles: the cache of encoded tiles.
    """

    def __init__(self, chunks: LoadingCache[Any, Any], tiles: LoadingCache[Any, Any]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "cenote_requests", "Answered requests", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "cenote_request_seconds",
            "Time from a request to the start of its answer",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._running = Gauge(
            "cenote_requests_running",
            "Requests being answered",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._resident = Gauge(
            "process_resident_memory_bytes",
            "Memory of the server process, of all of them together where there are several",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._claimed = Gauge(
            "cenote_claimed_bytes",
            "Memory that requests being answered have claimed for their work",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._counted: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._caches = [
            _Cache(chunks, self._registry, "chunk", "Chunks found decoded in memory", "Chunks read and decoded"),
            _Cache(tiles, self._registry, "tile", "Tiles found encoded in memory", "Tiles drawn"),
        ]

    def weigh(self, resident: int, claimed: int) -> None:
        """Say what the process takes in memory, and what requests claimed of it, in bytes."""
        self._resident.set(resident)
        self._claimed.set(claimed)

    def begin(self) -> None:
        """A request came in."""
        self._running.inc()

    def left(self) -> None:
        """It is no longer waited for."""
        self._running.dec()

    def end(self, method: str, route: str, status: int, seconds: float) -> None:
        """Its answer has begun; arguments are those of ``answered``."""
        self.left()
        self.answered(method, route, status, seconds)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer.

        Args:
            method: HTTP method.
            route: path template, so that the number of series stays bounded.
            status: HTTP status.
            seconds: since the request came in.
        """
        counted = self._counted.get((method, route, status))
        if counted is None:
            # looking them up by their labels takes longer than counting
            counted = self._requests.labels(method, route, str(status)), self._seconds.labels(route)
            self._counted[method, route, status] = counted
        requests, took = counted
        requests.inc()
        took.observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """The exposition and its media type."""
        for cache in self._caches:
            cache.bring_up_to_date()
        if SHARED_FOLDER in os.environ:
            everyone = CollectorRegistry()
            MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]  # it has no types
            return generate_latest(everyone), CONTENT_TYPE_LATEST
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _Cache:
    """The numbers of a cache."""

    def __init__(
        self, cache: LoadingCache[Any, Any], registry: CollectorRegistry, name: str, found: str, made: str
    ) -> None:
        self._cache = cache
        self._hits = Counter(f"cenote_{name}_cache_hits", found, registry=registry)
        self._misses = Counter(f"cenote_{name}_cache_misses", made, registry=registry)
        self._bytes = Gauge(
            f"cenote_{name}_cache_bytes",
            f"Memory of the {name}s that are kept",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._seen = (0, 0)

    def bring_up_to_date(self) -> None:
        """Read what the cache counted."""
        counts = self._cache.counts
        hits, misses = self._seen
        self._seen = (counts.hits, counts.misses)
        self._hits.inc(counts.hits - hits)
        self._misses.inc(counts.misses - misses)
        self._bytes.set(counts.weight)
