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
