"""The card beside a model: what goes in and comes out, where it was learned, and one answer it must reproduce."""

import hashlib
import json
import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.errors import ModelRefused

MODEL_FILE = "model.onnx"
CARD_FILE = "card.json"

type Axis = Literal["batch"] | Annotated[int, Field(ge=1)]
type Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
type Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_./-]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class Feature(_Part):
    """One number that a row holds: its unit, the range it was learned in, and what a missing one does."""

    name: Name
    units: str = Field(min_length=1)
    """UDUNITS string; ``1`` where there is none."""

    long_name: str = Field(min_length=1)
    valid_min: float
    valid_max: float

    out_of_range: Literal["missing", "clip"]
    """A value beyond the range counts as missing, or is set to the nearer end."""

    missing: Literal["nan", "fill", "pass"]
    """A missing value makes every output of the row missing, is replaced by ``fill_value``, or reaches the graph as NaN
    (trees learn where to send it)."""

    fill_value: float | None = None

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if not self.valid_min < self.valid_max:
            raise ValueError(f"{self.name}: valid_min {self.valid_min} is not below valid_max {self.valid_max}")
        if (self.missing == "fill") != (self.fill_value is not None):
            raise ValueError(f"{self.name}: a fill_value goes with missing 'fill' and with nothing else")
        return self


class InputTensor(_Part):
    """One input of the graph, float32; its features lie along one axis, in this order."""

    name: Name
    shape: list[Axis]
    """First the batch, then fixed sizes."""

    feature_axis: int
    features: list[Feature] = Field(min_length=1)

    @model_validator(mode="after")
    def _holds(self) -> Self:
        _check_shape(self.name, self.shape)
        if not 1 <= self.feature_axis < len(self.shape) or self.shape[self.feature_axis] != len(self.features):
            raise ValueError(
                f"{self.name}: {len(self.features)} features do not lie along axis {self.feature_axis} of {self.shape}"
            )
        _check_unique(self.name, [feature.name for feature in self.features])
        return self

    @cached_property
    def ranges(self) -> NDArray[np.float32]:
        """Least and most of each feature, ``(2, feature)``."""
        return np.array([(one.valid_min, one.valid_max) for one in self.features], dtype=np.float32).T

    @cached_property
    def only_clips(self) -> bool:
        """Whether features lie along the last axis and each is clipped, and passed where it is missing."""
        return self.feature_axis == len(self.shape) - 1 and all(
            (one.out_of_range, one.missing) == ("clip", "pass") for one in self.features
        )


class OutputTensor(_Part):
    """One output of the graph, float32; the physical value is ``raw * scale + offset``."""

    name: Name
    units: str = Field(min_length=1)
    long_name: str = Field(min_length=1)
    shape: list[Axis]
    """First the batch, then fixed sizes."""

    scale: float = 1.0
    offset: float = 0.0

    @model_validator(mode="after")
    def _holds(self) -> Self:
        _check_shape(self.name, self.shape)
        if not self.scale > 0:
            raise ValueError(f"{self.name}: scale must be positive, not {self.scale}")
        return self


class Golden(_Part):
    """Inputs and the physical outputs that the model must give for them, row-major; null is missing."""

    rows: int = Field(ge=1)
    inputs: dict[str, list[float | None]]
    outputs: dict[str, list[float | None]]
    tolerance: dict[str, Annotated[float, Field(gt=0)]]
    """Largest absolute difference by output, in its units."""


class Training(_Part):
    """Where the weights come from."""

    table: str
    """What the table is, for people."""

    table_sha256: Sha256
    rows: int = Field(ge=1)
    seed: int
    command: str
    """Makes the model again."""

    synthetic: bool
    """Whether the table was made up."""


class Score(_Part):
    """How well the model did on rows that it was not trained on."""

    output: str
    split: str
    """How the rows were held out."""

    rows: int = Field(ge=1)
    metrics: dict[str, float]
    """By name; the name carries the unit (``rmse_ppm``)."""

    synthetic: bool


