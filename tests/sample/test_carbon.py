"""The true XCO2: the criterion that it was fixed by, its windows and moments, its emitters, and what is known of it."""

import numpy as np
import pytest

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.sample.carbon import MEAN_GROWTH, PASSING, SPANS, Carbon, background
from services.sample.carbon_emitters import HIDDEN, STRONG, SWITCHED_OFF
from services.sample.carbon_seen import LAND, Covariates
from services.sample.modes import Lattice
from services.sample.solutions import month_number, month_starts, months_between

MONTHS = months_between(*SPANS["study"])
MAY = month_number("2018-05")

LATITUDES = np.degrees(np.arcsin((np.arange(8) + 0.5) / 4 - 1))[::-1]
"""Of 8 bands of equal area, so that a plain mean over places there is weighted by area."""


@pytest.fixture(scope="module")
def parts(carbon: Carbon) -> dict[str, np.ndarray]:
    """The parts of all months, ``(month, place)``, at 60 longitudes of each equal-area band, ppm."""
    rows = [int((90 - latitude) * 2) for latitude in LATITUDES]
    months = []
    for month in MONTHS.tolist():
        windows = [
            carbon.components(month, carbon.grid, Window(row=row, column=5, height=1, width=710)) for row in rows
        ]
        months.append({name: np.stack([one[name][0, ::12] for one in windows]).ravel() for name in windows[0]})
    return {name: np.stack([one[name] for one in months]).astype(np.float64) for name in months[0]}


def left(series: np.ndarray, *, harmonics: int = 2) -> np.ndarray:
    """What climatology (a mean and harmonics of the year) and a trend leave of each place's series."""
    phase = 2 * np.pi * (MONTHS % 12 + 0.5) / 12
    columns = [np.ones(len(MONTHS)), MONTHS - MONTHS.mean()]
    columns += [turn(number * phase) for number in range(1, harmonics + 1) for turn in (np.cos, np.sin)]
    design = np.stack(columns, axis=1)
    fitted: np.ndarray = series - design @ np.linalg.lstsq(design, series, rcond=None)[0]
    return fitted


def test_a_third_of_what_climatology_leaves_is_known_to_no_covariate(parts: dict[str, np.ndarray]) -> None:
    whole = left(sum(parts.values(), np.zeros(1)))
    unseen = left(parts["unseen"])
    known = left(parts["transport"] + parts["drought"] + parts["uptake"])
    assert 1.0 <= whole.std() < 1.4
    assert 1 / 3 <= (unseen.std() / whole.std()) ** 2 < 0.45
    # nearly all of the rest follows from covariates
    assert known.std() ** 2 + unseen.std() ** 2 == pytest.approx(whole.std() ** 2, rel=0.06)
    # four harmonics leave no less than 0.95 of it
    assert left(sum(parts.values(), np.zeros(1)), harmonics=4).std() > 0.95


def test_the_unseen_part_has_nothing_to_do_with_any_covariate(carbon: Carbon, parts: dict[str, np.ndarray]) -> None:
    unseen = left(parts["unseen"])
    rows, lattice = [int(90 - latitude) for latitude in LATITUDES], Lattice(west=-180, north=90, width=360, height=180)
    columns = (np.arange(5, 715, 12) + 0.5) / 2
    assert lattice.width == 360
    for name in ("temperature", "dew_point", "pressure", "rain", "east", "north", "soil_moisture", "vegetation"):
        series = np.stack(
            [getattr(carbon.weather.month(m), name)[rows][:, columns.astype(int)].ravel() for m in MONTHS.tolist()]
        )
        for late in (0, 1, 3):
            seen = left(series.astype(np.float64))
            ahead = unseen[late:] * seen[: len(seen) - late]
            assert abs(ahead.mean() / (unseen.std() * seen.std())) < 0.06, (name, late)


def test_earlier_months_count(carbon: Carbon, parts: dict[str, np.ndarray]) -> None:
    rows = [int(90 - latitude) for latitude in LATITUDES]
    columns = ((np.arange(5, 715, 12) + 0.5) / 2).astype(int)
    wind = np.stack([carbon.weather.month(m).north[rows][:, columns].ravel() for m in MONTHS.tolist()])
    moved, wind = left(parts["transport"]), left(wind.astype(np.float64))
    same = np.mean(moved * wind) / (moved.std() * wind.std())
    before = np.mean(moved[1:] * wind[:-1]) / (moved.std() * wind.std())
    assert same < -0.6
    assert -0.75 < before < -0.3


