"""Digests of files that were read before, so that terabytes of inputs are read once and not for every plan.

A digest is believed while the file is what it was as far as the system tells without reading it: place, size, inode,
and the times of its last change of content and of its last change at all, to the nanosecond. Whoever writes into a file
moves the latter, also if the former is set back. What this cannot see is a change that leaves all of them as they were:
on a file system that keeps no such times, on a disk that is written past its file system, through a memory map that the
system has not written back, or on a server whose clock lags behind this machine's by more than SETTLED_SECONDS and
counts in whole seconds.
"""

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SETTLED_SECONDS = 10.0
"""A file that changed later than this before it was read may change again without a new time: it is read each time."""

KEPT_SECONDS = 30 * 86400.0
"""A digest is believed for so long; then the file is read once more, whatever the system tells (our choice)."""

REHASH = "CENOTE_REHASH"
"""If set (to anything but 0) every input is read whole, and nothing of it is remembered."""

_SWEPT = "swept"
_SWEEP_SECONDS = 86400.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class State:
    """What the system tells of some files without reading them."""

    location: str
    """Absolute path of the file, or of the folder that they lie in, and which of it is meant."""

    identity: str
    """Digest of path, device, inode, size and times of each."""

    changed: float
    """When the last one changed, seconds since 1970-01-01."""

    @classmethod
    def of(cls, location: str, files: Iterable[tuple[str, os.stat_result]]) -> "State":
        """From each file's path and status."""
        digest, changed = hashlib.sha256(), 0.0
        for path, status in files:
            facts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            digest.update(f"{path}\t{facts}\n".encode())
            changed = max(changed, status.st_mtime, status.st_ctime)
        return cls(location=location, identity=digest.hexdigest(), changed=changed)


def recall(state: State, folder: Path) -> str | None:
    """The digest that files had when they were last read; None where they are to be read.

    Args:
        state: of the files now.
        folder: where ``remember`` keeps what it is told.
    """
    if _rehash():
        return None
    place = _place(state, folder)
    try:
        age = time.time() - place.stat().st_mtime
        kept = json.loads(place.read_bytes())
        same = (kept["location"], kept["identity"]) == (state.location, state.identity)
        sha256 = str(kept["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # never kept, or half of it: the file is read
    return sha256 if same and 0 <= age < KEPT_SECONDS and _SHA256.fullmatch(sha256) else None


def remember(state: State, sha256: str, began: float, folder: Path) -> None:
    """Keep a digest, unless the files had only just changed when they were read.

    It is put in place whole, so that any number of processes may do it; where it cannot be kept nothing is lost but
    time.

    Args:
        state: before the files were read and still afterwards.
        sha256: of what was read.
        began: when the reading began, seconds since 1970-01-01.
        folder: made if it is not there.
    """
    if _rehash() or began - state.changed < SETTLED_SECONDS:
        return
    kept = {"location": state.location, "identity": state.identity, "sha256": sha256}
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=folder, prefix=".")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(kept, file)
            Path(scratch).replace(_place(state, folder))
        finally:
            Path(scratch).unlink(missing_ok=True)


def forget_old(folder: Path) -> None:
    """Remove what is no longer believed; looked for once a day."""
    mark, now = folder / _SWEPT, time.time()
    with contextlib.suppress(OSError):
        if mark.exists() and now - mark.stat().st_mtime < _SWEEP_SECONDS:
            return
        mark.touch()
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > KEPT_SECONDS:
                    path.unlink()


def _place(state: State, folder: Path) -> Path:
    return folder / f"{hashlib.sha256(state.location.encode()).hexdigest()}.json"


def _rehash() -> bool:
    return os.environ.get(REHASH, "0") not in {"", "0"}
