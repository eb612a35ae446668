"""Lockgate: CI/CD for machine-learning models.

What a project imports: `step` for its functions, the feature definitions, `encode_columns` for its training code.
Every name is loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lockgate.core.version import VERSION_OF_LOCKGATE as __version__
    from lockgate.features.definition import (
        Entity,
        Feature,
        FeatureService,
        FeatureView,
        RequestFeature,
    )
    from lockgate.pipeline.step import step
    from lockgate.registry.packages.contract import (
        InputField,
        ModelContract,
        OutputField,
        encode_columns,
        encode_rows,
    )

_HOMES = {
    "Entity": "lockgate.features.definition",
    "Feature": "lockgate.features.definition",
    "FeatureService": "lockgate.features.definition",
    "FeatureView": "lockgate.features.definition",
    "InputField": "lockgate.registry.packages.contract",
    "ModelContract": "lockgate.registry.packages.contract",
    "OutputField": "lockgate.registry.packages.contract",
    "RequestFeature": "lockgate.features.definition",
    "encode_columns": "lockgate.registry.packages.contract",
    "encode_rows": "lockgate.registry.packages.contract",
    "step": "lockgate.pipeline.step",
}

__all__ = [
    "Entity",
    "Feature",
    "FeatureService",
    "FeatureView",
    "InputField",
    "ModelContract",
    "OutputField",
    "RequestFeature",
    "__version__",
    "encode_columns",
    "encode_rows",
    "step",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.import_module("lockgate.core.version").VERSION_OF_LOCKGATE  # noqa: TID251
    if name not in _HOMES:
        raise AttributeError(f"module 'lockgate' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)  # noqa: TID251


def __dir__() -> list[str]:
    return sorted(__all__)
