"""`hub.toml`: what a hub for a team listens on, keeps and trusts, read strictly. Every complaint names line and key.

Paths in it start at its own folder. It holds no secret, only where secrets are.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

import msgspec

from lockgate.adapters.http.gate import Limits
from lockgate.adapters.identity.team import IdentityOptions
from lockgate.core.errors import Invalid, NotFound
from lockgate.core.toml_lines import Misfit, line_of, read_toml
from lockgate.workshop.config import RetentionTable, TrackerTable, WebhooksTable, tracker_complaint


class HubConfigInvalid(Invalid):
    code = "hub.config-invalid"


class HubConfigMissing(NotFound):
    code = "hub.config-missing"


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ListenTable(_Table, frozen=True, kw_only=True):
    """Where requests come in.

    Attributes:
        host: an address; of the loopback interface, unless identities are proven.
        hosts: the names under which callers know this hub.
        proxies: addresses that may say on whose behalf they ask.
        certfile, keyfile: for TLS of its own; without them TLS is the affair of a proxy.
    """

    host: str = "127.0.0.1"
    port: int = 8650
    hosts: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    certfile: str = ""
    keyfile: str = ""


class StoreTable(_Table, frozen=True, kw_only=True):
    """`sqlite:PATH`, or a reference to a secret that holds the connection string of a PostgreSQL database."""

    url: str = "sqlite:hub.db"


class BlobsTable(_Table, frozen=True, kw_only=True):
    """`file:PATH` or `s3://BUCKET/PREFIX`; folders for copies of what lies elsewhere, and for what is just arriving."""

    url: str = "file:blobs"
    cache: str = "cache"
    uploads: str = "uploads"


class AuditTable(_Table, frozen=True, kw_only=True):
    """The key that signs checkpoints, where they go, and how often."""

    checkpoint_key: str = "keys/checkpoint.pem"
    earlier_keys: tuple[str, ...] = ()
    sinks: tuple[str, ...] = ("file:checkpoints",)
    every_events: int = 1_000
    every_s: float = 60.0


class TrustTable(_Table, frozen=True, kw_only=True):
    """Files with the public keys that are trusted in one environment."""

    keys: tuple[str, ...]


class TargetTable(_Table, frozen=True, kw_only=True):
    """The data plane on this machine; without one, others carry out what is decided.

    Attributes:
        run: its run directory.
        port: where it answers; without it, this hub walks no drill.
    """

    run: str = ""
    port: int = 0


class HubConfig(_Table, frozen=True, kw_only=True):
    """The whole file."""

    listen: ListenTable = ListenTable()
    store: StoreTable = StoreTable()
    blobs: BlobsTable = BlobsTable()
    audit: AuditTable = AuditTable()
    trust: dict[str, TrustTable] = {}
    target: TargetTable = TargetTable()
    identity: IdentityOptions | None = None
    webhooks: WebhooksTable = WebhooksTable()
    tracker: TrackerTable | None = None
    retention: RetentionTable = RetentionTable()
    limits: Limits = Limits()


def read_hub_config(path: Path) -> HubConfig:
    """Read and check the file.

    Raises:
        HubConfigMissing: it cannot be read.
        HubConfigInvalid: not TOML, an unknown or missing key, a wrong value; names line and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HubConfigMissing(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}",
            remedy="name the configuration: lockgate hub --config hub.toml; docs/hub.md has one to begin with",
            file=str(path),
        ) from error
    try:
        config = read_toml(text, HubConfig)
    except Misfit as error:
        raise _misfit(path, error) from error
    for keys, complaint, remedy in _complaints(config):
        raise _misfit(path, Misfit(line_of(text, keys), ".".join(keys), complaint, remedy))
    return config


def _complaints(config: HubConfig) -> list[tuple[list[str], str, str]]:
    """Key, what is wrong with it, what to write instead."""
    listen, found = config.listen, list[tuple[list[str], str, str]]()
    if config.tracker is not None and (wrong := tracker_complaint(config.tracker)):
        found.append((["tracker", wrong[0]], *wrong[1:]))
    try:
        loopback = ipaddress.ip_address(listen.host).is_loopback
    except ValueError:
        # A name is whatever the resolver makes of it.
        return [(["listen", "host"], f"{listen.host!r} is no address", 'write "127.0.0.1" or "0.0.0.0"')]
    if not loopback and config.identity is None:
        remedy = "configure [identity], or listen on 127.0.0.1"
        found.append((["listen", "host"], f"whoever reaches {listen.host} could claim any name", remedy))
    if not loopback and not listen.hosts:
        found.append(
            (["listen", "hosts"], "no name is given for this hub", 'write hosts = ["hub.example.org"]')
        )
    if bool(listen.certfile) != bool(listen.keyfile):
        found.append((["listen", "certfile"], "TLS needs certfile and keyfile", "give both, or neither"))
    for proxy in listen.proxies:
        if not _is_address(proxy):
            remedy = 'write addresses, one by one: proxies = ["10.0.0.7"]'
            found.append((["listen", "proxies"], f"{proxy!r} is no address, so it would be nobody", remedy))
    if not 0 <= listen.port <= 65_535:
        found.append((["listen", "port"], f"{listen.port} is no port", "write 8650, or 0 for any free one"))
    if not config.audit.sinks:
        found.append((["audit", "sinks"], "checkpoints go nowhere", 'write sinks = ["file:checkpoints"]'))
    if config.audit.every_events < 1 or not config.audit.every_s > 0:
        found.append((["audit"], "checkpoints come never", "write every_events = 1000 and every_s = 60"))
    return found


def _is_address(text: str) -> bool:
    try:
        return str(ipaddress.ip_address(text)) == text
    except ValueError:
        return False


def _misfit(path: Path, error: Misfit) -> HubConfigInvalid:
    return HubConfigInvalid(
        error.said(path.name),
        remedy=error.remedy,
        file=str(path),
        line=error.line,
        key=error.key,
    )
