"""The bill of materials of a package, as CycloneDX 1.6: what is inside, by name, version and hash.

It holds what the package itself says and nothing else: the model with its files and inputs, the snapshots it learned
from, the definitions of its features, the third-party distributions of its lock. What is not known is left out; no
licence is guessed and no supplier made up. There is no time and no host in it: one package, one document.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest, sha256
from lockgate.core.errors import NotFound
from lockgate.core.names import parse_version
from lockgate.core.version import VERSION_OF_LOCKGATE
from lockgate.registry.messages import AttachAttestation
from lockgate.registry.packages.contract import ModelContract
from lockgate.registry.packages.lock import LockUnreadable, Pinned, parse_lock
from lockgate.registry.packages.package import ENVIRONMENT_PATH, BuiltPackage, Package, open_package
from lockgate.registry.packages.ports import Signer, Verifier
from lockgate.registry.packages.signing import (
    PAYLOAD_TYPE,
    SBOM_PREDICATE,
    open_attestation,
    seal,
    statement_bytes,
    store_signature,
)
from lockgate.registry.state import Attestation

SPEC_VERSION = "1.6"
_ALGORITHMS = {
    "md5": "MD5",
    "sha1": "SHA-1",
    "sha256": "SHA-256",
    "sha384": "SHA-384",
    "sha512": "SHA-512",
}


class NoBill(NotFound):
    code = "registry.no-bill-of-materials"


def bill_of_materials(package: Package, lock: Sequence[Pinned], *, version: str) -> dict[str, Any]:
    """The document as JSON-able values, every list in a fixed order.

    Args:
        lock: what the package's environment lock pins.
        version: the number the package got, `1.4.2`.
    """
    config = package.config
    data = [_dataset(name, snapshot) for name, snapshot in sorted(config.snapshots.items())]
    views = [_view(name, view) for name, view in sorted(config.views.items())]
    libraries = _libraries(lock)
    model = _model(package, version, [one["bom-ref"] for one in data])
    parts = [*libraries, *data, *views]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": _serial_number(package.digest),
        "version": 1,
        "metadata": {
            "tools": {
                "components": [{"type": "application", "name": "lockgate", "version": VERSION_OF_LOCKGATE}]
            },
            "component": model,
        },
        "components": parts,
        "dependencies": [{"ref": model["bom-ref"], "dependsOn": sorted(part["bom-ref"] for part in parts)}],
    }


def _serial_number(digest: Digest) -> str:
    """Of the package: the same one has the same number wherever it is looked at."""
    return uuid.UUID(bytes=bytes.fromhex(digest.removeprefix("sha256:"))[:16], version=5).urn


def _model(package: Package, version: str, datasets: Sequence[str]) -> dict[str, Any]:
    config = package.config
    return {
        "type": "machine-learning-model",
        "bom-ref": f"package:{package.digest}",
        "name": config.model,
        "version": version,
        "hashes": [_hash(package.digest)],
        "modelCard": {
            "modelParameters": {
                # What it is trained towards is a column of the data, see `label`.
                "approach": {"type": "supervised"},
                "datasets": [{"ref": ref} for ref in datasets],
                "inputs": _formats(
                    f"{field.name}: {field.dtype}, {field.source}" for field in config.contract.inputs
                ),
                "outputs": _formats([_output(config.contract)]),
            }
        },
        "properties": _properties(
            {
                "code": config.code,
                "environment": config.environment,
                "format": " ".join(form.format for form in config.forms),
                "label": str(config.recipe.get("label", "")),
                "service": config.service,
                "service_hash": config.service_hash,
            }
        ),
        "components": [
            {
                "type": "file",
                "bom-ref": f"file:{layer.path}",
                "name": layer.path,
                "mime-type": layer.media_type,
                "hashes": [_hash(layer.digest)],
            }
            for layer in sorted(package.layers, key=lambda layer: layer.path)
        ],
    }


def _output(contract: ModelContract) -> str:
    return f"{contract.output.name}: {contract.output.kind}"


def _formats(texts: Iterable[str]) -> list[dict[str, str]]:
    return [{"format": text} for text in texts]


def _dataset(name: str, snapshot: Digest) -> dict[str, Any]:
    return {
        "type": "data",
        "bom-ref": f"snapshot:{name}:{snapshot}",
        "name": name,
        "version": snapshot,
        "hashes": [_hash(snapshot)],
        "data": [{"type": "dataset", "name": name}],
    }


def _view(name: str, view: Digest) -> dict[str, Any]:
    return {
        "type": "data",
        "bom-ref": f"feature-view:{name}:{view}",
        "name": name,
        "version": view,
        "hashes": [_hash(view)],
        "data": [{"type": "definition", "name": name}],
    }


def _libraries(lock: Sequence[Pinned]) -> list[dict[str, Any]]:
    """One component per distribution and version, with the markers under which it is installed."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for pin in sorted(lock):
        # A local version or an epoch has characters that mean something else in a purl.
        purl = f"pkg:pypi/{pin.name}@{pin.version.replace('+', '%2B').replace('!', '%21')}"
        one = found.setdefault(
            (pin.name, pin.version),
            {
                "type": "library",
                "bom-ref": purl,
                "name": pin.name,
                "version": pin.version,
                "purl": purl,
            },
        )
        hashes = [_hash(each) for each in pin.hashes if each.partition(":")[0] in _ALGORITHMS]
        if hashes:
            known = one.setdefault("hashes", [])
            known += [each for each in hashes if each not in known]
        if pin.marker:
            one.setdefault("properties", []).extend(_properties({"marker": pin.marker}))
    return list(found.values())


