"""Resolving a name to an object at run time: the one place where that is done.

Built-ins come from static tables, because scanning entry points costs several times a bare start; only a name
that is in no table would be worth a scan.
"""

from __future__ import annotations

import importlib
from typing import Any


def resolve(reference: str) -> Any:
    """The object behind `module:attribute`."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)  # noqa: TID251
