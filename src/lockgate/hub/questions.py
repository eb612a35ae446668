"""Answers to the questions that span rooms. Reads documents, decides nothing that a command would decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from lockgate.core.clock import Clock
from lockgate.core.documents import DocRef, DocumentKind
from lockgate.core.errors import NotFound, did_you_mean
from lockgate.core.journal import NoteVerifier
from lockgate.core.messages import Query, Reason
from lockgate.core.names import parse_endpoint, parse_version
from lockgate.delivery.decide import needs_promote, standing_of
from lockgate.delivery.messages import PromoteVersion
from lockgate.delivery.state import ENDPOINT, ENVIRONMENT, RELEASE, EndpointState, Live
from lockgate.gates.state import EVIDENCE, EvidenceState, evidence_key
from lockgate.governance.judgement import bound_set, counting_approvals
from lockgate.governance.policy import TierRule
from lockgate.governance.state import APPROVAL, POLICY, ApprovalState, approval_key
from lockgate.hub import audit
from lockgate.hub.kernel import gather, read_body
from lockgate.hub.messages import (
    ChangeLine,
    ChangesAnswer,
    ChangesSince,
    EndpointLine,
    ExplainVersion,
    Lineage,
    LineageAnswer,
    LineageLine,
    ListVersions,
    LiveLine,
    PackageVersionAnswer,
    PolicyAnswer,
    PolicyInForce,
    Readiness,
    RolloutLine,
    Standing,
    StandingAnswer,
    Status,
    StatusAnswer,
    VerifyAudit,
    VersionAnswer,
    VersionOfPackage,
    VersionsAnswer,
)
from lockgate.hub.ports import CheckpointSink, Edge, Journal, Outbox
from lockgate.hub.table import KIND_BY_NAME
from lockgate.registry.decide import model_of
from lockgate.registry.state import CLAIM, MODEL, VERSION, VersionState, claim_key
from lockgate.traffic.observed import Observed

MAX_CHANGES = 1000

D = TypeVar("D")
Observe = Callable[[str], Observed | None]


class UnknownName(NotFound):
    code = "hub.unknown-name"


class NothingLive(NotFound):
    code = "hub.nothing-live"


def _observe_nothing(endpoint: str) -> Observed | None:
    return None


class Questions:
    """Answers queries over a journal.

    Args:
        observe: what the target of an endpoint was last seen to do; None when it cannot be seen.
        checkpoints: where signed heads lie, with the key that checks them.
    """

    def __init__(
        self,
        journal: Journal,
        outbox: Outbox,
        clock: Clock,
        *,
        observe: Observe = _observe_nothing,
        checkpoints: tuple[CheckpointSink, NoteVerifier] | None = None,
    ) -> None:
        self._journal = journal
        self._outbox = outbox
        self._clock = clock
        self._observe = observe
        self._checkpoints = checkpoints
        self._answers: dict[type[Query], Callable[[Any], Any]] = {
            Status: self._status,
            ExplainVersion: self._explain,
            ListVersions: self._versions,
            Standing: self._standing,
            VersionOfPackage: self._version_of_package,
            PolicyInForce: self._policy,
            ChangesSince: self._changes,
            VerifyAudit: self._verify,
            Lineage: self._lineage,
        }

    def __call__(self, query: Query) -> Any:
        """The answer, all of it from one moment of the journal."""
        with self._journal.snapshot():
            return self._answers[type(query)](query)

    def _get(self, kind: DocumentKind[D], key: str) -> D | None:
        stored = self._journal.document(kind.name, key)
        return None if stored is None else read_body(kind, stored)

    def _all(self, kind: DocumentKind[D], prefix: str = "", parent: str | None = None) -> tuple[D, ...]:
        found = self._journal.documents(kind.name, prefix, parent)
        return tuple(read_body(kind, one) for one in found)

    def _named(self, kind: DocumentKind[D], key: str) -> D:
        body = self._get(kind, key)
        if body is None:
            known = [_shown(kind.name, one.key) for one in self._journal.documents(kind.name)]
            shown = _shown(kind.name, key)
            raise UnknownName(
                f"there is no {kind.name} {shown}", remedy=did_you_mean(shown, known), name=shown
            )
        return body

    def _status(self, query: Status) -> StatusAnswer:
        chosen = (self._named(ENDPOINT, query.endpoint),) if query.endpoint else self._ladder_order()
        lines = {parse_endpoint(one.endpoint).shown: self._line(one) for one in chosen}
        return StatusAnswer(
            endpoints=lines, models=self._all(MODEL), effects_pending=self._outbox.open_rows()
        )

    def _ladder_order(self) -> tuple[EndpointState, ...]:
        order = {step.environment: step.order for step in self._all(ENVIRONMENT)}
        endpoints = self._all(ENDPOINT)
        return tuple(
            sorted(endpoints, key=lambda one: (order.get(one.endpoint.partition("/")[0], 0), one.endpoint))
        )

    def _line(self, endpoint: EndpointState) -> EndpointLine:
        rollout = endpoint.rollout
        return EndpointLine(
            live=_live_line(endpoint.live),
            previous=_live_line(endpoint.previous),
            rollback_ready=self._readiness(endpoint),
            rollout=None
            if rollout is None
            else RolloutLine(
                state=rollout.state,
                version=rollout.served.version,
                strategy=rollout.strategy,
                generation=rollout.generation,
                started_at=rollout.started_at,
                started_by=rollout.started_by,
            ),
            consumers=endpoint.consumers,
            dashboards=endpoint.dashboards,
        )

    def _readiness(self, endpoint: EndpointState) -> Readiness:
        """Whether a rollback would work at this moment, from what is known *and* what is seen."""
        previous = endpoint.previous
        if previous is None:
            fallback = f"; the fallback is {endpoint.fallback.kind}" if endpoint.live else ""
            return Readiness(ready=False, reason=f"no previous version yet{fallback}")
        version = self._get(VERSION, previous.served.version)
        if version is None or version.state in ("quarantined", "rejected"):
            state = "unknown" if version is None else version.state
            return Readiness(ready=False, reason=f"{previous.served.version} is {state}")
        seen = self._observe(endpoint.endpoint)
        if seen is None or not seen.alive:
            return Readiness(ready=False, reason="no data plane is running (lockgate up)")
        lacking = [
            worker.pid
            for worker in seen.workers
            if worker.state != "gone" and previous.served.package not in worker.loaded
        ]
        if lacking:
            return Readiness(ready=False, reason=f"worker {lacking[0]} has not loaded {version.version}")
        return Readiness(ready=True, reason=None)

    def _explain(self, query: ExplainVersion) -> VersionAnswer:
        endpoint = self._named(ENDPOINT, query.endpoint) if query.endpoint else None
        if endpoint is not None and endpoint.live is None:
            raise NothingLive(
                f"nothing is live on {query.endpoint}",
                remedy=f"lockgate status {query.endpoint}",
                endpoint=query.endpoint,
            )
        key = endpoint.live.served.version if endpoint and endpoint.live else query.version
        version = self._named(VERSION, key)
        model = self._named(MODEL, version.model)
        steps = self._all(ENVIRONMENT)
        records = [self._get(EVIDENCE, evidence_key(key))]
        records += [self._get(EVIDENCE, evidence_key(key, step.environment)) for step in steps]
        approvals = self._all(APPROVAL, key + "#")
        releases = [
            release
            for step in steps
            for release in self._all(RELEASE, parent=f"{step.environment}/{version.model}")
            if release.version == key
        ]
        return VersionAnswer(
            version=version,
            model=model,
            evidence=tuple(line for record in records if record for line in record.lines),
            approvals={one.environment: one.approvals for one in approvals},
            releases=tuple(releases),
            endpoint=endpoint,
        )

    def _versions(self, query: ListVersions) -> VersionsAnswer:
        self._named(MODEL, query.model)
        versions = self._all(VERSION, parent=query.model)
        return VersionsAnswer(versions=tuple(sorted(versions, key=lambda one: parse_version(one.version))))

    def _version_of_package(self, query: VersionOfPackage) -> PackageVersionAnswer:
        claim = self._get(CLAIM, claim_key(query.model, query.package))
        return PackageVersionAnswer(version=None if claim is None else claim.version)

    def _policy(self, query: PolicyInForce) -> PolicyAnswer:
        return PolicyAnswer(policy=self._get(POLICY, query.namespace))

    def _standing(self, query: Standing) -> StandingAnswer:
        version = self._named(VERSION, query.version)
        model = self._named(MODEL, version.model)
        environment = self._named(ENVIRONMENT, query.environment)
        endpoint = self._named(ENDPOINT, f"{query.environment}/{version.model}")
        policy = self._named(POLICY, model_of(query.version).namespace)
        promote = PromoteVersion(id="", version=query.version, environment=query.environment)
        docs = gather(needs_promote, promote, self._read)
        reasons = standing_of(docs, query.version, environment, endpoint, policy, self._clock.now())
        intrinsic = self._get(EVIDENCE, evidence_key(query.version))
        relative = self._get(EVIDENCE, evidence_key(query.version, query.environment))
        bound = bound_set(intrinsic, relative)
        given: ApprovalState | None = self._get(APPROVAL, approval_key(query.version, query.environment))
        rule = policy.policy.rule(model.tier)
        live = endpoint.live.served if endpoint.live else None
        return StandingAnswer(
            next=_next_step(version, endpoint, reasons, _of_itself(reasons, rule, intrinsic)),
            reasons=tuple(reasons),
            bound=bound,
            baseline=live.package if live else None,
            baseline_version=live.version if live else None,
            quorum=rule.approvals.get(environment.sensitivity, 0),
            standing=tuple(one.approver for one in counting_approvals(version, given, bound, policy.digest)),
            evidence=tuple(line for record in (intrinsic, relative) if record for line in record.lines),
            intrinsic_gates=rule.gates,
            relative_gates=rule.relative.get(environment.sensitivity, ()),
        )

    def _read(self, ref: DocRef) -> Any:
        kind = KIND_BY_NAME[ref.kind]
        return self._all(kind, ref.key[:-1]) if ref.key.endswith("*") else self._get(kind, ref.key)

    def _changes(self, query: ChangesSince) -> ChangesAnswer:
        head, lines = self._journal.head().seq, []
        after, limit = min(max(query.seq, 0), head), min(max(query.limit, 0), MAX_CHANGES)
        for stored in self._journal.entries(after, limit):
            event, stamp = audit.read_entry(stored)
            lines.append(
                ChangeLine(
                    seq=stamp.seq,
                    at=stamp.at,
                    actor=stamp.actor,
                    type=str(event.__struct_config__.tag),
                    # What people typed may hold line breaks; a line of the log holds none.
                    summary=" ".join(event.summary().split()),
                )
            )
        return ChangesAnswer(changes=tuple(lines), head=head)

    def _verify(self, query: VerifyAudit) -> Any:
        if self._checkpoints is None:
            return audit.verify(self._journal, (), None)
        sink, verifier = self._checkpoints
        return audit.verify(self._journal, sink.read(), verifier)

    def _lineage(self, query: Lineage) -> LineageAnswer:
        """Walk the edges both ways from `ref`; the graph is small around any one thing."""
        found: set[Edge] = set()
        for source_side in (True, False):
            seen, todo = {query.ref}, [query.ref]
            while todo:
                at = todo.pop()
                edges = self._journal.edges(source=at) if source_side else self._journal.edges(target=at)
                found.update(edges)
                ends = {edge.target if source_side else edge.source for edge in edges} - seen
                seen |= ends
                todo += sorted(ends)
        return LineageAnswer(edges=tuple(LineageLine(**edge._asdict()) for edge in sorted(found)))


_WAITING = ("governance.approval",)


def _of_itself(reasons: list[Reason], rule: TierRule, intrinsic: EvidenceState | None) -> list[Reason]:
    """The reasons that evidence on the version alone would remove: a gate without any, or evidence too old."""
    known = None if intrinsic is None else intrinsic.evidence_set
    return [
        reason
        for reason in reasons
        if (reason.rule in rule.gates and reason.evidence is None)
        or (reason.rule == "governance.evidence-age" and reason.evidence == known)
    ]


def _next_step(
    version: VersionState, endpoint: EndpointState, reasons: list[Reason], of_itself: list[Reason]
) -> str:
    """The one thing to do next on the way of `version` to `endpoint`.

    Args:
        of_itself: those of the reasons that new evidence on the version alone would remove.
    """
    rules = {reason.rule for reason in reasons}
    live = endpoint.live.served.package if endpoint.live else None
    if live == version.package and endpoint.rollout is None:
        return "done"
    if "delivery.rollout-active" in rules:
        return "wait"
    if version.state in ("rejected", "retired", "quarantined"):
        return "stop"
    if not reasons:
        return "promote"
    if any(reason.rule == "governance.evidence-age" for reason in of_itself):
        return "judge"
    if rules & {"gates.baseline-moved", "governance.evidence-age"}:
        # What the old judgement said no longer counts, for or against.
        return "judge-for"
    if any(reason.evidence and reason.remedy is None for reason in reasons):
        return "stop"
    if of_itself:
        return "judge"
    if "registry.state" in rules:
        return "validate"
    if "delivery.ladder" in rules or "delivery.no-way-back" in rules:
        return "stop"
    if rules <= set(_WAITING):
        return "approve"
    return "judge-for"


def _live_line(live: Live | None) -> LiveLine | None:
    if live is None:
        return None
    return LiveLine(
        version=parse_version(live.served.version).shown,
        digest=live.served.package,
        since=live.since,
        approved_by=live.approved_by,
        ticket=live.ticket,
    )


def _shown(kind: str, key: str) -> str:
    """A document key as people write it: without the default namespace."""
    if kind == "endpoint":
        return parse_endpoint(key).shown
    if kind == "version":
        return parse_version(key).shown
    return key.removeprefix("main/") if kind == "model" else key
