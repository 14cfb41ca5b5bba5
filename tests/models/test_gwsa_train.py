import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from distributed import Client, LocalCluster
from numpy.typing import NDArray

from models.errors import InputMismatch, ModelRefused, TableRefused, TrainingRefused
from models.gwsa.train import LEAST_ROWS, Settings, Trees
from models.rules import count_outside
from tests.models.gwsa_rows import NAMES, SMALL, learn, table


@pytest.fixture(scope="module")
def trees() -> Trees:
    return learn(*table())


def test_the_trees_are_those_that_xgboost_grows_with_these_settings(trees: Trees) -> None:
    features, target = table()
    booster = xgboost.train(
        {
            "max_depth": 4,
            "eta": 0.05,
            "subsample": 0.85,
            "colsample_bytree": 0.8,
            "alpha": 0.1,
            "lambda": 0.1,
            "tree_method": "hist",
            "max_bin": 256,
            "seed": 1,
        },
        xgboost.DMatrix(features, target),
        num_boost_round=30,
    )
    np.testing.assert_array_equal(trees.predict(features), booster.predict(xgboost.DMatrix(features)))
    assert (trees.rows, trees.seed, trees.settings) == (2000, 1, SMALL)
    assert trees.spread == pytest.approx(float(np.std(target, dtype=np.float64)))
    assert np.std(trees.predict(features) - target) < 0.6 * trees.spread


def test_the_same_rows_give_the_same_bytes_on_one_thread_and_more(trees: Trees) -> None:
    features, target = table()
    for threads in (1, 2, 4):
        again = learn(features.astype(np.float64), target.astype(np.float64), threads=threads)
        assert again == trees
    assert learn(features, target, seed=2).booster != trees.booster


def test_ranges_are_those_of_the_rows_and_values_outside_count_as_the_nearer_end(trees: Trees) -> None:
    features, _ = table()
    for feature, column in zip(trees.features, features.T, strict=True):
        assert np.float32(feature.valid_min) == np.nanmin(column)
        assert np.float32(feature.valid_max) == np.nanmax(column)
        assert (feature.out_of_range, feature.missing) == ("clip", "pass")
    far = np.array([[1e6, -1e6, np.nan, np.inf], [0, 0, 0, 0]], dtype=np.float32)
    ends = far.copy()
    ends[0, [0, 1, 3]] = np.nanmax(features[:, 0]), np.nanmin(features[:, 1]), np.nanmax(features[:, 3])
    kept = far.copy()
    np.testing.assert_array_equal(trees.predict(far), trees.predict(ends))
    np.testing.assert_array_equal(far, kept)
    assert count_outside(trees.tensor, far).tolist() == [3, 0]
    assert count_outside(trees.tensor, ends).tolist() == [0, 0]


def test_a_missing_predictor_goes_where_the_trees_learned_to_send_it(trees: Trees) -> None:
    features, _ = table()
    whole, missing = features.copy(), features.copy()
    whole[:, 2], missing[:, 2] = 0.0, np.nan
    gain = float(np.mean(trees.predict(missing) - trees.predict(whole)))
    assert 2.5 < gain < 5.5  # the target is 5 cm higher where rain is missing; 30 trees learn four fifths of a step
    assert np.isfinite(trees.predict(np.full((1, 4), np.nan))).all()


def test_weights_are_those_of_the_rows() -> None:
    features, target = table()
    shifted = np.concatenate([target, target + 40])
    doubled = np.concatenate([features, features])
    weights = np.repeat([1.0, 0.0], len(target))
    learned = learn(doubled, shifted, weights=weights)
    assert abs(float(np.mean(learned.predict(features) - target))) < 0.5
    halfway = learn(doubled, shifted, weights=np.ones(len(shifted)))
    assert float(np.mean(halfway.predict(features) - target)) == pytest.approx(20, abs=1)


