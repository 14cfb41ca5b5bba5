"""From a coarse field to a fine one whose block means over land are the coarse values.

A coarse cell is a block of ``factor`` x ``factor`` fine cells. Spreading a field by bilinear interpolation smooths it,
so its block means are no longer what they were; the field that is spread is therefore sharpened first, until they are.
What a model knows within the cells is added, less what it says about their means.

Sharpening solves ``S c = g``: g are the wanted means, c the values that are spread, and S the block means over land of
the bilinear interpolation, a stencil of 3 x 3 cells. Its eigenvalues lie in 0.25 to 1 (0.5 along each axis for values
that alternate, 1 for a constant), so that a fixed number of Chebyshev steps (Golub and Varga, 1961, Numer. Math. 3) is
enough, and a value depends on few cells around it: it is the same whichever window it is computed in. What little is
left is added to whole cells.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.floating[Any]]
type Coarse = NDArray[np.float64]

STEPS = 6
"""Chebyshev steps for the coarse field: they leave 0.002 of what alternates between cells, nothing of a constant."""

DETAIL_STEPS = 2
"""The same for what a model says, and for predictors: each asks for a ring of cells more. They leave 0.16."""

HALO = STEPS + 2
"""Coarse cells around a window that decide about it: one that a cell beyond the border is extended from, one for the
interpolation, and one for each step."""

DETAIL_HALO = DETAIL_STEPS + 2
"""Coarse cells around a window where the model must be asked, for the same reasons."""

_LOW, _HIGH = 0.25, 1.0
"""Where the eigenvalues of S lie."""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Land of a window of whole coarse cells, and the interpolation's stencil there."""

    factor: int
    """Fine cells along a side of a coarse one."""

    areas: NDArray[np.float64]
    """Relative area of fine cells ``(y, x)``, 0 where no value is wanted."""

    stencil: NDArray[np.float64]
    """Block means over land of the interpolation, ``(Y, X, 3, 3)``; the cell itself where there is no land."""

    @classmethod
    def of(cls, factor: int, land: NDArray[np.bool_], row_areas: Floats) -> "Blocks":
        """The blocks of a window.

        Args:
            factor: fine cells along a side of a coarse one.
            land: where values are wanted, ``(y, x)`` of whole coarse cells.
            row_areas: relative area of a fine cell of each row, ``(y,)``.
        """
        height, width = (size // factor for size in land.shape)
        if land.shape != (height * factor, width * factor) or row_areas.shape != land.shape[:1]:
            raise ValueError(f"{land.shape} cells in {row_areas.shape} rows are no blocks of {factor}")
        areas = np.where(land, row_areas[:, None], 0.0)
        blocks = areas.reshape(height, factor, width, factor)
        shares = _shares(factor)
        stencil = np.empty((height, width, 3, 3))
        for right in range(3):
            along = (blocks * shares[:, right]).sum(axis=3)
            for down in range(3):
                stencil[:, :, down, right] = (along * shares[:, down, None]).sum(axis=1)
        total = blocks.sum(axis=3).sum(axis=1)
        some = total > 0
        stencil[some] /= total[some][:, None, None]
        stencil[~some] = 0.0
        stencil[~some, 1, 1] = 1.0
        return cls(factor=factor, areas=areas, stencil=stencil)

    def inside(self, margin: int) -> "Blocks":
        """The blocks less so many coarse cells on each side."""
        fine = margin * self.factor
        height, width = self.areas.shape
        rows, columns = self.stencil.shape[:2]
        return Blocks(
            factor=self.factor,
            areas=self.areas[fine : height - fine, fine : width - fine],
            stencil=self.stencil[margin : rows - margin, margin : columns - margin],
        )

    def rows(self, first: int, count: int) -> "Blocks":
        """Some rows of coarse cells."""
        return Blocks(
            factor=self.factor,
            areas=self.areas[first * self.factor : (first + count) * self.factor],
            stencil=self.stencil[first : first + count],
        )

    @property
    def land(self) -> NDArray[np.bool_]:
        """Where values are wanted, ``(y, x)``."""
        some: NDArray[np.bool_] = self.areas > 0
        return some

    def means(self, fine: Floats) -> Coarse:
        """Area-weighted means over the land of each block that has a value, ``(Y, X)``; NaN where there is none."""
        height, width = self.stencil.shape[:2]
        shape = (height, self.factor, width, self.factor)
        areas = np.where(np.isnan(fine), 0.0, self.areas)
        weighted = np.where(areas > 0, fine, 0.0) * areas
        # one axis after the other: the order of the sums must not depend on the size of the window
        sums, total = (part.reshape(shape).sum(axis=3).sum(axis=1) for part in (weighted, areas))
        means: Coarse = np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0)
        return means

    def sharpened(self, means: Coarse, steps: int) -> Coarse:
        """Values whose interpolation has these block means, nearly.

        Args:
            means: wanted, ``(Y, X)``, NaN where unknown. Where a block has no land it is the value that is
                interpolated.
            steps: of the Chebyshev iteration, which begins with what is wanted, so that a constant is kept exactly; a
                value depends on so many cells around it, and one more.

        Returns:
            ``(Y, X)``; unknown blocks beside known ones are extended from them.
        """
        known = ~np.isnan(means)
        # once, before: extended anew at each step, a value would depend on cells twice as far
        wanted = extended(means, known)
        middle, half = (_HIGH + _LOW) / 2, (_HIGH - _LOW) / 2
        rate, direction, values = 1 / middle, np.zeros_like(wanted), wanted
        for number in range(steps):
            off = np.where(known, wanted - self._interpolated_means(values), 0.0)
            share = 0.0 if number == 0 else (half * rate) ** 2 / (2 if number == 1 else 4)
            rate = 1 / (middle - share / rate)
            direction = off + share * direction
            values = values + rate * direction
        return values

    def _interpolated_means(self, values: Coarse) -> Coarse:
        height, width = values.shape
        padded = np.pad(values, 1, mode="edge")
        means = np.zeros_like(values)
        for down in range(3):
            for right in range(3):
                means += self.stencil[:, :, down, right] * padded[down : down + height, right : right + width]
        return means


