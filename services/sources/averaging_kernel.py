"""What a retrieval would have seen of a profile of CO2: the profile through the column averaging kernel."""

from dataclasses import dataclass, field

import h5py
import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.sources import files
from services.sources.broken import reading
from services.sources.lite_columns import Column
from services.sources.soundings import ppm

NAMES = {
    "pressure": ("pressure_levels",),
    "weights": ("pressure_weight", "pressure_weights"),
    "kernel": ("xco2_averaging_kernel",),
    "prior": ("co2_profile_apriori",),
}
"""Variables of a Lite file, and what openghg calls them."""

CLOSURE = 1e-3
"""How far the weights of a sounding may be from a sum of 1. Our choice: float32 over 20 levels loses 1e-6."""


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """Column averaging kernels of soundings, levels from space to surface as in the files.

    Raises:
        InputRefused: if shapes differ, or pressure weights do not add up to 1.
    """

    pressure: NDArray[np.float64] = field(repr=False)
    """``(n, level)`` hPa, rising; NaN in a sounding that lacks it."""

    weights: NDArray[np.float64] = field(repr=False)
    """``(n, level)`` share of the column's dry air that each level stands for."""

    kernel: NDArray[np.float64] = field(repr=False)
    """``(n, level)`` normalised averaging kernel of the column, 1 where a change is seen whole."""

    prior: NDArray[np.float64] = field(repr=False)
    """``(n, level)`` ppm, what the retrieval set out from."""

    def __post_init__(self) -> None:
        shape = self.weights.shape
        for name in NAMES:
            values = getattr(self, name)
            if values.ndim != 2 or values.shape != shape:
                raise InputRefused(f"averaging kernels: weights have the shape {shape} and {name} {values.shape}")
        sums = self.weights.sum(axis=1)
        off = np.flatnonzero(np.abs(sums - 1.0) > CLOSURE)
        if off.size:
            raise InputRefused(
                f"averaging kernels: the weights of sounding {int(off[0])} add up to {sums[off[0]]:g} and not 1"
            )
        falling = np.flatnonzero((np.diff(self.pressure, axis=1) <= 0).any(axis=1))
        if falling.size:
            raise InputRefused(
                f"averaging kernels: the pressures of sounding {int(falling[0])} do not rise from space to surface"
            )

    def __len__(self) -> int:
        return int(self.weights.shape[0])

    def prior_column(self) -> NDArray[np.float64]:
        """``(n,)`` ppm: the column that the prior has."""
        column: NDArray[np.float64] = (self.weights * self.prior).sum(axis=1)
        return column

    def seen(self, profile: NDArray[np.float64]) -> NDArray[np.float64]:
        """The column that a retrieval reports of a true profile, ``(n,)`` ppm, if nothing else is wrong.

        X_s = X_a + sum_i w_i a_i (x_i - x_a,i) (science/xco2.md 2; Rodgers and Connor 2003).

        Args:
            profile: ``(n, level)`` or ``(level,)`` ppm on the kernels' levels, space to surface.

        Raises:
            InputRefused: if it is on other levels.
        """
        if profile.shape not in {self.prior.shape, self.prior.shape[1:]}:
            raise InputRefused(f"averaging kernels: a profile of shape {profile.shape} on levels {self.prior.shape}")
        change: NDArray[np.float64] = (self.weights * self.kernel * (profile - self.prior)).sum(axis=1)
        return self.prior_column() + change

    def on_levels(self, pressure: NDArray[np.float64], profile: NDArray[np.float64]) -> NDArray[np.float64]:
        """A model's profiles on the kernels' levels, ``(n, level)``; linear in pressure, its end value beyond its ends.

        Args:
            pressure: ``(n, k)`` hPa, rising.
            profile: ``(n, k)`` ppm.

        Raises:
            InputRefused: if shapes differ or pressures do not rise.
        """
        if pressure.shape != profile.shape or pressure.ndim != 2 or len(pressure) != len(self):
            raise InputRefused(
                f"averaging kernels: {len(self)} soundings, pressures of {pressure.shape}, profiles of {profile.shape}"
            )
        if not (np.diff(pressure, axis=1) > 0).all():
            raise InputRefused("averaging kernels: pressures of a profile do not rise from space to surface")
        rows = zip(self.pressure, pressure, profile, strict=True)
        return np.array([np.interp(ours, theirs, values) for ours, theirs, values in rows]).reshape(self.prior.shape)


def open_kernels(name: str, rows: slice = slice(None)) -> Kernels:
    """Read averaging kernels from a Lite file, or from one that openghg has written.

    Args:
        name: path of the file.
        rows: which soundings; all of a day of OCO-2 take 60 MB.

    Raises:
        InputRefused: if the file is broken, lacks a variable, or holds another unit.
    """
    sources = files.found([name])
    if len(sources) != 1 or sources[0].kind != "netcdf4":
        raise InputRefused(f"{name} is not one NetCDF-4 (HDF5) file with averaging kernels")
    source = sources[0]
    with reading(source.name), h5py.File(files.local(source), "r") as file:
        read: dict[str, NDArray[np.float64]] = {}
        for quantity, names in NAMES.items():
            column = Column.found(file, names)
            if column is None:
                raise InputRefused(
                    f"{source.name} has no {names[0]}, so nothing can be put through its averaging kernel"
                )
            values = column.read(file, rows)
            if quantity == "prior":
                values = values * ppm(f"{source.name}: {column.path}", column.units, values)
            if quantity == "pressure" and (column.units or "hPa").strip() == "Pa":
                values = values / 100.0
            read[quantity] = np.atleast_2d(values)
    return Kernels(**read)
