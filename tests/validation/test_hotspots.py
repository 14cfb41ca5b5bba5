"""The detector on fields that are known, and its score against a search of every matching."""

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray
from pyproj import Geod
from scipy import ndimage

from services.core.errors import InputRefused
from services.core.grid import Grid
from services.validation.components import Limits, find, labelled, ring
from services.validation.excess import Around, Lasting, Months, gaussian
from services.validation.hotspots import arcs, matched, score

GRID = Grid.of(west=-180, north=90, step_x="1/2", width=720, height=360)
NO_GUIDE = np.empty((0, *GRID.shape))


def plume(longitude: float, latitude: float, height: float = 2.0) -> NDArray[np.float64]:
    """Round on the ground, 0.4 degrees wide."""
    east = (GRID.longitudes - longitude + 180) % 360 - 180
    far = np.hypot((GRID.latitudes - latitude)[:, None], east * np.cos(np.radians(latitude)))
    made: NDArray[np.float64] = height * np.exp(-0.5 * (far / 0.4) ** 2)
    return made


def lasting(mean: NDArray[np.float64]) -> Lasting:
    return Lasting(
        mean=mean, z=np.full(mean.shape, 9.0), persistence=np.ones(mean.shape), months=np.full(mean.shape, 84)
    )


def noise(seed: int = 3, size: float = 0.05) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, size, GRID.shape)


def test_distances_are_those_on_the_sphere() -> None:
    rng = np.random.default_rng(5)
    ones = np.stack([rng.uniform(-180, 180, 6), rng.uniform(-90, 90, 6)], axis=1)
    geod = Geod(a=6371000, b=6371000)
    for i, (x, y) in enumerate(ones):
        for j, (u, v) in enumerate(ones[::-1]):
            metres = geod.inv(x, y, u, v)[2]
            assert arcs(ones, ones[::-1])[i, j] == pytest.approx(np.degrees(metres / 6371000), abs=1e-9)
    assert arcs(np.array([[179.8, 0.0]]), np.array([[-179.8, 0.0]]))[0, 0] == pytest.approx(0.4)


def test_matching_is_the_best_of_all() -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        ones, others = rng.uniform(0, 2.5, (5, 2)), rng.uniform(0, 2.5, (6, 2))
        distance = arcs(ones, others)
        best = (0, 0.0)
        for order in permutations(range(6), 5):
            within = [distance[i, j] for i, j in enumerate(order) if distance[i, j] <= 1]
            best = min(best, (-len(within), sum(within)))
        pairs = matched(ones, others)
        assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs) == -best[0]
        assert sum(distance[i, j] for i, j in pairs) == pytest.approx(best[1])


def test_the_score_counts_one_detection_for_one_emitter() -> None:
    emitters = np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0], [179.9, 60.0]])
    decoys = np.array([[30.0, 0.0], [40.0, 0.0]])
    # two on the first emitter, one across the antimeridian, one too far, one on a decoy
    detections = np.array([[0.2, 0.1], [-0.3, 0.2], [-179.5, 60.2], [20.0, 1.01], [30.5, 0.0]])
    found = score(detections, emitters, chosen=np.array([True, True, False, False]), decoys=decoys)
    assert (found.hits, found.detections, found.recall) == (2, 5, 0.5)
    assert found.false_share == pytest.approx(3 / 5)
    assert (found.chosen, found.chosen_hits, found.decoys, found.false_at_decoys) == (2, 1, 2, 1)
    nothing = score(np.empty((0, 2)), emitters, decoys=decoys)
    assert (nothing.recall, nothing.false_share, nothing.false_at_decoys) == (0.0, 0.0, 0)
    with pytest.raises(InputRefused, match="there is none"):
        score(detections, np.empty((0, 2)))


def test_components_go_round_the_earth_as_in_a_map_that_is_turned() -> None:
    mask = noise() > 0.05
    numbers, count = labelled(mask, wraps=True)
    turned = np.roll(mask, 360, axis=1)
    again, as_many = labelled(turned, wraps=True)
    assert count == as_many
    pairs = np.unique(np.stack([numbers[mask], np.roll(again, -360, axis=1)[mask]]), axis=1)
    assert pairs.shape[1] == count  # one to one
    assert count < ndimage.label(mask, np.ones((3, 3)))[1]
    assert labelled(mask, wraps=False)[1] == ndimage.label(mask, np.ones((3, 3)))[1]


