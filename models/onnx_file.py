"""What an ONNX file asks of a runtime, read from its bytes before any runtime sees them.

onnxruntime follows external-data paths while it opens a session, and the `onnx` package is not part of what renders:
so the few protobuf fields that decide are walked here. Field numbers are those of onnx.proto (IR version 3 to 13).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import onnxruntime

from models.errors import ModelRefused

BUILT_IN_DOMAINS = frozenset({"ai.onnx", "ai.onnx.ml"})
"""Operator sets that the ONNX standard defines; the empty name in files is ``ai.onnx``."""

_MOST_NESTED = 32
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 70
_EXTERNAL = 1

_NUMBERS = re.compile(rb"(?:\x40[\x80-\xff]{0,9}[\x00-\x7f])+|(?:\x3d.{4})+", re.DOTALL)
"""A run of an attribute's ``ints`` (field 8, varints) or ``floats`` (field 7, fixed32): trees hold millions of them."""


@dataclass(frozen=True, kw_only=True)
class OnnxFacts:
    """What decides whether a file may be given to the runtime."""

    ir_version: int
    """Version of the file format."""

    opsets: dict[str, int]
    """Operator set version by domain; the default domain is ``ai.onnx``."""

    domains: frozenset[str]
    """Domains of all operators and functions, in subgraphs too."""

    external: tuple[str, ...]
    """Names of tensors whose values lie in another file."""

    metadata: dict[str, str]
    """What the maker noted in the file."""


@dataclass
class _Found:
    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    domains: set[str] = field(default_factory=set)
    external: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)


def read_facts(model: bytes) -> OnnxFacts:
    """Walk the bytes of a model.

    Args:
        model: the bytes of model.onnx.

    Raises:
        ModelRefused: if they are not an ONNX model.
    """
    found, graphs = _Found(), 0
    for number, value in _fields(memoryview(model)):
        match number, value:
            case 1, int():
                found.ir_version = value
            case 7, memoryview():
                graphs += 1
                _graph(value, found, 0)
            case 8, memoryview():
                domain, version = _opset(value)
                found.opsets[domain] = version
            case 14, memoryview():
                note = {key: _text(item) for key, item in _fields(value) if isinstance(item, memoryview)}
                found.metadata[note.get(1, "")] = note.get(2, "")
            case 20, memoryview():
                raise ModelRefused("the model holds training information; only what predicts is taken")
            case 25, memoryview():
                _function(value, found)
    if graphs != 1 or not found.opsets:
        raise ModelRefused(f"the bytes are no ONNX model: {graphs} graphs, {len(found.opsets)} operator sets")
    return OnnxFacts(
        ir_version=found.ir_version,
        opsets=found.opsets,
        domains=frozenset(found.domains),
        external=tuple(found.external),
        metadata=found.metadata,
    )


def refuse_unfit(facts: OnnxFacts) -> None:
    """Refuse what the runtime does not know or must not follow.

    Raises:
        ModelRefused: on external data, a domain that the standard does not define, or an opset that is too new.
    """
    if facts.external:
        raise ModelRefused(
            f"the model keeps {', '.join(facts.external[:3])} in another file (external data); one file must hold all"
        )
    foreign = sorted((facts.domains | facts.opsets.keys()) - BUILT_IN_DOMAINS)
    if foreign:
        raise ModelRefused(
            f"the model uses operators of {', '.join(foreign)}; only {', '.join(sorted(BUILT_IN_DOMAINS))} are taken"
        )
    for domain, version in facts.opsets.items():
        newest = newest_opset(domain)
        if version > newest:
            raise ModelRefused(
                f"the model needs opset {version} of {domain}; "
                f"onnxruntime {onnxruntime.__version__} knows up to {newest}"
            )


@cache
def newest_opset(domain: str) -> int:
    """The newest operator set that the installed runtime takes; asked of the runtime, which publishes no number."""
    version = 1 if domain == "ai.onnx.ml" else 7
    while _taken(domain, version + 1):
        version += 1
    return version


