"""What all routes of one app share."""

from dataclasses import dataclass

from fastapi import Request

from services.core.settings import Settings
from services.core.store import Store
from tiler.catalogue import LiveCatalogue
from tiler.chunks import ChunkCache


@dataclass(frozen=True, kw_only=True)
class State:
    """Made once by ``create_app``."""

    settings: Settings
    store: Store
    chunks: ChunkCache
    catalogue: LiveCatalogue


def state_of(request: Request) -> State:
    """The state of the app that a request came to."""
    state: State = request.app.state.cenote
    return state
