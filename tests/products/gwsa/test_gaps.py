"""Filled gaps: what is flagged, what error is stated, what is chosen; and the comparison behind the default."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.time_axis import TimeAxis
from services.products.gwsa import gaps
from services.products.gwsa.gaps import METHODS, SSA, ByLength, blanked_rms, choose, fill, lengths, scattered, years
from tests.products.gwsa.gaps_study import REPORT, published_missing, read_basins, scored_blanks

type Floats = NDArray[np.float64]

AXIS = TimeAxis.regular("2002-04", "P1M", 225)


def storage(seed: int = 0, count: int = 6) -> Floats:
    """Season, trend and slow noise ``(time, series)`` on the product's axis, complete."""
    rng = np.random.default_rng(seed)
    time = np.arange(len(AXIS))[:, None]
    slow = np.zeros((len(AXIS), count))
    for row in range(1, len(slow)):
        slow[row] = 0.85 * slow[row - 1] + rng.normal(0, 0.5, count)
    found: Floats = rng.normal(0, 2, count) * time / 100 + 3 * np.sin(2 * np.pi * time / 12 + rng.random(count)) + slow
    return found


@pytest.fixture
def missing(realdata: Path) -> NDArray[np.bool_]:
    return np.isin(AXIS.ids, published_missing(realdata))


def test_lengths_of_gaps() -> None:
    values = np.array([[np.nan, 1, np.nan, np.nan, 1, 1], [1, 1, 1, 1, 1, np.nan]]).T
    np.testing.assert_array_equal(lengths(values).T, [[1, 0, 2, 2, 0, 0], [0, 0, 0, 0, 0, 1]])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_fills_every_gap_and_leaves_the_rest(name: str, missing: NDArray[np.bool_]) -> None:
    truth = storage()
    values = truth.copy()
    values[missing] = np.nan
    values[:, 2] = np.nan  # a cell of the sea
    land = np.array([True, True, False, True, True, True])
    before = values.copy()
    done = fill(values, METHODS[name], short=scattered(missing), long=years(AXIS))
    np.testing.assert_array_equal(values, before)
    np.testing.assert_array_equal(done.filled, missing[:, None] & land)
    np.testing.assert_array_equal(np.isnan(done.values), np.broadcast_to(~land, truth.shape))
    np.testing.assert_array_equal(done.values[~missing][:, land], truth[~missing][:, land])
    np.testing.assert_array_equal(done.uncertainty[~missing][:, land], 0)
    assert np.isnan(done.uncertainty[:, 2]).all()
    # two levels for each series: that of short gaps and that of the long one
    long = lengths(values)[:, 0] >= gaps.LONG
    assert long.sum() == 11
    known = values[:, land]
    for kind, blanks in ((missing & ~long, scattered(missing)), (long, years(AXIS))):
        stated = blanked_rms(known, METHODS[name], blanks)
        assert (stated > 0).all()
        np.testing.assert_array_equal(done.uncertainty[kind][:, land], np.tile(stated, (int(kind.sum()), 1)))
    # and they are about right: made-up series, so within a factor of two
    error = np.sqrt(((done.values - truth)[long][:, land] ** 2).mean())
    assert error == pytest.approx(np.sqrt((done.uncertainty[long][:, land] ** 2).mean()), rel=0.5)


def test_a_blank_is_scored_only_where_there_is_a_value() -> None:
    values = np.array([[1.0, 2, np.nan, 4, 5, 6], [1, 1, 1, 1, 1, 1]]).T

    def zero(hidden: Floats) -> Floats:
        return np.where(np.isnan(hidden), 0.0, hidden)

    found = blanked_rms(values, zero, [np.array([1, 2]), np.array([4, 5])])
    np.testing.assert_allclose(found, [np.sqrt((4 + (25 + 36) / 2) / 2), 1])
    np.testing.assert_allclose(
        blanked_rms(values, lambda hidden: np.stack([zero(hidden), zero(hidden)]), [np.array([1, 2])]), [[2, 1], [2, 1]]
    )
    # a blank that meets no value says nothing, and does not lessen the others
    np.testing.assert_allclose(blanked_rms(values[:, :1], zero, [np.array([1, 2]), np.array([2, 2])]), [2])
    with pytest.raises(InputRefused, match="series 0 has no value in any of 1 blanks"):
        blanked_rms(values, zero, [np.array([2, 2])])


def test_blanked_years_are_calendar_years() -> None:
    ids = [[AXIS.ids[row] for row in rows] for rows in years(AXIS)]
    assert ids == [[f"{year}-{month:02d}" for month in range(1, 13)] for year in (2004, 2007, 2010, 2013)]


