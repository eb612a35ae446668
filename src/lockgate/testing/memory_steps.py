"""Steps without a disk: a step cache in a dict, and a runner of plain functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lockgate.core.digests import Digest, canonical, sha256
from lockgate.pipeline.artifact import Artifact, StepRecord
from lockgate.pipeline.graph import Node
from lockgate.pipeline.ports import StepFailed


class MemoryStepCache:
    """The `StepCache` of one process; not for several threads."""

    def __init__(self) -> None:
        self._records: dict[Digest, StepRecord] = {}

    def get(self, key: Digest) -> StepRecord | None:
        return self._records.get(key)

    def put(self, record: StepRecord) -> None:
        self._records.pop(record.key, None)
        self._records[record.key] = record

    def last(self, name: str) -> StepRecord | None:
        return next((record for record in reversed(self._records.values()) if record.name == name), None)

    def touch(self, key: Digest) -> None:
        if key in self._records:
            self.put(self._records[key])


class MemoryRunner:
    """Runs the function of the node's name on plain JSON values; counts what it ran.

    Args:
        functions: step name -> function; called with inputs and params by argument name.

    Attributes:
        ran: names of the steps that ran, in order, failures included.
        blobs: the outputs; remove one to see a step run again.
    """

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        self.functions = dict(functions)
        self.ran: list[str] = []
        self.blobs: dict[Digest, bytes] = {}

    def has(self, artifact: Artifact) -> bool:
        return artifact.digest in self.blobs

    def run(self, node: Node, key: Digest, inputs: Mapping[str, Artifact]) -> Artifact:
        self.ran.append(node.name)
        given = {name: msgspec.json.decode(self.blobs[artifact.digest]) for name, artifact in inputs.items()}
        try:
            value = self.functions[node.name](**node.params, **given)
        except Exception as error:
            raise StepFailed(
                f"step {node.name} failed with {type(error).__name__}: {error}",
                remedy="fix the function",
                step=node.name,
                exception=type(error).__name__,
                bases=[kind.__name__ for kind in type(error).__mro__],
            ) from error
        data = canonical(value)
        digest = sha256(data)
        self.blobs[digest] = data
        return Artifact(digest=digest, format="json", n_bytes=len(data))
