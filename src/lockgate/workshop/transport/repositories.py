"""Where packages were pushed to before: from there a registry can take what the next push shares with them.

A convenience and no record: without the file, or with a wrong one, more bytes are sent and nothing else changes.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec

from lockgate.adapters.registries.oci import OciReference

_MAX_REPOSITORIES = 16


class PushedTo:
    """Remembers the repositories of each registry that something was pushed to, the last one first.

    Args:
        file: None to remember nothing.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def at(self, host: str) -> tuple[str, ...]:
        return tuple(one for one in self._read().get(host, ()) if OciReference.fits(f"{host}/{one}"))

    def note(self, host: str, repository: str) -> None:
        if self._file is None:
            return
        known = self._read()
        others = [one for one in known.get(host, ()) if one != repository]
        known[host] = [repository, *others][:_MAX_REPOSITORIES]
        with suppress(OSError):
            descriptor, name = tempfile.mkstemp(dir=self._file.parent, prefix=".pushed-")
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(known))
            Path(name).replace(self._file)

    def _read(self) -> dict[str, list[str]]:
        try:
            data = b"{}" if self._file is None else self._file.read_bytes()
            return msgspec.json.decode(data, type=dict[str, list[str]])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return {}
