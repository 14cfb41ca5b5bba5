"""SSA against exact series, a plain second implementation, and the test series of its authors."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from services.core.errors import InputRefused, SettingsError
from services.core.time_axis import TimeAxis
from services.products.gwsa import ssa
from services.products.gwsa.gaps import SSA, blanked_rms, by_climatology_trend, choose, years
from services.products.gwsa.months import assign, spread
from tests.products.gwsa.test_months import days_of_years

type Floats = NDArray[np.float64]


def plain(series: Floats, window: int, order: int) -> Floats:
    """One series, step by step as Yi and Sneeuw (2021) describe it: a whole SVD, antidiagonals one by one."""
    gaps = np.isnan(series)
    series = np.where(gaps, 0.0, series)
    rows = series.size - window + 1
    for kept in range(1, order + 1):
        while True:
            matrix = np.array([series[row : row + window] for row in range(rows)])
            u, s, v = np.linalg.svd(matrix)
            matrix = (u[:, :kept] * s[:kept]) @ v[:kept]
            flipped = matrix[:, ::-1]
            rebuilt = np.array([flipped.diagonal(window - 1 - time).mean() for time in range(series.size)])
            change, size = rebuilt[gaps] - series[gaps], series[gaps]
            series = np.where(gaps, rebuilt, series)
            if np.sqrt((change**2).mean()) <= 0.01 * np.sqrt((size**2).mean()):
                break
    return rebuilt


def noisy(seed: int = 3, months: int = 90, count: int = 5) -> Floats:
    """Trend, season and noise ``(time, series)``, each with gaps of its own."""
    rng = np.random.default_rng(seed)
    time = np.arange(months)[:, None]
    values = rng.normal(0, 2, count) * time / 40 + rng.uniform(1, 4, count) * np.sin(
        2 * np.pi * time / 12 + rng.random(count)
    )
    values = values + rng.normal(0, 0.5, values.shape) + 3
    for column in range(count):
        values[rng.choice(months, 6, replace=False), column] = np.nan
        values[40 + column : 51 + column, column] = np.nan
    return values


def test_a_sinusoid_on_a_trend_is_rebuilt_exactly() -> None:
    time = np.arange(160.0)
    truth = 2 + 0.05 * time + 3 * np.sin(2 * np.pi * time / 12 + 0.4)  # four components
    values = truth.copy()
    values[[20, 47, 48, *range(80, 91), 130]] = np.nan
    found = ssa.fill(values[:, None], 48, 4, tolerance=1e-12)[:, 0]
    np.testing.assert_allclose(found, truth, atol=1e-8)


@pytest.mark.parametrize(("window", "order"), [(24, 1), (30, 6), (60, 4)])
def test_many_series_at_once_are_each_what_a_plain_implementation_gives(
    window: int, order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssa, "BATCH", 2)
    values = noisy()
    found = ssa.reconstructions(values, window, [order])[0]
    for column in range(values.shape[1]):
        np.testing.assert_allclose(found[:, column], plain(values[:, column], window, order), rtol=1e-9, atol=1e-9)
    filled = ssa.fill(values, window, order)
    np.testing.assert_array_equal(filled, np.where(np.isnan(values), found, values))


def test_the_largest_order_holds_the_lower_ones() -> None:
    values = noisy()
    together = ssa.reconstructions(values, 30, [2, 5, 7])
    for number, order in enumerate((2, 5, 7)):
        np.testing.assert_allclose(together[number], ssa.reconstructions(values, 30, [order])[0], rtol=1e-9, atol=1e-9)


def test_a_complete_series_is_only_smoothed() -> None:
    values = np.where(np.isnan(noisy()), 0.0, noisy())
    np.testing.assert_array_equal(ssa.fill(values, 30, 3), values)
    found = ssa.reconstructions(values, 30, [30])[0]
    np.testing.assert_allclose(found, values, atol=1e-9)


def test_gaps_of_nothing_settle() -> None:
    values = np.zeros((60, 2))
    values[::2, 1] = 1.0  # 1 0 1 0: its second component alone has the sign
    values[[20, 31]] = np.nan
    np.testing.assert_allclose(ssa.fill(values, 24, 2, tolerance=1e-9)[:, 0], 0)
    np.testing.assert_allclose(ssa.fill(values, 24, 2, tolerance=1e-9)[[20, 31], 1], [1, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("window", "orders", "message"),
    [
        (61, [1], "a window of 61 does not fit series of 60 steps"),
        (0, [1], "orders must lie in 1 to 0|does not fit"),
        (48, [14], r"orders must lie in 1 to 13 for a window of 48 in 60, not \[14\]"),
        (24, [0], r"not \[0\]"),
        (24, [], r"not \[\]"),
    ],
)
def test_settings_that_do_not_fit_are_refused(window: int, orders: list[int], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ssa.reconstructions(np.ones((60, 1)), window, orders)


def test_series_that_cannot_be_filled_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    values = noisy()
    values[:, 3] = np.nan
    with pytest.raises(InputRefused, match="series 3 has no value"):
        ssa.fill(values, 24, 2)
    monkeypatch.setattr(ssa, "ITERATIONS", 3)
    with pytest.raises(InputRefused, match="5 of 5 series did not settle in 3 iterations"):
        ssa.fill(noisy(), 24, 4)


# The authors' test series: degree 3, order 0 of the gravity field.


@pytest.fixture(scope="module")
def axis() -> TimeAxis:
    return TimeAxis.regular("2002-04", "P1M", 221)


@pytest.fixture(scope="module")
def c30(realdata: Path, axis: TimeAxis) -> Floats:
    times, values = scipy.io.loadmat(realdata / "groundwater" / "ssa_example_C30.mat")["ser"].T
    return spread(values[:, None], assign(days_of_years(times)), axis)


def test_the_residual_of_c30(c30: Floats) -> None:
    residual = c30 - ssa.reconstructions(c30, 72, [10])[0]
    assert np.nanstd(residual) == pytest.approx(1.55e-11, rel=0.02)
    known = ~np.isnan(c30[:, 0])
    np.testing.assert_allclose(residual[known, 0], (c30[:, 0] - plain(c30[:, 0], 72, 10))[known], rtol=1e-6, atol=1e-18)


def test_blanked_years_of_c30(c30: Floats, axis: TimeAxis) -> None:
    unit = np.nanmedian(np.abs(c30))
    start, end = axis.ids.index("2003-01"), axis.ids.index("2017-01")
    part = c30[start:end] / unit
    blanks = [rows - start for rows in years(axis)]
    chosen = choose(part, blanks, (48, 60, 72, 84), range(1, 19))
    assert chosen == SSA(window=60, order=15)
    found = blanked_rms(part, chosen, blanks)[0]
    assert found <= 0.413
    assert found == pytest.approx(0.380, abs=0.001)
    by_hand = []
    for year in (2004, 2007, 2010, 2013):
        rows = [row for row in range(len(part)) if axis.ids[start + row].startswith(str(year))]
        hidden = part[:, 0].copy()
        hidden[rows] = np.nan
        by_hand.append(np.nanmean((plain(hidden, 60, 15)[rows] - part[rows, 0]) ** 2))
    assert found == pytest.approx(np.sqrt(np.mean(by_hand)), rel=1e-6)
    # climatology and trend fare better with all the months to learn from, and still worse than SSA
    assert blanked_rms(part, by_climatology_trend, blanks)[0] == pytest.approx(0.484, abs=0.001)
    assert blanked_rms(c30 / unit, by_climatology_trend, years(axis))[0] == pytest.approx(0.451, abs=0.001)
