"""Break-glass: a right for an emergency, short, always recorded, reviewed afterwards by somebody else.

Whoever breaks the glass may, alone, release to that endpoint what was live there before; with a second person also a
validated version that never was. Not quarantined and not unsigned bytes. The review is owed from the moment the glass
is broken, used or not; while one is overdue, no version of the model moves forward.
"""

from __future__ import annotations

from collections.abc import Iterable

from lockgate.core.clock import Micros, iso
from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse
from lockgate.core.names import check_part
from lockgate.governance.decide import model_and_policy
from lockgate.governance.judgement import by_a_person
from lockgate.governance.messages import (
    BreakGlass,
    BreakGlassSeconded,
    CloseReview,
    GlassBroken,
    ReviewClosed,
    SecondBreakGlass,
)
from lockgate.governance.state import BREAK_GLASS, POLICY, BreakGlassState
from lockgate.registry.makers import Makers, not_by_a_maker
from lockgate.registry.state import MODEL

_HOUR_US = 3600 * 1_000_000


def needs_break_glass(command: BreakGlass | SecondBreakGlass | CloseReview, docs: Docs) -> tuple[DocRef, ...]:
    return (
        DocRef(MODEL.name, command.model),
        DocRef(POLICY.name, command.model.partition("/")[0]),
        DocRef(BREAK_GLASS.name, command.model + "#*"),
    )


def break_glass(docs: Docs, command: BreakGlass, context: Context) -> Decision | Refusal:
    check_part(command.environment, what="environment")
    known = model_and_policy(docs, command.model)
    if isinstance(known, Refusal):
        return known
    terms = known[1].policy.break_glass
    reasons = by_a_person(context)
    if not 0 < command.hours <= terms.max_hours:
        reasons.append(
            Reason(
                rule="governance.break-glass-terms",
                message="an emergency right lasts for hours, not longer",
                measured=f"{command.hours:g} hours",
                limit=f"{terms.max_hours:g} hours",
                remedy=f"give --hours {terms.max_hours:g} or less",
            )
        )
    for name in ("incident", "reason"):
        if not getattr(command, name).strip():
            reasons.append(
                Reason(
                    rule="governance.break-glass-terms",
                    message=f"whoever breaks the glass names the {name}",
                    measured="none",
                    remedy=f"give --{name}",
                )
            )
    if reasons:
        return Refusal(reasons=tuple(reasons))
    return Decision(
        (
            GlassBroken(
                model=command.model,
                number=len(docs.all(BREAK_GLASS, command.model + "#")) + 1,
                environment=command.environment,
                incident=command.incident,
                reason=command.reason,
                until=context.now + int(command.hours * _HOUR_US),
                review_due=context.now + int(terms.review_hours * _HOUR_US),
            ),
        )
    )


def named_right(docs: Docs, model: str, environment: str, number: int) -> BreakGlassState | Refusal:
    rights = docs.all(BREAK_GLASS, model + "#")
    found = next((one for one in rights if (one.number, one.environment) == (number, environment)), None)
    if found is not None:
        return found
    return refuse(
        Reason(
            rule="governance.break-glass-unknown",
            message=f"nobody broke glass B-{number} on {environment}/{model}",
            measured=f"B-{number}",
            limit=", ".join(f"{one.name} on {one.environment}" for one in rights) or "none",
            remedy="lockgate review list",
        )
    )


def expired(right: BreakGlassState, now: Micros) -> list[Reason]:
    """Why a right cannot be used any more: its hours are over, or it was reviewed, so that no use goes without."""
    if right.reviewed_at is not None:
        return [
            Reason(
                rule="governance.break-glass-over",
                message=f"{right.name} was reviewed at {iso(right.reviewed_at)[:16]}Z by {right.reviewed_by}",
                measured="reviewed",
                remedy="when the emergency lasts, break the glass again: lockgate break-glass",
            )
        ]
    if now <= right.until:
        return []
    return [
        Reason(
            rule="governance.break-glass-over",
            message=f"{right.name} ended at {iso(right.until)[:16]}Z",
            measured=f"{(now - right.until) // 60_000_000} minutes ago",
            limit=f"{(right.until - right.broken_at) / _HOUR_US:g} hours",
            remedy="when the emergency lasts, break the glass again: lockgate break-glass",
        )
    ]


def second_break_glass(docs: Docs, command: SecondBreakGlass, context: Context) -> Decision | Refusal:
    right = named_right(docs, command.model, command.environment, command.number)
    if isinstance(right, Refusal):
        return right
    reasons = by_a_person(context) + expired(right, context.now)
    if context.actor == right.broken_by:
        reasons.append(_took_part(context.actor, right, "stand by it as the second person"))
    if reasons:
        return Refusal(reasons=tuple(reasons))
    if right.seconded_by:
        return Decision(())
    return Decision((BreakGlassSeconded(model=command.model, number=command.number),))


def close_review(
    docs: Docs, command: CloseReview, context: Context, let_in: Iterable[Makers] = ()
) -> Decision | Refusal:
    """The end of a review, by a person who neither took part nor made what the emergency let in.

    Args:
        let_in: who made each version that went out by this right.
    """
    right = named_right(docs, command.model, command.environment, command.number)
    if isinstance(right, Refusal):
        return right
    if right.reviewed_at is not None:
        return Decision(())
    reasons = by_a_person(context)
    if context.actor in (right.broken_by, right.seconded_by):
        reasons.append(_took_part(context.actor, right, "review it"))
    for makers in let_in:
        reasons += not_by_a_maker(context, makers, f"review {right.name}, which let it in")
    if not command.finding.strip():
        reasons.append(
            Reason(
                rule="governance.review-terms",
                message="a review says what it found",
                measured="none",
                remedy="give --finding TEXT",
            )
        )
    if reasons:
        return Refusal(reasons=tuple(reasons))
    closed = ReviewClosed(model=command.model, number=command.number, finding=command.finding)
    return Decision((closed,))


def _took_part(actor: str, right: BreakGlassState, verb: str) -> Reason:
    people = [right.broken_by] + ([right.seconded_by] if right.seconded_by else [])
    return Reason(
        rule="governance.separation-of-duties",
        message=f"{actor} took part in {right.name} and cannot {verb}",
        measured=actor,
        limit=f"not {' or '.join(people)}",
        remedy="somebody else types the same command --as NAME",
    )


def frozen_reasons(rights: Iterable[BreakGlassState], now: Micros) -> list[Reason]:
    """Overdue reviews of a model's emergencies: until they are closed, nothing of it moves forward."""
    return [
        Reason(
            rule="governance.review-overdue",
            message=f"the review of {right.name} (incident {right.incident}) was due at {iso(right.review_due)[:16]}Z",
            measured=f"{(now - right.review_due) // _HOUR_US} hours overdue",
            remedy=f"lockgate review close {right.environment}/{right.model} {right.name} --finding TEXT --as NAME",
        )
        for right in rights
        if right.is_overdue(now)
    ]
