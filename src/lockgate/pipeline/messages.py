"""What happens to pipelines: a run finishes."""

from __future__ import annotations

from typing import ClassVar

from lockgate.core.digests import Digest, short
from lockgate.core.messages import Command, Event, Scope


class RecordRun(Command, frozen=True, kw_only=True, tag="pipeline.record-run"):
    """State that a pipeline ran to its end; the full record lies in the blob store under `run`."""

    permission: ClassVar[str] = "pipeline.write"
    model: str
    run: Digest
    package: Digest
    commit: str = ""
    dirty: bool = False
    snapshots: dict[str, Digest]

    def scope(self) -> Scope:
        namespace, _, model = self.model.partition("/")
        return Scope(namespace=namespace, model=model)


class RunFinished(Event, frozen=True, kw_only=True, tag="pipeline.run-finished/1"):
    model: str
    run: Digest
    package: Digest
    commit: str
    dirty: bool
    snapshots: dict[str, Digest]

    def summary(self) -> str:
        return f"a run of {self.model} made package {short(self.package)}"
