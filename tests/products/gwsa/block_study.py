"""What a 1/120 degree block costs: 70-80 E, 20-30 N, 225 months, 19 predictors from files, 500 trees of depth 10.

    OMP_NUM_THREADS=1 CENOTE_SHARED_DATA=... python -m tests.products.gwsa.block_study DIR inputs
    ... train       # cenote train gwsa, cenote export gwsa
    ... measure     # engines side by side, and where the time of a month goes
    ... render      # hours; started again, it goes on where it stopped
    ... report      # writes infra/reports/gwsa_block.json, of a finished render or of one under way

DIR lies outside the checkout and takes about 8 GB. Every step resumes, and each leaves a JSON file of its name in DIR.
A segment's id holds the digest of the code: ``render`` must be started each time from the same code, so best from a
checkout that nobody edits (``git worktree add --detach PLACE COMMIT``, PYTHONPATH there). The render in the report had
services/ and models/ of commit 46dbd57. The predictors, storage and models are synthetic, the land mask is the real
one; what is measured is cost, not skill.
"""

import argparse
import cProfile
import json
import os
import pstats
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from services.core.grid import Window
from services.pipeline.recipe import Here
from services.pipeline.subset import window_of
from services.products.gwsa.coarse import Coarse
from services.products.gwsa.declaration import FACTOR, FINE, GWSA
from services.products.gwsa.detail import Detail, Engine
from services.products.gwsa.land import land_of
from services.products.gwsa.reach import Reach
from services.products.gwsa.refine import DETAIL_HALO, interpolated
from services.products.gwsa.regions import REACH, shares
from services.products.gwsa.render import Gwsa, open_recipe
from tests.products import study
from tests.products.gwsa.block_inputs import BLOCK, write_inputs
from tests.products.study import ROOT, Place, cenote, cpu_name, months_done, tell

REPORT = ROOT / "infra" / "reports" / "gwsa_block.json"

BBOX = f"{BLOCK.west},{BLOCK.south},{BLOCK.east},{BLOCK.north}"
WORKERS = 2
MONTHS = 225
ROUNDS = 3
STRIP_CELLS = 2
"""Coarse rows of the block that the engines are compared on, with a halo of 4 on either side, in a month each."""

SET_BY_HAND = 0.5
"""Weight of a region whose detail the folds find worthless: what is measured is what asking costs."""

PARTS = {
    "trees": ("predictor.py", "predict"),
    "predictors_read": ("features.py", "fine_predictors"),
    "blended_and_closed": ("refine.py", "refined"),
    "regions_interpolated": ("refine.py", "interpolated"),
    "land_and_blocks": ("render.py", "of"),
}
"""Part of a month's time -> the function whose calls are summed."""


# -- train


def train(place: Place) -> None:
    """Learn and export the regions' models by the commands, unless they are there."""
    learned = place.directory / "trained"
    if not (learned / "trained.json").exists():
        found = _timed(
            cenote("train", "gwsa", "--inputs", str(place.inputs), "--out", str(learned), "--workers", str(WORKERS))
        )
        place.note("train", {"train": found})
    by_hand = _raise_weights(learned / "trained.json")
    shutil.rmtree(place.models, ignore_errors=True)
    found = _timed(cenote("export", "gwsa", "--from", str(learned), "--out", str(place.models)))
    regions = json.loads((learned / "trained.json").read_text(encoding="utf-8"))["regions"]
    place.note("train", {**place.noted("train"), "export": found, "regions": regions, "weights_set_by_hand": by_hand})


def _raise_weights(path: Path) -> list[str]:
    document = json.loads(path.read_text(encoding="utf-8"))
    worthless = [region for region in document["regions"] if region["weight"] == 0]
    for region in worthless:
        region["weight"] = SET_BY_HAND
        region["set_by_hand"] = True
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return [region["name"] for region in document["regions"] if region.get("set_by_hand")]


def _timed(command: list[str]) -> dict[str, Any]:
    """Wall, and CPU of a command with all that it started and waited for."""
    start = time.monotonic()
    child = subprocess.Popen(["nice", "-n", "10", *command], cwd=ROOT)  # noqa: S607 - our own command
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command[2:])} ended with {child.returncode}")
    return {"wall_s": round(time.monotonic() - start, 1), "cpu_s": round(usage.ru_utime + usage.ru_stime, 1)}


# -- measure


def measure(place: Place) -> None:
    """Ask both engines in turn for the same cells, and profile a whole month of the faster."""
    recipe = open_recipe(place.inputs, place.models)
    recipe.prepare(Here(), tell)
    rows = rows_asked(recipe, window_of(FINE, BBOX))
    tell(f"rows of a month: {rows}")
    found: dict[str, Any] = {"rows": rows, "engines": engines(recipe)}
    place.note("measure", found)
    faster: Engine = min(("onnx", "xgboost"), key=lambda name: found["engines"][name]["cpu_s"])
    tell(f"a month by {faster}")
    found["month"] = {"engine": faster, **month(with_engine(recipe, faster))}
    place.note("measure", found)


