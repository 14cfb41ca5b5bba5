"""Which fine cells are land."""

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Window, windows
from services.products.gwsa.declaration import FACTOR, FINE
from services.products.gwsa.reach import Reach
from services.sources.field import Field

LEAST_LAND = 0.5
"""Share of land from which a cell counts as land, where the mask is coarser or finer than the grid (our choice)."""

STRIP = 8
"""Coarse rows whose land is read at a time."""


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


def cells_with_land(mask: Field, cells: Window) -> NDArray[np.bool_]:
    """Coarse cells of a window that hold land, ``(Y, X)``; STRIP rows of them are read at a time."""
    found = np.zeros(cells.shape, dtype=np.bool_)
    for part in windows(cells.shape, (STRIP, cells.width)):
        here = Reach(row=cells.row + part.row, column=cells.column, height=part.height, width=cells.width)
        fine = land_of(mask, here.times(FACTOR)).reshape(part.height, FACTOR, cells.width, FACTOR)
        found[part.rows] = fine.any(axis=(1, 3))
    return found
