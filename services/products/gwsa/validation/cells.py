"""Which cells of 1/4 degree hold land and have no value, and why."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.products.gwsa.balance import LACKS
from services.products.gwsa.coarse import NO_LAND
from services.products.gwsa.declaration import COARSE
from services.products.gwsa.reach import Reach
from services.products.gwsa.validation.published import Published
from services.validation.report import NotComputed


def cells(published: Published) -> tuple[dict[str, Any], list[dict[str, Any]], NDArray[np.uint8]]:
    """Count the cells of the version by what they lack, and name them.

    Returns:
        JSON data; a row for each cell with land and no value; a number of LACKS for each cell, ``(Y, X)``, NO_LAND
        where it holds none or lies beyond what was computed.

    Raises:
        NotComputed: if no cell of the version holds land.
    """
    window, coarse = published.cells, published.coarse
    lacks = np.full(window.shape, NO_LAND, dtype=np.uint8)
    for source, target in Reach.of(window).parts(COARSE, coarse.window):
        lacks[target] = coarse.read_lacks()[source.rows, source.columns]
    land = lacks != NO_LAND
    if not land.any():
        raise NotComputed("no cell of 1/4 degree of the version holds land")
    grid = COARSE.subgrid(window)
    area = np.broadcast_to(grid.row_areas_km2[:, None], window.shape)
    without = land & (lacks != 0)
    rows = [
        {
            "latitude": float(grid.latitudes[row]),
            "longitude": float(grid.longitudes[column]),
            "lacks": LACKS[lacks[row, column]],
        }
        for row, column in np.argwhere(without).tolist()
    ]
    return (
        {
            "with_land": int(land.sum()),
            "without_value": int(without.sum()),
            "without_value_km2": float(area[without].sum()),
            "lacks": {reason: int((lacks == number).sum()) for number, reason in enumerate(LACKS) if reason},
            "all_inputs": {key: value for key, value in coarse.facts.items() if key.startswith("land_cells")},
        },
        rows,
        lacks,
    )
