"""What a process that decides holds over one store: journal and outbox, blobs, trust, targets, checkpoints.

Two composition roots stand on it: `control.Control` for the store of one project, `team.Team` for the hub of a team.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from lockgate.access.decide import DEFAULT_TOKEN_DAYS, TOKEN_DAYS
from lockgate.access.messages import IssueServiceToken, IssueToken
from lockgate.adapters.identity.checkpoints import KEY_NAME, NotePrivate, NotePublic
from lockgate.adapters.identity.keys import CheckpointKey, CheckpointPublicKey
from lockgate.adapters.identity.secrets import resolve as resolve_secret
from lockgate.adapters.targets.captures import CaptureReader
from lockgate.adapters.targets.effects import EffectRunner
from lockgate.adapters.targets.local import LocalTarget
from lockgate.app.plugins import resolve
from lockgate.app.rollouts import RolloutController
from lockgate.app.system import SystemClock, SystemIds
from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest
from lockgate.core.documents import DocumentKind
from lockgate.core.journal import NoteVerifier, sign_checkpoint
from lockgate.core.messages import Command
from lockgate.core.secrets import parse_secret_ref
from lockgate.delivery.advance import standing_plan
from lockgate.delivery.messages import ConfirmPlan, PromoteVersion, ReleaseInEmergency, Served
from lockgate.delivery.plan import adoption_of, plan_of
from lockgate.delivery.rollouts.policy import EndpointSettings
from lockgate.delivery.standing import asks_tracker, question_of
from lockgate.delivery.state import ENDPOINT, ENVIRONMENT, ON_A_STEP, ROLLOUT, SETTINGS, release_key
from lockgate.gates.evidence import check_line
from lockgate.gates.messages import RecordEvidence
from lockgate.governance.tickets.facts import ticket_fact
from lockgate.governance.tickets.ports import Tracker
from lockgate.governance.tickets.tracker import TICKET_FACT
from lockgate.hub.authority import Session, controller
from lockgate.hub.kernel import LocalHub, read_body, require
from lockgate.hub.ports import CheckpointSink, Store
from lockgate.hub.questions import Questions
from lockgate.hub.refold import refold
from lockgate.registry.decide import ATTESTATION_FACT, PACKAGE_FACT
from lockgate.registry.facts import attestation_fact, package_fact, signature_fact, trust_fact
from lockgate.registry.messages import AttachAttestation, RegisterVersion, SignVersion
from lockgate.registry.ports import Verifier
from lockgate.registry.state import KEY, MODEL, VERSION, VersionState
from lockgate.registry.trust import TRUST_FACT, load_reasons
from lockgate.workshop.config import TrackerTable

D = TypeVar("D")

CONTROLLER = controller()
LOCAL_LOOK_S = 1.0
"""How often it is looked for plans that somebody wrote without the hub, when nothing else happens."""


class NotesOnDemand:
    """Checks the notes of checkpoints. The key is read when the first note is checked: a rollback needs none."""

    name = KEY_NAME

    def __init__(self, load: Callable[[], CheckpointPublicKey]) -> None:
        self._load = load

    @cached_property
    def _public(self) -> NotePublic:
        return NotePublic(self._load())

    def public_bytes(self) -> bytes:
        return self._public.public_bytes()

    def verify(self, message: bytes, signature: bytes) -> bool:
        return self._public.verify(message, signature)


class Deciding:
    """Opened once; hands out one hub per session. Documents that an earlier release folded are folded anew first.

    Args:
        trusted: the keys that are trusted in an environment (None: in any); read when a signature is checked.
        run: the run directory of a data plane on this machine; without one, effects wait for whoever has it.
        sink: where signed heads of the journal go.
        checkpoint_key: where the key is that signs them.
        earlier_keys: those that signed checkpoints before this one did.
        lacking: what a package would miss of the features it reads by key, if it answered now.
        base: where the paths of references to secrets start.
        networks: those that subscriptions and the tracker may be in, beside the public ones.
        tracker: who is asked about tickets.
        token_days: how long an API token may live.
    """

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        *,
        trusted: Callable[[str | None], Sequence[Verifier]],
        run: Path | None,
        sink: CheckpointSink,
        checkpoint_key: Callable[[], Path],
        earlier_keys: Sequence[NoteVerifier] = (),
        lacking: Callable[[Digest], str | None] = lambda package: None,
        base: Path = Path(),
        networks: Sequence[str] = (),
        tracker: TrackerTable | None = None,
        token_days: int = DEFAULT_TOKEN_DAYS,
    ) -> None:
        self.clock = SystemClock()
        self.ids = SystemIds()
        self.journal, self.outbox, self.usage, self.deliveries = store
        self.blobs = blobs
        refold(self.journal, self.clock)
        self.sink = sink
        self._checkpoint_key = checkpoint_key
        self._trusted = trusted
        self._token_days = token_days
        self._base, self._networks, self._tracker_table = base, networks, tracker
        self.target = None if run is None else LocalTarget(run)
        targets = {} if self.target is None else {"local": self.target}
        self.effects = EffectRunner(self.outbox, targets, self.clock, vet=self._vet)
        self.note_keys = (NotesOnDemand(lambda: CheckpointKey(checkpoint_key()).public), *earlier_keys)
        self._questions = Questions(
            self.journal,
            self.outbox,
            self.clock,
            observe=lambda endpoint: None if self.target is None else self.target.observe(endpoint),
            lacking=lacking,
            checkpoints=(sink, self.note_keys),
            last_used=self.usage.last_used,
            delivered=self.deliveries.listed,
        )
        self.effects.confirm = self.hub_for(CONTROLLER).execute
        # Its effects are left to the outbox: whoever adopts may be in the middle of carrying out another one.
        adopting = LocalHub(self.journal, self.clock, CONTROLLER, answer=self._questions)
        self.effects.adopt = lambda plan: require(adopting.execute(adoption_of(plan)))
        self.rollouts = RolloutController(
            self.journal,
            self.hub_for(CONTROLLER),
            lambda: CaptureReader(run or Path()),
            self.clock,
            self.ids,
        )

    def hub_for(self, session: Session) -> LocalHub:
        return LocalHub(
            self.journal,
            self.clock,
            session,
            answer=self._questions,
            establish=self._establish,
            inquire=lambda command: self._inquire(command, session.actor),
            carry_out=self.carry_out,
            prepare=self._adopt_first,
        )

    def adopt(self, endpoint: str | None = None) -> None:
        """Take over what was done at this machine's target without the hub: at one endpoint, or at all."""
        if self.target is None or self.effects.adopt is None:
            return
        for plan in self.target.local_plans(endpoint):
            if self.journal.document(ENDPOINT.name, plan.endpoint) is not None:
                self.effects.adopt(plan)
                self.effects.carry_out(plan.endpoint)

    def _adopt_first(self, command: Command) -> None:
        """Nothing is decided about an endpoint on an account of it that somebody overtook by hand."""
        scope = command.scope()
        if command.permission == ConfirmPlan.permission or not (scope.environment and scope.model):
            return
        endpoint = f"{scope.environment}/{scope.namespace}/{scope.model}"
        if self.journal.document(ENDPOINT.name, endpoint) is not None:
            self.adopt(endpoint)

    def _establish(self, command: Command) -> Mapping[str, Any]:
        """What must hold outside the journal before a command may be decided, and what that amounts to."""
        match command:
            case IssueToken() | IssueServiceToken():
                return {TOKEN_DAYS: self._token_days}
            case RecordEvidence():
                for line in command.lines:
                    check_line(line, self.blobs.get(line.digest), command.package)
            case AttachAttestation():
                return {ATTESTATION_FACT: attestation_fact(command, self.blobs, self._trusted(None))}
            case RegisterVersion():
                known = self.journal.document(MODEL.name, command.model)
                latest = (known.digest or None) if known is not None else None
                return {PACKAGE_FACT: package_fact(command, self.blobs, self._trusted(None), latest)}
            case (
                PromoteVersion(version=key, environment=environment)
                | ReleaseInEmergency(version=key, environment=environment)
            ):
                version = self._document(VERSION, key)
                if version is not None:
                    return {TRUST_FACT: trust_fact(version, self.blobs, self._trusted(environment))}
            case SignVersion(version=key):
                version = self._document(VERSION, key)
                if version is not None:
                    fact = signature_fact(command, version, self.blobs, self._trusted(None))
                    return {TRUST_FACT: fact}
        return {}

    def _inquire(self, command: Command, actor: str) -> Mapping[str, Any]:
        """What somebody else is asked before a command may be decided."""
        if not isinstance(command, PromoteVersion) or not asks_tracker(self._document, command):
            return {}
        now = self.clock.now()
        return {TICKET_FACT: ticket_fact(self._tracker, question_of(command, actor, now), now)}

    @cached_property
    def _tracker(self) -> Tracker | None:
        table = self._tracker_table
        if table is None:
            return None
        opened = resolve("lockgate.adapters.notify.opening:open_tracker")
        tracker: Tracker = opened(
            table.url, table.secret, self.clock, networks=self._networks, secret=self.secret
        )
        return tracker

    def _vet(self, served: Served, environment: str) -> str:
        """Why a package may not be brought to a target now, whatever was decided before; empty when it may."""
        version = self._document(VERSION, served.version)
        if version is None:
            return f"there is no version {served.version}"
        fact = trust_fact(version, self.blobs, self._trusted(environment), whole=False)
        keys = self.revoked_keys()
        return "; ".join(reason.message for reason in load_reasons(version, fact, keys))

    def revoked_keys(self) -> frozenset[str]:
        return frozenset(stored.key for stored in self.journal.documents(KEY.name, bodies=False))

    def carry_out(self, subject: str | None = None) -> bool:
        """Carry out every open effect (of `subject`) that this machine can; true when none is left."""
        return self.target is not None and self.effects.carry_out(subject)

    def secret(self, reference: str) -> str:
        """The text behind a reference. Raises `NotAReference` and `SecretMissing`."""
        return resolve_secret(
            parse_secret_ref(reference, where="a subscription or the tracker"), base=self._base
        )

    def notifier(self) -> Any:
        """What carries events to subscribers (`adapters.notify.Notifier`); its libraries are loaded here.

        Raises:
            NetworkInvalid: a network is none.
        """
        opened = resolve("lockgate.adapters.notify.opening:open_notifier")
        networks, secret = self._networks, self.secret
        return opened(self.journal, self.deliveries, self.blobs, self.clock, networks=networks, secret=secret)

    def open_lineage(self, version: VersionState) -> Iterator[dict[str, Any]]:
        """The OpenLineage run events of a version."""
        opened = resolve("lockgate.adapters.notify.opening:open_lineage")(self.journal, self.blobs)
        found: Iterator[dict[str, Any]] = opened.of_version(version)
        return found

    def republish(self) -> None:
        """Give a target that lost its plans (a restored backup, a wiped run directory) those that stand."""
        if self.target is None:
            return
        self.target.distrust(sorted(self.revoked_keys()))
        self.adopt()
        for stored in self.journal.documents(ENDPOINT.name):
            endpoint = read_body(ENDPOINT, stored)
            environment = self._document(ENVIRONMENT, endpoint.endpoint.partition("/")[0])
            rollout = endpoint.rollout
            changing = rollout is not None and rollout.state not in ON_A_STEP
            if environment is None or changing or endpoint.generation == 0:
                continue
            seen = self.target.observe(endpoint.endpoint)
            if seen.generation >= endpoint.generation:
                continue
            settings = self._document(SETTINGS, endpoint.endpoint)
            way = None
            if rollout is not None:
                way = self._document(ROLLOUT, release_key(endpoint.endpoint, rollout.release))
            served = EndpointSettings() if settings is None else settings.settings
            plan = plan_of(standing_plan(environment, endpoint, served, way))
            self.target.apply(plan, adopted=endpoint.adopted)

    def _document(self, kind: DocumentKind[D], key: str) -> D | None:
        stored = self.journal.document(kind.name, key)
        return None if stored is None else read_body(kind, stored)

    def checkpoint(self) -> None:
        """Sign the journal's head and append it to the sink, when there is news since the last one."""
        head = self.journal.head()
        if head.seq > self.sink.last_size():
            self.sink.write(sign_checkpoint(head, NotePrivate(CheckpointKey(self._checkpoint_key()))))
