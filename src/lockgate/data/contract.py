"""Data contracts: what a dataset promises, and the check that a table keeps the promise.

`check_contract` costs one pass. Presence and types are answered from the schema alone. Every rule that can be
said of a row ("this value is bad") becomes one `count_if` in a single aggregate SELECT; uniqueness is counted
apart, because a hash of all keys is a different kind of work. Only a rule that fails pays for a second query,
which fetches up to three offending rows for the report.

Three decisions a reader should know. A rule that cannot be evaluated (unknown, vendor-specific, or refused by
the engine) is an `error`, and an error is not a pass: a contract never holds because a rule was not
understood. NaN in a float column counts as null, and as out of any range: to a model it is a missing value.
Values of columns tagged private are masked in example rows; messages hold counts and limits only.

What is bad, per metric: `required`/`nullValues` null; `missingValues` any of the listed stand-ins;
`invalidValues` not null and neither listed nor matching; `minimum` and the like as in ODCS's
logicalTypeOptions; `pattern` not found anywhere in the text (RE2 syntax, unanchored, as in JSON Schema);
`duplicateValues`/`unique` a row that repeats an earlier one (nulls repeat nothing).
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
import numpy as np
import pyarrow as pa

from lockgate.core.digests import Digest, digest_of
from lockgate.core.errors import near_matches
from lockgate.data.manifest import Column
from lockgate.data.ports import QueryFailed, QueryNotAllowed, TableEngine

LogicalType = Literal[
    "string", "date", "timestamp", "time", "number", "integer", "object", "array", "boolean"
]
Operator = Literal["=", "!=", ">", ">=", "<", "<=", "between", "not between"]
Verdict = Literal["pass", "warn", "fail", "error"]
Scalar = str | int | float | bool | None

MASK: Final = "***"
_N_EXAMPLES: Final = 3
_MAX_BITMAP_FACTOR: Final = 8


class Comparison(msgspec.Struct, frozen=True):
    """A `mustBe...` of ODCS over a number; `high` is used by the two `between` operators (inclusive)."""

    operator: Operator
    low: float
    high: float | None = None

    def holds(self, measured: float) -> bool:
        high = self.low if self.high is None else self.high
        match self.operator:
            case "=":
                return measured == self.low
            case "!=":
                return measured != self.low
            case ">":
                return measured > self.low
            case ">=":
                return measured >= self.low
            case "<":
                return measured < self.low
            case "<=":
                return measured <= self.low
            case "between":
                return self.low <= measured <= high
            case "not between":
                return not self.low <= measured <= high

    def __str__(self) -> str:
        if self.high is None:
            return f"{self.operator} {self.low:g}"
        return f"{self.operator} {self.low:g} and {self.high:g}"


NONE_ALLOWED: Final = Comparison("=", 0)


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One promise.

    Attributes:
        metric: the ODCS metric, the keyword that implies the rule (`required`, `minimum`, ...), `sql`, or
            whatever unknown word the contract used.
        columns: which columns it is about; empty for the table as a whole.
        comparison: what the measured number must satisfy; by default no row may be bad.
        severity: `error` blocks, `warning` and `info` do not; any other word blocks.
        value: the bound of `minimum`, `maxLength`, `pattern` and their like.
        values: `validValues` or `missingValues`.
        problem: why this rule cannot be evaluated at all; its check is an `error`.
    """

    metric: str
    columns: tuple[str, ...] = ()
    name: str = ""
    comparison: Comparison = NONE_ALLOWED
    unit: Literal["rows", "percent"] = "rows"
    severity: str = "error"
    value: Scalar = None
    values: tuple[Scalar, ...] = ()
    query: str | None = None
    problem: str | None = None

    @property
    def label(self) -> str:
        return self.name or self.metric


