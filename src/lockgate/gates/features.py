"""Gate `features.compat`: what serving would feed the model is what it learned from.

A model is bound to the meaning of its features: a view by its semantic hash (SQL, ttl, what it reads), an input by its
type. Definitions move on after a package was built; then the same name stands for other values, and no test on
stored rows notices. The gate compares the package with the definitions as they are now and, where features are read
by key, asks whether the online store holds rows of exactly the views the package wants.

Counted are the model's inputs that could not be served; there is nothing to estimate, so there is no interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from lockgate.core.digests import Digest, digest_of, short
from lockgate.core.errors import did_you_mean
from lockgate.gates.evidence import ANYTHING, Evidence, MissingInput, Subject, guarded, record
from lockgate.gates.messages import Verdict

_GATE, _METRIC = "features.compat", "n_unserved"


class ServedFeature(msgspec.Struct, frozen=True, kw_only=True):
    """A feature as its view defines it now."""

    dtype: str
    categories: tuple[str, ...] = ()


class ServedView(msgspec.Struct, frozen=True, kw_only=True):
    """A view as it is defined now: its semantic hash, the columns of its entity's key, its features by name."""

    view: Digest
    keys: tuple[str, ...]
    features: dict[str, ServedFeature]


class ServedFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """What features there are to be served.

    Attributes:
        views: all views of the project, by name.
        online: the semantic hashes of the views that hold rows in the online store; None where the endpoint does
            not read it, because callers send all features themselves.
    """

    views: dict[str, ServedView]
    online: frozenset[Digest] | None = None


class FeatureInput(Protocol):
    """An input of a model contract; `registry.packages.contract.InputField` is one."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def categories(self) -> Sequence[str]: ...
    @property
    def source(self) -> str: ...


def features_compat(
    inputs: Sequence[FeatureInput],
    views: Mapping[str, Digest],
    served: ServedFeatures | None,
    *,
    keys: Mapping[str, Sequence[str]] | None = None,
    subject: Subject = ANYTHING,
) -> Evidence:
    """Gate `features.compat`: every input that comes from a view can be served as the model learned it.

    Args:
        inputs: of the model contract.
        views: semantic hash by name, of the views the package was built with.
        served: what is defined and stored now; None is an error unless all inputs come with the request.
        keys: key columns of each view that can be read by key; packages of before that was possible have none.
    Returns:
        One record: `value` inputs of `n` cannot be served, limit 0. With request inputs only, `n` counts those. Never
        raises. Its inputs name the definitions that were compared (`definitions`), as far as the model reads them.
    """

    def judge() -> Evidence:
        if not inputs:
            raise MissingInput("the contract has no inputs", remedy="declare the inputs of the model")
        looked_up = [field for field in inputs if field.source != "request"]
        if looked_up and served is None:
            raise MissingInput(
                "nobody says which features are served", remedy="judge inside the project: lockgate judge"
            )
        now = served or ServedFeatures(views={})
        read = sorted({field.source.partition(":")[0] for field in looked_up})
        definitions = digest_of({name: now.views.get(name) for name in read})
        about = msgspec.structs.replace(subject, inputs={**subject.inputs, "definitions": definitions})
        found = {field.name: _why_not(field, views, keys or {}, now) for field in looked_up}
        unserved = {name: why for name, why in found.items() if why}
        verdict: Verdict = "fail" if unserved else "pass"
        return record(
            _GATE,
            _METRIC,
            about if looked_up else subject,
            n=len(looked_up) or len(inputs),
            value=float(len(unserved)),
            comparator="at_most",
            threshold=0.0,
            verdict=verdict,
            reason="beyond_limit" if unserved else None,
            details=_details(unserved, len(looked_up), len(inputs), now),
        )

    return guarded(_GATE, _METRIC, judge, subject=subject, comparator="at_most", threshold=0.0)


def _why_not(
    field: FeatureInput,
    views: Mapping[str, Digest],
    keys: Mapping[str, Sequence[str]],
    served: ServedFeatures,
) -> str:
    """Why `field` cannot be served; empty when it can. Faults of the view come before those of the feature."""
    name, _, feature = field.source.partition(":")
    built = views.get(name)
    if built is None:
        raise MissingInput(f"the package does not say which view {name} it read", remedy="build it again")
    view = served.views.get(name)
    if view is None:
        return f"view {name} is not defined any more; {did_you_mean(name, served.views)}"
    # SQL does not tell upper from lower case in the names of columns, and neither do the hashes.
    wanted, defined = (
        sorted(key.lower() for key in keys.get(name, view.keys)),
        sorted(map(str.lower, view.keys)),
    )
    if wanted != defined:
        return f"view {name} is keyed by {', '.join(defined)} now, by {', '.join(wanted)} when it was built"
    known = view.features.get(feature)
    if known is None:
        return f"view {name} has no feature {feature} any more; {did_you_mean(feature, view.features)}"
    if known.dtype != field.dtype:
        return f"{name}:{feature} is {known.dtype} now, {field.dtype} when it was built"
    if known.categories != tuple(field.categories):
        return f"{name}:{feature} has other categories than when it was built"
    if view.view != built:
        return f"view {name} is {short(view.view)} now, {short(built)} when it was built: it means something else"
    if served.online is not None and name not in keys:
        return f"the package does not say by which key view {name} is read; build it again"
    if served.online is not None and built not in served.online:
        return (
            f"the online store holds no rows of view {name} ({short(built)}); fill it: lockgate materialize"
        )
    return ""


def _details(
    unserved: Mapping[str, str], n_looked_up: int, n_inputs: int, served: ServedFeatures
) -> tuple[str, ...]:
    """One sentence per reason, with the inputs it concerns; or what was found in order."""
    if not n_looked_up:
        return (f"all {n_inputs} inputs come with the request",)
    if not unserved:
        where = "sent by callers" if served.online is None else "read from the online store"
        return (f"{n_looked_up} of {n_inputs} inputs come from feature views, {where}",)
    inputs_of: dict[str, list[str]] = {}
    for name, why in unserved.items():
        inputs_of.setdefault(why, []).append(name)
    return tuple(f"{', '.join(sorted(names))}: {why}" for why, names in sorted(inputs_of.items()))
