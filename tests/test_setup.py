"""What surrounds the code: make's targets, the search for a Python, constraints, assets, the tests' object stores."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, PermissionDeniedError, PreconditionError
from obstore.store import S3Store

if TYPE_CHECKING:
    from tests.conftest import S3Server

ROOT = Path(__file__).resolve().parents[1]


def s3_store(server: "S3Server", bucket: str, secret_key: str | None = None) -> S3Store:
    return S3Store(
        bucket,
        endpoint=server.endpoint,
        region=server.region,
        access_key_id=server.access_key,
        secret_access_key=secret_key or server.secret_key,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


@pytest.fixture(params=["minio", "seaweedfs"])
def conditional_server(request: pytest.FixtureRequest) -> "S3Server":
    server: S3Server = request.getfixturevalue(request.param)
    return server


@pytest.mark.s3
def test_store_keeps_what_was_put_and_holds_preconditions(conditional_server: "S3Server") -> None:
    store = s3_store(conditional_server, conditional_server.new_bucket())
    first = obstore.put(store, "a/b", b"one", mode="create")
    assert bytes(obstore.get(store, "a/b").bytes()) == b"one"
    with pytest.raises(AlreadyExistsError):
        obstore.put(store, "a/b", b"two", mode="create")
    obstore.put(store, "a/b", b"two", mode={"e_tag": first["e_tag"]})
    with pytest.raises(PreconditionError):
        obstore.put(store, "a/b", b"three", mode={"e_tag": first["e_tag"]})
    assert bytes(obstore.get(store, "a/b").bytes()) == b"two"


@pytest.mark.s3
def test_store_refuses_a_wrong_secret(conditional_server: "S3Server") -> None:
    store = s3_store(conditional_server, conditional_server.new_bucket(), secret_key="wrong" * 8)
    with pytest.raises(PermissionDeniedError):
        obstore.put(store, "a", b"one")


def test_rclone_ignores_preconditions(rclone_s3: "S3Server") -> None:
    store = s3_store(rclone_s3, rclone_s3.new_bucket())
    obstore.put(store, "a", b"one", mode="create")
    obstore.put(store, "a", b"two", mode="create")
    assert bytes(obstore.get(store, "a").bytes()) == b"two"


@pytest.mark.s3
def test_make_minio_serves_what_it_prints_and_cleans_up(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "infra" / "minio" / "minio.py"), "serve"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(script, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            lines = [shlex.split(server.stdout.readline()) for _ in range(5)]
            exported = dict(pair.split("=", 1) for _, pair in lines)
            store = S3Store(
                exported["CENOTE_STORE"].removeprefix("s3://").split("/")[0],
                endpoint=exported["AWS_ENDPOINT_URL_S3"],
                region=exported["AWS_REGION"],
                access_key_id=exported["AWS_ACCESS_KEY_ID"],
                secret_access_key=exported["AWS_SECRET_ACCESS_KEY"],
                virtual_hosted_style_request=False,
                client_options={"allow_http": True},
            )
            obstore.put(store, "a", b"one", mode="create")
            assert bytes(obstore.get(store, "a").bytes()) == b"one"
        finally:
            server.send_signal(signal.SIGINT)
            _, messages = server.communicate(timeout=20)
    assert server.returncode == 0, messages
    assert "testing on this machine only" in messages
    assert not list(tmp_path.iterdir()), "its data was to be temporary"
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", int(exported["AWS_ENDPOINT_URL_S3"].rsplit(":", 1)[1])))


def test_help_lists_every_target_with_one_line() -> None:
    targets = set(re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    done = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S607  make is on PATH
    listed = re.findall(r"^  ([a-z-]+) +(\S.*)$", done.stdout, flags=re.MULTILINE)
    assert [name for name, _ in listed] == list(dict.fromkeys(name for name, _ in listed))
    assert {name for name, _ in listed} == targets


def find_python(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The search for a Python, in a world where only ``environment`` and the basic tools are."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    sh = shutil.which("sh")
    assert sh is not None
    if not (tools / "sh").exists():
        (tools / "sh").symlink_to(sh)
    path = os.pathsep.join([environment.pop("PATH", ""), str(tools)]).strip(os.pathsep)
    return subprocess.run(
        [sh, str(ROOT / "infra" / "setup" / "find_python")],
        env={"HOME": str(folder / "nobody"), "PATH": path, **environment},
        check=False,
        capture_output=True,
        text=True,
    )


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def base_python() -> Path:
    """The interpreter that this environment was made from."""
    return Path(getattr(sys, "_base_executable", sys.executable))


def version_and_venv(python: str) -> tuple[int, int]:
    query = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
    done = subprocess.run([python, "-c", query], check=True, capture_output=True, text=True)
    major, minor = done.stdout.split()
    return int(major), int(minor)


def test_find_python_passes_over_one_that_is_too_old_or_broken(tmp_path: Path) -> None:
    # What a pyenv shim of a version that is not selected does.
    script(tmp_path / "first" / "python3.13", "echo 'pyenv: version not selected' >&2; exit 127")
    # Too old: says 3.11 to whatever it is asked.
    script(tmp_path / "first" / "python3", "exit 1")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "python").symlink_to(base_python())
    done = find_python(tmp_path, PATH=os.pathsep.join([str(tmp_path / "first"), str(tmp_path / "second")]))
    assert done.returncode == 0, done.stderr
    assert (3, 12) <= version_and_venv(done.stdout.strip()) < (3, 15)


def test_find_python_looks_among_pyenvs_versions(tmp_path: Path) -> None:
    python = tmp_path / "py env" / "versions" / "3.13.99" / "bin" / "python"
    script(python, f'exec "{base_python()}" "$@"')
    script(tmp_path / "py env" / "versions" / "3.11.7" / "bin" / "python", "exit 1")
    done = find_python(tmp_path, PYENV_ROOT=str(tmp_path / "py env"))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).samefile(base_python())


def test_find_python_asks_uv_last_and_lets_it_install(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script(
        tmp_path / "bin" / "uv",
        f'echo "$*" >> "{log}"\n'
        f'case "$*" in "python install 3.13") : > "{tmp_path}/installed" ;;\n'
        f'*) [ -e "{tmp_path}/installed" ] && echo "{base_python()}" ;; esac',
    )
    done = find_python(tmp_path, PATH=str(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).samefile(base_python())
    assert "python install 3.13" in log.read_text().splitlines()


def test_find_python_says_in_one_sentence_that_there_is_none(tmp_path: Path) -> None:
    done = find_python(tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "needs Python 3.12" in line
    assert "CENOTE_PYTHON=" in line


def test_find_python_refuses_a_named_one_that_will_not_do(tmp_path: Path) -> None:
    bad = script(tmp_path / "bad", "exit 1")
    done = find_python(tmp_path, CENOTE_PYTHON=str(bad))
    assert done.returncode == 1
    assert str(bad) in done.stderr


def tree(folder: Path, *paths: str) -> Path:
    """A copy of some of the checkout's files, in their places."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    return folder


