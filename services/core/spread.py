"""How the values of a quantity are spread: counts and a few percentiles, mergeable without the values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

PERCENTS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 100.0)
"""Percentiles that are kept; 0 and 100 are exact, the others for ranges of colour maps and legends."""

SAMPLE = 1 << 18
"""The inner percentiles are taken from evenly spaced values, at most twice so many."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Counts and percentiles.

    Raises:
        ValueError: if there are no percentiles of valid values, or they do not rise.
    """

    values: int
    """Values in all, missing ones too."""

    valid: int
    percentiles: tuple[float, ...] = ()
    """At PERCENTS, in the quantity's unit; empty where no value is valid."""

    def __post_init__(self) -> None:
        wanted = len(PERCENTS) if self.valid else 0
        if len(self.percentiles) != wanted or not 0 <= self.valid <= self.values:
            raise ValueError(
                f"{self.valid} of {self.values} values cannot be valid with {len(self.percentiles)} percentiles"
            )
        if any(a > b for a, b in zip(self.percentiles, self.percentiles[1:], strict=False)):
            raise ValueError(f"percentiles must not fall: {self.percentiles}")

    @classmethod
    def of(cls, valid: NDArray[Any], values: int) -> "Spread":
        """The spread of valid values, any shape, and of ``values`` in all."""
        if not valid.size:
            return cls(values=values, valid=0)
        flat = valid.ravel()
        some = np.sort(flat[:: max(1, flat.size // SAMPLE)])
        inner = some[np.rint(np.asarray(PERCENTS) / 100 * (some.size - 1)).astype(np.intp)].astype(np.float64)
        inner[0], inner[-1] = flat.min(), flat.max()
        return cls(values=values, valid=flat.size, percentiles=tuple(float(v) for v in inner))

    @classmethod
    def merged(cls, spreads: Sequence["Spread"]) -> "Spread":
        """The spread of all values together: the percentiles of the mixture of their distributions.

        Between its percentiles a distribution is taken to be uniform, so inner percentiles are approximate.
        """
        values = sum(one.values for one in spreads)
        known = [one for one in spreads if one.valid]
        if not known:
            return cls(values=values, valid=0)
        if len(known) == 1:
            return replace(known[0], values=values)
        valid = sum(one.valid for one in known)
        at = np.unique(np.concatenate([one.percentiles for one in known]))
        below = sum(one.valid / valid * np.interp(at, one.percentiles, PERCENTS, left=0, right=100) for one in known)
        inner = np.interp(PERCENTS, np.asarray(below), at)
        inner[0], inner[-1] = at[0], at[-1]
        return cls(values=values, valid=valid, percentiles=tuple(float(v) for v in inner))

    @property
    def valid_share(self) -> float:
        """Share of the values that are valid."""
        return self.valid / self.values if self.values else 0.0

    def at(self, percent: float) -> float | None:
        """A percentile that is kept; None where no value is valid."""
        return self.percentiles[PERCENTS.index(percent)] if self.valid else None

    def to_json(self) -> dict[str, Any]:
        """JSON data."""
        named = {f"{percent:g}": value for percent, value in zip(PERCENTS, self.percentiles, strict=False)}
        return {"values": self.values, "valid": self.valid, "percentiles": named}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Spread":
        """Read JSON data.

        Raises:
            ValueError, KeyError, TypeError: if it is none.
        """
        named = document["percentiles"]
        return cls(
            values=int(document["values"]),
            valid=int(document["valid"]),
            percentiles=tuple(float(named[f"{percent:g}"]) for percent in PERCENTS) if named else (),
        )
