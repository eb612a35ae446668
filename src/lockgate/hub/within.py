"""Answers that concern many things, cut to what the session sees.

A grant may be bound to a namespace, to tiers, to environments. Whoever holds only such grants gets his part of what
runs where, of the journal, of the lineage; and nothing in an answer tells how much there is beside it, except how
long the journal is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from lockgate.access.roles import ANY
from lockgate.access.state import SubjectState
from lockgate.core.errors import Invalid
from lockgate.core.messages import Event, Scope
from lockgate.core.names import parse_endpoint, parse_model, parse_version
from lockgate.governance.attention import Matter
from lockgate.hub.authority import Sight
from lockgate.hub.messages import AccessAnswer, AuditAnswer, QueueAnswer, ReleasesAnswer, StatusAnswer
from lockgate.hub.ports import Edge

TierOf = Callable[[str], str | None]


def scope_of_event(event: Event) -> Scope:
    """What an event is about, by the names it holds; nothing for one that is about no namespace alone."""
    for field, scope_of in _NAMED_BY:
        named = getattr(event, field, None)
        if isinstance(named, str) and named:
            try:
                return scope_of(named)
            except Invalid:
                return Scope()
    namespace = getattr(event, "namespace", "")
    return Scope(namespace="" if namespace == ANY else namespace)


def _of_version(named: str) -> Scope:
    model = parse_version(named).model
    return Scope(namespace=model.namespace, model=model.name)


def _of_model(named: str) -> Scope:
    model = parse_model(named)
    return Scope(namespace=model.namespace, model=model.name)


def _of_endpoint(named: str) -> Scope:
    endpoint = parse_endpoint(named)
    return Scope(
        namespace=endpoint.model.namespace, model=endpoint.model.name, environment=endpoint.environment
    )


def _of_dataset(named: str) -> Scope:
    return Scope(namespace=parse_model(named).namespace)


_NAMED_BY: tuple[tuple[str, Callable[[str], Scope]], ...] = (
    ("version", _of_version),
    ("model", _of_model),
    ("endpoint", _of_endpoint),
    ("dataset", _of_dataset),
)


def sees(sight: Sight, scope: Scope, tier_of: TierOf) -> bool:
    if sight.is_whole:
        # Of thousands of things, each of another model, no tier is looked up that decides nothing.
        return True
    return sight.sees(scope, tier_of(f"{scope.namespace}/{scope.model}") if scope.model else None)


def status_within(answer: StatusAnswer, sight: Sight) -> StatusAnswer:
    if sight.is_whole:
        return answer
    tiers = {one.model: one.tier for one in answer.models}
    return msgspec.structs.replace(
        answer,
        endpoints={
            name: line
            for name, line in answer.endpoints.items()
            if sees(sight, _of_endpoint(name), tiers.get)
        },
        models=tuple(one for one in answer.models if sees(sight, _of_model(one.model), tiers.get)),
        effects_pending=0,
    )


def _of_declared(named: str) -> Scope:
    """`environment prod`, `model main/x`, `endpoint prod/main/x`, `rollout prod/main/x`."""
    kind, _, name = named.partition(" ")
    if kind == "environment":
        return Scope(environment=name)
    return _of_model(name) if kind == "model" else _of_endpoint(name)


_ABOUT: dict[Matter, Callable[[str], Scope]] = {
    "approval": _of_version,
    "waiver": _of_model,
    "review": _of_endpoint,
    "revalidation": _of_endpoint,
    "out-of-policy": _of_endpoint,
    "policy": lambda named: Scope(namespace=named),
    "declaration": _of_declared,
    "quarantine": _of_version,
}


def queue_within(answer: QueueAnswer, sight: Sight, tier_of: TierOf) -> QueueAnswer:
    return QueueAnswer(
        waiting=tuple(one for one in answer.waiting if sees(sight, _ABOUT[one.matter](one.subject), tier_of))
    )


def releases_within(answer: ReleasesAnswer, sight: Sight, tier_of: TierOf) -> ReleasesAnswer:
    return ReleasesAnswer(
        releases=tuple(one for one in answer.releases if sees(sight, _of_endpoint(one.endpoint), tier_of))
    )


def audit_within(answer: AuditAnswer, sight: Sight) -> AuditAnswer:
    """Whether the journal holds concerns everybody; which records do not may name what somebody does not see."""
    if sight.is_whole or not answer.findings:
        return answer
    told = f"{len(answer.findings)} records do not hold; somebody who audits everything sees which"
    return msgspec.structs.replace(answer, findings=(told,))


def edges_within(
    ref: str, forward: Iterable[Edge], backward: Iterable[Edge], sight: Sight, tier_of: TierOf
) -> set[Edge]:
    """Of the edges around `ref`, those that lie between it and what the session sees.

    A snapshot, a run or a package belongs to no namespace. It is shown where it leads to, or comes from, a version
    or an endpoint that is seen, and not beyond.
    """
    if sight.is_whole:
        return {*forward, *backward}
    shown: set[Edge] = set()
    for edges, near, far in ((forward, "source", "target"), (backward, "target", "source")):
        left = {edge for edge in edges if not _hides(edge, sight, tier_of)}
        goals = {end for edge in left for end in (edge.source, edge.target) if _is_seen(end, sight, tier_of)}
        if ref in goals:
            shown |= left
            continue
        reached: set[Edge] = set()
        while more := {edge for edge in left - reached if getattr(edge, far) in goals}:
            reached |= more
            goals |= {getattr(edge, near) for edge in more}
        shown |= reached
    return shown


_OF_NO_NAMESPACE = frozenset({"snapshot", "run", "package", "import", "ticket", "pull-request"})


def _scope_of_ref(ref: str) -> Scope | None:
    """The scope of a version, an endpoint or a release; None for a thing of no namespace. Unknown ones are hidden."""
    kind, _, name = ref.partition(":")
    try:
        match kind:
            case "version":
                return _of_version(name)
            case "endpoint":
                return _of_endpoint(name)
            case "release":
                return _of_endpoint(name.partition("#")[0])
            case "input":
                return _of_version(name.rpartition(":")[0])
            case "column" | "feature" | "online":
                return Scope(namespace=name.partition("/")[0])
    except Invalid:
        return Scope()
    return None if kind in _OF_NO_NAMESPACE else Scope()


def _is_seen(ref: str, sight: Sight, tier_of: TierOf) -> bool:
    scope = _scope_of_ref(ref)
    return scope is not None and sees(sight, scope, tier_of)


def _hides(edge: Edge, sight: Sight, tier_of: TierOf) -> bool:
    ends = (_scope_of_ref(edge.source), _scope_of_ref(edge.target))
    return any(scope is not None and not sees(sight, scope, tier_of) for scope in ends)


def access_within(answer: AccessAnswer, sight: Sight) -> AccessAnswer:
    if sight.is_whole:
        return answer
    subjects = [_subject_within(one, sight) for one in answer.subjects]
    accounts = {one.subject for one in answer.subjects if one.created_at and _is_of(one.namespace, sight)}
    return AccessAnswer(
        subjects=tuple(one for one in subjects if one.grants or one.subject in accounts),
        tokens=tuple(one for one in answer.tokens if one.subject in accounts),
        rules=tuple(one for one in answer.rules if _is_of(one.namespace, sight)),
    )


def _subject_within(subject: SubjectState, sight: Sight) -> SubjectState:
    seen = tuple(one for one in subject.grants if _is_of(one.grant.namespace, sight))
    return msgspec.structs.replace(subject, grants=seen)


def _is_of(namespace: str, sight: Sight) -> bool:
    return namespace != ANY and sight.sees(Scope(namespace=namespace))
