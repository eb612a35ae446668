"""Resolving a name to an object at run time: the one place where that is done.

Built-ins come from static tables, because scanning entry points costs several times a bare start; only a name
that is in no table would be worth a scan.
"""

from __future__ import annotations

import importlib
from typing import Any

from lockgate.core.errors import Unsupported

# Which extra brings a library that a plain installation does without.
EXTRAS = {
    "lightgbm": "lightgbm",
    "obstore": "s3",
    "onnx": "onnx",
    "onnxmltools": "onnx",
    "psycopg": "postgres",
    "skl2onnx": "onnx",
}


class ExtraMissing(Unsupported):
    """A verb needs a library that only comes with an extra."""

    code = "app.extra-missing"


def resolve(reference: str) -> Any:
    """The object behind `module:attribute`.

    Raises:
        ExtraMissing: importing it needs an extra that is not installed.
    """
    module, _, attribute = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)  # noqa: TID251
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        extra = EXTRAS[library]
        raise ExtraMissing(
            f"{library} is not installed",
            remedy=f"pip install 'lockgate[{extra}]'",
            library=library,
            extra=extra,
        ) from error
