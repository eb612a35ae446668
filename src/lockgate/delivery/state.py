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
from msgspec.structs import replace

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Stamp
from lockgate.delivery.messages import (
    ByHand,
    DrillFigures,
    DrillFinished,
    DrillStarted,
    EndpointConfigured,
    EndpointDeclared,
    EndpointRemoved,
    EndpointRolledBack,
    EnvironmentDeclared,
    LocalPlanOverruled,
    LocalRollbackAdopted,
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
    TicketConfirmed,
)
from lockgate.delivery.rollouts.policy import EndpointSettings, RolloutPolicy, Stage
from lockgate.delivery.rollouts.verdict import Verdict
from lockgate.governance.policies.policy import Sensitivity
from lockgate.governance.tickets.tracker import ConfirmedTicket
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


class LocalState(msgspec.Struct, frozen=True, kw_only=True):
    """The last plan that was found at the target and not decided here.

    Attributes:
        found: its generation. Every plan of the hub is older than it, or was decided with it in mind.
        put_back: why it was not adopted; empty when it was.
    """

    found: int
    version: str
    hand: ByHand
    adopted_at: Micros
    put_back: str = ""


class EndpointState(msgspec.Struct, frozen=True, kw_only=True):
    """`ENV/NAME`: what is live, what would be after a rollback, what is on its way.

    Attributes:
        let_go: the consumers that no longer need it; let_go_by: who said so of each.
        removed_at: since when it is taken down; None while it stands.
        last_live: what was live when it was taken down, until something is live again: its name can be declared
            anew, but what comes next is held against that all the same.
        local: what was last done to it without the hub, and found out.
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
    let_go_by: dict[str, str] = {}
    removed_at: Micros | None = None
    local: LocalState | None = None
    last_live: Live | None = None

    @property
    def adopted(self) -> int:
        """The newest plan of local origin that is known here; 0 when there never was one."""
        return 0 if self.local is None else self.local.found


class ReleaseState(msgspec.Struct, frozen=True, kw_only=True):
    """One release in the history of an endpoint; kept for ever.

    Attributes:
        confirmed: its ticket as the tracker knew it; None when the tracker was not asked.
    """

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
    confirmed: ConfirmedTicket | None = None


def _environment(body: EnvironmentState | None, event: EnvironmentDeclared, stamp: Stamp) -> EnvironmentState:
    return EnvironmentState(
        environment=event.environment,
        order=event.order,
        sensitivity=event.sensitivity,
        target=event.target,
        trust=event.trust,
    )


ENVIRONMENT = DocumentKind(
    name="environment",
    type=EnvironmentState,
    keys=lambda event: (event.environment,),
    made_by={EnvironmentDeclared: _environment},
    columns=lambda body: Columns(str(body.order), body.sensitivity, ""),
)


def _declared(body: EndpointState | None, event: EndpointDeclared, stamp: Stamp) -> EndpointState:
    if body is None:
        return EndpointState(
            endpoint=event.endpoint,
            fallback=event.fallback,
            consumers=event.consumers,
            dashboards=event.dashboards,
        )
    # Who had left what was taken down reads it again, when it is declared so.
    stays_away = body.let_go if body.removed_at is None else ()
    left = tuple(one for one in stays_away if one in event.consumers)
    return replace(
        body,
        fallback=event.fallback,
        consumers=event.consumers,
        dashboards=event.dashboards,
        let_go=left,
        let_go_by={one: body.let_go_by[one] for one in left},
        removed_at=None,
    )


def _let_go(body: EndpointState, event: RemovalSignedOff, stamp: Stamp) -> EndpointState:
    return replace(
        body,
        let_go=(*body.let_go, event.consumer),
        let_go_by={**body.let_go_by, event.consumer: stamp.actor},
    )


def _taken_down(body: EndpointState, event: EndpointRemoved, stamp: Stamp) -> EndpointState:
    """The fallback ends too: a plan that is published again must not answer for what was taken down."""
    return replace(
        body,
        live=None,
        previous=None,
        fallback=Fallback(),
        generation=event.generation,
        removed_at=stamp.at,
        last_live=body.live or body.last_live,
    )


def _on_its_way(body: EndpointState, event: ReleaseStarted, stamp: Stamp) -> EndpointState:
    rollout = Rollout(
        state="preparing",
        strategy=event.strategy,
        generation=event.generation,
        release=event.release,
        served=event.served,
        started_at=stamp.at,
        started_by=stamp.actor,
        ticket=event.ticket,
        approved_by=event.approved_by,
    )
    return replace(body, generation=event.generation, n_releases=event.release, rollout=rollout)


def _on_a_step(
    body: EndpointState, event: RolloutStepStarted | RolloutResumed, stamp: Stamp
) -> EndpointState:
    return replace(body, rollout=replace(_rollout_of(body), state=event.stage))


def _on_hold(body: EndpointState, event: RolloutPaused, stamp: Stamp) -> EndpointState:
    return replace(body, rollout=replace(_rollout_of(body), state="paused"))


def _moving_on(body: EndpointState, event: RolloutAdvanced, stamp: Stamp) -> EndpointState:
    state: RolloutLife = "completing" if event.final else "moving"
    rollout = replace(_rollout_of(body), state=state, generation=event.generation)
    return replace(body, rollout=rollout, generation=event.generation)


def _rollout_of(body: EndpointState) -> Rollout:
    assert body.rollout is not None
    return body.rollout


def _went_live(body: EndpointState, event: ReleaseWentLive, stamp: Stamp) -> EndpointState:
    rollout = _rollout_of(body)
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
    return replace(body, live=live, previous=previous, rollout=None, last_live=None)


def _given_up(body: EndpointState, event: ReleaseFailed, stamp: Stamp) -> EndpointState:
    return replace(body, rollout=None, generation=event.restored)


def _rolled_back(body: EndpointState, event: EndpointRolledBack, stamp: Stamp) -> EndpointState:
    """A release still on its way is called off and what was live stays; a live one changes places with `previous`."""
    live, previous = body.live, body.previous
    swapped = body.rollout is None or not body.rollout.underway
    if swapped:
        assert live is not None and previous is not None
        live, previous = replace(previous, since=stamp.at), live
    return replace(
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


def _still_there(body: EndpointState, event: RollbackFailed, stamp: Stamp) -> EndpointState:
    kept = replace(body, rollout=None, generation=event.restored)
    return replace(kept, live=body.previous, previous=body.live) if event.swapped else kept


def _taken_over(body: EndpointState, event: LocalRollbackAdopted, stamp: Stamp) -> EndpointState:
    """Whatever was on its way is over: the plan that was found knew nothing of it."""
    live, previous = body.live, body.previous
    if event.swapped:
        assert live is not None and previous is not None
        live, previous = replace(previous, since=stamp.at), live
    local = LocalState(found=event.found, version=event.to.version, hand=event.hand, adopted_at=stamp.at)
    return replace(body, live=live, previous=previous, rollout=None, generation=event.generation, local=local)


def _put_back(body: EndpointState, event: LocalPlanOverruled, stamp: Stamp) -> EndpointState:
    local = LocalState(
        found=event.found,
        version=event.version,
        hand=event.hand,
        adopted_at=stamp.at,
        put_back=event.why,
    )
    return replace(body, rollout=None, generation=event.generation, local=local)


def _at_rest(body: EndpointState) -> str:
    return "live" if body.live else "empty"


def _endpoint_edges(event: ReleaseStarted) -> tuple[tuple[str, str, str], ...]:
    return ((f"version:{event.served.version}", "released_to", f"endpoint:{event.endpoint}"),)


ENDPOINT = DocumentKind(
    name="endpoint",
    type=EndpointState,
    keys=lambda event: (event.endpoint,),
    made_by={EndpointDeclared: _declared},
    changed_by={
        RemovalSignedOff: _let_go,
        EndpointRemoved: _taken_down,
        ReleaseStarted: _on_its_way,
        RolloutStepStarted: _on_a_step,
        RolloutAdvanced: _moving_on,
        RolloutPaused: _on_hold,
        RolloutResumed: _on_a_step,
        ReleaseWentLive: _went_live,
        ReleaseFailed: _given_up,
        EndpointRolledBack: _rolled_back,
        RollbackConfirmed: lambda body, event, stamp: replace(body, rollout=None),
        RollbackFailed: _still_there,
        LocalRollbackAdopted: _taken_over,
        LocalPlanOverruled: _put_back,
        DrillStarted: lambda body, event, stamp: replace(body, generation=event.last),
    },
    columns=lambda body: Columns(
        body.endpoint.partition("/")[2],
        "removed" if body.removed_at else body.rollout.state if body.rollout else _at_rest(body),
        body.live.served.package if body.live else "",
    ),
    fold_version=4,
    edges={ReleaseStarted: _endpoint_edges},
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


def _planned(body: RolloutState | None, event: RolloutPlanned, stamp: Stamp) -> RolloutState:
    return RolloutState(
        endpoint=event.endpoint,
        release=event.release,
        candidate=event.candidate,
        control=event.control,
        policy=event.policy,
        salt=event.salt,
        capture=event.capture,
    )


def _step_started(body: RolloutState, event: RolloutStepStarted, stamp: Stamp) -> RolloutState:
    run = StepRun(
        step=event.step,
        stage=event.stage,
        weight=event.weight,
        generation=event.generation,
        started_at=stamp.at,
    )
    return replace(body, heading=event.step, runs=(*body.runs, run), verdict=None)


def _advanced(body: RolloutState, event: RolloutAdvanced, stamp: Stamp) -> RolloutState:
    overrides = (*body.overrides, event.overridden) if event.overridden else body.overrides
    return replace(body, heading=event.step, paused="", overrides=overrides)


def release_key(endpoint: str, release: int) -> str:
    return f"{endpoint}#{release:06d}"


ROLLOUT = DocumentKind(
    name="rollout",
    type=RolloutState,
    keys=lambda event: (release_key(event.endpoint, event.release),),
    made_by={RolloutPlanned: _planned},
    changed_by={
        RolloutStepStarted: _step_started,
        RolloutJudged: lambda body, event, stamp: replace(body, verdict=event.verdict),
        RolloutAdvanced: _advanced,
        RolloutPaused: lambda body, event, stamp: replace(body, paused=event.reason),
        RolloutResumed: lambda body, event, stamp: replace(body, paused=""),
    },
    columns=lambda body: Columns(body.endpoint, "paused" if body.paused else "", body.candidate.package),
)


def _release_keys(
    event: ReleaseStarted
    | ReleaseWentLive
    | ReleaseFailed
    | EndpointRolledBack
    | RollbackFailed
    | LocalRollbackAdopted
    | LocalPlanOverruled
    | EndpointRemoved,
) -> tuple[str, ...]:
    """The release an event is about, and the one that made room for it or came back."""
    touched: tuple[int | None, ...]
    match event:
        case LocalRollbackAdopted():
            touched = (*event.left, event.to_release)
        case ReleaseWentLive():
            touched = (event.release, event.supersedes)
        case EndpointRolledBack() | RollbackFailed(swapped=True):
            touched = (event.release, event.to_release)
        case RollbackFailed():
            touched = ()
        case _:
            touched = (event.release,)
    return tuple([release_key(event.endpoint, release) for release in touched if release is not None])


def _started(body: ReleaseState | None, event: ReleaseStarted, stamp: Stamp) -> ReleaseState:
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


def _live(body: ReleaseState, event: ReleaseWentLive, stamp: Stamp) -> ReleaseState:
    if event.supersedes == body.release:
        return replace(body, state="superseded", ended_at=stamp.at)
    return replace(body, state="live", live_at=stamp.at)


def _failed(body: ReleaseState, event: ReleaseFailed, stamp: Stamp) -> ReleaseState:
    return replace(body, state="failed", ended_at=stamp.at, detail=event.detail)


def _removed(body: ReleaseState, event: EndpointRemoved, stamp: Stamp) -> ReleaseState:
    return replace(body, state="removed", ended_at=stamp.at, detail=event.reason)


def _left_or_live_again(body: ReleaseState, event: EndpointRolledBack, stamp: Stamp) -> ReleaseState:
    if event.to_release == body.release:
        return replace(body, state="live", ended_at=None, detail="")
    return replace(body, state="rolled_back", ended_at=stamp.at, detail=event.reason)


def _left_by_hand(body: ReleaseState, event: LocalRollbackAdopted, stamp: Stamp) -> ReleaseState:
    if event.to_release == body.release:
        return replace(body, state="live", ended_at=None, detail="")
    return replace(body, state="rolled_back", ended_at=stamp.at, detail=str(event.hand))


def _overruled(body: ReleaseState, event: LocalPlanOverruled, stamp: Stamp) -> ReleaseState:
    return replace(body, state="failed", ended_at=stamp.at, detail=f"called off with a plan {event.hand}")


def _as_before(body: ReleaseState, event: RollbackFailed, stamp: Stamp) -> ReleaseState:
    if event.release == body.release:
        return replace(body, state="live", ended_at=None, detail="")
    return replace(body, state="superseded", ended_at=stamp.at, detail=event.detail)


def _release_edges(event: ReleaseStarted) -> tuple[tuple[str, str, str], ...]:
    """A release is found by its ticket and by its pull request."""
    release = f"release:{release_key(event.endpoint, event.release)}"
    named = (("ticket", event.ticket), ("pull-request", event.pull_request))
    return tuple((f"{kind}:{name}", "asked_for", release) for kind, name in named if name)


RELEASE = DocumentKind(
    name="release",
    type=ReleaseState,
    keys=_release_keys,
    made_by={ReleaseStarted: _started},
    changed_by={
        TicketConfirmed: lambda body, event, stamp: replace(body, confirmed=event.confirmed),
        ReleaseWentLive: _live,
        ReleaseFailed: _failed,
        EndpointRolledBack: _left_or_live_again,
        RollbackFailed: _as_before,
        LocalRollbackAdopted: _left_by_hand,
        LocalPlanOverruled: _overruled,
        EndpointRemoved: _removed,
    },
    fold_version=3,
    columns=lambda body: Columns(body.endpoint, body.state, body.package),
    edges={ReleaseStarted: _release_edges},
)


class SettingsState(msgspec.Struct, frozen=True, kw_only=True):
    endpoint: str
    settings: EndpointSettings


def _configured(body: SettingsState | None, event: EndpointConfigured, stamp: Stamp) -> SettingsState:
    return SettingsState(endpoint=event.endpoint, settings=event.settings)


SETTINGS = DocumentKind(
    name="endpoint-settings",
    type=SettingsState,
    keys=lambda event: (event.endpoint,),
    made_by={EndpointConfigured: _configured},
)


ASKED = "asked"
"""The state of a drill that a hub is to walk."""


class DrillAsked(msgspec.Struct, frozen=True, kw_only=True):
    """A drill that a hub is to walk: its number, the first of its generations, and since when."""

    drill: int
    first: int
    n_flips: int
    at: Micros


class DrillState(msgspec.Struct, frozen=True, kw_only=True):
    """The rehearsals of an endpoint's way back.

    Attributes:
        n_drills: how many were begun.
        to_version, figures, finished_at, finished: of the last one that was finished, and its number; None and 0
            before the first.
        asked: the last one that was begun, when a hub is to walk it and has not told of it yet.
    """

    endpoint: str
    n_drills: int
    to_version: str = ""
    figures: DrillFigures | None = None
    finished_at: Micros | None = None
    finished: int = 0
    asked: DrillAsked | None = None


def _drill_started(body: DrillState | None, event: DrillStarted, stamp: Stamp) -> DrillState:
    n_flips = (event.last - event.first) // 2
    asked = DrillAsked(drill=event.drill, first=event.first, n_flips=n_flips, at=stamp.at)
    return replace(
        body or DrillState(endpoint=event.endpoint, n_drills=0),
        n_drills=event.drill,
        asked=asked if event.by_hub else None,
    )


def _drill_finished(body: DrillState, event: DrillFinished, stamp: Stamp) -> DrillState:
    return replace(
        body,
        to_version=event.to_version,
        figures=event.figures,
        finished_at=stamp.at,
        finished=event.drill,
        asked=None,
    )


DRILL = DocumentKind(
    name="drill",
    type=DrillState,
    keys=lambda event: (event.endpoint,),
    made_by={DrillStarted: _drill_started},
    changed_by={DrillFinished: _drill_finished},
    fold_version=3,
    columns=lambda body: Columns(state="" if body.asked is None else ASKED),
)
