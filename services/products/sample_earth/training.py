"""Joins the site observations to the predictors: the table that the network learns from."""

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from services.core.errors import InputRefused, ModelRefused, PositionOutside
from services.core.grid import Window
from services.core.time_axis import Step, start_of
from services.products.sample_earth.declaration import PRODUCT
from services.products.sample_earth.features import FEATURES, features
from services.products.sample_earth.predictors import Predictors

OBSERVATIONS = "site_observations.csv"
_COLUMNS = ["site", "longitude", "latitude", "period", "xco2_ppm", "xco2_true_ppm"]


@dataclass(frozen=True, kw_only=True)
class _Row:
    site: str
    month: int
    cell: int
    reported: str
    truth: str


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
    rows = _observations(inputs / OBSERVATIONS)
    part = table.with_name(f".{table.name}.part")
    with part.open("w", newline="", encoding="utf-8") as file:
        _write(file, predictors, rows)
    part.replace(table)
    return hashlib.sha256(table.read_bytes()).hexdigest()


def train(inputs: Path, out: Path, seed: int = 7, report: Callable[[str], None] | None = None) -> None:
    """Learn the network from a directory of inputs and write table, weights, model and card.

    Args:
        inputs: directory with the predictors and site_observations.csv.
        out: directory for training.csv, weights.safetensors, model.onnx and card.json.
        seed: of the training.
        report: told of the progress, a line at a time; None prints to stderr.

    Raises:
        InputRefused: if an input does not hold.
        ModelRefused: if the table cannot be learned from, or the exported graph does not answer as the network.
    """
    from models.sample_earth import train as learn  # noqa: PLC0415 - torch is there only where the train extra is

    out.mkdir(parents=True, exist_ok=True)
    table = out / "training.csv"
    write_training_table(inputs, table)
    try:
        learn.export(learn.train(table, out, seed, report=report), out)
    except ModelError as error:
        raise ModelRefused(str(error)) from error


def _write(file: TextIO, predictors: Predictors, rows: list[_Row]) -> None:
    file.write("# synthetic: site observations of cenote's sample Earth beside the predictors of their cells\n")
    file.write("# units: " + ", ".join(f"{name} {unit}" for name, unit in FEATURES.items()) + "\n")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["site", "period", *FEATURES, "xco2_ppm", "xco2_true_ppm"])
    everywhere = Window(row=0, column=0, height=PRODUCT.grid.height, width=PRODUCT.grid.width)
    for month in sorted({row.month for row in rows}):
        of_month = [row for row in rows if row.month == month]
        matrix = features(predictors, month, everywhere)[[row.cell for row in of_month]]
        period = str(np.datetime64(month, "M"))
        for row, values in zip(of_month, matrix, strict=True):
            writer.writerow([row.site, period, *_texts(values), row.reported, row.truth])


def _texts(values: NDArray[np.float32]) -> list[str]:
    return ["" if np.isnan(value) else str(value) for value in values]


def _observations(path: Path) -> list[_Row]:
    step = Step.parse(PRODUCT.step)
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    except (OSError, UnicodeDecodeError) as error:
        raise InputRefused(f"{path} cannot be read: {error}") from None
    reader = csv.DictReader(lines)
    if reader.fieldnames != _COLUMNS:
        raise InputRefused(f"{path}: the columns are {reader.fieldnames}, not {_COLUMNS}")
    rows: list[_Row] = []
    for number, record in enumerate(reader, start=1):
        try:
            row, column = PRODUCT.grid.locate(float(record["longitude"]), float(record["latitude"]))
            month = start_of(record["period"], step)
            float(record["xco2_ppm"]), float(record["xco2_true_ppm"])
        except (TypeError, ValueError, PositionOutside) as error:
            raise InputRefused(f"{path}, observation {number}: {error}") from None
        rows.append(
            _Row(
                site=record["site"],
                month=month,
                cell=row * PRODUCT.grid.width + column,
                reported=record["xco2_ppm"],
                truth=record["xco2_true_ppm"],
            )
        )
    if not rows:
        raise InputRefused(f"{path} holds no observation")
    return rows
