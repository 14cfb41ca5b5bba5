"""What the files of a set must agree on: grid, variable, unit, packing."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import DeclarationError, InputRefused
from services.core.grid import Grid
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.style import Style
from services.sources.packing import Target, quantised, target
from services.sources.periods import Pattern, TimeOption
from services.sources.raster import Attributes, Description
from services.sources.units import is_mole_fraction, mole_fraction, same

COMMON_RANGE = (2.0, 98.0)
"""Percentiles of a sample that the colours span."""

BOTH_SIDES = 0.1
"""Part of a sample on each side of zero from which colours diverge from zero."""

_WARM = frozenset({"k", "kelvin", "degc", "deg_c", "celsius", "degree_celsius", "degrees_celsius", "c", "°c"})
_WATER = frozenset({"cm", "mm", "m", "kg m-2", "mm/month", "mm/day", "mm d-1"})


@dataclass(frozen=True, kw_only=True)
class Named:
    """What the quantity is called, with the first file's words for it."""

    variable: str
    units: str
    description: Description


def grid(
    names: Sequence[str], described: Sequence[Description], like: Product | None
) -> tuple[Grid, list[tuple[str, str]]]:
    """The one grid of all files, and what was done to come to it.

    Raises:
        InputRefused: if two differ, or the collection that is continued has another.
    """
    first = described[0].grid
    for name, description in zip(names, described, strict=True):
        if description.grid != first:
            raise InputRefused(f"{name} has another grid than {names[0]}: {_differs(description.grid, first)}")
    if like is not None and first != like.grid:
        raise InputRefused(f"{names[0]} has another grid than the collection {like.id}: {_differs(first, like.grid)}")
    facts = [("grid", _told(first))]
    facts += [("longitudes", fact) for fact in _counted(described, _longitudes)]
    facts += [("latitudes", fact) for fact in _counted(described, _latitudes)]
    return first, facts


def units(names: Sequence[str], described: Sequence[Description], told: str | None) -> tuple[str, str]:
    """The one unit, and where it comes from.

    Raises:
        InputRefused: if none is stated, or two differ.
    """
    stated = Counter(description.units for description in described if description.units)
    if told is not None:
        others = [unit for unit in stated if unit != told.strip()]
        fact = f"{told.strip()} (--units)" + (f"; the files say {', '.join(others)}" if others else "")
        return told.strip(), fact + ("; nothing is converted" if any(not same(unit, told) for unit in others) else "")
    if not stated:
        raise InputRefused(
            f"{names[0]} states no unit; say it with --units, for example --units ppm, or --units 1 for none"
        )
    if len(stated) > 1:
        one, other = list(stated)[:2]
        where = [next(n for n, d in zip(names, described, strict=True) if d.units == unit) for unit in (one, other)]
        raise InputRefused(
            f"{where[1]} is in {other!r} and {where[0]} in {one!r}; convert one, or say which holds with --units"
        )
    unit, count = stated.most_common()[0]
    fact = unit if count == len(described) else f"{unit} (stated by {count} of {len(described)} files)"
    if is_mole_fraction(unit) and mole_fraction(names[0], unit) != 1:
        fact += f"; values stay as they are, times {mole_fraction(names[0], unit):g} they are ppm"
    return unit, fact


def variable(
    names: Sequence[str], described: Sequence[Description], option: TimeOption | None, told: str | None
) -> tuple[str, str]:
    """The quantity's name and what was made of the files' own.

    Raises:
        InputRefused: if it differs between files.
    """
    found = described[0].access.variable
    for name, description in zip(names, described, strict=True):
        if description.access.variable != found:
            raise InputRefused(
                f"{name} holds {description.access.variable!r} and {names[0]} {found!r}; choose one with --variable"
            )
    if not found and isinstance(option, Pattern):
        literal = option.text.partition("{")[0].strip("_-. *")
        found = literal if literal and literal[0].isalpha() else ""
    clean = cleaned(found or "value")
    text = described[0].long_name
    fact = clean if clean == found or not found else f"{found}, called {clean}"
    if not found:
        fact = "value (nothing names it; --variable does)"
    return clean, f"{fact}: {text}" if text and text != clean else (
        f"{fact} (--variable)" if told == found and told else fact
    )


def cleaned(name: str) -> str:
    """A name as a quantity may have it: letters, digits and ``_``, a letter first."""
    text = (
        "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name).strip("_")[:60] or "value"
    )
    text = text if text[0].isalpha() else f"v_{text}"
    try:
        Quantity(name=text, units="1", long_name=text)
    except DeclarationError:  # a coordinate or an array of the layout has it
        return f"{text}_values"
    return text


def quantity(
    names: Sequence[str],
    described: Sequence[Description],
    named: Named,
    attributes: Attributes,
    quantum: float | None,
    like: Product | None,
    sample: Callable[[], NDArray[np.float64]],
) -> tuple[Quantity, str]:
    """The quantity that holds all values, and how.

    Raises:
        InputRefused: if stored types differ, ``--quantum`` does not apply, or the collection has another packing.
    """
    store = _stored(names, described)
    if quantum is not None:
        if not store.dtype.startswith("float"):
            raise InputRefused(f"{names[0]}: {store.fact}; --quantum is for floats")
        values = sample() if like is None else np.empty(0)
        low, high = (float(values.min()), float(values.max())) if values.size else (None, None)
        store = quantised(quantum, low, high)
    if like is not None:
        return _continued(names[0], like, named, store, quantum)
    first = named.description
    try:
        made = Quantity(
            name=named.variable,
            units=named.units,
            long_name=first.long_name or named.variable,
            standard_name=first.standard_name,
            dtype=store.dtype,
            scale_factor=store.scale_factor,
            add_offset=store.add_offset,
            fill_value=store.fill_value,
            quantum=quantum,
            cell_methods=first.cell_methods or "",
            attributes=dict(attributes),
        )
    except DeclarationError as error:
        raise InputRefused(f"{names[0]}: {error}") from None
    return made, store.fact


