"""The groundwater of the sample Earth: what is true, at 1/120 degree and in any month, and what follows from it.

It is fixed here, before any model sees it. The storage anomaly (cm of water, mean 0 over 2004-2009 at every cell) is

    trend + season                        smooth; the trend differs by aquifer
  + interannual                           smooth, known to no predictor
  + irrigation + amplitude + response     detail that follows from predictors, in each aquifer in another way
  + unseen trend, season, interannual     detail that no predictor knows, about half as large

``irrigation`` is a trend in proportion to the irrigated fraction, which the vegetation index shows as greening;
``amplitude`` a year's cycle that depends on sand and elevation; ``response`` what three months of rain do, in
proportion to the vegetation cover, as the vegetation index sees it. All numbers are made up.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.sample import modes
from services.sample.aquifers import AQUIFERS, ELSEWHERE, Aquifer
from services.sample.earth import Earth
from services.sample.modes import Lattice, Modes, centred, lagged, red
from services.sample.noise import Field, noise, sphere

type Size = Literal["small", "study"]
type Coarse = NDArray[np.float64]

FINE = 120
"""Cells of the truth to a degree."""

BLOCK = 30
"""Cells of the truth along a side of a coarse cell of 0.25 degrees."""

KNOWN = 1
"""Degrees around the region in which the truth is made and the predictors are written."""

SURROUNDINGS = 3
"""Degrees around the region in which the coarse inputs have values."""

_MEAN_SAND = 0.45
_MEAN_HEIGHT = 0.2  # km
MEAN_IRRIGATION = 0.3
MEAN_COVER = 0.45

_INTERANNUAL = 1.05  # cm
_UNSEEN_TREND = 0.065  # cm a year
_UNSEEN_SEASON = 0.40  # cm
_UNSEEN_INTERANNUAL = 0.45  # cm


@dataclass(frozen=True, kw_only=True)
class Region:
    """Whole degrees."""

    west: int
    south: int
    east: int
    north: int

    def wider(self, degrees: int) -> "Region":
        """With a margin all round."""
        return Region(
            west=self.west - degrees, south=self.south - degrees, east=self.east + degrees, north=self.north + degrees
        )

    def grid(self, cells: int) -> Grid:
        """Its cells, so many to a degree."""
        return Grid.of(
            west=self.west,
            north=self.north,
            step_x=f"1/{cells}",
            width=(self.east - self.west) * cells,
            height=(self.north - self.south) * cells,
        )

    def within(self, other: "Region", cells: int) -> tuple[slice, slice]:
        """Where its rows and columns lie in another region, so many cells to a degree."""
        top, left = (other.north - self.north) * cells, (self.west - other.west) * cells
        return (
            slice(top, top + (self.north - self.south) * cells),
            slice(left, left + (self.east - self.west) * cells),
        )


REGIONS: dict[Size, Region] = {
    "small": Region(west=68, south=20, east=74, north=25),
    "study": Region(west=67, south=19, east=77, north=27),
}


@dataclass(frozen=True)
class Groundwater:
    """The truth of one size. The same place in the same month is the same in both sizes; months are independent."""

    size: Size = "small"
    seed: int = field(default=Earth().seed, kw_only=True)

    @property
    def region(self) -> Region:
        """Where it is made."""
        return REGIONS[self.size]

    @cached_property
    def grid(self) -> Grid:
        """1/120 degree cells of the region."""
        return self.region.grid(FINE)

    # -- the truth

    def gwsa(self, month: int, window: Window | None = None) -> Field:
        """Groundwater storage anomaly.

        Args:
            month: months since 1970-01, in 2001-04..2020-12.
            window: cells of ``grid``; all of it if None.

        Returns:
            cm, ``(y, x)``, NaN over sea.
        """
        rows, columns = self._cells(window)
        truth = self._truth(month, rows, columns)
        truth[~self.land[rows, columns]] = np.nan
        return truth

    def components(self, month: int, window: Window | None = None) -> dict[str, Field]:
        """The parts that ``gwsa`` is the sum of, by name: cm, ``(y, x)``, also over sea."""
        cells = self._cells(window)
        years, cosine, sine = clock(month)
        parts: dict[str, Field] = {}
        for name, rate in self._rates_by_name.items():
            parts[name] = rate[cells] * years
        for name, (with_cosine, with_sine) in self._seasons_by_name.items():
            parts[name] = with_cosine[cells] * cosine + with_sine[cells] * sine
        parts["response"] = self._response[cells] * self._lattice_at(self.felt(month), *cells)
        parts["interannual"] = self._lattice_at(self.smooth(month), *cells)
        parts["unseen interannual"] = self._unseen(month, *cells)
        return parts

    def coarse(self, month: int) -> Coarse:
        """The truth's means over the land of 0.25 degree cells, weighted by area.

        Returns:
            cm, ``(y, x)`` of the region, north up, NaN in cells without land.
        """
        return self.coarse_known(month)[self.region.within(self.known, 4)]

    def _truth(self, month: int, rows: slice, columns: slice) -> Field:
        years, cosine, sine = clock(month)
        cells = (rows, columns)
        truth = self._rate[cells] * years
        truth += self._season[0][cells] * cosine
        truth += self._season[1][cells] * sine
        truth += self._response[cells] * self._lattice_at(self.felt(month), rows, columns)
        truth += self._lattice_at(self.smooth(month), rows, columns)
        truth += self._unseen(month, rows, columns)
        return truth

    def coarse_known(self, month: int) -> Coarse:
        """On the known cells: the means of the parts, which are few, instead of the mean of all cells."""
        years, cosine, sine = clock(month)
        means = self._means
        total = means["rate"] * years + means["cosine"] * cosine + means["sine"] * sine
        at = row_of(month)
        for name, series in (
            ("response", self._felt_series),
            ("interannual", self._smooth_series),
            ("unseen", self._unseen_series),
        ):
            total += np.tensordot(series[at], means[name], axes=1)
        return total

    @cached_property
    def _means(self) -> dict[str, Coarse]:
        everywhere = self._cells_known
        detail = self._response
        return {
            "rate": self.mean_over_land(self._rate),
            "cosine": self.mean_over_land(self._season[0]),
            "sine": self.mean_over_land(self._season[1]),
            "response": np.stack(
                [self.mean_over_land(detail * self._lattice_at(pattern, *everywhere)) for pattern in self.rain.patterns]
            ),
            "interannual": np.stack(
                [
                    self.mean_over_land(self._lattice_at(pattern, *everywhere) * np.float32(_INTERANNUAL))
                    for pattern in self._unpredicted.patterns
                ]
            ),
            "unseen": np.stack([self.mean_over_land(pattern) for pattern in self._unseen_patterns]),
        }

    def mean_over_land(self, values: Field) -> Coarse:
        """Means over the land of 0.25 degree cells, weighted by area.

        Args:
            values: on all cells that are known, ``(y, x)``: the region and KNOWN degrees around it.

        Returns:
            ``(y, x)`` of 0.25 degree cells, NaN without land.
        """
        weights = self._land_area
        with np.errstate(invalid="ignore"):
            mean: Coarse = blocks(np.where(weights > 0, values, 0) * weights, BLOCK) / blocks(weights, BLOCK)
        return mean

    def cell_of(self, longitude: float, latitude: float) -> tuple[int, int]:
        """Row and column of ``grid`` that hold a place of the region."""
        row, column = int((self.region.north - latitude) * FINE), int((longitude - self.region.west) * FINE)
        return min(row, self.grid.height - 1), min(column, self.grid.width - 1)

    # -- parts of the truth, on all cells that are known

    def _rates(self) -> Iterator[tuple[str, Field]]:
        yield "trend", self._by_aquifer("trend")
        yield "irrigation", self._by_aquifer("pumping") * self.irrigated
        yield "unseen trend", np.float32(_UNSEEN_TREND) * self._noise("unseen trend", frequency=150, octaves=5)

    def _seasons(self) -> Iterator[tuple[str, tuple[Field, Field]]]:
        height, phase = (self._lattice_at(field, *self._cells_known) for field in self.year)
        yield "season", (height * np.cos(phase), height * np.sin(phase))
        parts = [np.zeros_like(height), np.zeros_like(height)]
        sand = self.sand - np.float32(_MEAN_SAND)
        raised = self.elevation / 1000 - np.float32(_MEAN_HEIGHT)
        for aquifer, share in self._shares():
            amplitude = share * (np.float32(aquifer.sand) * sand + np.float32(aquifer.height) * raised)
            parts[0] += amplitude * np.float32(np.cos(2 * np.pi * aquifer.phase))
            parts[1] += amplitude * np.float32(np.sin(2 * np.pi * aquifer.phase))
        yield "amplitude", (parts[0], parts[1])
        unseen = np.float32(_UNSEEN_SEASON) * self._noise("unseen season", frequency=150, octaves=5)
        yield "unseen season", (unseen, unseen * 0)

    @cached_property
    def _rates_by_name(self) -> dict[str, Field]:
        return dict(self._rates())

    @cached_property
    def _seasons_by_name(self) -> dict[str, tuple[Field, Field]]:
        return dict(self._seasons())

    @cached_property
    def _rate(self) -> Field:
        return _sum(rate for _, rate in self._rates())

    @cached_property
    def _season(self) -> tuple[Field, Field]:
        both = [part for _, part in self._seasons()]
        return _sum(part[0] for part in both), _sum(part[1] for part in both)

    @cached_property
    def _response(self) -> Field:
        return self._by_aquifer("response") * self.cover

    @cached_property
    def _unseen_patterns(self) -> Field:
        patterns = [self._noise(f"unseen {number}", frequency=130, octaves=4) for number in range(3)]
        return np.stack(patterns) * np.float32(_UNSEEN_INTERANNUAL / np.sqrt(3))

    @cached_property
    def _unseen_series(self) -> NDArray[np.float64]:
        return centred(red(3, memory=0.6, seed=self.seed, name="unseen"))

    def _unseen(self, month: int, rows: slice, columns: slice) -> Field:
        numbers = self._unseen_series[row_of(month)]
        return _sum(
            pattern[rows, columns] * np.float32(number)
            for pattern, number in zip(self._unseen_patterns, numbers, strict=True)
        )

    def _by_aquifer(self, name: str) -> Field:
        return _sum(share * np.float32(getattr(aquifer, name)) for aquifer, share in self._shares())

    def _shares(self) -> Iterator[tuple[Aquifer, Field]]:
        known = self.known.grid(FINE)
        yield from shares(known.longitudes, known.latitudes)

    # -- the land and what does not change, on all cells that are known

    @cached_property
    def land(self) -> NDArray[np.bool_]:
        """Coasts of the 0.25 degree Earth with bays, spits and islands of 1/120 degree."""
        share = self._lattice_at(Earth(seed=self.seed).land_fraction[self.on_earth], *self._cells_known)
        rough = self._noise("coast", frequency=230, octaves=6)
        land: NDArray[np.bool_] = share + np.float32(0.16) * rough > 0.5
        return land

    @cached_property
    def elevation(self) -> Field:
        """Height above the sea, m, at least 1."""
        return self._relief[1:-1, 1:-1]

    @cached_property
    def slope(self) -> Field:
        """Of the ground between the neighbouring cells, degrees."""
        known = self.known.grid(FINE)
        step = np.float32(np.radians(1 / FINE) * 6371008.8)
        south = (self._relief[2:, 1:-1] - self._relief[:-2, 1:-1]) / (2 * step)
        east = (self._relief[1:-1, 2:] - self._relief[1:-1, :-2]) / (2 * step)
        east /= np.cos(np.radians(known.latitudes)).astype(np.float32)[:, None]
        slope: Field = np.degrees(np.arctan(np.hypot(south, east)))
        return slope

    @cached_property
    def sand(self) -> Field:
        """Share of sand in the soil, 1."""
        wide = self._noise("sand", frequency=60, octaves=5)
        narrow = self._noise("sand patches", frequency=230, octaves=4)
        mixed: Field = np.clip(np.float32(_MEAN_SAND) + np.float32(0.16) * wide + np.float32(0.10) * narrow, 0.03, 0.96)
        return mixed

    @cached_property
    def irrigated(self) -> Field:
        """Share of the land that is irrigated, in hundredths, 1."""
        patches = self._noise("irrigation", frequency=120, octaves=5)
        share = 1 / (1 + np.exp(-(patches - np.float32(0.6)) / np.float32(0.35)))
        hundredths: Field = np.rint(100 * share).astype(np.float32) / np.float32(100)
        return hundredths

    @cached_property
    def cover(self) -> Field:
        """How much of the ground plants can cover, 0..1; seen only through the vegetation index."""
        patches = self._noise("cover", frequency=140, octaves=5)
        cover: Field = np.clip(0.36 + np.float32(0.25) * self.irrigated + np.float32(0.17) * patches, 0.03, 0.95)
        return cover

    @cached_property
    def _relief(self) -> Field:
        """Elevation with a ring of one cell around what is known."""
        known = self.known.grid(FINE)
        longitudes = self.known.west + (np.arange(-1, known.width + 1) + 0.5) / FINE
        latitudes = self.known.north - (np.arange(-1, known.height + 1) + 0.5) / FINE
        points = sphere(longitudes, latitudes)
        hills = noise(points, seed=self.seed, name="hills", frequency=28, octaves=7)
        crags = noise(points, seed=self.seed, name="crags", frequency=200, octaves=4)
        height: Field = np.maximum(np.float32(200) + np.float32(120) * hills + np.float32(50) * crags, 1)
        return height

    @cached_property
    def _land_area(self) -> Coarse:
        """Relative area of the land cells, 0 over sea."""
        return np.where(self.land, self.known.grid(FINE).row_areas[:, None], 0)

    @cached_property
    def land_share(self) -> Coarse:
        """Share of land in 0.25 degree cells that are known, 0..1."""
        whole = np.broadcast_to(self.known.grid(FINE).row_areas[:, None], self.land.shape)
        return blocks(self._land_area, BLOCK) / blocks(whole, BLOCK)

    # -- weather

    @cached_property
    def rain(self) -> Modes:
        """Rain's departure from the climate."""
        return Modes(lattice=self.lattice, seed=self.seed, name="rain", count=8, frequency=14, octaves=2)

    @cached_property
    def _unpredicted(self) -> Modes:
        return Modes(lattice=self.lattice, seed=self.seed, name="interannual", count=8, frequency=16, memory=0.8)

    @cached_property
    def _felt_series(self) -> NDArray[np.float64]:
        return centred(lagged(self.rain.series))

    def felt(self, month: int) -> Field:
        """Rain anomaly of the three months before, standard deviation about 1, on the lattice."""
        return self.rain.field(self._felt_series[row_of(month)])

    @cached_property
    def _smooth_series(self) -> NDArray[np.float64]:
        return centred(self._unpredicted.series)

    def smooth(self, month: int) -> Field:
        """The interannual part that no predictor knows, cm, on the lattice."""
        return np.float32(_INTERANNUAL) * self._unpredicted.field(self._smooth_series[row_of(month)])

    @cached_property
    def year(self) -> tuple[Field, Field]:
        """The smooth season on the lattice: half its range in cm, and when it is highest, radians."""
        points = self.lattice.points
        height = 4 + noise(points, seed=self.seed, name="season", frequency=12, octaves=1)
        phase = 0.78 + 0.04 * noise(points, seed=self.seed, name="phase", frequency=12, octaves=1)
        return height, (2 * np.pi * phase).astype(np.float32)

    # -- places

    @property
    def known(self) -> Region:
        """Where the truth is made: the region and KNOWN degrees around it."""
        return self.region.wider(KNOWN)

    @property
    def around(self) -> Region:
        """Where the coarse inputs have values: the region and SURROUNDINGS degrees around it."""
        return self.region.wider(SURROUNDINGS)

    @cached_property
    def lattice(self) -> Lattice:
        """0.25 degree cells of ``around``."""
        around = self.around
        return Lattice(
            west=around.west,
            north=around.north,
            width=(around.east - around.west) * 4,
            height=(around.north - around.south) * 4,
        )

    @property
    def on_earth(self) -> tuple[slice, slice]:
        """Where the lattice's rows and columns lie among those of ``Earth``."""
        return self.around.within(Region(west=-180, south=-90, east=180, north=90), 4)

    @cached_property
    def _cells_known(self) -> tuple[slice, slice]:
        return slice(0, self.known.grid(FINE).height), slice(0, self.known.grid(FINE).width)

    def _cells(self, window: Window | None) -> tuple[slice, slice]:
        """Where cells of the region lie among those that are known."""
        rows, columns = self.region.within(self.known, FINE)
        if window is None:
            return rows, columns
        if window.row + window.height > self.grid.height or window.column + window.width > self.grid.width:
            raise InputRefused(f"{window} passes the region's {self.grid.height} x {self.grid.width} cells")
        top, left = rows.start + window.row, columns.start + window.column
        return slice(top, top + window.height), slice(left, left + window.width)

    def _lattice_at(self, values: Field, rows: slice, columns: slice) -> Field:
        known = self.known.grid(FINE)
        return self.lattice.at(values, known.longitudes[columns], known.latitudes[rows])

    def _noise(self, name: str, *, frequency: float, octaves: int) -> Field:
        known = self.known.grid(FINE)
        points = sphere(known.longitudes, known.latitudes)
        return noise(points, seed=self.seed, name=name, frequency=frequency, octaves=octaves)


