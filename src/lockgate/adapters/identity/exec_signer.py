"""A private key that this process never sees: a command signs, over whatever key service, HSM or agent it likes.

    COMMAND public-key      writes the public key to standard output: PEM, SubjectPublicKeyInfo, P-256
    COMMAND sign            reads the bytes to be signed from standard input to its end, and writes the signature to
                            standard output: ECDSA over their SHA-256, DER, in base64

Both end with 0, or with something else when they cannot; what they write to standard error is shown as it is. The
command line is split as a shell would and run without one. Each signature is checked against the public key before it
is used, so a wrong key is found when something is signed, not when it is to be loaded.
"""

from __future__ import annotations

import base64
import binascii
import shlex
import subprocess
from functools import cached_property

from lockgate.adapters.identity.keys import PublicKey
from lockgate.core.errors import Corrupt, Invalid, Unavailable

_PATIENCE_S = 60.0


class SignerUnusable(Invalid):
    """The command is none, is not there, or does not speak the protocol."""

    code = "identity.signer-unusable"


class SignerFailed(Unavailable):
    """The command ended with an error, or not at all."""

    code = "identity.signer-failed"


class SignerWrong(Corrupt):
    """The command's signature is not by the key it names."""

    code = "identity.signer-wrong"


class ExecSigner:
    """A `Signer` that asks a command.

    Args:
        command: with its arguments; `public-key` or `sign` is put behind them.
        cwd: the folder it runs in.
    Raises:
        SignerUnusable: it cannot be split into words.
    """

    def __init__(self, command: str, *, cwd: str) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise self._unusable(f"{command!r} cannot be split into words: {error}") from error
        if not self._words:
            raise self._unusable("there is no command behind exec:")
        self._cwd = cwd

    @cached_property
    def public(self) -> PublicKey:
        return PublicKey.from_pem(self._run("public-key", b""), where=f"{self._words[0]} public-key")

    @property
    def key_id(self) -> str:
        return self.public.key_id

    def sign(self, data: bytes) -> bytes:
        """Raises `SignerUnusable`, `SignerFailed`, `SignerWrong`."""
        try:
            signature = base64.b64decode(b"".join(self._run("sign", data).split()), validate=True)
        except binascii.Error as error:
            raise self._unusable(f"{self._words[0]} sign wrote no base64") from error
        if not self.public.verify(data, signature):
            raise SignerWrong(
                f"what {self._words[0]} signed does not fit the public key it names",
                remedy="let public-key and sign speak of one key, of ECDSA P-256 over SHA-256, in DER",
                command=self._words[0],
            )
        return signature

    def _run(self, verb: str, data: bytes) -> bytes:
        try:
            done = subprocess.run(
                [*self._words, verb],
                input=data,
                stdout=subprocess.PIPE,
                cwd=self._cwd,
                timeout=_PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SignerFailed(
                f"{self._words[0]} {verb} did not answer within {_PATIENCE_S:g} s",
                remedy="see why it waits, then try again",
                command=self._words[0],
            ) from error
        except OSError as error:
            raise self._unusable(f"{self._words[0]} cannot be run: {error.strerror}") from error
        if done.returncode != 0:
            raise SignerFailed(
                f"{self._words[0]} {verb} ended with status {done.returncode}",
                remedy="see what it wrote, then try again",
                command=self._words[0],
            )
        return done.stdout

    def _unusable(self, why: str) -> SignerUnusable:
        return SignerUnusable(
            f"signing.key: {why}", remedy="write exec:COMMAND; docs/supply-chain.md says what it must answer"
        )
