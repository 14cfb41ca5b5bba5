"""A real case: total water storage (TWSA) of Bangladesh in held-out months and places, and a real step in scale.

    OMP_NUM_THREADS=1 .venv/bin/python -m tests.products.gwsa.bangladesh_study

writes ``infra/reports/gwsa_bangladesh.json`` and prints the tables of its README, in some minutes. The real files lie
beside the checkout or where CENOTE_SHARED_DATA says. The target of the first part is GRACE's total water storage: no
number there is a score of groundwater storage. The second part is that of a model's groundwater, GLDAS-2.2.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import KDTree

from models.gwsa.train import Settings, fit
from services.products.gwsa.features import time_features
from services.products.gwsa.transfer import FOLD, FOLDS, SCALE
from tests.products.gwsa.gaps_study import published_missing
from tests.products.gwsa.variants import SHALLOW, SMALL, VARIANTS, Case, dealt, rounded, told, worth

ROOT = Path(__file__).resolve().parents[3]
REPORT = ROOT / "infra" / "reports" / "gwsa_bangladesh.json"

FOLDER = "groundwater/bangladesh_gwsa"
TWSA = "TWSA_M_2002_2017_BGD_025.nc4"
GLDAS = "GLDAS_22_CLSM_GWS_M_2003_2017_BGD_025.nc4"
RAIN = "PR_AET_M_2002_2017_BGD_025.nc4"
NDVI = "NDVI_M_2002_2017_BGD_025.nc4"
DEM = "DEM_BGD_025.nc4"

TARGET = "total water storage anomaly (TWSA) of GRACE, not groundwater storage"

BLOCK_MONTHS, BLOCK_CELLS = 12, 6
NEAREST = 8
HARMONICS = 3
BRIEF = ("raw", "departures", "raw, small, all blocks learned")
"""Variants that are not asked with held-out months: two are slow, one has no sense of it."""

CUTS = {"west": 0, "east": 2}
"""First column of the five 1 degree blocks in the 22 columns that field and predictors share."""

type Cells = NDArray[np.float64]
type Months = NDArray[np.int64]
type Mask = NDArray[np.bool_]
type Fitted = Callable[[Mask], Cells]
"""Months and cells to learn from, ``(time, cell)`` -> what is said of all."""


# -- the files


def read(folder: Path, name: str) -> xr.Dataset:
    """A file in memory, its rows from north to south."""
    with xr.open_dataset(folder / FOLDER / name, engine="h5netcdf") as data:
        return data.load().sortby("lat", ascending=False)


def months_of(data: xr.Dataset) -> Months:
    """Months since 1970-01, whichever day of the month the file names."""
    months: Months = data.time.values.astype("datetime64[M]").astype(np.int64)
    assert (np.diff(months) == 1).all()
    return months


def shared(ours: Cells, theirs: Cells) -> NDArray[np.int64]:
    """Where our coordinates are theirs, too; one of the files has them with errors of rounding."""
    return np.flatnonzero(np.isin(np.round(ours, 3), np.round(theirs, 3)))


def predictors(folder: Path, wanted: Months, longitudes: Cells) -> NDArray[np.float32]:
    """Rain, evapotranspiration, NDVI and elevation, ``(time, Y, X, 4)``, in some months and columns."""
    rain, ndvi, dem = (read(folder, name) for name in (RAIN, NDVI, DEM))
    columns = shared(rain.lon.values, longitudes)
    rows = np.searchsorted(months_of(rain), wanted)
    assert len(columns) == len(longitudes)
    assert (months_of(rain)[rows] == wanted).all()
    assert (months_of(ndvi) == months_of(rain)).all()
    layers = [one.transpose("time", "lat", "lon").values[rows][:, :, columns] for one in (rain.pr, rain.aet, ndvi.NDVI)]
    layers.append(np.broadcast_to(dem.dem.values[0][:, columns], layers[0].shape))
    return np.stack(layers, axis=3).astype(np.float32)


def times_of(months: Months) -> Cells:
    """Year, sine and cosine as the product gives them to its models."""
    return np.array([list(time_features(int(month)).values()) for month in months])


# -- the first part: months and places that were not seen


def harmonics(values: Cells, times: Cells, seen: Mask) -> Cells:
    """Per cell a trend and HARMONICS of the year, least squares over the months that are seen, ``(time, cell)``."""
    angle = 2 * np.pi * times[:, 0]
    waves = [wave(order * angle) for order in range(1, HARMONICS + 1) for wave in (np.sin, np.cos)]
    design = np.stack([np.ones(len(times)), times[:, 0] - times[:, 0].mean(), *waves], axis=1)
    found: Cells = design @ np.linalg.lstsq(design[seen], values[seen], rcond=None)[0]
    return found


def near(values: Cells, places: Cells, groups: NDArray[np.int64], seen: Mask) -> Cells:
    """Inverse squared distance mean of the NEAREST cells that are seen and lie in another block, ``(time, cell)``.

    A cell that is seen is told from others too, at distances like those of the cells that are not.
    """
    found = np.empty_like(values)
    for group in np.unique(groups):
        mine, others = groups == group, np.flatnonzero(seen & (groups != group))
        distance, index = KDTree(places[others]).query(places[mine], NEAREST)
        share = 1 / distance**2
        found[:, mine] = (values[:, others[index]] * (share / share.sum(axis=1, keepdims=True))).sum(axis=2)
    return found


def grown(features: NDArray[np.float32], target: Cells, seen: Mask, settings: Settings) -> Cells:
    """What the product's trees say of all months and cells, learned from those that are seen."""
    names = [f"x{number}" for number in range(features.shape[2])]
    trees = fit(features[seen], target[seen], names=names, units=["1"] * len(names), settings=settings)
    return trees.predict(features.reshape(-1, features.shape[2])).reshape(target.shape).astype(np.float64)


