"""Errors of a field against another one, weighted by area and gathered piece by piece."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Area-weighted differences, in the units of the values."""

    cells: int
    """Pairs compared, each a cell of one period where both have a value."""

    bias: float
    """Mean of value minus reference."""

    rmse: float
    """Root of the mean squared difference."""

    mae: float
    """Mean absolute difference."""

    r2: float
    """1 - sum of squared differences / sum of squared departures of the reference from its mean (Nash-Sutcliffe).

    It is 0 for a field that is the reference's mean everywhere, and negative for a worse one.
    """

    within_sigma: float | None
    """Share of the differences no larger than the stated standard deviation; 0.683 where it is right and they are
    normal. None where none was stated."""

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


class ErrorSums:
    """Gathers differences of any number of pieces; memory does not grow with them."""

    def __init__(self) -> None:
        self._cells = 0
        self._weight = 0.0
        self._difference = 0.0
        self._squared = 0.0
        self._absolute = 0.0
        self._reference = 0.0
        self._reference_squared = 0.0
        self._within = 0.0
        self._stated = False
        self._origin: float | None = None

    def add(self, values: Floats, reference: Floats, areas: Floats, sigma: Floats | None = None) -> None:
        """Compare a piece.

        Args:
            values: any shape, NaN where missing.
            reference: the same shape, NaN where missing.
            areas: weights, broadcast to that shape.
            sigma: stated standard deviation of the values' error, the same shape.
        """
        both = np.isfinite(values) & np.isfinite(reference)
        if not both.any():
            return
        weight = np.broadcast_to(areas, values.shape)[both].astype(np.float64)
        known = reference[both].astype(np.float64)
        difference = values[both].astype(np.float64) - known
        if self._origin is None:
            # sums of squares about a value of the field itself keep their digits where all values are near 400
            self._origin = float(known[0])
        known = known - self._origin
        self._cells += int(both.sum())
        self._weight += float(weight.sum())
        self._difference += float(weight @ difference)
        self._squared += float(weight @ difference**2)
        self._absolute += float(weight @ np.abs(difference))
        self._reference += float(weight @ known)
        self._reference_squared += float(weight @ known**2)
        if sigma is not None:
            self._stated = True
            self._within += float(weight @ (np.abs(difference) <= sigma[both]))

    def errors(self) -> Errors:
        """The metrics of all pieces.

        Raises:
            ValueError: if no pair was compared.
        """
        if self._weight == 0:
            raise ValueError("no pair of values was compared")
        mean = self._reference / self._weight
        spread = self._reference_squared / self._weight - mean**2
        squared = self._squared / self._weight
        return Errors(
            cells=self._cells,
            bias=self._difference / self._weight,
            rmse=float(np.sqrt(squared)),
            mae=self._absolute / self._weight,
            r2=1 - squared / spread if spread > 0 else float("nan"),
            within_sigma=self._within / self._weight if self._stated else None,
        )
