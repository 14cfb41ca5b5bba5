"""Regions: polygons, squares where there is none, small ones merged; shares that blend across borders."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.products.gwsa.coarse import Coarse
from services.products.gwsa.declaration import COARSE
from services.products.gwsa.reach import Reach
from services.products.gwsa.refine import HALO
from services.products.gwsa.regions import BLEND, BUFFER, LEAST, REACH, divided, shares, with_buffer
from services.products.gwsa.training import _ends, box, cut
from services.products.gwsa.transfer import SCALE

GRID = Grid.of(west=-10, north=55, step_x="1/4", width=80, height=40)
EVERYWHERE = np.ones(GRID.shape, dtype=bool)


def covered(*parts: tuple[slice, slice]) -> NDArray[np.int16]:
    found = np.full(GRID.shape, -1, dtype=np.int16)
    for number, part in enumerate(parts):
        found[part] = number
    return found


def test_polygons_are_regions_and_the_rest_is_cut_into_squares() -> None:
    labels, names = divided(covered((slice(20, 40), slice(50, 80))), ["Great Plain"], GRID, EVERYWHERE)
    # the grid lies between 55 and 45 N; the meridian of Greenwich cuts the rest
    assert names == ("great_plain", "rest_45w_90n", "rest_0e_90n")
    assert set(np.unique(labels[20:, 50:])) == {names.index("great_plain")}
    assert set(np.unique(labels[:, :40])) == {names.index("rest_45w_90n")}
    assert set(np.unique(labels[:20, 40:])) == {names.index("rest_0e_90n")}


def test_a_small_region_goes_to_the_neighbour_with_the_longest_border() -> None:
    side = int(np.sqrt(LEAST)) - 1
    small = (slice(30, 30 + side), slice(60 - side, 60))
    big = (slice(25, 40), slice(60, 80))
    other = (slice(10, 30), slice(40, 60))
    around = (slice(30, 30 + side), slice(60 - side, 60))
    cells = covered(big, other)
    cells[around] = 2
    labels, names = divided(cells, ["Big", "Other", "Small"], GRID, EVERYWHERE)
    assert "small" not in names
    owner = {names[one] for one in np.unique(labels[small])}
    assert len(owner) == 1
    assert owner <= {"big", "other", "rest_0e_45n", "rest_0e_90n"}
    counts = [int((labels == one).sum()) for one in range(len(names))]
    assert min(counts) >= LEAST


def test_cells_without_values_take_the_region_of_the_nearest() -> None:
    valid = EVERYWHERE.copy()
    valid[:, 40:] = False
    labels, names = divided(covered((slice(0, 40), slice(0, 40))), ["West"], GRID, valid)
    assert names == ("west",)
    assert (labels == 0).all()
    with pytest.raises(InputRefused, match="no cell has a value"):
        divided(covered(), [], GRID, ~EVERYWHERE)


def test_names_are_fit_for_files_and_unlike() -> None:
    halves = covered((slice(0, 40), slice(0, 40)), (slice(0, 40), slice(40, 80)))
    assert divided(halves, ["Bassin d'Aquitaine / N°5", "bassin d aquitaine n 5"], GRID, EVERYWHERE)[1] == (
        "bassin_d_aquitaine_n_5",
        "bassin_d_aquitaine_n_5_2",
    )
    assert divided(halves, ["42", ""], GRID, EVERYWHERE)[1] == ("region_42", "region")


def test_shares_fall_linearly_across_a_straight_border_and_sum_to_one() -> None:
    labels = np.zeros((30, 40), dtype=np.int16)
    labels[:, 20:] = 3
    found = dict(shares(labels))
    assert sorted(found) == [0, 3]
    np.testing.assert_allclose(found[0] + found[3], 1.0)
    depth = 20 - (np.arange(40) + 0.5)  # to the border, in cells, positive inside region 0
    expected = np.clip(0.5 + depth / (2 * BLEND), 0, 1)[REACH:-REACH]
    np.testing.assert_allclose(found[0], np.broadcast_to(expected, found[0].shape), atol=1e-12)


def test_shares_do_not_depend_on_the_window() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.repeat(random.integers(0, 5, (10, 12)), 5, 0), 5, 1).astype(np.int16)
    whole = dict(shares(labels))
    cut = dict(shares(labels[7:35, 11:48]))
    for region, share in cut.items():
        np.testing.assert_array_equal(share, whole[region][7 : 35 - 2 * REACH, 11 : 48 - 2 * REACH])
    lost = set(whole) - set(cut)
    assert all((whole[region][7 : 35 - 2 * REACH, 11 : 48 - 2 * REACH] == 0).all() for region in lost)


def test_a_region_learns_from_a_ring_around_it() -> None:
    labels = np.zeros((30, 30), dtype=np.int16)
    labels[10:20, 10:20] = 1
    valid = np.ones((30, 30), dtype=bool)
    valid[:, 15] = False
    near = with_buffer(labels, 1, valid, around=False)
    assert near[12, 9 - BUFFER + 1]
    assert not near[12, 9 - BUFFER]
    assert not near[:, 15].any()


def test_a_reach_passes_the_seam_and_the_poles() -> None:
    reach = Reach.of(Window(row=0, column=1436, height=3, width=4)).grown(2)
    found = np.full(reach.shape, -1)
    numbers = np.arange(COARSE.height * COARSE.width).reshape(COARSE.shape)
    for source, target in reach.parts(COARSE):
        found[target] = numbers[source.rows, source.columns]
    assert (found[:2] == -1).all()
    assert found[2:].tolist() == [[row * 1440 + column % 1440 for column in range(1434, 1442)] for row in range(5)]
    rows, columns = reach.places(COARSE)
    assert (rows[0], columns[-1]) == (-2, 1)
    known = Window(row=1, column=0, height=2, width=1)
    parts = list(reach.parts(COARSE, known))
    assert [(source.row, source.column, source.height, source.width) for source, _ in parts] == [(0, 0, 2, 1)]
    assert parts[0][1] == (slice(3, 5), slice(6, 7))


WORLD = Grid.of(west=-180, north=60, step_x="1/4", width=1440, height=60)


def whole_world() -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Aquifers of the whole circle, one astride the antimeridian, a small one there too, and sea between them."""
    random = np.random.default_rng(4)
    cells = np.zeros(WORLD.shape, dtype=np.int16)
    for number, first in enumerate((100, 400, 700, 1000), start=1):
        cells[:, first : first + 300] = number
    cells[:, 1300:] = 5
    cells[:22, :100], cells[22:, :100] = 7, 0
    cells[15:29, :2] = 6  # 28 cells; their longest border is with 5, across the antimeridian
    valid = random.random(WORLD.shape) < 0.5
    valid[:10] = valid[15:29, :2] = True
    valid[40:, 1380:] = valid[40:, :40] = False  # sea whose nearest land is across the antimeridian
    return cells, valid


