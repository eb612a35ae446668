"""What is established of a package at registration, and the bill of materials that is attached to its version."""

from __future__ import annotations

from typing import Any

import pytest

from lockgate.adapters.identity.keys import SigningKey
from lockgate.core.digests import Digest, sha256
from lockgate.registry.facts import package_fact
from lockgate.registry.messages import RegisterVersion, TracedColumn
from lockgate.registry.packages.package import (
    ENVIRONMENT_PATH,
    BuiltPackage,
    ColumnUse,
    InputTrace,
    build_package,
    store_package,
)
from lockgate.registry.packages.signing import (
    SBOM_PREDICATE,
    SignatureInvalid,
    open_attestation,
    signature_envelope,
    store_signature,
)
from lockgate.registry.sbom import NoBill, attested_bill, sealed_bill
from lockgate.registry.state import Attestation
from lockgate.testing.memory_blobs import MemoryBlobs
from lockgate.testing.packages import package_config, package_files

VERSION = "main/flight-delay@1.4.2"
TRACES = (
    InputTrace(input="distance", source="request", columns=(ColumnUse("flights", "distance", "name"),)),
    InputTrace(input="hour", source="flights:hour", columns=(ColumnUse("flights", "left_at", "value"),)),
    InputTrace(input="", source="flights/model.py", columns=(ColumnUse("flights", "late", "code"),)),
)


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.generate()


def stored(blobs: MemoryBlobs, *, traces: Any = (), **files: bytes) -> BuiltPackage:
    built = build_package(package_config(traces=traces), package_files(**files))
    store_package(built, blobs)
    return built


def test_registration_looks_at_every_file_and_takes_the_traces_from_the_signed_package(
    key: SigningKey,
) -> None:
    blobs = MemoryBlobs()
    built = stored(
        blobs, traces=TRACES, **{"include/a.bin": b"cos\nsystem\n(S'id'\ntR.", "include/b.txt": b"fine"}
    )
    envelope = signature_envelope(built.digest, key, model="main/flight-delay")
    signature = store_signature(built.descriptor, envelope, blobs).envelope
    command = RegisterVersion(
        id="c", model="main/flight-delay", package=built.digest, run=sha256(b"run"), signatures=(signature,)
    )
    fact = package_fact(command, blobs, [key.public], None)
    assert fact.refused == ("include/a.bin: reading it runs os.system; a package holds plain data only",)
    view = sha256(b"view flights").removeprefix("sha256:")[:12]
    assert [(one.input, one.source, one.feature) for one in fact.traces] == [
        ("distance", "request", ""),
        ("hour", "flights:hour", f"main/flights:hour@{view}"),
        ("", "flights/model.py", ""),
    ]
    assert fact.traces[1].columns == (TracedColumn("main/flights.left_at", "value"),)


def attached(envelope: Digest, statement: Digest) -> Attestation:
    return Attestation(
        predicate_type=SBOM_PREDICATE,
        statement=statement,
        envelope=envelope,
        signed_by="key",
        attached_at=1,
        attached_by="ann",
    )


def test_a_bill_is_signed_once_and_can_be_read_with_a_trusted_key_only(key: SigningKey) -> None:
    blobs = MemoryBlobs()
    built = stored(blobs)
    command = sealed_bill("c", VERSION, built.digest, (), blobs, lambda: key)
    assert command is not None and command.predicate_type == SBOM_PREDICATE
    found = open_attestation(blobs.get(command.envelope), [key.public])
    assert found.package == built.digest
    known = (attached(command.envelope, found.digest),)
    # Signing again would give other bytes; there is nothing new to say.
    assert sealed_bill("d", VERSION, built.digest, known, blobs, lambda: key) is None
    bill = attested_bill(known, VERSION, blobs, [key.public])
    assert bill["metadata"]["component"]["version"] == "1.4.2"
    assert [one["name"] for one in bill["components"] if one["type"] == "library"] == ["numpy"]
    with pytest.raises(SignatureInvalid):
        attested_bill(known, VERSION, blobs, [SigningKey.generate().public])


def test_without_a_readable_lock_there_is_no_bill_rather_than_a_wrong_one(key: SigningKey) -> None:
    blobs = MemoryBlobs()
    built = stored(blobs, **{ENVIRONMENT_PATH: b"numpy>=2\n"})
    assert sealed_bill("c", VERSION, built.digest, (), blobs, lambda: key) is None
    with pytest.raises(NoBill) as caught:
        attested_bill((), VERSION, blobs, [key.public])
    assert VERSION in caught.value.message and "lockgate train" in caught.value.remedy
