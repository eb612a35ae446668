"""Making tokens: 256 random bits from the operating system, and an id that is no secret."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets

from lockgate.access.tokens import ID_LENGTH, Token


def new_token() -> Token:
    return token_named(os.urandom(32))


def token_named(by: bytes) -> Token:
    """A fresh secret under the id that stands for `by`; the same bytes give the same id."""
    named = base64.b32hexencode(hashlib.sha256(by).digest()).decode().lower()
    return Token(f"lgt_{named[:ID_LENGTH]}", secrets.token_urlsafe(32))
