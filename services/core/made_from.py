"""Whether what is there now is what a segment was made from: files by content, settings by what they say."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

SETTINGS_FILE = ".toml"
"""Versions of before list the file of settings among their inputs; they also keep what it said, which is compared."""


def other_files(origin: Mapping[str, Any], mine: Mapping[str, str]) -> list[str]:
    """Files that a segment was made from and that are not the same here, or are not here, and new ones.

    A file is the same if its content is, under the same name relative to the folder. Where one of the two names is
    absolute (the file lies elsewhere, or the folder's own name was not plain), its last part must be the same: many
    names tell a month.

    Args:
        origin: the segment's provenance.
        mine: sha256 of each file that there is, by name.

    Returns:
        Names, sorted; each file once.
    """
    used = {one["name"]: one["sha256"] for one in origin.get("inputs", [])}
    if "settings" in origin.get("facts", {}):
        used = {name: sha256 for name, sha256 in used.items() if name in mine or not name.endswith(SETTINGS_FILE)}
    found: set[str] = set()
    for some, others in ((used, mine), (mine, used)):
        anywhere = {(_last(name), sha256) for name, sha256 in others.items()}
        absolute = {(_last(name), sha256) for name, sha256 in others.items() if _is_absolute(name)}
        for name, sha256 in some.items():
            alike = anywhere if _is_absolute(name) else absolute
            if others.get(name) != sha256 and (_last(name), sha256) not in alike:
                found.add(_last(name) if _is_absolute(name) else name)
    return sorted(found)


def other_settings(origin: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    """Entries of the settings that said something else when a segment was made.

    What only one of the two knows is not compared: another version of the code wrote the other.

    Args:
        origin: the segment's provenance; its facts hold ``settings``.
        mine: those that values follow from, as JSON data.

    Returns:
        Entries such as ``grace.fill``, in the order of ``mine``.
    """
    return _other("", origin.get("facts", {}).get("settings", {}), mine)


def _other(place: str, one: Any, two: Any) -> list[str]:
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        both = [key for key in two if key in one]
        return [entry for key in both for entry in _other(f"{place}.{key}" if place else key, one[key], two[key])]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        pairs = enumerate(zip(one, two, strict=True), start=1)
        return [entry for number, pair in pairs for entry in _other(f"{place}[{number}]", *pair)]
    return [] if one == two else [place]


def _is_absolute(name: str) -> bool:
    return name.startswith("/") or "://" in name


def _last(name: str) -> str:
    return PurePosixPath(name).name