class ContractColumn(msgspec.Struct, frozen=True, kw_only=True):
    """A promised column.

    Attributes:
        name: the physical name, as it appears in the table.
        type: None when the contract leaves the type open.
        zone: whether timestamps carry a zone; None when the contract leaves it open.
        private: values are personal or confidential and never appear in a report.
        purposes: what private values may be used for.
    """

    name: str
    type: LogicalType | None = None
    zone: bool | None = None
    private: bool = False
    purposes: tuple[str, ...] = ()


class DataContract(msgspec.Struct, frozen=True, kw_only=True):
    """What Lockgate keeps of an ODCS file; prose, owners and servers are left to the file.

    Attributes:
        dataset: full name, `main/flights`.
        version: the contract's own version.
        dates_hold_times: ODCS before 3.1 had no timestamp type, so a `date` may be one.
        primary_key: columns that together name a row, in key order.
        entity_key, label, event_at, available_at: roles of columns, from `lockgate.*` custom properties.
    """

    schema: str = "lockgate.contract/1"
    dataset: str
    id: str
    version: str
    status: str
    columns: tuple[ContractColumn, ...]
    rules: tuple[Rule, ...]
    dates_hold_times: bool = False
    primary_key: tuple[str, ...] = ()
    entity_key: tuple[str, ...] = ()
    label: str | None = None
    event_at: str | None = None
    available_at: str | None = None

    @property
    def digest(self) -> Digest:
        """Changes with what is promised, not with comments, prose or layout of the file."""
        return digest_of(self)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one rule; `measured` is in the rule's unit (rows or percent), None if not measured."""

    rule: str
    column: str | None
    severity: str
    verdict: Verdict
    measured: float | None
    limit: str
    message: str


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One broken promise.

    Attributes:
        column: None when the table as a whole is at fault.
        n_rows: how many rows are at fault; all of them when a column is missing or of another type.
        examples: up to three offending rows: the key columns and the column at fault, private values masked.
        near: names that may have been meant, when a column is missing.
    """

    dataset: str
    column: str | None
    rule: str
    message: str
    n_rows: int
    examples: tuple[dict[str, Any], ...] = ()
    near: tuple[str, ...] = ()
    severity: str = "error"


class ContractReport(msgspec.Struct, frozen=True, kw_only=True):
    """Every check in contract order, and every broken promise. Holds no time: same inputs, same bytes."""

    schema: str = "lockgate.contract-report/1"
    dataset: str
    contract: Digest
    n_rows: int
    checks: tuple[Check, ...]
    violations: tuple[Violation, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all checks; `pass` when there are none."""
        order: tuple[Verdict, ...] = ("pass", "warn", "fail", "error")
        return max((check.verdict for check in self.checks), key=order.index, default="pass")


def check_contract(
    contract: DataContract, schema: Sequence[Column], engine: TableEngine, table: pa.Table
) -> ContractReport:
    """Hold `table` to `contract`.

    Args:
        schema: the table's columns, from `Snapshot.columns` or `columns_of`.
        table: the rows; only promised columns are looked at.

    Never raises for what the data or the contract contain: every such fault is a check in the report.
    `EngineExhausted` from the engine is passed on.
    """
    subject = _Subject(contract, {column.name: column.type for column in schema}, engine, table)
    outcomes = [*subject.check_schema()]
    usable = subject.usable
    probes = [_Probe(rule, *subject.plan(rule, usable)) for rule in contract.rules]
    counts = subject.count([probe.predicate for probe in probes])
    for probe, counted in zip(probes, counts, strict=True):
        outcomes.append(subject.judge(probe, counted))
    return ContractReport(
        dataset=contract.dataset,
        contract=contract.digest,
        n_rows=table.num_rows,
        checks=tuple(check for check, _ in outcomes),
        violations=tuple(violation for _, violation in outcomes if violation is not None),
    )


Outcome = tuple[Check, Violation | None]


@dataclass(frozen=True)
class _Probe:
    """A rule with its row predicate in SQL, or with the reason why there is none."""

    rule: Rule
    predicate: str | None
    problem: str | None
    silent: bool = False


