"""A small multilayer perceptron that gives a value and the standard deviation of its error."""

import math

import torch
from torch import Tensor, nn

from models.sample_earth.signature import BACKGROUND, INPUTS

FLOOR = 0.3
"""Smallest standard deviation that the network can state, ppm."""

CEILING = 100.0
"""Largest, ppm: far from what was learned, an exponential would pass what a float holds."""

WIDTH = 64


class SampleEarthNet(nn.Module):
    """Two hidden layers, two heads.

    The value is the background plus a departure, so that a trend beyond the years of training is followed. Features
    are standardised inside the network, and so inside the exported graph.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        count = len(INPUTS[0].features)
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))
        self.body = nn.Sequential(nn.Linear(count - 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.heads = nn.Linear(width, 2)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Predict.

        Args:
            features: ``(row, 13)`` in the order of the card, rules applied.

        Returns:
            XCO2 and its standard deviation, ppm, each ``(row,)``.
        """
        seen = ((features - self.mean) / self.deviation)[:, BACKGROUND + 1 :]
        departure, log_sigma = self.heads(self.body(seen)).unbind(1)
        variance = torch.exp(2 * log_sigma.clamp(max=math.log(CEILING))) + FLOOR**2
        return features[:, BACKGROUND] + departure, torch.sqrt(variance)


def negative_log_likelihood(value: Tensor, sigma: Tensor, seen: Tensor) -> Tensor:
    """Mean Gaussian negative log-likelihood without its constant (Nix and Weigend, 1994, ICNN, eq. 3)."""
    return (torch.log(sigma) + 0.5 * ((seen - value) / sigma) ** 2).mean()
