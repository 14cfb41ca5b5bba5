"""How the stored values of a source become the stored values of a quantity, losing nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import DeclarationError, InputRefused
from services.core.quantity import Quantity

_WIDER = {
    "int8": "int16",
    "uint8": "int16",
    "int16": "int32",
    "uint16": "int32",
    "int32": "int64",
    "uint32": "int64",
    "int64": "int64",
    "uint64": "int64",
}
_KEPT = {"uint32": "int64", "uint64": "int64"}
"""Types that storage does not have."""

MARGIN = 4
"""A 16-bit quantum type must hold this many times the span of a sample."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """What a source says about its stored values."""

    dtype: str
    """numpy name of the type as read, in the machine's byte order."""

    unsigned: bool = False
    """Whether signed whole numbers are to be read as unsigned ones (``_Unsigned``)."""

    missing: tuple[float | int, ...] = ()
    """Stored values that mean missing, the first one preferred; NaN always does."""

    scale_factor: float | None = None
    add_offset: float | None = None

    valid_minimum: float | int | None = None
    """Stored values below are missing."""

    valid_maximum: float | int | None = None
    """Stored values above are missing."""

    @property
    def raw(self) -> np.dtype[Any]:
        """The type that stored values are understood in."""
        dtype = np.dtype(self.dtype)
        if dtype.kind == "b":
            return np.dtype(np.int8)
        return np.dtype(f"u{dtype.itemsize}") if self.unsigned and dtype.kind == "i" else dtype

    @property
    def scaled(self) -> bool:
        """Whether stored values are not the values themselves."""
        return self.scale_factor is not None or self.add_offset is not None

    def read(self, values: NDArray[Any]) -> NDArray[Any]:
        """Stored values in ``raw``."""
        if np.dtype(self.dtype).kind == "b":
            return values.astype(np.int8)
        return values.view(self.raw) if values.dtype != self.raw else values

    def is_missing(self, raw: NDArray[Any]) -> NDArray[np.bool_]:
        """Where values of ``raw`` are missing."""
        mask = np.isnan(raw) if raw.dtype.kind == "f" else np.zeros(raw.shape, dtype=np.bool_)
        for value in self.missing:
            mask |= raw == raw.dtype.type(value)
        with np.errstate(invalid="ignore"):
            if self.valid_minimum is not None:
                mask |= raw < self.valid_minimum
            if self.valid_maximum is not None:
                mask |= raw > self.valid_maximum
        return mask

    def decode(self, raw: NDArray[Any]) -> NDArray[np.float64]:
        """Values as float64, ``stored * scale_factor + add_offset``, NaN where missing."""
        with np.errstate(invalid="ignore", over="ignore"):  # signalling NaN, and what a packing makes of fill values
            values = raw.astype(np.float64)
            if self.scale_factor is not None:
                values *= self.scale_factor
            if self.add_offset is not None:
                values += self.add_offset
        values[self.is_missing(raw)] = np.nan
        return values


@dataclass(frozen=True, kw_only=True)
class Target:
    """How a quantity is stored, and why."""

    dtype: str
    scale_factor: float | None
    add_offset: float | None
    fill_value: int | None
    fact: str
    """One sentence for people."""


def target(packings: Sequence[Packing]) -> Target:
    """The lossless type that holds the values of all packings, which are of one stored type."""
    first = packings[0]
    kind = first.raw
    if kind.kind == "f":
        if any(packing.scaled for packing in packings):
            return _decoded(f"{kind} with a scale is decoded to float64")
        dtype = "float32" if kind.itemsize <= 4 else "float64"
        return Target(
            dtype=dtype,
            scale_factor=None,
            add_offset=None,
            fill_value=None,
            fact=f"{dtype}, missing is {_told(packings)}",
        )
    scales = {(packing.scale_factor, packing.add_offset) for packing in packings}
    if len(scales) > 1:
        return _decoded(f"{kind} with {len(scales)} different packings is decoded to float64")
    if first.scale_factor is not None and first.scale_factor <= 0:
        return _decoded(f"{kind} with a scale factor of {first.scale_factor:g} is decoded to float64")
    packed = (
        ""
        if not first.scaled
        else f", packed with scale {first.scale_factor or 1.0:g}, offset {first.add_offset or 0.0:g}"
    )
    common = [value for value in first.missing if all(value in packing.missing for packing in packings)]
    if common:
        return Target(
            dtype=_KEPT.get(kind.name, kind.name),
            scale_factor=first.scale_factor,
            add_offset=first.add_offset,
            fill_value=int(common[0]),
            fact=f"{kind} as stored{packed}, missing is {_told(packings)}",
        )
    wider = _WIDER[kind.name]
    fill = int(np.iinfo(wider).min)
    why = "no one value is missing in all files" if any(packing.missing for packing in packings) else "none is missing"
    widened = "" if wider == kind.name else f" widened to {wider}"
    return Target(
        dtype=wider,
        scale_factor=first.scale_factor,
        add_offset=first.add_offset,
        fill_value=fill,
        fact=f"{kind}{widened}{packed} ({why}; {fill} stands for missing)",
    )


