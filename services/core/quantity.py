"""What is measured: one CF variable, how it is stored and what its missing value is."""

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from services.core.errors import DeclarationError
from services.core.style import Style

type Role = Literal["value", "uncertainty", "count", "flag"]

_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,62}$")
_TAKEN = frozenset({"time", "time_bnds", "mask_time", "bnds", "y", "x", "spatial_ref"})
"""Names of the coordinates beside it in storage."""

_OWN_ATTRIBUTES = frozenset(
    {"units", "standard_name", "long_name", "cell_methods", "grid_mapping", "coordinates", "ancillary_variables"}
    | {"scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "dtype"}
)
"""Attributes that say how values are stored and read: fields of their own, or written by the pipeline."""

_EXTRA_DECIMALS = 3
"""Decimal places beyond the first digit of a step that no decimal writes exactly, such as 1/3."""

_DTYPES = frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"})


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One CF variable of a product.

    A *stored* array holds ``dtype`` with ``fill_value`` where a value is missing; a *decoded* one holds floats,
    ``stored * scale_factor + add_offset``, with NaN where a value is missing.

    Raises:
        DeclarationError: if the description contradicts itself.
    """

    name: str
    """Variable name in Zarr and COG keys and in URLs."""

    units: str
    """UDUNITS string; ``1`` where there is none."""

    long_name: str
    """For people."""

    standard_name: str | None = None
    """CF standard name, where there is one."""

    dtype: str = "float32"
    """numpy name of the stored type."""

    scale_factor: float | None = None
    """CF packing; None where values are stored as they are."""

    add_offset: float | None = None
    """CF packing; None where values are stored as they are."""

    fill_value: float | int | None = None
    """Stored value that means missing; None is NaN and goes with a float type only."""

    quantum: float | None = None
    """Smallest step worth telling, in ``units``; JSON numbers are rounded to it. None: as stored."""

    cell_methods: str = "time: mean area: mean"
    """CF cell methods."""

    role: Role = "value"
    """What it is to the product."""

    ancillary_of: str | None = None
    """Name of the quantity that this one qualifies (its uncertainty, count or flag)."""

    style: Style | None = None
    """How it is drawn; None: from the values at publish."""

    attributes: dict[str, str | float | int] = field(default_factory=dict)
    """Further CF attributes, kept as they came."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.endswith("_valid_fraction"):
            raise DeclarationError(f"{self.name!r} cannot be the name of a quantity (letters, digits and _)")
        if self.name in _TAKEN:
            raise DeclarationError(f"{self.name!r} cannot be the name of a quantity: a coordinate has it")
        if self.dtype not in _DTYPES:
            raise DeclarationError(f"{self.name}: {self.dtype!r} is not one of {', '.join(sorted(_DTYPES))}")
        if not self.units:
            raise DeclarationError(f"{self.name}: a unit is missing ('1' where there is none)")
        if self.is_integer:
            if self.fill_value is None or not float(self.fill_value).is_integer():
                raise DeclarationError(f"{self.name}: {self.dtype} needs a whole fill value, not {self.fill_value}")
            info = np.iinfo(self.dtype)
            if not info.min <= self.fill_value <= info.max:
                raise DeclarationError(f"{self.name}: fill value {self.fill_value} does not fit {self.dtype}")
        elif self.fill_value is not None:
            raise DeclarationError(f"{self.name}: a float is missing where it is NaN, not {self.fill_value}")
        self._check_packing()
        for name, value in self.attributes.items():
            if name in _OWN_ATTRIBUTES or (isinstance(value, float) and not np.isfinite(value)):
                raise DeclarationError(f"{self.name}: {name} = {value} cannot be one of the further attributes")
        if self.ancillary_of == self.name:
            raise DeclarationError(f"{self.name} cannot qualify itself")

    def _check_packing(self) -> None:
        if self.scale_factor is not None and not (np.isfinite(self.scale_factor) and self.scale_factor > 0):
            raise DeclarationError(f"{self.name}: scale_factor must be positive, not {self.scale_factor}")
        if self.add_offset is not None and not np.isfinite(self.add_offset):
            raise DeclarationError(f"{self.name}: add_offset must be finite, not {self.add_offset}")
        if self.quantum is not None and not (np.isfinite(self.quantum) and self.quantum > 0):
            raise DeclarationError(f"{self.name}: quantum must be positive, not {self.quantum}")

    @property
    def is_integer(self) -> bool:
        """Whether the stored type is a whole number."""
        return np.dtype(self.dtype).kind in "iu"

    @property
    def is_packed(self) -> bool:
        """Whether stored values are scaled."""
        return self.scale_factor is not None or self.add_offset is not None

    @property
    def fill(self) -> np.generic:
        """The missing value as a scalar of the stored type."""
        value = np.nan if self.fill_value is None else self.fill_value
        scalar: np.generic = np.dtype(self.dtype).type(value)
        return scalar

    @property
    def decimals(self) -> int | None:
        """Decimal places that write every multiple of the quantum, and the offset; None where all digits count."""
        step = self.quantum or ((self.scale_factor or 1.0) if self.is_integer else None)
        if step is None:
            return None
        most = max(0, int(np.ceil(-np.log10(step) - 1e-9))) + _EXTRA_DECIMALS
        # a thousandth of a step more or less in the offset is not worth a digit; in the step it would add up
        return max(_decimals_of(step, most, step * 1e-9), _decimals_of(self.add_offset or 0.0, most, step * 1e-3))

    def missing(self, stored: NDArray[Any]) -> NDArray[np.bool_]:
        """Where a stored array is missing."""
        if self.fill_value is None:
            return np.isnan(stored)
        mask: NDArray[np.bool_] = stored == self.fill
        return mask

    def decode(self, stored: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Stored to decoded: float64 for packed or whole numbers, the float type as it is otherwise; NaN is missing."""
        if not self.is_integer and not self.is_packed:
            return stored
        values = stored.astype(np.float64)
        if self.scale_factor is not None:
            values *= self.scale_factor
        if self.add_offset is not None:
            values += self.add_offset
        if self.fill_value is not None:
            values[stored == self.fill] = np.nan
        return values

    def pack(self, values: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """Decoded to stored, rounding to the nearest step; NaN becomes the missing value.

        Raises:
            DeclarationError: if a value does not fit the stored type, is infinite, or would read as missing.
        """
        dtype = np.dtype(self.dtype)
        if np.isinf(values).any():
            raise DeclarationError(f"{self.name}: an infinite value cannot be stored")
        scaled = values.astype(np.float64)
        with np.errstate(over="ignore"):  # what overflows does not fit, which is said below
            if self.add_offset is not None:
                scaled = scaled - self.add_offset
            if self.scale_factor is not None:
                scaled = scaled / self.scale_factor
        missing = np.isnan(values)
        if not self.is_integer:
            bad = np.abs(scaled) > np.finfo(dtype).max
            whole = np.where(bad, 0.0, scaled)
        else:
            whole = np.rint(scaled)
            info = np.iinfo(dtype)
            # the largest int64 is no float: the next one is the first that does not fit
            bad = ~missing & ((whole < float(info.min)) | (whole >= float(info.max) + 1) | (whole == float(self.fill)))
        if bad.any():
            raise DeclarationError(
                f"{self.name}: value {float(values[bad].flat[0]):g} {self.units} does not fit {self.dtype} with "
                f"scale {self.scale_factor} and offset {self.add_offset} (missing is {self.fill_value})"
            )
        if not self.is_integer:
            return whole.astype(dtype)
        stored = np.where(missing, 0.0, whole).astype(dtype)
        stored[missing] = self.fill
        return stored


@cache
def _decimals_of(number: float, most: int, slack: float) -> int:
    for places in range(most):
        if abs(round(number, places) - number) <= slack:
            return places
    return most


_WRITTEN = {"1e-6": "ppm", "1e-9": "ppb"}
"""Of units without a name in UDUNITS, what people call them."""


def unit_label(units: str) -> str:
    """Units as people write them; what a program reads stays the UDUNITS string."""
    first, space, rest = units.partition(" ")
    return f"{_WRITTEN.get(first, first)}{space}{rest}"
