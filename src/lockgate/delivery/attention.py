"""What waits for people: live releases that would not be let in as they are, and versions that only lack a consent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from lockgate.core.clock import Micros
from lockgate.core.documents import DocRef, DocumentKind
from lockgate.core.messages import Reason
from lockgate.core.names import parse_endpoint, parse_version
from lockgate.delivery.declare import is_open
from lockgate.delivery.state import ENDPOINT, ENVIRONMENT, RELEASE, EndpointState, release_key
from lockgate.gates.state import EVIDENCE, evidence_key
from lockgate.governance import attention
from lockgate.governance.attention import Attention
from lockgate.governance.judgement import WAITS_FOR_PEOPLE
from lockgate.governance.state import APPROVAL, BREAK_GLASS, POLICY, PROPOSAL, WAIVER, approval_key
from lockgate.registry.state import LOWERING, MODEL, VERSION, VersionState

Get = Callable[[DocumentKind[Any], str], Any]
All = Callable[[DocumentKind[Any], str], tuple[Any, ...]]
Expect = Callable[[Iterable[DocRef]], None]
ReasonsOf = Callable[[str, str], Sequence[Reason]]


def oldest_live(model: str, get: Get, every: All) -> VersionState | None:
    """The oldest version that is live where not everything may go; None while one of those places has none.

    What came after it is what a new version brings to one of them.
    """
    guarded = [one.environment for one in every(ENVIRONMENT, "") if one.sensitivity != "open"]
    found = [get(ENDPOINT, f"{name}/{model}") for name in guarded]
    there = [one for one in found if one is not None and one.removed_at is None]
    live = [one.live.served.version for one in there if one.live is not None]
    if not live or len(live) < len(there):
        return None
    return cast("VersionState | None", get(VERSION, min(live, key=lambda key: parse_version(key).version)))


class LiveStanding(NamedTuple):
    """Why a live release is out of policy, and when it has to be revalidated."""

    out_of_policy: tuple[str, ...]
    due: Micros | None


def live_refs(endpoint: EndpointState) -> Iterator[DocRef]:
    """What `live_standing` asks for, as far as it is known beforehand."""
    environment, _, name = endpoint.endpoint.partition("/")
    yield DocRef(MODEL.name, name)
    yield DocRef(POLICY.name, name.partition("/")[0])
    yield DocRef(ENVIRONMENT.name, environment)
    if endpoint.live is not None:
        key = endpoint.live.served.version
        yield DocRef(VERSION.name, key)
        yield DocRef(RELEASE.name, release_key(endpoint.endpoint, endpoint.live.release))
        yield DocRef(EVIDENCE.name, evidence_key(key))
        yield DocRef(APPROVAL.name, approval_key(key, environment))


def live_standing(endpoint: EndpointState, get: Get, every: All, now: Micros) -> LiveStanding:
    if endpoint.live is None:
        return LiveStanding((), None)
    key = endpoint.live.served.version
    environment, _, name = endpoint.endpoint.partition("/")
    version, model = get(VERSION, key), get(MODEL, name)
    policy = get(POLICY, name.partition("/")[0])
    step = get(ENVIRONMENT, environment)
    if version is None or model is None or policy is None or step is None or step.sensitivity == "open":
        return LiveStanding((), None)
    release = get(RELEASE, release_key(endpoint.endpoint, endpoint.live.release))
    rights = every(BREAK_GLASS, f"{name}#") if release.break_glass else ()
    due = attention.revalidation_due(
        policy.policy.rule(model.tier),
        get(EVIDENCE, evidence_key(key)),
        get(APPROVAL, approval_key(key, environment)),
    )
    why = attention.lapsed(
        version,
        release.waivers,
        every(WAIVER, f"{name}#") if release.waivers else (),
        next((one for one in rights if one.name == release.break_glass), None),
        due,
        now,
    )
    return LiveStanding(why, due)


def queue(get: Get, every: All, expect: Expect, reasons_of: ReasonsOf, now: Micros) -> list[Attention]:
    """Everything that waits for people; what has a date first, the nearest first."""
    found: list[Attention] = []
    endpoints = every(ENDPOINT, "")
    latest = [model.latest for model in every(MODEL, "") if model.latest is not None]
    expect(
        [
            *(ref for endpoint in endpoints for ref in live_refs(endpoint)),
            *(DocRef(VERSION.name, key) for key in latest),
        ]
    )
    for endpoint in endpoints:
        live = live_standing(endpoint, get, every, now)
        name = parse_endpoint(endpoint.endpoint)
        if endpoint.live is not None:
            version = endpoint.live.served.version
            found += attention.of_endpoint(name.shown, version, live.out_of_policy, live.due, now)
        found += _pending(endpoint, get, reasons_of)
    found += attention.of_waivers(every(WAIVER, ""), now)
    found += attention.of_reviews(every(BREAK_GLASS, ""))
    for proposal in every(PROPOSAL, ""):
        if proposal.is_open(get(POLICY, proposal.namespace)):
            found.append(attention.of_proposal(proposal))
    found += [attention.of_lowering(one) for one in every(LOWERING, "") if is_open(one, get)]
    return sorted(found, key=lambda one: (one.due is None, one.due or 0))


def _pending(endpoint: EndpointState, get: Get, reasons_of: ReasonsOf) -> list[Attention]:
    """The newest version of a model, when nothing but people keeps it from an endpoint."""
    environment, _, name = endpoint.endpoint.partition("/")
    model = get(MODEL, name)
    version = None if model is None or model.latest is None else get(VERSION, model.latest)
    if version is None or version.state != "validated" or get(POLICY, name.partition("/")[0]) is None:
        return []
    live = endpoint.live is not None and endpoint.live.served.package == version.package
    reasons = () if live else reasons_of(version.version, environment)
    if not reasons or not {one.rule for one in reasons} <= WAITS_FOR_PEOPLE:
        return []
    return [attention.of_approval(version.version, environment, [one.message for one in reasons])]
