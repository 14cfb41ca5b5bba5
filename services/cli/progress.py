"""How far long work is: bars in a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from services.cli.session import note

if TYPE_CHECKING:
    from services.pipeline import run

SECONDS_BETWEEN_LINES = 10.0

_WORDS = {"maps": "regions", "levels": "levels", "series": "series", "cog": "COGs"}


class Bars:
    """A bar for each stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def start(self, stage: str, total: int, done: int) -> None:
        """A stage begins."""
        self._bars[stage] = self._progress.add_task(_WORDS.get(stage, stage), total=total, completed=done)

    def advance(self, stage: str, task: str) -> None:  # noqa: ARG002 - the protocol's
        """A task is finished."""
        self._progress.advance(self._bars[stage])

    def note(self, text: str) -> None:
        """A line above the bars."""
        self._progress.console.print(text, markup=False, highlight=False)


class Lines:
    """A log line when a stage begins, every few seconds, and when it ends."""

    def __init__(self) -> None:
        self._stages: dict[str, list[int]] = {}
        self._last = time.monotonic()

    def start(self, stage: str, total: int, done: int) -> None:
        """A stage begins."""
        self._stages[stage] = [done, total]
        note(f"{_WORDS.get(stage, stage)}: {total} to write" + (f", {done} of them recorded already" if done else ""))

    def advance(self, stage: str, task: str) -> None:
        """A task is finished."""
        counts = self._stages[stage]
        counts[0] += 1
        now = time.monotonic()
        if counts[0] == counts[1] or now - self._last > SECONDS_BETWEEN_LINES:
            self._last = now
            note(f"{_WORDS.get(stage, stage)}: {counts[0]} of {counts[1]} written, last {task}")

    def note(self, text: str) -> None:
        """A line."""
        note(text)


@contextmanager
def progress() -> "Iterator[run.Progress]":
    """Bars where somebody looks, lines elsewhere."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        yield Bars(shown)


@contextmanager
def bytes_read() -> Iterator[Callable[[int, int], None]]:
    """Progress of reading input files for their digests; silent where it takes less than a few seconds."""
    if not sys.stderr.isatty():
        last = time.monotonic()

        def tell(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                note(f"inputs: {done / 1e6:.0f} of {total / 1e6:.0f} MB read")

        yield tell
        return
    columns = (TextColumn("{task.description:>8}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        bar = shown.add_task("inputs", total=None)
        yield lambda done, total: shown.update(bar, completed=done, total=total)
