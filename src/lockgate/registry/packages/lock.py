"""The environment lock of a package: which third-party distributions, in which version, with which hashes.

Read is what pip, uv and pip-tools write: one requirement pinned with `==` per line, hashes after it. A line that pins
nothing (a range, a path, an address, another file) makes the whole lock unreadable: whoever asks what is inside must
not be told less than what would be installed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from lockgate.core.errors import Invalid

_PIN = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?\s*==\s*(?P<version>[^\s;,*]+)"
    r"\s*(?:;\s*(?P<marker>.+?))?\s*\Z"
)
_HASH = re.compile(r"\s--hash[=\s](?P<algorithm>[a-z0-9]+):(?P<hex>[0-9a-fA-F]+)(?=\s|\Z)")
_COMMENT = re.compile(r"(?:^|\s)#.*\Z")


class LockUnreadable(Invalid):
    """The lock does not pin everything, or is no lock of this kind; names the line."""

    code = "registry.lock-unreadable"


class Pinned(msgspec.Struct, frozen=True, order=True):
    """One distribution of a lock.

    Attributes:
        name: normalised: lower case, with single dashes.
        hashes: `ALGORITHM:HEX` of the files that may be installed, sorted.
        marker: where it is installed only; empty for everywhere.
    """

    name: str
    version: str
    hashes: tuple[str, ...] = ()
    marker: str = ""


def normalised(name: str) -> str:
    """A distribution's name as the index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_lock(data: bytes, *, where: str = "environment.lock") -> tuple[Pinned, ...]:
    """What a lock pins, sorted; one version may stand there under several markers.

    Raises:
        LockUnreadable: not UTF-8, a line that pins nothing, or nothing pinned at all.
    """
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise LockUnreadable(f"{where} is not UTF-8", remedy="write the lock anew", where=where) from error
    found: set[Pinned] = set()
    logical, start = "", 0
    for number, line in enumerate(lines, start=1):
        text = _COMMENT.sub("", line).strip()
        start = start if logical else number
        if text.endswith("\\"):
            logical += text[:-1] + " "
            continue
        logical, whole = "", (logical + text).strip()
        if whole:
            found.add(_pinned(whole, f"{where}:{start}"))
    if logical.strip():
        found.add(_pinned(logical.strip(), f"{where}:{start}"))
    if not found:
        raise LockUnreadable(f"{where} pins nothing", remedy=_HOW, where=where)
    return tuple(sorted(found))


def moved(old: Sequence[Pinned], new: Sequence[Pinned]) -> tuple[tuple[str, str, str], ...]:
    """What differs between two locks: name, versions before and after; empty where it was not, or is not any more."""
    before, after = _versions(old), _versions(new)
    return tuple(
        (name, before.get(name, ""), after.get(name, ""))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def _versions(lock: Sequence[Pinned]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for pin in lock:
        found.setdefault(pin.name, []).append(pin.version)
    return {name: ", ".join(sorted(set(versions))) for name, versions in found.items()}


_HOW = "write one with: uv pip compile --generate-hashes --no-emit-index-url pyproject.toml"


def _pinned(line: str, where: str) -> Pinned:
    hashes = tuple(
        sorted({f"{found['algorithm']}:{found['hex'].lower()}" for found in _HASH.finditer(" " + line)})
    )
    match = _PIN.match(_HASH.sub("", " " + line).strip())
    if match is None:
        # Not repeated in full: an address may hold a password.
        shown = line.split()[0][:40] if "://" not in line else "an address"
        raise LockUnreadable(f"{where}: {shown!r} is no pinned requirement", remedy=_HOW, where=where)
    return Pinned(normalised(match["name"]), match["version"], hashes, (match["marker"] or "").strip())
