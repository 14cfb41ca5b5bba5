"""Which filling of GRACE's gaps is the default: every method on 204 river basins, in gaps that were hidden from it.

    OMP_NUM_THREADS=1 .venv/bin/python -m tests.products.gwsa.gaps_study

writes ``infra/reports/gwsa_gaps.json`` and prints the table of its README, in a few minutes of one core. The real files
lie beside the checkout or where CENOTE_SHARED_DATA says. The 33 months that the data's author filled are missing for
every method. Eleven months like those between the missions (July to May) are hidden one gap at a time; short gaps at
random places, nine at a time. SSA's window and order are chosen anew for each trial, with its scored months missing: by
whole years for long gaps, by other short gaps for short ones.
"""

import csv
import hashlib
import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.time_axis import TimeAxis
from services.products.gwsa.gaps import METHODS, SSA, YEARS, Blanks, Method, blanked_rms, choose, scattered, years

ROOT = Path(__file__).resolve().parents[3]
REPORT = ROOT / "infra" / "reports" / "gwsa_gaps.json"

BASINS = "groundwater/basins_monthly/TWS_GRACE_JPL_mascons_monthly.csv"
MISSING = "groundwater/california_nasa_grace/anomaly_timeseries_GRACE_california_mask.csv"

GAP_STARTS = ("2005-07", "2008-07", "2011-07", "2014-07")
"""Of the scored eleven-month gaps: none touches a year that is blanked to choose."""

WINDOWS = (24, 36, 48, 60, 72)
ORDERS = tuple(range(1, 17))
SPAN = ("2003-01", "2017-01")
"""From and before: the months in which whole years are blanked to choose (Yi and Sneeuw, 2021)."""

EVERY = 6
"""Every sixth basin takes part in choosing the window and the order; all are scored."""

SEED = 1


def published_missing(folder: Path) -> list[str]:
    """The months without a solution, as JPL lists them in the header of a file."""
    header = re.search(r'months_missing: \["([^"]*)"\]', (folder / MISSING).read_text(encoding="utf-8"))
    assert header is not None
    return header[1].split(";")


def read_basins(folder: Path) -> tuple[NDArray[np.float64], TimeAxis]:
    """``(time, basin)`` in mm, NaN in the months that the author filled, and the months."""
    with (folder / BASINS).open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    months = [name.split()[-1][:7] for name in header[1:]]
    values = np.array([[float(text) for text in row[1:]] for row in rows]).T
    values[np.isin(months, published_missing(folder))] = np.nan
    axis = TimeAxis.regular(months[0], "P1M", len(months))
    assert list(axis.ids) == months
    return values, axis


def scored_blanks(axis: TimeAxis, missing: NDArray[np.bool_]) -> dict[str, Blanks]:
    """The rows that are hidden, trial by trial, in gaps of both kinds."""
    starts = [axis.ids.index(start) for start in GAP_STARTS]
    return {"long": [np.arange(start, start + 11) for start in starts], "short": scattered(missing, seed=SEED)}


def choosing(values: NDArray[np.float64], axis: TimeAxis, kind: str, seed: int) -> tuple[SSA, Blanks]:
    """SSA's window and order for gaps of a kind, and the blanks that tell, from values that hide what is scored."""
    if kind == "short":
        blanks = scattered(np.isnan(values).any(axis=1), trials=2, seed=seed)
        return choose(values[:, ::EVERY], blanks, WINDOWS, ORDERS), blanks
    first, end = (axis.ids.index(month) for month in SPAN)
    blanks = years(axis)
    return choose(values[first:end, ::EVERY], [rows - first for rows in blanks], WINDOWS, ORDERS), blanks


