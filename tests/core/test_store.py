import asyncio
import contextlib
import os
import pickle
import re
import shutil
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, override

import botocore.session
import numpy as np
import pytest
import xarray
import zarr
import zarr.errors
import zarr.storage
from obstore.store import S3Store
from zarr.abc.store import Store as ZarrStore

from services.core.errors import (
    Damaged,
    ObjectExists,
    ObjectMissing,
    PreconditionFailed,
    PreconditionsIgnored,
    SettingsError,
    StoreError,
    StoreUnavailable,
)
from services.core.settings import StoreSettings
from services.core.store import Observed, Operation, Store
from services.core.store import bucket as bucket_module
from services.core.store import interface as interface_module
from services.core.store.bucket import Bucket
from services.core.store.directory import Directory

KINDS = [
    "directory",
    "memory",
    pytest.param("minio", marks=pytest.mark.s3),
    pytest.param("seaweedfs", marks=pytest.mark.s3),
]
PLAIN = StoreSettings()
EVEN = bytes(range(256)) * 40


class Server(Protocol):
    """What the fixtures of S3 servers give."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str

    def new_bucket(self) -> str: ...


class Proxy(Protocol):
    """What the fixture ``fault_proxy`` makes."""

    endpoint: str
    requests: list[str]

    def plan(self, *faults: str, always: str | None = None) -> None: ...


type StartProxy = Callable[[str], Proxy]

_buckets: dict[str, str] = {}


def bucket_of(server: Server) -> str:
    """One bucket for all tests of a server: SeaweedFS needs a second for each."""
    if server.endpoint not in _buckets:
        _buckets[server.endpoint] = server.new_bucket()
    return _buckets[server.endpoint]


def settings_of(server: Server) -> StoreSettings:
    return StoreSettings.model_validate(
        {
            "endpoint": server.endpoint,
            "region": server.region,
            "access_key_id": server.access_key,
            "secret_access_key": server.secret_key,
        }
    )


def client_of(server: Server) -> Any:
    """Another client, for what a store has no words for."""
    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )


def on_server(server: Server, **changes: object) -> Store:
    settings = settings_of(server)
    settings = StoreSettings.model_validate({**dict(settings), **changes})
    return Store.open(f"s3://{bucket_of(server)}/{uuid.uuid4().hex}/deep", settings)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    match request.param:
        case "directory":
            return Store.open(str(tmp_path / "store"), PLAIN)
        case "memory":
            return Store.open(f"memory://{uuid.uuid4().hex}", PLAIN)
    return on_server(request.getfixturevalue(request.param))


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(root=str(tmp_path / "store"))


def race[Answer](count: int, call: Callable[[int], Answer]) -> list[Answer | StoreError]:
    """Let threads start together; errors of the store are answers too."""
    start = threading.Barrier(count)

    def run(number: int) -> Answer | StoreError:
        start.wait()
        try:
            return call(number)
        except StoreError as error:
            return error

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(run, range(count)))
    finally:
        sys.setswitchinterval(usual)


# What holds for every kind of store.


@pytest.mark.parametrize(
    "key", ["a", "segments/0f3a/maps.zarr/c/0/12", "._=+-/x+y=z_1.2/.hidden", "d" * 255, "e/" * 400 + "f"]
)
def test_what_is_created_is_read_back_in_every_way(store: Store, key: str) -> None:
    store.create(key, EVEN)
    assert store.get(key) == EVEN
    assert store.get_tagged(key)[0] == EVEN
    assert store.size(key) == len(EVEN)
    assert store.get_range(key, 250, 300) == EVEN[250:550]
    ranges = [(9000, 3), (0, 10), (5, 1000), (len(EVEN) - 1, 1)]
    assert store.get_ranges(key, ranges) == [EVEN[start : start + length] for start, length in ranges]
    assert store.get_ranges(key, []) == []
    assert store.get_suffix(key, 77) == EVEN[-77:]
    assert store.get_suffix(key, len(EVEN)) == EVEN
    assert [listed.key for listed in store.list("")] == [key]


def test_an_event_loop_fetches_from_object_storage_what_threads_read(store: Store) -> None:
    store.create("a/b", EVEN)
    assert store.fetches == store.url.startswith("s3://")
    store.expect(["a/b", "a/c"])
    if not store.fetches:
        with pytest.raises(NotImplementedError, match="read by threads"):
            asyncio.run(store.fetch("a/b", 250, 300))
        return

    async def both() -> tuple[bytes, bytes]:
        return await asyncio.gather(store.fetch("a/b", 250, 300), store.fetch("a/b", len(EVEN) - 1, 1))

    for _ in range(2):  # each time in another loop
        assert [*asyncio.run(both())] == [EVEN[250:550], EVEN[-1:]]
    with pytest.raises(Damaged, match="ends at byte"):
        asyncio.run(store.fetch("a/b", len(EVEN) - 5, 10))
    with pytest.raises(StoreUnavailable, match=r"did not read .*a/c at the first attempt"):
        asyncio.run(store.fetch("a/c", 0, 1))


@pytest.mark.parametrize("content", [b"", b"x", EVEN * 300])
def test_a_file_is_stored_as_its_content(store: Store, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(content)
    store.create("a/file", tmp_path / "body")
    (tmp_path / "body").write_bytes(b"changed later")
    assert store.get("a/file") == content
    assert store.size("a/file") == len(content)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes of a part: the fewest that S3 takes, one at a time, so that a file of more is a large one."""
    size = 5 << 20
    for module in (bucket_module, interface_module):
        monkeypatch.setattr(module, "PART_BYTES", size)
        monkeypatch.setattr(module, "PARTS_AT_ONCE", 1)
    return size