def quantised(quantum: float, low: float | None, high: float | None) -> Target:
    """Whole multiples of ``quantum``: 16 bit where they hold a sample's span ``MARGIN`` times, else 32 bit."""
    fact = f"repacked in steps of {quantum:g} (--quantum)"
    if low is not None and high is not None:
        centre = (low + high) / 2
        reach = max((high - low) * MARGIN / 2, quantum) / quantum
        limit = np.iinfo(np.int16).max
        for offset in (0.0, _round_multiple(centre, quantum)):
            if abs(centre - offset) / quantum + reach < limit:
                return Target(
                    dtype="int16",
                    scale_factor=quantum,
                    add_offset=offset or None,
                    fill_value=int(np.iinfo(np.int16).min),
                    fact=f"{fact} as int16" + (f", offset {offset:g}" if offset else ""),
                )
    return Target(
        dtype="int32",
        scale_factor=quantum,
        add_offset=None,
        fill_value=int(np.iinfo(np.int32).min),
        fact=f"{fact} as int32",
    )


def convert(name: str, values: NDArray[Any], packing: Packing, quantity: Quantity) -> NDArray[Any]:
    """Values as read from a file to stored values of a quantity.

    Args:
        name: the file, for messages.
        values: as ``Opened.read`` gives them; masked ones are missing too.
        packing: what the file says about them.
        quantity: what they become.

    Raises:
        InputRefused: if a value does not fit, or would read as missing.
    """
    if isinstance(values, np.ma.MaskedArray):
        stored = convert(name, np.asarray(values.data), packing, quantity)
        stored[np.ma.getmaskarray(values)] = quantity.fill
        return stored
    raw = packing.read(values)
    if (
        quantity.is_integer
        and (quantity.scale_factor, quantity.add_offset)
        == (
            packing.scale_factor,
            packing.add_offset,
        )
        and raw.dtype.kind != "f"
    ):
        return _kept(name, raw, packing, quantity)
    decoded = packing.decode(raw) if packing.scaled or raw.dtype.kind != "f" else _plain(raw, packing)
    if not quantity.is_integer:
        return decoded.astype(quantity.dtype, copy=False)
    try:
        return quantity.pack(decoded)
    except DeclarationError as error:
        raise InputRefused(f"{name}: {error}; a larger --quantum holds it") from None


def representable(value: Any, dtype: np.dtype[Any]) -> float | int | None:
    """A missing value as the stored type has it; None where the type cannot hold it, so that nothing equals it."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if math.isnan(number):
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            cast = float(dtype.type(value))
        return cast if math.isfinite(cast) or math.isinf(number) else None
    if not number.is_integer():
        return None
    whole = int(value)
    info = np.iinfo(dtype)
    if info.min <= whole <= info.max:
        return whole
    # a signed -1 in an unsigned attribute and the other way round is the same bits
    return None


def _plain(raw: NDArray[Any], packing: Packing) -> NDArray[Any]:
    with np.errstate(invalid="ignore"):
        values = raw.astype(np.float32 if raw.dtype.itemsize <= 4 else np.float64)
    values[packing.is_missing(raw)] = np.nan
    return values


def _kept(name: str, raw: NDArray[Any], packing: Packing, quantity: Quantity) -> NDArray[Any]:
    mask = packing.is_missing(raw)
    if raw.dtype == np.uint64 and raw.size and int(raw[~mask].max(initial=0)) > np.iinfo(np.int64).max:
        raise InputRefused(f"{name}: a value of {int(raw[~mask].max())} is too large for int64")
    stored = raw.astype(quantity.dtype)
    if ((stored == quantity.fill) & ~mask).any():
        raise InputRefused(f"{name}: the value {quantity.fill_value} would read as missing")
    stored[mask] = quantity.fill
    return stored


def _decoded(fact: str) -> Target:
    return Target(dtype="float64", scale_factor=None, add_offset=None, fill_value=None, fact=fact)


def _told(packings: Sequence[Packing]) -> str:
    first = packings[0]
    told = [f"{value:g}" for value in first.missing]
    if first.raw.kind == "f":
        told.append("NaN")
    if first.valid_minimum is not None or first.valid_maximum is not None:
        low = "" if first.valid_minimum is None else f"{first.valid_minimum:g}"
        high = "" if first.valid_maximum is None else f"{first.valid_maximum:g}"
        told.append(f"what lies outside the declared valid range {low}..{high}")
    return " and ".join(told)


def _round_multiple(value: float, quantum: float) -> float:
    # a round decimal that is also a whole multiple of the quantum, so that the offset adds no step of its own
    power = 10 ** max(0, math.floor(math.log10(abs(value)) - 1)) if abs(value) >= 1 else 1
    unit = quantum * max(1, round(power / quantum))
    return float(round(value / unit) * unit)
