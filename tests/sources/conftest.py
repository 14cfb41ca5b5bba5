"""How the tests of ingest read a recipe."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.core.grid import windows
from services.pipeline.recipe import Recipe


def read_whole(recipe: Recipe) -> NDArray[Any]:
    recipe = pickle.loads(pickle.dumps(recipe))  # noqa: S301 - our own
    axis, grid = recipe.periods(), recipe.product.grid
    quantity = recipe.product.quantities[0]
    out = np.empty((len(axis), *grid.shape), dtype=quantity.dtype)
    size = (-(-grid.height * 3 // 5), -(-grid.width * 3 // 7))
    for window in windows(grid.shape, size):
        for first in range(0, len(axis), 50):
            places = range(first, min(first + 50, len(axis)))
            values = recipe.compute(axis.take(places), window)[quantity.name]
            assert values.dtype == out.dtype
            out[first : places.stop, window.rows, window.columns] = values
    return out


@pytest.fixture
def whole() -> Callable[[Recipe], NDArray[Any]]:
    """All stored values, window by window, some periods at a time, by a recipe that was pickled as for a worker."""
    return read_whole
