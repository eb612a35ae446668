"""What serving needs from outside: something that turns a package reference into something that answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from lockgate.core.digests import Digest
from lockgate.registry.packages.contract import Matrix, ModelContract
from lockgate.serving.lookup import Lookup
from lockgate.traffic.plan import PackageRef

Predict = Callable[[Matrix], npt.NDArray[np.float64]]
"""float32 (n, k) -> float64 (n,)."""


class ReadyPackage(NamedTuple):
    """A package in memory: verified, warmed, ready to answer.

    Attributes:
        lookup: reads its features by key; None for a package that reads none.
    """

    digest: Digest
    contract: ModelContract
    predict: Predict
    lookup: Lookup | None = None


class Loader(Protocol):
    def load(self, ref: PackageRef, environment: str) -> ReadyPackage:
        """Load, verify and warm a package for an environment. Called on a background thread.

        Raises:
            LockgateError: it may not or cannot be loaded; the message says which blob or rule.
        """
        ...
