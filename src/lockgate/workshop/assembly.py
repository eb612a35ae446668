"""Putting a runner together: the built-in steps, with the tools they work with."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

from lockgate.adapters.runners.builtin import Builtins, Tools
from lockgate.adapters.runners.local import LocalRunner
from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest, digest_of
from lockgate.features.definition import Definitions
from lockgate.pipeline.recipe import Recipe, Sources


def assemble_runner(
    root: Path,
    blobs: BlobStore,
    tools: Callable[[], Tools],
    recipe: Recipe,
    sources: Sources,
    definitions: Definitions,
) -> LocalRunner:
    """The runner of one model's graph."""
    builtins = Builtins(root, blobs, recipe, sources, definitions, tools)
    return LocalRunner(root, blobs, sources=sources.code, builtin=builtins.kinds())


def environment_of(lock: bytes) -> Digest:
    """What third-party code the steps run on: the lock and the Python that reads it."""
    major, minor, _ = platform.python_version_tuple()
    return digest_of({"lock": lock.decode(), "python": f"{major}.{minor}"})
