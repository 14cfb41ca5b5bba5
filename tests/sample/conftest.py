"""Four months of the sample Earth across a new year, written once."""

import shutil
from pathlib import Path

import pytest

from services.sample.earth import Earth
from services.sample.inputs import write_inputs

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
