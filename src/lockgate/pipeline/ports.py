"""What this room needs from outside: a memory for finished steps, and somebody who runs a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from lockgate.core.digests import Digest
from lockgate.core.errors import Invalid
from lockgate.pipeline.artifact import Artifact, StepRecord
from lockgate.pipeline.graph import Node


class StepFailed(Invalid):
    """A step raised, was stopped, or returned something that cannot be kept.

    Facts: `step`, `exception` (class name), `bases` (names of its classes, for `retry_on`), `message`,
    `where` (the last line of the project's code: `flights/model.py:12`), `line` (its text), and for a worker
    `output` (the last lines it printed).
    """

    code = "pipeline.step-failed"


class StepCache(Protocol):
    """Remembers finished steps of one model. Losing entries costs time, never correctness.

    Safe for use by several threads and processes: the last `put` of a key wins. An entry that cannot be read
    any more counts as absent.
    """

    def get(self, key: Digest) -> StepRecord | None:
        """The record kept under a key."""
        ...

    def put(self, record: StepRecord) -> None:
        """Keep a record under its key, replacing what was there; it becomes the last one of its step."""
        ...

    def last(self, name: str) -> StepRecord | None:
        """The record of the step `name` that was put or touched last."""
        ...

    def touch(self, key: Digest) -> None:
        """Make the record of `key` the last one of its step; nothing happens when there is none."""
        ...


class StepRunner(Protocol):
    """Runs one step and keeps its output."""

    def run(self, node: Node, key: Digest, inputs: Mapping[str, Artifact]) -> Artifact:
        """Run `node` on the artifacts given by argument name; return once the output is durable.

        What the step is given depends on `node`, `key` and `inputs` only; seeds come from `seed_of`.

        Raises:
            StepFailed: the step did not give a result.
        """
        ...

    def has(self, artifact: Artifact) -> bool:
        """Whether the artifact's bytes are still there."""
        ...
