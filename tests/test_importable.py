"""The three import names are generic: each must mean ours, wherever Python is started, and need no more than it may."""

import os
import pkgutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # as a whole

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("services", "models", "tiler")
_NEED_THE_TRAIN_EXTRA = {"train", "net", "export", "native"}


def elsewhere(script: str, folder: Path) -> str:
    """What ``script`` prints when run in an empty folder that is not on its path either (-P)."""
    # A PYTHONPATH that points at the checkout would hide what a worker without it sees.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-P", "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_name_means_ours_from_an_empty_folder(name: str, tmp_path: Path) -> None:
    found = Path(elsewhere(f"import {name}; print({name}.__file__)", tmp_path).strip()).resolve()
    assert found == ROOT / name / "__init__.py"


@pytest.mark.parametrize("name", NAMES)
def test_no_other_distribution_provides_the_name(name: str) -> None:
    # packages_distributions() does not see an editable install's names, and sees everyone else's.
    others = set(metadata.packages_distributions().get(name, [])) - {"cenote"}
    assert not others, f"{others} would shadow our {name!r} in a worker or an image: uninstall"


def modules(name: str) -> list[str]:
    """Every module of ours under ``name`` but those that train and export, and those that ask for XGBoost by name."""
    found = [module.name for module in pkgutil.walk_packages([str(ROOT / name)], prefix=f"{name}.")]
    return [name, *(module for module in found if module.rsplit(".", 1)[-1] not in _NEED_THE_TRAIN_EXTRA)]


def without(*names: str) -> str:
    """A script begins so where packages are not installed; of a None in sys.modules scipy asks for its parts."""
    return f"""
import importlib, sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Nothing())
"""


def test_all_that_renders_and_serves_imports_without_training_libraries(tmp_path: Path) -> None:
    script = without("torch", "xgboost", "onnx", "onnxscript", "safetensors")
    script += "".join(f"importlib.import_module({module!r})\n" for name in NAMES for module in modules(name))
    elsewhere(script, tmp_path)


def test_the_service_imports_without_dask_and_fsspec(tmp_path: Path) -> None:
    script = without("torch", "xgboost", "dask", "distributed", "s3fs", "fsspec")
    script += "".join(f"importlib.import_module({module!r})\n" for module in modules("tiler"))
    elsewhere(script, tmp_path)
