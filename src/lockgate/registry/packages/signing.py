"""Who vouches for a package: a DSSE envelope around an in-toto Statement about the manifest's digest.

The manifest names every layer by digest, so a signature over its digest covers every byte, and is checked in
microseconds without reading them. DSSE signs payload *type* and payload together (PAE), so a signed approval
can never be passed off as a signed package.

The envelope is plain DSSE JSON (specification 1.0.2): cosign and in-toto tools read it. It is encoded here,
in some thirty lines, because importing securesystemslib's takes over 100 ms, a good part of what a data plane
needs to start, for the same two base64 fields; the tests hold both against each other.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest, canonical, sha256
from lockgate.core.errors import Corrupt
from lockgate.registry.packages.package import (
    MANIFEST_TYPE,
    BuiltPackage,
    Descriptor,
    Manifest,
    store_package,
)
from lockgate.registry.packages.ports import Signer, Verifier

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PACKAGE_PREDICATE = "urn:lockgate:attestation:package:1"
SBOM_PREDICATE = "https://cyclonedx.org/bom"
ENVELOPE_MEDIA_TYPE = "application/vnd.dsse.envelope.v1+json"
CHUNK_BYTES = 64 * 1024 * 1024
"""A layer above this size is signed together with the digests of its chunks, so that many cores can check it."""
PREDICATE_ANNOTATION = "in-toto.io/predicate-type"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"


class SignatureInvalid(Corrupt):
    """No trusted key vouches for the digest. Fact `reason`: `malformed`, `other-subject`, `other-kind`,
    `untrusted-key`, `does-not-verify`, `no-trust-root`, `missing`."""

    code = "registry.signature-invalid"


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    keyid: str
    sig: str


class Envelope(msgspec.Struct, frozen=True, kw_only=True, rename={"payload_type": "payloadType"}):
    payload_type: str
    payload: str
    signatures: tuple[Signature, ...]


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    digest: dict[str, str]


class Statement(
    msgspec.Struct, frozen=True, kw_only=True, rename={"type": "_type", "predicate_type": "predicateType"}
):
    """An in-toto Statement, version 1."""

    type: str = STATEMENT_TYPE
    subject: tuple[Subject, ...]
    predicate_type: str
    predicate: dict[str, Any] = {}


class Attested(NamedTuple):
    """A statement that a trusted key vouches for: about which package, and the digest of the signed words."""

    package: Digest
    statement: Statement
    digest: Digest
    signed_by: str


class Vouched(NamedTuple):
    """What trusted keys say of a package.

    Attributes:
        signed_by: their ids, sorted.
        chunks: of large layers, the digest of each `CHUNK_BYTES` in turn.
        facts: what they signed together with the digest.
    """

    signed_by: tuple[str, ...]
    chunks: dict[Digest, tuple[Digest, ...]]
    facts: dict[str, Any]


class StoredSignature(NamedTuple):
    """Where a signature went: the envelope's blob, and the OCI manifest that ties it to the package."""

    envelope: Digest
    referrer: Descriptor


def seal(payload: bytes, payload_type: str, signer: Signer) -> bytes:
    """A DSSE envelope with one signature, as bytes."""
    signature = signer.sign(_pae(payload_type, payload))
    return canonical(
        Envelope(
            payload_type=payload_type,
            payload=base64.b64encode(payload).decode(),
            signatures=(Signature(keyid=signer.key_id, sig=base64.b64encode(signature).decode()),),
        )
    )


def unseal(envelope: bytes, payload_type: str, verifiers: Sequence[Verifier]) -> tuple[bytes, str]:
    """The payload, and the id of the trusted key that signed it. The payload is not looked at before that.

    Raises:
        SignatureInvalid: not an envelope of that payload type, or no trusted key signed it.
    """
    try:
        decoded = msgspec.json.decode(envelope, type=Envelope)
        payload = _unbase64(decoded.payload)
        signatures = [(one.keyid, _unbase64(one.sig)) for one in decoded.signatures]
    except (msgspec.MsgspecError, binascii.Error, ValueError) as error:
        raise _refused("malformed", f"no DSSE envelope: {error}") from error
    if decoded.payload_type != payload_type:
        raise _refused("other-kind", f"the envelope holds {decoded.payload_type!r}, not {payload_type!r}")
    if not verifiers:
        raise _refused("no-trust-root", "no key is trusted here, so nothing can be verified")
    signed = _pae(payload_type, payload)
    # The key id is a hint that nobody signed: it may choose which keys to try, never what is accepted.
    trusted = {verifier.key_id: verifier for verifier in verifiers}
    tried = [(trusted[key_id], signature) for key_id, signature in signatures if key_id in trusted]
    for verifier, signature in tried:
        if verifier.verify(signed, signature):
            return payload, verifier.key_id
    key_ids = ", ".join(key_id for key_id, _ in signatures) or "nobody"
    if tried:
        raise _refused("does-not-verify", f"the signature of {key_ids} does not fit the signed bytes")
    raise _refused("untrusted-key", f"signed by {key_ids}, and no such key is trusted here")


