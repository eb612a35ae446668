"""Parity of two runtimes, probe rows, and golden rows; with models that break in every way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lockgate.core.digests import canonical
from lockgate.gates.evidence import MissingInput, explain
from lockgate.gates.parity import golden, golden_rows, parity, probe_rows, runtime_parity
from lockgate.registry.packages.contract import (
    InputField,
    ModelContract,
    OutputField,
    encode_columns,
    encode_rows,
)

CONTRACT = ModelContract(
    inputs=(
        InputField(name="distance", dtype="float", minimum=17.0, maximum=4983.0),
        InputField(name="hour", dtype="int", nullable=False, minimum=0, maximum=23),
        InputField(name="carrier", dtype="category", categories=("UA", "AA", "unseen")),
        InputField(name="holiday", dtype="bool"),
        InputField(name="wind", dtype="float"),
    ),
    output=OutputField(name="late"),
)
N = 200
RNG = np.random.default_rng(11)
COLUMNS: dict[str, list[Any]] = {
    "distance": RNG.uniform(17, 4983, N).tolist(),
    "hour": RNG.integers(0, 24, N).tolist(),
    "carrier": RNG.choice(["UA", "AA"], N).tolist(),
    "holiday": (RNG.random(N) < 0.1).tolist(),
    "wind": RNG.normal(size=N).tolist(),
}
ROWS = [{name: values[i] for name, values in COLUMNS.items()} for i in range(5)]
WEIGHTS = np.array([0.0002, -0.03, 0.4, 0.7, 0.1])


class Model:
    """A logistic model that treats null as `null` and an unseen category as its code."""

    def __init__(self, null: float = 0.0, runtime: str = "native 1.0", shift: float = 0.0) -> None:
        self.null, self.name, self.shift = null, runtime, shift

    @property
    def runtime(self) -> str:
        return self.name

    def _predict(self, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        filled = np.where(np.isnan(matrix), self.null, matrix.astype(np.float64))
        scores: npt.NDArray[np.float64] = 1 / (1 + np.exp(-(filled @ WEIGHTS))) + self.shift
        return scores

    def predict_rows(self, rows: Sequence[Mapping[str, object]]) -> npt.NDArray[np.float64]:
        return self._predict(encode_rows(CONTRACT, rows))

    def predict_columns(self, columns: Mapping[str, Any]) -> npt.NDArray[np.float64]:
        return self._predict(encode_columns(CONTRACT, columns))

    def latencies_us(self, rows: Sequence[Mapping[str, object]], n_requests: int) -> npt.NDArray[np.float64]:
        return np.full(n_requests, 100.0)


class Answering(Model):
    """Answers whatever it was told to, or raises it."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def _predict(self, matrix: npt.NDArray[np.float32]) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer(super()._predict(matrix))


def test_the_probe_rows_are_admitted_and_ask_one_question_each() -> None:
    probes = probe_rows(CONTRACT.inputs)
    assert encode_rows(CONTRACT, [probe.row for probe in probes]).shape == (len(probes), 5)
    by_label = {probe.label: probe.row for probe in probes}
    assert len(by_label) == len(probes)
    plain = by_label["as it is"]
    assert plain == {"distance": 2500.0, "hour": 11, "carrier": "UA", "holiday": False, "wind": 0.0}
    assert by_label["distance null"] == {**plain, "distance": None}
    assert by_label["carrier unseen"]["carrier"] not in CONTRACT.inputs[2].categories
    assert by_label["hour at its maximum"]["hour"] == 23
    assert "hour null" not in by_label
    assert by_label["all nulls"] == {
        "distance": None,
        "hour": 11,
        "carrier": None,
        "holiday": None,
        "wind": None,
    }


def test_probe_rows_of_given_bases() -> None:
    probes = probe_rows(CONTRACT.inputs, ROWS)
    assert len(probes) == len(ROWS) * len(probe_rows(CONTRACT.inputs))
    assert probes[0].label == "as it is in base row 0"
    assert probes[0].row == ROWS[0]
    with pytest.raises(MissingInput, match="base row 0 lacks wind"):
        probe_rows(CONTRACT.inputs, [{name: 0 for name in COLUMNS if name != "wind"}])
    with pytest.raises(MissingInput):
        probe_rows([])


@pytest.mark.parametrize(
    ("minimum", "maximum", "plain"),
    [(None, None, 0), (5.0, None, 5), (-5.0, None, 0), (None, -3.0, -3), (None, 3.0, 0), (1.5, 2.5, 2)],
)
@pytest.mark.parametrize("dtype", ["float", "int"])
def test_plain_rows_keep_open_bounds(dtype: Any, minimum: Any, maximum: Any, plain: float) -> None:
    field = InputField(name="x", dtype=dtype, minimum=minimum, maximum=maximum)
    contract = ModelContract(inputs=(field,), output=OutputField(name="p"))
    probes = probe_rows([field])
    encode_rows(contract, [probe.row for probe in probes])
    assert probes[0].row["x"] == plain


def test_two_runtimes_that_agree() -> None:
    found = runtime_parity(
        Model(runtime="serving 2.0", shift=1e-7), Model(), columns=COLUMNS, inputs=CONTRACT.inputs, bases=ROWS
    )
    assert [(item.slice["rows"], item.metric) for item in found] == [
        ("evaluation", "max_abs_difference"),
        ("evaluation", "n_flips"),
        ("probes", "max_abs_difference"),
        ("probes", "n_flips"),
    ]
    assert {item.verdict for item in found} == {"pass"}
    assert found[0].n == N
    assert found[0].baseline is not None
    assert found[0].baseline.ref == "native 1.0"


