"""What detail is worth: only cells that matter are asked and kept, and the sums are those of asking everywhere."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from services.products.gwsa import transfer
from services.products.gwsa.refine import HALO
from services.products.gwsa.transfer import SCALE, Scene, worth

SIDE = HALO * SCALE
MONTHS = tuple(range(400, 424))


def scene(width: int, height: int = 24, predictors: int = 6) -> Scene:
    """A rectangle of land of noise, with what is around it."""
    random = np.random.default_rng(1)
    shape = (height + 2 * SIDE, width + 2 * SIDE)
    fields = random.normal(size=(predictors, *shape)).astype(np.float32)
    values = random.normal(size=(len(MONTHS), *shape)).astype(np.float32) + fields[0]
    area = np.zeros(shape)
    area[SIDE:-SIDE, SIDE:-SIDE] = random.uniform(0.5, 1.0, (height, width))
    return Scene(
        values=values,
        predictors=lambda position: fields + np.float32(position),
        months=MONTHS,
        area=area,
        row_areas=np.linspace(0.9, 1.0, shape[0]),
    )


def ends(width: int, height: int = 24, length: int = 24) -> NDArray[np.bool_]:
    """Both ends of the rectangle, as a region has them that lies on two shores."""
    cells = np.zeros((height, width), dtype=bool)
    cells[:, :length] = cells[:, -length:] = True
    return cells


def fit(
    rows: NDArray[np.float32], target: NDArray[np.float64], weights: NDArray[np.float64]
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Weighted least squares."""
    root = np.sqrt(weights)[:, None]
    found, *_ = np.linalg.lstsq(rows * root, target * root[:, 0], rcond=None)
    return lambda asked: (asked @ found).astype(np.float32)


def test_rows_are_those_of_the_months_one_after_another() -> None:
    here, cells = scene(48), ends(48)
    asked, target, weights = here.rows(cells, [4, 1])
    np.testing.assert_array_equal(asked, np.concatenate([here.features(4)[cells], here.features(1)[cells]]))
    departures = [(here.inside(here.values[one]) - here.plain(one))[cells] for one in (4, 1)]
    np.testing.assert_array_equal(target, np.concatenate(departures))
    np.testing.assert_array_equal(weights, np.tile(here.inner_area[cells], 2))
    assert asked.dtype == np.float32


def test_what_is_asked_around_a_region_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    here, cells = scene(160), ends(160)
    found = worth(here, cells, cells, fit, 0)
    assert found.total.best > 0.5, "there is something to learn"
    around = transfer._around(cells)
    assert not around.all()
    monkeypatch.setattr(transfer, "_around", np.ones_like)
    assert worth(here, cells, cells, fit, 0) == found


def test_memory_goes_with_the_cells_of_a_region_and_not_with_the_rectangle_around_them() -> None:
    def peak(width: int) -> int:
        here, cells = scene(width, predictors=24), ends(width)
        _ = here.blocks, here.inner_area
        tracemalloc.start()
        worth(here, cells, cells, fit, 0)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    kept = len(MONTHS) * 24 * 27 * 4
    # a month of the rectangle is at hand at a time; what all months keep is of the cells alone
    assert peak(400) - peak(200) < 200 * kept / 2
