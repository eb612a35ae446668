"""LightGBM to ONNX, so that both answer alike or the conversion says no.

onnxmltools walks the trees. What it gets wrong without a word (checked against onnxmltools 1.16 and LightGBM
4.7; each has a test) is handled before or refused here:

    zero_as_missing     refused: 0.0 takes the default branch, and ONNX knows only NaN as missing
    sigmoid but 1       refused: the scale before the logistic function is dropped
    random forest       refused: the mean over trees becomes a sum
    linear_tree         refused: the linear part of each leaf is dropped
    reg_sqrt and other transformed outputs, several classes: refused
    float32 thresholds  a double is rounded to the nearest float32, which can move a value to the other side;
                        rounded down here first, which is exact for every float32 input
    tiny numbers        natively all of +-1e-35 counts as 0.0; written into the thresholds next to zero
    nothing missing in training: a NaN counts as 0.0 natively; written as the default branch that 0.0 takes

After that both are run on rows made from the model's own thresholds, with nulls and unseen categories: a wrong
conversion does not leave this module. The graph is rebuilt from the tree node alone, with fixed names and
versions, so the same trees give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from lightgbm import Booster
from onnx import ModelProto, TensorProto, helper
from onnxmltools.convert import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from lockgate.adapters.engines.onnx_engine import INPUT_NAME, OnnxEngine
from lockgate.core.errors import Bug, Unsupported
from lockgate.registry.packages.contract import InputField, Matrix, ModelContract, OutputField

OUTPUT_NAME = "answer"
_PLAIN = frozenset({"regression", "regression_l1", "huber", "quantile"})
_BINARY = "binary sigmoid:1"
_OPSET, _ML_OPSET, _IR_VERSION = 13, 1, 7
_CATEGORICAL, _DEFAULT_LEFT, _MISSING_ZERO, _MISSING_NAN = 1, 2, 1, 2
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_ZERO = float(np.float32(1e-35))
_N_PROBES = 512


class ConversionRefused(Unsupported):
    """A setting of the model that ONNX cannot express or the converter gets wrong. Fact: `setting`."""

    code = "engines.conversion-refused"


class ConversionWrong(Bug):
    """The converted model answers differently from the original. Facts: `row`, `expected`, `actual`."""

    code = "engines.conversion-wrong"


def lightgbm_to_onnx(booster: Booster, n_features: int) -> bytes:
    """The model as ONNX: input `inputs` float32 (n, k), one output float32 (n,).

    The output is the probability of class 1 for a binary objective, the value for a regression. The same
    model text gives the same bytes.

    Args:
        n_features: k; must be the booster's own number of features.

    Raises:
        ConversionRefused: names the setting that stands in the way.
        ConversionWrong: the two forms differ on the probe rows.
    """
    if booster.num_feature() != n_features:
        raise _refused(
            "n_features", f"it has {booster.num_feature()} features, the matrix has {n_features} columns"
        )
    text = booster.model_to_string()
    objective = _check_header(text)
    prepared = Booster(model_str=_prepare(text))
    converted = convert_lightgbm(
        prepared,
        name="model",
        initial_types=[(INPUT_NAME, FloatTensorType([None, n_features]))],
        zipmap=False,
        target_opset=_OPSET,
    )
    model: bytes = _graph(converted, n_features, binary=objective == _BINARY).SerializeToString(
        deterministic=True
    )
    _compare(booster, model, probe_rows(text, n_features))
    return model


def probe_rows(text: str, n_features: int) -> Matrix:
    """Rows on which a wrong conversion shows: around thresholds, zeros, nulls, known and unseen categories.

    Args:
        text: the model in LightGBM's text format.
    Returns:
        (n, n_features) float32; the same text gives the same rows.
    """
    values: list[set[float]] = [{0.0, -1.0, 1.0, np.nan} for _ in range(n_features)]
    for tree in _trees(text):
        for feature, threshold, decision in zip(
            _numbers(tree, "split_feature"),
            _numbers(tree, "threshold"),
            _numbers(tree, "decision_type"),
            strict=True,
        ):
            known = values[int(feature)]
            if int(decision) & _CATEGORICAL:
                known.update(float(code) for code in range(32))
            else:
                at = np.float32(np.clip(threshold, -_FLOAT32_MAX, _FLOAT32_MAX))
                lower, upper = np.nextafter(at, np.float32(-1e38)), np.nextafter(at, np.float32(1e38))
                known.update((float(at), float(lower), float(upper)))
    rng = np.random.default_rng(0)
    columns = [
        rng.choice(np.array(sorted(one, key=repr), dtype=np.float32), size=_N_PROBES) for one in values
    ]
    # One row per input with a null, one with an unseen category or -1, beside an otherwise drawn row.
    rows = np.column_stack(columns)
    for feature in range(min(n_features, _N_PROBES // 2)):
        rows[2 * feature, feature] = np.nan
        rows[2 * feature + 1, feature] = -1.0
    return rows


def _check_header(text: str) -> str:
    """The objective; raises for what neither this module nor the converter can carry over."""
    header = text.split("\nTree=", 1)[0]
    objective = _header_value(header, "objective") or "none"
    if _header_value(header, "num_tree_per_iteration") != "1":
        raise _refused("num_class", "it gives several answers per row")
    if "\naverage_output" in header:
        raise _refused("boosting=rf", "a random forest averages its trees")
    if objective != _BINARY and objective not in _PLAIN:
        setting = "sigmoid" if objective.startswith("binary") else f"objective={objective}"
        raise _refused(setting, f"its objective is {objective!r}")
    if "\nis_linear=1" in text:
        raise _refused("linear_tree", "its leaves hold linear models")
    return objective


def _prepare(text: str) -> str:
    """The same trees, with thresholds that float32 can hold and every default branch written out."""
    header, *trees = re.split(r"\n(?=Tree=)", text)
    # The sizes speed up reading and would be wrong now.
    header = re.sub(r"\ntree_sizes=[^\n]*", "", header)
    return "\n".join([header, *(_prepare_tree(tree) for tree in trees)])


def _prepare_tree(tree: str) -> str:
    thresholds, decisions = _numbers(tree, "threshold"), _numbers(tree, "decision_type")
    if not decisions:
        return tree
    new_thresholds, new_decisions = [], []
    for threshold, decision in zip(thresholds, map(int, decisions), strict=True):
        if decision & _CATEGORICAL:
            # Natively a null or negative code is in no category and goes right.
            new_thresholds.append(repr(int(threshold)))
            new_decisions.append(_CATEGORICAL | _MISSING_NAN << 2)
            continue
        missing, default_left = decision >> 2 & 3, bool(decision & _DEFAULT_LEFT)
        if missing == _MISSING_ZERO:
            raise _refused("zero_as_missing", "0.0 counts as missing")
        if missing != _MISSING_NAN:
            default_left = threshold >= 0.0
        new_thresholds.append(repr(float(_float32_threshold(threshold))))
        new_decisions.append(default_left * _DEFAULT_LEFT | _MISSING_NAN << 2)
    tree = _with_numbers(tree, "threshold", new_thresholds)
    return _with_numbers(tree, "decision_type", new_decisions)


def _float32_threshold(value: float) -> np.float32:
    """The float32 that splits all float32 inputs as LightGBM splits them at the double `value`.

    That is the largest one not above `value`, but around zero, where natively all of +-1e-35 counts as 0.0.
    """
    if -_ZERO <= value < 0.0:
        return np.float32(np.nextafter(np.float32(-_ZERO), np.float32(-np.inf)))
    if 0.0 <= value < _ZERO:
        return np.float32(_ZERO)
    nearest = np.float32(np.clip(value, -_FLOAT32_MAX, _FLOAT32_MAX))
    return nearest if float(nearest) <= value else np.float32(np.nextafter(nearest, np.float32(-np.inf)))


def _graph(converted: ModelProto, n_features: int, *, binary: bool) -> ModelProto:
    """A graph of the converter's tree node and one node that shapes its output."""
    wanted = "TreeEnsembleClassifier" if binary else "TreeEnsembleRegressor"
    trees = next(node for node in converted.graph.node if node.op_type == wanted)
    attributes = sorted(trees.attribute, key=lambda attribute: str(attribute.name))
    nodes = [
        helper.make_node(
            wanted, [INPUT_NAME], ["label", "scores"] if binary else ["scores"], "trees", domain="ai.onnx.ml"
        )
    ]
    nodes[0].attribute.extend(attributes)
    if binary:
        constant = helper.make_tensor("column", TensorProto.INT64, [], [1])
        nodes.append(helper.make_node("Gather", ["scores", "column"], [OUTPUT_NAME], "positive", axis=1))
    else:
        constant = helper.make_tensor("shape", TensorProto.INT64, [1], [-1])
        nodes.append(helper.make_node("Reshape", ["scores", "shape"], [OUTPUT_NAME], "flat"))
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["n", n_features])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["n"])],
        [constant],
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="lockgate")
    model.ir_version = _IR_VERSION
    return model


