"""What a project writes about its features: entities, views, services.

    aircraft = Entity("aircraft", keys=("tailnum",))
    fleet = FeatureView("fleet", entity=aircraft, dataset="planes", sql="SELECT ...",
                        features=[Feature("seats", "int", minimum=0)])
    delay = FeatureService("delay", features=["fleet:seats", RequestFeature("distance", "float")])

A definition is a value: it is checked when it is made, so the traceback of a mistake points at the project's
own line, and it holds plain data only, so importing a features file imports nothing heavy. Whether names
refer to something is known once a module is complete: `collect` checks that.

Time. A view's SQL yields two instants per row: `event_at`, when the fact became true, and `available_at`,
when it could first have been read. Both are TIMESTAMP or BIGINT microseconds since 1970. A TIMESTAMP without
a zone *is* UTC because the view says so by being written: convert local times in the SQL
(`x AT TIME ZONE 'America/New_York'`). Rows equal in key and both instants must be equal in every feature.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from lockgate.core.errors import Invalid, did_you_mean
from lockgate.core.names import check_part

DType = Literal["float", "int", "bool", "category"]
_DTYPES = ("float", "int", "bool", "category")
_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*\Z")


class BadDefinition(Invalid):
    """A definition contradicts itself; the message names it."""

    code = "features.bad-definition"


class UnknownName(Invalid):
    """A definition refers to something that is not there; the remedy holds near matches."""

    code = "features.unknown-name"


class _Named(msgspec.Struct, frozen=True):
    name: str


class Entity(msgspec.Struct, frozen=True):
    """A kind of thing that features describe, and the columns that together name one."""

    name: str
    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        check_part(self.name, what="entity")
        _set(self, "keys", _words(self.keys, f"keys of entity {self.name!r}"))
        if not self.keys:
            raise BadDefinition(f"entity {self.name!r} has no keys", remedy='add keys=("COLUMN",)')
        _check_columns(self.keys, f"entity {self.name!r}")


class Feature(msgspec.Struct, frozen=True):
    """One column of a view.

    Attributes:
        categories: the values of a `category`, in the order that encodes them; only for that dtype.
        nullable: whether null is a legal value; a missing or expired row gives null in any case.
        minimum, maximum: inclusive; only for `float` and `int`.
    """

    name: str
    dtype: DType
    categories: tuple[str, ...] = ()
    nullable: bool = True
    minimum: float | None = None
    maximum: float | None = None
    description: str = ""

    def __post_init__(self) -> None:
        what = f"feature {self.name!r}"
        _check_columns((self.name,), what)
        if self.dtype not in _DTYPES:
            raise BadDefinition(
                f"{what} has dtype {self.dtype!r}",
                remedy=did_you_mean(str(self.dtype), _DTYPES),
                name=self.name,
            )
        _set(self, "categories", _words(self.categories, f"categories of {what}"))
        if (self.dtype == "category") != bool(self.categories):
            raise BadDefinition(
                f"{what} of dtype {self.dtype!r} "
                + ("has categories" if self.categories else "has no categories"),
                remedy='use dtype "category" together with categories=("A", "B")',
                name=self.name,
            )
        if len(set(self.categories)) != len(self.categories):
            raise BadDefinition(f"{what} lists a category twice", remedy="remove one", name=self.name)
        self._check_range(what)

    def _check_range(self, what: str) -> None:
        bounds = [bound for bound in (self.minimum, self.maximum) if bound is not None]
        if bounds and self.dtype not in ("float", "int"):
            raise BadDefinition(
                f"{what} of dtype {self.dtype!r} has a range",
                remedy="remove minimum and maximum",
                name=self.name,
            )
        if not all(map(math.isfinite, bounds)) or bounds != sorted(bounds):
            raise BadDefinition(
                f"{what} has the range {self.minimum} to {self.maximum}",
                remedy="use finite bounds, the minimum not above the maximum; None leaves a side open",
                name=self.name,
            )


class RequestFeature(Feature, frozen=True):
    """A model input that comes with the request, and in training with the example row."""


class FeatureView(_Named, frozen=True, kw_only=True):
    """A query that says what was known of each entity, and since when. All but the name go by keyword.

    Attributes:
        dataset: the dataset the SQL reads, by its name as table; or use `datasets` for several.
        sql: one SELECT in DuckDB's dialect over those datasets and nothing else; yields the entity's keys,
            `event_at`, `available_at` and every feature. It may not depend on the time or on chance.
        ttl_s: how long a row stays valid after `event_at`, in seconds, inclusive; None for ever.
        description, owner: for people; they are part of no hash.
    """

    entity: Entity
    sql: str
    features: tuple[Feature, ...]
    dataset: str = ""
    datasets: tuple[str, ...] = ()
    event_at: str = "event_at"
    available_at: str = "available_at"
    ttl_s: int | None = None
    description: str = ""
    owner: str = ""

    def __post_init__(self) -> None:
        what = f"view {self.name!r}"
        check_part(self.name, what="feature view")
        if not isinstance(self.entity, Entity):
            raise BadDefinition(
                f"{what} has no entity", remedy="pass the Entity object itself", name=self.name
            )
        if not isinstance(self.sql, str) or not self.sql.strip():
            raise BadDefinition(f"{what} has no SQL", remedy='add sql="SELECT ..."', name=self.name)
        _set(self, "datasets", _words(self.datasets, f"datasets of {what}"))
        _set(self, "features", tuple(self.features))
        if not self.features or not all(type(feature) is Feature for feature in self.features):
            raise BadDefinition(
                f"the features of {what} must be Feature objects, at least one",
                remedy='add features=[Feature("NAME", "float")]; a RequestFeature belongs to a service',
                name=self.name,
            )
        if not self.reads or len(set(self.reads)) != len(self.reads):
            raise BadDefinition(
                f"{what} reads no dataset, or one twice", remedy='add dataset="NAME"', name=self.name
            )
        for dataset in self.reads:
            check_part(dataset, what="dataset")
        names = [*self.entity.keys, self.event_at, self.available_at, *self.feature_names]
        _check_columns(names, what)
        if self.ttl_s is not None and (isinstance(self.ttl_s, bool) or not 0 < self.ttl_s <= 10**10):
            raise BadDefinition(
                f"{what} has a ttl of {self.ttl_s!r} seconds",
                remedy="use a positive whole number of seconds, or None for no limit",
                name=self.name,
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """The datasets the SQL may read, `dataset` first."""
        return (self.dataset, *self.datasets) if self.dataset else self.datasets

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)


class FeatureService(_Named, frozen=True, kw_only=True):
    """The inputs of a model, in order: `"VIEW:FEATURE"` references and request features."""

    features: tuple[str | RequestFeature, ...]
    description: str = ""
    owner: str = ""

    def __post_init__(self) -> None:
        what = f"service {self.name!r}"
        check_part(self.name, what="feature service")
        _set(self, "features", tuple(self.features))
        if not self.features:
            raise BadDefinition(
                f"{what} has no features", remedy='add features=["VIEW:FEATURE"]', name=self.name
            )
        for item in self.features:
            if isinstance(item, RequestFeature):
                continue
            view, colon, feature = item.partition(":") if isinstance(item, str) else ("", "", "")
            if not (view and colon and feature):
                raise BadDefinition(
                    f"{what} lists {item!r}",
                    remedy='write "VIEW:FEATURE", or a RequestFeature object',
                    name=self.name,
                )
        names = [
            item.name if isinstance(item, RequestFeature) else item.partition(":")[2]
            for item in self.features
        ]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BadDefinition(
                f"{what} has two inputs called {twice[0]!r}",
                remedy="rename one of them in the SQL of its view",
                name=self.name,
                input=twice[0],
            )


class ServiceField(msgspec.Struct, frozen=True, kw_only=True):
    """One input of a model as its contract states it; `source` is `request` or `VIEW:FEATURE`."""

    name: str
    dtype: DType
    categories: tuple[str, ...] = ()
    nullable: bool = True
    minimum: float | None = None
    maximum: float | None = None
    source: str = "request"


class Definitions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a features module defines, by name, each in alphabetical order."""

    entities: dict[str, Entity]
    views: dict[str, FeatureView]
    services: dict[str, FeatureService]

    def view(self, name: str) -> FeatureView:
        return _look_up(self.views, name, "feature view")

    def service(self, name: str) -> FeatureService:
        return _look_up(self.services, name, "feature service")


