"""A store in the memory of one process, for tests and for trying things out."""

import builtins
import hashlib
import os
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, override

from services.core.errors import (
    Damaged,
    ObjectExists,
    ObjectMissing,
    PreconditionFailed,
    SettingsError,
    StoreUnavailable,
)
from services.core.store.interface import Listed, Store, check_key, check_keys, check_prefix, check_ranges, is_segment


class _Held(NamedTuple):
    data: bytes
    tag: str
    modified: datetime


class _Shelf:
    """The objects of one name."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.objects: dict[str, _Held] = {}


_STARTED = uuid.uuid4().hex
_shelves: dict[tuple[str, str], _Shelf] = {}


def _process() -> str:
    """Differ in every process, forked ones too."""
    return f"{_STARTED}-{os.getpid()}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory(Store):
    """Objects in memory: all stores of one name in one process are the same, and a copy sent elsewhere refuses work."""

    name: str
    process: str = field(default_factory=_process, repr=False)

    def __post_init__(self) -> None:
        if not is_segment(self.name):
            raise SettingsError(f"memory://{self.name} is not memory://NAME, with a name of letters, digits and ._=+-")

    @staticmethod
    def at(url: str) -> "Memory":
        """Return the store of an address ``memory://NAME``."""
        return Memory(name=url.removeprefix("memory://").removesuffix("/"))

    @property
    @override
    def url(self) -> str:
        return f"memory://{self.name}"

    @override
    def __str__(self) -> str:
        return self.url

    @property
    def _shelf(self) -> _Shelf:
        if self.process != _process():
            raise StoreUnavailable(f"{self} is in the memory of the process that opened it, and this is another")
        return _shelves.setdefault((self.process, self.name), _Shelf())

    @override
    def get_tagged(self, key: str) -> tuple[bytes, str]:
        held = self._shelf.objects.get(check_key(key))
        if held is None:
            raise ObjectMissing(key)
        return held.data, held.tag

    @override
    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        check_ranges(ranges)
        data = self.get(key)
        for start, length in ranges:
            if start + length > len(data):
                raise Damaged(
                    key, f"it ends at byte {len(data)}, but {length} bytes from byte {start} on were asked for"
                )
        return [data[start : start + length] for start, length in ranges]

    @override
    def get_suffix(self, key: str, length: int) -> bytes:
        check_ranges([(0, length)])
        data = self.get(key)
        if length > len(data):
            raise Damaged(key, f"it holds {len(data)} bytes, but the last {length} were asked for")
        return data[len(data) - length :]

    @override
    def size(self, key: str) -> int:
        return len(self.get(key))

    @override
    def create(self, key: str, data: bytes | Path) -> None:
        content = data.read_bytes() if isinstance(data, Path) else bytes(data)
        shelf = self._shelf
        with shelf.lock:
            if check_key(key) in shelf.objects:
                raise ObjectExists(key)
            self._put(shelf, key, content)

    @override
    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        shelf = self._shelf
        with shelf.lock:
            held = shelf.objects.get(check_key(key))
            if (held.tag if held else None) != expected:
                raise PreconditionFailed(key)
            return self._put(shelf, key, bytes(data))

    @override
    def overwrite(self, key: str, data: bytes) -> None:
        shelf = self._shelf
        with shelf.lock:
            self._put(shelf, check_key(key), bytes(data))

    def _put(self, shelf: _Shelf, key: str, data: bytes) -> str:
        tag = hashlib.sha256(data).hexdigest()
        shelf.objects[key] = _Held(data, tag, datetime.now(UTC))
        return tag

    @override
    def delete(self, keys: Iterable[str]) -> None:
        doomed = check_keys(keys)
        shelf = self._shelf
        with shelf.lock:
            for key in doomed:
                shelf.objects.pop(key, None)

    @override
    def list(self, prefix: str) -> Iterator[Listed]:
        folder = f"{check_prefix(prefix)}/" if prefix else ""
        with self._shelf.lock:
            found = sorted(item for item in self._shelf.objects.items() if item[0].startswith(folder))
        for key, held in found:
            yield Listed(key, len(held.data), held.modified)

    @override
    def children(self, prefix: str) -> builtins.list[str]:
        folder = f"{check_prefix(prefix)}/" if prefix else ""
        return sorted({listed.key[len(folder) :].partition("/")[0] for listed in self.list(prefix)})
