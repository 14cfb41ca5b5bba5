"""The background of a latitude: area-weighted medians of bands, and lines between the middles of the bands."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Grid

type Floats = NDArray[np.floating[Any]]

WIDTH = 10.0
"""Degrees of latitude of a band. Our choice: the method of Hakkarainen et al. (2019) asks for a region's median."""


def band_of_rows(grid: Grid, width: float = WIDTH) -> NDArray[np.int64]:
    """The band of each row, ``(y,)``, 0 from 90 N downwards; a row belongs where its centre lies.

    Raises:
        InputRefused: if bands of this width do not fill 180 degrees.
    """
    if width <= 0 or 180 % width:
        raise InputRefused(f"bands of {width:g} degrees do not fill the 180 degrees from pole to pole")
    bands = np.floor((90.0 - grid.latitudes) / width).astype(np.int64)
    return np.clip(bands, 0, round(180 / width) - 1)


def band_name(number: int, width: float = WIDTH) -> str:
    """``30N..20N`` for the band of this number."""
    north = 90 - number * width
    return f"{_latitude(north)}..{_latitude(north - width)}"


def weighted_median(values: Floats, weights: Floats) -> float:
    """The value that half of the weight lies below: the mean of two where the half falls between them.

    With equal weights it is the ordinary median.

    Args:
        values: ``(n,)``, NaN where missing.
        weights: positive, ``(n,)``.

    Returns:
        NaN where every value is missing.
    """
    known = ~np.isnan(values)
    if not known.any():
        return float("nan")
    order = np.argsort(values[known], kind="stable")
    rising, shares = values[known][order], np.cumsum(weights[known][order], dtype=np.float64)
    half = shares[-1] / 2
    # sums of weights that are half but for rounding count as half
    slack = shares[-1] * 1e-12
    low = int(np.searchsorted(shares, half - slack))
    high = int(np.searchsorted(shares, half + slack, side="right"))
    return (float(rising[low]) + float(rising[min(high, len(rising) - 1)])) / 2


def interpolated(medians: Floats, latitudes: Floats, width: float = WIDTH) -> NDArray[np.float64]:
    """Medians of bands as a line over latitude, ``(y,)``: exact at the bands' middles, level beyond the last ones.

    Steps at the bands' edges would show as lines on the map (interpolating is our choice). A band without a value is
    bridged; NaN everywhere where no band has one.

    Args:
        medians: of the bands from north to south, ``(band,)``, NaN where missing.
        latitudes: asked for, degrees north, ``(y,)``.
        width: of a band, degrees.
    """
    known = ~np.isnan(medians)
    if not known.any():
        return np.full(len(latitudes), np.nan)
    middles = 90.0 - width * (np.arange(len(medians)) + 0.5)
    line: NDArray[np.float64] = np.interp(latitudes, middles[known][::-1], np.asarray(medians)[known][::-1])
    return line


def _latitude(degrees: float) -> str:
    return "0" if degrees == 0 else f"{abs(degrees):g}{'N' if degrees > 0 else 'S'}"
