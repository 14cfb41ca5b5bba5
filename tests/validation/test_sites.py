"""Wells with planted faults, trends and seasons: who is left out and why, and the scores against closed forms."""

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from services.core.errors import InputRefused
from services.validation.selection import (
    LOOSE,
    NO_COORDINATES,
    OUT_OF_RANGE,
    OUTSIDE,
    REASONS,
    STEP,
    STRICT,
    TOO_FEW,
    TOO_SHORT,
    TOO_SPARSE,
    Rules,
    Wells,
    step,
)
from services.validation.sites import score

MONTHS = np.arange(387, 612)
YEARS = 1970 + ((MONTHS + 0.5) / 12)[:, None]
SEASON = 6 * np.sin(2 * np.pi * YEARS)

type Series = NDArray[np.float64]


def wells(storage: Series) -> Wells:
    sites = storage.shape[1]
    return Wells(
        names=tuple(f"well{site}" for site in range(sites)),
        longitudes=np.linspace(70, 80, sites),
        latitudes=np.linspace(20, 30, sites),
        months=MONTHS,
        storage=storage,
    )


def lines(slopes: list[float], *, seed: int | None = None) -> Series:
    """Lines of these slopes, an annual cycle, and noise from a seed."""
    made: Series = np.asarray(slopes) * (YEARS - 2010) + SEASON
    if seed is not None:
        made = made + np.random.default_rng(seed).normal(0, 1, made.shape)
    return made


def test_trends_that_were_planted() -> None:
    of_wells, of_field, of_reference = [-2.0, 1.0, 4.0, 0.5], [-1.0, 1.5, 3.0, -0.5], [0.0, 0.0, 1.0, 1.0]
    found = score(
        wells(lines(of_wells) + 900),
        lines(of_field),
        np.arange(4),
        reference=lines(of_reference),
    )
    assert found.reasons == ("",) * 4
    assert found.excluded == dict.fromkeys(REASONS, 0)
    assert found.with_annual == 4
    np.testing.assert_allclose(found.cells.well, of_wells, atol=1e-9)
    np.testing.assert_allclose(found.cells.field, of_field, atol=1e-9)
    for match, trends in ((found.field, of_field), (found.reference, of_reference)):
        assert match is not None
        difference = np.subtract(trends, of_wells)
        assert match.trend_rmse == pytest.approx(np.sqrt((difference**2).mean()), rel=1e-9)
        assert match.trend_r2 == pytest.approx(1 - (difference**2).mean() / np.var(of_wells), rel=1e-9)
        assert match.trend_correlation == pytest.approx(np.corrcoef(trends, of_wells)[0, 1], rel=1e-9)
        assert match.trend_bias == pytest.approx(difference.mean(), rel=1e-9)
        assert match.trend_median == pytest.approx(np.median(trends), rel=1e-9)
    assert found.field.same_sign == 0.75
    assert found.reference is not None
    assert found.gain is not None
    assert found.gain.trend_rmse == pytest.approx(1 - found.field.trend_rmse / found.reference.trend_rmse)
    assert found.gain.trend_r2 == pytest.approx(found.field.trend_r2 - found.reference.trend_r2)
    # nearer at the first three, beaten at the fourth
    assert found.gain.nearer == 0.75


def test_anomalies_against_scipy() -> None:
    rng = np.random.default_rng(8)
    shared = rng.normal(0, 3, (len(MONTHS), 5))
    storage = lines([0.0] * 5) + shared
    field = lines([0.0] * 5) + shared + rng.normal(0, 3, shared.shape)
    storage[rng.random(storage.shape) < 0.1] = np.nan
    found = score(wells(storage), field, np.arange(5))
    raw, left = [], []
    for site in range(5):
        known = ~np.isnan(storage[:, site])
        pair = [one[known, site] for one in (storage, field)]
        raw.append(stats.pearsonr(*pair).statistic)
        years = YEARS[known, 0]
        columns = np.stack([years**0, years, np.cos(2 * np.pi * years), np.sin(2 * np.pi * years)], axis=1)
        terms = [np.linalg.lstsq(columns, one, rcond=None)[0] for one in pair]
        parts = [one - columns[:, 2:] @ term[2:] for one, term in zip(pair, terms, strict=True)]
        left.append(stats.pearsonr(*parts).statistic)
    assert found.field.anomaly_correlation == pytest.approx(np.median(raw), rel=1e-9)
    assert found.field.deseasonalised_correlation == pytest.approx(np.median(left), rel=1e-7)
    assert found.field.deseasonalised_correlation < found.field.anomaly_correlation


