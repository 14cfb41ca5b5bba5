"""Kriging of what is left over: dense algebra, closed forms, and a field made with a known covariance."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from scipy.linalg import cho_factor, cho_solve

from services.core.errors import SettingsError
from services.products.xco2_global import nearby
from services.products.xco2_global.nearby import LENGTHS_KM, TOGETHER_HOURS, Covariance, Left, averaged, estimate, told

HOUR = 3600.0
DAY = 24 * HOUR


def covariance(**changes: Any) -> Covariance:
    numbers = {
        "signal": [0.0, 0.0, 0.6, 0.0, 0.2, 0.0],
        "track": [0.0, 0.3, 0.0, 0.0, 0.0, 0.0],
        "rest": 0.1,
        "alone": 1.0,
    }
    return Covariance(**(numbers | changes))


def left(count: int, seed: int, noise: float = 0.2) -> Left:
    random = np.random.default_rng(seed)
    return Left(
        latitude=random.uniform(-60, 85, count),
        longitude=random.uniform(-180, 180, count),
        time=DAY * random.integers(0, 3, count) + random.uniform(0, HOUR, count),
        value=random.normal(size=count),
        noise=np.full(count, noise) * random.uniform(0.5, 2, count),
    )


def kilometres(one: tuple[Any, Any], other: tuple[Any, Any]) -> Any:
    """Great circles by the haversine formula; the code goes by chords."""
    (y, x), (b, a) = np.radians(one), np.radians(other)
    half = np.sin((y - b) / 2) ** 2 + np.cos(y) * np.cos(b) * np.sin((x - a) / 2) ** 2
    return 2 * 6371.0 * np.arcsin(np.sqrt(half))


def fall(shares: list[float], distance: Any) -> Any:
    return sum(share * np.exp(-distance / length) for share, length in zip(shares, LENGTHS_KM, strict=True))


def dense(seen: Left, known: Covariance, latitude: Any, longitude: Any) -> tuple[Any, Any]:
    """All cells at once, by Cholesky."""
    at = (seen.latitude, seen.longitude)
    between = kilometres((at[0][:, None], at[1][:, None]), at)
    hours = np.abs(seen.time[:, None] - seen.time) / HOUR
    whole = fall(known.signal, between) + fall(known.track, between) * np.exp(-hours / TOGETHER_HOURS)
    factor = cho_factor(whole + np.diag(seen.noise))
    towards = fall(known.signal, kilometres((latitude[:, None], longitude[:, None]), at))
    solved = cho_solve(factor, towards.T)
    return solved.T @ seen.value, sum(known.signal) - (towards * solved.T).sum(axis=1)


def test_it_is_what_dense_algebra_gives() -> None:
    seen, known = left(nearby.NEIGHBOURS, 0), covariance()
    random = np.random.default_rng(1)
    latitude, longitude = np.append(random.uniform(-90, 90, 1500), 90.0), np.append(random.uniform(-180, 180, 1500), 7)
    mean, variance = told(seen, known, latitude, longitude)
    wanted = dense(seen, known, latitude, longitude)
    np.testing.assert_allclose(mean, wanted[0], atol=1e-9)
    np.testing.assert_allclose(variance, wanted[1], atol=1e-9)


def test_the_nearest_do_for_all() -> None:
    seen, known = left(400, 2), covariance()
    random = np.random.default_rng(3)
    latitude, longitude = random.uniform(-60, 60, 200), random.uniform(-180, 180, 200)
    mean, variance = told(seen, known, latitude, longitude)
    wanted, least = dense(seen, known, latitude, longitude)
    assert np.sqrt(np.mean((mean - wanted) ** 2)) < 0.1 * wanted.std()
    # fewer cells never know more
    assert (variance >= least - 1e-9).all()
    assert (variance - least).mean() < 0.02


def test_nothing_near_and_nothing_at_all() -> None:
    known = covariance(signal=[0.0, 0.0, 0.8, 0.0, 0.0, 0.0])
    nothing = left(0, 0)
    for seen in (nothing, averaged(nothing)):
        mean, variance = told(seen, known, np.array([10.0]), np.array([20.0]))
        assert (mean[0], variance[0]) == (0.0, pytest.approx(0.8))
    far = Left(**{name: np.array([one]) for name, one in zip(_COLUMNS, (0.0, 0.0, 0.0, 5.0, 0.1), strict=True)})
    mean, variance = told(far, known, np.array([0.0]), np.array([180.0]))
    assert mean[0] == pytest.approx(0.0, abs=1e-12)
    assert variance[0] == pytest.approx(0.8)
    assert (told(far, covariance(signal=[0.0] * 6), np.array([0.0]), np.array([0.0]))[0] == 0).all()


_COLUMNS = ("latitude", "longitude", "time", "value", "noise")


def test_one_cell_has_a_closed_form() -> None:
    known = covariance()
    one = Left(**{name: np.array([value]) for name, value in zip(_COLUMNS, (10.0, 179.9, 0.0, 2.0, 0.5), strict=True)})
    mean, variance = told(one, known, np.array([10.0, 12.0]), np.array([179.9, -179.5]))
    distance = kilometres((10.0, 179.9), (12.0, 180.5))
    for place, towards in ((0, 0.8), (1, fall(known.signal, distance))):
        assert mean[place] == pytest.approx(2.0 * towards / (0.8 + 0.3 + 0.5), abs=1e-9)
        assert variance[place] == pytest.approx(0.8 - towards**2 / (0.8 + 0.3 + 0.5), abs=1e-9)
    # one that is exact is believed where it is
    exact = Left(**{**vars(one), "noise": np.array([1e-9])})
    mean, variance = told(exact, covariance(track=[0.0] * 6), np.array([10.0]), np.array([179.9]))
    assert mean[0] == pytest.approx(2.0, abs=1e-6)
    assert variance[0] == pytest.approx(0.0, abs=1e-6)


def test_cells_of_one_overpass_are_averaged_and_others_are_not() -> None:
    columns = {
        "latitude": np.array([10.2, 10.4, 10.3, 10.3, -33.5]),
        "longitude": np.array([20.1, 20.3, 20.2, -160.0, 179.99]),
        "time": np.array([60.0, 61.0, 60.0 + DAY, 60.0, 60.0]),
        "value": np.array([1.0, 4.0, 7.0, 8.0, 9.0]),
        "noise": np.array([0.5, 1.0, 0.3, 0.2, 0.1]),
    }
    found = averaged(Left(**columns))
    order = np.argsort(found.value)
    assert found.value[order] == pytest.approx([(1.0 / 0.5 + 4.0) / 3, 7, 8, 9])
    assert found.noise[order] == pytest.approx([1 / 3, 0.3, 0.2, 0.1])
    assert found.latitude[order] == pytest.approx([(2 * 10.2 + 10.4) / 3, 10.3, 10.3, -33.5], abs=1e-4)
    assert found.longitude[order] == pytest.approx([(2 * 20.1 + 20.3) / 3, 20.2, -160.0, 179.99], abs=1e-4)
    assert found.time[order] == pytest.approx([(2 * 60 + 61) / 3, 60 + DAY, 60, 60])
    with pytest.raises(SettingsError, match="columns of the shapes"):
        Left(**{**columns, "noise": np.ones(2)})


def made(known: Covariance, seed: int, months: int = 30, tracks: int = 12) -> tuple[Any, Left, Any]:
    """Months of two days of tracks over a region, with signal and track drawn from a covariance; and the signal."""
    random = np.random.default_rng(seed)
    parts, signals = [], []
    for _ in range(months):
        start = random.uniform(-20, 20, tracks)
        along = np.linspace(-15, 15, 30)
        longitude = (start[:, None] + 0.2 * along + random.normal(0, 0.01, (tracks, 30))).ravel()
        latitude = np.tile(along, tracks)
        time = np.repeat(DAY * 9 * (np.arange(tracks) % 2) + 2 * HOUR * np.arange(tracks), 30)
        between = kilometres((latitude[:, None], longitude[:, None]), (latitude, longitude))
        hours = np.abs(time[:, None] - time) / HOUR
        signal = _draw(fall(known.signal, between), random)
        track = _draw(fall(known.track, between) * np.exp(-hours / TOGETHER_HOURS), random)
        stated = np.full(len(time), sum(known.track) + 0.1)
        value = signal + track + random.normal(size=len(time)) * np.sqrt(0.1 + known.rest)
        parts.append(Left(latitude=latitude, longitude=longitude, time=time, value=value, noise=stated))
        signals.append(signal)
    columns = {name: np.concatenate([getattr(one, name) for one in parts]) for name in _COLUMNS}
    return np.repeat(np.arange(months), tracks * 30), Left(**columns), np.concatenate(signals)


def _draw(matrix: Any, random: np.random.Generator) -> Any:
    return np.linalg.cholesky(matrix + 1e-9 * np.eye(len(matrix))) @ random.normal(size=len(matrix))


def test_a_covariance_is_found_again_and_a_track_is_not_taken_for_signal() -> None:
    known = covariance(signal=[0.0, 0.0, 0.6, 0.0, 0.0, 0.0], track=[0.0, 0.4, 0.0, 0.0, 0.0, 0.0], rest=0.15)
    month, seen, _ = made(known, 0)
    found = estimate(month, seen, np.ones(len(seen), dtype=np.bool_))
    for distance in (150.0, 400.0, 800.0):
        assert fall(found.signal, distance) == pytest.approx(fall(known.signal, distance), abs=0.1)
    assert fall(found.track, 150.0) == pytest.approx(fall(known.track, 150.0), abs=0.1)
    assert found.variance + found.rest == pytest.approx(0.75, abs=0.12)
    # without a signal none is seen, though neighbours on a track are alike
    silent = covariance(signal=[0.0] * 6, track=[0.0, 0.0, 0.6, 0.0, 0.0, 0.0], rest=0.0)
    month, seen, _ = made(silent, 1)
    found = estimate(month, seen, np.ones(len(seen), dtype=np.bool_))
    assert fall(found.signal, 200.0) < 0.08
    assert fall(found.track, 200.0) == pytest.approx(fall(silent.track, 200.0), abs=0.12)


def test_residuals_of_what_was_learned_from_are_enlarged() -> None:
    month, seen, _ = made(covariance(), 2)
    held = month % 5 == 0
    whole = estimate(month, seen, held)
    shrunk = Left(**{**vars(seen), "value": np.where(held, seen.value, 0.5 * seen.value)})
    assert estimate(month, shrunk, held).variance == pytest.approx(whole.variance, abs=0.02)
    with pytest.raises(SettingsError, match="held out"):
        estimate(month, seen, np.zeros(len(seen), dtype=np.bool_))


def test_months_of_many_cells_are_thinned_and_held_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    month, seen, _ = made(covariance(), 4, months=6, tracks=40)
    held = np.ones(len(seen), dtype=np.bool_)
    whole = estimate(month, seen, held)
    monkeypatch.setattr(nearby, "_PAIRS", 5000)
    assert estimate(month, seen, held) == whole
    monkeypatch.setattr(nearby, "MOST_A_MONTH", 600)
    thinned = estimate(month, seen, held, seed=3)
    assert thinned != whole
    assert thinned == estimate(month, seen, held, seed=3)
    assert thinned != estimate(month, seen, held, seed=4)
    for distance in (150.0, 400.0, 800.0):
        assert fall(thinned.signal, distance) == pytest.approx(fall(whole.signal, distance), abs=0.06)
    # a month as large as all months together: its pairs are those of MOST_A_MONTH, some at a time
    monkeypatch.setattr(nearby, "_PAIRS", 1 << 17)
    monkeypatch.setattr(nearby, "MOST_A_MONTH", 2000)
    tracemalloc.start()
    estimate(np.zeros(len(seen), dtype=np.int64), seen, held)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20 < 8 * 2000**2


def test_what_is_told_is_near_the_truth_and_its_variance_holds() -> None:
    known = covariance(signal=[0.0, 0.0, 0.6, 0.0, 0.0, 0.0])
    month, seen, signal = made(known, 3)
    seen = Left(**{**vars(seen), "noise": np.full(len(seen), 0.1 + known.rest)})
    off, variances = [], []
    for one in np.unique(month):
        mine = np.flatnonzero(month == one)
        asked = mine[np.arange(len(mine)) % 60 < 10]  # the ends of every second track
        given = np.setdiff1d(mine, asked)
        mean, variance = told(averaged(seen.take(given)), known, seen.latitude[asked], seen.longitude[asked])
        off.append(mean - signal[asked])
        variances.append(variance)
    squared, variance = np.concatenate(off) ** 2, np.concatenate(variances)
    assert squared.mean() < 0.75 * (signal**2).mean()
    assert squared.mean() == pytest.approx(variance.mean(), rel=0.1)
    assert (squared < 1.96**2 * variance).mean() == pytest.approx(0.95, abs=0.015)


def test_noise_and_deviation_are_what_they_say() -> None:
    known = covariance(alone=0.5, factor=1.25)
    assert known.noise(np.array([0.0, 2.0])) == pytest.approx([0.1, 2.1])
    assert covariance(rest=0.0).noise(np.zeros(1)) == pytest.approx([nearby.LEAST_NOISE])
    assert known.deviation(np.array([0.3])) == pytest.approx([1.25 * np.sqrt(0.4)])
