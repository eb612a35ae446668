"""A story whose words have bytes behind them: packages, snapshots, runs, signatures and evidence in a blob store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from lockgate.core.blobs import BlobStore
from lockgate.core.clock import Ids
from lockgate.core.digests import Digest, canonical, sha256
from lockgate.data.snapshot import Column, Snapshot, SnapshotFile
from lockgate.gates.messages import RecordEvidence
from lockgate.hub.kernel import Hub
from lockgate.registry.package import store_package
from lockgate.registry.signing import PAYLOAD_TYPE, Envelope, store_signature
from lockgate.testing.hub_world import DATASET, Story
from lockgate.testing.packages import tiny_package


class FurnishedStory(Story):
    """Tells what `Story` tells, over a blob store that holds what is spoken of.

    Everything that a name stands for differs from name to name, as do its rows.
    """

    def __init__(self, hub_of: Callable[[str], Hub], blobs: BlobStore, ids: Ids | None = None) -> None:
        super().__init__(hub_of, ids)
        self.blobs = blobs

    def named(self, *words: object) -> Digest:
        kind, *rest = map(str, words)
        made: dict[str, Callable[[str], Digest]] = {
            "snapshot": self._snapshot,
            "run": self._run,
            "package": self._package,
            "signature": self._signature,
        }
        return made[kind](" ".join(rest)) if kind in made else super().named(*words)

    def rows(self, name: object) -> Digest:
        """The blob with the rows of a snapshot."""
        return self.blobs.put(f"rows of {name}".encode())

    def made_on_the_way(self, name: object) -> Digest:
        """The blob that a step of a run has put out."""
        return self.blobs.put(f"training set of {name}".encode())

    def judging(self, version: str, package: Digest, **how: Any) -> RecordEvidence:
        command = super().judging(version, package, **how)
        (line,) = command.lines
        record = self.blobs.put(
            canonical({"gate": line.gate, "of": line.digest, "inputs": {"package": package}})
        )
        return msgspec.structs.replace(command, lines=(msgspec.structs.replace(line, digest=record),))

    def _snapshot(self, name: str) -> Digest:
        rows = self.rows(name)
        file = SnapshotFile(path="part-00000.parquet", digest=rows, n_bytes=1, n_rows=1)
        manifest = Snapshot(dataset=DATASET, columns=(Column("x", "int64"),), n_rows=1, files=(file,))
        return self.blobs.put(canonical(manifest))

    def _run(self, name: str) -> Digest:
        made = [{"name": "training_set", "output": {"digest": self.made_on_the_way(name)}}]
        return self.blobs.put(canonical({"schema": "lockgate.run/1", "steps": made}))

    def _package(self, name: str) -> Digest:
        built = tiny_package(params={"name": name}, snapshots={DATASET: self._snapshot(name)})
        return store_package(built, self.blobs)

    def _signature(self, name: str) -> Digest:
        built = tiny_package(params={"name": name}, snapshots={DATASET: self._snapshot(name)})
        envelope = Envelope(payload_type=PAYLOAD_TYPE, payload=sha256(name.encode()), signatures=())
        return store_signature(built.descriptor, canonical(envelope), self.blobs).envelope