@pytest.mark.parametrize("turn", [1, 77, 720])
def test_regions_are_the_same_wherever_the_map_begins(turn: int) -> None:
    cells, valid = whole_world()
    names = [f"aquifer {number}" for number in range(8)]
    labels, kept = divided(cells, names, WORLD, valid)
    turned, kept_too = divided(np.roll(cells, turn, axis=1), names, WORLD, np.roll(valid, turn, axis=1))
    assert kept == kept_too == tuple(f"aquifer_{number}" for number in (0, 1, 2, 3, 4, 5, 7))
    np.testing.assert_array_equal(turned, np.roll(labels, turn, axis=1))
    for region in range(len(kept)):
        near = with_buffer(labels, region, valid, around=True)
        again = with_buffer(turned, region, np.roll(valid, turn, axis=1), around=True)
        np.testing.assert_array_equal(again, np.roll(near, turn, axis=1))


@pytest.mark.parametrize(
    ("columns", "ends"),
    [
        ([10, 11, 40], (10, 40)),
        ([0, 1, 30, 1400, 1439], (-40, 30)),
        ([900, 1439], (900, 1439)),
        ([700, 1439], (-1, 700)),
        ([*range(4), *range(20, 1440)], (20, 1443)),
        ([0, 1439], (-1, 0)),
        (list(range(0, 1440, 7)), (0, 1439)),
        ([5], (5, 5)),
    ],
)
def test_the_columns_of_a_region_are_taken_the_shorter_way_round(columns: list[int], ends: tuple[int, int]) -> None:
    some = np.zeros(1440, dtype=bool)
    some[columns] = True
    assert _ends(some, around=True) == ends
    assert _ends(some, around=False) == (columns[0], columns[-1])


@pytest.mark.parametrize("turn", [40, 720, 1400])
def test_a_region_astride_the_antimeridian_is_cut_out_whole_and_with_what_is_around_it(turn: int) -> None:
    here = Coarse(directory=Path("nowhere"), months=(0,), window=Window(row=0, column=0, height=60, width=1440))
    numbers = np.arange(60 * 1440, dtype=np.float64).reshape(60, 1440)
    cells = np.zeros((60, 1440), dtype=bool)
    cells[20:30, 1400:] = cells[25:40, :60] = True
    inner = box(here, cells)
    assert (inner.column, inner.width, inner.row, inner.height) == (-40, 100, 20, 20)
    turned = box(here, np.roll(cells, turn, axis=1))
    for margin in (0, HALO * SCALE):
        mine = cut(here, numbers, inner.grown(margin), np.nan)
        again = cut(here, np.roll(numbers, turn, axis=1), turned.grown(margin), np.nan)
        np.testing.assert_array_equal(mine, again)
    assert cut(here, cells, inner, fill=False).sum() == cells.sum()