@pytest.fixture
def large(small_parts: int, tmp_path: Path) -> Path:
    """A file of two parts and a half, no two of whose bytes' surroundings are alike."""
    path = tmp_path / "large"
    path.write_bytes(np.random.default_rng(0).bytes(small_parts * 5 // 2))
    return path


def test_a_large_file_is_stored_whole_and_once(store: Store, large: Path, small_parts: int) -> None:
    content = large.read_bytes()
    store.create("deep/large", large)
    assert [len(part) for part in store.parts("deep/large")] == [small_parts, small_parts, small_parts // 2]
    assert b"".join(store.parts("deep/large")) == content
    large.write_bytes(content[::-1])
    with pytest.raises(ObjectExists, match="'deep/large'"):
        store.create("deep/large", large)
    assert store.get("deep/large") == content
    store.create("nothing", b"")
    assert list(store.parts("nothing")) == []
    with pytest.raises(ObjectMissing):
        list(store.parts("never"))


def test_a_file_that_is_not_there_is_no_fault_of_the_store(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.create("a", tmp_path / "nothing")
    assert [*store.list("")] == []


def test_a_second_create_is_refused_and_changes_nothing(store: Store) -> None:
    store.create("a/b", b"first")
    with pytest.raises(ObjectExists, match="'a/b'"):
        store.create("a/b", b"second")
    # The same bytes from somebody else are not one's own success either.
    with pytest.raises(ObjectExists, match="'a/b'"):
        store.create("a/b", b"first")
    assert store.get("a/b") == b"first"


READS: dict[str, Callable[[Store, str], object]] = {
    "get": lambda store, key: store.get(key),
    "get_tagged": lambda store, key: store.get_tagged(key),
    "get_range": lambda store, key: store.get_range(key, 0, 1),
    "get_ranges": lambda store, key: store.get_ranges(key, [(0, 1), (5, 1)]),
    "get_suffix": lambda store, key: store.get_suffix(key, 1),
    "size": lambda store, key: store.size(key),
}


@pytest.mark.parametrize("read", READS)
def test_a_missing_object_is_an_error_that_names_the_key(store: Store, read: str) -> None:
    store.create("folder/object", b"x")
    for key in ("other", "folder/other", "folder", "folder/object/below"):
        with pytest.raises(ObjectMissing, match=f"'{key}'"):
            READS[read](store, key)


def test_a_range_beyond_the_end_is_damage_and_never_short(store: Store) -> None:
    store.create("ten", b"0123456789")
    store.create("empty", b"")
    for key, start, length in (("ten", 5, 6), ("ten", 10, 1), ("ten", 100, 1), ("empty", 0, 1)):
        with pytest.raises(Damaged, match=f"'{key}' is damaged: it ends"):
            store.get_range(key, start, length)
        with pytest.raises(Damaged, match=f"'{key}' is damaged: it ends"):
            store.get_ranges(key, [(start, length), (start + 1, length)])
    for key, length in (("ten", 11), ("empty", 1)):
        with pytest.raises(Damaged, match=f"'{key}' is damaged"):
            store.get_suffix(key, length)


@pytest.mark.parametrize(("start", "length"), [(-1, 5), (0, 0), (3, -1)])
def test_a_range_that_cannot_be_is_a_mistake(store: Store, start: int, length: int) -> None:
    store.create("ten", b"0123456789")
    with pytest.raises(ValueError, match=f"range of {length} bytes from byte {start}"):
        store.get_range("ten", start, length)


def test_swap_replaces_only_what_was_read(store: Store) -> None:
    first = store.swap("p/current.json", b"1", None)
    assert store.get_tagged("p/current.json") == (b"1", first)
    second = store.swap("p/current.json", b"2", first)
    assert second != first
    assert store.get_tagged("p/current.json") == (b"2", second)
    for key, expected in (("p/current.json", first), ("p/current.json", None), ("p/missing", second)):
        with pytest.raises(PreconditionFailed, match=f"'{key}'"):
            store.swap(key, b"3", expected)
    assert store.get_tagged("p/current.json") == (b"2", second)
    assert [listed.key for listed in store.list("")] == ["p/current.json"]


def test_overwrite_and_delete(store: Store) -> None:
    store.overwrite("a/b", b"1")
    store.overwrite("a/b", b"22")
    assert store.get("a/b") == b"22"
    store.create("a/c", b"3")
    store.delete(key for key in ("a/b", "a/never", "never/was", "a/c/below"))
    store.delete([])
    assert [listed.key for listed in store.list("")] == ["a/c"]
    store.delete(["a/c"])
    assert [*store.list("")] == []
    with pytest.raises(ValueError, match="single"):
        store.delete("a")


KEYS = ["a", "b/1", "b/10", "b/2/x", "b-1/x", "b.c", "b/2/y/z", "bb/1", "c/d/e"]


def test_listings_are_complete_ordered_and_end_at_a_segment(store: Store) -> None:
    began = datetime.now(UTC)
    for number, key in enumerate(KEYS):
        store.create(key, b"x" * number)
    listed = [*store.list("")]
    assert [found.key for found in listed] == sorted(KEYS)
    assert {found.key: found.size for found in listed} == {key: number for number, key in enumerate(KEYS)}
    # Servers round to seconds.
    assert all(abs(found.last_modified - began) < timedelta(seconds=60) for found in listed)
    assert [found.key for found in store.list("b")] == ["b/1", "b/10", "b/2/x", "b/2/y/z"]
    assert [found.key for found in store.list("b/2/")] == ["b/2/x", "b/2/y/z"]
    assert [*store.list("b/1")] == []
    assert [*store.list("nothing/here")] == []
    assert store.children("") == ["a", "b", "b-1", "b.c", "bb", "c"]
    assert store.children("b") == ["1", "10", "2"]
    assert store.children("b/1") == []
    assert store.children("nothing") == []


def test_a_listing_in_pages_is_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "_PAGE", 3)
    for key in KEYS:
        store.create(f"in/{key}", b"x")
    assert [found.key for found in store.list("in")] == sorted(f"in/{key}" for key in KEYS)
    store.delete([f"in/{key}" for key in KEYS])
    assert [*store.list("")] == []


@pytest.mark.slow
def test_more_objects_than_a_page_holds_are_listed_and_deleted(store: Store) -> None:
    keys = [f"many/{number:04}" for number in range(1007)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.create(key, b"x"), keys))
    assert [found.key for found in store.list("many")] == keys
    assert store.children("many") == [key.removeprefix("many/") for key in keys]
    store.delete(keys)
    assert [*store.list("many")] == []


BAD_KEYS = [
    *("", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "../a", "a\\b", "a b", "a\nb", "a\0b", "é", "a%2e"),
    *("a?b", "a#b", "a:b", "a*", ".cenote-local/x", "x" * 256, "y/" * 500 + "y"),
]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_is_none_is_refused_by_every_method(store: Store, key: str) -> None:
    calls: list[Callable[[], object]] = [
        *(lambda read=read: read(store, key) for read in READS.values()),
        lambda: store.create(key, b""),
        lambda: store.swap(key, b"", None),
        lambda: store.swap(key, b"", "tag"),
        lambda: store.overwrite(key, b""),
        lambda: store.delete(["fine", key]),
    ]
    if not re.fullmatch(r"|[^/]+/", key):
        calls += [lambda: [*store.list(key)], lambda: store.children(key)]
    for call in calls:
        with pytest.raises(ValueError, match="cannot be a key"):
            call()


@pytest.mark.parametrize("expected", ["nothing", "an object"])
def test_of_racing_writers_exactly_one_wins(store: Store, expected: str) -> None:
    for turn in range(2):
        key = f"race/{turn}"
        tag = None if expected == "nothing" else store.swap(key, b"start", None)

        def write(number: int, key: str = key, tag: str | None = tag) -> object:
            body = f"{number}".encode()
            return store.swap(key, body, tag) if tag else store.create(key, body)

        answers = race(16, write)
        lost = PreconditionFailed if tag else ObjectExists
        winners = [number for number, answer in enumerate(answers) if not isinstance(answer, StoreError)]
        # SeaweedFS lets racers wait for its locks for seconds: on a busy machine some hear nothing in time
        unheard = [number for number, answer in enumerate(answers) if type(answer) is StoreUnavailable]
        assert not unheard or isinstance(store, Bucket), answers
        assert len(winners) == 1 or (not winners and unheard), answers
        assert len(winners) + len(unheard) + sum(type(answer) is lost for answer in answers) == 16, answers
        assert int(store.get(key)) in (winners or unheard)


def test_racing_increments_lose_none(store: Store) -> None:
    store.swap("counter", b"0", None)

    def increment(_: int) -> None:
        for _turn in range(5):
            while True:
                value, tag = store.get_tagged("counter")
                with contextlib.suppress(PreconditionFailed):
                    store.swap("counter", b"%d" % (int(value) + 1), tag)
                    break

    race(6, increment)
    assert store.get("counter") == b"30"


def test_create_and_delete_in_one_folder_do_not_disturb_each_other(store: Store) -> None:
    def work(number: int) -> None:
        for turn in range(10):
            key = f"deep/folder/{number}-{turn}"
            store.create(key, b"x")
            store.delete([key])

    assert race(8, work) == [None] * 8
    assert [*store.list("")] == []


def test_a_reader_sees_whole_objects_while_they_are_replaced(store: Store) -> None:
    store.overwrite("doc", b"0" * 200_000)
    stop = threading.Event()

    def write() -> None:
        for turn in range(1, 30):
            store.overwrite("doc", b"%d" % (turn % 10) * 200_000)
        stop.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not stop.is_set() and not writing.done():
            data = store.get("doc")
            assert len(data) == 200_000
            assert len(set(data)) == 1
        writing.result()


def test_the_probe_accepts_the_store_once_and_leaves_nothing(store: Store) -> None:
    counting = Counting(store)
    counting.probe()
    assert {operation.name for operation in counting.seen} >= {"create", "swap", "delete"}
    assert [*store.list("")] == []
    counting.seen.clear()
    counting.probe()
    store.probe()
    assert counting.seen == []


def test_a_store_is_a_value_without_secrets_in_its_text(store: Store) -> None:
    again = pickle.loads(pickle.dumps(store))  # noqa: S301 - our own bytes
    assert again == store
    assert hash(again) == hash(store)
    again.create("a", b"through the copy")
    assert store.get("a") == b"through the copy"
    if isinstance(store, Bucket):
        text = f"{store!r} {store} {store.url} {store.__dask_tokenize__()}"
        assert store.settings.secret_access_key
        assert store.settings.secret_access_key.get_secret_value() not in text
        assert str(store).endswith(f" at {store.settings.endpoint}")
        assert replace(store, prefix="other") != store
    assert Store.open(store.url, getattr(store, "settings", PLAIN)) == store


IN_ANOTHER_PROCESS = """
    import pickle, sys
    store = pickle.load(sys.stdin.buffer)
    try:
        print(store.get("a").decode())
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_a_copy_in_another_process_opens_its_own_connection(store: Store) -> None:
    store.create("a", b"what was stored")
    store.get("a")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(IN_ANOTHER_PROCESS)],
        input=pickle.dumps(store),
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    if store.url.startswith("memory://"):
        assert done.stdout.startswith(b"StoreUnavailable ")
    else:
        assert done.stdout == b"what was stored\n"


IN_A_FORK = """
    import os, pickle, signal, sys, warnings
    from services.core.store import Store
    warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested here
    url, settings = pickle.load(sys.stdin.buffer)
    store = Store.open(url, settings)
    store.overwrite("a", b"before the fork")
    child = os.fork()
    if not child:
        signal.alarm(10)
        for used in (store, Store.open(url, settings)):
            try:
                print(used.get("a").decode(), flush=True)
            except Exception as error:
                print(type(error).__name__, error, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "the child hung"
    assert store.get("a") == b"before the fork"
"""


def test_a_fork_refuses_at_once_what_would_hang(store: Store) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(IN_A_FORK)],
        input=pickle.dumps((store.url, getattr(store, "settings", PLAIN))),
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    refused = r"StoreUnavailable s3://.* cannot be used in a process that was forked from .*: start it by spawn .*"
    expected = {
        "directory": ["before the fork"] * 2,
        "memory": [r"StoreUnavailable memory://.* and this is another", "ObjectMissing no object is stored under 'a'"],
        "bucket": [refused] * 2,
    }[type(store).__name__.lower()]
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(expected, lines, strict=True)), lines


# Views and wrappers.


def test_zarr_and_xarray_read_what_zarr_wrote_through_the_view(store: Store, tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(3, 50, 70)).astype("f4")
    dataset = xarray.Dataset({"v": (("time", "y", "x"), values, {"units": "1"})}, coords={"time": [1, 2, 3]})
    encoding = {"v": {"chunks": (1, 16, 16), "shards": (1, 32, 32)}}
    # Into a plain directory by zarr itself; then each object through the store.
    dataset.to_zarr(tmp_path / "plain", encoding=encoding, zarr_format=3, consolidated=False)
    view = store.zarr_store("a/maps.zarr", read_only=False)
    for path in sorted((tmp_path / "plain").rglob("*")):
        if path.is_file():
            store.create(f"a/maps.zarr/{path.relative_to(tmp_path / 'plain')}", path)
    read = xarray.open_zarr(store.zarr_store("a/maps.zarr"), consolidated=False)
    xarray.testing.assert_identical(read.load(), dataset)

    written = zarr.create_array(view, name="direct", shape=(40, 40), chunks=(10, 10), shards=(20, 20), dtype="f8")
    written[:] = np.arange(1600.0).reshape(40, 40)
    array = zarr.open_array(second_view(store, "a/maps.zarr"), path="direct", mode="r")
    np.testing.assert_array_equal(np.asarray(array), np.arange(1600.0).reshape(40, 40))
    # Written once: other values and no values are refused, the same values are not.
    for other in (written.fill_value, 7.0):
        with pytest.raises(ObjectExists, match=r"a/maps\.zarr/direct/c/0/0"):
            written[:20, :20] = other
    written[:20, :20] = np.arange(1600.0).reshape(40, 40)[:20, :20]
    with pytest.raises(ValueError, match="read-only"):
        store.zarr_store("a/maps.zarr")._check_writable()


def second_view(store: Store, prefix: str) -> ZarrStore:
    """What zarr itself has for such a store."""
    match store:
        case Bucket(settings=settings):
            assert settings.access_key_id
            assert settings.secret_access_key
            client = S3Store(
                store.name,
                prefix=f"{store.prefix}/{prefix}",
                aws_endpoint_url_s3=settings.endpoint,
                region=settings.region or "",
                access_key_id=settings.access_key_id.get_secret_value(),
                secret_access_key=settings.secret_access_key.get_secret_value(),
                client_options={"allow_http": True},
            )
            return zarr.storage.ObjectStore(client, read_only=True)
        case Directory(root=root):
            return zarr.storage.LocalStore(f"{root}/{prefix}", read_only=True)
    return store.zarr_store(prefix)


def test_the_view_lists_what_is_below_its_prefix(store: Store) -> None:
    for key in ("z/zarr.json", "z/a/zarr.json", "z/a/c/0", "z/ab/zarr.json", "zz/other"):
        store.create(key, b"{}")

    async def everything(view: ZarrStore) -> tuple[list[str], list[str], list[str], list[str], bool, bool]:
        return (
            [key async for key in view.list()],
            [key async for key in view.list_prefix("a/")],
            sorted([key async for key in view.list_dir("")]),
            sorted([key async for key in view.list_dir("a")]),
            await view.exists("a/zarr.json"),
            await view.exists("other"),
        )

    answers = asyncio.run(everything(store.zarr_store("z")))
    keys = ["a/c/0", "a/zarr.json", "ab/zarr.json", "zarr.json"]
    assert answers == (keys, keys[:2], ["a", "ab", "zarr.json"], ["c", "zarr.json"], True, False)


def test_a_missing_chunk_is_an_error_where_zarr_is_told_so(store: Store) -> None:
    view = store.zarr_store("z", read_only=False)
    array = zarr.create_array(view, shape=(8,), chunks=(4,), dtype="f4", fill_value=np.nan)
    array[:] = np.arange(8.0)
    store.delete(["z/c/1"])
    strict = zarr.open_array(store.zarr_store("z"), mode="r", config={"read_missing_chunks": False})
    np.testing.assert_array_equal(np.asarray(strict[:4]), np.arange(4.0))
    with pytest.raises(zarr.errors.ChunkNotFoundError, match="chunk 'c/1'"):
        strict[4:]


class Counting(Observed):
    """Remember operations, and fail at one of them, before it is done or after."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.seen: list[Operation] = []
        self.crash_at: int | None = None
        self.crash_after = False

    @override
    def around[Answer](self, operation: Operation, call: Callable[[], Answer]) -> Answer:
        self.seen.append(operation)
        if len(self.seen) == self.crash_at and not self.crash_after:
            raise InterruptedError
        answer = call()
        if len(self.seen) == self.crash_at:
            raise InterruptedError
        return answer


def test_an_observer_sees_each_operation_with_its_keys_and_bytes(store: Store, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"12345")
    counting = Counting(store)
    counting.create("a/b", b"123")
    counting.create("a/c", tmp_path / "body")
    tag = counting.swap("p", b"1", None)
    counting.overwrite("o", b"22")
    assert counting.get_tagged("p") == (b"1", tag)
    assert (counting.get("a/b"), counting.get_range("a/b", 1, 2), counting.get_ranges("a/b", [(0, 1)])) == (
        *(b"123", b"23"),
        [b"1"],
    )
    assert (counting.get_suffix("a/c", 1), counting.size("a/c")) == (b"5", 5)
    assert [found.key for found in counting.list("a")] == ["a/b", "a/c"]
    assert counting.children("") == ["a", "o", "p"]
    counting.delete(["a/b", "a/c"])
    assert [(seen.name, seen.keys, seen.sent) for seen in counting.seen] == [
        ("create", ("a/b",), 3),
        ("create", ("a/c",), 5),
        ("swap", ("p",), 1),
        ("overwrite", ("o",), 2),
        ("get_tagged", ("p",), 0),
        ("get", ("a/b",), 0),
        ("get_range", ("a/b",), 0),
        ("get_ranges", ("a/b",), 0),
        ("get_suffix", ("a/c",), 0),
        ("size", ("a/c",), 0),
        ("list", ("a",), 0),
        ("children", ("",), 0),
        ("delete", ("a/b", "a/c"), 0),
    ]
    assert (counting.url, str(counting)) == (store.url, str(store))


def test_an_observer_can_crash_before_or_after_an_operation(store: Store) -> None:
    for after in (False, True):
        counting = Counting(store)
        counting.crash_at, counting.crash_after = 2, after
        counting.create(f"{after}/1", b"1")
        with pytest.raises(InterruptedError):
            counting.create(f"{after}/2", b"2")
    assert [found.key for found in store.list("")] == ["False/1", "True/1", "True/2"]


# A directory.


def test_a_write_is_on_disk_before_it_has_its_name_and_so_is_the_name_after(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, seen = Path(directory.root), list[tuple[str, bool]]()

    def synced(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        what = "bytes" if path.is_file() else os.path.relpath(path, root)
        seen.append((what, (root / "a" / "b").exists()))
        if what == "bytes":
            assert path.read_bytes() == b"whole"

    monkeypatch.setattr(os, "fsync", synced)
    directory.create("a/b", b"whole")
    assert seen.index(("bytes", False)) < seen.index(("a", True))
    assert (".", False) in seen, "the folder that was made"
    seen.clear()
    directory.overwrite("a/b", b"whole")
    assert seen == [("bytes", True), ("a", True)]


def test_a_writer_that_dies_leaves_no_object_and_no_lock(directory: Directory, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    code = f"""
        import sys
        from pathlib import Path
        from services.core.store.directory import Directory
        Directory(root={directory.root!r}).create("a/b", Path({str(tmp_path / "pipe")!r}))
    """
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    try:
        with (tmp_path / "pipe").open("wb") as pipe:
            pipe.write(b"half of it")
            pipe.flush()
            left = Path(directory.root, ".cenote-local")
            wait_until(lambda: left.is_dir() and any(left.iterdir()))
            assert [*directory.list("")] == []
            writer.kill()
            writer.wait()
    finally:
        writer.kill()
        writer.wait()
    with pytest.raises(ObjectMissing):
        directory.get("a/b")
    assert ([*directory.list("")], directory.children("")) == ([], [])
    # What it left is removed a day later by the next one that takes the lock.
    (abandoned,) = left.iterdir()
    directory.overwrite("other", b"")
    assert abandoned.exists()
    os.utime(abandoned, (0, time.time() - 25 * 3600))
    directory.overwrite("other", b"")
    assert [path.name for path in left.iterdir()] == ["lock"]
    directory.create("a/b", b"now")


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_lock_that_is_held_ends_in_an_error_and_a_dead_holder_holds_nothing(
    directory: Directory, tmp_path: Path
) -> None:
    tag = directory.swap("p", b"1", None)
    directory.swap("p", b"2", tag)
    code = f"""
        import fcntl, sys, time
        lock = open({directory.root + "/.cenote-local/lock"!r}, "ab")
        fcntl.flock(lock, fcntl.LOCK_EX)
        open({str(tmp_path / "held")!r}, "w").close()
        time.sleep(60)
    """
    held = tmp_path / "held"
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    try:
        wait_until(held.exists)
        impatient = replace(directory, lock_seconds=0.3)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"cannot write p: another process has held the lock .* for 0.3 s"):
            impatient.overwrite("p", b"3")
        assert 0.3 < time.monotonic() - began < 1.3
        directory.create("needs/no/lock", b"")
    finally:
        holder.kill()
        holder.wait()
    impatient.overwrite("p", b"3")


def test_of_racing_processes_exactly_one_wins(directory: Directory) -> None:
    tag = directory.swap("p", b"start", None)
    code = f"""
        import sys
        from services.core.errors import PreconditionFailed
        from services.core.store.directory import Directory
        sys.stdin.readline()
        try:
            Directory(root={directory.root!r}).swap("p", sys.argv[1].encode(), {tag!r})
        except PreconditionFailed:
            sys.exit(3)
    """
    racers = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(number)], stdin=subprocess.PIPE)
        for number in range(4)
    ]
    for racer in racers:
        racer.communicate(b"go\n", timeout=60)
    codes = [racer.returncode for racer in racers]
    assert sorted(codes) == [0, 3, 3, 3]
    assert directory.get("p") == f"{codes.index(0)}".encode()


def test_a_folder_that_vanishes_before_its_first_object_is_made_again(directory: Directory) -> None:
    code = f"""
        import os
        while True:
            for path in ("deep/folder", "deep"):
                try:
                    os.rmdir({directory.root!r} + "/" + path)
                except OSError:
                    pass
    """
    remover = subprocess.Popen([sys.executable, "-S", "-c", textwrap.dedent(code)])
    try:
        for turn in range(40):
            directory.create(f"deep/folder/{turn}", b"x")
            directory.delete([f"deep/folder/{turn}"])
    finally:
        remover.kill()
        remover.wait()


def test_a_key_cannot_be_the_folder_of_another(directory: Directory) -> None:
    directory.create("a", b"")
    directory.create("b/c", b"")
    with pytest.raises(StoreError, match="a key cannot be the folder of another"):
        directory.create("a/below", b"")
    with pytest.raises(StoreError, match="a key cannot be the folder of another"):
        directory.overwrite("b", b"")


def test_foreign_files_and_empty_folders_are_not_listed(directory: Directory) -> None:
    directory.create("a/b", b"")
    Path(directory.root, "a", "has space").write_bytes(b"")
    Path(directory.root, "empty", "folder").mkdir(parents=True)
    assert [found.key for found in directory.list("")] == ["a/b"]
    assert directory.children("") == ["a"]
    assert directory.children("a") == ["b"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small file system, which only root may")
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    assert mount
    assert umount
    tried = subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "none", mounted], check=False, capture_output=True)
    if tried.returncode:
        pytest.skip(f"mounting is not allowed here: {tried.stderr.decode().strip()}")
    try:
        small = Directory(root=str(mounted / "store"))
        small.create("fits", b"x" * 100_000)
        with pytest.raises(StoreUnavailable, match=r"cannot write big: No space left on device"):
            small.create("big", b"x" * 2_000_000)
        assert [found.key for found in small.list("")] == ["fits"]
        small.create("fits/too".replace("/", "-"), b"x" * 100_000)
    finally:
        subprocess.run([umount, mounted], check=True)


def test_a_directory_that_may_not_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot (write|hold) a"):
        Directory(root="/proc/cenote").create("a", b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"file cannot hold a"):
        Directory(root=str(tmp_path / "file")).create("a", b"")


# Addresses.


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("relative/dir", "{cwd}/relative/dir"),
        ("/absolute/../dir/", "/dir"),
        ("file:///some/a%20b", "/some/a b"),
        ("file://localhost/some", "/some"),
        ("with space", "{cwd}/with space"),
    ],
)
def test_a_directory_has_one_absolute_path(
    url: str, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.open(url, PLAIN)
    assert store.url == root.format(cwd=tmp_path)
    assert Store.open(store.url, PLAIN) == store


S3 = {"endpoint": "https://s3.example.org", "region": "r"}


@pytest.mark.parametrize(
    ("url", "settings", "sentence"),
    [
        ("gs://bucket", {}, r"starts with 'gs'://, but must be a directory, .* or s3://BUCKET/PREFIX"),
        ("", {}, "address is empty"),
        ("file://host/path", {}, "is not file:///PATH"),
        ("memory://a/b", {}, "is not memory://NAME"),
        ("s3://bucket", {"region": "r"}, r"AWS_ENDPOINT_URL_S3 .* is not set, but s3://bucket needs it"),
        ("s3://bucket/p", {"endpoint": S3["endpoint"]}, r"AWS_REGION .* is not set, but s3://bucket/p needs it"),
        ("s3://", S3, "is not the name of a bucket"),
        ("s3://b", S3, "'b' is not the name of a bucket"),
        ("s3://bucket/a//b", S3, r"prefix in s3://bucket/a//b cannot be"),
        ("s3://bucket/../b", S3, r"prefix in s3://bucket/../b cannot be"),
        ("s3://hidden:hidden@bucket", S3, "must be s3://BUCKET/PREFIX; keys are set by AWS_ACCESS_KEY_ID"),
        ("s3://bucket", {**S3, "endpoint": "http://192.0.2.1:9000"}, "not encrypted and not on this machine"),
    ],
)
def test_an_address_that_cannot_be_is_refused_in_a_sentence(url: str, settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as refused:
        Store.open(url, StoreSettings.model_validate(settings))
    assert "hidden" not in str(refused.value)


def test_plain_http_needs_loopback_or_permission() -> None:
    for endpoint in ("http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9"):
        Store.open("s3://bucket", StoreSettings(endpoint=endpoint, region="r"))
    Store.open("s3://bucket", StoreSettings(endpoint="http://minio:9000", region="r", allow_http=True))


# Faults between a store on S3 and its server.

QUICK = {"connect_seconds": 0.5, "read_seconds": 0.5, "total_seconds": 2.0}
ANYHOW: dict[str, Callable[[Store, str], object]] = {
    **READS,
    "list": lambda store, _: [found.key for found in store.list("")],
    "children": lambda store, _: store.children(""),
    "create": lambda store, _: store.create(f"new/{uuid.uuid4().hex}", EVEN),
    "overwrite": lambda store, key: store.overwrite(key, EVEN),
    "delete": lambda store, _: store.delete(["never", "was"]),
}


@pytest.fixture
def faulty(minio: Server, fault_proxy: StartProxy) -> tuple[Proxy, Store, Store]:
    """A proxy with faults before MinIO, a store behind it with short deadlines, and the same store reached directly."""
    proxy = fault_proxy(minio.endpoint)
    direct = on_server(minio)
    assert isinstance(direct, Bucket)
    settings = StoreSettings.model_validate({**dict(direct.settings), **QUICK, "endpoint": proxy.endpoint})
    direct.create("object", EVEN)
    return proxy, replace(direct, settings=settings), direct


@pytest.mark.parametrize("operation", ANYHOW)
@pytest.mark.parametrize("fault", ["503", "500", "reset", "lost", "truncate", "stall-body"])
def test_a_fault_that_passes_is_not_noticed(faulty: tuple[Proxy, Store, Store], fault: str, operation: str) -> None:
    proxy, store, direct = faulty
    expected = ANYHOW[operation](direct, "object")
    proxy.plan(fault)
    assert ANYHOW[operation](store, "object") == expected or operation in {"list", "children"}
    assert direct.get("object") == EVEN


def test_a_write_that_is_denied_for_a_moment_is_tried_again(faulty: tuple[Proxy, Store, Store]) -> None:
    # MinIO does so while a delete takes the emptied folder away
    proxy, store, direct = faulty
    for number, write in enumerate((store.create, store.overwrite)):
        proxy.plan("403", "403")
        write(f"new/{number}", EVEN)
        assert direct.get(f"new/{number}") == EVEN
    proxy.plan(always="403")
    for operation, requests in ((lambda: store.create("more", EVEN), 3), (lambda: store.get("object"), 1)):
        proxy.requests.clear()
        with pytest.raises(StoreUnavailable, match="the credentials were refused"):
            operation()
        assert len(proxy.requests) == requests


@pytest.mark.parametrize("operation", ["get", "size", "create", "list"])
def test_a_stall_that_passes_costs_the_read_time(faulty: tuple[Proxy, Store, Store], operation: str) -> None:
    proxy, store, _ = faulty
    proxy.plan("stall")
    began = time.monotonic()
    ANYHOW[operation](store, "object")
    assert 0.5 < time.monotonic() - began < 1.5


@pytest.mark.parametrize("fault", ["503", "reset", "stall", "lost"])
def test_a_fault_that_stays_is_an_error_in_time_that_names_the_endpoint(
    faulty: tuple[Proxy, Store, Store], fault: str
) -> None:
    proxy, store, _ = faulty
    proxy.plan(always=fault)

    def refused(operation: str) -> tuple[float, str]:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable) as error:
            ANYHOW[operation](store, "object")
        return time.monotonic() - began, str(error.value)

    with ThreadPoolExecutor(len(ANYHOW)) as pool:
        outcomes = dict(zip(ANYHOW, pool.map(refused, ANYHOW), strict=True))
    for operation, (seconds, message) in outcomes.items():
        assert seconds < QUICK["total_seconds"] + 1, operation
        assert proxy.endpoint in message
        assert re.search(r"tried [2-5] times in [0-2]\.\d s$", message), message


@pytest.mark.parametrize("fault", ["truncate", "stall-body", "trickle"])
def test_a_body_that_never_ends_is_an_error_in_time(faulty: tuple[Proxy, Store, Store], fault: str) -> None:
    proxy, store, _ = faulty
    proxy.plan(always=fault)
    began = time.monotonic()
    reads: list[Callable[[], object]] = [
        lambda: store.get("object"),
        lambda: store.get_range("object", 0, 1000),
        lambda: store.get_ranges("object", [(0, 100), (200, 100)]),
        lambda: store.get_suffix("object", 1000),
    ]
    for answer in race(len(reads), lambda number: reads[number]()):
        assert isinstance(answer, StoreUnavailable), answer
        assert "did not read object" in str(answer)
    assert time.monotonic() - began < QUICK["total_seconds"] + 1


@pytest.mark.slow
def test_a_listing_that_breaks_off_between_pages_is_complete(faulty: tuple[Proxy, Store, Store]) -> None:
    proxy, store, direct = faulty
    keys = [f"many/{number:04}" for number in range(1003)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: direct.create(key, b"x"), keys))
    proxy.plan("pass", "reset")
    assert [found.key for found in store.list("many")] == keys
    assert len(proxy.requests) == 4