class _Subject:
    """One table under one contract."""

    def __init__(
        self, contract: DataContract, types: Mapping[str, str], engine: TableEngine, table: pa.Table
    ) -> None:
        self.contract = contract
        self.types = types
        self.engine = engine
        self.table = table
        self.name = contract.dataset.rpartition("/")[2]
        self.columns = {column.name: column for column in contract.columns}
        self.usable = {
            column.name
            for column in contract.columns
            if column.name in types and _type_fits(column, types[column.name], contract.dates_hold_times)
        }

    def check_schema(self) -> list[Outcome]:
        strangers = set(self.types) - set(self.columns)
        outcomes = []
        for column in self.contract.columns:
            near: tuple[str, ...] = ()
            message = ""
            if column.name not in self.types:
                near = tuple(near_matches(column.name, strangers) or near_matches(column.name, self.types))
                message = f"column {column.name!r} is missing"
                if near:
                    message += "; did you mean " + " or ".join(map(repr, near)) + "?"
            elif column.name not in self.usable:
                promised = (column.type or "timestamp") + _zone_words(column.zone)
                message = f"column {column.name!r} is {self.types[column.name]}, the contract says {promised}"
            rule = "present" if column.name not in self.types else "type"
            outcomes.append(self._schema_outcome(column.name, rule, message, near))
        return outcomes

    def _schema_outcome(self, column: str, rule: str, message: str, near: tuple[str, ...]) -> Outcome:
        check = Check(
            rule=rule if message else "type",
            column=column,
            severity="error",
            verdict="fail" if message else "pass",
            measured=None,
            limit="",
            message=message,
        )
        if not message:
            return check, None
        return check, Violation(
            dataset=self.contract.dataset,
            column=column,
            rule=rule,
            message=message,
            n_rows=self.table.num_rows,
            near=near,
        )

    def plan(self, rule: Rule, usable: set[str]) -> tuple[str | None, str | None, bool]:
        """The row predicate of `rule`; else why it cannot be evaluated, and whether that was said already."""
        if rule.problem is not None:
            return None, rule.problem, False
        broken = [name for name in rule.columns if name not in usable]
        if broken:
            known = broken[0] in self.columns
            why = "is missing or of another type" if known else "is not in the contract"
            return None, f"not evaluated: column {broken[0]!r} {why}", known
        if len(rule.columns) == 1 and rule.metric in _PREDICATES:
            return _predicate(rule, self.types[rule.columns[0]]), None, False
        if rule.metric in ("rowCount", "duplicateValues", "unique", "primaryKey", "sql"):
            return None, None, False
        return None, f"rule {rule.metric!r} is not known", False

    def count(self, predicates: Sequence[str | None]) -> list[int | str | None]:
        """Bad rows per predicate: a number, the engine's reason for refusing, or None where there is none.

        One query for all. Only if the engine refuses it are they asked one by one, to find the culprit.
        """
        asked = [predicate for predicate in predicates if predicate is not None]
        answers: list[int | str]
        try:
            answers = list(self._count_all(asked))
        except (QueryFailed, QueryNotAllowed):
            answers = [self._count_one(predicate) for predicate in asked]
        remaining = iter(answers)
        return [None if predicate is None else next(remaining) for predicate in predicates]

    def _count_all(self, predicates: Sequence[str]) -> list[int]:
        if not predicates:
            return []
        wanted = ", ".join(
            f"coalesce(count_if({predicate}), 0) AS b{i}" for i, predicate in enumerate(predicates)
        )
        row = self._query(f"SELECT {wanted} FROM {_ident(self.name)}").to_pylist()[0]
        return [int(row[f"b{i}"]) for i in range(len(predicates))]

    def _count_one(self, predicate: str) -> int | str:
        try:
            return self._count_all([predicate])[0]
        except (QueryFailed, QueryNotAllowed) as error:
            return error.message

    def judge(self, probe: _Probe, counted: int | str | None) -> Outcome:
        rule = probe.rule
        if probe.problem is not None:
            return self._unevaluated(rule, probe.problem, silent=probe.silent)
        try:
            measured = self._measure(rule, counted)
        except (QueryFailed, QueryNotAllowed) as error:
            return self._unevaluated(rule, error.message)
        if isinstance(measured, str):
            return self._unevaluated(rule, measured)
        n_rows = self.table.num_rows
        share = 100.0 * measured / n_rows if n_rows else 0.0
        figure = share if rule.unit == "percent" and rule.metric not in ("rowCount", "sql") else measured
        if rule.comparison.holds(figure):
            return self._check(rule, "pass", figure, ""), None
        verdict: Verdict = "warn" if rule.severity in ("warning", "warn", "info") else "fail"
        message = self._message(rule, measured, figure)
        at_fault = n_rows if rule.metric in ("rowCount", "sql") else int(measured)
        return self._check(rule, verdict, figure, message), Violation(
            dataset=self.contract.dataset,
            column=_only(rule.columns),
            rule=rule.label,
            message=message,
            n_rows=at_fault,
            examples=self._examples(rule, probe.predicate),
            severity=rule.severity,
        )

    def _measure(self, rule: Rule, counted: int | str | None) -> float | str:
        """The number the rule is about, or why there is none."""
        if counted is not None:
            return counted
        if rule.metric == "rowCount":
            return self.table.num_rows
        if rule.metric == "sql":
            return self._scalar(rule)
        return self._n_duplicates(rule.columns)

    def _scalar(self, rule: Rule) -> float | str:
        sql = rule.query or ""
        for word in ("table", "object", "model"):
            sql = _fill(sql, word, _ident(self.name))
        if rule.columns:
            for word in ("column", "property", "field"):
                sql = _fill(sql, word, _ident(rule.columns[0]))
        answer = self._query(sql)
        if answer.num_rows != 1 or answer.num_columns != 1:
            return f"the query gave {answer.num_rows} rows of {answer.num_columns} columns, not one value"
        value = answer.column(0)[0].as_py()
        try:
            number = float(value)
        except (TypeError, ValueError):
            return f"the query gave {value!r}, which is no number"
        return number if math.isfinite(number) else f"the query gave {number}, which cannot be compared"

    def _n_duplicates(self, columns: Sequence[str]) -> int:
        if len(columns) == 1:
            repeats = _repeats_of_dense_integers(self.table.column(columns[0]))
            if repeats is not None:
                return repeats
        keys = ", ".join(map(_ident, columns))
        given = " AND ".join(f"{_ident(column)} IS NOT NULL" for column in columns)
        groups = f"SELECT count(*) AS n FROM {_ident(self.name)} WHERE {given} GROUP BY {keys}"
        answer = self._query(f"SELECT CAST(coalesce(sum(n - 1), 0) AS BIGINT) AS extra FROM ({groups})")
        return int(answer.column(0)[0].as_py())

    def _examples(self, rule: Rule, predicate: str | None) -> tuple[dict[str, Any], ...]:
        table = _ident(self.name)
        if rule.metric in ("duplicateValues", "unique", "primaryKey"):
            names = list(rule.columns)
            keys = ", ".join(map(_ident, names))
            given = " AND ".join(f"{_ident(name)} IS NOT NULL" for name in names)
            sql = (
                f"SELECT {keys} FROM {table} WHERE {given} GROUP BY {keys} HAVING count(*) > 1 "
                f"ORDER BY {keys} LIMIT {_N_EXAMPLES}"
            )
        elif predicate is not None:
            key = self.contract.primary_key or self.contract.entity_key
            names = list(dict.fromkeys([*(k for k in key if k in self.types), *rule.columns]))
            keys = ", ".join(map(_ident, names))
            sql = f"SELECT {keys} FROM {table} WHERE {predicate} LIMIT {_N_EXAMPLES}"
        else:
            return ()
        private = {name for name in names if name not in self.columns or self.columns[name].private}
        rows = self._query(sql).to_pylist()
        return tuple({k: MASK if k in private else _showable(v) for k, v in row.items()} for row in rows)

    def _message(self, rule: Rule, measured: float, figure: float) -> str:
        if rule.metric == "rowCount":
            return f"the table has {self.table.num_rows} rows; the contract says {rule.comparison}"
        if rule.metric == "sql":
            return f"query {rule.label!r} gave {measured:g}; the contract says {rule.comparison}"
        what = _WORDS[rule.metric]
        if rule.value is not None:
            what = f"{what} {rule.value!r}"
        message = f"{', '.join(rule.columns)}: {int(measured)} of {self.table.num_rows} rows {what}"
        if rule.comparison != NONE_ALLOWED:
            unit = "%" if rule.unit == "percent" else " rows"
            message += f" ({figure:.6g}{unit}; the contract says {rule.comparison}{unit})"
        return message

    def _unevaluated(self, rule: Rule, problem: str, *, silent: bool = False) -> Outcome:
        message = f"{rule.label}: {problem}"
        check = self._check(rule, "error", None, message)
        if silent:
            return check, None
        return check, Violation(
            dataset=self.contract.dataset,
            column=_only(rule.columns),
            rule=rule.label,
            message=message,
            n_rows=0,
            severity=rule.severity,
        )

    def _check(self, rule: Rule, verdict: Verdict, measured: float | None, message: str) -> Check:
        return Check(
            rule=rule.label,
            column=_only(rule.columns),
            severity=rule.severity,
            verdict=verdict,
            measured=measured,
            limit=str(rule.comparison),
            message=message,
        )

    def _query(self, sql: str) -> pa.Table:
        return self.engine.query(sql, {self.name: self.table})


