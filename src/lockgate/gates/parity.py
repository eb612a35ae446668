"""Do two runtimes compute the same, and does serving repeat its golden predictions?

Some conversions succeed and are wrong, mostly where the evaluation rows never go: a null, a category the
training data did not hold. So parity is measured twice: on the evaluation rows, and on probe rows that differ
from a plain row in one input each (`probe_rows`). Both figures are exact maxima over the rows, not estimates,
so there is no interval: the gate passes when no judged row is beyond the limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from lockgate.core.digests import Digest
from lockgate.gates.evidence import (
    ANYTHING,
    Baseline,
    Evidence,
    GateInputInvalid,
    MissingInput,
    Subject,
    guarded,
    guarded_all,
    kept,
    record,
    settle,
)
from lockgate.gates.ports import Probe

_PARITY, _GOLDEN = "model.parity", "model.infra"
_N_SHOWN = 3


class ContractInput(Protocol):
    """An input of a model contract, as far as probe rows need it; `registry.packages.contract.InputField` is one."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def categories(self) -> Sequence[str]: ...
    @property
    def nullable(self) -> bool: ...
    @property
    def minimum(self) -> float | None: ...
    @property
    def maximum(self) -> float | None: ...


class ProbeRow(NamedTuple):
    """A row that asks one question; `label` says which, for example `carrier unseen`."""

    label: str
    row: dict[str, object]


def probe_rows(
    inputs: Sequence[ContractInput], bases: Sequence[Mapping[str, object]] = ()
) -> tuple[ProbeRow, ...]:
    """Rows that serving accepts and training data rarely holds: one input changed at a time.

    Per base row: each nullable input null; each category input with a value outside its categories; each
    bounded number at its bounds; all nullable inputs null at once; and the base row as it is.

    Args:
        inputs: of the model contract, in order.
        bases: rows to change, each with every input; none: one plain row made from the contract
            (middle of the range, first category, False). More bases reach more branches of a tree.
    Raises:
        MissingInput: no inputs, or a base row lacks one.
    """
    if not inputs:
        raise MissingInput("the contract has no inputs", remedy="declare the inputs of the model")
    found: list[ProbeRow] = []
    for number, base in enumerate(bases or [{field.name: _plain(field) for field in inputs}]):
        missing = [field.name for field in inputs if field.name not in base]
        if missing:
            raise MissingInput(f"base row {number} lacks {', '.join(missing)}", remedy="give every input")
        where = f" in base row {number}" if bases else ""
        row = {field.name: base[field.name] for field in inputs}
        found.append(ProbeRow(f"as it is{where}", dict(row)))
        for field in inputs:
            found += [
                ProbeRow(f"{field.name} {label}{where}", {**row, field.name: value})
                for label, value in _odd_values(field)
            ]
        nulls: dict[str, object] = {field.name: None for field in inputs if field.nullable}
        if len(nulls) > 1:
            found.append(ProbeRow(f"all nulls{where}", {**row, **nulls}))
    return tuple(found)


def _odd_values(field: ContractInput) -> list[tuple[str, object]]:
    odd: list[tuple[str, object]] = [("null", None)] if field.nullable else []
    if field.dtype == "category":
        unseen = "unseen"
        while unseen in field.categories:
            unseen += "-value"
        odd.append(("unseen", unseen))
    elif field.dtype == "bool":
        odd.append(("true", True))
    else:
        low, high = _bounds(field)
        odd += [("at its minimum", low)] if field.minimum is not None else []
        odd += [("at its maximum", high)] if field.maximum is not None else []
    return odd


def _plain(field: ContractInput) -> object:
    if field.dtype == "category":
        return field.categories[0]
    if field.dtype == "bool":
        return False
    low, high = _bounds(field)
    if field.minimum is None or field.maximum is None:
        return min(max(low, type(low)(0)), high)
    return (low + high) // 2 if isinstance(low, int) and isinstance(high, int) else low / 2 + high / 2


def _bounds(field: ContractInput) -> tuple[float, float]:
    """The range of a number, in values the contract admits; an open end is as far as zero needs it."""
    low = 0.0 if field.minimum is None else field.minimum
    high = max(0.0, low) if field.maximum is None else field.maximum
    low = min(low, high) if field.minimum is None else low
    return (math.ceil(low), math.floor(high)) if field.dtype == "int" else (float(low), float(high))


def _predictions(values: Any, whose: str) -> npt.NDArray[np.float64]:
    array = np.asarray(values)
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiub" or isinstance(values, np.ma.MaskedArray):
        raise GateInputInvalid(
            f"the {whose} predictions are {array.dtype} of shape {array.shape}",
            remedy="give one number per row, shape (n,), or one per row and class, shape (n, k)",
        )
    if array.size == 0:
        raise MissingInput(f"there are no {whose} predictions", remedy="give at least one row")
    bad = np.flatnonzero(~np.isfinite(array.reshape(array.shape[0], -1)).all(axis=1))
    if bad.size:
        raise GateInputInvalid(
            f"{bad.size:,} of {array.shape[0]:,} {whose} predictions are not finite, first at row {bad[0]:,}",
            remedy="find out which input makes the model answer NaN",
        )
    return array.astype(np.float64)


