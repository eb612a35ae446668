"""Answers to the questions that span rooms. Reads documents, decides nothing that a command would decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from lockgate.access.state import ALIAS, FEDERATION, SUBJECT, TOKEN, TokenState
from lockgate.core import semver
from lockgate.core.clock import Clock, Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import DocRef, DocumentKind
from lockgate.core.errors import NotFound, did_you_mean, near_matches
from lockgate.core.journal import NoteVerifiers
from lockgate.core.messages import Event, Query, Reason, Scope, Stamp
from lockgate.core.names import parse_endpoint, parse_version
from lockgate.data.state import SNAPSHOT, SnapshotState
from lockgate.delivery.attention import live_refs, live_standing, oldest_live, queue
from lockgate.delivery.lines import DrillLine, EndpointLine, LiveLine, Readiness, astray, lately, rollout_line
from lockgate.delivery.messages import PromoteVersion, endpoint_scope
from lockgate.delivery.plan import by_hand
from lockgate.delivery.standing import (
    StandingAnswer,
    guards_of,
    mishaps_of,
    needs_promote,
    standing_answer,
    way_back_of,
)
from lockgate.delivery.state import (
    DRILL,
    ENDPOINT,
    ENVIRONMENT,
    RELEASE,
    ROLLOUT,
    SETTINGS,
    EndpointState,
    Live,
    release_key,
)
from lockgate.features.state import MATERIALIZATION
from lockgate.gates.state import EVIDENCE, evidence_key
from lockgate.governance.policies.policy import AnyPolicy, PolicyInvalid, complaints
from lockgate.governance.proof import ConsistencyProof, InclusionProof
from lockgate.governance.release_plan import drafted
from lockgate.governance.state import APPROVAL, POLICY, PROPOSAL, RELEASE_PLAN, approval_key
from lockgate.hub import audit, within
from lockgate.hub.authority import Session, Sight, embedded
from lockgate.hub.kernel import read_body
from lockgate.hub.messages import (
    AccessAnswer,
    AuditAnswer,
    ChangeLine,
    ChangesAnswer,
    ChangesSince,
    CompileDossier,
    DossierFacts,
    DraftAnswer,
    DraftReleasePlan,
    ExplainVersion,
    FindReleases,
    FindSnapshots,
    Impact,
    ImpactAnswer,
    KeysAnswer,
    Lineage,
    LineageAnswer,
    ListAccess,
    ListVersions,
    OwnAccess,
    OwnAccessAnswer,
    PackageVersionAnswer,
    PolicyAnswer,
    PolicyInForce,
    ProveConsistency,
    ProvedEmergency,
    ProvedEntry,
    ProveEntry,
    ProveVersion,
    Queue,
    QueueAnswer,
    ReleasesAnswer,
    ReplayAnswer,
    ReplayPolicy,
    RevokedKeys,
    RolloutAnswer,
    ShowRollout,
    SnapshotsAnswer,
    Standing,
    Status,
    StatusAnswer,
    TokenLine,
    VerifyAudit,
    VersionAnswer,
    VersionLine,
    VersionOfPackage,
    VersionProofs,
    VersionsAnswer,
)
from lockgate.hub.ports import CheckpointSink, Delivery, Journal, Outbox
from lockgate.hub.replay import replayed
from lockgate.hub.reports import lineage
from lockgate.hub.reports.gathered import dossier_facts
from lockgate.hub.reports.moment import Moment
from lockgate.hub.telling.subscriptions import (
    SUBSCRIPTION,
    DeliveriesAnswer,
    ListDeliveries,
    ListSubscriptions,
    SubscriptionsAnswer,
    line_of_delivery,
)
from lockgate.pipeline.state import RUN
from lockgate.registry.decide import model_of
from lockgate.registry.makers import maker_refs, makers_of
from lockgate.registry.state import ATTESTATION, CLAIM, IMPORT, KEY, MODEL, TRACE, VERSION, claim_key
from lockgate.registry.trust import revoked_only
from lockgate.traffic.observed import Observed

MAX_CHANGES = 1000
MAX_LINES = 1000
# How many events are looked at for one answer to somebody who sees few of them.
_MAX_LOOKED_AT = 10_000

D = TypeVar("D")
Observe = Callable[[str], Observed | None]
Lacking = Callable[[Digest], str | None]
LastUsed = Callable[[Sequence[str]], Mapping[str, Micros]]
Delivered = Callable[[str, int], Sequence[Delivery]]


class UnknownName(NotFound):
    code = "hub.unknown-name"


class NothingLive(NotFound):
    code = "hub.nothing-live"


def _observe_nothing(endpoint: str) -> Observed | None:
    return None


def _lacking_nothing(package: Digest) -> str | None:
    return None


def _delivered_nothing(subscription: str, limit: int) -> Sequence[Delivery]:
    return ()


def _last_used_never(tokens: Sequence[str]) -> Mapping[str, Micros]:
    return {}


class Questions:
    """Answers queries over a journal.

    Args:
        observe: what the target of an endpoint was last seen to do; None when it cannot be seen.
        lacking: what a package would miss of the features it reads by key, if it answered now; None for nothing.
        checkpoints: where signed heads lie, with the key that checks them.
        last_used: when each of these tokens was last used, of those that were.
        delivered: the newest deliveries of a subscription.
    """

    def __init__(
        self,
        journal: Journal,
        outbox: Outbox,
        clock: Clock,
        *,
        observe: Observe = _observe_nothing,
        lacking: Lacking = _lacking_nothing,
        checkpoints: tuple[CheckpointSink, NoteVerifiers] | None = None,
        last_used: LastUsed = _last_used_never,
        delivered: Delivered = _delivered_nothing,
    ) -> None:
        self._asked = _Asked(journal, outbox, clock, observe, lacking, checkpoints, last_used, delivered)

    def __call__(self, query: Query, session: Session | None = None) -> Any:
        """The answer, all of it from one moment of the journal.

        Args:
            session: who asks, where the answer depends on what he sees; without one, nothing is left out.
        """
        sight = Sight(session or embedded("lockgate"), type(query).permission)
        with self._asked.journal.snapshot():
            answer = _Answer(self._asked)
            limited = _LIMITED.get(type(query))
            if limited is not None:
                return limited(answer, query, sight)
            try:
                return _ANSWERS[type(query)](answer, query)
            except UnknownName as error:
                if sight.is_whole:
                    raise
                # Near matches would name what somebody else has.
                raise UnknownName(error.message, remedy="lockgate status", **error.facts) from None


class _Asked(NamedTuple):
    """What answers are made from; see `Questions`."""

    journal: Journal
    outbox: Outbox
    clock: Clock
    observe: Observe
    lacking: Lacking
    checkpoints: tuple[CheckpointSink, NoteVerifiers] | None
    last_used: LastUsed
    delivered: Delivered


class _Answer:
    """One answer in the making."""

    def __init__(self, asked: _Asked) -> None:
        self._journal, self._outbox, self._clock = asked.journal, asked.outbox, asked.clock
        self._observe, self._lacking = asked.observe, asked.lacking
        self._checkpoints, self._last_used, self._delivered = (
            asked.checkpoints,
            asked.last_used,
            asked.delivered,
        )
        self._moment = Moment(asked.journal)
        self._get, self._all = self._moment.get, self._moment.all

    def _named(self, kind: DocumentKind[D], key: str) -> D:
        body = self._get(kind, key)
        if body is None:
            shown = _shown(kind.name, key)
            known = [_shown(kind.name, one) for one in self._beside(kind, key)]
            raise UnknownName(
                f"there is no {kind.name} {shown}", remedy=did_you_mean(shown, known), name=shown
            )
        return body

    def _beside(self, kind: DocumentKind[Any], key: str) -> list[str]:
        """The keys that may be meant. Of versions and releases a store has tens of thousands: those of the model or
        endpoint that is named, or else of the one that is named most like it."""
        if kind not in _OWNERS:
            return self._keys(kind)
        owners, mark = _OWNERS[kind]
        owner = key.partition(mark)[0]
        found = self._keys(kind, owner + mark)
        for near in [] if found else near_matches(owner, self._keys(owners), limit=1):
            found = self._keys(kind, near + mark)
        return found

    def _keys(self, kind: DocumentKind[Any], prefix: str = "") -> list[str]:
        return [one.key for one in self._journal.documents(kind.name, prefix, bodies=False)]

    def _status(self, query: Status, sight: Sight) -> StatusAnswer:
        chosen = (self._named(ENDPOINT, query.endpoint),) if query.endpoint else self._ladder_order()
        models = self._all(MODEL)
        self._moment.expect(ref for one in chosen for ref in (*live_refs(one), *_line_refs(one)))
        lines = {parse_endpoint(one.endpoint).shown: self._line(one) for one in chosen}
        answer = StatusAnswer(endpoints=lines, models=models, effects_pending=self._outbox.open_rows())
        return within.status_within(answer, sight)

    def _ladder_order(self) -> tuple[EndpointState, ...]:
        order = {step.environment: step.order for step in self._all(ENVIRONMENT)}
        endpoints = (one for one in self._all(ENDPOINT) if one.removed_at is None)
        return tuple(
            sorted(endpoints, key=lambda one: (order.get(one.endpoint.partition("/")[0], 0), one.endpoint))
        )

    def _line(self, endpoint: EndpointState) -> EndpointLine:
        underway = endpoint.rollout
        place = self._get(ENVIRONMENT, parse_endpoint(endpoint.endpoint).environment)
        steps = None
        if underway is not None and underway.strategy == "canary":
            steps = self._get(ROLLOUT, release_key(endpoint.endpoint, underway.release))
        seen = self._observe(endpoint.endpoint)
        return EndpointLine(
            live=self._live_line(endpoint.live),
            previous=self._live_line(endpoint.previous),
            rollback_ready=self._readiness(endpoint, seen),
            astray=by_hand(seen.plan if seen else None, endpoint.adopted) or astray(endpoint, seen),
            rollout=None if underway is None else rollout_line(underway, steps, self._clock.now()),
            consumers=endpoint.consumers,
            dashboards=endpoint.dashboards,
            let_go=endpoint.let_go,
            removed_at=endpoint.removed_at,
            local=lately(endpoint),
            out_of_policy=live_standing(endpoint, self._get, self._all, self._clock.now()).out_of_policy,
            order=0 if place is None else place.order,
        )

    def _live_line(self, live: Live | None) -> LiveLine | None:
        if live is None:
            return None
        version = self._get(VERSION, live.served.version)
        keys = frozenset(one.key_id for one in self._all(KEY))
        # Of the signatures it was released with: what was added since counts from the next promotion on.
        added = 0 if version is None else len(version.signatures) - len(live.served.signatures)
        signed_by = () if version is None else version.signed_by[: len(version.signed_by) - added]
        return LiveLine(
            version=parse_version(live.served.version).shown,
            digest=live.served.package,
            since=live.since,
            approved_by=live.approved_by,
            ticket=live.ticket,
            revoked=signed_by if keys and revoked_only(signed_by, keys) else (),
        )

    def _rollout(self, query: ShowRollout) -> RolloutAnswer:
        endpoint = self._named(ENDPOINT, query.endpoint)
        key = release_key(query.endpoint, query.release or endpoint.n_releases)
        return RolloutAnswer(
            release=self._named(RELEASE, key), rollout=self._get(ROLLOUT, key), line=self._line(endpoint)
        )

    def _readiness(self, endpoint: EndpointState, seen: Observed | None) -> Readiness:
        reason = self._unready(endpoint, seen)
        return Readiness(ready=reason is None, reason=reason, drill=self._drill_line(endpoint.endpoint))

    def _unready(self, endpoint: EndpointState, seen: Observed | None) -> str | None:
        """Why a rollback would not work at this moment, from what is known *and* what is seen."""
        underway = endpoint.rollout is not None and endpoint.rollout.underway
        back = endpoint.live if underway else endpoint.previous
        if back is None:
            fallback = f"; the fallback is {endpoint.fallback.kind}" if endpoint.live else ""
            return f"no previous version yet{fallback}"
        version = self._get(VERSION, back.served.version)
        if version is None or version.state in ("quarantined", "rejected"):
            return f"{back.served.version} is {'unknown' if version is None else version.state}"
        if seen is None:
            return "not known here: the data plane is beside another hub"
        if not seen.alive:
            return "no data plane is running (lockgate up)"
        for worker in seen.workers:
            if worker.state != "gone" and back.served.package not in worker.loaded:
                return f"worker {worker.pid} has not loaded {version.version}"
        settings = self._get(SETTINGS, endpoint.endpoint)
        if settings is not None and settings.settings.features == "online":
            return self._lacking(back.served.package)
        return None

    def _drill_line(self, endpoint: str) -> DrillLine | None:
        drill = self._get(DRILL, endpoint)
        if drill is None or drill.figures is None or drill.finished_at is None:
            return None
        figures = drill.figures
        return DrillLine(
            passed=figures.passed,
            to_version=drill.to_version,
            finished_at=drill.finished_at,
            n_flips=figures.n_flips,
            p50_ms=figures.first_p50_us / 1000,
            p99_ms=figures.first_p99_us / 1000,
            all_p99_ms=figures.all_p99_us / 1000,
            n_failed=figures.n_failed,
            n_wrong=figures.n_wrong,
            interrupted=figures.interrupted,
            number=drill.finished,
        )

    def _explain(self, query: ExplainVersion) -> VersionAnswer:
        endpoint = self._named(ENDPOINT, query.endpoint) if query.endpoint else None
        if endpoint is not None and endpoint.live is None:
            raise NothingLive(
                f"nothing is live on {query.endpoint}",
                remedy=f"lockgate status {query.endpoint}",
                endpoint=query.endpoint,
            )
        key = endpoint.live.served.version if endpoint and endpoint.live else query.version
        version = self._named(VERSION, key)
        model = self._named(MODEL, version.model)
        steps = self._all(ENVIRONMENT)
        records = [self._get(EVIDENCE, evidence_key(key))]
        records += [self._get(EVIDENCE, evidence_key(key, step.environment)) for step in steps]
        approvals = self._all(APPROVAL, key + "#")
        attested = self._get(ATTESTATION, key)
        releases = [
            release
            for step in steps
            for release in self._all(RELEASE, parent=f"{step.environment}/{version.model}")
            if release.version == key
        ]
        return VersionAnswer(
            version=version,
            model=model,
            evidence=tuple(line for record in records if record for line in record.lines),
            approvals={one.environment: one.approvals for one in approvals},
            releases=tuple(releases),
            endpoint=endpoint,
            line=None if endpoint is None else self._line(endpoint),
            attestations=() if attested is None else attested.attestations,
            imported=self._get(IMPORT, version.run),
            erased=self._erased(version.run),
            online=() if (pushed := self._get(MATERIALIZATION, version.model)) is None else pushed.views,
            makers=makers_of(
                self._moment.gather(lambda _, docs: maker_refs(docs, key), query), version
            ).lines,
        )

    def _erased(self, run: Digest) -> tuple[SnapshotState, ...]:
        made = self._get(RUN, run)
        snapshots = [] if made is None else [self._get(SNAPSHOT, one) for one in made.snapshots.values()]
        return tuple(one for one in snapshots if one is not None and one.state == "erased")

    def _dossier(self, query: CompileDossier) -> DossierFacts:
        return dossier_facts(self._explain(ExplainVersion(version=query.version)), self._get, self._all)

    def _versions(self, query: ListVersions) -> VersionsAnswer:
        self._named(MODEL, query.model)
        limit = min(max(query.limit, 1), MAX_LINES)
        # One more than asked for tells whether there is a next page.
        found = self._journal.documents(
            VERSION.name,
            parent=query.model,
            state=query.state or None,
            after=query.after or None,
            limit=limit + 1,
            bodies=False,
        )
        page = found[:limit]
        lines = [VersionLine(version=one.key, state=one.state, package=one.digest) for one in page]
        return VersionsAnswer(
            # All of one model, so its number alone says where a version belongs.
            versions=tuple(sorted(lines, key=lambda line: semver.order(line.version.rpartition("@")[2]))),
            next=page[-1].key if len(found) > limit else None,
        )

    def _revoked_keys(self, query: RevokedKeys) -> KeysAnswer:
        return KeysAnswer(revoked=tuple(self._all(KEY)))

    def _version_of_package(self, query: VersionOfPackage) -> PackageVersionAnswer:
        claim = self._get(CLAIM, claim_key(query.model, query.package))
        live = oldest_live(query.model, self._get, self._all)
        return PackageVersionAnswer(
            version=None if claim is None else claim.version,
            follows="" if live is None else live.version,
            follows_commit="" if live is None else live.commit,
        )

    def _policy(self, query: PolicyInForce) -> PolicyAnswer:
        policy, proposal = self._get(POLICY, query.namespace), self._get(PROPOSAL, query.namespace)
        waits = proposal is not None and proposal.is_open(policy)
        return PolicyAnswer(policy=policy, proposal=proposal if waits else None)

    def _standing(self, query: Standing) -> StandingAnswer:
        version = self._named(VERSION, query.version)
        environment = self._named(ENVIRONMENT, query.environment)
        endpoint = self._named(ENDPOINT, f"{query.environment}/{version.model}")
        policy = self._named(POLICY, model_of(query.version).namespace)
        if query.policy is not None:
            _check(query.policy)
            policy = msgspec.structs.replace(policy, policy=query.policy, digest=query.policy.digest)
        promote = PromoteVersion(id="", version=query.version, environment=query.environment)
        docs = self._moment.gather(needs_promote, promote)
        return standing_answer(docs, version, environment, endpoint, policy, self._clock.now())

    def _draft(self, query: DraftReleasePlan) -> DraftAnswer:
        version = self._named(VERSION, query.version)
        endpoint = self._named(ENDPOINT, f"{query.environment}/{version.model}")
        written = self._get(RELEASE_PLAN, approval_key(query.version, query.environment))
        promote = PromoteVersion(id="", version=query.version, environment=query.environment)
        guards = guards_of(self._moment.gather(needs_promote, promote), endpoint.endpoint)
        releases = self._all(RELEASE, endpoint.endpoint + "#")
        rollouts = [release_key(release.endpoint, release.release) for release in releases]
        self._moment.expect(DocRef(ROLLOUT.name, key) for key in rollouts)
        ended = [(release, self._get(ROLLOUT, key)) for release, key in zip(releases, rollouts, strict=True)]
        return DraftAnswer(
            risks=drafted(guards, mishaps_of(ended)),
            back_to=way_back_of(endpoint),
            guards=dict(guards),
            written=None if written is None else written.plan,
        )

    def _queue(self, query: Queue, sight: Sight) -> QueueAnswer:
        def reasons_of(version: str, environment: str) -> Sequence[Reason]:
            return self._standing(Standing(version=version, environment=environment)).reasons

        waiting = tuple(queue(self._get, self._all, self._moment.expect, reasons_of, self._clock.now()))
        return within.queue_within(QueueAnswer(waiting=waiting), sight, self._tier)

    def _replay(self, query: ReplayPolicy, sight: Sight) -> ReplayAnswer:
        def sees(endpoint: str) -> bool:
            return within.sees(sight, endpoint_scope(endpoint), self._tier)

        _check(query.policy)
        return replayed(self._journal, query.namespace, query.policy, sees)

    def _by_ticket(self, query: FindReleases, sight: Sight) -> ReleasesAnswer:
        kind = "pull-request" if "/" in query.ticket and ":" in query.ticket else "ticket"
        edges = self._journal.edges(sources=(f"{kind}:{query.ticket}",))
        keys = sorted(edge.target.removeprefix("release:") for edge in edges)
        self._moment.expect(DocRef(RELEASE.name, key) for key in keys)
        found = (self._get(RELEASE, key) for key in keys)
        answer = ReleasesAnswer(releases=tuple(release for release in found if release is not None))
        return within.releases_within(answer, sight, self._tier)

    def _subscriptions(self, query: ListSubscriptions) -> SubscriptionsAnswer:
        return SubscriptionsAnswer(subscriptions=self._all(SUBSCRIPTION))

    def _deliveries(self, query: ListDeliveries) -> DeliveriesAnswer:
        # Asked for by its document first: not every store can look for any text among its deliveries.
        known = self._named(SUBSCRIPTION, query.name)
        rows = self._delivered(query.name, min(max(query.limit, 0), MAX_CHANGES))
        return DeliveriesAnswer(subscription=known, deliveries=tuple(map(line_of_delivery, rows)))

    def _changes(self, query: ChangesSince, sight: Sight) -> ChangesAnswer:
        head, lines = self._journal.head().seq, list[ChangeLine]()
        read_to, limit = min(max(query.seq, 0), head), min(max(query.limit, 0), MAX_CHANGES)
        last = min(head, read_to + (limit if sight.is_whole else _MAX_LOOKED_AT))
        while len(lines) < limit and read_to < last:
            for stored in self._journal.entries(read_to, min(limit - len(lines), last - read_to)):
                event, stamp = audit.read_as_stored(stored)
                read_to = stamp.seq
                if within.sees(sight, within.scope_of_event(event), self._tier):
                    lines.append(_change_line(event, stamp))
        return ChangesAnswer(changes=tuple(lines), head=head, read_to=read_to)

    def _tier(self, model: str) -> str | None:
        body = self._get(MODEL, model)
        return None if body is None else body.tier

    def _verify(self, query: VerifyAudit, sight: Sight) -> AuditAnswer:
        notes, verifier = self._notes()
        kept = (query.since,) if query.since else ()
        answer = audit.verify(self._journal, (*kept, *notes), verifier, documents=query.documents)
        return within.audit_within(answer, sight)

    def _prove_entry(self, query: ProveEntry, sight: Sight) -> InclusionProof:
        def is_seen(event: Event) -> bool:
            return within.sees(sight, within.scope_of_event(event), self._tier)

        return audit.prove_entry(self._journal, query.seq, query.checkpoint, *self._notes(), is_seen=is_seen)

    def _prove_version(self, query: ProveVersion) -> VersionProofs:
        notes = self._notes()
        version = self._named(VERSION, query.version)
        pairs, emergencies = audit.prove_version(self._journal, version.version, version.run, *notes)
        return VersionProofs(
            entries=tuple(ProvedEntry(registration=one, entry=other) for one, other in pairs),
            emergencies=tuple(
                ProvedEmergency(registration=one, entry=other, right=tuple(right))
                for one, other, *right in emergencies
            ),
        )

    def _prove_consistency(self, query: ProveConsistency) -> ConsistencyProof:
        return audit.prove_consistency(self._journal, query.old, query.new, *self._notes())

    def _notes(self) -> tuple[Sequence[str], NoteVerifiers]:
        """The signed heads. To be read before anything of the journal: its moment begins with the first look at it, and
        another hub may sign a later head at any time."""
        if self._checkpoints is None:
            return (), ()
        sink, verifiers = self._checkpoints
        return sink.read(), verifiers

    def _lineage(self, query: Lineage, sight: Sight) -> LineageAnswer:
        readers = (*lineage.readers(self._all(ENDPOINT)), *lineage.feeders(self._all(MATERIALIZATION)))
        forward = lineage.walk(query.ref, self._journal.edges, readers, is_forward=True)
        backward = lineage.walk(query.ref, self._journal.edges, readers, is_forward=False)
        found = within.edges_within(query.ref, forward, backward, sight, self._tier)
        return lineage.answer(found, readers)

    def _find_snapshots(self, query: FindSnapshots, sight: Sight) -> SnapshotsAnswer:
        stored = self._journal.documents(SNAPSHOT.name, query.beginning, limit=20)
        found = (read_body(SNAPSHOT, one) for one in stored)
        seen = (one for one in found if sight.sees(Scope(namespace=one.dataset.partition("/")[0])))
        return SnapshotsAnswer(snapshots=tuple(seen))

    def _impact(self, query: Impact, sight: Sight) -> ImpactAnswer:
        seen = [one for one in self._all(ENDPOINT) if self._sees_endpoint(one.endpoint, sight)]
        self._moment.expect(DocRef(TRACE.name, version) for one in seen for _, version in lineage.on(one))
        return lineage.impact(query.ref, seen, lambda version: self._get(TRACE, version))

    def _sees_endpoint(self, endpoint: str, sight: Sight) -> bool:
        return within.sees(sight, endpoint_scope(endpoint), self._tier)

    def _own_access(self, query: OwnAccess, sight: Sight) -> OwnAccessAnswer:
        subject = self._get(SUBJECT, sight.session.actor)
        return OwnAccessAnswer(
            held=() if subject is None else subject.grants,
            tokens=self._token_lines(self._all(TOKEN, parent=sight.session.actor)),
        )

    def _access(self, query: ListAccess, sight: Sight) -> AccessAnswer:
        subjects = [one for one in self._all(SUBJECT, query.subject) if query.subject in ("", one.subject)]
        tokens = self._all(TOKEN, parent=query.subject or None)
        rules = [rule for rule in self._all(FEDERATION) if query.subject in ("", rule.subject)]
        aliases = [
            one
            for one in self._all(ALIAS)
            if one.behind and query.subject in ("", *(who.subject for who in one.behind))
        ]
        answer = AccessAnswer(
            subjects=tuple(subjects),
            tokens=self._token_lines(tokens),
            rules=tuple(rules),
            aliases=tuple(aliases),
        )
        return within.access_within(answer, sight)

    def _token_lines(self, tokens: Sequence[TokenState]) -> tuple[TokenLine, ...]:
        """Those of CI jobs only while they live: there is one for each job that ever ran."""
        now = self._clock.now()
        shown = [one for one in tokens if not one.rule or now < one.expires_at]
        used = self._last_used([one.token for one in shown])
        return tuple(_token_line(one, used.get(one.token), now) for one in shown)


_ANSWERS: Mapping[type[Query], Callable[[_Answer, Any], Any]] = {
    ExplainVersion: _Answer._explain,
    CompileDossier: _Answer._dossier,
    ListVersions: _Answer._versions,
    Standing: _Answer._standing,
    VersionOfPackage: _Answer._version_of_package,
    RevokedKeys: _Answer._revoked_keys,
    PolicyInForce: _Answer._policy,
    ShowRollout: _Answer._rollout,
    ProveConsistency: _Answer._prove_consistency,
    ProveVersion: _Answer._prove_version,
    DraftReleasePlan: _Answer._draft,
    ListSubscriptions: _Answer._subscriptions,
    ListDeliveries: _Answer._deliveries,
}
_LIMITED: Mapping[type[Query], Callable[[_Answer, Any, Sight], Any]] = {
    Status: _Answer._status,
    ChangesSince: _Answer._changes,
    VerifyAudit: _Answer._verify,
    ProveEntry: _Answer._prove_entry,
    Lineage: _Answer._lineage,
    Impact: _Answer._impact,
    OwnAccess: _Answer._own_access,
    ListAccess: _Answer._access,
    Queue: _Answer._queue,
    ReplayPolicy: _Answer._replay,
    FindReleases: _Answer._by_ticket,
    FindSnapshots: _Answer._find_snapshots,
}
"""These concern more than their scope names, and are cut to what the session sees."""
# What versions and releases belong to, which is the beginning of their keys.
_OWNERS: Mapping[DocumentKind[Any], tuple[DocumentKind[Any], str]] = {
    VERSION: (MODEL, "@"),
    RELEASE: (ENDPOINT, "#"),
}


def _line_refs(endpoint: EndpointState) -> Iterator[DocRef]:
    """What the line of an endpoint is made from, beside `live_refs`."""
    underway = endpoint.rollout
    for one in filter(None, (endpoint.live, endpoint.previous)):
        yield DocRef(VERSION.name, one.served.version)
    yield DocRef(SETTINGS.name, endpoint.endpoint)
    yield DocRef(DRILL.name, endpoint.endpoint)
    if underway is not None:
        yield DocRef(ROLLOUT.name, release_key(endpoint.endpoint, underway.release))


def _change_line(event: Event, stamp: Stamp) -> ChangeLine:
    return ChangeLine(
        seq=stamp.seq,
        at=stamp.at,
        actor=stamp.actor,
        type=str(event.__struct_config__.tag),
        # What people typed may hold line breaks; a line of the log holds none.
        summary=" ".join(event.summary().split()),
    )


def _token_line(token: TokenState, last_used_at: Micros | None, now: Micros) -> TokenLine:
    state = "revoked" if token.revoked_at is not None else "active" if now < token.expires_at else "expired"
    return TokenLine(
        token=token.token,
        subject=token.subject,
        state=state,
        grants=token.grants,
        issued_at=token.issued_at,
        issued_by=token.issued_by,
        expires_at=token.expires_at,
        last_used_at=last_used_at,
        label=token.label,
        rule=token.rule,
    )


def _check(policy: AnyPolicy) -> None:
    for complaint, remedy in complaints(policy):
        raise PolicyInvalid(f"the policy is none: {complaint}", remedy=remedy)


def _shown(kind: str, key: str) -> str:
    """A document key as people write it: without the default namespace."""
    if kind == "endpoint":
        return parse_endpoint(key).shown
    if kind == "version":
        return parse_version(key).shown
    return key.removeprefix("main/") if kind == "model" else key