_PREDICATES: Final[dict[str, str]] = {
    "required": "{c} IS NULL{or_nan}",
    "nullValues": "{c} IS NULL{or_nan}",
    "missingValues": "",
    "invalidValues": "",
    "minimum": "{c} < {v}{or_nan}",
    "maximum": "{c} > {v}",
    "exclusiveMinimum": "{c} <= {v}{or_nan}",
    "exclusiveMaximum": "{c} >= {v}",
    "multipleOf": "abs({c} / {v} - round({c} / {v})) > 1e-9",
    "minLength": "length({c}) < {v}",
    "maxLength": "length({c}) > {v}",
    "pattern": "NOT regexp_matches({c}, {v})",
    "minItems": "len({c}) < {v}",
    "maxItems": "len({c}) > {v}",
    "uniqueItems": "list_unique({c}) < list_count({c})",
}
_WORDS: Final[dict[str, str]] = {
    "required": "are null, but the column is required",
    "nullValues": "are null",
    "missingValues": "hold a stand-in for a missing value",
    "invalidValues": "hold a value that is not allowed",
    "minimum": "are below the minimum",
    "maximum": "are above the maximum",
    "exclusiveMinimum": "are not above the exclusive minimum",
    "exclusiveMaximum": "are not below the exclusive maximum",
    "multipleOf": "are no multiple of",
    "minLength": "are shorter than",
    "maxLength": "are longer than",
    "pattern": "do not match the pattern",
    "minItems": "have fewer items than",
    "maxItems": "have more items than",
    "uniqueItems": "hold an item twice, and items must be unique:",
    "duplicateValues": "repeat an earlier row",
    "unique": "repeat an earlier value, but the column is unique",
    "primaryKey": "repeat an earlier row's primary key",
}


