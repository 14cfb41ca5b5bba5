"""A store on S3-compatible object storage, by obstore; the one place where requests are retried."""

import builtins
import contextlib
import functools
import ipaddress
import itertools
import math
import mmap
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, override
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

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
    PART_BYTES,
    PARTS_AT_ONCE,
    Listed,
    Store,
    body_size,
    check_key,
    check_keys,
    check_prefix,
    check_ranges,
    is_key,
    is_segment,
)
from services.core.store.ranges import Ranges

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, S3Config, S3Credential

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_SLOWEST = float(1 << 20)
"""Bytes per second: large objects get as much more time."""
_PAGE = 1000
_MOST_PARTS = 10_000
"""Parts that S3 makes an object of."""
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 3.0
_SHORTEST_ATTEMPT = 1 / 8
"""Part of the total time below which no further attempt is worth it."""

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_KIND = re.compile(r"kind: (Connect|Timeout|Request|Decode|Interrupted|Unknown)\b")
_SAID = {"Connect": "no connection could be made", "Timeout": "it did not answer in time"}

_RETRIED_CODES = {
    "ConditionalRequestConflict",
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
    # What was sent changed on the way.
    "BadDigest",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
_RETRIED_STATUSES = {408, 425, 429, 500, 502, 503, 504}
_REFUSED_STATUSES = {401, 403}
_RANGE_REFUSED = 416
_DENIED_TWICE = 2
"""MinIO answers 403 AccessDenied to a write while a delete takes the emptied folder away: tried so often again."""

_runtimes: set[int] = set()
"""Processes that used obstore, as this one knows: those it was forked from, and itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket(Store):
    """Objects of one bucket below a prefix. Endpoint and region are always given: nothing is guessed or looked up."""

    name: str
    prefix: str = ""
    """Without a slash at its end."""
    settings: StoreSettings = field(repr=False)

    def __post_init__(self) -> None:
        if not _BUCKET.fullmatch(self.name):
            raise SettingsError(f"{self.name!r} is not the name of a bucket: 3 to 63 letters, digits and .-_")
        try:
            check_prefix(self.prefix)
        except ValueError as error:
            raise SettingsError(f"the prefix in s3://{self.name}/{self.prefix} cannot be: {error}") from None
        if self.settings.endpoint is None:
            raise SettingsError(
                f"AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL) is not set, but {self.url} needs it: the address of the S3 "
                "service, such as http://127.0.0.1:9000 or https://s3.eu-central-1.amazonaws.com"
            )
        if self.settings.region is None:
            raise SettingsError(
                f"AWS_REGION (or AWS_DEFAULT_REGION) is not set, but {self.url} needs it: us-east-1 is what MinIO and "
                "SeaweedFS take"
            )
        if self.settings.endpoint.startswith("http://") and not (self.settings.allow_http or self._on_this_machine):
            raise SettingsError(
                f"{self.settings.endpoint} is not encrypted and not on this machine: use https, or set "
                "AWS_ALLOW_HTTP=true where the network between may be trusted"
            )

    @staticmethod
    def at(url: str, settings: StoreSettings) -> "Bucket":
        """Return the store of an address ``s3://BUCKET/PREFIX``."""
        name, _, prefix = url.removeprefix("s3://").partition("/")
        if "@" in name:
            raise SettingsError("the store's address must be s3://BUCKET/PREFIX; keys are set by AWS_ACCESS_KEY_ID")
        return Bucket(name=name, prefix=prefix.removesuffix("/"), settings=settings)

    @property
    @override
    def url(self) -> str:
        return f"s3://{self.name}/{self.prefix}" if self.prefix else f"s3://{self.name}"

    @override
    def __str__(self) -> str:
        return f"{self.url} at {self.settings.endpoint}"

    def __dask_tokenize__(self) -> tuple[str, str]:
        """Name the same store the same in every process, without its secrets."""
        return (type(self).__qualname__, str(self))

    @property
    def _on_this_machine(self) -> bool:
        host = urlsplit(self.settings.endpoint or "").hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @override
    def get_tagged(self, key: str) -> tuple[bytes, str]:
        def call(client: S3Store) -> tuple[bytes, str | None]:
            answer = client.get(self._full(key))
            return bytes(answer.bytes()), answer.meta["e_tag"]

        data, tag = self._do("read", key, call)
        if tag is None:
            raise StoreError(f"{self} gives no ETag for {key}, so that it cannot be replaced safely")
        return data, tag

    @override
    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        check_ranges(ranges)
        if not ranges:
            return []
        starts, lengths = zip(*ranges, strict=True)

        def call(client: S3Store) -> builtins.list[bytes]:
            if len(ranges) == 1:
                return [bytes(client.get_range(self._full(key), start=starts[0], length=lengths[0]))]
            return [bytes(part) for part in client.get_ranges(self._full(key), starts=starts, lengths=lengths)]

        parts = self._do("read", key, call, received=sum(lengths))
        return [_whole(key, part, start, length) for part, (start, length) in zip(parts, ranges, strict=True)]

    @property
    @override
    def fetches(self) -> bool:
        return not _is_behind_a_proxy(self.settings.endpoint or "")

    @override
    async def fetch(self, key: str, start: int, length: int) -> bytes:
        check_ranges([(start, length)])
        try:
            part = await _ranges(self).read(key, start, length)
        except (BaseError, OSError) as error:
            # an error of obstore, of which an address is asked, may hold much; ours hold a few words
            said = _Fault.of(error).said if isinstance(error, BaseError) else str(error) or type(error).__name__
            raise StoreUnavailable(f"{self} did not read {key} at the first attempt: {said}") from error
        return _whole(key, part, start, length)

    @override
    def expect(self, keys: Sequence[str]) -> None:
        if keys and self.fetches:
            try:
                _ranges(self).expect(keys)
            except (BaseError, OSError) as error:
                said = _Fault.of(error).said if isinstance(error, BaseError) else str(error) or type(error).__name__
                raise StoreUnavailable(f"{self} signs no requests: {said}") from error

    def _signed(self, keys: Sequence[str], seconds: int) -> Sequence[str]:
        """Addresses by which whoever has them may read some objects for so long."""
        if self.settings.access_key_id is None:
            return [f"{self.settings.endpoint}/{self.name}/{quote(self._full(key))}" for key in keys]
        client = _client(self, self.settings.total_seconds, self.settings.read_seconds)
        return obstore.sign(client, "GET", [self._full(key) for key in keys], timedelta(seconds=seconds))

    @override
    def get_suffix(self, key: str, length: int) -> bytes:
        check_ranges([(0, length)])

        def call(client: S3Store) -> bytes:
            return bytes(client.get(self._full(key), options={"range": {"suffix": length}}).bytes())

        data = self._do("read", key, call, received=length)
        if len(data) != length:
            raise Damaged(key, f"it holds {len(data)} bytes, but the last {length} were asked for")
        return data

    @override
    def size(self, key: str) -> int:
        try:
            return self._do("read", key, lambda client: client.head(self._full(key))["size"])
        except ObjectMissing:
            # The answer to HEAD has no body, which alone tells a missing bucket from a missing object.
            self._do("read", key, lambda client: client.get_range(self._full(key), start=0, length=1))
            raise

    @override
    def create(self, key: str, data: bytes | Path) -> None:
        size = body_size(data)
        if isinstance(data, Path) and size > PART_BYTES * PARTS_AT_ONCE:
            self._create_in_parts(key, data, size)
            return
        body = _mapped(data) if isinstance(data, Path) else data
        attempts = 0

        def call(client: S3Store) -> None:
            nonlocal attempts
            attempts += 1
            client.put(self._full(key), body, mode="create", use_multipart=False)

        try:
            self._do("write", key, call, sent=size)
        except ObjectExists:
            # Only an attempt before this one can have left it there: its answer was lost.
            if attempts == 1 or not self._holds(key, body, size):
                raise

    def _create_in_parts(self, key: str, path: Path, size: int) -> None:
        """Store a large file by a multipart upload; obstore tries each part again, so that no fault costs all of them.

        Mapping the file and sending it at once needs no more memory of its own, but dask counts mapped pages too.
        """
        with contextlib.suppress(ObjectMissing):
            self.size(key)
            raise ObjectExists(key)
        part = max(PART_BYTES, math.ceil(size / _MOST_PARTS))

        def call(client: S3Store) -> None:
            client.put(self._full(key), path, use_multipart=True, chunk_size=part, max_concurrency=PARTS_AT_ONCE)

        try:
            # the deadlines are those of one request, while others share the line
            self._do("write", key, call, sent=part * PARTS_AT_ONCE, attempts=1, retries=self.settings.attempts - 1)
        except StoreError:
            # the answer to the last request may have been lost, and a second one finds the upload gone
            with contextlib.suppress(StoreError):
                if self._holds(key, _mapped(path), size):
                    return
            raise

    @override
    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        def call(client: S3Store) -> str | None:
            mode: Any = "create" if expected is None else {"e_tag": expected}
            return client.put(self._full(key), data, mode=mode, use_multipart=False)["e_tag"]

        try:
            tag = self._do("replace", key, call, sent=len(data), attempts=1)
        except (ObjectExists, ObjectMissing):
            raise PreconditionFailed(key) from None
        if tag is None:
            raise StoreError(f"{self} gives no ETag for {key}, so that it cannot be replaced safely")
        return tag

    @override
    def overwrite(self, key: str, data: bytes) -> None:
        def call(client: S3Store) -> None:
            client.put(self._full(key), data, use_multipart=False)

        self._do("write", key, call, sent=len(data))

    @override
    def delete(self, keys: Iterable[str]) -> None:
        doomed = check_keys(keys)
        for page in itertools.batched(doomed, _PAGE):
            paths = [self._full(key) for key in page]

            def call(client: S3Store, paths: builtins.list[str] = paths) -> None:
                client.delete(paths)

            with contextlib.suppress(ObjectMissing):
                self._do("delete", page[0], call)

    @override
    def list(self, prefix: str) -> Iterator[Listed]:
        stem = check_prefix(prefix)
        folder = self._full(stem) if stem else self.prefix
        found: dict[str, Listed] = {}
        pages: Iterator[Sequence[ObjectMeta]] | None = None

        def call(client: S3Store) -> "Sequence[ObjectMeta]":
            nonlocal pages
            # After a failure all over again: going on behind a key needs keys in order, and SeaweedFS has its own.
            stream = pages or iter(client.list(folder or None, chunk_size=_PAGE))
            pages = None
            page = next(stream, [])
            pages = stream
            return page

        while page := self._do("list", stem, call):
            for meta in page:
                key = self._key(meta["path"])
                if is_key(key):
                    found[key] = Listed(key, meta["size"], meta["last_modified"])
        return iter([found[key] for key in sorted(found)])

    @override
    def children(self, prefix: str) -> builtins.list[str]:
        stem = check_prefix(prefix)
        folder = self._full(stem) if stem else self.prefix
        found = self._do("list", stem, lambda client: client.list_with_delimiter(folder or None))
        paths = [*found["common_prefixes"], *(held["path"] for held in found["objects"])]
        return sorted({name for name in (path.rpartition("/")[2] for path in paths) if is_segment(name)})

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{check_key(key)}" if self.prefix else check_key(key)

    def _key(self, path: str) -> str:
        return path.removeprefix(f"{self.prefix}/") if self.prefix else path

    def _holds(self, key: str, body: bytes | mmap.mmap, size: int) -> bool:
        """Whether the stored object is what was sent."""
        seen = 0
        for part in self.parts(key):
            if part != body[seen : seen + len(part)]:
                return False
            seen += len(part)
        return seen == size

    def _do[Answer](
        self,
        verb: str,
        key: str,
        call: Callable[[S3Store], Answer],
        *,
        sent: int = 0,
        received: int = 0,
        attempts: int | None = None,
        retries: int = 0,
    ) -> Answer:
        """Do one operation: attempts with pauses between them, all within the total time.

        The time of each request is bounded by its client, and no request begins that could end too late. Bytes that are
        known to travel extend the time, in powers of two so that few clients are needed. What takes many requests is
        tried once, and each of them ``retries`` times more.
        """
        total = self.settings.total_seconds
        attempts = attempts or self.settings.attempts
        allowed = _extended(total, sent + received)
        # The client counts an upload as silence.
        silence = _extended(self.settings.read_seconds, sent)
        started = time.monotonic()
        denied = 0
        for attempt in range(1, attempts + 1):
            remaining = allowed - (time.monotonic() - started)
            limit = total * 2.0 ** math.floor(math.log2(remaining / total + 1e-3))
            try:
                return call(_client(self, limit, silence, retries))
            except (BaseError, OSError) as error:
                fault = _Fault.of(error)
                is_denied = verb == "write" and fault.code == "AccessDenied"
                denied += is_denied
                if not fault.passing and not (is_denied and denied <= _DENIED_TWICE and attempt < attempts):
                    raise self._refusal(verb, key, error, fault) from error
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**attempt) * random.uniform(0.5, 1.0)  # noqa: S311
                elapsed = time.monotonic() - started
                if attempt == attempts or allowed - elapsed - pause < total * _SHORTEST_ATTEMPT:
                    raise StoreUnavailable(
                        f"{self} did not {f'{verb} {key}'.rstrip()}: {fault.said}; tried {attempt} "
                        f"{'time' if attempt == 1 else 'times'} in {elapsed:.1f} s"
                    ) from error
                time.sleep(pause)
        raise AssertionError(attempts)

    def _refusal(self, verb: str, key: str, error: Exception, fault: "_Fault") -> StoreError | Damaged:
        """Say what a failure means that will not pass."""
        what = f"{verb} {key}".rstrip()
        refusal: StoreError | Damaged
        if fault.code == "NoSuchBucket":
            refusal = StoreUnavailable(f"the bucket {self.name} does not exist at {self.settings.endpoint}")
        elif fault.status in _REFUSED_STATUSES and self.settings.access_key_id is None:
            refusal = StoreUnavailable(
                f"{self} does not let anyone {what} without credentials, and AWS_ACCESS_KEY_ID is not set "
                f"({fault.said})"
            )
        elif fault.status in _REFUSED_STATUSES:
            refusal = StoreUnavailable(
                f"the credentials were refused by {self.settings.endpoint} for the bucket {self.name}: "
                f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are wrong or may not {what} ({fault.said})"
            )
        elif isinstance(error, FileNotFoundError) and verb in {"read", "replace", "delete"}:
            refusal = ObjectMissing(key)
        elif isinstance(error, AlreadyExistsError) and verb in {"write", "replace"}:
            refusal = ObjectExists(key)
        elif isinstance(error, PreconditionError):
            refusal = PreconditionFailed(key)
        elif fault.status == _RANGE_REFUSED or "CONTENT_RANGE" in str(error):
            refusal = Damaged(key, "it ends before the bytes that were asked for")
        elif fault.status is None and "certificate" in fault.said:
            refusal = StoreUnavailable(f"{self} did not {what}: {fault.said}")
        else:
            refusal = StoreError(f"{self} did not {what}: {fault.said}")
        return refusal


