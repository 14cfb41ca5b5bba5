"""From a trained network to model.onnx and card.json; nothing is written before both answer alike."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.card import ModelCard, Score, Training
from models.errors import ExportRefused, InputMismatch
from models.export import export as export_network
from models.xco2_global.signature import ATTENTION, DEPARTURE, INPUT, MONTHS, OUTPUTS, SPREAD, sequence_tensor
from models.xco2_global.train import Trained

TOLERANCE = {DEPARTURE: 1e-4, SPREAD: 1e-4, ATTENTION: 1e-5}
"""Largest difference between graph and network: ppm (issue 6, before any background is added), and a share."""

ROWS_PER_CALL = 128
"""Measured, see README.md."""

_GOLDEN = 8
_ASKED = 2048

type Floats = NDArray[np.float32]


def export(  # noqa: PLR0913 - what a card holds
    trained: Trained,
    directory: Path,
    *,
    rows: ArrayLike,
    command: str,
    version: str = "1",
    name: str = "xco2_global",
    description: str | None = None,
    scores: Sequence[Score] = (),
    batch: int = ROWS_PER_CALL,
) -> ModelCard:
    """Write model.onnx and card.json after the graph answered as the network.

    The two are compared at 1, 7 and 2048 rows: real ones, each beside itself without one
    covariate, and one without any.

    Args:
        trained: what to export.
        directory: where the two files go; made if it is not there.
        rows: held-out sequences, ``(row, 12, feature)``, raw units, NaN is missing; a thousand do.
        command: makes the model again.
        version: of the model.
        name: of the model.
        description: one or two sentences for people; None writes them from the record.
        scores: how well it did on rows that it was not trained on.
        batch: rows per call of the runtime that measured fastest.

    Returns:
        The card that was written.

    Raises:
        ExportRefused: if the graph differs from the network by more than ``TOLERANCE``; nothing was written.
        InputMismatch: if the rows are not the network's.
    """
    record = trained.record
    held = np.array(rows, dtype=np.float32)
    if held.ndim != 3 or held.shape[1:] != (MONTHS, len(trained.features)):
        raise InputMismatch(f"sequences (row, {MONTHS}, {len(trained.features)}) are needed, not {held.shape}")
    if not len(held):
        raise ExportRefused(f"{name}: no held-out rows to compare the graph with")
    return export_network(
        trained.network(),
        directory,
        name=name,
        version=version,
        description=description or _description(trained),
        inputs=[sequence_tensor(trained.features)],
        outputs=OUTPUTS,
        rows={INPUT: _asked(held)},
        tolerance=TOLERANCE,
        training=Training(
            table=record.table,
            table_sha256=record.table_sha256,
            rows=record.rows,
            seed=record.seed,
            command=command,
            synthetic=record.synthetic,
        ),
        scores=scores,
        batch=batch,
        golden_rows=_GOLDEN,
    )


def _asked(held: Floats) -> Floats:
    """Real rows from all over, every other one without a covariate, the fourth without any: golden and parity rows."""
    real = held[np.linspace(0, len(held) - 1, min(len(held), _ASKED // 2)).astype(int)]
    asked: Floats = np.repeat(real, 2, axis=0)
    for row in range(1, len(asked), 2):
        asked[row, :, (row // 2) % held.shape[2]] = np.nan
    if len(asked) > 3:
        asked[3] = np.nan
    return asked


def _description(trained: Trained) -> str:
    settings = trained.settings
    return (
        "Departure of monthly XCO2 from a background that is added afterwards, and the standard deviation of the true "
        f"cell mean around it: two bidirectional LSTM layers ({settings.hidden} each way) over {MONTHS} months of "
        f"{len(trained.features)} covariates, additive attention."
        + (" A demonstration: learned from made-up observations." if trained.record.synthetic else "")
    )
