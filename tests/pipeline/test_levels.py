"""Levels against a second, slow implementation that looks at one cell after another."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.core import layout
from services.core.catalog import current_version, read_pointer
from services.core.dataset import Dataset
from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.core.quantity import Quantity
from services.core.store import Store
from services.pipeline import levels, tasks
from services.pipeline.levels import level_window
from services.pipeline.verify import verify
from tests.pipeline.synthetic import PACKED, PLAIN, REGION, Planted, composed, current, months, planned, product, render

pytestmark = pytest.mark.slow  # as a whole

FLOAT = PLAIN
DOUBLE = replace(PLAIN, dtype="float64")
LONG = replace(PACKED, dtype="int64", scale_factor=None, add_offset=None, fill_value=-(2**63))
WHOLE = replace(PACKED, scale_factor=None, add_offset=None, fill_value=0)


def cell_area(grid: Grid, row: int) -> float:
    """Area of a cell of level 0 on the unit sphere over its width in radians, from the exact edges."""
    north = min(Fraction(90), grid.north - row * grid.step_y)
    south = max(Fraction(-90), grid.north - (row + 1) * grid.step_y)
    # sin a - sin b = 2 cos((a + b) / 2) sin((a - b) / 2): no digits are lost near a pole
    half = math.radians(float(north - south) / 2)
    return 2.0 * math.cos(math.radians(float(north + south) / 2)) * math.sin(half)


def slow_level(
    stored: NDArray[Any], quantity: Quantity, grid: Grid, level: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of stored numbers (NaN: nothing valid) and valid share of every cell of a level, by the definition."""
    factor = 2**level
    height, width = math.ceil(grid.height / factor), math.ceil(grid.width / factor)
    mean, share = np.full((height, width), np.nan), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            terms, weights, areas = [], [], []
            for row in range(y * factor, min((y + 1) * factor, grid.height)):
                for column in range(x * factor, min((x + 1) * factor, grid.width)):
                    area = cell_area(grid, row)
                    areas.append(area)
                    value = stored[row, column]
                    if not (math.isnan(value) if quantity.fill_value is None else value == quantity.fill_value):
                        terms.append(area * float(value))
                        weights.append(area)
            if math.fsum(weights) > 0:
                mean[y, x] = math.fsum(terms) / math.fsum(weights)
                share[y, x] = math.fsum(weights) / math.fsum(areas)
    return mean, share


