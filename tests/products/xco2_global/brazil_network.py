"""The product's network as a contestant: twelve months of what is known without soundings, three seeds."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models.xco2_global.signature import DEPARTURE, MONTHS, SPREAD
from models.xco2_global.table import ROW, Covariate, SequenceTable
from models.xco2_global.train import Settings, train
from services.products.xco2_global.table import STOPPING
from services.validation.baselines import Rows
from tests.products.xco2_global.brazil_nearby import LEARNED_FROM, Said, base_of, held, looked_at
from tests.products.xco2_global.brazil_study import SEEDS, Case, both

SETTINGS = Settings(
    hidden=16, attention=16, dense=32, dropout=0.1, epochs=8, patience=8, batch=512, rate=4e-3, beta=1.0
)
"""Small, as a core has minutes for it; ``beta`` 1 learns squared errors, which are what is scored."""

TOGETHER = 4
"""Cells along a side whose mean is learned as one row, weighted by their number: a sixth of the rows for a core."""


def networks(case: Case) -> list[Said]:
    """Each seed's, from what Mauna Loa's twelve months and the domain's season leave, as the trees."""
    there, base = base_of(case)
    table, rows = table_of(case), looked_at(case)
    seen, asked = (sequences_of(table, case, one) for one in (case.seen.take(rows), case.asked))
    answers = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            trained = train(table, SETTINGS, seed, (STOPPING,), Path(folder), device="cpu")
        here, wanted = trained.predict(seen), trained.predict(asked)
        answers.append(
            Said(
                looked_at=rows,
                there=there[rows] + here[DEPARTURE].astype(np.float64),
                there_spread=here[SPREAD].astype(np.float64),
                asked=base + wanted[DEPARTURE].astype(np.float64),
                asked_spread=wanted[SPREAD].astype(np.float64),
            )
        )
    return answers


def table_of(case: Case) -> SequenceTable:
    """Rows that are learned from and that stop; the covariates hold every cell and month of what is asked for, too."""
    whole = both(case.seen, case.asked)
    cells = _cells(case)
    step = [float(np.ptp(one)) / (len(one) - 1) for one in (case.around.latitude, case.around.longitude)]
    line, column = cells // len(case.around.longitude), cells % len(case.around.longitude)
    months = np.arange(whole.month.min() - (MONTHS - 1), whole.month.max() + 1)
    parts = []
    for month in months:
        at = Rows(
            latitude=case.around.latitude[0] + line * step[0],
            longitude=case.around.longitude[0] + column * step[1],
            month=np.full(len(cells), month),
        )
        parts.append(np.stack([*case.covariates(at).values()], axis=1).astype(np.float32))
    # a row never mixes cells that stop with cells that are learned from
    group = np.where(held(case), STOPPING, LEARNED_FROM)
    line, column = case.around.at(case.seen)
    keys = np.stack([case.seen.month, line // TOGETHER, column // TOGETHER, group], axis=1)
    _, one, member = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    count = np.bincount(member.ravel())
    rows = np.zeros(len(one), dtype=ROW)
    rows["cell"], rows["month"] = np.searchsorted(cells, _number(case, case.seen)[one]), case.seen.month[one]
    rows["target"] = np.bincount(member.ravel(), case.values - base_of(case)[0]) / count
    rows["weight"], rows["group"] = count, group[one]
    names = list(case.covariates(case.seen.take(np.zeros(1, dtype=np.int64))))
    return SequenceTable(
        description="raw OCO-2 over South America less Mauna Loa and the season",
        synthetic=False,
        covariates=tuple(Covariate(name=name, units="1", long_name=name.replace("_", " ")) for name in names),
        first_month=int(months[0]),
        values=np.stack(parts, axis=1),
        rows=rows,
    )


def sequences_of(table: SequenceTable, case: Case, rows: Rows) -> Any:
    """Of some rows of the case, ``(row, 12, covariate)``."""
    start = rows.month - table.first_month - (MONTHS - 1)
    return table.values[np.searchsorted(_cells(case), _number(case, rows))[:, None], start[:, None] + np.arange(MONTHS)]


def _number(case: Case, rows: Rows) -> Any:
    line, column = case.around.at(rows)
    return line * len(case.around.longitude) + column


def _cells(case: Case) -> Any:
    return np.unique(_number(case, both(case.seen, case.asked)))


def settings() -> dict[str, Any]:
    """For the report."""
    return {
        **asdict(SETTINGS),
        "cells_together": TOGETHER,
        "stopped_by": "one of the product's ten groups of blocks of 10 degrees and a month",
    }
