"""What a process that decides holds over one store: journal and outbox, blobs, trust, targets, checkpoints.

Two composition roots stand on it: `control.Control` for the store of one project, `team.Team` for the hub of a team.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lockgate.access.decide import DEFAULT_TOKEN_DAYS
from lockgate.adapters.identity.checkpoints import NotePrivate, NotesOnDemand
from lockgate.adapters.identity.keys import CheckpointKey, generate_checkpoint_key
from lockgate.adapters.identity.secrets import resolve as resolve_secret
from lockgate.adapters.targets.captures import CaptureReader
from lockgate.adapters.targets.effects import EffectRunner, restore_plans
from lockgate.adapters.targets.local import LocalTarget
from lockgate.app.plugins import resolve
from lockgate.app.rollouts import RolloutController
from lockgate.app.system import SystemClock, SystemIds
from lockgate.core.blobs import SweptBlobs
from lockgate.core.digests import Digest
from lockgate.core.journal import NoteVerifier, sign_checkpoint
from lockgate.core.messages import Command
from lockgate.core.secrets import parse_secret_ref
from lockgate.delivery.messages import ConfirmPlan
from lockgate.delivery.plan import adoption_of
from lockgate.delivery.state import ENDPOINT
from lockgate.governance.tickets.ports import Tracker
from lockgate.hub.authority import Session, controller
from lockgate.hub.homes import BROUGHT_FOR, BlobSight, SeenBlobs, fill
from lockgate.hub.kernel import LocalHub, require, tier_of
from lockgate.hub.ports import CheckpointSink, Store
from lockgate.hub.questions import Questions
from lockgate.hub.refold import refold
from lockgate.pipeline.artifact import StepRecord
from lockgate.registry.packages.ports import Verifier
from lockgate.registry.reach import MAX_READ_BYTES
from lockgate.registry.state import KEY, VersionState
from lockgate.workshop.admission.facts import Facts
from lockgate.workshop.config import RetentionTable, TrackerTable
from lockgate.workshop.upkeep.collecting import prune_captures

CONTROLLER = controller()
LOCAL_LOOK_S = 1.0
"""How often it is looked for plans that somebody wrote without the hub, when nothing else happens."""


class Deciding:
    """Opened once; hands out one hub per session. What an earlier release folded otherwise, or kept without
    homes, is put right first.

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
        retention: how long what is not needed is kept at least.
    """

    def __init__(
        self,
        store: Store,
        blobs: SweptBlobs,
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
        retention: RetentionTable = RetentionTable(),  # noqa: B008 - it is frozen
    ) -> None:
        self.clock = SystemClock()
        self.ids = SystemIds()
        self.store = store
        self.journal, self.outbox, self.usage, self.deliveries, self.homes = store
        self.blobs = blobs
        refold(self.journal, self.clock)
        fill(self.journal, self.homes, self._sizes, blobs.get)
        self.sight = BlobSight(self.homes, partial(tier_of, self.journal), self.clock)
        self.sink = sink
        self._checkpoint_key = checkpoint_key
        self._base, self._networks, self._tracker_table = base, networks, tracker
        self.run = run
        self.retention = retention
        tracking, terms = self._open_tracker, retention.terms
        self._facts = Facts(self.journal, blobs, trusted, self.clock, tracking, token_days, terms)
        self.target = None if run is None else LocalTarget(run)
        targets = {} if self.target is None else {"local": self.target}
        self.effects = EffectRunner(self.outbox, targets, self.clock, vet=self._facts.vet)
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

    def prune_captures(self) -> int:
        """Remove captures whose term has run out; how many files that were."""
        if self.run is None:
            return 0
        files = CaptureReader(self.run)
        return prune_captures(self.journal, files, self.clock.now(), self.retention.captures)

    def hub_for(self, session: Session) -> LocalHub:
        return LocalHub(
            self.journal,
            self.clock,
            session,
            answer=self._questions,
            establish=lambda command: self._facts(command, SeenBlobs(self.blobs, self.sight, session)),
            inquire=lambda command: self._facts.inquire(command, session.actor),
            lead_to=lambda command: self.sight.led_to(command, session, self._read_list),
            carry_out=self.carry_out,
            prepare=self._adopt_first,
        )

    def forget_brought(self) -> None:
        self.homes.prune(self.clock.now() - BROUGHT_FOR)

    def _sizes(self) -> dict[Digest, int]:
        return {one.digest: one.n_bytes for one in self.blobs.kept()}

    def _read_list(self, digest: Digest) -> bytes:
        """The bytes of what a command calls a list, which may be anything at all."""
        path = Path(self.blobs.path(digest))
        return path.read_bytes() if path.stat().st_size <= MAX_READ_BYTES else b""

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

    def _open_tracker(self) -> Tracker | None:
        table = self._tracker_table
        if table is None:
            return None
        opened = resolve("lockgate.adapters.notify.opening:open_tracker")
        tracker: Tracker = opened(
            table.url, table.secret, self.clock, networks=self._networks, secret=self.secret
        )
        return tracker

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

    def drills(self, port: Callable[[], int]) -> Any:
        """What walks the drills that this hub is asked for (`app.drills.Drills`), at the data plane of this machine.

        Args:
            port: where the data plane answers.
        """
        opened = resolve("lockgate.app.drills:Drills")
        return opened(
            self.journal,
            self.hub_for(CONTROLLER),
            self.target,
            self.blobs,
            self.clock,
            self.ids,
            port=port,
            republish=self.republish,
        )

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
        restore_plans(self.journal, self.target)

    def steps(self) -> Iterable[StepRecord]:
        """What a cache of steps here remembers; a hub runs none."""
        return ()

    def make_checkpoint_key(self) -> None:
        """Made with the store, and never afterwards: another key would not vouch for what this one has signed."""
        path = self._checkpoint_key()
        if not path.exists() and self.journal.head().seq == 0:
            generate_checkpoint_key(path)

    def checkpoint(self) -> None:
        """Sign the journal's head and append it to the sink, when there is news since the last one."""
        head = self.journal.head()
        if head.seq > self.sink.last_size():
            self.sink.write(sign_checkpoint(head, NotePrivate(CheckpointKey(self._checkpoint_key()))))
