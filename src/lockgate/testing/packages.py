"""Builders of small model packages for tests, and an engine that needs no library.

`TinyEngine` reads a model of one JSON list, the weights; a null counts as 0.5. It answers under the name of a
real format, so that whatever checks formats and signatures can be tested with packages made in microseconds.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from lockgate.core.digests import canonical, sha256
from lockgate.registry.packages.contract import InputField, Matrix, ModelContract, OutputField, encode_rows
from lockgate.registry.packages.package import (
    ENVIRONMENT_PATH,
    GOLDEN_PATH,
    ONNX_PATH,
    BuiltPackage,
    Golden,
    ModelForm,
    PackageConfig,
    build_package,
    encode_golden,
)
from lockgate.registry.packages.ports import ModelUnusable

CONTRACT = ModelContract(
    inputs=(
        InputField(name="distance", dtype="float", nullable=False, minimum=0, maximum=20_000),
        InputField(name="hour", dtype="int", minimum=0, maximum=23),
        InputField(name="carrier", dtype="category", categories=("AA", "DL", "UA")),
        InputField(name="holiday", dtype="bool"),
    ),
    output=OutputField(name="late", kind="probability", minimum=0, maximum=1),
)
WEIGHTS = (0.00001, 0.01, 0.1, 0.2)
ROWS: tuple[dict[str, Any], ...] = (
    {"distance": 1400.0, "hour": 17, "carrier": "DL", "holiday": True},
    {"distance": 200, "hour": None, "carrier": "AA", "holiday": False},
    {"distance": 0.5, "hour": 3, "carrier": "never seen", "holiday": None},
)


class TinyPredictor:
    def __init__(self, weights: list[float]) -> None:
        self._weights = np.array(weights)

    def predict(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        if matrix.ndim != 2 or matrix.shape[1] != len(self._weights):
            raise ModelUnusable(f"a matrix of shape {matrix.shape} does not fit", remedy="encode it anew")
        filled = np.where(np.isnan(matrix), 0.5, matrix.astype(np.float64))
        return np.asarray(filled @ self._weights)


class TinyEngine:
    """An `Engine` of any `format`."""

    def __init__(self, format: str = "onnx") -> None:
        self.format = format

    def load(self, model: bytes, contract: ModelContract) -> TinyPredictor:
        try:
            weights = msgspec.json.decode(model, type=list[float])
        except msgspec.MsgspecError as error:
            raise ModelUnusable("the bytes are no list of weights", remedy="use tiny_model()") from error
        if len(weights) != len(contract.inputs):
            raise ModelUnusable(f"{len(weights)} weights do not fit the contract", remedy="use tiny_model()")
        return TinyPredictor(weights)


def tiny_model(weights: tuple[float, ...] = WEIGHTS) -> bytes:
    return canonical(list(weights))


def package_config(**changes: Any) -> PackageConfig:
    """A config whose every part is filled; `changes` replaces fields."""
    config = PackageConfig(
        model="main/flight-delay",
        contract=CONTRACT,
        service="delay",
        service_hash=sha256(b"service"),
        views={"flights": sha256(b"view flights"), "weather": sha256(b"view weather")},
        forms=(ModelForm(format="onnx", path=ONNX_PATH),),
        params={"rounds": 20, "learning_rate": 0.1},
        seeds={"train": 7},
        threads={"OMP_NUM_THREADS": "1"},
        code=sha256(b"code"),
        closure={"train() in flights/model.py": sha256(b"train")},
        snapshots={"main/flights": sha256(b"flights")},
        environment=sha256(b"lock"),
        recipe={"tier": "low"},
    )
    return msgspec.structs.replace(config, **changes)


def package_files(model: bytes | None = None, **more: bytes) -> dict[str, bytes]:
    """The files of a package with one `onnx` form; `more` adds files by path."""
    weights = msgspec.json.decode(model or tiny_model(), type=list[float])
    predictor = TinyPredictor(weights)
    from_rows = predictor.predict(encode_rows(CONTRACT, ROWS))
    golden = Golden(rows=ROWS, predictions=tuple(float(answer) for answer in from_rows))
    return {
        ONNX_PATH: model or tiny_model(),
        GOLDEN_PATH: encode_golden(golden),
        ENVIRONMENT_PATH: b"numpy==2.0.0\n",
        **more,
    }


def tiny_package(model: bytes | None = None, **changes: Any) -> BuiltPackage:
    """A complete package; load it with `{"onnx": TinyEngine()}`."""
    return build_package(package_config(**changes), package_files(model))
