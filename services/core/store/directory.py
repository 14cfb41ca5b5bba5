"""A store in a local directory: the embedded default. Network file systems are not supported (their locks are not)."""

import builtins
import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import override
from urllib.parse import unquote, urlsplit

from services.core.errors import (
    Damaged,
    ObjectExists,
    ObjectMissing,
    PreconditionFailed,
    SettingsError,
    StoreError,
    StoreUnavailable,
)
from services.core.settings import StoreSettings
from services.core.store.interface import (
    RESERVED,
    Listed,
    Store,
    body_size,
    check_key,
    check_keys,
    check_prefix,
    check_ranges,
    is_segment,
)

_ABANDONED_SECONDS = 24 * 3600.0
_POLL_SECONDS = 0.002


@dataclass(frozen=True, kw_only=True, slots=True)
class Directory(Store):
    """Each object is a file. It gets its name only when all of it is on disk, and a call returns when the name is too.

    There is no conditional rename, so that writes which replace or remove take one lock (``flock``, which the system
    drops when its holder dies) over compare and rename. Tags are the sha256 of the content.
    """

    root: str
    """Absolute path; made by the first write."""
    lock_seconds: float = 30.0
    """Longest wait for the lock."""

    def __post_init__(self) -> None:
        if not self.root.startswith("/") or "\0" in self.root:
            raise SettingsError(f"{self.root!r} is not the absolute path of a directory")

    @staticmethod
    def at(url: str, settings: StoreSettings) -> "Directory":
        """Return the store of a path (relative to the current directory) or an address ``file:///PATH``."""
        path = url
        if url.startswith("file://"):
            parts = urlsplit(url)
            path = unquote(parts.path)
            if parts.netloc not in {"", "localhost"} or not path.startswith("/"):
                raise SettingsError(f"{url} is not file:///PATH with an absolute path")
        if not path.strip():
            raise SettingsError("the store's address is empty")
        return Directory(root=os.path.normpath(Path(path).expanduser().absolute()), lock_seconds=settings.total_seconds)

    @property
    @override
    def url(self) -> str:
        return self.root

    @override
    def __str__(self) -> str:
        return self.root

    @override
    def get(self, key: str) -> bytes:
        with self._reading(key) as descriptor, open(descriptor, "rb", closefd=False) as file:
            return file.read()

    @override
    def get_tagged(self, key: str) -> tuple[bytes, str]:
        data = self.get(key)
        return data, _tag(data)

    @override
    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        check_ranges(ranges)
        with self._reading(key) as descriptor:
            return [_read(key, descriptor, start, length) for start, length in ranges]

    @override
    def get_suffix(self, key: str, length: int) -> bytes:
        check_ranges([(0, length)])
        with self._reading(key) as descriptor:
            size = os.fstat(descriptor).st_size
            if length > size:
                raise Damaged(key, f"it holds {size} bytes, but the last {length} were asked for")
            return _read(key, descriptor, size - length, length)

    @override
    def size(self, key: str) -> int:
        with self._reading(key) as descriptor:
            found = os.fstat(descriptor)
            if stat.S_ISDIR(found.st_mode):
                raise ObjectMissing(key)
            return found.st_size

    @override
    def create(self, key: str, data: bytes | Path) -> None:
        path = self._path(key)
        body_size(data)
        # A resumed run finds most keys taken: do not write megabytes to a temporary file first.
        if path.exists():
            raise ObjectExists(key)
        with self._writing(key), self._temporary(data) as temporary:
            while True:
                try:
                    _make_folder(path.parent)
                    path.hardlink_to(temporary)
                except FileExistsError:
                    raise ObjectExists(key) from None
                except FileNotFoundError:
                    # A delete may remove the folder, empty until now, just after it was made.
                    if not temporary.exists():
                        raise
                else:
                    break
            _sync(path.parent)

    @override
    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        if expected is None:
            try:
                self.create(key, data)
            except ObjectExists:
                raise PreconditionFailed(key) from None
            return _tag(data)
        check_key(key)
        with self._locked(key):
            try:
                _, found = self.get_tagged(key)
            except ObjectMissing:
                raise PreconditionFailed(key) from None
            if found != expected:
                raise PreconditionFailed(key)
            self._replace(key, data)
        return _tag(data)

    @override
    def overwrite(self, key: str, data: bytes) -> None:
        check_key(key)
        with self._locked(key):
            self._replace(key, data)

    @override
    def delete(self, keys: Iterable[str]) -> None:
        doomed = check_keys(keys)
        if not doomed or not Path(self.root).is_dir():
            return
        with self._locked(doomed[0]):
            for key in doomed:
                with self._writing(key):
                    self._remove(self._path(key))

    def _remove(self, path: Path) -> None:
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return
        with contextlib.suppress(OSError):  # the first folder that holds something else ends the way up
            for folder in path.parents:
                if folder == Path(self.root):
                    break
                folder.rmdir()

    @override
    def list(self, prefix: str) -> Iterator[Listed]:
        stem = check_prefix(prefix)
        return self._walk(f"{self.root}/{stem}" if stem else self.root, f"{stem}/" if stem else "")

    @override
    def children(self, prefix: str) -> builtins.list[str]:
        stem = check_prefix(prefix)
        # A folder can be empty: its first object is about to be stored, or the writer died before.
        return sorted(
            entry.name
            for entry in self._entries(f"{self.root}/{stem}" if stem else self.root)
            if not entry.is_dir() or next(self._walk(entry.path, ""), None) is not None
        )

    def _walk(self, folder: str, stem: str) -> Iterator[Listed]:
        for entry in self._entries(folder):
            if entry.is_dir():
                yield from self._walk(entry.path, f"{stem}{entry.name}/")
                continue
            try:
                found = entry.stat()
            except FileNotFoundError:
                continue  # removed since the folder was read
            yield Listed(f"{stem}{entry.name}", found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def _entries(self, folder: str) -> builtins.list[os.DirEntry[str]]:
        """Return a folder's entries that can be the store's, in the order of the keys that they begin."""
        try:
            with os.scandir(folder) as entries:
                found = [entry for entry in entries if is_segment(entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StoreUnavailable(f"{self} cannot list {folder}: {error.strerror}") from error
        if folder == self.root:
            found = [entry for entry in found if entry.name != RESERVED]
        return sorted(found, key=lambda entry: f"{entry.name}/" if entry.is_dir() else entry.name)

    def _path(self, key: str) -> Path:
        return Path(f"{self.root}/{check_key(key)}")

    def _replace(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with self._writing(key), self._temporary(data) as temporary:
            _make_folder(path.parent)
            temporary.replace(path)
            _sync(path.parent)

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[int]:
        path = f"{self.root}/{check_key(key)}"
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                yield descriptor
            finally:
                os.close(descriptor)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectMissing(key) from None
        except OSError as error:
            raise StoreUnavailable(f"{self} cannot read {key}: {error.strerror}") from error

    @contextlib.contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        try:
            yield
        except (NotADirectoryError, IsADirectoryError) as error:
            raise StoreError(f"{self} cannot hold {key}: a key cannot be the folder of another") from error
        except OSError as error:
            raise StoreUnavailable(f"{self} cannot write {key}: {error.strerror}") from error

    @contextlib.contextmanager
    def _temporary(self, data: bytes | Path) -> Iterator[Path]:
        """Write a file that is wholly on disk; its temporary name is gone in the end."""
        folder = Path(self.root, RESERVED)
        _make_folder(folder)
        path = folder / uuid.uuid4().hex
        try:
            with path.open("xb") as file:
                if isinstance(data, Path):
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
                else:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        deadline = time.monotonic() + self.lock_seconds
        with contextlib.ExitStack() as stack:
            with self._writing(key):
                folder = Path(self.root, RESERVED)
                _make_folder(folder)
                lock = stack.enter_context((folder / "lock").open("ab"))
                while True:
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        if time.monotonic() > deadline:
                            raise StoreUnavailable(
                                f"{self} cannot write {key}: another process has held the lock {lock.name} for "
                                f"{self.lock_seconds:g} s"
                            ) from None
                        time.sleep(_POLL_SECONDS)
                    else:
                        break
                _sweep(folder)
            yield


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(key: str, descriptor: int, start: int, length: int) -> bytes:
    """Return exactly these bytes; one call of the system gives at most 2 GiB."""
    data = os.pread(descriptor, length, start)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), start + len(data))
        if not more:
            raise Damaged(
                key, f"it ends at byte {start + len(data)}, but {length} bytes from byte {start} on were asked for"
            )
        data += more
    return data


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(folder) from None
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Put the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove the temporary files of writers that died."""
    oldest = time.time() - _ABANDONED_SECONDS
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.name != "lock" and path.stat().st_mtime < oldest:
                path.unlink()
