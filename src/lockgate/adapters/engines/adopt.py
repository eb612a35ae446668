"""An ONNX model that somebody else converted, made to fit the one form that packages carry.

Packages want one float32 matrix named `inputs` in, and one number per row out (see onnx_engine.py). A model that has
that already is left as it is, byte for byte. Otherwise only the edges of the graph are touched: the input gets its
name, the probability of class 1 is picked out. Both models are then run on the same rows and must give the same bits.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, TensorProto, helper

from lockgate.adapters.engines.onnx_engine import INPUT_NAME, OnnxEngine
from lockgate.core.errors import Bug, Unsupported
from lockgate.registry.packages.contract import InputField, Matrix, ModelContract, OutputField

OUTPUT_NAME = "answer"
_N_PROBES = 64
_CONVERT = (
    "convert it again from one float32 matrix: skl2onnx.to_onnx(model, X[:1], options={'zipmap': False}) "
    "with X = X.astype(numpy.float32)"
)


class AdoptionRefused(Unsupported):
    """The graph takes or gives something that no package carries."""

    code = "engines.adoption-refused"


class AdoptionWrong(Bug):
    """The adopted graph answers differently from the one it was made of."""

    code = "engines.adoption-wrong"


class Adopted(NamedTuple):
    """`changed` says whether the bytes are others than those that were given."""

    model: bytes
    kind: Literal["probability", "value"]
    changed: bool


def adopt_onnx(model: bytes, n_columns: int) -> Adopted:
    """The model in the form that packages carry.

    Raises:
        AdoptionRefused: what stands in the way.
        AdoptionWrong: the two forms differ on the probe rows.
    """
    proto = _parsed(model)
    name = _input(proto, n_columns)
    rows = _probes(n_columns)
    outputs = _run(model, name, rows)
    place, kind = _choose(outputs, len(rows))
    answers = outputs[place][:, 1] if kind == "probability" else outputs[place].reshape(len(rows))
    if name == INPUT_NAME and place == 0 and kind == "value":
        return Adopted(model, kind, changed=False)
    adopted = _with_edges(proto, name, place, kind, n_columns).SerializeToString(deterministic=True)
    again = OnnxEngine().load(adopted, _plain_contract(n_columns)).predict(rows)
    if not np.array_equal(again, answers.astype(np.float64), equal_nan=True):
        raise AdoptionWrong("the adopted model answers differently", remedy=_CONVERT)
    return Adopted(adopted, kind, changed=True)


def _parsed(model: bytes) -> ModelProto:
    try:
        proto = ModelProto.FromString(model)
    except DecodeError as error:
        raise _refused("its bytes are no ONNX model") from error
    # Weights in other files would be read from wherever the model says.
    tensors = [*proto.graph.initializer, *(one for node in _nodes(proto.graph) for one in _tensors(node))]
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in tensors):
        raise _refused("its weights lie in other files", "save it in one file: onnx.save(model, path)")
    return proto


def _nodes(graph: Any) -> list[NodeProto]:
    found = []
    for node in graph.node:
        found.append(node)
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                found += _nodes(inner)
    return found


def _tensors(node: NodeProto) -> list[TensorProto]:
    return [tensor for one in node.attribute for tensor in ([one.t] if one.HasField("t") else [*one.tensors])]


def _input(proto: ModelProto, n_columns: int) -> str:
    given = {tensor.name for tensor in proto.graph.initializer}
    inputs = [one for one in proto.graph.input if one.name not in given]
    if len(inputs) != 1:
        raise _refused(f"it takes {len(inputs)} inputs, one per column")
    (one,) = inputs
    kind = one.type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    if kind.elem_type != TensorProto.FLOAT or len(dims) != 2:
        raise _refused(f"its input {one.name!r} is no float32 matrix")
    if dims[1] not in (0, n_columns):
        raise _refused(f"it takes {dims[1]} columns, its signature names {n_columns}")
    return str(one.name)


def _probes(n_columns: int) -> Matrix:
    rng = np.random.default_rng(0)
    rows = rng.normal(scale=rng.choice([1.0, 30.0, 1000.0], size=(_N_PROBES, 1)), size=(_N_PROBES, n_columns))
    rows[0] = 0.0
    return rows.astype(np.float32)


def _run(model: bytes, name: str, rows: Matrix) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            model, sess_options=options, providers=["CPUExecutionProvider"]
        )
        return list(session.run(None, {name: rows}))
    except Exception as error:
        # Custom operators, a newer opset, a graph that does not hold together: all end here, with their own words.
        raise _refused(f"onnxruntime cannot run it: {str(error).splitlines()[0]}") from error


def _choose(outputs: list[Any], n_rows: int) -> tuple[int, Literal["probability", "value"]]:
    """Which output is the answer: the probabilities of two classes, else one number per row."""
    for place, output in enumerate(outputs):
        if isinstance(output, np.ndarray) and output.shape == (n_rows, 2) and output.dtype == np.float32:
            return place, "probability"
    for place, output in enumerate(outputs):
        if (
            isinstance(output, np.ndarray)
            and output.dtype == np.float32
            and output.shape in ((n_rows,), (n_rows, 1))
        ):
            return place, "value"
    shapes = [getattr(one, "shape", type(one).__name__) for one in outputs]
    raise _refused(
        f"none of its outputs ({shapes}) is one number per row or the probabilities of two classes"
    )


def _with_edges(
    proto: ModelProto, name: str, place: int, kind: Literal["probability", "value"], n_columns: int
) -> ModelProto:
    graph = proto.graph
    chosen = graph.output[place].name
    taken = {INPUT_NAME, OUTPUT_NAME, "lockgate_edge"} - {name, chosen}
    used = {text for node in _nodes(graph) for text in (*node.input, *node.output)}
    if taken & used:
        raise _refused(f"its graph uses the names {', '.join(sorted(taken & used))} inside")
    edges: list[NodeProto] = []
    if name != INPUT_NAME:
        edges.append(helper.make_node("Identity", [INPUT_NAME], [name], "lockgate_inputs"))
    if kind == "probability":
        graph.initializer.append(helper.make_tensor("lockgate_edge", TensorProto.INT64, [], [1]))
        last = helper.make_node("Gather", [chosen, "lockgate_edge"], [OUTPUT_NAME], "lockgate_answer", axis=1)
    else:
        graph.initializer.append(helper.make_tensor("lockgate_edge", TensorProto.INT64, [1], [-1]))
        last = helper.make_node("Reshape", [chosen, "lockgate_edge"], [OUTPUT_NAME], "lockgate_answer")
    nodes = [*edges, *graph.node, last]
    given = {tensor.name for tensor in graph.initializer}
    kept = [one for one in graph.input if one.name in given]
    del graph.node[:], graph.output[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["n", n_columns]))
    graph.input.extend(kept)
    graph.output.append(helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["n"]))
    if not any(one.domain in ("", "ai.onnx") for one in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid("", 13))
    return proto


def _plain_contract(n_columns: int) -> ModelContract:
    inputs = tuple(InputField(name=f"f{number}", dtype="float") for number in range(n_columns))
    return ModelContract(inputs=inputs, output=OutputField(name=OUTPUT_NAME))


def _refused(why: str, remedy: str = _CONVERT) -> AdoptionRefused:
    return AdoptionRefused(f"this ONNX model cannot be packaged: {why}", remedy=remedy)
