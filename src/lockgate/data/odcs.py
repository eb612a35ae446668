"""Reading Open Data Contract Standard v3 files (https://bitol-io.github.io/open-data-contract-standard).

The file's shape is the set of structs below, the standard's own keys and no others: a key that is not in the
standard is an error with its line, because a misspelt `requird: true` that is silently ignored is a promise
nobody checks. What the standard calls documentation (servers, team, price, service levels, relationships) is
accepted and left alone. What it calls a quality rule is never left alone: a rule that Lockgate cannot
evaluate stays in the contract with the reason, and its check is an error.

Lockgate's own facts are custom properties of a column: `lockgate.entityKey`, `lockgate.label`,
`lockgate.eventAt`, `lockgate.availableAt` (true), `lockgate.privacy` (`private`, or any word but `public`)
and `lockgate.purpose` (a word or a list of words). A column is private, too, when it is tagged `private` or
`pii`, or classified as anything but public or internal.

YAML is read through its node tree, so every value keeps its line. Keys given twice, merge keys and documents
that grow by aliases are refused.
"""

from __future__ import annotations

import datetime
import re
from typing import Any, Final

import msgspec
import yaml

from lockgate.core.errors import Invalid, did_you_mean
from lockgate.data.contract import (
    NONE_ALLOWED,
    Comparison,
    ContractColumn,
    DataContract,
    LogicalType,
    Operator,
    Rule,
    Scalar,
)
from lockgate.data.snapshot import dataset_name

_MAX_NODES: Final = 50_000
_MAX_DEPTH: Final = 40
_PUBLIC: Final = frozenset({"", "public", "internal", "none"})
_METRICS: Final = ("rowCount", "nullValues", "missingValues", "invalidValues", "duplicateValues")
_OLD_RULES: Final = {
    "nullCheck": "nullValues",
    "duplicateCount": "duplicateValues",
    "uniqueCheck": "duplicateValues",
    "validValues": "invalidValues",
}


class ContractInvalid(Invalid):
    """The file is not a contract; the message starts with file and line."""

    code = "data.contract-invalid"


