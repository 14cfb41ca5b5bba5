"""How the values of a quantity are spread: counts and a few percentiles, mergeable without the values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

type Decode = Callable[[NDArray[Any]], NDArray[Any]]

PERCENTS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, *range(10, 100, 10), 95.0, 97.0, 98.0, 99.0, 99.5, 100.0)
"""Percentiles that are kept; 0 and 100 are exact, the others for ranges of colour maps and legends."""

_AROUND = np.convolve(np.pad(np.diff(PERCENTS), 1), [0.5, 0.5], mode="valid") / 100
"""Share of the values that each percentile stands for: half way to its neighbours."""

SAMPLE = 1 << 18
"""The inner percentiles are those of so many values at most."""


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
    def of(cls, valid: NDArray[Any], values: int, decode: Decode = np.asarray) -> "Spread":
        """The spread of valid values.

        Args:
            valid: any shape, as stored.
            values: how many there are, missing ones too.
            decode: from stored to decoded values; must keep their order.
        """
        if not valid.size:
            return cls(values=values, valid=0)
        flat = valid.ravel()
        # chosen by chance, and always the same ones: a step through the values could fall in with their pattern
        some = flat if flat.size <= SAMPLE else flat[np.random.default_rng(0).integers(0, flat.size, SAMPLE)]
        places = np.rint(np.asarray(PERCENTS) / 100 * (some.size - 1)).astype(np.intp)
        inner = np.sort(some)[places]
        inner[0], inner[-1] = flat.min(), flat.max()
        return cls(values=values, valid=flat.size, percentiles=tuple(sorted(float(v) for v in decode(inner))))

    @classmethod
    def merged(cls, spreads: Sequence["Spread"]) -> "Spread":
        """The spread of all values together.

        Each percentile stands for the values around it, so inner ones are approximate, and are values that were seen.
        """
        values = sum(one.values for one in spreads)
        known = [one for one in spreads if one.valid]
        if not known:
            return cls(values=values, valid=0)
        if len(known) == 1:
            return replace(known[0], values=values)
        valid = sum(one.valid for one in known)
        seen = np.concatenate([one.percentiles for one in known])
        shares = np.concatenate([_AROUND * (one.valid / valid) for one in known])
        order = np.argsort(seen, kind="stable")
        seen, below = seen[order], np.cumsum(shares[order])
        inner = seen[np.minimum(np.searchsorted(below, np.asarray(PERCENTS) / 100), seen.size - 1)]
        inner[0], inner[-1] = seen[0], seen[-1]
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
