"""``python -m tests.bench.layouts``: chunks, shards, codecs, packing, levels and blocks, each against others."""

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

from rich.console import Console

from tests.bench.__main__ import REPORTS, facts, note
from tests.bench.layouts import chunks, maps, series, tables
from tests.bench.layouts.coding import TODAY, has_pcodec
from tests.bench.layouts.cuts import BYTES_PER_MS, NEARBY, WAIT_MS
from tests.bench.layouts.material import real_folder
from tests.bench.layouts.tables import Table

SECTIONS: dict[str, Callable[[], list[Table]]] = {
    "codecs": lambda: [*chunks.map_codecs(), *chunks.series_codecs()],
    "real": chunks.real_codecs,
    "alignment": chunks.alignment,
    "packing": chunks.packing,
    "widths": lambda: [*maps.touched(), *maps.widths_and_shards()],
    "tiles": maps.tile_codecs,
    "levels": maps.factors,
    "series": chunks.series_widths,
    "blocks": series.blocks,
    "twice": series.twice,
}

PICTURED = ("map codecs, xco2 int16", "series codecs, xco2 int16 t y x", "series codecs, gwsa int16 t y x")


def assumed() -> list[str]:
    """What the numbers rest on, and what could not be measured here."""
    near = NEARBY // 1024
    notes = [
        "all in memory: CPU is measured, requests and bytes are counted",
        f"wait ms is told, not measured: CPU, {WAIT_MS:g} ms for each object in turn, {BYTES_PER_MS / 1e3:g} MB/s",
        f"ranges of an object at most {near} KiB apart are one GET that fetches what lies between, too, as in obstore",
        "bytes of full products are told from a part, by valid cells; the land mask has steps of a quarter of a degree",
        "level 0 twice: all lies in one map chunk, where tiles of the whole product touch 1.1..1.3 at these zooms",
    ]
    if not has_pcodec():
        notes.append("pcodec: left out, it is not installed (tests/bench/README.md)")
    if real_folder() is None:
        notes.append(
            "real rasters: left out, there are none beside the checkout (CENOTE_SHARED_DATA names another place)"
        )
    return notes


def main() -> None:
    """Measure, report."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.layouts", description=__doc__)
    parser.add_argument("--only", default="", help=f"sections by commas: {', '.join(SECTIONS)}")
    parser.add_argument("--no-reports", action="store_true", help="print only; write nothing into infra/reports")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",") if arguments.only else list(SECTIONS)
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"there is no section {', '.join(sorted(unknown))}")
    load, start = os.getloadavg(), time.monotonic()
    found: list[Table] = []
    for name in wanted:
        note(f"{name}; peak memory {_peak():.1f} GB so far")
        found += SECTIONS[name]()
    arguments.minutes = round((time.monotonic() - start) / 60, 1)
    about = facts(arguments, [], load)
    about["command"] = " ".join(["python -m tests.bench.layouts", *sys.argv[1:]])
    names = ("cenote", "numcodecs", "numpy", *(("pcodec",) if has_pcodec() else ()))
    about["versions"] = {name: version(name) for name in names}
    about["peak_gb"] = round(_peak(), 1)
    notes = assumed()
    console = Console(width=None if sys.stdout.isatty() else 200)
    tables.show(found, console)
    for line in notes:
        console.print(f"- {line}", markup=False, highlight=False)
    note(f"took {arguments.minutes:g} minutes")
    if arguments.no_reports:
        return
    machine = about["machine"]
    under = f"{machine['cores']} cores, {machine['cpu']}; cenote {about['commit']}; synthetic data; dark: in use"
    pictured = [table for table in found if table.id in PICTURED]
    tables.write(REPORTS, tables.document(found, about, notes), tables.svg(pictured, under, TODAY))
    note("written: infra/reports/layouts.json, infra/reports/layouts.svg")


def _peak() -> float:
    """GB of memory that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