class ModelCard(_Part):
    """Everything a renderer must know of a model before it believes it.

    Raises:
        ModelRefused: from ``parse`` and ``read``, if the text is no card or contradicts itself.
    """

    format: Literal[1] = 1
    name: Name
    version: str = Field(min_length=1)
    description: str = Field(min_length=1)

    sha256: Sha256
    """Of the bytes of model.onnx."""

    ir_version: int = Field(ge=3)
    opsets: dict[str, int]
    """Operator set version by domain."""

    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[OutputTensor] = Field(min_length=1)

    batch: int = Field(ge=1)
    """Rows per call of the runtime that measured fastest; says nothing about the answer."""

    golden: Golden
    training: Training
    scores: list[Score]
    created_by: str = Field(min_length=1)
    """Code version that wrote it."""

    @model_validator(mode="after")
    def _holds(self) -> Self:
        _check_unique(self.name, [tensor.name for tensor in self.inputs])
        _check_unique(self.name, [tensor.name for tensor in self.outputs])
        _check_golden("input", self.golden.inputs, self.inputs, self.golden.rows)
        _check_golden("output", self.golden.outputs, self.outputs, self.golden.rows)
        names = {tensor.name for tensor in self.outputs}
        if self.golden.tolerance.keys() != names:
            raise ValueError(f"golden tolerances are for {sorted(self.golden.tolerance)}, the outputs {sorted(names)}")
        for score in self.scores:
            if score.output not in names:
                raise ValueError(f"a score is for {score.output!r}, which is no output")
            if self.training.synthetic and not score.synthetic:
                raise ValueError(f"the score on {score.split!r} is of a model learned from made-up rows: say synthetic")
        return self

    @classmethod
    def parse(cls, text: str | bytes, *, where: str = "the card") -> Self:
        """Read a card from JSON text.

        Args:
            text: JSON.
            where: what to call it in a refusal.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            message = f"{where} does not hold: {place + ': ' if place else ''}{first['msg']}"
            raise ModelRefused(message) from None

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the card of a model directory."""
        path = directory / CARD_FILE
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ModelRefused(f"the card {path} cannot be read: {error.strerror}") from None
        return cls.parse(text, where=str(path))

    def to_json(self) -> str:
        """The text of card.json; the same card gives the same bytes. Rows of numbers stay on one line."""
        return _lines(self.model_dump(mode="json"), "") + "\n"

    @cached_property
    def digest(self) -> str:
        """sha256 of the card's text; it names the model's sha256, so one digest stands for both files."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def features(self) -> list[str]:
        """Names of the features of all inputs, in order."""
        return [feature.name for tensor in self.inputs for feature in tensor.features]


def _lines(value: Any, indent: str) -> str:
    if isinstance(value, dict) and value:
        inner = indent + "  "
        rows = (f"{inner}{json.dumps(key)}: {_lines(item, inner)}" for key, item in value.items())
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        inner = indent + "  "
        return "[\n" + ",\n".join(inner + _lines(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)


def _check_shape(name: str, shape: list[Axis]) -> None:
    if not shape or shape[0] != "batch" or "batch" in shape[1:]:
        raise ValueError(f"{name}: a shape is the batch and then fixed sizes, not {shape}")


def _check_unique(where: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{where}: {', '.join(twice)} stands twice")


def _check_golden(
    kind: str, held: dict[str, list[float | None]], tensors: list[InputTensor] | list[OutputTensor], rows: int
) -> None:
    if held.keys() != {tensor.name for tensor in tensors}:
        raise ValueError(f"the golden {kind}s are {sorted(held)}, the graph's {sorted(t.name for t in tensors)}")
    for tensor in tensors:
        size = rows * math.prod(axis for axis in tensor.shape if axis != "batch")
        if len(held[tensor.name]) != size:
            raise ValueError(f"the golden {kind} {tensor.name} holds {len(held[tensor.name])} numbers, not {size}")
