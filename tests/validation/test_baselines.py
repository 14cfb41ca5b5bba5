"""Baselines find what was put in, and neighbours are those of a second implementation."""

import numpy as np
import pytest
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.validation import folds
from services.validation.baselines import (
    Background,
    Rows,
    background_season_anomaly,
    best_nearest,
    climatology_trend,
    growth,
    inverse_distance,
    last_year,
    same_month_before,
)

type Values = NDArray[np.float64]


def rows(count: int, seed: int, first: int = 540, last: int = 588, *, around: float = 0.0) -> Rows:
    random = np.random.default_rng(seed)
    return Rows(
        longitude=(around + random.uniform(-20, 20, count) + 180) % 360 - 180,
        latitude=random.uniform(-30, 10, count),
        month=random.integers(first, last, count),
    )


def truth(at: Rows) -> Values:
    angle = 2 * np.pi * at.month / 12
    return 400 + 2.4 * (at.month - 540) / 12 + 1.5 * np.cos(angle - 1) + 0.5 * np.sin(2 * angle)


def brute(seen: Rows, values: Values, asked: Rows, nearest: int, power: float) -> Values:
    """Haversine distances, each to each."""
    found = np.full(len(asked), np.nan)
    for row in range(len(asked)):
        theirs = np.flatnonzero(seen.month == asked.month[row])
        if not theirs.size:
            continue
        a, b = np.radians(seen.latitude[theirs]), np.radians(asked.latitude[row])
        c = np.radians(seen.longitude[theirs] - asked.longitude[row])
        half = np.sin((a - b) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(c / 2) ** 2
        distance = 2 * np.arcsin(np.sqrt(half))
        order = np.argsort(distance)[:nearest]
        weight = distance[order] ** -power
        found[row] = (values[theirs][order] * weight).sum() / weight.sum()
    return found


@pytest.mark.parametrize("around", [0.0, 178.0])
@pytest.mark.parametrize(("nearest", "power"), [(1, 2.0), (7, 2.0), (30, 1.0), (10_000, 2.0)])
def test_neighbours_are_those_of_great_circles_by_hand(nearest: int, power: float, around: float) -> None:
    seen, asked = rows(400, 0, 540, 546, around=around), rows(150, 1, 540, 548, around=around)
    values = np.random.default_rng(2).normal(400, 2, 400)
    found = inverse_distance(seen, values, asked, nearest=nearest, power=power)
    np.testing.assert_allclose(found, brute(seen, values, asked, nearest, power), rtol=0, atol=1e-9)
    assert (np.isnan(found) == (asked.month >= 546)).all()


def test_a_value_at_the_very_place_is_taken_and_two_are_averaged() -> None:
    seen = Rows(
        longitude=np.array([10.0, 10.0, 11.0]), latitude=np.array([5.0, 5.0, 5.0]), month=np.array([540, 540, 540])
    )
    asked = Rows(longitude=np.array([370.0, 11.0]), latitude=np.array([5.0, 5.0]), month=np.array([540, 540]))
    found = inverse_distance(seen, np.array([400.0, 402.0, 410.0]), asked, nearest=3)
    assert found.tolist() == pytest.approx([401.0, 410.0])


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_climatology_and_trend_reach_beyond_the_rows(degree: int) -> None:
    seen, asked = rows(4000, 3), rows(500, 4, 588, 600)
    np.testing.assert_allclose(climatology_trend(seen, truth(seen), asked, degree=degree), truth(asked), atol=2e-3)
    assert growth(seen, truth(seen)) == pytest.approx(2.4, abs=1e-9)


def test_a_smooth_climatology_follows_the_place_and_a_domain_one_does_not() -> None:
    seen, asked = rows(6000, 3), rows(500, 4, 588, 600)

    def sloped(at: Rows) -> Values:
        return truth(at) + 0.05 * at.latitude + 0.01 * at.latitude * np.sin(2 * np.pi * at.month / 12)

    plain, smooth = (climatology_trend(seen, sloped(seen), asked, degree=degree) - sloped(asked) for degree in (0, 3))
    assert smooth.std() < 0.02
    assert plain.std() > 0.3


def test_a_background_carries_its_growth_where_a_trend_does_not() -> None:
    seen, asked = rows(4000, 5), rows(500, 6, 588, 600)
    months = np.arange(500, 600)
    grown = np.asarray(390 + 2.0 * (months - 540) / 12 + np.where(months > 587, 1.5, 0.0), dtype=np.float64)
    background = Background(months=months, values=grown)
    corner = (folds.space(seen.longitude, seen.latitude, 5.0) == [-3, 37]).all(axis=1)
    over = 9 + 1.5 * np.cos(2 * np.pi * seen.month / 12)
    values = background.at(seen.month) + over + np.where(corner, 2.0, 0.0)
    there = (folds.space(asked.longitude, asked.latitude, 5.0) == [-3, 37]).all(axis=1)
    expected = background.at(asked.month) + 9 + 1.5 * np.cos(2 * np.pi * asked.month / 12) + np.where(there, 2.0, 0.0)
    found = background_season_anomaly(seen, values, asked, background)
    assert there.any()
    # two ppm of one block in 64 move the season by a few hundredths
    np.testing.assert_allclose(found, expected, atol=0.1)
    without = background_season_anomaly(seen, values, asked, background, degrees=None)
    assert np.abs((without - expected)[there]).min() > 1.5
    assert np.abs(climatology_trend(seen, values, asked) - expected).mean() > 0.3


def test_a_block_that_was_not_seen_has_no_anomaly() -> None:
    background = Background(months=np.arange(500, 620), values=np.full(120, 400.0))
    seen = rows(500, 7)
    asked = Rows(longitude=np.array([100.0]), latitude=np.array([50.0]), month=np.array([560]))
    with_blocks, without = (
        background_season_anomaly(seen, truth(seen), asked, background, degrees=one) for one in (5.0, None)
    )
    assert with_blocks[0] == without[0]


def test_a_year_that_ends_has_no_season_and_no_future() -> None:
    months = np.arange(540, 600)
    season = np.cos(2 * np.pi * months / 12)
    values = np.asarray(400 + 0.2 * (months - 540) + season, dtype=np.float64)
    plain = Background(months=months, values=values).year_ending()
    assert plain.months[0] == 551
    np.testing.assert_allclose(plain.values, 400 + 0.2 * (plain.months - 540 - 5.5), atol=1e-9)
    with pytest.raises(InputRefused, match="does not reach 540 to 560"):
        plain.at(np.array([540, 560]))
    with pytest.raises(InputRefused, match="follow one another"):
        Background(months=np.array([1, 3]), values=np.zeros(2))
    with pytest.raises(InputRefused, match="no value in 1 of its months"):
        Background(months=np.array([1, 2]), values=np.array([np.nan, 1.0]))


def test_last_year_skips_a_month_that_is_absent() -> None:
    seen, asked = rows(6000, 8, 540, 576), rows(300, 9, 576, 588)
    outage = 571
    kept = seen.take(seen.month != outage)
    assert same_month_before(kept.month, 583) == 559
    assert same_month_before(kept.month, 582) == 570
    assert same_month_before(kept.month, 540) is None
    found = last_year(kept, truth(kept), asked, nearest=1)
    np.testing.assert_allclose(found, truth(asked), atol=1e-6)
    # what is known of the asked months themselves is not looked at
    also = rows(300, 9, 576, 588)
    both = Rows(
        longitude=np.concatenate([kept.longitude, also.longitude]),
        latitude=np.concatenate([kept.latitude, also.latitude]),
        month=np.concatenate([kept.month, also.month]),
    )
    again = last_year(both, np.concatenate([truth(kept), truth(also)]), asked, nearest=1)
    np.testing.assert_allclose(again, found, atol=1e-6)


def test_the_number_of_neighbours_is_chosen_by_blocks() -> None:
    """White noise over a constant wants all of them; a smooth field without noise wants few."""
    seen = rows(3000, 10, 540, 546)
    noise = np.random.default_rng(0).normal(400, 1, len(seen))
    labels = folds.space_time(seen.longitude, seen.latitude, seen.month, 5.0)
    choices = (1, 5, 20, 100, 400)
    assert best_nearest(seen, noise, labels, choices=choices) >= 100
    smooth = 400 + 0.3 * seen.latitude + 0.2 * seen.longitude
    few = best_nearest(seen, smooth, folds.samples(len(seen)), choices=choices)
    assert few <= 20


def test_rows_without_a_place_are_refused() -> None:
    with pytest.raises(InputRefused, match="no place"):
        Rows(longitude=np.zeros(1), latitude=np.array([91.0]), month=np.zeros(1, dtype=np.int64))
    with pytest.raises(InputRefused, match="shapes"):
        Rows(longitude=np.zeros(1), latitude=np.zeros(2), month=np.zeros(1, dtype=np.int64))
