"""Values as numbers in JSON and CSV: the places that a value is stored with, and no more.

A packed quantity, or one with a quantum, has the decimals of its step. Others are floats as they were written: a
float32 is told by the shortest decimal that reads back as the same float32 (394.37717, not 394.3771667480469).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from services.core.quantity import Quantity
from tiler.loading import LoadingCache

SMALL_ITEM = 2
"""Bytes of a type of which all values have their text in a table."""

_TABLES: LoadingCache[tuple[Any, ...], NDArray[np.bytes_]] = LoadingCache(8 * 2**20, lambda texts: texts.nbytes)
"""Texts of all values, 0.6 MB for 16 bits, by what decides them."""

MEAN_DECIMALS = 2
"""Places that a mean shows beyond the quantum of its values: many cells know more than one."""


def numbers(quantity: Quantity, stored: NDArray[Any]) -> list[Any]:
    """Stored values as numbers, nested as the array is; NaN where missing, None among whole numbers."""
    if is_whole(quantity):
        whole = stored.astype(object)
        whole[quantity.missing(stored)] = None
        listed: list[Any] = whole.tolist()
        return listed
    return decoded_numbers(quantity, quantity.decode(stored))


def json_writer(quantity: Quantity) -> Callable[[NDArray[Any]], bytes]:
    """What writes a series ``(time,)`` of stored values as the JSON of its ``numbers``, null where missing.

    Values of a small type are looked up in a table of texts, which takes some 40 ms to make; if it had to give way to
    others, they are written one by one.
    """
    texts_of = _table_of(quantity)

    def write(stored: NDArray[Any]) -> bytes:
        texts = texts_of()
        if texts is None:
            return to_json(numbers(quantity, stored), inf_nan_mode="null")
        found: bytes = texts[_bits(stored)].tobytes()
        return b"[" + found.replace(b"\0", b"")[:-1] + b"]"

    return write


def json_rows(quantity: Quantity, stored: NDArray[Any]) -> list[bytes]:
    """The same of each of many series ``(place, time)``."""
    texts = _table_of(quantity)()
    if texts is None:
        return [to_json(row, inf_nan_mode="null") for row in numbers(quantity, stored)]
    count, length = stored.shape
    ended = np.full((count, length + 1), b"\n", dtype=texts.dtype)
    ended[:, :length] = texts[_bits(stored)]
    return [b"[" + row[:-1] + b"]" for row in ended.tobytes().translate(None, b"\0").split(b"\n")[:-1]]


def _table_of(quantity: Quantity) -> Callable[[], NDArray[np.bytes_] | None]:
    """What finds the texts of all values by their bits; None where there are too many of them, or no room."""
    dtype = np.dtype(quantity.dtype)
    if dtype.kind not in "iu" or dtype.itemsize > SMALL_ITEM:
        return lambda: None
    coding = (dtype, quantity.scale_factor, quantity.add_offset, quantity.fill_value, quantity.decimals)
    _TABLES.get(coding, lambda: _texts(quantity, dtype))
    return lambda: _TABLES.use(coding)


def _bits(stored: NDArray[Any]) -> NDArray[Any]:
    return stored.view(f"u{stored.dtype.itemsize}")


def _texts(quantity: Quantity, dtype: np.dtype[Any]) -> NDArray[np.bytes_]:
    """The JSON of each value that can be stored, with a comma, by its bits as an unsigned number."""
    every = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)
    listed: bytes = to_json(numbers(quantity, every), inf_nan_mode="null")
    return np.array([text + b"," for text in listed[1:-1].split(b",")])


def decoded_numbers(quantity: Quantity, values: NDArray[np.floating[Any]]) -> list[Any]:
    """Decoded values, or differences of such, as numbers, nested as the array is; NaN where missing."""
    if quantity.decimals is None and quantity.dtype == "float32" and not quantity.is_packed:
        single = values.astype(np.float32)
        shortest = np.fromiter((float(str(value)) for value in single.flat), dtype=np.float64, count=single.size)
        return rounded(shortest.reshape(single.shape), None)
    return rounded(values, quantity.decimals)


def mean_numbers(quantity: Quantity, values: NDArray[np.float64]) -> list[Any]:
    """Means as numbers; NaN where missing."""
    if quantity.decimals is None:
        return decoded_numbers(quantity, values)
    return rounded(values, quantity.decimals + MEAN_DECIMALS)


def rounded(values: NDArray[np.floating[Any]], decimals: int | None) -> list[Any]:
    """Numbers with so many decimals, nested as the array is; None: with all their digits."""
    exact = values.astype(np.float64)
    listed: list[Any] = (exact if decimals is None else np.round(exact, decimals)).tolist()
    return listed


def is_whole(quantity: Quantity) -> bool:
    """Whether its values are whole numbers."""
    return quantity.is_integer and not quantity.is_packed
