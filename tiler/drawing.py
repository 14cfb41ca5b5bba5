"""How a quantity is drawn when a request does not say: its own style, else one from the values that were published."""

import math
from dataclasses import dataclass

from services.core.catalog import Version
from services.core.quantity import Quantity
from services.core.style import Style

DIFFERENCE_COLORMAP = "rdbu_r"
"""Two colours that meet in white at 0, blue below."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Colour map and range."""

    colormap_name: str
    minimum: float
    maximum: float

    @property
    def key(self) -> str:
        """What an answer drawn so depends on."""
        return f"{self.colormap_name} {self.minimum!r} {self.maximum!r}"

    @property
    def difference(self) -> "Drawn":
        """How the difference of two maps of this quantity is drawn: symmetric about 0, half the range each way."""
        half = (self.maximum - self.minimum) / 2
        return Drawn(colormap_name=DIFFERENCE_COLORMAP, minimum=-half, maximum=half)


def drawn_by_default(version: Version, quantity: Quantity) -> Drawn:
    """The style of the declaration; else viridis from the 2nd to the 98th percentile of what the version holds."""
    if quantity.style is not None:
        style = quantity.style
        return Drawn(colormap_name=style.colormap_name.lower(), minimum=style.minimum, maximum=style.maximum)
    statistics = version.statistics.get(quantity.name) or {}
    for low, high in (("percentile_2", "percentile_98"), ("minimum", "maximum")):
        minimum, maximum = _number(statistics.get(low)), _number(statistics.get(high))
        if minimum is not None and maximum is not None and minimum < maximum:
            return Drawn(colormap_name=Style.colormap_name, minimum=minimum, maximum=maximum)
    middle = _number(statistics.get("minimum")) or 0.0
    return Drawn(colormap_name=Style.colormap_name, minimum=middle - 0.5, maximum=middle + 0.5)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