def _predicate(rule: Rule, arrow_type: str) -> str:
    """SQL that is true for a bad row, and null or false for a good one."""
    column = _ident(rule.columns[0])
    or_nan = f" OR isnan({column})" if arrow_type in ("float", "double", "halffloat") else ""
    if rule.metric == "missingValues":
        listed = [_literal(value) for value in rule.values if value is not None]
        parts = [f"{column} IN ({', '.join(listed)})"] if listed else []
        if None in rule.values:
            parts.append(f"{column} IS NULL{or_nan}")
        return " OR ".join(parts) or "false"
    if rule.metric == "invalidValues":
        allowed = [_literal(value) for value in rule.values if value is not None]
        good = [f"{column} IN ({', '.join(allowed)})"] if rule.values else []
        if rule.value is not None:
            good.append(f"regexp_matches({column}, {_literal(rule.value)})")
        return f"{column} IS NOT NULL AND NOT ({' AND '.join(good)})"
    return _PREDICATES[rule.metric].format(c=column, v=_bound(rule.value, arrow_type), or_nan=or_nan)


def _bound(value: Scalar, arrow_type: str) -> str:
    """A bound as SQL; text becomes an instant, date or time when the column holds those."""
    literal = _literal(value)
    if isinstance(value, str):
        for prefix, sql_type in (("date", "DATE"), ("time32", "TIME"), ("time64", "TIME")):
            if arrow_type.startswith(prefix):
                return f"CAST({literal} AS {sql_type})"
        if arrow_type.startswith("timestamp"):
            return f"CAST({literal} AS {'TIMESTAMPTZ' if 'tz=' in arrow_type else 'TIMESTAMP'})"
    return literal


