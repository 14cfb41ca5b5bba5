"""A part of a product as a collection of its own: the same recipe on a window of its grid."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from services.core.errors import SettingsError
from services.core.grid import Grid, Window
from services.core.product import SMALL_GRID, Product
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Each, Input, Recipe


def bounds_of(bbox: str) -> tuple[Fraction, Fraction, Fraction, Fraction]:
    """West, south, east, north of a ``W,S,E,N`` in degrees.

    Raises:
        SettingsError: if it is malformed, or no box.
    """
    try:
        west, south, east, north = (Fraction(part.strip()) for part in bbox.split(","))
    except (ValueError, ZeroDivisionError):
        raise SettingsError(f"--bbox is W,S,E,N in degrees, not {bbox!r}") from None
    if south < -90 or north > 90:
        raise SettingsError(f"--bbox {bbox}: latitudes are -90..90")
    if not (west < east and south < north):
        raise SettingsError(f"--bbox {bbox}: west must be less than east and south less than north")
    return west, south, east, north


def window_of(grid: Grid, bbox: str) -> Window:
    """The cells of a grid that a ``W,S,E,N`` touches.

    Raises:
        SettingsError: if it is malformed, touches none, or crosses the seam of a global grid.
    """
    west, south, east, north = bounds_of(bbox)
    if grid.is_global and east - west < 360 and east > grid.west and west < grid.east:
        # what lies beyond the seam is on the other side of the map: cutting it off would be silent
        edge = grid.west if west < grid.west else grid.east if east > grid.east else None
        if edge is not None:
            raise SettingsError(f"--bbox {bbox} crosses the edge of the grid at {float(edge):g}: render its two sides")
    left = max(0, floor((west - grid.west) / grid.step_x))
    right = min(grid.width, ceil((east - grid.west) / grid.step_x))
    top = max(0, floor((grid.north - north) / grid.step_y))
    bottom = min(grid.height, ceil((grid.north - south) / grid.step_y))
    if right <= left or bottom <= top:
        raise SettingsError(f"--bbox {bbox} touches no cell of the grid {grid.bounds}")
    return Window(row=top, column=left, height=bottom - top, width=right - left)


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A recipe seen through a window."""

    whole: Recipe
    window: Window
    product: Product

    @classmethod
    def of(cls, whole: Recipe, window: Window, name: str) -> "Subset":
        """The collection ``PRODUCT_NAME`` of a window."""
        declared = whole.product
        grid = declared.grid.subgrid(window)
        one_layout = declared.series_block is None and grid.cells <= SMALL_GRID
        product = replace(
            declared,
            id=f"{declared.id}_{name}",
            title=f"{declared.title}, {name}",
            grid=grid,
            series_block=None if one_layout else declared.series_block,
        )
        return cls(whole=whole, window=window, product=product)

    def periods(self) -> TimeAxis:
        """Those of the whole."""
        return self.whole.periods()

    def inputs(self) -> tuple[Input, ...]:
        """Those of the whole."""
        return self.whole.inputs()

    def models(self) -> Mapping[str, str]:
        """Those of the whole."""
        return self.whole.models()

    def model_directories(self) -> Mapping[str, Path]:
        """Those of the whole."""
        return self.whole.model_directories()

    def facts(self) -> Mapping[str, Any]:
        """Those of the whole, and where the window lies."""
        west, south, east, north = self.product.grid.bounds
        return {**self.whole.facts(), "part_of": self.whole.product.id, "bbox": [west, south, east, north]}

    def prepare(self, each: Each, note: Callable[[str], None]) -> None:
        """What the whole needs, if it needs anything."""
        prepare = getattr(self.whole, "prepare", None)
        if prepare is not None:
            prepare(each, note)
        check = getattr(self.whole, "check_window", None)
        if check is not None:
            check(self.window)

    def check_inputs(self) -> None:
        """Those of the whole."""
        check = getattr(self.whole, "check_inputs", None)
        if check is not None:
            check()

    def estimate(self, periods: TimeAxis, window: Window, shard: tuple[int, int]) -> list[str]:
        """What the whole says of a window inside this window; nothing where it says nothing."""
        tell = getattr(self.whole, "estimate", None)
        lines: list[str] = [] if tell is None else tell(periods, self._outer(window), shard)
        return lines

    def remarks(self, window: Window) -> list[str]:
        """What the whole says of a window inside this window; nothing where it says nothing."""
        tell = getattr(self.whole, "remarks", None)
        lines: list[str] = [] if tell is None else tell(self._outer(window))
        return lines

    def reach(self, window: Window) -> Window:
        """The part of a window inside this window in which the whole may have values."""
        narrow = getattr(self.whole, "reach", None)
        if narrow is None:
            return window
        outer: Window = narrow(self._outer(window))
        return replace(outer, row=outer.row - self.window.row, column=outer.column - self.window.column)

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        """The values of a window inside this window."""
        return self.whole.compute(periods, self._outer(window))

    def _outer(self, window: Window) -> Window:
        return Window(
            row=self.window.row + window.row,
            column=self.window.column + window.column,
            height=window.height,
            width=window.width,
        )
