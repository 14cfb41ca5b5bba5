"""The real Ogallala wells against the real GRACE grid: trends, correlation and disagreement as they are.

    OMP_NUM_THREADS=1 .venv/bin/python -m tests.products.gwsa.wells_study

writes ``infra/reports/gwsa_wells.json`` and prints the table of its README, in seconds. The real files lie beside the
checkout or where CENOTE_SHARED_DATA says. The grid is total water storage (soil moisture, snow and surface water with
the groundwater), 1 degree, smoothed over 300 km: no number here is a score of groundwater storage.
"""

import csv
import gzip
import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.validation import trend
from services.validation.selection import LOOSE, REASONS, STRICT, Rules, Wells
from services.validation.sites import Method, Scores, score

ROOT = Path(__file__).resolve().parents[3]
REPORT = ROOT / "infra" / "reports" / "gwsa_wells.json"

READINGS = "groundwater/ogallala_wells_monthly_2001_2020.csv.gz"
SITES = "groundwater/ogallala_wells_meta.csv"
GRACE = "groundwater/grace_csr_rl05_lwe_1deg_2002-2010.nc"

SPECIFIC_YIELD = 0.15
"""Declared, one for all: the file has none."""

GRID = "total water storage (TWS) of GRACE CSR RL05, not groundwater storage"