def signature_envelope(
    digest: Digest, signer: Signer, *, model: str, predicate: Mapping[str, Any] | None = None
) -> bytes:
    """Sign a package.

    Args:
        digest: of the package's manifest.
        model: the model's full name, for people who read the statement.
        predicate: further facts to be signed with it, JSON-able.
    """
    return seal(statement_bytes(digest, model, PACKAGE_PREDICATE, predicate or {}), PAYLOAD_TYPE, signer)


def statement_bytes(digest: Digest, model: str, predicate_type: str, predicate: Mapping[str, Any]) -> bytes:
    """The words of an in-toto statement about a package; seal them with `PAYLOAD_TYPE`.

    Args:
        digest: of the package's manifest.
        predicate_type: what kind of statement it is, a URI; `predicate` is what it says, JSON-able.
    """
    return canonical(
        Statement(
            subject=(Subject(name=model, digest={"sha256": digest.removeprefix("sha256:")}),),
            predicate_type=predicate_type,
            predicate=dict(predicate),
        )
    )


def verify_envelope(envelope: bytes, digest: Digest, verifiers: Sequence[Verifier]) -> str:
    """The id of the trusted key that vouches for the package `digest`.

    Raises:
        SignatureInvalid: says what does not hold; facts `reason`, `digest`.
    """
    try:
        statement, _, key_id = _unsealed(envelope, verifiers)
    except SignatureInvalid as error:
        raise _refused(error.facts["reason"], error.facts["why"], digest) from error
    if statement.predicate_type != PACKAGE_PREDICATE:
        raise _refused("other-kind", f"the statement is a {statement.predicate_type!r}", digest)
    named = _named(statement)
    if named != [digest]:
        raise _refused("other-subject", f"the signature is for {', '.join(named) or 'nothing'}", digest)
    return key_id


def open_attestation(envelope: bytes, verifiers: Sequence[Verifier]) -> Attested:
    """What an attestation says, of whatever kind, once a trusted key is known to have signed it.

    Raises:
        SignatureInvalid: nobody trusted signed it, it is no in-toto statement, or it is about anything but one
            package.
    """
    statement, payload, key_id = _unsealed(envelope, verifiers)
    named = _named(statement)
    if len(named) != 1:
        raise _refused("other-subject", f"the statement is about {', '.join(named) or 'nothing'}")
    return Attested(named[0], statement, sha256(payload), key_id)


def predicate_type_of(envelope: bytes) -> str:
    """What kind of statement an envelope says it holds. Nobody has vouched for that yet; "" when it holds none."""
    try:
        payload = _unbase64(msgspec.json.decode(envelope, type=Envelope).payload)
        return msgspec.json.decode(payload, type=Statement).predicate_type
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        return ""


def _unsealed(envelope: bytes, verifiers: Sequence[Verifier]) -> tuple[Statement, bytes, str]:
    """The statement in an envelope, its bytes, and the id of the trusted key that signed them."""
    payload, key_id = unseal(envelope, PAYLOAD_TYPE, verifiers)
    try:
        statement = msgspec.json.decode(payload, type=Statement)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _refused("malformed", f"the payload is no in-toto statement: {error}") from error
    if statement.type != STATEMENT_TYPE:
        raise _refused("other-kind", f"the statement is a {statement.type!r}")
    return statement, payload, key_id


def _named(statement: Statement) -> list[Digest]:
    return ["sha256:" + subject.digest.get("sha256", "") for subject in statement.subject]


def verify_any(envelopes: Sequence[bytes], digest: Digest, verifiers: Sequence[Verifier]) -> str:
    """The first trusted key id that an envelope proves. Raises `SignatureInvalid` with the reason of each."""
    failures: list[SignatureInvalid] = []
    for envelope in envelopes:
        try:
            return verify_envelope(envelope, digest, verifiers)
        except SignatureInvalid as error:
            failures.append(error)
    if not failures:
        raise _refused("missing", "there is no signature", digest)
    if len(failures) == 1:
        raise failures[0]
    reasons = "; ".join(error.facts["why"] for error in failures)
    raise _refused(failures[-1].facts["reason"], reasons, digest) from failures[-1]


def signers(envelopes: Sequence[bytes], digest: Digest, verifiers: Sequence[Verifier]) -> tuple[str, ...]:
    """The ids of all trusted keys that vouch for the package, sorted. Raises as `verify_any` when there is none."""
    return vouched(envelopes, digest, verifiers).signed_by


