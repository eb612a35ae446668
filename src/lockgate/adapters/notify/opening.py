"""Putting a notifier together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lockgate.adapters.notify.notifier import Notifier, origin_of
from lockgate.adapters.notify.open_lineage import OpenLineage
from lockgate.adapters.notify.posting import Poster, parse_networks
from lockgate.adapters.notify.tracker import PATIENCE_S, HttpTracker
from lockgate.core.blobs import BlobStore
from lockgate.core.clock import Clock
from lockgate.core.secrets import is_secret_ref
from lockgate.hub.ports import Deliveries, Journal


def open_notifier(
    journal: Journal,
    deliveries: Deliveries,
    blobs: BlobStore,
    clock: Clock,
    *,
    networks: Sequence[str],
    secret: Callable[[str], str],
) -> Notifier:
    """The notifier of a store.

    Args:
        networks: allowed beside the public ones.
        secret: the text behind a reference.

    Raises:
        NetworkInvalid: a network is none.
    """
    poster = Poster(parse_networks(networks))
    lineage = open_lineage(journal, blobs)
    return Notifier(journal, deliveries, clock, poster, secret=secret, lineage=lineage)


def open_tracker(
    url: str, key: str, clock: Clock, *, networks: Sequence[str], secret: Callable[[str], str]
) -> HttpTracker:
    """The tracker at an address, or at the one behind a reference; `key` refers to what questions are signed with.

    Raises:
        NetworkInvalid: a network is none.
    """
    poster = Poster(parse_networks(networks), patience_s=PATIENCE_S)
    return HttpTracker(
        poster, clock, url=lambda: secret(url) if is_secret_ref(url) else url, secret=lambda: secret(key)
    )


def open_lineage(journal: Journal, blobs: BlobStore) -> OpenLineage:
    """What renders the entries of a store as OpenLineage."""
    return OpenLineage(journal, blobs, lambda: origin_of(journal))
