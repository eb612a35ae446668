"""What happens to models and their versions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal

import msgspec

from lockgate.core.clock import Micros, iso
from lockgate.core.digests import Digest, short
from lockgate.core.messages import Command, Effect, Event, Scope

Tier = Literal["low", "moderate", "high", "critical"]


def model_scope(model: str) -> Scope:
    namespace, _, name = model.partition("/")
    return Scope(namespace=namespace, model=name.partition("@")[0])


class DeclareModel(Command, frozen=True, kw_only=True, tag="registry.declare-model"):
    """Bring a model's reviewed facts into the registry: tier, owner, purpose, and the KPI it is to move, if any."""

    permission: ClassVar[str] = "registry.declare"
    model: str
    tier: Tier
    owner: str
    purpose: str
    kpi: str = ""

    def scope(self) -> Scope:
        return model_scope(self.model)


class CommitPerson(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody whom a commit names, or whom somebody names as a maker.

    Attributes:
        name: an address, or a name as it is met in a CI system (`github:ada`).
        commit: the newest one that names him so.
    """

    name: str
    did: Literal["authored", "committed", "co-authored", "named"]
    commit: str = ""


class RegisterVersion(Command, frozen=True, kw_only=True, tag="registry.register-version"):
    """Give a signed package a version number. Without `version` the smallest allowed number is taken.

    Attributes:
        people: whom the commits name that went into it. Whoever is named is a maker, so naming somebody only ever makes
            the rules stricter.
        told_since: the version since which every commit is told, empty for all there are; None when some are not.
    """

    permission: ClassVar[str] = "registry.register"
    model: str
    package: Digest
    run: Digest
    signatures: tuple[Digest, ...]
    version: str | None = None
    commit: str = ""
    dirty: bool = False
    people: tuple[CommitPerson, ...] = ()
    told_since: str | None = None

    def scope(self) -> Scope:
        return model_scope(self.model)


class NameMakers(Command, frozen=True, kw_only=True, tag="registry.name-makers"):
    """Add makers to a version that is there. Whoever says who made it counts as one himself.

    Attributes:
        people, told_since: as of `RegisterVersion`.
    """

    permission: ClassVar[str] = "registry.register"
    version: str
    people: tuple[CommitPerson, ...]
    told_since: str | None = None

    def scope(self) -> Scope:
        return model_scope(self.version)


class AttachAttestation(Command, frozen=True, kw_only=True, tag="registry.attach-attestation"):
    """State that a signed statement about a version's package (its bill of materials, a scan) lies in the blob store.

    Attributes:
        predicate_type: what kind of statement, as in-toto names it: `https://cyclonedx.org/bom`.
        envelope: digest of the DSSE envelope.
    """

    permission: ClassVar[str] = "registry.register"
    version: str
    predicate_type: str
    envelope: Digest

    def scope(self) -> Scope:
        return model_scope(self.version)


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where an imported package comes from, as the other system tells it: recorded, believed by no gate.

    Attributes:
        system: `mlflow`.
        uri: where it was read; holds no secret.
        run: the other system's id of the run that made it.
        params, metrics: of that run, as texts.
        notes: what else was said of it there (a stage, an alias, tags); it decides nothing here.
    """

    system: str
    uri: str
    run: str = ""
    params: dict[str, str] = {}
    metrics: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class RecordImport(Command, frozen=True, kw_only=True, tag="registry.record-import"):
    """State that a package was made of what another system held; the full record lies in the blob store."""

    permission: ClassVar[str] = "registry.register"
    model: str
    package: Digest
    record: Digest
    origin: Origin

    def scope(self) -> Scope:
        return model_scope(self.model)


class SignVersion(Command, frozen=True, kw_only=True, tag="registry.sign-version"):
    """State that another signature over a version's package lies in the blob store.

    Attributes:
        signature: digest of the DSSE envelope.
    """

    permission: ClassVar[str] = "registry.register"
    version: str
    signature: Digest

    def scope(self) -> Scope:
        return model_scope(self.version)


class RevokeKey(Command, frozen=True, kw_only=True, tag="registry.revoke-key"):
    """Trust a key no longer, in any environment and for good.

    Attributes:
        key_id: as `lockgate key list` shows it.
        since: from when somebody else may have had it; None for now. A signature carries no date that anybody vouches
            for, so what the key signed before is refused as well.
    """

    permission: ClassVar[str] = "registry.revoke-key"
    key_id: str
    reason: str
    since: Micros | None = None

    def scope(self) -> Scope:
        return Scope(whole=True)


class RejectVersion(Command, frozen=True, kw_only=True, tag="registry.reject-version"):
    """End a version's way for good; a fix is a new version."""

    permission: ClassVar[str] = "registry.reject"
    version: str
    reason: str

    def scope(self) -> Scope:
        return model_scope(self.version)


class QuarantineVersion(Command, frozen=True, kw_only=True, tag="registry.quarantine-version"):
    """Forbid any new release of a version at once."""

    permission: ClassVar[str] = "registry.quarantine"
    version: str
    reason: str

    def scope(self) -> Scope:
        return model_scope(self.version)


class LiftQuarantine(Command, frozen=True, kw_only=True, tag="registry.lift-quarantine"):
    """Return a version to the state it had before. It takes two people, neither of whom has quarantined it, where
    identities are proven; else one: the first proposes, the second gives the same command."""

    permission: ClassVar[str] = "registry.lift-quarantine"
    version: str
    reason: str

    def scope(self) -> Scope:
        return model_scope(self.version)


class ModelDeclared1(Event, frozen=True, kw_only=True, tag="registry.model-declared/1"):
    """A declaration from before models declared a KPI."""

    model: str
    tier: Tier
    owner: str
    purpose: str

    def summary(self) -> str:
        return f"model {self.model} declared: tier {self.tier}, owner {self.owner}"


class HoldVersion(Command, frozen=True, kw_only=True, tag="registry.hold-version"):
    """Keep a version and all it rests on from being collected or erased, for the sake of `matter`."""

    permission: ClassVar[str] = "registry.hold"
    version: str
    matter: str
    reason: str

    def scope(self) -> Scope:
        return model_scope(self.version)


class LiftHold(Command, frozen=True, kw_only=True, tag="registry.lift-hold"):
    """End the hold of one matter; those of others go on."""

    permission: ClassVar[str] = "registry.hold"
    version: str
    matter: str
    reason: str

    def scope(self) -> Scope:
        return model_scope(self.version)


class CollectPackage(Command, frozen=True, kw_only=True, tag="registry.collect-package"):
    """Give up the bytes of a version whose life ended `term_days` ago or longer. Its number stays taken, and what was
    recorded of it stays."""

    permission: ClassVar[str] = "registry.collect"
    version: str
    term_days: int

    def scope(self) -> Scope:
        return model_scope(self.version)


class RecordSweep(Command, frozen=True, kw_only=True, tag="registry.record-sweep"):
    """State which blobs, that nothing needs any more, are about to be removed."""

    permission: ClassVar[str] = "registry.collect"
    digests: tuple[Digest, ...]
    n_bytes: int

    def scope(self) -> Scope:
        return Scope()


class ModelDeclared(Event, frozen=True, kw_only=True, tag="registry.model-declared/2"):
    model: str
    tier: Tier
    owner: str
    purpose: str
    kpi: str

    def summary(self) -> str:
        kpi = f", KPI {self.kpi}" if self.kpi else ""
        return f"model {self.model} declared: tier {self.tier}, owner {self.owner}{kpi}"


class LoweringProposed(Event, frozen=True, kw_only=True, tag="registry.lowering-proposed/1"):
    """A declaration that asks for less than the one in force, the end of a quarantine, or of an endpoint that is still
    read: it changes nothing before a second person says the same.

    Attributes:
        subject: what it is about: `model NAMESPACE/NAME`, `environment NAME`, `endpoint ENV/NAMESPACE/NAME`,
            `rollout ENV/NAMESPACE/NAME`, how releases to an endpoint are watched, `removal ENV/NAMESPACE/NAME`, or
            `version NAMESPACE/NAME@VERSION`.
        model: the model it is about; empty for an environment.
        base, wanted: digests of what is declared, and of what would be.
    """

    subject: str
    model: str
    lowers: tuple[str, ...]
    base: Digest
    wanted: Digest

    def summary(self) -> str:
        return f"{_about(self.subject)} is proposed to {_less(self.subject)}: {'; '.join(self.lowers)}"


class LoweringAgreed(Event, frozen=True, kw_only=True, tag="registry.lowering-agreed/1"):
    """A second person has said the same as who proposed what asks for less; what they said follows."""

    subject: str
    model: str
    proposed_by: str

    def summary(self) -> str:
        return f"that {_about(self.subject)} may {_less(self.subject)}, as {self.proposed_by} proposed, is agreed"


def _about(subject: str) -> str:
    return subject.replace("removal ", "endpoint ", 1) if subject.startswith("removal ") else subject


def _less(subject: str) -> str:
    done = {"version": "be let out of quarantine", "removal": "be taken down"}
    return done.get(subject.partition(" ")[0], "ask for less")


def without_kpi(old: ModelDeclared1) -> ModelDeclared:
    """The event in today's shape."""
    return ModelDeclared(model=old.model, tier=old.tier, owner=old.owner, purpose=old.purpose, kpi="")


class Maker(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who had a hand in a version.

    Attributes:
        name: a person or an account of the hub, an address in a commit, a name in a CI system.
        did: what he did; `started` is the CI job that registered it, `ran` the training, `told` who the others are.
        commit: the newest commit that names him so.
        also: further names of his that were told with the first.
    """

    name: str
    did: Literal["registered", "started", "ran", "authored", "committed", "co-authored", "named", "told"]
    commit: str = ""
    also: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.also)


class VersionRegistered1(Event, frozen=True, kw_only=True, tag="registry.version-registered/1"):
    """A version from before it was kept who made it, apart from who registered it."""

    version: str
    model: str
    package: Digest
    run: Digest
    signatures: tuple[Digest, ...]
    signed_by: tuple[str, ...]
    commit: str
    dirty: bool
    bump: str
    why: tuple[str, ...]
    previous: str | None

    def summary(self) -> str:
        return f"{self.version} registered from package {short(self.package)} ({self.bump})"


class VersionRegistered(Event, frozen=True, kw_only=True, tag="registry.version-registered/2"):
    """Attributes:
    makers: who had a hand in it beside whoever registered it.
    told_since: the version since which every commit is told, empty for all there are; None when some are not.
    claimed: whether nobody proved who registered it; None where that was not kept.
    """

    version: str
    model: str
    package: Digest
    run: Digest
    signatures: tuple[Digest, ...]
    signed_by: tuple[str, ...]
    commit: str
    dirty: bool
    bump: str
    why: tuple[str, ...]
    previous: str | None
    makers: tuple[Maker, ...]
    told_since: str | None
    claimed: bool | None

    def summary(self) -> str:
        return f"{self.version} registered from package {short(self.package)} ({self.bump})"


def of_untold_makers(old: VersionRegistered1) -> VersionRegistered:
    """The event in today's shape."""
    return VersionRegistered(
        version=old.version,
        model=old.model,
        package=old.package,
        run=old.run,
        signatures=old.signatures,
        signed_by=old.signed_by,
        commit=old.commit,
        dirty=old.dirty,
        bump=old.bump,
        why=old.why,
        previous=old.previous,
        makers=(),
        told_since=None,
        claimed=None,
    )


class MakersNamed(Event, frozen=True, kw_only=True, tag="registry.makers-named/1"):
    """Who else made a version. Nobody is ever taken off the list."""

    version: str
    makers: tuple[Maker, ...]
    told_since: str | None

    def summary(self) -> str:
        return f"{self.version} was also made by {', '.join(dict.fromkeys(one.name for one in self.makers))}"


class TracedColumn(msgspec.Struct, frozen=True):
    """A column of a dataset, `main/flights.dep_delay`, and how it reaches an input (`HOW`)."""

    column: str
    how: str


class TracedInput(msgspec.Struct, frozen=True, kw_only=True):
    """An input of a version and the columns behind it.

    Attributes:
        input: its name; empty for what the code of the project's steps takes from the datasets by itself.
        source: `VIEW:FEATURE`, `request`, or the path of the code.
        feature: the feature with what its view meant then, `main/VIEW:FEATURE@0123456789ab`; empty for others.
    """

    input: str
    source: str
    feature: str
    columns: tuple[TracedColumn, ...]


HOW: Mapping[str, str] = MappingProxyType(
    {
        "value": "by value",
        "rows": "by choosing rows",
        "whole": "by SQL that cannot be followed",
        "name": "by its name",
        "code": "by code that names it",
    }
)
"""The ways in which a column reaches a model."""


class VersionTraced(Event, frozen=True, kw_only=True, tag="registry.version-traced/1"):
    """What the signed package says of where its inputs come from."""

    version: str
    inputs: tuple[TracedInput, ...]

    def summary(self) -> str:
        columns = {one.column for traced in self.inputs for one in traced.columns}
        datasets = {column.rpartition(".")[0] for column in columns}
        return f"{self.version} traced to {len(columns)} columns of {len(datasets)} datasets"


class AttestationAttached(Event, frozen=True, kw_only=True, tag="registry.attestation-attached/1"):
    """Attributes:
    statement: digest of what was signed; the same words signed again have another envelope.
    """

    version: str
    package: Digest
    predicate_type: str
    statement: Digest
    envelope: Digest
    signed_by: str

    def summary(self) -> str:
        return f"{self.predicate_type} {short(self.envelope)} attached to {self.version}"


class PackageImported(Event, frozen=True, kw_only=True, tag="registry.package-imported/1"):
    """A package was made of what another system held; `record` stands where a run's record would."""

    model: str
    package: Digest
    record: Digest
    origin: Origin

    def summary(self) -> str:
        run = f", run {self.origin.run}" if self.origin.run else ""
        return f"{self.model} imported from {self.origin.system} {self.origin.uri}{run}"


class VersionSigned(Event, frozen=True, kw_only=True, tag="registry.version-signed/1"):
    version: str
    signature: Digest
    signed_by: str

    def summary(self) -> str:
        return f"{self.version} signed again, by {short(self.signed_by)}"


class KeyRevoked(Event, frozen=True, kw_only=True, tag="registry.key-revoked/1"):
    key_id: str
    reason: str
    since: Micros

    def summary(self) -> str:
        return f"key {short(self.key_id)} revoked since {iso(self.since)}: {self.reason}"


class DistrustKeys(Effect, frozen=True, kw_only=True, tag="registry.distrust-keys"):
    """Tell every target which keys are revoked: all of them, each time."""

    key_ids: tuple[str, ...]


class VersionValidated(Event, frozen=True, kw_only=True, tag="registry.version-validated/1"):
    version: str
    evidence_set: Digest
    policy: Digest

    def summary(self) -> str:
        return f"{self.version} validated on evidence {short(self.evidence_set)}"


class VersionRejected(Event, frozen=True, kw_only=True, tag="registry.version-rejected/1"):
    version: str
    reason: str

    def summary(self) -> str:
        return f"{self.version} rejected: {self.reason}"


class VersionQuarantined(Event, frozen=True, kw_only=True, tag="registry.version-quarantined/1"):
    version: str
    reason: str

    def summary(self) -> str:
        return f"{self.version} quarantined: {self.reason}"


class QuarantineLifted(Event, frozen=True, kw_only=True, tag="registry.quarantine-lifted/1"):
    version: str
    reason: str

    def summary(self) -> str:
        return f"quarantine of {self.version} lifted: {self.reason}"


class VersionRetired(Event, frozen=True, kw_only=True, tag="registry.version-retired/1"):
    version: str
    reason: str

    def summary(self) -> str:
        return f"{self.version} retired: {self.reason}"


class VersionHeld(Event, frozen=True, kw_only=True, tag="registry.version-held/1"):
    version: str
    matter: str
    reason: str

    def summary(self) -> str:
        return f"{self.version} is held for {self.matter}: {self.reason}"


class HoldLifted(Event, frozen=True, kw_only=True, tag="registry.hold-lifted/1"):
    version: str
    matter: str
    reason: str

    def summary(self) -> str:
        return f"the hold of {self.version} for {self.matter} is lifted: {self.reason}"


class PackageCollected(Event, frozen=True, kw_only=True, tag="registry.package-collected/1"):
    """From now on nobody may count on the bytes of the package; they go with the next sweep."""

    version: str
    package: Digest
    term_days: int

    def summary(self) -> str:
        return (
            f"package {short(self.package)} of {self.version} collected, {self.term_days} days after its end"
        )


class BlobsSwept(Event, frozen=True, kw_only=True, tag="registry.blobs-swept/1"):
    """Told before they are removed: what a crash leaves behind is there too much, never gone without a word."""

    digests: tuple[Digest, ...]
    n_bytes: int

    def summary(self) -> str:
        return f"{len(self.digests)} blobs of {self.n_bytes:,} bytes swept"
