"""What a sample weighs, against the same sums written out cell by cell."""

from types import SimpleNamespace

import numpy as np
import pytest

from services.core.grid import Grid
from services.core.quantity import Quantity
from tiler import statistics


@pytest.mark.parametrize("level", [0, 1])
def test_a_cell_counts_by_its_ground_inside_and_with_data(level: int) -> None:
    rng = np.random.default_rng(level)
    grid = Grid.of(west=0, north=60, step_x="5", width=7, height=9)
    row, shape = 2, (4, 7)
    values = rng.choice(np.array([1.5, 2.5, 4.0, np.nan]), shape)
    cover = rng.choice(np.array([0.0, 0.25, 1.0]), shape)
    with_data = rng.choice(np.array([0.0, 0.5, 1.0]), shape) if level else None
    shares = np.ones(shape) if with_data is None else with_data
    cells = [
        (values[y, x], cover[y, x], cover[y, x] * shares[y, x], row + y)
        for y in range(shape[0])
        for x in range(shape[1])
        if cover[y, x] and shares[y, x] and not np.isnan(values[y, x])
    ]
    touched = int(np.count_nonzero(cover))
    asked = sum(cover[y].sum() * grid.row_areas[row + y] for y in range(shape[0]))
    found = statistics._weighed(values.copy(), cover.copy(), with_data, grid, row, level)
    assert (found.touched, found.values.size) == (touched, len(cells))
    assert found.asked == pytest.approx(asked)
    assert found.count == pytest.approx(sum(inside for _, inside, _, _ in cells))
    assert found.sum == pytest.approx(sum(value * inside for value, inside, _, _ in cells))
    assert found.ground == pytest.approx(sum(part * grid.row_areas_km2[y] for _, _, part, y in cells))
    assert found.integral == pytest.approx(sum(value * part * grid.row_areas_km2[y] for value, _, part, y in cells))
    areas = np.array([part * grid.row_areas[y] for _, _, part, y in cells])
    np.testing.assert_allclose(found.area, areas)
    options = SimpleNamespace(percentiles=(10, 90), histogram_bins=4, limits=None)
    quantity = Quantity(name="value", units="1", long_name="X", dtype="float64")
    told = statistics.describe_sample(found, quantity, options)  # type: ignore[arg-type]
    held = found.values
    expected = np.quantile(held, [0.5, 0.1, 0.9], weights=areas, method="inverted_cdf")
    assert [told["median"], told["percentile_10"], told["percentile_90"]] == expected.tolist()
    numbers, counts = np.unique(held, return_counts=True)
    assert (told["majority"], told["minority"]) == (numbers[counts.argmax()], numbers[counts.argmin()])
    assert told["mean"] == pytest.approx(np.average(held, weights=areas))
    assert told["unique"] == len(numbers)
