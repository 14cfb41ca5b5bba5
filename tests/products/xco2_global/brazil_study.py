"""A real case: OCO-2's raw cells over South America, a year that was not seen and blocks of one that were not.

    OMP_NUM_THREADS=1 .venv/bin/python -m tests.products.xco2_global.brazil_study DIRECTORY

leaves its four parts in DIRECTORY, each a minute or two of a core, writes ``infra/reports/xco2_brazil.json`` from them
and prints the tables of its README; ``DIRECTORY unfiltered time`` does one part, ``DIRECTORY report`` what comes after.
The real files lie beside the checkout or where CENOTE_SHARED_DATA says. Contestants get where and when a cell lies and
what is known there without a sounding; their answers are held against cells that no filter has touched, and in a second
table against cells that one filter has passed, trained on such cells, too.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.validation import folds
from services.validation.baselines import (
    Background,
    Rows,
    background_season_anomaly,
    best_nearest,
    climatology_trend,
    inverse_distance,
    last_year,
    same_month_before,
)
from services.validation.bootstrap import rmse_difference
from tests.products.xco2_global.brazil_data import (
    FIRST,
    LAST,
    MOST_OFF,
    OUTAGE,
    SCALE,
    Days,
    Monthly,
    Surroundings,
    mauna_loa,
    month_of,
    read_days,
    read_surroundings,
)

ROOT = Path(__file__).resolve().parents[3]
REPORT = ROOT / "infra" / "reports" / "xco2_brazil.json"

SPLIT = "2018-01"
"""The first month of the test year."""

BLOCK = 5.0
"""Degrees along a side of what is withheld, and of what the bootstrap draws, with each month for itself."""

SHARE = 0.2
"""Of the blocks of the test year that are withheld in the gaps."""

SEED = 0
"""Of what is withheld, of dealing, of the bootstrap."""

SEEDS = (0, 1, 2)
"""Of what learns with chance: the mean over them is scored."""

DRAWS = 2000
"""Of the bootstrap."""

NEIGHBOURS = (1, 2, 5, 10, 20, 50, 100, 200, 400, 800)
"""Among which IDW's number is chosen."""

WHY = (
    "Of the same covariates trees leave less than the network in three of four tables, and not surely in the "
    "fourth. The product keeps the network as it is what issue 6 names, says a spread for each cell and the share of "
    "each month, and runs as a graph that is checked against torch: a choice and no finding, whose price `reading` "
    "tells. infra/decisions/0015-xco2.md says what trees would take."
)
"""Why the product does not use what is best."""

TABLES, DESIGNS = ("unfiltered", "filtered"), ("time", "gaps")

CLIMATOLOGY, NEAR, BACKGROUND, LEARNED = "climatology and trend", "neighbours", "Mauna Loa", "learned"
"""Kinds of contestants; the network has to beat those of the first two."""

type Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a contestant gets: rows with values, rows that are asked for, what is known of both without soundings."""

    seen: Rows
    values: Values
    """ppm, ``(row,)``."""

    time: Values
    """Of the days that were averaged, s since 1970, ``(row,)``."""

    days: NDArray[np.int64]
    """How many they were, ``(row,)``."""

    asked: Rows
    background: Background
    """Mauna Loa, monthly."""

    around: Surroundings

    growth: bool = False
    """Whether Mauna Loa's growth of the year is a covariate. It is one number a month, and months of one season differ
    by little else: what learns from few years learns them by heart (README of the reports: chosen on years to 2017)."""

    def covariates(self, rows: Rows) -> dict[str, Values]:
        """Of each row in its month, ``(row,)`` each, in order; nothing of any sounding."""
        line, column = self.around.at(rows)
        angle = 2 * np.pi * (rows.month % 12) / 12
        year = self.background.year_ending()
        found = {
            "longitude": rows.longitude,
            "latitude": rows.latitude,
            "sin_month": np.sin(angle),
            "cos_month": np.cos(angle),
            "land": self.around.land[line, column],
            "land_around": self.around.land_around[line, column],
            "turbidity": self.around.turbidity[rows.month % 12, line, column],
            "mauna_loa_season": self.background.at(rows.month) - year.at(rows.month),
        }
        if self.growth:
            found["mauna_loa_growth"] = year.at(rows.month) - year.at(rows.month - 12)
        return found


type Contestant = Callable[[Case], list[Values]]
"""Answers a case: ``(row,)`` ppm for each of SEEDS, or one answer where chance has no part."""


# -- contestants


def both(one: Rows, other: Rows) -> Rows:
    """One behind the other."""
    return Rows(
        longitude=np.concatenate([one.longitude, other.longitude]),
        latitude=np.concatenate([one.latitude, other.latitude]),
        month=np.concatenate([one.month, other.month]),
    )


def contestants(design: str, neighbours: int) -> dict[str, tuple[str, Contestant]]:
    """Kind and contestant by name; the network is added by who runs the study."""
    found: dict[str, tuple[str, Contestant]] = {
        "climatology + trend of the domain": (
            CLIMATOLOGY,
            lambda case: [climatology_trend(case.seen, case.values, case.asked)],
        ),
        "climatology + trend, smooth in space": (
            CLIMATOLOGY,
            lambda case: [climatology_trend(case.seen, case.values, case.asked, degree=3)],
        ),
        "Mauna Loa + season": (
            BACKGROUND,
            lambda case: [
                background_season_anomaly(
                    case.seen, case.values, case.asked, case.background.year_ending(), degrees=None
                )
            ],
        ),
        "Mauna Loa + season + block anomaly": (
            BACKGROUND,
            lambda case: [background_season_anomaly(case.seen, case.values, case.asked, case.background.year_ending())],
        ),
        "last year, nearest + growth": (NEAR, lambda case: [last_year(case.seen, case.values, case.asked, nearest=1)]),
        f"last year, IDW-{neighbours} + growth": (
            NEAR,
            lambda case: [last_year(case.seen, case.values, case.asked, nearest=neighbours)],
        ),
    }
    if design == "gaps":
        found |= {
            "nearest of the month": (
                NEAR,
                lambda case: [inverse_distance(case.seen, case.values, case.asked, nearest=1)],
            ),
            f"IDW-{neighbours} of the month": (
                NEAR,
                lambda case: [inverse_distance(case.seen, case.values, case.asked, nearest=neighbours)],
            ),
        }
    return found


# -- designs


def case_of(design: str, monthly: Monthly, background: Background, around: Surroundings) -> tuple[Case, Values]:
    """The case and what was measured where it asks."""
    rows = monthly.rows
    test = rows.month >= month_of(SPLIT)
    if design == "gaps":
        blocks = folds.space_time(rows.longitude[test], rows.latitude[test], rows.month[test], BLOCK)
        test[test] = folds.withheld(blocks, SHARE, SEED)
    seen = monthly.take(~test)
    case = Case(
        seen=seen.rows,
        values=seen.values,
        time=seen.time,
        days=seen.days,
        asked=rows.take(test),
        background=background,
        around=around,
    )
    return case, monthly.values[test]


def neighbours_of(case: Case) -> int:
    """The number that does best in withheld blocks of the last twelve months that are seen."""
    recent = case.seen.month > case.seen.month.max() - 12
    seen = case.seen.take(recent)
    labels = folds.space_time(seen.longitude, seen.latitude, seen.month, BLOCK)
    return best_nearest(seen, case.values[recent], labels, choices=NEIGHBOURS, seed=SEED)


def rounded(value: float) -> float:
    """To what tables show."""
    return round(float(value), 4)


def scored(case: Case, known: Values, players: dict[str, tuple[str, Contestant]]) -> dict[str, Any]:
    """Every contestant's scores, and each learned one against each of the others."""
    blocks = folds.space_time(case.asked.longitude, case.asked.latitude, case.asked.month, BLOCK)
    found: dict[str, Any] = {}
    squares: dict[str, Values] = {}
    for name, (kind, play) in players.items():
        begun = time.process_time()
        answers = play(case)
        errors = np.stack(answers) - known
        if not np.isfinite(errors).all():
            raise AssertionError(f"{name} does not answer {int((~np.isfinite(errors)).sum())} cells")
        # the mean over seeds is that of the squared error
        squares[name] = np.sqrt((errors**2).mean(axis=0))
        rmses = np.sqrt((errors**2).mean(axis=1))
        found[name] = {
            "kind": kind,
            "rmse": rounded(np.sqrt((errors**2).mean())),
            "rmse_of_seeds": [rounded(one) for one in rmses],
            "rmse_of_their_mean": rounded(np.sqrt((errors.mean(axis=0) ** 2).mean())),
            "bias": rounded(errors.mean()),
            "r2": rounded(1 - (errors**2).mean() / known.var()),
            "cpu_s": round(time.process_time() - begun, 1),
        }
        sys.stderr.write(f"{name}: {found[name]['rmse']}\n")
    for name, (kind, _) in players.items():
        if kind != LEARNED:
            continue
        against = {}
        for other in players:
            if other != name:
                one = rmse_difference(squares[name], squares[other], blocks, draws=DRAWS, seed=SEED)
                against[other] = {key: rounded(value) for key, value in one.to_json().items()}
        found[name]["less"] = against
    return found


