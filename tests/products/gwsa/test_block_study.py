"""The block study's instruments: what its predictors hold, what it sees of processes, how it counts halos."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from services.core.grid import Window
from services.products.gwsa.declaration import FINE
from services.sources.field import open_field
from tests.products import study
from tests.products.gwsa import block_inputs, block_study


def test_a_monthly_predictor_holds_what_its_formula_says(tmp_path: Path) -> None:
    name = "air_temperature_2002.tif"
    block_inputs.write_one(tmp_path, (name, "air_temperature", 2002))
    field = open_field("air_temperature", [str(tmp_path / name)], "K", monthly=True)
    assert [str(np.datetime64(month, "M")) for month in (field.months[0], field.months[-1])] == ["2002-04", "2002-12"]
    part = Window(row=100, column=200, height=30, width=40)
    values = field.read(field.months[4], block_inputs.BLOCK.wider(1).grid(120), part)
    height = block_inputs.Block().elevation[part.rows, part.columns]
    # season and weather hardly differ within a part so small, and SPECKLE steps of 0.01 K do
    left = values + np.float32(0.0055) * height
    assert np.ptp(left) < 0.01 * (2 * block_inputs.SPECKLE + 1) + 0.02
    assert np.ptp(left) > 0.01 * block_inputs.SPECKLE
    assert 285 < values.mean() < 315


def test_a_watch_counts_what_the_children_of_a_child_hold() -> None:
    hold = "import time; held = bytearray(b'1' * 150_000_000); print(len(held), flush=True); time.sleep(60)"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    command = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {nested!r}])"
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert int(child.stdout.readline()) == 150_000_000
            watch = study.Watch(pid=child.pid)
            watch.look()
            time.sleep(0.1)
            watch.look()
            family = psutil.Process(child.pid).children(recursive=True)
        finally:
            for one in psutil.Process(child.pid).children(recursive=True):
                one.kill()
    assert len(watch.peaks) == 1  # what the command started; that process' child is counted with it
    assert len(family) == 2
    assert 150e6 < max(watch.peaks.values()) < 400e6
    assert watch.own[0] < 100e6


def test_land_is_counted_once_for_each_shard_that_asks_for_it(tmp_path: Path) -> None:
    height, width = FINE.shard_shape
    square = np.ones((60, 60), dtype=np.uint8)
    corner, middle = (height, width), (height + height // 2, width + width // 2)
    east, west = (height // 2, FINE.width - 60), (height // 2, 0)
    _write_mask(tmp_path / "mask.tif", square, [corner, middle, east, west])
    land, with_halo, cells = block_study._of_shards(tmp_path / "mask.tif")
    assert land == 4 * square.size
    # the north-western shard has the west's and sees the corner's and, across the antimeridian, the east's; the
    # easternmost has one and sees the west's; the shard south-east of the corner has two
    assert with_halo == (3 + 2 + 2) * square.size
    assert cells == 3 * height * width


def _write_mask(path: Path, square: NDArray[np.uint8], places: list[tuple[int, int]]) -> None:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:4326", "tiled": True, "sparse_ok": True}
    with rasterio.open(
        path,
        "w",
        width=FINE.width,
        height=FINE.height,
        transform=rasterio.Affine(*FINE.transform),
        compress="deflate",
        **profile,
    ) as dataset:
        for row, column in places:
            dataset.write(square, 1, window=RasterWindow(column, row, 60, 60))
