"""Regions: polygons, squares where there is none, small ones merged; shares that blend across borders."""

import numpy as np
import pytest
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.products.gwsa.declaration import COARSE
from services.products.gwsa.reach import Reach
from services.products.gwsa.regions import BLEND, BUFFER, LEAST, REACH, divided, shares, with_buffer

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
    near = with_buffer(labels, 1, valid)
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
