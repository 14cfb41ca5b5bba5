import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.spread import PERCENTS, SAMPLE, Spread


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=400))
def test_percentiles_are_values_next_to_numpys(values: list[int]) -> None:
    array = np.asarray(values, dtype=np.int16)
    spread = Spread.of(array, len(values) + 3)
    assert (spread.values, spread.valid) == (len(values) + 3, len(values))
    assert spread.percentiles[0] == array.min()
    assert spread.percentiles[-1] == array.max()
    for percent in PERCENTS:
        low, high = (np.percentile(array, percent, method=method) for method in ("lower", "higher"))
        assert spread.at(percent) in {low, high}
    assert Spread.from_json(json.loads(json.dumps(spread.to_json()))) == spread


def test_the_ends_of_many_values_are_exact() -> None:
    values = np.random.default_rng(1).normal(size=5 * SAMPLE).astype(np.float32).reshape(5, -1)
    values[3, 17] = -50
    spread = Spread.of(values, values.size)
    assert (spread.percentiles[0], spread.percentiles[-1]) == (-50.0, float(values.max()))
    assert spread.at(2.0) == pytest.approx(np.percentile(values, 2), abs=0.02)


@pytest.mark.parametrize("parts", [2, 7])
def test_merged_is_the_spread_of_all_values(parts: int) -> None:
    generator = np.random.default_rng(2)
    pieces = [generator.normal(loc=3 * number, size=20_000 * (number + 1)) for number in range(parts)]
    whole = np.concatenate(pieces)
    merged = Spread.merged([Spread.of(piece, piece.size + 1) for piece in pieces])
    assert (merged.values, merged.valid) == (whole.size + parts, whole.size)
    assert (merged.percentiles[0], merged.percentiles[-1]) == (whole.min(), whole.max())
    for percent in PERCENTS[1:-1]:
        # off by half the share of values between two that are kept
        low, high = np.percentile(whole, [max(0.0, percent - 5.5), min(100.0, percent + 5.5)])
        assert low <= (merged.at(percent) or np.nan) <= high


def test_merged_percentiles_are_values_that_were_seen() -> None:
    zeros, tens = Spread.of(np.zeros(50), 50), Spread.of(np.full(50, 10.0), 50)
    merged = Spread.merged([zeros, tens])
    assert set(merged.percentiles) == {0.0, 10.0}
    assert (merged.at(2.0), merged.at(98.0)) == (0.0, 10.0)
    many = Spread.merged([zeros] * 99 + [tens])
    assert (many.at(98.0), many.at(100.0)) == (0.0, 10.0)


def test_a_pattern_in_the_values_does_not_fall_in_with_the_sample() -> None:
    values = np.tile(np.arange(8), SAMPLE)
    assert Spread.of(values, values.size).at(50.0) in {3.0, 4.0}


def test_the_largest_integers_stay_what_they_are() -> None:
    values = np.asarray([np.iinfo(np.int64).max, 0], dtype=np.int64)
    assert Spread.of(values, 2).at(100.0) == float(np.iinfo(np.int64).max)
    assert Spread.of(np.asarray([2, 4], dtype=np.int16), 2, lambda stored: stored * -0.5).percentiles[0] == -2.0


def test_missing_values_move_no_percentile() -> None:
    some, none = Spread.of(np.asarray([1.0, 2.0]), 5), Spread.of(np.empty(0), 10)
    assert Spread.merged([none, some, none]) == Spread(values=25, valid=2, percentiles=some.percentiles)
    assert Spread.merged([none, none]) == Spread(values=20, valid=0)
    assert none.at(2.0) is None
    assert (none.valid_share, some.valid_share, Spread.merged([]).valid_share) == (0.0, 0.4, 0.0)
    constant = Spread.of(np.full(9, 7.0), 9)
    assert set(Spread.merged([constant, constant]).percentiles) == {7.0}


@pytest.mark.parametrize(
    ("values", "valid", "percentiles", "message"),
    [
        (3, 2, (), "2 of 3 values cannot be valid with 0 percentiles"),
        (3, 0, PERCENTS, f"with {len(PERCENTS)} percentiles"),
        (3, 4, PERCENTS, "4 of 3"),
        (3, 3, PERCENTS[::-1], "must not fall"),
    ],
)
def test_what_cannot_be_is_refused(values: int, valid: int, percentiles: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spread(values=values, valid=valid, percentiles=percentiles)