def _taken(domain: str, version: int) -> bool:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(_smallest(domain, version), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no other base
        if "pset" not in str(error):
            raise
        return False
    return True


def _smallest(domain: str, version: int) -> bytes:
    """A model that copies one float, stamped with an operator set."""
    vector = _message(2, _message(1, b"\x08\x01" + _message(2, _message(1, b"\x08\x01"))))
    node = _message(1, b"x") + _message(2, b"y") + _message(4, b"Identity")
    graph = _message(1, node) + _message(2, b"g") + _message(11, _message(1, b"x") + vector)
    graph += _message(12, _message(1, b"y") + vector)
    opsets = {"ai.onnx": 17, domain: version}
    stamps = b"".join(
        _message(8, _message(1, b"" if name == "ai.onnx" else name.encode()) + b"\x10" + bytes([number]))
        for name, number in opsets.items()
    )
    return b"\x08\x08" + _message(7, graph) + stamps


def _message(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | _BYTES, len(body)]) + body


def _graph(graph: memoryview, found: _Found, depth: int) -> None:
    if depth > _MOST_NESTED:
        raise ModelRefused(f"the model nests graphs more than {_MOST_NESTED} deep")
    for number, value in _fields(graph):
        if isinstance(value, int):
            continue
        match number:
            case 1:
                _node(value, found, depth)
            case 5:
                _tensor(value, found)
            case 15:
                _sparse_tensor(value, found)


def _node(node: memoryview, found: _Found, depth: int) -> None:
    domain = ""
    for number, value in _fields(node):
        match number, value:
            case 5, memoryview():
                _attribute(value, found, depth)
            case 7, memoryview():
                domain = _text(value)
    found.domains.add(domain or "ai.onnx")


def _attribute(attribute: memoryview, found: _Found, depth: int) -> None:
    for number, value in _fields(attribute, skipping=_NUMBERS):
        if isinstance(value, int):
            continue
        match number:
            case 5 | 10:
                _tensor(value, found)
            case 6 | 11:
                _graph(value, found, depth + 1)
            case 22 | 23:
                _sparse_tensor(value, found)


def _function(function: memoryview, found: _Found) -> None:
    for number, value in _fields(function):
        match number, value:
            case 7, memoryview():
                _node(value, found, 0)
            case 9, memoryview():
                domain, _ = _opset(value)
                found.domains.add(domain)
            case 10, memoryview():
                found.domains.add(_text(value) or "ai.onnx")
            case 11, memoryview():
                _attribute(value, found, 0)


def _sparse_tensor(tensor: memoryview, found: _Found) -> None:
    for number, value in _fields(tensor):
        if number in {1, 2} and isinstance(value, memoryview):
            _tensor(value, found)


def _tensor(tensor: memoryview, found: _Found) -> None:
    name, external = "a tensor without a name", False
    for number, value in _fields(tensor):
        match number, value:
            case 8, memoryview():
                name = _text(value)
            case 13, _:
                external = True
            case 14, int():
                external |= value == _EXTERNAL
    if external:
        found.external.append(name)


def _opset(opset: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in _fields(opset):
        match number, value:
            case 1, memoryview():
                domain = _text(value)
            case 2, int():
                version = value
    return domain or "ai.onnx", version


def _text(value: memoryview) -> str:
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise ModelRefused("the bytes are no ONNX model: a name is not UTF-8") from None


def _fields(
    message: memoryview, *, skipping: re.Pattern[bytes] | None = None
) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a protobuf message; numbers as ints, everything else as bytes.

    What ``skipping`` matches at the start of a field is passed over; it must match whole fields.
    """
    at, end = 0, len(message)
    while at < end:
        if skipping is not None and (run := skipping.match(message, at)):
            at = run.end()
            continue
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        value: int | memoryview
        if kind == _VARINT:
            value, at = _varint(message, at)
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
            value, at = message[at : at + size], at + size
        elif kind == _BYTES:
            size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        else:
            raise ModelRefused(f"the bytes are no ONNX model: wire type {kind} at byte {at}")
        if at > end:
            raise ModelRefused(f"the bytes are no ONNX model: a field ends {at - end} bytes after the end")
        yield number, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift >= _LONGEST_VARINT:
            raise ModelRefused(f"the bytes are no ONNX model: a number does not end at byte {at}")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