def compare(values: NDArray[np.float64], axis: TimeAxis, kind: str, scored: Blanks) -> dict[str, Any]:
    """All methods in gaps of one kind."""
    squares = {name: np.zeros(values.shape[1]) for name in METHODS}
    inside: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in METHODS}
    pairs = []
    for trial, rows in enumerate(scored):
        hidden = values.copy()
        hidden[rows] = np.nan
        pair, blanks = choosing(hidden, axis, kind, SEED + 1 + trial)
        pairs.append(asdict(pair))
        methods: dict[str, Method] = {**METHODS, "ssa": pair}
        for name, method in methods.items():
            error = method(hidden)[rows] - values[rows]
            squares[name] += np.nanmean(error**2, axis=0) / len(scored)
            sigma = blanked_rms(hidden[:, ::EVERY], method, blanks)
            some = error[:, ::EVERY]
            inside[name].append((np.abs(some) <= sigma)[~np.isnan(some)])
    spread = np.nanstd(values, axis=0)
    errors = {name: np.sqrt(square) / spread for name, square in squares.items()}
    table = {
        name: {
            "median_rms_over_std": round(float(np.median(error)), 4),
            "share_of_basins_better_than_ssa": round(float(np.mean(error < errors["ssa"])), 3),
            "within_sigma": round(float(np.mean(np.concatenate(inside[name]))), 3),
        }
        for name, error in errors.items()
    }
    default = next(iter(METHODS))
    return {
        "table": table,
        "ssa_of_trials": pairs,
        "ssa_of_all": asdict(choosing(values, axis, kind, SEED + 1)[0]),
        "in_hindsight": {
            "basins": len(errors[default][::EVERY]),
            "ssa": best(values[:, ::EVERY], scored),
            default: {"median_rms_over_std": round(float(np.median(errors[default][::EVERY])), 4)},
        },
    }


def best(values: NDArray[np.float64], scored: Blanks) -> dict[str, Any]:
    """The least that any one window and order could have reached on the scored months themselves."""
    pair = choose(values, scored, WINDOWS, ORDERS)
    error = blanked_rms(values, pair, scored) / np.nanstd(values, axis=0)
    return {**asdict(pair), "median_rms_over_std": round(float(np.median(error)), 4)}


def study(folder: Path) -> dict[str, Any]:
    """The comparison as JSON data."""
    values, axis = read_basins(folder)
    missing = np.isnan(values).any(axis=1)
    scored = scored_blanks(axis, missing)
    return {
        "command": "OMP_NUM_THREADS=1 .venv/bin/python -m tests.products.gwsa.gaps_study",
        "data": {"file": BASINS, "sha256": hashlib.sha256((folder / BASINS).read_bytes()).hexdigest()},
        "counts": {
            "basins": values.shape[1],
            "months": len(axis),
            "missing_months": int(missing.sum()),
            **{f"scored_{kind}": {"trials": len(rows)} | counted(rows, missing) for kind, rows in scored.items()},
        },
        "settings": {
            "seed": SEED,
            "long_gap_starts": GAP_STARTS,
            "windows": WINDOWS,
            "largest_order": max(ORDERS),
            "blanked_years": YEARS,
            "every_nth_basin_chooses": EVERY,
        },
        **{kind: compare(values, axis, kind, rows) for kind, rows in scored.items()},
    }


def counted(blanks: Blanks, missing: NDArray[np.bool_]) -> dict[str, int]:
    """Gaps that were hidden, and the months in them that have a value to be held against."""
    gaps = sum(int((np.diff(rows) > 1).sum()) + 1 for rows in blanks)
    return {"gaps": gaps, "months": sum(int((~missing[rows]).sum()) for rows in blanks)}


def as_markdown(report: dict[str, Any]) -> str:
    """The table of the README."""
    lines = ["| method | 11-month gaps | short gaps | errors within sigma |", "|---|---|---|---|"]
    for name in METHODS:
        rows = [report[kind]["table"][name] for kind in ("long", "short")]
        scores = " | ".join(f"{row['median_rms_over_std']:.3f}" for row in rows)
        lines.append(f"| `{name}` | {scores} | {', '.join(f'{row["within_sigma"]:.2f}' for row in rows)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    folder = Path(os.environ.get("CENOTE_SHARED_DATA") or ROOT.parent / "shared" / "data")
    report = study(folder)
    REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(as_markdown(report))


if __name__ == "__main__":
    main()
