"""Trends against closed forms, a direct least squares and normal equations per series, scipy, and simulated noise."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.signal import lfilter

from services.core.errors import InputRefused
from services.validation import trend
from services.validation.trend import deseasonalised, ols, theil_sen

MONTHS = np.arange(387, 612)
"""2002-04 to 2020-12."""

YEARS = 1970 + (MONTHS + 0.5) / 12


def design(months: NDArray[np.int64], harmonics: int) -> NDArray[np.float64]:
    years = 1970 + (months + 0.5) / 12
    columns = [np.ones(len(months)), years - 2010]
    for order in range(1, harmonics + 1):
        columns += [np.cos(2 * np.pi * order * years), np.sin(2 * np.pi * order * years)]
    return np.stack(columns, axis=1)


def noise(phi: float, series: int, seed: int = 11) -> NDArray[np.float64]:
    """First-order autoregressions that have forgotten their start."""
    steps = np.random.default_rng(seed).standard_normal((500 + len(MONTHS), series))
    made: NDArray[np.float64] = lfilter([1], [1, -phi], steps, axis=0)[500:]
    return made


def test_the_terms_that_were_put_in_come_out() -> None:
    slopes = np.array([0.0, -2.5, 1e-4, 30.0])
    season = 4 * np.cos(2 * np.pi * YEARS) - 3 * np.sin(2 * np.pi * YEARS)
    values = 400 + slopes * (YEARS - 2010)[:, None] + season[:, None]
    values[40:51, 1] = np.nan
    found = ols(values, MONTHS)
    np.testing.assert_allclose(found.slope, slopes, atol=1e-10)
    np.testing.assert_allclose(found.standard_error, 0, atol=1e-10)
    np.testing.assert_array_equal(found.p_value[1:] < 1e-12, [True] * 3)
    np.testing.assert_array_equal(found.months, [225, 214, 225, 225])
    left = deseasonalised(values, MONTHS)
    known = ~np.isnan(values)
    np.testing.assert_array_equal(np.isnan(left), ~known)
    np.testing.assert_allclose(left[known], (400 + slopes * (YEARS - 2010)[:, None])[known], atol=1e-9)


@pytest.mark.parametrize("harmonics", [0, 1, 2])
def test_every_series_equals_a_least_squares_of_its_own(harmonics: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trend, "BLOCK", 7)
    rng = np.random.default_rng(3)
    values = noise(0.6, 20) + 300 + np.linspace(-1, 1, 20) * (YEARS - 2010)[:, None]
    values[rng.random(values.shape) < np.linspace(0, 0.4, 20)] = np.nan
    found = ols(values, MONTHS, harmonics=harmonics)
    for series in range(20):
        known = ~np.isnan(values[:, series])
        columns, kept = design(MONTHS[known], harmonics), values[known, series]
        terms, squares, *_ = np.linalg.lstsq(columns, kept, rcond=None)
        assert found.slope[series] == pytest.approx(terms[1], rel=1e-8)
        residual = np.full(len(MONTHS), np.nan)
        residual[known] = kept - columns @ terms
        one, other = residual[:-1], residual[1:]
        r1 = np.nansum(one * other) / np.nansum(np.where(np.isnan(one * other), np.nan, (one**2 + other**2) / 2))
        assert found.r1[series] == pytest.approx(r1, rel=1e-8)
        count = known.sum()
        corrected = (count * r1 + 2) / (count - 4)
        freedom = (count - 2 * harmonics) * (1 - corrected) / (1 + corrected) - 2
        variance = squares[0] / freedom * np.linalg.inv(columns.T @ columns)[1, 1]
        assert found.freedom[series] == pytest.approx(freedom, rel=1e-8)
        assert found.standard_error[series] == pytest.approx(np.sqrt(variance), rel=1e-8)
        p_value = 2 * stats.t.sf(abs(terms[1]) / np.sqrt(variance), freedom)
        assert found.p_value[series] == pytest.approx(p_value, rel=1e-6)
        assert found.months[series] == count


def test_without_autocorrelation_it_is_ordinary_least_squares() -> None:
    # residuals that alternate: r1 < 0 counts as 0
    values = (0.3 * (YEARS - 2010) + (-1.0) ** MONTHS * np.abs(np.sin(MONTHS * 1.7)))[:, None]
    found = ols(values, MONTHS, harmonics=0)
    known = stats.linregress(YEARS, values[:, 0])
    assert found.r1[0] < -0.3
    assert found.slope[0] == pytest.approx(known.slope, rel=1e-9)
    assert found.standard_error[0] == pytest.approx(known.stderr, rel=1e-9)
    assert found.p_value[0] == pytest.approx(known.pvalue, rel=1e-6)
    assert found.freedom[0] == len(MONTHS) - 2


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.7, 0.9])
def test_the_interval_holds_the_truth_as_often_as_it_says(phi: float) -> None:
    values = noise(phi, 4000)
    found = ols(values + 0.2 * (YEARS - 2010)[:, None] + 5 * np.sin(2 * np.pi * YEARS)[:, None], MONTHS)
    low, high = found.interval(0.95)
    covered = ((low <= 0.2) & (high >= 0.2)).mean()
    assert 0.935 < covered < 0.965
    columns = design(MONTHS, 1)
    terms, squares, *_ = np.linalg.lstsq(columns, values, rcond=None)
    plain = np.sqrt(squares / (len(MONTHS) - 4) * np.linalg.inv(columns.T @ columns)[1, 1])
    unwidened = (np.abs(terms[1]) <= stats.t.ppf(0.975, len(MONTHS) - 4) * plain).mean()
    assert (unwidened > 0.935) if phi == 0 else (unwidened < 0.78)


def test_gaps_make_it_generous_not_narrow() -> None:
    values = noise(0.7, 4000)
    values[np.random.default_rng(5).random(len(MONTHS)) < 0.15] = np.nan
    low, high = ols(values, MONTHS).interval()
    assert 0.945 < ((low <= 0) & (high >= 0)).mean() < 0.98


def test_months_left_out_are_gaps() -> None:
    values = noise(0.6, 5) + 0.4 * (YEARS - 2010)[:, None]
    holes = np.random.default_rng(2).random(len(MONTHS)) < 0.2
    gapped = np.where(holes[:, None], np.nan, values)
    whole, cut = ols(gapped, MONTHS), ols(values[~holes], MONTHS[~holes])
    for name in ("slope", "standard_error", "p_value", "r1", "freedom", "months"):
        np.testing.assert_allclose(getattr(whole, name), getattr(cut, name), rtol=1e-9)


def test_what_cannot_be_told_is_missing() -> None:
    values = np.full((len(MONTHS), 5), np.nan)
    values[:23, 0] = np.arange(23)  # too few
    values[(MONTHS % 12 == 0), 1] = np.arange(18)  # Januaries: no annual cycle
    values[::2, 2] = noise(0.5, 1)[::2, 0]  # no neighbours
    values[:, 3] = 7.0
    found = ols(values, MONTHS, least=18)
    np.testing.assert_array_equal(np.isnan(found.slope), [False, True, False, False, True])
    np.testing.assert_array_equal(np.isnan(found.standard_error), [False, True, True, False, True])
    np.testing.assert_array_equal(np.isnan(found.p_value), [False, True, True, False, True])
    assert (found.slope[3], found.standard_error[3], found.p_value[3], found.r1[3]) == (0, 0, 1, 0)
    assert np.isnan(ols(values, MONTHS).slope[0])
    januaries = ols(values, MONTHS, harmonics=0, least=18)
    assert januaries.slope[1] == pytest.approx(1.0)
    assert np.isnan(januaries.standard_error[1])
    assert np.isnan(deseasonalised(values, MONTHS, least=18)[:, 1]).all()
    assert ols(np.empty((225, 0)), MONTHS).slope.shape == (0,)


def test_one_or_two_months_of_the_year_tell_no_annual_cycle() -> None:
    pairs = [(one, other) for one in range(12) for other in range(one, 12)]
    values = np.full((len(MONTHS), len(pairs) + 1), np.nan)
    for series, pair in enumerate([*pairs, (0, 4, 9)]):
        kept = np.isin(MONTHS % 12, pair)
        values[kept, series] = 3 * (YEARS[kept] - 2010) + np.cos(2 * np.pi * YEARS[kept])
    found = ols(values, MONTHS, least=10)
    assert np.isnan(found.slope[:-1]).all()
    assert found.slope[-1] == pytest.approx(3)


def test_ranks_are_scipys() -> None:
    values = noise(0.4, 4) + np.array([0.0, 0.5, -0.2, 0.1]) * (YEARS - 2010)[:, None]
    values += 6 * np.cos(2 * np.pi * YEARS)[:, None]
    values[30:45, 2] = np.nan
    values[:, 3] = 3.0
    found = theil_sen(values, MONTHS)
    for series in range(3):
        known = ~np.isnan(values[:, series])
        columns = design(MONTHS[known], 1)
        terms = np.linalg.lstsq(columns, values[known, series], rcond=None)[0]
        kept = values[known, series] - columns[:, 2:] @ terms[2:]
        line, rank = stats.theilslopes(kept, YEARS[known]), stats.kendalltau(YEARS[known], kept)
        assert found.slope[series] == pytest.approx(line.slope, rel=1e-9)
        assert (found.low[series], found.high[series]) == pytest.approx((line.low_slope, line.high_slope), rel=1e-9)
        assert found.tau[series] == pytest.approx(rank.statistic, rel=1e-9)
        assert found.p_value[series] == pytest.approx(rank.pvalue, rel=1e-6)
    assert found.low[1] < 0.5 < found.high[1]
    assert (found.slope[3], found.tau[3], found.p_value[3]) == (0, 0, 1)
    assert found.months.tolist() == [225, 225, 210, 225]


def test_an_outlier_moves_least_squares_and_not_the_ranks() -> None:
    values = (0.5 * (YEARS - 2010) + 0.1 * noise(0, 1)[:, 0])[:, None]
    values[-3] += 300
    assert theil_sen(values, MONTHS).slope[0] == pytest.approx(0.5, abs=0.02)
    assert ols(values, MONTHS).slope[0] > 0.7


def test_autocorrelation_makes_p_of_ranks_too_small() -> None:
    values = noise(0.7, 200)
    assert (theil_sen(values, MONTHS).p_value < 0.05).mean() > 0.2
    assert (ols(values, MONTHS).p_value < 0.05).mean() < 0.1


@pytest.mark.parametrize(
    ("values", "months", "harmonics", "said"),
    [
        (np.zeros((5, 2)), np.arange(4), 1, r"values \(5, 2\) are not \(time, series\) of \(4,\) months"),
        (np.zeros(5), np.arange(5), 1, "are not"),
        (np.zeros((3, 1)), np.array([1, 3, 3]), 1, "rise"),
        (np.zeros((3, 1)), np.array([0.0, 1.0, 2.0]), 1, "whole numbers"),
        (np.zeros((3, 1)), np.arange(3), 3, "0, 1 or 2 harmonics"),
        (np.zeros((0, 1)), np.arange(0), 1, "no months"),
    ],
)
def test_what_does_not_fit_is_refused(
    values: NDArray[np.float64], months: NDArray[np.int64], harmonics: int, said: str
) -> None:
    with pytest.raises(InputRefused, match=said):
        ols(values, months, harmonics=harmonics)


def test_series_are_fitted_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    fit = trend._fit

    def watched(block: NDArray[np.float64], *rest: Any) -> trend.Regression:
        seen.append(block.shape)
        return fit(block, *rest)

    monkeypatch.setattr(trend, "_fit", watched)
    values = np.random.default_rng(0).standard_normal((225, 2 * trend.BLOCK + 5), dtype=np.float32)
    found = ols(values, MONTHS)
    assert seen == [(225, trend.BLOCK), (225, trend.BLOCK), (225, 5)]
    assert (found.p_value < 0.05).mean() == pytest.approx(0.047, abs=0.01)
