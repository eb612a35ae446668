"""Features by entity key: the part of a row that the caller does not send.

A package says which of its inputs come from which view, and how the rows of a view are found. `Lookup` reads
them from the online store, holds every row against the moment of the question by the rule of the training join
(features/online.py), and hands them on as if the caller had sent them; so they meet the same encoder, and a
feature that was looked up gives the same bits as the same feature sent raw.

Whose fault it is when that fails decides what a release is judged by. Keys that are not there or of the wrong
type are the caller's. A store that cannot be read, a feature that is missing and may not be, a stored value that
the contract does not admit: no caller can mend these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.errors import LockgateError
from lockgate.features.online import known_at, values_at
from lockgate.features.ports import Key, OnlineRow, OnlineStore
from lockgate.registry.packages.contract import InputField, InputRejected, ModelContract
from lockgate.registry.packages.package import OnlineView
from lockgate.serving.errors import EntityRejected, FeaturesUnavailable, ViewMisfit

Row = dict[str, Any]

_INT64_END = 2**63
_TYPES: dict[str, type] = {"string": str, "int": int}
_WORDS = {"string": "a text", "int": "a whole number of 64 bits"}
_ABSENT = object()


class _View(NamedTuple):
    """A view and what is taken from it: pairs of an input's name and where it stands in the view's rows."""

    name: str
    digest: Digest
    keys: tuple[tuple[str, type], ...]
    picks: tuple[tuple[str, int], ...]
    required: frozenset[str]
    n_features: int
    ttl_s: int | None


class Lookup:
    """What one loaded package reads by key.

    Attributes:
        sent: the inputs that come with the request.
        refused: the inputs that may not come with it, because they are read.

    Args:
        contract: an input's `source` says whether it is read, and from where.
        views: how the package's views find their rows; a view it does not name cannot be read by key.
        store: None when this data plane has none.

    Raises:
        ViewMisfit: an input is a feature that its view does not have.
    """

    def __init__(
        self, contract: ModelContract, views: Sequence[OnlineView] = (), store: OnlineStore | None = None
    ) -> None:
        self._store = store
        known = {view.name: view for view in views}
        taken: dict[str, list[InputField]] = {}
        unkeyed = []
        self._source: dict[str, str] = {}
        for field in contract.inputs:
            view, colon, feature = field.source.partition(":")
            if not colon:
                continue
            if view not in known:
                unkeyed.append((field.name, view))
                continue
            if feature not in known[view].features:
                raise ViewMisfit(
                    f"input {field.name!r} comes from {field.source}, and the view has no such feature",
                    remedy="build the package again; do not serve this one",
                    field=field.name,
                    view=view,
                )
            taken.setdefault(view, []).append(field)
            self._source[field.name] = view
        self._unkeyed = tuple(unkeyed)
        self._supplied = self.refused = frozenset(self._source)
        self.sent = frozenset(contract.names) - self._supplied
        self._views = tuple(_view(known[name], found) for name, found in taken.items())

    def fill(
        self, rows: list[Row], entities: Sequence[Mapping[str, Any]], as_of: Sequence[Micros]
    ) -> list[Row]:
        """The rows with the features of their entities as known at `as_of`; null where there are none.

        Args:
            rows: left as they are.
            entities: the keys, one mapping per row; columns no view asks for are ignored.
            as_of: one moment per row.

        Raises:
            EntityRejected: the keys, or what came beside them, do not fit.
            FeaturesUnavailable: the store cannot be read, or a feature is null that may not be.
        """
        if self._unkeyed:
            self._refuse_unkeyed(rows)
        if not self._views:
            return rows
        refused = self.refused
        for number, row in enumerate(rows):
            if not refused.isdisjoint(row):
                raise self._sent_too(number, row)
        stored = self._read([(view.digest, _keys(view, entities)) for view in self._views])
        filled = [row.copy() for row in rows]
        for view, found in zip(self._views, stored, strict=True):
            _take(view, found, as_of, filled)
        return filled

    def ignore(self, names: frozenset[str]) -> None:
        """Callers may send these all the same, because another loaded version takes them from the request.

        What was read by key still counts.
        """
        self.refused = self._supplied - names

    def reads_as(self, other: Lookup) -> bool:
        """Whether both make the same of every row, as long as no write comes in between."""
        return (
            type(self) is type(other)
            and self._store is other._store
            and self._views == other._views
            and self._unkeyed == other._unkeyed
        )

    def blame(self, error: InputRejected) -> InputRejected | FeaturesUnavailable:
        """The error of a filled row: what the store supplied is not held against the caller."""
        view = self._source.get(str(error.facts.get("field")))
        if view is None:
            return error
        return FeaturesUnavailable(
            f"the stored row of {view} does not fit the contract: {error.message}",
            remedy="tell the owner of the view",
            view=view,
            **error.facts,
        )

    def _read(self, wanted: list[tuple[Digest, list[Key | None]]]) -> list[list[OnlineRow | None]]:
        """The stored row of each key, all of one moment; None for a key that is null."""
        store = self._store
        if store is None:
            raise FeaturesUnavailable(
                "this data plane has no online store, so it cannot read features by key",
                remedy="start it with --online DIR, or send the features in `inputs`",
            )
        asked, whole = wanted, True
        for _, keys in wanted:
            if None in keys:
                asked, whole = (
                    [(view, [key for key in one if key is not None]) for view, one in wanted],
                    False,
                )
                break
        try:
            found = store.read_many(asked)  # type: ignore[arg-type]  # no key among them is null
        except Exception as error:  # noqa: BLE001 - whatever a store does, the request is answered
            why = error.code if isinstance(error, LockgateError) else type(error).__name__
            raise FeaturesUnavailable(
                f"the online store cannot be read ({why})",
                remedy="retry in a moment; if it stays, tell the operator",
            ) from None
        if whole:
            return found
        return [_spread(rows, keys) for rows, (_, keys) in zip(found, wanted, strict=True)]

    def _sent_too(self, number: int, row: Row) -> EntityRejected:
        name = next(name for name in row if name in self.refused)
        view = self._source[name]
        return EntityRejected(
            f"row {number}: field {name!r} is read from {view} by key, and was sent too",
            remedy=f"leave {name!r} out of `inputs`, or send all features and no `entities`",
            field=name,
            view=view,
            row=number,
            reason="sent-too",
        )

    def _refuse_unkeyed(self, rows: list[Row]) -> None:
        for number, row in enumerate(rows):
            for name, view in self._unkeyed:
                if name not in row:
                    raise EntityRejected(
                        f"row {number}: this version cannot read {name!r} by key: its package names no keys of {view}",
                        remedy=f"send {name!r} in `inputs`, or package the model again",
                        field=name,
                        view=view,
                        row=number,
                        reason="no-keys",
                    )


def _view(view: OnlineView, inputs: Sequence[InputField]) -> _View:
    return _View(
        name=view.name,
        digest=view.view,
        keys=tuple((key.name, _TYPES[key.dtype]) for key in view.keys),
        picks=tuple((field.name, view.features.index(field.source.partition(":")[2])) for field in inputs),
        required=frozenset(field.name for field in inputs if not field.nullable),
        n_features=len(view.features),
        ttl_s=view.ttl_s,
    )


def _keys(view: _View, entities: Sequence[Mapping[str, Any]]) -> list[Key | None]:
    """The key of each row; None where a part of it is null."""
    if len(view.keys) == 1:
        return _single_keys(view, entities)
    keys: list[Key | None] = []
    for number, entity in enumerate(entities):
        parts: list[str | int] = []
        for name, wanted in view.keys:
            value: Any = entity.get(name, _ABSENT)
            kind = type(value)
            if kind is wanted and (wanted is str or -_INT64_END <= value < _INT64_END):
                parts.append(value)
            elif value is not None:
                raise _bad_key(view, number, name, value)
        keys.append(tuple(parts) if len(parts) == len(view.keys) else None)
    return keys


def _single_keys(view: _View, entities: Sequence[Mapping[str, Any]]) -> list[Key | None]:
    """The same for a view with one key column, as most have."""
    ((name, wanted),) = view.keys
    keys: list[Key | None] = []
    for number, entity in enumerate(entities):
        value: Any = entity.get(name, _ABSENT)
        kind = type(value)
        if kind is wanted and (wanted is str or -_INT64_END <= value < _INT64_END):
            keys.append((value,))
        elif value is None:
            keys.append(None)
        else:
            raise _bad_key(view, number, name, value)
    return keys


def _spread(found: list[OnlineRow | None], keys: list[Key | None]) -> list[OnlineRow | None]:
    """The rows in the places of their keys; None where a key is null."""
    rows = iter(found)
    return [None if key is None else next(rows) for key in keys]


def _take(view: _View, stored: list[OnlineRow | None], as_of: Sequence[Micros], rows: list[Row]) -> None:
    """Put a view's features into the rows."""
    ttl_s, n_features, picks, required = view.ttl_s, view.n_features, view.picks, view.required
    for number, row in enumerate(rows):
        values = values_at(stored[number], as_of[number], ttl_s)
        if values is None:
            for name, _ in picks:
                row[name] = None
        elif len(values) == n_features:
            for name, position in picks:
                row[name] = values[position]
        else:
            raise _unavailable(view, number, f"the stored row has {len(values)} values, not {n_features}")
        for name in required:
            if row[name] is None:
                known = known_at(stored[number], as_of[number], ttl_s=ttl_s, n_features=n_features)
                why = "null" if known.status == "PRESENT" else known.status.lower()
                raise _unavailable(view, number, f"{name!r} is {why}, and the version needs it", field=name)


def _bad_key(view: _View, number: int, name: str, value: Any) -> EntityRejected:
    if value is _ABSENT:
        message, reason = f"row {number}: key {name!r} of {view.name} is missing", "missing"
    else:
        shown = repr(value)
        shown = shown if len(shown) <= 40 else shown[:37] + "..."
        message, reason = f"row {number}: key {name!r} of {view.name} is {shown}", "wrong-type"
    word = _WORDS["string" if dict(view.keys)[name] is str else "int"]
    return EntityRejected(
        message,
        remedy=f"send {name!r} with every entity as {word}, or null when it is not known",
        field=name,
        view=view.name,
        row=number,
        reason=reason,
    )


def _unavailable(view: _View, number: int, why: str, **facts: Any) -> FeaturesUnavailable:
    return FeaturesUnavailable(
        f"row {number}: {view.name}: {why}",
        remedy="tell the owner of the view; the operator can roll back",
        view=view.name,
        row=number,
        **facts,
    )
