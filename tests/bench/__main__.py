"""``python -m tests.bench``: ours against real peers, on the same files, on this machine, in one run."""

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import quote

import psutil
from rich.console import Console

from tests.bench import data as making
from tests.bench import report, sections, stacks
from tests.bench.claims import claims
from tests.bench.environments import installed
from tests.bench.lineup import Ours, Peer
from tests.bench.servers import ROOT, Client, minio

REPORTS = ROOT / "infra" / "reports"
START_SHARE = 0.97
"""Of the minutes: nothing new is begun later."""


def note(text: str) -> None:
    """Progress goes to stderr."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)  # noqa: T201


def facts(arguments: argparse.Namespace, peers: list[Peer], load: tuple[float, ...]) -> dict[str, Any]:
    """What the numbers were measured with: nothing of this names a machine or a folder."""
    return {
        "command": " ".join(["python -m tests.bench", *sys.argv[1:]]),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "seed": stacks.SEED,
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "cpu": _cpu_model(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "system": platform.system(),
            "python": platform.python_version(),
            "load_before": [round(one, 1) for one in load],
            "load_after": [round(one, 1) for one in os.getloadavg()],
        },
        "versions": {"cenote": version("cenote"), **{peer.name: peer.version for peer in peers}},
        "minutes": arguments.minutes,
        "synthetic": True,
    }


def commit() -> str:
    """The commit of this checkout, marked if it is changed."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], check=False, capture_output=True, text=True)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "services", "tiler"], check=False, capture_output=True, text=True
    )
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def nameless(text: str, folder: Path) -> str:
    """A note without the folders of this machine; addresses may hold them quoted."""
    for path, name in ((folder, "TMP"), (making.bench_cache(), "CACHE"), (ROOT, "."), (Path.home(), "~")):
        text = text.replace(str(path), name).replace(quote(str(path)), name).replace(quote(str(path), safe=""), name)
    return text


def prepare(data: making.Data, folder: Path, chosen: tuple[stacks.Stack, ...], note: making.Note) -> None:
    """Make what is not there yet."""
    making.publish(data, chosen, note)
    for stack in (stacks.XCO2, stacks.GWSA):
        making.copy_maps(data, stack, note)
    for stack in (stacks.XCO2, *stacks.REGIONS):
        making.copy_series(data, stack, note)
    # GWSA stays out of MinIO: it would double the cache for one more row of cold tiles
    stored = [data.store / stack.id for stack in chosen if stack is not stacks.GWSA]
    copies = [data.map_copy(stacks.XCO2), *(data.series_copy(stack) for stack in (stacks.XCO2, *stacks.REGIONS))]
    with minio(data.minio, making.BUCKET, folder) as server:
        making.upload(data, server, [*stored, *copies], note)


def main() -> None:
    """Prepare, measure, report."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--minutes", type=float, default=9.0, help="of measuring; nothing new is begun later")
    parser.add_argument("--full", action="store_true", help="longer rounds, more of them")
    parser.add_argument("--only", default="", help=f"sections by commas: {', '.join(sections.NAMES)}")
    parser.add_argument("--no-reports", action="store_true", help="print only; write nothing into infra/reports")
    parser.add_argument("--prepare", action="store_true", help="make environments and data, and measure nothing")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",") if arguments.only else list(sections.NAMES)
    if unknown := set(wanted) - set(sections.NAMES):
        parser.error(f"there is no section {', '.join(sorted(unknown))}")

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        # an exception, so that every server is ended on the way out
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    data = making.Data(folder=making.bench_cache() / f"data-{making.FORMAT}")
    with tempfile.TemporaryDirectory(prefix="cenote-bench-") as temporary:
        folder = Path(temporary)
        peers, left_out = installed(note, (stacks.XCO2, stacks.GWSA))
        prepare(data, folder, stacks.FULL, note)
        if arguments.prepare:
            return
        load = os.getloadavg()
        note(f"measuring for at most {arguments.minutes:g} minutes; load before {load[0]:.1f}")
        start = time.monotonic()
        with minio(data.minio, making.BUCKET, folder) as server, contextlib.closing(Client()) as client:
            bench = sections.Bench(
                data=data,
                folder=folder,
                client=client,
                ours=Ours(commit()),
                peers=peers,
                stacks=(stacks.XCO2, stacks.GWSA),
                regions=stacks.REGIONS,
                note=note,
                deadline=start + arguments.minutes * 60 * START_SHARE,
                seconds=0.8 if arguments.full else 0.3,
                rounds=5 if arguments.full else 3,
                s3=server,
                notes=left_out,
            )
            sections.run(bench, wanted)
        rows = report.with_floor(bench.rows)
        notes = [nameless(line, folder) for line in bench.notes]
        content = report.document(rows, facts(arguments, peers, load), notes)
        console = Console(width=None if sys.stdout.isatty() else 180)
        report.tables(rows, console)
        report.promised(claims(rows, report.WITH_EMPTY), console)
        for line in notes:
            console.print(f"- {line}", markup=False, highlight=False)
        note(f"took {(time.monotonic() - start) / 60:.1f} minutes")
        if not arguments.no_reports:
            report.write(REPORTS, content, rows)
            note("written: infra/reports/bench.json, infra/reports/bench.svg")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        note("ended by a signal; every server was ended")
        sys.exit(130)
