"""Resolving references to secrets. The value goes to whoever asked and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

from lockgate.core.errors import NotFound
from lockgate.core.secrets import SecretRef


class SecretMissing(NotFound):
    code = "identity.secret-missing"


def resolve(reference: SecretRef, *, base: Path) -> str:
    """The secret's text; a relative `file:` path starts at `base`.

    Raises:
        SecretMissing: the variable is not set, or the file is not there.
    """
    if reference.kind == "env":
        value = os.environ.get(reference.name)
        if value is None:
            raise SecretMissing(
                f"the environment variable {reference.name} is not set",
                remedy=f"export {reference.name}=...",
                reference=str(reference),
            )
        return value
    path = base / reference.name
    try:
        return path.read_text().rstrip("\n")
    except OSError as error:
        raise SecretMissing(
            f"{reference} cannot be read: {error.strerror}",
            remedy="lockgate doctor",
            reference=str(reference),
        ) from error
