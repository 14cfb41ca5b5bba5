"""Ways to learn detail within blocks, and what each is worth on held-out blocks: by the product's weights.

All learners answer for cells of a case in a month; ``worth`` adds
them to the conservative interpolation of the block means. Two kinds differ in what they see of the cells:

* ``raw`` and ``centred`` know block means only, as the product's first models do;
* ``departures`` learns how cells of other blocks differ from the interpolation of their block means, from how their
  predictors differ from theirs: values finer than the blocks must be known somewhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.gwsa.train import Settings, fit
from services.products.gwsa.refine import DETAIL_HALO, DETAIL_STEPS, HALO, Blocks, interpolated, refined
from services.products.gwsa.transfer import FOLD, FOLDS, SCALE, Moments

type Cells = NDArray[np.float64]
type Mask = NDArray[np.bool_]
type Said = Callable[[int], Cells]
"""Position of a month -> what is said of its cells, ``(Y, X)``."""
type Learn = Callable[[Mask], Said]
"""Blocks and months to learn from, ``(time, Y / SCALE, X / SCALE)``."""

SMALL = Settings(trees=100, depth=4, learning_rate=0.1)
SHALLOW = Settings(trees=200, depth=2, learning_rate=0.1)
PENALTY = 0.1
"""Of the ridge, in units of a feature's variance; not tuned."""

SIDE = HALO * SCALE
"""Cells that a case is padded with."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A field of whole blocks and its predictors."""

    values: Cells
    """cm, ``(time, Y, X)``, NaN where missing."""

    predictors: NDArray[np.float32]
    """``(time, Y, X, predictor)``."""

    times: Cells
    """Year, sine and cosine of each month, ``(time, 3)``."""

    area: Cells
    """``(Y, X)``, 0 where the field is missing."""

    row_areas: Cells

    @property
    def known(self) -> Mask:
        return self.area > 0

    @cached_property
    def blocks(self) -> Blocks:
        """With HALO blocks of nothing around."""
        return Blocks.of(SCALE, padded(self.known, fill=False), np.pad(self.row_areas, SIDE, mode="edge"))

    @cached_property
    def means(self) -> Cells:
        """Block means of the field, ``(time, Y / SCALE, X / SCALE)``."""
        return self.block_means(self.values)

    @cached_property
    def plain(self) -> Cells:
        """The conservative interpolation of the block means, ``(time, Y, X)``."""
        rings = np.pad(self.means, ((0, 0), (HALO, HALO), (HALO, HALO)), constant_values=np.nan)
        return np.stack([refined(self.blocks, month) for month in rings])

    @cached_property
    def predictor_means(self) -> Cells:
        """``(time, Y / SCALE, X / SCALE, predictor)``."""
        columns = np.moveaxis(self.predictors, 3, 0).astype(np.float64)
        return np.stack([self.block_means(column) for column in columns], axis=3)

    @cached_property
    def departures(self) -> Cells:
        """Predictors less the interpolation of their block means, ``(time, Y, X, predictor)``."""
        found = np.empty(self.predictors.shape)
        for month, maps in enumerate(self.predictor_means):
            for one in range(maps.shape[2]):
                rings = np.pad(maps[:, :, one], HALO, constant_values=np.nan)
                smooth = interpolated(
                    self.blocks.sharpened(rings, DETAIL_STEPS)[HALO - 1 : 1 - HALO, HALO - 1 : 1 - HALO], SCALE
                )
                found[month, :, :, one] = self.predictors[month, :, :, one] - smooth
        return found

    @cached_property
    def block_areas(self) -> Cells:
        return sums(self.area)

    def block_means(self, values: NDArray[Any]) -> Cells:
        return np.stack([block_means(month, self.area) for month in values])

    def cells(self, blocks: Mask) -> Mask:
        """The cells with values of some blocks, ``(time, Y, X)``."""
        return np.repeat(np.repeat(blocks, SCALE, 1), SCALE, 2) & self.known & np.isfinite(self.values)


