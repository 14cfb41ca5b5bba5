"""The product's network as one more contestant: twelve months of what is known without soundings, three seeds."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models.xco2_global.signature import MONTHS
from models.xco2_global.table import ROW, Covariate, SequenceTable
from models.xco2_global.train import Settings, train
from services.validation import folds
from services.validation.baselines import Rows, background_season_anomaly
from tests.products.xco2_global.brazil_study import LEARNED, SEED, SEEDS, Case, Contestant, Values, both

SETTINGS = Settings(
    hidden=16, attention=16, dense=32, dropout=0.1, epochs=4, patience=2, batch=512, rate=4e-3, beta=1.0
)
"""Small, as a core has minutes for it; ``beta`` 1 learns squared errors, which are what is scored."""

TOGETHER = 2
"""Cells along a side whose mean is learned as one row, weighted by their number: a third of the rows for a core."""

RUN, PARTS = 3, 7
"""Months that stop the training together, and folds they are dealt to, of which one does."""


def networks() -> dict[str, tuple[str, Contestant]]:
    """What `brazil_study` adds to its contestants."""
    return {"attention Bi-LSTM on Mauna Loa + season": (LEARNED, network)}


def network(case: Case) -> list[Values]:
    """Learns what Mauna Loa's twelve months and the domain's season leave, as the trees do, from the same numbers."""
    base = background_season_anomaly(
        case.seen, case.values, both(case.seen, case.asked), case.background.year_ending(), degrees=None
    )
    table = table_of(case, case.values - base[: len(case.seen)])
    asked = sequences_of(table, case)
    answers = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            trained = train(table, SETTINGS, seed, (0,), Path(folder), device="cpu")
        answers.append(base[len(case.seen) :] + trained.predict(asked)["departure"].astype(np.float64))
    return answers


def table_of(case: Case, departure: Values) -> SequenceTable:
    """Rows that are learned from; the covariates hold every cell and month of both."""
    whole = both(case.seen, case.asked)
    cells, which = _cells(case, whole)
    months = np.arange(whole.month.min() - (MONTHS - 1), whole.month.max() + 1)
    first = np.unique(which, return_index=True)[1]
    parts = []
    for month in months:
        at = Rows(longitude=whole.longitude[first], latitude=whole.latitude[first], month=np.full(len(cells), month))
        parts.append(np.stack([*case.covariates(at).values()], axis=1).astype(np.float32))
    line, column = case.around.at(case.seen)
    keys = np.stack([case.seen.month, line // TOGETHER, column // TOGETHER], axis=1)
    _, one, member = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    count = np.bincount(member.ravel())
    rows = np.zeros(len(one), dtype=ROW)
    rows["cell"], rows["month"] = which[: len(case.seen)][one], case.seen.month[one]
    rows["target"], rows["weight"] = np.bincount(member.ravel(), departure) / count, count
    rows["group"] = folds.dealt(folds.time(case.seen.month[one], RUN), PARTS, SEED)
    names = list(case.covariates(case.seen.take(np.zeros(1, dtype=np.int64))))
    return SequenceTable(
        description="raw OCO-2 over South America less Mauna Loa and the season",
        synthetic=False,
        covariates=tuple(Covariate(name=name, units="1", long_name=name.replace("_", " ")) for name in names),
        first_month=int(months[0]),
        values=np.stack(parts, axis=1),
        rows=rows,
    )


def sequences_of(table: SequenceTable, case: Case) -> Any:
    """Of the rows that are asked for, ``(row, 12, covariate)``."""
    _, which = _cells(case, both(case.seen, case.asked))
    start = case.asked.month - table.first_month - (MONTHS - 1)
    return table.values[which[len(case.seen) :, None], start[:, None] + np.arange(MONTHS)]


def _cells(case: Case, rows: Rows) -> tuple[Any, Any]:
    cells, which = np.unique(np.stack(case.around.at(rows), axis=1), axis=0, return_inverse=True)
    return cells, which.ravel()


def settings() -> dict[str, Any]:
    """For the report."""
    return {
        **asdict(SETTINGS),
        "cells_together": TOGETHER,
        "stopped_by": f"one of {PARTS} folds of runs of {RUN} months",
    }
