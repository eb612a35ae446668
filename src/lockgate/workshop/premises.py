"""What the workshop stands on: one project's store, configuration and keys, handed over by a composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockgate.core.blobs import BlobStore
from lockgate.core.clock import Clock, Ids
from lockgate.registry.packages.ports import Signer
from lockgate.workshop.config import Config
from lockgate.workshop.layout import Layout

if TYPE_CHECKING:  # Arrow and sqlglot stand behind it, and a rollback needs neither.
    from lockgate.adapters.runners.builtin import Tools


@dataclass(frozen=True)
class Premises:
    """`signer` and `tools` are functions: the key is read only when something is signed, the libraries are loaded only
    when something is run."""

    layout: Layout
    config: Config
    blobs: BlobStore
    clock: Clock
    ids: Ids
    signer: Callable[[], Signer]
    tools: Callable[[], Tools]
