"""The composition root of a hub for a team: `lockgate hub`.

Journal and outbox by URL, blobs by URL, trust and limits from `hub.toml`; identities proven, or claimed on the loopback
interface. Beside the server it signs checkpoints, keeps what was counted, removes what nobody went on sending, and,
where a data plane runs on this machine, carries out what was decided and watches rollouts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from litestar import Litestar

from lockgate.access.decide import DEFAULT_TOKEN_DAYS
from lockgate.adapters.http.blobs import Uploads
from lockgate.adapters.http.gate import UNMETERED, Gate, Limits, arriving
from lockgate.adapters.http.identity import identity_routes
from lockgate.adapters.http.listener import check_certificate, require_current
from lockgate.adapters.http.messages import Lanes
from lockgate.adapters.identity.checkpoints import read_key
from lockgate.adapters.identity.keys import CheckpointKey, PublicKey
from lockgate.adapters.identity.team import Identity, on_this_machine, open_identity
from lockgate.adapters.notify.posting import parse_networks
from lockgate.app.chores import Chores, note
from lockgate.app.deciding import LOCAL_LOOK_S, Deciding
from lockgate.app.http.server import Behind, HubServer, by_claimed_name, create_app
from lockgate.app.stores import open_blobs, open_sinks, open_store
from lockgate.app.team.config import HubConfig, read_hub_config
from lockgate.core.clock import iso
from lockgate.core.journal import verifier_key
from lockgate.hub.authority import embedded
from lockgate.hub.kernel import LocalHub
from lockgate.workshop.upkeep.erasing import Eraser

_LOOK_S = 0.1
_CHECKPOINT_LOOK_S = 1.0
_COUNTS_S = 10.0
_SWEEP_S = 3600.0
_CAPTURES_S = 60.0
_LEAVE_S = 5.0


class Team(Deciding):
    """A hub and what it needs, opened once.

    Args:
        base: where the paths of the configuration start.
    """

    def __init__(self, config: HubConfig, base: Path) -> None:
        self.config = config
        run = config.target.run
        store = open_store(config.store.url, base=base)
        super().__init__(
            store,
            open_blobs(config.blobs.url, base=base, cache=base / config.blobs.cache),
            trusted=self.trusted,
            run=base / run if run else None,
            sink=open_sinks(config.audit.sinks, base=base),
            checkpoint_key=lambda: base / config.audit.checkpoint_key,
            earlier_keys=[read_key(one, base=base) for one in config.audit.earlier_keys],
            base=base,
            networks=config.webhooks.networks,
            tracker=config.tracker,
            token_days=DEFAULT_TOKEN_DAYS if config.identity is None else config.identity.token_days,
            retention=config.retention,
        )
        self.make_checkpoint_key()
        CheckpointKey(base / config.audit.checkpoint_key)
        self.trusted()
        self._uploads = Uploads(base / config.blobs.uploads)
        self._identity: Identity | None = None
        if config.identity is not None:
            self._identity = open_identity(
                config.identity,
                store,
                self.clock,
                execute=lambda session, command: self.hub_for(session).execute(command),
                new_id=self.ids.new,
            )
        self._signed_at, self._signed = time.monotonic(), 0

    def hub_here(self, claim: str, insists: bool) -> LocalHub:
        """A hub session of whoever works on this machine: proven as over the wire, where names are proven."""
        return self.hub_for(
            embedded(claim) if self._identity is None else on_this_machine(self._identity, claim, insists)
        )

    def trusted(self, environment: str | None = None) -> tuple[PublicKey, ...]:
        """The keys that are trusted in an environment, or in any. One that is not configured trusts nobody."""
        tables = self.config.trust
        chosen = (
            list(tables.values())
            if environment is None
            else [tables[environment]]
            if environment in tables
            else []
        )
        paths = sorted({path for table in chosen for path in table.keys})
        return tuple(PublicKey.from_file(self._base / path) for path in paths)

    def check_listening(self) -> list[str]:
        """What `serve`, or a caller, would find out later. Raises `CertificateInvalid` and `NetworkInvalid`."""
        certfile = self._path(self.config.listen.certfile)
        check_certificate(certfile, self._path(self.config.listen.keyfile))
        parse_networks(self.config.webhooks.networks)
        return [f"tls: good until {iso(require_current(certfile, self.clock.now()))}"] if certfile else []

    def app(self) -> Litestar:
        """The HTTP application over this hub."""
        identity, limits = self._identity, self.config.limits
        if identity is None and limits == Limits():
            limits = UNMETERED
        return create_app(
            self.hub_for,
            by_claimed_name if identity is None else identity.authenticate,
            hosts=self.config.listen.hosts,
            proxies=self.config.listen.proxies,
            limits=limits,
            behind=Behind(
                head=lambda: self.journal.head().seq,
                blobs=self.blobs,
                uploads=self._uploads,
                sight=self.sight,
                ever=self.usage.counted,
                more=self._identity_routes,
            ),
        )

    def _identity_routes(self, gate: Gate, lanes: Lanes) -> list[Any]:
        identity = self._identity
        if identity is None:
            return []

        async def read(request: Any) -> bytes:
            return b"".join([chunk async for chunk in arriving(request, gate.limits, gate.limits.body_bytes)])

        return identity_routes(
            gate.check,
            read,
            lanes.logins.run,
            offered=identity.offered,
            exchange=identity.exchange,
            browser=identity.browser,
        )

    def serve(self, ready: Callable[[HubServer], None]) -> None:
        """Answer until SIGTERM or SIGINT; then finish what was begun, and sign a last checkpoint.

        Args:
            ready: called once, when requests are answered.
        """
        listen, app, chores = self.config.listen, self.app(), Chores()
        server = HubServer(
            app,
            listen.port,
            host=listen.host,
            proven=self._identity is not None,
            certfile=self._path(listen.certfile),
            keyfile=self._path(listen.keyfile),
            ready=lambda port: ready(server),
        )
        self._start(chores, app)
        try:
            server.run()
        finally:
            chores.stop(_LEAVE_S)
            with chores.going_on("counts"):
                self._keep_counts(app)
            with chores.going_on("checkpoint"):
                self.checkpoint()

    def _path(self, name: str) -> str | None:
        return str(self._base / name) if name else None

    def _start(self, chores: Chores, app: Litestar) -> None:
        chores.start("checkpoint", _CHECKPOINT_LOOK_S, self._checkpoint_when_due)
        chores.start("counts", _COUNTS_S, lambda: self._keep_counts(app))
        notifier = self.notifier()
        chores.keep("webhooks", lambda leaving: notifier.run(leaving, note))
        eraser = Eraser(self.journal, self.blobs, self.steps)
        chores.start("erasures", LOCAL_LOOK_S, eraser.look)
        self._uploads.sweep()
        chores.start("uploads", _SWEEP_S, self._uploads.sweep)
        chores.start("brought", _SWEEP_S, self.forget_brought)
        if self.target is not None:
            self.republish()
            self.effects.take_over()
            chores.start("effects", _LOOK_S, self.effects.carry_out)
            chores.start("rollouts", _LOOK_S, self.rollouts.look)
            chores.start("local plans", LOCAL_LOOK_S, self.adopt)
            chores.start("captures", _CAPTURES_S, self.prune_captures)
            if self.config.target.port:
                drills = self.drills(lambda: self.config.target.port)
                chores.start("drills", _LOOK_S, drills.look)

    def _checkpoint_when_due(self) -> None:
        seq, audit = self.journal.head().seq, self.config.audit
        late = time.monotonic() >= self._signed_at + audit.every_s
        if seq >= self._signed + audit.every_events or (late and seq > self._signed):
            self.checkpoint()
            self._signed_at, self._signed = time.monotonic(), seq

    def _keep_counts(self, app: Litestar) -> None:
        """In one go and now and then: a stranger must not make the store write for each knock at the door."""
        tally = app.state.tally
        counts = {name: n for name, n in tally.unkept().items() if name.startswith("refused.")}
        for name, n in counts.items():
            self.usage.count(name, n)
            tally.kept({name: n})


def open_team(file: Path) -> Team:
    """The hub of a configuration. Raises what reading and opening raise."""
    return Team(read_hub_config(file), file.resolve().parent)


def check(config: HubConfig, base: Path) -> list[str]:
    """Open everything that a hub would, serve nothing; what is well, line by line.

    Raises what opening raises.
    """
    team = Team(config, base)
    head = team.journal.head().seq
    # To read them opens every place; the size alone would be 0 where one is away.
    team.sink.read()
    lines = [f"store: {head} entries", f"checkpoints: the last one knows {team.sink.last_size()} entries"]
    lines += [f"checkpoints: checked with the key {verifier_key(one)}" for one in team.note_keys]
    lines += team.check_listening()
    for environment in config.trust:
        n = len(team.trusted(environment))
        lines.append(f"trust: {n} {'key' if n == 1 else 'keys'} in {environment}")
    if config.tracker is not None:
        team.secret(config.tracker.secret)
        lines.append(f"tracker: asked at {config.tracker.url.partition('?')[0]}")
    team.blobs.has("sha256:" + "0" * 64)
    claimed = config.identity is None
    lines.append(
        "identity: " + ("names are claimed, on this machine only" if claimed else "names are proven")
    )
    return lines
