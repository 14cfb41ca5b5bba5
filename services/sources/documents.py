"""Small files that are read whole (tables, polygons): their bytes, and the digest of the very bytes that were read."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from services.core.errors import InputRefused
from services.pipeline.recipe import Input
from services.sources.broken import reading

MOST = 2**30
"""Bytes above which such a file is not read whole: a table of all wells of the world has a tenth of it."""

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True)
class Document:
    """A small file as it was when it was read."""

    name: str
    """As the user gave it."""

    location: str
    """Absolute path."""

    size: int
    """Bytes."""

    sha256: str

    def input(self) -> Input:
        """As a recipe names what it was made from."""
        return Input(name=self.name, size=self.size, sha256=self.sha256)

    def check_unchanged(self) -> None:
        """Read it again.

        Raises:
            InputRefused: if it is not what it was.
        """
        again, _ = read(self.location)
        if again.sha256 != self.sha256:
            raise InputRefused(f"{self.name} changed since it was read")


def read(name: str) -> tuple[Document, bytes]:
    """Read a file whole.

    Args:
        name: path of a file on this machine.

    Returns:
        The file, and its bytes, unpacked where they are gzip's.

    Raises:
        InputRefused: if it is not there, empty, too large or remote.
    """
    if "://" in name:
        raise InputRefused(f"{name} is not on this machine; tables and polygons are read from its disks")
    path = Path(name).absolute()
    with reading(name):
        if not path.is_file():
            raise InputRefused(f"{name} is a folder" if path.is_dir() else f"{name} does not exist")
        size = path.stat().st_size
        if not 0 < size <= MOST:
            raise InputRefused(f"{name} is empty (0 bytes)" if not size else f"{name} has {size} bytes, over {MOST}")
        body = path.read_bytes()
        document = Document(name=name, location=str(path), size=len(body), sha256=hashlib.sha256(body).hexdigest())
        return document, gzip.decompress(body) if body.startswith(_GZIP) else body


def text(name: str, body: bytes) -> str:
    """Bytes as text: UTF-8, with or without a mark, else Windows' western code page, which many tables are in."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        with reading(name):
            return body.decode("cp1252")
