"""Variables of a file whose names are known: described together, and read as floats of a window."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.sources import cf, files, handles
from services.sources.files import Source
from services.sources.lonlat import Layout
from services.sources.packing import Packing
from services.sources.raster import KIND_NAMES, Access, Description

COARSE = Grid.of(west=-180, north=90, step_x="1/4", width=1440, height=600)
"""GLDAS's grid: 0.25 degrees, 90 N to 60 S; that of CSR's mascons as far as it goes."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Where the values of one variable lie in a file, and what they mean; small, so that it travels."""

    access: Access
    layout: Layout
    packing: Packing

    def read(self, source: Source, slices: slice, window: Window) -> NDArray[np.float64]:
        """Decoded values ``(time, y, x)`` of a window of the file's own grid, north up; NaN where missing.

        Raises:
            InputRefused: if the file is broken, changed since it was looked at, or holds infinite values.
        """
        out = np.empty((slices.stop - slices.start, *window.shape))
        with handles.opened(source) as file:
            for columns, target in self.layout.source_columns(window):
                values = file.read(self.access, slices, self.layout.source_rows(window), columns)
                out[:, :, target] = self.packing.decode(self.packing.read(self.layout.upright(values)))
        if np.isinf(out).any():
            at = slices.start + int(np.isinf(out).any(axis=(1, 2)).argmax())
            raise InputRefused(f"{source.name}: {self.access.variable} holds infinite values in map {at + 1}")
        return out


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a file says about variables that lie on the same dimensions."""

    source: Source
    """The file; of a Zarr store, narrowed to the arrays that are read."""

    first: Description
    """Of the first variable: grid and times are those of all."""

    stored: tuple[Stored, ...]
    """One each, in the order asked for."""

    units: tuple[str | None, ...]
    """As the file states them, one each."""


def described(
    source: Source,
    names: Sequence[str],
    *,
    optional: Sequence[str] = (),
    mend: Callable[[cf.Container], cf.Container] | None = None,
) -> Described:
    """Describe variables of a NetCDF file or Zarr store, which is opened once.

    Args:
        source: the file.
        names: variables that it must have; they share their dimensions.
        optional: further ones, described behind those where the file has them.
        mend: what makes a mission's way of writing attributes CF's.

    Raises:
        InputRefused: if one is not there, lies on other dimensions, or the file cannot be used.
    """
    if source.kind == "zarr":
        opened = handles.describe(source, names[0])
        source = files.with_parts(source, [*opened.parts, *names])
    with handles.opened(source) as file:
        if not isinstance(file, handles.CONTAINERS):
            raise InputRefused(f"{source.name} is {KIND_NAMES[source.kind]}, which has no variable {names[0]}")
        container = file.container(rasters=(*names, *optional))
        container = container if mend is None else mend(container)
        lacking = [name for name in names if name not in container.variables]
        if lacking:
            raise InputRefused(f"{source.name} has no {' and no '.join(lacking)}")
        first = cf.describe(container, names[0])
        present = [*names, *(name for name in optional if name in container.variables)]
        dimensions = container.variables[names[0]].dimensions
        stored: list[Stored] = []
        for name in present:
            variable = container.variables[name]
            if variable.dimensions != dimensions or variable.dtype.kind not in "iuf":
                raise InputRefused(
                    f"{source.name}: {name} is {variable.dtype} along {', '.join(variable.dimensions)}, "
                    f"and {names[0]} lies along {', '.join(dimensions)}"
                )
            stored.append(
                Stored(
                    access=replace(first.access, variable=name),
                    layout=first.layout,
                    packing=cf.packing_of(variable, classic=container.zarr_format is None),
                )
            )
        units = tuple(container.variables[name].text("units") or None for name in present)
    if source.kind == "zarr":
        source = files.with_parts(source, [*source.parts, *present])
    return Described(source=source, first=first, stored=tuple(stored), units=units)
