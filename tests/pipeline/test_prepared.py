"""Folders in the making: never seen half, removed when their makers were killed, left alone while they are made."""

import os
import time
from pathlib import Path

import pytest

from services.pipeline.prepared import LEFT_SECONDS, made_beside, prepared


def half(folder: Path, name: str, age: float) -> Path:
    """What a killed process leaves."""
    part = folder / name
    (part / "coarse.zarr").mkdir(parents=True)
    (part / "coarse.zarr" / "zarr.json").write_text("{}")
    then = time.time() - age
    for path in (part / "coarse.zarr" / "zarr.json", part / "coarse.zarr", part):
        os.utime(path, (then, then))
    return part


def test_what_killed_ones_left_is_removed_and_what_is_being_made_is_not(tmp_path: Path) -> None:
    dead = half(tmp_path, ".abc.1.part", LEFT_SECONDS + 60)
    alive = half(tmp_path, ".abc.2.part", LEFT_SECONDS - 60)
    written = half(tmp_path, ".abc.3.part", LEFT_SECONDS + 60)
    (written / "coarse.zarr" / "zarr.json").write_text("{ }")  # deep inside, a moment ago
    whole = half(tmp_path, "abc", LEFT_SECONDS + 60)
    with made_beside(tmp_path / "abd") as part:
        assert not dead.exists()
        assert alive.is_dir()
        assert written.is_dir()
        assert whole.is_dir()
        part.mkdir()


def test_a_folder_is_seen_when_it_is_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "made"
    with made_beside(place) as part:
        part.mkdir()
        (part / "a").write_text("a")
        assert not place.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]

    with made_beside(place) as part:  # another process was faster
        part.mkdir()
        (part / "b").write_text("b")
    assert [path.name for path in place.iterdir()] == ["a"]

    def fail() -> None:
        with made_beside(tmp_path / "other") as part:
            part.mkdir()
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_name_follows_from_all_that_is_told(tmp_path: Path) -> None:
    told = {"inputs": [["a", 1, "f"]], "settings": {"x": 1}}
    place = prepared(tmp_path, told)
    assert place.parent == tmp_path.resolve() / "prepared"
    assert place == prepared(tmp_path / ".", dict(reversed(told.items())))
    assert place != prepared(tmp_path, {**told, "settings": {"x": 2}})
