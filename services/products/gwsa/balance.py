"""The water balance of a window of the coarse grid: total water less what lies in soil, snow and canopy."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Window
from services.core.time_axis import TimeAxis
from services.products.gwsa import gaps
from services.products.gwsa.declaration import BASE_MONTHS, LARGEST
from services.products.gwsa.inputs import Inputs
from services.products.gwsa.months import spread

type Cells = NDArray[np.float64]

STORES = ("soil_moisture", "snow", "canopy")
"""What GLDAS holds of the water that GRACE weighs."""

CM = 0.1
"""cm of water in 1 kg m-2, at 1000 kg m-3."""


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Anomalies against the mean of BASELINE, cm, ``(time, y, x)``, NaN where any of them is missing."""

    twsa: Cells
    """Total water storage, gaps filled."""

    stores: dict[str, Cells]
    """Each of STORES."""

    gwsa: Cells
    """``twsa`` less all stores."""

    uncertainty: Cells
    """Standard deviation of the error of ``gwsa``."""

    filled: NDArray[np.bool_]
    """Where ``twsa`` is filled."""

    left_out: int
    """Cells without a value because the balance passes LARGEST."""


def balance(inputs: Inputs, window: Window) -> Balance:
    """Compute ``GWSA = TWSA - [d(SM) + d(SWE) + d(CAN)]``, each less its own mean of the baseline.

    Its variance is the sum of the variances of the terms, taken as independent (as NASA's groundwater toolkit does):

    - GRACE: what the file tells; else the root mean square difference of the other centre's solution; else the setting;
    - filling: what blanked months of the same kind were missed by (``gaps.fill``);
    - each store: the setting's share of its standard deviation in time.

    Args:
        inputs: where everything is.
        window: cells of the coarse grid.

    Raises:
        InputRefused: if a file is broken or no longer what it was, or a cell cannot be filled.
    """
    axis = inputs.months
    shape = (len(axis), *window.shape)
    solutions, stated = inputs.solution.read(window)
    weighed = spread(solutions, np.array(inputs.solution_months), axis).reshape(len(axis), -1)
    stores = _stores(inputs, axis, window)
    # a month without any solution is a gap of GRACE; a cell that lacks a month which GRACE has is no cell of it
    missing = ~np.isin(axis.starts, inputs.solution_months)
    some = np.isfinite(weighed[~missing]).all(axis=0)
    for name, values in stores.items():
        there = np.isfinite(values)
        partly = np.flatnonzero(there.any(axis=0) & ~there.all(axis=0))
        if partly.size:
            month = axis.ids[int(np.argmin(there[:, partly[0]]))]
            raise InputRefused(f"GLDAS {name} is missing in {partly.size} cells in some months only, first in {month}")
        some &= there[0]
    filled = gaps.fill(
        weighed[:, some],
        gaps.METHODS[inputs.settings.grace.fill],
        short=gaps.scattered(missing),
        long=gaps.years(axis),
    )
    base = _baseline(axis)
    twsa = filled.values - filled.values[base].mean(axis=0)
    variance = _grace_error(inputs, axis, window, some, stated, twsa) ** 2 + filled.uncertainty**2
    anomalies = {}
    gwsa = twsa.copy()
    for name, values in stores.items():
        term = values[:, some] * CM
        anomalies[name] = term - term[base].mean(axis=0)
        gwsa -= anomalies[name]
        variance = variance + (inputs.settings.gldas.uncertainty * anomalies[name].std(axis=0)) ** 2
    untold = np.flatnonzero(~np.isfinite(np.broadcast_to(variance, gwsa.shape)).all(axis=0))
    if untold.size:
        raise InputRefused(f"{untold.size} cells have no uncertainty: does the other centre's solution lack them?")
    beyond = (np.abs(gwsa) > LARGEST).any(axis=0)
    gwsa[:, beyond] = np.nan
    place = partial(_placed, some=some, shape=shape)
    return Balance(
        twsa=place(twsa),
        stores={name: place(values) for name, values in anomalies.items()},
        gwsa=place(gwsa),
        uncertainty=place(np.where(beyond, np.nan, np.sqrt(variance))),
        filled=np.isfinite(place(gwsa)) & missing[:, None, None],
        left_out=int(beyond.sum()),
    )


def _stores(inputs: Inputs, axis: TimeAxis, window: Window) -> dict[str, Cells]:
    found = {name: np.empty((len(axis), window.height * window.width)) for name in STORES}
    for position, month in enumerate(axis.starts):
        values = inputs.gldas.read(month, window)
        for name in STORES:
            found[name][position] = values[name].ravel()
    return found


def _grace_error(
    inputs: Inputs,
    axis: TimeAxis,
    window: Window,
    some: NDArray[np.bool_],
    stated: Cells | None,
    twsa: Cells,
) -> Cells:
    """Standard deviation of the error of a solution, cm, that broadcasts to ``(time, cell)``."""
    setting = np.float64(inputs.settings.grace.uncertainty)
    if stated is not None:
        told = spread(stated, np.array(inputs.solution_months), axis).reshape(len(axis), -1)[:, some]
        # in months without a solution the error of the neighbours is not worse than their mean; filling adds its own
        mean = np.sqrt(np.nanmean(told**2, axis=0))
        return np.where(np.isnan(told), mean, told)
    if inputs.other is None:
        return np.full((1, 1), setting)
    values, _ = inputs.other.read(window)
    other = spread(values, np.array(inputs.other_months), axis).reshape(len(axis), -1)[:, some]
    base = _baseline(axis)
    other = other - np.nanmean(other[base], axis=0)
    difference: Cells = np.sqrt(np.nanmean((other - twsa) ** 2, axis=0))
    return difference[None, :]


def _baseline(axis: TimeAxis) -> list[int]:
    return [position for position, month in enumerate(axis.starts) if month in BASE_MONTHS]


def _placed(values: Cells, *, some: NDArray[np.bool_], shape: tuple[int, int, int]) -> Cells:
    whole = np.full((shape[0], shape[1] * shape[2]), np.nan)
    whole[:, some] = values
    return whole.reshape(shape)
