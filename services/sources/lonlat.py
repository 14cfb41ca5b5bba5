"""From the coordinates of a source to an exact grid, and how its rows and columns lie on it."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import DeclarationError, InputRefused
from services.core.grid import CIRCLE, Grid, Window

UNEVEN = Fraction(1, 100)
"""Part of a cell by which a coordinate may lie beside its place (issue 3)."""

BY_CHANCE = 0.01
"""A fraction p/q in an interval of width w is taken for meant, not met by chance, while q * q * w is below this."""

HALF_TURN = Fraction(180)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A regular axis in exact fractions of a degree."""

    first: Fraction
    """Centre of the first cell, degrees."""

    step: Fraction
    """Distance from a centre to the next, degrees; negative where coordinates fall."""

    count: int
    """Number of cells."""

    @property
    def last(self) -> Fraction:
        """Centre of the last cell, degrees."""
        return self.first + (self.count - 1) * self.step


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the rows and columns of a source lie on the grid that it is read into."""

    width: int
    """Columns of the grid."""

    columns: int
    """Columns of the source: one more than ``width`` where it stores the seam twice."""

    rows: int
    """Rows of the source and of the grid."""

    south_up: bool
    """Whether the source's first row is the southernmost."""

    east_first: bool
    """Whether the source's first column is the easternmost."""

    roll: int
    """West-to-east number of the source's column that is the grid's column 0."""

    @property
    def seam(self) -> bool:
        """Whether the source stores its first column again as its last."""
        return self.columns == self.width + 1

    def source_rows(self, window: Window) -> slice:
        """The source's rows of a window, in the source's own order."""
        if self.south_up:
            return slice(self.rows - window.row - window.height, self.rows - window.row)
        return window.rows

    def source_columns(self, window: Window) -> Iterator[tuple[slice, slice]]:
        """Runs of the source's columns, in its own order, and where in the window they go."""
        done = 0
        while done < window.width:
            east = (window.column + done + self.roll) % self.width
            size = min(window.width - done, self.width - east)
            if self.east_first:
                columns = slice(self.columns - east - size, self.columns - east)
            else:
                columns = slice(east, east + size)
            yield columns, slice(done, done + size)
            done += size

    def upright(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values ``(time, y, x)`` as read, with rows north to south and columns west to east."""
        return values[:, :: -1 if self.south_up else 1, :: -1 if self.east_first else 1]

    def seam_pair(self, window: Window) -> tuple[int, int] | None:
        """The source's two columns that must be equal, where the window holds one of them."""
        if not self.seam:
            return None
        at = -self.roll % self.width
        return (0, self.columns - 1) if window.column <= at < window.column + window.width else None


def exact_axis(name: str, label: str, centres: NDArray[Any], precision: float | None, whole: Fraction) -> Axis:
    """The simplest regular axis that coordinates mean.

    Args:
        name: the file, for messages.
        label: ``longitude`` or ``latitude``.
        centres: centres of the cells, degrees, ``(n,)``; longitudes of one turn may jump once.
        precision: degrees by which a coordinate may be rounded; None: of its type.
        whole: length of the whole circle (360) or meridian (180), degrees: an axis that closes it closes it exactly.

    Raises:
        InputRefused: if it is uneven, by more than 1 % of a cell.
    """
    if centres.size < 2:
        raise InputRefused(f"{name}: one {label} alone does not say how wide a cell is")
    if not np.isfinite(centres).all():
        raise InputRefused(f"{name}: a {label} is missing")
    kind = centres.dtype if centres.dtype.kind == "f" else np.dtype(np.float64)
    values = centres.astype(np.float64)
    if np.abs(values).max() > 720:
        raise InputRefused(f"{name}: {label}s reach {np.abs(values).max():g}, which are no degrees")
    finest = precision if precision is not None else float(np.spacing(np.abs(centres).max().astype(kind)))
    if whole == CIRCLE:
        values = np.unwrap(values, period=360.0)
    step = (values[-1] - values[0]) / (values.size - 1)
    limit = abs(step) * float(UNEVEN)
    _check_even(name, label, values, step, limit)
    return _fitted(values.tobytes(), min(max(finest, 1e-15), limit), limit, whole)


def placed(name: str, longitudes: Axis, latitudes: Axis) -> tuple[Grid, Layout]:
    """The grid of a source, north up and -180..180, and how the source lies on it.

    Raises:
        InputRefused: if the axes pass a turn or the poles.
    """
    step = abs(longitudes.step)
    west = min(longitudes.first, longitudes.last) - step / 2
    width = longitudes.count
    if (width - 1) * step == CIRCLE:
        width -= 1
    if width * step > CIRCLE:
        raise InputRefused(
            f"{name}: {longitudes.count} columns of {float(step):g} degrees pass a whole turn of 360 degrees, "
            "and the last is not the first again"
        )
    roll = 0
    if width * step == CIRCLE:
        columns = -((west + HALF_TURN + step / 2) // step)
        west, roll = west + columns * step, int(columns % width)
    else:
        turns = -((west + HALF_TURN + step / 2) // CIRCLE)
        west += turns * CIRCLE
    north = max(latitudes.first, latitudes.last) + abs(latitudes.step) / 2
    try:
        grid = Grid.of(
            west=west, north=north, step_x=step, step_y=abs(latitudes.step), width=width, height=latitudes.count
        )
    except DeclarationError as error:
        raise InputRefused(f"{name}: {error}") from None
    return grid, Layout(
        width=width,
        columns=longitudes.count,
        rows=latitudes.count,
        south_up=latitudes.step > 0,
        east_first=longitudes.step < 0,
        roll=roll,
    )


def simplest(low: Fraction, high: Fraction) -> Fraction:
    """The fraction of the smallest denominator in a closed interval (Stern-Brocot)."""
    if low <= 0 <= high:
        return Fraction(0)
    if high < 0:
        return -simplest(-high, -low)
    floor = low.numerator // low.denominator
    if low == floor:
        return Fraction(floor)
    if floor + 1 <= high:
        return Fraction(floor + 1)
    return floor + 1 / simplest(1 / (high - floor), 1 / (low - floor))


def _check_even(name: str, label: str, values: NDArray[np.float64], step: float, limit: float) -> None:
    if step == 0:
        raise InputRefused(f"{name}: its {label}s do not rise or fall")
    beside = np.abs(values - (values[0] + step * np.arange(values.size)))
    worst = int(beside.argmax())
    if beside[worst] > limit:
        raise InputRefused(
            f"{name}: its {label}s are uneven: number {worst + 1} is {values[worst]:.6g} where even steps of "
            f"{step:.6g} give {values[0] + step * worst:.6g} (1 % of a cell is allowed); "
            "regrid it first, for example with `cdo remapcon`"
        )


@lru_cache(maxsize=64)  # the files of a set have the same coordinates
def _fitted(coordinates: bytes, finest: float, limit: float, whole: Fraction) -> Axis:
    values = np.frombuffer(coordinates)
    tolerances = [finest]
    while tolerances[-1] < limit:
        tolerances.append(min(tolerances[-1] * 10, limit))
    for tolerance in tolerances:
        found = _axis_within(values, Fraction(tolerance), Fraction(limit), whole)
        if found is not None:
            return found
    count = values.size
    first, span = Fraction(float(values[0])), Fraction(float(values[-1])) - Fraction(float(values[0]))
    slack = Fraction(finest)
    return Axis(
        first=simplest(first - slack, first + slack),
        step=simplest((span - slack) / (count - 1), (span + slack) / (count - 1)),
        count=count,
    )


def _axis_within(values: NDArray[np.float64], tolerance: Fraction, limit: Fraction, whole: Fraction) -> Axis | None:
    count = values.size
    span = Fraction(float(values[-1])) - Fraction(float(values[0]))
    sign = 1 if span > 0 else -1
    steps = [
        step
        for step in (sign * whole / count, sign * whole / (count - 1))
        if abs(step * (count - 1) - span) <= min(2 * tolerance, limit)
    ]
    low, high = (span - 2 * tolerance) / (count - 1), (span + 2 * tolerance) / (count - 1)
    simple = simplest(low, high)
    if simple and simple.denominator**2 * (high - low) < BY_CHANCE:
        steps.append(simple)
    for step in steps:
        first = _first_within(values, step, tolerance)
        if first is not None:
            return Axis(first=first, step=step, count=count)
    return None


def _first_within(values: NDArray[np.float64], step: Fraction, tolerance: Fraction) -> Fraction | None:
    """The first centre that is meant, such that all lie within the tolerance; None if none is."""
    offsets = values - float(step) * np.arange(values.size)
    ends = [Fraction(float(values[at])) - int(at) * step for at in (offsets.argmax(), offsets.argmin())]
    low, high = max(ends) - tolerance, min(ends) + tolerance
    if low > high:
        return None
    # grids are cut from grids of the whole globe: an edge or a centre on a multiple of the step is meant
    half = abs(step) / 2
    multiple = -(-low // half) * half
    if multiple <= high and 2 * tolerance / half < BY_CHANCE:
        return multiple
    # else from a round edge or from a round centre: the rounder of the two
    centre, edge = simplest(low, high), simplest(low - half, high - half)
    first = centre if centre.denominator <= edge.denominator else edge + half
    roundest = min(centre.denominator, edge.denominator)
    return first if roundest**2 * 2 * tolerance < BY_CHANCE else None
