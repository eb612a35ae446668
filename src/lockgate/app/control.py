"""The composition root of a project: a hub that decides over its embedded store, its keys, its packages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.identity.checkpoints import read_key
from lockgate.adapters.identity.exec_signer import ExecSigner
from lockgate.adapters.identity.keys import (
    FileKey,
    KeyMissing,
    PublicKey,
    SigningKey,
)
from lockgate.adapters.identity.secrets import resolve as resolve_secret
from lockgate.adapters.sql.sqlite.opening import open_sqlite
from lockgate.adapters.targets.local import LocalTarget
from lockgate.app.deciding import Deciding
from lockgate.app.plugins import resolve
from lockgate.app.reading import features_lacking
from lockgate.app.stores import open_sinks
from lockgate.core.digests import Digest
from lockgate.core.secrets import parse_secret_ref
from lockgate.hub.authority import embedded
from lockgate.hub.kernel import Hub
from lockgate.pipeline.artifact import StepRecord
from lockgate.registry.packages.package import Package, open_package
from lockgate.workshop.config import ConfigInvalid
from lockgate.workshop.layout import Layout
from lockgate.workshop.premises import Premises


class Control(Deciding):
    """Everything a deciding process needs of one project, opened once."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.config = layout.config()
        layout.dot.mkdir(mode=0o700, exist_ok=True)
        self.target: LocalTarget
        super().__init__(
            open_sqlite(layout.database),
            DirectoryBlobs(layout.blobs),
            trusted=self.trusted,
            run=layout.run,
            sink=open_sinks(self.config.audit.sinks, base=layout.root),
            checkpoint_key=lambda: self._key_file(self.config.audit.checkpoint_key, "audit.checkpoint_key"),
            earlier_keys=[read_key(one, base=layout.root) for one in self.config.audit.earlier_keys],
            lacking=features_lacking(layout),
            base=layout.root,
            networks=self.config.webhooks.networks,
            tracker=self.config.tracker,
            retention=self.config.retention,
        )
        # A checkout brings no key along, and a store of its own begins a journal of its own.
        self.make_checkpoint_key()

    def hub(self, actor: str) -> Hub:
        """A hub session of a claimed identity."""
        return self.hub_for(embedded(actor))

    def steps(self) -> Iterable[StepRecord]:
        cache = resolve("lockgate.adapters.sql.step_cache:SqliteStepCache")(self.layout.steps)
        found: Iterable[StepRecord] = cache.records()
        return found

    @property
    def premises(self) -> Premises:
        """What the workshop needs of this store."""
        return Premises(
            self.layout, self.config, self.blobs, self.clock, self.ids, self.signer, _training_tools
        )

    def signer(self) -> SigningKey | ExecSigner:
        """The package signing key: from its file, its environment variable, or with whoever a command asks.

        Raises:
            KeyMissing, KeyExposed, KeyUnreadable, SecretMissing, SignerUnusable: with what to do about it.
        """
        kind, _, command = self.config.signing.key.partition(":")
        if kind == "exec":
            return ExecSigner(command, cwd=str(self.layout.root))
        reference = parse_secret_ref(self.config.signing.key, where="signing.key")
        if reference.kind == "file":
            try:
                return FileKey(self.layout.root / reference.name)
            except KeyMissing as error:
                raise KeyMissing(
                    f"the key that signs packages is not here: no file {error.facts['file']}",
                    remedy="keys are in no checkout: bring it there, make one of your own (lockgate key rotate), "
                    'or write signing.key = "env:NAME" in lockgate.toml and set that variable to the PEM',
                    file=error.facts["file"],
                ) from error
        pem = resolve_secret(reference, base=self.layout.root)
        return SigningKey.from_pem(pem.encode(), where=str(reference))

    def signing_file(self) -> Path:
        """Where the package signing key is. Raises `ConfigInvalid` when it is in no file."""
        return self._key_file(self.config.signing.key, "signing.key")

    def trusted(self, environment: str | None = None) -> tuple[PublicKey, ...]:
        """The keys that are trusted in an environment, or in any. One that nobody declared trusts nobody."""
        tables = self.config.environments
        chosen = [table for name, table in tables.items() if environment in (None, name)]
        paths = sorted({path for table in chosen for path in table.trust})
        return tuple(PublicKey.from_file(self.layout.root / path) for path in paths)

    def _key_file(self, reference: str, where: str) -> Path:
        kind, _, name = reference.partition(":")
        if kind != "file":
            raise ConfigInvalid(f"{where} must be a file here", remedy="write file:PATH", key=where)
        return self.layout.root / name

    def package(self, digest: Digest) -> Package:
        """Open a package of the store; its manifest and description are verified."""
        return open_package(digest, self.blobs)


def _training_tools() -> Any:
    """The tools of training; the libraries behind them take seconds to load."""
    return resolve("lockgate.workshop.tools:tools")()
