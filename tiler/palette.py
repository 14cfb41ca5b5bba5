"""From values to colours: numbers of a palette, one of them transparent where values are missing.

A palette has 256 numbers and a colour map needs them all, so that a tile with missing values borrows one: a number
whose colour another has too, else one that the tile does not use. The picture is that of rio-tiler's
``linear_rescale`` and ``apply_cmap``, pixel for pixel.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.quantity import Quantity
from tiler.options import named_colormap

COLOURS = 256
LIKELY_UNUSED = 254
"""The ends of a range are where values beyond it go; next to them fewest are."""

MOST_HIDDEN = 16
"""Numbers of one palette whose tables are kept, a KiB each: nearly always it is one."""

TABLE_BYTES = 2
"""Stored types of so many bytes have few enough values for a table of all."""


@dataclass(frozen=True, kw_only=True)
class Palette:
    """A colour map of 256 colours."""

    colours: NDArray[np.uint8]
    """``(256, 4)``: red, green, blue, opacity."""

    spare: int | None
    """A number that is not needed, because another has the same colour; None if all are."""

    twin: int | None
    """That other number."""

    @cached_property
    def opaque(self) -> tuple[bytes, bytes]:
        """Colours and opacities as PNG wants them, nothing missing."""
        alpha = self.colours[:, 3]
        return self.colours[:, :3].tobytes(), b"" if (alpha == COLOURS - 1).all() else alpha.tobytes()

    @cached_property
    def solid(self) -> tuple[bytes, bytes]:
        """The same without any opacity."""
        return self.colours[:, :3].tobytes(), b""

    def hiding(self, number: int) -> NDArray[np.uint8]:
        """The colours, one of them transparent: a missing pixel has the first colour, as rio-tiler draws it."""
        colours = self.colours.copy()
        colours[number] = (*self.colours[0, :3], 0)
        return colours

    @cached_property
    def _transparent(self) -> dict[int, tuple[bytes, bytes]]:
        return {}

    def transparent(self, number: int) -> tuple[bytes, bytes]:
        """Colours and opacities as PNG wants them, one number transparent."""
        found = self._transparent.get(number)
        if found is None:
            colours = self.hiding(number)
            found = colours[:, :3].tobytes(), colours[:, 3].tobytes()
            if len(self._transparent) < MOST_HIDDEN:
                self._transparent[number] = found
        return found


@cache
def palette(name: str) -> Palette:
    """The palette of a named colour map.

    Raises:
        QueryError: if there is none of that name.
        ValueError: if it has not 256 colours.
    """
    colormap = named_colormap(name)
    if not isinstance(colormap, dict) or sorted(colormap) != list(range(COLOURS)):
        raise ValueError(name)
    colours = np.array([colormap[number] for number in range(COLOURS)], dtype=np.uint8)
    first: dict[bytes, int] = {}
    for number, colour in enumerate(colours):
        twin = first.setdefault(colour.tobytes(), number)
        if twin != number:
            return Palette(colours=colours, spare=number, twin=twin)
    return Palette(colours=colours, spare=None, twin=None)


@dataclass(frozen=True, kw_only=True)
class Painted:
    """Numbers of a palette."""

    numbers: NDArray[np.uint8]
    transparent: int | None = None
    """Number of the missing pixels; None where there are none, or where no number was free."""

    missing: NDArray[np.bool_] | None = None
    """The missing pixels where no number was free."""

    def through(self, spread: Callable[[NDArray[Any]], NDArray[Any]]) -> "Painted":
        """The same, each array made over."""
        missing = None if self.missing is None else spread(self.missing)
        return Painted(numbers=spread(self.numbers), transparent=self.transparent, missing=missing)

    def pixels(self, colours: Palette) -> NDArray[np.uint8]:
        """Red, green, blue and opacity ``(y, x, 4)``."""
        table = colours.colours if self.transparent is None else colours.hiding(self.transparent)
        out: NDArray[np.uint8] = table.view(np.uint32)[:, 0].take(self.numbers).view(np.uint8)
        out = out.reshape(*self.numbers.shape, 4)
        if self.missing is not None:
            out[self.missing, 3] = 0
        return out


class Painter:
    """Draws the values of one quantity over one range in one palette.

    Args:
        quantity: how stored values are read; None if only decoded ones are drawn.
        ranged: values of the first and the last colour.
        colours: the palette.
        is_masked: whether missing pixels are transparent; else they have the first colour.
    """

    def __init__(
        self, quantity: Quantity | None, ranged: tuple[float, float], colours: Palette, *, is_masked: bool = True
    ) -> None:
        self.palette = colours
        self._ranged = ranged
        self._is_masked = is_masked
        self._guess = 0 if not is_masked else LIKELY_UNUSED if colours.spare is None else colours.spare
        self.has_table = False
        """Whether stored values can be drawn without being decoded."""

        self._table: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)
        if quantity is not None and quantity.is_integer and quantity.fill.dtype.itemsize <= TABLE_BYTES:
            self._fill = quantity.fill
            self._unsigned = np.dtype(f"u{self._fill.dtype.itemsize}")
            every = np.arange(1 << (8 * self._unsigned.itemsize), dtype=self._unsigned).view(self._fill.dtype)
            self._table = self._numbers(quantity.decode(every))
            self._table[quantity.missing(every)] = self._guess
            self.has_table = True

    @property
    def bytes(self) -> int:
        """Memory."""
        return 1000 + self._table.nbytes

    def stored(self, values: NDArray[np.generic]) -> Painted:
        """Draw stored values, contiguous; ``has_table`` holds."""
        numbers: NDArray[np.uint8] = self._table.take(values.view(self._unsigned), mode="clip")
        if not self._is_masked:
            return Painted(numbers=numbers)
        missing = values == self._fill
        if not missing.any():
            return Painted(numbers=numbers)
        if self.palette.spare is not None or np.count_nonzero(numbers == self._guess) == np.count_nonzero(missing):
            return Painted(numbers=numbers, transparent=self._guess)
        return self._with_free_number(numbers, missing)

    def decoded(self, values: NDArray[np.floating]) -> Painted:
        """Draw decoded values; NaN is missing."""
        missing = np.isnan(values)
        if not missing.any():
            return Painted(numbers=self._numbers(values))
        numbers = self._numbers(np.where(missing, self._ranged[0], values))
        if not self._is_masked:
            numbers[missing] = 0
            return Painted(numbers=numbers)
        return self._with_free_number(numbers, missing)

    def _numbers(self, values: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Numbers of the colours of values that are not missing; missing ones may be anything.

        Rounded where rio-tiler rounds: each step in float64, the outcome in the type of the values.
        """
        low, high = self._ranged
        with np.errstate(invalid="ignore"):
            scaled = np.clip(values, low, high, dtype=np.float64)
            scaled -= low
            scaled /= np.float64(high - low)
            scaled *= COLOURS - 1
            numbers: NDArray[np.uint8] = scaled.astype(values.dtype, copy=False).astype(np.uint8)
        if self.palette.spare is not None and self.palette.twin is not None:
            numbers[numbers == self.palette.spare] = self.palette.twin
        return numbers

    def _with_free_number(self, numbers: NDArray[np.uint8], missing: NDArray[np.bool_]) -> Painted:
        spare = self.palette.spare
        if spare is None:
            numbers[missing] = numbers.flat[missing.argmin()]  # what is missing uses none of its own
            used = numbers.tobytes()
            spare = next((number for number in range(COLOURS) if used.find(number) < 0), None)
        if spare is None:
            numbers[missing] = 0
            return Painted(numbers=numbers, missing=missing)
        numbers[missing] = spare
        return Painted(numbers=numbers, transparent=spare)
