from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from lockgate.adapters.identity.keys import SigningKey
from lockgate.core.digests import canonical, sha256
from lockgate.registry.packages.package import store_package
from lockgate.registry.packages.signing import (
    ENVELOPE_MEDIA_TYPE,
    PACKAGE_PREDICATE,
    PAYLOAD_TYPE,
    PREDICATE_ANNOTATION,
    SBOM_PREDICATE,
    SignatureInvalid,
    open_attestation,
    seal,
    signature_envelope,
    signature_referrer,
    statement_bytes,
    store_signature,
    unseal,
    verify_any,
    verify_envelope,
)
from lockgate.testing.memory_blobs import MemoryBlobs
from lockgate.testing.packages import tiny_package

DIGEST, OTHER_DIGEST = sha256(b"package"), sha256(b"other")


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture(scope="module")
def stranger() -> SigningKey:
    return SigningKey.generate()


def _refusal(envelope: bytes, digest: str, *keys: SigningKey) -> SignatureInvalid:
    with pytest.raises(SignatureInvalid) as caught:
        verify_envelope(envelope, digest, [one.public for one in keys])
    assert caught.value.facts["digest"] == digest
    assert digest in caught.value.message
    return caught.value


def _signed(key: SigningKey, digest: str = DIGEST) -> bytes:
    return signature_envelope(digest, key, model="main/flight-delay")


def test_a_trusted_signature_gives_the_key_id(key: SigningKey, stranger: SigningKey) -> None:
    assert verify_envelope(_signed(key), DIGEST, [stranger.public, key.public]) == key.key_id


def test_each_refusal_says_what_does_not_hold(key: SigningKey, stranger: SigningKey) -> None:
    envelope = _signed(key)
    assert _refusal(envelope, DIGEST, stranger).facts["reason"] == "untrusted-key"
    assert key.key_id in _refusal(envelope, DIGEST, stranger).message
    assert _refusal(envelope, DIGEST).facts["reason"] == "no-trust-root"
    assert _refusal(envelope, OTHER_DIGEST, key).facts["reason"] == "other-subject"
    assert _refusal(b"{}", DIGEST, key).facts["reason"] == "malformed"
    other_kind = seal(b"{}", "application/json", key)
    assert _refusal(other_kind, DIGEST, key).facts["reason"] == "other-kind"
    approval = canonical(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "m", "digest": {"sha256": DIGEST[7:]}}],
            "predicateType": "urn:lockgate:attestation:approval:1",
        }
    )
    assert _refusal(seal(approval, PAYLOAD_TYPE, key), DIGEST, key).facts["reason"] == "other-kind"
    assert _refusal(seal(b"[]", PAYLOAD_TYPE, key), DIGEST, key).facts["reason"] == "malformed"


def _forged(envelope: bytes, **change: Any) -> bytes:
    return canonical(json.loads(envelope) | change)


def test_a_changed_payload_type_or_key_id_does_not_verify(key: SigningKey, stranger: SigningKey) -> None:
    envelope = _signed(key)
    decoded = json.loads(envelope)
    payload = base64.b64decode(decoded["payload"]).replace(DIGEST[7:].encode(), OTHER_DIGEST[7:].encode())
    forged = _forged(envelope, payload=base64.b64encode(payload).decode())
    assert _refusal(forged, OTHER_DIGEST, key).facts["reason"] == "does-not-verify"
    signature = decoded["signatures"][0]
    claimed = _forged(envelope, signatures=[signature | {"keyid": stranger.key_id}])
    assert _refusal(claimed, DIGEST, stranger).facts["reason"] == "does-not-verify"
    assert _refusal(_forged(envelope, signatures=[]), DIGEST, key).facts["reason"] == "untrusted-key"
    assert _refusal(_forged(envelope, payload="&&&"), DIGEST, key).facts["reason"] == "malformed"
    retyped = _forged(seal(base64.b64decode(decoded["payload"]), "text/plain", key), payloadType=PAYLOAD_TYPE)
    assert _refusal(retyped, DIGEST, key).facts["reason"] == "does-not-verify"


def test_a_flipped_bit_of_an_envelope_is_refused_or_changes_no_signed_byte(key: SigningKey) -> None:
    """Base64 may end in bits that stand for nothing; every other bit counts."""
    envelope, harmless = _signed(key), []
    for position in range(len(envelope)):
        damaged = bytearray(envelope)
        damaged[position] ^= 1
        try:
            verify_envelope(bytes(damaged), DIGEST, [key.public])
        except SignatureInvalid:
            continue
        assert _contents(bytes(damaged)) == _contents(envelope)
        harmless.append(position)
    assert len(harmless) <= 2


def _contents(envelope: bytes) -> tuple[bytes, bytes]:
    decoded = json.loads(envelope)
    return base64.b64decode(decoded["payload"]), base64.b64decode(decoded["signatures"][0]["sig"])


