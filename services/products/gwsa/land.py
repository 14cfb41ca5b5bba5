"""Which fine cells are land."""

import numpy as np
from numpy.typing import NDArray

from services.products.gwsa.declaration import FINE
from services.products.gwsa.reach import Reach
from services.sources.field import Field

MOST_WATER = 0.5
"""Share of land from which a cell counts as land, where the mask is coarser or finer than the grid (our choice)."""


def land_of(mask: Field, cells: Reach) -> NDArray[np.bool_]:
    """Land in a rectangle of fine cells ``(y, x)``; what lies beyond the mask or the grid is none."""
    found = np.zeros(cells.shape, dtype=np.bool_)
    for source, target in cells.parts(FINE):
        with np.errstate(invalid="ignore"):
            found[target] = mask.read(None, FINE, source) >= MOST_WATER
    return found