def test_the_ring_is_the_percentile_of_cells_by_hand() -> None:
    field = noise(size=1.0)
    told = ring(field, GRID)
    for row, column in ((180, 360), (182, 2), (95, 717)):
        strip = GRID.latitudes[row // 10 * 10 : row // 10 * 10 + 10]
        narrow = np.cos(np.radians(strip.mean()))
        rows = np.arange(row - 6, row + 7)
        reach = int(6 / narrow)
        columns = np.arange(column - reach, column + reach + 1)
        far = np.hypot(0.5 * (rows - row)[:, None], 0.5 * narrow * (columns - column))
        inside = np.sort(field[np.ix_(rows, columns % 720)][(far >= 1.5) & (far <= 3)])
        assert told[row, column] == inside[int(0.75 * len(inside))]


def test_a_gaussian_keeps_its_sum_and_width_on_the_ground() -> None:
    for row in (180, 60):
        point = np.zeros(GRID.shape)
        point[row, 1] = 1.0
        smooth = gaussian(point, GRID, 1.5)
        assert smooth.sum() == pytest.approx(1, abs=1e-3)
        east = ((GRID.longitudes - GRID.longitudes[1] + 180) % 360 - 180) * np.cos(np.radians(GRID.latitudes[row]))
        across = smooth.sum(axis=0)
        assert np.sqrt((across * east**2).sum() / across.sum()) == pytest.approx(1.5, rel=0.03)
        assert np.sqrt((smooth.sum(axis=1) * (GRID.latitudes - GRID.latitudes[row]) ** 2).sum()) == pytest.approx(
            1.5, rel=0.01
        )


def test_plumes_are_found_where_they_are_and_large_gradients_are_not() -> None:
    places = np.array([[10.2, 45.1], [179.9, -20.0], [-80.0, 60.3]])
    east, north = np.radians(GRID.longitudes), np.radians(GRID.latitudes)[:, None]
    large = 4 * np.tanh(np.degrees(north) / 22) + 3 * np.cos(4 * east) * np.cos(north) + 400
    field = large + noise() + sum(plume(*place) for place in places)
    around = Around.of(GRID, NO_GUIDE)
    found = find(lasting(around.excess(field)), GRID)
    assert score(np.array([(one.longitude, one.latitude) for one in found.table]), places, within=0.2).recall == 1
    assert len(found.table) == 3
    for number, one in enumerate(found.table, start=1):
        cells = found.labels == number
        areas = np.broadcast_to(GRID.row_areas_km2[:, None], GRID.shape)
        assert one.cells == cells.sum()
        assert one.area_km2 == pytest.approx(areas[cells].sum())
    # one component across the antimeridian
    across = found.labels[:, [0, -1]]
    assert set(np.unique(across[across > 0])) == {
        next(number for number, one in enumerate(found.table, start=1) if one.latitude < 0)
    }
    assert find(lasting(around.excess(large + noise())), GRID).table == ()


def test_a_guide_takes_islands_for_what_they_are() -> None:
    land = np.zeros(GRID.shape)
    rng = np.random.default_rng(8)
    for row, column in zip(rng.integers(60, 300, 60), rng.integers(0, 717, 60), strict=True):
        land[row : row + 3, column : column + 3] = 1.0
    field = 400 + 2.0 * land + noise() + plume(-100.25, 15.25)
    guided = find(lasting(Around.of(GRID, land[None]).excess(field)), GRID).table
    plain = find(lasting(Around.of(GRID, NO_GUIDE).excess(field)), GRID).table
    assert [(round(one.longitude), round(one.latitude)) for one in guided] == [(-100, 15)]
    assert len(plain) > 20


def test_the_excess_is_a_weighted_regression_of_each_cell_by_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid.of(west=0, north=12, step_x="1/2", width=30, height=24)
    rng = np.random.default_rng(6)
    guides, field = rng.normal(size=(2, *grid.shape)), rng.normal(400, 1, grid.shape)
    monkeypatch.setattr("services.validation.excess.BLUR", 1e-3)
    monkeypatch.setattr("services.validation.excess.SOFT", 1e-3)
    monkeypatch.setattr("services.validation.excess.RIDGE", 0.0)
    found = Around.of(grid, guides).excess(field)
    row, column = 11, 14
    point = np.zeros(grid.shape)
    point[row, column] = 1.0
    # the Gaussian's weights are symmetric along a row and nearly so between rows of the tropics
    weights = np.sqrt(gaussian(point, grid, 1.25).ravel().clip(0))
    design = np.stack([np.ones(grid.cells), *guides.reshape(2, -1)], axis=1)
    terms = np.linalg.lstsq(weights[:, None] * design, weights * field.ravel(), rcond=None)[0]
    expected = field[row, column] - (design @ terms).reshape(grid.shape)[row, column]
    assert found[row, column] == pytest.approx(expected, abs=0.02)
    holed = field.copy()
    holed[3, 3] = np.nan
    again = Around.of(grid, guides).excess(holed)
    assert np.isnan(again[3, 3])
    assert np.isnan(again).sum() == 1


def test_months_give_mean_z_and_persistence_of_each_series() -> None:
    rng = np.random.default_rng(7)
    series = rng.normal(0.3, 1.0, (60, *GRID.shape)).astype(np.float32)[:, :40, :50]
    grid = Grid.of(west=0, north=40, step_x="1", width=50, height=40)
    series[5:9, 3, 4] = np.nan
    gathered = Months(grid)
    for month, values in enumerate(series):
        gathered.add(month, values)
    told = gathered.lasting()
    np.testing.assert_allclose(told.mean, np.nanmean(series, axis=0), atol=1e-6)
    one = series[:, 20, 20].astype(float)
    r = max((one[1:] * one[:-1]).mean() - one.mean() ** 2, 0) / one.var(ddof=1)
    error = np.sqrt(one.var(ddof=1) / 60 * (1 + r) / (1 - r))
    assert told.z[20, 20] == pytest.approx(one.mean() / error, rel=1e-6)
    assert told.months[3, 4] == 56
    # passes one standard deviation of the band
    assert told.persistence.mean() == pytest.approx(0.242, abs=0.01)
    stated = Months(grid)
    for month, values in enumerate(series):
        stated.add(month, values, np.full(grid.shape, 5.0))
    assert np.nanmedian(np.abs(stated.lasting().z)) < np.nanmedian(np.abs(told.z)) / 3


def test_months_about_a_gap_are_no_neighbours() -> None:
    """Autocorrelation of a series that follows itself, with years of it left out, and of every second month of it."""
    rng = np.random.default_rng(11)
    series = np.empty((60, 4, 5))
    series[0] = rng.normal(size=(4, 5))
    for month in range(1, 60):
        series[month] = 0.8 * series[month - 1] + rng.normal(0, 0.6, (4, 5))
    series += 1.0
    grid = Grid.of(west=0, north=4, step_x="1", width=5, height=4)
    for months in (list(range(60)), [*range(20), *range(41, 60)], list(range(0, 60, 2))):
        gathered = Months(grid)
        for month in months:
            gathered.add(month, series[month])
        values = series[months]
        variance = values.var(axis=0, ddof=1)
        pairs = [series[one] * series[one - 1] for one in months if one - 1 in months]
        r = (np.mean(pairs, axis=0) - values.mean(axis=0) ** 2) / variance if pairs else np.zeros((4, 5))
        r = np.clip(r, 0, 0.95)
        assert (r > 0.4).any() == bool(pairs)
        error = np.sqrt(variance / len(months) * (1 + r) / (1 - r))
        np.testing.assert_allclose(gathered.lasting().z, values.mean(axis=0) / error, rtol=1e-9)


def test_cells_that_are_too_wide_and_guides_of_another_grid_are_refused() -> None:
    wide = Grid.of(west=-180, north=90, step_x="2", width=180, height=90)
    with pytest.raises(InputRefused, match="cells of 2 degrees do not show plumes"):
        Around.of(wide, np.empty((0, *wide.shape)))
    with pytest.raises(InputRefused, match="are not \\(guide, y, x\\)"):
        Around.of(GRID, np.empty((1, 3, 3)))


def test_what_does_not_last_is_no_hotspot() -> None:
    mean = plume(0.25, 0.25) + noise()
    there = find(lasting(mean), GRID)
    assert len(there.table) == 1
    for changed in (
        Lasting(
            mean=mean, z=np.full(mean.shape, 2.0), persistence=np.ones(mean.shape), months=np.ones(mean.shape, int)
        ),
        Lasting(
            mean=mean, z=np.full(mean.shape, 9.0), persistence=np.full(mean.shape, 0.2), months=np.ones(mean.shape, int)
        ),
    ):
        assert find(changed, GRID).table == ()
    assert find(lasting(mean), GRID, Limits(peak=3.0)).table == ()
