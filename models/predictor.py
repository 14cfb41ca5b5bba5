"""Predictions in batches from a model and its card, on one thread; safe to send to worker processes."""

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import onnxruntime
from numpy.typing import ArrayLike, NDArray

from models.card import MODEL_FILE, InputTensor, ModelCard, OutputTensor
from models.errors import InputMismatch, ModelRefused, PredictionFailed
from models.onnx_file import OnnxFacts, read_facts, refuse_unfit
from models.rules import apply_rules

type Floats = NDArray[np.float32]
type Arrays = Mapping[str, ArrayLike]


class Runner(Protocol):
    """What computes raw outputs from tensors: a session of onnxruntime, or whatever answers as one."""

    def run(self, names: list[str], feeds: dict[str, Floats], /) -> list[Floats]:
        """The outputs of these names for inputs by name."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A model that was checked against its card.

    It pickles to the card and the place of the model, never to a session. Each process that predicts reads the model
    again, checks its digest and golden answer, and builds one session for it, which its threads share; a forked child
    builds its own.
    """

    card: ModelCard
    """What the model takes and gives."""

    source: Path | bytes
    """Directory that holds model.onnx, or its bytes."""

    batch: int
    """Rows per call of the runtime."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputMismatch(f"a batch holds at least one row, not {self.batch}")

    @classmethod
    def open(
        cls,
        source: Path | str | bytes,
        card: ModelCard | None = None,
        *,
        sha256: str | None = None,
        batch: int | None = None,
    ) -> Self:
        """Check a model's bytes, its card and their agreement; the session is built at the first prediction.

        Args:
            source: directory with model.onnx and card.json, or the bytes of model.onnx.
            card: the card; read from the directory where it is None.
            sha256: digest of model.onnx that the caller planned with, if any.
            batch: rows per call of the runtime; the card's where it is None.

        Raises:
            ModelRefused: if card, digest, opset, domains or external data do not hold.
        """
        place = source if isinstance(source, bytes) else Path(source)
        if card is None:
            if isinstance(place, bytes):
                raise ModelRefused("a model given as bytes needs its card")
            card = ModelCard.read(place)
        if sha256 is not None and sha256 != card.sha256:
            raise ModelRefused(f"model {card.name} is {card.sha256}, not {sha256} that was asked for")
        read_model(place, card)
        return cls(card=card, source=place, batch=batch or card.batch)

    def check(self) -> None:
        """Build this process' session now, with all checks up to the golden answer.

        Raises:
            ModelRefused: if one fails.
        """
        self._runner()

    def predict(self, inputs: ArrayLike | Arrays) -> dict[str, Floats]:
        """Physical outputs by name, each with the shape the card states, rows first; NaN where a row is missing.

        Args:
            inputs: for a model with one input, its array, rows first; or arrays by input name; or, where the one
                input is a matrix, one array of rows by feature name. NaN is missing; each feature's card entry says
                what a missing value and one out of range do.

        Raises:
            InputMismatch: if arrays, shapes or names are not the card's.
            ModelRefused: if the model no longer holds.
            PredictionFailed: if the network gives no finite value for valid inputs.
        """
        runner = self._runner()
        tensors = self._arrays(inputs)
        rows = len(tensors[0])
        results = [np.full((rows, *_fixed(tensor)), np.nan, dtype=np.float32) for tensor in self.card.outputs]
        for start in range(0, rows, self.batch):
            part = slice(start, min(start + self.batch, rows))
            for result, values in zip(results, _predict(runner, self.card, [t[part] for t in tensors]), strict=True):
                result[part] = values
        return {tensor.name: result for tensor, result in zip(self.card.outputs, results, strict=True)}

    def _arrays(self, inputs: ArrayLike | Arrays) -> list[NDArray[Any]]:
        expected = self.card.inputs
        only = expected[0] if len(expected) == 1 else None
        if not isinstance(inputs, Mapping):
            if only is None:
                raise InputMismatch(f"{self.card.name} takes {len(expected)} inputs by name, not one array")
            inputs = {only.name: inputs}
        elif only is not None and len(only.shape) == 2 and only.name not in inputs:
            inputs = {only.name: _stacked(self.card.name, only, inputs)}
        names = [tensor.name for tensor in expected]
        if sorted(inputs) != sorted(names):
            raise InputMismatch(f"{self.card.name} takes {names}, not {sorted(inputs)}")
        arrays = [np.asarray(inputs[name]) for name in names]
        for tensor, array in zip(expected, arrays, strict=True):
            if array.dtype.kind not in "fiu":
                raise InputMismatch(f"{self.card.name}: input {tensor.name} holds {array.dtype}, not numbers")
            if array.ndim != len(tensor.shape) or array.shape[1:] != _fixed(tensor):
                raise InputMismatch(
                    f"{self.card.name}: input {tensor.name} has shape {array.shape}, not {('rows', *_fixed(tensor))}"
                )
            if len(array) != len(arrays[0]):
                raise InputMismatch(
                    f"{self.card.name}: {tensor.name} has {len(array)} rows and {names[0]} {len(arrays[0])}"
                )
        return arrays

    def _runner(self) -> Runner:
        """What answers in this process, built and checked if it is not there yet."""
        runner: Runner = self._session()
        return runner

    def _session(self) -> onnxruntime.InferenceSession:
        key = (self.card.sha256, self.card.digest)
        with _LOCK:
            session = _SESSIONS.pop(key, None)
            if session is None:
                session = _build(read_model(self.source, self.card)[0], self.card)
            _SESSIONS[key] = session  # last: the one used last is dropped last
            while len(_SESSIONS) > _KEPT:
                del _SESSIONS[next(iter(_SESSIONS))]
        return session


_KEPT = 8
"""Sessions that a process keeps: one of 500 trees of depth 10 takes 100 MB, and a map may have one for each region."""

_SESSIONS: dict[tuple[str, str], onnxruntime.InferenceSession] = {}
"""This process' sessions by digest of model and card, the one used last at the end."""

