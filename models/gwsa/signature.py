"""What a region's model takes and gives: predictors are the user's, shape and output are the same everywhere."""

from collections.abc import Sequence

from models.card import Feature, InputTensor, OutputTensor

BOOSTER_FILE = "booster.ubj"
"""XGBoost's own form of the model, beside model.onnx."""

BOOSTER_NOTE = "booster_sha256"
"""Where model.onnx notes which booster it was made of; the card's digest vouches for both."""

OUTPUT = OutputTensor(name="gwsa", units="cm", long_name="groundwater storage anomaly", shape=["batch"])


def features_tensor(features: Sequence[Feature]) -> InputTensor:
    """The one input: rows of features, NaN where a predictor is missing."""
    return InputTensor(name="features", shape=["batch", len(features)], feature_axis=1, features=list(features))