def test_growth_differs_by_year_about_a_known_mean() -> None:
    years = background(month_number("2015-01") + 12 * np.arange(8))
    growth = np.diff(years)
    assert growth.mean() == pytest.approx(MEAN_GROWTH, abs=1e-9)
    assert 0.15 < growth.std() < 0.6
    assert growth.min() > 1.5


def test_the_season_is_larger_in_the_north_and_turned_round_in_the_south(parts: dict[str, np.ndarray]) -> None:
    season = parts["season"].reshape(len(MONTHS), len(LATITUDES), -1)[:12].mean(axis=2)
    swing = np.ptp(season, axis=0)
    assert swing[0] > 4
    assert swing[0] > 4 * swing[-1] > 0
    assert np.corrcoef(season[:, 0], season[:, -1])[0, 1] < -0.8
    assert season[:, 0].argmax() in {3, 4}


def test_a_window_is_cut_from_the_whole_and_a_month_does_not_depend_on_its_company(carbon: Carbon) -> None:
    whole = carbon.xco2(MAY)
    assert whole.shape == (360, 720)
    assert whole.dtype == np.float32
    window = Window(row=71, column=600, height=33, width=120)
    np.testing.assert_array_equal(carbon.xco2(MAY, window=window), whole[71:104, 600:])
    alone = Carbon("study")
    np.testing.assert_array_equal(alone.xco2(MAY, window=window), whole[71:104, 600:])
    for part in carbon.components(MAY).values():
        assert part.shape == whole.shape
    coarse = Carbon("small").xco2(MAY)
    np.testing.assert_allclose(coarse, whole.reshape(90, 4, 180, 4).mean(axis=(1, 3)), rtol=0, atol=1e-3)


def test_any_resolution_agrees_and_the_antimeridian_has_no_seam(carbon: Carbon) -> None:
    fine = Grid.of(west=-180, north=90, step_x="1/20", width=7200, height=3600)
    north = carbon.xco2(MAY, fine, Window(row=700, column=0, height=40, width=1))
    row = carbon.xco2(MAY, fine, Window(row=720, column=0, height=1, width=7200))[0].astype(np.float64)
    assert row[0] == north[20, 0]
    steps = np.abs(np.diff(row))
    assert abs(row[-1] - row[0]) < max(np.percentile(steps, 99), 0.02)
    time = np.full(2, month_starts(np.array([MAY]))[0].astype("datetime64[s]").astype(float) + 5e5)
    east, west = carbon.at(time, np.array([54.0, 54.0]), np.array([180.0, -180.0]))
    assert east == pytest.approx(west, abs=1e-6)
    # and no pinch at the poles
    pole = carbon.xco2(MAY, fine, Window(row=0, column=0, height=1, width=7200))
    assert np.ptp(pole) < 1.5


def test_a_month_is_the_mean_of_its_moments(carbon: Carbon) -> None:
    fine = Grid.of(west=-180, north=90, step_x="1/20", width=7200, height=3600)
    for row, column in ((800, 5400), (1500, 40), (2900, 3000)):
        start, end = month_starts(np.array([MAY, MAY + 1])).astype("datetime64[s]").astype(float)
        time = start + (np.arange(4000) + 0.5) / 4000 * (end - start)
        places = np.full(4000, fine.latitudes[row]), np.full(4000, fine.longitudes[column])
        moments = carbon.at(time, *places)
        truth = carbon.xco2(MAY, fine, Window(row=row, column=column, height=1, width=1))[0, 0]
        assert moments.mean() == pytest.approx(truth, abs=2e-3)
        assert 0.4 * PASSING < moments.std() < 4 * PASSING


def test_moments_of_several_months_come_in_any_order(carbon: Carbon) -> None:
    random = np.random.default_rng(3)
    time = random.uniform(1.45e9, 1.46e9, 50)
    latitude, longitude = random.uniform(-80, 80, 50), random.uniform(-180, 180, 50)
    together = carbon.at(time, latitude, longitude)
    one_by_one = [carbon.at(time[k : k + 1], latitude[k : k + 1], longitude[k : k + 1])[0] for k in range(50)]
    np.testing.assert_allclose(together, one_by_one, rtol=0, atol=1e-4)
    assert carbon.at(time[:0], time[:0], time[:0]).shape == (0,)


