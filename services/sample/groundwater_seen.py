"""What predictors, GLDAS and GRACE see of the sample Earth's groundwater and weather.

No noise is in it but the weather's: errors of the missions belong to their files. All numbers are made up.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from services.sample import modes
from services.sample.earth import Earth
from services.sample.groundwater import (
    BLOCK,
    MEAN_COVER,
    MEAN_IRRIGATION,
    Coarse,
    Groundwater,
    blocks,
    clock,
    row_of,
    shares,
)
from services.sample.modes import Modes
from services.sample.noise import Field, noise, sphere

_GREENING = 0.004  # of the vegetation index a year where all land is irrigated
_LUSH = 0.10  # of the vegetation index under full cover after three wet months

_LAYERS = {
    "SoilMoi0_10cm_inst": (100.0, 0.055, 0.62, 0.030, 0.010),
    "SoilMoi10_40cm_inst": (300.0, 0.045, 0.66, 0.016, 0.014),
    "SoilMoi40_100cm_inst": (600.0, 0.030, 0.70, 0.006, 0.014),
    "SoilMoi100_200cm_inst": (1000.0, 0.014, 0.76, 0.002, 0.008),
}
"""GLDAS: thickness in mm; by the volume, amplitude of the year and its phase, what rain of the month and of the three
months before does."""

_SNOW = "SWE_inst"
_CANOPY = "CanopInt_inst"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is seen of one truth in a month; months are independent."""

    world: Groundwater

    # -- what predictors see in a month

    def vegetation(self, month: int) -> Field:
        """Vegetation index, 1, at 1/60 degree on the cells that are known, NaN over sea."""
        known = self.world.known.grid(60)
        cover, irrigated, land = (
            blocks(values, 2) / 4
            for values in (self.world.cover, self.world.irrigated, self.world.land.astype(np.float32))
        )
        years = (month - modes.BASELINE[0]) / 12
        felt = self.world.lattice.at(self.world.felt(month), known.longitudes, known.latitudes)
        index = 0.12 + cover * (0.5 + 0.15 * _wave(month, 0.72) + _LUSH * felt) + _GREENING * years * irrigated
        seen: Field = np.where(land > 0, np.clip(index, -0.2, 0.99), np.nan).astype(np.float32)
        return seen

    def precipitation(self, month: int) -> Field:
        """Rain of the month, mm, at 0.1 degree on the cells that are known, also over sea."""
        known = self.world.known.grid(10)
        place = sphere(known.longitudes, known.latitudes)
        wet = 1 + 0.35 * noise(place, seed=self.world.seed, name="wet places", frequency=30, octaves=3)
        monsoon = 12 + 240 * np.exp(3 * (_wave(month, 0.55) - 1))
        anomaly = self.world.lattice.at(
            self.world.rain.field(self.world.rain.series[row_of(month)]), known.longitudes, known.latitudes
        )
        rain: Field = np.maximum(monsoon * wet * (1 + 0.35 * anomaly), 0).astype(np.float32)
        return rain

    def temperature(self, month: int) -> Field:
        """2 m air temperature, K, at 0.25 degree on the cells that are known, also over sea."""
        at = row_of(month)
        rain, air = self.world.rain.field(self.world.rain.series[at]), self._air.field(self._air.series[at])
        years = (month - modes.BASELINE[0]) / 12
        height = blocks(self.world.elevation, BLOCK) / BLOCK**2
        here = self.world.known.within(self.world.around, 4)
        warm: Field = (
            300.5 + 0.03 * years + 6 * _wave(month, 0.42) - 0.0055 * height + 0.6 * air[here] - 0.7 * rain[here]
        ).astype(np.float32)
        return warm

    def root_zone(self, month: int) -> Field:
        """Soil moisture of the root zone, m3 m-3, at 0.1 degree on the cells that are known, NaN where sea prevails."""
        known = self.world.known.grid(10)
        sand, land = (blocks(values, 12) / 144 for values in (self.world.sand, self.world.land.astype(np.float32)))
        at = row_of(month)
        now, before = self.world.rain.field(self.world.rain.series[at]), self.world.felt(month)
        wet = self.world.lattice.at(
            np.float32(0.018) * now + np.float32(0.020) * before, known.longitudes, known.latitudes
        )
        moisture = 0.36 - 0.28 * sand + 0.05 * _wave(month, 0.66) + wet
        seen: Field = np.where(land >= 0.5, np.clip(moisture, 0.01, 0.55), np.nan).astype(np.float32)
        return seen

    # -- what the missions see

    def gldas(self, month: int) -> dict[str, Field]:
        """Water above the ground water as GLDAS has it.

        Returns:
            By variable: kg m-2, ``(y, x)`` of 0.25 degree cells of the region and SURROUNDINGS degrees around it, NaN
            where less than half of a cell is land.
        """
        at = row_of(month)
        now, before = self.world.rain.field(self.world.rain.series[at]), self.world.felt(month)
        soil, mountains = self._soils
        water: dict[str, Field] = {}
        for name, (thickness, season, phase, fresh, felt) in _LAYERS.items():
            volume = soil + season * _wave(month, phase) + fresh * now + felt * before
            water[name] = thickness * np.clip(volume, 0.02, 0.48)
        # Snow at these latitudes is made up: so that the term counts.
        water[_SNOW] = 60 * max(_wave(month, 0.05) - 0.6, 0) * mountains * np.clip(1 + 0.4 * now, 0, None)
        water[_CANOPY] = np.clip(0.12 + 0.10 * _wave(month, 0.62) + 0.03 * now, 0, 0.5)
        return {name: np.where(self._model_land, values, np.nan).astype(np.float32) for name, values in water.items()}

    def twsa(self, month: int) -> Coarse:
        """Terrestrial water storage anomaly without noise: the truth's coarse means and GLDAS less its mean.

        Beyond KNOWN degrees from the region the detail is taken at its mean.

        Returns:
            cm, ``(y, x)`` of 0.25 degree cells of the region and SURROUNDINGS degrees around it, 0 over sea.
        """
        total = self._wide(month)
        total[self.world.known.within(self.world.around, 4)] = self.world.coarse_known(month)
        total = np.where(np.isnan(total), 0, total)
        above = self._above(month) - self._above_mean
        return total + np.where(np.isnan(above), 0, above)

    def _above(self, month: int) -> Coarse:
        """Soil moisture, snow and canopy water of a month, cm."""
        return np.sum([values.astype(np.float64) for values in self.gldas(month).values()], axis=0) / 10

    @cached_property
    def _above_mean(self) -> Coarse:
        first, last = modes.BASELINE
        mean: Coarse = np.mean([self._above(month) for month in range(first, last + 1)], axis=0)
        return mean

    def _wide(self, month: int) -> Coarse:
        """The smooth parts on all coarse cells, the detail at its mean, NaN over sea."""
        years, cosine, sine = clock(month)
        lattice = self.world.lattice
        trend, response = np.zeros((2, lattice.height, lattice.width))
        for aquifer, share in shares(lattice.longitudes, lattice.latitudes):
            trend += share * (aquifer.trend + aquifer.pumping * MEAN_IRRIGATION)
            response += share * aquifer.response * MEAN_COVER
        height, phase = self.world.year
        total = trend * years + height * (np.cos(phase) * cosine + np.sin(phase) * sine)
        total = total + response * self.world.felt(month) + self.world.smooth(month)
        return np.where(self._earth_land, total, np.nan)

    @cached_property
    def _earth_land(self) -> NDArray[np.bool_]:
        """Of the 0.25 degree Earth, on the lattice."""
        return Earth(seed=self.world.seed).land[self.world.on_earth]

    @cached_property
    def _model_land(self) -> NDArray[np.bool_]:
        land = self._earth_land.copy()
        land[self.world.known.within(self.world.around, 4)] = self.world.land_share >= 0.5
        return land

    @cached_property
    def _soils(self) -> tuple[Field, Field]:
        """Mean volumetric soil moisture, 1, and how much snow falls, 0..1, on the lattice."""
        points = self.world.lattice.points
        soil = 0.24 + 0.03 * noise(points, seed=self.world.seed, name="soil", frequency=40, octaves=3)
        high = noise(points, seed=self.world.seed, name="snow", frequency=30, octaves=2)
        return soil, np.clip(high - 0.5, 0, 1).astype(np.float32)

    @cached_property
    def _air(self) -> Modes:
        return Modes(lattice=self.world.lattice, seed=self.world.seed, name="air", count=4, frequency=10)


def _wave(month: int, phase: float) -> float:
    """The year's cosine, highest at a phase of the year."""
    return float(np.cos(2 * np.pi * ((month % 12 + 0.5) / 12 - phase)))
