"""Zarr v3 shards as bytes: the ``sharding_indexed`` codec over blosc and crc32c, written and read by ourselves.

zarr-python reads what is written here and writes what is read here (tests/core/test_shards.py); ours keeps every
shard object present, puts chunks in row order so that equal values give equal bytes, and reads a chunk with an index
that may have come from elsewhere.

Reference: Zarr sharding codec, https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import google_crc32c
import numcodecs.blosc
import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from services.core.errors import Damaged

ABSENT = np.uint64(2**64 - 1)
"""Offset and length in an index of a chunk that holds nothing but the missing value."""

CRC_BYTES = 4

BLOSC_HEADER = 16
"""Bytes."""

# In a main thread numcodecs would let blosc's threads write their blocks in the order they happen to finish: equal
# values would give other bytes each time.
numcodecs.blosc.use_threads = False

COMPRESSOR, COMPRESSION_LEVEL = "zstd", 5

BLOCK_BYTES = 2**18
"""Bytes of a block of Blosc, about."""

type Shape3 = tuple[int, int, int]


def shuffle_of(dtype: np.dtype[Any]) -> str:
    """How the bytes of a chunk are sorted before they are compressed, by its name in Zarr (decision 0010)."""
    return "shuffle" if dtype.kind == "f" else "bitshuffle"


def block_bytes(dtype: np.dtype[Any], chunk: Shape3) -> int:
    """Bytes of a block of Blosc, so that blocks of whole groups of eight values fill the chunk but for a few values.

    Blosc shuffles the bits of a block only if its values are a multiple of eight, and copies it else. With blocks of
    its own choice the last third of a chunk of 450 x 450 is copied (decision 0010).
    """
    group, size = 8 * dtype.itemsize, int(np.prod(chunk)) * dtype.itemsize
    return size // max(1, round(size / BLOCK_BYTES)) // group * group


@cache
def _coder(dtype: np.dtype[Any], chunk: Shape3) -> Blosc:
    shuffle = {"shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}[shuffle_of(dtype)]
    return Blosc(cname=COMPRESSOR, clevel=COMPRESSION_LEVEL, shuffle=shuffle, blocksize=block_bytes(dtype, chunk))


def encode_shard(values: NDArray[Any], shard: Shape3, chunk: Shape3, fill: np.generic) -> bytes:
    """A shard object.

    Args:
        values: ``(time, y, x)``, at most ``shard`` large; what lies beyond it is missing.
        shard: shape of the shard.
        chunk: shape of an inner chunk, a divisor of ``shard``.
        fill: the missing value, of the array's type; NaN for floats.

    Returns:
        The chunks in row order, then the index and its crc32c. A chunk of nothing but ``fill`` is left out.
    """
    parts: list[bytes] = []
    counts = tuple(s // c for s, c in zip(shard, chunk, strict=True))
    index = np.full((int(np.prod(counts)), 2), ABSENT, dtype="<u8")
    offset = 0
    coder = _coder(values.dtype, chunk)
    is_nan = bool(fill != fill)  # noqa: PLR0124 - only NaN differs from itself
    for number, corner in enumerate(np.ndindex(*counts)):
        piece = values[tuple(slice(i * c, (i + 1) * c) for i, c in zip(corner, chunk, strict=True))]
        if piece.size == 0 or bool((np.isnan(piece) if is_nan else piece == fill).all()):
            continue
        if piece.shape != chunk:
            whole = np.full(chunk, fill, dtype=values.dtype)
            whole[tuple(slice(0, n) for n in piece.shape)] = piece
            piece = whole
        coded = bytes(coder.encode(np.ascontiguousarray(piece)))
        coded += google_crc32c.value(coded).to_bytes(CRC_BYTES, "little")
        index[number] = (offset, len(coded))
        parts.append(coded)
        offset += len(coded)
    footer = index.tobytes()
    return b"".join([*parts, footer, google_crc32c.value(footer).to_bytes(CRC_BYTES, "little")])


def index_length(shard: Shape3, chunk: Shape3) -> int:
    """Bytes of the index with its checksum at the end of a shard."""
    return 16 * int(np.prod([s // c for s, c in zip(shard, chunk, strict=True)])) + CRC_BYTES


def decode_index(key: str, footer: bytes) -> NDArray[np.uint64]:
    """The index, ``(chunks, 2)``: offset and length, ``ABSENT`` twice where a chunk is left out.

    Raises:
        Damaged: if its checksum does not hold.
    """
    body, crc = footer[:-CRC_BYTES], footer[-CRC_BYTES:]
    if google_crc32c.value(body) != int.from_bytes(crc, "little"):
        raise Damaged(key, "the checksum of its index does not hold")
    return np.frombuffer(body, dtype="<u8").reshape(-1, 2)


def decode_chunk(
    key: str, coded: bytes, chunk: Shape3, dtype: np.dtype[Any], out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """The values of a chunk, ``chunk`` large, read-only.

    Args:
        key: of the shard, for messages.
        coded: the chunk as stored.
        chunk: its shape.
        dtype: its type.
        out: where the values are written and answered from, instead of into memory of their own.

    Raises:
        Damaged: if its checksum does not hold or it decodes to another size.
    """
    body, crc = coded[:-CRC_BYTES], coded[-CRC_BYTES:]
    if google_crc32c.value(body) != int.from_bytes(crc, "little"):
        raise Damaged(key, "the checksum of a chunk does not hold")
    wanted = math.prod(chunk) * dtype.itemsize
    if len(body) < BLOSC_HEADER:
        raise Damaged(key, f"a chunk cannot be decoded (it is cut short to {len(body)} bytes)")
    # Blosc's header holds the size; what is given to decode into may be larger without a word
    said = int.from_bytes(body[4:8], "little")
    if said != wanted:
        raise Damaged(key, f"a chunk holds {said} bytes and not {wanted}")
    try:
        # not by the codec's class, which looks at what it is given for as long as it takes to decode it
        raw = numcodecs.blosc.decompress(body, out)
    except (RuntimeError, ValueError) as error:
        raise Damaged(key, f"a chunk cannot be decoded ({error})") from None
    return np.frombuffer(raw, dtype=dtype).reshape(chunk) if out is None else out


def shard_chunks(shard: Shape3, chunk: Shape3) -> Iterator[tuple[int, int, int]]:
    """Chunk positions inside a shard in the order of the index."""
    yield from np.ndindex(*(s // c for s, c in zip(shard, chunk, strict=True)))
