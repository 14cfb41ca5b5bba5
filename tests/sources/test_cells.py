"""Cells of soundings: the same bytes in any order, pandas' numbers, and an error of the mean that is right."""

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import InputRefused, SettingsError
from services.core.grid import Grid
from services.sources.along_track import ErrorModel, along_track_correlation, mean_correlation
from services.sources.cells import GRID, MOST_IN_A_STRETCH, STRETCH, Cells, Gathered, Gridding, gather, merge
from services.sources.soundings import Soundings

MONTH = 552  # 2016-01
START = np.datetime64("2016-01", "s").astype(np.int64).astype(float)
HALF = Grid.of(west=-180, north=90, step_x="1/2", width=720, height=360)


def soundings(**columns: Any) -> Soundings:
    count = len(columns["latitude"])
    given_ = {
        "time": START + np.arange(count) / 3,
        "xco2": np.full(count, 400.0),
        "uncertainty": np.full(count, 0.5),
        "mode": np.zeros(count, dtype=np.uint8),
        "instrument": np.zeros(count, dtype=np.uint8),
        "scale": "X2019",
    } | columns
    return Soundings(**given_)


def scattered(count: int, seed: int) -> Soundings:
    """A few days' passes over a small region, so that cells are seen often and by both instruments."""
    random = np.random.default_rng(seed)
    return soundings(
        time=START + 86400.0 * random.integers(0, 59, count) + random.uniform(0, 5400, count),
        latitude=random.uniform(-3, 3, count),
        longitude=(random.uniform(177, 183, count) + 180) % 360 - 180,
        xco2=random.normal(405, 2, count),
        uncertainty=random.uniform(0.3, 1.5, count),
        instrument=random.integers(0, 2, count).astype(np.uint8),
    )


def same(one: Gathered, other: Gathered) -> bool:
    return (
        one.keys.tobytes() == other.keys.tobytes()
        and one.sums.tobytes() == other.sums.tobytes()
        and one.outside == other.outside
    )


@pytest.mark.parametrize("weighting", ["plain", "inverse_variance"])
def test_cells_equal_those_of_pandas(weighting: Any) -> None:
    seen = scattered(20_000, 0)
    found = gather([seen], Gridding(grid=HALF, weighting=weighting))
    assert found.months == (MONTH, MONTH + 1)
    table = pd.DataFrame({"x": seen.xco2, "w": 1.0 if weighting == "plain" else seen.uncertainty**-2.0})
    table["wt"] = table.w * (seen.time - START)
    places = [HALF.locate(*place) for place in zip(seen.longitude, seen.latitude, strict=True)]
    table["row"], table["column"] = zip(*places, strict=True)
    table["month"] = seen.months()
    table["wx"] = table.w * table.x
    for month in found.months:
        cells = found.cells(month)
        groups = table[table.month == month].groupby(["row", "column"])
        assert list(zip(cells.row, cells.column, strict=True)) == list(groups.groups)
        assert (cells.count == groups.size()).all()
        np.testing.assert_allclose(cells.xco2, groups.wx.sum() / groups.w.sum(), rtol=0, atol=1e-6)
        np.testing.assert_allclose(cells.std, groups.x.std(), rtol=1e-5)
        np.testing.assert_allclose(
            cells.time, START + groups.wt.sum() / groups.w.sum(), rtol=0, atol=STRETCH / 2 + 1e-3
        )
    assert found.soundings == len(seen)


@given(seed=st.integers(0, 2**32 - 1), pieces=st.integers(1, 9))
def test_no_order_and_no_batches_show(seed: int, pieces: int) -> None:
    seen = scattered(400, 1)
    gridding = Gridding(grid=HALF, weighting="inverse_variance")
    whole = gather([seen], gridding)
    random = np.random.default_rng(seed)
    parts = np.array_split(random.permutation(len(seen)), pieces)
    streamed = gather([seen.take(part) for part in parts], gridding)
    merged = merge([gather([seen.take(part)], gridding) for part in reversed(parts)])
    assert same(streamed, whole)
    assert same(merged, whole)
    for month in whole.months:
        for name in ("xco2", "std", "error", "time"):
            assert getattr(merged.cells(month), name).tobytes() == getattr(whole.cells(month), name).tobytes()


def test_sums_in_floats_would_show_the_order() -> None:
    """What the fixed point is for: the same values added in another order give another float."""
    values = scattered(4000, 1).xco2
    order = np.random.default_rng(0).permutation(len(values))
    assert np.cumsum(values)[-1] != np.cumsum(values[order])[-1]


