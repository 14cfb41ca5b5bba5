"""How sure the difference of two RMSEs is, where errors of one block are alike."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused

type Floats = NDArray[np.floating[Any]]

LEAST_BLOCKS = 10
"""Fewer tell nothing of their spread. Our choice."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Of one RMSE less another on the same rows, in the units of the values."""

    difference: float
    """Negative where the first is better."""

    low: float
    """Lower bound of the interval."""

    high: float
    """Upper bound of the interval."""

    blocks: int
    """That were drawn from."""

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def rmse_difference(
    errors: Floats,
    other: Floats,
    blocks: NDArray[np.integer[Any]],
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """RMSE of some errors less that of others on the same rows, with the bootstrap's percentile interval.

    Whole blocks are drawn with replacement, as many as there are, each with both of its errors: pairs stay pairs, and
    what rows of a block have in common stays (Efron and Tibshirani, 1993, An Introduction to the Bootstrap, 8.6, 13).
    Errors that blocks have in common make the interval too narrow.

    Args:
        errors: ``(row,)``.
        other: ``(row,)``.
        blocks: label of each row, ``(row,)`` or ``(row, part)``.
        draws: of the bootstrap.
        level: of the interval.
        seed: of the draws.

    Raises:
        InputRefused: if shapes do not fit, an error is no number, or there are fewer than LEAST_BLOCKS blocks.
    """
    if errors.shape != other.shape or errors.ndim != 1 or len(blocks) != len(errors):
        raise InputRefused(f"errors {errors.shape} and {other.shape} in blocks {blocks.shape} are no pairs")
    if not (np.isfinite(errors).all() and np.isfinite(other).all()):
        raise InputRefused("an error is no number: compare on the rows that both answer")
    _, which = np.unique(blocks, axis=0, return_inverse=True)
    which = which.ravel()
    sums = np.stack([np.bincount(which, one) for one in (np.ones(len(errors)), errors**2, other**2)], axis=1)
    if len(sums) < LEAST_BLOCKS:
        raise InputRefused(f"{len(sums)} blocks are drawn from; an interval needs {LEAST_BLOCKS}")
    drawn = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=draws) @ sums
    found = np.sqrt(drawn[:, 1] / drawn[:, 0]) - np.sqrt(drawn[:, 2] / drawn[:, 0])
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    count, first, second = sums.sum(axis=0)
    return Difference(
        difference=float(np.sqrt(first / count) - np.sqrt(second / count)),
        low=float(low),
        high=float(high),
        blocks=len(sums),
    )