def _compare(booster: Booster, model: bytes, rows: Matrix) -> None:
    inputs = tuple(InputField(name=f"f{number}", dtype="float") for number in range(rows.shape[1]))
    contract = ModelContract(inputs=inputs, output=OutputField(name="answer"))
    actual = OnnxEngine().load(model, contract).predict(rows)
    expected = np.asarray(booster.predict(rows, num_threads=1))
    # float32 sums of one leaf per tree: relative to the size of the answers, never of a whole leaf.
    allowed = 1e-5 * max(1.0, float(np.abs(expected).max()))
    wrong = np.flatnonzero(~(np.abs(actual - expected) <= allowed))
    if len(wrong):
        row = int(wrong[0])
        raise ConversionWrong(
            f"{len(wrong)} of {len(rows)} probe rows differ; row {row}: "
            f"{float(expected[row])!r} natively, {float(actual[row])!r} as ONNX",
            remedy="ship the package with the lightgbm-text form only, and report the model's settings",
            row=[repr(float(value)) for value in rows[row]],
            expected=float(expected[row]),
            actual=float(actual[row]),
        )


def _trees(text: str) -> list[str]:
    return re.split(r"\n(?=Tree=)", text)[1:]


def _numbers(tree: str, key: str) -> list[float]:
    value = _header_value(tree, key)
    return [float(number) for number in value.split()] if value else []


def _with_numbers(tree: str, key: str, numbers: Sequence[Any]) -> str:
    line = f"\n{key}=" + " ".join(map(str, numbers)) + "\n"
    return re.sub(rf"\n{key}=[^\n]*\n", lambda _: line, tree, count=1)


def _header_value(text: str, key: str) -> str | None:
    match = re.search(rf"^{key}=(.*)$", text, re.MULTILINE)
    return match.group(1).strip() if match else None


def _refused(setting: str, why: str) -> ConversionRefused:
    return ConversionRefused(
        f"the model cannot become ONNX: {why}",
        remedy=f"train without {setting}, or ship the package with the lightgbm-text form only",
        setting=setting,
    )
