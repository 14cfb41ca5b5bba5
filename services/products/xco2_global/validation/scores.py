"""Several answers to the same question, scored on the points that all of them answer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.products.xco2_global.validation.points import Values
from services.validation import bootstrap
from services.validation.agreement import agreement
from services.validation.report import NotComputed, Rows

TOLD = ("n", "bias", "rmse", "mae", "r2", "r2_pearson", "slope")

LEVELS = (0.5, 0.68, 0.8, 0.9, 0.95, 0.99)
"""Of intervals whose coverage is told."""

INTERVAL = 0.95
"""The one that issues ask for."""


def compared(
    said: Mapping[str, Values], reference: Values, blocks: NDArray[Any] | None = None, first: str | None = None
) -> dict[str, Any]:
    """Score all on the points where none lacks a value.

    Args:
        said: ppm, ``(point,)`` for each name; one without any value is left out, and named.
        reference: ppm, ``(point,)``.
        blocks: label of each point, whose errors are alike.
        first: whose RMSE less each other's gets an interval, over drawn blocks.

    Returns:
        JSON data.

    Raises:
        NotComputed: if no point is answered by all.
    """
    silent = sorted(name for name, values in said.items() if not np.isfinite(values).any())
    heard = {name: values for name, values in said.items() if name not in silent}
    both = np.isfinite(reference)
    for values in heard.values():
        both &= np.isfinite(values)
    if not heard or not both.any():
        raise NotComputed("no point has an answer of all")
    methods: dict[str, Any] = {}
    for name, values in heard.items():
        told = agreement(values[both], reference[both]).to_json()
        methods[name] = {key: told[key] for key in TOLD}
    found: dict[str, Any] = {
        "points": int(both.sum()),
        "points_in_all": len(reference),
        "without_answer": silent,
        "methods": methods,
    }
    if blocks is not None and first is not None and first in heard:
        errors = {name: (values - reference)[both] for name, values in heard.items()}
        found["rmse_difference"] = {
            name: _difference(errors[first], other, blocks[both]) for name, other in errors.items() if name != first
        }
    return found


def table(told: Mapping[str, Any], **columns: Any) -> Rows:
    """A row for each method of what ``compared`` gives."""
    return [
        {
            **columns,
            "method": name,
            **scores,
            **{
                f"rmse_difference_{key}": value
                for key, value in told.get("rmse_difference", {}).get(name, {}).items()
                if key in {"difference", "low", "high"}
            },
        }
        for name, scores in told["methods"].items()
    ]


def _difference(errors: Values, other: Values, blocks: NDArray[Any]) -> dict[str, Any]:
    try:
        return bootstrap.rmse_difference(errors, other, blocks).to_json()
    except InputRefused as error:
        return {"not_computed": str(error)}
