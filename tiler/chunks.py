"""Decoded chunks kept between requests, bounded in bytes; keys name the segment, so versions never mix."""

from typing import Any

from numpy.typing import NDArray

from services.core.segment import ChunkKey
from tiler.loading import LoadingCache

ENTRY_BYTES = 400
"""Python's own memory for an entry: the key, the array object and the links between them."""


class ChunkCache(LoadingCache[ChunkKey, NDArray[Any]]):
    """The ``services.core.segment.ChunkCache`` of a server process.

    Args:
        capacity: bytes of decoded values.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity, lambda chunk: int(chunk.nbytes) + ENTRY_BYTES)
