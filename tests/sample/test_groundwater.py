"""The true groundwater: against its parts, a mean of its own, rasterised polygons, and what trees can know of it."""

import numpy as np
import pytest
import shapely
import xgboost
from rasterio.features import rasterize
from rasterio.transform import Affine

from services.core.errors import InputRefused
from services.core.grid import Window
from services.sample.aquifers import AQUIFERS
from services.sample.earth import Earth
from services.sample.groundwater import KNOWN, REGIONS, Groundwater, shares
from services.sample.groundwater_seen import Seen
from services.sample.modes import FIRST_MONTH, lagged, red
from services.sample.noise import draws
from services.sample.solutions import FIRST, LAST, month_number, months_between

pytestmark = pytest.mark.slow  # as a whole

MONTHS = months_between(FIRST, LAST)
MAY = month_number("2016-05")
KNOWN_DETAIL = ("irrigation", "amplitude", "response")
UNSEEN_DETAIL = ("unseen trend", "unseen season", "unseen interannual")
UNPREDICTABLE = ("interannual", "unseen interannual")


def without_climate(series: np.ndarray) -> np.ndarray:
    """``(time, cell)`` less each cell's mean of its calendar months and its trend, by least squares."""
    design = np.zeros((len(MONTHS), 13))
    design[np.arange(len(MONTHS)), MONTHS % 12] = 1
    design[:, 12] = MONTHS - MONTHS.mean()
    fitted: np.ndarray = series - design @ np.linalg.lstsq(design, series, rcond=None)[0]
    return fitted


def block_means(values: np.ndarray) -> np.ndarray:
    """Area-weighted means over the cells that are not NaN, ``(20, 24)``: written out for this region alone."""
    edges = np.radians(25 - np.arange(601) / 120)
    area = np.broadcast_to((np.sin(edges[:-1]) - np.sin(edges[1:]))[:, None], values.shape)
    means = np.full((20, 24), np.nan)
    for row in range(20):
        for column in range(24):
            cut = (slice(30 * row, 30 * row + 30), slice(30 * column, 30 * column + 30))
            there = np.isfinite(values[cut])
            if there.any():
                means[row, column] = np.average(values[cut][there].astype(np.float64), weights=area[cut][there])
    return means


def test_the_truth_is_the_sum_of_its_parts_over_land_alone(world: Groundwater) -> None:
    truth = world.gwsa(MAY)
    assert truth.shape == (600, 720) == world.grid.shape
    assert truth.dtype == np.float32
    parts = world.components(MAY)
    assert set(parts) == {"trend", "season", *KNOWN_DETAIL, *UNSEEN_DETAIL, "interannual"}
    total = np.sum([part.astype(np.float64) for part in parts.values()], axis=0)
    there = np.isfinite(truth)
    np.testing.assert_allclose(truth[there], total[there], rtol=0, atol=2e-5)
    rows, columns = world.region.within(world.region.wider(KNOWN), 120)
    np.testing.assert_array_equal(there, world.land[rows, columns])
    assert 0.6 < there.mean() < 0.8


def test_a_window_is_cut_from_the_whole_and_a_month_does_not_depend_on_its_company(world: Groundwater) -> None:
    window = Window(row=137, column=401, height=33, width=250)
    np.testing.assert_array_equal(world.gwsa(MAY, window), world.gwsa(MAY)[137:170, 401:651])
    alone = Groundwater("small")
    np.testing.assert_array_equal(alone.gwsa(MAY, window), world.gwsa(MAY, window))
    np.testing.assert_array_equal(alone.coarse(MAY), world.coarse(MAY))
    assert not np.array_equal(Groundwater("small", seed=8).gwsa(MAY, window), alone.gwsa(MAY, window))


def test_what_lies_outside_is_refused(world: Groundwater) -> None:
    with pytest.raises(InputRefused, match="2001-04 to 2020-12, not for 2021-01"):
        world.gwsa(month_number("2021-01"))
    with pytest.raises(InputRefused, match="not for 2001-03"):
        world.gwsa(month_number("2001-03"))
    with pytest.raises(InputRefused, match="600 x 720"):
        world.gwsa(MAY, Window(row=590, column=0, height=11, width=4))


def test_the_coarse_truth_is_the_mean_over_land_by_area(world: Groundwater) -> None:
    for month in (MAY, month_number("2003-11")):
        expected = block_means(world.gwsa(month))
        np.testing.assert_allclose(world.coarse(month), expected, rtol=0, atol=1e-5)
    assert np.isnan(expected).any()


