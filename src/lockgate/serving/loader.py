"""Loading packages for an environment: only what its trusted keys have signed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lockgate.core.blobs import BlobStore
from lockgate.core.names import parse_version
from lockgate.features.ports import OnlineStore
from lockgate.registry.packages.load import load_package
from lockgate.registry.packages.ports import Engine, Verifier
from lockgate.serving.errors import PackageMisplaced, PackageUntrusted
from lockgate.serving.lookup import Lookup
from lockgate.serving.ports import ReadyPackage
from lockgate.traffic.plan import PackageRef


class PackageLoader:
    """Loads through `registry.load_package`: signature, digests, allowlist of formats, golden rows.

    Args:
        blobs: where manifests, layers and signatures are.
        engines: by model format; only these formats load.
        trust: verifiers per environment; an environment without any loads nothing.
        online: where features are read by key; without it such requests are refused, all others answered.
        revoked: asked before each load which keys are trusted no longer, wherever they stand in `trust`.
    """

    def __init__(
        self,
        blobs: BlobStore,
        engines: Mapping[str, Engine],
        trust: Mapping[str, Sequence[Verifier]],
        online: OnlineStore | None = None,
        revoked: Callable[[], frozenset[str]] = frozenset[str],
    ) -> None:
        self._revoked = revoked
        self._blobs = blobs
        self._online = online
        self._engines = engines
        self._trust = trust

    def load(self, ref: PackageRef, environment: str) -> ReadyPackage:
        configured = self._trust.get(environment, ())
        revoked = self._revoked()
        verifiers = [one for one in configured if one.key_id not in revoked]
        if configured and not verifiers:
            raise PackageUntrusted(
                f"every key that {environment!r} trusts is revoked, so {ref.version} cannot be verified",
                remedy="sign the package with a new key, and start the data plane with that key trusted",
                environment=environment,
            )
        if not verifiers:
            raise PackageUntrusted(
                f"no trusted keys are configured for {environment!r}, so {ref.version} cannot be verified",
                remedy=f"start the data plane with --trust {environment}=PEMFILE",
                environment=environment,
            )
        envelopes = [self._blobs.get(signature) for signature in ref.signatures]
        loaded = load_package(ref.digest, self._blobs, envelopes, verifiers, self._engines)
        model = str(parse_version(ref.version).model)
        if loaded.config.model != model:
            raise PackageMisplaced(
                f"package {ref.digest} holds {loaded.config.model}, the plan says {ref.version}",
                remedy="apply a plan that names the right package",
                package=ref.digest,
            )
        config = loaded.config
        lookup = Lookup(config.contract, config.online, self._online)
        return ReadyPackage(loaded.digest, config.contract, loaded.predictor.predict, lookup)