def test_what_lies_outside_is_refused(carbon: Carbon) -> None:
    with pytest.raises(InputRefused, match="from 2002-01 on, not for 2001-05"):
        carbon.xco2(month_number("2001-05"))
    with pytest.raises(InputRefused, match="2001-01 to 2022-12, not for 2023-01"):
        carbon.xco2(month_number("2023-01"))
    with pytest.raises(InputRefused, match="360 x 720"):
        carbon.xco2(MAY, window=Window(row=0, column=700, height=1, width=30))


def test_ten_emitters_are_hidden_and_ten_switched_off(carbon: Carbon) -> None:
    emitters = carbon.emitters()
    by_truth = sorted(emitters, key=lambda one: -one.emitted)[:STRONG]
    assert STRONG == 50
    assert sum(one.hidden for one in by_truth) == HIDDEN == 10 == sum(one.hidden for one in emitters)
    off = [one for one in emitters if one.switched_off]
    assert len(off) == SWITCHED_OFF == 10
    by_inventory = sorted(emitters, key=lambda one: -one.reported)[:50]
    assert all(one in by_inventory for one in off)
    strong = np.array([(one.longitude, one.latitude) for one in [*by_truth, *off]])
    for number, (longitude, latitude) in enumerate(strong):
        others = np.delete(strong, number, axis=0)
        east = (others[:, 0] - longitude + 180) % 360 - 180
        assert np.hypot(east * np.cos(np.radians(others[:, 1])), others[:, 1] - latitude).min() > 3


def test_another_seed_is_another_earth(carbon: Carbon) -> None:
    assert Carbon("study").emitters() == carbon.emitters()
    assert not set(Carbon("study", seed=8).emitters()) & set(carbon.emitters())


def test_hotspots_show_in_monthly_fields(carbon: Carbon) -> None:
    months = MONTHS[::7].tolist()
    plumes = np.mean([carbon.emissions.plumes(month) for month in months], axis=0)
    over = {one: plumes[int((90 - one.latitude) * 2), int((one.longitude + 180) * 2)] for one in carbon.emitters()[:60]}
    true = np.array([value for one, value in over.items() if not one.switched_off])
    assert 0.5 < true.min() < true.max() < 4.5
    assert np.median(true) > 1.2
    off = np.array([value for one, value in over.items() if one.switched_off])
    assert len(off) == 10
    assert np.median(off) < 0.15


def test_covariates_are_missing_where_real_ones_are_and_sums_grow_with_their_cells(carbon: Carbon) -> None:
    seen = Covariates(world=carbon)
    december = seen.month(month_number("2018-12"))
    sea = december["land_fraction"] < LAND
    assert (
        0.6
        < np.mean(sea * np.cos(np.radians(carbon.grid.latitudes))[:, None])
        / np.mean(np.cos(np.radians(carbon.grid.latitudes)))
        < 0.75
    )
    for name in ("temperature", "dew_point", "pressure", "rain", "east", "north", "emissions", "elevation"):
        assert np.isfinite(december[name]).all(), name
    for name in ("vegetation", "skin", "soil_moisture", "night_lights"):
        assert np.isnan(december[name][sea]).all(), name
        assert np.isfinite(december[name][~sea]).mean() > 0.5, name
    assert np.isnan(december["vegetation"][:45]).all()
    assert (december["dew_point"] <= december["temperature"]).all()
    assert np.isnan(december["skin"][~sea]).any()
    assert set(np.unique(december["land_cover"])) == {0, 1, 10, 12, 13, 15, 16}
    window = Window(row=60, column=200, height=20, width=30)
    for name, values in seen.month(month_number("2018-12"), window=window).items():
        np.testing.assert_array_equal(values, december[name][window.rows, window.columns], err_msg=name)
    coarse = Covariates(world=Carbon("small")).month(month_number("2018-12"))
    for name in ("emissions", "population"):
        assert coarse[name].sum(dtype=np.float64) == pytest.approx(december[name].sum(dtype=np.float64), rel=0.005)
    assert coarse["elevation"].mean() == pytest.approx(december["elevation"].mean(), rel=0.01)
    inventory = sum(one.reported for one in carbon.emitters()) * carbon.emissions.rate(month_number("2018-12"))
    assert december["emissions"].sum(dtype=np.float64) > inventory
