"""Blocks are whole, dealt evenly and by the seed alone."""

import numpy as np
import pytest

from services.core.errors import InputRefused
from services.validation import folds

RANDOM = np.random.default_rng(0)
LONGITUDE, LATITUDE = RANDOM.uniform(-180, 180, 5000), RANDOM.uniform(-90, 90, 5000)
MONTHS = RANDOM.integers(540, 600, 5000)


@pytest.mark.parametrize(
    "labels",
    [
        folds.samples(5000),
        folds.space(LONGITUDE, LATITUDE, 10),
        folds.time(MONTHS),
        folds.time(MONTHS, 3),
        folds.space_time(LONGITUDE, LATITUDE, MONTHS, 10),
    ],
    ids=["samples", "space", "years", "runs", "space and time"],
)
def test_blocks_are_whole_and_dealt_evenly_whatever_the_order(labels: np.ndarray) -> None:
    found = folds.dealt(labels, 5, seed=3)
    names = [tuple(np.atleast_1d(one)) for one in labels]
    of = dict(zip(names, found.tolist(), strict=True))
    assert [of[name] for name in names] == found.tolist()
    counts = np.bincount(list(of.values()), minlength=5)
    assert counts.max() - counts.min() <= 1
    order = RANDOM.permutation(len(labels))
    assert (folds.dealt(labels[order], 5, seed=3) == found[order]).all()
    assert (folds.dealt(labels, 5, seed=4) != found).any()


def test_blocks_are_in_the_order_of_their_labels() -> None:
    """As sorting whole rows has them, which takes more memory; parts that are negative and small types among them."""
    labels = folds.space_time(LONGITUDE, LATITUDE, MONTHS, 10)
    blocks, which = np.unique(labels, axis=0, return_inverse=True)
    expected = np.random.default_rng(3).permutation(np.arange(len(blocks)) % 7)[which.ravel()]
    for kind in (np.int64, np.int16):
        np.testing.assert_array_equal(folds.dealt(labels.astype(kind), 7, seed=3), expected)
    extremes = np.array([[-30000, 30000], [30000, -30000], [-30000, -30000], [0, 0]], dtype=np.int16)
    order = np.random.default_rng(0).permutation(np.arange(4) % 2)
    assert folds.dealt(extremes, 2, seed=0).tolist() == order[[1, 3, 0, 2]].tolist()


def test_blocks_are_where_and_when_they_say() -> None:
    at = folds.space(np.array([-180.0, 180.0, 179.9, -175.1, -175.0, 185.0]), np.array([0, 4.9, -0.1, 0, 5, 90.0]), 5)
    assert at.tolist() == [[0, 0], [0, 0], [-1, 71], [0, 0], [1, 1], [18, 1]]
    # 2015-12 and 2016-01 to 2016-12
    assert folds.time(np.array([551, 552, 563, 564])).tolist() == [45, 46, 46, 47]
    both = folds.space_time(np.zeros(3), np.zeros(3), np.array([1, 2, 3]), 5, run=2)
    assert len(np.unique(both, axis=0)) == 2


def test_a_share_of_the_blocks_is_withheld_whole() -> None:
    labels = folds.space_time(LONGITUDE, LATITUDE, MONTHS, 45, run=12)
    held = folds.withheld(labels, 0.2, seed=1)
    blocks, which = np.unique(labels, axis=0, return_inverse=True)
    share = np.bincount(which.ravel(), held) / np.bincount(which.ravel())
    assert set(share) == {0.0, 1.0}
    assert int(share.sum()) == round(0.2 * len(blocks))


def test_what_cannot_be_dealt_is_refused() -> None:
    with pytest.raises(InputRefused, match="3 blocks cannot be dealt to 5 folds"):
        folds.dealt(np.array([1, 2, 3, 3]), 5, seed=0)
    with pytest.raises(InputRefused, match="cannot be dealt to 1 folds"):
        folds.dealt(np.arange(4), 1, seed=0)
    with pytest.raises(InputRefused, match="squares of 7 degrees"):
        folds.space(LONGITUDE, LATITUDE, 7)
    with pytest.raises(InputRefused, match="a run of 0 months"):
        folds.time(MONTHS, 0)
    with pytest.raises(InputRefused, match=r"a share of 1\.0"):
        folds.withheld(np.arange(10), 1.0, seed=0)
