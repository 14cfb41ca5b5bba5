"""Folders of what recipes prepare: named after all that they follow from, and seen under their name when whole."""

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.core import layout
from services.pipeline.code import this_code

LEFT_SECONDS = 86400.0
"""A folder in the making that nobody wrote to for so long belongs to a process that was killed (our choice)."""

_ENDING = ".part"


def prepared(directory: Path, follows_from: Mapping[str, Any]) -> Path:
    """``prepared/DIGEST`` in a directory of inputs.

    Args:
        directory: of the inputs.
        follows_from: JSON data: digests of files, settings; the digest is that of these and of this code.
    """
    told = {**follows_from, "code": this_code().to_json()}
    return directory.resolve() / "prepared" / layout.digest(layout.canonical(told))[: layout.ID_LENGTH]


@contextmanager
def made_beside(place: Path) -> Iterator[Path]:
    """Where a folder is made: a name of its own beside its place, which it gets at the end; removed if it fails.

    Whoever makes the same at the same time makes the same: the first to end stays. What killed processes left of others
    is removed first.

    Args:
        place: of the folder when it is whole.

    Yields:
        A path where nothing is yet, and a folder must be at the end.
    """
    _remove_left(place.parent)
    part = place.with_name(f".{place.name}.{uuid.uuid4().hex}{_ENDING}")
    try:
        yield part
        try:
            part.rename(place)
        except OSError:
            if not place.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_left(folder: Path) -> None:
    for part in folder.glob(f".*{_ENDING}"):
        with contextlib.suppress(OSError):  # another process may remove it, too
            newest = max(path.stat().st_mtime for path in (part, *part.rglob("*")))
            if time.time() - newest > LEFT_SECONDS:
                shutil.rmtree(part, ignore_errors=True)