def read_wells(folder: Path) -> Wells:
    """Depths to water as storage: a depth that rises by 1 m is a loss of 100 x SPECIFIC_YIELD cm."""
    with gzip.open(folder / READINGS, "rt", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    with (folder / SITES).open(newline="", encoding="utf-8") as file:
        sites = {row["well_id"]: row for row in csv.DictReader(file)}
    names = tuple(header[1:])
    assert set(names) == set(sites)
    depth = np.array([[float(text or "nan") for text in row[1:]] for row in rows])
    months = np.array([row[0][:7] for row in rows], dtype="datetime64[M]").astype(np.int64)
    longitudes, latitudes = (
        np.array([float(sites[name][f"{axis}_from_id"] or "nan") for name in names])
        for axis in ("longitude", "latitude")
    )
    return Wells(
        names=names,
        longitudes=longitudes,
        latitudes=latitudes,
        months=months,
        storage=-100 * SPECIFIC_YIELD * depth,
    )


def read_grace(folder: Path, wells: Wells) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """TWS in cm of the cell that each well lies in, in the wells' months, and the cells' numbers.

    Returns:
        ``(time, site)`` with NaN in months without a solution and at wells without coordinates; ``(site,)``, -1 there.
    """
    with xr.open_dataset(folder / GRACE, engine="h5netcdf") as data:
        field = data.lwe_thickness.transpose("time", "lat", "lon").load()
        months = data.time.values.astype("datetime64[M]").astype(np.int64)
        rows, columns = field.indexes["lat"], field.indexes["lon"]
    assert field.attrs["units"] == "cm"
    assert len(set(months)) == len(months)
    assert set(months) <= set(wells.months.tolist())
    values = np.full(wells.storage.shape, np.nan)
    cells = np.full(len(wells.names), -1)
    placed = np.flatnonzero(np.isfinite(wells.longitudes) & np.isfinite(wells.latitudes))
    row = rows.get_indexer(wells.latitudes[placed], method="nearest", tolerance=0.5)
    column = columns.get_indexer(wells.longitudes[placed] % 360, method="nearest", tolerance=0.5)
    assert (row >= 0).all()
    assert (column >= 0).all()
    cells[placed] = row * len(columns) + column
    values[np.searchsorted(wells.months, months)[:, None], placed] = field.values[:, row, column]
    return values, cells


def as_before(wells: Wells, field: NDArray[np.float64]) -> dict[str, Any]:
    """As ``Baselines measured`` had it: lines of the wells on any month of the grid's span, of GRACE on all of its own.

    Wells are single, their trends without an annual cycle and GRACE's with one. Field and wells are then compared over
    different months: ``score`` does not do so.
    """
    seen = np.flatnonzero(np.isfinite(field).any(axis=1))
    span = slice(int(seen[0]), int(seen[-1]) + 1)
    months, storage = wells.months[span], wells.storage[span]
    count = np.isfinite(storage).sum(axis=0)
    first, last = (
        np.array([pick(np.flatnonzero(np.isfinite(column)), default=0) for column in storage.T]) for pick in (min, max)
    )
    years = (months[last] - months[first]) / 12
    used = np.isfinite(wells.longitudes) & (count >= LOOSE.least_readings) & (years >= LOOSE.least_years)
    well = trend.ols(storage[:, used], months, harmonics=0, least=LOOSE.least_readings).slope
    grace = trend.ols(field[span][:, used], months, harmonics=1).slope
    return {
        "wells": int(used.sum()),
        "well_median_cm_per_year": rounded(float(np.median(well))),
        "tws_mean_cm_per_year": rounded(float(grace.mean())),
        "tws_median_cm_per_year": rounded(float(np.median(grace))),
        "trend_correlation": rounded(float(np.corrcoef(well, grace)[0, 1])),
    }


def judged(
    wells: Wells, field: NDArray[np.float64], cells: NDArray[np.int64], rules: Rules, method: Method
) -> dict[str, Any]:
    """The scores as JSON data, or the sentence that refuses them."""
    try:
        found = score(wells, field, cells, rules=rules, method=method)
    except InputRefused as error:
        return {"refused": str(error)}
    return {**nested(found.to_json()), "disagreement": disagreement(found)}


def disagreement(found: Scores) -> dict[str, Any]:
    """TWS minus wells over the cells, cm a year, and which way both go."""
    difference = found.cells.field - found.cells.well
    low, middle, high = np.percentile(difference, [25, 50, 75])
    rises, falls = found.cells.field > 0, found.cells.well < 0
    return {
        "quartiles_cm_per_year": [rounded(float(value)) for value in (low, middle, high)],
        "tws_rises_and_wells_fall": rounded(float((rises & falls).mean())),
        "both_rise": rounded(float((rises & ~falls).mean())),
        "both_fall": rounded(float((~rises & falls).mean())),
        "tws_falls_and_wells_rise": rounded(float((~rises & ~falls).mean())),
    }


def rounded(value: float) -> float | None:
    """Four digits are more than the data has."""
    return round(value, 4) if math.isfinite(value) else None


def nested(data: Any) -> Any:
    """JSON data with its numbers rounded."""
    if isinstance(data, dict):
        return {key: nested(value) for key, value in data.items()}
    return rounded(data) if isinstance(data, float) else data


def study(folder: Path) -> dict[str, Any]:
    """The comparison as JSON data."""
    wells = read_wells(folder)
    field, cells = read_grace(folder, wells)
    # a well of its own in every cell
    single = np.where(cells >= 0, np.arange(len(cells)), -1)
    return {
        "command": "OMP_NUM_THREADS=1 .venv/bin/python -m tests.products.gwsa.wells_study",
        "commit": subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "HEAD"],  # noqa: S607
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip(),
        "data": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (READINGS, SITES, GRACE)},
        "field": GRID,
        "counts": {
            "wells": len(wells.names),
            "with_coordinates": int(np.isfinite(wells.longitudes).sum()),
            "readings": int(np.isfinite(wells.storage).sum()),
            "months_of_the_grid": int(np.isfinite(field).any(axis=1).sum()),
        },
        "settings": {"specific_yield": SPECIFIC_YIELD, "measures": "depth to water, m (by its range)"},
        "as_baselines_measured": as_before(wells, field),
        "loose": judged(wells, field, cells, LOOSE, "ols"),
        "loose_theil_sen": judged(wells, field, cells, LOOSE, "theil_sen"),
        "loose_single_wells": judged(wells, field, single, LOOSE, "ols"),
        "strict": judged(wells, field, cells, STRICT, "ols"),
    }


def as_markdown(report: dict[str, Any]) -> str:
    """The tables of the README."""
    lines = ["| | wells | cells | median of wells | of TWS | correlation | rmse | same sign |", "|" + "---|" * 8]
    for name in ("loose", "loose_theil_sen", "loose_single_wells"):
        found = report[name]
        field = found["field"]
        numbers = (found["well_median"], field["trend_median"], field["trend_correlation"], field["trend_rmse"])
        shown = " | ".join(f"{number:.2f}" for number in (*numbers, field["same_sign"]))
        lines.append(f"| `{name}` | {found['used']} | {found['cells']} | {shown} |")
    lines += ["", "| left out because of | wells |", "|---|---|"]
    lines += [f"| {reason} | {report['loose']['excluded'][reason]} |" for reason in REASONS]
    return "\n".join(lines) + "\n"


def main() -> None:
    folder = Path(os.environ.get("CENOTE_SHARED_DATA") or ROOT.parent / "shared" / "data")
    report = study(folder)
    REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(as_markdown(report))


if __name__ == "__main__":
    main()