def test_a_spurious_404_is_a_missing_object_and_nothing_else(faulty: tuple[Proxy, Store, Store]) -> None:
    proxy, store, _ = faulty
    for operation, call in ANYHOW.items():
        proxy.plan(always="404")
        if operation == "delete":
            continue
        with pytest.raises(ObjectMissing if operation in READS else StoreError) as error:
            call(store, "object")
        assert operation in READS or type(error.value) is StoreError


def test_a_conflict_that_passes_is_tried_again(faulty: tuple[Proxy, Store, Store]) -> None:
    proxy, store, direct = faulty
    proxy.plan("409")
    store.create("new", b"1")
    assert direct.get("new") == b"1"
    assert len(proxy.requests) == 2


@pytest.mark.parametrize("as_file", ["bytes", "file"])
def test_a_create_whose_answer_was_lost_is_a_success(
    faulty: tuple[Proxy, Store, Store], as_file: str, tmp_path: Path
) -> None:
    proxy, store, direct = faulty
    (tmp_path / "body").write_bytes(EVEN)
    proxy.plan("lost")
    store.create("new", tmp_path / "body" if as_file == "file" else EVEN)
    assert direct.get("new") == EVEN
    assert [request.split()[0] for request in proxy.requests] == ["PUT", "PUT", "HEAD", "GET"]


