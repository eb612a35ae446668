"""The hub's own event, and the questions that span rooms. Questions of one room live in no other place either:
there is one list of what can be asked."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

from lockgate.access.roles import Grant
from lockgate.access.state import AliasState, FederationState, HeldGrant, SubjectState
from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.messages import Event, Query, Reason, Scope
from lockgate.data.state import SnapshotState
from lockgate.delivery.lines import EndpointLine
from lockgate.delivery.messages import endpoint_scope
from lockgate.delivery.standing import StandingAnswer
from lockgate.delivery.state import EndpointState, ReleaseState, RolloutState
from lockgate.features.state import MaterializedView
from lockgate.gates.messages import EvidenceLine
from lockgate.governance.attention import Attention
from lockgate.governance.messages import environment_scope
from lockgate.governance.policies.policy import AnyPolicy
from lockgate.governance.proof import ConsistencyProof, InclusionProof
from lockgate.governance.release_plan import ReleasePlan, Risk
from lockgate.governance.state import (
    Approval,
    BreakGlassState,
    Objection,
    PlanState,
    PolicyState,
    ProposalState,
    SignOffState,
    WaiverState,
)
from lockgate.pipeline.state import RunState
from lockgate.registry.makers import MakerLine
from lockgate.registry.messages import model_scope
from lockgate.registry.state import (
    Attestation,
    ImportState,
    ModelState,
    RevokedKey,
    TraceState,
    VersionState,
)


class CommandRefused(Event, frozen=True, kw_only=True, tag="hub.command-refused/1"):
    """An authenticated actor asked for something and was told no."""

    command: str
    subject: str
    reasons: tuple[Reason, ...]

    def summary(self) -> str:
        about = f" of {self.subject}" if self.subject else ""
        return f"{self.command}{about} refused: {self.reasons[0].message}"


class DocumentsRefolded(Event, frozen=True, kw_only=True, tag="hub.documents-refolded/1"):
    """A newer release makes other documents of the same events; all were made anew."""

    release: str
    fold_versions: dict[str, int]

    def summary(self) -> str:
        return f"documents folded anew by release {self.release}"


class WhoAmIAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The session as the hub sees it: the actor, whether a name was only claimed, and what the actor may do."""

    actor: str
    claimed: bool
    kind: Literal["person", "service"] = "person"
    roles: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    credential: str = ""
    groups: tuple[str, ...] = ()


class WhoAmI(Query, frozen=True, kw_only=True, tag="hub.who-am-i"):
    """Who the hub takes me for. Needs no role: it tells nothing but that."""

    permission: ClassVar[str] = ""
    answer: ClassVar[Any] = WhoAmIAnswer

    def scope(self) -> Scope:
        return Scope(within=True)


class StatusAnswer(msgspec.Struct, frozen=True, kw_only=True):
    endpoints: dict[str, EndpointLine]
    models: tuple[ModelState, ...] = ()
    effects_pending: int = 0


class Status(Query, frozen=True, kw_only=True, tag="hub.status"):
    """What runs where."""

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = StatusAnswer
    endpoint: str = ""

    def scope(self) -> Scope:
        return endpoint_scope(self.endpoint) if self.endpoint else Scope(within=True)


class VersionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one version: where it came from, what judged it, who let it in, where it ran.

    Attributes:
        imported: what another system said of it; None for a version that was trained here.
        erased: of the snapshots it was made of, those whose rows were erased.
        online: what online stores were filled with for its model, of any definition of its views.
        makers: who had a hand in it, and who that is.
    """

    version: VersionState
    model: ModelState
    evidence: tuple[EvidenceLine, ...]
    approvals: dict[str, tuple[Approval, ...]]
    releases: tuple[ReleaseState, ...]
    endpoint: EndpointState | None = None
    line: EndpointLine | None = None
    imported: ImportState | None = None
    attestations: tuple[Attestation, ...] = ()
    erased: tuple[SnapshotState, ...] = ()
    online: tuple[MaterializedView, ...] = ()
    makers: tuple[MakerLine, ...] = ()


class KeysAnswer(msgspec.Struct, frozen=True, kw_only=True):
    revoked: tuple[RevokedKey, ...]


class RevokedKeys(Query, frozen=True, kw_only=True, tag="hub.revoked-keys"):
    """The keys that are trusted nowhere any more, and why."""

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = KeysAnswer

    def scope(self) -> Scope:
        return Scope(within=True)


class ExplainVersion(Query, frozen=True, kw_only=True, tag="hub.explain-version"):
    """Why a version is what it is. Give a version, or an endpoint for what is live there."""

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = VersionAnswer
    version: str = ""
    endpoint: str = ""

    def scope(self) -> Scope:
        # With both given it is the endpoint that is answered about.
        return endpoint_scope(self.endpoint) if self.endpoint else model_scope(self.version)


class EvidenceHead(msgspec.Struct, frozen=True, kw_only=True):
    """When a set of evidence was recorded, and by whom; `environment` is empty for a version alone."""

    environment: str
    evidence_set: Digest
    recorded_at: Micros
    recorded_by: str
    measured_at: Micros


class DossierFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The journal's half of a dossier; the other half is the package itself."""

    explained: VersionAnswer
    evidence: tuple[EvidenceHead, ...]
    snapshots: tuple[SnapshotState, ...]
    run: RunState | None
    trace: TraceState | None
    objections: dict[str, tuple[Objection, ...]]
    plans: tuple[PlanState, ...]
    sign_offs: tuple[SignOffState, ...]
    waivers: tuple[WaiverState, ...]
    break_glass: tuple[BreakGlassState, ...]
    endpoints: tuple[EndpointState, ...]
    policy: PolicyState | None


