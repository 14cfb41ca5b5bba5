"""Interleaved rounds: every server gets a short turn, again and again, so that noise of the machine hits all alike."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tests.bench.client import Job, Result
from tests.bench.servers import Client, Failed, Server

type Request = tuple[str, str, str]
"""Method, target and body."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A server that takes part, and what it is asked."""

    peer: str
    server: Server
    requests: list[Request]


@dataclass(frozen=True, kw_only=True)
class Turns:
    """How long each server's turn is, and how many it gets."""

    seconds: float
    rounds: int
    clients: int = 1
    limit: int = 1_000_000
    """Most answers of a turn."""
    is_fresh: bool = False
    """Whether each turn goes on with requests that no turn had, ``limit`` of them."""
    deadline: float = float("inf")
    """Time of ``time.monotonic()`` after which one turn each is enough."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One server's numbers in one case."""

    section: str
    case: str
    peer: str
    clients: int = 1
    cpu_ms: float | None = None
    """CPU milliseconds of the server per answer, median of the rounds."""
    p50: float | None = None
    """Milliseconds that the client waited."""
    p95: float | None = None
    p99: float | None = None
    rate: float | None = None
    """Answers a second, median of the rounds."""
    answers: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


def get(target: str) -> Request:
    """A GET."""
    return ("GET", target, "")


def asked(client: Client, entry: Entry, **job: Any) -> Result:
    """Ask a server.

    Raises:
        Failed: if an answer was not 200.
    """
    wanted = Job(address=entry.server.address, protocol=entry.server.protocol, requests=entry.requests, **job)
    result = client.run(wanted)
    if set(result.statuses) - {"200"}:
        raise Failed(f"{entry.peer} answered {result.statuses} to requests like {entry.requests[0][1][:160]}")
    return result


def warm(client: Client, entries: Sequence[Entry], notes: list[str]) -> list[Entry]:
    """Ask each server for everything once; those that answer it with 200."""
    good = []
    for entry in entries:
        try:
            asked(client, entry, limit=len(entry.requests), seconds=60.0)
        except Failed as reason:
            notes.append(str(reason))
        else:
            good.append(entry)
    return good


def interleaved(client: Client, entries: Sequence[Entry], turns: Turns, *, section: str, case: str) -> list[Row]:
    """Let servers answer in turn."""
    latencies: dict[str, list[float]] = {entry.peer: [] for entry in entries}
    cpu: dict[str, list[float]] = {entry.peer: [] for entry in entries}
    rates: dict[str, list[float]] = {entry.peer: [] for entry in entries}
    sizes: dict[str, float] = {}
    for number in range(turns.rounds):
        if number and time.monotonic() > turns.deadline:
            break
        # another one begins each time
        turn = number % max(len(entries), 1)
        for entry in (*entries[turn:], *entries[:turn]):
            before = entry.server.cpu()
            mine = entry
            if turns.is_fresh:
                mine = replace(entry, requests=entry.requests[number * turns.limit : (number + 1) * turns.limit])
            result = asked(client, mine, clients=turns.clients, seconds=turns.seconds, limit=turns.limit)
            spent = entry.server.cpu() - before
            count = len(result.latencies)
            latencies[entry.peer] += result.latencies
            cpu[entry.peer].append(spent * 1000 / count)
            rates[entry.peer].append(count / result.wall)
            sizes[entry.peer] = result.received / count
    return [
        timed(
            Row(
                section=section,
                case=case,
                peer=entry.peer,
                clients=turns.clients,
                cpu_ms=statistics.median(cpu[entry.peer]),
                rate=statistics.median(rates[entry.peer]),
                answers=len(latencies[entry.peer]),
                facts={"bytes": round(sizes[entry.peer])},
            ),
            latencies[entry.peer],
        )
        for entry in entries
    ]


def timed(row: Row, latencies: Sequence[float]) -> Row:
    """A row with median, 95th and 99th percentile of what the client waited."""
    p50, p95, p99 = (float(value) for value in np.percentile(latencies, [50, 95, 99]))
    return replace(row, p50=p50, p95=p95, p99=p99)
