"""Metrics against numpy's weighted averages over everything at once."""

import numpy as np
import pytest

from services.validation.metrics import ErrorSums


def test_pieces_give_what_the_whole_gives() -> None:
    rng = np.random.default_rng(5)
    reference = rng.normal(410, 3, (4, 20, 30))
    values = reference + rng.normal(0.3, 0.8, reference.shape)
    sigma = np.full(reference.shape, 0.8)
    values[:, 3, 4] = np.nan
    reference[0] = np.nan
    areas = rng.uniform(0.1, 1, (20, 1))
    sums = ErrorSums()
    for piece in range(4):
        sums.add(values[piece], reference[piece], areas, sigma[piece])
    found = sums.errors()
    both = np.isfinite(values) & np.isfinite(reference)
    weight = np.broadcast_to(areas, values.shape)[both]
    difference = (values - reference)[both]
    mean = np.average(reference[both], weights=weight)
    assert found.cells == both.sum()
    assert found.bias == pytest.approx(np.average(difference, weights=weight), rel=1e-12)
    assert found.rmse == pytest.approx(np.sqrt(np.average(difference**2, weights=weight)), rel=1e-12)
    assert found.mae == pytest.approx(np.average(np.abs(difference), weights=weight), rel=1e-12)
    departures = np.average((reference[both] - mean) ** 2, weights=weight)
    assert found.r2 == pytest.approx(1 - np.average(difference**2, weights=weight) / departures, rel=1e-9)
    assert found.within_sigma == pytest.approx(np.average(np.abs(difference) <= 0.8, weights=weight), rel=1e-12)


def test_nothing_to_compare_is_said() -> None:
    sums = ErrorSums()
    sums.add(np.array([np.nan]), np.array([1.0]), np.array([1.0]))
    with pytest.raises(ValueError, match="no pair"):
        sums.errors()