def test_a_conversion_that_differs_on_nulls_only_is_caught_by_the_probes() -> None:
    found = runtime_parity(Model(null=9.0), Model(), columns=COLUMNS, inputs=CONTRACT.inputs)
    verdicts = {(item.slice["rows"], item.metric): item for item in found}
    assert verdicts["evaluation", "max_abs_difference"].verdict == "pass"
    caught = verdicts["probes", "max_abs_difference"]
    assert (caught.verdict, caught.reason) == ("fail", "beyond_limit")
    assert "null" in caught.details[0]
    assert "all nulls: serving" in explain(caught)


@pytest.mark.parametrize(
    "answer",
    [
        RuntimeError("session is gone"),
        lambda p: np.full_like(p, np.nan),
        lambda p: p[:-1],
        lambda p: p[:0],
        lambda p: np.stack([1 - p, p], axis=1),
        lambda p: np.stack([p, p])[None],
        lambda p: [str(x) for x in p],
        lambda p: None,
        lambda p: 0.5,
    ],
)
def test_a_model_that_breaks_never_passes(answer: Any) -> None:
    broken = Answering(answer)
    for serving, native in ((broken, Model()), (Model(), broken)):
        found = runtime_parity(serving, native, columns=COLUMNS, inputs=CONTRACT.inputs, tolerance=1e9)
        assert [item.verdict for item in found] == ["error", "error"]
        assert all(item.details and item.threshold == 1e9 for item in found)
    expected = Model().predict_rows(ROWS)
    evidence = golden_rows(broken, ROWS, expected, tolerance=1e9)
    assert (evidence.verdict, evidence.gate) == ("error", "model.infra")


def test_two_runtimes_that_both_answer_nan_do_not_agree() -> None:
    broken = Answering(lambda p: np.full_like(p, np.nan))
    found = runtime_parity(broken, broken, columns=COLUMNS, inputs=CONTRACT.inputs)
    assert {item.verdict for item in found} == {"error"}


def test_flips_are_counted_beside_the_difference() -> None:
    difference, flips = parity([0.4999, 0.9], [0.5001, 0.9], rows="evaluation", tolerance=1e-3)
    assert (difference.verdict, flips.verdict, flips.value) == ("pass", "fail", 1.0)
    assert flips.details == ("row 0: serving 0.4999, native 0.5001",)
    _, tolerated = parity([0.4999, 0.9], [0.5001, 0.9], rows="evaluation", tolerance=1e-3, max_flips=1)
    assert tolerated.verdict == "pass"
    _, moved = parity([0.4999, 0.9], [0.5001, 0.9], rows="evaluation", decision_threshold=0.3)
    assert moved.verdict == "pass"


def test_classes_flip_by_their_largest() -> None:
    serving = np.array([[0.4, 0.35, 0.25], [0.1, 0.8, 0.1]])
    native = np.array([[0.37, 0.38, 0.25], [0.1, 0.8, 0.1]])
    difference, flips = parity(serving, native, rows="evaluation", tolerance=0.05)
    assert (difference.value, difference.verdict, flips.value) == (0.03, "pass", 1.0)


def test_the_worst_rows_are_named_first() -> None:
    native = np.linspace(0.1, 0.2, 6)
    serving = native + np.array([0, 1e-3, 3e-3, 2e-3, 1e-4, 0])
    difference, _ = parity(serving, native, rows="probes", labels=list("abcdef"))
    assert [line.partition(":")[0] for line in difference.details] == ["c", "d", "b", "and 1 rows more"]


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_limits_that_make_no_sense_are_errors(tolerance: float) -> None:
    (evidence,) = parity([0.5], [0.5], rows="evaluation", tolerance=tolerance)
    assert evidence.verdict == "error"
    assert golden([0.5], [0.5], tolerance=tolerance).verdict == "error"
    (undecided,) = parity([0.1], [0.1], rows="evaluation", decision_threshold=float("nan"))
    assert undecided.verdict == "error"


def test_wrong_labels_are_an_error() -> None:
    (evidence,) = parity([0.5], [0.5], rows="probes", labels=["a", "b"])
    assert evidence.verdict == "error"


def test_golden_rows_are_repeated_to_the_bit() -> None:
    expected = Model().predict_rows(ROWS)
    assert golden_rows(Model(), ROWS, expected).verdict == "pass"
    evidence = golden_rows(Model(shift=1e-12), ROWS, expected)
    assert (evidence.verdict, evidence.reason) == ("fail", "beyond_limit")
    assert golden_rows(Model(shift=1e-12), ROWS, expected, tolerance=1e-9).verdict == "pass"
    assert evidence.details[-1] == "runtime: native 1.0"
    _, serving, _, repeated = evidence.details[0].replace(",", "").rsplit(" ", 3)
    assert float(serving) - float(repeated) == pytest.approx(1e-12, rel=1e-3)


def test_no_golden_rows_is_an_error() -> None:
    evidence = golden_rows(Model(), [], [])
    assert (evidence.verdict, evidence.reason) == ("error", "missing_input")
    assert golden([], []).verdict == "error"


def test_the_same_predictions_give_the_same_bytes() -> None:
    one = runtime_parity(Model(shift=1e-7), Model(), columns=COLUMNS, inputs=CONTRACT.inputs, bases=ROWS)
    two = runtime_parity(Model(shift=1e-7), Model(), columns=COLUMNS, inputs=CONTRACT.inputs, bases=ROWS)
    assert canonical(one) == canonical(two)
