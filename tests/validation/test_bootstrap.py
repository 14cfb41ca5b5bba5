"""The interval of a difference of RMSEs covers the true one as often as it says."""

import numpy as np
import pytest

from services.core.errors import InputRefused
from services.validation.bootstrap import rmse_difference


def test_the_interval_covers_the_truth_of_a_closed_form() -> None:
    """Errors N(0, s^2), one for each block, correlated between the two: the true difference is 2.0 - 1.7."""
    covered = {"blocks": 0, "rows": 0}
    trials, blocks, rows = 400, 80, 20
    for trial in range(trials):
        random = np.random.default_rng(trial)
        shared = random.standard_normal(blocks)
        first = 2.0 * (0.8 * shared + 0.6 * random.standard_normal(blocks))
        second = 1.7 * shared
        labels = np.repeat(np.arange(blocks), rows)
        errors = first[labels], second[labels]
        for name, what in (("blocks", labels), ("rows", np.arange(len(labels)))):
            found = rmse_difference(*errors, what, draws=300, seed=trial)
            covered[name] += found.low <= 0.3 <= found.high
    # percentile intervals of 80 blocks are a little short; 400 trials tell a share within 0.022 (two sigma)
    assert 0.90 <= covered["blocks"] / trials <= 0.975
    # rows drawn one by one take twenty copies for twenty errors
    assert covered["rows"] / trials < 0.5


def test_the_difference_is_that_of_the_rows() -> None:
    random = np.random.default_rng(0)
    errors, other = random.normal(0, 2, 500), random.normal(0, 1, 500)
    found = rmse_difference(errors, other, np.arange(500) // 10)
    assert found.difference == pytest.approx(np.sqrt((errors**2).mean()) - np.sqrt((other**2).mean()), abs=1e-12)
    assert found.low < found.difference < found.high
    assert found.blocks == 50
    turned = rmse_difference(other, errors, np.arange(500) // 10)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-12)
    same = rmse_difference(errors, errors, np.arange(500) // 10)
    assert (same.difference, same.low, same.high) == (0.0, 0.0, 0.0)


def test_blocks_of_unequal_size_are_drawn_whole() -> None:
    """Against drawing them one by one."""
    random = np.random.default_rng(2)
    labels = random.integers(0, 15, 200)
    errors, other = random.normal(0, 1, 200), random.normal(0, 1.5, 200)
    found = rmse_difference(errors, other, labels, draws=4000)
    drawn = []
    for _ in range(4000):
        rows = np.concatenate([np.flatnonzero(labels == one) for one in random.integers(0, 15, 15)])
        drawn.append(np.sqrt((errors[rows] ** 2).mean()) - np.sqrt((other[rows] ** 2).mean()))
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)


def test_what_is_no_pair_is_refused() -> None:
    with pytest.raises(InputRefused, match="are no pairs"):
        rmse_difference(np.zeros(3), np.zeros(4), np.zeros(3, dtype=np.int64))
    with pytest.raises(InputRefused, match="an error is no number"):
        rmse_difference(np.full(20, np.nan), np.zeros(20), np.arange(20))
    with pytest.raises(InputRefused, match="9 blocks are drawn from"):
        rmse_difference(np.zeros(20), np.zeros(20), np.arange(20) % 9)