def sums(values: Cells) -> Cells:
    """Of blocks, ``(Y / SCALE, X / SCALE)``."""
    height, width = (size // SCALE for size in values.shape)
    found: Cells = values.reshape(height, SCALE, width, SCALE).sum(axis=(1, 3))
    return found


def block_means(values: NDArray[Any], area: Cells) -> Cells:
    """Of blocks, of what is not missing; NaN where nothing is known."""
    weight = np.where(np.isnan(values), 0.0, area)
    total = sums(weight)
    found: Cells = np.full(total.shape, np.nan)
    np.divide(sums(np.nan_to_num(values).astype(np.float64) * weight), total, out=found, where=total > 0)
    return found


def padded(values: NDArray[Any], fill: Any) -> NDArray[Any]:
    """With SIDE cells around the last two axes."""
    widths = [(0, 0)] * (values.ndim - 2) + [(SIDE, SIDE)] * 2
    return np.pad(values, widths, constant_values=fill)


# -- what is learned


def raw(case: Case, settings: Settings | None = None, *, everywhere: bool = False) -> Learn:
    """Block means of the field from block means of the predictors.

    Args:
        case: field and predictors.
        settings: of the trees.
        everywhere: also from the blocks that are scored, as the product does: it has only their means anyway.
    """
    block = with_times(case.predictor_means, case.times)
    fine = with_times(case.predictors, case.times)

    def learn(blocks: Mask) -> Said:
        if everywhere:
            blocks = np.broadcast_to(blocks.any(axis=(1, 2))[:, None, None], blocks.shape)
        blocks = blocks & np.isfinite(case.means)
        weights = np.broadcast_to(case.block_areas, blocks.shape)[blocks]
        return trees(block[blocks], case.means[blocks], weights, settings, fine)

    return learn


def centred(case: Case, settings: Settings | None = None) -> Learn:
    """As ``raw``, of field and predictors less their means of the month over what is learned from."""

    def learn(blocks: Mask) -> Said:
        blocks = blocks & np.isfinite(case.means)
        inside = np.where(blocks.any(axis=0) & (case.block_areas > 0), case.block_areas, 0.0)
        middle = mean_of(case.means[..., None], inside)
        centre = mean_of(case.predictor_means, inside)
        block = with_times(case.predictor_means - centre, case.times)
        fine = with_times(case.predictors - centre, case.times)
        weights = np.broadcast_to(case.block_areas, blocks.shape)[blocks]
        return trees(block[blocks], (case.means - middle[..., 0])[blocks], weights, settings, fine)

    return learn


def neighbours(case: Case, settings: Settings | None = None) -> Learn:
    """Block means less those of the 3 x 3 blocks around, from predictors less theirs; nothing within blocks is seen."""
    values = case.means - around(case.means[..., None], case.block_areas)[..., 0]
    block = with_times(case.predictor_means - around(case.predictor_means, case.block_areas), case.times)
    fine = with_times(case.departures, case.times)

    def learn(blocks: Mask) -> Said:
        blocks = blocks & np.isfinite(values)
        weights = np.broadcast_to(case.block_areas, blocks.shape)[blocks]
        return trees(block[blocks], values[blocks], weights, settings, fine)

    return learn


def departures(case: Case, settings: Settings | None = None, *, coarse: bool = False) -> Learn:
    """The field less the interpolation of its block means, from the predictors less theirs.

    Args:
        case: field and predictors.
        settings: of the trees.
        coarse: the interpolated block means are a predictor, too.
    """
    columns = [case.departures, case.plain[..., None]] if coarse else [case.departures]
    fine = with_times(np.concatenate(columns, axis=3), case.times)

    def learn(blocks: Mask) -> Said:
        cells = case.cells(blocks)
        weights = np.broadcast_to(case.area, cells.shape)[cells]
        return trees(fine[cells], (case.values - case.plain)[cells], weights, settings, fine)

    return learn


def ridge(case: Case, *, coarse: bool = False) -> Learn:
    """As ``departures``, by a line in each predictor whose slope has a trend and a season (and follows the field)."""

    def design(month: int) -> Cells:
        return lines(case.departures[month], case.plain[month], case.times[month], coarse=coarse)

    def learn(blocks: Mask) -> Said:
        cells = case.cells(blocks)
        months = np.flatnonzero(cells.any(axis=(1, 2)))
        rows = np.concatenate([design(int(month))[cells[month].ravel()] for month in months])
        weights = np.broadcast_to(case.area, cells.shape)[cells]
        slopes = ridge_slopes(rows, (case.values - case.plain)[cells], weights)
        return lambda month: (design(month) @ slopes).reshape(case.area.shape)

    return learn


def lines(departure: Cells, field: Cells, time: Cells, *, coarse: bool) -> Cells:
    """Departures ``(Y, X, predictor)`` times 1, years since 2010, season (and the field): ``(cell, feature)``."""
    one = np.ones(field.size)
    shapes = [one, (time[0] - 2010) / 5 * one, time[1] * one, time[2] * one]
    if coarse:
        shapes.append(np.nan_to_num(field.ravel()) / 10)
    rows: Cells = np.nan_to_num(departure.reshape(field.size, -1, 1)) * np.stack(shapes, axis=1)[:, None, :]
    return rows.reshape(field.size, -1)


def ridge_slopes(rows: Cells, target: Cells, weights: Cells) -> Cells:
    """Least squares with PENALTY on the slopes of features of unit mean square."""
    size = np.sqrt(weights @ rows**2 / weights.sum()) + 1e-12
    scaled = rows / size
    gram = (scaled * weights[:, None]).T @ scaled / weights.sum()
    slopes = np.linalg.solve(gram + PENALTY * np.eye(len(gram)), (scaled * weights[:, None]).T @ target / weights.sum())
    found: Cells = slopes / size
    return found


def trees(
    rows: NDArray[Any], target: Cells, weights: Cells, settings: Settings | None, fine: NDArray[np.float32]
) -> Said:
    """The product's trees; ``fine`` is what they are asked with, ``(time, Y, X, feature)``."""
    names = [f"x{number}" for number in range(rows.shape[1])]
    model = fit(rows, target, names=names, units=["1"] * len(names), weights=weights, settings=settings)
    shape = fine.shape[1:3]
    return lambda month: model.predict(fine[month].reshape(-1, fine.shape[3])).reshape(shape).astype(np.float64)


def with_times(columns: NDArray[Any], times: Cells) -> NDArray[np.float32]:
    """Features ``(time, Y, X, feature)`` with year, sine and cosine of the month."""
    spread = np.broadcast_to(times[:, None, None, :], (*columns.shape[:3], times.shape[1]))
    return np.concatenate([columns, spread], axis=3).astype(np.float32)


def mean_of(maps: Cells, areas: Cells) -> Cells:
    """Means over the blocks of each month, ``(time, 1, 1, column)``."""
    weights = np.where(np.isfinite(maps), areas[None, :, :, None], 0.0)
    means: Cells = (np.nan_to_num(maps) * weights).sum(axis=(1, 2), keepdims=True) / weights.sum(
        axis=(1, 2), keepdims=True
    )
    return means


def around(maps: Cells, areas: Cells) -> Cells:
    """Means of the 3 x 3 blocks around each, ``(time, Y, X, column)``."""
    weights = np.where(np.isfinite(maps), areas[None, :, :, None], 0.0)
    total, weight = (box(part) for part in (np.nan_to_num(maps) * weights, weights))
    means: Cells = np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0)
    return means


