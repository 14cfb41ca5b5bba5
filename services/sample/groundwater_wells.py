"""Wells of the sample Earth: where they are, what they yield and which of them are at fault."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from services.core.errors import InputRefused
from services.sample.groundwater import FINE, Groundwater
from services.sample.noise import draws


@dataclass(frozen=True, kw_only=True)
class Well:
    """A well and what is wrong with it."""

    name: str
    longitude: float
    latitude: float
    specific_yield: float

    depth: float
    """To the water in 2004-2009, m."""

    fault: str
    """``""``, or ``short``: four readings; ``step``: its datum jumps; ``nowhere``: its place is not told."""


def wells_of(world: Groundwater, count: int = 150) -> list[Well]:
    """Wells on the region's land; one in fifteen has a fault.

    Args:
        world: whose they are.
        count: how many.

    Raises:
        InputRefused: if there is too little land.
    """
    tried = 4 * count
    rank = {name: _share(draws(tried, seed=world.seed, name=f"well {name}")) for name in ("x", "y", "yield", "depth")}
    region, found = world.region, list[Well]()
    land = world.land[world.region.within(world.known, FINE)]
    for number in range(tried):
        x = region.west + rank["x"][number] * (region.east - region.west)
        y = region.south + rank["y"][number] * (region.north - region.south)
        longitude, latitude = round(float(x), 5), round(float(y), 5)
        if not land[world.cell_of(longitude, latitude)]:
            continue
        position = len(found)
        fault = ("short", "step", "nowhere")[position // 15 % 3] if position % 15 == 7 else ""
        found.append(
            Well(
                name=f"synthetic-{position + 1:03d}",
                longitude=longitude,
                latitude=latitude,
                specific_yield=round(0.05 + 0.2 * float(rank["yield"][number]), 3),
                depth=round(10 + 25 * float(rank["depth"][number]), 2),
                fault=fault,
            )
        )
        if len(found) == count:
            return found
    raise InputRefused(f"only {len(found)} of {tried} places in the region {region} are land: no {count} wells")


def _share(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normal draws as even ones, 0..1."""
    even: NDArray[np.float64] = ndtr(normal)
    return even
