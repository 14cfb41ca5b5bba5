"""What the network's departures are from: a field that follows from month and place, fitted to cells with soundings."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from services.core.errors import InputRefused, ModelRefused
from services.core.grid import Grid, Window
from services.products.xco2_global.inputs import Inputs
from services.products.xco2_global.nearby import Covariance
from services.sources.carbontracker import Background as Columns

type Values = NDArray[np.float64]

DEGREE = 4
"""Of Legendre polynomials of the sine of latitude that the season has; the trend has TREND_DEGREE (our choice: 8 alone
lies nearer to the sample Earth, and network and background together further, as covariates tell less of what is left).
"""

SMOOTHNESS = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Weights of the roughness, as shares of the rows, of which ``fit`` takes the best (our choice)."""

USUAL = 1e-3
"""Of them, where no polar cap can be held out: near what the sample Earth takes (our choice)."""

BAND, CAPS = 10.0, 4
"""Degrees of a band of latitude, and bands of the largest polar cap that is held out (our choice)."""

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

    Coefficients have the least sum of squares and of the roughness of the polynomials, as smoothing splines on the
    sphere (Wahba, 1981, SIAM J. Sci. Stat. Comput. 2, 5): a free polynomial goes anywhere where no sounding ever falls,
    as at the poles in winter.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["zonal", "mauna_loa", "carbontracker"]
    co2_scale: str
    """Of the cells, and so of all that is said."""

    first_month: int
    last_month: int
    """Of the cells that it was fitted to, since 1970-01."""

    degree: int = Field(default=4, ge=TREND_DEGREE, le=40)
    """Of the polynomials; files that do not say have 4."""

    smoothness: float = Field(default=0.0, ge=0)
    """Weight of the roughness that they were fitted with; files that do not say, without it."""

    coefficients: list[float]
    rmse: float
    """Of these cells about it, ppm."""

    spread_factor: float = 1.0
    """By which the network's spread is multiplied, so that it holds in cells that it did not learn from."""

    nearby: Covariance | None = None
    """Of what the network leaves over, in units of the spread after that factor; None: not estimated."""

    subtract_offsets: bool = False
    """Whether modes and instruments had been brought to one another in the cells."""

    around: dict[str, float] = {}
    """Degrees of the neighbourhoods whose means the network takes, by covariate."""

    network: str | None = None
    """sha256 of the model.onnx that departs from it; None before it is exported."""


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
    *,
    like: Fitted | None = None,
) -> Background:
    """Fit the background of ``xco2.toml`` to cells, by weighted least squares and the roughness of polynomials.

    Args:
        inputs: opened.
        moments: months since 1970-01, as in ``Background.at``, ``(cell,)``.
        rows: of the cells, ``(cell,)``.
        columns: of the cells, ``(cell,)``.
        values: ppm, ``(cell,)``.
        weights: of each, ``(cell,)``; 1 / variance of what it departs by and its error.
        like: whose degree and smoothness are taken; None: DEGREE, and the smoothness that says most of polar caps which
            are held out for a quarter of the year.

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
        if like is None:
            blank = blank.model_copy(update={"degree": DEGREE})
        else:
            blank = blank.model_copy(update={"degree": like.degree, "smoothness": like.smoothness})

        def design(part: slice) -> Values:
            return _zonal(blank, moments[part], grid.latitudes[rows[part]], empty.series)

        middle = float(np.average(values, weights=weights))
        blocks = _Blocks.of(design, _block(months, grid.latitudes[rows]), values - middle, weights)
        rough = _roughness(blank, empty.series)
        if like is None:
            blank = blank.model_copy(update={"smoothness": _smoothest(blocks, rough)})
        coefficients = blocks.solved(np.ones(BLOCKS, dtype=np.bool_), blank.smoothness * rough)
        coefficients[0] += middle
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


@dataclass(frozen=True, kw_only=True)
class _Blocks:
    """Weighted normal equations of blocks of cells: all that a fit, or one without some blocks, needs.

    They are summed up chunk by chunk, as the design of eight million cells would be 4 GB.
    """

    normal: Values
    """``(block, column, column)``"""

    wanted: Values
    """``(block, column)``"""

    squares: Values
    """Of what is to be said, ``(block,)``."""

    weight: Values
    """``(block,)``; the sum over all is the number of rows."""

    @classmethod
    def of(
        cls, design: Callable[[slice], Values], block: NDArray[np.int64], values: Values, weights: Values
    ) -> "_Blocks":
        """Sum them up.

        Args:
            design: its rows of some cells, ``(row, column)``.
            block: of each cell, below BLOCKS, ``(cell,)``.
            values: ``(cell,)``.
            weights: ``(cell,)``.
        """
        count = design(slice(0, 1)).shape[1]
        normal, wanted = np.zeros((BLOCKS, count, count)), np.zeros((BLOCKS, count))
        squares, weight = np.zeros(BLOCKS), np.zeros(BLOCKS)
        scale = len(values) / float(weights.sum())
        for part in _chunks(len(values)):
            rows, said, scaled = design(part), values[part], weights[part] * scale
            order = np.argsort(block[part], kind="stable")
            for mine in np.split(order, np.flatnonzero(np.diff(block[part][order])) + 1):
                one = block[part][mine[0]]
                weighted = rows[mine] * scaled[mine, np.newaxis]
                normal[one] += weighted.T @ rows[mine]
                wanted[one] += weighted.T @ said[mine]
                squares[one] += scaled[mine] @ said[mine] ** 2
                weight[one] += scaled[mine].sum()
        return cls(normal=normal, wanted=wanted, squares=squares, weight=weight)

    def solved(self, kept: NDArray[np.bool_], penalty: Values) -> Values:
        """Least squares of some blocks, ``(column,)``; the first column, a constant, is free.

        Args:
            kept: ``(block,)``.
            penalty: of each coefficient's square, as a share of the rows, ``(column,)``; beside it, RIDGE * 1e-3 holds
                what nothing tells near 0.
        """
        ridge = (penalty + RIDGE * 1e-3) * self.weight[kept].sum()
        ridge[0] = 0.0
        found: Values = np.linalg.solve(self.normal[kept].sum(axis=0) + np.diag(ridge), self.wanted[kept].sum(axis=0))
        return found

    def error(self, held: NDArray[np.bool_], coefficients: Values) -> float:
        """Mean square of what coefficients leave over in some blocks."""
        normal, wanted = self.normal[held].sum(axis=0), self.wanted[held].sum(axis=0)
        left = self.squares[held].sum() - 2 * coefficients @ wanted + coefficients @ normal @ coefficients
        return float(left / self.weight[held].sum())


BANDS, QUARTERS = round(180 / BAND), 4
BLOCKS = BANDS * QUARTERS


def _block(months: NDArray[np.int64], latitude: Values) -> NDArray[np.int64]:
    """Band of latitude and quarter of the year in one number, ``(cell,)``."""
    band = np.minimum((latitude + 90.0) // BAND, BANDS - 1).astype(np.int64)
    return band * QUARTERS + months % 12 // 3


def _smoothest(blocks: _Blocks, rough: Values) -> float:
    """The weight of the roughness by which polar caps, each held out for a quarter of the year, are said best.

    What a fit is asked beyond its data is just that; bands between others do not tell it. Every cap counts alike.
    """
    number = np.arange(BLOCKS).reshape(BANDS, QUARTERS)
    caps = [cap for size in range(1, CAPS + 1) for cap in (number[:size], number[-size:])]
    held = [np.isin(number.ravel(), cap[:, quarter]) for cap in caps for quarter in range(QUARTERS)]
    held = [one for one in held if blocks.weight[one].any() and blocks.weight[~one].any()]
    if not held:
        return USUAL
    errors = [
        np.mean([blocks.error(one, blocks.solved(~one, weight * rough)) for one in held]) for weight in SMOOTHNESS
    ]
    return SMOOTHNESS[int(np.argmin(errors))]


def _chunks(count: int) -> Iterator[slice]:
    for first in range(0, count, CHUNK):
        yield slice(first, min(first + CHUNK, count))


def _whole(moments: NDArray[Any]) -> NDArray[np.int64]:
    """The months that moments are in."""
    return np.floor(np.asarray(moments, dtype=np.float64) + 0.5).astype(np.int64)


type Series = Callable[[NDArray[np.integer[Any]]], Values]


def _zonal(fitted: Fitted, months: NDArray[Any], latitude: Values, series: Series) -> Values:
    """Columns of the design, ``(row, column)``; the first is 1."""
    polynomials = np.polynomial.legendre.legvander(np.sin(np.radians(latitude)), fitted.degree)
    terms = [time[:, np.newaxis] * polynomials[:, low:high] for time, low, high in _times(fitted, months, series)]
    return np.concatenate(terms, axis=1)


def _roughness(fitted: Fitted, series: Series) -> Values:
    """Mean square over the sphere of the Laplacian of each column's polynomial, ``(column,)``.

    That of P_l is l (l + 1) times itself, and the mean of its square 1 / (2 l + 1).
    """
    times = _times(fitted, np.array([fitted.first_month]), series)
    degree = np.concatenate([np.arange(low, high) for _, low, high in times]).astype(np.float64)
    return (degree * (degree + 1)) ** 2 / (2 * degree + 1)


def _times(fitted: Fitted, months: NDArray[Any], series: Series) -> Iterator[tuple[Values, int, int]]:
    """Functions of time, ``(row,)``, each with the first degree of its polynomials and the one after the last."""
    whole, few = fitted.degree + 1, TREND_DEGREE + 1
    yield np.ones(len(months)), 0, whole  # the mean by latitude
    if fitted.kind == "mauna_loa":
        yield (series(_whole(months)) - 400.0) / 10, 0, few
    else:
        yield (months - fitted.first_month) / 120.0, 0, few
        hats = _hats(fitted, months)
        yield from ((hat, degree, degree + 1) for degree in range(few) for hat in hats.T)
    angle = 2 * np.pi * ((months % 12) + 0.5) / 12
    for harmonic in range(1, HARMONICS + 1):
        yield np.cos(harmonic * angle), 0, whole
        yield np.sin(harmonic * angle), 0, whole


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
