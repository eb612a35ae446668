"""The full composition root: a hub that decides, over the embedded store of one project.

Holds the blob store, the keys, the targets and the effect runner; hands out one hub per actor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.identity.checkpoints import KEY_NAME, NotePrivate, NotePublic
from lockgate.adapters.identity.keys import (
    CheckpointKey,
    CheckpointPublicKey,
    FileKey,
    PublicKey,
    SigningKey,
)
from lockgate.adapters.identity.secrets import resolve as resolve_secret
from lockgate.adapters.sql.sqlite import open_sqlite
from lockgate.adapters.targets.captures import CaptureReader
from lockgate.adapters.targets.local import LocalTarget
from lockgate.app.effects import EffectRunner
from lockgate.app.plugins import resolve
from lockgate.app.reading import features_lacking
from lockgate.app.rollouts import RolloutController
from lockgate.app.stores import open_sinks
from lockgate.app.system import SystemClock, SystemIds
from lockgate.core.digests import Digest
from lockgate.core.documents import DocumentKind
from lockgate.core.journal import sign_checkpoint
from lockgate.core.messages import Command
from lockgate.core.secrets import parse_secret_ref
from lockgate.delivery.advance import standing_plan
from lockgate.delivery.plan import plan_of
from lockgate.delivery.rollout import EndpointSettings
from lockgate.delivery.state import ENDPOINT, ENVIRONMENT, ON_A_STEP, ROLLOUT, SETTINGS, release_key
from lockgate.gates.evidence import check_line
from lockgate.gates.messages import RecordEvidence
from lockgate.hub.authority import Session, controller, embedded
from lockgate.hub.kernel import Hub, LocalHub, read_body
from lockgate.hub.questions import Questions
from lockgate.hub.refold import refold
from lockgate.registry.decide import ATTESTATION_FACT, PACKAGE_FACT, AttestationFact, PackageFact
from lockgate.registry.difference import minimum_bump
from lockgate.registry.messages import AttachAttestation, RegisterVersion
from lockgate.registry.package import BuiltPackage, Manifest, Package, open_package
from lockgate.registry.signing import PACKAGE_PREDICATE, open_attestation, store_signature, verify_any
from lockgate.registry.state import MODEL, Attestation
from lockgate.workshop.config import ConfigInvalid
from lockgate.workshop.layout import Layout
from lockgate.workshop.premises import Premises

D = TypeVar("D")

CONTROLLER = controller()


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


class Control:
    """Everything a deciding process needs, opened once."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.config = layout.config()
        layout.dot.mkdir(mode=0o700, exist_ok=True)
        self.clock = SystemClock()
        self.ids = SystemIds()
        self.blobs = DirectoryBlobs(layout.blobs)
        self.journal, self.outbox = open_sqlite(layout.database)
        refold(self.journal, self.clock)
        self.target = LocalTarget(layout.run)
        self.sink = open_sinks(self.config.audit.sinks, base=layout.root)
        self.effects = EffectRunner(self.outbox, {"local": self.target}, self.clock)
        self.effects.confirm = self.hub_for(CONTROLLER).execute
        self.rollouts = RolloutController(
            self.journal,
            self.hub_for(CONTROLLER),
            lambda: CaptureReader(layout.run),
            self.clock,
            self.ids,
        )

    def hub(self, actor: str) -> Hub:
        """A hub session of a claimed identity."""
        return self.hub_for(embedded(actor))

    def hub_for(self, session: Session) -> LocalHub:
        questions = Questions(
            self.journal,
            self.outbox,
            self.clock,
            observe=self.target.observe,
            lacking=features_lacking(self.layout),
            checkpoints=(self.sink, NotesOnDemand(self._checkpoint_public)),
        )
        return LocalHub(
            self.journal,
            self.clock,
            session,
            answer=questions,
            establish=self._establish,
            carry_out=self.effects.carry_out,
        )

    def republish(self) -> None:
        """Give a target that lost its plans (a restored backup, a wiped run directory) those that stand."""
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
            self.target.apply(plan_of(standing_plan(environment, endpoint, served, way)))

    def _document(self, kind: DocumentKind[D], key: str) -> D | None:
        stored = self.journal.document(kind.name, key)
        return None if stored is None else read_body(kind, stored)

    def checkpoint(self) -> None:
        """Sign the journal's head and append it to the sink, when there is news since the last one."""
        head = self.journal.head()
        if head.seq > self.sink.last_size():
            self.sink.write(sign_checkpoint(head, NotePrivate(CheckpointKey(self._checkpoint_file()))))

    @property
    def premises(self) -> Premises:
        """What the workshop needs of this store."""
        return Premises(
            self.layout, self.config, self.blobs, self.clock, self.ids, self.signer, _training_tools
        )

    def signer(self) -> SigningKey:
        """The package signing key, from its file or its environment variable.

        Raises:
            KeyMissing, KeyExposed, KeyUnreadable, SecretMissing: with what to do about it.
        """
        reference = parse_secret_ref(self.config.signing.key, where="signing.key")
        if reference.kind == "file":
            return FileKey(self.layout.root / reference.name)
        pem = resolve_secret(reference, base=self.layout.root)
        return SigningKey.from_pem(pem.encode(), where=str(reference))

    def trusted(self, environment: str | None = None) -> tuple[PublicKey, ...]:
        """The keys that are trusted in an environment, or in any."""
        tables = self.config.environments
        chosen = [tables[environment]] if environment else tables.values()
        paths = sorted({path for table in chosen for path in table.trust})
        return tuple(PublicKey.from_file(self.layout.root / path) for path in paths)

    def signatures_of(self, digests: Sequence[Digest]) -> tuple[bytes, ...]:
        return tuple(self.blobs.get(digest) for digest in digests)

    def _key_file(self, reference: str, where: str) -> Path:
        ref = parse_secret_ref(reference, where=where)
        if ref.kind != "file":
            raise ConfigInvalid(f"{where} must be a file here", remedy="write file:PATH", key=where)
        return self.layout.root / ref.name

    def _checkpoint_file(self) -> Path:
        return self._key_file(self.config.audit.checkpoint_key, "audit.checkpoint_key")

    def _checkpoint_public(self) -> CheckpointPublicKey:
        return CheckpointKey(self._checkpoint_file()).public

    def _establish(self, command: Command) -> Mapping[str, Any]:
        """What must hold outside the journal before a command may be decided, and what that amounts to."""
        if isinstance(command, RecordEvidence):
            for line in command.lines:
                check_line(line, self.blobs.get(line.digest), command.package)
        if isinstance(command, AttachAttestation):
            return self._about_attestation(command)
        return self._about_package(command) if isinstance(command, RegisterVersion) else {}

    def _about_attestation(self, command: AttachAttestation) -> Mapping[str, Any]:
        found = open_attestation(self.blobs.get(command.envelope), self.trusted())
        fact = AttestationFact(
            envelope=command.envelope,
            predicate_type=found.statement.predicate_type,
            statement=found.digest,
            package=found.package,
            signed_by=found.signed_by,
        )
        return {ATTESTATION_FACT: fact}

    def _about_package(self, command: RegisterVersion) -> Mapping[str, Any]:
        package = open_package(command.package, self.blobs)
        for layer in package.layers:
            package.read(layer.path, self.blobs)
        key_id = verify_any(self.signatures_of(command.signatures), command.package, self.trusted())
        latest = self._latest_package(command.model)
        against = None if latest is None else open_package(latest, self.blobs)
        bump, why = minimum_bump(against, package) if against is not None else ("major", ("first version",))
        return {
            PACKAGE_FACT: PackageFact(
                package=package.digest,
                model=package.config.model,
                signed_by=(key_id,),
                against=latest,
                minimum_bump=bump,
                why=why,
            )
        }

    def _latest_package(self, model: str) -> Digest | None:
        stored = self.journal.document(MODEL.name, model)
        return (stored.digest or None) if stored is not None else None

    def package(self, digest: Digest) -> Package:
        """Open a package of the store; its manifest and description are verified."""
        return open_package(digest, self.blobs)

    def export(
        self,
        digest: Digest,
        signatures: Sequence[Digest],
        folder: Path,
        attestations: Sequence[Attestation] = (),
    ) -> Package:
        """Copy a package with all that is signed about it into an OCI image layout of its own, every byte verified."""
        package = self.package(digest)
        out = DirectoryBlobs(folder)
        manifest = self.blobs.get(digest)
        for descriptor in manifest_blobs(manifest):
            out.put(self.blobs.get(descriptor))
        out.put(manifest)
        built = BuiltPackage(digest=digest, manifest=manifest, blobs={})
        signed = [(signature, PACKAGE_PREDICATE) for signature in signatures]
        signed += [(one.envelope, one.predicate_type) for one in attestations]
        for envelope, kind in signed:
            stored = store_signature(built.descriptor, self.blobs.get(envelope), out, kind)
            out.tag(None, msgspec.to_builtins(stored.referrer))
        out.tag(package.config.model, msgspec.to_builtins(built.descriptor))
        return package


def manifest_blobs(manifest: bytes) -> tuple[Digest, ...]:
    """The digests of everything a manifest names."""
    decoded = msgspec.json.decode(manifest, type=Manifest)
    return (decoded.config.digest, *(layer.digest for layer in decoded.layers))


def _training_tools() -> Any:
    """The tools of training; the libraries behind them take seconds to load."""
    return resolve("lockgate.workshop.tools:tools")()
