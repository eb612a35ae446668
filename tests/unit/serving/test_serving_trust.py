"""What a data plane loads when keys are revoked under it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.adapters.identity.keys import SigningKey
from lockgate.adapters.targets.local import LocalTarget
from lockgate.registry.packages.package import store_package
from lockgate.registry.packages.signing import SignatureInvalid, signature_envelope
from lockgate.serving.control import revoked_keys
from lockgate.serving.errors import PackageUntrusted
from lockgate.serving.loader import PackageLoader
from lockgate.testing.memory_blobs import MemoryBlobs
from lockgate.testing.packages import TinyEngine, tiny_package
from lockgate.traffic.errors import TargetUnavailable
from lockgate.traffic.plan import REVOKED_FILE, PackageRef

OLD, NEW = SigningKey.generate(), SigningKey.generate()


def test_a_revoked_key_loads_nothing_from_the_next_load_on() -> None:
    blobs, built = MemoryBlobs(), tiny_package()
    store_package(built, blobs)
    old, both = (
        PackageRef(
            version="main/flight-delay@1.0.0",
            digest=built.digest,
            signatures=tuple(blobs.put(signature_envelope(built.digest, key, model="m")) for key in keys),
        )
        for keys in ((OLD,), (OLD, NEW))
    )
    revoked: set[str] = set()
    loader = PackageLoader(
        blobs,
        {"onnx": TinyEngine()},
        {"prod": [OLD.public, NEW.public], "dev": [OLD.public]},
        revoked=lambda: frozenset(revoked),
    )
    assert loader.load(old, "prod").digest == built.digest
    revoked.add(OLD.key_id)
    with pytest.raises(SignatureInvalid, match="no such key is trusted"):
        loader.load(old, "prod")
    assert loader.load(both, "prod").digest == built.digest
    with pytest.raises(PackageUntrusted, match="revoked"):
        loader.load(both, "dev")


def test_the_list_beside_the_control_files_only_grows(allow_files: Path) -> None:
    target = LocalTarget(allow_files / "run")
    assert revoked_keys(target.run_dir) == frozenset()
    target.distrust(["b"])
    target.distrust(["a"])
    target.distrust([])
    assert revoked_keys(target.run_dir) == {"a", "b"}


def test_a_damaged_list_lets_nothing_load_and_is_not_written_over(allow_files: Path) -> None:
    target = LocalTarget(allow_files / "run")
    target.distrust(["a"])
    (target.run_dir / REVOKED_FILE).write_bytes(b'["a"')
    with pytest.raises(PackageUntrusted, match="cannot be read"):
        revoked_keys(target.run_dir)
    with pytest.raises(TargetUnavailable, match="damaged"):
        target.distrust(["b"])
