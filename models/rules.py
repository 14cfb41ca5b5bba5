"""What a missing number or one out of range does to a row: one place, for training and for prediction."""

import numpy as np
from numpy.typing import NDArray

from models.card import InputTensor

type Floats = NDArray[np.float32]


def apply_rules(tensor: InputTensor, values: Floats) -> NDArray[np.bool_]:
    """Apply the card's rules of each feature in place: clip, fill, lose the row, or leave NaN to the model.

    Args:
        tensor: the card's entry of the input.
        values: rows first, with the card's shape behind; NaN is missing. NaN stays NaN where it is clipped.

    Returns:
        True where a row lacks a number that it needs, ``(rows,)``.
    """
    lost = np.zeros(len(values), dtype=np.bool_)
    if tensor.only_clips:
        # nothing but ranges to keep to: in one go, a third of the time for sequences of 12 months
        np.clip(values, *tensor.ranges, out=values)
        return lost
    by_feature = np.moveaxis(values, tensor.feature_axis, 0)
    for feature, column in zip(tensor.features, by_feature, strict=True):
        least, most = np.float32(feature.valid_min), np.float32(feature.valid_max)
        if feature.out_of_range == "clip":
            np.clip(column, least, most, out=column)
            missing = np.isnan(column)
        else:
            missing = ~((column >= least) & (column <= most))
        if not missing.any():
            continue
        if feature.missing == "fill":
            column[missing] = feature.fill_value
        elif feature.missing == "pass":
            column[missing] = np.nan  # out of range too, where that counts as missing
        else:
            lost |= missing.reshape(len(values), -1).any(axis=1)
    return lost


def count_outside(tensor: InputTensor, values: Floats) -> NDArray[np.int64]:
    """How many numbers of each row lie outside the card's ranges; asked before ``apply_rules`` changes them.

    Args:
        tensor: the card's entry of the input.
        values: rows first, with the card's shape behind; NaN is missing, and outside nothing.

    Returns:
        ``(rows,)``.
    """
    found = np.zeros(len(values), dtype=np.int64)
    by_feature = np.moveaxis(values, tensor.feature_axis, 0)
    for feature, column in zip(tensor.features, by_feature, strict=True):
        outside = (column < np.float32(feature.valid_min)) | (column > np.float32(feature.valid_max))
        found += np.count_nonzero(outside.reshape(len(values), -1), axis=1)
    return found
