"""Means over areas from coarse levels, against the plain sum over all cells of full resolution."""

import tracemalloc
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon, box

from services.core.dataset import Dataset
from services.core.errors import PositionOutside, RequestTooLarge
from services.core.grid import Grid
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.settings import StoreSettings
from services.core.store import Store
from services.core.time_axis import TimeAxis
from tests.tiler.queries.conftest import publish_first
from tiler import zonal
from tiler.cells import cells_touching
from tiler.chunks import ChunkCache
from tiler.polygons import boxes_of, covered_fraction
from tiler.zonal import means_over

PERIODS = 12
MANY = 32_000_000

FINE = Grid.of(west=-180, north=90, step_x="1/120", width=43200, height=18000)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A published grid and what it was made of."""

    dataset: Dataset
    decoded: dict[str, NDArray[np.float64]]
    """Quantity -> ``(time, y, x)`` as stored, NaN where missing."""

    def exact(self, quantity: Quantity, area: MultiPolygon) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and valid weight of each period over all cells of full resolution."""
        cells = cells_touching(self.dataset.product.grid, boxes_of(area))
        weights = covered_fraction(area, cells) * cells.row_areas[:, np.newaxis]
        values = np.concatenate([self.decoded[quantity.name][:, w.rows, w.columns] for w in cells.windows], axis=2)
        valid = np.where(np.isnan(values), 0.0, weights)
        weight = valid.sum(axis=(1, 2))
        with np.errstate(invalid="ignore"):
            return np.nansum(values * valid, axis=(1, 2)) / weight, weight


QUANTITIES = (
    Quantity(name="packed", units="cm", long_name="p", dtype="int16", scale_factor=0.1, fill_value=-32768),
    Quantity(name="near", units="1", long_name="means lie beside the missing value", dtype="uint8", fill_value=3),
    Quantity(name="plain", units="cm", long_name="f"),
)

# chunks are as small beside these grids as they are beside those of real products
GRIDS = {
    "global": replace(Grid.of(west=-180, north=90, step_x="1/2", width=720, height=360), chunk_x=45, chunk_y=45),
    # a width that no level divides, rows that end inside a cell of a level, and a seam inside Africa
    "odd": replace(
        Grid.of(west=20, north=77, step_x="360/717", step_y="1/2", width=717, height=301), chunk_x=40, chunk_y=40
    ),
    "regional": replace(Grid.of(west=-20, north=40, step_x="1/4", width=301, height=303), chunk_x=32, chunk_y=32),
}


@pytest.fixture(scope="module", params=sorted(GRIDS))
def case(request: pytest.FixtureRequest) -> Case:
    grid = GRIDS[request.param]
    dice = np.random.default_rng(5)
    y, x = np.radians(grid.latitudes)[:, np.newaxis], np.radians(grid.longitudes)
    smooth = 20 * np.sin(3 * x) * np.cos(2 * y) + 10 * np.sin(17 * x + 5 * y)
    values: dict[str, NDArray[np.float64]] = {}
    for quantity in QUANTITIES:
        made = smooth + dice.normal(0, 3, (PERIODS, *grid.shape))
        # coasts, the same in all periods, and holes that are not
        made[:, np.sin(5 * x) + np.cos(4 * y) > 1.2] = np.nan
        made[dice.random(made.shape) < 0.001] = np.nan
        made[7] = np.nan
        if quantity.name == "near":
            made = np.where(np.isnan(made), np.nan, np.round(np.where(np.abs(made) < 10, 2, 4)))
        values[quantity.name] = made
    product = Product(
        id="case",
        title="t",
        description="d",
        grid=grid,
        step="P1M",
        quantities=QUANTITIES,
        map_block=1,
        series_block=120,
        license="CC0-1.0",
        synthetic=True,
    )
    store = Store.open(f"memory://zonal-{request.param}", StoreSettings())
    version = publish_first(store, product, TimeAxis.regular("2015-01", "P1M", PERIODS), values)
    return Case(
        dataset=Dataset(store, version, ChunkCache(64 << 20)),
        decoded={q.name: q.decode(q.pack(values[q.name])).astype(np.float64) for q in QUANTITIES},
    )


AREAS: dict[str, list[tuple[float, float]]] = {
    "continent": [(-17, 15), (-10, 34), (10, 37), (33, 31), (51, 12), (40, -16), (28, -33), (9, 4), (-17, 15)],
    "antimeridian": [(150, -20), (210, -25), (200, 30), (160, 25), (150, -20)],
    "pole": [(-180, 60), (180, 60), (180, 90), (-180, 90), (-180, 60)],
    "one cell": [(10.3, 10.3), (10.4, 10.3), (10.4, 10.4), (10.3, 10.4), (10.3, 10.3)],
    # as a whole over the southern end of each grid, where rows of a level reach beyond it
    "south": [(-170, -89), (170, -89), (170, 20), (-170, 20), (-170, -89)],
    # too low for a row of a level to be touched, and not for one of full resolution
    "sliver": [(0, 0), (29, 0), (0, 1e-6), (0, 0)],
    "sliver beside": [(0, 1e-6), (0, -1), (29, 0), (0, 1e-6)],
    "thin": [(-15, -30), (50, 36), (50, 36.05), (-15, -30)],
}


@pytest.mark.parametrize("name", sorted(AREAS))
def test_a_mean_lies_within_its_error_of_the_sum_over_all_cells(case: Case, name: str) -> None:
    agree(case, MultiPolygon([Polygon(AREAS[name])]))