def _type_fits(column: ContractColumn, arrow_type: str, dates_hold_times: bool) -> bool:
    if column.type is None:
        return True
    if arrow_type.startswith("dictionary<values="):
        arrow_type = arrow_type.removeprefix("dictionary<values=").partition(",")[0]
    prefixes = _ARROW_TYPES[column.type]
    if column.type == "date" and dates_hold_times:
        prefixes = (*prefixes, "timestamp[")
    if not arrow_type.startswith(prefixes):
        return False
    return column.zone is None or column.zone == ("tz=" in arrow_type)


_INTEGERS: Final = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_ARROW_TYPES: Final[dict[str, tuple[str, ...]]] = {
    "string": ("string", "large_string", "string_view"),
    "integer": _INTEGERS,
    "number": (*_INTEGERS, "float", "double", "halffloat", "decimal"),
    "boolean": ("bool",),
    "date": ("date32", "date64"),
    "timestamp": ("timestamp[",),
    "time": ("time32", "time64"),
    "array": ("list", "large_list", "fixed_size_list"),
    "object": ("struct", "map"),
}


def _repeats_of_dense_integers(column: pa.ChunkedArray[Any]) -> int | None:
    """How many values repeat an earlier one; None unless all are integers within a narrow range."""
    if not pa.types.is_integer(column.type) or column.null_count or not len(column):
        return None
    values: np.ndarray[Any, np.dtype[np.integer[Any]]] = column.to_numpy()
    low, high = int(values.min()), int(values.max())
    if high - low > _MAX_BITMAP_FACTOR * len(values) or low < -(2**62) or high > 2**62:
        return None
    seen = np.zeros(high - low + 1, dtype=np.bool_)
    seen[values.astype(np.int64, copy=False) - low] = True
    return len(values) - int(seen.sum())


def _zone_words(zone: bool | None) -> str:
    return "" if zone is None else " with a zone" if zone else " without a zone"


def _only(columns: Sequence[str]) -> str | None:
    return columns[0] if len(columns) == 1 else None


def _fill(sql: str, word: str, replacement: str) -> str:
    return sql.replace("${" + word + "}", replacement).replace("{" + word + "}", replacement)


def _ident(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: Scalar) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


def _showable(value: Any) -> Any:
    """A value as JSON shows it: instants as ISO text, bytes as hex, what JSON lacks as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
