"""Whose signatures count: keys revoked, versions signed again, and what both mean for a release.

Which keys an environment trusts is said by its configuration, outside of the journal; whether a signature is theirs is
found out before the lock. What has been revoked is in the journal and is held against that under the lock, so that a
revocation and a release that meet are decided in one order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import msgspec

from lockgate.core.digests import Digest, check_digest, short
from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse
from lockgate.registry.messages import DistrustKeys, KeyRevoked, RevokeKey, SignVersion, VersionSigned
from lockgate.registry.state import KEY, VERSION, VersionState

TRUST_FACT = "trust"
EVERY_KEY = DocRef(KEY.name, "*")
_EFFECT_SUBJECT = "keys"


class TrustFact(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about a version's bytes and signatures before the lock was taken.

    Attributes:
        signatures: those that were looked at.
        signed_by: ids of the keys that are trusted there and whose signature holds.
        complaints: what else is wrong with signatures or bytes; each names the blob.
    """

    package: Digest
    signatures: tuple[Digest, ...]
    signed_by: tuple[str, ...]
    complaints: tuple[Reason, ...] = ()


def revoked(docs: Docs) -> frozenset[str]:
    """The ids of all keys that are revoked; declare `EVERY_KEY`."""
    return frozenset(key.key_id for key in docs.all(KEY, ""))


def revoked_only(signed_by: Iterable[str], keys: frozenset[str]) -> bool:
    """Whether nobody is left who vouches for what these keys have signed."""
    return set(signed_by) <= keys


def revocation_reasons(name: str, signed_by: tuple[str, ...], keys: frozenset[str]) -> list[Reason]:
    """Why signatures that hold are still not enough; empty when one is by a key that is not revoked."""
    if not revoked_only(signed_by, keys):
        return []
    return [
        Reason(
            rule="registry.key-revoked",
            message=f"{name} is signed by revoked keys only",
            measured=", ".join(short(key_id) for key_id in signed_by),
            limit="a trusted key that is not revoked",
            remedy=f"lockgate package sign {name}, once it is certain that the bytes are its author's",
        )
    ]


def trust_reasons(version: VersionState, fact: TrustFact, keys: frozenset[str]) -> list[Reason]:
    """What is wrong with a version's bytes and signatures where it is to go."""
    reasons = list(fact.complaints)
    if fact.signed_by:
        reasons += revocation_reasons(version.version, fact.signed_by, keys)
    return reasons


def load_reasons(version: VersionState, fact: TrustFact, keys: frozenset[str]) -> list[Reason]:
    """Everything that forbids bringing a version's bytes to a target, whatever was decided before."""
    reasons = trust_reasons(version, fact, keys)
    if version.state in ("quarantined", "rejected"):
        reasons.append(
            Reason(
                rule="registry.state",
                message=f"{version.version} is {version.state}",
                measured=version.state,
                limit="not quarantined, not rejected",
                remedy=version.way_on,
            )
        )
    return reasons


def trust_is_stale(version: VersionState | None, context: Context) -> bool:
    """Whether the version was registered or signed again between the look at its signatures and the lock."""
    fact = cast("TrustFact | None", context.facts.get(TRUST_FACT))
    return version is not None and (fact is None or fact.signatures != version.signatures)


def needs_revoke(command: RevokeKey, docs: Docs) -> tuple[DocRef, ...]:
    check_digest(command.key_id)
    return (EVERY_KEY,)


def revoke_key(docs: Docs, command: RevokeKey, context: Context) -> Decision | Refusal:
    """Once revoked, a key stays so. Told again, it can only be since an earlier moment."""
    since = context.now if command.since is None else command.since
    if since > context.now:
        return refuse(
            Reason(
                rule="registry.revoked-ahead",
                message="a key is revoked at once, not at a later time",
                remedy="leave out --since, or name the moment from which somebody else may have had it",
            )
        )
    every = docs.all(KEY, "")
    known = next((key for key in every if key.key_id == command.key_id), None)
    if known is not None and known.since <= since:
        return Decision(())
    event = KeyRevoked(key_id=command.key_id, reason=command.reason, since=since)
    key_ids = tuple(sorted({command.key_id, *(key.key_id for key in every)}))
    effect = DistrustKeys(subject=_EFFECT_SUBJECT, fence=len(key_ids), key_ids=key_ids)
    return Decision((event,), (effect,))


def needs_sign(command: SignVersion, docs: Docs) -> tuple[DocRef, ...]:
    return (DocRef(VERSION.name, command.version), EVERY_KEY)


def signing_is_stale(docs: Docs, command: SignVersion, context: Context) -> bool:
    return trust_is_stale(docs.get(VERSION, command.version), context)


def sign_version(docs: Docs, command: SignVersion, context: Context) -> Decision | Refusal:
    """Add a signature by a trusted key that is not revoked; those that are there stay."""
    version = docs.get(VERSION, command.version)
    if version is None:
        return refuse(
            Reason(
                rule="registry.version-unknown",
                message=f"there is no version {command.version}",
                remedy="lockgate status lists what there is",
            )
        )
    fact = cast(TrustFact, context.facts[TRUST_FACT])
    if command.signature in version.signatures:
        return Decision(())
    reasons = list(fact.complaints)
    if fact.package != version.package:
        reasons.append(
            Reason(
                rule="registry.other-package",
                message=f"the signature is for another package than {command.version}",
                measured=fact.package,
                limit=version.package,
                evidence=command.signature,
                remedy=f"lockgate package sign {command.version}",
            )
        )
    if fact.signed_by:
        reasons += revocation_reasons(command.version, fact.signed_by, revoked(docs))
    if reasons:
        return Refusal(reasons=tuple(reasons))
    event = VersionSigned(version=command.version, signature=command.signature, signed_by=fact.signed_by[0])
    return Decision((event,))
