"""What the colours of a map mean: the colour bar with unit and ticks, as a picture and as JSON."""

import io
import math
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont
from rio_tiler.types import ColorMapType

from services.core.quantity import Quantity, unit_label
from tiler.options import RenderParams, named_colormap
from tiler.reader import MapSource

MARGIN = 12
BAR = 16
GAP = 4
FONT = 12
INK = (32, 32, 32)
PAPER = (255, 255, 255)

NARROWEST = 120
WIDEST = 2048

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
"""Distances between ticks, times a power of ten."""

MOST_STEPS = 7


@dataclass(frozen=True, kw_only=True)
class Legend:
    """The colour bar of one quantity."""

    title: str
    """What is shown, without the unit."""

    units: str
    minimum: float
    maximum: float
    colors: tuple[tuple[int, int, int, int], ...]
    """From ``minimum`` to ``maximum``."""

    @classmethod
    def of_map(cls, source: MapSource, render: RenderParams) -> "Legend":
        """The legend of a map that was asked for, or of the difference of two.

        Raises:
            QueryError: if the range or the colour map of the request cannot be.
        """
        chosen, drawn = source.requested, source.drawn
        low, high = (render.ranges or [(drawn.minimum, drawn.maximum)])[0]
        title = chosen.quantity.long_name
        if chosen.minus is not None:
            is_other = chosen.minus.served.version != chosen.served.version
            title += f", {chosen.period} minus {chosen.minus.period}" + (" of another version" if is_other else "")
        return cls.of(chosen.quantity, title, low, high, render.colormap or named_colormap(drawn.colormap_name))

    @classmethod
    def of(cls, quantity: Quantity, title: str, minimum: float, maximum: float, colormap: ColorMapType) -> "Legend":
        """The legend of a quantity drawn so."""
        colors = tuple(tuple(int(part) for part in color) for _, color in sorted(_items(colormap)))
        return cls(title=title, units=quantity.units, minimum=minimum, maximum=maximum, colors=colors)  # type: ignore[arg-type]  # four parts each

    @property
    def ticks(self) -> list[float]:
        """Round numbers inside the range, four to eight of them."""
        span = self.maximum - self.minimum
        power = 10.0 ** math.floor(math.log10(span / 5))
        step = next(step for step in (part * power for part in STEPS) if span / step <= MOST_STEPS + 1e-6)
        # one more on each side, as quotients are rounded
        first, last = math.ceil(self.minimum / step) - 1, math.floor(self.maximum / step) + 1
        digits = max(0, -math.floor(math.log10(step) - 1e-9) + 1)
        ticks = (round(number * step, digits) + 0.0 for number in range(first, last + 1))
        return list(dict.fromkeys(tick for tick in ticks if self.minimum <= tick <= self.maximum))

    @property
    def label(self) -> str:
        """Title with unit."""
        return with_unit(self.title, self.units)

    def picture(self, width: int) -> bytes:
        """A horizontal colour bar as PNG."""
        font = _font()
        label = _fitted(self.label, width - 2 * MARGIN, font)
        image = Image.new("RGB", (width, 2 * MARGIN + 2 * FONT + BAR + 3 * GAP), PAPER)
        draw = ImageDraw.Draw(image)
        draw.text((MARGIN, MARGIN), label, fill=INK, font=font)
        top, length = MARGIN + FONT + GAP, width - 2 * MARGIN
        for x in range(length):
            color = self.colors[round(x * (len(self.colors) - 1) / (length - 1))]
            draw.line([(MARGIN + x, top), (MARGIN + x, top + BAR - 1)], fill=color[:3])
        end = -math.inf
        for tick in self.ticks:
            x = MARGIN + round((tick - self.minimum) / (self.maximum - self.minimum) * (length - 1))
            draw.line([(x, top + BAR), (x, top + BAR + GAP - 1)], fill=INK)
            text = f"{tick:.15g}"
            half = draw.textlength(text, font=font) / 2
            left = min(max(x - half, 0), width - 2 * half)
            if left > end + GAP:
                draw.text((left, top + BAR + GAP), text, fill=INK, font=font)
                end = left + 2 * half
        out = io.BytesIO()
        image.save(out, format="PNG", optimize=True)
        return out.getvalue()

    def to_json(self) -> dict[str, object]:
        """The same as data, for pages that draw it themselves."""
        return {
            "title": self.title,
            "units": self.units,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "ticks": self.ticks,
            "colors": [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue, _ in self.colors],
        }


def with_unit(title: str, units: str) -> str:
    """A title with its unit, where there is one."""
    return title if units == "1" else f"{title} ({unit_label(units)})"


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    # Pillow's own: no font file of the machine is looked for
    return ImageFont.load_default(size=FONT)


def _fitted(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, shortened to a width in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _items(colormap: ColorMapType) -> list[tuple[float, tuple[int, int, int, int]]]:
    if isinstance(colormap, dict):
        return [(float(key), color) for key, color in colormap.items()]
    return [(float(low), color) for (low, _), color in colormap]
