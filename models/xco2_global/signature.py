"""What the network takes and gives, whatever the covariates are."""

from collections.abc import Sequence

from models.card import Feature, InputTensor, OutputTensor

MONTHS = 12
"""Of a sequence; the last is the month asked for, the first eleven months before it."""

INPUT = "sequence"
DEPARTURE, SPREAD, ATTENTION = "departure", "spread", "attention"

OUTPUTS = (
    OutputTensor(
        name=DEPARTURE, units="1e-6", long_name="departure of monthly XCO2 from the background", shape=["batch"]
    ),
    OutputTensor(
        name=SPREAD,
        units="1e-6",
        long_name="standard deviation of the true monthly mean of the cell around it",
        shape=["batch"],
    ),
    OutputTensor(name=ATTENTION, units="1", long_name="share of each month in the answer", shape=["batch", MONTHS]),
)


def sequence_tensor(features: Sequence[Feature]) -> InputTensor:
    """The card's entry of the sequences, ``(batch, 12, feature)``, raw units, oldest month first.

    Args:
        features: in order.
    """
    return InputTensor(name=INPUT, shape=["batch", MONTHS, len(features)], feature_axis=2, features=list(features))
