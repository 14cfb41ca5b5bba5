"""The sample Earth's groundwater with two years of predictors, written and balanced once."""

from pathlib import Path

import pytest

from services.pipeline.recipe import Here
from services.products.gwsa.coarse import Coarse, prepare
from services.products.gwsa.inputs import Inputs
from services.sample.groundwater import Groundwater
from services.sample.groundwater_files import write_groundwater

MONTHS = ("2017-01", "2018-12")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Input files that no test may change."""
    return write_groundwater(tmp_path_factory.mktemp("gwsa") / "inputs", months=MONTHS)


@pytest.fixture(scope="session")
def world() -> Groundwater:
    """What is true there."""
    return Groundwater("small")


@pytest.fixture(scope="session")
def opened(written: Path) -> Inputs:
    """The inputs, hashed."""
    return Inputs.find(written).hashed()


@pytest.fixture(scope="session")
def coarse(opened: Inputs) -> Coarse:
    """The coarse fields."""
    return prepare(opened, Here(), lambda _: None)