class _Fault(NamedTuple):
    """What can be known of a failed request; obstore says it only in words."""

    status: int | None
    """HTTP status, where there was an answer."""
    code: str | None
    """Code of S3."""
    said: str
    """For a person."""
    passing: bool
    """Whether the same request may succeed later."""

    @staticmethod
    def of(error: Exception) -> "_Fault":
        text = str(error)
        status = int(found[1]) if (found := _STATUS.search(text)) else None
        code = found[1] if (found := _CODE.search(text)) else None
        if "InvalidCertificate" in text:
            said = "its certificate is not trusted; AWS_CA_BUNDLE can name a file of further certificates to trust"
            return _Fault(status, code, said, passing=False)
        if status is not None:
            passing = status in _RETRIED_STATUSES or code in _RETRIED_CODES
            return _Fault(status, code, f"it answered {status}{f' {code}' if code else ''}", passing)
        if found := _KIND.search(text):
            return _Fault(None, None, _SAID.get(found[1], "the connection broke off"), passing=True)
        return _Fault(None, None, text.partition("\n")[0][:200], passing=False)


def _whole(key: str, part: bytes, start: int, length: int) -> bytes:
    """A part that was read, if it is as long as was asked for."""
    if len(part) != length:
        raise Damaged(
            key, f"it ends at byte {start + len(part)}, but {length} bytes from byte {start} on were asked for"
        )
    return part


