"""JSON bodies of series, which differ in a few places: written once, with numbers for what is to come, and then filled.

What writes whole bodies writes them, so that a filled one is the same to the byte
(tests/tiler/queries/test_fast_series.py). The body of a place's series is mostly its axis of times: to walk through
hundreds of strings takes longer than to copy their bytes.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from services.core.quantity import Quantity
from tiler.coverage import Contents, Source, Spot, encode, series_document
from tiler.numbers import json_writer


class SeriesBody:
    """JSON bodies of the series of one place each, but for where it lies and its values.

    Args:
        contents: what the values are made of.
        is_features: whether they are GeoJSON; else they are CoverageJSON.
    """

    def __init__(self, contents: Contents, *, is_features: bool) -> None:
        holes: dict[bytes, str] = {}

        def hole[T](name: str, shape: Callable[[float], T]) -> T:
            # 17 digits times a power that no quantity on Earth has
            found = shape(1.2345678909876543e300 * (1 + len(holes)))
            holes[encode(found)] = name
            return found

        spot = Spot(
            asked=(hole("asked_x", float), hole("asked_y", float)),
            longitude=hole("x", float),
            latitude=hole("y", float),
            distance_km=hole("distance_km", float),
        )
        source = Source(contents=contents, query=hole("query", lambda value: {"": value}))
        listed = {quantity.name: hole(_values_of(quantity), lambda value: [value]) for quantity in contents.quantities}
        body = encode(series_document(source, spot, listed, is_features=is_features))
        pieces = re.split(b"(" + b"|".join(map(re.escape, holes)) + b")", body)
        self._writers = [(_values_of(quantity), json_writer(quantity)) for quantity in contents.quantities]
        self._first = pieces[0]
        self._rest = [(holes[known], text) for known, text in zip(pieces[1::2], pieces[2::2], strict=True)]

    def around(self, spot: Spot, query: dict[str, Any]) -> dict[str, bytes]:
        """All but the values, for ``filled``."""
        return {
            "asked_x": encode(spot.asked[0]),
            "asked_y": encode(spot.asked[1]),
            "x": encode(spot.longitude),
            "y": encode(spot.latitude),
            "distance_km": encode(round(spot.distance_km, 3)),
            "query": encode(query),
        }

    def filled(self, around: dict[str, bytes], values: Sequence[NDArray[Any]]) -> bytes:
        """A body.

        Args:
            around: what ``around`` gave.
            values: of each quantity in turn, as stored, ``(time,)``.
        """
        known = dict(around)
        for (name, write), stored in zip(self._writers, values, strict=True):
            known[name] = write(stored)
        parts = [self._first]
        for name, text in self._rest:
            parts += known[name], text
        return b"".join(parts)


def _values_of(quantity: Quantity) -> str:
    """The name of a hole; no other one has brackets."""
    return f"[{quantity.name}]"
