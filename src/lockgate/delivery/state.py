"""Documents of delivery: environments, endpoints, the history of releases and of how each rolled out, drills.

The states of a rollout; a direct release passes `preparing` only, and the end of each is no rollout at all:

    preparing -> shadow | canary | soak         the target serves the first step
    shadow | canary | soak <-> paused           by hand, or because what is seen proves nothing
    shadow | canary | soak | paused -> moving -> shadow | canary | soak
    shadow | canary | soak | paused -> completing -> live
    any of these -> rolling_back -> rolled back preparing | moving | completing -> failed

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
    DrillFigures,
    DrillFinished,
    DrillStarted,
    EndpointConfigured,
    EndpointDeclared,
    EndpointRemoved,
    EndpointRolledBack,
    EnvironmentDeclared,
    ReleaseFailed,
    ReleaseStarted,
    ReleaseWentLive,
    RemovalSignedOff,
    RollbackConfirmed,
    RollbackFailed,
    RolloutAdvanced,
    RolloutJudged,
    RolloutPaused,
    RolloutPlanned,
    RolloutResumed,
    RolloutStepStarted,
    Served,
    Strategy,
)
from lockgate.delivery.rollout import EndpointSettings, RolloutPolicy, Stage
from lockgate.delivery.verdict import Verdict
from lockgate.governance.policy import Sensitivity
from lockgate.traffic.capture import CaptureMode
from lockgate.traffic.plan import Fallback

RolloutLife = Literal[
    "preparing", "shadow", "canary", "soak", "paused", "moving", "completing", "rolling_back"
]
ON_A_STEP: frozenset[RolloutLife] = frozenset({"shadow", "canary", "soak", "paused"})
"""The states in which a step is served and its figures count."""
ReleaseLife = Literal["preparing", "live", "superseded", "failed", "rolled_back", "removed"]


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

    state: RolloutLife
    strategy: Strategy
    generation: int
    release: int
    served: Served
    started_at: Micros
    started_by: str
    ticket: str = ""
    approved_by: tuple[str, ...] = ()
    to_release: int = 0
    swapped: bool = False

    @property
    def underway(self) -> bool:
        """Whether the release is still on its way, not on its way back."""
        return self.state != "rolling_back"


class EndpointState(msgspec.Struct, frozen=True, kw_only=True):
    """`ENV/NAME`: what is live, what would be after a rollback, what is on its way.

    Attributes:
        let_go: the consumers that no longer need it.
        removed_at: since when it is taken down; None while it stands.
    """

    endpoint: str
    fallback: Fallback
    consumers: tuple[str, ...]
    dashboards: tuple[str, ...]
    live: Live | None = None
    previous: Live | None = None
    rollout: Rollout | None = None
    generation: int = 0
    n_releases: int = 0
    let_go: tuple[str, ...] = ()
    removed_at: Micros | None = None


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
    pull_request: str = ""
    plan: Digest | None = None
    waivers: tuple[str, ...] = ()
    break_glass: str = ""


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
    EndpointRemoved,
    RemovalSignedOff,
    ReleaseStarted,
    RolloutStepStarted,
    RolloutAdvanced,
    RolloutPaused,
    RolloutResumed,
    ReleaseWentLive,
    ReleaseFailed,
    EndpointRolledBack,
    RollbackConfirmed,
    RollbackFailed,
    DrillStarted,
)


def _fold_endpoint(body: EndpointState | None, event: Event, stamp: Stamp) -> EndpointState:
    change = msgspec.structs.replace
    if isinstance(event, EndpointDeclared):
        return _declared(body, event)
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
        case RolloutStepStarted() | RolloutResumed():
            return _with_rollout(body, event.stage)
        case RolloutPaused():
            return _with_rollout(body, "paused")
        case RolloutAdvanced():
            moved = _with_rollout(body, "completing" if event.final else "moving", event.generation)
            return change(moved, generation=event.generation)
        case DrillStarted():
            return change(body, generation=event.last)
        case ReleaseWentLive():
            return _went_live(body, stamp)
        case RemovalSignedOff():
            return change(body, let_go=(*body.let_go, event.consumer))
        case EndpointRemoved():
            return _taken_down(body, event, stamp)
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


def _declared(body: EndpointState | None, event: EndpointDeclared) -> EndpointState:
    if body is None:
        return EndpointState(
            endpoint=event.endpoint,
            fallback=event.fallback,
            consumers=event.consumers,
            dashboards=event.dashboards,
        )
    return msgspec.structs.replace(
        body,
        fallback=event.fallback,
        consumers=event.consumers,
        dashboards=event.dashboards,
        let_go=tuple(one for one in body.let_go if one in event.consumers),
        removed_at=None,
    )


def _taken_down(body: EndpointState, event: EndpointRemoved, stamp: Stamp) -> EndpointState:
    """The fallback ends too: a plan that is published again must not answer for what was taken down."""
    return msgspec.structs.replace(
        body,
        live=None,
        previous=None,
        fallback=Fallback(),
        generation=event.generation,
        let_go=(),
        removed_at=stamp.at,
    )


def _with_rollout(body: EndpointState, state: RolloutLife, generation: int | None = None) -> EndpointState:
    rollout = body.rollout
    assert rollout is not None
    kept = rollout.generation if generation is None else generation
    moved = msgspec.structs.replace(rollout, state=state, generation=kept)
    return msgspec.structs.replace(body, rollout=moved)


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
    # The same bytes under new signatures take no place of the version before: the way back leads where it led.
    again = body.live is not None and body.live.served.package == live.served.package
    previous = body.previous if again else body.live
    return msgspec.structs.replace(body, live=live, previous=previous, rollout=None)


def _rolled_back(body: EndpointState, event: EndpointRolledBack, stamp: Stamp) -> EndpointState:
    """A release still on its way is called off and what was live stays; a live one changes places with `previous`."""
    live, previous = body.live, body.previous
    swapped = body.rollout is None or not body.rollout.underway
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


def _at_rest(body: EndpointState) -> str:
    return "live" if body.live else "empty"


ENDPOINT = DocumentKind(
    name="endpoint",
    type=EndpointState,
    keys=lambda event: (event.endpoint,) if isinstance(event, _ENDPOINT_EVENTS) else (),
    fold=_fold_endpoint,
    columns=lambda body: Columns(
        body.endpoint.partition("/")[2],
        "removed" if body.removed_at else body.rollout.state if body.rollout else _at_rest(body),
        body.live.served.package if body.live else "",
    ),
    fold_version=2,
    edges=lambda event: (
        ((f"version:{event.served.version}", "released_to", f"endpoint:{event.endpoint}"),)
        if isinstance(event, ReleaseStarted)
        else ()
    ),
)


class StepRun(msgspec.Struct, frozen=True, kw_only=True):
    """A step that was served: under which generation of the plan, since when."""

    step: int
    stage: Stage
    weight: int
    generation: int
    started_at: Micros


class RolloutState(msgspec.Struct, frozen=True, kw_only=True):
    """How one release rolled out, or does; kept for ever. What became of it stands in its `ReleaseState`.

    Attributes:
        heading: the step the rollout is on, or on its way to; the number of steps once it goes on to all traffic.
        runs: the steps that were served, oldest first.
        verdict: the last one about the step the rollout is on; None before the first look at it.
        paused: why it is held; empty when it is not.
    """

    endpoint: str
    release: int
    candidate: Served
    control: Served
    policy: RolloutPolicy
    salt: str
    capture: CaptureMode
    heading: int = 0
    runs: tuple[StepRun, ...] = ()
    verdict: Verdict | None = None
    paused: str = ""
    overrides: tuple[str, ...] = ()

    @property
    def run(self) -> StepRun | None:
        """The step that is served, if any was reached."""
        return self.runs[-1] if self.runs else None


_ROLLOUT_EVENTS = (
    RolloutPlanned,
    RolloutStepStarted,
    RolloutJudged,
    RolloutAdvanced,
    RolloutPaused,
    RolloutResumed,
)


def _fold_rollout(body: RolloutState | None, event: Event, stamp: Stamp) -> RolloutState:
    if isinstance(event, RolloutPlanned):
        return RolloutState(
            endpoint=event.endpoint,
            release=event.release,
            candidate=event.candidate,
            control=event.control,
            policy=event.policy,
            salt=event.salt,
            capture=event.capture,
        )
    assert body is not None
    change = msgspec.structs.replace
    match event:
        case RolloutStepStarted():
            run = StepRun(
                step=event.step,
                stage=event.stage,
                weight=event.weight,
                generation=event.generation,
                started_at=stamp.at,
            )
            return change(body, heading=event.step, runs=(*body.runs, run), verdict=None)
        case RolloutJudged():
            return change(body, verdict=event.verdict)
        case RolloutAdvanced():
            overrides = body.overrides + ((event.overridden,) if event.overridden else ())
            return change(body, heading=event.step, paused="", overrides=overrides)
        case RolloutPaused():
            return change(body, paused=event.reason)
        case RolloutResumed():
            return change(body, paused="")
        case _:
            raise AssertionError(f"no fold of {type(event).__name__} into a rollout")


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
        case EndpointRemoved():
            touched = (event.release,)
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
            pull_request=event.pull_request,
            plan=event.plan,
            waivers=event.waivers,
            break_glass=event.break_glass,
        )
    assert body is not None
    change = msgspec.structs.replace
    if isinstance(event, ReleaseWentLive):
        if event.supersedes == body.release:
            return change(body, state="superseded", ended_at=stamp.at)
        return change(body, state="live", live_at=stamp.at)
    if isinstance(event, ReleaseFailed):
        return change(body, state="failed", ended_at=stamp.at, detail=event.detail)
    if isinstance(event, EndpointRemoved):
        return change(body, state="removed", ended_at=stamp.at, detail=event.reason)
    if isinstance(event, RollbackFailed):
        if event.release == body.release:
            return change(body, state="live", ended_at=None, detail="")
        return change(body, state="superseded", ended_at=stamp.at, detail=event.detail)
    assert isinstance(event, EndpointRolledBack)
    if event.to_release == body.release:
        return change(body, state="live", ended_at=None, detail="")
    return change(body, state="rolled_back", ended_at=stamp.at, detail=event.reason)


def _release_edges(event: Event) -> tuple[tuple[str, str, str], ...]:
    """A release is found by its ticket and by its pull request."""
    if not isinstance(event, ReleaseStarted):
        return ()
    release = f"release:{release_key(event.endpoint, event.release)}"
    named = (("ticket", event.ticket), ("pull-request", event.pull_request))
    return tuple((f"{kind}:{name}", "asked_for", release) for kind, name in named if name)


RELEASE = DocumentKind(
    name="release",
    type=ReleaseState,
    keys=_release_keys,
    fold=_fold_release,
    fold_version=2,
    columns=lambda body: Columns(body.endpoint, body.state, body.package),
    edges=_release_edges,
)


ROLLOUT = DocumentKind(
    name="rollout",
    type=RolloutState,
    keys=lambda event: (
        (release_key(event.endpoint, event.release),) if isinstance(event, _ROLLOUT_EVENTS) else ()
    ),
    fold=_fold_rollout,
    columns=lambda body: Columns(body.endpoint, "paused" if body.paused else "", body.candidate.package),
)


class SettingsState(msgspec.Struct, frozen=True, kw_only=True):
    endpoint: str
    settings: EndpointSettings


def _settings(event: Event) -> SettingsState:
    assert isinstance(event, EndpointConfigured)
    return SettingsState(endpoint=event.endpoint, settings=event.settings)


SETTINGS = DocumentKind(
    name="endpoint-settings",
    type=SettingsState,
    keys=lambda event: (event.endpoint,) if isinstance(event, EndpointConfigured) else (),
    fold=lambda body, event, stamp: _settings(event),
)


class DrillState(msgspec.Struct, frozen=True, kw_only=True):
    """The rehearsals of an endpoint's way back.

    Attributes:
        n_drills: how many were begun.
        to_version, figures, finished_at: of the last one that was finished; None before the first.
    """

    endpoint: str
    n_drills: int
    to_version: str = ""
    figures: DrillFigures | None = None
    finished_at: Micros | None = None


def _fold_drill(body: DrillState | None, event: Event, stamp: Stamp) -> DrillState:
    if isinstance(event, DrillStarted):
        before = body or DrillState(endpoint=event.endpoint, n_drills=0)
        return msgspec.structs.replace(before, n_drills=event.drill)
    assert body is not None and isinstance(event, DrillFinished)
    return msgspec.structs.replace(
        body, to_version=event.to_version, figures=event.figures, finished_at=stamp.at
    )


DRILL = DocumentKind(
    name="drill",
    type=DrillState,
    keys=lambda event: (event.endpoint,) if isinstance(event, DrillStarted | DrillFinished) else (),
    fold=_fold_drill,
)
