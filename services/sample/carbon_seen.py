"""What may be known of the sample Earth's carbon: its covariates in any month, over the cells of any grid."""

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from services.core.grid import Grid, Window
from services.sample.carbon import Carbon
from services.sample.carbon_cells import latitudes_of, over_cells, square_degrees
from services.sample.carbon_emitters import Emissions
from services.sample.carbon_weather import GLOBE, QUARTER, Sky
from services.sample.earth import DARK, month_phase, noon_sun
from services.sample.noise import Field, noise
from services.sample.recent import Recent
from services.sample.solutions import month_number

LAND = 0.4
"""Share of land from which a cell has what only land has."""

WATER, FOREST, GRASS, CROPS, TOWNS, ICE, BARE = 0, 1, 10, 12, 13, 15, 16
"""Classes of land cover, numbered as IGBP's."""

_LASTING_CLOUD = 0.62
"""Above it a month has no clear day over a cell."""

_TWILIGHT = -0.1
"""Cosine of the midnight sun's zenith angle above which lights cannot be told from the sky."""

_LIGHTS = 60.0  # nW cm-2 sr-1 where all is settled
_PEOPLE = 4.0e6
"""Of a square degree at the equator that is settled all over."""

_LAND_ALONE = ("soil_moisture", "vegetation", "skin", "night_lights")

type _Place = tuple[Grid, Window | None]


@dataclass(frozen=True, kw_only=True)
class Covariates:
    """Of one true Earth."""

    world: Carbon

    def month(self, month: int, grid: Grid | None = None, window: Window | None = None) -> dict[str, Field]:
        """The covariates of a month, those of ``fixed`` among them.

        ``temperature``, ``dew_point`` (K), ``pressure`` (Pa), ``rain`` (m a day), ``east``, ``north`` (m s-1) are
        everywhere. ``soil_moisture`` (m3 m-3), ``vegetation`` (1; none in the polar night), ``skin`` (K; none under
        lasting clouds), ``night_lights`` (nW cm-2 sr-1; none in bright nights) are on land alone. ``emissions`` is the
        inventory, t of carbon a month and cell: a sum.

        Args:
            month: months since 1970-01.
            grid: of any resolution, the Earth's if None.
            window: cells of it; all if None.

        Returns:
            ``(y, x)`` float32 each, NaN where a covariate has nothing.
        """
        place = (grid or self.world.grid, window)
        month = int(month)
        sky = self.world.weather.month(month)
        fixed = self._fixed(place)

        def weather(longitudes: NDArray[np.float64], latitudes: NDArray[np.float64]) -> dict[str, Field]:
            return {one.name: GLOBE.at(getattr(sky, one.name), longitudes, latitudes) for one in fields(Sky)}

        seen = over_cells(weather, *place, finest=GLOBE.step)
        clouded = seen.pop("cloud") > _LASTING_CLOUD
        phase = month_phase(np.datetime64(month, "M"))
        latitudes = latitudes_of(*place)
        seen["vegetation"] = np.clip(seen["vegetation"] * fixed["patchiness"], 0, 1)
        seen["vegetation"][noon_sun(latitudes, phase) < DARK] = np.nan
        seen["skin"] = np.where(clouded, np.float32(np.nan), seen["skin"])
        seen["night_lights"] = fixed["lights"] * np.float32(1 + 0.03 * (month - month_number("2018-07")) / 12)
        seen["night_lights"][-noon_sun(-latitudes, phase) > _TWILIGHT] = np.nan
        for name in _LAND_ALONE:
            seen[name][fixed["land_fraction"] < LAND] = np.nan
        seen["emissions"] = self._inventory(place) * np.float32(Emissions.rate(month))
        return seen | self.fixed(*place)

    def fixed(self, grid: Grid | None = None, window: Window | None = None) -> dict[str, Field]:
        """What stays: ``land_fraction`` (1), ``elevation`` (m), ``population`` (of the cell), ``land_cover``."""
        made = self._fixed((grid or self.world.grid, window))
        return {name: made[name] for name in ("land_fraction", "elevation", "population", "land_cover")}

    @cached_property
    def _fixed(self) -> Recent[_Place, dict[str, Field]]:
        return Recent(self._make_fixed, count=4)

    def _make_fixed(self, place: _Place) -> dict[str, Field]:
        earth = self.world.weather.earth
        quarters = {
            "land_fraction": earth.land_fraction,
            "elevation": earth.elevation,
            "patchiness": 1 + np.float32(0.12) * self._patches,
            "settlement": earth.settlement,
        }

        def static(longitudes: NDArray[np.float64], latitudes: NDArray[np.float64]) -> dict[str, Field]:
            return {name: QUARTER.at(values, longitudes, latitudes) for name, values in quarters.items()}

        made = over_cells(static, *place, finest=QUARTER.step)
        settled = made.pop("settlement")
        made["lights"] = np.float32(_LIGHTS) * settled
        made["population"] = settled * (square_degrees(*place) * np.float32(_PEOPLE))
        dry = np.abs(latitudes_of(*place))[:, None] + 30 * (made["patchiness"] - 1)
        classes = (
            (made["land_fraction"] < LAND, WATER),
            (dry > 70, ICE),
            (settled > 0.4, TOWNS),
            (settled > 0.15, CROPS),
            ((dry > 17) & (dry < 31), BARE),
            ((dry > 31) & (dry < 46), GRASS),
        )
        made["land_cover"] = np.select(
            [where for where, _ in classes], [np.float32(number) for _, number in classes], np.float32(FOREST)
        )
        return made

    @cached_property
    def _inventory(self) -> Recent[_Place, Field]:
        return Recent(self._make_inventory, count=4)

    def _make_inventory(self, place: _Place) -> Field:
        """Tonnes of carbon a month in each cell, the mean of 2018."""

        def towns(longitudes: NDArray[np.float64], latitudes: NDArray[np.float64]) -> dict[str, Field]:
            return {"towns": QUARTER.at(self.world.emissions.diffuse, longitudes, latitudes)}

        tonnes = over_cells(towns, *place, finest=QUARTER.step)["towns"] * square_degrees(*place)
        grid, window = place
        top, left = (0, 0) if window is None else (window.row, window.column)
        for emitter in self.world.emitters():
            row = int((float(grid.north) - emitter.latitude) // float(grid.step_y)) - top
            column = int((emitter.longitude - float(grid.west)) % 360 // float(grid.step_x)) - left
            if 0 <= row < tonnes.shape[0] and 0 <= column < tonnes.shape[1]:
                tonnes[row, column] += np.float32(emitter.reported)
        return tonnes

    @cached_property
    def _patches(self) -> Field:
        """What fine structure vegetation has that the truth does not follow."""
        return noise(QUARTER.points, seed=self.world.seed, name="carbon patches", frequency=60, octaves=2)
