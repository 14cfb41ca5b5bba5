"""Areas against pyproj's geodesics and published numbers; errors against a sum over all pairs, and their limits."""

import numpy as np
import pytest
from numpy.typing import NDArray
from pyproj import Geod

from services.core.errors import InputRefused
from services.core.grid import Grid, windows
from services.validation import volume
from services.validation.volume import Gathered, volume_change

INDIA = Grid.of(west=74, north=32, step_x="1/4", width=24, height=20)


def slopes_and_errors(grid: Grid, seed: int = 4) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return rng.normal(-2, 1, grid.shape), rng.uniform(0.2, 0.9, grid.shape)


def over_all_pairs(error: NDArray[np.float64], grid: Grid, length: float) -> float:
    """The double sum, cell by cell, with haversines."""
    lon, lat = (axis.ravel() for axis in np.meshgrid(np.radians(grid.longitudes), np.radians(grid.latitudes)))
    weight, total = error.ravel(), 0.0
    for here in range(weight.size):
        half = np.sin((lat - lat[here]) / 2) ** 2
        half = half + np.cos(lat) * np.cos(lat[here]) * np.sin((lon - lon[here]) / 2) ** 2
        distance = 2 * 6371.0088 * np.arcsin(np.sqrt(half))
        total += weight[here] * (weight * np.exp(-((distance / length) ** 2))).sum()
    return float(np.sqrt(total))


@pytest.mark.parametrize(("latitude", "area"), [("0", 769.316), ("39", 601.054), ("60", 388.550)])
def test_areas_that_are_known(latitude: str, area: float) -> None:
    grid = Grid.of(west=0, north=str(float(latitude) + 0.125), step_x="1/4", width=1, height=1)
    assert grid.row_areas_km2[0] == pytest.approx(area, abs=6e-4)


@pytest.mark.parametrize(("step", "north"), [("1/4", 90), ("1/4", 12), ("1/120", 31), ("1/120", -59)])
def test_areas_are_those_of_geodesics(step: str, north: int) -> None:
    grid = Grid.of(west=20, north=north, step_x=step, width=1, height=4)
    geod = Geod(ellps="WGS84")
    for row, area in enumerate(grid.row_areas_km2):
        top, bottom = north - row * float(grid.step_y), north - (row + 1) * float(grid.step_y)
        # a parallel is no geodesic: many points make it one
        east = np.linspace(20, 20 + float(grid.step_x), 400)
        longitudes = np.concatenate([east, east[::-1]])
        latitudes = np.concatenate([np.full(400, bottom), np.full(400, top)])
        expected = abs(geod.polygon_area_perimeter(longitudes, latitudes)[0]) / 1e6
        assert area == pytest.approx(expected, rel=1e-6)


def test_all_rows_are_the_earth() -> None:
    whole = Grid.of(west=-180, north=90, step_x="1/4", width=1440, height=720)
    assert whole.row_areas_km2.sum() * 1440 == pytest.approx(510_065_621.724, rel=1e-10)
    nodes = Grid.of(west=-180, north="90.125", step_x="1/4", width=1440, height=721)
    assert nodes.row_areas_km2.sum() * 1440 == pytest.approx(510_065_621.724, rel=1e-10)


def test_a_volume_is_slope_times_area() -> None:
    share = np.random.default_rng(1).uniform(0, 1, INDIA.shape)
    slopes = np.full(INDIA.shape, -2.0)
    slopes[3, 4] = np.nan
    found = volume_change(slopes, np.full(INDIA.shape, 0.5), INDIA, share=share)
    cell = share * INDIA.row_areas_km2[:, None]
    assert found.missing_km2 == pytest.approx(cell[3, 4], rel=1e-12)
    assert found.area_km2 == pytest.approx(cell.sum() - cell[3, 4], rel=1e-12)
    # 1 cm on 1 km2 is 1e-5 km3
    assert found.total == pytest.approx(-2e-5 * found.area_km2, rel=1e-12)
    assert found.together == pytest.approx(0.5e-5 * found.area_km2, rel=1e-12)
    assert found.cells == INDIA.cells - 1


@pytest.mark.parametrize("length", [30.0, 100.0, 300.0, 1000.0])
def test_blocks_change_the_error_little(length: float) -> None:
    slopes, errors = slopes_and_errors(INDIA)
    errors[:, 13] = 0
    found = volume_change(slopes, errors, INDIA, length_km=length)
    expected = over_all_pairs(errors * INDIA.row_areas_km2[:, None] * 1e-5, INDIA, length)
    assert found.standard_error == pytest.approx(expected, rel=5e-3)
    assert found.independent < found.standard_error < found.together


def test_without_blocks_it_is_the_sum_over_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "BLOCKS_PER_LENGTH", 1000)
    monkeypatch.setattr(volume, "AT_ONCE", 5000)
    slopes, errors = slopes_and_errors(INDIA)
    for length in (40.0, 300.0):
        found = volume_change(slopes, errors, INDIA, length_km=length)
        expected = over_all_pairs(errors * INDIA.row_areas_km2[:, None] * 1e-5, INDIA, length)
        assert found.standard_error == pytest.approx(expected, rel=1e-6)