def _differences(
    serving: Any, other: Any, whose: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Both sets of predictions and the largest absolute difference of each row, shape (n,)."""
    a, b = _predictions(serving, "serving"), _predictions(other, whose)
    if a.shape != b.shape:
        raise GateInputInvalid(
            f"serving gives shape {a.shape}, {whose} gives {b.shape}",
            remedy="predict the same rows with both",
        )
    return a, b, np.abs(a - b).reshape(a.shape[0], -1).max(axis=1)


def parity(
    serving: Any,
    native: Any,
    *,
    rows: str,
    tolerance: float = 1e-5,
    decision_threshold: float = 0.5,
    max_flips: int = 0,
    labels: Sequence[str] = (),
    native_runtime: str = "native",
    subject: Subject = ANYTHING,
) -> tuple[Evidence, ...]:
    """Gate `model.parity` on predictions for the same rows from the serving and the native runtime.

    Args:
        serving: (n,) or (n, k) predictions of the runtime that will serve.
        native: of the training library, same shape.
        rows: what the rows are, `evaluation` or `probes`; becomes the slice `rows`.
        tolerance: largest accepted absolute difference of one prediction.
        decision_threshold: for (n,): a row flips when one runtime reaches it and the other does not.
            For (n, k) a row flips when the largest class differs.
        max_flips: accepted number of flipped rows.
        labels: (n,) names of the rows, to say which one differs.
        native_runtime: its name, for people.
    Returns:
        Two records, `max_abs_difference` and `n_flips`; one `error` record when they cannot be had.
    """
    subject = subject.of(rows=rows)
    baseline = Baseline(kind="native", ref=native_runtime)

    def judge() -> tuple[Evidence, ...]:
        if not (math.isfinite(tolerance) and tolerance >= 0 and max_flips >= 0):
            raise GateInputInvalid("a negative or infinite limit", remedy="give a tolerance of 0 or more")
        if not math.isfinite(decision_threshold):
            # Nothing is above NaN, so nothing would ever flip.
            raise GateInputInvalid("the decision threshold is no number", remedy="give a finite threshold")
        a, b, apart = _differences(serving, native, "native")
        if labels and len(labels) != apart.size:
            raise GateInputInvalid(f"{len(labels)} labels for {apart.size} rows", remedy="label every row")
        if a.ndim == 2 and a.shape[1] > 1:
            flipped = np.flatnonzero(a.argmax(axis=1) != b.argmax(axis=1))
        else:
            flat_a, flat_b = a.reshape(-1), b.reshape(-1)
            flipped = np.flatnonzero((flat_a >= decision_threshold) != (flat_b >= decision_threshold))
        beyond = np.flatnonzero(apart > tolerance)
        beyond = beyond[np.argsort(-apart[beyond], kind="stable")]
        show = partial(_shown, a=a, b=b, labels=labels, whose="native")
        return (
            _at_most(
                _PARITY,
                "max_abs_difference",
                subject,
                a,
                kept(apart.max()),
                tolerance,
                baseline,
                show(beyond),
            ),
            _at_most(
                _PARITY, "n_flips", subject, a, float(flipped.size), float(max_flips), baseline, show(flipped)
            ),
        )

    return guarded_all(
        _PARITY,
        "max_abs_difference",
        judge,
        subject=subject,
        comparator="at_most",
        threshold=tolerance,
        baseline=baseline,
    )


def runtime_parity(
    serving: Probe,
    native: Probe,
    *,
    columns: Mapping[str, Any],
    inputs: Sequence[ContractInput],
    bases: Sequence[Mapping[str, object]] = (),
    tolerance: float = 1e-5,
    decision_threshold: float = 0.5,
    max_flips: int = 0,
    subject: Subject = ANYTHING,
) -> tuple[Evidence, ...]:
    """Gate `model.parity` on running models: the evaluation rows, then the probe rows of the contract.

    Args:
        columns: the evaluation set, one (n,) column per input.
        inputs, bases: see `probe_rows`.
        tolerance, decision_threshold, max_flips: see `parity`.
    Returns:
        Two records for each of the slices `rows=evaluation` and `rows=probes`; a runtime that crashes gives
        one `error` record for that slice.
    """

    def on_columns() -> tuple[Evidence, ...]:
        return judge(serving.predict_columns(columns), native.predict_columns(columns), rows="evaluation")

    def on_probes() -> tuple[Evidence, ...]:
        probes = probe_rows(inputs, bases)
        rows = [probe.row for probe in probes]
        return judge(
            serving.predict_rows(rows),
            native.predict_rows(rows),
            rows="probes",
            labels=[probe.label for probe in probes],
        )

    judge = partial(
        parity,
        tolerance=tolerance,
        decision_threshold=decision_threshold,
        max_flips=max_flips,
        native_runtime=_runtime(native),
        subject=subject,
    )
    return tuple(
        item
        for rows, run in (("evaluation", on_columns), ("probes", on_probes))
        for item in guarded_all(
            _PARITY,
            "max_abs_difference",
            run,
            subject=subject.of(rows=rows),
            comparator="at_most",
            threshold=tolerance,
        )
    )


def _runtime(probe: Probe) -> str:
    try:
        return str(probe.runtime)
    except Exception:  # noqa: BLE001 - a broken probe is judged by its predictions, not by its name
        return "native"


def golden(
    predicted: Any,
    expected: Any,
    *,
    tolerance: float = 0.0,
    runtime: str = "serving",
    package: Digest | None = None,
    subject: Subject = ANYTHING,
) -> Evidence:
    """Gate `model.infra`: serving repeats the predictions that the package carries.

    Args:
        predicted: (n,) or (n, k), from the exact runtime that will serve.
        expected: same shape, from the package.
        tolerance: 0 demands the same bits; between two runtimes allow for their rounding.
        runtime: name and version of the runtime, for people.
        package: digest of the package the rows come from.
    Returns:
        One record, `max_abs_difference`. No golden rows is an error: there was nothing to repeat.
    """
    baseline = Baseline(kind="golden", ref="golden rows", digest=package)

    def judge() -> Evidence:
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise GateInputInvalid("a negative or infinite limit", remedy="give a tolerance of 0 or more")
        a, b, apart = _differences(predicted, expected, "golden")
        beyond = np.flatnonzero(apart > tolerance)
        details = _shown(beyond, a=a, b=b, labels=(), whose="golden")
        details = (*details, f"runtime: {runtime}")
        return _at_most(
            _GOLDEN, "max_abs_difference", subject, a, kept(apart.max()), tolerance, baseline, details
        )

    return guarded(
        _GOLDEN,
        "max_abs_difference",
        judge,
        subject=subject,
        comparator="at_most",
        threshold=tolerance,
        baseline=baseline,
    )


def golden_rows(
    serving: Probe,
    rows: Sequence[Mapping[str, object]],
    expected: Any,
    *,
    tolerance: float = 0.0,
    package: Digest | None = None,
    subject: Subject = ANYTHING,
) -> Evidence:
    """`golden` on a running model: it is asked for the golden rows as a request would ask."""

    def judge() -> Evidence:
        if not rows:
            raise MissingInput("the package has no golden rows", remedy="build it with golden rows")
        return golden(
            serving.predict_rows(rows),
            expected,
            tolerance=tolerance,
            runtime=serving.runtime,
            package=package,
            subject=subject,
        )

    return guarded(
        _GOLDEN, "max_abs_difference", judge, subject=subject, comparator="at_most", threshold=tolerance
    )


def _at_most(
    gate: str,
    metric: str,
    subject: Subject,
    rows: npt.NDArray[np.float64],
    value: float,
    limit: float,
    baseline: Baseline,
    details: Sequence[str],
) -> Evidence:
    verdict, reason = settle(value, None, "at_most", limit)
    return record(
        gate,
        metric,
        subject,
        n=rows.shape[0],
        value=value,
        baseline=baseline,
        comparator="at_most",
        threshold=limit,
        verdict=verdict,
        reason=reason,
        details=details,
    )


def _shown(
    found: npt.NDArray[np.int64],
    a: npt.NDArray[np.float64],
    b: npt.NDArray[np.float64],
    labels: Sequence[str],
    whose: str,
) -> tuple[str, ...]:
    """The first few rows of `found` in words, and how many there are."""
    lines = []
    for row in found[:_N_SHOWN].tolist():
        name = labels[row] if labels else f"row {row:,}"
        # Seven digits for people, all of them where seven would show two equal figures.
        left, right = next(
            (
                pair
                for pair in ((_written(a[row], n), _written(b[row], n)) for n in (7, 17))
                if pair[0] != pair[1]
            ),
            (_written(a[row], 17), _written(b[row], 17)),
        )
        lines.append(f"{name}: serving {left}, {whose} {right}")
    if found.size > _N_SHOWN:
        lines.append(f"and {found.size - _N_SHOWN:,} rows more")
    return tuple(lines)


def _written(prediction: Any, n_digits: int) -> str:
    return " ".join(f"{value:.{n_digits}g}" for value in np.atleast_1d(prediction).tolist())
