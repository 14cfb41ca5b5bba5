"""How a quantity is drawn when the request does not say: colours and the range they span."""

import math
from dataclasses import dataclass

from services.core.errors import DeclarationError


@dataclass(frozen=True, kw_only=True)
class Style:
    """Colour map and range.

    Raises:
        DeclarationError: if the range is empty or not finite.
    """

    colormap_name: str = "viridis"
    """A name that rio-tiler knows; ``_r`` behind it turns it round."""

    minimum: float
    """Value of the first colour, in the quantity's units."""

    maximum: float
    """Value of the last colour, in the quantity's units."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.minimum) and math.isfinite(self.maximum) and self.minimum < self.maximum):
            raise DeclarationError(f"a style needs minimum < maximum, both finite, not {self.minimum}..{self.maximum}")
        if not self.colormap_name or not self.colormap_name.replace("_", "").isalnum():
            raise DeclarationError(f"{self.colormap_name!r} cannot be the name of a colour map")
