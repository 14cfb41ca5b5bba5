"""Decoded chunks and the indexes of shards, kept between requests, bounded in bytes.

Keys name the segment, so that versions never mix.
"""

from collections.abc import Callable, Sequence
from typing import Any, override

from numpy.typing import NDArray

from services.core.segment import ChunkKey
from tiler import deadline
from tiler.loading import LoadingCache

ENTRY_BYTES = 400
"""Python's own memory for an entry: the key, the array object and the links between them."""


class ChunkCache(LoadingCache[ChunkKey, NDArray[Any]]):
    """The ``services.core.segment.ChunkCache`` of a server process: all that a request reads passes through it.

    Args:
        capacity: bytes of decoded values.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity, lambda chunk: int(chunk.nbytes) + ENTRY_BYTES)

    @override
    def get_all(
        self, keys: Sequence[ChunkKey], load: Callable[[Sequence[ChunkKey]], Sequence[NDArray[Any]]]
    ) -> list[NDArray[Any]]:
        """The chunks under some keys; ``load`` makes those that are missing.

        Raises:
            GivenUp: if nobody waits for the request's answer any more. Never within a load, which others may wait for.
        """
        deadline.check()
        return super().get_all(keys, load)

    @override
    def get(self, key: ChunkKey, load: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """What is under one key; within a load others may wait for it, so that it is never given up."""
        return super().get_all([key], lambda _: [load()])[0]