def test_a_column_of_one_value_has_a_range_and_splits_present_from_missing() -> None:
    features, target = table()
    features[:, 2] = np.where(np.isnan(features[:, 2]), np.nan, np.float32(7.5))
    learned = learn(features, target)
    rain = learned.features[2]
    assert rain.valid_min == 7.5
    assert np.float32(rain.valid_max) == np.nextafter(np.float32(7.5), np.float32(8))
    answers = []
    for value in (7.5, -1e9, 1e9):
        features[:, 2] = value
        answers.append(learned.predict(features))
    np.testing.assert_array_equal(answers[1], answers[0])
    np.testing.assert_array_equal(answers[2], answers[0])
    features[:, 2] = np.nan
    assert float(np.mean(learned.predict(features) - answers[0])) > 2.5


def _infinite(features: NDArray[np.float32], _: NDArray[np.float32]) -> None:
    features[3, 1] = np.inf


def _absent(features: NDArray[np.float32], _: NDArray[np.float32]) -> None:
    features[:, 1] = np.nan


def _unknown(_: NDArray[np.float32], target: NDArray[np.float32]) -> None:
    target[[4, 5]] = np.nan, np.inf


def _flat(_: NDArray[np.float32], target: NDArray[np.float32]) -> None:
    target[:] = 2.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_infinite, "ndvi is infinite in 1 of 50 rows"),
        (_absent, "ndvi has no number in any of 50 rows: leave it out"),
        (_unknown, "the target is not finite in 2 of 50 rows"),
        (_flat, r"the target is 2\.5 in each of 50 rows"),
    ],
)
def test_rows_that_cannot_be_learned_from_are_refused(change: Any, message: str) -> None:
    features, target = table(50)
    change(features, target)
    with pytest.raises(TableRefused, match=message):
        learn(features, target)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": np.zeros(49)}, "do not fit"),
        ({"features": np.zeros(50)}, "do not fit"),
        ({"weights": np.ones(49)}, "do not fit"),
        ({"weights": -np.ones(50)}, "a row's weight is negative"),
        ({"weights": np.full(50, np.nan)}, "a row's weight is negative or not finite"),
        ({"weights": np.eye(50)[0]}, "only 1 rows have a weight above 0"),
        ({"names": NAMES[:3]}, "4 columns have 3 names, 4 units and 3 long names"),
        ({"names": ["a", "a", "b", "c"]}, "a stands twice"),
        ({"names": ["a b", "a", "b", "c"]}, "'a b' does not hold: name"),
        ({"units": ["", "1", "1", "1"]}, "'elevation' does not hold: units"),
        ({"features": np.full((50, 4), 1e300)}, "elevation is infinite in 50"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    features, target = table(50)
    with pytest.raises(TableRefused, match=message):
        learn(**({"features": features, "target": target} | changes))


def test_too_few_rows_are_refused() -> None:
    features, target = table(LEAST_ROWS)
    learn(features, target)
    with pytest.raises(TableRefused, match="29 rows are too few to learn from; 30 are the least"):
        learn(features[1:], target[1:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trees": 0}, "trees must be a whole number from 1"),
        ({"depth": 21}, "depth must be a whole number from 1 to 20, not 21"),
        ({"bins": 2.5}, "bins must be a whole number"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"subsample": 1.5}, "subsample must be above 0 and at most 1"),
        ({"colsample": float("nan")}, "colsample must be above 0"),
        ({"alpha": -1.0}, "alpha must be 0 or above"),
        ({"lambda_": float("inf")}, "lambda_ must be 0 or above"),
    ],
)
def test_settings_with_which_nothing_can_be_learned_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingRefused, match=message):
        Settings(**changes)


def test_a_bad_seed_is_refused() -> None:
    with pytest.raises(TrainingRefused, match="a seed is a whole number"):
        learn(*table(50), seed=-1)


def test_rows_of_another_shape_are_refused_and_none_give_none(trees: Trees) -> None:
    with pytest.raises(InputMismatch, match=r"rows of 4 features are needed, not an array of \(2, 5\)"):
        trees.predict(np.zeros((2, 5)))
    assert trees.predict(np.empty((0, 4))).shape == (0,)


