"""What the models are asked with: how predictors depart from their means over coarse cells, and the time.

A model that has learned the field itself says more about places than about what varies within a coarse cell. So all is
taken as a departure, of the field in training and of the predictors in both: from the interpolation of the means over
the land of larger cells (1 degree in training, 1/4 degree in rendering). On the sample Earth and on a real step in
scale this took away several times more error (``infra/reports``: gwsa_detail.json, gwsa_bangladesh.json).
"""

import numpy as np
from numpy.typing import NDArray

from services.products.gwsa.declaration import FINE
from services.products.gwsa.inputs import TIME_FEATURES, Inputs
from services.products.gwsa.reach import Reach
from services.products.gwsa.refine import Blocks, interpolated, smooth

type Floats = NDArray[np.float32]
type Cells = NDArray[np.float64]


def time_features(month: int) -> dict[str, float]:
    """The middle of a month as a decimal year, and on the circle of the year.

    Args:
        month: months since 1970-01.
    """
    middle = (month % 12 + 0.5) / 12
    values = (1970 + month // 12 + middle, np.sin(2 * np.pi * middle), np.cos(2 * np.pi * middle))
    return dict(zip(TIME_FEATURES, (float(value) for value in values), strict=True))


def fine_predictors(inputs: Inputs, month: int, cells: Reach) -> Floats:
    """Predictors of a rectangle of fine cells in a month, ``(predictor, y, x)``; NaN where missing.

    Raises:
        InputRefused: if a file is no longer what it was.
    """
    values = np.full((len(inputs.predictors), *cells.shape), np.nan, dtype=np.float32)
    for raster, found in zip(inputs.predictors, values, strict=True):
        for source, target in cells.parts(FINE):
            found[target] = raster.read(month if raster.monthly else None, FINE, source)
    return values


def smoothed(blocks: Blocks, means: Cells) -> Cells:
    """Of each predictor, what its departures are from, before it is interpolated.

    Args:
        blocks: of a window with DETAIL_HALO coarse cells around it.
        means: over the land of the coarse cells there, ``(predictor, Y, X)``, NaN where missing.

    Returns:
        ``(predictor, Y - 2 DETAIL_HALO + 2, X - 2 DETAIL_HALO + 2)``.
    """
    return np.stack([smooth(blocks, one) for one in means])


def features(predictors: Floats, smooth_means: Cells, factor: int, month: int) -> Floats:
    """The rows that a model takes.

    Args:
        predictors: ``(predictor, y, x)``.
        smooth_means: of the same cells, as ``smoothed`` gives them with a ring around: ``(predictor, Y + 2, X + 2)``.
        factor: fine cells along a side of a coarse one.
        month: months since 1970-01.

    Returns:
        ``(y, x, feature)``; NaN where a predictor is missing.
    """
    count = len(predictors)
    rows = np.empty((*predictors.shape[1:], count + len(TIME_FEATURES)), dtype=np.float32)
    for number in range(count):
        rows[:, :, number] = predictors[number] - interpolated(smooth_means[number], factor)
    rows[:, :, count:] = list(time_features(month).values())
    return rows
