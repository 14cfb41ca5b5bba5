"""What a model's detail is worth: learned at 1 degree, asked at 1/4, where the truth within the cells is known.

The step from 1/4 to 1/120 degree cannot be scored, as nobody has measured it. So the same step is taken one scale
higher: the coarse field is averaged to blocks of SCALE cells, a model learns these blocks, and what it says of the
cells within blocks that it has not seen is held against what they are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.products.gwsa.refine import DETAIL_HALO, HALO, Blocks, refined

type Cells = NDArray[np.float64]
type Floats = NDArray[np.float32]

SCALE = 4
"""Coarse cells along a side of a block."""

FOLD = 8
"""Coarse cells along a side of what is held out together: 2 degrees (our choice)."""

FOLDS = 5

LEAST_BLOCKS = 8
"""Blocks of a region below which its own score says too little and that of all regions is taken (our choice)."""

type Fit = Callable[[Floats, Cells, Cells], Callable[[Floats], Floats]]
"""Features ``(row, feature)``, target and weight of each row -> what predicts rows."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Area-weighted sums over scored cells and months: of the error without detail e, and of the detail d."""

    weight: float = 0.0
    ee: float = 0.0
    de: float = 0.0
    dd: float = 0.0
    blocks: int = 0
    """Blocks that were scored."""

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            weight=self.weight + other.weight,
            ee=self.ee + other.ee,
            de=self.de + other.de,
            dd=self.dd + other.dd,
            blocks=self.blocks + other.blocks,
        )

    @property
    def best(self) -> float:
        """The share of the detail that leaves the least squared error, 0 to 1: ``<d, e> / <d, d>``."""
        return float(np.clip(self.de / self.dd, 0.0, 1.0)) if self.dd > 0 else 0.0

    def rmse(self, share: float) -> float:
        """Root mean square of what is left with a share of the detail."""
        left = self.ee - 2 * share * self.de + share**2 * self.dd
        return float(np.sqrt(max(left, 0.0) / self.weight)) if self.weight > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A window of the coarse grid, padded to whole blocks with HALO of them around."""

    values: Cells
    """The coarse field, ``(time, Y, X)``, NaN where missing."""

    features: Callable[[int], Floats]
    """Features of a month by its position, ``(Y, X, feature)``."""

    area: Cells
    """Area of land in each cell, 0 where the field is missing, ``(Y, X)``."""

    row_areas: Cells
    """Relative area of a cell of each row, ``(Y,)``."""


def moments(scene: Scene, mine: NDArray[np.bool_], near: NDArray[np.bool_], fit: Fit, seed: int) -> Moments:
    """Score one region's detail on held-out blocks.

    Args:
        scene: values and features.
        mine: cells of the region, ``(Y, X)``.
        near: cells that it learns from, ``(Y, X)``.
        fit: how a model is learned.
        seed: of the folds.

    Returns:
        Sums over the region's cells; nothing where it has no block to learn from.
    """
    blocks = Blocks.of(SCALE, scene.area > 0, scene.row_areas)
    folds = _folds(mine.shape, seed)
    whole = (
        (near & (scene.area > 0)).reshape(mine.shape[0] // SCALE, SCALE, mine.shape[1] // SCALE, SCALE).any(axis=(1, 3))
    )
    total = Moments()
    for fold in range(FOLDS):
        held = np.repeat(np.repeat(folds == fold, SCALE, 0), SCALE, 1)
        scored = mine & held & (scene.area > 0)
        learned = whole & (folds != fold)
        if not scored.any() or not learned.any():
            continue
        rows = [_learned(scene, blocks, learned, position) for position in range(len(scene.values))]
        features, target, weight = (np.concatenate([row[i] for row in rows]) for i in range(3))
        predict = fit(features, target, weight)
        count = int(scored.reshape(whole.shape[0], SCALE, whole.shape[1], SCALE).any(axis=(1, 3)).sum())
        total += Moments(blocks=count)
        for position in range(len(scene.values)):
            total += _scored(scene, blocks, scored, predict, position)
    return total


def _folds(shape: tuple[int, int], seed: int) -> NDArray[np.int64]:
    """Fold of each block ``(Y / SCALE, X / SCALE)``: squares of FOLD cells, dealt out evenly in random order."""
    side = FOLD // SCALE
    height, width = (-(-size // FOLD) for size in shape)
    dealt = np.random.default_rng(seed).permutation(np.arange(height * width) % FOLDS).reshape(height, width)
    folds: NDArray[np.int64] = np.repeat(np.repeat(dealt, side, 0), side, 1)
    return folds[: shape[0] // SCALE, : shape[1] // SCALE]


def _learned(scene: Scene, blocks: Blocks, learned: NDArray[np.bool_], position: int) -> tuple[Floats, Cells, Cells]:
    """Rows of a month: block means of features and field."""
    means = blocks.means(scene.values[position])[learned]
    features = scene.features(position)
    averaged = np.stack([_means(features[:, :, one], scene.area)[learned] for one in range(features.shape[2])], axis=1)
    return averaged.astype(np.float32), means, _sums(scene.area)[learned]


def _scored(
    scene: Scene, blocks: Blocks, scored: NDArray[np.bool_], predict: Callable[[Floats], Floats], position: int
) -> Moments:
    values = scene.values[position]
    coarse = blocks.means(values)
    land = scene.area > 0
    said = np.zeros(values.shape)
    said[land] = predict(scene.features(position)[land])
    side = (HALO - DETAIL_HALO) * SCALE
    plain = refined(blocks, coarse)
    detail = refined(blocks, coarse, said[side : said.shape[0] - side, side : said.shape[1] - side]) - plain
    inner = slice(HALO * SCALE, -HALO * SCALE)
    at = scored[inner, inner]
    weight = scene.area[inner, inner][at]
    error, detail = (values[inner, inner] - plain)[at], detail[at]
    return Moments(
        weight=float(weight.sum()),
        ee=float(weight @ error**2),
        de=float(weight @ (detail * error)),
        dd=float(weight @ detail**2),
    )


def _sums(values: Cells) -> Cells:
    height, width = (size // SCALE for size in values.shape)
    sums: Cells = values.reshape(height, SCALE, width, SCALE).sum(axis=(1, 3))
    return sums


def _means(values: Floats, area: Cells) -> Cells:
    """Missing-aware means of blocks, NaN where nothing is known."""
    weight = np.where(np.isnan(values), 0.0, area)
    total = _sums(weight)
    sums = _sums(np.nan_to_num(values).astype(np.float64) * weight)
    means: Cells = np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0)
    return means


def padded(shape: tuple[int, int], corner: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Cells to add before and after rows, and before and after columns: to whole blocks of the globe, and HALO of them.

    Args:
        shape: rows and columns.
        corner: row and column of the first cell on the coarse grid.
    """
    found = []
    for size, first in zip(shape, corner, strict=True):
        before = first % SCALE
        after = -(first + size) % SCALE
        found.append((before + HALO * SCALE, after + HALO * SCALE))
    return (found[0], found[1])


def months_of(count: int, most: int) -> Iterator[int]:
    """Positions of at most so many months, spread evenly: scoring all of a long series says no more."""
    yield from np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)).tolist()
