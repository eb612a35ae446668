"""What the registry needs from outside: a part that runs a model, one that signs, one that checks."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from lockgate.core.errors import Invalid
from lockgate.registry.packages.contract import Matrix, ModelContract


class ModelUnusable(Invalid):
    """The bytes are no model of the engine's format, or it does not fit the contract or the matrix."""

    code = "registry.model-unusable"


class Predictor(Protocol):
    """A loaded model. Safe to call from several threads; the same matrix gives the same bits."""

    def predict(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        """One answer per row.

        Args:
            matrix: (n, k) float32, as `registry.packages.contract` encodes it; n may be 0.
        Returns:
            (n,) float64: the probability of the positive class, or the value, as the contract says.
        Raises:
            ModelUnusable: the matrix has not k columns, or the model failed on it.
        """
        ...


class Engine(Protocol):
    """Loads models of one format. Never runs code that came with the model bytes."""

    @property
    def format(self) -> str:
        """The name of the format in a package's manifest: `onnx`, `lightgbm-text`."""
        ...

    def load(self, model: bytes, contract: ModelContract) -> Predictor:
        """Raises `ModelUnusable` when the bytes are no such model or its inputs are not the contract's."""
        ...


class Signer(Protocol):
    """Holds, or can reach, one private key."""

    @property
    def key_id(self) -> str:
        """SHA-256 digest of the public key's SubjectPublicKeyInfo DER."""
        ...

    def sign(self, data: bytes) -> bytes:
        """A signature over `data`; hashing is part of the scheme."""
        ...


class Verifier(Protocol):
    """One public key that is trusted for some purpose."""

    @property
    def key_id(self) -> str:
        """SHA-256 digest of the public key's SubjectPublicKeyInfo DER."""
        ...

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `data`; never raises for a wrong one."""
        ...
