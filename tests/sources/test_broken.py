"""Broken files: a sentence with the file's name, never a crash, never another value where the format can tell."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.core.errors import InputRefused
from services.core.grid import Window
from services.sources import grib, handles
from services.sources.ingest import inspect
from services.sources.options import IngestOptions

pytestmark = pytest.mark.slow  # as a whole

Write = Callable[..., str]

CHECKED = {
    "deflated NetCDF-4": ("netcdf4", {"compression": "gzip", "chunks": (1, 10, 15)}),
    "NetCDF-4 with checksums": ("netcdf4", {"fletcher32": True, "chunks": (1, 10, 15)}),
    "deflated GeoTIFF": ("geotiff", {"compress": "deflate", "interleave": "band", "blockysize": 5}),
    "deflated COG-like GeoTIFF": (
        "geotiff",
        {"compress": "deflate", "tiled": True, "blockxsize": 16, "blockysize": 16},
    ),
}
"""Formats whose values carry checksums."""

UNCHECKED = {
    "classic NetCDF": ("netcdf3", {}),
    "classic NetCDF with records": ("netcdf3", {"version": 2, "record": "time"}),
    "plain NetCDF-4": ("netcdf4", {}),
    "plain GeoTIFF": ("geotiff", {"compress": "none"}),
    "LZW GeoTIFF": ("geotiff", {"compress": "lzw"}),
    "ZSTD GeoTIFF": ("geotiff", {"compress": "zstd", "predictor": 3}),
}


@pytest.fixture
def written(raster: Any, write: Write) -> Callable[[str], Path]:
    def make(what: str) -> Path:
        kind, options = {**CHECKED, **UNCHECKED}[what]
        values = np.cumsum(np.random.default_rng(5).normal(size=(4, 20, 30)), axis=2).astype("float32")
        made = raster(
            values=values,
            longitudes=10.25 + 0.5 * np.arange(30),
            latitudes=20.75 - 0.5 * np.arange(20),
            times=np.arange(4),
            options=options,
        )
        return Path(write(kind, made))

    return make


def read(path: Path, **options: Any) -> tuple[list[str], np.ndarray]:
    """The whole road of one file: look, hash, read all."""
    try:
        conclusion = inspect([str(path)], IngestOptions(**options))
        recipe = conclusion.recipe("x")
        window = Window(row=0, column=0, height=recipe.product.grid.height, width=recipe.product.grid.width)
        return list(recipe.periods().ids), next(iter(recipe.compute(recipe.periods(), window).values()))
    finally:
        handles.close_all()


def options_of(path: Path) -> dict[str, Any]:
    return {"time": "2001-01-01/P1D"} if path.suffix == ".tif" else {}


@pytest.mark.parametrize("what", [*CHECKED, *UNCHECKED])
def test_truncated_files_are_refused(what: str, written: Callable[[str], Path]) -> None:
    path = written(what)
    body = path.read_bytes()
    read(path, **options_of(path))
    for length in sorted({*np.linspace(0, len(body) - 1, 18).astype(int).tolist(), 1, len(body) - 100}):
        path.write_bytes(body[:length])
        with pytest.raises(InputRefused, match=rf"{path.name}"):
            read(path, **options_of(path))


@pytest.mark.parametrize("what", list(CHECKED))
def test_flipped_bits_are_refused_or_harmless(what: str, written: Callable[[str], Path]) -> None:
    path = written(what)
    body = path.read_bytes()
    ids, values = read(path, **options_of(path))
    generator = np.random.default_rng(11)
    refused = 0
    for _ in range(60):
        broken = bytearray(body)
        broken[generator.integers(len(body))] ^= 1 << generator.integers(8)
        path.write_bytes(broken)
        try:
            found_ids, found = read(path, **options_of(path))
        except InputRefused as error:
            assert path.name in str(error)  # noqa: PT017 - refused or harmless
            refused += 1
            continue
        if found_ids == ids and found.shape == values.shape:
            np.testing.assert_array_equal(found, values)
    assert refused > 5


@pytest.mark.parametrize("what", list(UNCHECKED))
def test_flipped_bits_never_crash(what: str, written: Callable[[str], Path]) -> None:
    path = written(what)
    body = path.read_bytes()
    generator = np.random.default_rng(12)
    for number in range(60):
        broken = bytearray(body)
        broken[generator.integers(len(body) if number % 3 == 0 else min(1500, len(body)))] ^= 1 << generator.integers(8)
        path.write_bytes(broken)
        try:
            read(path, **options_of(path))
        except InputRefused as error:
            assert path.name in str(error)  # noqa: PT017 - refused or read


def test_a_zarr_chunk_that_is_cut_or_flipped(raster: Any, write: Write) -> None:
    values = np.random.default_rng(5).normal(size=(4, 20, 30)).astype("float32")
    made = raster(
        values=values, longitudes=10.25 + 0.5 * np.arange(30), latitudes=20.75 - 0.5 * np.arange(20), times=np.arange(4)
    )
    path = Path(write("zarr2", made))
    chunk = next(p for p in (path / "height").iterdir() if p.name[0].isdigit())
    body = chunk.read_bytes()
    for broken in (body[: len(body) // 2], body[:3], b"\x00" + body[1:]):
        chunk.write_bytes(broken)
        with pytest.raises(InputRefused, match=r"file\.zarr"):
            read(path)
    chunk.write_bytes(body)
    for name in (".zgroup", "height/.zarray", "lon/.zarray"):
        kept = (path / name).read_bytes()
        (path / name).write_bytes(kept[: len(kept) // 2])
        with pytest.raises(InputRefused, match=r"file\.zarr"):
            read(path)
        (path / name).write_bytes(kept)
    read(path)


@pytest.mark.parametrize(
    ("name", "body", "fact"),
    [
        ("page.nc", b"<!DOCTYPE html>\n<html><body>Please log in</body></html>", "is a web page"),
        ("page.tif", b"\n\n  <html lang='en'>", "is a web page"),
        ("error.nc", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page or XML"),
        ("empty.nc", b"", "is empty"),
        ("text.nc", b"time,lat,lon\n", "begins with b'time,lat'"),
        ("packed.nc", b"\x1f\x8b\x08\x00", "is gzip-compressed"),
        ("packed.zip", b"PK\x03\x04....", "is a zip archive"),
        ("old.hdf", b"\x0e\x03\x13\x01....", "is HDF4"),
        ("magic.nc", b"\x89HDF\r\n\x1a\n", "is broken"),
        ("magic.tif", b"II*\x00\x08\x00\x00\x00", "is broken"),
        ("magic.nc", b"CDF\x01", "is cut short"),
        ("magic.grib", b"GRIB\x00\x00\x10\x01", "is cut short"),
    ],
)
def test_what_is_no_raster_is_refused(name: str, body: bytes, fact: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(body)
    with pytest.raises(InputRefused, match=rf"{name} {fact}"):
        read(path)


def test_the_content_counts_not_the_name(written: Callable[[str], Path]) -> None:
    path = written("plain NetCDF-4")
    expected = read(path)[1]
    for name in ("a.tif", "b", "c.grib", "d.zarr"):
        other = path.with_name(name)
        other.write_bytes(path.read_bytes())
        np.testing.assert_array_equal(read(other)[1], expected)


@pytest.mark.parametrize("what", ["classic NetCDF", "plain NetCDF-4", "plain GeoTIFF"])
@pytest.mark.parametrize("change", ["size", "time"])
def test_a_file_that_changes_meanwhile_is_refused(what: str, change: str, written: Callable[[str], Path]) -> None:
    path = written(what)
    recipe = inspect([str(path)], IngestOptions(**options_of(path))).recipe("x")
    window = Window(row=0, column=0, height=5, width=5)
    recipe.compute(recipe.periods(), window)
    if change == "size":
        with path.open("ab") as file:
            file.write(b"\x00")
    else:
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    with pytest.raises(InputRefused, match=rf"{path.name} changed while it was being ingested"):
        recipe.compute(recipe.periods(), window)


def test_a_file_that_changes_before_it_is_hashed_is_refused(written: Callable[[str], Path]) -> None:
    path = written("classic NetCDF")
    conclusion = inspect([str(path)], IngestOptions())
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    os.utime(path, ns=(0, 0))
    with pytest.raises(InputRefused, match="changed while it was being ingested"):
        conclusion.recipe("x")


def test_a_zarr_store_that_changes_meanwhile_is_refused(
    raster: Any, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = raster(
        values=np.ones((4, 20, 30), "f4"),
        longitudes=0.5 * np.arange(30),
        latitudes=0.5 * np.arange(20),
        times=np.arange(4),
    )
    path = Path(write("zarr3", made))
    recipe = inspect([str(path)], IngestOptions()).recipe("x")
    window = Window(row=0, column=0, height=5, width=5)
    recipe.compute(recipe.periods(), window)
    chunk = next(p for p in (path / "height" / "c").rglob("*") if p.is_file())
    os.utime(chunk, ns=(0, 0))
    # it was looked through a moment ago, but is looked at again before anything is sealed
    with pytest.raises(InputRefused, match=r"file\.zarr changed while it was being ingested"):
        recipe.check_inputs()
    monkeypatch.setattr("services.sources.files.STILL_GOOD", 0.0)
    with pytest.raises(InputRefused, match=r"file\.zarr changed while it was being ingested"):
        recipe.compute(recipe.periods(), window)


def test_infinite_values_are_told_with_file_and_period(raster: Any, write: Write) -> None:
    values = np.ones((4, 20, 30), "f4")
    values[2, 5, 7] = np.inf
    made = raster(
        values=values,
        longitudes=0.5 * np.arange(30),
        latitudes=0.5 * np.arange(20),
        times=np.asarray([0, 31, 59, 90]),
    )
    recipe = inspect([write("netcdf4", made)], IngestOptions()).recipe("x")
    window = Window(row=0, column=0, height=20, width=30)
    name = recipe.periods().ids[2]
    with pytest.raises(InputRefused, match=rf"file\.nc: height holds infinite values in {name}"):
        recipe.compute(recipe.periods(), window)


def test_broken_grib(realdata: Path, tmp_path: Path) -> None:
    pytest.importorskip("eccodes", reason="the grib extra is not installed")
    body = (realdata / "rasters" / "era5-2mt-2019-03-uk.grib").read_bytes()[: 3360 * 6]
    path = tmp_path / "six.grib"
    path.write_bytes(body)
    ids, _ = read(path)
    assert len(ids) == 6
    for length in [*np.linspace(1, 3360 * 5 + 3341, 19).astype(int).tolist(), 3360 * 5 + 10]:
        if length % 3360 in {0, *range(3342, 3360)}:
            continue  # whole messages, and their padding: nothing says that others are missing
        path.write_bytes(body[:length])
        with pytest.raises(InputRefused, match=r"six\.grib"):
            read(path)
    path.write_bytes(body + b"GRIB")
    with pytest.raises(InputRefused, match=r"six\.grib is cut short: message 7 has 4 bytes"):
        read(path)
    path.write_bytes(body + b"\x00" * 700 + b"tail" * 9)
    with pytest.raises(InputRefused, match=r"six\.grib is broken: at byte 20860 a message begins with b'tail'"):
        read(path)
    broken = bytearray(body)
    broken[3360 + 3341] = 0
    path.write_bytes(broken)
    with pytest.raises(InputRefused, match=r"six\.grib is broken: message 2 does not end with 7777"):
        read(path)


def test_grib_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.grib"
    path.write_bytes(b"GRIB" + bytes(20))
    monkeypatch.setitem(sys.modules, "eccodes", None)
    with pytest.raises(
        InputRefused, match=r"x\.grib is a GRIB file, and what reads them is not installed: pip install"
    ):
        grib.describe(str(path), "x.grib", None)


def test_a_process_that_read_every_format_ends_well(realdata: Path) -> None:
    """Libraries of eccodes, pyproj and GDAL crash a process at its end if they are loaded in the wrong order."""
    pytest.importorskip("eccodes", reason="the grib extra is not installed")
    program = (
        "import sys; from services.sources.ingest import inspect; from services.sources.options import IngestOptions\n"
        "for name in sys.argv[1:]: inspect([name], IngestOptions(time='2001-01-01/P1D', units='1'))"
    )
    names = ["era5-2mt-2019-03-uk.grib", "linke_turbidity_12month_cog.tif", "ostia_monthly.nc"]
    command = [sys.executable, "-W", "error", "-c", program, *(str(realdata / "rasters" / name) for name in names)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
