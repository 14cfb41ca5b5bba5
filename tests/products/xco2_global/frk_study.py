"""A published daily map of XCO2 (OCO-2 v8r by fixed rank kriging) against eight real TCCON stations.

    OMP_NUM_THREADS=1 .venv/bin/python -m tests.products.xco2_global.frk_study

writes ``infra/reports/xco2_frk.json`` and prints the table of its README, in seconds. The real files lie beside the
checkout or where CENOTE_SHARED_DATA says. A day of a station is the mean of its spectra, which were taken within an
hour or so of the overpass; the map's value is that of the cell with the station. Both are on X2007: TCCON is GGG2014.
"""

import csv
import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.sources.tccon import Station, open_tccon
from services.validation.agreement import agreement, coverage, detrended, intervals, table
from services.validation.colocation import daily

ROOT = Path(__file__).resolve().parents[3]
REPORT = ROOT / "infra" / "reports" / "xco2_frk.json"
PICTURE = REPORT.with_suffix(".svg")

TCCON = "xco2/tccon_ggg2014_csv"
FRK = "xco2/oco2_v8r_frk_l3_at_tccon"

_YEAR = 365.25
_SHOWN = ("n", "bias", "rmse", "sd", "r2", "r2_pearson", "slope")


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Days that the map and a station both have; every array is ``(pair,)``."""

    station: NDArray[np.str_]
    """Two letters."""

    day: NDArray[np.int64]
    """Days since 1970, UTC."""

    map_ppm: NDArray[np.float64]
    map_sd: NDArray[np.float64]
    """Standard deviation that the map states, ppm."""

    tccon_ppm: NDArray[np.float64]
    tccon_error: NDArray[np.float64]
    """Mean of the spectra's stated errors, ppm."""

    spectra: NDArray[np.int64]


