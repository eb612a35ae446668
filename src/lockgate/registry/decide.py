"""Decisions of the registry: who gets which number, and how a version's life goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast, get_args

import msgspec

from lockgate.core import semver
from lockgate.core.digests import Digest, digest_of, short
from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse
from lockgate.core.names import ModelName, VersionRef, check_full, parse_model, parse_version
from lockgate.registry.makers import (
    maker_of,
    maker_refs,
    makers_of,
    not_by_a_maker,
    starters,
    untellable,
)
from lockgate.registry.makers import name_makers as makers_named
from lockgate.registry.messages import (
    AttachAttestation,
    AttestationAttached,
    BlobsSwept,
    DeclareModel,
    HoldLifted,
    HoldVersion,
    LiftHold,
    LiftQuarantine,
    LoweringAgreed,
    LoweringProposed,
    Maker,
    ModelDeclared,
    NameMakers,
    PackageImported,
    QuarantineLifted,
    QuarantineVersion,
    RecordImport,
    RecordSweep,
    RegisterVersion,
    RejectVersion,
    Tier,
    TracedInput,
    VersionHeld,
    VersionQuarantined,
    VersionRegistered,
    VersionRejected,
    VersionTraced,
)
from lockgate.registry.state import (
    ATTESTATION,
    CLAIM,
    IMPORT,
    LOWERING,
    MODEL,
    VERSION,
    ModelState,
    VersionState,
    claim_key,
)
from lockgate.registry.trust import EVERY_KEY, revocation_reasons, revoked

PACKAGE_FACT = "package"
ATTESTATION_FACT = "attestation"


class PackageFact(msgspec.Struct, frozen=True, kw_only=True):
    """What was established about a package before the lock was taken.

    `against` is the package it was compared with: the model's latest one at that moment, None for a first one.
    `refused` says what of it is no plain data, one sentence per file; `traces` where its inputs come from.
    """

    package: Digest
    model: str
    signed_by: tuple[str, ...]
    against: Digest | None
    minimum_bump: semver.Bump
    why: tuple[str, ...]
    refused: tuple[str, ...] = ()
    traces: tuple[TracedInput, ...] = ()


class AttestationFact(msgspec.Struct, frozen=True, kw_only=True):
    """What an envelope turned out to say, once a trusted key was found to have signed it.

    `statement` is the digest of the signed words, `package` the one subject they are about.
    """

    envelope: Digest
    predicate_type: str
    statement: Digest
    package: Digest
    signed_by: str


Agreement = Decision | tuple[LoweringAgreed, ...]


def proposed_lowering(
    docs: Docs,
    context: Context,
    subject: str,
    before: object,
    after: object,
    lowers: list[str],
    *,
    counts: Callable[[str], bool] = lambda actor: True,
) -> Agreement:
    """The proposal of what asks for less; what is recorded before it may count, as it does for a second person. Each
    proposal is agreed to once.

    Else whoever declares what a model may do harm to could let it in with fewer people, and no policy would have
    changed. Where names are only claimed, nobody is asked.

    Args:
        subject: as in `LoweringProposed`; declare the `LOWERING` of that name.
        lowers: in what it asks for less, one line each.
        counts: whether somebody may be the one who proposed it.
    """
    if not lowers or context.claimed:
        return ()
    base, wanted, known = digest_of(before), digest_of(after), docs.get(LOWERING, subject)
    kind, _, name = subject.partition(" ")
    model = name.partition("@")[0] if kind in ("model", "version") else name.partition("/")[2]
    same = known is not None and not known.agreed_by and (known.base, known.wanted) == (base, wanted)
    if known is not None and same and counts(known.proposed_by):
        if not context.person or known.proposed_by == context.actor:
            return Decision(())
        return (LoweringAgreed(subject=subject, model=model, proposed_by=known.proposed_by),)
    return Decision(
        (
            LoweringProposed(
                subject=subject,
                model=model,
                lowers=tuple(lowers),
                base=base,
                wanted=wanted,
            ),
        )
    )


def needs_model(command: DeclareModel, docs: Docs) -> tuple[DocRef, ...]:
    return (DocRef(MODEL.name, command.model), DocRef(LOWERING.name, f"model {command.model}"))


def declare_model(docs: Docs, command: DeclareModel, context: Context) -> Decision | Refusal:
    """A lower tier, and a KPI that is dropped, take a second person."""
    check_full(command.model, parse_model(command.model))
    known = docs.get(MODEL, command.model)
    declared = (command.tier, command.owner, command.purpose, command.kpi)
    if known is not None and declared_of(known) == declared:
        return Decision(())
    agreed: Agreement = ()
    if known is not None:
        lowers, about = _lowered(known, command), f"model {command.model}"
        agreed = proposed_lowering(docs, context, about, declared_of(known), declared, lowers)
        if isinstance(agreed, Decision):
            return agreed
    return Decision(
        (
            *agreed,
            ModelDeclared(
                model=command.model,
                tier=command.tier,
                owner=command.owner,
                purpose=command.purpose,
                kpi=command.kpi,
            ),
        )
    )


def declared_of(model: ModelState) -> tuple[Tier, str, str, str]:
    """What was said of a model when it was declared."""
    return model.tier, model.owner, model.purpose, model.kpi


def _lowered(known: ModelState, command: DeclareModel) -> list[str]:
    tiers = get_args(Tier)
    lowers = []
    if tiers.index(command.tier) < tiers.index(known.tier):
        lowers.append(f"tier {command.tier}, not {known.tier}")
    if known.kpi and not command.kpi:
        lowers.append(f"no KPI, not {known.kpi}")
    return lowers


def needs_import(command: RecordImport, docs: Docs) -> tuple[DocRef, ...]:
    return (DocRef(MODEL.name, command.model), DocRef(IMPORT.name, command.record))


def record_import(docs: Docs, command: RecordImport, context: Context) -> Decision | Refusal:
    """Write down where a package comes from; it gives the package no number and no standing."""
    if docs.get(MODEL, command.model) is None:
        return _model_unknown(command.model)
    if docs.get(IMPORT, command.record) is not None:
        return Decision(())
    return Decision(
        (
            PackageImported(
                model=command.model,
                package=command.package,
                record=command.record,
                origin=command.origin,
            ),
        )
    )


def _model_unknown(model: str) -> Refusal:
    return refuse(
        Reason(
            rule="registry.model-unknown",
            message=f"model {model} is not declared",
            remedy="lockgate ship declares the models of lockgate.toml; an import takes --tier, --owner and --purpose",
        )
    )


def needs_register(command: RegisterVersion, docs: Docs) -> tuple[DocRef, ...]:
    return (
        DocRef(MODEL.name, command.model),
        DocRef(CLAIM.name, claim_key(command.model, command.package)),
        EVERY_KEY,
    )


def facts_are_stale(docs: Docs, command: RegisterVersion, context: Context) -> bool:
    """Whether another version arrived between the comparison and the lock."""
    fact = cast(PackageFact, context.facts[PACKAGE_FACT])
    model = docs.get(MODEL, command.model)
    return model is not None and fact.against != model.latest_package


def register_version(
    docs: Docs, command: RegisterVersion, context: Context, ran_by: tuple[str, ...] = ()
) -> Decision | Refusal:
    """Number a package. The same package again is no news; a smaller bump than the change demands is refused.

    Args:
        ran_by: who ran the training.
    """
    fact = cast(PackageFact, context.facts[PACKAGE_FACT])
    model = docs.get(MODEL, command.model)
    claim = docs.get(CLAIM, claim_key(command.model, command.package))
    if model is None:
        return _model_unknown(command.model)
    if claim is not None:
        return Decision(())
    if fact.model != command.model:
        return refuse(
            Reason(
                rule="registry.other-model",
                message=f"package {short(fact.package)} was built for {fact.model}, not {command.model}",
                measured=fact.model,
                limit=command.model,
                evidence=fact.package,
                remedy=f"register it as a version of {fact.model}, or build another: lockgate train",
            )
        )
    distrusted = revocation_reasons(f"package {short(fact.package)}", fact.signed_by, revoked(docs))
    if distrusted:
        return Refusal(reasons=tuple(distrusted))
    if fact.refused:
        return Refusal(reasons=tuple(_no_plain_data(said, fact) for said in fact.refused))
    untold = untellable(command.people, command.told_since)
    if untold:
        return Refusal(reasons=tuple(untold))
    number = _number(model, command.version, fact)
    if isinstance(number, Refusal):
        return number
    ran = (Maker(name=name, did="ran") for name in ran_by)
    ref = VersionRef(parse_model(command.model), number)
    registered = VersionRegistered(
        version=str(ref),
        model=command.model,
        package=command.package,
        run=command.run,
        signatures=command.signatures,
        signed_by=fact.signed_by,
        commit=command.commit,
        dirty=command.dirty,
        bump="first" if model.latest is None else fact.minimum_bump,
        why=fact.why,
        previous=model.latest,
        makers=tuple(dict.fromkeys((*starters(context), *ran, *map(maker_of, command.people)))),
        told_since=command.told_since,
        claimed=context.claimed,
    )
    if not fact.traces:
        return Decision((registered,))
    return Decision((registered, VersionTraced(version=str(ref), inputs=fact.traces)))


def _no_plain_data(said: str, fact: PackageFact) -> Reason:
    return Reason(
        rule="security.format",
        message=said,
        limit="plain data",
        evidence=fact.package,
        remedy="take the file out of the package, or keep its data as Parquet, JSON or ONNX",
    )


def _number(model: ModelState, asked: str | None, fact: PackageFact) -> semver.Semver | Refusal:
    wanted = semver.parse(asked) if asked is not None else None
    if model.latest is None:
        return wanted or semver.FIRST
    latest = parse_version(model.latest).version
    if wanted is None:
        return latest.bumped(fact.minimum_bump)
    bump = semver.bump_between(latest, wanted)
    if bump is None or not semver.at_least(bump, fact.minimum_bump):
        return refuse(
            Reason(
                rule="registry.bump-too-small",
                message="; ".join(fact.why) or "the number must grow",
                measured=f"{latest} -> {wanted}",
                limit=f"at least {latest.bumped(fact.minimum_bump)} ({fact.minimum_bump})",
                remedy="leave the version out to take the smallest allowed one",
            )
        )
    return wanted


def name_makers(docs: Docs, command: NameMakers, context: Context) -> Decision | Refusal:
    """Add makers to a version, at any time of its life: who made it is worth knowing whatever became of it."""
    version = known_version(docs, command.version)
    return version if isinstance(version, Refusal) else makers_named(version, command, context)


def needs_version(
    command: RejectVersion | QuarantineVersion | HoldVersion | LiftHold | NameMakers, docs: Docs
) -> tuple[DocRef, ...]:
    return (DocRef(VERSION.name, command.version),)


def known_version(docs: Docs, key: str) -> VersionState | Refusal:
    version = docs.get(VERSION, key)
    if version is None:
        return refuse(
            Reason(
                rule="registry.version-unknown",
                message=f"there is no version {key}",
                remedy="lockgate status lists what there is",
            )
        )
    return version


def wrong_state(version: VersionState, verb: str) -> Refusal:
    return refuse(
        Reason(
            rule="registry.state",
            message=f"{version.version} is {version.state} and cannot be {verb}",
            measured=version.state,
            remedy=version.way_on,
        )
    )


def reject_version(docs: Docs, command: RejectVersion, context: Context) -> Decision | Refusal:
    version = known_version(docs, command.version)
    if isinstance(version, Refusal):
        return version
    if version.state not in ("candidate", "validated", "quarantined"):
        return wrong_state(version, "rejected")
    return Decision((VersionRejected(version=command.version, reason=command.reason),))


def quarantine_version(docs: Docs, command: QuarantineVersion, context: Context) -> Decision | Refusal:
    version = known_version(docs, command.version)
    if isinstance(version, Refusal):
        return version
    if version.state not in ("candidate", "validated"):
        return wrong_state(version, "quarantined")
    return Decision((VersionQuarantined(version=command.version, reason=command.reason),))


def needs_lift(command: LiftQuarantine, docs: Docs) -> tuple[DocRef, ...]:
    return (*maker_refs(docs, command.version), DocRef(LOWERING.name, f"version {command.version}"))


def lift_quarantine(
    docs: Docs, command: LiftQuarantine, context: Context, *, strict: bool = False
) -> Decision | Refusal:
    """Whoever shut the version away cannot let it out again, nor through a machine that acts for them; nor can whoever
    made it.

    Where identities are proven it takes two others: the first one's word is a proposal, which ends with the quarantine
    that it is about, and counts for nothing once he turns out to be a maker.

    Args:
        strict: whether it matters that each of the makers is known.
    """
    version = known_version(docs, command.version)
    if isinstance(version, Refusal):
        return version
    if version.state != "quarantined":
        return wrong_state(version, "let out of quarantine")
    if version.quarantined_by == context.actor or not context.person:
        why = "is a service" if not context.person else f"quarantined {command.version}"
        return refuse(
            Reason(
                rule="registry.second-person",
                message=f"{context.actor} {why}; somebody else must lift it",
                measured=context.actor,
                limit=f"a person, not {version.quarantined_by}",
                remedy="ask somebody else of security",
            )
        )
    makers = makers_of(docs, version, strict=strict)
    if own := not_by_a_maker(context, makers, "let it out of quarantine"):
        return Refusal(reasons=tuple(own))
    about, shut = f"version {command.version}", quarantine_of(version)
    lowers = [command.reason or "no reason given"]
    agreed = proposed_lowering(
        docs, context, about, shut, "free", lowers, counts=lambda actor: not makers.include(actor)
    )
    if isinstance(agreed, Decision):
        return agreed
    return Decision((*agreed, QuarantineLifted(version=command.version, reason=command.reason)))


def quarantine_of(version: VersionState) -> tuple[object, ...]:
    """Names one quarantine of a version: a later one is another, and one that is over is none."""
    return (version.version, version.quarantined_at, version.quarantined_by)


def needs_attach(command: AttachAttestation, docs: Docs) -> tuple[DocRef, ...]:
    return (DocRef(VERSION.name, command.version), DocRef(ATTESTATION.name, command.version))


def attach_attestation(docs: Docs, command: AttachAttestation, context: Context) -> Decision | Refusal:
    """A statement must be about the very bytes of the version, and of the kind it is said to be.

    Attached in every state of a version: what is found out about a retired one is worth knowing too.
    """
    fact = cast(AttestationFact, context.facts[ATTESTATION_FACT])
    version = known_version(docs, command.version)
    if isinstance(version, Refusal):
        return version
    reasons = []
    if fact.package != version.package:
        reasons.append(
            Reason(
                rule="registry.other-package",
                message=f"the statement is about another package than {command.version}",
                measured=fact.package,
                limit=version.package,
                evidence=command.envelope,
                remedy="attach it to the version that package is registered as",
            )
        )
    if fact.predicate_type != command.predicate_type:
        reasons.append(
            Reason(
                rule="registry.other-predicate",
                message="the statement is of another kind than it is said to be",
                measured=fact.predicate_type,
                limit=command.predicate_type,
                evidence=command.envelope,
                remedy=f"attach it as what it is: {fact.predicate_type}",
            )
        )
    if reasons:
        return Refusal(reasons=tuple(reasons))
    known = docs.get(ATTESTATION, command.version)
    if known is not None and fact.statement in [one.statement for one in known.attestations]:
        return Decision(())
    return Decision(
        (
            AttestationAttached(
                version=command.version,
                package=version.package,
                predicate_type=fact.predicate_type,
                statement=fact.statement,
                envelope=command.envelope,
                signed_by=fact.signed_by,
            ),
        )
    )


def hold_version(docs: Docs, command: HoldVersion, context: Context) -> Decision | Refusal:
    """Hold a version, alive or ended; one whose bytes are gone already cannot be kept any more."""
    version = known_version(docs, command.version)
    if isinstance(version, Refusal):
        return version
    if version.collected_at is not None:
        return refuse(
            Reason(
                rule="registry.collected",
                message=f"the package of {command.version} was collected, there is nothing left to hold",
                measured="collected",
                remedy=f"lockgate explain {command.version} shows what is on record of it",
            )
        )
    if not command.matter.strip() or not command.reason.strip():
        return refuse(
            Reason(
                rule="registry.hold-reason",
                message="a hold names its matter and a reason",
                remedy="give --matter and --reason",
            )
        )
    if any(hold.matter == command.matter for hold in version.holds):
        return Decision(())
    held = VersionHeld(version=command.version, matter=command.matter, reason=command.reason)
    return Decision((held,))


def lift_hold(docs: Docs, command: LiftHold, context: Context) -> Decision | Refusal:
    version = known_version(docs, command.version)
    if isinstance(version, Refusal):
        return version
    matters = [hold.matter for hold in version.holds]
    if command.matter not in matters:
        return refuse(
            Reason(
                rule="registry.not-held",
                message=f"{command.version} is not held for {command.matter!r}",
                measured=", ".join(matters) or "no hold",
                remedy=f"lockgate explain {command.version}",
            )
        )
    lifted = HoldLifted(version=command.version, matter=command.matter, reason=command.reason)
    return Decision((lifted,))


def needs_nothing(command: RecordSweep, docs: Docs) -> tuple[DocRef, ...]:
    return ()


def record_sweep(docs: Docs, command: RecordSweep, context: Context) -> Decision | Refusal:
    if not command.digests:
        return Decision(())
    return Decision((BlobsSwept(digests=command.digests, n_bytes=command.n_bytes),))


def model_of(version: str) -> ModelName:
    return parse_version(version).model
