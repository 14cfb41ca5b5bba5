"""How a quantity is drawn when a request does not say: its own style, else one from the values that were published."""

from dataclasses import dataclass

from services.core.catalog import Version
from services.core.quantity import Quantity

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
    """The style of the version."""
    style = version.style(quantity)
    return Drawn(colormap_name=style.colormap_name.lower(), minimum=style.minimum, maximum=style.maximum)
