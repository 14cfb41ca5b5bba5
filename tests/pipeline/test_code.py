import importlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.pipeline import code


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout that is taken for ours."""
    monkeypatch.setattr(code, "_root", lambda: tmp_path)
    code.commit.cache_clear()
    yield tmp_path
    code.commit.cache_clear()


def git(folder: Path, *words: str) -> str:
    named = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *named, *words], capture_output=True, text=True, check=True)  # noqa: S607
    return done.stdout.strip()


def test_the_commit_of_a_checkout_is_told_with_a_mark_where_files_differ(root: Path) -> None:
    git(root, "init", "-q")
    (root / "a.py").write_text("1")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    known = git(root, "rev-parse", "HEAD")
    assert code.commit() == known
    (root / "a.py").write_text("2")
    code.commit.cache_clear()
    assert code.commit() == f"{known}+"


def test_an_installation_inside_another_checkout_has_no_commit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code.commit() is None
    git(root, "init", "-q")
    git(root, "commit", "-qm", "theirs", "--allow-empty")
    inner = root / "lib"
    inner.mkdir()
    monkeypatch.setattr(code, "_root", lambda: inner)
    code.commit.cache_clear()
    assert code.commit() is None


class Outer:
    """A recipe of another package, in one of ours."""

    def __init__(self, inner: object) -> None:
        self.inner = inner

    def compute(self) -> None:
        """What makes it one."""


def test_the_code_of_a_recipe_of_another_package_is_part_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "made_up_elsewhere"
    package.mkdir()
    (package / "__init__.py").write_text("class Recipe:\n    def compute(self):\n        return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    recipe = importlib.import_module("made_up_elsewhere").Recipe()
    packages = code.packages_of(recipe)
    assert packages == ("made_up_elsewhere",)
    assert set(code.packages_of(Outer(recipe))) == {"made_up_elsewhere", "tests"}
    before = code.this_code(packages)
    assert before != code.this_code()
    (package / "inner.py").write_text("A = 1\n")
    code.this_code.cache_clear()
    assert code.this_code(packages) != before
    assert code.this_code(("not_installed_anywhere",)) != code.this_code()
