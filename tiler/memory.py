"""What a server process may hold: how its bound is shared out, and the turn of requests that need much of it.

A request says how much its work takes before it begins (``need``). Small needs are met at once; the chunk cache gives
way to larger ones; and what does not fit beside the requests under way waits for its turn.
"""

import asyncio
import ctypes
import logging
import os
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Self

from starlette.exceptions import HTTPException

from services.core.errors import RequestTooLarge, SettingsError
from services.core.settings import Settings

logger = logging.getLogger(__name__)

MIB = 2**20

PROGRAM = 260 * MIB
"""Resident once it has answered one request of every kind: libraries, their tables, code (measured)."""

TABLES = 108 * MIB
"""Caches of a fixed size: cells under tiles 32 and 8, places of pixels and spans of periods 16 each, colours 8, texts
of values 8, addresses and the like 20."""

OPENED_SHARE = 1 / 16
"""Part of the bound that opened versions may take, and so much again opened segments."""

SLACK_SHARE = 1 / 8
"""Part of the bound that malloc holds and nobody uses, or that estimates are short of (measured)."""

LEAST_WORK = 64 * MIB
"""Needed for requests beside full caches: below it maps could not be drawn."""

SMALL = 2 * MIB
"""What a request takes anyhow; not counted."""

WATCH_SECONDS = 1.0
"""How often a process looks at what it takes in memory."""

WARN_SECONDS = 60.0
"""And says in the log that it is too much."""

PATIENCE_SECONDS = 4.0
"""A request that needs more than there is waits so long for others to end."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Bytes of a process' bound for each of its uses."""

    chunks: int
    tiles: int
    versions: int
    segments: int
    work: int
    """For requests, what the chunk cache gives way to them included."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Share out ``settings.memory_mb``.

        Raises:
            SettingsError: if the caches leave no room for requests; the message says what would.
        """
        bound = settings.memory_mb * MIB
        chunks, tiles = settings.cache_mb * MIB, settings.tile_cache_mb * MIB
        opened, slack = int(bound * OPENED_SHARE), int(bound * SLACK_SHARE)
        work = bound - PROGRAM - TABLES - 2 * opened - slack - tiles
        if work - chunks < LEAST_WORK:
            fixed = PROGRAM + TABLES + LEAST_WORK
            least = (fixed + chunks + tiles) / (1 - 2 * OPENED_SHARE - SLACK_SHARE)
            raise SettingsError(
                f"CENOTE_MEMORY_MB is {settings.memory_mb}, and a server process with CENOTE_CACHE_MB="
                f"{settings.cache_mb} and CENOTE_TILE_CACHE_MB={settings.tile_cache_mb} needs {-(-int(least) // MIB)}: "
                f"{fixed // MIB} for itself and its smallest requests, those two, and a third of all that for opened "
                "versions and malloc; raise the one or lower the others"
            )
        return cls(chunks=chunks, tiles=tiles, versions=opened, segments=opened, work=work)


class Busy(HTTPException):
    """A request that needs more memory than is free, and waited long enough."""

    def __init__(self) -> None:
        super().__init__(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "requests under way need all the memory that this one would take; please try again",
            headers={"Retry-After": "2"},
        )


class Budget:
    """The memory that all requests of a process may take together; safe to share between threads.

    Args:
        most: bytes.
        spare: of them, those that nothing gives way for.
        give_way: told how many bytes requests take beyond ``spare``.
        waiting: requests that may wait for their turn at a time; more would keep all threads from small requests.
    """

    def __init__(self, most: int, *, spare: int, give_way: Callable[[int], None], waiting: int) -> None:
        self.most = most
        self._spare = spare
        self._give_way = give_way
        self._most_waiting = waiting
        self._changed = threading.Condition()
        self._taken = 0
        self._waiting = 0

    @property
    def taken(self) -> int:
        """Bytes that requests have claimed."""
        return self._taken

    def begin(self) -> "Claim":
        """Begin a request, of which ``need`` is told; whoever begins it ends it by ``Claim.settle(0)``."""
        claim = Claim(self)
        _claim.set(claim)
        return claim

    def take(self, more: int, seconds: float) -> None:
        """Take so many bytes more, as soon as others have given them back.

        Raises:
            Busy: if they do not within ``seconds``, or too many wait already.
        """
        with self._changed:
            if self._taken + more > self.most:
                if self._waiting >= self._most_waiting:
                    raise Busy
                self._waiting += 1
                try:
                    until = time.monotonic() + seconds
                    while self._taken + more > self.most:
                        if not self._changed.wait(until - time.monotonic()):
                            raise Busy
                finally:
                    self._waiting -= 1
            self._add(more)

    def give_back(self, less: int) -> None:
        """Give back so many bytes."""
        with self._changed:
            self._add(-less)
            self._changed.notify_all()

    def _add(self, more: int) -> None:
        before, self._taken = self._taken, self._taken + more
        if max(before, self._taken) > self._spare:
            self._give_way(max(self._taken - self._spare, 0))


