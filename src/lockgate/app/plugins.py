"""Resolving a name to an object at run time: the one place where that is done.

Built-ins come from static tables, because scanning entry points costs several times a bare start; only a name
that is in no table would be worth a scan.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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

_COLLECTED_AT_THE_END = ("duckdb", "onnx")
"""Libraries over nanobind, which lists on standard error whatever of theirs is still there when a process has ended."""


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
        with _nothing_to_collect(module):
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


@contextmanager
def _nothing_to_collect(module: str) -> Iterator[None]:
    """Import without the collector, which would go through all that is loaded again and again, and at the end of the
    process once more: what a module makes while it is imported lives as long as the process. A third of what a short
    command costs.
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@atexit.register
def _let_in_at_the_end() -> None:
    if any(library in sys.modules for library in _COLLECTED_AT_THE_END):
        gc.unfreeze()
