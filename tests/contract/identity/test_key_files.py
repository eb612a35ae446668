from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lockgate.adapters.identity.keys import (
    CheckpointKey,
    CheckpointPublicKey,
    FileKey,
    KeyExists,
    KeyExposed,
    KeyMissing,
    KeyUnreadable,
    PublicKey,
    SigningKey,
    generate_checkpoint_key,
    generate_key,
)
from lockgate.core.digests import sha256


def test_a_generated_key_signs_and_its_public_half_verifies(tmp_path: Path) -> None:
    key = generate_key(tmp_path / "keys" / "release.pem")
    signature = key.sign(b"hello")
    public = PublicKey.from_pem(key.public.pem())
    assert public.key_id == key.key_id == FileKey(tmp_path / "keys" / "release.pem").key_id
    assert public.verify(b"hello", signature)
    assert not public.verify(b"hellO", signature)
    assert not public.verify(b"hello", signature[:-1])
    assert not public.verify(b"hello", b"")
    assert not generate_key(tmp_path / "other.pem").public.verify(b"hello", signature)


def test_the_key_id_is_the_digest_of_the_public_key_info(tmp_path: Path) -> None:
    key = generate_key(tmp_path / "release.pem")
    der = serialization.load_pem_public_key(key.public.pem()).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert key.key_id == sha256(der)


def test_a_checkpoint_key_is_ed25519(tmp_path: Path) -> None:
    key = generate_checkpoint_key(tmp_path / "log.pem")
    signature = key.sign(b"head")
    (tmp_path / "log.pub").write_bytes(key.public.pem())
    public = CheckpointPublicKey.from_file(tmp_path / "log.pub")
    assert len(signature) == 64
    assert len(public.raw) == 32
    assert public.key_id == CheckpointKey(tmp_path / "log.pem").key_id
    assert public.verify(b"head", signature)
    assert not public.verify(b"heaD", signature)


def test_a_new_key_is_private_and_never_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "release.pem"
    key = generate_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyExists, match=r"release\.pem"):
        generate_key(path)
    assert FileKey(path).key_id == key.key_id
    assert [entry.name for entry in tmp_path.iterdir()] == ["release.pem"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o601, 0o777])
def test_a_key_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "release.pem"
    generate_key(path)
    path.chmod(mode)
    with pytest.raises(KeyExposed, match=f"{mode:04o}"):
        FileKey(path)
    path.chmod(0o400)
    FileKey(path)


def test_other_keys_and_other_files_are_refused(tmp_path: Path) -> None:
    generate_checkpoint_key(tmp_path / "log.pem")
    generate_key(tmp_path / "release.pem")
    (tmp_path / "p384.pem").write_bytes(
        ec.generate_private_key(ec.SECP384R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (tmp_path / "text.pem").write_bytes(b"hello")
    for name in ("p384.pem", "text.pem"):
        (tmp_path / name).chmod(0o600)
    for name in ("log.pem", "p384.pem", "text.pem"):
        with pytest.raises(KeyUnreadable, match=name.replace(".", r"\.")):
            FileKey(tmp_path / name)
    with pytest.raises(KeyUnreadable):
        CheckpointKey(tmp_path / "release.pem")
    with pytest.raises(KeyUnreadable):
        PublicKey.from_file(tmp_path / "release.pem")
    with pytest.raises(KeyMissing):
        FileKey(tmp_path / "absent.pem")


def test_openssl_reads_our_key_and_we_verify_what_it_signs(tmp_path: Path) -> None:
    generate_key(tmp_path / "release.pem")
    (tmp_path / "data").write_bytes(b"hello")
    signed = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", str(tmp_path / "release.pem"), str(tmp_path / "data")],
        capture_output=True,
        check=True,
    )
    assert FileKey(tmp_path / "release.pem").public.verify(b"hello", signed.stdout)


def test_a_key_from_a_variable_signs_like_the_one_in_the_file(tmp_path: Path) -> None:
    in_file = generate_key(tmp_path / "key.pem")
    in_memory = SigningKey.from_pem((tmp_path / "key.pem").read_bytes(), where="env:SIGNING")
    assert in_memory.key_id == in_file.key_id
    assert in_file.public.verify(b"data", in_memory.sign(b"data"))


def test_a_variable_that_holds_no_key_is_refused_without_repeating_it() -> None:
    with pytest.raises(KeyUnreadable, match="env:SIGNING") as caught:
        SigningKey.from_pem(b"hunter2", where="env:SIGNING")
    assert "hunter2" not in str(caught.value.record())
