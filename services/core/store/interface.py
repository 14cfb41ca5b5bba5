"""What every store promises, whatever it stands on."""

import builtins
import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, final, override

from services.core.errors import ObjectExists, PreconditionFailed, PreconditionsIgnored, SettingsError
from services.core.settings import StoreSettings

if TYPE_CHECKING:
    from services.core.store.zarr_view import ZarrView

RESERVED = ".cenote-local"
"""First segment that no key may have: a directory store keeps its lock and unfinished files there."""
SCRATCH = ".cenote-probe"
"""First segment of the keys that a probe writes and removes."""

PART_BYTES = 16 << 20
"""A large object is read, and sent, in parts of this many bytes."""
PARTS_AT_ONCE = 4
"""Parts of one object that are on their way at a time; a file of no more is sent in one piece."""

_SEGMENT = re.compile(r"[A-Za-z0-9._=+-]{1,255}")
_KEY = re.compile(rf"(?:{_SEGMENT.pattern}/)*{_SEGMENT.pattern}")
_LONGEST = 900
_probed: set[tuple[int, str]] = set()


class Listed(NamedTuple):
    """One object of a listing."""

    key: str
    size: int
    """Bytes."""
    last_modified: datetime
    """In UTC, by the clock of the store."""


class Store(ABC):
    """Objects under keys; each method is one operation, or an error from ``services.core.errors``.

    Keys are ``/``-separated segments of ASCII letters, digits and ``._=+-``; no segment is empty, ``.`` or ``..``, and
    no key may be the folder of another (a directory refuses it, MinIO hides one of the two). A key that is not so is a
    programming mistake and a ValueError. A prefix is a key, or ``""`` for everything; it ends at a segment's end.

    Any method raises StoreUnavailable when the store cannot be reached, refuses the credentials, or does not answer in
    time. A store is a value: it can be compared, hashed and pickled (with its credentials, which no text of it shows),
    and a copy in another process opens its own connections. After a fork only a directory can be used.

    The abstract methods are all that a kind of store, or a wrapper around one, has to bring.
    """

    __slots__ = ()

    @final
    @staticmethod
    def open(url: str, settings: StoreSettings) -> "Store":
        """Return the store at a directory's path, ``file:///path``, ``memory://name`` or ``s3://bucket/prefix``.

        Nothing is read or written, so nothing is said yet about whether it can be reached.

        Raises:
            SettingsError: the address cannot be, or ``settings`` lack what it needs.
        """
        # Each kind imports this module; and only S3 has to load obstore.
        from services.core.store.bucket import Bucket  # noqa: PLC0415
        from services.core.store.directory import Directory  # noqa: PLC0415
        from services.core.store.memory import Memory  # noqa: PLC0415

        scheme, separator, _ = url.partition("://")
        if not separator:
            return Directory.at(url, settings)
        match scheme:
            case "file":
                return Directory.at(url, settings)
            case "memory":
                return Memory.at(url)
            case "s3":
                return Bucket.at(url, settings)
        raise SettingsError(
            f"the store's address starts with {scheme!r}://, but must be a directory, file:///PATH, memory://NAME or "
            "s3://BUCKET/PREFIX"
        )

    @property
    @abstractmethod
    def url(self) -> str:
        """The address that ``open`` takes, for people and provenance; holds no secret."""

    @abstractmethod
    def __str__(self) -> str:
        """The address and, where it has one, the endpoint: what an error message names."""

    @abstractmethod
    def get_tagged(self, key: str) -> tuple[bytes, str]:
        """Return an object and the tag that ``swap`` expects.

        Bytes that changed on the way from an S3 store are not noticed here: what matters is read with its digest.

        Raises:
            ObjectMissing: nothing is stored under the key.
        """

    @abstractmethod
    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        """Return parts of an object, given as (start, length); near ones are fetched together, far ones concurrently.

        Raises:
            ObjectMissing: nothing is stored under the key.
            Damaged: the object ends before one of the ranges does.
        """

    @abstractmethod
    def get_suffix(self, key: str, length: int) -> bytes:
        """Return the last ``length`` bytes of an object.

        Raises:
            ObjectMissing: nothing is stored under the key.
            Damaged: the object is shorter.
        """

    @abstractmethod
    def size(self, key: str) -> int:
        """Return the bytes that an object holds.

        Raises:
            ObjectMissing: nothing is stored under the key.
        """

    @abstractmethod
    def create(self, key: str, data: bytes | Path) -> None:
        """Store bytes, or a file's content, under a key that holds nothing yet.

        A reader sees all of it or nothing, whenever the writer dies. If an attempt failed with its fate unknown and the
        next one finds the key taken, what is stored is read back: the same bytes are success.

        A file of more than ``PARTS_AT_ONCE`` parts is never wholly in memory. S3 takes more than 5 GiB in parts only,
        and obstore completes those without a precondition: the key is looked at before, but of two writers that start
        at once both may succeed, and the last one's bytes stay. So let such a file's key decide its bytes.

        Raises:
            ObjectExists: the key is taken; whether by the same bytes is not looked at.
        """

    @abstractmethod
    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        """Replace the object that carries the tag ``expected`` (None: there must be none); return the new tag.

        Tried once. After StoreUnavailable the object may have been replaced or not, or may yet be; PreconditionFailed
        may be the doing of one's own earlier call. So the caller puts an id of this write into ``data`` and reads back.

        Raises:
            PreconditionFailed: the key holds another object, or none, or (None) holds one.
        """

    @abstractmethod
    def overwrite(self, key: str, data: bytes) -> None:
        """Store bytes whatever the key holds: only for advisory documents that nobody decides by."""

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; a key that holds none is passed over. A failure may leave some removed."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[Listed]:
        """Iterate over all objects below a prefix in the order of their keys (by byte), read at once or on the way."""

    @abstractmethod
    def children(self, prefix: str) -> builtins.list[str]:
        """Return the names directly below a prefix, of objects and of folders, sorted; one delimited listing.

        A name whose last object was just removed may still be there (SeaweedFS removes folders later).
        """

    def get(self, key: str) -> bytes:
        """Return an object.

        Raises:
            ObjectMissing: nothing is stored under the key.
        """
        return self.get_tagged(key)[0]

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes of an object from byte ``start`` on.

        Raises:
            ObjectMissing: nothing is stored under the key.
            Damaged: the object ends before the range does.
        """
        return self.get_ranges(key, [(start, length)])[0]

    @property
    def fetches(self) -> bool:
        """Whether an event loop can read from it by ``fetch``, while no thread waits."""
        return False

    def expect(self, keys: Sequence[str]) -> None:  # noqa: B027 - most need no preparing
        """Prepare for ``fetch`` of some objects; they are not looked at.

        Raises:
            StoreUnavailable: if requests cannot be signed.
        """

    async def fetch(self, key: str, start: int, length: int) -> bytes:
        """What ``get_range`` returns, tried once and in a time without patience. For one event loop of a process.

        Raises:
            StoreError, Damaged: whatever goes wrong; ``get_range`` tries with patience and tells what it is.
        """
        raise NotImplementedError(f"{self} is read by threads, so that nobody may fetch {length} bytes of {key}")

    @final
    def parts(self, key: str) -> Iterator[bytes]:
        """Iterate over an object's content in pieces of ``PART_BYTES``, for who must not hold all of it.

        Raises:
            ObjectMissing: nothing is stored under the key.
        """
        size = self.size(key)
        for start in range(0, size, PART_BYTES):
            yield self.get_range(key, start, min(PART_BYTES, size - start))

    @final
    def probe(self) -> None:
        """Find out by trying whether conditional writes are honoured; needs to write and delete.

        A positive result is remembered in this process.

        Raises:
            PreconditionsIgnored: the store lets a write through that it should refuse, or the other way round.
        """
        known = (os.getpid(), str(self))
        if known in _probed:
            return
        key = f"{SCRATCH}/{uuid.uuid4().hex}"
        other = f"{key}-other"
        try:
            fault = self._probe_fault(key, other)
        finally:
            self.delete([key, other])
        if fault:
            raise PreconditionsIgnored(
                f"{self} does not honour conditional writes ({fault}), so two publishers could both win; use a store "
                "that honours If-None-Match and If-Match, as AWS S3, MinIO and SeaweedFS do, or a directory"
            )
        _probed.add(known)

    def _probe_fault(self, key: str, other: str) -> str | None:
        self.create(key, b"1")
        try:
            self.create(key, b"2")
        except ObjectExists:
            pass
        else:
            return "it accepted a second create-only write of one key"
        _, first = self.get_tagged(key)
        try:
            self.swap(key, b"3", first)
        except PreconditionFailed:
            return "it refused to replace an object by its right tag"
        for name, expected, fact in (
            (key, first, "replaced an object by the tag of an earlier one"),
            (key, None, "replaced an object where there should be none"),
            (other, first, "replaced an object that does not exist"),
        ):
            try:
                self.swap(name, b"4", expected)
            except PreconditionFailed:
                continue
            return f"it {fact}"
        if self.get(key) != b"3":
            return "it does not give back what was written last"
        return None

    @final
    def zarr_store(self, prefix: str, *, read_only: bool = True) -> "ZarrView":
        """Return what lies below a prefix as a store for zarr-python and xarray.

        To zarr a missing object is a chunk of fill values: open arrays with ``read_missing_chunks=False`` where every
        chunk must exist. With ``read_only=False`` each key can be written once, and again only with the same bytes.
        """
        # The view imports zarr (0.3 s), which a command that only lists versions does not need.
        from services.core.store.zarr_view import ZarrView  # noqa: PLC0415

        return ZarrView(self, prefix, read_only=read_only)


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One call of a store's method, as an observer sees it."""

    name: str
    """Name of the method."""
    keys: tuple[str, ...]
    """The key, the keys to delete, or the prefix to list."""
    sent: int = 0
    """Bytes of the object that is written."""