def test_each_well_has_one_reason() -> None:
    storage = lines([-1.0] * 12, seed=3)
    field = lines([-1.0] * 12, seed=4)
    made = replace(wells(storage), longitudes=np.where(np.arange(12) == 0, np.nan, wells(storage).longitudes))
    storage[:, 0] = np.nan  # no coordinates, and no readings either
    field[:, 1] = np.nan
    storage[40, 2] = -99990.0
    storage[5:, 3] = np.nan
    storage[:, 4] = np.nan
    storage[118:, 5] = np.nan  # 117 months after the first
    storage[np.arange(len(MONTHS)) % 10 < 3, 6] = np.nan
    storage[120:, 7] += 80
    cells = np.arange(12)
    cells[8] = -1
    found = score(made, field, cells)
    expected = [
        NO_COORDINATES,
        OUTSIDE,
        OUT_OF_RANGE,
        TOO_FEW,
        TOO_FEW,
        TOO_SHORT,
        TOO_SPARSE,
        STEP,
        OUTSIDE,
        "",
        "",
        "",
    ]
    assert list(found.reasons) == expected
    assert sum(found.excluded.values()) + found.reasons.count("") == 12
    assert found.excluded[TOO_FEW] == 2


def test_rules_are_of_months_that_the_field_has() -> None:
    storage, field = lines([-1.0, 0.0, 1.0, 2.0], seed=5), lines([-1.0, 0.0, 1.0, 2.0], seed=6)
    # the field's months: 100 of them; the well has been read in 85
    field[100:] = np.nan
    assert score(wells(storage), field, np.arange(4), rules=replace(STRICT, least_years=8)).reasons == ("",) * 4
    with pytest.raises(InputRefused, match=r"0 of 4 wells, in 0 cells, can judge the field: 4 too short a span"):
        score(wells(storage), field, np.arange(4))
    # months without a solution do not count against a well that was not read in them
    field[10:60] = np.nan
    storage[10:60] = np.nan
    assert score(wells(storage), field, np.arange(4), rules=replace(STRICT, least_years=8)).reasons == ("",) * 4


def test_years_are_between_the_first_and_the_last_reading() -> None:
    storage = np.full((len(MONTHS), 4), np.nan)
    storage[:61:12] = lines([1.0, 2.0, 3.0, 4.0])[:61:12]
    field = lines([1.0, 2.0, 3.0, 4.0])
    assert score(wells(storage), field, np.arange(4), rules=LOOSE).reasons == ("",) * 4
    storage[60] = np.nan
    storage[59] = 5.0
    with pytest.raises(InputRefused, match="4 too short a span"):
        score(wells(storage), field, np.arange(4), rules=LOOSE)
    storage[24] = np.nan
    with pytest.raises(InputRefused, match="4 too few readings"):
        score(wells(storage), field, np.arange(4), rules=LOOSE)


def test_trends_are_on_common_months() -> None:
    # the field falls in the first half and rises after; the wells were read in the first half only, once a year
    kink = -3 * np.minimum(YEARS - 2010, 0) * np.ones(4)
    field = np.array([1.0, 2.0, 3.0, 4.0]) * kink
    storage = np.where((YEARS < 2010) & (MONTHS % 12 == 0)[:, None], field, np.nan)
    found = score(wells(storage), field, np.arange(4), rules=LOOSE)
    np.testing.assert_allclose(found.cells.field, [-3, -6, -9, -12], rtol=1e-9)
    assert found.field.trend_rmse == pytest.approx(0, abs=1e-9)
    # Januaries alone tell no annual cycle
    assert found.with_annual == 0
    assert found.to_json()["field"]["deseasonalised_correlation"] is None
    assert found.field.anomaly_correlation == pytest.approx(1.0)


def test_wells_of_one_cell_are_their_median() -> None:
    slopes = [-1.0, -2.0, -30.0, 1.0, 2.0, 0.5]
    field = lines([0.0, 0.0, 0.0, 1.0, 1.0, 2.0])
    found = score(wells(lines(slopes)), field, np.array([7, 7, 7, 3, 3, 12]))
    assert found.cells.cell.tolist() == [3, 7, 12]
    assert found.cells.wells.tolist() == [2, 3, 1]
    np.testing.assert_allclose(found.cells.well, [1.5, -2.0, 0.5], atol=1e-9)
    np.testing.assert_allclose(found.cells.field, [1.0, 0.0, 2.0], atol=1e-9)
    assert found.cells.longitudes[1] == pytest.approx(72.0)