def test_limits() -> None:
    slopes, errors = slopes_and_errors(INDIA)
    none, tiny = (volume_change(slopes, errors, INDIA, length_km=length) for length in (0.0, 1e-6))
    assert none.standard_error == tiny.standard_error == pytest.approx(none.independent, rel=1e-12)
    expected = np.sqrt(((errors * INDIA.row_areas_km2[:, None]) ** 2).sum()) * 1e-5
    assert none.independent == pytest.approx(expected, rel=1e-12)
    every, wide = (volume_change(slopes, errors, INDIA, length_km=length) for length in (np.inf, 1e6))
    assert every.standard_error == pytest.approx(every.together, rel=1e-12)
    assert wide.standard_error == pytest.approx(every.together, rel=1e-4)


def test_a_wide_region_errs_like_its_independent_patches() -> None:
    # far beyond L, the variance is error^2 times area times pi L^2, the integral of the Gaussian
    grid = Grid.of(west=-60, north=30, step_x="1", width=120, height=60)
    found = volume_change(np.zeros(grid.shape), np.ones(grid.shape), grid, length_km=300)
    expected = np.sqrt(found.area_km2 * np.pi * 300**2) * 1e-5
    assert found.standard_error == pytest.approx(expected, rel=0.05)


def test_across_the_antimeridian_neighbours_are_near() -> None:
    there = Grid.of(west=0, north=10, step_x="1/4", width=40, height=40)
    across = Grid.of(west=175, north=10, step_x="1/4", width=40, height=40)
    slopes, errors = slopes_and_errors(there)
    one, other = (volume_change(slopes, errors, grid).standard_error for grid in (there, across))
    assert one == pytest.approx(other, rel=1e-9)


def test_fine_cells_cost_little_and_err_as_coarse_ones_do() -> None:
    fine = Grid.of(west=70, north=30, step_x="1/120", width=1200, height=1200)
    coarse = Grid.of(west=70, north=30, step_x="1/4", width=40, height=40)
    found = [volume_change(np.ones(grid.shape), np.full(grid.shape, 0.3), grid) for grid in (fine, coarse)]
    assert found[0].cells == 1_440_000
    assert found[0].standard_error == pytest.approx(found[1].standard_error, rel=3e-3)
    gathered = told(np.ones(fine.shape), fine, 300.0)
    assert len(gathered._places(0.0)[0]) < 1500


def told(errors: NDArray[np.float64], grid: Grid, length: float, rows: int = 10_000) -> Gathered:
    """All of a grid, some rows at a time."""
    gathered = Gathered(grid, length)
    for window in windows(grid.shape, (rows, grid.width)):
        part = errors[window.rows]
        gathered.add(2 * part, part, np.ones(part.shape), window)
    return gathered


def test_blocks_are_in_order_for_the_search_of_near_ones() -> None:
    grid = Grid.of(west=0, north=60, step_x="1/4", width=40, height=40)
    error = np.random.default_rng(3).uniform(0, 1, grid.shape) ** 8
    weight, place, latitude = told(error, grid, 1600.0)._places(0.0)
    assert (np.diff(latitude) <= 0).all()
    assert weight.sum() == pytest.approx((error * grid.row_areas_km2[:, None]).sum(), rel=1e-12)
    np.testing.assert_allclose(np.degrees(np.arcsin(place[:, 2])), latitude, rtol=1e-12)


@pytest.mark.parametrize("rows", [1, 7, 20])
def test_windows_of_any_height_say_the_same(rows: int) -> None:
    _, errors = slopes_and_errors(INDIA)
    errors[3:6, 2:9] = np.nan  # a mean that is known at the end only
    whole, parts = told(errors, INDIA, 300.0).sum(), told(errors, INDIA, 300.0, rows).sum()
    for name, value in whole.to_json().items():
        assert parts.to_json()[name] == pytest.approx(value, rel=1e-12)


def test_slopes_without_an_error_are_counted() -> None:
    slopes, errors = slopes_and_errors(INDIA)
    errors[:] = 0.4
    errors[2, 3:6] = np.nan
    found = volume_change(slopes, errors, INDIA)
    assert found.without_error == 3
    assert found.together == pytest.approx(0.4e-5 * found.area_km2, rel=1e-12)
    squares = (INDIA.row_areas_km2**2).sum() * INDIA.width
    assert found.independent == pytest.approx(0.4e-5 * np.sqrt(squares), rel=1e-12)
    assert found.to_json()["length_km"] == 300.0
    exact = volume_change(slopes, np.zeros(INDIA.shape), INDIA)
    assert exact.standard_error == 0


def test_what_does_not_fit_is_refused() -> None:
    slopes, errors = slopes_and_errors(INDIA)
    with pytest.raises(InputRefused, match=r"values of \(19, 24\) cells do not fit a window of \(20, 24\)"):
        volume_change(slopes[1:], errors[1:], INDIA)
    with pytest.raises(InputRefused, match=r"never -0\.1"):
        volume_change(slopes, np.where(errors > 0.8, -0.1, errors), INDIA)
    with pytest.raises(InputRefused, match="0 to 1"):
        volume_change(slopes, errors, INDIA, share=np.full(INDIA.shape, 1.2))
    with pytest.raises(InputRefused, match="0 km or more, not -3"):
        volume_change(slopes, errors, INDIA, length_km=-3)
    with pytest.raises(InputRefused, match="none of 480 cells"):
        volume_change(slopes * np.nan, errors, INDIA)
