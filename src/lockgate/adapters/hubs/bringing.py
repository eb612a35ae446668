"""Working in a project against a hub elsewhere: what a command names by digest is brought before the command is sent.

`LocalFirst` is the blob store of such work: it writes here and reads here first, then from the hub. `BringingHub` is
its hub: before a command goes out, the blobs it names go, and those behind them that somebody needs who judges or
rebuilds the version on another machine. What the steps of a training left in between stays here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import msgspec

from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest, canonical
from lockgate.core.messages import Command, Query, Receipt
from lockgate.data.manifest import read_snapshot
from lockgate.data.messages import RecordSnapshot
from lockgate.hub.authority import Session
from lockgate.hub.kernel import Hub
from lockgate.pipeline.artifact import RunRecord
from lockgate.pipeline.messages import RecordRun
from lockgate.registry.messages import RegisterVersion
from lockgate.registry.packages.package import Manifest

_NAMED = re.compile(rb"sha256:[0-9a-f]{64}")
_STAY_HERE = frozenset({"view", "join", "alias"})
"""Kinds of steps whose output can be made again from the snapshots, and is large."""


class LocalFirst:
    """A `BlobStore` over the one here and the one of a hub."""

    def __init__(self, here: BlobStore, hub: BlobStore) -> None:
        self._here = here
        self._hub = hub

    def put(self, data: bytes) -> Digest:
        return self._here.put(data)

    def put_file(self, path: str) -> Digest:
        return self._here.put_file(path)

    def get(self, digest: Digest) -> bytes:
        return self._here.get(digest) if self._here.has(digest) else self._hub.get(digest)

    def path(self, digest: Digest) -> str:
        return self._here.path(digest) if self._here.has(digest) else self._hub.path(digest)

    def has(self, digest: Digest) -> bool:
        return self._here.has(digest) or self._hub.has(digest)

    def digests(self) -> Iterator[Digest]:
        return self._here.digests()

    def delete(self, digest: Digest) -> None:
        self._here.delete(digest)


class BringingHub:
    """A `Hub` that brings what a command names. Raises what the blob stores raise; then nothing was sent.

    Args:
        here: what this machine has.
        there: what the hub has.
    """

    def __init__(self, hub: Hub, here: BlobStore, there: BlobStore) -> None:
        self._hub = hub
        self._here = here
        self._there = there
        self._brought: set[Digest] = set()

    @cached_property
    def session(self) -> Session:
        return self._hub.session

    def ask(self, query: Query) -> Any:
        return self._hub.ask(query)

    def execute(self, command: Command) -> Receipt:
        for digest in blobs_behind(command, self._here):
            # What is not here is there already, or the hub will say that it is missing.
            if digest not in self._brought and self._here.has(digest):
                self._there.put_file(self._here.path(digest))
                self._brought.add(digest)
        return self._hub.execute(command)


def blobs_behind(command: Command, here: BlobStore) -> Iterator[Digest]:
    """The blobs that a command names, and those that these are made of, in an order in which they can be checked."""
    match command:
        case RecordSnapshot(snapshot=snapshot) if here.has(snapshot):
            yield from (file.digest for file in read_snapshot(snapshot, here).files)
        case RegisterVersion(package=package) if here.has(package):
            manifest = msgspec.json.decode(here.get(package), type=Manifest)
            yield from (layer.digest for layer in (manifest.config, *manifest.layers))
        case RecordRun(run=run) if here.has(run):
            record = msgspec.json.decode(here.get(run), type=RunRecord)
            yield from (step.output.digest for step in record.steps if step.kind not in _STAY_HERE)
    yield from (found.decode() for found in dict.fromkeys(_NAMED.findall(canonical(command))))