_LOCK = threading.Lock()

_INHERITED: list[dict[tuple[str, str], onnxruntime.InferenceSession]] = []
"""Sessions of the processes that this one was forked from: neither used nor taken down here."""


def _start_anew() -> None:
    global _SESSIONS, _LOCK
    _INHERITED.append(_SESSIONS)
    _SESSIONS, _LOCK = {}, threading.Lock()


os.register_at_fork(after_in_child=_start_anew)


def read_model(source: Path | bytes, card: ModelCard) -> tuple[bytes, OnnxFacts]:
    """The bytes of the model and what they ask for, after every check that needs no runtime.

    Raises:
        ModelRefused: if one fails.
    """
    if isinstance(source, bytes):
        model, where = source, f"model {card.name}"
    else:
        where = str(source / MODEL_FILE)
        try:
            model = (source / MODEL_FILE).read_bytes()
        except OSError as error:
            raise ModelRefused(f"{where} cannot be read: {error.strerror}") from None
    found = hashlib.sha256(model).hexdigest()
    if found != card.sha256:
        raise ModelRefused(f"{where} has sha256 {found}, its card says {card.sha256}: it is damaged or another model")
    facts = read_facts(model)
    refuse_unfit(facts)
    if (facts.opsets, facts.ir_version) != (card.opsets, card.ir_version):
        raise ModelRefused(
            f"{where} has opsets {facts.opsets} and IR version {facts.ir_version}, "
            f"its card says {card.opsets} and {card.ir_version}"
        )
    return model, facts


def _build(model: bytes, card: ModelCard) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # One thread each: a dask worker has one core, and more threads or processes than cores measured slower.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelRefused(f"onnxruntime {onnxruntime.__version__} does not take model {card.name}: {error}") from error
    _compare("inputs", card.name, session.get_inputs(), card.inputs)
    _compare("outputs", card.name, session.get_outputs(), card.outputs)
    check_golden(session, card)
    return session


def _compare(
    kind: str, name: str, nodes: list[onnxruntime.NodeArg], tensors: list[InputTensor] | list[OutputTensor]
) -> None:
    found = [
        (node.name, node.type, ["batch" if isinstance(axis, str | None) else axis for axis in node.shape])
        for node in nodes
    ]
    stated = [(tensor.name, "tensor(float)", list(tensor.shape)) for tensor in tensors]
    if found != stated:
        raise ModelRefused(f"the {kind} of model {name} are {found}, its card says {stated}")