def with_engine(recipe: Gwsa, engine: Engine) -> Gwsa:
    """The same models, asked by another engine."""
    detail = recipe.detail
    assert detail is not None
    synthetic = recipe.source.settings.synthetic
    return replace(recipe, detail=Detail.open(detail.directory, recipe.source.features, engine, synthetic=synthetic))


def rows_asked(recipe: Gwsa, window: Window) -> dict[str, int]:
    """What the trees are asked in a month of a window of whole coarse cells.

    Returns:
        Land cells of the window, land cells with the halo, rows (a cell near a border is asked of several models).
    """
    source, detail = recipe.source, recipe.detail
    assert detail is not None
    coarse = Coarse.of(source)
    cells = Reach(
        row=window.row // FACTOR,
        column=window.column // FACTOR,
        height=window.height // FACTOR,
        width=window.width // FACTOR,
    ).grown(DETAIL_HALO)
    valid = np.isfinite(coarse.read(GWSA.name, coarse.months[0], cells))
    land = land_of(source.land, cells.times(FACTOR)) & np.repeat(np.repeat(valid, FACTOR, 0), FACTOR, 1)
    inside = slice(DETAIL_HALO * FACTOR, -DETAIL_HALO * FACTOR)
    rows = 0
    for number, share in shares(coarse.labels(cells.grown(REACH + 1))):
        if detail.regions[number].weight > 0:
            rows += int((land & (interpolated(share, FACTOR) > 0)).sum())
    return {"land_cells": int(land[inside, inside].sum()), "with_halo": int(land.sum()), "rows": rows}


def engines(recipe: Gwsa) -> dict[str, Any]:
    """CPU of both engines for the same rows, in turns."""
    block = window_of(FINE, BBOX)
    strip = Window(
        row=block.row + block.height // 2 // FACTOR * FACTOR,
        column=block.column,
        height=STRIP_CELLS * FACTOR,
        width=block.width,
    )
    rows = rows_asked(recipe, strip)["rows"]
    periods = recipe.periods()
    contestants: dict[Engine, Gwsa] = {name: with_engine(recipe, name) for name in ("onnx", "xgboost")}
    spent: dict[Engine, list[float]] = {"onnx": [], "xgboost": []}
    answers = {}
    for contestant in contestants.values():  # opens files and models
        contestant.compute(periods.take([0]), replace(strip, height=FACTOR, width=FACTOR))
    for turn in range(ROUNDS):
        for name, contestant in contestants.items():
            start = time.process_time()
            answers[name] = contestant.compute(periods.take([turn]), strip)[GWSA.name]
            spent[name].append(time.process_time() - start)
            tell(f"{name}: {spent[name][-1]:.1f} s CPU for {rows} rows")
    steps = np.abs(answers["onnx"].astype(int) - answers["xgboost"])
    return {
        "rows": rows,
        "cells": strip.height * strip.width,
        **{
            name: {"cpu_s": round(median(each), 2), "rows_per_cpu_s": round(rows / median(each))}
            for name, each in spent.items()
        },
        "stored_values_that_differ": float((steps > 0).mean()),
        "largest_difference_in_steps": int(steps.max()),
    }


def month(recipe: Gwsa) -> dict[str, Any]:
    """Where the CPU of a whole month of the block goes, in a process that has its files and models open."""
    block, periods = window_of(FINE, BBOX), recipe.periods()
    assert recipe.detail is not None
    recipe.compute(periods.take([0]), replace(block, height=STRIP_CELLS * FACTOR))
    profile = cProfile.Profile(time.process_time)
    start = time.process_time()
    profile.runcall(recipe.compute, periods.take([1]), block)
    total = time.process_time() - start
    stats: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # it has no other way to be read
    parts = {
        part: round(sum(row[3] for key, row in stats.items() if key[0].endswith(f"/{file}") and key[2] == function), 2)
        for part, (file, function) in PARTS.items()
    }
    assert all(parts.values()), f"a function of {parts} has another name now"
    return {"cpu_s": round(total, 2), "parts_cpu_s": parts}


# -- render


def render(place: Place) -> None:
    """Render what is left of the block in a child, and note what its processes take."""
    words = [
        "--store",
        str(place.store),
        "render",
        "gwsa",
        "--inputs",
        str(place.inputs),
        "--models",
        str(place.models),
    ]
    words += ["--bbox", BBOX, "--name", "block", "--workers", str(WORKERS)]
    raise SystemExit(study.render(place, words, lambda: months_done(place, "gwsa_block")))


# -- report