def collect(namespace: Mapping[str, object]) -> Definitions:
    """The definitions among the values of a module's namespace, with every reference checked.

    The same object under two names counts once. Entities that only a view mentions are included.

    Raises:
        BadDefinition: two different definitions share a name.
        UnknownName: a service refers to a view or feature that is not there.
    """
    values = list(namespace.values())
    views = _by_name((v for v in values if isinstance(v, FeatureView)), "feature view")
    services = _by_name((v for v in values if isinstance(v, FeatureService)), "feature service")
    named = [v for v in values if isinstance(v, Entity)]
    entities = _by_name([*named, *(view.entity for view in views.values())], "entity")
    definitions = Definitions(entities=entities, views=views, services=services)
    for service in services.values():
        service_fields(service, definitions)
    return definitions


def service_fields(service: FeatureService, definitions: Definitions) -> tuple[ServiceField, ...]:
    """The inputs of `service`, in its order.

    Raises:
        UnknownName: it refers to a view or feature that is not there.
    """
    return tuple(_field(item, service, definitions) for item in service.features)


def service_views(service: FeatureService, definitions: Definitions) -> tuple[FeatureView, ...]:
    """The views `service` takes features from, in the order they first appear."""
    names = dict.fromkeys(item.partition(":")[0] for item in service.features if isinstance(item, str))
    return tuple(definitions.view(name) for name in names)


