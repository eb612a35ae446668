"""References to secrets. A secret itself never stands in a configuration, message, key, package or log.

A reference is `env:NAME` (an environment variable) or `file:PATH` (a file's content). Resolving one is work for
the edge (`adapters/identity/secrets.py`); rooms only carry the reference.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lockgate.core.errors import Invalid

_REFERENCE = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)\Z")


class NotAReference(Invalid):
    """Something that should refer to a secret looks like the secret itself; its text is not repeated."""

    code = "core.secret-in-config"


class SecretRef(NamedTuple):
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def is_secret_ref(text: str) -> bool:
    return _REFERENCE.match(text) is not None


def parse_secret_ref(text: str, *, where: str) -> SecretRef:
    """Read a reference.

    Raises:
        NotAReference: `where` holds anything else. The value is left out of the message on purpose.
    """
    if _REFERENCE.match(text) is None:
        raise NotAReference(
            f"{where} must refer to a secret, not hold it",
            remedy="write env:NAME or file:PATH; if a real secret stood there, replace it now",
            where=where,
        )
    kind, _, name = text.partition(":")
    return SecretRef(kind, name)
