"""A product's settings file: what it names is found, what it must not hold is refused with the entry."""

from pathlib import Path
from typing import Self

import pytest
from pydantic import model_validator

from services.core.errors import InputRefused
from services.sources.named_files import Files, Name, Part, read_settings, relative


class Maps(Files):
    name: str


class Layer(Files):
    name: Name
    units: str
    monthly: bool = False


class Settings(Part):
    maps: Maps
    step: int = 1
    layers: tuple[Layer, ...] = ()
    other: Layer | None = None

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if self.step > 9:
            raise ValueError(f"step is {self.step}, and 9 is the most")
        return self


LAYER = '[[layers]]\nname = "a"\nunits = "1"\nfiles = "a.tif"\n'
MAPS = '[maps]\nname = "x"\nfiles = "a.tif"\n'


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
        ('[maps]\nname = "x"\n', r"some.toml: maps.files: it is not there, and must be$"),
        (
            '[maps]\nname = "x"\nfiles = "a.tif"\nfile = "a"\n',
            r"maps.file: there is no such entry; did you mean files\?$",
        ),
        ('step = "many"\n[maps]\nname = "x"\nfiles = "a.tif"\n', r"step: it should be a valid integer"),
        ('step = 10\n[maps]\nname = "x"\nfiles = "a.tif"\n', r"some.toml: step is 10, and 9 is the most$"),
        (
            f"{MAPS}{LAYER}[[layers]]\nname = 'sand'\nunits = '1'\nfiles = 'a.tif'\nmontly = true\n",
            r"some.toml: layers\[2\] \(sand\)\.montly: there is no such entry; did you mean monthly\?$",
        ),
        (
            f'{MAPS}[[layers]]\nname = "Sand Share"\nunits = "1"\nfiles = "a.tif"\n',
            r"layers\[1\] \(Sand Share\)\.name: it should match pattern",
        ),
        (
            f"{MAPS}[other]\nxyz = 1\nname = 'a'\nunits = '1'\nfiles = 'a'\n",
            r"other\.xyz: .*; there are files, name, un",
        ),
        (f"{MAPS}colour = 1\n", r"maps.colour: there is no such entry; there are files, name$"),
        (f"colour = 1\n{MAPS}", r"toml: colour: there is no such entry; there are maps, step, layers, other$"),
        (f"other = 1\n{MAPS}", r"toml: other: it should be a table of entries$"),
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