class _Custom(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    property: str
    value: Any = None
    id: str | None = None
    description: str | None = None


class _Quality(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    id: str | None = None
    name: str | None = None
    description: str | None = None
    type: str | None = None
    metric: str | None = None
    rule: str | None = None
    arguments: dict[str, Any] | None = None
    valid_values: list[Any] | None = None
    query: str | None = None
    engine: str | None = None
    implementation: Any = None
    severity: str = "error"
    unit: str = "rows"
    must_be: Any = None
    must_not_be: Any = None
    must_be_greater_than: float | None = None
    must_be_greater_or_equal_to: float | None = None
    must_be_less_than: float | None = None
    must_be_less_or_equal_to: float | None = None
    must_be_between: tuple[float, float] | None = None
    must_not_be_between: tuple[float, float] | None = None
    dimension: str | None = None
    method: str | None = None
    schedule: str | None = None
    scheduler: str | None = None
    business_impact: str | None = None
    tags: Any = None
    custom_properties: Any = None
    authoritative_definitions: Any = None


class _Element(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    id: str | None = None
    name: str
    physical_name: str | None = None
    physical_type: str | None = None
    description: str | None = None
    business_name: str | None = None
    authoritative_definitions: Any = None
    tags: list[str] = []
    custom_properties: list[_Custom] = []
    quality: list[_Quality] = []
    relationships: Any = None


class _Property(_Element, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    name: str = ""
    logical_type: LogicalType | None = None
    logical_type_options: dict[str, Any] = {}
    required: bool = False
    unique: bool = False
    primary_key: bool = False
    primary_key_position: int = -1
    partitioned: bool = False
    partition_key_position: int = -1
    classification: str = ""
    encrypted_name: str | None = None
    transform_source_objects: Any = None
    transform_logic: str | None = None
    transform_description: str | None = None
    examples: Any = None
    critical_data_element: bool = False
    properties: list[_Property] = []
    items: _Property | None = None


class _Object(_Element, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    logical_type: str | None = None
    data_granularity_description: str | None = None
    properties: list[_Property]


class _File(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    api_version: str
    kind: str
    id: str
    version: str
    status: str
    name: str | None = None
    tenant: str | None = None
    domain: str | None = None
    data_product: str | None = None
    description: Any = None
    tags: Any = None
    servers: Any = None
    schema: list[_Object]
    support: Any = None
    price: Any = None
    team: Any = None
    roles: Any = None
    sla_default_element: str | None = None
    sla_properties: Any = None
    authoritative_definitions: Any = None
    custom_properties: Any = None
    contract_created_ts: Any = None


_SHAPES: Final[dict[str, type[msgspec.Struct]]] = {
    "schema": _Object,
    "properties": _Property,
    "items": _Property,
    "quality": _Quality,
    "customProperties": _Custom,
}


def parse_contract(text: bytes, *, where: str, table: str | None = None) -> DataContract:
    """Read one ODCS v3 file.

    Args:
        text: the file's bytes, UTF-8.
        where: the file's name, for messages.
        table: which schema object to take when the file holds several.

    Raises:
        ContractInvalid: not YAML, not ODCS v3, or a rule that contradicts itself. Message and facts hold
            file, line and path, for example `contracts/flights.odcs.yaml:31: schema[0].properties[4].unit`.
    """
    source = _Source(where)
    plain = source.read(text)
    if not isinstance(plain, dict):
        raise source.fault("", "the document must be a mapping", "start with apiVersion: v3.1.0")
    try:
        file = msgspec.convert(plain, type=_File)
    except msgspec.ValidationError as error:
        raise source.explain(str(error)) from error
    if file.kind != "DataContract":
        raise source.fault("kind", f"{file.kind!r} is not a data contract", "write kind: DataContract")
    if re.fullmatch(r"v3\.\d+\.\d+", file.api_version) is None:
        raise source.fault("apiVersion", f"version {file.api_version!r} is not ODCS 3", "write v3.1.0")
    index = _choose(file.schema, table, source)
    return _Reader(source, file, index).contract()


def _choose(objects: list[_Object], table: str | None, source: _Source) -> int:
    names = [thing.name for thing in objects]
    if table is None:
        if len(objects) != 1:
            raise source.fault("schema", f"the file holds {len(objects)} tables", "keep one table per file")
        return 0
    if table not in names:
        raise source.fault("schema", f"no table {table!r} in the file", did_you_mean(table, names))
    return names.index(table)


class _Reader:
    """Turns one schema object of a file into a contract."""

    def __init__(self, source: _Source, file: _File, index: int) -> None:
        self.source = source
        self.file = file
        self.thing = file.schema[index]
        self.path = f"schema[{index}]"
        self.rules: list[Rule] = []
        self.roles: dict[str, list[str]] = {
            "entityKey": [], "label": [], "eventAt": [], "availableAt": []
        }  # fmt: skip

    def contract(self) -> DataContract:
        try:
            dataset = dataset_name(self.thing.name)
        except Invalid as error:
            raise self.source.fault(f"{self.path}.name", error.message, error.remedy) from error
        columns: list[ContractColumn] = []
        for i, prop in enumerate(self.thing.properties):
            column = self._column(prop, f"{self.path}.properties[{i}]")
            if any(column.name == other.name for other in columns):
                path = f"{self.path}.properties[{i}].name"
                raise self.source.fault(path, f"column {column.name!r} appears twice", "remove one of them")
            columns.append(column)
        key = self._primary_key()
        for i, quality in enumerate(self.thing.quality):
            self._quality(quality, f"{self.path}.quality[{i}]", None)
        return DataContract(
            dataset=dataset,
            id=self.file.id,
            version=self.file.version,
            status=self.file.status,
            columns=tuple(columns),
            rules=tuple(self.rules),
            dates_hold_times=self.file.api_version.startswith("v3.0."),
            primary_key=key,
            entity_key=tuple(self.roles["entityKey"]),
            label=self._one("label"),
            event_at=self._one("eventAt"),
            available_at=self._one("availableAt"),
        )

    def _one(self, role: str) -> str | None:
        names = self.roles[role]
        if len(names) > 1:
            path, shown = f"{self.path}.properties", " and ".join(map(repr, names))
            raise self.source.fault(path, f"lockgate.{role} is set on {shown}", "set it on one column")
        return names[0] if names else None

    def _primary_key(self) -> tuple[str, ...]:
        members = [prop for prop in self.thing.properties if prop.primary_key]
        members.sort(key=lambda prop: prop.primary_key_position)
        names = tuple(_physical(prop) for prop in members)
        if names:
            self.rules.append(Rule(metric="primaryKey", columns=names))
        return names

    def _column(self, prop: _Property, path: str) -> ContractColumn:
        if not prop.name:
            raise self.source.fault(path, "the property has no name", "add name: COLUMN")
        name = _physical(prop)
        private = prop.classification.lower() not in _PUBLIC
        private = private or any(tag.lower() in ("private", "pii") for tag in prop.tags)
        purposes: tuple[str, ...] = ()
        for i, custom in enumerate(prop.custom_properties):
            key = custom.property
            if not key.startswith("lockgate."):
                continue
            here, word = f"{path}.customProperties[{i}]", key.removeprefix("lockgate.")
            if word in self.roles:
                if self._is(custom.value, bool, f"{here}.value", "true or false"):
                    self.roles[word].append(name)
            elif word == "privacy":
                tag = self._is(custom.value, str, f"{here}.value", "a word, for example private")
                private = tag.lower() not in _PUBLIC
            elif word == "purpose":
                listed = custom.value if isinstance(custom.value, list) else [custom.value]
                purposes = tuple(
                    self._is(v, str, f"{here}.value", "a word or a list of words") for v in listed
                )
            else:
                known = [f"lockgate.{role}" for role in (*self.roles, "privacy", "purpose")]
                raise self.source.fault(f"{here}.property", f"{key!r} is unknown", did_you_mean(key, known))
        self._implied(prop, name, path)
        zone = prop.logical_type_options.get("timezone")
        return ContractColumn(
            name=name, type=prop.logical_type, zone=zone, private=private, purposes=purposes
        )

    def _implied(self, prop: _Property, name: str, path: str) -> None:
        """The rules that keywords of a column stand for."""
        if prop.required or prop.primary_key:
            self.rules.append(Rule(metric="required", columns=(name,)))
        if prop.unique:
            self.rules.append(Rule(metric="unique", columns=(name,)))
        for option, value in prop.logical_type_options.items():
            self._option(prop.logical_type, option, value, name, f"{path}.logicalTypeOptions")
        for i, quality in enumerate(prop.quality):
            self._quality(quality, f"{path}.quality[{i}]", prop)
        if any(_promises(nested) for nested in [*prop.properties, *([prop.items] if prop.items else [])]):
            problem = "promises about nested values cannot be evaluated"
            self.rules.append(Rule(metric="nested", columns=(name,), problem=problem))

    def _option(self, kind: LogicalType | None, option: str, value: Any, name: str, path: str) -> None:
        allowed = _OPTIONS.get(kind or "", ())
        here = f"{path}.{option}"
        if option not in allowed:
            whose = f"a {kind}" if kind else "a property without logicalType"
            raise self.source.fault(here, f"{whose} has no option {option!r}", did_you_mean(option, allowed))
        if option in ("format", "defaultTimezone"):
            return
        if option == "timezone":
            self._is(value, bool, here, "true or false")
            return
        problem = None
        if option == "uniqueItems":
            if not self._is(value, bool, here, "true or false"):
                return
        elif option in ("minProperties", "maxProperties", "required"):
            problem, value = f"{option} of objects cannot be evaluated", None
        elif option in ("minLength", "maxLength", "minItems", "maxItems"):
            self._is(value, int, here, "a whole number")
        elif option == "pattern":
            self._is(value, str, here, "a regular expression in quotes")
        elif kind in ("date", "timestamp", "time"):
            value = self._instant(kind, value, here)
        else:
            self._is(value, int | float, here, "a number")
            if option == "multipleOf" and value <= 0:
                raise self.source.fault(here, f"{value} is not above 0", "write a positive number")
        self.rules.append(Rule(metric=option, columns=(name,), value=value, problem=problem))

    def _instant(self, kind: str, value: Any, path: str) -> str:
        text: str = self._is(value, str, path, "ISO 8601 text, for example 2013-01-01")
        reader = datetime.time.fromisoformat if kind == "time" else datetime.datetime.fromisoformat
        try:
            reader(text)
        except ValueError as error:
            raise self.source.fault(path, f"{text!r} is no {kind}", "write ISO 8601") from error
        return text

    def _quality(self, quality: _Quality, path: str, prop: _Property | None) -> None:
        kind = quality.type or ("sql" if quality.query is not None else "library")
        if kind == "text":
            return  # prose about quality, for people; the standard gives it no meaning a program could check
        columns = () if prop is None else (_physical(prop),)
        name = quality.name or ""
        if kind == "library":
            self.rules.append(self._library(quality, path, prop, columns, name))
        elif kind == "sql":
            if not quality.query:
                raise self.source.fault(path, "a sql rule needs a query", "add query: SELECT ...")
            comparison = self._comparison(quality, path, None)
            self.rules.append(
                Rule(
                    metric="sql",
                    columns=columns,
                    name=name,
                    comparison=comparison,
                    severity=quality.severity,
                    query=quality.query,
                )
            )
        else:
            engine = f" of {quality.engine}" if quality.engine else ""
            problem = f"rules of type {kind!r}{engine} cannot be evaluated"
            self.rules.append(
                Rule(metric=kind, columns=columns, name=name, severity=quality.severity, problem=problem)
            )

    def _library(
        self, quality: _Quality, path: str, prop: _Property | None, columns: tuple[str, ...], name: str
    ) -> Rule:
        word = quality.metric or quality.rule
        if word is None:
            raise self.source.fault(path, "the rule names no metric", "add metric: " + " | ".join(_METRICS))
        metric = _OLD_RULES.get(word, word)
        if metric not in _METRICS:
            problem = f"metric {word!r} is not known; {did_you_mean(word, _METRICS)}"
            return Rule(metric=word, columns=columns, name=name, severity=quality.severity, problem=problem)
        if quality.unit not in ("rows", "percent"):
            raise self.source.fault(f"{path}.unit", f"unit {quality.unit!r}", "write rows or percent")
        values, pattern = self._arguments(quality, metric, path, prop)
        arguments = quality.arguments or {}
        if metric == "rowCount":
            columns = ()
        elif prop is None:
            listed = arguments.get("properties") if metric == "duplicateValues" else None
            if not isinstance(listed, list) or not listed:
                raise self.source.fault(
                    path,
                    f"{metric} on a table names no columns",
                    "move it to a column, or add arguments.properties",
                )
            columns = tuple(self._resolve(item, f"{path}.arguments.properties") for item in listed)
        return Rule(
            metric=metric,
            columns=columns,
            name=name,
            comparison=self._comparison(quality, path, NONE_ALLOWED if word in _OLD_RULES else None),
            unit="percent" if quality.unit == "percent" else "rows",
            severity=quality.severity,
            value=pattern,
            values=values,
        )

    def _resolve(self, item: Any, path: str) -> str:
        names = {prop.name: _physical(prop) for prop in self.thing.properties}
        if item not in names:
            raise self.source.fault(path, f"no column {item!r}", did_you_mean(str(item), names))
        return names[str(item)]

    def _arguments(
        self, quality: _Quality, metric: str, path: str, prop: _Property | None
    ) -> tuple[tuple[Scalar, ...], str | None]:
        arguments = dict(quality.arguments or {})
        if quality.valid_values is not None:
            arguments.setdefault("validValues", quality.valid_values)
        allowed = {
            "invalidValues": ("validValues", "pattern"),
            "missingValues": ("missingValues",),
            "duplicateValues": ("properties",),
        }.get(metric, ())
        for key in arguments:
            if key not in allowed:
                here = f"{path}.arguments.{key}"
                raise self.source.fault(here, f"{metric} has no argument {key!r}", did_you_mean(key, allowed))
        if metric == "missingValues" and "missingValues" not in arguments:
            return (None, ""), None
        values = arguments.get("validValues", arguments.get("missingValues", []))
        if not isinstance(values, list):
            raise self.source.fault(f"{path}.arguments", "the values must be a list", "write [A, B]")
        kind = prop.logical_type if prop else None
        for i, value in enumerate(values):
            self._listed(value, kind, f"{path}.arguments.{next(iter(arguments))}[{i}]")
        pattern = arguments.get("pattern")
        if pattern is not None:
            self._is(pattern, str, f"{path}.arguments.pattern", "a regular expression in quotes")
        if metric == "invalidValues" and not values and pattern is None:
            raise self.source.fault(
                path, "nothing says what is valid", "add arguments.validValues or pattern"
            )
        return tuple(values), pattern

    def _listed(self, value: Any, kind: str | None, path: str) -> None:
        if value is not None and not isinstance(value, str | int | float):
            raise self.source.fault(path, "a listed value must be a plain value", "write text or a number")
        if kind == "string" and value is not None and not isinstance(value, str):
            # YAML reads an unquoted NO as false and 007 as 7.
            shown = str(value).lower() if isinstance(value, bool) else repr(value)
            raise self.source.fault(path, f"YAML reads this as {shown}, not as text", "put it in quotes")

    def _comparison(self, quality: _Quality, path: str, default: Comparison | None) -> Comparison:
        given = [(key, operator) for key, operator in _OPERATORS if getattr(quality, key) is not None]
        if not given and default is not None:
            return default
        if len(given) != 1:
            found = "no comparison" if not given else f"{len(given)} comparisons"
            raise self.source.fault(path, f"the rule has {found}", "give exactly one, for example mustBe: 0")
        key, operator = given[0]
        bound = getattr(quality, key)
        if isinstance(bound, tuple):
            if bound[0] > bound[1]:
                raise self.source.fault(
                    path, f"{bound[0]:g} is above {bound[1]:g}", "write the lower number first"
                )
            return Comparison(operator, float(bound[0]), float(bound[1]))
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise self.source.fault(path, f"{bound!r} is not a number", "compare with a number")
        return Comparison(operator, float(bound))

    def _is(self, value: Any, kind: Any, path: str, wanted: str) -> Any:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.source.fault(path, f"{value!r} is not {wanted}", f"write {wanted}")
        return value


_BOUNDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "format")
_OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "integer": (*_BOUNDS, "multipleOf"),
    "number": (*_BOUNDS, "multipleOf"),
    "date": _BOUNDS,
    "timestamp": (*_BOUNDS, "timezone", "defaultTimezone"),
    "time": (*_BOUNDS, "timezone", "defaultTimezone"),
    "array": ("minItems", "maxItems", "uniqueItems"),
    "object": ("minProperties", "maxProperties", "required"),
}
_OPERATORS: Final[tuple[tuple[str, Operator], ...]] = (
    ("must_be", "="),
    ("must_not_be", "!="),
    ("must_be_greater_than", ">"),
    ("must_be_greater_or_equal_to", ">="),
    ("must_be_less_than", "<"),
    ("must_be_less_or_equal_to", "<="),
    ("must_be_between", "between"),
    ("must_not_be_between", "not between"),
)


def _physical(prop: _Property) -> str:
    return prop.physical_name or prop.name


def _promises(prop: _Property) -> bool:
    nested = [*prop.properties, *([prop.items] if prop.items else [])]
    own = prop.required or prop.unique or prop.logical_type_options or prop.quality
    return bool(own) or any(map(_promises, nested))


class _Source:
    """A YAML text whose values remember their lines."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: dict[str, int] = {"": 1}
        self._n_nodes = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def fault(self, path: str, what: str, remedy: str) -> ContractInvalid:
        line = self._line(path)
        at = f"{self.where}:{line}: " + (f"{path}: " if path else "")
        return ContractInvalid(f"{at}{what}", remedy=remedy, file=self.where, line=line, path=path)

    def read(self, text: bytes) -> Any:
        try:
            node = yaml.compose(text.decode("utf-8-sig"), Loader=yaml.SafeLoader)
        except UnicodeDecodeError as error:
            self.lines[""] = text.count(b"\n", 0, error.start) + 1
            raise self.fault("", "the file is not UTF-8", "save it as UTF-8") from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self.lines[""] = mark.line + 1 if mark else 1
            raise self.fault(
                "", f"not YAML: {error.problem}", "correct the line, or the one above"
            ) from error
        except (yaml.YAMLError, RecursionError) as error:
            raise self.fault("", f"not YAML: {error}", "correct the file") from error
        return None if node is None else self._plain(node, "", 0)

    def _plain(self, node: yaml.Node, path: str, depth: int) -> Any:
        self._n_nodes += 1
        self.lines.setdefault(path, node.start_mark.line + 1)
        if depth > _MAX_DEPTH or self._n_nodes > _MAX_NODES:
            raise self.fault(path, "the document is too deep or too large", "split it, and drop aliases")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(node.value)]
        try:
            value = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise self.fault(path, f"cannot read {node.value!r}", "put it in quotes") from error
        if isinstance(value, datetime.date):
            return value.isoformat()
        return value

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            here = f"{path}.{key}" if path else str(key)
            if not isinstance(key, str) or key_node.tag == "tag:yaml.org,2002:merge":
                self.lines[here] = key_node.start_mark.line + 1
                raise self.fault(here, "only plain keys are allowed", "write the keys out")
            if key in result:
                self.lines[here] = key_node.start_mark.line + 1
                raise self.fault(here, f"key {key!r} is given twice", "remove one of them")
            self.lines[here] = key_node.start_mark.line + 1
            result[key] = self._plain(value_node, here, depth + 1)
        return result

    def explain(self, message: str) -> ContractInvalid:
        """msgspec's complaint, with the line and the near matches added."""
        what, _, tail = message.partition(" - at `")
        path = tail.rstrip("`").removeprefix("$").removeprefix(".")
        unknown = re.match(r"Object contains unknown field `(.*)`", what)
        if unknown is not None:
            key = unknown[1]
            last = re.sub(r"\[\d+\]", "", path).rpartition(".")[2]
            shape = _SHAPES.get(last, _File)
            here = f"{path}.{key}" if path else key
            return self.fault(
                here, f"ODCS has no key {key!r} here", did_you_mean(key, shape.__struct_encode_fields__)
            )
        missing = re.match(r"Object missing required field `(.*)`", what)
        if missing is not None:
            return self.fault(path, f"key {missing[1]!r} is missing", f"add {missing[1]}:")
        wrong = what[:1].lower() + what[1:].replace("`", "")
        return self.fault(path, wrong, "write the value in the type ODCS asks for; quote text")

    def _line(self, path: str) -> int:
        """The line of `path`, or of the nearest thing around it that has one."""
        while path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines[path]
