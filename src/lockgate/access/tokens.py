"""API tokens, `id.secret`: how they are written, and whether one fits what is known of it.

The secret is 256 random bits. Guessing one is out of reach, so one round of SHA-256 protects it as well as any
slow hash would, and only that is kept. The id is no secret; it names the token in lists, events and logs.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import NamedTuple

from lockgate.access.state import TokenState
from lockgate.core.clock import Micros

ID_LENGTH = 20
# 43 characters of base64url hold 256 bits.
_TOKEN = re.compile(rf"(lgt_[0-9a-z]{{{ID_LENGTH}}})\.([A-Za-z0-9_-]{{43}})\Z")
_NOBODYS = "0" * 64


class Token(NamedTuple):
    """A token in the hands of whoever shows it."""

    id: str
    secret: str

    def __str__(self) -> str:
        return f"{self.id}.{self.secret}"

    def __repr__(self) -> str:
        """Without the secret: a token ends up in a log sooner or later."""
        return f"Token({self.id})"


def parse_token(text: str) -> Token | None:
    """The token that a text is; None for anything else."""
    found = _TOKEN.match(text)
    return None if found is None else Token(*found.groups())


def looks_like_token(text: str) -> bool:
    return text.startswith("lgt_")


def secret_hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def is_valid(shown: Token, known: TokenState | None, now: Micros) -> bool:
    """Whether a token that is shown is the known one and still counts.

    The same work is done whether or not anything is known, and the comparison takes the same time wherever the
    hashes differ.
    """
    expected = _NOBODYS if known is None else known.secret_sha256
    fits = hmac.compare_digest(secret_hash(shown.secret), expected)
    return known is not None and fits and known.revoked_at is None and now < known.expires_at