def test_written_trees_are_read_again(trees: Trees, tmp_path: Path) -> None:
    trees.write(tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["booster.ubj", "record.json"]
    again = Trees.read(tmp_path / "new")
    assert again == trees
    assert pickle.loads(pickle.dumps(trees)) == trees  # noqa: S301 - made here
    np.testing.assert_array_equal(again.predict(table()[0]), trees.predict(table()[0]))
    # the booster is XGBoost's own file
    booster = xgboost.Booster(model_file=tmp_path / "new" / "booster.ubj")
    assert (booster.num_boosted_rounds(), booster.num_features()) == (30, 4)


def test_damaged_files_are_refused(trees: Trees, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"record\.json cannot be read: No such file"):
        Trees.read(tmp_path)
    trees.write(tmp_path)
    record = json.loads((tmp_path / "record.json").read_text())
    for changes, message in (
        ({"rows": 0}, "rows: Input should be greater"),
        ({"settings": record["settings"] | {"depth": 0}}, "depth must be a whole number"),
        ({"settings": {"colour": 1}}, "unexpected keyword argument 'colour'"),
        ({"seed": "x"}, "seed: Input should be a valid integer"),
        ({"booster_sha256": "0" * 64}, "its record says 0000"),
    ):
        (tmp_path / "record.json").write_text(json.dumps(record | changes))
        with pytest.raises(ModelRefused, match=message):
            Trees.read(tmp_path)
    (tmp_path / "record.json").write_text(json.dumps(record))
    (tmp_path / "booster.ubj").write_bytes(trees.booster[:-1])
    with pytest.raises(ModelRefused, match=r"booster\.ubj has sha256"):
        Trees.read(tmp_path)


def test_what_was_learned_from_has_a_digest(trees: Trees) -> None:
    features, target = table()
    quick: dict[str, Any] = {"settings": Settings(trees=1, depth=1)}
    digests = {
        trees.table_sha256,
        learn(features, target + np.float32(1), **quick).table_sha256,
        learn(features, target, weights=np.ones(len(target)), **quick).table_sha256,
        learn(features, target, names=NAMES[::-1], **quick).table_sha256,
    }
    assert len(digests) == 4
    odd = features.view(np.uint32).copy()
    odd[np.isnan(features)] |= 1  # a NaN of other bits is the same missing value
    assert learn(odd.view(np.float32), target, **quick).table_sha256 == trees.table_sha256


def test_progress_is_told() -> None:
    lines: list[str] = []
    learn(*table(100), settings=Settings(trees=60, depth=2), report=lines.append)
    assert lines == [
        "learning 60 trees of depth 2 from 100 rows of 4 features",
        "25 of 60 trees",
        "50 of 60 trees",
        "learned 60 trees",
    ]


@pytest.fixture
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.cluster
@pytest.mark.slow
def test_two_workers_learn_as_well_as_one_machine(client: Client) -> None:
    features, target = table(8000)
    held, truth = table(4000, seed=9)
    settings = Settings(trees=100, depth=5)
    weights = np.random.default_rng(4).uniform(0.5, 1.5, len(target))
    given: dict[str, Any] = {"settings": settings, "weights": weights}
    lines: list[str] = []
    alone = learn(features, target, **given)
    together = learn(features, target, client=client, report=lines.append, **given)
    answers = [trees.predict(held) for trees in (alone, together)]
    errors = [float(np.sqrt(np.mean((answer - truth) ** 2))) for answer in answers]
    # measured: 2.5 % and 0.998; with 500 trees of depth 10 -1.2 % and 0.994
    assert errors[1] == pytest.approx(errors[0], rel=0.05)
    assert errors[0] < 0.5 * truth.std()
    assert np.corrcoef(answers[0], answers[1])[0, 1] > 0.99
    assert together.features == alone.features
    assert together.table_sha256 == alone.table_sha256
    # the docstring's claims: other trees than on one machine, the same from the same workers
    assert together.booster != alone.booster
    assert learn(features, target, client=client, **given).booster == together.booster
    # few rows leave a worker idle and are learned all the same
    few = learn(features[:40], target[:40], client=client)
    assert np.std(few.predict(features[:40]) - target[:40]) < target[:40].std()
    assert lines[-1] == "learned 100 trees"


@pytest.mark.cluster
@pytest.mark.slow
def test_a_cluster_without_workers_is_refused() -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as cluster,
        Client(cluster) as client,
        pytest.raises(TrainingRefused, match="the cluster has no worker"),
    ):
        learn(*table(50), client=client)