def test_edges_of_the_map() -> None:
    seen = soundings(
        latitude=np.array([90.0, -90.0, 0.0, 0.0, 0.0, 0.0, 89.99]),
        longitude=np.array([12.0, 12.0, 180.0, -180.0, 179.999, np.nextafter(-180.0, 0), -180.0]),
    )
    cells = gather([seen], Gridding()).cells(MONTH)
    found = dict(zip(zip(cells.row.tolist(), cells.column.tolist(), strict=True), cells.count.tolist(), strict=True))
    # 12 E is an edge of columns; +180, -180 and the float beside it are the first column, 0 N the row south of it
    assert found == {(0, 3840): 1, (3599, 3840): 1, (1800, 0): 3, (1800, 7199): 1, (0, 0): 1}
    assert GRID.is_global


def test_a_cell_at_the_antimeridian_is_as_small_as_any_other() -> None:
    """A node grid's first column holds places on both sides of 180; they lie near each other."""
    grid = Grid.of(west="-721/4", north="361/4", step_x="1/2", width=720, height=361)
    at: dict[str, Any] = {"latitude": np.array([0.01, 0.02]), "xco2": np.array([400.0, 401.0])}
    model = Gridding(grid=grid, errors=ErrorModel(correlated=1.0, floor=0.0, length_km=1000.0))
    there = gather([soundings(longitude=np.array([-179.99, 179.99]), **at)], model).cells(MONTH)
    here = gather([soundings(longitude=np.array([-0.01, 0.01]), **at)], model).cells(MONTH)
    assert there.column.tolist() == [0]
    np.testing.assert_allclose(there.error, here.error, rtol=1e-9)
    assert there.error[0] == pytest.approx(0.5, abs=0.01)


def test_a_grid_that_does_not_go_round_leaves_soundings_out() -> None:
    grid = Grid.of(west=10, north=5, step_x="1/2", width=4, height=4)
    seen = soundings(
        latitude=np.array([5.0, 3.0, 4.0, 5.01, 4.0, 4.0]), longitude=np.array([10.0, 12.0, 12.0, 11.0, 9.99, 12.01])
    )
    found = gather([seen], Gridding(grid=grid))
    assert found.outside == 3
    cells = found.cells(MONTH)
    assert list(zip(cells.row, cells.column, strict=True)) == [(0, 0), (2, 3), (3, 3)]


def test_overpasses_are_told_apart_by_time_and_instrument() -> None:
    minutes = np.array([0, 1, 29, 99, 100, 100.0, 1440])
    seen = soundings(
        time=START + 60 * minutes,
        latitude=np.full(7, 10.01),
        longitude=np.full(7, 20.01),
        instrument=np.array([0, 0, 0, 0, 0, 1, 0], dtype=np.uint8),
    )
    cells = gather([seen], Gridding()).cells(MONTH)
    assert cells.overpasses.tolist() == [4]
    assert cells.count.tolist() == [7]


def test_months_end_at_midnight_and_an_empty_one_is_empty() -> None:
    border = np.datetime64("2016-02", "s").astype(np.int64).astype(float)
    seen = soundings(time=np.array([border - 0.1, border]), latitude=np.zeros(2), longitude=np.zeros(2))
    found = gather([seen], Gridding())
    assert [len(found.cells(month)) for month in (MONTH - 1, MONTH, MONTH + 1)] == [0, 1, 1]
    assert found.only(MONTH).months == (MONTH,)
    assert len(gather([], Gridding()).cells(MONTH)) == 0


def test_what_cannot_be_is_refused() -> None:
    at = {"latitude": np.zeros(2), "longitude": np.zeros(2)}
    with pytest.raises(InputRefused, match=r"1 of 2 soundings have no uncertainty within .* \(nan\)"):
        gather([soundings(uncertainty=np.array([0.5, np.nan]), **at)], Gridding())
    assert len(
        gather([soundings(uncertainty=np.full(2, np.nan), **at)], Gridding(errors=ErrorModel(sigma=1.0))).cells(MONTH)
    )
    with pytest.raises(InputRefused, match="scale X2007 are not mixed with cells on X2019"):
        gather([soundings(scale="X2007", **at)], Gridding())
    with pytest.raises(InputRefused, match=r"not of 1970\.\.2105, one at -1 s"):
        gather([soundings(time=np.array([-1.0, 0.0]), **at)], Gridding())
    with pytest.raises(SettingsError, match="nothing to weight by"):
        Gridding(weighting="inverse_variance", errors=ErrorModel(sigma=1.0))
    with pytest.raises(SettingsError, match="different grids"):
        merge([gather([], Gridding()), gather([], Gridding(grid=HALF))])
    with pytest.raises(SettingsError, match="no parts"):
        merge([])
    for wrong in ({"length_km": 0.0}, {"correlated": 1.1}, {"floor": -0.1}, {"sigma": 0.0}):
        with pytest.raises(SettingsError):
            ErrorModel(**wrong)
    many = MOST_IN_A_STRETCH + 1
    crowd = soundings(time=np.full(many, START), latitude=np.zeros(many), longitude=np.zeros(many))
    with pytest.raises(InputRefused, match=f"has {many} soundings within 2 seconds"):
        gather([crowd], Gridding())


