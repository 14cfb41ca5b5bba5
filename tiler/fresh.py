"""A value that is read again so often that nobody is told something older than a stated time."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass

from services.core.errors import StoreError, StoreUnavailable

type Clock = Callable[[], float]

PATIENCE_SECONDS = 1.0
"""How long a request waits for a store that hangs before it is answered with what is known."""

RETRY_SECONDS = 1.0
"""A store that failed is not asked again for so long."""


@dataclass(frozen=True, kw_only=True)
class _Outcome[T]:
    """What a read brought."""

    value: T | None
    error: Exception | None
    asked_at: float
    """When the read began: what it brought is at least as new."""


class Fresh[T]:
    """The latest value of something small in the store; safe to share between threads.

    One thread at a time reads it, in the background; once half of ``seconds`` has passed it is read again, so that
    under load nobody waits, and nobody is told a value that was read more than ``seconds`` before the question.

    Args:
        read: reads the value.
        seconds: the oldest that an answer may be.
        clock: monotonic seconds.
        executor: where ``read`` runs.
    """

    def __init__(self, read: Callable[[], T], *, seconds: float, clock: Clock, executor: Executor) -> None:
        self._read = read
        self._seconds = seconds
        self._clock = clock
        self._executor = executor
        self._lock = threading.Lock()
        self._known: _Outcome[T] | None = None
        self._running: Future[None] | None = None
        self._began_at = 0.0
        self._failed_at: float | None = None
        self._failure: StoreError | None = None

    def get(self) -> tuple[T, bool]:
        """The value, and whether it is older than promised because the store does not answer.

        Raises:
            StoreUnavailable: if the store does not answer and nothing is known.
            CenoteError: what the last read found wrong with what is stored.
        """
        asked = self._clock()
        while True:
            known = self._known
            if known is not None and known.asked_at >= asked - self._seconds / 2:
                return _value(known), False
            running = self._refresh()
            if known is not None and known.asked_at >= asked - self._seconds:
                return _value(known), False
            if running is None:  # the store failed a moment ago
                if known is None:
                    failure = self._failure or StoreUnavailable("the store does not answer")
                    raise failure.with_traceback(None)
                return _value(known), True
            if known is None:
                running.result()
            else:
                patience = PATIENCE_SECONDS - (self._clock() - self._began_at)
                if patience <= 0 or not wait([running], timeout=patience).done:
                    return _value(known), True

    def at_once(self) -> tuple[T] | None:
        """The value if it is new enough to be told without waiting; a read begins where it soon will not be.

        Raises:
            CenoteError: what the last read found wrong with what is stored.
        """
        known, asked = self._known, self._clock()
        if known is None or known.asked_at < asked - self._seconds:
            return None
        if known.asked_at < asked - self._seconds / 2:
            self._refresh()
        return (_value(known),)

    def peek(self) -> T | None:
        """The last value that was read, however old; None where there is none."""
        known = self._known
        return None if known is None else known.value

    @property
    def is_failing(self) -> bool:
        """Whether the store failed to answer the last time it was asked."""
        return self._failed_at is not None

    def _refresh(self) -> "Future[None] | None":
        """The read under way, begun now if there was none; None while a failed store is left alone."""
        with self._lock:
            if self._running is not None and not self._running.done():
                return self._running
            now = self._clock()
            if self._failed_at is not None and now - self._failed_at < RETRY_SECONDS:
                return None
            self._began_at = now
            self._running = self._executor.submit(self._once, now)
            return self._running

    def _once(self, asked_at: float) -> None:
        try:
            outcome = _Outcome(value=self._read(), error=None, asked_at=asked_at)
        except StoreError as error:
            with self._lock:
                self._failed_at = self._clock()
                self._failure = error
            return
        except Exception as error:  # noqa: BLE001 - kept, and raised to everyone who asks
            outcome = _Outcome[T](value=None, error=error, asked_at=asked_at)
        with self._lock:
            self._known = outcome
            self._failed_at = None
            self._failure = None


def _value[T](outcome: _Outcome[T]) -> T:
    if outcome.error is not None:
        # the same error for everyone who asks, and not the traces of all who asked before
        raise outcome.error.with_traceback(None)
    return outcome.value  # type: ignore[return-value]  # a value wherever there is no error