class Claim:
    """What one request has taken."""

    __slots__ = ("_budget", "_is_refused", "_taken")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._taken = 0
        self._is_refused = False

    def need(self, count: int) -> None:
        """Hold as many bytes as that at least; see the function of this name."""
        more = count - self._taken
        if count <= SMALL or more <= 0:
            return
        if count > self._budget.most:
            raise RequestTooLarge(
                f"about {count // MIB} MiB of memory would be needed and a request may have "
                f"{self._budget.most // MIB}: ask for less of it, or for it in parts"
            )
        if self._is_refused:
            raise Busy
        try:
            self._budget.take(more, PATIENCE_SECONDS)
        except Busy:
            self._is_refused = True
            raise
        self._taken += more

    def settle(self, count: int) -> None:
        """Hold no more than so many bytes from now on."""
        less = self._taken - count
        if less > 0:
            self._taken = count
            self._budget.give_back(less)


_claim: ContextVar[Claim | None] = ContextVar("claim", default=None)
"""That of the request that a thread works for."""


def need(count: float) -> None:
    """Say that the work of this request will hold so many bytes at its peak, before it begins.

    It is the largest need that counts, not the sum: the steps of a request come one after the other.

    Raises:
        RequestTooLarge: if that is more than all requests may take together.
        Busy: if others do not give it back in time.
    """
    claim = _claim.get()
    if claim is not None:
        claim.need(int(count))


async def watched(bound_mb: int, told: Callable[[int], None]) -> None:
    """Look at what this process takes in memory, again and again, and say in the log when it is too much.

    Args:
        bound_mb: what it may take, MiB.
        told: told the bytes each time.
    """
    said = -WARN_SECONDS
    while True:
        now = resident()
        told(now)
        if now > bound_mb * MIB * TIGHT:
            await asyncio.to_thread(trim)
        if now > bound_mb * MIB and time.monotonic() - said >= WARN_SECONDS:
            said = time.monotonic()
            logger.warning(
                "server process %d takes %d MiB and CENOTE_MEMORY_MB is %d", os.getpid(), now // MIB, bound_mb
            )
        await asyncio.sleep(WATCH_SECONDS)


def resident(process: int | None = None) -> int:
    """Bytes of a process that are in memory, shared libraries among them; 0 where the system does not tell.

    Args:
        process: its id; this one's if None.
    """
    try:
        pages = int(Path(f"/proc/{process or 'self'}/statm").read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * _PAGE


_PAGE = os.sysconf("SC_PAGE_SIZE")


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Of glibc's malloc.h."""

ARENAS = 2

MMAPPED_BYTES = 4 * MIB
"""Larger blocks are given back at once. Chunks and what a tile is drawn with are smaller: with 128 KiB, kept for good,
each of them came as fresh pages, which took longer than drawing."""

TRIMMED_BYTES = 32 * MIB
"""Unused memory at the end of an arena above which it is given back."""


TIGHT = 0.7
"""Share of the bound above which malloc gives back what nobody uses: what is drawn next takes fresh pages then."""


def trim() -> None:
    """Have glibc give back every page that it keeps and nobody uses; does nothing where malloc is another's."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return


def tune_malloc() -> None:
    """Have glibc give memory back; does nothing where malloc is another's, or the operator set it by the environment.

    By itself it keeps an arena for each thread, up to eight for each core, and after the first large block was freed it
    takes blocks of up to 32 MiB from these arenas too, where freed ones stay between those in use.
    """
    told = sorted(name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES")
    if told:
        logger.warning(
            "malloc is left as the environment says (%s); the bound of memory was measured with cenote's own",
            ", ".join(told),
        )
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_ARENA_MAX, ARENAS)
    mallopt(_M_MMAP_THRESHOLD, MMAPPED_BYTES)
    mallopt(_M_TRIM_THRESHOLD, TRIMMED_BYTES)
