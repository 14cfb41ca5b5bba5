"""A table that trees can learn from, for the tests of the groundwater models."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.gwsa.train import Settings, Trees, fit

NAMES = ["elevation", "ndvi", "rain", "sand"]
UNITS = ["m", "1", "mm", "1"]
SMALL = Settings(trees=30, depth=4)


def table(rows: int = 2000, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Four predictors with a tenth missing, and a target in cm that depends on three and on one's absence."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, 4)).astype(np.float32)
    features[:, 3] = np.round(features[:, 3])
    target = 6 * features[:, 0] + 4 * np.sin(2 * features[:, 1]) * features[:, 3] + random.normal(size=rows)
    features[random.random(features.shape) < 0.1] = np.nan
    target += 5 * np.isnan(features[:, 2])
    return features, target.astype(np.float32)


def learn(features: Any, target: Any, **changes: Any) -> Trees:
    """Small trees of that table."""
    given: dict[str, Any] = {"names": NAMES, "units": UNITS, "settings": SMALL, "seed": 1}
    return fit(features, target, **(given | changes))