def _hash(digest: str) -> dict[str, str]:
    algorithm, _, content = digest.partition(":")
    return {"alg": _ALGORITHMS[algorithm], "content": content}


def _properties(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": f"lockgate:{name}", "value": value} for name, value in values.items() if value]


def sealed_bill(
    command_id: str,
    version: str,
    package: Digest,
    known: Sequence[Attestation],
    blobs: BlobStore,
    signer: Callable[[], Signer],
) -> AttachAttestation | None:
    """Make and sign the bill of materials of a version and keep it beside the package; the command that says so.

    None when exactly this bill is attached already, and when the lock cannot be read: a bill without the third-party
    code would be a wrong one, and the gate `security.deps` tells of the lock.

    Args:
        known: what is attached to the version.
        signer: asked only when there is something to sign.
    """
    opened = open_package(package, blobs)
    try:
        lock = parse_lock(opened.read(ENVIRONMENT_PATH, blobs))
    except LockUnreadable:
        return None
    bill = bill_of_materials(opened, lock, version=str(parse_version(version).version))
    words = statement_bytes(package, opened.config.model, SBOM_PREDICATE, bill)
    if sha256(words) in [one.statement for one in known]:
        return None
    built = BuiltPackage(digest=package, manifest=blobs.get(package), blobs={})
    envelope = seal(words, PAYLOAD_TYPE, signer())
    stored = store_signature(built.descriptor, envelope, blobs, SBOM_PREDICATE)
    return AttachAttestation(
        id=command_id, version=version, predicate_type=SBOM_PREDICATE, envelope=stored.envelope
    )


def attested_bill(
    known: Sequence[Attestation], version: str, blobs: BlobStore, verifiers: Sequence[Verifier]
) -> dict[str, Any]:
    """The bill of materials that was attached to a version last.

    Raises:
        NoBill: there is none.
        SignatureInvalid: no trusted key signed it.
    """
    bills = [one for one in known if one.predicate_type == SBOM_PREDICATE]
    if not bills:
        raise NoBill(
            f"{version} has no bill of materials",
            remedy="lockgate train attaches one, once the environment lock can be read",
            version=version,
        )
    return open_attestation(blobs.get(bills[-1].envelope), verifiers).statement.predicate
