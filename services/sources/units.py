"""Units as files spell them: which ones are the same; depths of water, lengths and mole fractions in one of them."""

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

_PPM = {
    **dict.fromkeys(("ppm", "ppmv", "parts per million", "1e-6", "1.e-6", "1e-06", "10-6", "10^-6", "10**-6"), 1.0),
    **dict.fromkeys(("umol mol-1", "micromol mol-1", "micromole mol-1", "micromole mole-1", "µmol mol-1"), 1.0),
    **dict.fromkeys(("mol mol-1", "mole mole-1", "mol mole-1", "moles mole-1", "kmol kmol-1"), 1e6),
    **dict.fromkeys(("ppb", "ppbv", "1e-9", "nmol mol-1"), 1e-3),
}
"""Mole fractions in ppm. Shares of mass (kg kg-1) are none: of CO2 in dry air they are 1.52 times as large."""

_PER = re.compile(r"\s*/\s*(?P<one>mol|mole|kmol)$")
_NEGATIVE = re.compile(r"(?<=[a-z])\s*(?:\^|\*\*)?\s*\(?-1\)?$")

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


def mole_fraction(name: str, text: str | None, *, of_one: bool = True) -> float:
    """How many ppm a unit of a mole fraction is: 1 for ppm and 1e-6, a million for mol/mol.

    Args:
        name: the file and variable, for messages.
        text: the unit as it is written; None or empty: none is stated.
        of_one: whether ``1`` is a unit of it; then it is mol/mol, as CF has it.

    Raises:
        InputRefused: if it is missing or no mole fraction, as kg kg-1 is none.
    """
    if text and text.strip():
        found = _mole_fraction(text)
        if found is not None:
            return found
        if of_one and canonical(text) == "1":
            return 1e6
    hint = " (a share of mass is no mole fraction)" if text and re.match(r"\s*k?g\b", text) else ""
    raise InputRefused(f"{name}: {_said(text)}{hint}; a mole fraction in ppm, 1e-6, mol mol-1 or 1 is wanted")


def is_mole_fraction(text: str) -> bool:
    """Whether a unit says by itself that it is one of mole fractions; ``1`` does not."""
    return _mole_fraction(text) is not None


def _mole_fraction(text: str) -> float | None:
    lower = " ".join(text.split()).lower()
    lower = _PER.sub(r" \g<one>-1", lower)
    return _PPM.get(_NEGATIVE.sub("-1", lower), _PPM.get(lower))


def _length(lower: str) -> float | None:
    # only words have a plural: ms are milliseconds
    return _METRES.get(lower) or (_METRES.get(lower.removesuffix("s")) if len(lower) > 3 else None)


def _said(text: str | None) -> str:
    return f"its unit is {text!r}" if text else "it states no unit"
