"""What every verb shares: its options, the hub it speaks to, how it prints."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import msgspec

from lockgate.app.cli.main import Refused
from lockgate.app.plugins import resolve
from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest
from lockgate.core.errors import Forbidden, LockgateError, Unsupported
from lockgate.core.messages import Command, Query, Receipt, Refusal, RefusedCommand, Scope
from lockgate.hub.authority import may_ever
from lockgate.hub.kernel import Hub
from lockgate.hub.messages import ExplainVersion, Standing, Status, StatusAnswer
from lockgate.workshop.config import NoProject
from lockgate.workshop.layout import Layout, claimed_actor, here


class WorkNeedsStore(Unsupported):
    """Some work belongs to the machine that has the store and the data plane, never to a hub elsewhere."""

    code = "cli.work-needs-store"


class ClaimBesideProof(Forbidden):
    """Two answers to who is acting: a name that is claimed, and a token that proves one."""

    code = "cli.claim-beside-proof"


@dataclass(frozen=True)
class Session:
    """One run of a verb.

    Attributes:
        claim: who says to be acting, where nobody has to prove it.
        insists: whether that was said with `--as`.
        config: the configuration of a team's hub whose own store is meant, on its machine.
    """

    claim: str
    json: bool
    project: str | None
    hub_url: str | None
    insists: bool = False
    config: str | None = None

    @functools.cached_property
    def proof(self) -> Callable[[], str] | None:
        """What gives the token for the hub, when this user has one.

        Raises:
            ClaimBesideProof: a name was claimed as well.
            HubInsecure, LoginsExposed: as `adapters.identity.logins` says.
        """
        if not self.hub_url:
            return None
        proof: Callable[[], str] | None = resolve("lockgate.adapters.identity.logins:proof_for")(self.hub_url)
        if proof is not None and self.insists:
            raise ClaimBesideProof(
                f"a hub that knows who is speaking believes no --as {self.claim}",
                remedy="leave out --as; lockgate whoami says whom the hub takes you for",
                hub=self.hub_url,
            )
        return proof

    @functools.cached_property
    def actor(self) -> str:
        """In whose name this runs: the one a hub takes the sender of a token for, else the one that is claimed."""
        if self.config:
            return self.deciding.session.actor
        return self.claim if self.proof is None else self.reading.session.actor

    @functools.cached_property
    def layout(self) -> Layout:
        return here(self.project)

    @property
    def project_root(self) -> Path:
        """The project's folder; where there is none, the folder one is in."""
        try:
            return self.layout.root
        except NoProject:
            return Path.cwd()

    @functools.cached_property
    def reading(self) -> Hub:
        """A hub for questions: over HTTP when one was named, else the project's own store."""
        if self.config:
            return self.deciding
        if self.hub_url:
            hub: Hub = resolve("lockgate.adapters.hubs.http:HttpHub")(
                self.hub_url, actor=self.claim, token=self.proof
            )
            return hub
        embedded_hub: Hub = resolve("lockgate.app.reading:reading_hub")(self.layout, self.claim)
        return embedded_hub

    @functools.cached_property
    def control(self) -> Any:
        """The full composition root of the project, `app.control.Control`; of a team's hub, `app.team.hub.Team`."""
        if self.config:
            return resolve("lockgate.app.team.hub:open_team")(Path(self.config))
        return resolve("lockgate.app.control:Control")(self.layout)

    @functools.cached_property
    def deciding(self) -> Hub:
        """A hub for commands."""
        if self.hub_url:
            return self.reading
        hub: Hub = (
            self.control.hub_here(self.claim, self.insists) if self.config else self.control.hub(self.actor)
        )
        return hub

    def work_here(self) -> None:
        """Refuse a verb that belongs to this machine's own store and data plane; to be called before any work.

        Raises:
            WorkNeedsStore: a hub was named.
        """
        if self.hub_url:
            raise WorkNeedsStore(
                "this works with a store and data plane of this machine, not with a hub elsewhere",
                remedy="run it where the store is, without --hub and LOCKGATE_HUB; a team's hub has --config hub.toml",
                hub=self.hub_url,
            )

    @functools.cached_property
    def blobs(self) -> BlobStore:
        """The bytes of packages and evidence: those of the project's store, and of a hub that was named."""
        if not self.hub_url:
            here: BlobStore = self.control.blobs
            return here
        cache = self._cache()
        here = resolve("lockgate.adapters.blobs.directory:DirectoryBlobs")(cache)
        both: BlobStore = resolve("lockgate.adapters.hubs.bringing:LocalFirst")(
            here, self._there(here, cache)
        )
        return both

    def _cache(self) -> Path:
        """Where blobs of a hub are kept: in the project, or for this user when there is none here."""
        try:
            return self.layout.blobs
        except NoProject:
            base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
            return Path(base).expanduser() / "lockgate" / "blobs"

    def _there(self, here: BlobStore, cache: Path) -> BlobStore:
        there: BlobStore = resolve("lockgate.adapters.hubs.blobs:HubBlobs")(
            cast(Any, self.reading).wire, here, cache / ".fetched"
        )
        return there

    def package(self, digest: Digest) -> Any:
        """Open a package; its manifest and description are verified. Loaded on use: it brings NumPy along."""
        return resolve("lockgate.registry.packages.package:open_package")(digest, self.blobs)

    @functools.cached_property
    def working(self) -> Hub:
        """A hub for work in the project: what its commands name is brought to it."""
        if not self.hub_url:
            return self.deciding
        here = self.control.blobs
        hub: Hub = resolve("lockgate.adapters.hubs.bringing:BringingHub")(
            self.reading, here, self._there(here, self.layout.blobs)
        )
        return hub

    @property
    def premises(self) -> Any:
        """What the workshop stands on; with a hub elsewhere, what is not here is fetched from there."""
        return dataclasses.replace(self.control.premises, blobs=self.blobs)

    def declare(self) -> None:
        """Make the project's own hub know what lockgate.toml says. Elsewhere that is an admin's: `lockgate declare`."""
        if not self.hub_url:
            resolve("lockgate.app.declare:declare")(self.control, self.deciding)

    def require(self, *wanted: tuple[type[Command], Scope]) -> None:
        """Refuse, before work that takes minutes, what the hub would refuse after it. It is asked here, so nothing is
        journaled."""
        session = self.deciding.session
        tiers: dict[str, str] = {}
        if any(grant.tiers for grant in session.grants):
            known: StatusAnswer = self.ask(Status())
            tiers = {one.model: one.tier for one in known.models}
        for kind, scope in wanted:
            denied = may_ever(session, kind, scope, tiers.get(f"{scope.namespace}/{scope.model}"))
            if denied is not None:
                raise Refused(denied, headline="nothing was begun")

    def workshop(self, model: str | None) -> Any:
        config = self.control.config
        name = config.model_name(model or config.only_model())
        return resolve("lockgate.workshop.build:Workshop")(self.premises, name)

    def ask(self, query: Query) -> Any:
        return self.reading.ask(query)

    def tell(self, command: Command, *, headline: str, through: Hub | None = None) -> Receipt:
        """Execute a command; a refusal ends the verb with all its reasons.

        Args:
            through: `working`, for a command that names bytes of this machine.
        """
        receipt = (through or self.deciding).execute(command)
        self.seal()
        if receipt.refusal is not None:
            about = _about_unknown(command, receipt.refusal)
            if about is not None:
                # Asked about, a name that nobody knows is answered with its near matches.
                self.ask(about)
            raise Refused(receipt.refusal, headline=headline)
        return receipt

    def fitting(self, refused: Refused) -> Refused:
        """The refusal with remedies that can be typed here: nobody claims a name where he has to prove it."""
        if self.proof is None:
            return refused
        return Refused(refused.refusal.without(" --as NAME"), headline=refused.headline)

    def seal(self) -> None:
        """Write a signed checkpoint of what was just journaled; a remote hub writes its own.

        What was journaled stands whether or not this works, so a failure is told and changes nothing.
        """
        if self.hub_url:
            return
        try:
            self.control.checkpoint()
        except (LockgateError, OSError) as error:
            remedy = f"\n next: {error.remedy}" if isinstance(error, LockgateError) else ""
            warning = f"warning: it is done, but no checkpoint was written: {error}{remedy}"
            if warning not in self._warned:
                self._warned.add(warning)
                self.note(warning)

    @functools.cached_property
    def _warned(self) -> set[str]:
        """What was told already: a verb that seals often says it once."""
        return set()

    def new_id(self) -> str:
        return str(resolve("lockgate.app.system:SystemIds")().new())

    def say(self, text: str) -> None:
        """A line for people; nothing with --json."""
        if not self.json:
            click.echo(text)

    def note(self, text: str) -> None:
        """A line beside the answer; goes to standard error, also with --json."""
        click.echo(text, err=True)

    def answer(self, record: Any, text: str | None = None) -> None:
        """The verb's answer: JSON with --json, else `text`."""
        if self.json:
            click.echo(msgspec.json.format(msgspec.json.encode(record), indent=2).decode())
        elif text is not None:
            click.echo(text)

    def say_identity(self) -> None:
        """Wherever a name matters, it is said; and whether anything proves it."""
        if self.proof is not None or (self.config and not self.deciding.session.claimed):
            self.note(f"acting as {self.actor}")
            return
        why = "this hub believes any name" if self.hub_url else "embedded mode"
        self.note(f"acting as {self.actor} (claimed, not proven: {why})")


