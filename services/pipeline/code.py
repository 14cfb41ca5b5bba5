"""Which code this is: the same on client and workers, and part of every segment id."""

import hashlib
import importlib.metadata
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Code:
    """Identity of the installed code."""

    version: str
    """Version of the distribution."""

    source: str
    """SHA-256 over every Python source of ``services`` and ``models``, so that an edit shows without a commit."""

    def to_json(self) -> dict[str, str]:
        """As JSON data."""
        return asdict(self)


@cache
def this_code() -> Code:
    """The identity of the code that runs."""
    hasher = hashlib.sha256()
    root = _root()
    for package in ("models", "services"):
        for path in sorted((root / package).rglob("*.py")):
            hasher.update(str(path.relative_to(root)).encode() + b"\0")
            hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return Code(version=importlib.metadata.version("cenote"), source=hasher.hexdigest())


@cache
def commit() -> str | None:
    """The git commit of a checkout, ``+`` behind it where files differ from it; None outside a checkout."""
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != _root():
        return None  # installed, and perhaps into somebody else's checkout
    return _git("describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*")


def _git(*words: str) -> str | None:
    command = ["git", "-C", str(_root()), *words]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)  # noqa: S603 - fixed words
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def _root() -> Path:
    return Path(__file__).resolve().parents[2]
