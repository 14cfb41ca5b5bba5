"""What the network's departures are from: a field that follows from month and place, fitted to cells with soundings."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from services.core.errors import InputRefused, ModelRefused
from services.core.grid import Grid, Window
from services.products.xco2_global.inputs import Inputs
from services.products.xco2_global.nearby import Covariance
from services.sources.carbontracker import Background as Columns

type Values = NDArray[np.float64]

DEGREE = 4
"""Of Legendre polynomials of the sine of latitude that the season has; the trend has TREND_DEGREE (our choice)."""

TREND_DEGREE = 1
HARMONICS = 2
"""Of the year (our choice; NOAA's curve fitting takes four, of one site's daily values)."""

KNOT_MONTHS = 12
"""Between the knots of the departure from a straight trend (our choice)."""

RIDGE = 1e-3
"""Weight that holds a coefficient that no cell tells near 0, as a share of the rows."""

CHUNK = 1 << 14
"""Cells whose design is held at a time: some 20 MB with its parts."""


class Fitted(BaseModel):
    """``background.json``: what was fitted; predictions need nothing else but the files of its kind.

    zonal: X = sum_k a_k B_k(t) P_j + harmonics x P_j: a linear trend with latitude, piecewise linear departures from it
    that stay what they are beyond the months that were fitted, and a season by latitude.
    mauna_loa: the same with the mean of the twelve months at Mauna Loa that end with the month, instead of trend and
    departures. carbontracker: its column and one offset.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["zonal", "mauna_loa", "carbontracker"]
    co2_scale: str
    """Of the cells, and so of all that is said."""

    first_month: int
    last_month: int
    """Of the cells that it was fitted to, since 1970-01."""

    coefficients: list[float]
    rmse: float
    """Of these cells about it, ppm."""

    spread_factor: float = 1.0
    """By which the network's spread is multiplied, so that it holds in cells that it did not learn from."""

    nearby: Covariance | None = None
    """Of what the network leaves over, in units of the spread after that factor; None: not estimated."""


@dataclass(frozen=True, kw_only=True)
class Background:
    """A fitted background and the series or columns that it is made of."""

    fitted: Fitted
    inputs: Inputs

    def field(self, month: int, grid: Grid, window: Window) -> Values:
        """Parts per million in the cells of a window, ``(y, x)``; NaN where the columns of its kind have none."""
        if self.fitted.kind == "carbontracker":
            return self._model.read(month, grid, window).astype(np.float64) + self.fitted.coefficients[0]
        latitude = grid.latitudes[window.rows]
        rows = _zonal(self.fitted, np.full(latitude.shape, month), latitude, self.series) @ self._coefficients
        return np.broadcast_to(rows[:, np.newaxis], window.shape).copy()

    def at(self, moments: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any], grid: Grid) -> Values:
        """Parts per million in cells, one a row of the arguments.

        Args:
            moments: months since 1970-01; a whole one is the month's mean, a broken one lies so much of a month
                before or after its middle: trend and season move on meanwhile, series and columns do not.
            rows: of the cells.
            columns: of the cells.
            grid: of the cells.
        """
        found = np.full(len(rows), np.nan)
        if self.fitted.kind != "carbontracker":
            for part in _chunks(len(found)):
                latitude = grid.latitudes[rows[part]]
                found[part] = _zonal(self.fitted, moments[part], latitude, self.series) @ self._coefficients
            return found
        months = _whole(moments)
        for month in np.unique(months):
            of = months == month
            said = self._model.cells(int(month), grid, rows[of], columns[of])
            found[of] = said.astype(np.float64) + self.fitted.coefficients[0]
        return found

    @property
    def _coefficients(self) -> Values:
        return np.array(self.fitted.coefficients)

    @property
    def _model(self) -> Columns:
        if self.inputs.columns is None:
            raise ModelRefused(
                f"the model's background is CarbonTracker's columns, and {self.inputs.directory} has none"
            )
        return self.inputs.columns

    def series(self, months: NDArray[np.integer[Any]]) -> Values:
        """Mean of the twelve months at Mauna Loa that end with each month, ppm."""
        if self.inputs.mauna_loa is None:
            raise ModelRefused(f"the model's background is Mauna Loa's series, and {self.inputs.directory} has none")
        monthly = self.inputs.mauna_loa
        means = []
        known, which = np.unique(months, return_inverse=True)
        for month in known:
            values = [monthly.at(int(month) - back) for back in range(12)]
            if np.isnan(values).any():
                raise InputRefused(
                    f"{monthly.document.name} lacks one of the twelve months up to {np.datetime64(int(month), 'M')}"
                )
            means.append(np.mean(values))
        return np.array(means)[which]