def report(place: Place) -> dict[str, Any]:
    """All that was found, and what the globe would take."""
    measured, rendered = place.noted("measure"), place.noted("render")
    runs = rendered.get("runs", [])
    workers = [worker for run in runs for worker in run["workers"]]
    # a month that ended between the last note of a killed run and its end counts in no run
    done = sum(run["months_after"] - run["months_before"] for run in runs)
    cpu = sum(worker["cpu_s"] for worker in workers)
    rows = measured["rows"]
    found = {
        "command": "python -m tests.products.gwsa.block_study DIR inputs|train|measure|render|report",
        "synthetic": "predictors, GRACE, GLDAS, aquifers and models are made up; the land mask is NOAA GLOBE's",
        "machine": {"cores": os.cpu_count(), "cpu": cpu_name()},
        "inputs": place.noted("inputs"),
        "train": place.noted("train"),
        "measure": measured,
        "render": {
            "finished": bool(runs) and runs[-1]["exit"] == 0,
            "months": MONTHS,
            "months_rendered": runs[-1]["months_after"] if runs else 0,
            "months_measured": done,
            "land_cells_measured": done * rows["land_cells"],
            "rows_measured": done * rows["rows"],
            "worker_core_hours": round(cpu / 3600, 3),
            "wall_hours": round(sum(run["wall_s"] for run in runs) / 3600, 3),
            "rows_per_core_second": round(done * rows["rows"] / cpu) if cpu else None,
            "land_cells_per_core_second": round(done * rows["land_cells"] / cpu) if cpu else None,
            "core_seconds_a_month": round(cpu / done, 1) if done else None,
            "peak_rss_of_a_worker_bytes": max((worker["peak_rss_bytes"] for worker in workers), default=None),
            "store_bytes": rendered.get("store_bytes"),
            "runs": runs,
        },
    }
    mask = place.inputs / "land_mask.tif"
    found["globe_by_the_measured_month"] = globe(mask, measured, measured["month"]["cpu_s"])
    if cpu and done:
        found["globe_by_the_render"] = globe(mask, measured, cpu / done)
    return found


def globe(mask: Path, measured: dict[str, Any], month_cpu: float) -> dict[str, Any]:
    """What 225 months of the whole grid would take, from the rows and cells of its shards.

    The trees' share of a month's CPU goes with rows, the rest with cells of shards that have land; both shares are
    those of the profiled month. ``month_cpu`` is that of the render by months done, all stages and openings included,
    or of the profiled month alone.
    """
    rows, profiled = measured["rows"], measured["month"]
    trees = profiled["parts_cpu_s"]["trees"] / profiled["cpu_s"]
    block = (BLOCK.east - BLOCK.west) * (BLOCK.north - BLOCK.south) * 120**2
    land, with_halo, cells = _of_shards(mask)
    asked = with_halo * rows["rows"] / rows["with_halo"]
    seconds = MONTHS * month_cpu * (trees * asked / rows["rows"] + (1 - trees) * cells / block)
    return {
        "land_cells": land,
        "land_cells_with_halo": with_halo,
        "cells_of_shards_with_land": cells,
        "rows_a_month": round(asked),
        "share_of_trees": round(trees, 3),
        "core_hours": round(seconds / 3600),
        "core_hours_by_land_cells_alone": round(MONTHS * month_cpu * land / rows["land_cells"] / 3600),
    }


def _of_shards(mask: Path) -> tuple[int, int, int]:
    """Land cells, the same counted once for each shard within whose halo they lie, and cells of shards with land."""
    step = 60  # divides a shard and its halo
    halo, (height, width) = DETAIL_HALO * FACTOR // step, (side // step for side in FINE.shard_shape)
    assert (DETAIL_HALO * FACTOR) % step == 0
    counts = np.concatenate(list(_counted(mask, step)))
    around = np.pad(np.pad(counts, ((halo, halo), (0, 0))), ((0, 0), (halo, halo)), mode="wrap")
    with_halo = cells = 0
    for row in range(0, counts.shape[0], height):
        for column in range(0, counts.shape[1], width):
            part = counts[row : row + height, column : column + width]
            if part.any():
                cells += part.size * step**2
                with_halo += int(
                    around[row : row + part.shape[0] + 2 * halo, column : column + part.shape[1] + 2 * halo].sum()
                )
    return int(counts.sum()), with_halo, cells


def _counted(mask: Path, step: int) -> Iterator[NDArray[np.int64]]:
    """Land cells in squares, a strip of squares at a time, down to the last row of the product."""
    with rasterio.open(mask) as dataset:
        for row in range(0, FINE.height, step):
            values = dataset.read(1, window=RasterWindow(0, row, FINE.width, step))
            yield (values == 1).reshape(1, step, -1, step).sum(axis=(1, 3))


def main() -> None:
    """One step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("step", choices=("inputs", "train", "measure", "render", "report"))
    parser.add_argument("--engine", choices=("onnx", "xgboost"), default="xgboost")
    asked = parser.parse_args()
    place = Place(directory=asked.directory.resolve())
    place.directory.mkdir(parents=True, exist_ok=True)
    match asked.step:
        case "inputs":
            shared = Path(os.environ.get("CENOTE_SHARED_DATA") or ROOT.parent / "shared" / "data")
            place.note("inputs", write_inputs(place.inputs, shared, asked.engine, WORKERS, tell))
        case "train":
            train(place)
        case "measure":
            measure(place)
        case "render":
            render(place)
        case _:
            REPORT.write_text(json.dumps(report(place), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