class Observed(Store):
    """A store that passes every operation on another through one method, for metrics and for tests that inject faults.

    It is read by threads only (``fetches``). ``get`` and ``get_range`` appear as themselves; a probe and a Zarr view
    appear as the operations they are made of. A listing is done at once, not as it is iterated over.
    """

    __slots__ = ("inner",)

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    @abstractmethod
    def around[Answer](self, operation: Operation, call: Callable[[], Answer]) -> Answer:
        """Do an operation by ``call()`` and return its answer, with whatever is wanted before and after."""

    @property
    @override
    def url(self) -> str:
        return self.inner.url

    @override
    def __str__(self) -> str:
        return str(self.inner)

    @override
    def get(self, key: str) -> bytes:
        return self.around(Operation(name="get", keys=(key,)), lambda: self.inner.get(key))

    @override
    def get_tagged(self, key: str) -> tuple[bytes, str]:
        return self.around(Operation(name="get_tagged", keys=(key,)), lambda: self.inner.get_tagged(key))

    @override
    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self.around(Operation(name="get_range", keys=(key,)), lambda: self.inner.get_range(key, start, length))

    @override
    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        return self.around(Operation(name="get_ranges", keys=(key,)), lambda: self.inner.get_ranges(key, ranges))

    @override
    def get_suffix(self, key: str, length: int) -> bytes:
        return self.around(Operation(name="get_suffix", keys=(key,)), lambda: self.inner.get_suffix(key, length))

    @override
    def size(self, key: str) -> int:
        return self.around(Operation(name="size", keys=(key,)), lambda: self.inner.size(key))

    @override
    def create(self, key: str, data: bytes | Path) -> None:
        operation = Operation(name="create", keys=(key,), sent=body_size(data))
        self.around(operation, lambda: self.inner.create(key, data))

    @override
    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        operation = Operation(name="swap", keys=(key,), sent=len(data))
        return self.around(operation, lambda: self.inner.swap(key, data, expected))

    @override
    def overwrite(self, key: str, data: bytes) -> None:
        operation = Operation(name="overwrite", keys=(key,), sent=len(data))
        self.around(operation, lambda: self.inner.overwrite(key, data))

    @override
    def delete(self, keys: Iterable[str]) -> None:
        doomed = check_keys(keys)
        self.around(Operation(name="delete", keys=doomed), lambda: self.inner.delete(doomed))

    @override
    def list(self, prefix: str) -> Iterator[Listed]:
        operation = Operation(name="list", keys=(prefix,))
        yield from self.around(operation, lambda: tuple(self.inner.list(prefix)))

    @override
    def children(self, prefix: str) -> builtins.list[str]:
        return self.around(Operation(name="children", keys=(prefix,)), lambda: self.inner.children(prefix))


