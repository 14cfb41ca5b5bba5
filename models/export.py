"""From a torch network to model.onnx and card.json; nothing is written before the graph answers as the network does."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from models.card import CARD_FILE, MODEL_FILE, InputTensor, ModelCard, OutputTensor, Score, Training
from models.errors import ExportRefused
from models.predictor import Predictor
from models.rules import apply_rules
from models.writing import describe, refuse_difference, write_files

OPSET = 20
"""Of ai.onnx: what the exporter makes without a conversion, and old enough for the runtimes in use."""

PARITY_BATCHES = (1, 7, 2048)
"""Rows at which the graph must answer as the network; 1 and 7 find shapes that were frozen at the example's."""

type Floats = NDArray[np.float32]


def export(  # noqa: PLR0913 - what a card holds
    network: torch.nn.Module,
    directory: Path,
    *,
    name: str,
    version: str,
    description: str,
    inputs: Sequence[InputTensor],
    outputs: Sequence[OutputTensor],
    rows: Mapping[str, Floats],
    tolerance: Mapping[str, float],
    training: Training,
    scores: Sequence[Score],
    batch: int,
    golden_rows: int = 8,
) -> ModelCard:
    """Export a network, check it against itself, and write model.onnx and card.json.

    Args:
        network: takes the inputs in order as float32 tensors, rows first, and gives the raw outputs in order.
        directory: where the two files go; made if it is not there.
        name: of the model.
        version: of the model.
        description: one or two sentences for people.
        inputs: what the graph takes.
        outputs: what it gives, with the scaling to physical values.
        rows: by input name, real rows for the parity check and, the first ``golden_rows`` of them, the golden answer;
            NaN is missing.
        tolerance: largest absolute difference by output, in its units, for parity and the golden answer.
        training: where the weights come from.
        scores: how well it did.
        batch: rows per call of the runtime that measured fastest.
        golden_rows: rows that the card keeps.

    Returns:
        The card that was written.

    Raises:
        ExportRefused: if the graph differs from the network; nothing was written.
        ModelRefused: if the graph asks for what no renderer takes.
    """
    network = network.eval()
    model = _to_onnx(network, inputs, outputs)
    golden = {tensor.name: np.asarray(rows[tensor.name][:golden_rows], dtype=np.float32) for tensor in inputs}
    card = describe(
        model,
        name=name,
        version=version,
        description=description,
        inputs=inputs,
        outputs=outputs,
        rows=golden,
        answers=_network_answers(network, inputs, outputs, golden),
        tolerance=tolerance,
        training=training,
        scores=scores,
        batch=batch,
        made_with=f"torch {torch.__version__.split('+')[0]}",
    )
    _check_parity(network, Predictor.open(model, card), rows, tolerance)
    write_files(directory, {MODEL_FILE: model, CARD_FILE: card.to_json().encode()})
    return card


def _to_onnx(network: torch.nn.Module, inputs: Sequence[InputTensor], outputs: Sequence[OutputTensor]) -> bytes:
    # two rows: the exporter takes a size of 1 for a constant
    example = tuple(torch.zeros([2 if axis == "batch" else axis for axis in tensor.shape]) for tensor in inputs)
    batch = torch.export.Dim("batch")
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                network,
                example,
                input_names=[tensor.name for tensor in inputs],
                output_names=[tensor.name for tensor in outputs],
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportRefused(f"torch cannot export the network with a free batch size: {error}") from error
        if program is None:
            raise ExportRefused("torch made no ONNX program")
        model: onnx.ModelProto = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _strip(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes about this machine: source lines, paths, node names of the Python code."""
    model.doc_string = ""
    del model.metadata_props[:]
    model.graph.doc_string = ""
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    for tensor in model.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]


def _check_parity(
    network: torch.nn.Module, predictor: Predictor, rows: Mapping[str, Floats], tolerance: Mapping[str, float]
) -> None:
    card = predictor.card
    for size in PARITY_BATCHES:
        batch = {
            tensor.name: np.resize(rows[tensor.name], (size, *rows[tensor.name].shape[1:])) for tensor in card.inputs
        }
        expected = _network_answers(network, card.inputs, card.outputs, batch)
        found = Predictor.open(predictor.source, card).predict(batch)
        refuse_difference(f"{card.name}: at batch {size}", "torch", expected=expected, found=found, tolerance=tolerance)


def _network_answers(
    network: torch.nn.Module,
    inputs: Sequence[InputTensor],
    outputs: Sequence[OutputTensor],
    rows: Mapping[str, Floats],
) -> dict[str, Floats]:
    """Physical outputs of the network itself, with the card's rules applied to its inputs."""
    arrays = [np.array(rows[tensor.name], dtype=np.float32) for tensor in inputs]
    lost = np.any([apply_rules(tensor, array) for tensor, array in zip(inputs, arrays, strict=True)], axis=0)
    for array in arrays:
        array[lost] = 0  # answered, then dropped; a NaN that is left is one that the network takes
    try:
        with torch.no_grad():
            answer = network(*(torch.from_numpy(array) for array in arrays))
    except RuntimeError as error:
        raise ExportRefused(f"the network itself does not take {len(lost)} rows: {error}") from error
    tensors: tuple[torch.Tensor, ...] = (answer,) if isinstance(answer, torch.Tensor) else tuple(answer)
    physical: dict[str, Floats] = {}
    for tensor, raw in zip(outputs, tensors, strict=True):
        expected = (len(lost), *(axis for axis in tensor.shape if axis != "batch"))
        if tuple(raw.shape) != expected:
            raise ExportRefused(f"the network gives {tensor.name} with shape {tuple(raw.shape)}, not {expected}")
        values = (raw.numpy().astype(np.float64) * tensor.scale + tensor.offset).astype(np.float32)
        if not np.isfinite(values[~lost]).all():
            raise ExportRefused(f"the network gives no finite {tensor.name} for a row of valid inputs")
        values[lost] = np.nan
        physical[tensor.name] = values
    return physical


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its own parts: deprecations inside torch and onnxscript that nobody here can act on."""
    loggers: list[Any] = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
