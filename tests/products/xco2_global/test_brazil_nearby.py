"""What the study of the real cells adds from nearby is of what is seen alone; made-up cells."""

from dataclasses import replace

import numpy as np
import pytest

from services.products.xco2_global.nearby import LENGTHS_KM, places
from services.products.xco2_global.table import STOPPING
from services.validation.baselines import Background, Rows
from tests.products.xco2_global.brazil_data import Surroundings
from tests.products.xco2_global.brazil_nearby import (
    Said,
    base_of,
    covariance_of,
    held,
    looked_at,
    mean_of,
    stated_error,
    with_nearby,
)
from tests.products.xco2_global.brazil_network import sequences_of, table_of
from tests.products.xco2_global.brazil_study import Case

MONTHS = np.arange(540, 546)
NOISE = 0.4
"""ppm, of a day's cell."""

STEP, WIDE, HIGH = 0.25, 160, 120


@pytest.fixture(scope="module")
def made() -> tuple[Case, np.ndarray]:
    """A field of 1 ppm that goes together over 800 km, a new one each month, seen with noise on a tenth of the cells.

    Asked for: a square of 5 degrees in the middle, whose truth comes second.
    """
    rng = np.random.default_rng(3)
    longitude = -74.5 + STEP * np.arange(WIDE, dtype=np.float64)
    latitude = -30 + STEP * np.arange(HIGH, dtype=np.float64)
    parts = []
    for month in MONTHS:
        cells = np.flatnonzero(rng.random(HIGH * WIDE) < 0.1)
        y, x = latitude[cells // WIDE], longitude[cells % WIDE]
        coarse_y, coarse_x = (one.ravel() for one in np.meshgrid(np.arange(-30, 1, 3.0), np.arange(-74.5, -33.5, 3.0)))
        chord = np.linalg.norm(places(coarse_y, coarse_x)[:, None] - places(coarse_y, coarse_x), axis=2)
        draw = np.linalg.cholesky(np.exp(-(chord * 6371) / 800) + 1e-9 * np.eye(len(chord))) @ rng.normal(
            size=len(chord)
        )
        weight = np.exp(-0.5 * ((y[:, None] - coarse_y) ** 2 + (x[:, None] - coarse_x) ** 2) / 2**2)
        parts.append(np.stack([x, y, np.full(len(x), month), weight @ draw / weight.sum(axis=1)]))
    x, y, month, truth = np.concatenate(parts, axis=1)
    values = truth + rng.normal(scale=NOISE, size=len(truth))
    asked = (abs(x + 55) < 2.5) & (abs(y + 15) < 2.5)
    rows = Rows(longitude=x, latitude=y, month=month.astype(np.int64))
    series = np.arange(500, 560)
    case = Case(
        seen=rows.take(~asked),
        values=400 + values[~asked],
        # each month's cells are of two days, west and east
        time=(month[~asked] * 30 + 10 * (x[~asked] > -55)) * 86400.0,
        days=np.ones(int((~asked).sum()), dtype=np.int64),
        asked=rows.take(asked),
        background=Background(months=series, values=np.full(len(series), 400.0)),
        around=Surroundings(
            longitude=longitude,
            latitude=latitude,
            land=np.ones((HIGH, WIDE)),
            land_around=np.ones((HIGH, WIDE)),
            turbidity=np.ones((12, HIGH, WIDE)),
        ),
    )
    return case, 400 + truth[asked]


def nothing(case: Case, spread: float) -> Said:
    """What says 400 everywhere."""
    rows = looked_at(case)
    return Said(
        looked_at=rows,
        there=np.full(len(rows), 400.0),
        there_spread=np.full(len(rows), spread),
        asked=np.full(len(case.asked), 400.0),
        asked_spread=np.full(len(case.asked), spread),
    )


def test_the_error_of_a_day_is_what_cells_that_touch_differ_by(made: tuple[Case, np.ndarray]) -> None:
    case, _ = made
    found = stated_error(case)
    assert found == pytest.approx(NOISE, rel=0.06)
    four = stated_error(replace(case, days=np.where(np.arange(len(case.days)) % 2, 4, 1)))
    np.testing.assert_allclose(four[1::2] * 2, four[::2][: len(four[1::2])])


def test_what_is_near_tells_most_of_a_smooth_field_whatever_the_unit(made: tuple[Case, np.ndarray]) -> None:
    case, truth = made
    answers = [with_nearby(case, nothing(case, spread)) for spread in (0.5, 1.0, 2.0)]
    left = np.sqrt(np.mean((answers[1] - truth) ** 2))
    assert left < 0.55 * np.sqrt(np.mean((400 - truth) ** 2))
    # the spread is a unit: what is told does not hang on it
    for one in answers:
        np.testing.assert_allclose(one, answers[1], atol=0.03)


def test_months_that_are_asked_for_tell_nothing_of_another(made: tuple[Case, np.ndarray]) -> None:
    case, _ = made
    before = with_nearby(case, nothing(case, 1.0))
    last = case.seen.month == MONTHS[-1]
    fewer = replace(
        case, seen=case.seen.take(~last), values=case.values[~last], time=case.time[~last], days=case.days[~last]
    )
    after = with_nearby(fewer, nothing(fewer, 1.0))
    mine = case.asked.month == MONTHS[-1]
    assert (after[mine] == 400).all()
    assert (before[mine] != 400).all()


def test_the_covariance_is_of_the_blocks_that_were_not_learned_from(made: tuple[Case, np.ndarray]) -> None:
    case, _ = made
    said, error = nothing(case, 1.0), stated_error(case)
    found = covariance_of(case, said, 1.0, error)
    assert found.variance + found.rest == pytest.approx(
        float(np.mean((case.values[held(case)] - 400) ** 2)) - NOISE**2, rel=0.3
    )
    long = sum(one for one, km in zip(found.signal, LENGTHS_KM, strict=True) if km >= 400)
    assert long > 0.5 * found.variance
    # twice as much left over where nobody learned is twice as much to expect anywhere
    stops = held(case)[said.looked_at]
    worse = replace(said, there=np.where(stops, 400 - (case.values[said.looked_at] - 400), 400.0))
    assert covariance_of(case, worse, 1.0, error).variance > 2 * found.variance


def test_rows_of_the_network_keep_apart_what_stops_it_and_nothing_of_them_was_asked_for(
    made: tuple[Case, np.ndarray],
) -> None:
    case, _ = made
    table = table_of(case)
    weight = table.rows["weight"].astype(np.float64)
    stops = table.rows["group"] == STOPPING
    assert weight[stops].sum() == held(case).sum()
    assert weight.sum() == len(case.seen)
    departure = case.values - base_of(case)[0]
    for mine, cells in ((stops, held(case)), (~stops, ~held(case))):
        assert (weight * table.rows["target"])[mine].sum() == pytest.approx(departure[cells].sum(), abs=0.05)
    # the months of a sequence end with the row's
    found = sequences_of(table, case, case.asked)
    names = [one.name for one in table.covariates]
    assert "mauna_loa_growth" not in names
    np.testing.assert_allclose(found[:, -1, names.index("longitude")], case.asked.longitude, atol=1e-4)
    np.testing.assert_allclose(
        found[:, 0, names.index("sin_month")], np.sin(2 * np.pi * ((case.asked.month - 11) % 12) / 12), atol=1e-6
    )


def test_the_mean_of_several_is_their_mixture() -> None:
    one, other = (
        Said(
            looked_at=np.array([3]),
            there=np.array([value]),
            there_spread=np.array([spread]),
            asked=np.array([value]),
            asked_spread=np.array([spread]),
        )
        for value, spread in ((400.0, 1.0), (404.0, 3.0))
    )
    draws = np.random.default_rng(0).normal([400.0, 404.0], [1.0, 3.0], (200_000, 2)).ravel()
    found = mean_of([one, other])
    assert found.asked[0] == pytest.approx(draws.mean(), abs=0.02)
    assert found.asked_spread[0] == pytest.approx(draws.std(), abs=0.02)
    assert found.there_spread[0] == found.asked_spread[0]
