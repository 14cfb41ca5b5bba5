"""Made-up tables of sequences from which the attention network of XCO2 can learn something, in seconds."""

import numpy as np

from models.xco2_global.table import Covariate, SequenceTable, make_rows
from models.xco2_global.train import Settings

FIRST_MONTH = 540
"""2015-01."""

TINY = Settings(hidden=8, attention=4, dense=8, epochs=4, batch=128, dropout=0.1)


def made_up(
    rows: int = 1500, cells: int = 120, months: int = 36, seed: int = 0, *, shuffled: bool = False
) -> SequenceTable:
    """Targets that depend on three covariates of several months; the fourth is noise, the fifth still.

    A tenth of the covariates is missing, and the truth is spread by 0.4 ppm around what all of them together would say.
    """
    random = np.random.default_rng(seed)
    values = np.empty((cells, months, 5), dtype=np.float32)
    for month in range(months):
        fresh = random.normal(size=(cells, 5))
        values[:, month] = fresh if month == 0 else 0.7 * values[:, month - 1] + 0.7 * fresh
    values[:, :, 4] = values[:, :1, 4]
    values = values * np.array([1, 10, 0.1, 1, 300], dtype=np.float32) + np.array([0, 280, 0, 0, 500], dtype=np.float32)
    cell = random.integers(0, cells, rows)
    last = random.integers(11, months, rows)
    scaled = (values - np.array([0, 280, 0, 0, 500])) / np.array([1, 10, 0.1, 1, 300])
    truth = (
        1.5 * scaled[cell, last, 0]
        + scaled[cell, last - 1, 1]
        + 0.7 * scaled[cell, last - 5, 2] * scaled[cell, last, 4]
        + 2.0
        + random.normal(scale=0.4, size=rows)
    )
    error = random.uniform(0.2, 1.0, rows)
    values[random.random(values.shape) < 0.1] = np.nan
    if shuffled:
        values = values[random.permutation(cells)]
    return SequenceTable(
        description="made-up sequences",
        synthetic=True,
        covariates=tuple(
            Covariate(name=f"covariate{number}", units=units, long_name=f"covariate {number}")
            for number, units in enumerate(("1", "K", "1", "1", "m"))
        ),
        first_month=FIRST_MONTH,
        values=values,
        rows=make_rows(
            {
                "cell": cell,
                "month": FIRST_MONTH + last,
                "target": truth + random.normal(scale=error),
                "error": error,
                "group": cell % 10,
            }
        ),
    )
