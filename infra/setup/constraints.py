"""Writes and checks constraints.txt, the versions that the tests ran with.

``write`` resolves pyproject.toml anew, with uv in a throwaway environment. ``check`` compares three things that drift
apart: what pyproject.toml asks for, what constraints.txt says, and what is installed.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
HEADER = """\
# The versions that the tests ran with: every extra and the development group, for Python 3.12 to 3.14 on Linux
# (resolved for macOS too, untested). Made by `make lock`, checked by `make check`. No addresses and no hashes: any
# index or a local wheel may answer, and a CPU build of torch (2.x.y+cpu) satisfies torch's line.
"""
ENVIRONMENTS = [
    (platform, python)
    for platform in ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")
    for python in ("3.12", "3.13", "3.14")
]
"""(platform, Python) pairs that are resolved one by one: some packages' wheels declare what their sdist does not."""


def direct_requirements() -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for in its dependencies, extras and groups, by canonical name."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    lines = list(project["project"]["dependencies"])
    for group in (*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()):
        lines += group
    found: dict[str, list[Requirement]] = {}
    for line in lines:
        requirement = Requirement(line)
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def pins(text: str) -> dict[str, Version]:
    """Versions by canonical name.

    Raises:
        SystemExit: A line is anything but ``name==version``.
    """
    found: dict[str, Version] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if not re.fullmatch(r"[a-z0-9-]+==[a-z0-9.!]+", line):
            sys.exit(f"constraints.txt: {line!r} is not 'name==version'")
        name, version = line.split("==")
        found[canonicalize_name(name)] = Version(version)
    return found


def installed_closure(roots: dict[str, list[Requirement]]) -> Iterator[tuple[str, Version]]:
    """Name and version of each installed distribution among ``roots`` and of all that they need."""
    queue = [requirement for requirements in roots.values() for requirement in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    reported: set[str] = set()
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # An extra that is not installed here; pip itself refuses a broken closure.
        if name not in reported:
            reported.add(name)
            yield name, Version(distribution.version)
        for line in distribution.requires or ():
            needed = Requirement(line)
            extras = ("", *requirement.extras)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                queue.append(needed)


def complaints() -> Iterator[str]:
    """One sentence for each disagreement between pyproject.toml, constraints.txt and what is installed."""
    text = CONSTRAINTS.read_text(encoding="utf-8")
    pinned = pins(text)
    roots = direct_requirements()
    for name, requirements in sorted(roots.items()):
        for requirement in requirements:
            if name not in pinned:
                yield f"{name} is asked for in pyproject.toml and is not in constraints.txt: run `make lock`"
            elif not requirement.specifier.contains(pinned[name], prereleases=True):
                yield f"constraints.txt has {name} {pinned[name]}, pyproject.toml {requirement}: run `make lock`"
    for name, version in sorted(installed_closure(roots)):
        if name not in pinned:
            yield f"{name} {version} is installed, needed and not in constraints.txt: run `make lock`"
        elif Version(version.public) != pinned[name]:
            # .public drops the local label: 2.15.0+cpu is torch 2.15.0.
            yield f"{name} {version} is installed, constraints.txt has {pinned[name]}: run `make setup` or `make lock`"


def check() -> None:
    """Print the disagreements; exit 1 if there are any."""
    found = list(complaints())
    for complaint in found:
        print(complaint, file=sys.stderr)
    if found:
        sys.exit(1)
    print(f"constraints.txt: {len(pins(CONSTRAINTS.read_text(encoding='utf-8')))} versions, all as installed")


def resolve(uv: str, *options: str) -> list[str]:
    """Lines ``name==version [; marker]`` that satisfy pyproject.toml with every extra and group."""
    command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url"]
    command += ["--no-emit-find-links", "--all-extras", "--group", "dev", "--no-python-downloads", *options]
    done = subprocess.run([*command, "pyproject.toml"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return [line for line in done.stdout.splitlines() if line.strip()]


def pair(line: str) -> tuple[str, str]:
    """Canonical name and version of a resolver's line."""
    requirement = Requirement(line)
    (specifier,) = requirement.specifier
    return canonicalize_name(requirement.name), specifier.version


def write() -> None:
    """Resolve pyproject.toml and replace constraints.txt."""
    with tempfile.TemporaryDirectory(prefix="cenote-lock-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([f"{folder}/bin/pip", "install", "--quiet", "uv"], check=True)
        uv = f"{folder}/bin/uv"
        print("resolving for every platform", file=sys.stderr)
        lines = resolve(uv, "--universal", "--python-version", "3.12")
        known = dict(pair(line) for line in lines)
        if len(known) != len(lines):
            sys.exit("a package needs different versions on different platforms; constraints.txt cannot say that yet")
        universal = Path(folder) / "universal.txt"
        universal.write_text("\n".join(lines), encoding="utf-8")
        for platform, python in ENVIRONMENTS:
            print(f"resolving for Python {python} on {platform}", file=sys.stderr)
            more = resolve(
                uv, "--constraint", str(universal), "--python-platform", platform, "--python-version", python
            )
            known.update(pair(line) for line in more)
    # No markers: a constraint on a package that nothing asks for is void.
    text = "".join(f"{name}=={version}\n" for name, version in sorted(known.items()))
    CONSTRAINTS.write_text(HEADER + text, encoding="utf-8")
    print(f"constraints.txt: {len(known)} versions", file=sys.stderr)


def main() -> None:
    """Run ``constraints.py write`` or ``constraints.py check``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["check", "write"])
    {"check": check, "write": write}[parser.parse_args().command]()


if __name__ == "__main__":
    main()
