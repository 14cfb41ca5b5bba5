"""Digests that are kept: believed while nothing changed, and never else."""

import hashlib
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.sources import digests, files
from services.sources.files import Source

HEAD = b"II*\x00"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test, which believes what is there at once."""
    monkeypatch.setenv("CENOTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CENOTE_REHASH", raising=False)
    monkeypatch.setattr(digests, "SETTLED_SECONDS", 0.0)
    return tmp_path / "cache" / "digests"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the files that were read for a digest."""
    told: list[str] = []
    honest = files._file_digest

    def noted(path: str, tell: Callable[[int], None]) -> str:
        told.append(Path(path).name)
        return honest(path, tell)

    monkeypatch.setattr(files, "_file_digest", noted)
    return told


def written(folder: Path, body: bytes = b"some bytes", name: str = "a.tif") -> Path:
    path = folder / name
    path.write_bytes(HEAD + body)
    return path


def digest(path: Path) -> str:
    return files.hashed(files.found([str(path)]))[0].sha256


def truth(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_read_once_and_again_when_it_changed(tmp_path: Path, reads: list[str]) -> None:
    path = written(tmp_path)
    told: list[tuple[int, int]] = []
    assert digest(path) == digest(path) == truth(path)
    assert reads == ["a.tif"]
    files.hashed(files.found([str(path)]), lambda done, total: told.append((done, total)))
    assert told == [(14, 14)], "what is known counts as done"
    written(tmp_path, b"some bytez")
    assert digest(path) == truth(path)
    assert len(reads) == 2


def test_a_change_is_seen_though_size_and_time_are_set_back(tmp_path: Path, reads: list[str]) -> None:
    path = written(tmp_path)
    status = path.stat()
    digest(path)
    written(tmp_path, b"same bytes")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert digest(path) == truth(path)
    other = written(tmp_path, b"othr bytes", "b.tif")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert digest(path) == truth(path)
    assert len(reads) == 3


def test_a_file_that_has_just_changed_is_not_believed(
    tmp_path: Path, reads: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "SETTLED_SECONDS", 60.0)
    path = written(tmp_path)
    os.utime(path, (1e9, 1e9))  # an old time on content that is new
    digest(path)
    digest(path)
    assert len(reads) == 2
    assert not list(cache.glob("*.json"))
    ahead = time.time() + 3600
    monkeypatch.setattr(digests, "SETTLED_SECONDS", 0.0)
    os.utime(path, (ahead, ahead))  # a clock that goes ahead
    digest(path)
    assert not list(cache.glob("*.json"))


def test_what_changes_while_it_is_read_is_not_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)
    status = path.stat()
    honest = files._file_digest

    def meanwhile(place: str, tell: Callable[[int], None]) -> str:
        found = honest(place, tell)
        written(tmp_path, b"same bytes")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return found

    monkeypatch.setattr(files, "_file_digest", meanwhile)
    digest(path)
    assert not list(cache.glob("*.json"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda _: "",
        lambda text: json.dumps({**json.loads(text), "sha256": "short"}),
        lambda text: json.dumps({**json.loads(text), "location": "/elsewhere"}),
        lambda _: "[1]",
    ],
)
def test_an_entry_that_does_not_hold_is_not_believed(
    spoil: Callable[[str], str], tmp_path: Path, reads: list[str], cache: Path
) -> None:
    path = written(tmp_path)
    digest(path)
    (entry,) = cache.glob("*.json")
    entry.write_text(spoil(entry.read_text()))
    assert digest(path) == truth(path)
    assert len(reads) == 2


def test_it_is_asked_to_read_all_again_or_after_a_month(
    tmp_path: Path, reads: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)
    digest(path)
    monkeypatch.setenv("CENOTE_REHASH", "1")
    digest(path)
    assert len(reads) == 2
    monkeypatch.setenv("CENOTE_REHASH", "0")
    digest(path)
    assert len(reads) == 2
    (entry,) = cache.glob("*.json")
    old = time.time() - digests.KEPT_SECONDS - 1
    os.utime(entry, (old, old))
    digest(path)
    assert len(reads) == 3
    os.utime(entry, (old, old))
    os.utime(cache / "swept", (old, old))
    digests.forget_old(cache)
    assert not entry.exists()


def test_where_nothing_can_be_kept_files_are_read(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv("CENOTE_CACHE", str(tmp_path / "no folder"))
    assert digest(path) == digest(path) == truth(path)
    assert len(reads) == 2


def test_a_zarr_store_is_known_by_its_objects(tmp_path: Path, reads: list[str]) -> None:
    store = tmp_path / "a.zarr"
    (store / "v" / "c").mkdir(parents=True)
    (store / "w").mkdir()
    (store / "zarr.json").write_text("{}")
    for name in ("v/c/0", "v/c/1", "w/0"):
        (store / name).write_text(name)

    def of(*parts: str) -> str:
        source = Source(name="a.zarr", location=str(store), kind="zarr", size=0, stamp="")
        return files.hashed([files.with_parts(source, parts)])[0].sha256

    first = of("v")
    assert (of("v"), len(reads)) == (first, 3)
    both = of("v", "w")
    assert both != first, "another choice of it is another digest"
    assert len(reads) == 7
    assert (of("v", "w"), of("v"), len(reads)) == (both, first, 7)
    status = (store / "v/c/1").stat()
    (store / "v/c/1").write_text("v/c/!")
    os.utime(store / "v/c/1", ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = of("v")
    assert changed != first
    (store / "v/c/2").write_text("more")
    assert of("v") not in {first, changed}


def _hash_often(folder: str, cache: str) -> list[str]:
    os.environ["CENOTE_CACHE"] = cache
    os.environ.pop("CENOTE_REHASH", None)
    digests.SETTLED_SECONDS = 0.0
    found = []
    for turn in range(20):
        if turn % 5 == 4:
            shutil.rmtree(Path(cache) / "digests", ignore_errors=True)
        found += [source.sha256 for source in files.hashed(files.found([f"{folder}/*.tif"]))]
    return found


def test_several_processes_keep_the_same_at_once(tmp_path: Path, cache: Path) -> None:
    for number in range(5):
        written(tmp_path, bytes([number]) * 1000, f"{number}.tif")
    expected = [truth(path) for path in sorted(tmp_path.glob("*.tif"))]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        for found in pool.starmap(_hash_often, [(str(tmp_path), str(cache.parent))] * 3):
            assert found == expected * 20
    for entry in cache.glob("*.json"):
        assert json.loads(entry.read_text())["sha256"] in expected
    assert not [path for path in cache.iterdir() if path.name.startswith(".")], "no scratch is left"
