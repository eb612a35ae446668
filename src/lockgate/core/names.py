"""How things are named: `NAMESPACE/NAME`, `NAME@VERSION`, `ENV/NAME`.

The namespace `main` is the default and is left out when names are shown. A document key always holds the
full form: model `main/flight-delay`, version `main/flight-delay@1.0.0`, endpoint `prod/main/flight-delay`.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from lockgate.core import semver
from lockgate.core.errors import Invalid

DEFAULT_NAMESPACE = "main"
_PART = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*\Z")


class BadName(Invalid):
    code = "core.bad-name"


def check_part(text: str, *, what: str) -> str:
    """Return `text` when it may name a `what` (model, environment, namespace, dataset)."""
    if len(text) > 63 or _PART.match(text) is None:
        raise BadName(
            f"{text!r} cannot name a {what}",
            remedy="use lower-case letters, digits and single hyphens or underscores, starting with a letter, "
            "at most 63 characters",
            value=text,
        )
    return text


class ModelName(NamedTuple):
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def shown(self) -> str:
        return self.name if self.namespace == DEFAULT_NAMESPACE else str(self)


class VersionRef(NamedTuple):
    model: ModelName
    version: semver.Semver

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"

    @property
    def shown(self) -> str:
        return f"{self.model.shown}@{self.version}"


class EndpointName(NamedTuple):
    environment: str
    model: ModelName

    def __str__(self) -> str:
        return f"{self.environment}/{self.model}"

    @property
    def shown(self) -> str:
        return f"{self.environment}/{self.model.shown}"


# A command says the same name over and over.
@functools.lru_cache(maxsize=1024)
def parse_model(text: str) -> ModelName:
    """`NAME` or `NAMESPACE/NAME`."""
    parts = text.split("/")
    if len(parts) == 1:
        parts = [DEFAULT_NAMESPACE, *parts]
    if len(parts) != 2:
        raise BadName(f"{text!r} is not a model name", remedy="write NAME or NAMESPACE/NAME", value=text)
    return ModelName(check_part(parts[0], what="namespace"), check_part(parts[1], what="model"))


def check_full(text: str, name: ModelName | VersionRef | EndpointName) -> str:
    """Return `text` when it is the full form of `name`, as document keys are; raise `BadName` otherwise."""
    if str(name) != text:
        raise BadName(f"{text!r} is not in full form", remedy=f"write {name}", value=text)
    return text


@functools.lru_cache(maxsize=1024)
def parse_version(text: str) -> VersionRef:
    """`NAME@1.2.3` or `NAMESPACE/NAME@1.2.3`."""
    model, at, number = text.partition("@")
    if not at:
        raise BadName(f"{text!r} names no version", remedy="write NAME@1.2.3", value=text)
    return VersionRef(parse_model(model), semver.parse(number))


def parse_endpoint(text: str) -> EndpointName:
    """`ENV/NAME` or `ENV/NAMESPACE/NAME`."""
    environment, slash, model = text.partition("/")
    if not slash or "@" in text:
        raise BadName(
            f"{text!r} is not an endpoint", remedy="write ENV/NAME, for example prod/flight-delay", value=text
        )
    return EndpointName(check_part(environment, what="environment"), parse_model(model))
