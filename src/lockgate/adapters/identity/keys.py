"""Keys in PEM files: ECDSA P-256 for packages and evidence, ed25519 for the journal's checkpoints.

P-256 because every key service, HSM and cosign can hold it; ed25519 because the checkpoint note format asks
for it. A private key file is written with mode 0600 and refused when anybody else could read it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from lockgate.core.digests import sha256
from lockgate.core.errors import Conflict, Forbidden, Invalid, NotFound

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class KeyMissing(NotFound):
    code = "identity.key-missing"


class KeyExposed(Forbidden):
    """Other users of the machine may read or change the private key."""

    code = "identity.key-exposed"


class KeyUnreadable(Invalid):
    code = "identity.key-unreadable"


class KeyExists(Conflict):
    code = "identity.key-exists"
    retryable = False


class PublicKey:
    """A P-256 public key; a `Verifier`."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key
        self.key_id = _key_id(key)

    @classmethod
    def from_pem(cls, pem: bytes, *, where: str = "the key") -> PublicKey:
        """Raises `KeyUnreadable` for anything but a P-256 public key in PEM."""
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise unreadable(where, "no public key in PEM form") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise unreadable(where, "not a P-256 key")
        return cls(key)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> PublicKey:
        """Raises `KeyMissing` or `KeyUnreadable`."""
        return cls.from_pem(_read(Path(path)), where=str(path))

    def verify(self, data: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True

    def pem(self) -> bytes:
        return _public_pem(self._key)


class SigningKey:
    """A P-256 private key in memory; a `Signer`."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())
        self.key_id = self.public.key_id

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes, *, where: str) -> SigningKey:
        """Raises `KeyUnreadable`; the text is not repeated."""
        return SigningKey(_p256(_parse_private(pem, where), where))

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))


class FileKey(SigningKey):
    """A P-256 private key from a PEM file.

    Raises:
        KeyMissing: no such file.
        KeyExposed: its mode is wider than 0600.
        KeyUnreadable: it holds something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(_p256(_load_private(Path(path)), str(path)))


class CheckpointPublicKey:
    """An ed25519 public key; `raw` is its 32 bytes, as the note format wants them."""

    def __init__(self, key: ed25519.Ed25519PublicKey) -> None:
        self._key = key
        self.key_id = _key_id(key)
        self.raw = key.public_bytes_raw()

    @classmethod
    def from_pem(cls, pem: bytes, *, where: str = "the key") -> CheckpointPublicKey:
        """Raises `KeyUnreadable` for anything but an ed25519 public key in PEM."""
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise unreadable(where, "no public key in PEM form") from error
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise unreadable(where, "not an ed25519 key")
        return cls(key)

    @classmethod
    def from_raw(cls, raw: bytes, *, where: str = "the key") -> CheckpointPublicKey:
        """Raises `KeyUnreadable` for anything but the 32 bytes of one."""
        try:
            return cls(ed25519.Ed25519PublicKey.from_public_bytes(raw))
        except ValueError as error:
            raise unreadable(where, "not an ed25519 key") from error

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> CheckpointPublicKey:
        """Raises `KeyMissing` or `KeyUnreadable`."""
        return cls.from_pem(_read(Path(path)), where=str(path))

    def verify(self, data: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def pem(self) -> bytes:
        return _public_pem(self._key)


class CheckpointKey:
    """An ed25519 private key from a PEM file; a `Signer`. Raises as `FileKey` does."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        key = _load_private(Path(path))
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise unreadable(str(path), "not an ed25519 key")
        self._key = key
        self.public = CheckpointPublicKey(key.public_key())
        self.key_id = self.public.key_id

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


_Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_Public = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def generate_key(path: str | os.PathLike[str]) -> FileKey:
    """Make a P-256 key in a new file of mode 0600. Raises `KeyExists`; a key is never overwritten."""
    _write_private(Path(path), lambda: ec.generate_private_key(ec.SECP256R1()))
    return FileKey(path)


def generate_checkpoint_key(path: str | os.PathLike[str]) -> CheckpointKey:
    """Make an ed25519 key in a new file of mode 0600. Raises `KeyExists`; a key is never overwritten."""
    _write_private(Path(path), ed25519.Ed25519PrivateKey.generate)
    return CheckpointKey(path)


def next_key(current: str | os.PathLike[str]) -> FileKey | None:
    """The key that stands by to take the place of `current`; None when there is none."""
    path = _beside(Path(current), "next")
    return FileKey(path) if path.exists() else None


def prepare_next(current: str | os.PathLike[str], trust: str | os.PathLike[str]) -> tuple[FileKey, Path]:
    """Make the key that will follow `current`, and its public half in the folder `trust`; returns that file as well.

    It signs nothing yet: first it has to be trusted wherever the old one is. Raises `KeyExists`.
    """
    return _with_public_half(_beside(Path(current), "next"), Path(current).stem, trust)


def make_first(path: str | os.PathLike[str], trust: str | os.PathLike[str]) -> tuple[FileKey, Path]:
    """Make a key where there is none, as in a fresh checkout, and its public half in the folder `trust`.

    Raises `KeyExists`.
    """
    return _with_public_half(Path(path), Path(path).stem, trust)


def _with_public_half(path: Path, stem: str, trust: str | os.PathLike[str]) -> tuple[FileKey, Path]:
    made = generate_key(path)
    public = Path(trust) / f"{stem}-{made.key_id.removeprefix('sha256:')[:12]}.pub"
    public.parent.mkdir(parents=True, exist_ok=True)
    public.write_bytes(made.public.pem())
    return made, public


def change_over(current: str | os.PathLike[str]) -> Path:
    """Put the next key in the place of `current`; returns where the old one is kept, by its id."""
    path = Path(current)
    old = _beside(path, FileKey(path).key_id.removeprefix("sha256:")[:12])
    # A link, so that there is a key under the name at every moment.
    with suppress(FileExistsError):
        os.link(path, old)
    _beside(path, "next").replace(path)
    return old


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.stem}-{what}{path.suffix}")


def _write_private(path: Path, make: Callable[[], _Private]) -> None:
    pem = make().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and linked, so that a crash leaves no half key under the name.
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError as error:
        raise KeyExists(
            f"{path} already exists", remedy="choose another file, or move the old key away", file=str(path)
        ) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _load_private(path: Path) -> object:
    pem = _read(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        raise KeyExposed(
            f"{path} has mode {mode:04o}: others can get at the private key",
            remedy=f"chmod 600 {path}, and replace the key if anybody else uses this machine",
            file=str(path),
        )
    return _parse_private(pem, str(path))


def _parse_private(pem: bytes, where: str) -> object:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise unreadable(where, "no unencrypted private key in PEM form") from error


def _p256(key: object, where: str) -> ec.EllipticCurvePrivateKey:
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise unreadable(where, "not a P-256 key")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise KeyMissing(
            f"no key file {path}", remedy="give the path of a PEM file", file=str(path)
        ) from error
    except PermissionError as error:
        raise unreadable(str(path), "this user may not read it") from error


def _key_id(key: _Public) -> str:
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return sha256(der)


def _public_pem(key: _Public) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def unreadable(where: str, why: str) -> KeyUnreadable:
    return KeyUnreadable(
        f"{where}: {why}", remedy="give a PEM file that `generate_key` could have written", file=where
    )
