"""The land mask: every cell of the package's array, in blocks, without holding it."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.sources.field import open_field
from services.sources.land import write_land_mask

COARSE = Grid.of(west=-180, north=90, step_x="1/4", width=1440, height=600)


def small(path: Path, **changes: object) -> Path:
    arrays = {
        "mask": np.random.default_rng(1).random((540, 1080)) < 0.7,
        "lat": np.linspace(90, -90, 541)[:-1],
        "lon": np.linspace(-180, 180, 1081)[:-1],
    }
    np.savez_compressed(path, **{**arrays, **changes})  # type: ignore[arg-type]
    return path


def test_every_cell(tmp_path: Path) -> None:
    source, target = small(tmp_path / "m.npz"), tmp_path / "land.tif"
    write_land_mask(source, target)
    with rasterio.open(target) as dataset:
        found = dataset.read(1)
        assert (dataset.profile["blockxsize"], dataset.profile["blockysize"]) == (512, 512)
        assert (dataset.profile["compress"], dataset.dtypes, dataset.nodata) == ("deflate", ("uint8",), None)
        assert dataset.bounds == (-180, -90, 180, 90)
        assert dataset.crs.to_epsg() == 4326
    np.testing.assert_array_equal(found, ~np.load(source)["mask"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["land.tif", "m.npz"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    def refused(source: Path, match: str) -> None:
        with pytest.raises(InputRefused, match=match):
            write_land_mask(source, tmp_path / "land.tif")
        assert not list(tmp_path.glob("*land.tif*"))

    np.savez(tmp_path / "a.npz", mask=np.zeros((2, 2)))
    refused(tmp_path / "a.npz", r"a.npz has no lat and no lon")
    refused(small(tmp_path / "b.npz", mask=np.zeros((3, 4), dtype=bool)), r"b.npz: its mask is bool of shape \(3, 4\)")
    refused(small(tmp_path / "c.npz", lat=np.linspace(-90, 90, 541)[:-1]), r"c.npz: its latitudes do not fall")
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04")
    refused(tmp_path / "d.npz", r"d.npz is broken")
    refused(tmp_path / "e.npz", r"e.npz is broken .*FileNotFoundError")
    whole = small(tmp_path / "f.npz")
    with zipfile.ZipFile(whole) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "g.npz", "w") as archive:
        for name, body in parts.items():
            archive.writestr(name, io.BytesIO(body).read(400_000) if name == "mask.npy" else body)
    refused(tmp_path / "g.npz", r"g.npz: its mask ends in row 371 of 540")


@pytest.mark.slow
def test_the_real_mask_in_bounded_memory(realdata: Path, tmp_path: Path) -> None:
    source, target = realdata / "rasters" / "globe_land_mask_1km.npz", tmp_path / "land.tif"
    program = """
import resource, sys
from pathlib import Path
from services.sources.land import write_land_mask
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_land_mask(Path(sys.argv[1]), Path(sys.argv[2]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program, source, target], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 300, f"{done.stdout.strip()} MiB for an array of 890 MiB"
    ocean = np.load(source)["mask"]
    with rasterio.open(target) as dataset:
        for row in range(0, 21600, 2400):
            window = rasterio.windows.Window(0, row, 43200, 2400)
            np.testing.assert_array_equal(dataset.read(1, window=window), ~ocean[row : row + 2400])
    # as everybody reads it: the part of each coarse cell that is land
    field = open_field("land", [str(target)], "1")
    window = Window(row=240, column=1000, height=40, width=50)
    found = field.read(None, COARSE, window)
    fine = ~ocean[240 * 30 : 280 * 30, 1000 * 30 : 1050 * 30]
    weights = np.cos(np.radians(90 - (np.arange(7200, 8400) + 0.5) / 120))
    blocks = (fine * weights[:, None]).reshape(40, 30, 50, 30).sum(axis=(1, 3))
    np.testing.assert_allclose(found, blocks / (weights.reshape(40, 30).sum(axis=1) * 30)[:, None], atol=1e-6)
    assert 0 < found.mean() < 1
