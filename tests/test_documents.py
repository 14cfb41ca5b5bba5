"""The documents say what is so: settings, commands, folders, and nothing of the machine they were written on."""

import re
import subprocess
from pathlib import Path

import pytest
import typer.main

from services.cli import app
from services.core.settings import settings_table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def tracked() -> list[Path]:
    """Files of the checkout that git tracks or would track."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_the_settings_table_is_the_settings() -> None:
    assert settings_table() in README


def test_every_command_the_readme_names_exists() -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"\.venv/bin/cenote (?:--store \S+ )?([a-z]+)", README))
    assert named <= commands
    assert {"ingest", "serve"} <= named
    for command in commands:
        assert f"`{command}`" in README or command in named, f"the README does not name {command}"


def test_every_picture_and_page_the_documents_link_exists() -> None:
    for path in tracked():
        if path.suffix == ".md":
            for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
                assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links {target}"


@pytest.mark.parametrize("folder", ["services", "models", "tiler", "infra", "tests", "infra/decisions"])
def test_every_folder_says_what_lives_in_it(folder: str) -> None:
    packages = [ROOT / folder, *(path.parent for path in (ROOT / folder).glob("*/__init__.py"))]
    for package in packages:
        if package.name != "store":
            assert (package / "README.md").is_file(), f"{package.relative_to(ROOT)} has no README.md"


def test_no_file_names_a_machine_or_a_registry() -> None:
    hosts = ("pypi" + ".org", "pythonhosted" + ".org", "registry.npmjs" + ".org", "proxy.golang" + ".org")
    paths = ("/" + "root/", "/" + "work/")
    for path in tracked():
        if path.suffix in {".onnx", ".safetensors", ".png", ".tif", ".npz"}:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for word in (*hosts, *paths):
            assert word not in text, f"{path.relative_to(ROOT)} holds {word}"