@cache
def read_all(folder: Path) -> tuple[Days, Surroundings]:
    """What the real files hold, which all parts read."""
    days = read_days(folder)
    return days, read_surroundings(folder, days.monthly().rows)


def part(folder: Path, table: str, design: str) -> dict[str, Any]:
    """One design on unfiltered or filtered cells, as JSON data."""
    from tests.products.xco2_global.brazil_learned import learned, products  # noqa: PLC0415 - it imports this module

    begun = time.process_time()
    days, around = read_all(folder)
    monthly = (days if table == "unfiltered" else days.filtered()).monthly()
    case, known = case_of(design, monthly, mauna_loa(folder), around)
    neighbours = neighbours_of(case)
    sys.stderr.write(f"-- {table}, {design}: {len(known)} of {len(monthly)} cells, IDW-{neighbours}\n")
    before = {month: same_month_before(case.seen.month, month) for month in np.unique(case.asked.month).tolist()}
    return {
        "data": days.digests,
        "commit": commit(),
        "cells": len(known),
        "seen": len(case.seen),
        "std": rounded(known.std()),
        "neighbours": neighbours,
        "last_year_is": {
            str(np.datetime64(month, "M")): str(np.datetime64(one, "M")) for month, one in before.items() if one
        },
        "products": products(design),
        "scores": scored(case, known, contestants(design, neighbours) | learned(design)),
        "cpu_s": round(time.process_time() - begun),
    }


