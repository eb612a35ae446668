"""Gate `perf.slices`: a version may be better on the whole and worse for one carrier. Is it, for any?

Many slices are looked at, so some look worse by chance: with twenty slices and a plain test at 0.05 two releases
of three would be stopped for nothing, and a bare tolerance on the figures stops nearly all of them where slices are
small. Hence two conditions for a *fail*: the slice is worse by more than `min_effect`, and the one-sided test that it
is worse at all holds after Holm's correction over all slices of the family. *Pass* is what it is everywhere: the
whole interval of the difference keeps the limit. In between a slice is a *warn*, and says whether more rows would
settle it. A slice with too few rows is a warn too; it neither passes nor vanishes.

Slices that were named critical beforehand are a family of their own, with an alpha of its own; they must pass:
what is not settled about them fails.

In simulation (tests/properties/test_gate_slices.py) releases that change nothing are stopped in at most 8 of 100
cases. The test is the normal approximation of the paired difference, too optimistic far out in the tail when a slice
has few rows of one class; 30 of each are required besides `min_n`, and `min_effect` guards the rest.

Sources: S. Holm, "A simple sequentially rejective multiple test procedure" (1979); paired differences as in
performance.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lockgate.core.digests import Digest
from lockgate.core.errors import did_you_mean
from lockgate.gates.evidence import (
    ANYTHING,
    Baseline,
    Comparator,
    Evidence,
    GateInputInvalid,
    Interval,
    MissingInput,
    Subject,
    TooFewRows,
    guarded_all,
    kept,
    record,
    settle,
)
from lockgate.gates.messages import Verdict
from lockgate.gates.performance import Floats, Metric, Paired, comparator_of, metric_of, paired, vector

_GATE = "perf.slices"
MIN_OF_CLASS = 30
"""Fewest rows of either class, for binary labels."""
MAX_SLICES = 200
"""More values than this are no slices: the column names single things."""


class _Limits(NamedTuple):
    metric: Metric
    comparator: Comparator
    min_effect: float
    min_n: int
    alpha: float

    @property
    def threshold(self) -> float:
        return 0.0 - self.min_effect if self.comparator == "at_least" else self.min_effect


class _Slice(NamedTuple):
    """One value of one column. `found` is None when there are too few rows, and `size` says how many there are."""

    column: str
    value: str
    critical: bool
    n: int
    size: str
    found: Paired | None

    @property
    def name(self) -> str:
        return f"{self.column}={self.value}"


class _Judged(NamedTuple):
    slice: _Slice
    adjusted: float
    verdict: Verdict
    reason: str | None
    ci: Interval | None
    why: str


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: comparing them with alpha keeps the family's error at alpha."""
    adjusted, floor, left = [0.0] * len(p_values), 0.0, len(p_values)
    for place in sorted(range(len(p_values)), key=p_values.__getitem__):
        floor = max(floor, min(1.0, left * p_values[place]))
        adjusted[place] = floor
        left -= 1
    return adjusted


def by_slice(
    metric: str,
    y: Any,
    p_new: Any,
    p_old: Any,
    columns: Mapping[str, Sequence[object]],
    *,
    min_effect: float,
    champion: str,
    champion_digest: Digest | None = None,
    min_n: int = 200,
    critical: Sequence[str] = (),
    alpha: float = 0.05,
    subject: Subject = ANYTHING,
) -> tuple[Evidence, ...]:
    """Gate `perf.slices`: for no value of any of the columns is it worse than the champion.

    Args:
        metric: a name in `METRICS`.
        y: (n,) labels.
        p_new, p_old: (n,) predictions of the judged package and of the champion, for the same rows in one order.
        columns: by name, (n,) values; each distinct value (null too) is a slice.
        min_effect: a drop up to this is no failure, in the metric's unit; >= 0.
        champion, champion_digest: its version for people, its package.
        min_n: fewest rows of a slice; for binary labels also `MIN_OF_CLASS` of either class.
        critical: slices that have to pass, `COLUMN=VALUE`.
        alpha: error rate of each of the two families: the critical slices, and all others.
    Returns:
        The worst first: a record for each slice that does not pass and each critical one, then one record
        `n_worse` for all the rest, with a line for each in its details. An `error` when something cannot be
        judged. Never raises, never empty.
    """
    comparator = comparator_of(metric)

    def judge() -> tuple[Evidence, ...]:
        limits = _limits(metric, comparator, min_effect, min_n, alpha)
        parts = _slices(limits, y, p_new, p_old, columns, _named(critical, columns))
        judged = [
            *_family([part for part in parts if part.critical], limits),
            *_family([part for part in parts if not part.critical], limits),
        ]
        baseline = Baseline(kind="champion", ref=champion, digest=champion_digest)
        return _records(sorted(judged, key=_worst_first(comparator)), limits, baseline, subject)

    return guarded_all(
        _GATE,
        metric,
        judge,
        subject=subject,
        comparator=comparator,
        threshold=0.0 - min_effect if comparator == "at_least" else min_effect,
        baseline=Baseline(kind="champion", ref=champion, digest=champion_digest),
    )