def test_its_mean_over_2004_to_2009_is_zero_everywhere(world: Groundwater) -> None:
    window = Window(row=200, column=500, height=60, width=90)
    baseline = months_between("2004-01", "2009-12").tolist()
    mean = np.mean([world.gwsa(month, window).astype(np.float64) for month in baseline], axis=0)
    assert np.nanmax(np.abs(mean)) < 1e-5
    assert np.nanmax(np.abs(np.mean([world.coarse(month) for month in baseline], axis=0))) < 1e-6


def test_the_small_region_is_a_part_of_the_study(world: Groundwater) -> None:
    study = Groundwater("study")
    rows, columns = REGIONS["small"].within(REGIONS["study"], 120)
    window = Window(row=rows.start, column=columns.start, height=600, width=720)
    ours, theirs = world.gwsa(MAY), study.gwsa(MAY, window)
    assert (np.isfinite(ours) == np.isfinite(theirs)).mean() > 0.99999
    both = np.isfinite(ours) & np.isfinite(theirs)
    np.testing.assert_allclose(ours[both], theirs[both], rtol=0, atol=5e-3)


def test_the_aquifers_are_their_polygons() -> None:
    small, study = (shapely.box(r.west, r.south, r.east, r.north) for r in (REGIONS["small"], REGIONS["study"]))
    plain, lens, tableland = (shapely.Polygon(aquifer.ring()) for aquifer in AQUIFERS)
    assert all(polygon.is_valid and polygon.exterior.is_ccw for polygon in (plain, lens, tableland))
    assert small.contains(plain)
    assert small.contains(lens)
    assert all(region.intersects(tableland) and not region.contains(tableland) for region in (small, study))
    assert lens.area * 16 < 30 < plain.area * 16
    assert tableland.intersection(small).area * 16 > 30
    assert not any(a.intersects(b) for a, b in ((plain, lens), (plain, tableland), (lens, tableland)))
    assert plain.convex_hull.area > 1.005 * plain.area  # wavy
    grid = REGIONS["small"].grid(120)
    for (_, share), polygon in zip(shares(grid.longitudes, grid.latitudes), (plain, lens, tableland), strict=False):
        drawn = rasterize([(polygon, 1)], out_shape=grid.shape, transform=Affine(*grid.transform)) == 1
        assert ((share > 0.5) == drawn).mean() > 0.999


def test_the_coast_has_detail_of_1_120_degree_and_the_place_of_the_earths(world: Groundwater) -> None:
    earth = np.repeat(np.repeat(Earth().land[256:284, 988:1020], 30, axis=0), 30, axis=1)
    assert earth.shape == world.land.shape
    assert (earth == world.land).mean() > 0.95
    # a coast of whole coarse cells has no steps inside them
    step = world.land[:, 1:] != world.land[:, :-1]
    inside = np.arange(1, world.land.shape[1]) % 30 != 0
    assert step[:, inside].sum() > 10 * step[:, ~inside].sum()


def test_detail_that_no_predictor_knows_is_about_half_of_what_they_know(world: Groundwater) -> None:
    known: list[float] = []
    unseen: list[float] = []
    for month in MONTHS[::15].tolist():
        parts = world.components(month)
        for names, sums in ((KNOWN_DETAIL, known), (UNSEEN_DETAIL, unseen)):
            total = np.where(np.isfinite(world.gwsa(month)), np.sum([parts[name] for name in names], axis=0), np.nan)
            detail = total - np.repeat(np.repeat(block_means(total), 30, axis=0), 30, axis=1)
            sums.append(np.nanvar(detail))
    assert 0.4 < np.sqrt(np.mean(unseen) / np.mean(known)) < 0.65
    assert np.sqrt(np.mean(known)) > 0.5  # cm


@pytest.fixture(scope="module")
def sampled(world: Groundwater) -> dict[str, np.ndarray]:
    """Parts of the truth at 240 land cells, ``(time, cell)``."""
    rows, columns = cells(world)
    parts: dict[str, list[np.ndarray]] = {}
    for month in MONTHS.tolist():
        for name, part in world.components(month).items():
            parts.setdefault(name, []).append(part[rows, columns])
    return {name: np.array(part, dtype=np.float64) for name, part in parts.items()}


def cells(world: Groundwater) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.nonzero(np.isfinite(world.gwsa(MAY)))
    chosen = np.random.default_rng(0).choice(len(rows), 240, replace=False)
    return rows[chosen], columns[chosen]