def _field(item: str | RequestFeature, service: FeatureService, definitions: Definitions) -> ServiceField:
    feature: Feature
    if isinstance(item, RequestFeature):
        feature, source = item, "request"
    else:
        view_name, _, feature_name = item.partition(":")
        source = item
        if view_name not in definitions.views:
            raise UnknownName(
                f"service {service.name!r} takes {item!r}, and there is no view {view_name!r}",
                remedy=did_you_mean(view_name, definitions.views),
                service=service.name,
                view=view_name,
            )
        found = {feature.name: feature for feature in definitions.views[view_name].features}
        if feature_name not in found:
            raise UnknownName(
                f"service {service.name!r} takes {item!r}, and view {view_name!r} has no such feature",
                remedy=did_you_mean(feature_name, found),
                service=service.name,
                view=view_name,
                feature=feature_name,
            )
        feature = found[feature_name]
    return ServiceField(
        name=feature.name,
        dtype=feature.dtype,
        categories=feature.categories,
        nullable=feature.nullable,
        minimum=feature.minimum,
        maximum=feature.maximum,
        source=source,
    )


T = TypeVar("T")
N = TypeVar("N", Entity, FeatureView, FeatureService)


def _look_up(known: Mapping[str, T], name: str, what: str) -> T:
    if name not in known:
        raise UnknownName(f"there is no {what} {name!r}", remedy=did_you_mean(name, known), name=name)
    return known[name]


def _by_name(values: Iterable[N], what: str) -> dict[str, N]:
    found: dict[str, N] = {}
    for value in values:
        if found.setdefault(value.name, value) != value:
            raise BadDefinition(
                f"two different definitions are called {what} {value.name!r}",
                remedy="rename one of them",
                name=value.name,
            )
    return dict(sorted(found.items()))


def _set(struct: msgspec.Struct, field: str, value: Any) -> None:
    msgspec.structs.force_setattr(struct, field, value)


def _words(value: Sequence[str], what: str) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(word, str) for word in value):
        raise BadDefinition(f"{what} must be a tuple of words, not {value!r}", remedy='write ("A", "B")')
    return tuple(value)


def _check_columns(names: Sequence[str], what: str) -> None:
    """Names of SQL columns: compared without case, as DuckDB does; `__` is kept for Lockgate's own columns."""
    for name in names:
        if not isinstance(name, str) or _COLUMN.match(name) is None:
            raise BadDefinition(
                f"{what} uses {name!r} as a column",
                remedy="use letters, digits and single underscores, starting with a letter",
                name=str(name),
            )
    folded = [name.lower() for name in names]
    twice = sorted({name for name in folded if folded.count(name) > 1})
    if twice:
        raise BadDefinition(f"{what} uses column {twice[0]!r} twice", remedy="rename one", name=twice[0])
