"""How covariates and targets are scaled, and the ranges that predictions are held to: from the rows learned from."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from models.card import Feature
from models.errors import TableRefused
from models.writing import numbers
from models.xco2_global.table import SequenceTable

_ROWS_AT_ONCE = 4096

type Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Numbers that the network keeps inside."""

    mean: Floats
    """Of each covariate, its unit, ``(covariate,)``."""

    deviation: Floats
    """Of each covariate, its unit, ``(covariate,)``; at least a hundredth of its range."""

    target_mean: float
    """By weight, ppm."""

    target_deviation: float
    """By weight, ppm."""


def measure(table: SequenceTable, rows: NDArray[np.integer[Any]]) -> tuple[list[Feature], Scaling]:
    """Ranges, means and deviations over the months of the rows learned from; missing values left out.

    Args:
        table: that holds them.
        rows: numbers of the rows.

    Returns:
        The covariates as a card describes them, and the numbers to scale by.

    Raises:
        TableRefused: if a covariate is infinite or has no number, or the target does not vary.
    """
    width = len(table.covariates)
    count, total, squares = np.zeros(width), np.zeros(width), np.zeros(width)
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    shift: NDArray[np.float64] | None = None
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = table.sequences(rows[start : start + _ROWS_AT_ONCE]).reshape(-1, width).astype(np.float64)
        missing = np.isnan(part)
        low = np.minimum(low, np.where(missing, np.inf, part).min(axis=0))
        high = np.maximum(high, np.where(missing, -np.inf, part).max(axis=0))
        _refuse_infinite(table, low, high)
        held = np.where(missing, 0.0, part)
        if shift is None:  # sums around a value near the mean lose no digits
            shift = held.sum(axis=0) / np.maximum((~missing).sum(axis=0), 1)
        held = np.where(missing, 0.0, held - shift)
        count += (~missing).sum(axis=0)
        total += held.sum(axis=0)
        squares += (held**2).sum(axis=0)
    without = [covariate.name for covariate, held in zip(table.covariates, count, strict=True) if not held]
    if without:
        raise TableRefused(
            f"{table.where}: {', '.join(without)} has no number in any of {len(rows)} rows: leave it out"
        )
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    features = _described(table, low, high)
    # one that hardly varies in the table would blow up whatever differs from it later
    least = np.array([(feature.valid_max - feature.valid_min) / 100 for feature in features])
    # one that never varies counts as its one value whatever it is: nothing is left to scale
    deviation = np.where(low == high, 1.0, np.maximum(deviation, least))
    target = table.rows["target"][rows].astype(np.float64)
    if target.min() == target.max():
        raise TableRefused(f"{table.where}: the target is {target[0]:g} in each of {len(rows)} rows: nothing to learn")
    weight = table.rows["weight"][rows].astype(np.float64)
    centre = float(np.average(target, weights=weight))
    return features, Scaling(
        mean=(mean + (0.0 if shift is None else shift)).astype(np.float32),
        deviation=deviation.astype(np.float32),
        target_mean=centre,
        target_deviation=math.sqrt(float(np.average((target - centre) ** 2, weights=weight))),
    )


def _refuse_infinite(table: SequenceTable, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
    # a column without numbers so far has the ends +inf, -inf; an infinite number the other way round
    strange = [
        covariate.name
        for covariate, a, b in zip(table.covariates, low, high, strict=True)
        if a == -math.inf or b == math.inf
    ]
    if strange:
        raise TableRefused(f"{table.where}: {', '.join(strange)} is infinite in a row")


def _described(table: SequenceTable, low: NDArray[np.float64], high: NDArray[np.float64]) -> list[Feature]:
    found = []
    for covariate, least, most in zip(table.covariates, low, high, strict=True):
        if least == most:
            most = np.nextafter(np.float32(most), np.float32(np.inf))  # noqa: PLW2901 - a range has two ends
        ends = numbers(np.array([least, most], dtype=np.float32))
        try:
            found.append(
                Feature.model_validate(
                    {
                        "name": covariate.name,
                        "units": covariate.units,
                        "long_name": covariate.long_name,
                        "valid_min": ends[0] if covariate.valid_min is None else covariate.valid_min,
                        "valid_max": ends[1] if covariate.valid_max is None else covariate.valid_max,
                        "out_of_range": "clip",
                        "missing": "pass",
                    }
                )
            )
        except ValidationError as error:
            raise TableRefused(f"{table.where}: {error.errors(include_url=False)[0]['msg']}") from None
    return found
