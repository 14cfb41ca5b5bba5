"""Numbers for Prometheus: requests by route and status, how long they took, and what the chunk cache does."""

import os

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from tiler.chunks import ChunkCache

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus_client: a folder in which the worker processes of one service add up."""

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """The numbers of one app.

    Args:
        chunks: the cache of decoded chunks.
    """

    def __init__(self, chunks: ChunkCache) -> None:
        self._chunks = chunks
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
        self._hits = Counter("cenote_chunk_cache_hits", "Chunks found decoded in memory", registry=self._registry)
        self._misses = Counter("cenote_chunk_cache_misses", "Chunks read and decoded", registry=self._registry)
        self._bytes = Gauge(
            "cenote_chunk_cache_bytes",
            "Memory of the decoded chunks",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._seen = (0, 0)

    def begin(self) -> None:
        """A request came in."""
        self._running.inc()

    def end(self, method: str, route: str, status: int, seconds: float) -> None:
        """Its answer has begun.

        Args:
            method: HTTP method.
            route: path template, so that the number of series stays bounded.
            status: HTTP status.
            seconds: since ``begin``.
        """
        self._running.dec()
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """The exposition and its media type."""
        counts = self._chunks.counts
        hits, misses = self._seen
        self._seen = (counts.hits, counts.misses)
        self._hits.inc(counts.hits - hits)
        self._misses.inc(counts.misses - misses)
        self._bytes.set(counts.weight)
        if SHARED_FOLDER in os.environ:
            everyone = CollectorRegistry()
            MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]  # it has no types
            return generate_latest(everyone), CONTENT_TYPE_LATEST
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
