"""The report of the Ogallala study is what the study finds, and that is what was measured before."""

import json
from pathlib import Path

import pytest

from services.validation.selection import REASONS
from tests.products.gwsa.wells_study import REPORT, study


def test_the_report_is_what_the_study_finds(realdata: Path) -> None:
    found = json.loads(json.dumps(study(realdata)))
    written = json.loads(REPORT.read_text())
    for name in ("command", "data", "field", "counts", "settings", "strict"):
        assert written[name] == found[name]
    before = found["as_baselines_measured"]
    assert before == pytest.approx(written["as_baselines_measured"], abs=2e-4)
    # science/flux_gwsa.md, "Baselines measured"
    assert before["wells"] == 316
    assert before["well_median_cm_per_year"] == pytest.approx(-0.71, abs=0.005)
    assert before["tws_mean_cm_per_year"] == pytest.approx(0.63, abs=0.005)
    assert before["trend_correlation"] == pytest.approx(0.36, abs=0.005)
    assert found["counts"]["with_coordinates"] == 497
    for name in ("loose", "loose_theil_sen", "loose_single_wells"):
        assert found[name]["excluded"] == written[name]["excluded"]
        assert list(found[name]["excluded"]) == list(REASONS)
        assert sum(found[name]["excluded"].values()) + found[name]["used"] == found["counts"]["wells"] == 2906
        assert found[name]["field"] == pytest.approx(written[name]["field"], abs=2e-4)
        assert found[name]["well_median"] == pytest.approx(written[name]["well_median"], abs=2e-4)