def shares(longitudes: NDArray[np.float64], latitudes: NDArray[np.float64]) -> Iterator[tuple[Aquifer, Field]]:
    """Each aquifer and the rest, and how much places belong to it, ``(y, x)``; the shares add up to 1."""
    rest = np.ones((len(latitudes), len(longitudes)), dtype=np.float32)
    for aquifer in AQUIFERS:
        share = np.minimum(aquifer.share(longitudes, latitudes), rest)
        rest -= share
        yield aquifer, share
    yield ELSEWHERE, rest


def blocks(values: NDArray[Any], size: int) -> NDArray[np.float64]:
    """Sums over square blocks of cells, in float64."""
    height, width = (length // size for length in values.shape)
    columns = values.reshape(height * size, width, size).sum(axis=2, dtype=np.float64)
    total: NDArray[np.float64] = columns.reshape(height, size, width).sum(axis=1)
    return total


def clock(month: int) -> tuple[np.float32, np.float32, np.float32]:
    """Years from the middle of the baseline, and the cosine and sine of the year."""
    angle = 2 * np.pi * (month % 12 + 0.5) / 12
    return np.float32((month - sum(modes.BASELINE) / 2) / 12), np.float32(np.cos(angle)), np.float32(np.sin(angle))


def row_of(month: int) -> int:
    """Where a month lies in the series of the weather.

    Raises:
        InputRefused: if it does not.
    """
    row = month - modes.FIRST_MONTH
    if not 3 <= row < modes.MONTHS:
        first, last = (np.datetime64(modes.FIRST_MONTH + at, "M") for at in (3, modes.MONTHS - 1))
        raise InputRefused(
            f"the sample's groundwater is made from {first} to {last}, not for {np.datetime64(month, 'M')}"
        )
    return row


def _sum(fields: Iterator[Field]) -> Field:
    total = next(fields).copy()
    for one in fields:
        total += one
    return total
