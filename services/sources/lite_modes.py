"""How an instrument pointed and over what, from the columns of a Lite file that say so."""

import h5py
import numpy as np
from numpy.typing import NDArray

from services.sources.lite_columns import Column
from services.sources.soundings import MODES

NADIR, GLINT, TARGET, TRANSITION, AREA_MAP = range(5)
"""``operation_mode`` (science/xco2.md 1-common for 0, 1, 2 and 4; 3 as X-STILT reads it)."""

LAND, WATER, UNTOLD = range(3)

_LAND_WATER = np.array([LAND, WATER, WATER, LAND], dtype=np.uint8)
"""Of ``land_water_indicator``: land, ocean, inland water, mixed. Inland water counts as water and a mixed footprint as
land (our choice)."""

_SURFACE_TYPE = np.array([WATER, LAND], dtype=np.uint8)
"""Of ``surface_type``, which says what the retrieval took the surface for."""


def _modes() -> NDArray[np.uint8]:
    """Place in MODES by operation mode (the last row: another one) and surface. A nadir view of water has no name."""
    names = (
        ("land_nadir", "unknown", "unknown"),
        ("land_glint", "ocean_glint", "unknown"),
        ("land_target", "ocean_target", "unknown"),
        ("transition",) * 3,
        ("area_map",) * 3,
        ("unknown",) * 3,
    )
    return np.array([[MODES.index(name) for name in row] for row in names], dtype=np.uint8)


_MODES = _modes()


def modes(
    operation_mode: Column | None, its_surface: Column | None, opened: h5py.File, rows: slice, instrument: str
) -> NDArray[np.uint8]:
    """``(n,)`` places in MODES of some rows; ``unknown`` where columns are absent or say nothing known."""
    count = rows.stop - rows.start
    surface = np.full(count, UNTOLD, dtype=np.uint8)
    if its_surface is not None:
        meaning = _LAND_WATER if its_surface.path.endswith("land_water_indicator") else _SURFACE_TYPE
        surface = _looked_up(its_surface.read(opened, rows), meaning, UNTOLD)
    if operation_mode is not None:
        named = np.arange(len(_MODES) - 1, dtype=np.uint8)
        operation = _looked_up(operation_mode.read(opened, rows), named, len(named))
    elif instrument == "acos":
        # GOSAT's files name no mode: it looks near nadir over land and at the glint over water (our choice)
        operation = np.where(surface == WATER, GLINT, NADIR).astype(np.uint8)
    else:
        operation = np.full(count, len(_MODES) - 1, dtype=np.uint8)
    found: NDArray[np.uint8] = _MODES[operation, surface]
    return found


def _looked_up(values: NDArray[np.float64], meaning: NDArray[np.uint8], other: int) -> NDArray[np.uint8]:
    known = (values >= 0) & (values < len(meaning))
    out = np.full(values.shape, other, dtype=np.uint8)
    out[known] = meaning[values[known].astype(np.intp)]
    return out