def check_key(key: str) -> str:
    """Return the key.

    Raises:
        ValueError: it is not one.
    """
    if not _KEY.fullmatch(key) or len(key) > _LONGEST:
        raise ValueError(
            f"{key!r} cannot be a key: segments of 1 to 255 letters, digits and ._=+- joined by /, {_LONGEST} in all"
        )
    if "." in key:
        segments = key.split("/")
        if "." in segments or ".." in segments or segments[0] == RESERVED:
            raise ValueError(f"{key!r} cannot be a key: no segment may be . or .., nor the first one {RESERVED}")
    return key


def is_key(key: str) -> bool:
    """Whether a string is a key."""
    try:
        check_key(key)
    except ValueError:
        return False
    return True


def check_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the keys.

    Raises:
        ValueError: one of them is not a key, or a single string was given.
    """
    if isinstance(keys, str):
        raise ValueError(f"keys are wanted, but {keys!r} is a single one")  # noqa: TRY004 - like any other key that is wrong
    return tuple(check_key(key) for key in keys)


def check_prefix(prefix: str) -> str:
    """Return the prefix without a slash at its end.

    Raises:
        ValueError: it is neither empty nor a key.
    """
    return check_key(prefix.removesuffix("/")) if prefix else prefix


def is_segment(name: str) -> bool:
    """Whether a name can be a segment of a key."""
    return _SEGMENT.fullmatch(name) is not None and name not in {".", ".."}


def check_ranges(ranges: Sequence[tuple[int, int]]) -> None:
    """Refuse ranges that no store can read.

    Raises:
        ValueError: a start is negative or a length is not positive (S3 has no empty range).
    """
    for start, length in ranges:
        if start < 0 or length < 1:
            raise ValueError(f"a range of {length} bytes from byte {start} cannot be")


def body_size(data: bytes | Path) -> int:
    """Bytes that a write sends."""
    return data.stat().st_size if isinstance(data, Path) else len(data)
