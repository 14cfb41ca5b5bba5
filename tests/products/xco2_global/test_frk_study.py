"""The report of the study is what the study finds, and that is what criterion 3 of issue 6 has."""

import json
from pathlib import Path

import pytest

from tests.products.xco2_global.frk_study import REPORT, study


def test_the_report_is_what_the_study_finds(realdata: Path) -> None:
    found = json.loads(json.dumps(study(realdata)))
    written = json.loads(REPORT.read_text())
    for name in ("command", "data", "settings", "days", "blocks"):
        assert written[name] == found[name]
    for name in ("pooled", "coverage_of_95_percent", "bias_taken_out"):
        assert found[name] == pytest.approx(written[name], abs=2e-4)
    assert found["days"] == found["pooled"]["n"] == 1111
    assert found["pooled"]["bias"] == pytest.approx(0.03, abs=0.02)
    assert found["pooled"]["rmse"] == pytest.approx(1.02, abs=0.02)
    assert found["coverage_of_95_percent"]["map_sd"] == pytest.approx(0.70, abs=0.01)
    assert found["coverage_of_95_percent"]["map_sd_and_tccon_error"] == pytest.approx(0.84, abs=0.01)
    assert list(found["stations"]) == ["an", "bi", "iz", "ka", "or", "pa", "tk", "wg"]
    assert sum(its["n"] for its in found["stations"].values()) == 1111
    for name, its in found["stations"].items():
        assert its == pytest.approx(written["stations"][name], abs=2e-4)
    low, high = found["interval_95"]["rmse"]
    assert low < 1.02 < high
    assert found["interval_95"] == {
        name: pytest.approx(ends, abs=2e-4) for name, ends in written["interval_95"].items()
    }
