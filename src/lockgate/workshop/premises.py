"""What the workshop stands on: one project's store, configuration and keys, handed over by a composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lockgate.core.blobs import BlobStore
from lockgate.core.clock import Clock, Ids
from lockgate.registry.ports import Signer
from lockgate.workshop.config import Config
from lockgate.workshop.layout import Layout


@dataclass(frozen=True)
class Premises:
    """`signer` is a function, so that the key is read only when something is signed."""

    layout: Layout
    config: Config
    blobs: BlobStore
    clock: Clock
    ids: Ids
    signer: Callable[[], Signer]
