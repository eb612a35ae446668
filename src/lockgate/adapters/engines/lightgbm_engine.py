"""`LightGbmEngine`: runs LightGBM's own text format, the native form of a package.

The text is numbers and names only; reading it runs nothing. The matrix is float32 as for every engine, so
both forms see exactly the same values.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from lightgbm import Booster
from lightgbm.basic import LightGBMError

from lockgate.registry.packages.contract import Matrix, ModelContract
from lockgate.registry.packages.ports import ModelUnusable


class LightGbmEngine:
    """An `Engine` for the format `lightgbm-text`."""

    format = "lightgbm-text"

    def load(self, model: bytes, contract: ModelContract) -> LightGbmPredictor:
        text = model.decode("utf-8", errors="replace")
        # The native parser ends the process on some texts that are cut short, so look before it does.
        if not text.startswith("tree\n") or "\nend of trees\n" not in text:
            raise _unusable("the bytes are no complete LightGBM text")
        try:
            booster = Booster(model_str=text)
        except (LightGBMError, ValueError) as error:
            raise _unusable(f"LightGBM cannot load the model: {error}") from error
        if booster.num_feature() != len(contract.inputs):
            counts = f"{booster.num_feature()} columns, the contract has {len(contract.inputs)} inputs"
            raise _unusable(f"the model wants {counts}")
        if booster.num_model_per_iteration() != 1:
            raise _unusable("the model gives several answers per row")
        return LightGbmPredictor(booster)


class LightGbmPredictor:
    def __init__(self, booster: Booster) -> None:
        self._booster = booster
        self._n_inputs = booster.num_feature()

    def predict(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        if matrix.ndim != 2 or matrix.shape[1] != self._n_inputs:
            raise _unusable(f"a matrix of shape {matrix.shape} has not {self._n_inputs} columns")
        if len(matrix) == 0:
            return np.empty(0)
        return np.asarray(self._booster.predict(matrix, num_threads=1), dtype=np.float64)


def _unusable(why: str) -> ModelUnusable:
    return ModelUnusable(why, remedy="build the package again", format=LightGbmEngine.format)
