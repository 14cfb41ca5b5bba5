"""Units as files spell them: which ones are the same, and depths of water and lengths in one of them."""

import re

from services.core.errors import InputRefused

_METRES = {
    "m": 1.0,
    "metre": 1.0,
    "meter": 1.0,
    "cm": 0.01,
    "centimetre": 0.01,
    "centimeter": 0.01,
    "mm": 0.001,
    "millimetre": 0.001,
    "millimeter": 0.001,
    "km": 1000.0,
    "kilometre": 1000.0,
    "kilometer": 1000.0,
    "ft": 0.3048,
    "foot": 0.3048,
    "feet": 0.3048,
}
"""Lengths in metres; the foot is the international one."""

_MASS_PER_AREA = frozenset({"kg m-2", "kg m^-2", "kg m**-2", "kg/m2", "kg/m^2", "kg/m**2", "kg.m-2"})
"""A layer of water of 1 mm, by its density of 1000 kg m-3."""

_NONE = frozenset({"1", "-", "none", "unitless", "dimensionless", "no unit", "n/a"})
_POWER = re.compile(r"\*\*|\^")
_OF_WATER = re.compile(r"\s*(?:of\s+)?(?:h2o|water|w\.?e\.?|ewh|ewt|lwe)(?:\s+equivalent)?$")


def canonical(text: str) -> str:
    """One spelling of those that mean the same unit: ``metres`` is ``m``, ``kg/m2`` is ``kg m-2``, ``-`` is ``1``.

    Units that are no lengths keep their case: ``mK`` and ``MK`` differ.
    """
    words = " ".join(text.split())
    lower = words.lower()
    if lower in _NONE:
        return "1"
    if lower in _MASS_PER_AREA:
        return "kg m-2"
    for name in (words, lower):
        found = _length(name)
        if found is not None:
            return next(symbol for symbol, metres in _METRES.items() if metres == found)
    return _POWER.sub("", words)


def same(one: str, other: str) -> bool:
    """Whether two texts name one unit; nothing is converted."""
    return canonical(one) == canonical(other)


def metres(name: str, text: str | None) -> float:
    """How many metres a unit of length is.

    Args:
        name: the file, for messages.
        text: the unit as it is written; None or empty: none is stated.

    Raises:
        InputRefused: if it is missing or no length.
    """
    found = None if not text else _length(" ".join(text.split()).lower())
    if found is None:
        raise InputRefused(f"{name}: {_said(text)}; a length in m, cm, mm, km or ft is wanted")
    return found


def water(name: str, text: str | None) -> float:
    """How many millimetres of water, which are kg m-2, a unit of a depth of water is.

    Args:
        name: the file and variable, for messages.
        text: the unit as it is written; None or empty: none is stated.

    Raises:
        InputRefused: if it is missing or no depth of water.
    """
    if text:
        lower = _OF_WATER.sub("", " ".join(text.split()).lower())
        if lower in _MASS_PER_AREA:
            return 1.0
        found = _length(lower)
        if found is not None and lower not in {"ft", "foot", "feet", "km"}:
            return found * 1000.0
    raise InputRefused(f"{name}: {_said(text)}; a depth of water in cm, mm, m or kg m-2 is wanted")


def _length(lower: str) -> float | None:
    # only words have a plural: ms are milliseconds
    return _METRES.get(lower) or (_METRES.get(lower.removesuffix("s")) if len(lower) > 3 else None)


def _said(text: str | None) -> str:
    return f"its unit is {text!r}" if text else "it states no unit"
