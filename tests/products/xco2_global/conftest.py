"""Four months of the sample Earth's carbon, and a tiny network that learned from them in seconds, made once."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from services.pipeline.recipe import Here
from services.products.xco2_global import export, open_recipe, train
from services.products.xco2_global.inputs import SETTINGS, Inputs
from services.products.xco2_global.render import Xco2
from services.sample.carbon_files import write_carbon
from tests.samples import without_training

MONTHS = ("2019-08", "2019-11")

TINY = "\n[training]\nhidden = 8\nepochs = 2\npatience = 2\nbatch = 128\n"


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Input files that no test may change."""
    directory = write_carbon(tmp_path_factory.mktemp("xco2") / "inputs", months=MONTHS)
    toml = directory / SETTINGS
    toml.write_text(without_training(toml.read_text()) + TINY)
    return directory


@pytest.fixture(scope="session")
def opened(written: Path) -> Inputs:
    """The inputs, hashed."""
    return Inputs.find(written).hashed()


@pytest.fixture(scope="session")
def trained(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `train` wrote: two epochs of eight units."""
    pytest.importorskip("torch", reason="it trains a network")
    directory = tmp_path_factory.mktemp("xco2_trained")
    train(written, directory, 0, lambda _: None)
    return directory


@pytest.fixture(scope="session")
def models(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, exported."""
    directory = tmp_path_factory.mktemp("xco2_models")
    export(trained, directory, lambda _: None)
    return directory


@pytest.fixture(scope="session")
def recipe(written: Path, models: Path) -> Xco2:
    """The product with these; its cells are there."""
    found = open_recipe(written, models)
    found.prepare(Here(), lambda _: None)
    return found


@pytest.fixture
def inputs(written: Path, tmp_path: Path) -> Path:
    """Links to the files in a directory of its own; what is changed must be ``own`` first."""
    return Path(
        shutil.copytree(written, tmp_path / "inputs", copy_function=os.link, ignore=shutil.ignore_patterns("prepared"))
    )


@pytest.fixture
def own(inputs: Path) -> Callable[[str], Path]:
    """Makes one of the linked files a copy that may be changed."""

    def make(name: str) -> Path:
        path = inputs / name
        part = path.with_name(f".{name}.own")
        shutil.copy(path, part)
        part.replace(path)
        return path

    return make