@pytest.mark.parametrize("fault", ["503", "reset", "lost", pytest.param("stall", marks=pytest.mark.slow)])
@pytest.mark.parametrize("before", [2, 4, 6], ids=["begin", "part", "finish"])
def test_a_fault_that_passes_costs_a_large_file_one_request(
    faulty: tuple[Proxy, Store, Store], fault: str, before: int, large: Path
) -> None:
    proxy, store, direct = faulty
    proxy.plan(*["pass"] * before, fault)
    store.create("large", large)
    assert direct.get("large") == large.read_bytes()
    sent = [request.split()[0] for request in proxy.requests]
    assert sent.count("PUT") in {3, 4}, "parts that were sent are not sent again"


def test_a_large_file_whose_part_cannot_be_sent_leaves_nothing(
    faulty: tuple[Proxy, Store, Store], large: Path, minio: Server
) -> None:
    proxy, store, direct = faulty
    proxy.plan(*["pass"] * 4, *["503"] * 5)
    with pytest.raises(StoreUnavailable, match="did not write large: it answered 503"):
        store.create("large", large)
    with pytest.raises(ObjectMissing):
        direct.size("large")
    client = client_of(minio)
    assert isinstance(direct, Bucket)
    with contextlib.closing(client):
        left = client.list_multipart_uploads(Bucket=direct.name, Prefix=f"{direct.prefix}/large")
    assert left.get("Uploads", []) == []
    store.create("large", large)
    assert direct.get("large") == large.read_bytes()


