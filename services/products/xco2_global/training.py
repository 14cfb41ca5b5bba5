"""Learns the network from the inputs, finds how far its spread holds, and exports it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.card import Score
from models.errors import ModelError, TableRefused
from models.xco2_global.table import SequenceTable
from services.core.errors import InputRefused, ModelRefused
from services.pipeline.recipe import Each, Here
from services.products.xco2_global.background import Fitted
from services.products.xco2_global.inputs import Inputs
from services.products.xco2_global.network import BACKGROUND_FILE
from services.products.xco2_global.observed import prepare
from services.products.xco2_global.residuals import Residuals, of_whole_months, spread_factor
from services.products.xco2_global.table import BLOCK, SCORED, STOPPING, drawn, fitted, seen, tabulate

type Floats = NDArray[np.float32]
type Note = Callable[[str], None]

TABLE, SCORES = "table", "scores.json"
"""Beside what the network writes itself."""

MOST_SCORED = 20_000
"""Rows that scores are of, drawn evenly."""


def train(inputs: Path, out: Path, seed: int, note: Note, each: Each | None = None) -> None:
    """Make cells, fit the background, tabulate and learn; needs the train extra. Taken up again where it was ended.

    Args:
        inputs: directory with xco2.toml.
        out: for the table, checkpoints, the network, background.json and scores.json; made if it is not there.
        seed: of folds, draws and first weights.
        note: told how far it is.
        each: does work on workers; None: in this process.

    Raises:
        InputRefused: if an input does not hold, or has too few cells.
        ModelRefused: if nothing can be learned.
    """
    from models.xco2_global.train import Settings  # noqa: PLC0415 - torch is there only where the train extra is
    from models.xco2_global.train import train as learn  # noqa: PLC0415

    do = each or Here()
    found = Inputs.find(inputs).hashed()
    cells = seen(found, prepare(found, do, note), seed)
    background = fitted(found, cells)
    cells = drawn(found, cells, background, seed)
    note(f"background ({background.fitted.kind}): {len(cells)} cells lie {background.fitted.rmse:.3f} ppm about it")
    asked = found.settings.training
    try:
        table = tabulate(found, cells, background, out / TABLE, do, note)
        trained = learn(
            table,
            Settings(
                hidden=asked.hidden, epochs=asked.epochs, patience=asked.patience, batch=asked.batch, rate=asked.rate
            ),
            seed,
            (STOPPING,),
            out,
            note,
            withheld_groups=(SCORED,),
        )
    except ModelError as error:
        raise (InputRefused if isinstance(error, TableRefused) else ModelRefused)(f"{inputs}: {error}") from error
    stopping = _rows(table, STOPPING, seed)
    said = trained.predict(table.sequences(stopping))
    held = table.rows[stopping]
    factor = spread_factor(held["target"] - said["departure"], said["spread"], held["error"])
    rows = of_whole_months(cells.month, seed)
    said = trained.predict(table.sequences(rows))
    left = table.rows["target"][rows] - said["departure"]
    residuals = Residuals.of(cells.take(rows), left, said["spread"] * factor, found.settings.grid)
    covariance = residuals.covariance()
    subtracted = found.settings.soundings.subtract_offsets
    told = background.fitted.model_copy(
        update={
            "spread_factor": factor,
            "nearby": covariance,
            "subtract_offsets": subtracted,
            "around": found.settings.around,
        }
    )
    (out / BACKGROUND_FILE).write_text(told.model_dump_json(indent=1) + "\n", encoding="utf-8")
    rows = _rows(table, SCORED, seed)
    said = trained.predict(table.sequences(rows))
    scores = _scores(table.rows[rows], said["departure"], said["spread"] * factor)
    nearby = residuals.scores(covariance)
    written = {**scores, "told_from_nearby": nearby}
    (out / SCORES).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    note(
        f"held-out blocks: {scores['rmse_ppm']:.3f} ppm against soundings' cells, the background alone "
        f"{scores['rmse_of_background_ppm']:.3f}; spread times {factor:.3f}"
    )
    note(
        f"told from cells nearby: {nearby['rmse_ppm']:.3f} ppm where the network alone has "
        f"{nearby['rmse_of_the_network_alone_ppm']:.3f}; signal {covariance.variance:.2f}, rest {covariance.rest:.2f} "
        f"of the spread's variance; deviation times {covariance.factor:.3f}"
    )


def export(trained: Path, out: Path, note: Note) -> None:
    """Write model.onnx, card.json and background.json from what ``train`` wrote.

    Args:
        trained: directory of ``train``.
        out: made if it is not there.
        note: told of what was written.

    Raises:
        ModelRefused: if a file does not hold, or the graph does not answer as the network.
    """
    from models.xco2_global import export as exporting  # noqa: PLC0415 - torch is there only with the train extra
    from models.xco2_global.train import Trained  # noqa: PLC0415

    try:
        fitted_then = Fitted.model_validate_json((trained / BACKGROUND_FILE).read_bytes())
        scores: dict[str, Any] = json.loads((trained / SCORES).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{trained} is not what `cenote train xco2_global` writes ({error})") from None
    try:
        network, table = Trained.read(trained), SequenceTable.read(trained / TABLE)
        synthetic = network.record.synthetic
        count, _ = int(scores.pop("cells")), scores.pop("told_from_nearby")
        card = exporting.export(
            network,
            out,
            rows=table.sequences(_rows(table, SCORED, network.record.seed)),
            command="cenote train xco2_global",
            scores=[
                Score(
                    output="departure",
                    split=f"cells with soundings in held-out blocks of {BLOCK:g} degrees and a month",
                    rows=count,
                    metrics=scores,
                    synthetic=synthetic,
                )
            ],
        )
    except ModelError as error:
        raise ModelRefused(str(error)) from error
    told = fitted_then.model_copy(update={"network": card.sha256})
    (out / BACKGROUND_FILE).write_text(told.model_dump_json(indent=1) + "\n", encoding="utf-8")
    note(f"{out}: model {card.name}, sha256 {card.sha256}")


def _rows(table: SequenceTable, group: int, seed: int) -> NDArray[np.int64]:
    rows = np.flatnonzero(table.rows["group"] == group)
    if len(rows) <= MOST_SCORED:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, MOST_SCORED, replace=False))


def _scores(rows: NDArray[Any], departure: Floats, spread: Floats) -> dict[str, float]:
    residual = (rows["target"] - departure).astype(np.float64)
    sigma = np.sqrt(spread.astype(np.float64) ** 2 + rows["error"].astype(np.float64) ** 2)
    return {
        "cells": float(len(rows)),
        "rmse_ppm": round(float(np.sqrt(np.mean(residual**2))), 4),
        "bias_ppm": round(float(-residual.mean()), 4),
        "rmse_of_background_ppm": round(float(np.sqrt(np.mean(rows["target"].astype(np.float64) ** 2))), 4),
        "within_95_percent_interval": round(float((np.abs(residual) <= 1.96 * sigma).mean()), 4),
    }
