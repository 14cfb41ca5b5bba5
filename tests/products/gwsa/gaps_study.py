"""Which filling of GRACE's gaps is the default: every method on 204 river basins, in gaps that were hidden from it.

    OMP_NUM_THREADS=1 .venv/bin/python -m tests.products.gwsa.gaps_study

writes ``infra/reports/gwsa_gaps.json`` and prints the table of its README, in a few minutes of one core. The real files
lie beside the checkout or where CENOTE_SHARED_DATA says. The 33 months that the data's author filled are missing for
every method. Eleven months like those between the missions (July to May) are hidden one gap at a time; short gaps at
random places, nine at a time. SSA's window and order are chosen with all scored months of that kind missing.
"""

import csv
import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.time_axis import TimeAxis
from services.products.gwsa.gaps import METHODS, YEARS, Blanks, ByLength, Method, blanked_rms, choose, scattered, years

ROOT = Path(__file__).resolve().parents[3]
REPORT = ROOT / "infra" / "reports" / "gwsa_gaps.json"

BASINS = "groundwater/basins_monthly/TWS_GRACE_JPL_mascons_monthly.csv"
MISSING = "groundwater/california_nasa_grace/anomaly_timeseries_GRACE_california_mask.csv"

GAP_STARTS = ("2005-07", "2008-07", "2011-07", "2014-07")
"""Of the scored eleven-month gaps: none touches a year that is blanked to choose."""

WINDOWS = (24, 36, 48, 60, 72, 84)
ORDERS = tuple(range(1, 19))
EVERY = 3
"""Every third basin takes part in choosing the window and the order; all are scored."""

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


def without(values: NDArray[np.float64], blanks: Blanks) -> NDArray[np.float64]:
    """The values with all blanks missing at once."""
    hidden = values.copy()
    hidden[np.concatenate(blanks)] = np.nan
    return hidden


def within_sigma(values: NDArray[np.float64], method: Method, blanks: Blanks, sigma: NDArray[np.float64]) -> float:
    """Share of the scored months whose error is no larger than the stated one, over all basins."""
    inside = []
    for rows in blanks:
        hidden = values.copy()
        hidden[rows] = np.nan
        error = np.abs(method(hidden)[rows] - values[rows])
        inside.append((error <= sigma)[~np.isnan(error)])
    return float(np.mean(np.concatenate(inside)))


def study(folder: Path) -> dict[str, Any]:
    """The comparison as JSON data."""
    values, axis = read_basins(folder)
    missing = np.isnan(values).any(axis=1)
    starts = [axis.ids.index(start) for start in GAP_STARTS]
    scored = {
        "long": [np.arange(start, start + 11) for start in starts],
        "short": scattered(missing, seed=SEED),
    }
    hidden = {kind: without(values, blanks) for kind, blanks in scored.items()}
    blanks = {
        "long": years(axis),
        "short": scattered(np.isnan(hidden["short"]).any(axis=1), trials=2, seed=SEED + 1),
    }
    first, end = axis.ids.index("2003-01"), axis.ids.index("2017-01")
    long = choose(hidden["long"][first:end, ::EVERY], [rows - first for rows in blanks["long"]], WINDOWS, ORDERS)
    short = choose(hidden["short"][:, ::EVERY], blanks["short"], WINDOWS, ORDERS)
    methods = {**METHODS, "ssa": ByLength(short=short, long=long)}
    spread = np.nanstd(values, axis=0)
    table: dict[str, dict[str, Any]] = {name: {} for name in methods}
    for kind, rows in scored.items():
        errors = {name: blanked_rms(values, method, rows) / spread for name, method in methods.items()}
        for name, method in methods.items():
            sigma = blanked_rms(hidden[kind], method, blanks[kind])
            table[name][kind] = {
                "median_rms_over_std": round(float(np.median(errors[name])), 4),
                "share_of_basins_better_than_ssa": round(float(np.mean(errors[name] < errors["ssa"])), 3),
                "within_sigma": round(within_sigma(values, method, rows, sigma), 3),
            }
    return {
        "command": "OMP_NUM_THREADS=1 .venv/bin/python -m tests.products.gwsa.gaps_study",
        "data": {"file": BASINS, "sha256": hashlib.sha256((folder / BASINS).read_bytes()).hexdigest()},
        "counts": {
            "basins": values.shape[1],
            "months": len(axis),
            "missing_months": int(missing.sum()),
            **{f"scored_{kind}_gaps": {"trials": len(rows)} | counted(rows, missing) for kind, rows in scored.items()},
        },
        "settings": {
            "seed": SEED,
            "long_gap_starts": GAP_STARTS,
            "choosing": {"windows": WINDOWS, "orders": ORDERS, "years": YEARS, "every_nth_basin": EVERY},
            "ssa": {
                "short": {"window": short.window, "order": short.order},
                "long": {"window": long.window, "order": long.order},
            },
        },
        "table": table,
    }


def counted(blanks: Blanks, missing: NDArray[np.bool_]) -> dict[str, int]:
    """Gaps that were hidden, and the months in them that have a value to be held against."""
    gaps = sum(int((np.diff(rows) > 1).sum()) + 1 for rows in blanks)
    return {"gaps": gaps, "months": sum(int((~missing[rows]).sum()) for rows in blanks)}


def as_markdown(report: dict[str, Any]) -> str:
    """The table of the README."""
    lines = ["| method | 11-month gaps | short gaps | errors within sigma |", "|---|---|---|---|"]
    for name, row in report["table"].items():
        scores = " | ".join(f"{row[kind]['median_rms_over_std']:.3f}" for kind in ("long", "short"))
        inside = ", ".join(f"{row[kind]['within_sigma']:.2f}" for kind in ("long", "short"))
        lines.append(f"| `{name}` | {scores} | {inside} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    folder = Path(os.environ.get("CENOTE_SHARED_DATA") or ROOT.parent / "shared" / "data")
    report = study(folder)
    REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(as_markdown(report))


if __name__ == "__main__":
    main()