@pytest.mark.parametrize("theirs", [b"theirs", b"ours" + b"!"])
def test_a_create_whose_attempt_failed_does_not_take_another_writers_object_for_its_own(
    faulty: tuple[Proxy, Store, Store], theirs: bytes
) -> None:
    proxy, store, direct = faulty
    direct.create("new", theirs)
    proxy.plan("reset")
    with pytest.raises(ObjectExists):
        store.create("new", b"ours!"[:4] + b"?")
    assert direct.get("new") == theirs


@pytest.mark.parametrize(("fault", "stored"), [("lost", b"new"), ("503", b"old"), ("reset", b"old"), ("stall", b"old")])
def test_a_swap_is_sent_once_and_its_fate_is_for_the_caller_to_read(
    faulty: tuple[Proxy, Store, Store], fault: str, stored: bytes
) -> None:
    proxy, store, direct = faulty
    tag = direct.swap("pointer", b"old", None)
    proxy.plan(fault)
    with pytest.raises(StoreUnavailable, match=r"did not replace pointer: .*tried 1 time in"):
        store.swap("pointer", b"new", tag)
    assert proxy.requests == [request for request in proxy.requests if request.startswith("PUT")]
    assert len(proxy.requests) == 1
    assert direct.get("pointer") == stored
    if stored == b"old":
        store.swap("pointer", b"new", tag)


