"""Soundings of XCO2 as columns: what every reader of them gives, whatever the mission's files look like."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused

INSTRUMENTS = ("oco2", "oco3", "acos")
"""By their code; acos is GOSAT as the ACOS team retrieves it."""

MODES = (
    "land_nadir",
    "land_glint",
    "ocean_glint",
    "land_target",
    "ocean_target",
    "area_map",
    "transition",
    "unknown",
)
"""By their code: how the instrument pointed, and over what."""

type Scale = Literal["X2007", "X2019", "unknown"]
"""The WMO scale of CO2 that values are tied to."""

SCALES: tuple[Scale, ...] = ("X2007", "X2019", "unknown")

PLAUSIBLE = (200.0, 1000.0)
"""Ppm that a sounding may have. Our choice: wide enough for a failed retrieval (raw OCO-2 soundings of Brazil reach
322..470), far too narrow for a fill value or another unit."""

WORST = 1000.0
"""Ppm that no stated uncertainty reaches."""

_PPM = {
    "ppm": 1.0,
    "ppmv": 1.0,
    "1e-6": 1.0,
    "1.e-6": 1.0,
    "10^-6": 1.0,
    "umol mol-1": 1.0,
    "umol/mol": 1.0,
    "micromol mol-1": 1.0,
    "micromole mole-1": 1.0,
    "parts per million": 1.0,
    "ppb": 1e-3,
    "ppbv": 1e-3,
    "nmol mol-1": 1e-3,
    "mol mol-1": 1e6,
    "mol/mol": 1e6,
    "mole mole-1": 1e6,
    "mole/mole": 1e6,
    "moles mole-1": 1e6,
    "1": 1e6,
}
"""Ppm in one of a unit of mole fraction, as files spell them, in lower case."""

_NOT_STATED = frozenset({"", "-", "none", "n/a"})


@dataclass(frozen=True, kw_only=True)
class Soundings:
    """Soundings, one a row; every one has a place, a time and a value.

    Raises:
        InputRefused: if columns differ in length, or hold what no sounding can.
    """

    time: NDArray[np.float64] = field(repr=False)
    """``(n,)`` seconds since 1970-01-01 UTC, without leap seconds."""

    latitude: NDArray[np.float64] = field(repr=False)
    """``(n,)`` degrees north, -90..90."""

    longitude: NDArray[np.float64] = field(repr=False)
    """``(n,)`` degrees east, -180..180."""

    xco2: NDArray[np.float64] = field(repr=False)
    """``(n,)`` ppm, dry air."""

    uncertainty: NDArray[np.float64] = field(repr=False)
    """``(n,)`` ppm, one sigma of the retrieval's noise; NaN where it is not known."""

    mode: NDArray[np.uint8] = field(repr=False)
    """``(n,)`` place in MODES."""

    instrument: NDArray[np.uint8] = field(repr=False)
    """``(n,)`` place in INSTRUMENTS."""

    scale: Scale

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise InputRefused(f"soundings: {self.scale!r} is no scale of CO2; known are {', '.join(SCALES)}")
        shape = self.time.shape
        if len(shape) != 1:
            raise InputRefused(f"soundings: times have the shape {shape}, and a column has one dimension")
        for name in COLUMNS[1:]:
            if getattr(self, name).shape != shape:
                raise InputRefused(f"soundings: {shape[0]} times and {name} of shape {getattr(self, name).shape}")
        _check("time", self.time, -np.inf, np.inf, "")
        _check("latitude", self.latitude, -90.0, 90.0, " degrees north")
        _check("longitude", self.longitude, -180.0, 180.0, " degrees east")
        _check("xco2", self.xco2, *PLAUSIBLE, " ppm: a fill value that is not declared, or another unit")
        _check("uncertainty", self.uncertainty, np.nextafter(0.0, 1.0), WORST, " ppm", may_miss=True)
        for name, codes, known in (("mode", self.mode, MODES), ("instrument", self.instrument, INSTRUMENTS)):
            if codes.dtype != np.uint8:
                raise InputRefused(f"soundings: codes of the {name} are {codes.dtype}, not uint8")
            if codes.size and int(codes.max()) >= len(known):
                raise InputRefused(f"soundings: {int(codes.max())} is no code of a {name}; there are {len(known)}")

    def __len__(self) -> int:
        return self.time.size

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> "Soundings":
        """Those rows, by a mask, by numbers or by a slice."""
        return Soundings(**{name: getattr(self, name)[rows] for name in COLUMNS}, scale=self.scale)

    def group(self) -> NDArray[np.int64]:
        """``(n,)`` one number for instrument and mode, place in GROUPS: what an offset belongs to."""
        return self.instrument.astype(np.int64) * len(MODES) + self.mode

    def months(self) -> NDArray[np.int64]:
        """``(n,)`` months since 1970-01."""
        return np.floor(self.time).astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)


COLUMNS = tuple(column.name for column in fields(Soundings) if column.name != "scale")

GROUPS = tuple(f"{instrument} {mode}" for instrument in INSTRUMENTS for mode in MODES)
"""Names of instrument and mode by ``Soundings.group``."""


def concat(parts: Sequence[Soundings]) -> Soundings:
    """Soundings one behind the other.

    Raises:
        InputRefused: if there is none, or they are on different scales.
    """
    scales = dict.fromkeys(part.scale for part in parts)
    if len(scales) != 1:
        raise InputRefused(
            f"soundings on the scales {' and '.join(scales)} are not mixed; convert one of them first"
            if scales
            else "no soundings are to be put together"
        )
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    return Soundings(**columns, scale=parts[0].scale)


def ppm(name: str, units: str | None, values: NDArray[np.floating]) -> float:
    """How many ppm one of a column's unit is.

    The unit decides where one is stated; else the values do: a mole fraction of CO2 lies near 4e-4 and one in ppm near
    400, so that no column can be both.

    Args:
        name: file and variable, for messages.
        units: as the file states them; None, empty or ``none``: not stated.
        values: some of the column, any shape, NaN where missing; none at all is no evidence.

    Raises:
        InputRefused: if the unit is none of a mole fraction, or the values cannot be CO2 in it or in any.
    """
    known = values[np.isfinite(values)]
    middle = float(np.median(known)) if known.size else np.nan
    low, high = PLAUSIBLE
    stated = " ".join((units or "").replace("{", "").replace("}", "").replace("^-1", "-1").split()).lower()
    if stated not in _NOT_STATED:
        factor = _PPM.get(stated)
        if factor is None:
            raise InputRefused(f"{name}: its unit is {units!r}; ppm, mol mol-1 or another mole fraction is wanted")
        if known.size and not low <= middle * factor <= high:
            raise InputRefused(
                f"{name}: its unit is {units!r} and its median {middle:g}, which would be {middle * factor:g} ppm"
            )
        return factor
    if not known.size:
        return 1.0  # nothing is converted
    for factor in (1.0, 1e6):
        if low <= middle * factor <= high:
            return factor
    raise InputRefused(
        f"{name}: it states no unit, and its median of {middle:g} is CO2 neither in ppm nor in mol mol-1"
    )


def _check(
    name: str, values: NDArray[np.float64], low: float, high: float, unit: str, *, may_miss: bool = False
) -> None:
    """Refuse a column that holds what cannot be, by its first such row."""
    good = (values >= low) & (values <= high)
    if may_miss:
        good |= np.isnan(values)
    elif np.isinf(low):
        good = np.isfinite(values)
    if not good.all():
        row = int(np.argmin(good))
        raise InputRefused(f"a sounding's {name} is {values[row]:g}{unit}")