def box(maps: Cells) -> Cells:
    height, width = maps.shape[1:3]
    rings = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
    total: Cells = np.sum([rings[:, y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
    return total


# -- what it is worth


def dealt(count: int, size: int) -> NDArray[np.int64]:
    """Fold of each of so many things in runs of ``size``: dealt out evenly in random order, seed 0."""
    runs = -(-count // size)
    return np.repeat(np.random.default_rng(0).permutation(np.arange(runs) % FOLDS), size)[:count]


def worth(case: Case, learn: Learn, seed: int = 0, times: NDArray[np.int64] | None = None) -> dict[int, Moments]:
    """Sums for each fold of blocks, as ``transfer.worth`` makes them.

    Args:
        case: field and predictors.
        learn: what is learned from the blocks that are not held out.
        seed: of the folds.
        times: fold of each month, ``(time,)``: months of the fold that is scored are held out, too.
    """
    by_block = squares(padded(case.area, 0.0).shape, seed)[HALO:-HALO, HALO:-HALO]
    folds = np.repeat(np.repeat(by_block, SCALE, 0), SCALE, 1)
    found: dict[int, Moments] = {}
    rounds = [np.ones(len(case.values), dtype=bool)] if times is None else [times == one for one in np.unique(times)]
    for scored in rounds:
        learned = scored if times is None else ~scored
        for fold in range(FOLDS):
            mine = case.known & (folds == fold)
            if not mine.any():
                continue
            said = learn(learned[:, None, None] & (by_block != fold) & (case.block_areas > 0))
            whole = (by_block == fold) & (case.block_areas > 0)
            total = found.get(fold, Moments()) + Moments(blocks=int(whole.sum()))
            for month in np.flatnonzero(scored):
                total += _scored(case, mine, said(int(month)), int(month))
            found[fold] = total
    return found


def squares(shape: tuple[int, ...], seed: int) -> NDArray[np.int64]:
    """Fold of each block of a padded case: squares of FOLD cells, dealt out evenly in random order."""
    side = FOLD // SCALE
    height, width = (-(-size // FOLD) for size in shape)
    drawn = np.random.default_rng(seed).permutation(np.arange(height * width) % FOLDS).reshape(height, width)
    folds: NDArray[np.int64] = np.repeat(np.repeat(drawn, side, 0), side, 1)
    return folds[: shape[0] // SCALE, : shape[1] // SCALE]


def _scored(case: Case, mine: Mask, said: Cells, month: int) -> Moments:
    """Of a month: what is wrong without detail, and the detail as the product closes it."""
    rings = np.pad(case.means[month], HALO, constant_values=np.nan)
    side = slice((HALO - DETAIL_HALO) * SCALE, -(HALO - DETAIL_HALO) * SCALE)
    around = padded(np.where(case.known, said, 0.0), 0.0)
    detail = (refined(case.blocks, rings, around[side, side]) - case.plain[month])[mine]
    error, weight = (case.values - case.plain)[month][mine], case.area[mine]
    return Moments(
        weight=float(weight.sum()),
        ee=float(weight @ error**2),
        de=float(weight @ (detail * error)),
        dd=float(weight @ detail**2),
    )


def nested(found: Mapping[int, Moments]) -> tuple[dict[int, float], float]:
    """Each fold's weight as the other folds would choose it, and the error with them: none saw what it is held to."""
    weights = {fold: sum((other for name, other in found.items() if name != fold), Moments()).best for fold in found}
    total = sum(found.values(), Moments())
    left = sum(one.rmse(weights[fold]) ** 2 * one.weight for fold, one in found.items())
    return weights, float(np.sqrt(left / total.weight))


def told(found: Mapping[int, Moments]) -> dict[str, Any]:
    """As JSON data, cm."""
    total = sum(found.values(), Moments())
    weights, error = nested(found)
    return {
        "weight": rounded(total.best),
        "rmse_weight_0": rounded(total.rmse(0)),
        "rmse_weight": rounded(total.rmse(total.best)),
        "rmse_weight_of_other_folds": rounded(error),
        "rmse_weight_1": rounded(total.rmse(1)),
        "folds": {
            str(fold): {
                "blocks": one.blocks,
                "weight": rounded(one.best),
                "weight_of_other_folds": rounded(weights[fold]),
                "rmse_weight_0": rounded(one.rmse(0)),
                "rmse_weight_of_other_folds": rounded(one.rmse(weights[fold])),
                "rmse_weight_1": rounded(one.rmse(1)),
            }
            for fold, one in found.items()
        },
    }


def shuffled(case: Case) -> Case:
    """The same with the predictors of each cell those of another one: what is worth something without them is none."""
    places = np.flatnonzero(case.known)
    flat = case.predictors.reshape(len(case.values), -1, case.predictors.shape[3]).copy()
    flat[:, places] = flat[:, np.random.default_rng(0).permutation(places)]
    return replace(case, predictors=flat.reshape(case.predictors.shape))


VARIANTS: dict[str, Callable[[Case], Learn]] = {
    "raw": raw,
    "raw, small": lambda case: raw(case, SMALL),
    "raw, small, all blocks learned": lambda case: raw(case, SMALL, everywhere=True),
    "centred on the month, small": lambda case: centred(case, SMALL),
    "3 x 3 blocks, small": lambda case: neighbours(case, SMALL),
    "departures": departures,
    "departures, small": lambda case: departures(case, SMALL),
    "departures, shallow": lambda case: departures(case, SHALLOW),
    "departures, small, coarse value": lambda case: departures(case, SMALL, coarse=True),
    "departures, small, predictors shuffled": lambda case: departures(shuffled(case), SMALL),
    "departures, ridge": ridge,
    "departures, ridge, coarse value": lambda case: ridge(case, coarse=True),
}
"""What is compared. Small is 100 trees of depth 4, shallow 200 of depth 2, else 500 of depth 10."""


def rounded(value: float) -> float:
    return round(float(value), 4)