def test_the_largest_sums_do_not_overflow() -> None:
    many = MOST_IN_A_STRETCH
    seen = soundings(
        time=np.full(many, START),
        latitude=np.full(many, 0.2),
        longitude=np.full(many, 0.2),
        xco2=np.full(many, 1000.0),
        uncertainty=np.full(many, 0.05),
    )
    cells = gather([seen], Gridding(grid=HALF, weighting="inverse_variance")).cells(MONTH)
    assert cells.xco2[0] == pytest.approx(1000.0, abs=1e-9)
    assert cells.std[0] == 0.0
    model = Gridding(grid=HALF, errors=ErrorModel(sigma=50.0, correlated=0.0, floor=0.0))
    assert gather([seen], model).cells(MONTH).error[0] == pytest.approx(50.0 / np.sqrt(many), rel=1e-9)


def test_a_part_travels_and_is_small() -> None:
    found = gather([scattered(50_000, 2)], Gridding(grid=HALF))
    other = pickle.loads(pickle.dumps(found))  # noqa: S301 - our own
    assert same(other, found)
    assert other.gridding == found.gridding
    assert len(pickle.dumps(found)) < 90 * len(found.keys) + 2000
    assert len(pickle.dumps(found.gridding)) < 1500


# -- the error of the mean


def noisy_pass(random: np.random.Generator, kilometres: Any, passes: int, model: ErrorModel) -> Any:
    """Errors of soundings at places along a line, ``(pass, sounding)``: drawn by the covariance itself."""
    apart = np.abs(kilometres[:, None] - kilometres[None, :])
    assert model.sigma is not None
    covariance = model.sigma**2 * (
        (1 - model.correlated) * np.eye(len(kilometres)) + model.correlated * np.exp(-apart / model.length_km)
    )
    drawn = random.standard_normal((passes, len(kilometres))) @ np.linalg.cholesky(covariance).T
    return drawn + model.floor * random.standard_normal((passes, 1))


KM = np.pi / 180 * 6371.0
PLACES = {
    "an OCO-2 pass of a 0.5 degree cell": np.repeat(np.arange(0, 55, 2.25), 8),
    "two clearings in clouds": np.concatenate([np.arange(1, 6, 0.5), np.arange(45, 50, 0.5)]),
    "two soundings": np.array([10.0, 40.0]),
    "one sounding": np.array([30.0]),
}


@pytest.mark.parametrize("length", [5.0, 30.0, 200.0])
@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("name", PLACES)
def test_the_stated_error_is_that_of_correlated_noise(name: str, length: float, share: float) -> None:
    random = np.random.default_rng(7)
    model = ErrorModel(sigma=0.8, correlated=min(share, 0.999), length_km=length, floor=0.2)
    kilometres = PLACES[name]
    passes, months = 3, 800
    # a hair apart, so that the covariance has a root
    places = kilometres + 1e-6 * np.arange(len(kilometres))
    means = [noisy_pass(random, places, passes, model).mean() for _ in range(months)]
    count = len(kilometres)
    seen = soundings(
        time=np.concatenate([START + 86400.0 * day + kilometres / 6.75 for day in range(passes)]),
        latitude=0.002 + np.tile(kilometres / KM, passes),
        longitude=np.full(passes * count, 10.25),
    )
    cells = gather([seen], Gridding(grid=HALF, errors=model)).cells(MONTH)
    assert cells.overpasses.tolist() == [passes]
    # 800 means tell their standard deviation within 2.5 %
    assert cells.error[0] == pytest.approx(np.std(means), rel=0.10)
    independent = 0.8 / np.sqrt(passes * count)
    if share == 1.0 and length == 200.0 and count > 8:
        assert cells.error[0] > 3 * independent


def test_unequal_weights_have_the_error_of_their_mean() -> None:
    random = np.random.default_rng(3)
    kilometres = np.arange(0, 50, 1.0)
    own = random.uniform(0.3, 2.0, len(kilometres))
    model = ErrorModel(correlated=0.5, length_km=25.0, floor=0.0)
    unit = ErrorModel(correlated=0.5, length_km=25.0, floor=0.0, sigma=1.0)
    errors = noisy_pass(random, kilometres, 6000, unit) * own
    at: dict[str, Any] = {
        "latitude": 0.002 + kilometres / KM,
        "time": START + kilometres / 6.75,
        "longitude": np.full(len(own), 10.25),
        "uncertainty": own,
    }
    stated = {}
    for weighting in ("plain", "inverse_variance"):
        weight = np.ones(len(own)) if weighting == "plain" else own**-2
        cells = gather([soundings(**at)], Gridding(grid=HALF, weighting=weighting, errors=model)).cells(MONTH)
        stated[weighting] = cells.error[0]
        assert cells.error[0] == pytest.approx(np.std(errors @ weight / weight.sum()), rel=0.10)
    assert stated["inverse_variance"] < stated["plain"]


