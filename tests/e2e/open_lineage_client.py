"""Events rebuilt with the classes of OpenLineage's own Python client, which are generated from its published schemas.

`rebuilt(event)` makes the client's objects out of an event and writes them again; a member that the schemas do not
have, one that is missing, a wrong value of an enumeration or a facet of another version makes it fail or come back
different.
"""

from __future__ import annotations

import pkgutil
import types
import typing
from enum import Enum
from importlib import import_module
from typing import Any

import attr
from openlineage.client import event_v2, generated
from openlineage.client.serde import Serde

_MODULES = [
    import_module(f"openlineage.client.generated.{one.name}")
    for one in pkgutil.iter_modules(generated.__path__)
]
_FACETS = {
    name: (each, module)
    for module in _MODULES
    for name, each in vars(module).items()
    if isinstance(each, type) and name.endswith("Facet") and each.__module__ == module.__name__
}


def rebuilt(event: dict[str, Any]) -> dict[str, Any]:
    """The event as the client writes it, without the empty members that it adds of its own."""
    said = dict(event)
    assert said.pop("schemaURL") == event_v2.RunEvent._get_schema()
    made = event_v2.RunEvent(
        eventTime=said.pop("eventTime"),
        producer=said.pop("producer"),
        eventType=event_v2.RunState(said.pop("eventType")),
        run=event_v2.Run(**_with_facets(said.pop("run"))),
        job=event_v2.Job(**_with_facets(said.pop("job"))),
        inputs=[event_v2.InputDataset(**_with_facets(one)) for one in said.pop("inputs", [])],
        outputs=[event_v2.OutputDataset(**_with_facets(one)) for one in said.pop("outputs", [])],
    )
    assert not said
    return without_empty(Serde.to_dict(made))


def _with_facets(members: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {key: _facet(one) for key, one in value.items()} if name.lower().endswith("facets") else value
        for name, value in members.items()
    }


def _facet(said: dict[str, Any]) -> Any:
    kind, module = _FACETS[said["_schemaURL"].rpartition("/")[2]]
    members = {name: value for name, value in said.items() if name not in ("_producer", "_schemaURL")}
    made = _made(kind, module, members)
    made._producer = said["_producer"]
    assert made._schemaURL == said["_schemaURL"]
    return made


def _made(kind: Any, module: types.ModuleType, value: Any) -> Any:
    """A value of the type that the client declares."""
    options = [each for each in typing.get_args(kind) if each is not type(None)]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return _made(options[0], module, value)
    if typing.get_origin(kind) is list:
        return [_made(options[0], module, one) for one in value]
    if typing.get_origin(kind) is dict:
        return {name: _made(options[1], module, one) for name, one in value.items()}
    if attr.has(kind):
        hints = typing.get_type_hints(kind, localns=vars(module))
        unknown = set(value) - {field.name for field in attr.fields(kind)}
        assert not unknown, f"{kind.__name__} has no {unknown}"
        return kind(**{name: _made(hints[name], module, one) for name, one in value.items()})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    return value


def without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_empty(one) for name, one in value.items() if one not in ({}, [])}
    return [without_empty(one) for one in value] if isinstance(value, list) else value