def read_map(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Days since 1970, ppm and standard deviation of the map at a station."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    days = np.array([row["date"][:10] for row in rows], dtype="datetime64[D]").astype(np.int64)
    assert len(set(days.tolist())) == len(rows)
    columns = np.array([[float(row[name]) for name in ("oco2_frk_xco2", "oco2_frk_sd")] for row in rows])
    return days, columns[:, 0], columns[:, 1]


def matched(folder: Path) -> Pairs:
    """The days of all stations."""
    parts = [
        _of_station(folder, station)
        for station in open_tccon([str(folder / TCCON / "*.csv.gz")], scale="X2007").stations
    ]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Pairs(**joined)


def _of_station(folder: Path, station: Station) -> dict[str, NDArray[Any]]:
    spectra = station.spectra
    means = daily(spectra.time, spectra.xco2, spectra.error)
    days, ppm, sd = read_map(folder / FRK / f"{station.name}_oco2_frk.csv")
    common, of_map, of_tccon = np.intersect1d(days, means.period, return_indices=True)
    return {
        "station": np.full(common.shape, station.site),
        "day": common,
        "map_ppm": ppm[of_map],
        "map_sd": sd[of_map],
        "tccon_ppm": means.xco2[of_tccon],
        "tccon_error": means.error[of_tccon],
        "spectra": means.spectra[of_tccon],
    }


def study(folder: Path) -> dict[str, Any]:
    """The comparison as JSON data."""
    pairs = matched(folder)
    months = pairs.day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    blocks = np.array([f"{station} {month}" for station, month in zip(pairs.station, months, strict=True)])
    both = np.hypot(pairs.map_sd, pairs.tccon_error)
    of_mean = np.hypot(pairs.map_sd, pairs.tccon_error / np.sqrt(pairs.spectra))
    left = detrended(pairs.map_ppm, pairs.tccon_ppm, 1970 + pairs.day / _YEAR, pairs.station)
    files = sorted((folder / TCCON).glob("*.csv.gz")) + sorted((folder / FRK).glob("*.csv"))
    found: dict[str, Any] = {
        "command": "OMP_NUM_THREADS=1 .venv/bin/python -m tests.products.xco2_global.frk_study",
        "commit": subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "HEAD"],  # noqa: S607
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip(),
        "data": {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
        "settings": {
            "scale": "X2007",
            "match": "day (UTC) and station; mean of the day's spectra",
            "blocks": "station and month, 2000 draws, seed 0",
            "trend and season": "of TCCON at each station, 2 harmonics",
        },
        "days": len(pairs.day),
        "blocks": len(set(blocks.tolist())),
        **table(pairs.map_ppm, pairs.tccon_ppm, pairs.station).to_json(),
        "interval_95": {name: list(ends) for name, ends in intervals(pairs.map_ppm, pairs.tccon_ppm, blocks).items()},
        "detrended": {
            "left_out": list(left.left_out),
            **left.agreement().to_json(),
            "interval_95": {
                name: list(intervals(left.values, left.reference, blocks[left.used])[name])
                for name in ("r2", "r2_pearson")
            },
        },
        "coverage_of_95_percent": {
            "map_sd": coverage(pairs.map_ppm, pairs.tccon_ppm, pairs.map_sd),
            "map_sd_and_tccon_error": coverage(pairs.map_ppm, pairs.tccon_ppm, both),
            "map_sd_and_error_of_the_mean": coverage(pairs.map_ppm, pairs.tccon_ppm, of_mean),
        },
        "bias_taken_out": _without_bias(pairs),
    }
    rounded: dict[str, Any] = nested(found)
    return rounded


def _without_bias(pairs: Pairs) -> dict[str, Any]:
    """What is left where each station's own bias is known and taken off, in hindsight."""
    values = pairs.map_ppm.copy()
    for station in np.unique(pairs.station):
        its = pairs.station == station
        values[its] -= (values[its] - pairs.tccon_ppm[its]).mean()
    return {
        "rmse": agreement(values, pairs.tccon_ppm).rmse,
        "coverage_map_sd": coverage(values, pairs.tccon_ppm, pairs.map_sd),
        "coverage_with_tccon_error": coverage(values, pairs.tccon_ppm, np.hypot(pairs.map_sd, pairs.tccon_error)),
    }


def nested(data: Any) -> Any:
    """JSON data with its numbers rounded: four digits are more than the data has."""
    if isinstance(data, dict):
        return {key: nested(value) for key, value in data.items()}
    if isinstance(data, list):
        return [nested(value) for value in data]
    if isinstance(data, float):
        return round(data, 4) if math.isfinite(data) else None
    return data


def as_markdown(report: dict[str, Any]) -> str:
    """The table of the README."""
    lines = ["| station | days | bias | rmse | sd | R2 | R2 (Pearson) | slope |", "|" + "---|" * 8]
    for name, found in {**report["stations"], "all": report["pooled"]}.items():
        shown = " | ".join(f"{found[key]:.2f}" for key in _SHOWN[1:])
        lines.append(f"| `{name}` | {found['n']} | {shown} |")
    return "\n".join(lines) + "\n"


def as_svg(pairs: Pairs) -> str:
    """Map minus TCCON, a point a day, a row a station; grey is the map's own 95 % interval about the line of 0."""
    names = np.unique(pairs.station).tolist()
    width, height, left, reach = 760, 62, 46, 5.0
    first, last = int(pairs.day.min()), int(pairs.day.max())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height * len(names) + 56}" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]

    def across(day: int) -> float:
        return left + (width - left - 10) * (day - first) / (last - first)

    for row, name in enumerate(names):
        its = pairs.station == name
        zero = height * (row + 0.5) + 8
        scale = height / 2 / reach
        parts.append(f'<text x="8" y="{zero + 4:.0f}">{name}</text>')
        for day, value, tccon, sigma in zip(
            pairs.day[its].tolist(), pairs.map_ppm[its], pairs.tccon_ppm[its], pairs.map_sd[its], strict=True
        ):
            x, apart = across(day), float(np.clip(value - tccon, -reach, reach))
            tall = 2 * 1.96 * sigma * scale
            parts.append(
                f'<rect x="{x - 0.75:.1f}" y="{zero - tall / 2:.1f}" width="1.5" height="{tall:.1f}" fill="#ddd"/>'
            )
            parts.append(f'<circle cx="{x:.1f}" cy="{zero - apart * scale:.1f}" r="1.4" fill="#1f5a92"/>')
        parts.append(f'<line x1="{left}" x2="{width - 10}" y1="{zero:.0f}" y2="{zero:.0f}" stroke="#888"/>')
    foot = height * len(names) + 28
    for year in range(2015, 2018):
        day = int(np.datetime64(f"{year}-01-01", "D").astype(np.int64))
        if first <= day <= last:
            parts.append(f'<line x1="{across(day):.0f}" x2="{across(day):.0f}" y1="8" y2="{foot - 14}" stroke="#bbb"/>')
            parts.append(f'<text x="{across(day) - 12:.0f}" y="{foot}">{year}</text>')
    parts.append(
        f'<text x="{left}" y="{foot + 18}">map - TCCON, rows of +-{reach:g} ppm; grey: 95 % by the map</text></svg>'
    )
    return "\n".join(parts) + "\n"


def main() -> None:
    folder = Path(os.environ.get("CENOTE_SHARED_DATA") or ROOT.parent / "shared" / "data")
    report = study(folder)
    REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    PICTURE.write_text(as_svg(matched(folder)), encoding="utf-8")
    sys.stdout.write(as_markdown(report))


if __name__ == "__main__":
    main()