def test_an_area_of_parts_with_holes(case: Case) -> None:
    agree(
        case,
        MultiPolygon(
            [
                Polygon(AREAS["continent"], [[(5, 10), (25, 12), (20, 25), (5, 10)]]),
                box(60, -20, 100, 10),
                box(-18, -34, -3.14, -2.72),
            ]
        ),
    )


@settings(max_examples=30, deadline=None)
@given(
    corners=st.lists(st.tuples(st.floats(-19, 54), st.floats(-34, 39)), min_size=3, max_size=9, unique=True),
)
@example(corners=[(0.0, 0.0), (0.0, 1.192092896e-07), (17.0, 6.0)])
@example(corners=[(0.0, 0.0), (0.0, 1.192092896e-07), (17.0, 0.0)])
def test_any_area(case: Case, corners: list[tuple[float, float]]) -> None:
    hull = Polygon(corners).convex_hull
    if isinstance(hull, Polygon) and hull.area > 1e-6:
        agree(case, MultiPolygon([hull]))


def agree(case: Case, area: MultiPolygon) -> None:
    try:
        found = means_over(case.dataset, QUANTITIES, range(PERIODS), area, MANY)
    except PositionOutside:
        assert case.dataset.product.id == "case"
        with pytest.raises(PositionOutside):
            cells_touching(case.dataset.product.grid, boxes_of(area))
        return
    for quantity in QUANTITIES:
        wanted, weight = case.exact(quantity, area)
        means = found[quantity.name]
        assert np.array_equal(np.isnan(means.value), np.isnan(wanted))
        here = ~np.isnan(wanted)
        off = np.abs(means.value - wanted)[here]
        # of needles a ten-millionth of a degree wide the cover is told to a hundred-millionth
        assert (off <= means.error[here] + 1e-8 * np.abs(wanted[here])).all()
        assert (means.error[here] <= (quantity.scale_factor or 1.0)).all() or quantity.name == "plain"
        # the valid share is told to 1/255 of the cells that are valid in part
        assert means.valid == pytest.approx(weight, rel=2e-3, abs=1e-12)


def test_a_continent_is_not_read_at_full_resolution(case: Case) -> None:
    read: list[int] = []

    class Counting(ChunkCache):
        def get_all(self, keys: Any, load: Any) -> Any:
            found = super().get_all(keys, load)
            read.extend(chunk.size for chunk in found)
            return found

    counting = Dataset(case.dataset.store, case.dataset.version, Counting(64 << 20))
    area = MultiPolygon([box(-19, -34, 54, 39) if counting.product.grid.step_x == 1 / 4 else box(-160, -50, 160, 70)])
    found = means_over(counting, QUANTITIES[:1], range(PERIODS), area, MANY)
    assert found["packed"].error[0] > 0
    assert sum(read) <= zonal._divisions(counting.product, PERIODS, area)[0].touched
    cells = cells_touching(counting.product.grid, boxes_of(area))
    chunks = {
        (y // counting.product.grid.chunk_y, x // counting.product.grid.chunk_x)
        for window in cells.windows
        for y in range(window.row, window.row + window.height)
        for x in range(window.column, window.column + window.width)
    }
    assert sum(read) < len(chunks) * counting.product.grid.chunk_y * counting.product.grid.chunk_x * PERIODS


def test_what_a_coarse_level_cannot_tell_is_read_in_full(case: Case) -> None:
    # floats have no quantum: a level is taken only where it is exact to a millionth
    area = MultiPolygon([Polygon(AREAS["continent"])])
    found = means_over(case.dataset, QUANTITIES[2:], range(PERIODS), area, MANY)["plain"]
    wanted, _ = case.exact(QUANTITIES[2], area)
    assert found.value == pytest.approx(wanted, rel=1e-6, nan_ok=True)


def test_a_mean_beside_the_missing_value_may_be_a_step_off_more() -> None:
    near = zonal._lost_steps(QUANTITIES[1], np.array([2, 3, 4, 9], dtype=np.uint8))
    assert near.tolist() == [1.5, 1.5, 1.5, 0.5]


def test_more_than_may_be_read_is_refused(case: Case) -> None:
    area = MultiPolygon([Polygon(AREAS["continent"])])
    with pytest.raises(RequestTooLarge, match=r"reads [0-9]{4,9} values and at most 1600"):
        means_over(case.dataset, QUANTITIES, range(PERIODS), area, 100)


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        (Quantity(name="a", units="1", long_name="a", dtype="float64"), 401.0),
        (Quantity(name="a", units="1", long_name="a"), 394.37717),
        (Quantity(name="a", units="1", long_name="a", dtype="int16", scale_factor=0.01, fill_value=-1), 0.07),
    ],
)
def test_the_mean_of_equal_values_is_that_value(quantity: Quantity, value: float) -> None:
    stored = quantity.pack(np.full((3, 64800), value))
    stored[1, ::3] = quantity.fill
    sums = zonal._Sums(quantity, 3)
    weights = np.random.default_rng(0).random(64800)
    sums.add(range(3), stored[:, :1000], weights[:1000])
    sums.add(range(3), stored[:, 1000:], weights[1000:])
    assert sums.means().value.tolist() == [float(quantity.decode(stored[:1, 1])[0])] * 3


def test_planning_a_mean_over_nearly_everything_takes_little_memory_and_time() -> None:
    product = Product(id="fine", title="t", description="d", grid=FINE, step="P1M", quantities=QUANTITIES[:1])
    area = MultiPolygon([box(-179.99, -59.9, 179.99, 89.9)])
    tracemalloc.start()
    try:
        finest = zonal._finest(product, 1, cells_touching(FINE, boxes_of(area)))
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
    assert finest.touched == 27 * 64 * 675 * 675, "all chunks of its map"