def commit() -> str:
    """That is checked out.

    Raises:
        AssertionError: if files of it were changed, as a report is of a commit.
    """
    git = ("git", "-C", str(ROOT))
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no"], check=True, capture_output=True, text=True
    )
    others = [line for line in changed.stdout.splitlines() if "infra/reports/" not in line]
    if others:
        raise AssertionError(f"the checkout is no commit: {', '.join(others)}")
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def report_of(parts: dict[str, dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """All parts as JSON data.

    Args:
        parts: by table, then design.
        settings: of what learns.

    Raises:
        AssertionError: if the parts were made from different files or by different commits.
    """
    data, commits = (
        [one.pop(name) for designs in parts.values() for one in designs.values()] for name in ("data", "commit")
    )
    if any(one != data[0] for one in data) or len(set(commits)) > 1:
        raise AssertionError("the parts were made from different files or by different commits")
    return {
        "command": "OMP_NUM_THREADS=1 .venv/bin/python -m tests.products.xco2_global.brazil_study DIRECTORY",
        "commit": commits[0],
        "reading": [
            line
            for table in TABLES
            for design in DESIGNS
            for line in reading(f"{table}, {design}", parts[table][design])
        ],
        "why_the_network": WHY,
        "data": data[0],
        "target": "raw XCO2 of OCO-2, not filtered by quality, not corrected for bias; monthly means of daily cells",
        "months": f"{FIRST} to {LAST} without {OUTAGE} (OCO-2 was out)",
        "scale": SCALE,
        "filter": f"a day's cell within {MOST_OFF} robust standard deviations of the median of its month's cells",
        "settings": {
            "split": SPLIT,
            "block_degrees": BLOCK,
            "share_withheld": SHARE,
            "seed": SEED,
            "seeds": list(SEEDS),
            "bootstrap_draws": DRAWS,
            **settings,
        },
        **parts,
    }


def reading(where: str, found: dict[str, Any]) -> list[str]:
    """What a part says, in words made of its numbers.

    Args:
        where: what it is called.
        found: the part.
    """
    scores = found["scores"]
    learned = {name: one for name, one in scores.items() if one["kind"] == LEARNED}
    lines = []
    for name, one in learned.items():
        # the rival that comes closest decides
        rival, less = max(
            ((other, less) for other, less in one["less"].items() if scores[other]["kind"] in {CLIMATOLOGY, NEAR}),
            key=lambda pair: pair[1]["high"],
        )
        verdict = "below every climatology, nearest and IDW" if less["high"] < 0 else "not surely below all baselines"
        lines.append(f"{where}: {name} {one['rmse']:.3f} ppm, {verdict}; closest {rival}: {_interval(less)}")
    best = min(learned, key=lambda name: learned[name]["rmse"])
    for mine in ("network", "trees"):
        name = found["products"][mine]
        if name != best:
            lines.append(f"{where}: the best, {best}, less {name}: {_interval(scores[best]['less'][name])}")
    mine, other = found["products"]["network"], found["products"]["trees"]
    lines.append(f"{where}: what the product does, {mine}, less {other}: {_interval(scores[mine]['less'][other])}")
    return lines


def _interval(less: dict[str, float]) -> str:
    return f"{less['difference']:+.3f} ({less['low']:+.3f} to {less['high']:+.3f})"


def as_markdown(report: dict[str, Any]) -> str:
    """The tables of the README: what the product does and the same with trees, less each."""
    lines = []
    for table in TABLES:
        for design in DESIGNS:
            found = report[table][design]
            learned = list(found["products"].values())
            heads = ["RMSE ppm", "bias", "R2", *(f"{name} less this (95 %)" for name in learned)]
            lines += [
                f"| {table}, {design}: {found['cells']} cells | {' | '.join(heads)} |",
                "|" + "---|" * (len(heads) + 1),
            ]
            for name, one in found["scores"].items():
                cells = [f"{one['rmse']:.3f}", f"{one['bias']:+.2f}", f"{one['r2']:.3f}"]
                for learner in learned:
                    less = found["scores"][learner]["less"].get(name)
                    cells.append(_interval(less) if less else "")
                lines.append(f"| {name} | {' | '.join(cells)} |")
            lines.append("")
    return "\n".join(lines)


def learned_settings() -> dict[str, Any]:
    """Of what learns, for the report."""
    from tests.products.xco2_global.brazil_learned import settings  # noqa: PLC0415 - it imports this module

    return settings()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("table", nargs="?", choices=(*TABLES, "report"))
    parser.add_argument("design", nargs="?", choices=DESIGNS)
    given = parser.parse_args()
    folder = Path(os.environ.get("CENOTE_SHARED_DATA") or ROOT.parent / "shared" / "data")
    given.directory.mkdir(parents=True, exist_ok=True)
    wanted = [(table, design) for table in TABLES for design in DESIGNS]
    if given.table:
        wanted = [one for one in wanted if one == (given.table, given.design)]
    for table, design in wanted:
        found = part(folder, table, design)
        (given.directory / f"{table}_{design}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if given.table in (None, "report"):
        parts = {
            table: {design: json.loads((given.directory / f"{table}_{design}.json").read_text()) for design in DESIGNS}
            for table in TABLES
        }
        report = report_of(parts, learned_settings())
        REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(as_markdown(report))


if __name__ == "__main__":
    main()