def test_the_url_safe_alphabet_is_read_too(key: SigningKey) -> None:
    envelopes = [_signed(key) for _ in range(8)]
    safe = [envelope.decode().split('"sig":"') for envelope in envelopes]
    written = [(head + '"sig":"' + sig.translate(str.maketrans("+/", "-_"))).encode() for head, sig in safe]
    assert written != envelopes
    assert all(verify_envelope(envelope, DIGEST, [key.public]) == key.key_id for envelope in written)


def test_one_trusted_signature_among_many_is_enough(key: SigningKey, stranger: SigningKey) -> None:
    envelopes = [_signed(stranger), b"rubbish", _signed(key)]
    assert verify_any(envelopes, DIGEST, [key.public]) == key.key_id
    with pytest.raises(SignatureInvalid) as caught:
        verify_any(envelopes[:2], DIGEST, [key.public])
    assert stranger.key_id in caught.value.message
    assert "no DSSE envelope" in caught.value.message
    with pytest.raises(SignatureInvalid, match="there is no signature") as caught:
        verify_any([], DIGEST, [key.public])
    assert caught.value.facts["reason"] == "missing"


def test_our_envelopes_and_securesystemslib_s_are_the_same(key: SigningKey) -> None:
    theirs = Envelope.from_dict(json.loads(_signed(key)))
    signature = next(iter(theirs.signatures.values()))
    assert key.public.verify(theirs.pae(), bytes.fromhex(signature.signature))

    signer = CryptoSigner.generate_ecdsa()
    signer.public_key.keyid = "theirs"
    envelope = Envelope(b"payload", "text/plain", {})
    envelope.sign(signer)

    class Theirs:
        key_id = "theirs"

        def verify(self, data: bytes, signature: bytes) -> bool:
            assert data == envelope.pae()
            return signature == bytes.fromhex(envelope.signatures["theirs"].signature)

    data = json.dumps(envelope.to_dict()).encode()
    assert unseal(data, "text/plain", [Theirs()]) == (b"payload", "theirs")


def test_a_signature_is_stored_as_a_referrer_of_the_package(key: SigningKey) -> None:
    blobs, built = MemoryBlobs(), tiny_package()
    store_package(built, blobs)
    envelope = signature_envelope(built.digest, key, model="main/flight-delay", predicate={"run": "r1"})
    stored = store_signature(built.descriptor, envelope, blobs)
    assert blobs.get(stored.envelope) == envelope
    referrer = json.loads(blobs.get(stored.referrer.digest))
    assert referrer["subject"]["digest"] == built.digest
    assert referrer["artifactType"] == ENVELOPE_MEDIA_TYPE
    assert referrer["layers"][0]["digest"] == stored.envelope
    assert blobs.get(referrer["config"]["digest"]) == b"{}"
    assert stored.referrer == signature_referrer(built.descriptor, envelope).descriptor


def test_an_attestation_is_opened_only_with_a_trusted_key(key: SigningKey, stranger: SigningKey) -> None:
    words = statement_bytes(DIGEST, "main/x", SBOM_PREDICATE, {"bomFormat": "CycloneDX"})
    envelope = seal(words, PAYLOAD_TYPE, key)
    found = open_attestation(envelope, [stranger.public, key.public])
    assert (found.package, found.digest, found.signed_by) == (DIGEST, sha256(words), key.key_id)
    assert found.statement.predicate == {"bomFormat": "CycloneDX"}
    with pytest.raises(SignatureInvalid) as caught:
        open_attestation(envelope, [stranger.public])
    assert caught.value.facts["reason"] == "untrusted-key"
    # It never passes for a signature of the package it is about.
    assert _refusal(envelope, DIGEST, key).facts["reason"] == "other-kind"


def test_an_attestation_is_about_one_package(key: SigningKey) -> None:
    words = json.loads(statement_bytes(DIGEST, "main/x", SBOM_PREDICATE, {}))
    for subject in ([], words["subject"] * 2):
        envelope = seal(canonical(words | {"subject": subject}), PAYLOAD_TYPE, key)
        with pytest.raises(SignatureInvalid) as caught:
            open_attestation(envelope, [key.public])
        assert caught.value.facts["reason"] == "other-subject"


def test_referrers_of_attestations_say_their_kind_and_those_of_signatures_are_as_ever(
    key: SigningKey,
) -> None:
    subject = tiny_package().descriptor
    plain = json.loads(signature_referrer(subject, b"{}").manifest)
    assert "annotations" not in plain
    assert signature_referrer(subject, b"{}") == signature_referrer(subject, b"{}", PACKAGE_PREDICATE)
    told = json.loads(signature_referrer(subject, b"{}", SBOM_PREDICATE).manifest)
    assert told == plain | {"annotations": {PREDICATE_ANNOTATION: SBOM_PREDICATE}}
