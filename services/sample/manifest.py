"""Writes a set of sample files: each takes its place whole, and a set that is there already is kept.

A manifest beside the files says what they were made from and holds bytes and sha256 of each, so that a second call
hashes and does nothing else. A folder, as of a Zarr store, counts as one file.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

type Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what was done last."""

MANIFEST = "manifest.json"
SYNTHETIC = "synthetic: made by cenote's sample Earth; no measurement and no model of the real one"


def write_set(
    directory: Path,
    made_from: dict[str, Any],
    write: Callable[[], Iterator[tuple[str, int]]],
    progress: Progress | None,
) -> list[Path]:
    """Write a set of files, or keep it where it is already what would be written.

    Args:
        directory: made if it is not there; other files in it are left alone.
        made_from: what the files follow from; JSON.
        write: writes them with ``replaced`` and yields the name of each and the number of all.
        progress: told of every step.

    Returns:
        The files, by name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    wanted = {"note": SYNTHETIC, **made_from}
    before = _manifest(directory)
    if all(before.get(key) == value for key, value in wanted.items()) and _intact(directory, before["files"]):
        return [directory / name for name in sorted(before["files"])]
    (directory / MANIFEST).unlink(missing_ok=True)
    files: dict[str, dict[str, Any]] = {}
    for step, (name, total) in enumerate(write()):
        files[name] = _facts(directory / name)
        if progress is not None:
            progress(step + 1, total, name)
    for name in sorted(set(before.get("files", {})) - set(files)):
        _remove(directory / name)
    part = directory / f".{MANIFEST}.part"
    part.write_text(json.dumps({**wanted, "files": dict(sorted(files.items()))}, indent=1) + "\n")
    part.replace(directory / MANIFEST)
    return [directory / name for name in sorted(files)]


class replaced:  # noqa: N801 - reads as a verb at its uses
    """A temporary path beside ``path`` that takes its place at the end, unless the bytes are the same."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")

    def __enter__(self) -> Path:
        _remove(self._part)
        return self._part

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None or (self._path.exists() and _facts(self._path) == _facts(self._part)):
            _remove(self._part)
            return
        if self._part.is_dir() or self._path.is_dir():
            # A folder cannot take the place of another in one step.
            _remove(self._path)
        self._part.replace(self._path)


def generator(*names: str) -> str:
    """Digest of the code and data beside this file that make the files, so that changed ones are written anew."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for name in names:
        digest.update((here / name).read_bytes())
    return digest.hexdigest()


def _manifest(directory: Path) -> dict[str, Any]:
    try:
        held = json.loads((directory / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) and isinstance(held.get("files"), dict) else {}


def _intact(directory: Path, files: dict[str, Any]) -> bool:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return all(pool.map(lambda name: _facts(directory / name) == files[name], files))


def _facts(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        return _facts_of_file(path)
    inside = {
        file.relative_to(path).as_posix(): _facts_of_file(file) for file in sorted(path.rglob("*")) if file.is_file()
    }
    listing = json.dumps(inside, sort_keys=True).encode()
    return {
        "bytes": sum(facts["bytes"] for facts in inside.values()),
        "sha256": hashlib.sha256(listing).hexdigest(),
    }


def _facts_of_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError:
        return {}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
