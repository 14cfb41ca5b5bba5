"""What every export shares: the card of a graph, the comparison of two answers, files written whole or not at all."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.card import Golden, InputTensor, ModelCard, OutputTensor, Score, Training
from models.errors import ExportRefused
from models.onnx_file import read_facts, refuse_unfit

type Floats = NDArray[np.float32]


def describe(  # noqa: PLR0913 - what a card holds
    model: bytes,
    *,
    name: str,
    version: str,
    description: str,
    inputs: Sequence[InputTensor],
    outputs: Sequence[OutputTensor],
    rows: Mapping[str, Floats],
    answers: Mapping[str, Floats],
    tolerance: Mapping[str, float],
    training: Training,
    scores: Sequence[Score],
    batch: int,
    made_with: str,
) -> ModelCard:
    """The card of a graph.

    Args:
        model: the bytes of model.onnx.
        name: of the model.
        version: of the model.
        description: one or two sentences for people.
        inputs: what the graph takes.
        outputs: what it gives, with the scaling to physical values.
        rows: the golden rows by input name; NaN is missing.
        answers: the physical outputs for them by output name, from what the graph was made of.
        tolerance: largest absolute difference by output, in its units.
        training: where the weights come from.
        scores: how well it did.
        batch: rows per call of the runtime that measured fastest.
        made_with: library that learned the weights, with its version.

    Raises:
        ModelRefused: if the graph asks for what no renderer takes.
    """
    facts = read_facts(model)
    refuse_unfit(facts)
    return ModelCard(
        name=name,
        version=version,
        description=description,
        sha256=hashlib.sha256(model).hexdigest(),
        ir_version=facts.ir_version,
        opsets=facts.opsets,
        inputs=list(inputs),
        outputs=list(outputs),
        batch=batch,
        golden=Golden(
            rows=len(next(iter(rows.values()))),
            inputs={key: numbers(values) for key, values in rows.items()},
            outputs={key: numbers(values) for key, values in answers.items()},
            tolerance=dict(tolerance),
        ),
        training=training,
        scores=list(scores),
        created_by=f"cenote {installed_version('cenote')} with {made_with}",
    )


def refuse_difference(
    where: str,
    origin: str,
    *,
    expected: Mapping[str, Floats],
    found: Mapping[str, Floats],
    tolerance: Mapping[str, float],
) -> None:
    """Refuse a graph that does not answer as what it was made of.

    Args:
        where: model and rows, for the sentence.
        origin: what the graph was made of, for the sentence.
        expected: its physical outputs by name; NaN is missing.
        found: those of the graph.
        tolerance: largest absolute difference by output, in its units.

    Raises:
        ExportRefused: if an output is missing in other rows or differs by more.
    """
    for name, values in expected.items():
        if not np.array_equal(np.isnan(values), np.isnan(found[name])):
            raise ExportRefused(f"{where}, {name} is missing in other rows than in {origin}")
        off = float(np.nanmax(np.abs(values - found[name]), initial=0.0))
        if not off <= tolerance[name]:
            raise ExportRefused(f"{where}, {name} differs from {origin} by {off:g}, more than {tolerance[name]:g}")


def numbers(values: Floats) -> list[float | None]:
    """Numbers for JSON, row-major: the shortest text that gives the same float32 back, None for NaN."""
    return [None if np.isnan(value) else float(str(value)) for value in values.ravel()]


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write all beside their places, then move them in order: the one that vouches for the others comes last.

    Args:
        directory: made if it is not there.
        files: content by name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    parts: list[tuple[Path, Path]] = []
    for name, content in files.items():
        part = directory / f".{name}.part"
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        parts.append((part, directory / name))
    for part, place in parts:
        part.replace(place)
