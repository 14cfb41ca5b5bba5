"""Where the peers come from: Python environments of pinned versions, and Debian's MapServer, kept in the cache."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.data import Note, bench_cache
from tests.bench.lineup import HERE, MapServer, Peer, TitilerCore, TitilerXarray, XpublishTiles
from tests.bench.servers import Failed
from tests.bench.stacks import Stack

if TYPE_CHECKING:
    from collections.abc import Callable


def installed(note: Note, stacks: tuple[Stack, ...]) -> tuple[list[Peer], list[str]]:
    """The peers that can be had on this machine, and a line for each that cannot."""
    peers: list[Peer] = []
    left_out: list[str] = []
    makers: tuple[Callable[[], Peer], ...] = (
        lambda: TitilerCore(*_environment("titiler_core", "titiler-core", note)),
        lambda: TitilerXarray(*_environment("titiler_xarray", "titiler-xarray", note)),
        lambda: XpublishTiles(*_environment("xpublish_tiles", "xpublish-tiles", note), stacks),
        lambda: _mapserver(note, stacks),
    )
    for name, maker in zip(("titiler.core", "titiler.xarray", "xpublish-tiles", "MapServer"), makers, strict=True):
        try:
            peers.append(maker())
        except Failed as reason:
            left_out.append(f"{name} is left out: {reason}")
    return peers, left_out


def _environment(name: str, distribution: str, note: Note) -> tuple[Path, str]:
    """The Python of a peer's environment, made once from its pinned requirements, and the peer's version.

    Raises:
        Failed: if it cannot be made.
    """
    requirements = HERE / f"{name}.txt"
    pins = dict(line.split("==") for line in requirements.read_text().split())
    folder = bench_cache() / f"{distribution}-{pins[distribution]}"
    python, mark = folder / "bin" / "python", folder / "made"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not (mark.exists() and mark.read_text() == wanted):
        note(f"{folder.name}: making its environment (once)")
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", requirements], check=True)
        except subprocess.CalledProcessError as error:
            raise Failed(f"its environment cannot be made, pip ended with {error.returncode}") from None
        mark.write_text(wanted)
    return python, pins[distribution]


def _mapserver(note: Note, stacks: tuple[Stack, ...]) -> MapServer:
    """MapServer from PATH, or Debian's package and what it lacks here, unpacked into the cache and not installed.

    Raises:
        Failed: if there is neither.
    """
    found = shutil.which("mapserv")
    environment: dict[str, str] = {}
    if found is None:
        root = bench_cache() / "mapserver"
        binary = root / "usr" / "bin" / "mapserv"
        if not binary.exists():
            _unpack(root, note)
        libraries = sorted({str(path.parent) for path in root.rglob("*.so*")})
        environment = {
            "LD_LIBRARY_PATH": ":".join(libraries),
            "PROJ_LIB": str(root / "usr" / "share" / "proj"),
            "GDAL_DATA": str(root / "usr" / "share" / "gdal"),
        }
        found = str(binary)
    said = subprocess.run([found, "-v"], env=os.environ | environment, check=False, capture_output=True, text=True)
    if said.returncode or "VERSION" not in said.stdout.upper():
        raise Failed(f"mapserv does not run here: {said.stderr.strip()[:200]}")
    if "INPUT=GDAL" not in said.stdout or "SUPPORTS=FASTCGI" not in said.stdout:
        raise Failed("mapserv was built without GDAL or FastCGI")
    return MapServer(Path(found), environment, said.stdout.split()[2], stacks)


def _unpack(root: Path, note: Note) -> None:
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg")
    if apt is None or dpkg is None:
        raise Failed("there is no mapserv on PATH, and no apt to get Debian's cgi-mapserver with")
    note("MapServer: unpacking Debian's cgi-mapserver into the cache (once)")
    scratch = root.with_name("mapserver-packages")
    scratch.mkdir(parents=True, exist_ok=True)
    unpacked = root.with_name("mapserver-unpacked")
    try:
        simulated = [apt, "install", "--simulate", "--no-install-recommends", "cgi-mapserver"]
        planned = subprocess.run(simulated, check=True, capture_output=True, text=True).stdout
        names = [line.split()[1] for line in planned.splitlines() if line.startswith("Inst ")]
        subprocess.run([apt, "download", "-q", *names], cwd=scratch, check=True, capture_output=True)
        for package in scratch.glob("*.deb"):
            subprocess.run([dpkg, "-x", package, unpacked], check=True)
        unpacked.rename(root)
    except subprocess.CalledProcessError:
        raise Failed("apt cannot fetch Debian's cgi-mapserver (it may need `apt-get update` first)") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(unpacked, ignore_errors=True)