def test_mean_correlations_are_those_of_points_on_lines() -> None:
    random = np.random.default_rng(0)
    model = ErrorModel(length_km=1.0, correlated=1.0)
    one = np.ones(1)
    for line in (0.004, 0.1, 1.0, 5.0):
        pair = line * random.uniform(0, 1, (2, 400_000))
        drawn = np.exp(-np.abs(pair[0] - pair[1])).mean()
        assert float(mean_correlation(np.array(line))) == pytest.approx(drawn, rel=3e-3)
        beside = 2 * line * random.uniform(0, 1, 400_000) + line
        drawn = np.exp(-np.abs(pair[0] - beside)).mean()
        found = model.apart(np.array([1.5 * line]), (line * one, 2 * line * one), (one, one))
        assert found[0] == pytest.approx(drawn, rel=5e-3, abs=5e-4)
    near = mean_correlation(np.array([0.0, 9.9e-4, 1.1e-3]))
    assert near[0] == 1.0
    assert (np.diff(near) < 0).all()


def test_the_structure_function_finds_what_was_put_in() -> None:
    random = np.random.default_rng(11)
    model = ErrorModel(sigma=1.2, correlated=0.7, length_km=20.0, floor=0.0)
    kilometres = np.arange(0, 600, 0.75)
    drawn = noisy_pass(random, kilometres, 120, model)
    count, passes = len(kilometres), len(drawn)
    seen = soundings(
        time=np.concatenate([START + 6000.0 * one + kilometres / 6.75 for one in range(passes)]),
        latitude=np.tile(kilometres / KM, passes),
        longitude=np.repeat(np.linspace(-170, 170, passes), count),
        # each pass has its own level, which no pair within a pass sees
        xco2=400 + (drawn + random.normal(0, 5, (passes, 1))).ravel(),
    )
    shuffled = seen.take(random.permutation(len(seen)))
    for one in (seen, shuffled):
        found = along_track_correlation(one)
        assert found.length_km == pytest.approx(20.0, rel=0.15)
        assert found.correlated == pytest.approx(0.7, abs=0.05)
        assert found.sigma == pytest.approx(1.2, rel=0.05)
    assert found.pairs.sum() > 1e6
    with pytest.raises(InputRefused, match="40 soundings have pairs enough in 0 of 25 bins"):
        along_track_correlation(seen.take(slice(0, 40)))


def test_white_noise_has_no_correlated_share() -> None:
    random = np.random.default_rng(5)
    kilometres = np.arange(0, 2000, 0.5)
    seen = soundings(latitude=kilometres / KM, longitude=np.zeros(4000), xco2=random.normal(400, 1, 4000))
    found = along_track_correlation(seen)
    assert found.correlated < 0.05
    assert found.sigma == pytest.approx(1.0, rel=0.05)


def test_cells_have_the_dtypes_of_their_contract() -> None:
    cells = gather([scattered(100, 4)], Gridding()).cells(MONTH)
    kinds = {"row": "int32", "column": "int32", "count": "int32", "overpasses": "int32"}
    kinds |= dict.fromkeys(("xco2", "std", "error"), "float64")
    assert isinstance(cells, Cells)
    assert {name: str(getattr(cells, name).dtype) for name in kinds} == kinds


@pytest.mark.parametrize("west", [-180, 0, 90, "-721/4"])
def test_places_are_those_that_the_grid_itself_finds(west: Any) -> None:
    grid = Grid.of(west=west, north=90, step_x="1/2", width=720, height=360)
    random = np.random.default_rng(0)
    edges = np.concatenate(
        [np.arange(-180, 180.25, 0.25), [-1e-18, 1e-18, np.nextafter(-180, 0), np.nextafter(180, 0)]]
    )
    longitude = np.concatenate([edges, random.uniform(-180, 180, 500)])
    latitude = random.choice([-90.0, 90.0, 0.0, 0.5, 12.3], len(longitude))
    found = gather([soundings(longitude=longitude, latitude=latitude)], Gridding(grid=grid)).cells(MONTH)
    expected = {grid.locate(*place) for place in zip(longitude, latitude, strict=True)}
    assert set(zip(found.row.tolist(), found.column.tolist(), strict=True)) == expected