def fast_level(
    stored: NDArray[Any], quantity: Quantity, grid: Grid, level: int
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    at = Grid.level(grid, level)
    whole = Window(row=0, column=0, height=at.height, width=at.width)
    return level_window(lambda window: stored[window.rows, window.columns], quantity, grid, level, whole)


def assert_level(stored: NDArray[Any], quantity: Quantity, grid: Grid, level: int) -> None:
    values, fraction = fast_level(stored, quantity, grid, level)
    mean, share = slow_level(stored, quantity, grid, level)
    assert values.dtype == np.dtype(quantity.dtype)
    np.testing.assert_array_equal(quantity.missing(values), np.isnan(mean))
    valid = ~np.isnan(mean)
    if quantity.is_integer:
        off = np.abs(values[valid].astype(np.float64) - mean[valid])
        beside = np.abs(mean[valid] - float(quantity.fill)) <= 0.5
        assert (off[~beside] <= 0.5 + 1e-9).all()
        # a mean that rounds to the missing value moves to one of its neighbours
        assert (off[beside] <= 1.5 + 1e-9).all()
        assert (values[valid] != quantity.fill).all()
    else:
        np.testing.assert_allclose(values[valid], mean[valid], rtol=2e-7 if quantity.dtype == "float32" else 1e-12)
    # 0: nothing; 255: all; 1..254: something, to within the rounding of a 255th
    np.testing.assert_array_equal(fraction == 0, share == 0)
    np.testing.assert_array_equal(fraction == 255, share > 1 - 1e-12)
    between = (share > 0) & (share <= 1 - 1e-12)
    assert (np.abs(fraction[between] - np.clip(share[between] * 255, 1, 254)) <= 0.5 + 1e-9).all()


def grid_of(height: int, width: int, *, north: Fraction, step: Fraction, chunk: int = 4) -> Grid:
    return Grid(
        west=Fraction(-180),
        north=north,
        step_x=step,
        step_y=step,
        width=width,
        height=height,
        chunk_y=min(chunk, height),
        chunk_x=min(chunk, width),
    )


def noise(grid: Grid, quantity: Quantity, seed: int, missing: float) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    if quantity.is_integer:
        values = rng.integers(-40, 40, grid.shape).astype(quantity.dtype)
        values[values == quantity.fill] += 1
    else:
        values = rng.normal(400, 30, grid.shape).astype(quantity.dtype)
    values[rng.random(grid.shape) < missing] = quantity.fill
    return values


GRIDS = {
    "mid latitudes, sizes that nothing divides": grid_of(13, 11, north=Fraction(50), step=Fraction(1, 8)),
    "one row": grid_of(1, 9, north=Fraction(50), step=Fraction(1, 8)),
    "one column": grid_of(9, 1, north=Fraction(50), step=Fraction(1, 8)),
    "at the north pole": grid_of(9, 12, north=Fraction(90), step=Fraction(1, 8)),
    "nodes past the north pole": grid_of(9, 12, north=Fraction(90) + Fraction(1, 16), step=Fraction(1, 8)),
    "nodes past the south pole": grid_of(9, 12, north=Fraction(-89) + Fraction(1, 16), step=Fraction(1, 8)),
    "across the equator": grid_of(10, 10, north=Fraction(1, 2), step=Fraction(1, 8)),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("quantity", [FLOAT, DOUBLE, PACKED, WHOLE, LONG], ids=["f32", "f64", "packed", "i16", "i64"])
def test_levels_equal_the_slow_mean(name: str, quantity: Quantity) -> None:
    grid = GRIDS[name]
    for level in range(1, grid.levels):
        for missing in (0.0, 0.3, 0.95, 1.0):
            assert_level(noise(grid, quantity, level, missing), quantity, grid, level)


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(2, 19),
    width=st.integers(2, 19),
    north=st.fractions(-80, 90, max_denominator=7),
    missing=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_levels_equal_the_slow_mean_on_any_grid(
    height: int, width: int, north: Fraction, missing: float, seed: int, data: st.DataObject
) -> None:
    grid = grid_of(height, width, north=north, step=Fraction(1, 9))
    quantity = data.draw(st.sampled_from([FLOAT, PACKED, WHOLE]))
    level = data.draw(st.integers(1, grid.levels - 1))
    assert_level(noise(grid, quantity, seed, missing), quantity, grid, level)


@settings(max_examples=200, deadline=None)
@given(
    value=st.one_of(
        st.floats(-(2.0**99), 2.0**99, width=32).map(np.float32),
        st.floats(-(2.0**900), 2.0**900).map(np.float64),
        st.integers(-32768, 32767).filter(lambda v: v != PACKED.fill_value).map(np.int16),
        st.integers(-(2**31), 2**31 - 1).filter(lambda v: v != 1000).map(np.int32),
        st.integers(-(2**63), 2**63 - 1).filter(lambda v: v != 1000).map(np.int64),
    ),
    seed=st.integers(0, 2**32),
    missing=st.sampled_from([0.0, 0.4]),
)
def test_a_constant_field_stays_exactly_constant(value: np.generic, seed: int, missing: float) -> None:
    grid = grid_of(13, 11, north=Fraction(89), step=Fraction(1, 8))
    base = PACKED if value.dtype.kind == "i" else FLOAT
    quantity = replace(base, dtype=value.dtype.name)
    stored = np.full(grid.shape, value)
    stored[np.random.default_rng(seed).random(grid.shape) < missing] = quantity.fill
    for level in range(1, grid.levels):
        values, fraction = fast_level(stored, quantity, grid, level)
        assert (values[fraction > 0] == value).all()
        assert quantity.missing(values[fraction == 0]).all()


def test_a_mean_that_would_read_as_missing_moves_to_a_neighbour() -> None:
    grid = grid_of(4, 4, north=Fraction(1, 4), step=Fraction(1, 8))
    for fill, low, high in ((0, -3, 3), (100, 99, 101), (-32768, -32767, -32767), (32767, 32766, 32766)):
        quantity = replace(WHOLE, fill_value=fill)
        stored = np.empty(grid.shape, dtype=np.int16)
        stored[:, ::2], stored[:, 1::2] = low, high
        for level in range(1, grid.levels):
            values, fraction = fast_level(stored, quantity, grid, level)
            assert (values != fill).all()
            assert (np.abs(values.astype(np.int64) - fill) == 1).all()
            assert (fraction == 255).all()


def test_one_valid_cell_of_many_is_seen_and_one_missing_cell_of_many_too() -> None:
    grid = grid_of(64, 64, north=Fraction(32), step=Fraction(1, 64))
    level = 6
    stored = np.full(grid.shape, np.nan, dtype=np.float32)
    stored[40, 3] = 7.0
    values, fraction = fast_level(stored, FLOAT, grid, level)
    assert (values.item(), fraction.item()) == (7.0, 1)
    stored = np.full(grid.shape, 7.0, dtype=np.float32)
    stored[40, 3] = np.nan
    values, fraction = fast_level(stored, FLOAT, grid, level)
    assert (values.item(), fraction.item()) == (7.0, 254)


def test_any_cut_into_windows_and_strips_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = grid_of(37, 29, north=Fraction(60), step=Fraction(1, 16))
    for quantity in (FLOAT, PACKED):
        stored = noise(grid, quantity, 3, 0.3)
        for level in range(1, grid.levels):
            values, fraction = fast_level(stored, quantity, grid, level)
            at = grid.level(level)
            monkeypatch.setattr(levels, "STRIP_CELLS", 40)
            for window in (
                Window(row=0, column=0, height=at.height, width=at.width),
                Window(row=at.height - 1, column=0, height=1, width=at.width),
                Window(row=0, column=at.width - 1, height=at.height, width=1),
                Window(row=at.height // 2, column=at.width // 2, height=1, width=1),
            ):
                mine = level_window(lambda w, s=stored: s[w.rows, w.columns], quantity, grid, level, window)  # type: ignore[misc]
                np.testing.assert_array_equal(mine[0], values[window.rows, window.columns])
                np.testing.assert_array_equal(mine[1], fraction[window.rows, window.columns])
            monkeypatch.undo()


def assert_stored_levels(store: Store, recipe: Planted) -> None:
    dataset = Dataset(store, current_version(store, recipe.product.id)[1])
    grid = recipe.product.grid
    for quantity in recipe.product.quantities:
        for place, stored in enumerate(recipe.stored(quantity, dataset.time)):
            for level in range(1, grid.levels):
                at = grid.level(level)
                whole = Window(row=0, column=0, height=at.height, width=at.width)
                mean, share = slow_level(stored, quantity, grid, level)
                values = dataset.read_map(quantity, place, level, whole)
                seen = dataset.read_valid_fraction(quantity, place, level, whole)
                np.testing.assert_array_equal(quantity.missing(values), np.isnan(mean))
                valid = ~np.isnan(mean)
                tolerance = 1.5 if quantity.is_integer else 1e-4
                assert np.abs(values[valid] - mean[valid]).max() <= tolerance
                np.testing.assert_allclose(seen, share, rtol=0, atol=1 / 255)
                np.testing.assert_array_equal(seen == 1, share > 1 - 1e-12)


@pytest.mark.parametrize("map_block", [1, 4])
@pytest.mark.parametrize("whole_map", [True, False], ids=["map in memory", "map too large"])
def test_the_levels_of_a_published_map_are_means_of_its_level_0(
    memory: Store, monkeypatch: pytest.MonkeyPatch, map_block: int, *, whole_map: bool
) -> None:
    if not whole_map:
        monkeypatch.setattr(tasks, "WHOLE_MAP_BYTES", 0)
    recipe = Planted(
        product=product(grid=REGION, map_block=map_block, cog_period=None), axis=months(6), holes=("2001-03",)
    )
    render(memory, replace(recipe, axis=months(5)))
    render(memory, recipe)
    assert_stored_levels(memory, recipe)


def test_a_fixed_mask_stores_its_valid_fraction_once(memory: Store) -> None:
    recipe = Planted(product=product(grid=REGION, fixed_mask=True, cog_period=None), axis=months(3))
    render(memory, recipe)
    assert_stored_levels(memory, recipe)
    version = current(memory)
    assert version is not None
    segment = Dataset(memory, version).segment(version.maps[0].segment)
    for level in range(1, REGION.levels):
        share = segment.metadata(layout.maps_path(level, layout.valid_fraction("heat")))
        assert share["shape"][0] == 1
        assert share["dimension_names"][0] == "mask_time"
        assert segment.metadata(layout.maps_path(level, "heat"))["shape"][0] == 3
    # a month that agrees is added
    longer = replace(recipe, axis=months(4))
    render(memory, longer)
    assert_stored_levels(memory, longer)
    assert verify(memory, "synthetic").findings == ()


@pytest.mark.parametrize("map_block", [1, 2, 6])
@pytest.mark.parametrize("step", [Fraction(1, 4), Fraction(2)], ids=["levels", "no levels"])
def test_a_period_that_deviates_from_a_fixed_mask_fails_and_publishes_nothing(
    memory: Store, map_block: int, step: Fraction
) -> None:
    grid = replace(REGION, step_x=step, step_y=step, west=Fraction(-40))
    declared = product(grid=grid, fixed_mask=True, map_block=map_block, cog_period=None)
    recipe = Planted(product=declared, axis=months(6), holes=("2001-05",))
    with pytest.raises(
        InputRefused, match=r"synthetic/(heat|flux) declares a mask that holds for all periods, and periods"
    ):
        render(memory, recipe)
    assert read_pointer(memory, "synthetic") is None
    assert not list(memory.list("synthetic/versions"))
    # without the deviating one all is well
    render(memory, replace(recipe, axis=months(4)))


def test_an_appended_period_that_deviates_from_the_published_mask_fails(memory: Store) -> None:
    recipe = Planted(product=product(grid=REGION, fixed_mask=True, cog_period=None), axis=months(3))
    first = render(memory, recipe)
    deviating = replace(recipe, axis=months(4), holes=("2001-04",))
    with pytest.raises(InputRefused, match="declares a mask that holds for all periods, and periods differ in it"):
        render(memory, deviating)
    assert current_version(memory, "synthetic")[0].version == first.version
    # a correction of all periods may change the mask: none of the old ones stays
    every = ("2001-01", "2001-02", "2001-03")
    render(memory, replace(recipe, holes=every, shift=1), periods="2001-01/2001-03")
    assert_stored_levels(memory, replace(recipe, holes=every, shift=1))


def test_a_level_task_is_recorded_only_when_all_of_it_is_written(memory: Store) -> None:
    recipe = Planted(product=product(grid=REGION, cog_period=None), axis=months(1))
    made = planned(memory, recipe)
    composed(memory, recipe, made)
    prefix = layout.segment_prefix("synthetic", made.segment)
    found = [listed.key for listed in memory.list(f"{prefix}ledger") if "levels" in listed.key]
    assert sorted(key.rpartition("/")[2] for key in found) == ["levels-0-flux.json", "levels-0-heat.json"]