def vouched(envelopes: Sequence[bytes], digest: Digest, verifiers: Sequence[Verifier]) -> Vouched:
    """All trusted keys that vouch for the package, and what they say of its large layers.

    Raises `SignatureInvalid`, as `verify_any`, when there is none.
    """
    verify_any(envelopes, digest, verifiers)
    found: set[str] = set()
    facts: dict[str, Any] = {}
    chunks: dict[Digest, tuple[Digest, ...]] = {}
    for envelope in envelopes:
        # One envelope may hold the signatures of several keys.
        for verifier in verifiers:
            with suppress(SignatureInvalid):
                found.add(verify_envelope(envelope, digest, (verifier,)))
                said = _unsealed(envelope, (verifier,))[0].predicate
                facts, chunks = {**facts, **said}, {**chunks, **_chunks(said)}
    return Vouched(tuple(sorted(found)), chunks, facts)


def chunk_digests(data: bytes) -> tuple[Digest, ...]:
    view = memoryview(data)
    return tuple(sha256(view[start : start + CHUNK_BYTES]) for start in range(0, len(data), CHUNK_BYTES))


def package_facts(manifest: bytes, blobs: BlobStore, **more: Any) -> dict[str, Any]:
    """What is signed together with a package's digest: `more`, and the chunks of its large layers.

    Outside of the manifest, so that a package has the digest it always had.
    """
    layers = msgspec.json.decode(manifest, type=Manifest).layers
    large = {one.digest: chunk_digests(blobs.get(one.digest)) for one in layers if one.size > CHUNK_BYTES}
    return {**more, **({"chunks": {"bytes": CHUNK_BYTES, "layers": large}} if large else {})}


class _Chunks(msgspec.Struct):
    bytes: int
    layers: dict[Digest, tuple[Digest, ...]]


def _chunks(predicate: Mapping[str, Any]) -> dict[Digest, tuple[Digest, ...]]:
    """Nothing when the signer said nothing of it, or cut otherwise; then a layer is hashed from end to end."""
    try:
        said = msgspec.convert(predicate.get("chunks"), _Chunks)
    except msgspec.ValidationError:
        return {}
    return said.layers if said.bytes == CHUNK_BYTES else {}


def signature_referrer(
    subject: Descriptor, envelope: bytes, predicate_type: str = PACKAGE_PREDICATE
) -> BuiltPackage:
    """The OCI manifest by which a registry finds the signature, or another attestation, of a package.

    Only an attestation that is no signature is annotated with its kind: the manifests of signatures are older than
    that, and keep their digests.
    """
    annotations = {} if predicate_type == PACKAGE_PREDICATE else {PREDICATE_ANNOTATION: predicate_type}
    manifest = canonical(
        Manifest(
            schema_version=2,
            media_type=MANIFEST_TYPE,
            artifact_type=ENVELOPE_MEDIA_TYPE,
            config=Descriptor(media_type=_EMPTY_TYPE, digest=sha256(_EMPTY), size=len(_EMPTY)),
            layers=(Descriptor(media_type=ENVELOPE_MEDIA_TYPE, digest=sha256(envelope), size=len(envelope)),),
            subject=subject,
            annotations=annotations,
        )
    )
    blobs = {sha256(data): data for data in (_EMPTY, envelope)}
    return BuiltPackage(digest=sha256(manifest), manifest=manifest, blobs=blobs)


def store_signature(
    subject: Descriptor, envelope: bytes, blobs: BlobStore, predicate_type: str = PACKAGE_PREDICATE
) -> StoredSignature:
    """Keep a signature, or another attestation, beside the package; the package itself is not touched.

    Args:
        subject: the package's descriptor, `BuiltPackage.descriptor`.
    """
    built = signature_referrer(subject, envelope, predicate_type)
    store_package(built, blobs)
    return StoredSignature(sha256(envelope), built.descriptor)


def _pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE pre-authentication encoding: what is really signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _unbase64(text: str) -> bytes:
    """DSSE allows both alphabets."""
    return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)


def _refused(reason: str, why: str, digest: Digest | None = None) -> SignatureInvalid:
    subject = "the envelope" if digest is None else f"package {digest}"
    remedy = {
        "no-trust-root": "configure the public keys that this environment trusts",
        "missing": "sign the package with a key that this environment trusts",
        "untrusted-key": "sign with a trusted key, or add this public key to the trusted ones",
    }.get(reason, "sign the package again; if nobody changed it, find out who did")
    prefix = f"{subject}: " if digest is not None else ""
    facts = {"reason": reason, "why": why} | ({} if digest is None else {"digest": digest})
    return SignatureInvalid(prefix + why, remedy=remedy, **facts)
