"""Documents of delivery: environments, endpoints with their rollout, and the history of releases.

A rollout's states are those of every strategy; a direct release passes `preparing` and `complete` only:

    preparing -> complete | failed          complete -> rolling_back -> rolled_back

The endpoint document is what the plan of a data plane is made of; its `generation` only ever grows, and a target
refuses a plan with an older one.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Event, Stamp
from lockgate.delivery.messages import (
    EndpointDeclared,
    EndpointRolledBack,
    EnvironmentDeclared,
    ReleaseFailed,
    ReleaseStarted,
    ReleaseWentLive,
    RollbackConfirmed,
    RollbackFailed,
    Served,
)
from lockgate.governance.policy import Sensitivity
from lockgate.traffic.plan import Fallback

ReleaseLife = Literal["preparing", "live", "superseded", "failed", "rolled_back"]


class EnvironmentState(msgspec.Struct, frozen=True, kw_only=True):
    environment: str
    order: int
    sensitivity: Sensitivity
    target: str
    trust: tuple[str, ...]


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """A version that has answered, or could again at once, on an endpoint."""

    served: Served
    release: int
    since: Micros
    approved_by: tuple[str, ...]
    ticket: str


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """How a release is getting there, or how one is being taken back.

    Attributes:
        release: the one on its way; when rolling back, the one that is left.
        to_release, swapped: when rolling back, the one returned to, and whether live and previous changed places
            for it (they do not when a release was called off before it was live).
    """

    state: Literal["preparing", "rolling_back"]
    strategy: Literal["direct"]
    generation: int
    release: int
    served: Served
    started_at: Micros
    started_by: str
    ticket: str = ""
    approved_by: tuple[str, ...] = ()
    to_release: int = 0
    swapped: bool = False


class EndpointState(msgspec.Struct, frozen=True, kw_only=True):
    """`ENV/NAME`: what is live, what would be after a rollback, what is on its way."""

    endpoint: str
    fallback: Fallback
    consumers: tuple[str, ...]
    dashboards: tuple[str, ...]
    live: Live | None = None
    previous: Live | None = None
    rollout: Rollout | None = None
    generation: int = 0
    n_releases: int = 0


class ReleaseState(msgspec.Struct, frozen=True, kw_only=True):
    """One release in the history of an endpoint; kept for ever."""

    endpoint: str
    release: int
    version: str
    package: Digest
    state: ReleaseLife
    ticket: str
    approved_by: tuple[str, ...]
    evidence_set: Digest
    policy: Digest
    started_at: Micros
    started_by: str
    live_at: Micros | None = None
    ended_at: Micros | None = None
    detail: str = ""


ENVIRONMENT = DocumentKind(
    name="environment",
    type=EnvironmentState,
    keys=lambda event: (event.environment,) if isinstance(event, EnvironmentDeclared) else (),
    fold=lambda body, event, stamp: _environment(event),
    columns=lambda body: Columns(str(body.order), body.sensitivity, ""),
)


def _environment(event: Event) -> EnvironmentState:
    assert isinstance(event, EnvironmentDeclared)
    return EnvironmentState(
        environment=event.environment,
        order=event.order,
        sensitivity=event.sensitivity,
        target=event.target,
        trust=event.trust,
    )


_ENDPOINT_EVENTS = (
    EndpointDeclared,
    ReleaseStarted,
    ReleaseWentLive,
    ReleaseFailed,
    EndpointRolledBack,
    RollbackConfirmed,
    RollbackFailed,
)


def _fold_endpoint(body: EndpointState | None, event: Event, stamp: Stamp) -> EndpointState:
    change = msgspec.structs.replace
    if isinstance(event, EndpointDeclared):
        declared = EndpointState(
            endpoint=event.endpoint,
            fallback=event.fallback,
            consumers=event.consumers,
            dashboards=event.dashboards,
        )
        if body is None:
            return declared
        return change(body, fallback=event.fallback, consumers=event.consumers, dashboards=event.dashboards)
    assert body is not None
    match event:
        case ReleaseStarted():
            return change(
                body,
                generation=event.generation,
                n_releases=event.release,
                rollout=Rollout(
                    state="preparing",
                    strategy=event.strategy,
                    generation=event.generation,
                    release=event.release,
                    served=event.served,
                    started_at=stamp.at,
                    started_by=stamp.actor,
                    ticket=event.ticket,
                    approved_by=event.approved_by,
                ),
            )
        case ReleaseWentLive():
            return _went_live(body, stamp)
        case EndpointRolledBack():
            return _rolled_back(body, event, stamp)
        case ReleaseFailed():
            return change(body, rollout=None, generation=event.restored)
        case RollbackConfirmed():
            return change(body, rollout=None)
        case RollbackFailed():
            kept = change(body, rollout=None, generation=event.restored)
            return change(kept, live=body.previous, previous=body.live) if event.swapped else kept
        case _:
            raise AssertionError(f"no fold of {type(event).__name__} into an endpoint")


def _went_live(body: EndpointState, stamp: Stamp) -> EndpointState:
    rollout = body.rollout
    assert rollout is not None
    live = Live(
        served=rollout.served,
        release=rollout.release,
        since=stamp.at,
        approved_by=rollout.approved_by,
        ticket=rollout.ticket,
    )
    return msgspec.structs.replace(body, live=live, previous=body.live, rollout=None)


def _rolled_back(body: EndpointState, event: EndpointRolledBack, stamp: Stamp) -> EndpointState:
    """A release still on its way is called off and what was live stays; a live one changes places with `previous`."""
    live, previous = body.live, body.previous
    swapped = body.rollout is None or body.rollout.state != "preparing"
    if swapped:
        assert live is not None and previous is not None
        live, previous = msgspec.structs.replace(previous, since=stamp.at), live
    return msgspec.structs.replace(
        body,
        generation=event.generation,
        live=live,
        previous=previous,
        rollout=Rollout(
            state="rolling_back",
            strategy="direct",
            generation=event.generation,
            release=event.release,
            served=event.to,
            started_at=stamp.at,
            started_by=stamp.actor,
            to_release=event.to_release,
            swapped=swapped,
        ),
    )


ENDPOINT = DocumentKind(
    name="endpoint",
    type=EndpointState,
    keys=lambda event: (event.endpoint,) if isinstance(event, _ENDPOINT_EVENTS) else (),
    fold=_fold_endpoint,
    columns=lambda body: Columns(
        body.endpoint.partition("/")[2],
        body.rollout.state if body.rollout else ("live" if body.live else "empty"),
        body.live.served.package if body.live else "",
    ),
    edges=lambda event: (
        ((f"version:{event.served.version}", "released_to", f"endpoint:{event.endpoint}"),)
        if isinstance(event, ReleaseStarted)
        else ()
    ),
)


def release_key(endpoint: str, release: int) -> str:
    return f"{endpoint}#{release:06d}"


def _release_keys(event: Event) -> tuple[str, ...]:
    """The release an event is about, and the one that made room for it or came back."""
    match event:
        case ReleaseStarted() | ReleaseFailed():
            touched: tuple[int | None, ...] = (event.release,)
        case ReleaseWentLive():
            touched = (event.release, event.supersedes)
        case EndpointRolledBack():
            touched = (event.release, event.to_release)
        case RollbackFailed(swapped=True):
            touched = (event.release, event.to_release)
        case _:
            return ()
    return tuple(release_key(event.endpoint, release) for release in touched if release is not None)


def _fold_release(body: ReleaseState | None, event: Event, stamp: Stamp) -> ReleaseState:
    if isinstance(event, ReleaseStarted):
        return ReleaseState(
            endpoint=event.endpoint,
            release=event.release,
            version=event.served.version,
            package=event.served.package,
            state="preparing",
            ticket=event.ticket,
            approved_by=event.approved_by,
            evidence_set=event.evidence_set,
            policy=event.policy,
            started_at=stamp.at,
            started_by=stamp.actor,
        )
    assert body is not None
    change = msgspec.structs.replace
    if isinstance(event, ReleaseWentLive):
        if event.supersedes == body.release:
            return change(body, state="superseded", ended_at=stamp.at)
        return change(body, state="live", live_at=stamp.at)
    if isinstance(event, ReleaseFailed):
        return change(body, state="failed", ended_at=stamp.at, detail=event.detail)
    if isinstance(event, RollbackFailed):
        if event.release == body.release:
            return change(body, state="live", ended_at=None, detail="")
        return change(body, state="superseded", ended_at=stamp.at, detail=event.detail)
    assert isinstance(event, EndpointRolledBack)
    if event.to_release == body.release:
        return change(body, state="live", ended_at=None, detail="")
    return change(body, state="rolled_back", ended_at=stamp.at, detail=event.reason)


RELEASE = DocumentKind(
    name="release",
    type=ReleaseState,
    keys=_release_keys,
    fold=_fold_release,
    columns=lambda body: Columns(body.endpoint, body.state, body.package),
)