CONSTRAINED = ("infra/setup/constraints.py", "pyproject.toml", "constraints.txt")


def check_constraints(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / CONSTRAINED[0]), "check"]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_constraints_hold_every_dependency_as_installed() -> None:
    done = check_constraints(ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("pattern", "replacement", "complaint"),
    [
        (r"zarr==.*\n", "", "zarr is asked for in pyproject.toml and is not in constraints.txt"),
        (r"zarr==.*\n", "zarr==2.18.0\n", "constraints.txt has zarr 2.18.0, pyproject.toml zarr"),
        (r"zarr==.*\n", "zarr==3.999\n", r"zarr \S+ is installed, constraints.txt has 3.999"),
        (r"aiobotocore==.*\n", "", r"aiobotocore \S+ is installed, needed and not in constraints.txt"),
        (r"zarr==.*\n", "zarr>=3.4\n", "'zarr>=3.4' is not 'name==version'"),
        (r"zarr==.*\n", "zarr==3.4.2 --hash=sha256:00\n", "is not 'name==version'"),
    ],
)
def test_constraints_check_finds_what_drifted(tmp_path: Path, pattern: str, replacement: str, complaint: str) -> None:
    changed = tree(tmp_path, *CONSTRAINED) / "constraints.txt"
    text, count = re.subn(f"^{pattern}", replacement, changed.read_text(), flags=re.MULTILINE)
    assert count == 1
    changed.write_text(text)
    done = check_constraints(tmp_path)
    assert done.returncode == 1
    assert re.search(complaint, done.stderr), done.stderr


ASSETS = ("infra/setup/assets.py", "infra/setup/assets.json")


def vendor(folder: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Vendor into a copy of the tree with no npm in reach."""
    environment = {"CENOTE_CACHE": str(cache), "PATH": "", "HOME": str(folder)}
    command = [sys.executable, str(tree(folder, *ASSETS) / ASSETS[0])]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)


def cached_packages(cache: Path) -> list[dict[str, Any]]:
    """What assets.json lists, its archives copied into ``cache``; `make assets`, which `make test` calls, has them."""
    packages: list[dict[str, Any]] = json.loads((ROOT / ASSETS[1]).read_text())["packages"]
    there = Path(os.environ.get("CENOTE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "cenote"))
    (cache / "npm").mkdir(parents=True)
    for package in packages:
        shutil.copy(there.expanduser() / "npm" / f"{package['name']}-{package['version']}.tgz", cache / "npm")
    return packages


def test_assets_come_from_the_cache_without_npm_and_are_all_there(tmp_path: Path) -> None:
    packages = cached_packages(tmp_path / "cache")
    done = vendor(tmp_path / "tree", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    made = tmp_path / "tree" / "tiler" / "static" / "vendor"
    found = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
    assert found == sorted(f"{package['name']}/{Path(file).name}" for package in packages for file in package["files"])
    assert all(path.stat().st_size > 0 for path in made.rglob("*"))
    assert json.loads((made / "world-atlas" / "land-50m.json").read_text())["type"] == "Topology"


def test_a_damaged_archive_is_never_unpacked(tmp_path: Path) -> None:
    packages = cached_packages(tmp_path / "cache")
    archive = tmp_path / "cache" / "npm" / f"{packages[1]['name']}-{packages[1]['version']}.tgz"
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    done = vendor(tmp_path / "tree", tmp_path / "cache")
    assert done.returncode == 1
    assert archive.name in done.stderr
    assert not (tmp_path / "tree" / "tiler" / "static" / "vendor").exists()


def test_wheel_holds_the_three_packages_the_vendored_assets_and_nothing_else(tmp_path: Path) -> None:
    if not (ROOT / "tiler" / "static" / "vendor" / "maplibre-gl").is_dir():
        pytest.fail("tiler/static/vendor/ is missing: run `make assets` (make test does)")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("cenote-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"services", "models", "tiler"}
    for package in json.loads((ROOT / ASSETS[1]).read_text())["packages"]:
        for file in package["files"]:
            assert f"tiler/static/vendor/{package['name']}/{Path(file).name}" in names
    assert not [name for name in names if "__pycache__" in name]
    # What git has in the three packages is in the wheel: a data file that is left out breaks only the image.
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "services", "models", "tiler"]
    listed = subprocess.run(git, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert {path for path in listed if (ROOT / path).is_file()} <= set(names)


def test_changelog_speaks_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[0] in {"Unreleased", version}
    assert len(headings) == len(set(headings))