def fit(
    inputs: Inputs,
    moments: NDArray[Any],
    rows: NDArray[Any],
    columns: NDArray[Any],
    values: Values,
    weights: Values,
) -> Background:
    """Fit the background of ``xco2.toml`` to cells, by weighted least squares.

    Args:
        inputs: opened.
        moments: months since 1970-01, as in ``Background.at``, ``(cell,)``.
        rows: of the cells, ``(cell,)``.
        columns: of the cells, ``(cell,)``.
        values: ppm, ``(cell,)``.
        weights: of each, ``(cell,)``; 1 / variance of what it departs by and its error.

    Raises:
        InputRefused: if nothing can be fitted, or the series or columns lack a month.
    """
    if len(values) < 100:
        raise InputRefused(f"{inputs.directory}: {len(values)} cells with soundings are too few to fit a background to")
    grid, kind = inputs.settings.grid, inputs.settings.background.kind
    months = _whole(moments)
    blank = Fitted(
        kind=kind,
        co2_scale=inputs.soundings.scale,
        first_month=int(months.min()),
        last_month=int(months.max()),
        coefficients=[0.0],
        rmse=0.0,
    )
    empty = Background(fitted=blank, inputs=inputs)
    if kind == "carbontracker":
        departures = values - empty.at(moments, rows, columns, grid)
        known = ~np.isnan(departures)
        coefficients = np.array([np.average(departures[known], weights=weights[known])])
        left = departures[known] - coefficients[0]
        squares = float(np.average(left**2, weights=weights[known]))
    else:

        def design(part: slice) -> Values:
            return _zonal(blank, moments[part], grid.latitudes[rows[part]], empty.series)

        coefficients = _solved(design, values, weights)
        squares = 0.0
        for part in _chunks(len(values)):
            squares += float(weights[part] @ (values[part] - design(part) @ coefficients) ** 2)
        squares /= float(weights.sum())
    told = blank.model_copy(
        update={
            "coefficients": [float(one) for one in coefficients],
            "rmse": float(np.sqrt(squares)),
        }
    )
    return Background(fitted=told, inputs=inputs)


def _solved(design: Callable[[slice], Values], values: Values, weights: Values) -> Values:
    """Least squares, coefficients that nothing tells near 0; the first column, a constant, is free.

    The normal equations are summed up chunk by chunk: the design of eight million cells would be 2.5 GB.

    Args:
        design: its rows of some cells, ``(row, column)``.
        values: ``(cell,)``.
        weights: ``(cell,)``.
    """
    middle, scale = float(np.average(values, weights=weights)), len(values) / weights.sum()
    normal: Values = np.zeros(())
    wanted: Values = np.zeros(())
    for part in _chunks(len(values)):
        rows = design(part)
        weighted = rows * (weights[part] * scale)[:, np.newaxis]
        normal = normal + rows.T @ weighted
        wanted = wanted + weighted.T @ (values[part] - middle)
    ridge = np.full(len(normal), RIDGE * len(values) * 1e-3)
    ridge[0] = 0.0
    found: Values = np.linalg.solve(normal + np.diag(ridge), wanted)
    found[0] += middle
    return found


def _chunks(count: int) -> Iterator[slice]:
    for first in range(0, count, CHUNK):
        yield slice(first, min(first + CHUNK, count))


def _whole(moments: NDArray[Any]) -> NDArray[np.int64]:
    """The months that moments are in."""
    return np.floor(np.asarray(moments, dtype=np.float64) + 0.5).astype(np.int64)


def _zonal(
    fitted: Fitted,
    months: NDArray[Any],
    latitude: Values,
    series: Callable[[NDArray[np.integer[Any]]], Values],
) -> Values:
    """Columns of the design, ``(row, column)``; the first is 1."""
    polynomials = np.polynomial.legendre.legvander(np.sin(np.radians(latitude)), DEGREE)
    terms = [polynomials]  # the mean by latitude
    if fitted.kind == "mauna_loa":
        grown = series(_whole(months)) - 400.0
        terms.append((grown / 10)[:, np.newaxis] * polynomials[:, : TREND_DEGREE + 1])
    else:
        years = (months - fitted.first_month) / 12.0
        terms.append((years / 10)[:, np.newaxis] * polynomials[:, : TREND_DEGREE + 1])
        hats = _hats(fitted, months)
        if hats.shape[1]:
            terms.extend(hats * polynomials[:, [degree]] for degree in range(TREND_DEGREE + 1))
    angle = 2 * np.pi * ((months % 12) + 0.5) / 12
    for harmonic in range(1, HARMONICS + 1):
        terms.append(np.cos(harmonic * angle)[:, np.newaxis] * polynomials)
        terms.append(np.sin(harmonic * angle)[:, np.newaxis] * polynomials)
    return np.concatenate(terms, axis=1)


def _hats(fitted: Fitted, months: NDArray[Any]) -> Values:
    """Piecewise linear functions of time, 1 at one inner knot and 0 at the others; beyond the ends as at them."""
    last = fitted.last_month - fitted.first_month
    count = last // KNOT_MONTHS
    if count < 2:
        return np.zeros((len(months), 0))
    knots = np.linspace(0, last, count + 1)
    place = np.clip(np.asarray(months, dtype=np.float64) - fitted.first_month, 0, last)
    # those at both ends are left to constant and trend
    return np.stack([np.interp(place, knots, one) for one in np.eye(count + 1)[1:-1]], axis=1)
