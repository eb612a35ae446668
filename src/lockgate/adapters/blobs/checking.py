"""Hashing many files, and the parts of large ones, on all cores at once.

SHA-256 of one file is one long chain, so one core does it however many there are. When a trusted key has signed the
digests of a file's chunks, each chunk is checked by itself, and a file of many gigabytes by all cores.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from lockgate.core.digests import Digest

_STEP_BYTES = 1024 * 1024


class Wanted(NamedTuple):
    """A file as it must be.

    Attributes:
        chunks: digest of every `chunk_bytes` in turn, the last one shorter; empty to hash the file from end to end.
    """

    digest: Digest
    n_bytes: int
    file: Path
    chunks: tuple[Digest, ...] = ()
    chunk_bytes: int = 0


class Damage(NamedTuple):
    """Why a file is not what it must be, for people."""

    digest: Digest
    why: str


class _Part(NamedTuple):
    wanted: Wanted
    start: int
    length: int
    digest: Digest


def damages(wanted: Sequence[Wanted], *, workers: int | None = None) -> list[Damage]:
    """What does not hold, in the order of `wanted`, each file at most once; empty when everything does.

    Args:
        workers: threads; hashing lets go of the interpreter. None for one per core.
    """
    found: dict[Digest, Damage] = {}
    parts: list[_Part] = []
    for one in wanted:
        wrong = _wrong_size(one)
        if wrong is not None:
            found.setdefault(one.digest, wrong)
        else:
            parts += _parts(one)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for part, why in zip(parts, pool.map(_check, parts), strict=True):
            if why:
                found.setdefault(part.wanted.digest, Damage(part.wanted.digest, why))
    return [found[one.digest] for one in dict.fromkeys(wanted) if one.digest in found]


def _wrong_size(one: Wanted) -> Damage | None:
    try:
        size = one.file.stat().st_size
    except OSError as error:
        return Damage(one.digest, f"it cannot be read: {error.strerror}")
    if size != one.n_bytes:
        return Damage(one.digest, f"it has {size} bytes instead of {one.n_bytes}")
    return None


def _parts(one: Wanted) -> Iterator[_Part]:
    n_chunks = -(-one.n_bytes // one.chunk_bytes) if one.chunk_bytes else 0
    if len(one.chunks) != n_chunks or n_chunks < 2:
        yield _Part(one, 0, one.n_bytes, one.digest)
        return
    for number, digest in enumerate(one.chunks):
        start = number * one.chunk_bytes
        yield _Part(one, start, min(one.chunk_bytes, one.n_bytes - start), digest)


def _check(part: _Part) -> str:
    """Empty when the part holds."""
    hasher, at, end = hashlib.sha256(), part.start, part.start + part.length
    try:
        fd = os.open(part.wanted.file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while at < end:
                data = os.pread(fd, min(_STEP_BYTES, end - at), at)
                if not data:
                    return f"it ends at byte {at}"
                hasher.update(data)
                at += len(data)
        finally:
            os.close(fd)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if f"sha256:{hasher.hexdigest()}" == part.digest:
        return ""
    if part.length == part.wanted.n_bytes:
        return "its bytes do not hash to that name"
    return f"bytes {part.start} to {end} are not those that were signed"
