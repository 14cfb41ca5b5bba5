"""Columns of an HDF5 file of soundings: found under the names that generations and subsets give them, fills as NaN."""

from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np
from numpy.typing import NDArray

FILL = -999999.0
"""What Lite files hold where nothing is known, also where they do not declare it."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """Where a column is and what it says of itself; small, so that it travels."""

    path: str
    """In the file."""

    units: str | None
    """As stated; None where nothing is."""

    fills: tuple[float, ...]
    """Values that mean missing."""

    @classmethod
    def found(cls, file: h5py.File, names: Sequence[str]) -> "Column | None":
        """The first of some names that the file has.

        OPeNDAP flattens groups: what was ``Sounding/altitude`` may be ``Sounding_altitude``.
        """
        for name in names:
            for path in dict.fromkeys((name, name.replace("/", "_"))):
                stored = file.get(path)
                if isinstance(stored, h5py.Dataset) and stored.dtype.kind in "iuf":
                    return cls(path=path, units=attribute(stored, "units"), fills=_fills(stored))
        return None

    def read(self, file: h5py.File, rows: slice) -> NDArray[np.float64]:
        """Those rows as float64, NaN where missing."""
        values = file[self.path][rows]
        out: NDArray[np.float64] = values.astype(np.float64)
        for fill in self.fills:
            # compared as stored: there a fill was rounded as the values were
            missing = values == np.asarray(fill, dtype=values.dtype)
            if missing.any():
                out[missing] = np.nan
        return out


def attribute(stored: h5py.Dataset | h5py.File, key: str) -> str | None:
    """A text attribute; None where there is none."""
    value = np.asarray(stored.attrs[key]).ravel() if key in stored.attrs else np.empty(0)
    if not value.size:
        return None
    first = value[0]
    return (first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)).strip()


def _fills(stored: h5py.Dataset) -> tuple[float, ...]:
    found = {FILL}
    for key in ("_FillValue", "missing_value"):
        if key in stored.attrs:
            values = np.asarray(stored.attrs[key]).ravel().tolist()
            found |= {float(value) for value in values if isinstance(value, int | float)}
    if stored.dtype.kind == "f":
        return tuple(sorted(value for value in found if np.isfinite(value)))
    limits = np.iinfo(stored.dtype)
    return tuple(sorted(value for value in found if limits.min <= value <= limits.max))
