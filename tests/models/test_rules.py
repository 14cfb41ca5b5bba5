import numpy as np

from models.card import Feature, InputTensor
from models.rules import apply_rules


def _features(last: str) -> list[Feature]:
    return [
        Feature.model_validate(
            {
                "name": f"f{number}",
                "units": "1",
                "long_name": "a feature",
                "valid_min": -1.0 - number / 3,
                "valid_max": 0.1 + number,
                "out_of_range": "clip",
                "missing": last if number == 3 else "pass",
            }
        )
        for number in range(4)
    ]


def test_features_that_are_clipped_and_passed_on_are_what_they_are_one_by_one() -> None:
    """The last feature of the second tensor may not be missing, and is not: each is then looked at by itself."""
    values = np.random.default_rng(0).normal(scale=2, size=(50, 12, 4)).astype(np.float32)
    values[::3, 2, 1] = np.nan
    together, apart = values.copy(), values.copy()
    for last, array in (("pass", together), ("nan", apart)):
        tensor = InputTensor(name="x", shape=["batch", 12, 4], feature_axis=2, features=_features(last))
        assert not apply_rules(tensor, array).any()
    np.testing.assert_array_equal(together, apart)
    assert np.isnan(together[0, 2, 1])
    for number in range(4):
        low, high = np.float32(-1.0 - number / 3), np.float32(0.1 + number)
        assert (np.nanmin(together[:, :, number]), np.nanmax(together[:, :, number])) == (low, high)
    other_axis = InputTensor(name="x", shape=["batch", 4, 12], feature_axis=1, features=_features("pass"))
    turned = np.ascontiguousarray(values.transpose(0, 2, 1))
    apply_rules(other_axis, turned)
    np.testing.assert_array_equal(turned.transpose(0, 2, 1), together)