def refined(blocks: Blocks, coarse: Coarse, predicted: Floats | None = None) -> NDArray[np.float64]:
    """The fine field of a window.

    Args:
        blocks: of the window with HALO coarse cells around it.
        coarse: the wanted block means there, ``(Y, X)``, NaN where there are none; finite in blocks with land.
        predicted: what a model says, ``(y, x)`` of the window with DETAIL_HALO coarse cells around it, finite on land;
            only what varies within the blocks is taken. None: nothing.

    Returns:
        ``(y, x)`` of the window, NaN where no value is wanted; its block means are those wanted to rounding.
    """
    inner = blocks.inside(HALO)
    values = blocks.sharpened(coarse, STEPS)
    ring = slice(HALO - 1, 1 - HALO)
    values = values[ring, ring]
    if predicted is not None:
        known = blocks.inside(HALO - DETAIL_HALO)
        values = values - smooth(known, known.means(predicted))
    fine = interpolated(values, blocks.factor)
    if predicted is not None:
        side = DETAIL_HALO * blocks.factor
        fine += predicted[side : predicted.shape[0] - side, side : predicted.shape[1] - side]
    left = coarse[HALO:-HALO, HALO:-HALO] - inner.means(fine)
    fine += np.repeat(np.repeat(left, blocks.factor, axis=0), blocks.factor, axis=1)
    fine[~inner.land] = np.nan
    return fine


def smooth(blocks: Blocks, means: Coarse) -> Coarse:
    """What is interpolated where only these block means are known: as the detail is closed, so that both are alike.

    Args:
        blocks: of a window with DETAIL_HALO coarse cells around it.
        means: ``(Y, X)`` there, NaN where unknown.

    Returns:
        Values for ``interpolated``, ``(Y - 2 DETAIL_HALO + 2, X - 2 DETAIL_HALO + 2)``.
    """
    ring = slice(DETAIL_HALO - 1, 1 - DETAIL_HALO)
    return blocks.sharpened(means, DETAIL_STEPS)[ring, ring]


def extended(values: Coarse, known: NDArray[np.bool_]) -> Coarse:
    """Unknown cells take the mean of the known ones among their 8 neighbours, 0 where there is none; ``(Y, X)``."""
    height, width = values.shape
    padded, there = np.pad(np.where(known, values, 0.0), 1), np.pad(known, 1)
    total, count = np.zeros_like(values), np.zeros(values.shape)
    for down in range(3):
        for right in range(3):
            part = (slice(down, down + height), slice(right, right + width))
            total += padded[part]
            count += there[part]
    return np.where(known, values, np.divide(total, count, out=np.zeros_like(total), where=count > 0))


def interpolated(values: Coarse, factor: int) -> NDArray[np.float64]:
    """Bilinear interpolation between the centres of coarse cells, at the centres of fine ones.

    Args:
        values: ``(Y + 2, X + 2)``: a ring of cells lies around those that are answered for.
        factor: fine cells along a side of a coarse one.

    Returns:
        ``(Y * factor, X * factor)``.
    """
    shares = _shares(factor)
    height, width = (size - 2 for size in values.shape)
    along = np.zeros((height + 2, width, factor))
    for right in range(3):
        along += values[:, right : right + width, None] * shares[:, right]
    rows = along.reshape(height + 2, width * factor)
    fine = np.zeros((height, factor, width * factor))
    for down in range(3):
        fine += rows[down : down + height, None, :] * shares[:, down, None]
    return fine.reshape(height * factor, width * factor)


def _shares(factor: int) -> NDArray[np.float64]:
    """What the cell before, the own and the next one weigh at each fine cell's centre, ``(factor, 3)``."""
    ahead = (np.arange(factor) + 0.5) / factor - 0.5
    shares = np.zeros((factor, 3))
    shares[:, 0] = np.maximum(-ahead, 0.0)
    shares[:, 2] = np.maximum(ahead, 0.0)
    shares[:, 1] = 1 - shares[:, 0] - shares[:, 2]
    return shares
