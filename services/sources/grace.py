"""GRACE and GRACE-FO mascon solutions of CSR and of JPL, as the centres publish them: one file, all solutions."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.sources import cf, clock, files
from services.sources.files import Source
from services.sources.units import water
from services.sources.variables import COARSE, Stored, described

type Center = Literal["CSR", "JPL"]

EPOCH = "2002-01-01"
"""What days are counted from, as in both centres' files."""

GRIDS: dict[Center, Grid] = {
    "CSR": Grid.of(west=-180, north=90, step_x="1/4", width=1440, height=720),
    "JPL": Grid.of(west=-180, north=90, step_x="1/2", width=720, height=360),
}
"""The grids that the centres publish on, by which they are told apart: CSR RL06 at 0.25 degrees, JPL RL06 at 0.5."""

THICKNESS, UNCERTAINTY = "lwe_thickness", "uncertainty"

MOST = 20_000.0
"""Centimetres of water that no anomaly reaches (the ice sheets stay below 2500): an undeclared fill value does."""

_DAY = 86_400 * clock.SECOND
_CENTERS = {
    "CSR": ("csr", "center for space research"),
    "JPL": ("jpl", "jet propulsion"),
    "GSFC": ("gsfc", "goddard"),
}
"""How titles and institutions name who solved for mascons; GSFC's lie on JPL's grid."""


@dataclass(frozen=True, kw_only=True)
class Mascons:
    """The solutions of one centre."""

    source: Source
    center: Center
    days: tuple[float, ...]
    """Time of each solution as the file has it, days since ``epoch``."""

    bounds: tuple[tuple[float, float], ...] | None
    """First and last day of each, days since ``epoch``; None where the file does not tell."""

    epoch: str
    """ISO 8601 date."""

    has_uncertainty: bool
    stored: tuple[Stored, ...]
    """Of the thickness, and of the uncertainty where there is one."""

    factors: tuple[float, ...]
    """Centimetres per unit of the file, one each."""

    def read(self, window: Window) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """All solutions in a window.

        Args:
            window: cells of ``COARSE``. A cell of JPL's covers 2 x 2 of them, in which a mascon is constant.

        Returns:
            Thickness and its uncertainty (one sigma; None where the file has none), each ``(solution, y, x)`` in cm of
            water, NaN where missing.

        Raises:
            InputRefused: if the file is broken, changed since it was looked at, or holds values that none can be.
        """
        found = [self._values(number, window) for number in range(len(self.stored))]
        return found[0], found[1] if self.has_uncertainty else None

    def _values(self, number: int, window: Window) -> NDArray[np.float64]:
        if window.row + window.height > COARSE.height or window.column + window.width > COARSE.width:
            raise InputRefused(f"{self.source.name}: {window} passes the grid of {COARSE.width} x {COARSE.height}")
        times = COARSE.step_x / GRIDS[self.center].step_x
        values = self.stored[number].read(self.source, slice(0, len(self.days)), _covering(window, int(1 / times)))
        values *= self.factors[number]
        worst = float(np.nanmax(np.abs(values), initial=0.0))
        if worst > MOST:
            raise InputRefused(
                f"{self.source.name}: {self.stored[number].access.variable} holds {worst:g} cm, which no storage of "
                "water reaches: a fill value that is not declared, or another unit than stated"
            )
        if times == 1:
            return values
        repeated = values.repeat(2, axis=1).repeat(2, axis=2)
        row, column = window.row % 2, window.column % 2
        return repeated[:, row : row + window.height, column : column + window.width]


def open_mascons(name: str) -> Mascons:
    """Look at a file of mascon solutions; whose it is, its grid tells.

    Args:
        name: path or URL, or a glob that one file matches.

    Raises:
        InputRefused: if it is none of CSR's or JPL's mascons, or states no unit or time that can be used.
    """
    sources = files.found([name])
    if len(sources) != 1:
        raise InputRefused(f"{name} stands for {len(sources)} files; all solutions of a centre are in one")
    look = described(sources[0], [THICKNESS], optional=[UNCERTAINTY], mend=_mended)
    source, first = look.source, look.first
    center = _center(source.name, first.grid, first.title, first.global_attributes.get("institution"))
    if first.times is None:
        raise InputRefused(f"{source.name} does not say the times of its solutions (units: days since {EPOCH})")
    units = (look.units[0], *(unit or look.units[0] for unit in look.units[1:]))
    names = (THICKNESS, UNCERTAINTY)[: len(units)]
    return Mascons(
        source=source,
        center=center,
        days=tuple(_days(first.times).tolist()),
        bounds=None if first.bounds is None else tuple((a, b) for a, b in _days(first.bounds).tolist()),
        epoch=EPOCH,
        has_uncertainty=len(units) > 1,
        stored=look.stored,
        factors=tuple(water(f"{source.name}: {n}", unit) / 10.0 for n, unit in zip(names, units, strict=True)),
    )


def _covering(window: Window, times: int) -> Window:
    """The window of cells ``times`` as wide that holds a window."""
    row, column = window.row // times, window.column // times
    return Window(
        row=row,
        column=column,
        height=-(-(window.row + window.height) // times) - row,
        width=-(-(window.column + window.width) // times) - column,
    )


def _center(name: str, grid: Grid, *texts: Any) -> Center:
    center = next((center for center, its in GRIDS.items() if its == grid), None)
    if center is None:
        raise InputRefused(
            f"{name} has {grid.width} x {grid.height} cells; CSR's mascons have 1440 x 720 and JPL's 720 x 360"
        )
    said = " ".join(text.lower() for text in texts if isinstance(text, str))
    named = {who for who, words in _CENTERS.items() if any(word in said for word in words)}
    if named and center not in named:
        raise InputRefused(
            f"{name} lies on the grid of {center}'s mascons and says that it is {' and '.join(sorted(named))}'s"
        )
    return center


def _mended(container: cf.Container) -> cf.Container:
    """Attributes as CF spells them: CSR writes ``Units``, keeps the epoch apart, and may not link the bounds."""
    variables: dict[str, cf.Variable] = {}
    epoch = container.attributes.get("time_epoch")
    for name, variable in container.variables.items():
        lower = {key.lower(): value for key, value in variable.attributes.items() if key.lower() in {"units", "bounds"}}
        variables[name] = replace(variable, attributes={**variable.attributes, **lower})
    time = variables.get("time")
    if time is not None:
        attributes = dict(time.attributes)
        own = attributes.get("time_epoch", epoch)
        if not clock.is_time_unit(attributes.get("units")) and isinstance(own, str):
            attributes["units"] = f"days since {own.strip()}"
        beside = next((other for other in ("time_bounds", "time_bnds") if other in variables), None)
        if beside is not None:
            attributes.setdefault("bounds", beside)
        variables["time"] = replace(time, attributes=attributes)
    return replace(container, variables=variables)


def _days(times: NDArray[np.int64]) -> NDArray[np.float64]:
    behind = times - np.datetime64(EPOCH, "us").astype(np.int64)
    days: NDArray[np.float64] = behind / _DAY
    return days
