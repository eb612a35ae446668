"""A story whose words have bytes behind them: packages, snapshots, runs, signatures and evidence in a blob store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from lockgate.core.blobs import BlobStore
from lockgate.core.clock import Ids
from lockgate.core.digests import Digest, canonical, sha256
from lockgate.data.manifest import Column, Snapshot, SnapshotFile
from lockgate.gates.evidence import Baseline, Subject, line_of, record
from lockgate.gates.messages import EvidenceLine, RecordEvidence
from lockgate.hub.kernel import Hub
from lockgate.pipeline.artifact import Artifact, RunRecord, RunStep
from lockgate.registry.packages.package import BuiltPackage, store_package
from lockgate.registry.packages.signing import PAYLOAD_TYPE, Envelope, store_signature
from lockgate.testing.hub_world import DATASET, MODEL_NAME, Story
from lockgate.testing.packages import tiny_model, tiny_package


class FurnishedStory(Story):
    """Tells what `Story` tells, over a blob store that holds what is spoken of.

    Everything that a name stands for differs from name to name, as do its rows.
    """

    def __init__(self, hub_of: Callable[[str], Hub], blobs: BlobStore, ids: Ids | None = None) -> None:
        super().__init__(hub_of, ids)
        self.blobs = blobs
        self._made: dict[tuple[str, str], Digest] = {}
        self._makers: dict[str, Callable[[str], Digest]] = {
            "snapshot": self._snapshot,
            "run": self._run,
            "package": self._package,
            "signature": self._signature,
        }

    def named(self, *words: object) -> Digest:
        kind, *rest = map(str, words)
        made = self._makers.get(kind)
        return super().named(*words) if made is None else self._once(kind, " ".join(rest), made)

    def rows(self, name: object) -> Digest:
        """The blob with the rows of a snapshot."""
        return self._once("rows", str(name), lambda text: self.blobs.put(f"rows of {text}".encode()))

    def made_on_the_way(self, name: object) -> Digest:
        """The blob that a step of a run has put out."""
        return self._once("table", str(name), lambda text: self.blobs.put(f"training set of {text}".encode()))

    def weights(self, name: object) -> Digest:
        """The blob with the trained model: a step put it out, and the package holds it."""
        return self._once("model", str(name), lambda text: self.blobs.put(tiny_model(_weights(text))))

    def package_blobs(self, name: object) -> set[Digest]:
        """All that a package needs to be loaded, its signature included."""
        built = self._built(str(name))
        return {built.digest, *built.blobs, self.named("signature", name)}

    def _once(self, kind: str, name: str, make: Callable[[str], Digest]) -> Digest:
        """Put the first time only: to put again is to renew."""
        if (kind, name) not in self._made:
            self._made[kind, name] = make(name)
        return self._made[kind, name]

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
        rows, table, model = self.rows(name), self.made_on_the_way(name), self.weights(name)
        steps = (
            _step("flights", {}, rows, "parquet"),
            _step("training_set", {"flights": rows}, table, "parquet"),
            _step("train", {"table": table}, model, "lightgbm-text"),
        )
        record = RunRecord(model=MODEL_NAME, namespace="main", steps=steps, environment=sha256(b"lock"))
        return self.blobs.put(canonical(record))

    def _package(self, name: str) -> Digest:
        return store_package(self._built(name), self.blobs)

    def _built(self, name: str) -> BuiltPackage:
        snapshots = {DATASET: self.named("snapshot", name)}
        return tiny_package(tiny_model(_weights(name)), params={"name": name}, snapshots=snapshots)

    def _signature(self, name: str) -> Digest:
        built = self._built(name)
        envelope = Envelope(payload_type=PAYLOAD_TYPE, payload=sha256(name.encode()), signatures=())
        return store_signature(built.descriptor, canonical(envelope), self.blobs).envelope


def _weights(name: str) -> tuple[float, ...]:
    return (0.1, 0.2, 0.3, int(sha256(name.encode())[7:11], 16) / 1000)


def _step(name: str, inputs: dict[str, Digest], output: Digest, format: str) -> RunStep:
    return RunStep(
        name=name,
        kind="step",
        key=sha256(name.encode()),
        parts={},
        params={},
        inputs=inputs,
        seed=0,
        output=Artifact(digest=output, format=format, n_bytes=1),
    )


def stated_evidence(
    blobs: BlobStore,
    gates: Iterable[str],
    package: Digest,
    *,
    environment: str | None = None,
    baseline: Digest | None = None,
) -> tuple[EvidenceLine, ...]:
    """Passes of gates that nothing was measured for; their records are put where a hub looks them up.

    Args:
        environment: None for what a version shows by itself, else where it shall go.
        baseline: the package that is live there; None while there is none.
    """
    subject = Subject(inputs={"package": package}, environment=environment)
    champion = (
        None if baseline is None else Baseline(kind="champion", ref="the live version", digest=baseline)
    )
    reason = "not_applicable" if environment is None or baseline else "no_baseline"
    records = [
        record(gate, "stated", subject, n=0, baseline=champion, verdict="pass", reason=reason, details=())
        for gate in gates
    ]
    for one in records:
        blobs.put(canonical(one))
    return tuple(map(line_of, records))