def test_a_third_of_what_climate_leaves_is_unknown_by_construction(sampled: dict[str, np.ndarray]) -> None:
    left = without_climate(np.sum(list(sampled.values()), axis=0))
    unknown = without_climate(np.sum([sampled[name] for name in UNPREDICTABLE], axis=0))
    assert unknown.var() / left.var() > 0.4
    # and all but these and the response is climate and trend
    response = without_climate(sampled["response"])
    np.testing.assert_allclose(left, unknown + response, rtol=0, atol=1e-9 * np.abs(left).max() + 1e-6)


def test_trees_that_see_every_predictor_explain_less_than_two_thirds_of_what_climate_leaves(
    world: Groundwater, seen: Seen, sampled: dict[str, np.ndarray]
) -> None:
    rows, columns = cells(world)
    margin = 120 * KNOWN
    fine = (rows + margin, columns + margin)
    series: dict[str, list[np.ndarray]] = {}
    for month in range(int(MONTHS[0]) - 3, int(MONTHS[-1]) + 1):
        for name, values, size in (
            ("ndvi", seen.vegetation(month), 2),
            ("rain", seen.precipitation(month), 12),
            ("air", seen.temperature(month), 30),
            ("soil", seen.root_zone(month), 12),
        ):
            series.setdefault(name, []).append(values[fine[0] // size, fine[1] // size])
    features = []
    for seen_values in series.values():
        whole = np.array(seen_values)
        features += [whole[3 - lag : len(whole) - lag] for lag in range(4)]
        # what an anomaly is, trees are told
        features.append(without_climate(np.nan_to_num(whole[3:])))
    for static in (world.elevation, world.slope, world.sand, world.irrigated):
        features.append(np.broadcast_to(static[fine], features[0].shape))
    for _, share in shares(world.grid.longitudes, world.grid.latitudes):
        features.append(np.broadcast_to(share[rows, columns], features[0].shape))
    features.append(np.broadcast_to(np.cos(2 * np.pi * (MONTHS % 12) / 12)[:, None], features[0].shape))
    features.append(np.broadcast_to(np.sin(2 * np.pi * (MONTHS % 12) / 12)[:, None], features[0].shape))
    table = np.stack(features, axis=-1).astype(np.float32)
    left = without_climate(np.sum(list(sampled.values()), axis=0))
    fold = np.arange(len(MONTHS)) * 3 // len(MONTHS)
    predicted = np.empty_like(left)
    for part in range(3):
        learn, held = fold != part, fold == part
        # months next to the held ones share their unknown part's memory
        learn &= ~np.convolve(held, np.ones(13, dtype=bool), mode="same").astype(bool)
        trees = xgboost.train(
            {"max_depth": 6, "eta": 0.1, "subsample": 0.8, "colsample_bytree": 0.5, "nthread": 1, "seed": 0},
            xgboost.DMatrix(table[learn].reshape(-1, table.shape[-1]), left[learn].ravel()),
            num_boost_round=120,
        )
        predicted[held] = trees.predict(xgboost.DMatrix(table[held].reshape(-1, table.shape[-1]))).reshape(
            predicted[held].shape
        )
    explained = 1 - ((left - predicted) ** 2).mean() / left.var()
    assert 0.2 < explained < 2 / 3


def test_series_have_the_spread_and_memory_that_they_state() -> None:
    drawn = draws(100_000, seed=7, name="x")
    assert abs(drawn.mean()) < 0.02
    assert drawn.std() == pytest.approx(1, abs=0.01)
    assert ((drawn**4).mean() / 3) == pytest.approx(1, abs=0.05)
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.01
    np.testing.assert_array_equal(draws(10, seed=7, name="x"), drawn[:10])
    assert not np.array_equal(draws(10, seed=8, name="x"), drawn[:10])
    # from an integer hash: another machine or numpy gives these, too
    np.testing.assert_allclose(drawn[:3], DRAWN, rtol=0, atol=1e-6)
    memory = red(200, memory=0.8, seed=1, name="m")
    assert memory.std() == pytest.approx(1, abs=0.03)
    assert np.mean(memory[1:] * memory[:-1]) == pytest.approx(0.8, abs=0.03)
    steps = np.zeros((8, 1))
    steps[2] = np.sqrt(3)
    np.testing.assert_allclose(lagged(steps)[:, 0], [0, 0, 0, 1, 1, 1, 0, 0], rtol=0, atol=1e-12)
    assert MONTHS[0] - 3 >= FIRST_MONTH


DRAWN = (0.5758439, 0.0500529, 0.9265027)