def _limits(metric: str, comparator: Comparator, min_effect: float, min_n: int, alpha: float) -> _Limits:
    if not (math.isfinite(min_effect) and min_effect >= 0):
        raise GateInputInvalid(f"min_effect {min_effect} is no tolerance", remedy="give 0 or more")
    if min_n < 2:
        raise GateInputInvalid(f"min_n {min_n} judges single rows", remedy="give 200, and 2 at least")
    if not 0 < alpha < 0.5:
        raise GateInputInvalid(f"alpha {alpha} is no error rate", remedy="give alpha between 0 and 0.5")
    return _Limits(metric_of(metric), comparator, min_effect, min_n, alpha)


def _named(critical: Sequence[str], columns: Mapping[str, object]) -> dict[str, list[str]]:
    """The critical values by column."""
    found: dict[str, list[str]] = {}
    for name in critical:
        column, equals, value = name.partition("=")
        if not equals or column not in columns:
            raise GateInputInvalid(
                f"the critical slice {name!r} is of none of the columns",
                remedy=did_you_mean(column, columns) if columns else "name its column among the columns",
            )
        found.setdefault(column, []).append(value)
    return found


def _slices(
    limits: _Limits,
    y: Any,
    p_new: Any,
    p_old: Any,
    columns: Mapping[str, Sequence[object]],
    critical: Mapping[str, list[str]],
) -> list[_Slice]:
    labels, new, old = vector(y, "labels"), vector(p_new, "predictions"), vector(p_old, "predictions")
    if not new.shape == old.shape == labels.shape:
        raise GateInputInvalid(
            f"{new.size:,} and {old.size:,} predictions for {labels.size:,} labels",
            remedy="predict exactly the judged rows, with both models",
        )
    if labels.size == 0:
        raise TooFewRows("there are no rows to judge by", remedy="give an evaluation set that has rows")
    if not columns:
        raise MissingInput("there are no columns to slice by", remedy="name the columns")
    found = []
    for column in sorted(columns):
        rows_of = _rows_by_value(column, columns[column], labels.size)
        wanted = set(critical.get(column, ()))
        for value in sorted({*rows_of, *wanted}):
            rows = rows_of.get(value, np.zeros(0, dtype=np.int64))
            found.append(_slice(limits, column, value, value in wanted, labels[rows], new[rows], old[rows]))
    return found


def _rows_by_value(column: str, values: Sequence[object], n: int) -> dict[str, npt.NDArray[np.int64]]:
    if len(values) != n:
        raise GateInputInvalid(
            f"column {column} has {len(values):,} values for {n:,} rows", remedy="give all"
        )
    texts, places = np.unique([_text(value) for value in values], return_inverse=True)
    if texts.size > MAX_SLICES:
        raise GateInputInvalid(
            f"column {column} has {texts.size:,} values, at most {MAX_SLICES} make slices",
            remedy="slice by a coarser column",
        )
    order = np.argsort(places, kind="stable")
    ends = np.cumsum(np.bincount(places))[:-1]
    return {str(text): rows for text, rows in zip(texts, np.split(order, ends), strict=True)}


def _text(value: object) -> str:
    if value is None:
        return "(null)"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _slice(
    limits: _Limits, column: str, value: str, critical: bool, y: Floats, new: Floats, old: Floats
) -> _Slice:
    enough, size = y.size >= limits.min_n, f"{limits.min_n:,} rows are needed"
    if limits.metric.labels == "binary":
        events = int((y == 1).sum())
        size = f"{events:,} rows of class 1, {y.size - events:,} of class 0; {size}, {MIN_OF_CLASS} of each class"
        enough = enough and min(events, y.size - events) >= MIN_OF_CLASS
    found = paired(limits.metric.name, y, new, old) if enough else None
    return _Slice(column, value, critical, y.size, size, found)


