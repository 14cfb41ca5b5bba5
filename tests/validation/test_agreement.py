"""Agreement of pairs against closed forms, numpy and scipy."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from services.core.errors import InputRefused
from services.validation.agreement import agreement, coverage, detrended, difference_interval, intervals, table

RNG = np.random.default_rng(11)
YEARS = 2015 + np.arange(84) / 12
REFERENCE = RNG.normal(410, 3, 200)
VALUES = 0.9 * REFERENCE + 41.5 + RNG.normal(0, 0.8, 200)


def determination(values: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """As scikit-learn's r2_score is defined; these tests were run against it, too."""
    return float(1 - ((values - reference) ** 2).sum() / ((reference - reference.mean()) ** 2).sum())


def test_against_numpy_and_scipy() -> None:
    found = agreement(VALUES, REFERENCE)
    line = stats.linregress(REFERENCE, VALUES)
    assert found.n == 200
    assert found.bias == pytest.approx(np.mean(VALUES - REFERENCE), rel=1e-10)
    assert found.rmse == pytest.approx(np.linalg.norm(VALUES - REFERENCE) / np.sqrt(200), rel=1e-12)
    assert found.mae == pytest.approx(np.mean(np.abs(VALUES - REFERENCE)), rel=1e-12)
    assert found.sd == pytest.approx(np.std(VALUES - REFERENCE), rel=1e-10)
    assert found.r2 == pytest.approx(determination(VALUES, REFERENCE), rel=1e-10)
    assert found.r2_pearson == pytest.approx(line.rvalue**2, rel=1e-10)
    assert found.slope == pytest.approx(line.slope, rel=1e-10)
    assert found.intercept == pytest.approx(line.intercept, rel=1e-8)


def test_a_bias_lowers_one_r2_and_not_the_other() -> None:
    """Values that are the reference and 2 ppm: SSE / SST is 4 / variance."""
    found = agreement(REFERENCE + 2, REFERENCE)
    assert found.r2 == pytest.approx(1 - 4 / REFERENCE.var(), rel=1e-9)
    assert found.r2_pearson == pytest.approx(1)
    assert (found.slope, found.bias, found.rmse) == pytest.approx((1, 2, 2))
    assert found.sd == pytest.approx(0, abs=1e-6)


def test_what_cannot_be_told() -> None:
    constant = agreement(REFERENCE, np.full(200, 400.0))
    assert constant.to_json()["r2"] is None
    assert constant.to_json()["slope"] is None
    assert constant.rmse > 0
    flat = agreement(np.full(200, 400.0), REFERENCE)
    assert flat.slope == pytest.approx(0)
    assert np.isnan(flat.r2_pearson)
    with pytest.raises(InputRefused, match="1 of 200 pairs lack a value"):
        agreement(np.where(np.arange(200) == 3, np.nan, VALUES), REFERENCE)
    with pytest.raises(InputRefused, match=r"values \(2,\) and reference \(200,\) are no pairs"):
        agreement(VALUES[:2], REFERENCE)


def seasons(trend: float, amplitude: float) -> NDArray[np.float64]:
    return np.asarray(
        400 + trend * (YEARS - 2015) + amplitude * np.sin(2 * np.pi * YEARS) + 0.7 * np.cos(4 * np.pi * YEARS)
    )


def test_trend_and_season_alone_score_nothing() -> None:
    """A prediction that is just the reference's own trend and season has a plain R2 near 1 and a detrended one of 0."""
    weather = RNG.normal(0, 0.8, (2, 84))
    clean = np.concatenate([seasons(2.4, 3.0), seasons(2.5, -1.0)])
    reference = clean + weather.ravel()
    stations, years = np.repeat(["pa", "wg"], 84), np.tile(YEARS, 2)
    probe = detrended(reference, reference, years, stations)
    fitted = reference - probe.reference
    assert agreement(fitted, reference).r2 > 0.95
    found = detrended(fitted, reference, years, stations).agreement()
    assert found.r2 == pytest.approx(0, abs=1e-12)
    assert detrended(reference, reference, years, stations).agreement().r2 == 1
    # half of the weather: 1 - 0.25; and a bias is not forgiven
    half = detrended(fitted + 0.5 * probe.reference, reference, years, stations).agreement()
    assert half.r2 == pytest.approx(0.75)
    assert half.r2_pearson == pytest.approx(1)
    biased = detrended(reference + 0.4, reference, years, stations).agreement()
    assert biased.r2 == pytest.approx(1 - 0.16 / probe.reference.var(), rel=1e-9)
    assert biased.r2_pearson == pytest.approx(1)


def test_the_fit_is_that_of_scipys_optimizer() -> None:
    reference = seasons(2.4, 3.0) + RNG.normal(0, 0.8, 84)
    values = reference + RNG.normal(0.2, 0.5, 84)

    def curve(t: NDArray[np.float64], *p: float) -> NDArray[np.float64]:
        of_year = 2 * np.pi * t
        once, twice = p[2] * np.cos(of_year) + p[3] * np.sin(of_year), p[4] * np.cos(2 * of_year)
        return np.asarray(p[0] + p[1] * (t - 2018) + once + twice + p[5] * np.sin(2 * of_year))

    terms, _ = optimize.curve_fit(curve, YEARS, reference, p0=[400.0, 0, 0, 0, 0, 0])
    found = detrended(values, reference, YEARS, np.zeros(84, dtype=int))
    np.testing.assert_allclose(found.reference, reference - curve(YEARS, *terms), atol=1e-5)
    np.testing.assert_allclose(found.values, values - curve(YEARS, *terms), atol=1e-5)


