"""What the inputs give for a part of the map, looked at before anything is computed: land, predictors, months."""

from collections.abc import Iterator

import numpy as np

from services.core.errors import InputRefused
from services.core.grid import Window
from services.products.gwsa.declaration import FACTOR, FINE
from services.products.gwsa.inputs import SETTINGS, Inputs
from services.products.gwsa.land import STRIP, land_of
from services.products.gwsa.reach import Reach
from services.sources.field import Field

SAMPLED = 48
"""Coarse cells that are looked at before all of them are (our choice): one that has what is looked for is enough."""


def part_of(inputs: Inputs, window: Window) -> Window:
    """The part of a window of fine cells that lies in the area of the settings.

    Raises:
        InputRefused: if there is none.
    """
    area = inputs.window
    top, left = max(window.row, area.row * FACTOR), max(window.column, area.column * FACTOR)
    bottom = min(window.row + window.height, (area.row + area.height) * FACTOR)
    right = min(window.column + window.width, (area.column + area.width) * FACTOR)
    if top >= bottom or left >= right:
        raise InputRefused(f"{inputs.directory / SETTINGS}: nothing of {_told(window)} lies in the area of the inputs")
    return Window(row=top, column=left, height=bottom - top, width=right - left)


def check_given(inputs: Inputs, part: Window, month: int) -> None:
    """Refuse a part without land, or one in which a predictor has no value on land.

    Args:
        inputs: what is given.
        part: fine cells.
        month: months since 1970-01, in which monthly predictors are looked at.

    Raises:
        InputRefused: names what is not there, and its file.
    """
    asked = inputs.predictors if inputs.settings.detail else ()
    lacking: list[Field | None] = [None, *asked]
    for cells in _looked_at(part):
        lacking = [one for one in lacking if not _has_some(inputs, one, month, cells)]
        if not lacking:
            return
    first = lacking[0]
    where = f"{_told(part)} (west,south,east,north; {SETTINGS} and --bbox are in this order)"
    if first is None:
        raise InputRefused(f"{inputs.land.recipe.table.sources[0].name} has no land in {where}")
    west, south, east, north = first.grid.bounds
    raise InputRefused(
        f"{first.recipe.table.sources[0].name}: predictor {first.name} has no value on the land of {where}; its own "
        f"cells are {west:g},{south:g},{east:g},{north:g}"
    )


def about_months(inputs: Inputs) -> str:
    """Which inputs begin and end the months, in a line."""
    spans = [("GRACE", inputs.solution_months), ("GLDAS", inputs.gldas.months)]
    spans += [(f"predictor {one.name}", one.months) for one in inputs.predictors if one.monthly]
    first, last = max(months[0] for _, months in spans), min(months[-1] for _, months in spans)
    begins = ", ".join(name for name, months in spans if months[0] == first)
    ends = ", ".join(name for name, months in spans if months[-1] == last)
    return (
        f"months: {len(inputs.periods)} of the {len(inputs.months)} that both GRACE and GLDAS reach: "
        f"{np.datetime64(first, 'M')}, where {begins} begins, to {np.datetime64(last, 'M')}, where {ends} ends"
    )


def _looked_at(part: Window) -> Iterator[Reach]:
    """Some coarse cells by chance, then all of them in strips."""
    top, left = part.row // FACTOR, part.column // FACTOR
    bottom, right = -(-(part.row + part.height) // FACTOR), -(-(part.column + part.width) // FACTOR)
    random = np.random.default_rng(0)
    for row, column in zip(random.integers(top, bottom, SAMPLED), random.integers(left, right, SAMPLED), strict=True):
        yield Reach(row=int(row), column=int(column), height=1, width=1)
    for row in range(top, bottom, STRIP):
        yield Reach(row=row, column=left, height=min(STRIP, bottom - row), width=right - left)


def _has_some(inputs: Inputs, predictor: Field | None, month: int, cells: Reach) -> bool:
    """Whether coarse cells hold land, and a value of a predictor on it."""
    fine = cells.times(FACTOR)
    if predictor is None:
        return bool(land_of(inputs.land, fine).any())
    known = np.zeros(fine.shape, dtype=np.bool_)
    for source, target in fine.parts(FINE):
        known[target] = np.isfinite(predictor.read(month if predictor.monthly else None, FINE, source))
    return bool(known.any() and (known & land_of(inputs.land, fine)).any())


def _told(window: Window) -> str:
    return ",".join(f"{edge:g}" for edge in FINE.subgrid(window).bounds)
