"""Products' small samples (synthetic), made once for all test processes and files that read them."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services import products
from services.sample import groundwater_files
from services.sample.groundwater import Groundwater
from services.sample.groundwater_seen import Seen
from services.sample.solutions import months_between

SEVERAL = ("precipitation.nc", "air_temperature.nc", "root_zone_soil_moisture.zarr")
"""Files of the groundwater's inputs that hold several months."""

type Folders = pytest.TempPathFactory


@contextmanager
def one_at_a_time(folders: Folders, name: str) -> Iterator[Path]:
    """A path that the processes of a run share, which one of them has at a time."""
    base = folders.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # pytest-xdist gives each a folder inside
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield shared / name


def once(folders: Folders, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first process to ask for it makes; no test may change it."""
    with one_at_a_time(folders, name) as folder:
        if not folder.is_dir():
            part = folder.with_name(f"{name}.part")  # a failed one stays here, and is seen by nobody
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            part.rename(folder)
    return folder


def sample(folders: Folders, product: str) -> Path:
    """A product's sample inputs as `cenote sample` writes them."""

    def make(part: Path) -> None:
        started = time.process_time()
        products.product(product).write_sample(part, "small", lambda _: None)
        part.with_name(f"{product}.seconds").write_text(str(time.process_time() - started))

    return once(folders, f"sample_{product}", make)


def sample_seconds(folders: Folders, product: str) -> float:
    """CPU seconds that writing them took."""
    return float(sample(folders, product).with_name(f"{product}.seconds").read_text())


def groundwater(folders: Folders, months: tuple[str, str]) -> Path:
    """Sample inputs of the groundwater with monthly predictors of fewer months, and no manifest.

    That no month depends on the others is `test_groundwater_files`'s: only what holds several of them is written anew.
    """
    whole = sample(folders, "gwsa")

    def make(part: Path) -> None:
        part.mkdir()
        seen = Seen(world=Groundwater("small"))
        for name, write in groundwater_files._tasks(seen.world, seen, months_between(*months).tolist()):
            if name not in SEVERAL:
                shutil.copy2(whole / name, part / name)
            else:
                write(part / name)

    return once(folders, f"groundwater_{'_'.join(months)}", make)


def without_training(toml: str) -> str:
    """Settings of carbon's small sample without their last table, which says how to learn."""
    kept, table, _ = toml.partition("[training]")
    assert table
    return kept
