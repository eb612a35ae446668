"""Waivers: a gate's failure that is passed over for a time, with something done instead.

The verdict stays `fail`; the decision says by which waiver it was passed over. What nobody measured, an error or a gate
that did not run, is not passed over, and neither is what makes bytes unfit to be served (`NEVER_WAIVED`). Nobody
grants what they asked for, themselves or by a CI job that they started, or what they made.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lockgate.access.aliases import identity_of, identity_refs
from lockgate.core.clock import Micros, iso
from lockgate.core.documents import DocRef, Docs
from lockgate.core.errors import did_you_mean
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse
from lockgate.core.names import check_part
from lockgate.governance.decide import model_and_policy
from lockgate.governance.judgement import DAY_US, by_a_person, never_waived
from lockgate.governance.messages import (
    EndWaiver,
    GrantWaiver,
    RequestWaiver,
    WaiverEnded,
    WaiverGranted,
    WaiverRequested,
)
from lockgate.governance.policies.policy import AnyPolicy, TierRule, WaiverTerms
from lockgate.governance.state import POLICY, WAIVER, WaiverState
from lockgate.registry.decide import known_version
from lockgate.registry.makers import maker_refs, makers_of, not_by_a_maker, starters
from lockgate.registry.state import MODEL, VERSION

_VERSIONS = re.compile(r"[0-9]+\.([0-9]+\.([0-9]+|\*)|\*)\Z")


def needs_waiver(command: RequestWaiver | GrantWaiver | EndWaiver, docs: Docs) -> tuple[DocRef, ...]:
    """Every waiver of the model: the next number is one more, and renewals are counted."""
    refs = [
        DocRef(MODEL.name, command.model),
        DocRef(POLICY.name, command.model.partition("/")[0]),
        DocRef(WAIVER.name, command.model + "#*"),
    ]
    versions = command.versions if isinstance(command, RequestWaiver) else ""
    if not versions and docs.has(refs[2]):
        waiver = next((one for one in _of(docs, command.model) if _is(one, command)), None)
        versions = "" if waiver is None else waiver.versions
        refs += () if waiver is None else identity_refs(waiver.started_by)
    if versions and not versions.endswith("*"):
        refs += maker_refs(docs, f"{command.model}@{versions}")
    return tuple(refs)


def _of(docs: Docs, model: str) -> tuple[WaiverState, ...]:
    return docs.all(WAIVER, model + "#")


def _is(waiver: WaiverState, command: RequestWaiver | GrantWaiver | EndWaiver) -> bool:
    numbered = None if isinstance(command, RequestWaiver) else command.number
    return (waiver.number, waiver.environment) == (numbered, command.environment)


def request_waiver(docs: Docs, command: RequestWaiver, context: Context) -> Decision | Refusal:
    check_part(command.environment, what="environment")
    known = model_and_policy(docs, command.model)
    if isinstance(known, Refusal):
        return known
    model, policy = known
    rule = policy.policy.rule(model.tier)
    reasons = _unfit(docs, command, policy.policy, rule)
    reasons += _too_long(rule.waivers, command.until, context.now)
    if reasons:
        return Refusal(reasons=tuple(reasons))
    waivers = _of(docs, command.model)
    said = (command.versions, command.environment, command.gate, command.until)
    if any(one.is_asked and (one.versions, one.environment, one.gate, one.until) == said for one in waivers):
        return Decision(())
    return Decision(
        (
            WaiverRequested(
                model=command.model,
                number=len(waivers) + 1,
                versions=command.versions,
                environment=command.environment,
                gate=command.gate,
                reason=command.reason,
                control=command.control,
                ticket=command.ticket,
                until=command.until,
                started_by=tuple(name for one in starters(context) for name in one.names),
            ),
        )
    )


def _unfit(docs: Docs, command: RequestWaiver, policy: AnyPolicy, rule: TierRule) -> list[Reason]:
    """What is wrong with what is asked for, apart from how long."""
    reasons = []
    asked = {*rule.gates, *(gate for gates in rule.relative.values() for gate in gates)}
    if command.gate in never_waived(policy):
        reasons.append(
            Reason(
                rule="governance.not-waivable",
                message=f"{command.gate} is never waived: what it finds makes the bytes unfit to be served",
                measured=command.gate,
                remedy="mend what it found; a fix is a new version",
            )
        )
    elif command.gate not in asked:
        reasons.append(
            Reason(
                rule="governance.gate-not-asked",
                message=f"the policy does not ask for {command.gate}, so there is nothing to waive",
                measured=command.gate,
                limit=", ".join(sorted(asked)),
                remedy=did_you_mean(command.gate, sorted(asked)),
            )
        )
    for name in ("reason", "control", "ticket"):
        if not getattr(command, name).strip():
            reasons.append(
                Reason(
                    rule="governance.waiver-terms",
                    message=f"a waiver names its {name}",
                    measured="none",
                    remedy=f"lockgate waive ... --{name} TEXT",
                )
            )
    exact = not command.versions.endswith("*")
    if _VERSIONS.match(command.versions) is None:
        reasons.append(
            Reason(
                rule="governance.waiver-terms",
                message=f"{command.versions!r} names no versions",
                measured=command.versions,
                limit="1.4.2, 1.4.* or 1.*",
                remedy="name one version, or a range of one number: lockgate waive NAME@1.4.*",
            )
        )
    elif exact:
        known = known_version(docs, f"{command.model}@{command.versions}")
        reasons += known.reasons if isinstance(known, Refusal) else ()
    return reasons


def _too_long(terms: WaiverTerms, until: Micros, now: Micros) -> list[Reason]:
    days = (until - now) / DAY_US
    if 0 < days <= terms.max_days:
        return []
    return [
        Reason(
            rule="governance.waiver-terms",
            message="a waiver ends in the future, and soon",
            measured=f"{days:.1f} days, until {iso(until)[:16]}Z",
            limit=f"{terms.max_days:g} days",
            remedy="ask for one that ends earlier" if days > 0 else "ask for it anew",
        )
    ]


def grant_waiver(docs: Docs, command: GrantWaiver, context: Context) -> Decision | Refusal:
    """By a person who neither asked for it nor made the version, in the name of a role that the policy lets."""
    known = model_and_policy(docs, command.model)
    if isinstance(known, Refusal):
        return known
    model, policy = known
    waiver = _named(docs, command)
    if isinstance(waiver, Refusal):
        return waiver
    if waiver.granted_at is not None and waiver.ended_at is None:
        return Decision(())
    if not waiver.is_asked:
        return _over(waiver)
    terms = policy.policy.rule(model.tier).waivers
    reasons = by_a_person(context) + _own_business(docs, waiver, context)
    reasons += _not_in_the_name_of(terms, command, waiver, _of(docs, command.model))
    reasons += _too_long(terms, waiver.until, context.now)
    if reasons:
        return Refusal(reasons=tuple(reasons))
    return Decision(
        (
            WaiverGranted(
                model=command.model, number=command.number, role=command.role, comment=command.comment
            ),
        )
    )


def _own_business(docs: Docs, waiver: WaiverState, context: Context) -> list[Reason]:
    exact = not waiver.versions.endswith("*")
    version = docs.get(VERSION, f"{waiver.model}@{waiver.versions}") if exact else None
    if version is not None and (
        own := not_by_a_maker(context, makers_of(docs, version), f"grant {waiver.name}")
    ):
        return own
    job = identity_of(docs, waiver.started_by)
    started = bool(waiver.started_by) and (
        job.is_(context.actor) or job.rests_on(context.actor, strict=False)
    )
    if context.actor != waiver.requested_by and not started:
        return []
    deed = "started the job that asked for it" if started else "asked for it"
    return [
        Reason(
            rule="governance.separation-of-duties",
            message=f"{context.actor} {deed} and cannot grant {waiver.name}",
            measured=context.actor,
            limit=f"not {waiver.requested_by}",
            remedy="somebody else types the same command --as NAME",
        )
    ]


def _not_in_the_name_of(
    terms: WaiverTerms, command: GrantWaiver, waiver: WaiverState, waivers: Sequence[WaiverState]
) -> list[Reason]:
    """The policy's roles may grant; after so many renewals of the same, only risk."""
    earlier = sum(
        one.granted_at is not None and (one.gate, one.environment) == (waiver.gate, waiver.environment)
        for one in waivers
    )
    if earlier > terms.renewals:
        if command.role == "risk":
            return []
        return [
            Reason(
                rule="governance.waiver-renewals",
                message=f"{waiver.gate} was waived {earlier} times in {waiver.environment}; "
                "to go on so is for risk to decide",
                measured=f"{earlier} before, in the name of {command.role}",
                limit=f"{terms.renewals + 1} before risk",
                remedy="ask risk; better, mend what the gate finds",
            )
        ]
    if command.role in terms.roles:
        return []
    return [
        Reason(
            rule="governance.waiver-terms",
            message=f"{command.role} grants no waivers of this tier",
            measured=command.role,
            limit=" or ".join(terms.roles),
            remedy=f"ask somebody who speaks for {' or '.join(terms.roles)}",
        )
    ]


def end_waiver(docs: Docs, command: EndWaiver, context: Context) -> Decision | Refusal:
    waiver = _named(docs, command)
    if isinstance(waiver, Refusal):
        return waiver
    if waiver.ended_at is not None:
        return _over(waiver)
    return Decision(
        (WaiverEnded(model=command.model, number=command.number, role=command.role, reason=command.reason),)
    )


def _named(docs: Docs, command: GrantWaiver | EndWaiver) -> WaiverState | Refusal:
    waivers = _of(docs, command.model)
    found = next((one for one in waivers if _is(one, command)), None)
    if found is not None:
        return found
    return refuse(
        Reason(
            rule="governance.waiver-unknown",
            message=f"there is no waiver W-{command.number} of {command.model} for {command.environment}",
            measured=f"W-{command.number}",
            limit=", ".join(f"{one.name} for {one.environment}" for one in waivers if one.is_asked)
            or "none asked",
            remedy="lockgate review list",
        )
    )


def _over(waiver: WaiverState) -> Refusal:
    return refuse(
        Reason(
            rule="governance.waiver-over",
            message=f"{waiver.name} is over: {waiver.ended}",
            measured="ended",
            remedy="ask for a new one: lockgate waive",
        )
    )
