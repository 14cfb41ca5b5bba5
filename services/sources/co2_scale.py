"""The scale that mole fractions of CO2 are stated on: WMO's X2007 and X2019, and the way from one to the other."""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused, SettingsError

type Scale = Literal["X2007", "X2019"]

SCALES: tuple[str, ...] = get_args(Scale.__value__)

SLOPE, OFFSET = 1.00079, -0.142
"""X2019 = SLOPE x X2007 + OFFSET ppm, as given for Hall et al. (2021, Atmos. Meas. Tech. 14, 3015). Its two numbers are
from memory and were not found again in what could be searched; the paper's abstract, which was, says that X2019 is 0.18
ppm greater at 400 ppm, and they give 0.174. It is that of samples in tanks; a retrieval's own pair of columns may
differ otherwise (TCCON's GGG2020, which changes its oxygen with the scale, has 0.05 more), so files that hold both are
read, never converted (our choice)."""


def parsed(text: str) -> Scale:
    """A scale as an option names it.

    Raises:
        SettingsError: if it is none of SCALES.
    """
    if text not in SCALES:
        raise SettingsError(f"scale = {text!r} is none of {' and '.join(SCALES)}")
    return "X2007" if text == "X2007" else "X2019"


def named(text: str | None) -> Scale | None:
    """The scale that a text names, as ``WMO CO2 X2007`` or ``CO2_X2019``; None where it names none or both."""
    found = [scale for scale in SCALES if text and scale.lower() in text.lower()]
    return parsed(found[0]) if len(found) == 1 else None


def converted(values: NDArray[np.floating[Any]], *, stated: Scale, wanted: Scale) -> NDArray[np.float64]:
    """Mole fractions on another scale.

    Args:
        values: ppm, any shape; NaN stays.
        stated: their scale.
        wanted: the scale to have them on.
    """
    ppm = np.asarray(values, dtype=np.float64)
    if stated == wanted:
        return ppm
    return ppm * SLOPE + OFFSET if wanted == "X2019" else (ppm - OFFSET) / SLOPE


def factor(*, stated: Scale, wanted: Scale) -> float:
    """What differences and errors are multiplied by on the way from one scale to the other."""
    if stated == wanted:
        return 1.0
    return SLOPE if wanted == "X2019" else 1 / SLOPE


def check(name: str, *, stated: Scale, wanted: Scale, convert: bool) -> None:
    """Whether values may be used in a run on a scale.

    Raises:
        InputRefused: if they are on another one and nobody asked for them to be converted.
    """
    if stated != wanted and not convert:
        raise InputRefused(
            f"{name} is on the scale {stated} and this run is on {wanted}: scale = {stated!r} asks for the former, "
            "convert = true where its files are named converts it"
        )