def style(made: Quantity, values: NDArray[np.float64]) -> Style | None:
    """Colours for a sample of values: the range of most of them, from zero to both sides where values lie on both."""
    if not values.size:
        return None
    low, high = (float(v) for v in np.percentile(values, COMMON_RANGE))
    if not low < high:
        margin = max(abs(low) * 0.01, made.quantum or 0.0, 1e-12)
        low, high = low - margin, high + margin
    below, above = float((values < 0).mean()), float((values > 0).mean())
    unit = made.units.strip().lower()
    if below >= BOTH_SIDES and above >= BOTH_SIDES and unit not in _WARM:
        reach = _rounded(max(-low, high))
        return Style(colormap_name="rdbu" if unit in _WATER else "rdbu_r", minimum=-reach, maximum=reach)
    low, high = _rounded_range(low, high)
    return Style(colormap_name="inferno" if unit in _WARM else "viridis", minimum=low, maximum=high)


def style_fact(made: Quantity) -> str:
    """What the colours are."""
    if made.style is None:
        return "left to the first look at the values: a sample held none"
    unit = "" if made.units == "1" else f" {made.units}"
    return f"{made.style.colormap_name}, {made.style.minimum:g} to {made.style.maximum:g}{unit}, from a sample"


def common(attributes: Sequence[Mapping[str, str | float | int]]) -> dict[str, str | float | int]:
    """The attributes that all files have alike."""
    first, rest = attributes[0], attributes[1:]
    return {
        name: value for name, value in first.items() if all(name in other and other[name] == value for other in rest)
    }


def _stored(names: Sequence[str], described: Sequence[Description]) -> Target:
    first = described[0].packings[0].raw
    for name, description in zip(names, described, strict=True):
        for packing in description.packings:
            if packing.raw != first:
                raise InputRefused(f"{name} stores values as {packing.raw} and {names[0]} as {first}")
    return target(list(dict.fromkeys(packing for description in described for packing in description.packings)))


def _continued(name: str, like: Product, named: Named, store: Target, quantum: float | None) -> tuple[Quantity, str]:
    if len(like.quantities) != 1:
        raise InputRefused(f"{like.id} has {len(like.quantities)} variables; files are appended to collections of one")
    old = like.quantities[0]
    if named.variable != old.name:
        raise InputRefused(f"{name} holds {named.variable} and the collection {like.id} {old.name} (--variable)")
    if named.units != old.units:
        raise InputRefused(f"{name} is in {named.units!r} and the collection {like.id} in {old.units!r} (--units)")
    if quantum != old.quantum:
        say = f"--quantum {old.quantum:g}" if old.quantum else "no --quantum"
        raise InputRefused(f"{like.id} was published with {say}; what is appended must be too")
    if quantum is None and (store.dtype, store.scale_factor, store.add_offset) != (
        old.dtype,
        old.scale_factor,
        old.add_offset,
    ):
        raise InputRefused(
            f"{name} has another packing than the collection {like.id}: {store.fact}, and there {old.dtype} with scale "
            f"{old.scale_factor}, offset {old.add_offset}"
        )
    return old, f"as in {like.id}: {old.dtype}"


def _told(found: Grid) -> str:
    west, north = _degrees(found.west, "E"), _degrees(found.north, "N")
    step = f"{found.step_x}" if found.step_x == found.step_y else f"{found.step_x} x {found.step_y}"
    decimal = f" ({float(found.step_x):g})" if found.step_x.denominator != 1 else ""
    return f"{found.width} x {found.height} cells of {step}{decimal} degrees from {west}, {north}"


def _degrees(value: Any, side: str) -> str:
    return f"{float(value):g} {side}"


def _differs(one: Grid, other: Grid) -> str:
    return f"{_told(one)}, and there {_told(other)}"


def _counted(described: Sequence[Description], tell: Callable[[Description], str]) -> list[str]:
    counts = Counter(tell(description) for description in described)
    if len(counts) == 1:
        return list(counts)
    return [f"{fact} ({count} of {len(described)} files)" for fact, count in counts.items()]


def _longitudes(description: Description) -> str:
    layout = description.layout
    span = f"centres {description.first_longitude:g}..{description.last_longitude:g}"
    done = [
        *(["turned to west first"] if layout.east_first else []),
        *(["the last column is the first again and dropped"] if layout.seam else []),
        *(["rotated to -180..180"] if layout.roll else []),
    ]
    east = float(description.grid.west)
    moved = (
        not layout.roll
        and abs(((description.first_longitude - east) + 180) % 360 - 180 - (description.first_longitude - east)) > 1
    )
    return ", ".join([span, *done, *(["moved by a whole turn"] if moved else [])])


def _latitudes(description: Description) -> str:
    return "south to north, turned to north first" if description.layout.south_up else "north to south"


def _rounded(value: float) -> float:
    return float(f"{value:.2g}") or value


def _rounded_range(low: float, high: float) -> tuple[float, float]:
    digits = int(np.ceil(-np.log10(high - low))) + 1
    one, other = round(low, digits), round(high, digits)
    return (one, other) if one < other else (low, high)
