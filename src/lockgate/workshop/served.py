"""Which features a project has to serve, as the gate `features.compat` wants to know it: plain values."""

from __future__ import annotations

from pathlib import Path

from lockgate.adapters.online.lmdb_store import LmdbOnline
from lockgate.core.digests import Digest
from lockgate.features.definition import Definitions
from lockgate.features.hashes import semantic_hash
from lockgate.gates.features import ServedFeature, ServedFeatures, ServedView
from lockgate.pipeline.recipe import Recipe, Sources, upstream


def served_features(
    recipe: Recipe, sources: Sources, definitions: Definitions, online: frozenset[Digest] | None = None
) -> ServedFeatures:
    """All views as the project defines them now; one that reads an undeclared dataset cannot be served.

    Args:
        online: the views that hold rows in the online store; None where the endpoint does not read it.
    """
    datasets = upstream(recipe, sources)
    return ServedFeatures(
        views={
            view.name: ServedView(
                view=semantic_hash(view, datasets),
                keys=view.entity.keys,
                features={
                    feature.name: ServedFeature(dtype=feature.dtype, categories=feature.categories)
                    for feature in view.features
                },
            )
            for view in definitions.views.values()
            if set(view.reads) <= set(datasets)
        },
        online=online,
    )


def views_online(folder: Path) -> frozenset[Digest]:
    """The views that hold rows in the online store; none before it was first filled.

    Raises:
        OnlineUnavailable, OnlineCorrupt: it is there and cannot be read.
    """
    if not folder.is_dir():
        return frozenset()
    with LmdbOnline(folder, readonly=True) as store:
        return store.views()
