"""Interleaved rounds: every server gets a short turn, again and again, so that noise of the machine hits all alike."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from tests.bench.client import Job, Result
from tests.bench.servers import Client, Failed, Server

COARSE = 0.1
"""Seconds of CPU of a turn below which all turns are taken together: a system counts in hundredths."""

type Request = tuple[str, str, str]
"""Method, target and body."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A server that takes part, and what it is asked."""

    peer: str
    server: Server
    requests: list[Request]

    def turn(self, client: Client, turns: "Turns", number: int) -> "Taken":
        """Answer for a while."""
        before = self.server.cpu()
        mine = self
        if turns.is_fresh:
            mine = replace(self, requests=self.requests[number * turns.limit : (number + 1) * turns.limit])
        result = asked(client, mine, clients=turns.clients, seconds=turns.seconds, limit=turns.limit)
        spent = self.server.cpu() - before
        return Taken(latencies=result.latencies, wall=result.wall, received=result.received, cpu=spent)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What came of a turn."""

    latencies: list[float]
    """Milliseconds."""
    wall: float
    received: int
    cpu: float | None
    """Seconds of the server; None where there is none to charge."""


class Taking(Protocol):
    """Who takes turns."""

    @property
    def peer(self) -> str:
        """What the row is called."""

    def turn(self, client: Client, turns: "Turns", number: int) -> Taken:
        """Answer for a while."""


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


def interleaved(client: Client, entries: Sequence[Taking], turns: Turns, *, section: str, case: str) -> list[Row]:
    """Let servers answer in turn."""
    taken: dict[str, list[Taken]] = {entry.peer: [] for entry in entries}
    for number in range(turns.rounds):
        if number and time.monotonic() > turns.deadline:
            break
        # another one begins each time
        turn = number % max(len(entries), 1)
        for entry in (*entries[turn:], *entries[:turn]):
            taken[entry.peer].append(entry.turn(client, turns, number))
    return [_row(peer, found, turns, section, case) for peer, found in taken.items()]


def _row(peer: str, taken: Sequence[Taken], turns: Turns, section: str, case: str) -> Row:
    charged = [one for one in taken if one.cpu is not None]
    cpu = [(one.cpu or 0.0) * 1000 / len(one.latencies) for one in charged]
    if charged and statistics.median(one.cpu or 0.0 for one in charged) < COARSE:
        cpu = [sum(one.cpu or 0.0 for one in charged) * 1000 / sum(len(one.latencies) for one in charged)]
    latencies = [value for one in taken for value in one.latencies]
    row = Row(
        section=section,
        case=case,
        peer=peer,
        clients=turns.clients,
        cpu_ms=statistics.median(cpu) if cpu else None,
        rate=statistics.median(len(one.latencies) / one.wall for one in taken),
        answers=len(latencies),
        facts={"bytes": round(taken[-1].received / len(taken[-1].latencies))},
    )
    return timed(row, latencies)


def timed(row: Row, latencies: Sequence[float]) -> Row:
    """A row with median, 95th and 99th percentile of what the client waited."""
    p50, p95, p99 = (float(value) for value in np.percentile(latencies, [50, 95, 99]))
    return replace(row, p50=p50, p95=p95, p99=p99)
