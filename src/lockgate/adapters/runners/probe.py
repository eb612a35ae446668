"""A package's model, loaded to be judged: the `Probe` that gates ask."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lockgate.registry.packages.contract import ModelContract, RowEncoder, encode_columns
from lockgate.registry.packages.ports import Engine

_WARM_UP = 50


class PackageProbe:
    """One form of a package in one engine, behind the same encoding that requests pass."""

    def __init__(self, engine: Engine, model: bytes, contract: ModelContract) -> None:
        self.runtime = engine.format
        self._contract = contract
        self._encoder = RowEncoder(contract)
        self._predictor = engine.load(model, contract)

    def predict_rows(self, rows: Sequence[Mapping[str, object]]) -> npt.NDArray[np.float64]:
        return self._predictor.predict(self._encoder.encode(rows))

    def predict_columns(self, columns: Mapping[str, Any]) -> npt.NDArray[np.float64]:
        return self._predictor.predict(encode_columns(self._contract, columns))

    def latencies_us(self, rows: Sequence[Mapping[str, object]], n_requests: int) -> npt.NDArray[np.float64]:
        # CPU time of this thread, which does all the work: what other processes do to the clock is not the model's.
        taken = np.empty(n_requests)
        for number in range(-_WARM_UP, n_requests):
            row = [rows[number % len(rows)]]
            before = time.thread_time_ns()
            self._predictor.predict(self._encoder.encode(row))
            if number >= 0:
                taken[number] = (time.thread_time_ns() - before) / 1000
        return taken
