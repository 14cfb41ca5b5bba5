"""What issue 5 promises of the real case of Bangladesh holds, and the report is what the study finds."""

import json
from pathlib import Path

import numpy as np
import pytest

from services.products.gwsa.transfer import Moments
from tests.products.gwsa.bangladesh_study import CUTS, REPORT, harmonics, held_out, near, scale_case, times_of
from tests.products.gwsa.variants import SMALL, VARIANTS, Cells, Mask, Said, told, worth

pytestmark = pytest.mark.slow


def test_months_and_places_that_were_not_seen(realdata: Path) -> None:
    found = held_out(realdata, {"small": SMALL})
    written = json.loads(REPORT.read_text())["held_out"]
    assert "TWSA" in found["target"]
    assert "GWSA" not in found["target"]
    assert found["months_filled_by_the_author"] == written["months_filled_by_the_author"]
    assert len(found["months_filled_by_the_author"]) == 20
    # the author drew lines by day: nothing to score there, and no measured month is like this
    assert found["filled"]["rms_from_line_of_filled_cm"] < 1e-4
    assert found["filled"]["rms_from_line_of_measured_cm"] > 3
    for design in ("time", "space"):
        for name, one in found[design].items():
            assert one == pytest.approx(written[design][name], abs=2e-3), name
            skill = 1 - (one["rmse_cm"] / found[design]["baseline"]["rmse_cm"]) ** 2
            assert one["skill"] == pytest.approx(skill, abs=1e-3)
    # science/flux_gwsa.md, "Baselines measured"
    assert found["time"]["baseline"]["r2"] == pytest.approx(0.92, abs=0.01)


@pytest.mark.parametrize("cut", CUTS)
def test_the_step_in_scale_costs_nothing(realdata: Path, cut: str) -> None:
    case = scale_case(realdata, CUTS[cut])
    written = json.loads(REPORT.read_text())["step_in_scale"][cut]["variants"]
    for name in ("raw, small", "departures, small"):
        found = told(worth(case, VARIANTS[name](case)))
        for key in ("weight", "rmse_weight_0", "rmse_weight_of_other_folds", "rmse_weight_1"):
            assert found[key] == pytest.approx(written[name][key], abs=5e-3), (name, key)
        assert found["rmse_weight_of_other_folds"] <= 1.01 * found["rmse_weight_0"]
        if found["weight"] > 0:
            assert found["rmse_weight"] < found["rmse_weight_0"]
    # learned from departures it is worth something with weights that have not seen the fold, and harmless even whole
    assert found["weight"] > 0.3
    assert found["rmse_weight_of_other_folds"] < found["rmse_weight_0"]
    assert found["rmse_weight_1"] <= 1.01 * found["rmse_weight_0"]


def test_the_baseline_of_the_step_is_what_was_measured_before(realdata: Path) -> None:
    case = scale_case(realdata, CUTS["west"])
    assert int((case.block_areas > 0).sum()) == 27
    error = (case.values - case.plain)[:, case.known]
    weights = np.broadcast_to(case.area, case.values.shape)[:, case.known]
    values = case.values[:, case.known]
    rmse = np.sqrt(np.average(error**2, weights=weights))
    spread = np.average((values - np.average(values, weights=weights)) ** 2, weights=weights)
    # science/flux_gwsa.md, "Baselines measured"
    assert rmse == pytest.approx(1.89, abs=0.015)
    assert 1 - rmse**2 / spread == pytest.approx(0.982, abs=0.0005)
    np.testing.assert_allclose(case.block_means(case.plain), case.means, atol=1e-10)


def test_a_perfect_learner_is_worth_everything_and_noise_nothing(realdata: Path) -> None:
    case = scale_case(realdata, CUTS["west"])
    exact = worth(case, lambda _: lambda month: np.nan_to_num(case.values[month]))
    total = sum(exact.values(), Moments())
    assert total.best == pytest.approx(1, abs=0.02)
    assert total.rmse(1) < 0.2 * total.rmse(0)
    random = np.random.default_rng(0)
    noise = sum(worth(case, lambda _: lambda _: random.normal(size=case.area.shape)).values(), Moments())
    assert noise.best < 0.02
    assert noise.blocks == exact_blocks(case.means)


def exact_blocks(means: Cells) -> int:
    """Blocks with a value: each is scored once."""
    return int(np.isfinite(means[0]).sum())


def test_a_learner_never_sees_what_is_held_out(realdata: Path) -> None:
    case = scale_case(realdata, CUTS["west"])
    folds = np.arange(len(case.values)) % 5
    seen: list[Mask] = []
    scored: list[tuple[int, int]] = []

    def learn(blocks: Mask) -> Said:
        number = len(seen)
        seen.append(blocks)

        def said(month: int) -> Cells:
            scored.append((number, month))
            return np.zeros(case.area.shape)

        return said

    found = worth(case, learn, times=folds)
    assert sum(one.blocks for one in found.values()) == 5 * exact_blocks(case.means)
    assert {month for _, month in scored} == set(range(len(folds)))
    for number, month in scored:
        assert not seen[number][month].any()
        assert not seen[number][folds == folds[month]].any()
    # the blocks of a fold are missing from every month that is learned from
    for blocks in seen:
        learned = blocks[blocks.any(axis=(1, 2))]
        assert (learned == learned[0]).all()
        assert 0 < learned[0].sum() < exact_blocks(case.means)


def test_baselines_against_plain_loops() -> None:
    random = np.random.default_rng(1)
    places, values = random.uniform(0, 4, (40, 2)), random.normal(size=(30, 40))
    groups, seen = np.arange(40) // 5, random.uniform(size=40) > 0.3
    found = near(values, places, groups, seen)
    for cell in range(40):
        others = [one for one in range(40) if seen[one] and groups[one] != groups[cell]]
        distance = {one: float(np.hypot(*(places[one] - places[cell]))) for one in others}
        nearest = sorted(others, key=distance.__getitem__)[:8]
        share = np.array([distance[one] ** -2 for one in nearest])
        np.testing.assert_allclose(found[:, cell], values[:, nearest] @ share / share.sum())
    months = np.arange(400, 460)
    times = times_of(months)
    angle = 2 * np.pi * times[:, :1]
    truth = 3 + 0.7 * times[:, :1] + np.cos(angle) + 0.5 * np.sin(2 * angle) - 0.2 * np.cos(3 * angle)
    np.testing.assert_allclose(harmonics(truth, times, months < 450), truth, atol=1e-8)
