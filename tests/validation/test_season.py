"""Peaks and troughs against closed forms and a search by scipy."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from services.validation.season import season
from services.validation.trend import annual_cycle

MONTHS = np.arange(540, 624)


def test_one_harmonic_has_twice_its_height_and_peaks_at_its_phase() -> None:
    phases = np.linspace(0.01, 0.99, 21)
    cycle = np.zeros((4, 21))
    cycle[0], cycle[1] = 3 * np.cos(2 * np.pi * phases), 3 * np.sin(2 * np.pi * phases)
    found = season(cycle)
    np.testing.assert_allclose(found.amplitude, 6, rtol=1e-12)
    np.testing.assert_allclose(found.maximum, 12 * phases, atol=1e-7)
    np.testing.assert_allclose((found.minimum - found.maximum) % 12, 6, atol=1e-7)


def test_two_harmonics_peak_where_scipy_finds_it() -> None:
    cycle = np.random.default_rng(4).normal(size=(4, 60)) * np.array([[2], [2], [1], [1]])
    found = season(cycle)
    for number, (c1, s1, c2, s2) in enumerate(cycle.T):

        def falls(p: float, sign: float, terms: tuple[float, ...] = (c1, s1, c2, s2)) -> float:
            a, b, c, d = terms
            return -sign * float(a * np.cos(p) + b * np.sin(p) + c * np.cos(2 * p) + d * np.sin(2 * p))

        starts = np.linspace(0, 2 * np.pi, 13)
        best = [
            min(
                (
                    minimize_scalar(
                        falls, bounds=(at, at + 0.6), args=(sign,), method="bounded", options={"xatol": 1e-9}
                    )
                ).fun
                for at in starts
            )
            for sign in (1, -1)
        ]
        assert found.amplitude[number] == pytest.approx(-best[0] - best[1], abs=1e-9)
        assert falls(found.maximum[number] / 12 * 2 * np.pi, 1) == pytest.approx(best[0], abs=1e-9)
        assert falls(found.minimum[number] / 12 * 2 * np.pi, -1) == pytest.approx(best[1], abs=1e-9)


def test_the_cycle_that_was_put_in_comes_out_of_months_with_gaps() -> None:
    years = (MONTHS + 0.5) / 12
    put = np.array([[2.0, -1.0, 0.5, 0.25], [0.0, 3.0, 0.0, -1.0]])
    columns = [wave(order * 2 * np.pi * years) for order in (1, 2) for wave in (np.cos, np.sin)]
    values = 400 + 2.4 * (years[:, None] - 50) + np.stack(columns, axis=1) @ put.T
    values[7:19, 0] = np.nan
    np.testing.assert_allclose(annual_cycle(values, MONTHS), put.T, atol=1e-9)
    short = np.where(np.arange(84)[:, None] < 20, values, np.nan)
    assert np.isnan(annual_cycle(short, MONTHS)).all()
    assert np.isnan(season(annual_cycle(short, MONTHS)).amplitude).all()