@pytest.mark.parametrize("kind", ["minio", "seaweedfs"])
@pytest.mark.s3
def test_bytes_that_change_on_the_way_are_not_stored(
    kind: str, request: pytest.FixtureRequest, fault_proxy: StartProxy
) -> None:
    server: Server = request.getfixturevalue(kind)
    proxy = fault_proxy(server.endpoint)
    direct = on_server(server)
    assert isinstance(direct, Bucket)
    store = replace(
        direct, settings=StoreSettings.model_validate({**dict(direct.settings), **QUICK, "endpoint": proxy.endpoint})
    )
    proxy.plan("flip-sent")
    store.create("once", EVEN)
    assert direct.get("once") == EVEN
    proxy.plan(always="flip-sent")
    with pytest.raises(StoreUnavailable, match="it answered 400"):
        store.create("always", EVEN)
    with pytest.raises(StoreUnavailable, match="it answered 400"):
        store.swap("swapped", EVEN, None)
    assert [found.key for found in direct.list("")] == ["once"]


# What an operator can get wrong.


@pytest.mark.parametrize("kind", ["minio", "seaweedfs"])
@pytest.mark.s3
def test_wrong_secrets_and_missing_buckets_are_named(kind: str, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(kind)
    wrong = on_server(server, secret_access_key="not-the-secret")  # noqa: S106 - made up
    right = on_server(server)
    assert isinstance(right, Bucket)
    gone = replace(right, name="no-such-bucket")
    for operation, call in ANYHOW.items():
        refusal = f"credentials were refused by {server.endpoint} for the bucket {bucket_of(server)}"
        with pytest.raises(StoreUnavailable, match=refusal) as refused:
            call(wrong, "object")
        assert "not-the-secret" not in str(refused.value)
        # SeaweedFS makes a bucket for whoever may, when something is put into it.
        if kind == "minio" or operation in {*READS, "list", "children"}:
            with pytest.raises(
                StoreUnavailable, match=f"the bucket no-such-bucket does not exist at {server.endpoint}"
            ):
                call(gone, "object")


def test_a_server_that_is_not_there_is_named(minio: Server) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        # Bound but not listening: nobody else can get the port meanwhile.
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        store = on_server(minio, endpoint=endpoint, **QUICK)
        with pytest.raises(StoreUnavailable, match=rf"at {endpoint} did not read a: no connection could be made"):
            store.get("a")


def test_a_server_that_accepts_no_connection_is_given_up_in_time(minio: Server) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                waiting = stack.enter_context(socket.socket())
                waiting.settimeout(0)
                waiting.connect_ex(address)
            store = on_server(minio, endpoint=f"http://127.0.0.1:{address[1]}", **QUICK)
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="did not read a"):
                store.get("a")
            assert time.monotonic() - began < QUICK["total_seconds"] + 1


