"""The codecs of the sweep, and what they make of blocks of values: bytes, time to write, time to read."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numcodecs.blosc
import numpy as np
from numcodecs import Blosc, Delta, Zstd
from numpy.typing import NDArray

from tests.bench.layouts.timing import medians

# Blosc's own threads would hide their time from the thread that is measured.
numcodecs.blosc.use_threads = False

VALUES = 262_144
"""Decoding times are told for so many values, 512 x 512."""

TODAY = "blosc zstd 5 bitshuffle"
"""What services.core.shards writes."""

type Decode = Callable[[bytes, np.dtype[Any]], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A way from contiguous values to bytes and back."""

    name: str
    encode: Callable[[NDArray[Any]], bytes]
    decode: Decode
    """Gives the values, flat."""


@dataclass(frozen=True, kw_only=True)
class Coded:
    """What a codec made of blocks."""

    raw: int
    """Bytes before."""

    stored: int
    write_ms: float
    """CPU, all blocks."""

    read_ms: float
    """CPU, all blocks."""

    values: int
    blocks: int

    @property
    def share(self) -> float:
        """Stored share of the decoded bytes."""
        return self.stored / self.raw

    @property
    def write_speed(self) -> float:
        """Decoded MB written per second of CPU."""
        return self.raw / 1e3 / self.write_ms

    @property
    def decode_ms(self) -> float:
        """CPU milliseconds to decode 262 144 values."""
        return self.read_ms * VALUES / self.values


def has_pcodec() -> bool:
    """Whether pcodec can be imported; it is none of the project's dependencies."""
    return importlib.util.find_spec("pcodec") is not None


def codecs() -> list[Codec]:
    """All codecs that are installed."""
    found = [
        _bytes_codec(f"blosc {kind} {level} {name}", Blosc(cname=kind, clevel=level, shuffle=shuffle))
        for kind, levels in (("zstd", (1, 3, 5, 7)), ("lz4", (5,)))
        for level in levels
        for name, shuffle in (("bitshuffle", Blosc.BITSHUFFLE), ("shuffle", Blosc.SHUFFLE))
    ]
    found += [_bytes_codec(f"zstd {level}", Zstd(level=level)) for level in (3, 9)]
    found += [
        _after_delta("delta + blosc zstd 5 bitshuffle", Blosc(cname="zstd", clevel=5, shuffle=Blosc.BITSHUFFLE)),
        _after_delta("delta + blosc zstd 5 shuffle", Blosc(cname="zstd", clevel=5, shuffle=Blosc.SHUFFLE)),
        _after_delta("delta + zstd 3", Zstd(level=3)),
    ]
    if has_pcodec():
        from numcodecs.pcodec import PCodec  # noqa: PLC0415 - cannot be imported where pcodec is not installed

        for level in (4, 8):
            codec = PCodec(level=level)
            found.append(Codec(name=f"pcodec {level}", encode=codec.encode, decode=partial(_typed, codec)))
    return found


WANTED_BLOCK = 2**18
"""Bytes of a block, about: what Blosc chooses itself at level 5."""


def blosc(level: int, shuffle: str, block: int = 0) -> Blosc:
    """Blosc over zstd; ``shuffle`` is ``bitshuffle`` or ``shuffle``; blocks of so many bytes, 0: its own choice."""
    which = Blosc.BITSHUFFLE if shuffle == "bitshuffle" else Blosc.SHUFFLE
    return Blosc(cname="zstd", clevel=level, shuffle=which, blocksize=block)


class Fitted:
    """Blosc zstd 5 bitshuffle with blocks that are cut to the chunk.

    Blosc shuffles the bits of a block only if its values are a multiple of eight, and copies it else (test_layouts.py).
    With blocks of its own choice, 256 KiB, the last block is left as it is if the chunk is no such multiple, often a
    third of the chunk or all of it; here a few values are.
    """

    def encode(self, values: NDArray[Any]) -> bytes:
        """Values to bytes."""
        group = 8 * values.dtype.itemsize
        count = max(1, round(values.nbytes / WANTED_BLOCK))
        return bytes(blosc(5, "bitshuffle", values.nbytes // count // group * group).encode(values))

    def decode(self, body: bytes) -> bytes:
        """Bytes of the values; a body says itself how it is cut."""
        return bytes(Blosc().decode(body))


def aligned_codecs() -> list[Codec]:
    """What may answer to chunks whose values are no multiple of eight."""
    return [
        _bytes_codec(TODAY, blosc(5, "bitshuffle")),
        _bytes_codec(f"{TODAY}, fitted", Fitted()),
        _bytes_codec("blosc zstd 3 bitshuffle", blosc(3, "bitshuffle")),
        _bytes_codec("blosc zstd 5 shuffle", blosc(5, "shuffle")),
        _bytes_codec("blosc zstd 3 shuffle", blosc(3, "shuffle")),
    ]


def chosen(names: Sequence[str]) -> list[Codec]:
    """Some codecs by name; those that are not installed are left out."""
    return [codec for codec in codecs() if codec.name in names]


def coded(blocks: Sequence[NDArray[Any]], using: Sequence[Codec], repeats: int = 3) -> dict[str, Coded]:
    """Encode and decode blocks with some codecs, in turns.

    Raises:
        ValueError: if a codec does not give back what it was given.
    """
    dtype = blocks[0].dtype
    bodies = {codec.name: [bytes(codec.encode(block)) for block in blocks] for codec in using}
    for codec in using:
        for body, block in zip(bodies[codec.name], blocks, strict=True):
            if codec.decode(body, dtype).tobytes() != block.tobytes():
                raise ValueError(f"{codec.name} does not give back a block of {block.shape} {dtype}")
    writing = medians({c.name: partial(_write, c, blocks) for c in using}, repeats)
    reading = medians({c.name: partial(_read, c, bodies[c.name], dtype) for c in using}, repeats)
    return {
        codec.name: Coded(
            raw=sum(block.nbytes for block in blocks),
            stored=sum(map(len, bodies[codec.name])),
            write_ms=writing[codec.name],
            read_ms=reading[codec.name],
            values=sum(block.size for block in blocks),
            blocks=len(blocks),
        )
        for codec in using
    }


def _write(codec: Codec, blocks: Sequence[NDArray[Any]]) -> None:
    for block in blocks:
        codec.encode(block)


def _read(codec: Codec, bodies: Sequence[bytes], dtype: np.dtype[Any]) -> None:
    for body in bodies:
        codec.decode(body, dtype)


def _bytes_codec(name: str, codec: Any) -> Codec:
    return Codec(name=name, encode=codec.encode, decode=partial(_viewed, codec))


def _viewed(codec: Any, body: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.frombuffer(codec.decode(body), dtype=dtype)


def _typed(codec: Any, body: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    values: NDArray[Any] = codec.decode(body)
    return values.view(dtype).reshape(-1)


def _after_delta(name: str, codec: Any) -> Codec:
    """Differences of neighbours in memory order first; floats are seen as whole numbers, so that nothing is lost."""
    return Codec(name=name, encode=partial(_differences, codec), decode=partial(_summed, codec))


def _differences(codec: Any, values: NDArray[Any]) -> bytes:
    whole = np.dtype(f"i{values.dtype.itemsize}")
    return bytes(codec.encode(Delta(dtype=whole).encode(values.view(whole).reshape(-1))))


def _summed(codec: Any, body: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    whole = np.dtype(f"i{dtype.itemsize}")
    values: NDArray[Any] = Delta(dtype=whole).decode(np.frombuffer(codec.decode(body), dtype=whole))
    return values.view(dtype)
