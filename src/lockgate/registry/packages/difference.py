"""What changed between two packages, and how large a step of the version that makes.

Both answers are computed from what the packages say about themselves, so nobody has to remember to tell. The
rules of the version number (for a caller, who sees only the contract, and an operator, who sees the rest):

    major   the contract refuses or misleads a caller of the old one
    minor   the contract grew; features, code, params, environment, formats or included files changed
    patch   none of these: the same code on new data, or with another seed or thread setting
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from lockgate.core.digests import canonical
from lockgate.core.errors import Invalid
from lockgate.core.semver import Bump, largest
from lockgate.registry.packages.contract import InputField, compare_contracts
from lockgate.registry.packages.package import CONFIG_PATH, INCLUDE_PREFIX, Package

Section = Literal["contract", "features", "code", "params", "data", "environment", "artifact"]


class NotComparable(Invalid):
    """The two packages are of different models."""

    code = "registry.not-comparable"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not the same.

    Attributes:
        name: what it is within its section: `inputs.distance.maximum`, `rounds`, a code label, a path.
        before, after: its JSON text (texts and digests without quotes); None where it is not there.
    """

    section: Section
    name: str
    before: str | None
    after: str | None


def differences(old: Package, new: Package) -> tuple[Difference, ...]:
    """Everything that differs, by section and then by name; empty exactly when the digests are equal.

    Raises:
        NotComparable: the packages are of different models.
    """
    if old.config.model != new.config.model:
        raise NotComparable(
            f"{old.config.model} and {new.config.model} are different models",
            remedy="compare two versions of one model",
            before=old.config.model,
            after=new.config.model,
        )
    before, after = _sections(old), _sections(new)
    found: list[Difference] = []
    for section in before:
        was, now = before[section], after[section]
        for name in sorted(was.keys() | now.keys()):
            if was.get(name) != now.get(name):
                found.append(
                    Difference(section=section, name=name, before=was.get(name), after=now.get(name))
                )
    return tuple(found)


def minimum_bump(old: Package, new: Package) -> tuple[Bump, tuple[str, ...]]:
    """The smallest step of the version that `new` may take after `old`, and why, strongest grounds first.

    Returns:
        The bump and one sentence per ground; `("patch", ())` when the packages are the same bytes.

    Raises:
        NotComparable: the packages are of different models.
    """
    grounds: dict[Bump, list[str]] = {"major": [], "minor": [], "patch": []}
    for change in compare_contracts(old.config.contract, new.config.contract):
        grounds["major" if change.breaking else "minor"].append(change.message)
    if not any(grounds.values()) and old.config.contract != new.config.contract:
        grounds["minor"].append("the order of inputs or categories changed")
    papers = {
        INCLUDE_PREFIX + path for one in (old, new) for path in one.config.recipe.get("dossier", {}).values()
    }
    for difference in differences(old, new):
        if difference.section != "contract":
            weight: Bump = "patch" if difference.name in papers else _weight(difference)
            grounds[weight].append(_sentence(difference))
    bump = largest(*(bump for bump, sentences in grounds.items() if sentences))
    return bump, tuple(sentence for sentences in grounds.values() for sentence in sentences)


def _weight(difference: Difference) -> Bump:
    if difference.section == "data":
        return "patch"
    if difference.section == "params" and difference.name.startswith("seeds."):
        return "patch"
    if difference.section == "environment" and difference.name.startswith("threads."):
        return "patch"
    if difference.section == "artifact" and not difference.name.startswith(("forms.", INCLUDE_PREFIX)):
        return "patch"
    return "minor"


def _sentence(difference: Difference) -> str:
    where = f"{difference.section} {difference.name}"
    if difference.before is None:
        return f"{where} is new"
    if difference.after is None:
        return f"{where} is gone"
    return f"{where} changed {_cut(difference.before)} -> {_cut(difference.after)}"


def _sections(package: Package) -> dict[Section, dict[str, str]]:
    config = package.config
    contract: dict[str, Any] = {
        "inputs": {field.name: _input(field) for field in config.contract.inputs},
        "order": ",".join(config.contract.names),
        "output": msgspec.to_builtins(config.contract.output),
    }
    # The recipe repeats the params, which are compared by themselves.
    recipe = {name: value for name, value in config.recipe.items() if name not in ("params", "dossier")}
    # What people wrote about the model changes nothing of it.
    written = {f"dossier.{name}": path for name, path in config.recipe.get("dossier", {}).items()}
    forms = {str(place): f"{form.format} in {form.path}" for place, form in enumerate(config.forms)}
    # package.json is compared field by field, and what is left of it could not differ alone.
    layers = {layer.path: layer.digest for layer in package.layers if layer.path != CONFIG_PATH}
    return {
        "contract": dict(_flat(contract)),
        "features": dict(
            _flat({"service": config.service, "hash": config.service_hash, "views": config.views})
        ),
        "code": dict(_flat({"closure": config.code, "parts": config.closure})),
        "params": dict(_flat({"params": config.params, "seeds": config.seeds, "recipe": recipe})),
        "data": dict(_flat(config.snapshots)),
        "environment": dict(_flat({"lock": config.environment, "threads": config.threads})),
        "artifact": dict(_flat({"forms": forms})) | layers | written,
    }


def _input(field: InputField) -> str:
    """An input in one line: everything that could differ about it."""
    parts: list[str] = [field.dtype, "optional" if field.nullable else "required"]
    if field.minimum is not None or field.maximum is not None:
        low = "" if field.minimum is None else repr(field.minimum)
        high = "" if field.maximum is None else repr(field.maximum)
        parts.append(f"{low}..{high}")
    if field.categories:
        parts.append("one of " + canonical(field.categories).decode())
    return ", ".join([*parts, f"from {field.source}"])


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each leaf with its dotted path. Different values give different leaves: a key with a dot stays quoted,
    and so does a text that would read as JSON. The empty mappings of our own structure give none."""
    if isinstance(value, Mapping) and (value or prefix.count(".") == 0):
        for key, item in value.items():
            part = canonical(key).decode() if "." in key or '"' in key or not key else key
            yield from _flat(item, f"{prefix}.{part}" if prefix else part)
    else:
        yield prefix, _leaf(value)


def _leaf(value: Any) -> str:
    if isinstance(value, str):
        try:
            msgspec.json.decode(value)
        except msgspec.DecodeError:
            return value
    return canonical(value).decode()


def _cut(text: str) -> str:
    if text.startswith("sha256:"):
        return text[:19]
    return text if len(text) <= 60 else text[:57] + "..."
