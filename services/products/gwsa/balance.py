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

LACKS = ("", "no GRACE", "no GLDAS", "neither GRACE nor GLDAS", f"balance beyond {LARGEST:g} cm")
"""Why a cell has no value; the first means that it has one."""

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

    lacks: NDArray[np.uint8]
    """Why a cell has no value, ``(y, x)``: a number of LACKS."""

    untold: NDArray[np.bool_]
    """Cells with a value that another land surface model lacks, ``(y, x)``: the setting tells their uncertainty."""


def balance(inputs: Inputs, window: Window) -> Balance:
    """Compute ``GWSA = TWSA - [d(SM) + d(SWE) + d(CAN)]``, each less its own mean of the baseline.

    Its variance is the sum of the variances of the terms, taken as independent (as NASA's groundwater toolkit does):

    - GRACE: what the file tells; else the root mean square difference of the other centre's solution; else the setting;
    - filling: what blanked months of the same kind were missed by (``gaps.fill``);
    - the stores: the mean square by which those of other land surface models differ, all three together, where such
      models are given and have values; else of each the setting's share of its standard deviation in time.

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
    weighed_there = np.isfinite(weighed[~missing]).all(axis=0)
    modelled = np.ones(weighed_there.shape, dtype=np.bool_)
    for name, values in stores.items():
        there = np.isfinite(values)
        partly = np.flatnonzero(there.any(axis=0) & ~there.all(axis=0))
        if partly.size:
            month = axis.ids[int(np.argmin(there[:, partly[0]]))]
            raise InputRefused(f"GLDAS {name} is missing in {partly.size} cells in some months only, first in {month}")
        modelled &= there[0]
    some = weighed_there & modelled
    filled = gaps.fill(
        weighed[:, some],
        gaps.METHODS[inputs.settings.grace.fill],
        short=gaps.scattered(missing),
        long=gaps.years(axis),
    )
    base = _baseline(axis)
    twsa = filled.values - filled.values[base].mean(axis=0)
    variance = _grace_error(inputs, axis, window, some, stated, twsa) ** 2 + filled.uncertainty**2
    others = apart(inputs, axis, window, stores)[:, some]
    told = ~np.isnan(others).any(axis=0) if len(others) else np.zeros(int(some.sum()), dtype=np.bool_)
    if told.any():
        variance = variance + np.where(told, (others**2).sum(axis=0) / len(others), 0.0)
    anomalies = {}
    gwsa = twsa.copy()
    for name, values in stores.items():
        term = values[:, some] * CM
        anomalies[name] = term - term[base].mean(axis=0)
        gwsa -= anomalies[name]
        own = (inputs.settings.gldas.uncertainty * anomalies[name].std(axis=0)) ** 2
        variance = variance + np.where(told, 0.0, own)
    untold = np.flatnonzero(~np.isfinite(np.broadcast_to(variance, gwsa.shape)).all(axis=0))
    if untold.size:
        raise InputRefused(f"{untold.size} cells have no uncertainty: does the other centre's solution lack them?")
    beyond = (np.abs(gwsa) > LARGEST).any(axis=0)
    gwsa[:, beyond] = np.nan
    lacks = np.where(weighed_there, 0, 1) + np.where(modelled, 0, 2)
    lacks[np.flatnonzero(some)[beyond]] = LACKS.index(LACKS[-1])
    untold_land = np.zeros(some.shape, dtype=np.bool_)
    untold_land[some] = ~told & ~beyond & bool(len(others))
    place = partial(_placed, some=some, shape=shape)
    return Balance(
        twsa=place(twsa),
        stores={name: place(values) for name, values in anomalies.items()},
        gwsa=place(gwsa),
        uncertainty=place(np.where(beyond, np.nan, np.sqrt(variance))),
        filled=np.isfinite(place(gwsa)) & missing[:, None, None],
        lacks=lacks.astype(np.uint8).reshape(window.shape),
        untold=untold_land.reshape(window.shape),
    )


def apart(inputs: Inputs, axis: TimeAxis, window: Window, stores: dict[str, Cells]) -> Cells:
    """How far the water of other land surface models lies from that of the balance.

    Args:
        inputs: where everything is.
        axis: months of the balance.
        window: cells of the coarse grid.
        stores: of the balance, kg m-2, ``(time, cell)``.

    Returns:
        Root mean square difference of soil moisture, snow and canopy water together, each model less its own mean of
        the baseline, over the months that both have: cm, ``(model, cell)``, NaN where a model lacks a month of them.

    Raises:
        InputRefused: if a file is broken or no longer what it was.
    """
    own = np.sum([stores[name] for name in STORES], axis=0) * CM
    found = np.full((len(inputs.other_land), own.shape[1]), np.nan)
    for number, model in enumerate(inputs.other_land):
        at = [position for position, month in enumerate(axis.starts) if model.months[0] <= month <= model.months[-1]]
        held = np.stack(
            [np.sum(list(model.read(axis.starts[position], window).values()), axis=0).ravel() for position in at]
        )
        base = [place for place, position in enumerate(at) if axis.starts[position] in BASE_MONTHS]
        difference = held * CM - own[at]
        found[number] = np.sqrt(((difference - difference[base].mean(axis=0)) ** 2).mean(axis=0))
    return found


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