def test_without_keys_nothing_is_signed_or_looked_up(minio: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    direct = on_server(minio)
    assert isinstance(direct, Bucket)
    direct.create("public", b"for all")
    bucket = bucket_of(minio)
    client = client_of(minio)
    statement = f'{{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::{bucket}/*"}}'
    with contextlib.closing(client):
        client.put_bucket_policy(Bucket=bucket, Policy=f'{{"Version":"2012-10-17","Statement":[{statement}]}}')
        try:
            # Whoever asked these for keys would fail or wait.
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "not-the-key")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/")
            anonymous = replace(direct, settings=StoreSettings(endpoint=minio.endpoint, region=minio.region))
            began = time.monotonic()
            assert anonymous.get("public") == b"for all"
            assert asyncio.run(anonymous.fetch("public", 4, 3)) == b"all"
            with pytest.raises(StoreUnavailable, match=r"without credentials, and AWS_ACCESS_KEY_ID is not set"):
                anonymous.create("new", b"")
            assert time.monotonic() - began < 2
        finally:
            client.delete_bucket_policy(Bucket=bucket)


def test_the_environment_does_not_reach_past_the_settings(minio: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_REGION": "elsewhere",
        "AWS_ACCESS_KEY_ID": "other",
        "AWS_SECRET_ACCESS_KEY": "other",
        "AWS_SESSION_TOKEN": "other",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_UNSIGNED_PAYLOAD": "true",
    }.items():
        monkeypatch.setenv(name, value)
    store = on_server(minio)
    store.create("a", b"1")
    assert store.get("a") == b"1"
    assert asyncio.run(store.fetch("a", 0, 1)) == b"1"


