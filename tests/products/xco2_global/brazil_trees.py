"""Boosted trees as one more contestant: what the network is compared with, on the same numbers."""

from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from tests.products.xco2_global.brazil_nearby import Said, base_of, held, looked_at
from tests.products.xco2_global.brazil_study import SEEDS, Case, Values

TREES: dict[str, Any] = {
    "n_estimators": 300,
    "max_depth": 5,
    "learning_rate": 0.05,
    "min_child_weight": 50,
    "subsample": 0.5,
    "colsample_bytree": 0.8,
    "tree_method": "hist",
}


def trees(case: Case) -> list[Values]:
    """XGBoost on what Mauna Loa's twelve months and the domain's season leave, from every row; ppm for each seed."""
    _, base = base_of(case)
    everything = np.ones(len(case.seen), dtype=np.bool_)
    asked = _features(case)[1]
    return [base + _said(one, asked) for one in _grown(case, everything)]


def trees_without_held(case: Case) -> list[Said]:
    """The same from the rows that the network learns from; the spread is what they leave in the others, everywhere."""
    there, base = base_of(case)
    seen, asked = _features(case)
    stops, rows = held(case), looked_at(case)
    answers = []
    for one in _grown(case, ~stops):
        left = case.values[stops] - there[stops] - _said(one, seen[stops])
        spread = float(np.sqrt(np.mean(left**2)))
        answers.append(
            Said(
                looked_at=rows,
                there=there[rows] + _said(one, seen[rows]),
                there_spread=np.full(len(rows), spread),
                asked=base + _said(one, asked),
                asked_spread=np.full(len(base), spread),
            )
        )
    return answers


def _said(grown: xgboost.Booster, features: Values) -> Values:
    # XGBoost gives (0, 0) for no rows
    found: Values = grown.predict(xgboost.DMatrix(features)).astype(np.float64).reshape(len(features))
    return found


def _features(case: Case) -> tuple[Values, Values]:
    seen, asked = (np.stack([*case.covariates(rows).values()], axis=1) for rows in (case.seen, case.asked))
    return seen, asked


def _grown(case: Case, rows: NDArray[np.bool_]) -> list[xgboost.Booster]:
    features, target = _features(case)[0][rows], (case.values - base_of(case)[0])[rows]
    # not by the class of scikit-learn's manner, which needs scikit-learn
    asked = {name: value for name, value in TREES.items() if name != "n_estimators"}
    table = xgboost.DMatrix(features, target)
    return [
        xgboost.train({**asked, "seed": seed, "nthread": 1}, table, num_boost_round=TREES["n_estimators"])
        for seed in SEEDS
    ]
