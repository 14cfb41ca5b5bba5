"""What studies of rendering share: a directory of their own, the command, and what its processes take."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
SAVED_EVERY = 30.0
"""Seconds between two notes of what was seen, so that a run that is killed is not lost."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The directory of a study."""

    directory: Path

    @property
    def inputs(self) -> Path:
        """What ``inputs`` wrote."""
        return self.directory / "inputs"

    @property
    def models(self) -> Path:
        """What was exported."""
        return self.directory / "models"

    @property
    def store(self) -> Path:
        """Where it is rendered to."""
        return self.directory / "store"

    def note(self, step: str, document: Any) -> None:
        """Keep what a step found, whole or not at all."""
        part = self.directory / f".{step}.part"
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        part.replace(self.directory / f"{step}.json")

    def noted(self, step: str) -> Any:
        """What a step found; nothing where it did not run."""
        path = self.directory / f"{step}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def tell(text: str) -> None:
    """How far it is."""
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stderr.flush()


def cenote(*words: str) -> list[str]:
    """The command, of this code."""
    return [sys.executable, "-c", "from services.cli import main; main()", *words]


def render(place: Place, words: list[str], done: Callable[[], int], *, sessions: bool = False) -> int:
    """Run a command that renders, and keep in ``render.json`` what its processes take; the command's exit status.

    Args:
        place: of the study.
        words: of ``cenote``.
        done: how many periods are rendered, as far as anybody can tell from outside.
        sessions: whether to note the CPU that workers spend in the models' sessions, too.
    """
    before, started = done(), datetime.now(UTC)
    counted = place.directory / "sessions" / f"{started:%Y%m%dT%H%M%S}"
    environment = dict(os.environ)
    if sessions:
        counted.mkdir(parents=True)
        environment["SESSION_SECONDS"] = str(counted)
        paths = [str(Path(__file__).parent / "session_seconds"), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    command = ["nice", "-n", "10", *cenote(*words)]
    child = subprocess.Popen(command, cwd=ROOT, env=environment)
    watch, runs = Watch(pid=child.pid), place.noted("render").get("runs", [])
    start = last = time.monotonic()
    while True:
        code = child.poll()
        watch.look()
        if code is not None or time.monotonic() - last > SAVED_EVERY:
            last = time.monotonic()
            run = {
                "started": started.isoformat(timespec="seconds"),
                "commit": commit(),
                "exit": code,
                "wall_s": round(last - start, 1),
                "months_before": before,
                "months_after": done(),
                **watch.told(),
            }
            if sessions:
                spent = [float(path.read_text(encoding="utf-8")) for path in counted.glob("session-*")]
                run["session_cpu_s"] = round(sum(spent), 1)
            held = sum(path.stat().st_size for path in place.store.rglob("*") if path.is_file())
            place.note("render", {"runs": [*runs, run], "store_bytes": held})
        if code is not None:
            tell(f"render ended with {code}; {done()} months are recorded")
            return code
        time.sleep(1)


@dataclass(kw_only=True)
class Watch:
    """What a command's processes take, seen once a second."""

    pid: int
    peaks: dict[int, int] = field(default_factory=dict)
    """Process that the command started -> most bytes that it and its children held."""

    cpu: dict[int, float] = field(default_factory=dict)
    """The same -> seconds of CPU."""

    own: tuple[int, float] = (0, 0.0)
    """Peak and CPU of the command itself, which is client and scheduler."""

    loads: list[float] = field(default_factory=list)

    def look(self) -> None:
        """See once."""
        self.loads.append(psutil.getloadavg()[0])
        try:
            command = psutil.Process(self.pid)
            self.own = (max(self.own[0], command.memory_info().rss), _cpu(command))
            started = command.children()
        except psutil.Error:
            return
        for process in started:
            try:
                if "resource_tracker" in " ".join(process.cmdline()):
                    continue
                family = [process, *process.children(recursive=True)]
                held = sum(one.memory_info().rss for one in family)
                self.cpu[process.pid] = sum(_cpu(one) for one in family)
                self.peaks[process.pid] = max(self.peaks.get(process.pid, 0), held)
            except psutil.Error:
                continue  # it ended between two looks

    def told(self) -> dict[str, Any]:
        """As JSON data; processes that did nearly nothing are none of the workers."""
        workers = [pid for pid in self.peaks if self.cpu.get(pid, 0) > 1]
        return {
            "workers": [{"peak_rss_bytes": self.peaks[pid], "cpu_s": round(self.cpu[pid], 1)} for pid in workers],
            "client": {"peak_rss_bytes": self.own[0], "cpu_s": round(self.own[1], 1)},
            "load_mean": round(float(np.mean(self.loads)), 2),
        }


def months_done(place: Place, collection: str) -> int:
    """Months whose maps the ledger of the segment that was written to last has."""
    ledgers = sorted(place.store.glob(f"{collection}/segments/*/ledger"), key=lambda path: path.stat().st_mtime)
    return sum(1 for _ in ledgers[-1].glob("maps-*.json")) if ledgers else 0


def commit() -> str:
    """Of this checkout; with a + where it was changed."""
    found = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()


def cpu_name() -> str:
    """What the system calls the processor."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
