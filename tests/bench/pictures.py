"""Do the peers draw the same map? A fast answer that is empty or of another month is no answer."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.bench.floor import viridis

STEPS = 10
"""Of the 256 colours: pixels may differ by so many, since levels are made and picked in different ways."""
MIN_AGREEING = 0.9
MIN_SAME_MASK = 0.97


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of two pictures of a tile."""

    values: float
    """Share of the pixels drawn in both whose colours are at most ``STEPS`` apart."""
    mask: float
    """Share of all pixels that are drawn in both or in neither."""
    drawn: float
    """Share of pixels drawn in ours."""

    @property
    def good(self) -> bool:
        """Whether it is the same map."""
        return self.values >= MIN_AGREEING and self.mask >= MIN_SAME_MASK


def decode(png: bytes) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Place of each pixel's colour on the colour scale, 0..255, and whether it is drawn."""
    with Image.open(io.BytesIO(png)) as picture:
        rgba = np.asarray(picture.convert("RGBA"))
    scale = np.array(viridis(), dtype=np.int32)
    flat, inverse = np.unique(rgba[..., :3].reshape(-1, 3), axis=0, return_inverse=True)
    nearest = ((flat[:, None, :].astype(np.int32) - scale[None]) ** 2).sum(axis=2).argmin(axis=1)
    return nearest[inverse].reshape(rgba.shape[:2]).astype(np.float64), rgba[..., 3] > 127


def compare(ours: bytes, other: bytes) -> Agreement:
    """Compare two pictures of a tile."""
    values, drawn = decode(ours)
    other_values, other_drawn = decode(other)
    if values.shape != other_values.shape:
        return Agreement(values=0.0, mask=0.0, drawn=float(drawn.mean()))
    both = drawn & other_drawn
    near = np.abs(values[both] - other_values[both]) <= STEPS
    return Agreement(
        values=float(near.mean()) if both.any() else float(not drawn.any()),
        mask=float((drawn == other_drawn).mean()),
        drawn=float(drawn.mean()),
    )
