"""When a request has been answered 503 for taking too long, the thread that still works for it is told to stop."""

from contextvars import ContextVar


class Request:
    """Whether anybody still waits for a request's answer."""

    __slots__ = ("is_given_up",)

    def __init__(self) -> None:
        self.is_given_up = False


_request: ContextVar[Request | None] = ContextVar("request", default=None)
"""The request that a thread works for: a worker thread runs in a copy of the request's context."""


class GivenUp(Exception):
    """The request was answered already; nobody waits for what is being done."""


def begin() -> Request:
    """Begin a request; whoever gives it up says so in what is returned."""
    request = Request()
    _request.set(request)
    return request


def check() -> None:
    """Return if somebody still waits for the answer; called before each read of chunks.

    Raises:
        GivenUp: if nobody does.
    """
    request = _request.get()
    if request is not None and request.is_given_up:
        raise GivenUp