def test_a_thread_that_tries_again_has_most_of_the_time() -> None:
    settings = StoreSettings(endpoint="http://store.example:9000", region="us-east-1", allow_http=True, read_seconds=6)
    assert bucket_module._ranges(Bucket(name="bucket", settings=settings))._read_seconds == 2


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_behind_a_proxy_threads_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    settings = StoreSettings(endpoint="http://store.example:9000", region="us-east-1", allow_http=True)
    store = Bucket(name="bucket", settings=settings)
    for other in ("http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(other, raising=False)
        monkeypatch.delenv(other.upper(), raising=False)
    for proxy, fetches in ((None, True), ("http://proxy.example:3128", False)):
        if proxy is not None:
            monkeypatch.setenv(name, proxy)
        bucket_module._is_behind_a_proxy.cache_clear()
        assert store.fetches == fetches
    monkeypatch.setenv("no_proxy", "store.example")
    bucket_module._is_behind_a_proxy.cache_clear()
    assert store.fetches


def test_a_store_that_ignores_preconditions_is_refused_with_a_sentence(rclone_s3: Server) -> None:
    store = on_server(rclone_s3)
    for _ in range(2):
        with pytest.raises(
            PreconditionsIgnored, match=r"does not honour conditional writes .* use a store that"
        ) as refused:
            store.probe()
        assert rclone_s3.endpoint in str(refused.value)
    assert [*store.list("")] == []


def test_each_way_of_ignoring_a_precondition_is_found() -> None:
    class Careless(Observed):
        """Breaks one promise: what is swallowed is done without its condition."""

        def __init__(self, inner: Store, fault: str) -> None:
            super().__init__(inner)
            self.fault = fault

        @override
        def __str__(self) -> str:
            return f"{self.inner} {self.fault}"

        @override
        def around[Answer](self, operation: Operation, call: Callable[[], Answer]) -> Answer:
            return call()

        @override
        def create(self, key: str, data: bytes | Path) -> None:
            if self.fault == "second create":
                with contextlib.suppress(ObjectExists):
                    self.inner.create(key, data)
            else:
                self.inner.create(key, data)

        @override
        def swap(self, key: str, data: bytes, expected: str | None) -> str:
            try:
                found: str | None = self.inner.get_tagged(key)[1]
            except ObjectMissing:
                found = None
            fault = {
                (True, True): "stale tag",
                (True, False): "none expected",
                (False, True): "object missing",
                (False, False): "",
            }[found is not None, expected is not None]
            if fault == self.fault and found != expected:
                return self.inner.swap(key, data, found)
            if self.fault == "right tag" and expected is not None:
                raise PreconditionFailed(key)
            return self.inner.swap(key, data, expected)

    store = Store.open(f"memory://{uuid.uuid4().hex}", PLAIN)
    for fault, sentence in {
        "second create": "accepted a second create-only write",
        "right tag": "refused to replace an object by its right tag",
        "stale tag": "by the tag of an earlier one",
        "none expected": "where there should be none",
        "object missing": "replaced an object that does not exist",
    }.items():
        with pytest.raises(PreconditionsIgnored, match=sentence):
            Careless(store, fault).probe()
        assert [*store.list("")] == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program to make a certificate with")
def test_a_private_authority_is_trusted_when_named(minio: Server, fault_proxy: StartProxy, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    assert openssl
    new = f"{openssl} req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    signed = "-out server.pem -days 2 -extfile names"
    (tmp_path / "names").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
    for command in (
        f"{new} -x509 -keyout authority.key -out authority.pem -days 2 -subj /CN=authority",
        f"{new} -keyout server.key -out server.csr -subj /CN=localhost",
        f"{openssl} x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial {signed}",
    ):
        subprocess.run(command.split(), check=True, capture_output=True, cwd=tmp_path)
    proxy = fault_proxy(minio.endpoint)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    listening = getattr(proxy, "socket")  # noqa: B009 - the server's own attribute
    setattr(proxy, "socket", context.wrap_socket(listening, server_side=True))  # noqa: B010
    endpoint = proxy.endpoint.replace("http://127.0.0.1", "https://localhost")
    with pytest.raises(StoreUnavailable, match=r"did not write a: its certificate is not trusted; AWS_CA_BUNDLE"):
        on_server(minio, endpoint=endpoint, **QUICK).create("a", b"1")
    trusting = on_server(minio, endpoint=endpoint, ca_bundle=tmp_path / "authority.pem")
    trusting.create("a", b"1")
    assert trusting.get("a") == b"1"
    with pytest.raises(SettingsError, match=r"AWS_CA_BUNDLE is .*nothing\.pem, which cannot be read"):
        on_server(minio, endpoint=endpoint, ca_bundle=tmp_path / "nothing.pem").get("a")


def test_large_objects_get_more_time() -> None:
    mib = 1 << 20
    assert [bucket_module._extended(30.0, size) for size in (0, mib - 1, mib, 30 * mib, 31 * mib, 300 * mib)] == [
        *(30.0, 30.0, 60.0, 60.0, 120.0, 480.0),
    ]
