from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.errors import ModelRefused
from models.onnx_file import newest_opset, read_facts, refuse_unfit
from models.sample_earth import DIRECTORY


def test_facts_equal_what_the_onnx_package_reads_of_the_shipped_model() -> None:
    content = (DIRECTORY / "model.onnx").read_bytes()
    model = onnx.load_model_from_string(content)
    facts = read_facts(content)
    assert facts.ir_version == model.ir_version
    assert facts.opsets == {opset.domain or "ai.onnx": opset.version for opset in model.opset_import}
    assert facts.domains == {node.domain or "ai.onnx" for node in model.graph.node}
    assert facts.external == ()
    refuse_unfit(facts)


def _model(nodes: list[onnx.NodeProto], initializers: list[TensorProto] | None = None) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "g", [x], [y], initializers or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_external_data_is_refused_wherever_it_hides(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones(4, dtype=np.float32), "weights")
    model = _model([helper.make_node("Identity", ["x"], ["y"])], [weights])
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="elsewhere.bin")
    with pytest.raises(ModelRefused, match="weights in another file"):
        refuse_unfit(read_facts((tmp_path / "m.onnx").read_bytes()))
    hidden = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    attribute = _model([helper.make_node("Constant", [], ["y"], value=hidden)])
    with pytest.raises(ModelRefused, match="hidden in another file"):
        refuse_unfit(read_facts(attribute.SerializeToString()))
    then = helper.make_graph([helper.make_node("Identity", ["x"], ["t"])], "then", [], [], [hidden])
    nested = _model([helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=then)])
    with pytest.raises(ModelRefused, match="hidden in another file"):
        refuse_unfit(read_facts(nested.SerializeToString()))


def test_operators_of_other_domains_are_refused_in_subgraphs_and_functions_too() -> None:
    custom = helper.make_node("Odd", ["x"], ["t"], domain="com.example")
    branch = helper.make_graph([custom], "then", [], [helper.make_tensor_value_info("t", TensorProto.FLOAT, [1])])
    nested = _model([helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)])
    with pytest.raises(ModelRefused, match=r"com\.example"):
        refuse_unfit(read_facts(nested.SerializeToString()))
    plain = _model([helper.make_node("Identity", ["x"], ["y"])])
    opsets = [helper.make_opsetid("", 17)]
    plain.functions.append(
        helper.make_function("local", "F", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])], opsets)
    )
    with pytest.raises(ModelRefused, match="local"):
        refuse_unfit(read_facts(plain.SerializeToString()))


def test_the_newest_opset_is_one_that_the_runtime_takes_and_the_next_is_not(
    make_linear: Callable[..., bytes],
) -> None:
    newest = newest_opset("ai.onnx")
    assert newest >= 20
    onnxruntime.InferenceSession(make_linear(opset=newest), providers=["CPUExecutionProvider"])
    with pytest.raises(ModelRefused, match=f"needs opset {newest + 1} of ai.onnx; .* knows up to {newest}"):
        refuse_unfit(read_facts(make_linear(opset=newest + 1)))


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"<html>not a model</html>", b"\x3a\xff\xff\xff\xff\x7f", b"\xff" * 64]
)
def test_bytes_that_are_no_model_are_refused(content: bytes) -> None:
    with pytest.raises(ModelRefused):
        read_facts(content)


def test_every_truncation_is_refused_or_read_without_a_crash() -> None:
    content = (DIRECTORY / "model.onnx").read_bytes()
    whole = read_facts(content)
    for end in range(0, len(content), 977):
        try:
            facts = read_facts(content[:end])
        except ModelRefused:
            continue
        assert facts != whole or end == len(content)


def test_runs_of_numbers_are_passed_over_and_what_hides_between_them_is_not() -> None:
    numbers = [0, 127, 128, 2**62, -1, 7] * 1000
    hidden = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    node = helper.make_node("Odd", ["x"], ["y"], ints=numbers, floats=[0.5] * 1000)
    read_facts(_model([node]).SerializeToString())
    node.attribute[0].tensors.append(hidden)  # field 10, behind the run
    node.attribute[0].t.CopyFrom(hidden)  # field 5, before it
    facts = read_facts(_model([node]).SerializeToString())
    assert facts.external == ("hidden", "hidden")
    content = _model([helper.make_node("Odd", ["x"], ["y"], ints=numbers)]).SerializeToString()
    for end in range(len(content) - 60, len(content)):
        with pytest.raises(ModelRefused, match="the bytes are no ONNX model"):
            read_facts(content[:end])


def test_notes_of_the_maker_are_read() -> None:
    model = _model([helper.make_node("Identity", ["x"], ["y"])])
    helper.set_model_props(model, {"booster_sha256": "abc", "empty": ""})
    assert read_facts(model.SerializeToString()).metadata == {"booster_sha256": "abc", "empty": ""}
