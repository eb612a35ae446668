"""A version that was trained, judged, approved and let in to production, with real bytes and a real journal."""

from __future__ import annotations

from typing import Any

from lockgate.app.control import Control
from lockgate.app.declare import declare
from lockgate.core.digests import Digest, canonical
from lockgate.gates.evidence import Subject, line_of, record
from lockgate.gates.messages import RecordEvidence
from lockgate.governance.messages import AdoptPolicy
from lockgate.hub.authority import controller
from lockgate.hub.kernel import Hub, require
from lockgate.pipeline.messages import RecordRun
from lockgate.registry.packages.package import BuiltPackage
from lockgate.registry.packages.signing import package_facts, signature_envelope, store_signature
from lockgate.testing.furnished import FurnishedStory
from lockgate.testing.hub_world import AUTHOR, CONTROLLER, MODEL_NAME, PLATFORM, POLICY
from tiny_project import TinyProject

COMMIT = "c0ffee" * 6 + "c0ff"


class Decided(FurnishedStory):
    """What people do about a version of a project, from the start to production."""

    def __init__(self, project: TinyProject) -> None:
        self.control: Control = project.control()
        super().__init__(self._hub, self.control.blobs, self.control.ids)
        declare(self.control, self.control.hub(PLATFORM))
        self.must(PLATFORM, AdoptPolicy(id=self.new_id(), namespace="main", policy=POLICY))

    def _hub(self, actor: str) -> Hub:
        return self.control.hub_for(controller()) if actor == CONTROLLER else self.control.hub(actor)

    def must(self, actor: str, command: Any) -> None:
        require(self.do(actor, command))
        self.control.checkpoint()

    def decide(self, version: str = "main/flight-delay@1.0.0", name: object = "one") -> Digest:
        """The whole way to production; returns the package."""
        self.trained(name)
        self.must(AUTHOR, self.registering(name))
        package = self.named("package", name)
        self.must("eve", self.judging(version, package))
        require(self.validate(version))
        for environment in ("dev", "staging"):
            require(self.promote(version, environment))
            require(self.confirm(environment))
        self.must("eve", self.judging(version, package, environment="prod", baseline=""))
        require(self.approve(version))
        require(self.promote(version, "prod", ticket="OPS-1"))
        require(self.confirm("prod"))
        self.control.checkpoint()
        return package

    def trained(self, name: object) -> None:
        self.train(name)
        self.control.checkpoint()

    def do(self, actor: str, command: Any) -> Any:
        if isinstance(command, RecordRun):
            command = type(command)(**{**_fields(command), "commit": COMMIT})
        return super().do(actor, command)

    def judging(self, version: str, package: Digest, **how: Any) -> RecordEvidence:
        """Evidence with a record that says what its line says."""
        command = super().judging(version, package, **how)
        lines = []
        for line in command.lines:
            subject = Subject(
                inputs={"package": package}, environment=line.environment or None, severity="block"
            )
            figures = {"n": 1000, "comparator": "at_least", "threshold": 0.7}
            missed = {"value": 0.6, "verdict": "fail", "reason": "beyond_limit"}
            met = {"value": 0.81, "verdict": "pass"}
            if line.environment and line.verdict == "pass":
                met = {"verdict": "pass", "reason": "no_baseline"}
                figures = {"n": 0}
            made = record(
                line.gate, line.metric, subject, **figures, **(met if line.verdict == "pass" else missed)
            )
            self.blobs.put(canonical(made))
            lines.append(line_of(made))
        return type(command)(**{**_fields(command), "lines": tuple(lines)})

    def _signature(self, name: str) -> Digest:
        built: BuiltPackage = self._built(name)
        facts = package_facts(
            built.manifest, self.blobs, run=self.named("run", name), commit=COMMIT, dirty=False
        )
        envelope = signature_envelope(built.digest, self.control.signer(), model=MODEL_NAME, predicate=facts)
        return store_signature(built.descriptor, envelope, self.blobs).envelope


def _fields(command: Any) -> dict[str, Any]:
    return {name: getattr(command, name) for name in command.__struct_fields__}
