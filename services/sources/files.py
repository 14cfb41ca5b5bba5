"""The files that a user names: found, told apart by content, brought here, hashed, and known to be unchanged."""

import contextlib
import fcntl
import glob
import hashlib
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import fsspec
import fsspec.core

from services.core.errors import InputRefused
from services.sources import digests
from services.sources.broken import reading
from services.sources.raster import KIND_NAMES, Kind

type Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

PIECE = 4 * 2**20
"""Bytes read at a time."""

UNMARKED = "unmarked "
"""Begins the stamp of a remote file whose server sends neither ETag nor Last-Modified: its copies are never shared."""

ONCE = "once-"
"""Begins the name of a copy that no other look may use."""

_STAMPS = ("ETag", "etag", "LastModified", "last_modified", "Last-Modified", "mtime")
"""How fsspec's file systems name them, the surest first."""

KEPT_SECONDS = 7 * 86400.0
"""Copies of remote files that nobody used for so long are removed when another one is fetched."""

STILL_GOOD = 60.0
"""Seconds for which a store of many objects that was looked through is taken to be unchanged."""

ZARR_MARKS = ("zarr.json", ".zmetadata", ".zgroup", ".zarray")
_GLOB = re.compile(r"[*?\[]")
_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"CDF\x01", "netcdf3"),
    (b"CDF\x02", "netcdf3"),
    (b"CDF\x05", "netcdf3"),
    (b"\x89HDF\r\n\x1a\n", "netcdf4"),
    (b"II*\x00", "geotiff"),
    (b"MM\x00*", "geotiff"),
    (b"II+\x00", "geotiff"),
    (b"MM\x00+", "geotiff"),
    (b"GRIB", "grib"),
)
_OTHER = (
    (b"\x1f\x8b", "gzip-compressed; unpack it first (gunzip)"),
    (b"PK\x03\x04", "a zip archive; unpack it first (unzip)"),
    (b"BZh", "bzip2-compressed; unpack it first (bunzip2)"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed; unpack it first (unzstd)"),
    (b"\x0e\x03\x13\x01", "HDF4, which is not read; convert it first, for example with gdal_translate"),
    (b"\x89PNG", "a PNG picture without values"),
    (b"\xff\xd8\xff", "a JPEG picture without values"),
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file or Zarr store as it was when it was looked at."""

    name: str
    """As the user gave it, without credentials."""

    location: str
    """Absolute path, or URL."""

    kind: Kind
    size: int
    """Bytes; of a Zarr store, of all objects that are read."""

    stamp: str
    """What changes when the content does, short of reading it: ETag, else time of change. Where a server names neither:
    UNMARKED and the id of the one look that it was fetched for."""

    parts: tuple[str, ...] = ()
    """Of a Zarr store: the folders that are read, relative to it."""

    sha256: str = ""
    """Digest of the content; of a Zarr store, of its list of (path, size, sha256). Empty: not computed yet."""

    @property
    def remote(self) -> bool:
        """Whether it is not on this machine's disks."""
        return "://" in self.location


def found(names: Sequence[str]) -> list[Source]:
    """The sources that names, globs and URLs stand for, in the order given, a glob's sorted.

    Raises:
        InputRefused: if one is not there, or not a raster that can be read.
    """
    sources = [source for name in names for source in _found(name)]
    if not sources:
        raise InputRefused("no input file is named")
    return sources


def local(source: Source) -> str:
    """Where the bytes can be opened: the path itself, a remote file's copy in this machine's cache, a Zarr store's URL.

    Raises:
        InputRefused: if it is not what it was when it was looked at.
    """
    if source.kind == "zarr":
        _check_store(source)
        return source.location
    if not source.remote:
        with reading(source.name):
            status = Path(source.location).stat()
            if (status.st_size, str(status.st_mtime_ns)) != (source.size, source.stamp):
                raise InputRefused(f"{source.name} changed while it was being ingested")
        return source.location
    return str(_fetched(source))


def check_unchanged(source: Source) -> None:
    """Look at a source again, whatever was seen a moment ago.

    Raises:
        InputRefused: if it is not what it was when it was looked at.
    """
    with reading(source.name):
        if source.kind == "zarr":
            is_same = _stamp(_listing(source)) == source.stamp
        elif source.remote:
            fs, path = _file_system(source.location)
            size, stamp = _remote_status(source.name, fs, path)
            is_same = (size, stamp or source.stamp) == (source.size, source.stamp)
        else:
            status = Path(source.location).stat()
            is_same = (status.st_size, str(status.st_mtime_ns)) == (source.size, source.stamp)
    if not is_same:
        raise InputRefused(f"{source.name} changed while it was being ingested")


def hashed(sources: Sequence[Source], progress: Progress | None = None) -> tuple[Source, ...]:
    """The same sources with their digests: read once, piece by piece, or known from when they were read before.

    Raises:
        InputRefused: if one changed since it was looked at.
    """
    total, done = sum(source.size for source in sources), 0
    results: list[Source] = []

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(min(done, total), total)

    for source in sources:
        with reading(source.name):
            digest = _digest(source, tell)
        check_unchanged(source)
        results.append(replace(source, sha256=digest))
    digests.forget_old(_digests_folder())
    return tuple(results)


def _digest(source: Source, tell: Callable[[int], None]) -> str:
    place = local(source)
    before = None if source.remote else _state(source)
    known = None if before is None else digests.recall(before, _digests_folder())
    if known is not None:
        tell(source.size)
        return known
    began = time.time()
    digest = _store_digest(source, tell) if source.kind == "zarr" else _file_digest(place, tell)
    if before is not None and _state(source) == before:
        digests.remember(before, digest, began, _digests_folder())
    return digest


def _state(source: Source) -> digests.State:
    """What the system tells of a source on this machine's disks."""
    if source.kind != "zarr":
        return digests.State.of(source.location, [("", Path(source.location).stat())])
    paths = [path for path, _, _ in _listing(source)]
    base = Path(source.location)
    return digests.State.of(
        "\n".join((source.location, *source.parts)), [(path, (base / path).stat()) for path in paths]
    )


def with_parts(source: Source, parts: Iterable[str]) -> Source:
    """A Zarr store of which these folders are read; its size and stamp are theirs."""
    narrowed = replace(source, parts=tuple(sorted(set(parts))))
    with reading(source.name):
        listing = _listing(narrowed)
    return replace(narrowed, size=sum(size for _, size, _ in listing), stamp=_stamp(listing))


def objects(source: Source) -> list[str]:
    """Paths of the objects of a Zarr store that are read, relative to it."""
    with reading(source.name):
        return [path for path, _, _ in _listing(source)]


def cache_folder() -> Path:
    """Where copies of remote files are kept: CENOTE_CACHE, else the user's cache folder."""
    return _cache_base() / "inputs"


def _digests_folder() -> Path:
    return _cache_base() / "digests"


def _cache_base() -> Path:
    chosen = os.environ.get("CENOTE_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cenote"


def without_credentials(url: str) -> str:
    """A URL without user, password and query."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def kind_of(name: str, head: bytes, size: int) -> Kind:
    """What a file is, by its first bytes.

    Raises:
        InputRefused: if it is no raster that can be read; says what it looks like.
    """
    if size == 0:
        raise InputRefused(f"{name} is empty (0 bytes)")
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    for at in (512, 1024, 2048):  # HDF5 may stand behind a user block
        if head[at : at + 8] == b"\x89HDF\r\n\x1a\n":
            return "netcdf4"
    for magic, fact in _OTHER:
        if head.startswith(magic):
            raise InputRefused(f"{name} is {fact}")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<")):
        raise InputRefused(f"{name} is a web page or XML, not a raster: was it downloaded without logging in?")
    raise InputRefused(f"{name} begins with {head[:8]!r}, which is none of {', '.join(KIND_NAMES.values())}")


def _found(name: str) -> Iterator[Source]:
    if "://" in name and not name.startswith("file://"):
        yield from _remote(name)
        return
    path = name.removeprefix("file://")
    if _GLOB.search(path) and not Path(path).exists():
        matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - a user's glob may be absolute
        if not matches:
            raise InputRefused(f"no file matches {name}")
        for match in matches:
            yield _on_disk(match)
        return
    yield _on_disk(path)


def _on_disk(name: str) -> Source:
    path = Path(name).absolute()
    with reading(name):
        if not path.exists():
            raise InputRefused(f"{name} does not exist")
        if path.is_dir():
            if not any((path / mark).is_file() for mark in ZARR_MARKS):
                raise InputRefused(f"{name} is a folder and no Zarr store; name its files, for example {name}/*.nc")
            return Source(name=name, location=str(path), kind="zarr", size=0, stamp="")
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            kind = kind_of(name, file.read(2056), status.st_size)
    return Source(name=name, location=str(path), kind=kind, size=status.st_size, stamp=str(status.st_mtime_ns))


def _remote(url: str) -> Iterator[Source]:
    name = without_credentials(url)
    with reading(name):
        fs, path = _file_system(url)
        if _GLOB.search(path) and urlsplit(url).scheme not in {"http", "https"}:
            matches = sorted(fs.glob(path))
            if not matches:
                raise InputRefused(f"no object matches {name}")
            scheme = url.partition("://")[0]
            for match in matches:
                yield from _remote(f"{scheme}://{match.partition('://')[2] or match}")
            return
        if _is_remote_zarr(fs, path):
            yield Source(name=name, location=url.rstrip("/"), kind="zarr", size=0, stamp="")
            return
        size, stamp = _remote_status(name, fs, path)
        if not stamp:
            stamp = f"{UNMARKED}{uuid.uuid4().hex}"
        unknown = Source(name=name, location=url, kind="netcdf3", size=size, stamp=stamp)
        copy = _fetched(unknown)
        with copy.open("rb") as file:
            yield replace(unknown, kind=kind_of(name, file.read(2056), copy.stat().st_size))


def _file_system(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    if scheme not in fsspec.available_protocols():
        raise InputRefused(
            f"{without_credentials(url)}: {scheme}:// is no kind of address that is read, as s3:// and https:// are"
        )
    try:
        fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)  # what it knew once may have changed
    except ConnectionError as error:  # some kinds connect at once
        raise InputRefused(f"{without_credentials(url)} cannot be reached: {error.strerror or error}") from None
    return fs, path


def _is_remote_zarr(fs: Any, path: str) -> bool:
    base, mark, query = path.partition("?")
    for name in ZARR_MARKS:
        below = f"{base.rstrip('/')}/{name}{mark}{query}"
        if fs.isfile(below):
            # a server that looks at the query only, or sends everyone to its login page, answers below a file too
            return not fs.isfile(path) or fs.info(path).get("size") != fs.info(below).get("size")
    return False


def _remote_status(name: str, fs: Any, path: str) -> tuple[int, str]:
    try:
        info = fs.info(path)
    except FileNotFoundError as error:
        # fsspec's http says so of a server that cannot be reached, too
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise InputRefused(f"{name} cannot be reached: {error.__cause__}") from None
        raise InputRefused(f"{name} does not exist") from None
    if info.get("type") == "directory":
        raise InputRefused(f"{name} is a folder and no Zarr store; name its files, for example {name}/*.nc")
    if info.get("size") is None:
        raise InputRefused(f"{name}: its server does not say how large it is")
    stamp = next((info[key] for key in _STAMPS if info.get(key)), "")
    return int(info["size"]), str(stamp)


def _fetched(source: Source) -> Path:
    # the whole address: what stands behind the question mark, or who asks, may choose the content
    key = hashlib.sha256(f"{source.location}\n{source.size}\n{source.stamp}".encode()).hexdigest()
    if source.stamp.startswith(UNMARKED):
        key = ONCE + key
    folder = cache_folder()
    target = folder / f"{key}-{Path(urlsplit(source.location).path).name[-80:]}"
    if target.is_file() and target.stat().st_size == source.size:
        os.utime(target)
        return target
    with reading(source.name):
        folder.mkdir(parents=True, exist_ok=True)
        _forget_old(folder)
        with _locked(folder / f"{key}.lock"):
            if target.is_file() and target.stat().st_size == source.size:
                return target
            fs, path = _file_system(source.location)
            size, stamp = _remote_status(source.name, fs, path)
            if (size, stamp or source.stamp) != (source.size, source.stamp):
                raise InputRefused(f"{source.name} changed while it was being ingested")
            handle, scratch = tempfile.mkstemp(dir=folder, prefix=f"{key}.")
            os.close(handle)
            try:
                fs.get_file(path, scratch)
                arrived = Path(scratch).stat().st_size
                if arrived != source.size:
                    raise InputRefused(f"{source.name}: {arrived} of {source.size} bytes arrived")
                if source.sha256 and _file_digest(scratch, lambda _: None) != source.sha256:
                    raise InputRefused(f"{source.name} changed while it was being ingested")
                Path(scratch).replace(target)
            finally:
                Path(scratch).unlink(missing_ok=True)
    return target


def _forget_old(folder: Path) -> None:
    """Remove copies that nobody used lately; a copy that cannot serve a second look, after a day."""
    now = time.time()
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            age = now - path.stat().st_mtime
            if age > KEPT_SECONDS or (age > KEPT_SECONDS / 7 and path.name.startswith(ONCE)):
                path.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, also by a crash
        yield


def _file_digest(path: str, tell: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            tell(len(piece))
    return digest.hexdigest()


def _store_digest(source: Source, tell: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    if source.remote:
        fs, base = _file_system(source.location)
        for path, size, _ in _listing(source):
            body = fs.cat_file(f"{base.rstrip('/')}/{path}")
            digest.update(f"{path}\t{size}\t{hashlib.sha256(body).hexdigest()}\n".encode())
            tell(len(body))
    else:
        for path, size, _ in _listing(source):
            digest.update(f"{path}\t{size}\t{_file_digest(f'{source.location}/{path}', tell)}\n".encode())
    return digest.hexdigest()


def _listing(source: Source) -> list[tuple[str, int, str]]:
    """Path, size and stamp of each object of a Zarr store that is read, sorted."""
    if source.remote:
        return _remote_listing(source)
    base = Path(source.location)
    entries: list[tuple[str, int, str]] = []
    for mark in (*ZARR_MARKS, ".zattrs"):
        path = base / mark
        if path.is_file():
            status = path.stat()
            entries.append((mark, status.st_size, str(status.st_mtime_ns)))
    for part in source.parts:
        entries += _walk(base, part)
    return sorted(entries)


def _walk(base: Path, part: str) -> Iterator[tuple[str, int, str]]:
    with os.scandir(base / part) as scan:
        for entry in scan:
            relative = f"{part}/{entry.name}"
            if entry.is_dir():
                yield from _walk(base, relative)
            else:
                status = entry.stat()
                yield relative, status.st_size, str(status.st_mtime_ns)


def _remote_listing(source: Source) -> list[tuple[str, int, str]]:
    fs, base = _file_system(source.location)
    base = base.rstrip("/")
    entries: list[tuple[str, int, str]] = []
    for mark in (*ZARR_MARKS, ".zattrs"):
        if fs.isfile(f"{base}/{mark}"):
            size, stamp = _remote_status(source.name, fs, f"{base}/{mark}")
            entries.append((mark, size, stamp))
    for part in source.parts:
        for path, info in fs.find(f"{base}/{part}", detail=True).items():
            relative = (
                path[len(base) + 1 :] if path.startswith(base) else path.partition(base.partition("://")[2] + "/")[2]
            )
            stamp = next((info[key] for key in _STAMPS if info.get(key)), "")
            entries.append((relative, int(info.get("size") or 0), str(stamp)))
    if source.parts and not any("/" in path for path, _, _ in entries):
        raise InputRefused(
            f"{source.name}: its server does not list the objects of a Zarr store; copy the store here or to S3 first"
        )
    return sorted(entries)


def _stamp(listing: list[tuple[str, int, str]]) -> str:
    return hashlib.sha256("\n".join(f"{path}\t{size}\t{stamp}" for path, size, stamp in listing).encode()).hexdigest()


_LOOKED: dict[tuple[str, str, int], float] = {}


def _check_store(source: Source) -> None:
    key = (source.location, source.stamp, os.getpid())
    now = time.monotonic()
    if now - _LOOKED.get(key, -STILL_GOOD) < STILL_GOOD:
        return
    with reading(source.name):
        if _stamp(_listing(source)) != source.stamp:
            raise InputRefused(f"{source.name} changed while it was being ingested")
    _LOOKED[key] = now
