"""What a global month of XCO2 at 1/20 degree costs: 7200 x 3600 cells, 25 covariates from files, two workers.

    python -m tests.products.xco2_global.month_study DIR inputs --models EXPORTED   # any trained network of the sample
    ... measure     # where the CPU of some rows of the month goes
    ... render      # tens of minutes of two cores; started again, it goes on where it stopped
    ... report      # writes infra/reports/xco2_month.json

DIR lies outside the checkout and takes about 1 GB. The sample Earth's covariates (synthetic) have cells of half a
degree and are interpolated; its soundings are those of one month, all days. What is measured is cost, not skill.
"""

import argparse
import cProfile
import json
import os
import pstats
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime

from services.core.grid import Window
from services.pipeline.recipe import Here
from services.products.xco2_global import open_recipe
from services.products.xco2_global.inputs import SETTINGS
from services.products.xco2_global.render import Xco2
from services.sample.carbon_files import write_carbon
from tests.products import study
from tests.products.study import ROOT, Place, cenote, cpu_name, months_done, tell

REPORT = ROOT / "infra" / "reports" / "xco2_month.json"

MONTH = "2020-06"
STEP = "1/20"
WORKERS = 2
ROWS = 60
"""Rows of the grid whose CPU is looked at, from 45 N southward: 432 000 cells."""

PARTS = {
    "covariates_read": "sequences",
    "nearby": "at",
    "soundings_of_cells": "window",
}
"""Part of the time -> the function of a strip whose calls are summed."""

FILES = {
    "covariates_read": "covariates.py",
    "nearby": "left_over.py",
    "soundings_of_cells": "observed.py",
}


def write(place: Place, models: Path) -> None:
    """The inputs of one month, and a copy of the model."""
    write_carbon(place.inputs, "study", months=(MONTH, MONTH))
    settings = place.inputs / SETTINGS
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text.replace('step = "1/2"', f'step = "{STEP}"'), encoding="utf-8")
    assert f'step = "{STEP}"' in settings.read_text(encoding="utf-8")
    shutil.copytree(models, place.models, dirs_exist_ok=True)
    place.note("inputs", {"bytes": sum(path.stat().st_size for path in place.inputs.glob("*") if path.is_file())})


def measure(place: Place) -> None:
    """CPU of a strip of the month in one process that has its files open, and what `cenote plan` says."""
    start = time.process_time()
    recipe = open_recipe(place.inputs, place.models)
    recipe.prepare(Here(), tell)
    # what is there already is not made again
    prepared = place.noted("measure").get("prepare_cpu_s") or time.process_time() - start
    tell(f"prepared: {prepared:.0f} s of CPU")
    grid = recipe.product.grid
    window = Window(row=900, column=0, height=ROWS, width=grid.width)
    recipe.compute(recipe.periods().take([0]), replace(window, height=1))
    profile = cProfile.Profile(time.process_time)
    with _session_seconds() as inside:
        start = time.process_time()
        profile.runcall(recipe.compute, recipe.periods().take([0]), window)
        total = time.process_time() - start
    place.note(
        "measure",
        {
            "prepare_cpu_s": round(prepared, 1),
            "cells": ROWS * grid.width,
            "cpu_s": round(total, 2),
            "parts_cpu_s": {"session": round(sum(inside), 2), **_seconds(profile)},
            "soundings_cells": _cells(recipe),
            "plan": _plan(place),
        },
    )


@contextmanager
def _session_seconds() -> Iterator[list[float]]:
    """CPU of each call of a session, which threads of the predictor make and a profile of the main thread misses."""
    spent: list[float] = []
    run = onnxruntime.InferenceSession.run

    def timed(*arguments: Any, **named: Any) -> Any:
        start = time.thread_time()
        try:
            return run(*arguments, **named)
        finally:
            spent.append(time.thread_time() - start)

    onnxruntime.InferenceSession.run = timed
    try:
        yield spent
    finally:
        onnxruntime.InferenceSession.run = run


def _seconds(profile: cProfile.Profile) -> dict[str, float]:
    stats: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # it has no other way to be read
    found = {
        part: sum(row[3] for key, row in stats.items() if key[0].endswith(f"/{FILES[part]}") and key[2] == function)
        for part, function in PARTS.items()
    }
    assert all(found.values()), f"a function of {found} has another name now"
    return {part: round(seconds, 2) for part, seconds in found.items()}


def _cells(recipe: Xco2) -> int:
    whole = Window(row=0, column=0, height=recipe.product.grid.height, width=recipe.product.grid.width)
    return len(recipe._observed.window(recipe.periods().starts[0], whole))


def _plan(place: Place) -> list[str]:
    words = ["--store", str(place.store), "plan", "xco2_global", "--inputs", str(place.inputs)]
    told = subprocess.run(
        cenote(*words, "--models", str(place.models)), check=True, capture_output=True, text=True, cwd=ROOT
    )
    return told.stdout.splitlines()


def render(place: Place) -> None:
    """Render the month by the command, and note what its processes take."""
    words = ["--store", str(place.store), "render", "xco2_global", "--inputs", str(place.inputs)]
    words += ["--models", str(place.models), "--workers", str(WORKERS)]
    raise SystemExit(study.render(place, words, lambda: months_done(place, "xco2_global"), sessions=True))


def report(place: Place) -> dict[str, Any]:
    """All that was found, and what 84 months would take."""
    measured, rendered = place.noted("measure"), place.noted("render")
    runs = rendered["runs"]
    workers = [worker for run in runs for worker in run["workers"]]
    cpu = sum(worker["cpu_s"] for worker in workers)
    card = json.loads((place.models / "card.json").read_text(encoding="utf-8"))
    return {
        "command": "python -m tests.products.xco2_global.month_study DIR inputs|measure|render|report",
        "synthetic": "covariates, soundings and model are the sample Earth's",
        "machine": {"cores": os.cpu_count(), "cpu": cpu_name()},
        "month": MONTH,
        "grid": [7200, 3600],
        "model": card["description"],
        "inputs": place.noted("inputs"),
        "measure": {
            **measured,
            "share_in_the_session": round(measured["parts_cpu_s"]["session"] / measured["cpu_s"], 3),
        },
        "render": {
            "finished": runs[-1]["exit"] == 0,
            "worker_core_minutes": round(cpu / 60, 1),
            "share_in_the_session": round(sum(run["session_cpu_s"] for run in runs) / cpu, 3),
            "wall_minutes": round(sum(run["wall_s"] for run in runs) / 60, 1),
            "peak_rss_of_a_worker_bytes": max(worker["peak_rss_bytes"] for worker in workers),
            "core_hours_of_84_months": round(84 * cpu / 3600, 1),
            "store_bytes": rendered["store_bytes"],
            "runs": runs,
        },
    }


def main() -> None:
    """One step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("step", choices=("inputs", "measure", "render", "report"))
    parser.add_argument("--models", type=Path, help="of `cenote export xco2_global`, for `inputs`")
    asked = parser.parse_args()
    place = Place(directory=asked.directory.resolve())
    place.directory.mkdir(parents=True, exist_ok=True)
    match asked.step:
        case "inputs":
            if asked.models is None:
                parser.error("inputs needs --models")
            write(place, asked.models)
        case "measure":
            measure(place)
        case "render":
            render(place)
        case _:
            REPORT.write_text(json.dumps(report(place), indent=1) + "\n", encoding="utf-8")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