def scores(values: Cells, said: Cells, baseline: Cells) -> dict[str, float]:
    """R2 (of all months and cells together), rmse and skill."""
    error, base = float(np.mean((said - values) ** 2)), float(np.mean((baseline - values) ** 2))
    return {
        "r2": rounded(1 - error / values.var()),
        "rmse_cm": rounded(np.sqrt(error)),
        "skill": rounded(1 - error / base),
    }


def held_out(folder: Path, settings: dict[str, Settings]) -> dict[str, Any]:
    """Both designs as JSON data."""
    data = read(folder, TWSA)
    months = months_of(data)
    land = np.isfinite(data.twsa.values).all(axis=0)
    assert (np.isfinite(data.twsa.values).any(axis=0) == land).all()
    values = data.twsa.values[:, land].astype(np.float64) / 10  # mm
    features = predictors(folder, months, data.lon.values)[:, land]
    assert np.isfinite(features).all()
    times = times_of(months)
    spread = np.broadcast_to(times[:, None, :], (*values.shape, 3))
    features = np.concatenate([features, spread], axis=2).astype(np.float32)
    filled = np.isin([str(np.datetime64(int(month), "M")) for month in months], published_missing(folder))
    rows, columns = np.nonzero(land)
    side = land.shape[1] // BLOCK_CELLS
    groups = rows // BLOCK_CELLS * side + columns // BLOCK_CELLS
    latitude, longitude = data.lat.values[rows], data.lon.values[columns]
    places = np.stack([latitude, longitude * np.cos(np.radians(latitude.mean()))], axis=1)
    by_time = dealt(len(months), BLOCK_MONTHS)
    by_place = dealt(int(groups.max()) + 1, 1)[groups]
    used = ~filled
    report: dict[str, Any] = {
        "target": TARGET,
        "months": len(months),
        "months_filled_by_the_author": [str(np.datetime64(int(month), "M")) for month in months[filled]],
        "filled": straightness(values, months, filled),
        "cells": int(land.sum()),
        "std_cm": rounded(values[used].std()),
    }
    designs: dict[str, tuple[NDArray[np.int64], Fitted]] = {
        "time": (np.broadcast_to(by_time[:, None], values.shape), lambda seen: harmonics(values, times, seen[:, 0])),
        "space": (
            np.broadcast_to(by_place[None], values.shape),
            lambda seen: near(values, places, groups, seen[used][0]),
        ),
    }
    for name, (folds, base) in designs.items():
        said: dict[str, Cells] = {}
        for fold in range(FOLDS):
            held = folds == fold
            seen = ~held & used[:, None]
            baseline = base(seen)
            answers = {"baseline": baseline}
            for size, one in settings.items():
                answers[f"trees, {size}"] = grown(features, values, seen, one)
                left = grown(features, values - baseline, seen, one)
                answers[f"trees on what the baseline leaves, {size}"] = baseline + left
                more = np.concatenate([features, baseline[:, :, None].astype(np.float32)], axis=2)
                answers[f"trees with the baseline as a predictor, {size}"] = grown(more, values, seen, one)
            for key, answer in answers.items():
                said.setdefault(key, np.full(values.shape, np.nan))[held] = answer[held]
        report[name] = {key: scores(values[used], one[used], said["baseline"][used]) for key, one in said.items()}
    return report


def straightness(values: Cells, months: Months, filled: Mask) -> dict[str, float]:
    """How far months lie from a straight line between the measured ones around them: those of the list, and others."""
    measured = np.flatnonzero(~filled)
    middles = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.float64)

    def off(rows: NDArray[np.int64]) -> float:
        found = []
        for row in rows:
            before, after = measured[measured < row][-1], measured[measured > row][0]
            share = (middles[row] - middles[before]) / (middles[after] - middles[before])
            found.append(values[row] - (1 - share) * values[before] - share * values[after])
        return rounded(np.sqrt(np.mean(np.square(found))))

    return {
        "rms_from_line_of_filled_cm": off(np.flatnonzero(filled)),
        "rms_from_line_of_measured_cm": off(measured[1:-1]),
    }


