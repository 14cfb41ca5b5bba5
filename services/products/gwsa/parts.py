"""Folders that are made beside their place and seen under their name when they are whole."""

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEFT_SECONDS = 86400.0
"""A folder in the making that nobody wrote to for so long belongs to a process that was killed (our choice)."""

_ENDING = ".part"


@contextmanager
def made_beside(place: Path) -> Iterator[Path]:
    """Where a folder is made: a name of its own beside its place, to be renamed; removed if it was not.

    What killed processes left of others is removed first.

    Args:
        place: of the folder when it is whole.

    Yields:
        A path where nothing is yet.
    """
    _remove_left(place.parent)
    part = place.with_name(f".{place.name}.{uuid.uuid4().hex}{_ENDING}")
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_left(folder: Path) -> None:
    for part in folder.glob(f".*{_ENDING}"):
        with contextlib.suppress(OSError):  # another process may remove it, too
            newest = max(path.stat().st_mtime for path in (part, *part.rglob("*")))
            if time.time() - newest > LEFT_SECONDS:
                shutil.rmtree(part, ignore_errors=True)
