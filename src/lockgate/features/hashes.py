"""Three hashes that say what a feature definition is.

- `layout_hash`: entity keys and the ordered features with dtype, categories and nullability. Equal layouts
  store and encode rows alike.
- `semantic_hash`: the layout, the allowed ranges, the SQL in normal form, the ttl, the time columns, and what
  the view is made from. Equal hashes mean equal values for equal inputs. Owner, description and the names of
  view and entity are not in it: they change no value.
- `service_hash`: the ordered inputs of a model with the semantic hash behind each.

Texts are hashed as written, without Unicode normalisation: two category names that look alike are two
categories to the encoder.

`ALGORITHM` is part of what is hashed. How a published algorithm hashes never changes; tests pin its values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lockgate.core.digests import Digest, digest_of
from lockgate.core.errors import did_you_mean
from lockgate.features.definition import (
    Definitions,
    FeatureService,
    FeatureView,
    UnknownName,
    service_fields,
    service_views,
)
from lockgate.features.sql import normal_form

ALGORITHM: Final = "fd/1"


def layout_hash(view: FeatureView) -> Digest:
    return digest_of({"algorithm": ALGORITHM, "kind": "layout", **_layout(view)})


def semantic_hash(view: FeatureView, upstream: Mapping[str, str]) -> Digest:
    """What `view` means, given what it reads.

    Args:
        upstream: per dataset of `view.reads`, a text that changes when the dataset's meaning does, such as
            the digest of its contract. Further entries are ignored.

    Raises:
        UnknownName: `upstream` lacks a dataset.
        BadSql: the SQL cannot be split into tokens.
    """
    for dataset in view.reads:
        if dataset not in upstream:
            raise UnknownName(
                f"view {view.name!r} reads dataset {dataset!r}, and nothing is known of it",
                remedy=did_you_mean(dataset, upstream),
                view=view.name,
                dataset=dataset,
            )
    meaning = {
        **_layout(view),
        "ranges": [[_number(feature.minimum), _number(feature.maximum)] for feature in view.features],
        "sql": normal_form(view.sql),
        "ttl_us": None if view.ttl_s is None else view.ttl_s * 1_000_000,
        "event_at": view.event_at.lower(),
        "available_at": view.available_at.lower(),
        "upstream": {dataset: upstream[dataset] for dataset in view.reads},
    }
    return digest_of({"algorithm": ALGORITHM, "kind": "semantic", **meaning})


def service_hash(service: FeatureService, definitions: Definitions, upstream: Mapping[str, str]) -> Digest:
    """What a model that binds to `service` is fed: every input in order, and the meaning of each view."""
    return digest_of(
        {
            "algorithm": ALGORITHM,
            "kind": "service",
            "inputs": service_fields(service, definitions),
            "views": {
                view.name: semantic_hash(view, upstream) for view in service_views(service, definitions)
            },
        }
    )


def _layout(view: FeatureView) -> dict[str, Any]:
    return {
        "keys": [key.lower() for key in view.entity.keys],
        "features": [
            [feature.name, feature.dtype, list(feature.categories), feature.nullable]
            for feature in view.features
        ],
    }


def _number(bound: float | None) -> float | None:
    """0 and 0.0 are one bound."""
    return None if bound is None else float(bound)