class CompileDossier(Query, frozen=True, kw_only=True, tag="hub.compile-dossier"):
    """Everything the journal knows of a version, for the document about it."""

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = DossierFacts
    version: str

    def scope(self) -> Scope:
        return model_scope(self.version)


class VersionLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a list; `hub.explain-version` tells the rest."""

    version: str
    state: str
    package: Digest


class VersionsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One page, its lines in the order of their numbers; pages follow one another in the order of the names as text.

    `next` is what to ask `after` for the next page; None at the end.
    """

    versions: tuple[VersionLine, ...]
    next: str | None = None


class ListVersions(Query, frozen=True, kw_only=True, tag="hub.list-versions"):
    """The versions of a model, of one state if it is named: those after `after`, at most `limit` and 1,000 at once."""

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = VersionsAnswer
    of_journal: ClassVar[bool] = True
    model: str
    after: str = ""
    limit: int = 1_000
    state: str = ""

    def scope(self) -> Scope:
        return model_scope(self.model)


class Standing(Query, frozen=True, kw_only=True, tag="hub.standing"):
    """What is missing until a version may run in an environment, and which step comes next.

    With `policy`, what that policy would say instead of the one in force; approvals given under the latter then do not
    count.
    """

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = StandingAnswer
    version: str
    environment: str
    policy: AnyPolicy | None = None

    def scope(self) -> Scope:
        scope = model_scope(self.version)
        return Scope(namespace=scope.namespace, model=scope.model, environment=self.environment)


class PackageVersionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Attributes:
    follows: the oldest version that is live where not everything may go, and the commit it was made of.
    """

    version: str | None
    follows: str = ""
    follows_commit: str = ""


class VersionOfPackage(Query, frozen=True, kw_only=True, tag="hub.version-of-package"):
    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = PackageVersionAnswer
    of_journal: ClassVar[bool] = True
    model: str
    package: Digest

    def scope(self) -> Scope:
        return model_scope(self.model)


class PolicyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The policy in force, and the one that is proposed in its place and waits for consent."""

    policy: PolicyState | None
    proposal: ProposalState | None = None


class PolicyInForce(Query, frozen=True, kw_only=True, tag="hub.policy-in-force"):
    """The policy that a namespace has adopted, if any."""

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = PolicyAnswer
    of_journal: ClassVar[bool] = True
    namespace: str

    def scope(self) -> Scope:
        return Scope(namespace=self.namespace)


class TokenLine(msgspec.Struct, frozen=True, kw_only=True):
    """A token as lists show it; what it is compared with stays where it is.

    Attributes:
        state: active, expired or revoked.
        last_used_at: to the minute; None when it never was.
    """

    token: str
    subject: str
    state: str
    grants: tuple[Grant, ...]
    issued_at: Micros
    issued_by: str
    expires_at: Micros
    last_used_at: Micros | None = None
    label: str = ""
    rule: str = ""


class OwnAccessAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`held` is what was given to the sender by name, with what does not count yet."""

    held: tuple[HeldGrant, ...]
    tokens: tuple[TokenLine, ...]


class OwnAccess(Query, frozen=True, kw_only=True, tag="hub.own-access"):
    """What the sender was given, and his tokens."""

    permission: ClassVar[str] = "access.token"
    answer: ClassVar[Any] = OwnAccessAnswer

    def scope(self) -> Scope:
        return Scope(within=True)


class AccessAnswer(msgspec.Struct, frozen=True, kw_only=True):
    subjects: tuple[SubjectState, ...]
    tokens: tuple[TokenLine, ...]
    rules: tuple[FederationState, ...]
    aliases: tuple[AliasState, ...] = ()


class ListAccess(Query, frozen=True, kw_only=True, tag="hub.list-access"):
    """Who holds which role, which tokens there are, which CI jobs act as which account. One subject, or all."""

    permission: ClassVar[str] = "access.read"
    answer: ClassVar[Any] = AccessAnswer
    subject: str = ""

    def scope(self) -> Scope:
        return Scope(within=True)


class ChangeLine(msgspec.Struct, frozen=True, kw_only=True):
    seq: int
    at: Micros
    actor: str
    type: str
    summary: str


class ChangesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`read_to` is the last event that was looked at: ask for what comes after it, also when no line came back."""

    changes: tuple[ChangeLine, ...]
    head: int
    read_to: int = 0


class ChangesSince(Query, frozen=True, kw_only=True, tag="hub.changes-since"):
    """Events after `seq`, oldest first; at most `limit`, and at most 1,000 at a time."""

    permission: ClassVar[str] = "read.audit"
    answer: ClassVar[Any] = ChangesAnswer
    of_journal: ClassVar[bool] = True
    seq: int = 0
    limit: int = 200

    def scope(self) -> Scope:
        return Scope(within=True)


class AuditAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a full check. `findings` names every record that does not hold.

    Attributes:
        documents: whether the documents were folded again and compared, or the chain alone was looked at.
    """

    ok: bool
    events: int
    head: str
    checkpoints: int
    findings: tuple[str, ...] = ()
    documents: bool = True


class VerifyAudit(Query, frozen=True, kw_only=True, tag="hub.verify-audit"):
    """Re-hash the chain, fold every document again and compare, check the signed checkpoints.

    `since` is a checkpoint that whoever asks has kept: what it signs must still be there. Without `documents`, only
    chain, tree and checkpoints are looked at.
    """

    permission: ClassVar[str] = "read.audit"
    answer: ClassVar[Any] = AuditAnswer
    since: str = ""
    documents: bool = True

    def scope(self) -> Scope:
        return Scope(within=True)


class ProveEntry(Query, frozen=True, kw_only=True, tag="hub.prove-entry"):
    """A proof that entry `seq` is in the journal that a checkpoint signs: one of that size, the note itself, or, left
    empty, the newest."""

    permission: ClassVar[str] = "read.audit"
    answer: ClassVar[Any] = InclusionProof
    seq: int
    checkpoint: str = ""

    def scope(self) -> Scope:
        return Scope(within=True)


class ProvedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry about a version, beside the registration that says what package it is; one checkpoint proves both."""

    registration: InclusionProof
    entry: InclusionProof


class ProvedEmergency(ProvedEntry, frozen=True, kw_only=True):
    """A release by an emergency right; the same checkpoint proves that too.

    Attributes:
        right: the entries of the right: that the glass was broken, who seconded it, how its review ended.
    """

    right: tuple[InclusionProof, ...]


class VersionProofs(msgspec.Struct, frozen=True, kw_only=True):
    """What vouches for a version, in the order of the journal.

    Attributes:
        emergencies: what let it in past its policy, and vouches for nothing.
    """

    entries: tuple[ProvedEntry, ...]
    emergencies: tuple[ProvedEmergency, ...] = ()


class ProveVersion(Query, frozen=True, kw_only=True, tag="hub.prove-version"):
    """Proofs of what was decided about a version: its run, its registration, its evidence, who approved it or no longer
    does, where it was let in, and where it went in an emergency. The same entry has the same proof, whenever it is
    asked for."""

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = VersionProofs
    version: str

    def scope(self) -> Scope:
        return model_scope(self.version)


class ProveConsistency(Query, frozen=True, kw_only=True, tag="hub.prove-consistency"):
    """A proof that the journal of one checkpoint begins with that of another; each named as in `ProveEntry`."""

    permission: ClassVar[str] = "read.audit"
    answer: ClassVar[Any] = ConsistencyProof
    old: str
    new: str = ""

    def scope(self) -> Scope:
        return Scope(within=True)


