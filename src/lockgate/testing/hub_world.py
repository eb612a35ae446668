"""A small world around a hub: two people's worth of names, one model, a ladder of two environments, a strict policy.

`HubWorld` puts a hub over any journal and outbox, with time, ids and package facts that stand still. `Story` speaks to
any hub, local or remote, in the words of the house: register, judge, validate, approve, promote, confirm, roll back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lockgate.access.roles import PEOPLES_ROLES, everywhere
from lockgate.access.subjects import is_service
from lockgate.core.clock import Ids, Micros
from lockgate.core.digests import Digest, digest_of, sha256
from lockgate.core.documents import DocumentKind
from lockgate.core.journal import NoteVerifier
from lockgate.core.messages import Command, Query, Reason, Receipt
from lockgate.core.semver import Bump
from lockgate.data.messages import EraseSnapshot, RecordContractCheck, RecordSnapshot
from lockgate.delivery.messages import (
    ConfigureEndpoint,
    ConfirmPlan,
    DeclareEndpoint,
    DeclareEnvironment,
    JudgeRollout,
    PromoteVersion,
    ReleaseInEmergency,
    RollBackEndpoint,
)
from lockgate.delivery.rollouts.policy import EndpointSettings
from lockgate.delivery.rollouts.verdict import Look
from lockgate.delivery.standing import asks_tracker, question_of
from lockgate.delivery.way_back import TERMS_FACT
from lockgate.gates.messages import EvidenceLine, RecordEvidence, StartJudging, Verdict
from lockgate.governance.messages import AdoptPolicy, ApproveVersion, ValidateVersion, WriteReleasePlan
from lockgate.governance.policies.policy import AnyPolicy, ApproverRole, Policy1, Sensitivity, TierRule1
from lockgate.governance.release_plan import Risk
from lockgate.governance.tickets.facts import ticket_fact
from lockgate.governance.tickets.ports import Tracker
from lockgate.governance.tickets.tracker import TICKET_FACT
from lockgate.hub.authority import Session, controller
from lockgate.hub.kernel import Hub, LocalHub, body_of, read_body
from lockgate.hub.messages import ExplainVersion, Standing, Status
from lockgate.hub.ports import CheckpointSink, Journal, Outbox
from lockgate.hub.questions import Questions
from lockgate.pipeline.decide import SAME_ROWS_FACT
from lockgate.pipeline.messages import RecordRun
from lockgate.registry.decide import ATTESTATION_FACT, PACKAGE_FACT, AttestationFact, PackageFact
from lockgate.registry.messages import (
    AttachAttestation,
    CollectPackage,
    DeclareModel,
    RegisterVersion,
    SignVersion,
    Tier,
    TracedInput,
)
from lockgate.registry.state import MODEL, VERSION, VersionState
from lockgate.registry.trust import TRUST_FACT, TrustFact
from lockgate.testing.clock import CountingIds, FakeClock
from lockgate.testing.memory_journal import MemoryJournal, MemoryOutbox, MemoryStore
from lockgate.traffic.plan import Fallback

MODEL_NAME = "main/flight-delay"
DATASET = "main/flights"
AUTHOR, APPROVER, OPERATOR, PLATFORM = "ann", "bob", "olga", "petra"
CONTROLLER = "controller"
GATE, RELATIVE_GATE = "perf.absolute", "perf.vs_champion"
MAX_AGE_DAYS = 7
SBOM = "https://cyclonedx.org/bom"
SIGNER = sha256(b"the key that signs packages")

_QUORUM: dict[Tier, int] = {"low": 0, "moderate": 1, "high": 1, "critical": 2}
_LADDER: tuple[tuple[str, Sensitivity], ...] = (("dev", "open"), ("prod", "production"))


def _rule(quorum: int) -> TierRule1:
    return TierRule1(
        gates=(GATE,),
        relative={"production": (RELATIVE_GATE,)},
        approvals={"production": quorum},
        evidence_max_age_days=MAX_AGE_DAYS,
    )


POLICY = Policy1(name="test", version=1, tiers={tier: _rule(quorum) for tier, quorum in _QUORUM.items()})


def named_digest(*words: object) -> Digest:
    """A digest that stands for something; the same words give the same one."""
    return sha256(" ".join(map(str, words)).encode())


class HubWorld:
    """A hub over `journal` and `outbox`, for any number of actors.

    Attributes:
        at: told each step of the kernel; replace it to crash there.
        bumps: the smallest bump a package demands; `patch` unless said otherwise.
        built_for: the model a package was built for; the one it is registered for unless said otherwise.
        signers: whose signature an envelope is, by its digest; `SIGNER` unless said otherwise.
        complaints: what is wrong with the bytes of a package, by its digest.
        refused: what packages hold that is no plain data.
        tracker: who is asked about tickets; nobody unless said otherwise.
        traces: where the inputs of a package come from; nobody knows unless said otherwise.
        terms: how many days packages are kept at least, by tier; for as long as who asks says, unless said otherwise.
        same_rows: which other snapshots have rows of one; none unless said otherwise.
        attested: what an envelope turns out to say; what it is attached as unless said otherwise.
    """

    def __init__(
        self,
        journal: Journal,
        outbox: Outbox,
        *,
        clock: FakeClock | None = None,
        checkpoints: tuple[CheckpointSink, NoteVerifier] | None = None,
    ) -> None:
        self.journal = journal
        self.outbox = outbox
        self.clock = clock or FakeClock()
        self.at: Callable[[str], None] = lambda step: None
        self.carry_out: Callable[[str], bool] = lambda subject: False
        self.bumps: dict[Digest, Bump] = {}
        self.built_for: dict[Digest, str] = {}
        self.refused: tuple[str, ...] = ()
        self.traces: dict[Digest, tuple[TracedInput, ...]] = {}
        self.attested: dict[Digest, AttestationFact] = {}
        self.signers: dict[Digest, str] = {}
        self.complaints: dict[Digest, tuple[Reason, ...]] = {}
        self.tracker: Tracker | None = None
        self.terms: dict[str, int] = {}
        self.same_rows: Callable[[Digest], tuple[Digest, ...]] = lambda snapshot: ()
        self.questions = Questions(journal, outbox, self.clock, checkpoints=checkpoints)

    @classmethod
    def in_memory(
        cls,
        *,
        clock: FakeClock | None = None,
        checkpoints: tuple[CheckpointSink, NoteVerifier] | None = None,
    ) -> HubWorld:
        """A world whose journal and outbox are empty, and gone when nobody holds it any more."""
        store = MemoryStore()
        return cls(MemoryJournal(store), MemoryOutbox(store), clock=clock, checkpoints=checkpoints)

    def hub(self, actor: str, roles: frozenset[str] = PEOPLES_ROLES) -> LocalHub:
        person = Session(actor=actor, grants=everywhere(roles), claimed=True)
        return self.hub_for(controller(actor) if actor == CONTROLLER else person)

    def proven(self, actor: str, started_by: tuple[str, ...] = ()) -> LocalHub:
        """The hub of somebody who has proven his name; `service:NAME` is a job that `started_by` has started."""
        machine = is_service(actor)
        return self.hub_for(
            Session(
                actor=actor,
                grants=everywhere(PEOPLES_ROLES),
                claimed=False,
                kind="service" if machine else "person",
                started_by=started_by if machine else (),
            )
        )

    def hub_for(self, session: Session) -> LocalHub:
        return LocalHub(
            self.journal,
            self.clock,
            session,
            answer=self.questions,
            establish=self._establish,
            inquire=lambda command: self._inquire(command, session.actor),
            carry_out=lambda subject: self.carry_out(subject),
            at=lambda step: self.at(step),
        )

    def ask(self, query: Query, session: Session | None = None) -> Any:
        return self.questions(query, session)

    def _establish(self, command: Command) -> Mapping[str, Any]:
        if isinstance(command, AttachAttestation):
            return {ATTESTATION_FACT: self.attested.get(command.envelope) or self.as_said(command)}
        if isinstance(command, CollectPackage):
            return {TERMS_FACT: self.terms}
        if isinstance(command, EraseSnapshot):
            return {SAME_ROWS_FACT: self.same_rows(command.snapshot)}
        if isinstance(command, PromoteVersion | ReleaseInEmergency | SignVersion):
            stored = self.journal.document(VERSION.name, command.version)
            return {} if stored is None else {TRUST_FACT: self.trust(command, read_body(VERSION, stored))}
        if not isinstance(command, RegisterVersion):
            return {}
        stored = self.journal.document(MODEL.name, command.model)
        model = None if stored is None else msgspec.json.decode(stored.body, type=MODEL.type)
        fact = PackageFact(
            package=command.package,
            model=self.built_for.get(command.package, command.model),
            signed_by=self.signed_by(command.signatures),
            against=None if model is None else model.latest_package,
            minimum_bump=self.bumps.get(command.package, "patch"),
            why=("new data",),
            refused=self.refused,
            traces=self.traces.get(command.package, ()),
        )
        return {PACKAGE_FACT: fact}

    def _inquire(self, command: Command, actor: str) -> Mapping[str, Any]:
        def known(kind: DocumentKind[Any], key: str) -> Any:
            return body_of(self.journal, kind, key)

        if not isinstance(command, PromoteVersion) or not asks_tracker(known, command):
            return {}
        now = self.clock.now()
        return {TICKET_FACT: ticket_fact(self.tracker, question_of(command, actor, now), now)}

    def trust(
        self, command: PromoteVersion | ReleaseInEmergency | SignVersion, version: VersionState
    ) -> TrustFact:
        """Signatures are by `SIGNER` unless `signers` says otherwise; bytes hold unless `complaints` says so."""
        looked_at = (command.signature,) if isinstance(command, SignVersion) else version.signatures
        return TrustFact(
            package=version.package,
            signatures=version.signatures,
            signed_by=self.signed_by(looked_at),
            complaints=self.complaints.get(version.package, ()),
        )

    def signed_by(self, signatures: tuple[Digest, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.signers.get(one, SIGNER) for one in signatures))

    def as_said(self, command: AttachAttestation) -> AttestationFact:
        stored = self.journal.document(VERSION.name, command.version)
        return AttestationFact(
            envelope=command.envelope,
            predicate_type=command.predicate_type,
            statement=named_digest("statement", command.envelope),
            package="" if stored is None else stored.digest,
            signed_by=SIGNER,
        )


class Story:
    """Tells a hub what happens to `main/flight-delay`, in short sentences.

    Args:
        hub_of: the hub in the name of an actor.
    """

    def __init__(self, hub_of: Callable[[str], Hub], ids: Ids | None = None) -> None:
        self._hub_of = hub_of
        self._ids = ids or CountingIds("c")

    def new_id(self) -> str:
        return self._ids.new()

    def named(self, *words: object) -> Digest:
        """The digest that stands for something: a package, a snapshot, a run, a signature."""
        return named_digest(*words)

    def do(self, actor: str, command: Command) -> Receipt:
        return self._hub_of(actor).execute(command)

    def ask(self, query: Query) -> Any:
        return self._hub_of(OPERATOR).ask(query)

    def found(
        self,
        *,
        tier: Tier = "high",
        fallback: float | None = 0.2,
        policy: AnyPolicy = POLICY,
        kpi: str = "",
    ) -> None:
        """Declare the model, the environments dev (open) and prod (production), their endpoints, the policy."""
        new = self._ids.new
        shape = Fallback() if fallback is None else Fallback(kind="constant", value=fallback)
        commands: list[Command] = [
            AdoptPolicy(id=new(), namespace="main", policy=policy),
            DeclareModel(id=new(), model=MODEL_NAME, tier=tier, owner="team", purpose="delays", kpi=kpi),
        ]
        for order, (environment, sensitivity) in enumerate(_LADDER):
            commands += [
                DeclareEnvironment(
                    id=new(),
                    environment=environment,
                    order=order,
                    sensitivity=sensitivity,
                    target="local",
                    trust=("key",),
                ),
                DeclareEndpoint(
                    id=new(), endpoint=f"{environment}/{MODEL_NAME}", fallback=shape, consumers=("app",)
                ),
            ]
        for command in commands:
            accepted(self.do(PLATFORM, command))

    def train(self, name: object) -> Digest:
        """Record a snapshot that keeps its contract and a run over it; returns the run."""
        snapshot, run = self.named("snapshot", name), self.named("run", name)
        for command in (
            RecordSnapshot(
                id=self.new_id(),
                dataset=DATASET,
                snapshot=snapshot,
                n_rows=1000,
                extracted_at=1_767_225_600_000_000,
                source="nycflights13",
                transformation=self.named("transformation"),
                storage="blobs",
            ),
            RecordContractCheck(
                id=self.new_id(), dataset=DATASET, snapshot=snapshot, contract=self.named("contract")
            ),
            RecordRun(
                id=self.new_id(),
                model=MODEL_NAME,
                run=run,
                package=self.named("package", name),
                snapshots={DATASET: snapshot},
            ),
        ):
            accepted(self.do(AUTHOR, command))
        return run

    def register(
        self, name: object, *, author: str = AUTHOR, version: str | None = None, **told: Any
    ) -> Receipt:
        return self.do(author, self.registering(name, version=version, **told))

    def registering(self, name: object, *, version: str | None = None, **told: Any) -> RegisterVersion:
        """`told` is what is said of commits: `commit`, `people`, `told_since`."""
        return RegisterVersion(
            id=self.new_id(),
            model=MODEL_NAME,
            package=self.named("package", name),
            run=self.named("run", name),
            signatures=(self.named("signature", name),),
            version=version,
            **told,
        )

    def attaching(self, version: str, name: object, predicate_type: str = SBOM) -> AttachAttestation:
        return AttachAttestation(
            id=self.new_id(),
            version=version,
            predicate_type=predicate_type,
            envelope=self.named("envelope", name),
        )

    def judging(
        self,
        version: str,
        package: Digest,
        *,
        environment: str = "",
        verdict: Verdict = "pass",
        baseline: str | None = None,
        turn: object = 0,
        judging: str = "",
        began_at: Micros | None = None,
    ) -> RecordEvidence:
        """Evidence by the one gate that the policy asks for, intrinsic or for an environment.

        Args:
            turn: another one finds something else.
            judging: the run of the gates that found it; without one it is sent, and not measured.
        """
        gate = RELATIVE_GATE if environment else GATE
        line = EvidenceLine(
            gate=gate,
            metric="auc",
            verdict=verdict,
            severity="block",
            value="0.81",
            threshold="0.70",
            summary=f"auc 0.81 against 0.70: {verdict}",
            digest=digest_of([version, environment, verdict, baseline, str(turn)]),
            environment=environment,
            baseline=baseline,
        )
        return RecordEvidence(
            id=self.new_id(),
            version=version,
            package=package,
            environment=environment,
            baseline=baseline,
            lines=(line,),
            judging=judging,
            began_at=began_at,
        )

    def start_judging(self, version: str, environment: str = "") -> StartJudging:
        """A run of the gates begins; its id names it."""
        return StartJudging(id=self.new_id(), version=version, environment=environment)

    def judge(self, version: str, *, verdict: Verdict = "pass", turn: object = 0) -> Receipt:
        return self._judged(version, "", verdict=verdict, turn=turn)

    def judge_for(
        self, version: str, environment: str, *, verdict: Verdict = "pass", turn: object = 0
    ) -> Receipt:
        baseline = self.ask(Standing(version=version, environment=environment)).baseline or ""
        return self._judged(version, environment, verdict=verdict, turn=turn, baseline=baseline)

    def _judged(self, version: str, environment: str, **found: Any) -> Receipt:
        """The gates run, and what they found is recorded."""
        begun = self.start_judging(version, environment)
        receipt = self.do("eve", begun)
        if receipt.refusal is not None:
            return receipt
        package = self.ask(ExplainVersion(version=version)).version.package
        command = self.judging(version, package, environment=environment, judging=begun.id, **found)
        return self.do("eve", command)

    def validate(self, version: str) -> Receipt:
        return self.do("eve", ValidateVersion(id=self.new_id(), version=version))

    def approve(
        self,
        version: str,
        environment: str = "prod",
        *,
        actor: str = APPROVER,
        role: ApproverRole = "owner",
    ) -> Receipt:
        bound = self.ask(Standing(version=version, environment=environment)).bound
        command = ApproveVersion(
            id=self.new_id(),
            version=version,
            environment=environment,
            evidence_set=bound,
            comment="fine",
            role=role,
        )
        return self.do(actor, command)

    def plan(self, version: str, environment: str = "prod", *, signal: str = "errors") -> Receipt:
        """Write a release plan with one risk."""
        risks = (Risk(what="it fails more often", signal=signal),)
        command = WriteReleasePlan(id=self.new_id(), version=version, environment=environment, risks=risks)
        return self.do(AUTHOR, command)

    def promote(self, version: str, environment: str, *, ticket: str = "") -> Receipt:
        command = PromoteVersion(id=self.new_id(), version=version, environment=environment, ticket=ticket)
        return self.do(OPERATOR, command)

    def confirm(self, environment: str, *, applied: bool = True) -> Receipt:
        """Report on whatever is on its way to the model's endpoint there."""
        name = f"{environment}/{MODEL_NAME}"
        line = next(iter(self.ask(Status(endpoint=name)).endpoints.values()))
        command = ConfirmPlan(
            id=self.new_id(),
            endpoint=name,
            generation=line.rollout.generation if line.rollout else 0,
            applied=applied,
            detail="" if applied else "worker 1 could not load it",
            took_us=1500,
        )
        return self.do(CONTROLLER, command)

    def configure(self, environment: str, settings: EndpointSettings) -> Receipt:
        command = ConfigureEndpoint(
            id=self.new_id(), endpoint=f"{environment}/{MODEL_NAME}", settings=settings
        )
        return self.do(PLATFORM, command)

    def judge_rollout(self, environment: str, look: Look) -> Receipt:
        """Report what was seen of the step that the model's endpoint there stands on."""
        name = f"{environment}/{MODEL_NAME}"
        rollout = next(iter(self.ask(Status(endpoint=name)).endpoints.values())).rollout
        command = JudgeRollout(
            id=self.new_id(),
            endpoint=name,
            release=rollout.release if rollout else 0,
            step=rollout.step - 1 if rollout else 0,
            look=look,
        )
        return self.do(CONTROLLER, command)

    def roll_back(self, environment: str, *, reason: str = "errors") -> Receipt:
        command = RollBackEndpoint(id=self.new_id(), endpoint=f"{environment}/{MODEL_NAME}", reason=reason)
        return self.do(OPERATOR, command)

    def release(self, name: object, version: str) -> None:
        """The whole way of a package to prod, as `version`."""
        self.train(name)
        accepted(self.register(name))
        accepted(self.judge(version))
        accepted(self.validate(version))
        accepted(self.promote(version, "dev"))
        accepted(self.confirm("dev"))
        accepted(self.judge_for(version, "prod"))
        accepted(self.approve(version))
        accepted(self.promote(version, "prod", ticket="CHG-1"))
        accepted(self.confirm("prod"))


def accepted(receipt: Receipt) -> Receipt:
    """The receipt of a command that must not have been refused."""
    assert receipt.refusal is None, receipt.refusal
    return receipt


def rules_of(receipt: Receipt) -> list[str]:
    """The rules that refused a command; empty when it was not."""
    return [] if receipt.refusal is None else [reason.rule for reason in receipt.refusal.reasons]
