"""Which fine cells are land."""

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.products.gwsa.declaration import FINE
from services.products.gwsa.reach import Reach
from services.sources.field import Field

LEAST_LAND = 0.5
"""Share of land from which a cell counts as land, where the mask is coarser or finer than the grid (our choice)."""


def land_of(mask: Field, cells: Reach) -> NDArray[np.bool_]:
    """Land in a rectangle of fine cells ``(y, x)``; what lies beyond the mask or the grid is none."""
    found = np.zeros(cells.shape, dtype=np.bool_)
    for source, target in cells.parts(FINE):
        values = mask.read(None, FINE, source)
        strange = (values < 0) | (values > 1)
        if strange.any():
            name = mask.recipe.table.sources[0].name
            raise InputRefused(f"{name} holds {values[strange][0]:g}; a land mask is 1 on land and 0 on water")
        found[target] = values >= LEAST_LAND
    return found