class told:
    """Turns a refusal inside the block into the verb's end; whatever happened, what was journaled is sealed."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._session.seal()
        if isinstance(error, RefusedCommand):
            raise Refused(error.refusal, headline=str(error)) from error


def _about_unknown(command: Any, refusal: Refusal) -> Query | None:
    """The question about the very name that a refusal says is unknown, if there is one."""
    match refusal.reasons[0].rule:
        case "registry.version-unknown":
            return ExplainVersion(version=command.version)
        case "delivery.environment-unknown" if hasattr(command, "version"):
            return Standing(version=command.version, environment=command.environment)
        case "delivery.endpoint-unknown" if hasattr(command, "endpoint"):
            return Status(endpoint=command.endpoint)
    return None


of_a_hub = click.option(
    "--config",
    "hub_config",
    metavar="FILE",
    help="Work on the store of the team's hub on this machine, by its hub.toml.",
)
"""Below `@verb`: the verb also works on the store of a team's hub, where that is."""


def verb(function: Callable[..., None]) -> click.Command:
    """Make a function `(session, ...)` a verb with the options that all verbs share."""

    @functools.wraps(function)
    def run(
        actor: str | None,
        as_json: bool,
        project: str | None,
        hub_url: str | None,
        hub_config: str | None = None,
        **arguments: Any,
    ) -> None:
        if hub_config and (hub_url or project):
            raise click.UsageError(
                "--config means the store of the hub on this machine, so no --hub or --project"
            )
        hub = None if hub_config else hub_url or os.environ.get("LOCKGATE_HUB") or None
        session = Session(
            claimed_actor(actor), as_json, project, hub, insists=actor is not None, config=hub_config
        )
        try:
            function(session, **arguments)
        except Refused as refused:
            raise session.fitting(refused) from refused

    shared = (
        click.option(
            "--hub", "hub_url", metavar="URL", help="Speak to a hub instead of the project's store."
        ),
        click.option(
            "--project", metavar="DIR", help="The project's folder; default: found from here upwards."
        ),
        click.option("--as", "actor", metavar="NAME", help="Claim an identity (embedded mode only)."),
        click.option("--json", "as_json", is_flag=True, help="Answer in JSON."),
    )
    for option in shared:
        run = option(run)
    return click.command(name=function.__name__.replace("_", "-"))(run)
