"""What steps leave behind: an artifact in the blob store, a record in the step cache, the record of a run."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest, digest_of


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """The output of a step: a blob, and how to read it.

    Attributes:
        digest: of the bytes; equal digest means equal output, which is what stops needless work downstream.
        format: `parquet`, `npy`, `json`, `lightgbm-text` or `bytes`; built-in kinds may add their own.
        n_bytes: size of the blob.
    """

    digest: Digest
    format: str
    n_bytes: int


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One finished step: everything its key was made of, and what came out.

    Attributes:
        parts: the code it reached, by label; see `Closure.parts`.
        inputs: digest of each input artifact, by argument name.
        environment: digest of the environment it ran in.
        took_ms: wall time of the last time it really ran.
    """

    name: str
    key: Digest
    parts: dict[str, Digest]
    params: dict[str, Any]
    inputs: dict[str, Digest]
    environment: Digest
    output: Artifact
    took_ms: int
    finished_at: Micros


class RunStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step as a run used it; says nothing of when, where, or whether it came from the cache."""

    name: str
    kind: str
    key: Digest
    parts: dict[str, Digest]
    params: dict[str, Any]
    inputs: dict[str, Digest]
    seed: int
    output: Artifact


_NO_ROWS = frozenset({"package", "model-contract", "lightgbm-text", "onnx"})


def derived_rows(steps: Iterable[RunStep | StepRecord], tables: Collection[Digest]) -> set[Digest]:
    """The outputs that were made, at whatever remove, of these tables, and may hold rows of them.

    Trained models, contracts and packages are left out: what they keep of rows cannot be taken out of them again.
    """
    steps, reached = list(steps), set(tables)
    while more := {
        step.output.digest
        for step in steps
        if step.output.digest not in reached and not reached.isdisjoint(step.inputs.values())
    }:
        reached |= more
    kept = {step.output.digest for step in steps if step.output.format in _NO_ROWS}
    return reached - kept


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was made of. Two runs over equal inputs that gave equal outputs have the same `id`.

    Attributes:
        model: full name, `main/flight-delay`.
        steps: in the order of the graph; a run of some stages only holds the steps that are done.
        environment: digest of the environment.
        settings: thread and hash-seed settings the steps ran under; settings, not facts about the host.
    """

    schema: str = "lockgate.run/1"
    model: str
    namespace: str
    steps: tuple[RunStep, ...]
    environment: Digest
    settings: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def id(self) -> Digest:
        return digest_of(self)

    def output(self, name: str) -> Artifact:
        """The artifact of a step; `KeyError` when the run does not hold it."""
        for step in self.steps:
            if step.name == name:
                return step.output
        raise KeyError(name)
