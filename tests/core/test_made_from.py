"""Inputs are those of a segment by what they hold, wherever they lie."""

from typing import Any

from services.core.made_from import other_files, other_settings

MINE = {"a_2001.tif": "1", "a_2002.tif": "2", "b.nc": "3", "/other/place/c.nc": "4", "s3://bucket/d.tif": "5"}


def origin(files: dict[str, str], settings: dict[str, object] | None = None) -> dict[str, object]:
    listed = [{"name": name, "size": 1, "sha256": sha256} for name, sha256 in files.items()]
    return {"inputs": listed, "facts": {} if settings is None else {"settings": settings}}


def test_files_are_the_same_wherever_they_lie() -> None:
    assert not other_files(origin(MINE), MINE)
    absolute = {f"/a/../b/{name.rpartition('/')[2]}": sha256 for name, sha256 in MINE.items()}
    assert not other_files(origin(absolute), MINE)
    assert not other_files(origin(MINE), absolute)


def test_what_differs_is_counted_once() -> None:
    assert other_files(origin({**MINE, "b.nc": "9"}), MINE) == ["b.nc"]
    assert other_files(origin({name: one for name, one in MINE.items() if name != "b.nc"}), MINE) == ["b.nc"]
    assert other_files(origin({**MINE, "e.nc": "6"}), MINE) == ["e.nc"]
    # two months that changed places: the same contents, and not the same files
    changed = {**MINE, "a_2001.tif": "2", "a_2002.tif": "1"}
    assert other_files(origin(changed), MINE) == ["a_2001.tif", "a_2002.tif"]
    absolute = {f"/x/{name.rpartition('/')[2]}": sha256 for name, sha256 in changed.items()}
    assert other_files(origin(absolute), MINE) == ["a_2001.tif", "a_2002.tif"]
    # a relative name says where in the folder it lies
    assert other_files(origin({**MINE, "b.nc": "9", "sub/b.nc": "3"}), MINE) == ["b.nc", "sub/b.nc"]


def test_the_file_of_settings_counts_by_what_it_says() -> None:
    listed = {**MINE, "/x/some.toml": "7"}
    assert other_files(origin(listed), MINE) == ["some.toml"]
    old = origin(listed, {"fill": "ssa", "wells": {"units": "m"}, "maps": [{"files": "a"}, {"files": "b"}]})
    assert not other_files(old, MINE)
    mine: dict[str, Any] = {"fill": "ssa", "maps": [{"files": "a", "new": None}, {"files": "b"}], "new": 1}
    assert not other_settings(old, mine)
    assert other_settings(old, {**mine, "fill": "linear", "maps": mine["maps"][:1]}) == ["fill", "maps"]
    assert other_settings(old, {**mine, "maps": [{"files": "a"}, {"files": "c"}]}) == ["maps[2].files"]
