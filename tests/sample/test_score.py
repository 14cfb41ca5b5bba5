import json
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import rasterio

from services.products.sample_earth.observations import read_observations

CENOTE = Path(sysconfig.get_path("scripts")) / "cenote"


@pytest.mark.slow
def test_scores_of_a_published_version_equal_those_of_its_cogs_at_the_sites(written: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command: list[str | Path] = [CENOTE, "--store", tmp_path / "store", *arguments, "--inputs", written]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=tmp_path, timeout=250)
        return str(done.stdout)

    run("render", "sample_earth", "--workers", "0")
    assert "nothing to do: sample_earth already has all" in run("render", "sample_earth")
    assert "nothing to do" in run("plan", "sample_earth")
    scores = json.loads(run("validate", "sample_earth", "--json"))
    assert scores["synthetic"] is True
    observations = read_observations(written)
    maps = {}
    for path in (tmp_path / "store" / "sample_earth").glob("segments/*/cog/*/*.tif"):
        with rasterio.open(path) as dataset:
            values = dataset.read(1, masked=True).astype(np.float64) * dataset.scales[0] + dataset.offsets[0]
            maps[path.parent.name, path.stem] = values.filled(np.nan)
    assert len(maps) == 8
    value, sigma = (
        np.array([maps[name, str(np.datetime64(one.month, "M"))][one.row, one.column] for one in observations])
        for name in ("xco2", "xco2_uncertainty")
    )
    for key, known in (("reports", "reported"), ("truth", "truth")):
        error = value - np.array([getattr(one, known) for one in observations])
        assert scores[key]["cells"] == len(observations)
        assert scores[key]["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-6)
        assert scores[key]["bias"] == pytest.approx(np.mean(error), abs=1e-6)
    error = value - np.array([one.reported for one in observations])
    assert scores["reports"]["within_sigma"] == pytest.approx(np.mean(np.abs(error) <= sigma), abs=1e-3)
