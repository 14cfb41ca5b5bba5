"""Joins the site observations to the predictors, and makes the network again from them."""

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from services.core.errors import ModelRefused
from services.core.grid import Window
from services.pipeline.recipe import Each
from services.products.sample_earth.declaration import PRODUCT
from services.products.sample_earth.features import FEATURES, features
from services.products.sample_earth.observations import Observation, read_observations
from services.products.sample_earth.predictors import Predictors

TABLE = "training.csv"


def train(
    inputs: Path,
    out: Path,
    seed: int,
    note: Callable[[str], None],
    each: Each | None = None,  # noqa: ARG001 - one small table
) -> None:
    """Write the training table of a directory of inputs, and learn weights from it; needs the train extra.

    Args:
        inputs: directory with the predictors and site_observations.csv.
        out: directory for training.csv and weights.safetensors; made if it is not there.
        seed: of the training.
        note: told of every epoch.
        each: not needed.

    Raises:
        InputRefused: if an input does not hold.
        ModelRefused: if the table cannot be learned from.
    """
    from models.sample_earth import train as learn  # noqa: PLC0415 - torch is there only where the train extra is

    out.mkdir(parents=True, exist_ok=True)
    digest = write_training_table(inputs, out / TABLE)
    note(f"{out / TABLE}: sha256 {digest}")
    try:
        learn.train(out / TABLE, out, seed, report=note)
    except ModelError as error:
        raise ModelRefused(str(error)) from error


def export(trained: Path, out: Path, note: Callable[[str], None]) -> None:
    """Write model.onnx and card.json from what ``train`` wrote; needs the train extra.

    Args:
        trained: directory with weights.safetensors.
        out: directory for the two files.
        note: told of what was written.

    Raises:
        ModelRefused: if the exported graph does not answer as the network; nothing is written then.
    """
    from models.sample_earth import train as learn  # noqa: PLC0415 - torch is there only where the train extra is

    try:
        card = learn.export(trained / learn.WEIGHTS_FILE, out)
    except ModelError as error:
        raise ModelRefused(str(error)) from error
    note(f"{out}: model {card.name} {card.version}, sha256 {card.sha256}, opset {card.opsets['ai.onnx']}")


def write_training_table(inputs: Path, table: Path) -> str:
    """Write a CSV of one row per observation: ``site, period``, the features in order, ``xco2_ppm, xco2_true_ppm``.

    Args:
        inputs: directory with the predictors and site_observations.csv.
        table: file to write. Comment lines start with #; a missing predictor is an empty cell.

    Returns:
        sha256 of the file.

    Raises:
        InputRefused: if an input does not hold; the message names file and fact.
    """
    predictors = Predictors.find(inputs)
    observations = read_observations(inputs)
    part = table.with_name(f".{table.name}.part")
    with part.open("w", newline="", encoding="utf-8") as file:
        _write(file, predictors, observations)
    part.replace(table)
    return hashlib.sha256(table.read_bytes()).hexdigest()


def _write(file: TextIO, predictors: Predictors, observations: list[Observation]) -> None:
    file.write("# synthetic: site observations of cenote's sample Earth beside the predictors of their cells\n")
    file.write("# units: " + ", ".join(f"{name} {unit}" for name, unit in FEATURES.items()) + "\n")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["site", "period", *FEATURES, "xco2_ppm", "xco2_true_ppm"])
    everywhere = Window(row=0, column=0, height=PRODUCT.grid.height, width=PRODUCT.grid.width)
    for month in sorted({one.month for one in observations}):
        seen = [one for one in observations if one.month == month]
        cells = [one.row * PRODUCT.grid.width + one.column for one in seen]
        period = str(np.datetime64(month, "M"))
        for one, values in zip(seen, features(predictors, month, everywhere)[cells], strict=True):
            writer.writerow([one.site, period, *_texts(values), f"{one.reported:.3f}", f"{one.truth:.3f}"])


def _texts(values: NDArray[np.float32]) -> list[str]:
    return ["" if np.isnan(value) else str(value) for value in values]
