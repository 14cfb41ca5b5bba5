"""Four months of the sample Earth across a new year, and of its groundwater, written once."""

import shutil
from pathlib import Path

import pytest

from services.sample.carbon import Carbon
from services.sample.carbon_files import write_carbon
from services.sample.earth import Earth
from services.sample.groundwater import Groundwater
from services.sample.groundwater_files import write_groundwater
from services.sample.groundwater_seen import Seen
from services.sample.inputs import write_inputs
from tests.samples import sample

MONTHS = ("2019-11", "2020-02")


@pytest.fixture(scope="session")
def earth() -> Earth:
    """The Earth whose inputs are written; its fixed fields are made once."""
    return Earth()


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs that no test may change."""
    directory = tmp_path_factory.mktemp("sample") / "inputs"
    write_inputs(directory, months=MONTHS)
    return directory


@pytest.fixture
def inputs(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(written, tmp_path / "inputs"))


@pytest.fixture(scope="session")
def world() -> Groundwater:
    """The true groundwater of the small size."""
    return Groundwater("small")


@pytest.fixture(scope="session")
def seen(world: Groundwater) -> Seen:
    """What is seen of it."""
    return Seen(world=world)


@pytest.fixture(scope="session")
def groundwater(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its inputs with four months of predictors, which no test may change."""
    return write_groundwater(tmp_path_factory.mktemp("groundwater") / "inputs", "small", months=MONTHS)


@pytest.fixture(scope="session")
def carbon() -> Carbon:
    """The true XCO2 of the study size."""
    return Carbon("study")


@pytest.fixture(scope="session")
def carbon_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its inputs of two months, small, which no test may change."""
    return write_carbon(tmp_path_factory.mktemp("carbon") / "inputs", "small", months=("2020-01", "2020-02"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as `cenote sample` writes it, with 60 months of predictors, which no test may change."""
    return sample(tmp_path_factory, "gwsa")
