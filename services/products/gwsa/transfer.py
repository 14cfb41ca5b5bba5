"""What a model's detail is worth: learned and scored one scale higher, where cells are known.

The step from 1/4 to 1/120 degree cannot be scored, as nobody has measured it. So the same step is taken one scale
higher, where the cells within the blocks are known: the coarse field is averaged to blocks of SCALE cells, a model
learns how cells depart from the interpolation of these means, and what it says in squares that it has not seen is held
against what they are.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.products.gwsa.features import features, smoothed
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

type Fit = Callable[[Floats, Cells, Cells], Callable[[Floats], Floats] | None]
"""Features ``(row, feature)``, target and weight of each row -> what predicts rows; None: too few to learn from."""


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
    """A part of the coarse field in whole blocks, with HALO blocks around it; what is asked for is inside."""

    values: NDArray[np.floating[Any]]
    """The coarse field, ``(time, Y, X)``, NaN where missing; float32 as it is kept, as all months are held."""

    predictors: Callable[[int], Floats]
    """Of a month by its position, ``(predictor, Y, X)``, NaN where missing."""

    months: tuple[int, ...]
    """Of the positions, months since 1970-01."""

    area: Cells
    """Area of land in each cell, 0 where the field is missing, ``(Y, X)``."""

    row_areas: Cells
    """Relative area of a cell of each row, ``(Y,)``."""

    @cached_property
    def blocks(self) -> Blocks:
        """Of 1 degree, with those around."""
        return Blocks.of(SCALE, self.area > 0, self.row_areas)

    @cached_property
    def inner_area(self) -> Cells:
        """Area of land of the cells inside."""
        return self.inside(self.area)

    def inside(self, cells: NDArray[Any]) -> NDArray[Any]:
        """The cells inside."""
        side = slice(HALO * SCALE, -HALO * SCALE)
        return cells[..., side, side]

    def block_means(self, position: int) -> Cells:
        """Of the field."""
        return self.blocks.means(self.values[position].astype(np.float64))

    def plain(self, position: int) -> Cells:
        """The field as it is interpolated from its block means, inside; NaN without land."""
        return refined(self.blocks, self.block_means(position))

    def features(self, position: int) -> Floats:
        """What a model takes, inside, ``(Y, X, feature)``."""
        known = self.blocks.inside(HALO - DETAIL_HALO)
        side = (HALO - DETAIL_HALO) * SCALE
        around = self.predictors(position)
        cut = around[:, side : around.shape[1] - side, side : around.shape[2] - side]
        smooth_means = smoothed(known, np.stack([known.means(one) for one in cut]))
        return features(self.inside(around), smooth_means, SCALE, self.months[position])

    def rows(self, where: NDArray[np.bool_], positions: Iterable[int]) -> tuple[Floats, Cells, Cells]:
        """Features, target and weight of some cells inside ``(Y, X)`` in some months.

        The target is the field less its interpolation from block means.
        """
        return _Kept.of(self, where & (self.inner_area > 0), positions).rows(where)


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """What is asked of some cells in some months, computed once: of these cells alone, however far apart they lie."""

    at: NDArray[np.bool_]
    """The cells, inside ``(Y, X)``."""

    features: Floats
    """``(time, cell, feature)``."""

    target: Cells
    """The field less its interpolation from block means, ``(time, cell)``."""

    area: Cells
    """Of land, ``(cell,)``."""

    @classmethod
    def of(cls, scene: Scene, at: NDArray[np.bool_], positions: Iterable[int]) -> "_Kept":
        """Month by month into place: nothing is held twice."""
        positions = list(positions)
        target = np.empty((len(positions), int(at.sum())))
        features = np.empty((0, 0, 0), dtype=np.float32)
        for number, position in enumerate(positions):
            asked = scene.features(position)[at]
            if not number:
                features = np.empty((len(positions), *asked.shape), dtype=np.float32)
            features[number] = asked
            target[number] = (scene.inside(scene.values[position]) - scene.plain(position))[at]
        return cls(at=at, features=features, target=target, area=scene.inner_area[at])

    def rows(self, where: NDArray[np.bool_]) -> tuple[Floats, Cells, Cells]:
        """Features, target and weight of those cells that are in ``where``, inside ``(Y, X)``."""
        some = where[self.at]
        asked, target = (self.features, self.target) if some.all() else (self.features[:, some], self.target[:, some])
        weights = np.tile(self.area[some], len(target))
        return asked.reshape(len(weights), -1), target.reshape(-1), weights


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What detail is worth, by folds."""

    folds: tuple[Moments, ...] = ()

    def __add__(self, other: "Worth") -> "Worth":
        return Worth(folds=self.folds + other.folds)

    @property
    def total(self) -> Moments:
        """Of all folds."""
        return sum(self.folds, Moments())

    @property
    def weight(self) -> float:
        """The share of the detail to use: the best of all folds, but 0 unless it holds up where it was not chosen."""
        return self.total.best if self.error < self.total.rmse(0.0) else 0.0

    @property
    def sigma(self) -> float:
        """Root mean square of what is left, cm."""
        return min(self.error, self.total.rmse(0.0))

    @property
    def error(self) -> float:
        """The same with each fold's share chosen by the other folds: none has seen what it is held to."""
        total = self.total
        if total.weight == 0:
            return 0.0
        left = 0.0
        for number, one in enumerate(self.folds):
            others = sum(self.folds[:number] + self.folds[number + 1 :], Moments())
            left += one.rmse(others.best) ** 2 * one.weight
        return float(np.sqrt(left / total.weight))


