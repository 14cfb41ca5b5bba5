"""What the models are asked with: the predictors and the time."""

import numpy as np
from numpy.typing import NDArray

from services.products.gwsa.declaration import FINE
from services.products.gwsa.inputs import TIME_FEATURES, Inputs
from services.products.gwsa.reach import Reach

type Floats = NDArray[np.float32]


def time_features(month: int) -> dict[str, float]:
    """The middle of a month as a decimal year, and on the circle of the year.

    Args:
        month: months since 1970-01.
    """
    middle = (month % 12 + 0.5) / 12
    values = (1970 + month // 12 + middle, np.sin(2 * np.pi * middle), np.cos(2 * np.pi * middle))
    return dict(zip(TIME_FEATURES, (float(value) for value in values), strict=True))


def fine_features(inputs: Inputs, month: int, cells: Reach) -> Floats:
    """Features of a rectangle of fine cells in a month, ``(y, x, feature)``; NaN where a predictor is missing.

    Raises:
        InputRefused: if a file is no longer what it was.
    """
    values = np.full((*cells.shape, len(inputs.features)), np.nan, dtype=np.float32)
    for number, raster in enumerate(inputs.predictors):
        for source, target in cells.parts(FINE):
            values[(*target, number)] = raster.read(month if raster.monthly else None, FINE, source)
    values[:, :, len(inputs.predictors) :] = list(time_features(month).values())
    return values
