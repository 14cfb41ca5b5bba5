"""A product's settings file: what it names is found, what it must not hold is refused with the entry."""

from pathlib import Path

import pytest

from services.core.errors import InputRefused
from services.sources.named_files import Files, Part, read_settings, relative


class Maps(Files):
    name: str


class Settings(Part):
    maps: Maps
    step: int = 1


def written(directory: Path, text: str) -> Path:
    path = directory / "some.toml"
    path.write_text(text)
    for name in ("b_2.tif", "b_1.tif", "a.tif"):
        (directory / name).touch()
    return path


def test_entries_are_read_and_their_files_found_in_the_order_of_names(tmp_path: Path) -> None:
    path = written(tmp_path, '[maps]\nname = "x"\nfiles = ["b_*.tif", "a.tif", "s3://bucket/c_*.tif"]\n')
    settings, document = read_settings(path, Settings, described="README")
    assert (settings.maps.name, settings.step) == ("x", 1)
    assert document.size == path.stat().st_size
    found = settings.maps.paths(path, "maps")
    assert [relative(tmp_path, one) for one in found] == ["b_1.tif", "b_2.tif", "a.tif", "s3://bucket/c_*.tif"]
    assert settings.maps.model_copy(update={"files": "a.*"}).path(path, "maps") == str(tmp_path / "a.tif")
    assert relative(tmp_path / "elsewhere", found[0]) == found[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[maps]\nname = "x"\n', r"some.toml: maps.files: Field required"),
        ('[maps]\nname = "x"\nfiles = "a.tif"\nfile = "a"\n', r"maps.file: Extra inputs are not permitted"),
        ('step = "many"\n[maps]\nname = "x"\nfiles = "a.tif"\n', r"step: Input should be a valid integer"),
        ("[maps\n", r"some.toml is no TOML: "),
    ],
)
def test_what_does_not_hold_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputRefused, match=told):
        read_settings(written(tmp_path, text), Settings, described="README")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    entry = Files(files="c_*.tif")
    with pytest.raises(InputRefused, match=r"some\.toml: maps names 'c_\*\.tif', and .* holds no such file"):
        entry.paths(path, "maps")
    with pytest.raises(InputRefused, match=r"some\.toml: maps must be one file, and 'b_\*\.tif' is 2"):
        Files(files="b_*.tif").path(path, "maps")
    with pytest.raises(InputRefused, match=r"holds no other\.toml, which says what each file is; README shows one"):
        read_settings(tmp_path / "other.toml", Settings, described="README")
