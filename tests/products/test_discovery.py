"""A new product is one folder: beside ours, or in a package of its own. Nothing else is edited."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from services import products
from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.errors import DeclarationError, Refused
from services.core.grid import Window
from services.core.settings import StoreSettings
from services.core.store import Store

ROOT = Path(__file__).resolve().parents[2]

PACKAGE = '''
"""Monthly rain from a text file: a whole product in one file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.core.errors import InputRefused
from services.core.grid import Grid
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Input

RAIN = Quantity(name="rain", units="mm", long_name="rain", dtype="int16", scale_factor=0.1, fill_value=-1)
PRODUCT = Product(
    id="{id}",
    title="Rain",
    description="Made up for a test.",
    grid=Grid.of(west=0, north=10, step_x="1/2", width=20, height=16),
    step="P1M",
    quantities=(RAIN,),
    license="CC0-1.0",
)


@dataclass(frozen=True, kw_only=True)
class Rain:
    path: Path
    file: Input

    @property
    def product(self):
        return PRODUCT

    def periods(self):
        return TimeAxis.regular("2020-01", "P1M", len(np.loadtxt(self.path, ndmin=1)))

    def inputs(self):
        return (self.file,)

    def models(self):
        return {{}}

    def model_directories(self):
        return {{}}

    def facts(self):
        return {{}}

    def compute(self, periods, window):
        amounts = np.loadtxt(self.path, ndmin=1)
        first = TimeAxis.regular("2020-01", "P1M", 1).starts[0]
        grid = PRODUCT.grid
        place = grid.latitudes[window.rows, None] + grid.longitudes[None, window.columns]
        return {{"rain": np.stack([RAIN.pack(amounts[start - first] + place) for start in periods.starts])}}


def open_recipe(inputs):
    path = inputs / "rain.txt"
    if not path.is_file():
        raise InputRefused(f"{{path}} is missing")
    data = path.read_bytes()
    return Rain(path=path, file=Input(name=path.name, size=len(data), sha256=hashlib.sha256(data).hexdigest()))
'''


class Installed:
    """A copy of our packages with a folder more, a foreign package with an entry point, and the command on both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ours, self.theirs = folder / "ours", folder / "theirs"
        for package in ("services", "models"):
            shutil.copytree(ROOT / package, self.ours / package, ignore=shutil.ignore_patterns("__pycache__"))
        self.add(self.ours / "services" / "products" / "rain_here", "rain_here")
        self.add(self.theirs / "weather" / "rain_there", "rain_there")
        about = self.theirs / "weather-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: weather\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("[cenote.products]\nrain_there = weather.rain_there\n")
        self.inputs = folder / "inputs"
        self.inputs.mkdir()
        (self.inputs / "rain.txt").write_text("1\n2\n3\n")
        self.store = Store.open(str(folder / "store"), StoreSettings())

    @staticmethod
    def add(folder: Path, name: str) -> None:
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(PACKAGE.format(id=name))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(self.ours), str(self.theirs)])
        environment = {**os.environ, "PYTHONPATH": path, "CENOTE_STORE": self.store.url}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the copy is compiled once, not at every command
        return subprocess.run(
            [sys.executable, "-P", Path(sysconfig.get_path("scripts")) / "cenote", *words],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def done(self, *words: str) -> dict[str, object]:
        """The JSON of a command that must succeed."""
        finished = self.run(*words, "--json")
        assert finished.returncode == 0, finished.stderr
        document: dict[str, object] = json.loads(finished.stdout)
        return document


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "workers"), [("rain_here", "0"), ("rain_there", "2")])
def test_a_folder_is_a_product_that_is_planned_rendered_and_published(
    installed: Installed, name: str, workers: str
) -> None:
    plan = installed.done("plan", name, "--inputs", str(installed.inputs))
    assert str(plan["lines"]).count(f"{name}: 3 periods to compute (2020-01 to 2020-03)") == 1
    rendered = installed.done("render", name, "--inputs", str(installed.inputs), "--workers", workers)
    assert (rendered["collection"], rendered["seq"]) == (name, 1)
    version = current_version(installed.store, name)[1]
    assert version.id == rendered["version"]
    assert version.product.title == "Rain"
    whole = Window(row=0, column=0, height=16, width=20)
    values = Dataset(installed.store, version).read_series(version.product.quantities[0], range(3), whole)
    grid = version.product.grid
    expected = np.array([1, 2, 3])[:, None, None] + grid.latitudes[None, :, None] + grid.longitudes
    np.testing.assert_allclose(version.product.quantities[0].decode(values), expected, atol=0.05 + 1e-9)
    assert installed.done("verify", name)["findings"] == []
    listed = installed.run("versions", "--json")
    assert name in {one["collection"] for one in json.loads(listed.stdout)}


@pytest.mark.slow
def test_a_product_that_is_not_there_is_refused_and_those_that_are_there_named(installed: Installed) -> None:
    refused = installed.run("plan", "snow")
    assert refused.returncode == 1
    assert refused.stderr.startswith("cenote: there is no product 'snow'; there are ")
    assert {"rain_here", "rain_there", "sample_earth"} <= set(
        refused.stderr.strip().partition("there are ")[2].split(", ")
    )
    missing = installed.run("plan", "rain_there", "--inputs", str(installed.folder))
    assert missing.returncode == 1
    assert missing.stderr == f"cenote: {installed.folder / 'rain.txt'} is missing\n"
    assert missing.stdout == ""


# The same in this process: a folder on the package's path, an entry point on sys.path.


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "products"
    folder.mkdir()
    monkeypatch.setattr(products, "__path__", [*products.__path__, str(folder)])
    return folder


def forget(*names: str) -> None:
    for name in names:
        sys.modules.pop(name, None)


def write(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "__init__.py").write_text(dedent(text))


def test_a_package_that_exports_nothing_is_refused(elsewhere: Path) -> None:
    write(elsewhere / "hollow", "PRODUCT = None\n")
    with pytest.raises(DeclarationError, match=r"services\.products\.hollow must export PRODUCT and open_recipe"):
        products.find()
    forget("services.products.hollow")


def test_a_folder_whose_product_has_another_id_is_refused(elsewhere: Path) -> None:
    Installed.add(elsewhere / "drizzle", "rain_here")
    with pytest.raises(DeclarationError, match="is found as 'drizzle' and declares 'rain_here'"):
        products.find()
    forget("services.products.drizzle")


def test_two_packages_of_one_id_are_refused(elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Installed.add(elsewhere / "rain_twice", "rain_twice")
    site = tmp_path / "site"
    Installed.add(site / "cloudy" / "rain_twice", "rain_twice")
    about = site / "cloudy-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: cloudy\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[cenote.products]\nrain_twice = cloudy.rain_twice\n")
    monkeypatch.syspath_prepend(str(site))
    with pytest.raises(DeclarationError, match="two packages claim product 'rain_twice'"):
        products.find()
    forget("services.products.rain_twice", "cloudy", "cloudy.rain_twice")


def test_a_file_beside_the_folders_is_no_product(elsewhere: Path) -> None:
    (elsewhere / "notes.py").write_text("PRODUCT = 1\n")
    assert "notes" not in products.find()


def test_ours_are_found_by_looking() -> None:
    here = {path.parent.name for path in (ROOT / "services" / "products").glob("*/__init__.py")}
    assert here <= set(products.find())
    with pytest.raises(Refused, match=r"there is no product 'snow'; there are .*sample_earth"):
        products.product("snow")
