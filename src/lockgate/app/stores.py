"""Where things are kept, chosen by URL: the database, the blobs, the checkpoints. Only the chosen driver is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lockgate.adapters.identity.secrets import resolve as resolve_secret
from lockgate.app.plugins import resolve
from lockgate.core.blobs import SweptBlobs
from lockgate.core.errors import Invalid
from lockgate.core.secrets import parse_secret_ref

if TYPE_CHECKING:  # A data plane opens packages through this, and has nothing of a hub in it.
    from lockgate.hub.ports import CheckpointSink, Store

_SQLITE = "sqlite:"
_FILE = "file:"
_S3 = "s3:"


class UnknownPlace(Invalid):
    """A URL names no kind of place that this program can keep things in."""

    code = "app.unknown-place"


def open_store(url: str, *, base: Path) -> Store:
    """Open the store at `url`, migrated to this release.

    Args:
        url: `sqlite:PATH`, or a reference to a secret (`env:NAME`, `file:PATH`) that holds the connection string of a
            PostgreSQL database. The string itself may hold a password and is never taken.
        base: where relative paths start.

    Raises:
        NotAReference: it is neither.
        SecretMissing: there is nothing where the reference points.
        StoreUnreachable, StoreUnsuitable, StoreTooNew, JournalUnreadable: as the database is found.
        ExtraMissing: the driver is not installed.
    """
    if url.startswith(_SQLITE):
        path = base / url.removeprefix(_SQLITE)
        store: Store = resolve("lockgate.adapters.sql.sqlite.opening:open_sqlite")(path)
    else:
        dsn = resolve_secret(parse_secret_ref(url, where="store.url"), base=base)
        store = resolve("lockgate.adapters.sql.postgres.opening:open_postgres")(dsn, place=url)
    return store


def open_blobs(url: str, *, base: Path, cache: Path, writes: bool = True) -> SweptBlobs:
    """Open the blob store at `url`.

    Args:
        url: `file:PATH`, or `s3://BUCKET/PREFIX?...` as `adapters.blobs.object_store.BucketUrl` says.
        base: where relative paths start, those of secrets too.
        cache: a directory for verified copies of what lies elsewhere.
        writes: a store that is only read need not prove that it keeps conditional writes.

    Raises:
        UnknownPlace: neither.
        BucketUrlInvalid, BucketUnreachable, BucketDenied, ConditionalWritesIgnored, SecretMissing.
        ExtraMissing: the driver is not installed.
    """
    if url.startswith(_FILE):
        path = base / url.removeprefix(_FILE)
        blobs: SweptBlobs = resolve("lockgate.adapters.blobs.directory:DirectoryBlobs")(path)
    elif url.startswith(_S3):
        opened = resolve("lockgate.adapters.blobs.object_store:open_blobs")
        blobs = opened(url, _secrets(base), cache, writes=writes)
    else:
        raise _unknown(url)
    return blobs


def open_sinks(urls: Sequence[str], *, base: Path) -> CheckpointSink:
    """Open the places where checkpoints go, `file:PATH` or `s3://BUCKET/PREFIX?...`; all of them are written."""
    # The parameters of a URL name secrets; they are not for messages.
    places = {url.partition("?")[0]: partial(_sink, url, base) for url in urls}
    sinks: CheckpointSink = resolve("lockgate.adapters.identity.checkpoints:Sinks")(places)
    return sinks


def _sink(url: str, base: Path) -> CheckpointSink:
    if url.startswith(_FILE):
        path = base / url.removeprefix(_FILE)
        sink: CheckpointSink = resolve("lockgate.adapters.identity.checkpoints:FileSink")(path)
    elif url.startswith(_S3):
        sink = resolve("lockgate.adapters.blobs.object_store:open_sink")(url, _secrets(base))
    else:
        raise _unknown(url)
    return sink


def _secrets(base: Path) -> Callable[[str, str], str]:
    return lambda reference, where: resolve_secret(parse_secret_ref(reference, where=where), base=base)


def _unknown(url: str) -> UnknownPlace:
    kind = url.partition(":")[0]
    return UnknownPlace(
        f"nothing can be kept in {kind!r}:",
        remedy="write file:PATH or s3://BUCKET/PREFIX?endpoint=URL",
        kind=kind,
    )
