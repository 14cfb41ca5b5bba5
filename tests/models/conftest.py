"""Small ONNX models made with the onnx package, and cards for them."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.card import ModelCard

WEIGHTS = np.array([[1.0, -2.0], [0.5, 0.25], [3.0, 1.0]], dtype=np.float32)


def linear(weights: NDArray[np.float32] = WEIGHTS, opset: int = 17, **changes: Any) -> bytes:
    """y = x @ weights, z = sum of the row's x."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"], domain=changes.get("domain", "")),
            helper.make_node("ReduceSum", ["x", "axes"], ["z"], keepdims=0),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, changes.get("x_shape", ["n", 3]))],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n"]),
        ],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([1], dtype=np.int64), "axes")],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in changes.get("domains", []))]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def feature(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "units": "1",
        "long_name": name,
        "valid_min": -10.0,
        "valid_max": 10.0,
        "out_of_range": "missing",
        "missing": "nan",
        "fill_value": None,
    } | changes


def describe(model: bytes, **changes: Any) -> dict[str, Any]:
    """The card of ``linear``: a is required, b is filled with 2, c is clipped; z is scaled by 10 and shifted by 400."""
    proto = onnx.load_model_from_string(model)
    return {
        "name": "linear",
        "version": "1",
        "description": "a test",
        "sha256": hashlib.sha256(model).hexdigest(),
        "ir_version": proto.ir_version,
        "opsets": {opset.domain or "ai.onnx": opset.version for opset in proto.opset_import},
        "inputs": [
            {
                "name": "x",
                "shape": ["batch", 3],
                "feature_axis": 1,
                "features": [
                    feature("a"),
                    feature("b", missing="fill", fill_value=2.0),
                    feature("c", out_of_range="clip"),
                ],
            }
        ],
        "outputs": [
            {"name": "y", "units": "m", "long_name": "y", "shape": ["batch", 2]},
            {"name": "z", "units": "1e-6", "long_name": "z", "shape": ["batch"], "scale": 10.0, "offset": 400.0},
        ],
        "batch": 4,
        "golden": {
            "rows": 2,
            "inputs": {"x": [1.0, 2.0, 3.0, None, 2.0, 3.0]},
            "outputs": {"y": [11.0, 1.5, None, None], "z": [460.0, None]},
            "tolerance": {"y": 1e-5, "z": 1e-3},
        },
        "training": {
            "table": "none",
            "table_sha256": "0" * 64,
            "rows": 1,
            "seed": 1,
            "command": "none",
            "synthetic": True,
        },
        "scores": [{"output": "y", "split": "none", "rows": 1, "metrics": {"rmse": 0.0}, "synthetic": True}],
        "created_by": "a test",
    } | changes


@pytest.fixture
def make_linear() -> Callable[..., bytes]:
    return linear


@pytest.fixture
def make_card() -> Callable[..., ModelCard]:
    return lambda model, **changes: ModelCard.model_validate(describe(model, **changes))


@pytest.fixture
def make_description() -> Callable[..., dict[str, Any]]:
    return describe