# -- the second part: from 1 degree to 1/4


def scale_case(folder: Path, first: int) -> Case:
    """GLDAS-2.2 groundwater in whole 1 degree blocks, cm; the grid's own corner is that of the first block."""
    data = read(folder, GLDAS)
    rain = read(folder, RAIN)
    columns = shared(data.lon.values, rain.lon.values)
    columns = columns[first : first + 5 * SCALE]
    rows = shared(data.lat.values, rain.lat.values)
    months = months_of(data)
    values = data.gwsa.transpose("time", "lat", "lon").values[:, rows][:, :, columns].astype(np.float64) * 100  # m
    row_areas = np.cos(np.radians(data.lat.values[rows]))
    return Case(
        values=values,
        predictors=predictors(folder, months, data.lon.values[columns]),
        times=times_of(months),
        area=np.where(np.isfinite(values).all(axis=0), row_areas[:, None], 0.0),
        row_areas=row_areas,
    )


def step_in_scale(folder: Path, variants: dict[str, Any]) -> dict[str, Any]:
    """Every variant on both cuts as JSON data."""
    report: dict[str, Any] = {"target": "groundwater of GLDAS-2.2 CLSM (a model's, not measured), `gwsa`"}
    for cut, first in CUTS.items():
        case = scale_case(folder, first)
        weights = np.broadcast_to(case.area, case.values.shape)[:, case.known]
        values = case.values[:, case.known]
        variance = float(np.average((values - np.average(values, weights=weights)) ** 2, weights=weights))
        found: dict[str, Any] = {}
        for name, make in variants.items():
            learn = make(case)
            found[name] = told(worth(case, learn))
            if name not in BRIEF:
                found[name]["months_held_out_too"] = told(worth(case, learn, times=dealt(len(values), BLOCK_MONTHS)))
        plain = next(iter(found.values()))["rmse_weight_0"]
        report[cut] = {
            "cells": int(case.known.sum()),
            "blocks": int((case.block_areas > 0).sum()),
            "months": len(values),
            "std_cm": rounded(np.sqrt(variance)),
            "conservative_bilinear": {"rmse_cm": plain, "r2": rounded(1 - plain**2 / variance)},
            "variants": found,
        }
    return report


def study(folder: Path) -> dict[str, Any]:
    """Both parts as JSON data."""
    files = [f"{FOLDER}/{name}" for name in (TWSA, GLDAS, RAIN, NDVI, DEM)]
    sizes = {"default": Settings(), "small": SMALL}
    return {
        "command": "OMP_NUM_THREADS=1 .venv/bin/python -m tests.products.gwsa.bangladesh_study",
        "commit": subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "HEAD"],  # noqa: S607
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip(),
        "data": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files},
        "settings": {
            "seed": 0,
            "folds": FOLDS,
            "folds_are": "blocks in order of time, or row by row, get default_rng(0).permutation(arange(blocks) % 5)",
            "block_months": BLOCK_MONTHS,
            "block_cells": BLOCK_CELLS,
            "held_out_in_the_step_in_scale": f"squares of {FOLD} cells, as the study deals them",
            "trees": {name: asdict(one) for name, one in {**sizes, "shallow": SHALLOW}.items()},
        },
        "held_out": held_out(folder, sizes),
        "step_in_scale": step_in_scale(folder, VARIANTS),
    }


def as_markdown(report: dict[str, Any]) -> str:
    """The tables of the README."""
    part = report["held_out"]
    lines = ["| TWSA | time: R2 | RMSE cm | skill | space: R2 | RMSE cm | skill |", "|" + "---|" * 7]
    for name in part["time"]:
        cells = [f"{part[design][name][key]:.3f}" for design in ("time", "space") for key in ("r2", "rmse_cm", "skill")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| 1 to 1/4 degree, RMSE cm | weight | 0 | chosen | of other folds | 1 | months too | eastern cut |"]
    lines.append("|" + "---|" * 8)
    west, east = (report["step_in_scale"][cut]["variants"] for cut in CUTS)
    for name, one in west.items():
        keys = ("weight_0", "weight", "weight_of_other_folds", "weight_1")
        shown = [f"{one['weight']:.2f}", *(f"{one[f'rmse_{key}']:.3f}" for key in keys)]
        later = one.get("months_held_out_too")
        shown.append(f"{later['rmse_weight_of_other_folds']:.3f}" if later else "")
        other = east[name]
        shown.append(f"{other['rmse_weight_0']:.3f} to {other['rmse_weight_of_other_folds']:.3f}")
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    folder = Path(os.environ.get("CENOTE_SHARED_DATA") or ROOT.parent / "shared" / "data")
    report = study(folder)
    REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(as_markdown(report))


if __name__ == "__main__":
    main()
