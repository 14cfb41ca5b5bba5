"""The attention network of XCO2 written a second time, in float64 numpy, from the definitions of its layers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.xco2_global.net import CEILING, FLOOR

type Doubles = NDArray[np.float64]


def _sigmoid(x: Doubles) -> Doubles:
    return 1 / (1 + np.exp(-x))


def _lstm(months: Doubles, weights: dict[str, Doubles], layer: str) -> Doubles:
    """Both directions, ``(batch, month, input)`` to ``(batch, month, 2 hidden)``, with a forget gate."""
    both = []
    for suffix, order in (("", range(months.shape[1])), ("_reverse", range(months.shape[1] - 1, -1, -1))):
        of = {key: weights[f"{layer}.{key}_l0{suffix}"] for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        hidden = of["weight_hh"].shape[1]
        h, c = np.zeros((len(months), hidden)), np.zeros((len(months), hidden))
        states = np.empty((len(months), months.shape[1], hidden))
        for month in order:
            gates = months[:, month] @ of["weight_ih"].T + of["bias_ih"] + h @ of["weight_hh"].T + of["bias_hh"]
            enter, forget, new, leave = np.split(gates, 4, axis=1)
            c = _sigmoid(forget) * c + _sigmoid(enter) * np.tanh(new)
            h = _sigmoid(leave) * np.tanh(c)
            states[:, month] = h
        both.append(states)
    return np.concatenate(both, axis=2)


def forward(sequences: Any, state: dict[str, Any]) -> tuple[Doubles, Doubles, Doubles]:
    """Departure, spread and attention for sequences whose rules were applied.

    Args:
        sequences: ``(row, 12, feature)``, NaN is missing.
        state: the network's, as arrays.
    """
    weights = {name: np.asarray(value, dtype=np.float64) for name, value in state.items()}
    raw = np.asarray(sequences, dtype=np.float64)
    scaled = np.nan_to_num((raw - weights["feature_mean"]) * weights["feature_rate"], nan=0.0)
    months = np.concatenate([scaled, np.isnan(raw).mean(axis=2, keepdims=True)], axis=2)
    states = _lstm(_lstm(months, weights, "first"), weights, "second")
    energy = np.tanh(states @ weights["look.weight"].T + weights["look.bias"]) @ weights["score.weight"][0]
    shares = np.exp(energy - energy.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    context = np.einsum("bt,bth->bh", shares, states)
    dense = np.maximum(context @ weights["dense.weight"].T + weights["dense.bias"], 0)
    raw_departure, log_spread = (dense @ weights["heads.weight"].T + weights["heads.bias"]).T
    scale = weights["target_scale"]
    spread = np.hypot(np.exp(np.minimum(log_spread, np.log(CEILING))) * scale, FLOOR)
    return raw_departure * scale + weights["target_mean"], spread, shares
