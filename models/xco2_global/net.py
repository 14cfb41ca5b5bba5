"""Two bidirectional LSTM layers, additive attention over the months, a head for the value and its spread."""

import math

import torch
from torch import Tensor, nn

FLOOR = 0.05
"""Smallest spread that the network can state, ppm: our choice; a monthly cell mean is never known better."""

CEILING = 50.0
"""Largest, ppm: far from what was learned, an exponential would pass what a float holds."""


class SequenceNet(nn.Module):
    """Scales the covariates, reads the months in both directions and weighs them.

    Missing covariates become the training mean; a further channel holds the share of covariates that a month lacks.
    The attention is Bahdanau's (2015, ICLR, arXiv 1409.0473, appendix A.1.2) without a query: one answer per sequence.
    """

    feature_mean: Tensor
    feature_rate: Tensor
    target_mean: Tensor
    target_scale: Tensor

    def __init__(
        self, features: int, *, hidden: int = 64, attention: int = 32, dense: int = 64, dropout: float = 0.2
    ) -> None:
        """A network with random weights that answers the mean of the targets.

        Args:
            features: covariates of a month.
            hidden: of an LSTM in one direction.
            attention: width of the attention's layer.
            dense: width of the layer before the outputs.
            dropout: share that is dropped between the two LSTM layers while training.
        """
        super().__init__()
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_rate", torch.ones(features))
        self.register_buffer("target_mean", torch.zeros(()))
        self.register_buffer("target_scale", torch.ones(()))
        # two of one layer each: dropout then draws from torch's generator on every device
        self.first = nn.LSTM(features + 1, hidden, bidirectional=True)
        self.between = nn.Dropout(dropout)
        self.second = nn.LSTM(2 * hidden, hidden, bidirectional=True)
        self.look = nn.Linear(2 * hidden, attention)
        self.score = nn.Linear(attention, 1, bias=False)
        self.dense = nn.Linear(2 * hidden, dense)
        self.heads = nn.Linear(dense, 2)
        nn.init.zeros_(self.heads.bias)  # in units of the targets' deviation around their mean

    def set_scaling(self, mean: Tensor, deviation: Tensor, target_mean: float, target_deviation: float) -> None:
        """Take over the scaling of the training rows.

        Args:
            mean: of each covariate, ``(feature,)``.
            deviation: of each covariate, ``(feature,)``, above 0.
            target_mean: ppm.
            target_deviation: ppm, above 0.
        """
        self.feature_mean.copy_(mean)
        self.feature_rate.copy_(1 / deviation)
        self.target_mean.fill_(target_mean)
        self.target_scale.fill_(target_deviation)

    def forward(self, sequence: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict.

        Args:
            sequence: ``(batch, 12, feature)`` float32, oldest month first, raw units; NaN is missing.

        Returns:
            Departure ``(batch,)`` ppm, spread ``(batch,)`` ppm and attention ``(batch, 12)``.
        """
        missing = torch.isnan(sequence)
        scaled = torch.where(missing, 0.0, (sequence - self.feature_mean) * self.feature_rate)
        share = missing.to(sequence.dtype).mean(2, keepdim=True)
        months = torch.cat([scaled, share], dim=2).transpose(0, 1)  # month first, as LSTMs run fastest
        states, _ = self.first(months)
        states, _ = self.second(self.between(states))
        attention = torch.softmax(self.score(torch.tanh(self.look(states))), dim=0)  # (12, batch, 1)
        context = (attention * states).sum(0)
        both = self.heads(torch.relu(self.dense(context)))
        departure, log_spread = both[:, 0], both[:, 1]  # unbind would be exported as Squeeze
        variance = torch.exp(2 * log_spread.clamp(max=math.log(CEILING))) * self.target_scale**2 + FLOOR**2
        return (
            departure * self.target_scale + self.target_mean,
            torch.sqrt(variance),
            attention.flatten(1).transpose(0, 1),
        )


def negative_log_likelihood(
    departure: Tensor, spread: Tensor, seen: Tensor, error: Tensor, *, beta: float = 0.0
) -> Tensor:
    """Gaussian negative log-likelihood of each row without its constant, ``(row,)``.

    A row's variance is ``spread**2 + error**2``: its target is the true cell mean (spread) plus a retrieval error of
    known size, independent of it, so that the spread learns what the retrieval does not explain (Nix and Weigend, 1994,
    ICNN, eq. 3, with the noise of each row known in part).

    Args:
        departure: stated, ppm, ``(row,)``.
        spread: stated, ppm, ``(row,)``.
        seen: the targets, ppm, ``(row,)``.
        error: standard deviation of the targets around the true cell means, ppm, ``(row,)``.
        beta: each row counts by its variance to this power, which is not learned through (Seitzer et al., 2022, ICLR,
            arXiv 2203.09168, eq. 5): 0 is the likelihood, 1 learns the departure as squared errors would.
    """
    variance = spread**2 + error**2
    each = 0.5 * (torch.log(variance) + (seen - departure) ** 2 / variance)
    return each * variance.detach() ** beta if beta else each
