"""Tests of a policy: facts in a file, the decision that is expected of them, by the engine that decides in the hub.

    [[case]]
    name = "a high tier waits for risk"
    tier = "high"
    approvals = { bob = "owner", pia = "product" }
    expect = "waiting"
    rules = ["governance.approval"]

What a case does not mention is in order: every gate the policy asks for has passed today, there is a release plan, a
drill of yesterday, the consent of consumers, a ticket, a rollout by the stages that the policy asks for. Only approvals
have to be given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from lockgate.access.state import ALIAS, AliasState, Behind
from lockgate.core.clock import Micros
from lockgate.core.digests import sha256
from lockgate.core.documents import DocRef, DocumentKind
from lockgate.core.errors import Invalid
from lockgate.core.messages import Reason
from lockgate.core.toml_lines import Misfit, read_toml
from lockgate.delivery.messages import DrillFigures, PromoteVersion, Served
from lockgate.delivery.rollouts.policy import EndpointSettings, Guard, RolloutPolicy, RolloutStep
from lockgate.delivery.standing import Decided, needs_promote, standing_of, way_back_of
from lockgate.delivery.state import (
    DRILL,
    ENDPOINT,
    ENVIRONMENT,
    SETTINGS,
    DrillState,
    EndpointState,
    EnvironmentState,
    Live,
    SettingsState,
)
from lockgate.gates.messages import EvidenceLine, Verdict
from lockgate.gates.state import EVIDENCE, EvidenceState, evidence_key
from lockgate.governance.decide import bound_of
from lockgate.governance.judgement import DAY_US, WAITS_FOR_PEOPLE
from lockgate.governance.policies.policy import AnyPolicy, ApproverRole, Sensitivity, StageTerms, TierRule
from lockgate.governance.release_plan import ReleasePlan, Risk
from lockgate.governance.state import (
    APPROVAL,
    POLICY,
    RELEASE_PLAN,
    SIGN_OFF,
    WAIVER,
    Approval,
    ApprovalState,
    PlanState,
    PolicyState,
    SignedOff,
    SignOffState,
    WaiverState,
    approval_key,
    numbered_key,
)
from lockgate.governance.tickets.tracker import WAITS_FOR_TRACKER, TicketAnswer, TicketFact, ticket_reasons
from lockgate.hub.kernel import gather
from lockgate.registry.messages import Maker, Tier
from lockgate.registry.state import MODEL, VERSION, ModelState, VersionState
from lockgate.traffic.plan import N_SLOTS, Fallback

_MODEL, _KEY, _PLACE, _AUTHOR = "main/case", "main/case@2.0.0", "there", "author"
_ENDPOINT = f"{_PLACE}/{_MODEL}"
_NOW: Micros = 1_767_225_600_000_000
_LIVE, _NEW = sha256(b"live"), sha256(b"new")


class CasesInvalid(Invalid):
    code = "project.policy-cases-invalid"


class Figure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a gate measured; it passes by the project's own limit."""

    gate: str
    metric: str
    measured: float
    low: float | None = None
    high: float | None = None


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Facts, and what is expected of them. See the module's text for what is left out.

    Attributes:
        rules: exactly these stand in the way; not held against when left out.
        verdicts: by gate; `none` is a gate without evidence.
        approvals: by person. `author` is who made the version.
        waivers: gates whose failure risk has waived.
        makers: addresses of who committed it beside the author; `known_makers` are those whom the hub knows.
        signed_off: whether the endpoint's consumer has agreed; the version is a new major one.
        tracker: what the tracker says of the ticket where the policy has it asked.
        rollout: the stages by which the endpoint rolls out, as a policy names them; none of them is a release at once.
        first_release: whether nothing was ever live there.
    """

    name: str
    expect: Decided
    rules: tuple[str, ...] | None = None
    tier: Tier = "moderate"
    sensitivity: Sensitivity = "production"
    kpi: str = ""
    verdicts: dict[str, Verdict | Literal["none"]] = {}
    figures: tuple[Figure, ...] = ()
    evidence_age_days: float = 0.0
    approvals: dict[str, ApproverRole | tuple[ApproverRole, ...]] = {}
    waivers: tuple[str, ...] = ()
    ticket: str = "OPS-1"
    release_plan: bool = True
    drill_age_days: float | None = 1.0
    signed_off: bool = True
    makers: tuple[str, ...] = ()
    known_makers: tuple[str, ...] = ()
    tracker: Literal["open", "approved", "unapproved", "closed", "unknown"] = "open"
    rollout: tuple[StageTerms, ...] | None = None
    first_release: bool = False

    @property
    def ticket_fact(self) -> TicketFact:
        said = {"approved": True, "unapproved": False}
        known, still = self.tracker != "unknown", self.tracker not in ("unknown", "closed")
        answer = TicketAnswer(known=known, open=still, approved=said.get(self.tracker))
        return TicketFact(asked_at=_NOW, answer=answer)


class _Cases(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    case: tuple[Case, ...]


class Outcome(NamedTuple):
    """What the policy said about a case."""

    case: Case
    decided: Decided
    reasons: tuple[Reason, ...]

    @property
    def holds(self) -> bool:
        rules = sorted(reason.rule for reason in self.reasons)
        return self.decided == self.case.expect and (
            self.case.rules is None or rules == sorted(self.case.rules)
        )

    @property
    def lines(self) -> list[str]:
        """What came of it, for people."""
        if self.holds:
            return [f"ok  {self.case.name}"]
        rows = [f"BAD {self.case.name}", f"    expected {self.case.expect}, got {self.decided}"]
        return rows + [f"    - {reason.rule}: {reason.message}" for reason in self.reasons]


def parse_cases(text: str, *, where: str) -> tuple[Case, ...]:
    """Read a file of cases. Raises `CasesInvalid` with the place of the mistake."""
    try:
        return read_toml(text, _Cases).case
    except Misfit as error:
        raise CasesInvalid(error.said(where), remedy=error.remedy, where=where) from error


def decide_case(policy: AnyPolicy, case: Case) -> Outcome:
    """What a promotion under these facts would be told."""
    in_force = PolicyState(
        namespace="main", digest=policy.digest, policy=policy, adopted_at=_NOW, adopted_by="admin"
    )
    known = _documents(case, in_force)

    def read(ref: DocRef) -> Any:
        if ref.key.endswith("*"):
            prefix = ref.key[:-1]
            return tuple(known[one] for one in known if one.kind == ref.kind and one.key.startswith(prefix))
        return known.get(ref)

    promote = PromoteVersion(id="", version=_KEY, environment=_PLACE, ticket=case.ticket)
    first = gather(needs_promote, promote, read)
    known[_ref(APPROVAL, approval_key(_KEY, _PLACE))] = _approved(
        case, bound_of(first, _KEY, _PLACE), policy.digest
    )
    docs = gather(needs_promote, promote, read)
    environment, endpoint = known[_ref(ENVIRONMENT, _PLACE)], known[_ref(ENDPOINT, _ENDPOINT)]
    reasons = standing_of(docs, _KEY, environment, endpoint, in_force, _NOW).reasons
    rule = policy.rule(case.tier)
    reasons += ticket_reasons(rule, case.sensitivity, _PLACE, case.ticket, case.ticket_fact)
    waits = all(reason.rule in WAITS_FOR_PEOPLE | WAITS_FOR_TRACKER for reason in reasons)
    decided: Decided = "allowed" if not reasons else "waiting" if waits else "refused"
    return Outcome(case, decided, tuple(reasons))


def _ref(kind: DocumentKind[Any], key: str) -> DocRef:
    return DocRef(kind.name, key)


def _documents(case: Case, policy: PolicyState) -> dict[DocRef, Any]:
    """A version 2.0.0 that is to follow 1.0.0 on its only endpoint."""
    rule = policy.policy.rule(case.tier)
    endpoint = _endpoint(case.first_release)
    here = approval_key(_KEY, _PLACE)
    known: dict[DocRef, Any] = {
        _ref(POLICY, "main"): policy,
        _ref(MODEL, _MODEL): ModelState(
            model=_MODEL, tier=case.tier, owner="owner", purpose="case", kpi=case.kpi
        ),
        _ref(VERSION, _KEY): _version(case),
        **{_ref(ALIAS, name): _known_as(name) for name in case.known_makers},
        _ref(ENVIRONMENT, _PLACE): EnvironmentState(
            environment=_PLACE, order=0, sensitivity=case.sensitivity, target="local", trust=()
        ),
        _ref(ENDPOINT, _ENDPOINT): endpoint,
        _ref(SETTINGS, _ENDPOINT): _settings(case, rule),
        _ref(EVIDENCE, evidence_key(_KEY)): _evidence(case, rule.gates, ""),
        _ref(EVIDENCE, evidence_key(_KEY, _PLACE)): _evidence(
            case, rule.relative.get(case.sensitivity, ()), _PLACE
        ),
    }
    if case.release_plan:
        plan = ReleasePlan(risks=(Risk(what="it fails", signal="errors"),), back_to=way_back_of(endpoint))
        known[_ref(RELEASE_PLAN, here)] = PlanState(
            version=_KEY, environment=_PLACE, plan=plan, written_at=_NOW, written_by=_AUTHOR
        )
    if case.signed_off:
        signed = SignedOff(consumer="consumer", by="consumer", at=_NOW, comment="")
        known[_ref(SIGN_OFF, here)] = SignOffState(version=_KEY, environment=_PLACE, signed=(signed,))
    if case.drill_age_days is not None:
        at = _NOW - int(case.drill_age_days * DAY_US)
        known[_ref(DRILL, _ENDPOINT)] = DrillState(
            endpoint=_ENDPOINT, n_drills=1, figures=_DRILLED, finished_at=at
        )
    for number, gate in enumerate(case.waivers, start=1):
        known[_ref(WAIVER, numbered_key(_MODEL, number))] = _waiver(number, gate)
    return known


def _settings(case: Case, rule: TierRule) -> SettingsState:
    """A rollout by the stages of the case; else by those that the policy asks for, and by a canary in any case."""
    stages = case.rollout
    if stages is None:
        stages = rule.rollout.get(case.sensitivity) or (StageTerms(stage="canary", max_share=0.1),)
    steps = tuple(step for stage in stages for step in _steps(stage))
    policy = RolloutPolicy(steps=steps, guards={"errors": Guard()}) if steps else None
    return SettingsState(endpoint=_ENDPOINT, settings=EndpointSettings(rollout=policy))


def _steps(stage: StageTerms) -> Iterator[RolloutStep]:
    """As many as it has levels, over its hours, each of a bigger share than the one before."""
    first = {"shadow": 0, "canary": min(int(stage.max_share * N_SLOTS), N_SLOTS // 2), "soak": N_SLOTS}
    for level in range(stage.levels):
        yield RolloutStep(
            stage=stage.stage,
            weight=first[stage.stage] + level,
            min_units=stage.min_units,
            bake_s=stage.min_hours * 3600 / stage.levels,
        )


_DRILLED = DrillFigures(
    n_flips=1,
    n_requests=1,
    n_failed=0,
    n_wrong=0,
    n_workers=1,
    first_p50_us=1,
    first_p99_us=1,
    all_p50_us=1,
    all_p99_us=1,
)


def _known_as(name: str) -> AliasState:
    return AliasState(alias=name, behind=(Behind(subject=name, named_at=_NOW, named_by="admin"),))


def _version(case: Case) -> VersionState:
    commits = (Maker(name=name, did="committed") for name in (*case.makers, *case.known_makers))
    return VersionState(
        version=_KEY,
        model=_MODEL,
        package=_NEW,
        run=_NEW,
        signatures=(_NEW,),
        signed_by=("key",),
        commit="",
        dirty=False,
        bump="major",
        why=(),
        previous=None,
        author=_AUTHOR,
        registered_at=_NOW,
        makers=(Maker(name=_AUTHOR, did="registered"), *commits),
        told_since="",
        state="validated",
    )


def _endpoint(first_release: bool) -> EndpointState:
    def live(number: str) -> Live:
        served = Served(version=f"{_MODEL}@{number}", package=_LIVE, signatures=(_LIVE,))
        return Live(served=served, release=1, since=_NOW, approved_by=(), ticket="")

    return EndpointState(
        endpoint=_ENDPOINT,
        fallback=Fallback(kind="constant", value=0.0),
        consumers=("consumer",),
        dashboards=(),
        live=None if first_release else live("1.0.0"),
        previous=None if first_release else live("0.9.0"),
    )


def _evidence(case: Case, gates: tuple[str, ...], environment: str) -> EvidenceState:
    lines = []
    for gate in gates:
        verdict = case.verdicts.get(gate, "pass")
        figures: list[Figure | None] = [one for one in case.figures if one.gate == gate]
        if verdict != "none":
            lines += [_line(case, gate, figure, verdict, environment) for figure in figures or [None]]
    return EvidenceState(
        version=_KEY,
        package=_NEW,
        environment=environment,
        baseline=_baseline(case, environment),
        evidence_set=sha256(environment.encode()),
        lines=tuple(lines),
        recorded_at=_NOW,
        measured_at=_NOW - int(case.evidence_age_days * DAY_US),
        recorded_by="validator",
    )


def _baseline(case: Case, environment: str) -> str | None:
    return None if not environment else "" if case.first_release else _LIVE


def _line(case: Case, gate: str, figure: Figure | None, verdict: str, environment: str) -> EvidenceLine:
    metric = figure.metric if figure else "stated"
    return msgspec.convert(
        {
            "gate": gate,
            "metric": metric,
            "verdict": verdict,
            "severity": "block",
            "value": "" if figure is None else f"{figure.measured:g}",
            "threshold": "",
            "summary": f"{verdict} {gate} {metric}",
            "digest": sha256(f"{gate} {metric}".encode()),
            "environment": environment,
            "baseline": _baseline(case, environment),
            "measured": figure.measured if figure else None,
            "low": figure.low if figure else None,
            "high": figure.high if figure else None,
        },
        EvidenceLine,
    )


def _waiver(number: int, gate: str) -> WaiverState:
    return WaiverState(
        model=_MODEL,
        number=number,
        versions="2.*",
        environment=_PLACE,
        gate=gate,
        reason="case",
        control="case",
        ticket="case",
        until=_NOW + DAY_US,
        requested_at=_NOW,
        requested_by=_AUTHOR,
        granted_at=_NOW,
        granted_by="risk",
        role="risk",
    )


def _approved(case: Case, bound: str, policy: str) -> ApprovalState:
    given = [
        Approval(approver=person, evidence_set=bound, policy=policy, approved_at=_NOW, comment="", role=role)
        for person, roles in case.approvals.items()
        for role in ((roles,) if isinstance(roles, str) else roles)
    ]
    return ApprovalState(version=_KEY, environment=_PLACE, approvals=tuple(given))
