"""When a request has been answered 503 for taking too long, the thread that still works for it is told to stop."""

import threading
from contextvars import ContextVar

_given_up: ContextVar[threading.Event | None] = ContextVar("given_up", default=None)
"""Of the request that a thread works for: a worker thread runs in a copy of the request's context."""


class GivenUp(Exception):
    """The request was answered already; nobody waits for what is being done."""


def begin() -> threading.Event:
    """Begin a request; whoever gives it up sets the event."""
    event = threading.Event()
    _given_up.set(event)
    return event


def check() -> None:
    """Return if somebody still waits for the answer; called before each read of chunks.

    Raises:
        GivenUp: if nobody does.
    """
    event = _given_up.get()
    if event is not None and event.is_set():
        raise GivenUp
