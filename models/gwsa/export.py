"""From trees to model.onnx, card.json and booster.ubj; nothing is written before the graph answers as the trees do.

The graph is written here from XGBoost's own JSON. onnxmltools 1.16 gives the same numbers (checked: NaN, thresholds,
base score of XGBoost 3.4), but takes six times as long for 500 trees of depth 10, makes a file 2.5 times as large, and
brings scikit-learn.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import xgboost
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from models.card import CARD_FILE, MODEL_FILE, ModelCard, Score, Training
from models.errors import ExportRefused
from models.gwsa.signature import BOOSTER_FILE, BOOSTER_NOTE, OUTPUT
from models.gwsa.train import Trees
from models.predictor import Predictor
from models.writing import describe, refuse_difference, write_files

OPSETS = {"": 20, "ai.onnx.ml": 5}
"""The first ai.onnx.ml with TreeEnsemble, which holds leaves apart from splits; the default as networks have it."""

IR_VERSION = 10

PARITY = 1e-4
"""Largest difference between graph and trees, in standard deviations of the training target (issue 5)."""

_LESS = 1  # of TreeEnsemble's node modes: BRANCH_LT; XGBoost goes left where value < threshold
_SUM = 1  # of its aggregate functions
_ROWS_PER_CALL = 4096  # measured, see README.md

type Floats = NDArray[np.float32]


def export(  # noqa: PLR0913 - what a card holds
    trees: Trees,
    directory: Path,
    *,
    name: str,
    version: str,
    description: str,
    rows: ArrayLike,
    held: str,
    table: str,
    command: str,
    synthetic: bool,
    scores: Sequence[Score],
    batch: int = _ROWS_PER_CALL,
    golden_rows: int = 8,
) -> ModelCard:
    """Write model.onnx, card.json and booster.ubj after the graph answered as the trees.

    The two are compared on the rows, on the rows with each predictor missing in turn and with all missing, and at each
    threshold of each split and the float32 on either side of it. The same trees give the same model.onnx.

    Args:
        trees: what to export.
        directory: where the files go; made if it is not there.
        name: of the model.
        version: of the model.
        description: one or two sentences for people.
        rows: held out, ``(row, feature)``, NaN is missing; a few hundred do, and each is asked ``features + 2`` times.
        held: what these rows are and how they were held out, for people; the card says it with what was found.
        table: what the training rows are, for people.
        command: makes the model again.
        synthetic: whether the training rows were made up.
        scores: how well it did on rows that it was not trained on.
        batch: rows per call of the runtime that measured fastest.
        golden_rows: rows that the card keeps, at most; every other one has a missing predictor.

    Returns:
        The card that was written.

    Raises:
        ExportRefused: if the graph differs from the trees by more than ``PARITY``; nothing was written.
        InputMismatch: if the rows are not the trees'.
    """
    asked = np.array(rows, dtype=np.float32, order="C")
    if not len(asked):
        raise ExportRefused(f"{name}: no held-out rows to compare the graph with")
    expected = trees.predict(asked)  # refuses rows of another shape
    tolerance = {OUTPUT.name: PARITY * trees.spread}
    forest = _Forest.of(trees)
    content = _to_onnx(trees, forest)
    golden = _golden(asked, golden_rows)
    card = describe(
        content,
        name=name,
        version=version,
        description=description,
        inputs=[trees.tensor],
        outputs=[OUTPUT],
        rows={trees.tensor.name: golden},
        answers={OUTPUT.name: trees.predict(golden)},
        tolerance=tolerance,
        training=Training(
            table=table,
            table_sha256=trees.table_sha256,
            rows=trees.rows,
            seed=trees.seed,
            command=command,
            synthetic=synthetic,
        ),
        scores=scores,
        batch=batch,
        made_with=f"xgboost {xgboost.__version__}",
    )
    predictor = Predictor.open(content, card)
    largest = 0.0
    for case, changed in _cases(trees, forest, asked):
        answers = expected if changed is asked else trees.predict(changed)
        found = predictor.predict(changed)
        refuse_difference(
            f"{name}: {case}", "XGBoost", expected={OUTPUT.name: answers}, found=found, tolerance=tolerance
        )
        largest = max(largest, float(np.abs(answers - found[OUTPUT.name]).max()))
    parity = Score(
        output=OUTPUT.name,
        split=f"ONNX against XGBoost: {held}",
        rows=len(asked),
        metrics={"largest_difference_cm": float(f"{largest:.0e}"), "largest_allowed_cm": tolerance[OUTPUT.name]},
        synthetic=synthetic,
    )
    card = card.model_copy(update={"scores": [*card.scores, parity]})
    write_files(directory, {BOOSTER_FILE: trees.booster, MODEL_FILE: content, CARD_FILE: card.to_json().encode()})
    return card


def _to_onnx(trees: Trees, forest: "_Forest") -> bytes:
    """The graph of trees: ``features (batch, feature)`` to ``gwsa (batch)``, NaN to the side that XGBoost learned."""
    ensemble = helper.make_node(
        "TreeEnsemble",
        ["features"],
        ["sum"],
        domain="ai.onnx.ml",
        aggregate_function=_SUM,
        post_transform=0,
        n_targets=1,
        tree_roots=forest.roots.tolist(),
        nodes_featureids=forest.feature.tolist(),
        nodes_splits=numpy_helper.from_array(forest.threshold, "thresholds"),
        nodes_modes=numpy_helper.from_array(np.full(len(forest.feature), _LESS, dtype=np.uint8), "modes"),
        nodes_truenodeids=forest.left.tolist(),
        nodes_trueleafs=forest.left_is_leaf.tolist(),
        nodes_falsenodeids=forest.right.tolist(),
        nodes_falseleafs=forest.right_is_leaf.tolist(),
        nodes_missing_value_tracks_true=forest.missing_left.tolist(),
        leaf_targetids=[0] * len(forest.leaves),
        leaf_weights=numpy_helper.from_array(forest.leaves, "leaves"),
    )
    graph = helper.make_graph(
        [
            ensemble,
            helper.make_node("Add", ["sum", "start"], ["column"]),
            helper.make_node("Squeeze", ["column", "axis"], [OUTPUT.name]),
        ],
        "trees",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", len(trees.features)])],
        [helper.make_tensor_value_info(OUTPUT.name, TensorProto.FLOAT, ["batch"])],
        [
            numpy_helper.from_array(forest.start, "start"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSETS.items()],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, {BOOSTER_NOTE: hashlib.sha256(trees.booster).hexdigest()})
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


@dataclass(frozen=True, kw_only=True)
class _Forest:
    """All trees end to end as TreeEnsemble wants them, splits ``(split,)`` and leaves ``(leaf,)`` counted apart."""

    roots: NDArray[np.int64]
    """The split at which each tree starts."""

    feature: NDArray[np.int64]
    threshold: Floats
    left: NDArray[np.int64]
    """Number of the split, or of the leaf, where the value is below the threshold."""

    left_is_leaf: NDArray[np.int64]
    right: NDArray[np.int64]
    right_is_leaf: NDArray[np.int64]
    missing_left: NDArray[np.int64]
    leaves: Floats

    start: Floats
    """What is added to the sum of leaves, ``(1,)``."""

    @classmethod
    def of(cls, trees: Trees) -> "_Forest":
        """Read XGBoost's JSON.

        Raises:
            ExportRefused: if the booster is not one that ``fit`` makes.
        """
        learner = json.loads(trees.model.save_raw("json"))["learner"]
        # a list since XGBoost 3, a number before
        start = np.array(json.loads(learner["learner_model_param"]["base_score"]), dtype=np.float32).reshape(-1)
        if start.shape != (1,):
            raise ExportRefused(f"the booster has {start.size} targets, not one")
        splits: list[NDArray[np.float64]] = []
        leaves: list[Floats] = []
        roots: list[int] = []
        split_count = leaf_count = 0
        for tree in learner["gradient_booster"]["model"]["trees"]:
            left, right = (np.array(tree[name], dtype=np.int64) for name in ("left_children", "right_children"))
            # a leaf's value stands where a split's threshold does
            value = np.array(tree["split_conditions"], dtype=np.float32)
            feature, missing_left = (np.array(tree[name], dtype=np.int64) for name in ("split_indices", "default_left"))
            if any(tree["split_type"]):
                raise ExportRefused("the booster splits on categories; the features are numbers")
            roots.append(split_count)
            is_leaf = left == -1
            if is_leaf[0]:
                # a tree needs a split: either way to the one leaf
                splits.append(np.array([[0, 0, leaf_count, 1, leaf_count, 1, 0]], dtype=np.float64).T)
                leaves.append(value[:1])
                split_count, leaf_count = split_count + 1, leaf_count + 1
                continue
            place = np.where(is_leaf, leaf_count + np.cumsum(is_leaf) - 1, split_count + np.cumsum(~is_leaf) - 1)
            at = ~is_leaf
            splits.append(
                np.stack(
                    [
                        feature[at],
                        value[at],  # float64 holds a float32 and these counts exactly
                        place[left[at]],
                        is_leaf[left[at]],
                        place[right[at]],
                        is_leaf[right[at]],
                        missing_left[at],
                    ]
                )
            )
            leaves.append(value[is_leaf])
            split_count, leaf_count = split_count + int(at.sum()), leaf_count + int(is_leaf.sum())
        columns = np.concatenate(splits, axis=1)
        feature, left, left_is_leaf, right, right_is_leaf, missing_left = columns[[0, 2, 3, 4, 5, 6]].astype(np.int64)
        return cls(
            roots=np.array(roots),
            feature=feature,
            threshold=columns[1].astype(np.float32),
            left=left,
            left_is_leaf=left_is_leaf,
            right=right,
            right_is_leaf=right_is_leaf,
            missing_left=missing_left,
            leaves=np.concatenate(leaves),
            start=start,
        )


def _cases(trees: Trees, forest: _Forest, rows: Floats) -> Iterator[tuple[str, Floats]]:
    """Rows on which the graph must answer as the trees, each with what they are."""
    yield "on held-out rows", rows
    for position, feature in enumerate(trees.features):
        changed = rows.copy()
        changed[:, position] = np.nan
        yield f"with {feature.name} missing", changed
    yield "with everything missing", np.full_like(rows[:1], np.nan)
    for position, feature in enumerate(trees.features):
        thresholds = np.unique(forest.threshold[forest.feature == position])
        down, up = (np.nextafter(thresholds, np.float32(end)) for end in (-np.inf, np.inf))
        values = np.concatenate([thresholds, down, up])
        if values.size:
            changed = np.resize(rows, (values.size, rows.shape[1]))
            changed[:, position] = values
            yield f"at the thresholds of {feature.name}", changed


def _golden(rows: Floats, count: int) -> Floats:
    """Rows from all over the held-out ones, every other with a predictor missing, the last with all of them."""
    picked: Floats = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)].copy()
    for number in range(1, len(picked), 2):
        picked[number, number // 2 % rows.shape[1]] = np.nan
    if len(picked) > 1:
        picked[-1] = np.nan
    return picked