def golden_rows(card: ModelCard) -> dict[str, Floats]:
    """The golden rows by input name, each with the shape the card states, rows first; NaN is missing."""
    return {tensor.name: _shaped(card.golden.inputs[tensor.name], card.golden.rows, tensor) for tensor in card.inputs}


def check_golden(runner: Runner, card: ModelCard) -> None:
    """Ask for the golden answer.

    Raises:
        ModelRefused: if it is another.
    """
    golden = card.golden
    answers = _predict(runner, card, list(golden_rows(card).values()))
    for tensor, answer in zip(card.outputs, answers, strict=True):
        expected = _shaped(golden.outputs[tensor.name], golden.rows, tensor)
        missing = np.isnan(expected)
        if not np.array_equal(missing, np.isnan(answer)):
            raise ModelRefused(f"model {card.name} does not give its golden answer: {tensor.name} is missing elsewhere")
        off = float(np.abs(answer - expected)[~missing].max(initial=0.0))
        if off > golden.tolerance[tensor.name]:
            raise ModelRefused(
                f"model {card.name} does not give its golden answer: {tensor.name} is off by {off:g} {tensor.units}, "
                f"more than {golden.tolerance[tensor.name]:g}"
            )


def _shaped(numbers: list[float | None], rows: int, tensor: InputTensor | OutputTensor) -> Floats:
    values = [np.nan if number is None else number for number in numbers]
    return np.asarray(values, dtype=np.float32).reshape(rows, *_fixed(tensor))


def _predict(runner: Runner, card: ModelCard, arrays: Sequence[NDArray[Any]]) -> Iterator[Floats]:
    """One batch: missing and range rules, the network on the rows that are left, physical values."""
    tensors: list[Floats] = []
    usable = np.ones(len(arrays[0]), dtype=np.bool_)
    for tensor, array in zip(card.inputs, arrays, strict=True):
        values = np.array(array, dtype=np.float32, order="C")
        usable &= ~apply_rules(tensor, values)
        tensors.append(values)
    rows = None if usable.all() else np.flatnonzero(usable)
    feeds = {
        tensor.name: values if rows is None else values[rows]
        for tensor, values in zip(card.inputs, tensors, strict=True)
    }
    count = len(usable) if rows is None else len(rows)
    raw = runner.run([tensor.name for tensor in card.outputs], feeds) if count else None
    for position, output in enumerate(card.outputs):
        results = np.full((len(usable), *_fixed(output)), np.nan, dtype=np.float32)
        if raw is not None:
            answer = raw[position]
            if answer.shape != (count, *_fixed(output)):
                raise PredictionFailed(f"model {card.name}: {output.name} has shape {answer.shape} for {count} rows")
            if output.scale != 1.0 or output.offset != 0.0:
                answer = (answer.astype(np.float64) * output.scale + output.offset).astype(np.float32)
            if not np.isfinite(answer).all():
                raise PredictionFailed(f"model {card.name} gives no finite {output.name} for a row of valid inputs")
            results[slice(None) if rows is None else rows] = answer
        yield results


def _stacked(name: str, tensor: InputTensor, columns: Arrays) -> NDArray[Any]:
    names = [feature.name for feature in tensor.features]
    if sorted(columns) != sorted(names):
        absent = sorted(set(names) - set(columns))
        unknown = sorted(set(columns) - set(names))
        raise InputMismatch(f"{name}: features {absent} are missing and {unknown} are unknown; it takes {names}")
    arrays = [np.asarray(columns[feature]) for feature in names]
    if any(array.shape != arrays[0].shape or array.ndim != 1 for array in arrays):
        raise InputMismatch(f"{name}: features need one row axis of one length, not {[a.shape for a in arrays]}")
    return np.stack(arrays, axis=1)


def _fixed(tensor: InputTensor | OutputTensor) -> tuple[int, ...]:
    return tuple(axis for axis in tensor.shape if axis != "batch")
