"""Which code computes: the same on client and workers, and part of every segment id."""

import hashlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

OURS = ("models", "services")


@dataclass(frozen=True, kw_only=True)
class Code:
    """Identity of the installed code."""

    version: str
    """Version of the distribution."""

    source: str
    """SHA-256 over every Python source of ``services``, ``models`` and ``packages``, so that an edit shows without a
    commit."""

    packages: tuple[str, ...] = ()
    """Further top-level packages that a recipe comes from, sorted: a product may be kept in one of its own."""

    def to_json(self) -> dict[str, object]:
        """As JSON data."""
        return {**asdict(self), "packages": list(self.packages)}


@cache
def this_code(packages: tuple[str, ...] = ()) -> Code:
    """The identity of the code that runs, with that of further top-level packages."""
    hasher = hashlib.sha256()
    for package in (*OURS, *packages):
        for folder in _folders(package):
            for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]:
                hasher.update(str(path.relative_to(folder.parent)).encode() + b"\0")
                hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return Code(version=importlib.metadata.version("cenote"), source=hasher.hexdigest(), packages=packages)


def packages_of(recipe: object) -> tuple[str, ...]:
    """Top-level packages, other than ours, of a recipe and of the recipes it is made of."""
    found: set[str] = set()
    pending = [recipe]
    while pending:
        kind = type(one := pending.pop())
        found.add(kind.__module__.partition(".")[0])
        pending += [part for part in vars(one).values() if hasattr(part, "compute")] if hasattr(one, "__dict__") else []
    return tuple(sorted(found.difference(OURS)))


def _folders(package: str) -> list[Path]:
    """Where a package lies, or its only file; nothing where it is not installed, which then differs."""
    if package in OURS:
        return [_root() / package]
    module = sys.modules.get(package)
    if module is not None and getattr(module, "__spec__", None) is None:  # __main__ of a script
        return [Path(module.__file__)] if module.__file__ else []
    spec = importlib.util.find_spec(package)
    if spec is None:
        return []
    places = spec.submodule_search_locations or ([spec.origin] if spec.origin else [])
    return sorted({Path(place).resolve() for place in places})  # a namespace may lie on the path twice


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
