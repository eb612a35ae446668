"""What a package needs of the online store, told fast: `status` asks it, and must not load what training loads.

So the package's own description is read here without the types of `registry.packages`, whose contract brings NumPy.
The blobs are verified as everywhere.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from lockgate.adapters.online.lmdb_store import LmdbOnline
from lockgate.core.blobs import BlobStore
from lockgate.core.digests import Digest

_CONFIG_PATH = "package.json"
_TITLE = "org.opencontainers.image.title"


class _Layer(msgspec.Struct):
    digest: Digest
    annotations: dict[str, str] = {}


class _Manifest(msgspec.Struct):
    layers: tuple[_Layer, ...]


class _View(msgspec.Struct):
    name: str
    view: Digest


class _Config(msgspec.Struct):
    online: tuple[_View, ...] = ()


def views_of(package: Digest, blobs: BlobStore) -> dict[str, Digest]:
    """The feature views that a package reads by key, by name.

    Raises:
        BlobMissing, BlobCorrupt: the package is not there whole.
    """
    manifest = msgspec.json.decode(blobs.get(package), type=_Manifest)
    described = next(one for one in manifest.layers if one.annotations.get(_TITLE) == _CONFIG_PATH)
    config = msgspec.json.decode(blobs.get(described.digest), type=_Config)
    return {view.name: view.view for view in config.online}


def views_lacking(package: Digest, blobs: BlobStore, online: Path) -> tuple[str, ...]:
    """The names of the package's feature views that have no row in the online store at `online`.

    Raises:
        BlobMissing, BlobCorrupt: the package is not there whole.
        OnlineUnavailable, OnlineCorrupt: the store is there and cannot be read.
    """
    needed = views_of(package, blobs)
    if not needed:
        return ()
    served: frozenset[Digest] = frozenset()
    if online.is_dir():
        with LmdbOnline(online, readonly=True) as store:
            served = store.views()
    return tuple(name for name, view in needed.items() if view not in served)
