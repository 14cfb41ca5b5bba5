"""The sample Earth's aquifers: ellipses with wavy borders, as polygons and as shares of a place."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BORDER = 0.1
"""How soft a border is in the ground, in radii of the aquifer: some 10 km."""

_POINTS = 240

_WAVES = ((2, 0.05, 0.7), (3, 0.09, 2.1), (5, 0.05, 4.0))
"""Waves round the border: how many, how high in radii, where they begin in radians."""


@dataclass(frozen=True, kw_only=True)
class Aquifer:
    """One aquifer and how its groundwater behaves. All numbers are made up."""

    name: str

    longitude: float
    """Of the centre, degrees east."""

    latitude: float
    """Of the centre, degrees north."""

    radius_x: float
    """Along longitude, degrees."""

    radius_y: float
    """Along latitude, degrees."""

    trend: float
    """cm a year everywhere in it."""

    pumping: float
    """cm a year where all land is irrigated."""

    sand: float
    """Amplitude of the year in cm where sand makes up 1 more than its mean."""

    height: float
    """Amplitude of the year in cm a km above the mean."""

    phase: float
    """When in the year the detail of the season is highest, share of the year."""

    response: float
    """cm under full vegetation after three wet months (one standard deviation)."""

    def ring(self) -> NDArray[np.float64]:
        """The border, closed and anticlockwise, ``(point, 2)``: longitude, latitude in degrees."""
        angle = np.linspace(0, 2 * np.pi, _POINTS + 1)
        angle[-1] = 0
        radius = _waves(angle)
        return np.stack(
            [
                self.longitude + self.radius_x * radius * np.cos(angle),
                self.latitude + self.radius_y * radius * np.sin(angle),
            ],
            axis=1,
        ).round(6)

    def share(self, longitudes: NDArray[np.float64], latitudes: NDArray[np.float64]) -> NDArray[np.float32]:
        """How much places belong to it, ``(y, x)``: 1 inside, 0 outside, a half on the border."""
        x = ((longitudes - self.longitude) / self.radius_x).astype(np.float32)[None, :]
        y = ((latitudes - self.latitude) / self.radius_y).astype(np.float32)[:, None]
        beyond = np.hypot(x, y) - _waves(np.arctan2(y, x))
        share: NDArray[np.float32] = 1 / (1 + np.exp(np.clip(beyond / np.float32(_BORDER), -30, 30)))
        return share


def _waves(angle: NDArray[Any]) -> NDArray[Any]:
    radius = np.ones_like(angle)
    for number, height, start in _WAVES:
        radius += height * np.cos(number * angle + start)
    return radius


AQUIFERS = (
    Aquifer(
        name="Sample Plain",
        longitude=71.2,
        latitude=24.0,
        radius_x=1.45,
        radius_y=0.75,
        trend=-0.5,
        pumping=-1.6,
        sand=9.0,
        height=-6.0,
        phase=0.80,
        response=3.0,
    ),
    Aquifer(
        name="Sample Lens",
        longitude=70.8,
        latitude=22.0,
        radius_x=0.75,
        radius_y=0.55,
        trend=-0.2,
        pumping=-1.0,
        sand=6.0,
        height=4.0,
        phase=0.72,
        response=2.2,
    ),
    Aquifer(
        name="Sample Tableland",
        longitude=75.6,
        latitude=22.4,
        radius_x=2.6,
        radius_y=1.9,
        trend=-0.1,
        pumping=-0.7,
        sand=4.0,
        height=9.0,
        phase=0.76,
        response=4.0,
    ),
)
"""Two inside both regions, the second of fewer than 30 cells of 0.25 degrees, and one that reaches past their east."""

ELSEWHERE = Aquifer(
    name="elsewhere",
    longitude=0,
    latitude=0,
    radius_x=1,
    radius_y=1,
    trend=0.05,
    pumping=-0.3,
    sand=5.0,
    height=3.0,
    phase=0.70,
    response=2.5,
)
"""The land outside of all aquifers; its place and size mean nothing."""