def test_stations_that_are_too_short_are_left_out() -> None:
    reference = np.concatenate([seasons(2.4, 3.0), [400.0, 401.0], np.full(30, 400.0) + RNG.normal(0, 1, 30)])
    januaries = 1990.04 + np.arange(30)
    years = np.concatenate([YEARS, [2015.1, 2015.2], januaries])
    stations = np.array(["pa"] * 84 + ["hw"] * 2 + ["iz"] * 30)
    found = detrended(reference + 0.1, reference, years, stations)
    assert found.left_out == ("hw", "iz")
    assert found.used.sum() == 84
    with pytest.raises(InputRefused, match="no station has 24 pairs"):
        detrended(reference[84:86], reference[84:86], years[84:86], stations[84:86])


def test_intervals_of_independent_pairs_are_those_of_theory() -> None:
    rng = np.random.default_rng(2)
    reference = rng.normal(400, 3, 4000)
    values = reference + rng.normal(0.3, 1.0, 4000)
    found = intervals(values, reference, np.arange(4000))
    width = {"bias": 1 / np.sqrt(4000), "rmse": np.sqrt(1.09 / 2 / 4000)}
    for name, sigma in width.items():
        low, high = found[name]
        assert (high - low) / (2 * 1.96 * sigma) == pytest.approx(1, abs=0.12)
        assert low < getattr(agreement(values, reference), name) < high
    assert found == intervals(values, reference, np.arange(4000))


def test_blocks_that_depend_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    blocks = np.repeat(np.arange(40), 25)
    reference = rng.normal(400, 3, 1000)
    values = reference + rng.normal(0, 1, 40)[blocks]
    narrow, wide = (intervals(values, reference, labels)["bias"] for labels in (np.arange(1000), blocks))
    assert (wide[1] - wide[0]) / (narrow[1] - narrow[0]) == pytest.approx(5, rel=0.25)
    with pytest.raises(InputRefused, match="all pairs are of one block"):
        intervals(values, reference, np.zeros(1000, dtype=int))


def test_intervals_are_a_bootstrap_of_pairs_themselves() -> None:
    """The same draws, with pairs put together block by block, give the same percentiles."""
    blocks = np.repeat(["a", "b", "c", "d", "e"], [30, 50, 20, 60, 40])
    found = intervals(VALUES, REFERENCE, blocks, draws=150, seed=4)
    drawn = np.random.default_rng(4).multinomial(5, np.full(5, 0.2), size=150)
    scores = []
    for counts in drawn:
        parts = [np.flatnonzero(blocks == name) for name, n in zip("abcde", counts, strict=True) for _ in range(n)]
        which = np.concatenate(parts)
        line = stats.linregress(REFERENCE[which], VALUES[which])
        scores.append((determination(VALUES[which], REFERENCE[which]), line.rvalue**2, line.slope))
    for name, column in zip(("r2", "r2_pearson", "slope"), np.array(scores).T, strict=True):
        assert found[name] == pytest.approx(tuple(np.quantile(column, [0.025, 0.975])), rel=1e-8)


def test_the_difference_of_two_on_the_same_pairs() -> None:
    rng = np.random.default_rng(5)
    shared, blocks = rng.normal(0, 3, 2000), np.arange(2000) // 4
    reference = np.full(2000, 400.0)
    one, other = 400 + shared + rng.normal(0, 0.2, 2000), 400 + 1.05 * shared
    whole, low, high = difference_interval(one, other, reference, blocks)
    assert whole == pytest.approx(agreement(one, reference).rmse - agreement(other, reference).rmse)
    assert low < whole < high < 0
    assert difference_interval(one, one, reference, blocks) == (0, 0, 0)


def test_a_table_of_stations() -> None:
    stations = np.array(["pa"] * 120 + ["wg"] * 80)
    found = table(VALUES, REFERENCE, stations)
    assert list(found.stations) == ["pa", "wg"]
    assert found.pooled == agreement(VALUES, REFERENCE)
    assert found.stations["wg"] == agreement(VALUES[120:], REFERENCE[120:])
    biases = [found.stations[name].bias for name in ("pa", "wg")]
    assert found.bias_spread == pytest.approx(abs(biases[0] - biases[1]) / np.sqrt(2))
    assert table(VALUES, REFERENCE, ["pa"] * 200).to_json()["bias_spread"] is None


def test_coverage() -> None:
    rng = np.random.default_rng(6)
    reference = rng.normal(400, 3, 20000)
    values = reference + rng.normal(0, 2, 20000)
    assert coverage(values, reference, np.full(20000, 2.0)) == pytest.approx(0.95, abs=0.006)
    assert coverage(values, reference, np.full(20000, 2.0), level=0.5) == pytest.approx(0.5, abs=0.012)
    assert coverage(values, reference, np.full(20000, 1.0)) == pytest.approx(0.673, abs=0.012)
    with pytest.raises(InputRefused, match="deviation is missing or below 0"):
        coverage(values, reference, np.full(20000, np.nan))
