"""The fine field keeps the coarse means, has no seams of its own, and is the same in whichever window."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import RegularGridInterpolator

from services.products.gwsa.refine import (
    DETAIL_HALO,
    DETAIL_STEPS,
    HALO,
    STEPS,
    Blocks,
    extended,
    interpolated,
    refined,
)
from services.products.gwsa.refine import smooth as smooth_means

FACTOR = 10
SIDE = 2 * HALO + 9

type Cells = NDArray[np.float64]


def rows(cells: int) -> Cells:
    return np.cos(np.radians(60 - np.arange(cells * FACTOR) / FACTOR / 4))


def coast(seed: int, side: int = SIDE) -> NDArray[np.bool_]:
    noise = np.random.default_rng(seed).normal(size=(side * FACTOR, side * FACTOR))
    land: NDArray[np.bool_] = ndimage.gaussian_filter(noise, FACTOR) > -0.01
    return land


def blocks_of(land: NDArray[np.bool_]) -> Blocks:
    return Blocks.of(FACTOR, land, rows(land.shape[0] // FACTOR))


def smooth(seed: int, side: int, sigma: float) -> Cells:
    field: Cells = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), sigma)
    return field / field.std()


def ring(values: Cells) -> Cells:
    """What the model says, cut to where it must be asked."""
    side = (HALO - DETAIL_HALO) * FACTOR
    return values[side:-side, side:-side]


def inner(values: Cells, margin: int = HALO) -> Cells:
    return values[margin:-margin, margin:-margin]


def test_interpolation_is_scipys() -> None:
    values = np.random.default_rng(0).normal(size=(7, 9))
    own = (np.arange(7.0), np.arange(9.0))
    y, x = (1 + (np.arange(size * FACTOR) + 0.5) / FACTOR - 0.5 for size in (5, 7))
    expected = RegularGridInterpolator(own, values)(np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1))
    np.testing.assert_allclose(interpolated(values, FACTOR), expected, atol=1e-12)


def test_the_stencil_gives_the_block_means_of_the_interpolation() -> None:
    blocks = blocks_of(coast(1))
    values = np.random.default_rng(1).normal(size=(SIDE, SIDE))
    by_stencil = inner(blocks._interpolated_means(values), 1)
    by_hand = blocks.inside(1).means(interpolated(values, FACTOR))
    some = ~np.isnan(by_hand)
    assert some.mean() > 0.5
    assert not some.all()
    np.testing.assert_allclose(by_stencil[some], by_hand[some], atol=1e-12)
    np.testing.assert_array_equal(by_stencil[~some], inner(values, 1)[~some])


@pytest.mark.parametrize("said", [False, True])
def test_block_means_over_land_are_the_coarse_values(*, said: bool) -> None:
    blocks = blocks_of(coast(2))
    coarse = np.random.default_rng(2).normal(size=(SIDE, SIDE)) * 10
    model = np.random.default_rng(3).normal(size=blocks.areas.shape) * 10 + 50 if said else None
    fine = refined(blocks, coarse, None if model is None else ring(model))
    assert np.array_equal(np.isnan(fine), ~blocks.inside(HALO).land)
    # the means by another way than the code's: cell by cell
    areas = blocks.inside(HALO).areas
    for row in range(SIDE - 2 * HALO):
        for column in range(SIDE - 2 * HALO):
            part = (slice(row * FACTOR, (row + 1) * FACTOR), slice(column * FACTOR, (column + 1) * FACTOR))
            if areas[part].any():
                mean = np.average(np.nan_to_num(fine[part]), weights=areas[part])
                assert mean == pytest.approx(inner(coarse)[row, column], abs=1e-9)


def test_a_constant_stays_one_and_a_model_that_is_one_adds_nothing() -> None:
    blocks = blocks_of(coast(4))
    fine = refined(blocks, np.full((SIDE, SIDE), 7.0), ring(np.full(blocks.areas.shape, -3.0)))
    np.testing.assert_allclose(fine[blocks.inside(HALO).land], 7.0, atol=1e-12)


def test_only_what_varies_within_the_blocks_is_taken_from_the_model() -> None:
    blocks = blocks_of(np.ones((SIDE * FACTOR, SIDE * FACTOR), dtype=bool))
    coarse = smooth(5, SIDE, 2)
    model = smooth(6, SIDE * FACTOR, 1)
    plain, detailed = refined(blocks, coarse), refined(blocks, coarse, ring(model))
    detail = detailed - plain
    own = model[HALO * FACTOR : -HALO * FACTOR, HALO * FACTOR : -HALO * FACTOR]
    within = own - np.repeat(np.repeat(blocks.inside(HALO).means(own), FACTOR, 0), FACTOR, 1)
    assert np.corrcoef(detail.ravel(), within.ravel())[0, 1] > 0.9
    np.testing.assert_allclose(refined(blocks, coarse, ring(model + 100)), detailed, atol=1e-9)


def test_values_do_not_depend_on_the_window_bit_by_bit() -> None:
    side = SIDE + 8
    land = coast(7, side)
    coarse = np.random.default_rng(7).normal(size=(side, side))
    model = np.random.default_rng(8).normal(size=land.shape)
    whole = refined(blocks_of(land), coarse, ring(model))
    for top, left, height, width in ((0, 0, SIDE, SIDE), (3, 5, SIDE, SIDE), (8, 2, SIDE, SIDE + 4)):
        part = (slice(top * FACTOR, (top + height) * FACTOR), slice(left * FACTOR, (left + width) * FACTOR))
        blocks = Blocks.of(FACTOR, land[part], rows(side)[part[0]])
        cut = coarse[top : top + height, left : left + width]
        found = refined(blocks, cut, ring(model[part]))
        expected = whole[
            top * FACTOR : (top + height - 2 * HALO) * FACTOR, left * FACTOR : (left + width - 2 * HALO) * FACTOR
        ]
        np.testing.assert_array_equal(found, expected)


def test_cells_without_land_or_value_do_not_reach_into_the_others() -> None:
    land = coast(9)
    blocks = blocks_of(land)
    coarse = smooth(9, SIDE, 2)
    dry = ~land.reshape(SIDE, FACTOR, SIDE, FACTOR).any(axis=(1, 3))
    assert dry.any()
    gone = coarse.copy()
    gone[dry] = np.nan
    fine = refined(blocks, gone)
    some = blocks.inside(HALO).land
    assert np.isfinite(fine[some]).all()
    # a shore's cells are extended from their neighbours: near what they are where the field is smooth
    assert np.abs(fine[some] - refined(blocks, coarse)[some]).max() < 1.5


def steps(fine: Cells, width: int) -> tuple[float, float]:
    """Median step across the edges of blocks, and inside them."""
    jumps = np.abs(np.diff(fine, axis=1))
    at_edge = np.arange(jumps.shape[1]) % width == width - 1
    return float(np.median(jumps[:, at_edge])), float(np.median(jumps[:, ~at_edge]))


def test_there_is_no_step_at_the_edges_of_blocks() -> None:
    blocks = blocks_of(np.ones((SIDE * FACTOR, SIDE * FACTOR), dtype=bool))
    coarse = smooth(10, SIDE, 1.5) * 5
    rough = smooth(11, SIDE * FACTOR, 1.5) + smooth(12, SIDE * FACTOR, 12)
    for model in (None, ring(rough)):
        edge, inside = steps(refined(blocks, coarse, model), FACTOR)
        assert edge < 1.1 * inside
    nearest = refined(blocks, coarse, ring(rough)) * 0 + np.repeat(np.repeat(inner(coarse), FACTOR, 0), FACTOR, 1)
    edge, inside = steps(nearest, FACTOR)
    assert edge > 10 * inside + 0.1


@pytest.mark.parametrize("taken", [STEPS, DETAIL_STEPS])
def test_sharpening_leaves_what_chebyshev_promises(taken: int) -> None:
    most = 0.75 * 2 / (3.0**taken + 3.0**-taken)  # of a board, whose eigenvalue is 1/4, what is off at first is 3/4
    blocks = blocks_of(np.ones((SIDE * FACTOR, SIDE * FACTOR), dtype=bool))
    board = np.where(np.indices((SIDE, SIDE)).sum(axis=0) % 2, 1.0, -1.0)
    left = board - blocks._interpolated_means(blocks.sharpened(board, taken))
    worst = np.abs(inner(left)).max()
    assert worst == pytest.approx(most, rel=0.05)


def test_a_constant_is_smooth_and_holes_stay_holes() -> None:
    blocks = blocks_of(coast(14))
    level = np.full((SIDE, SIDE), 4000.0)
    inner_level = smooth_means(blocks.inside(HALO - DETAIL_HALO), inner(level, HALO - DETAIL_HALO))
    np.testing.assert_allclose(inner_level, 4000.0, atol=1e-9)
    holed = inner(level, HALO - DETAIL_HALO)
    holed[:, holed.shape[1] // 2 :] = np.nan
    found = smooth_means(blocks.inside(HALO - DETAIL_HALO), holed)
    known = ~np.isnan(holed[DETAIL_HALO - 1 : 1 - DETAIL_HALO, DETAIL_HALO - 1 : 1 - DETAIL_HALO])
    beside = ndimage.binary_dilation(known, np.ones((3, 3), dtype=bool))
    np.testing.assert_allclose(found[beside], 4000.0, atol=1e-9)


def test_extension_is_the_mean_of_the_known_neighbours() -> None:
    values = np.arange(25.0).reshape(5, 5)
    known = np.ones((5, 5), dtype=bool)
    known[2, 2] = known[0, 0] = False
    found = extended(values, known)
    assert found[2, 2] == pytest.approx(np.mean([6, 7, 8, 11, 13, 16, 17, 18]))
    assert found[0, 0] == pytest.approx(np.mean([1, 5, 6]))
    np.testing.assert_array_equal(found[known], values[known])


def test_what_is_no_whole_block_is_refused() -> None:
    with pytest.raises(ValueError, match="no blocks of 10"):
        Blocks.of(FACTOR, np.ones((25, 20), dtype=bool), np.ones(25))
