"""Boosted trees on the network's inputs: what the network is compared with, never what is published."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xgboost
from numpy.typing import NDArray

from models.errors import TableRefused, TrainingRefused

type Floats = NDArray[np.float32]

LEAST_ROWS = 100
"""Fewer are no training set (our choice, as the network's)."""


@dataclass(frozen=True, kw_only=True)
class TreeSettings:
    """How trees are grown: XGBoost's ``hist`` method on squared errors. Our choice, not tuned.

    Raises:
        TrainingRefused: if nothing can be learned with them.
    """

    trees: int = 200
    depth: int = 5
    learning_rate: float = 0.08
    subsample: float = 0.8
    """Share of the rows that a tree sees."""

    colsample: float = 0.6
    """Share of the features that a tree sees."""

    threads: int = 1

    def __post_init__(self) -> None:
        if min(self.trees, self.depth, self.threads) < 1:
            raise TrainingRefused(f"{self.trees} trees of depth {self.depth} on {self.threads} threads learn nothing")
        for name in ("learning_rate", "subsample", "colsample"):
            if not 0 < getattr(self, name) <= 1:
                raise TrainingRefused(f"{name} must be above 0 and at most 1, not {getattr(self, name)!r}")


def fit(
    features: Floats, target: Floats, weights: Floats, seed: int, settings: TreeSettings | None = None
) -> Callable[[Floats], NDArray[np.float64]]:
    """Learn.

    Args:
        features: ``(row, feature)``; NaN is missing and goes where the trees learn to send it.
        target: ppm, ``(row,)``.
        weights: of each row, ``(row,)``.
        seed: of the rows and features that a tree sees.
        settings: the defaults where None.

    Returns:
        What gives ppm ``(row,)`` for features.

    Raises:
        TableRefused: if there are fewer rows than LEAST_ROWS, or a target or weight is no number.
    """
    if len(features) < LEAST_ROWS:
        raise TableRefused(f"{len(features)} rows are too few to grow trees from; {LEAST_ROWS} are the least")
    if not (np.isfinite(target).all() and np.isfinite(weights).all()):
        raise TableRefused("a target or weight is no number")
    chosen = settings or TreeSettings()
    # about their mean, as XGBoost's sums are of single precision
    middle = float(np.average(target, weights=weights))
    rows = xgboost.DMatrix(features, label=target - middle, weight=weights, nthread=chosen.threads)
    booster = xgboost.train(
        {
            "objective": "reg:squarederror",
            "tree_method": "hist",
            "max_depth": chosen.depth,
            "learning_rate": chosen.learning_rate,
            "subsample": chosen.subsample,
            "colsample_bytree": chosen.colsample,
            "base_score": 0.0,
            "nthread": chosen.threads,
            "seed": seed,
        },
        rows,
        chosen.trees,
    )

    def predict(asked: Floats) -> NDArray[np.float64]:
        said = booster.predict(xgboost.DMatrix(asked, nthread=chosen.threads))
        return said.astype(np.float64) + middle

    return predict
