"""A layer around the routes that answers what is asked for most without going through them.

It answers what it knows how to, with 200 or 304, and leaves everything else to the routes, errors too: whatever it
cannot read or answer is answered by them, as if it were not there. Both give the same answers.
"""

import logging
from abc import ABC, abstractmethod

import anyio.to_thread
from rio_tiler.errors import RioTilerError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from services.core.errors import CenoteError
from tiler.deadline import GivenUp
from tiler.envelope import Coming, Ready, send_ready

_LOG = logging.getLogger(__name__)

LONGEST = 512
"""Characters of a path and query that are looked at: nobody asks for what is asked most in so many words."""


class WouldWait(Exception):
    """Something is not in memory, or takes too long for an event loop."""


class NotMine(Exception):
    """The routes are to answer: something is not as this layer takes it to be."""


class Shortcut[Asked](ABC):
    """Such a layer.

    Args:
        app: what answers everything else.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    @abstractmethod
    def asked(self, scope: Scope) -> Asked | None:
        """What a GET asks for; None where that is not this layer's."""

    @abstractmethod
    def answer(self, asked: Asked, held: str, *, may_wait: bool) -> Ready:
        """The answer.

        Args:
            asked: to what.
            held: an If-None-Match.
            may_wait: whether the store may be read, and time be taken; else an event loop is held up.

        Raises:
            WouldWait: if it may not wait and would have to.
            Exception: any other; the routes answer then.
        """

    def coming(self, asked: Asked, held: str) -> Ready | Coming | None:
        """The answer if nothing has to be waited for, or what waits for it on the event loop.

        Args:
            asked: to what.
            held: an If-None-Match.

        Returns:
            None where a thread has to wait.

        Raises:
            Exception: any; a thread meets it again.
        """
        return self.answer(asked, held, may_wait=False)

    def at_once(self, scope: Scope) -> Ready | Coming | None:
        """The answer to a GET where it can be told without a thread that waits, or what waits for it."""
        asked = self._asked(scope)
        if asked is None:
            return None
        try:
            return self.coming(asked, _held(scope))
        except Exception:  # noqa: BLE001 - who may wait meets it again
            return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for which ``at_once`` knew no answer, or let it pass."""
        asked = self._asked(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        answer = None
        if asked is not None:
            held = _held(scope)
            try:
                answer = await anyio.to_thread.run_sync(lambda: self.answer(asked, held, may_wait=True))
            except (CenoteError, RioTilerError, HTTPException, GivenUp, NotMine):
                pass  # the routes meet it again, and tell it
            except Exception:  # noqa: BLE001 - logged, and the request is answered all the same
                # the routes answer, so nobody would notice a fault of this layer but by its slowness
                _LOG.exception("%s was left to the routes", scope["path"])
        if answer is None:
            await self._app(scope, receive, send)
            return
        await send_ready(answer, scope, send)

    def _asked(self, scope: Scope) -> Asked | None:
        return self.asked(scope) if len(scope["path"]) + len(scope["query_string"]) <= LONGEST else None


def header_of(scope: Scope, wanted: bytes) -> bytes:
    """A header of a request by its name in lower case; empty where it is not given."""
    for name, value in scope["headers"]:
        if name == wanted:
            found: bytes = value
            return found
    return b""


def _held(scope: Scope) -> str:
    return header_of(scope, b"if-none-match").decode("latin-1")
