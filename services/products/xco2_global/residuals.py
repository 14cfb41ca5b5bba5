"""What the network leaves over in rows of the training table: how it goes together, and how far that can be trusted."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Grid
from services.products.xco2_global.nearby import Covariance, Left, Values, averaged, estimate, told
from services.products.xco2_global.table import SCORED, STOPPING, Seen

MOST_ROWS = 60_000
"""Of whole months that are drawn, as pairs of cells of one month are what is looked at (our choice)."""


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """Rows of whole months; all arrays are ``(row,)``."""

    month: NDArray[np.int64] = field(repr=False)
    group: NDArray[np.int64] = field(repr=False)
    left: Left
    """In units of the spread; its noise is the stated error squared."""

    spread: Values = field(repr=False)
    """ppm."""

    @classmethod
    def of(cls, cells: Seen, residual: NDArray[Any], spread: NDArray[Any], grid: Grid) -> "Residuals":
        """Of cells, what is left over in them and what the network expects to leave, both ppm."""
        width = spread.astype(np.float64)
        return cls(
            month=cells.month,
            group=cells.group,
            left=Left(
                latitude=grid.latitudes[cells.row],
                longitude=grid.longitudes[cells.column],
                time=cells.time,
                value=residual.astype(np.float64) / width,
                noise=(cells.error / width) ** 2,
            ),
            spread=width,
        )

    def covariance(self) -> Covariance:
        """From cells outside of SCORED; its factor from STOPPING told from the other groups."""
        known = self.group != SCORED
        found = estimate(self.month[known], self.left.take(known), self.group[known] == STOPPING)
        mean, deviation = self.told(STOPPING, found)
        held = self.left.take(self.group == STOPPING)
        factor = spread_factor(held.value - mean, deviation, np.sqrt(held.noise))
        return found.model_copy(update={"factor": factor})

    def told(self, group: int, covariance: Covariance) -> tuple[Values, Values]:
        """Rows of a group told from those of the groups that were learned from, a month at a time.

        A block is held out as a whole, so that it is told from cells outside of it alone.

        Returns:
            What is left over and the standard deviation that stays, in units of the spread, ``(row of the group,)``.
        """
        asked = np.flatnonzero(self.group == group)
        given = (self.group != STOPPING) & (self.group != SCORED)
        mean, variance = np.zeros(len(asked)), np.zeros(len(asked))
        for month in np.unique(self.month[asked]):
            mine = self.month[asked] == month
            near = self.left.take(given & (self.month == month))
            near = Left(**{**vars(near), "noise": covariance.noise(np.sqrt(near.noise))})
            here = self.left.take(asked[mine])
            mean[mine], variance[mine] = told(averaged(near), covariance, here.latitude, here.longitude)
        return mean, covariance.deviation(variance)

    def scores(self, covariance: Covariance) -> dict[str, float]:
        """Of SCORED against soundings' cells, with and without what is told from nearby."""
        mean, deviation = self.told(SCORED, covariance)
        mine = self.group == SCORED
        value, noise, spread = self.left.value[mine], self.left.noise[mine], self.spread[mine]
        within = np.abs(value - mean) <= 1.96 * np.sqrt(deviation**2 + noise)
        return {
            "cells": float(mine.sum()),
            "rmse_ppm": round(float(np.sqrt(np.mean(((value - mean) * spread) ** 2))), 4),
            "rmse_of_the_network_alone_ppm": round(float(np.sqrt(np.mean((value * spread) ** 2))), 4),
            "within_95_percent_interval": round(float(within.mean()), 4),
        }


def of_whole_months(month: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Rows of months drawn at random, one at least, until there are MOST_ROWS; in their order."""
    months, counts = np.unique(month, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(months))
    count = max(int(np.searchsorted(np.cumsum(counts[order]), MOST_ROWS, side="right")), 1)
    return np.flatnonzero(np.isin(month, months[order[:count]]))


def spread_factor(residual: NDArray[Any], spread: NDArray[Any], error: NDArray[Any]) -> float:
    """By what spreads must be multiplied so that residuals have the variance that they and the errors say.

    Solves mean(residual^2 / ((k spread)^2 + error^2)) = 1, which falls in k, by bisection.

    Args:
        residual: seen less said, ppm, ``(row,)``.
        spread: standard deviation of the true cell mean, ppm, ``(row,)``.
        error: of the observation, ppm, ``(row,)``.

    Returns:
        k within 0.1..10.
    """
    low, high = np.log(0.1), np.log(10.0)
    for _ in range(60):
        middle = (low + high) / 2
        ratio = float(np.mean(residual**2 / ((np.exp(middle) * spread) ** 2 + error**2)))
        low, high = (middle, high) if ratio > 1 else (low, middle)
    return round(float(np.exp((low + high) / 2)), 4)