def worth(scene: Scene, mine: NDArray[np.bool_], near: NDArray[np.bool_], fit: Fit, seed: int) -> Worth:
    """Score one region's detail on held-out squares.

    Args:
        scene: values and predictors.
        mine: cells of the region inside the scene, ``(Y, X)``.
        near: cells that it learns from.
        fit: how a model is learned.
        seed: of the folds.

    Returns:
        Sums over the region's cells, for each fold that could be learned for.
    """
    there = scene.inner_area > 0
    fold_of = dealt(mine & there, seed)
    kept = _Kept.of(scene, there & (near | _around(mine & there)), range(len(scene.months)))
    found = []
    for fold in np.unique(fold_of[fold_of >= 0]):
        scored, learned = mine & there & (fold_of == fold), near & there & (fold_of != fold)
        if not learned.any():
            continue
        predict = fit(*kept.rows(learned))
        if predict is None:
            continue
        whole = scored.reshape(scored.shape[0] // SCALE, SCALE, scored.shape[1] // SCALE, SCALE).any(axis=(1, 3))
        sums = Moments(blocks=int(whole.sum()))
        for position in range(len(scene.months)):
            sums += _scored(scene, kept, scored, predict, position)
        found.append(sums)
    return Worth(folds=tuple(found))


def _around(scored: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The cells whose detail decides about that of some cells, once it is closed: the blocks around theirs."""
    height, width = (size // SCALE for size in scored.shape)
    blocks = scored.reshape(height, SCALE, width, SCALE).any(axis=(1, 3))
    wide = ndimage.binary_dilation(blocks, np.ones((2 * DETAIL_HALO + 1,) * 2, dtype=np.bool_))
    cells: NDArray[np.bool_] = np.repeat(np.repeat(wide, SCALE, 0), SCALE, 1)
    return cells


def dealt(mine: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """Fold of each cell: squares of FOLD cells that hold one of mine, dealt out evenly in random order; others -1."""
    height, width = (-(-size // FOLD) for size in mine.shape)
    whole = np.zeros((height * FOLD, width * FOLD), dtype=np.bool_)
    whole[: mine.shape[0], : mine.shape[1]] = mine
    squares = whole.reshape(height, FOLD, width, FOLD).any(axis=(1, 3))
    folds = np.full(squares.shape, -1, dtype=np.int64)
    folds[squares] = np.random.default_rng(seed).permutation(np.arange(squares.sum()) % FOLDS)
    cells: NDArray[np.int64] = np.repeat(np.repeat(folds, FOLD, 0), FOLD, 1)
    return cells[: mine.shape[0], : mine.shape[1]]


def _scored(
    scene: Scene, kept: _Kept, scored: NDArray[np.bool_], predict: Callable[[Floats], Floats], position: int
) -> Moments:
    """Of a month: what is wrong without detail, and the detail as it is closed."""
    side = slice((HALO - DETAIL_HALO) * SCALE, -(HALO - DETAIL_HALO) * SCALE)
    said = np.zeros(scene.area.shape)
    needed = kept.at & _around(scored)
    inner = np.zeros(needed.shape)
    inner[needed] = predict(kept.features[position, needed[kept.at]])
    said[HALO * SCALE : -HALO * SCALE, HALO * SCALE : -HALO * SCALE] = inner
    plain = scene.plain(position)
    detail = (refined(scene.blocks, scene.block_means(position), said[side, side]) - plain)[scored]
    error = (scene.inside(scene.values[position]) - plain)[scored]
    weight = scene.inner_area[scored]
    return Moments(
        weight=float(weight.sum()),
        ee=float(weight @ error**2),
        de=float(weight @ (detail * error)),
        dd=float(weight @ detail**2),
    )


def months_of(count: int, most: int) -> Iterator[int]:
    """Positions of at most so many months, spread evenly: scoring all of a long series says no more."""
    yield from np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)).tolist()
