"""Climatology, trend and autoregression against numpy's least squares and the Gaussian's closed form."""

import numpy as np
import pytest
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.products.gwsa.seasonal import MEMORY, bridge, climatology_trend, lag_one

type Floats = NDArray[np.float64]


def gappy(seed: int, months: int = 70, count: int = 4) -> Floats:
    """Values ``(time, series)`` with gaps of their own, one of eleven months and one at each end."""
    rng = np.random.default_rng(seed)
    values = rng.normal(100, 5, (months, count))
    values[rng.random(values.shape) < 0.15] = np.nan
    values[20:31, 1] = np.nan
    values[:3, 2] = np.nan
    values[-2:, 2] = np.nan
    return values


def test_climatology_and_trend_are_least_squares() -> None:
    values = gappy(0)
    time = np.arange(len(values))
    design = np.column_stack([time % 12 == month for month in range(12)] + [time]).astype(float)
    found = climatology_trend(values)
    for column in range(values.shape[1]):
        known = ~np.isnan(values[:, column])
        expected = design @ np.linalg.lstsq(design[known], values[known, column])[0]
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-10)


def test_a_series_that_lacks_a_calendar_month_is_refused() -> None:
    values = gappy(0)
    values[7::12, 2] = np.nan
    with pytest.raises(InputRefused, match=r"series 2 has \d+ values, which leave calendar months without any"):
        climatology_trend(values)
    with pytest.raises(InputRefused, match="series 0 has 12 values"):
        climatology_trend(np.ones((12, 1)))


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.85, MEMORY])
def test_a_gap_is_the_conditional_mean_of_an_autoregression(correlation: float) -> None:
    values = gappy(1) - 100
    time = np.arange(len(values))
    covariance = correlation ** np.abs(time[:, None] - time).astype(float)
    found = bridge(values, correlation)
    for column in range(values.shape[1]):
        known = ~np.isnan(values[:, column])
        inverse = np.linalg.solve(covariance[np.ix_(known, known)], values[known, column])
        np.testing.assert_allclose(found[~known, column], covariance[np.ix_(~known, known)] @ inverse, atol=1e-8)
        np.testing.assert_array_equal(found[known, column], values[known, column])


def test_full_correlation_is_linear_interpolation() -> None:
    values = gappy(2)
    time = np.arange(len(values))
    found = bridge(values, 1.0)
    for column in range(values.shape[1]):
        known = ~np.isnan(values[:, column])
        np.testing.assert_allclose(found[:, column], np.interp(time, time[known], values[known, column]), rtol=1e-12)


def test_each_series_has_a_correlation_of_its_own() -> None:
    values = gappy(3)
    correlations = np.array([0.2, 0.5, 0.9, 1.0])
    found = bridge(values, correlations)
    for column, correlation in enumerate(correlations):
        np.testing.assert_array_equal(found[:, [column]], bridge(values[:, [column]], correlation))


def test_the_correlation_of_a_long_series_is_found() -> None:
    rng = np.random.default_rng(4)
    truth = np.array([0.0, 0.6, 0.9])
    values = np.zeros((40_000, 3))
    for row in range(1, len(values)):
        values[row] = truth * values[row - 1] + rng.normal(size=3)
    values[rng.random(values.shape) < 0.2] = np.nan
    np.testing.assert_allclose(lag_one(values), truth, atol=0.02)


def test_correlations_stay_in_their_range() -> None:
    time = np.arange(20.0)
    values = np.column_stack([np.zeros(20), (-1) ** time, np.ones(20)])
    np.testing.assert_array_equal(lag_one(values), [0, 0, MEMORY])