class LineageLine(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    kind: str
    target: str


class LineageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Journaled `edges`; who reads the endpoints among them today, and what the online store was last filled from."""

    edges: tuple[LineageLine, ...]
    readers: tuple[LineageLine, ...] = ()


class Lineage(Query, frozen=True, kw_only=True, tag="hub.lineage"):
    """All edges that lead to, or start from, `ref` (`version:main/x@1.0.0`, `column:main/flights.dep_delay`)."""

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = LineageAnswer
    of_journal: ClassVar[bool] = True
    ref: str

    def scope(self) -> Scope:
        return Scope(within=True)


class SnapshotsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    snapshots: tuple[SnapshotState, ...]


class FindSnapshots(Query, frozen=True, kw_only=True, tag="hub.find-snapshots"):
    """The snapshots whose digest begins so; at most twenty."""

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = SnapshotsAnswer
    of_journal: ClassVar[bool] = True
    beginning: str

    def scope(self) -> Scope:
        return Scope(within=True)


class ImpactLine(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that depends on what was asked about, by one of the versions on it.

    Attributes:
        role: `live`, `previous` (kept loaded, for the way back) or `underway`.
        uses: which inputs, and how the column reaches each.
        consumers, dashboards: of the endpoint; whoever reads an answer depends on it too.
    """

    endpoint: str
    version: str
    role: str
    uses: tuple[str, ...]
    consumers: tuple[str, ...]
    dashboards: tuple[str, ...]


class ImpactAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a change would break.

    Attributes:
        untraced: versions on endpoints of which nobody knows what they are made from; each may depend on it too.
        near: when nothing depends on `ref`, what things do depend on and is called nearly so; it may be what was meant.
    """

    ref: str
    lines: tuple[ImpactLine, ...]
    untraced: tuple[str, ...]
    near: tuple[str, ...] = ()

    @property
    def consumers(self) -> tuple[str, ...]:
        return tuple(sorted({name for line in self.lines for name in line.consumers}))


class Impact(Query, frozen=True, kw_only=True, tag="hub.impact"):
    """What a change would break: of a column `main/flights.dep_delay`, of a whole dataset `main/flights`, or of a
    feature `main/VIEW:FEATURE`."""

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = ImpactAnswer
    ref: str

    def scope(self) -> Scope:
        return Scope(within=True)


class RolloutAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How a release rolled out, or does. `rollout` is None for one that went at once."""

    release: ReleaseState
    rollout: RolloutState | None
    line: EndpointLine


class ShowRollout(Query, frozen=True, kw_only=True, tag="hub.show-rollout"):
    """The way of one release to an endpoint: its steps, its verdict. Release 0 is the latest."""

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = RolloutAnswer
    endpoint: str
    release: int = 0

    def scope(self) -> Scope:
        return endpoint_scope(self.endpoint)


class DraftAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A release plan to begin with, beside the one that was written.

    Attributes:
        guards: the signals there are, each with what it would show.
    """

    risks: tuple[Risk, ...]
    back_to: str
    guards: dict[str, str]
    written: ReleasePlan | None = None


class DraftReleasePlan(Query, frozen=True, kw_only=True, tag="hub.draft-release-plan"):
    """What has failed before on an endpoint, and what its guards watch for, as risks of a release plan."""

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = DraftAnswer
    version: str
    environment: str

    def scope(self) -> Scope:
        return environment_scope(self.version, self.environment)


class ReleasesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    releases: tuple[ReleaseState, ...]


class FindReleases(Query, frozen=True, kw_only=True, tag="hub.find-releases"):
    """The releases that a ticket, or the address of a pull request, asked for."""

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = ReleasesAnswer
    ticket: str

    def scope(self) -> Scope:
        return Scope(within=True)


class QueueAnswer(msgspec.Struct, frozen=True, kw_only=True):
    waiting: tuple[Attention, ...]


class Queue(Query, frozen=True, kw_only=True, tag="hub.queue"):
    """What waits for people: approvals, waivers, reviews, revalidations, releases out of policy."""

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = QueueAnswer

    def scope(self) -> Scope:
        return Scope(within=True)


class ReplayLine(msgspec.Struct, frozen=True, kw_only=True):
    """A release that was let in, and what would have stood in its way."""

    endpoint: str
    release: int
    version: str
    started_at: Micros
    started_by: str
    reasons: tuple[Reason, ...]


class ReplayAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`n_releases` were looked at: those of the namespace that went by promotion."""

    n_releases: int
    blocked: tuple[ReplayLine, ...]


class ReplayPolicy(Query, frozen=True, kw_only=True, tag="hub.replay-policy"):
    """Which releases another policy would have stopped, at their moment and on what was known then."""

    permission: ClassVar[str] = "read"
    answer: ClassVar[Any] = ReplayAnswer
    namespace: str
    policy: AnyPolicy

    def scope(self) -> Scope:
        return Scope(namespace=self.namespace, within=True)