def _p_worse(found: Paired, comparator: Comparator) -> float:
    """One-sided: how often a model that is no worse looks at least this much worse."""
    drop = -found.delta if comparator == "at_least" else found.delta
    if found.error == 0:
        return 0.0 if drop > 0 else 1.0
    return 0.5 * math.erfc(drop / found.error / math.sqrt(2))


def _family(parts: Sequence[_Slice], limits: _Limits) -> list[_Judged]:
    tested = [part for part in parts if part.found is not None]
    raw = [_p_worse(part.found, limits.comparator) for part in tested if part.found is not None]
    adjusted = dict(zip((part.name for part in tested), zip(raw, holm(raw), strict=True), strict=True))
    judged = []
    for part in parts:
        open_verdict: Verdict = "fail" if part.critical else "warn"
        if part.found is None:
            judged.append(_Judged(part, 1.0, open_verdict, "insufficient_n", None, part.size))
            continue
        p, p_adjusted = adjusted[part.name]
        ci = part.found.interval(limits.alpha)
        verdict, reason = settle(kept(part.found.delta), ci, limits.comparator, limits.threshold)
        drop = -part.found.delta if limits.comparator == "at_least" else part.found.delta
        if p_adjusted < limits.alpha and kept(drop) > limits.min_effect:
            verdict, reason = "fail", "beyond_limit"
        elif verdict != "pass":
            verdict, reason = open_verdict, "one_of_many" if reason == "beyond_limit" else "inconclusive"
        why = f"worse with {_told(p)}, {_told(p_adjusted)} after Holm's correction for {_count(len(tested))}"
        judged.append(_Judged(part, p_adjusted, verdict, reason, ci, why))
    return judged


def _count(n: int) -> str:
    return "1 slice" if n == 1 else f"{n} slices"


def _told(p: float) -> str:
    return "p<1e-06" if p < 1e-6 else f"p={p:.2g}"


def _worst_first(comparator: Comparator) -> Any:
    def rank(one: _Judged) -> tuple[object, ...]:
        found, sign = one.slice.found, 1 if comparator == "at_least" else -1
        return (
            ("fail", "warn", "pass").index(one.verdict),
            found is None,
            one.adjusted,
            0.0 if found is None else sign * found.delta,
            one.slice.name,
        )

    return rank


def _records(
    judged: Sequence[_Judged], limits: _Limits, baseline: Baseline, subject: Subject
) -> tuple[Evidence, ...]:
    rest = [one for one in judged if one.verdict == "pass" and not one.slice.critical]
    found = [_record(one, limits, baseline, subject) for one in judged if one not in rest]
    if rest:
        found.append(
            record(
                _GATE,
                "n_worse",
                subject.of(slices="the rest" if found else "all"),
                n=len(rest),
                value=0.0,
                baseline=baseline,
                comparator="at_most",
                threshold=0.0,
                verdict="pass",
                details=[_line(one) for one in rest],
            )
        )
    return tuple(found)


def _record(one: _Judged, limits: _Limits, baseline: Baseline, subject: Subject) -> Evidence:
    found = one.slice.found
    return record(
        _GATE,
        limits.metric.name,
        subject.of(**{one.slice.column: one.slice.value}),
        n=one.slice.n,
        value=None if found is None else kept(found.new),
        baseline=Baseline(
            kind=baseline.kind,
            ref=baseline.ref,
            digest=baseline.digest,
            value=None if found is None else kept(found.old),
        ),
        delta=None if found is None else kept(found.delta),
        comparator=limits.comparator,
        threshold=limits.threshold,
        ci=one.ci,
        verdict=one.verdict,
        reason=one.reason,
        details=(f"critical: {one.why}" if one.slice.critical else one.why,),
    )


def _line(one: _Judged) -> str:
    assert one.slice.found is not None and one.ci is not None
    return (
        f"{one.slice.name} {one.slice.found.delta:+.4f} [{one.ci.low:+.4f}, {one.ci.high:+.4f}], "
        f"n={one.slice.n:,}"
    )
