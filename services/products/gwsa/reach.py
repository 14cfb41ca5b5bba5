"""Rectangles of cells that pass the edges of their grid, as the surroundings of a window do."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Grid, Window


@dataclass(frozen=True, kw_only=True)
class Reach:
    """A rectangle of cells that may pass the edges of its grid: round the earth where the grid goes round."""

    row: int
    column: int
    height: int
    width: int

    @classmethod
    def of(cls, window: Window) -> "Reach":
        """A window."""
        return cls(row=window.row, column=window.column, height=window.height, width=window.width)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self.height, self.width)

    def grown(self, margin: int) -> "Reach":
        """With so many cells more on each side; less where negative."""
        return Reach(
            row=self.row - margin,
            column=self.column - margin,
            height=self.height + 2 * margin,
            width=self.width + 2 * margin,
        )

    def times(self, factor: int) -> "Reach":
        """The same rectangle in cells that are so much smaller."""
        return Reach(
            row=self.row * factor, column=self.column * factor, height=self.height * factor, width=self.width * factor
        )

    def places(self, grid: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of a grid, columns round the earth where it goes round; they may lie outside."""
        rows = np.arange(self.row, self.row + self.height)
        columns = np.arange(self.column, self.column + self.width)
        return rows, columns % grid.width if grid.is_global else columns

    def parts(self, grid: Grid, known: Window | None = None) -> Iterator[tuple[Window, tuple[slice, slice]]]:
        """Windows of what is known that lie in the rectangle, and where each goes.

        Args:
            grid: that both are cells of.
            known: cells that there are; the windows are counted from its corner. None: the whole grid.
        """
        here = known or Window(row=0, column=0, height=grid.height, width=grid.width)
        top, bottom = max(self.row, here.row), min(self.row + self.height, here.row + here.height)
        turns = (-grid.width, 0, grid.width) if grid.is_global else (0,)
        for turn in turns:
            left = max(self.column, here.column + turn)
            right = min(self.column + self.width, here.column + here.width + turn)
            if left < right and top < bottom:
                yield (
                    Window(
                        row=top - here.row, column=left - turn - here.column, height=bottom - top, width=right - left
                    ),
                    (slice(top - self.row, bottom - self.row), slice(left - self.column, right - self.column)),
                )
