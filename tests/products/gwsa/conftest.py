"""The sample Earth's groundwater with two years of predictors: written, balanced and learned from once."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.pipeline.recipe import Here
from services.products.gwsa.coarse import Coarse, prepare
from services.products.gwsa.inputs import Inputs
from services.products.gwsa.render import Gwsa, open_recipe
from services.products.gwsa.training import export, train
from services.sample.groundwater import Groundwater
from services.sources import gldas
from services.sources.files import Source
from services.sources.variables import Described, described
from tests.samples import groundwater, once, one_at_a_time

MONTHS = ("2017-01", "2018-12")

_LOOKED_AT: dict[Any, Described] = {}


def _described(source: Source, names: Sequence[str], **options: Any) -> Described:
    key = (os.path.realpath(source.location), source.size, source.stamp, tuple(names), tuple(sorted(options.items())))
    if key not in _LOOKED_AT:
        _LOOKED_AT[key] = described(source, names, **options)
    return replace(_LOOKED_AT[key], source=source)


@pytest.fixture(scope="module", autouse=True)
def _looked_at_once() -> Iterator[None]:
    """A file that is the same as before is not described again: 225 of GLDAS take 8 s of a core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gldas, "described", _described)
        yield


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Input files that no test may change."""
    return groundwater(tmp_path_factory, MONTHS)


@pytest.fixture(scope="session")
def world() -> Groundwater:
    """What is true there."""
    return Groundwater("small")


@pytest.fixture(scope="session")
def opened(written: Path) -> Inputs:
    """The inputs, hashed."""
    return Inputs.find(written).hashed()


@pytest.fixture(scope="session")
def coarse(opened: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Coarse:
    """The coarse fields."""
    with one_at_a_time(tmp_path_factory, "coarse"):
        return prepare(opened, Here(), lambda _: None)


@pytest.fixture(scope="session")
def models(written: Path, coarse: Coarse, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models learned from these inputs, exported; their coarse fields are there."""
    assert coarse.is_prepared

    def make(directory: Path) -> None:
        train(written, directory, 0, lambda _: None)
        export(directory, directory, lambda _: None)

    return once(tmp_path_factory, "models", make)


@pytest.fixture(scope="session")
def recipe(written: Path, models: Path, coarse: Coarse) -> Gwsa:
    """The product with these models; its coarse fields are there."""
    found = open_recipe(written, models)
    assert Coarse.of(found.source) == coarse
    return found
