"""Content identity: SHA-256 over bytes, and the canonical bytes of a value.

A digest is the string `sha256:<64 lower-case hex digits>`, as OCI writes it.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from lockgate.core.errors import Invalid

Digest = str
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


class BadDigest(Invalid):
    code = "core.bad-digest"


def sha256(data: bytes | bytearray | memoryview) -> Digest:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def canonical(value: Any) -> bytes:
    """The one byte form of a value: JSON, struct fields in declared order, mapping keys and sets sorted.

    Floats use the shortest form that reads back equal; NaN and infinities become null, so a value that may
    hold them must say so in its own type.
    """
    return msgspec.json.encode(value, order="deterministic")


def digest_of(value: Any) -> Digest:
    """Digest of the canonical bytes of `value`."""
    return sha256(canonical(value))


def check_digest(text: str) -> Digest:
    """Return `text` when it is a digest; raise `BadDigest` otherwise."""
    if _DIGEST.match(text) is None:
        raise BadDigest(
            f"{text!r} is not a digest", remedy="write sha256: and 64 lower-case hex digits", value=text
        )
    return text


def short(digest: Digest) -> str:
    """The first twelve hex digits, for people."""
    return digest.removeprefix("sha256:")[:12]
