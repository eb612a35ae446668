"""The port of the gates room: a model that runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Probe(Protocol):
    """A package that is loaded and answers, in one runtime.

    Promises every adapter keeps: rows pass the same validation and encoding that a request passes. Predictions
    come back one per row, in the order of the rows, unrounded and unclipped; the same rows give the same
    predictions. A row that serving would refuse raises, it is never dropped. Need not be thread-safe.
    """

    @property
    def runtime(self) -> str:
        """Names the runtime and its version, for example `onnxruntime 1.22`; ends up in the evidence."""
        ...

    def predict_rows(self, rows: Sequence[Mapping[str, object]]) -> npt.NDArray[np.float64]:
        """(n,) or (n, k) predictions for n rows given as a request gives them; absent values are None."""
        ...

    def predict_columns(self, columns: Mapping[str, Any]) -> npt.NDArray[np.float64]:
        """(n,) or (n, k) predictions for n rows given as columns; equals `predict_rows` bit for bit."""
        ...

    def latencies_us(self, rows: Sequence[Mapping[str, object]], n_requests: int) -> npt.NDArray[np.float64]:
        """(n_requests,) microseconds of work per request of one row, cycling through `rows`; warmed up beforehand."""
        ...
