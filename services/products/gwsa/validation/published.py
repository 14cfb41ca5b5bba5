"""A published version on the product's two grids, and the field that it would be without any model."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.dataset import Dataset
from services.core.errors import InputRefused
from services.core.grid import Window, windows
from services.core.quantity import Quantity
from services.core.time_axis import TimeAxis
from services.products.gwsa.coarse import Coarse
from services.products.gwsa.declaration import COARSE, FACTOR, FINE, GWSA, PRODUCT
from services.products.gwsa.inputs import Inputs
from services.products.gwsa.reach import Reach
from services.products.gwsa.render import Gwsa
from services.validation.report import NotComputed, check_made_from

type Floats = NDArray[np.float64]

TILE = 16
"""Coarse cells along a side of what is read at once: 480 x 480 fine ones."""

MOST_TILES = 64
"""Tiles that are looked at (our choice): more of them say the same, and asking the models takes long."""

MOST_MONTHS = 24
"""Months of maps that are looked at, spread evenly (our choice, for the same reason)."""

TOGETHER = 12
"""Months of the field without detail that are held at once: 20 MB in a tile."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A version, the inputs that it was made from, and the coarse fields of these.

    Raises:
        InputRefused: from ``of``, if the version is none of this product, or was made from other inputs.
    """

    dataset: Dataset
    source: Inputs
    """Hashed."""

    coarse: Coarse
    row: int
    """Row of the version's first cell on FINE."""

    column: int

    @classmethod
    def of(cls, dataset: Dataset, source: Inputs, coarse: Coarse) -> "Published":
        """Lay a version on the product's grids, and hold its inputs against these."""
        grid, name = dataset.product.grid, dataset.product.id
        kinds = {(one.name, one.dtype, one.scale_factor) for one in dataset.product.quantities}
        if {(one.name, one.dtype, one.scale_factor) for one in PRODUCT.quantities} - kinds:
            raise InputRefused(f"{name} has no {', '.join(one.name for one in PRODUCT.quantities)} as gwsa stores them")
        row, column = (FINE.north - grid.north) / FINE.step_y, (grid.west - FINE.west) / FINE.step_x
        if (grid.step_x, grid.step_y) != (FINE.step_x, FINE.step_y) or {row.denominator, column.denominator} != {1}:
            raise InputRefused(f"{name} does not lie on the cells of gwsa's grid of 1/120 degree")
        mine = {one.name: one.sha256 for one in source.digests}
        check_made_from(dataset.version, mine, source.settings.deciding(), str(source.directory))
        return cls(dataset=dataset, source=source, coarse=coarse, row=int(row), column=int(column))

    @property
    def cells(self) -> Window:
        """Coarse cells that lie in the version whole.

        Raises:
            NotComputed: if there is none.
        """
        grid = self.dataset.product.grid
        top, left = -(-self.row // FACTOR), -(-self.column // FACTOR)
        bottom, right = (self.row + grid.height) // FACTOR, (self.column + grid.width) // FACTOR
        if bottom <= top or right <= left:
            raise NotComputed(f"{self.dataset.product.id} holds no whole cell of 1/4 degree")
        return Window(row=top, column=left, height=bottom - top, width=right - left)

    def tiles(self, seed: int = 0) -> tuple[list[Window], int]:
        """Windows of coarse cells with values, in a grid of TILE cells, and how many there are in all.

        Returns:
            At most MOST_TILES, drawn at random where there are more, in order.
        """
        cells, known = self.cells, self.coarse.window
        valid = np.zeros(COARSE.shape, dtype=np.bool_)
        valid[known.rows, known.columns] = np.isfinite(
            self.coarse.read(GWSA.name, self.coarse.months[0], Reach.of(known))
        )
        found = [
            Window(row=cells.row + part.row, column=cells.column + part.column, height=part.height, width=part.width)
            for part in windows(cells.shape, (TILE, TILE))
        ]
        found = [tile for tile in found if valid[tile.rows, tile.columns].any()]
        if len(found) <= MOST_TILES:
            return found, len(found)
        chosen = np.random.default_rng(seed).choice(len(found), MOST_TILES, replace=False)
        return [found[number] for number in np.sort(chosen)], len(found)

    def positions(self) -> list[int]:
        """Places of at most MOST_MONTHS of the version's months, spread evenly."""
        count = len(self.dataset.time)
        chosen: list[int] = np.unique(np.linspace(0, count - 1, min(count, MOST_MONTHS)).astype(int)).tolist()
        return chosen

    def stored(self, quantity: Quantity, position: int, tile: Window) -> NDArray[Any]:
        """A month as stored in a tile of coarse cells, ``(y, x)`` of fine cells."""
        return self.dataset.read_map(quantity, position, 0, self.window(tile))

    def values(self, position: int, tile: Window) -> Floats:
        """GWSA of a month in a tile, cm, NaN where missing."""
        return decoded(GWSA, self.stored(GWSA, position, tile))

    def window(self, tile: Window) -> Window:
        """A tile of coarse cells as cells of the version."""
        return Window(
            row=tile.row * FACTOR - self.row,
            column=tile.column * FACTOR - self.column,
            height=tile.height * FACTOR,
            width=tile.width * FACTOR,
        )

    def plain(self, positions: list[int], tile: Window) -> Iterator[NDArray[Any]]:
        """The conservative bilinear interpolation of the coarse field, packed as it would be published.

        Args:
            positions: of months in the version.
            tile: coarse cells.

        Yields:
            GWSA as stored, ``(y, x)``, a month after the other.
        """
        recipe, fine = Gwsa(source=self.source, detail=None), fine_window(tile)
        for first in range(0, len(positions), TOGETHER):
            axis = self.dataset.time.take(positions[first : first + TOGETHER])
            yield from recipe.compute(TimeAxis(step=axis.step, starts=axis.starts), fine)[GWSA.name]


def fine_window(tile: Window) -> Window:
    """A window of coarse cells as cells of FINE."""
    return Window(
        row=tile.row * FACTOR, column=tile.column * FACTOR, height=tile.height * FACTOR, width=tile.width * FACTOR
    )


def decoded(quantity: Quantity, stored: NDArray[Any]) -> Floats:
    """Stored values as float64, NaN where missing."""
    return np.asarray(quantity.decode(stored), dtype=np.float64)


def block_means(values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted means of blocks of FACTOR x FACTOR cells over those that are not NaN, and the sums of their weights.

    Args:
        values: ``(y, x)`` of whole coarse cells, NaN where missing.
        weights: the same shape, or one that broadcasts to it.

    Returns:
        ``(Y, X)`` each; a mean is NaN where its block has no value.
    """
    height, width = (size // FACTOR for size in values.shape)
    shape = (height, FACTOR, width, FACTOR)
    weight = np.where(np.isnan(values), 0.0, weights)
    total = weight.reshape(shape).sum(axis=(1, 3))
    sums = (np.nan_to_num(values) * weight).reshape(shape).sum(axis=(1, 3))
    return np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0), total