def test_scattered_blanks_are_short_and_apart(missing: NDArray[np.bool_]) -> None:
    blanks = scattered(missing, trials=4, gaps=9, seed=1)
    months = np.concatenate(blanks)
    assert len(np.unique(months)) == len(months) == 4 * 12
    for rows in blanks:
        together = missing.copy()
        assert not together[rows].any()
        together[rows] = True
        found = lengths(np.where(together, np.nan, 0.0)[:, None])[rows, 0]
        assert sorted(found) == [1] * 6 + [2] * 6
        assert 0 < rows.min() < rows.max() < len(missing) - 1
    again = scattered(missing, trials=4, gaps=9, seed=1)
    other = scattered(missing, trials=4, gaps=9, seed=2)
    assert all((one == two).all() for one, two in zip(blanks, again, strict=True))
    assert not all((one == two).all() for one, two in zip(blanks, other, strict=True))
    with pytest.raises(InputRefused, match="20 known months do not hold 4 x 9 blanks"):
        scattered(np.zeros(20, dtype=bool))


def test_short_and_long_gaps_can_have_methods_of_their_own() -> None:
    values = np.zeros((60, 1))
    values[[5, 10, 11, *range(20, 31)]] = np.nan
    by_length = ByLength(short=lambda v: np.where(np.isnan(v), 1.0, v), long=lambda v: np.where(np.isnan(v), 2.0, v))
    found = by_length(values)[:, 0]
    np.testing.assert_array_equal(np.flatnonzero(found == 1), [5, 10, 11])
    np.testing.assert_array_equal(np.flatnonzero(found == 2), range(20, 31))


def test_the_window_and_order_of_an_exact_series_are_found() -> None:
    time = np.arange(180.0)[:, None]
    exact = 1 + 0.02 * time + np.array([1.0, 3.0]) * np.sin(2 * np.pi * time / 12)
    noise = np.random.default_rng(1).normal(0, 0.3, exact.shape)
    blanks = [np.arange(start, start + 12) for start in (30, 80, 130)]
    # fewer components miss a part of it, more of them follow the noise
    assert choose(exact + noise, blanks, (12, 48), range(1, 12)) == SSA(window=48, order=4)
    with pytest.raises(InputRefused, match="none of 2 series varies"):
        choose(np.ones((180, 2)), blanks, (48,), (1,))


def test_infinite_values_are_refused() -> None:
    values = storage()
    values[3, 2] = np.inf
    with pytest.raises(InputRefused, match="1 values are infinite"):
        fill(values, METHODS["linear"], short=[np.array([1])], long=[np.array([1])])


# The comparison on 204 river basins, as the report has it.


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REPORT.read_text(encoding="utf-8"))
    return found


def test_the_default_is_the_best_and_ssa_beats_the_simple_ones(report: dict[str, Any]) -> None:
    default = next(iter(METHODS))
    for kind in ("long", "short"):
        table = report[kind]["table"]
        scores = {name: table[name]["median_rms_over_std"] for name in METHODS}
        # on short gaps it and straight lines of the residual are one
        assert scores[default] <= min(scores.values()) * (1.0 if kind == "long" else 1.01)
        assert scores["ssa"] < scores["linear"]
        assert scores["ssa"] < scores["climatology_trend"]
    chosen = ByLength(short=SSA(**report["short"]["ssa_of_all"]), long=SSA(**report["long"]["ssa_of_all"]))
    assert METHODS["ssa"] == chosen


def test_the_report_is_what_the_basins_give(realdata: Path, report: dict[str, Any]) -> None:
    values, axis = read_basins(realdata)
    assert values.shape == (222, 204)
    assert np.isnan(values).sum() == 33 * 204
    spread = np.nanstd(values, axis=0)
    for kind, blanks in scored_blanks(axis, np.isnan(values[:, 0])).items():
        for name in METHODS.keys() - {"ssa"}:
            found = np.median(blanked_rms(values, METHODS[name], blanks) / spread)
            assert found == pytest.approx(report[kind]["table"][name]["median_rms_over_std"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["long", "short"])
def test_the_report_is_what_ssa_gives(realdata: Path, report: dict[str, Any], kind: str) -> None:
    values, axis = read_basins(realdata)
    blanks = scored_blanks(axis, np.isnan(values[:, 0]))[kind]
    squares = [
        blanked_rms(values, SSA(**pair), [rows]) ** 2
        for rows, pair in zip(blanks, report[kind]["ssa_of_trials"], strict=True)
    ]
    found = np.median(np.sqrt(np.mean(squares, axis=0)) / np.nanstd(values, axis=0))
    assert found == pytest.approx(report[kind]["table"]["ssa"]["median_rms_over_std"], abs=1e-4)
