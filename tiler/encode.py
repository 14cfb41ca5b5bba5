"""Pictures as bytes, by the fastest encoders that keep every colour."""

import io
import struct
from functools import lru_cache

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PALETTE, _RGB, _RGBA = 3, 2, 6
"""Colour types of PNG."""

_LEVEL = 1
"""Of isal: no level above makes smooth fields smaller in less than twice the time."""


def palette_png(indices: NDArray[np.uint8], colours: bytes, alpha: bytes) -> bytes:
    """A PNG of one byte a pixel.

    Args:
        indices: ``(y, x)``, numbers of colours.
        colours: red, green and blue of each number, up to 256 times.
        alpha: opacity of the first numbers; those after them are opaque.

    Reference: W3C, Portable Network Graphics (PNG) Specification, third edition, 11.2 and 11.3.1.1.
    """
    height, width = indices.shape
    return _head(width, height, _PALETTE, colours, alpha) + _data(indices)


def rgba_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of ``(y, x, 4)`` or, without opacity, ``(y, x, 3)``."""
    height, width, bands = pixels.shape
    kind = _RGBA if bands == 4 else _RGB
    return _head(width, height, kind, b"", b"") + _data(pixels.reshape(height, width * bands))


def webp(pixels: NDArray[np.uint8]) -> bytes:
    """A lossless WebP of ``(y, x, 4)`` or, without opacity, ``(y, x, 3)``; transparent pixels keep their colour too."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", lossless=True, method=0, quality=0, exact=True)
    return out.getvalue()


@lru_cache(maxsize=256)
def _head(width: int, height: int, kind: int, colours: bytes, alpha: bytes) -> bytes:
    parts = [_SIGNATURE, _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))]
    if colours:
        parts.append(_chunk(b"PLTE", colours))
    if alpha:
        parts.append(_chunk(b"tRNS", alpha))
    return b"".join(parts)


def _data(lines: NDArray[np.uint8]) -> bytes:
    height, length = lines.shape
    filtered = np.empty((height, length + 1), dtype=np.uint8)
    filtered[:, 0] = 0  # each line begins with its filter: none
    filtered[:, 1:] = lines
    return _chunk(b"IDAT", isal_zlib.compress(filtered, _LEVEL)) + _END


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = isal_zlib.crc32(body, isal_zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(body)), kind, body, struct.pack(">I", checksum)))


_END = _chunk(b"IEND", b"")
