"""Where files may be: globs, HTTP, S3; fetched once, hashed once, named without credentials."""

import functools
import hashlib
import http.server
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from services.core.errors import InputRefused
from services.core.grid import Window
from services.sources import files, handles
from services.sources.ingest import inspect
from services.sources.options import IngestOptions

pytestmark = pytest.mark.slow  # as a whole

Write = Callable[..., str]
Whole = Callable[[Any], np.ndarray]


class _Server(http.server.ThreadingHTTPServer):
    requests: list[str]
    unsent: tuple[str, ...] = ()
    """Headers that this server does not send."""

    daemon_threads = True


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: _Server

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        super().do_GET()

    def send_header(self, keyword: str, value: str) -> None:
        if keyword not in self.server.unsent:
            super().send_header(keyword, value)

    def translate_path(self, path: str) -> str:
        # a server that chooses the file by its query: ?file=NAME
        _, mark, chosen = path.partition("?file=")
        return super().translate_path(f"/{chosen}" if mark else path)

    def end_headers(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_file():
            self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        super().end_headers()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, _Server]]:
    """A web server of the test's folder."""
    server = _Server(("127.0.0.1", 0), functools.partial(_Handler, directory=str(tmp_path)))
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", server
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


@pytest.fixture(autouse=True)
def cache(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A cache of its own for each test."""
    if "server" in request.fixturenames:
        # MinIO's build lies in the user's cache: the server must be there before another one is named
        request.getfixturevalue(request.getfixturevalue("server"))
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CENOTE_CACHE", str(folder))
    return folder / "inputs"


@pytest.fixture
def basic(raster: Any) -> Any:
    values = np.random.default_rng(1).normal(size=(3, 30, 40)).astype("float32")
    return raster(
        values=values,
        longitudes=10.25 + 0.5 * np.arange(40),
        latitudes=20.75 - 0.5 * np.arange(30),
        times=np.asarray([0, 31, 59]),
    )


def test_a_file_is_fetched_once(basic: Any, write: Write, web: tuple[str, _Server], cache: Path, whole: Whole) -> None:
    path = Path(write("netcdf4", basic))
    url, server = web
    recipe = inspect([f"{url}/file.nc"], IngestOptions()).recipe("x")
    np.testing.assert_array_equal(whole(recipe), basic.values)
    assert [item.name for item in recipe.inputs()] == [f"{url}/file.nc"]
    assert recipe.inputs()[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert server.requests.count("/file.nc") == 1
    copies = [p for p in cache.iterdir() if p.suffix == ".nc"]
    assert len(copies) == 1
    # another host's worker has an empty cache and fetches the file that the recipe was made with
    handles.close_all()
    copies[0].unlink()
    np.testing.assert_array_equal(whole(recipe), basic.values)
    assert server.requests.count("/file.nc") == 2


def test_a_remote_file_that_changes_is_refused(basic: Any, write: Write, web: tuple[str, _Server], cache: Path) -> None:
    path = Path(write("netcdf4", basic))
    url, _ = web
    recipe = inspect([f"{url}/file.nc"], IngestOptions()).recipe("x")
    handles.close_all()
    for copy in cache.iterdir():
        copy.unlink()
    os.utime(path, ns=(0, 0))
    with pytest.raises(InputRefused, match=r"file\.nc changed while it was being ingested"):
        recipe.compute(recipe.periods(), Window(row=0, column=0, height=2, width=2))
    # it is another file now, and is fetched as such
    assert inspect([f"{url}/file.nc"], IngestOptions()).table.sources[0].stamp == '"0"'


@pytest.mark.parametrize("unsent", [("ETag",), ("ETag", "Last-Modified")])
def test_a_remote_file_that_changed_since_the_last_run_is_read_anew(
    unsent: tuple[str, ...], basic: Any, write: Write, web: tuple[str, _Server], whole: Whole
) -> None:
    url, server = web
    server.unsent = unsent
    path = Path(write("netcdf4", basic))
    size = path.stat().st_size
    np.testing.assert_array_equal(whole(inspect([f"{url}/file.nc"], IngestOptions()).recipe("x")), basic.values)
    handles.close_all()
    basic.values[:] = basic.values[:, ::-1]
    path = Path(write("netcdf4", basic))
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 5))  # Last-Modified counts in seconds
    assert path.stat().st_size == size
    np.testing.assert_array_equal(whole(inspect([f"{url}/file.nc"], IngestOptions()).recipe("x")), basic.values)


@pytest.mark.parametrize("kind", ["netcdf4", "zarr3"])
def test_what_changes_while_it_is_hashed_is_refused(kind: str, basic: Any, write: Write) -> None:
    path = Path(write(kind, basic))
    (source,) = inspect([str(path)], IngestOptions()).table.sources
    part = path if path.is_file() else next(p for p in (path / "height" / "c").rglob("*") if p.is_file())

    def meanwhile(done: int, total: int) -> None:
        if done == total:
            os.utime(part, ns=(0, 0))

    with pytest.raises(InputRefused, match="changed while it was being ingested"):
        files.hashed([source], meanwhile)


def test_copies_that_nobody_used_for_long_are_removed(
    basic: Any, write: Write, web: tuple[str, _Server], cache: Path
) -> None:
    url, server = web
    server.unsent = ("ETag", "Last-Modified")
    write("netcdf4", basic)
    inspect([f"{url}/file.nc"], IngestOptions())
    server.unsent = ()
    inspect([f"{url}/file.nc"], IngestOptions())
    once, kept = sorted((path for path in cache.iterdir() if path.suffix == ".nc"), key=lambda p: p.name[:5] != "once-")
    now = time.time()
    os.utime(once, (now, now - 2 * 86400))
    os.utime(kept, (now, now - 2 * 86400))
    write("netcdf4", basic)
    inspect([f"{url}/file.nc"], IngestOptions())
    assert not once.exists()
    assert kept.exists()
    handles.close_all()
    os.utime(kept, (now, now - 8 * 86400))
    write("netcdf4", basic)
    os.utime(cache.parent.parent, None)
    server.unsent = ("ETag",)
    inspect([f"{url}/file.nc"], IngestOptions())
    assert not kept.exists()


def test_the_query_of_an_address_chooses_the_file(
    basic: Any, write: Write, web: tuple[str, _Server], tmp_path: Path, whole: Whole
) -> None:
    url, server = web
    one = Path(write("netcdf4", basic)).rename(tmp_path / "one.nc")
    first = basic.values.copy()
    basic.values[:] = basic.values[:, ::-1]
    two = Path(write("netcdf4", basic)).rename(tmp_path / "two.nc")
    for path in (one, two):
        os.utime(path, (1e9, 1e9))
    server.unsent = ("ETag",)
    assert one.stat().st_size == two.stat().st_size
    for name, values in (("one.nc", first), ("two.nc", basic.values)):
        recipe = inspect([f"{url}/data.nc?file={name}"], IngestOptions()).recipe("x")
        np.testing.assert_array_equal(whole(recipe), values)


def test_remote_files_that_are_not_there_or_pages(web: tuple[str, _Server], tmp_path: Path) -> None:
    url, _ = web
    with pytest.raises(InputRefused, match=r"nothing\.nc does not exist"):
        inspect([f"{url}/nothing.nc"], IngestOptions())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}/x.nc"
    with pytest.raises(InputRefused, match=r"x\.nc cannot be reached"):
        inspect([nobody], IngestOptions())
    with pytest.raises(InputRefused, match=r"x\.nc cannot be reached"):
        inspect([nobody.replace("http", "ftp")], IngestOptions())
    with pytest.raises(InputRefused, match=r"gopher:// is no kind of address"):
        inspect(["gopher://somewhere/x.nc"], IngestOptions())
    (tmp_path / "login.nc").write_text("<html>log in</html>")
    with pytest.raises(InputRefused, match=r"login\.nc is a web page"):
        inspect([f"{url}/login.nc"], IngestOptions())


def test_a_server_that_does_not_answer(web: tuple[str, _Server]) -> None:
    url, server = web
    server.shutdown()
    server.server_close()
    with pytest.raises(InputRefused, match=r"127\.0\.0\.1.*file\.nc"):
        inspect([f"{url}/file.nc"], IngestOptions())


def test_credentials_are_not_told(basic: Any, write: Write, web: tuple[str, _Server]) -> None:
    write("netcdf4", basic)
    url, _ = web
    secret = url.replace("http://", "http://me:secret@") + "/file.nc?token=hidden"
    conclusion = inspect([secret], IngestOptions())
    recipe = conclusion.recipe("x")
    told = str((conclusion.lines(), conclusion.to_json(), recipe.inputs(), recipe.facts(), recipe.product))
    assert "secret" not in told
    assert "hidden" not in told
    assert recipe.inputs()[0].name == f"{url}/file.nc"
    with pytest.raises(InputRefused) as caught:
        inspect([secret.replace("file.nc", "nothing.nc")], IngestOptions())
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("kind", ["zarr2", "zarr3"])
def test_a_zarr_store_on_a_web_server_without_listings_is_refused(
    kind: str, basic: Any, write: Write, web: tuple[str, _Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(kind, basic)
    monkeypatch.setattr(_Handler, "list_directory", lambda self, _: self.send_error(403))
    with pytest.raises(InputRefused, match=r"file\.zarr"):
        inspect([f"{web[0]}/file.zarr"], IngestOptions())


@pytest.mark.parametrize("server", ["seaweedfs", "minio"])
def test_s3(
    server: str,
    basic: Any,
    write: Write,
    whole: Whole,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    store = request.getfixturevalue(server)
    for key, value in store.environment().items():
        monkeypatch.setenv(key, value)
    fsspec.filesystem("s3").clear_instance_cache()
    bucket = store.new_bucket()
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    fs.put(write("netcdf4", basic), f"{bucket}/in/file.nc")
    for kind in ("zarr2", "zarr3"):
        fs.put(write(kind, basic, kind), f"{bucket}/in/{kind}.zarr", recursive=True)
    for name in ("in/file.nc", "in/*.nc", "in/zarr2.zarr", "in/zarr3.zarr/"):
        conclusion = inspect([f"s3://{bucket}/{name}"], IngestOptions())
        recipe = conclusion.recipe("x")
        np.testing.assert_array_equal(whole(recipe), basic.values)
        assert recipe.inputs()[0].name.startswith(f"s3://{bucket}/in/")
    assert [p for p in cache.iterdir() if ".zarr" in p.name] == []  # read in place
    with pytest.raises(InputRefused, match=r"no object matches s3://.*\*\.tif"):
        inspect([f"s3://{bucket}/in/*.tif"], IngestOptions())
    with pytest.raises(InputRefused, match="does not exist"):
        inspect([f"s3://{bucket}/in/none.nc"], IngestOptions())
    # a chunk that is written anew is another store
    monkeypatch.setattr(files, "STILL_GOOD", 0.0)
    before = inspect([f"s3://{bucket}/in/zarr3.zarr"], IngestOptions()).recipe("x")
    fs.pipe(f"{bucket}/in/zarr3.zarr/height/c/0/0/0", fs.cat(f"{bucket}/in/zarr2.zarr/height/0.0.0")[:-1])
    with pytest.raises(InputRefused, match=r"zarr3\.zarr changed"):
        before.compute(before.periods(), Window(row=0, column=0, height=2, width=2))
    fsspec.filesystem("s3").clear_instance_cache()


def test_globs_are_sorted(basic: Any, write: Write, tmp_path: Path) -> None:
    for name in ("b_200102", "a_200103", "c_200101"):
        write("geotiff", basic, name)
    found = files.found([str(tmp_path / "?_2001*.tif")])
    assert [Path(source.name).name for source in found] == ["a_200103.tif", "b_200102.tif", "c_200101.tif"]
    odd = tmp_path / "a[1].tif"
    odd.write_bytes((tmp_path / "a_200103.tif").read_bytes())
    assert [source.name for source in files.found([str(odd)])] == [str(odd)]


def test_digests(basic: Any, write: Write) -> None:
    path = Path(write("netcdf4", basic))
    told: list[tuple[int, int]] = []
    recipe = inspect([str(path)], IngestOptions()).recipe("x", lambda done, total: told.append((done, total)))
    assert recipe.inputs()[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert told[-1] == (path.stat().st_size, path.stat().st_size)


@pytest.mark.parametrize("kind", ["zarr2", "zarr3"])
def test_the_digest_of_a_zarr_store_is_that_of_what_is_read(kind: str, basic: Any, write: Write) -> None:
    path = Path(write(kind, basic))

    def digest() -> str:
        return inspect([str(path)], IngestOptions()).recipe("x").inputs()[0].sha256

    first = digest()
    lines = []
    for part in sorted(p for p in path.rglob("*") if p.is_file()):
        body = part.read_bytes()
        lines.append(f"{part.relative_to(path)}\t{len(body)}\t{hashlib.sha256(body).hexdigest()}\n")
    assert first == hashlib.sha256("".join(lines).encode()).hexdigest()
    (path / "notes").mkdir()
    (path / "notes" / "readme").write_text("no part of it")
    assert digest() == first
    described = path / "height" / ("zarr.json" if kind == "zarr3" else ".zarray")
    described.write_bytes(described.read_bytes() + b"\n")
    assert digest() != first


def test_a_forked_child_does_not_use_its_parents_files(basic: Any, write: Write) -> None:
    recipe = inspect([write("netcdf4", basic)], IngestOptions()).recipe("x")
    window = Window(row=0, column=0, height=2, width=2)
    recipe.compute(recipe.periods(), window)
    assert handles._open
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(len(handles._open)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    assert os.read(reading, 8) == b"0"
    os.close(reading)


def test_few_files_stay_open(basic: Any, write: Write) -> None:
    paths = [write("netcdf3", basic, f"f{number}") for number in range(handles.MOST + 4)]
    for path in paths:
        recipe = inspect([path], IngestOptions()).recipe("x")
        recipe.compute(recipe.periods(), Window(row=0, column=0, height=2, width=2))
    assert len(handles._open) == handles.MOST
