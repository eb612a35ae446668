"""`OnnxEngine`: runs ONNX models with onnxruntime on the CPU.

One thread per call, in the caller's thread: a request of one row gains nothing from a pool, and a data plane
already runs one worker per core. Convention of the graph: one input `inputs`, float32 (n, k); the first
output holds one float per row, (n,) or (n, 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from lockgate.registry.packages.contract import Matrix, ModelContract
from lockgate.registry.packages.ports import ModelUnusable

INPUT_NAME = "inputs"
_FAILURES = (
    native.EPFail,
    native.Fail,
    native.InvalidArgument,
    native.InvalidGraph,
    native.InvalidProtobuf,
    native.NoModel,
    native.NoSuchFile,
    native.NotImplemented,
    native.RuntimeException,
)
_ERRORS_ONLY = 3


class OnnxEngine:
    """An `Engine` for the format `onnx`."""

    format = "onnx"

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = _ERRORS_ONLY
        self._options = options

    def load(self, model: bytes, contract: ModelContract) -> OnnxPredictor:
        try:
            session = onnxruntime.InferenceSession(
                model, sess_options=self._options, providers=["CPUExecutionProvider"]
            )
        except _FAILURES as error:
            raise ModelUnusable(
                f"onnxruntime cannot load the model: {_first_line(error)}",
                remedy="build the package again with a supported opset",
                format=self.format,
            ) from error
        inputs = [(one.name, one.type, one.shape) for one in session.get_inputs()]
        n_inputs = len(contract.inputs)
        if [one[:2] for one in inputs] != [(INPUT_NAME, "tensor(float)")] or len(inputs[0][2]) != 2:
            raise _misfit(f"it wants {inputs}, not one float32 matrix named {INPUT_NAME!r}")
        if inputs[0][2][1] != n_inputs:
            raise _misfit(f"it wants {inputs[0][2][1]} columns, the contract has {n_inputs} inputs")
        return OnnxPredictor(session, n_inputs)


class OnnxPredictor:
    def __init__(self, session: Any, n_inputs: int) -> None:
        self._session = session
        self._n_inputs = n_inputs
        self._outputs = [session.get_outputs()[0].name]

    def predict(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        if len(matrix) == 0 and matrix.ndim == 2 and matrix.shape[1] == self._n_inputs:
            return np.empty(0)
        try:
            answer = self._session.run(self._outputs, {INPUT_NAME: matrix})[0]
        except _FAILURES as error:
            raise ModelUnusable(
                f"the model failed on a matrix of shape {matrix.shape}: {_first_line(error)}",
                remedy=f"give a float32 matrix with {self._n_inputs} columns",
                format=OnnxEngine.format,
            ) from error
        if answer.size != len(matrix):
            raise _misfit(f"{len(matrix)} rows gave an output of shape {answer.shape}")
        return np.asarray(answer, dtype=np.float64).reshape(len(matrix))


def _misfit(why: str) -> ModelUnusable:
    return ModelUnusable(
        f"the ONNX model does not fit: {why}",
        remedy="convert the model again with `lightgbm_to_onnx`, or rename its input and output",
        format=OnnxEngine.format,
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
