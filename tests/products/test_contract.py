"""What every product keeps, whoever wrote it: run over all that are found."""

import hashlib
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services import products
from services.core import layout
from services.core.errors import CenoteError, InputRefused
from services.core.grid import Window
from services.core.product import Product
from services.pipeline.recipe import Here, Recipe
from services.pipeline.subset import window_of
from tests.samples import sample

pytestmark = pytest.mark.slow  # as a whole

FOUND = sorted(products.find())


@pytest.fixture(scope="session", params=FOUND)
def package(request: pytest.FixtureRequest) -> ModuleType:
    return products.product(request.param)


@pytest.fixture(scope="session")
def inputs(package: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The product's own sample inputs."""
    if getattr(package, "write_sample", None) is None:
        pytest.skip(f"{package.__name__} has no write_sample: nothing to compute from")
    return sample(tmp_path_factory, package.PRODUCT.id)


@pytest.fixture(scope="session")
def recipe(package: ModuleType, inputs: Path) -> Recipe:
    opened: Recipe = package.open_recipe(inputs)
    prepare = getattr(opened, "prepare", None)
    if prepare is not None:
        prepare(Here(), lambda _: None)
    return opened


@pytest.fixture(scope="session")
def piece(package: ModuleType, recipe: Recipe) -> Window:
    """A part of what the sample's inputs cover that begins at no chunk."""
    grid = recipe.product.grid
    area = getattr(package, "sample_area", None)
    known = Window(row=0, column=0, height=grid.height, width=grid.width)
    if area is not None:
        known = window_of(grid, area("small"))
    height, width = min(24, known.height), min(32, known.width)
    return Window(
        row=known.row + (known.height - height) // 2,
        column=known.column + (known.width - width) // 3,
        height=height,
        width=width,
    )


def part(values: dict[str, NDArray[Any]], outer: Window, inner: Window) -> dict[str, NDArray[Any]]:
    top, left = inner.row - outer.row, inner.column - outer.column
    return {name: v[:, top : top + inner.height, left : left + inner.width] for name, v in values.items()}


def assert_same(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def test_a_product_is_found_under_its_own_id(package: ModuleType) -> None:
    declared = package.PRODUCT
    assert isinstance(declared, Product)
    assert products.find()[declared.id] is package
    assert package.__name__.rpartition(".")[2] == declared.id


def test_a_declaration_survives_json_text(package: ModuleType) -> None:
    declared: Product = package.PRODUCT
    text = layout.canonical(declared.to_json())
    assert Product.from_json(json.loads(text)) == declared
    assert layout.canonical(Product.from_json(json.loads(text)).to_json()) == text


def test_a_declaration_says_what_a_reader_needs(package: ModuleType) -> None:
    declared: Product = package.PRODUCT
    assert declared.license != "other" or declared.citation
    for quantity in declared.quantities:
        assert quantity.style is not None or quantity.role != "value", quantity.name
        if quantity.is_integer and quantity.is_packed:
            assert quantity.decimals is not None
    if declared.synthetic:
        assert "synthetic" in f"{declared.title} {declared.description}".lower() or "made-up" in declared.description


def test_the_recipe_makes_what_is_declared(package: ModuleType, recipe: Recipe, inputs: Path) -> None:
    declared = package.PRODUCT
    if recipe.product.synthetic and not declared.synthetic:
        # made from a sample: it says so, and is otherwise what is declared
        declared = replace(declared, synthetic=True, title=recipe.product.title, license=recipe.product.license)
        assert "synthetic" in recipe.product.title
        # and may have wider cells over the same ground
        made = recipe.product.grid
        assert made.bounds == declared.grid.bounds or made == declared.grid
        declared = replace(declared, grid=made)
    # what is only known of the inputs, such as the scale of a gas, may be told besides
    known_of_inputs = [
        replace(one, attributes={**one.attributes, **two.attributes})
        for one, two in zip(declared.quantities, recipe.product.quantities, strict=True)
    ]
    assert recipe.product == replace(declared, quantities=tuple(known_of_inputs))
    axis = recipe.periods()
    assert len(axis) > 0
    assert str(axis.step) == str(package.PRODUCT.length)
    files = recipe.inputs()
    assert len({one.name for one in files}) == len(files) > 0
    for one in files:
        # by its own name, so that the same files elsewhere are the same inputs
        place = inputs / one.name
        if place.is_dir():  # a Zarr store: of all objects in it
            assert one.size == sum(path.stat().st_size for path in place.rglob("*") if path.is_file()), one.name
            assert len(one.sha256) == 64
            continue
        data = place.read_bytes()
        assert (one.size, one.sha256) == (len(data), hashlib.sha256(data).hexdigest()), one.name
    told = layout.canonical({"facts": dict(recipe.facts()), "inputs": [one.name for one in files]}).decode()
    assert str(inputs.parent) not in told
    directories = recipe.model_directories()
    for name, sha256 in recipe.models().items():
        card = (directories[name] / "card.json").read_bytes()
        assert hashlib.sha256(card).hexdigest() == sha256
        model = (directories[name] / "model.onnx").read_bytes()
        assert json.loads(card)["sha256"] == hashlib.sha256(model).hexdigest()
        assert (directories[name] / "card.json").is_file()


def test_opening_twice_gives_the_same_recipe(package: ModuleType, recipe: Recipe, inputs: Path) -> None:
    again: Recipe = package.open_recipe(inputs)
    assert again == recipe
    assert (again.periods(), again.inputs(), again.models()) == (recipe.periods(), recipe.inputs(), recipe.models())


def test_a_recipe_is_small_and_travels(recipe: Recipe) -> None:
    data = pickle.dumps(recipe)
    assert len(data) < 1_000_000
    assert pickle.loads(data) == recipe  # noqa: S301 - our own bytes


def test_values_have_the_declared_type_and_shape_and_are_not_all_missing(recipe: Recipe, piece: Window) -> None:
    window = piece
    axis = recipe.periods().take([0])
    values = recipe.compute(axis, window)
    assert sorted(values) == sorted(quantity.name for quantity in recipe.product.quantities)
    for quantity in recipe.product.quantities:
        stored = values[quantity.name]
        assert (stored.dtype, stored.shape) == (np.dtype(quantity.dtype), (1, *window.shape))
        assert not quantity.missing(stored).all()
        decoded = quantity.decode(stored)
        assert np.isfinite(decoded[~quantity.missing(stored)]).all()


def test_values_do_not_depend_on_how_regions_and_periods_are_cut(recipe: Recipe, piece: Window) -> None:
    outer = piece
    inner = Window(row=outer.row + 5, column=outer.column + 7, height=outer.height - 9, width=outer.width - 12)
    axis = recipe.periods()
    two = axis.take([0, len(axis) - 1])
    together = recipe.compute(two, outer)
    assert_same(recipe.compute(two, outer), together)
    assert_same(recipe.compute(two, inner), part(together, outer, inner))
    for place in (0, 1):
        alone = recipe.compute(two.take([place]), outer)
        assert_same(alone, {name: values[place : place + 1] for name, values in together.items()})


IN_ANOTHER_PROCESS = """
import hashlib, pickle, sys
recipe, axis, window = pickle.load(sys.stdin.buffer)
for name, values in sorted(recipe.compute(axis, window).items()):
    print(name, hashlib.sha256(values.tobytes()).hexdigest())
"""


def test_another_process_computes_the_same_bytes(recipe: Recipe, piece: Window) -> None:
    window, axis = piece, recipe.periods().take([0])
    mine = [
        f"{name} {hashlib.sha256(values.tobytes()).hexdigest()}"
        for name, values in sorted(recipe.compute(axis, window).items())
    ]
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        input=pickle.dumps((recipe, axis, window)),
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    assert done.stdout.decode().splitlines() == mine


def test_sample_inputs_are_kept_as_they_are(package: ModuleType, inputs: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in inputs.rglob("*") if path.is_file()}
    package.write_sample(inputs, "small", lambda _: None)
    assert {path: path.stat().st_mtime_ns for path in inputs.rglob("*") if path.is_file()} == before


def test_a_directory_without_inputs_is_refused_with_a_sentence(package: ModuleType, tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputRefused) as refusal:
            package.open_recipe(directory)
        assert isinstance(refusal.value, CenoteError)
        assert str(tmp_path) in str(refusal.value)