def _extended(seconds: float, size: int) -> float:
    """Allow for the bytes that travel: ``seconds`` doubled as often as needed, not at all below a second's worth."""
    more = size / _SLOWEST
    return seconds if more < 1 else seconds * 2.0 ** math.ceil(math.log2(1 + more / seconds))


ATTEMPT_SHARE = 1 / 3
"""Of the longest wait for an answer, that of an event loop: a thread that tries again has the rest."""


@functools.lru_cache(maxsize=16)
def _ranges(store: Bucket) -> Ranges:
    """What reads ranges of a store for the event loops of this process."""
    return Ranges(
        str(store),
        store._signed,  # noqa: SLF001 - of this module
        ca_bundle=store.settings.ca_bundle,
        connect_seconds=store.settings.connect_seconds,
        read_seconds=store.settings.read_seconds * ATTEMPT_SHARE,
    )


@functools.lru_cache(maxsize=16)
def _is_behind_a_proxy(endpoint: str) -> bool:
    """Whether the environment sends requests to an endpoint by a proxy, as obstore does then."""
    parts, known = urlsplit(endpoint), getproxies()
    return bool(known.get(parts.scheme) or known.get("all")) and not proxy_bypass(parts.hostname or "")


def _mapped(path: Path) -> bytes | mmap.mmap:
    """Return a file's content without reading it into memory."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""


def _client(store: Bucket, limit: float, silence: float, retries: int = 0) -> S3Store:
    """Return the client of this process for requests of at most ``limit`` seconds."""
    _runtimes.add(os.getpid())
    if len(_runtimes) > 1:
        raise StoreUnavailable(
            f"{store} cannot be used in a process that was forked from one that used object storage, as it would hang: "
            "start it by spawn or forkserver"
        )
    return _open_client(store, limit, silence, retries)


@functools.lru_cache(maxsize=128)
def _open_client(store: Bucket, limit: float, silence: float, retries: int) -> S3Store:
    settings = store.settings
    options: ClientConfig = {
        "allow_http": (settings.endpoint or "").startswith("http://"),
        "connect_timeout": timedelta(seconds=settings.connect_seconds),
        "read_timeout": timedelta(seconds=silence),
        "timeout": timedelta(seconds=limit),
        "user_agent": "cenote",
    }
    if settings.ca_bundle is not None:
        try:
            options["root_certificate"] = settings.ca_bundle.read_bytes()
        except OSError as error:
            raise SettingsError(
                f"AWS_CA_BUNDLE is {settings.ca_bundle}, which cannot be read: {error.strerror}"
            ) from None
    # Everything that obstore would take from the environment is said here.
    config: S3Config = {
        "aws_endpoint_url_s3": settings.endpoint or "",
        "region": settings.region or "",
        "skip_signature": settings.access_key_id is None,
        "conditional_put": "etag",
        "checksum_algorithm": "SHA256",
        "virtual_hosted_style_request": False,
        "unsigned_payload": False,
    }
    provider = None if settings.access_key_id is None else functools.partial(_credentials, settings)
    return S3Store(
        store.name,
        config=config,
        client_options=options,
        retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=limit * (1 + retries))},
        credential_provider=provider,
    )


def _credentials(settings: StoreSettings) -> "S3Credential":
    """Hand the keys over by a call, so that none of the client's own texts or look-ups knows them."""
    access, secret, token = settings.access_key_id, settings.secret_access_key, settings.session_token
    return {
        "access_key_id": access.get_secret_value() if access else "",
        "secret_access_key": secret.get_secret_value() if secret else "",
        "token": token.get_secret_value() if token else None,
        "expires_at": None,
    }