def test_theil_sen_shrugs_at_a_typing_error() -> None:
    storage = lines([-1.0, 0.0, 1.0, 2.0], seed=9)
    storage[-4] += 1000
    field = lines([-1.0, 0.0, 1.0, 2.0])
    ranks = score(wells(storage), field, np.arange(4), method="theil_sen")
    squares = score(wells(storage), field, np.arange(4))
    assert ranks.field.trend_rmse < 0.1
    assert squares.field.trend_rmse > 1
    assert ranks.to_json()["method"] == "theil_sen"


def test_units_that_cannot_be() -> None:
    storage, field = lines([-1.0, 0.0, 1.0], seed=1), lines([-1.0, 0.0, 1.0], seed=2)
    with pytest.raises(InputRefused, match=r"wells vary 0\.0\d+ times as much as the field: .* cm of water"):
        score(wells(storage / 100), field, np.arange(3))
    with pytest.raises(InputRefused, match=r"wells vary [\d.]+ times as much"):
        score(wells(storage), field / 100, np.arange(3))


def test_what_does_not_fit_is_refused() -> None:
    made, field = wells(lines([1.0, 2.0, 3.0])), lines([1.0, 2.0, 3.0])
    with pytest.raises(InputRefused, match=r"a field \(225, 2\) is not \(time, site\) of wells \(225, 3\)"):
        score(made, field[:, :2], np.arange(3))
    with pytest.raises(InputRefused, match=r"\(2,\) cells for 3 wells"):
        score(made, field, np.arange(2))
    with pytest.raises(InputRefused, match="3 of 3 wells, in 2 cells"):
        score(made, field, np.array([4, 4, 5]))
    with pytest.raises(InputRefused, match="well0 occurs twice"):
        replace(made, names=("well0", "well1", "well0"))
    with pytest.raises(InputRefused, match="does not fit together"):
        replace(made, latitudes=np.zeros(4))
    with pytest.raises(InputRefused, match="must rise"):
        replace(made, months=MONTHS[::-1])
    with pytest.raises(InputRefused, match="infinite"):
        replace(made, storage=np.full((225, 3), np.inf))
    with pytest.raises(InputRefused, match="at least 3 readings"):
        Rules(least_readings=2)
    with pytest.raises(InputRefused, match="more than 0 cm"):
        Rules(step_cm=0)


def test_scores_are_json() -> None:
    found = score(wells(lines([1.0, 2.0, 3.0], seed=1)), lines([1.0, 2.0, 3.0], seed=2), np.arange(3))
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["used"] == data["cells"] == 3
    assert data["rules"]["least_years"] == 10.0
    assert data["reference"] is None
    assert data["field"]["trend_rmse"] == found.field.trend_rmse


def test_a_step_has_its_size() -> None:
    values = (lines([-2.0]) + np.where(MONTHS >= 500, 70.0, 0.0)[:, None])[:, 0]
    assert step(values, MONTHS) == pytest.approx((70.0, 1.0), rel=1e-9)
    assert step(-values, MONTHS) == pytest.approx((-70.0, 1.0), rel=1e-9)


def test_what_is_no_step() -> None:
    assert step(lines([-8.0])[:, 0], MONTHS) == (0.0, 0.0)
    assert step(np.arange(11) * 1.0, MONTHS[:11]) == (0.0, 0.0)
    # a fall that speeds up, and a long spell of drawdown
    assert step(-((YEARS[:, 0] - 2002) ** 2), MONTHS)[1] < 0.6
    spell = np.where((MONTHS > 450) & (MONTHS < 520), -40.0, 0.0)
    assert step(spell, MONTHS)[1] < 0.75
    shares = [step(noise, MONTHS[:20])[1] for noise in np.random.default_rng(2).normal(0, 1, (500, 20))]
    assert np.mean(np.array(shares) >= Rules().step_share) < 0.01


def test_a_step_against_least_squares_at_every_place() -> None:
    rng = np.random.default_rng(6)
    values = np.cumsum(rng.normal(0, 1, 40)) + np.where(np.arange(40) > 22, 9, 0)
    months = MONTHS[:40]
    years = YEARS[:40, 0]
    columns = np.stack([years**0, years - 2003, np.cos(2 * np.pi * years), np.sin(2 * np.pi * years)], axis=1)
    plain = np.linalg.lstsq(columns, values, rcond=None)[1][0]
    tried = []
    for place in range(3, 38):
        with_step = np.column_stack([columns, np.arange(40) >= place])
        terms, squares, *_ = np.linalg.lstsq(with_step, values, rcond=None)
        tried.append((1 - squares[0] / plain, terms[-1]))
    share, size = max(tried)
    assert step(values, months) == pytest.approx((size, share), rel=1e-8)
