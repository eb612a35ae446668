"""LightGBM and its ONNX form on a real small model: what agrees, what is refused, and what would be wrong."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import onnxruntime
import pytest
from onnxmltools.convert import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from lockgate.adapters.engines import convert
from lockgate.adapters.engines.convert import (
    ConversionRefused,
    ConversionWrong,
    lightgbm_to_onnx,
    probe_rows,
)
from lockgate.adapters.engines.onnx_engine import OnnxEngine
from lockgate.registry.packages.contract import InputField, ModelContract, OutputField, encode_rows

N = 1500
FOUR = ModelContract(
    inputs=(
        InputField(name="wind", dtype="float"),
        InputField(name="hour", dtype="int"),
        InputField(name="carrier", dtype="category", categories=("AA", "B6", "DL", "EV", "UA", "WN")),
        InputField(name="holiday", dtype="bool"),
    ),
    output=OutputField(name="late"),
)


def _rows(*, missing: bool = True) -> np.ndarray:
    rng = np.random.default_rng(5)
    columns = [rng.normal(size=N), rng.integers(-20, 50, N), rng.integers(0, 6, N), rng.integers(0, 2, N)]
    rows = np.column_stack(columns).astype(np.float32)
    if missing:
        rows[rng.random(rows.shape) < 0.1] = np.nan
        rows[rng.random(N) < 0.1, 2] = -1
    return rows


def _label(rows: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(6)
    filled = np.nan_to_num(rows, nan=0.7)
    return filled[:, 0] + (filled[:, 2] % 3 == 1) + (filled[:, 1] > 0) + rng.normal(size=N) * 0.5


def _train(
    rows: np.ndarray, *, categorical: tuple[int, ...] = (2,), rounds: int = 15, **settings: Any
) -> lightgbm.Booster:
    every = {
        "objective": "binary",
        "verbose": -1,
        "num_threads": 1,
        "deterministic": True,
        "seed": 1,
    } | settings
    label = _label(rows)
    if every["objective"] not in ("regression", "regression_l1", "huber", "quantile"):
        label = (label > 1).astype(int)
    data = lightgbm.Dataset(rows, label, categorical_feature=list(categorical), params=every)
    return lightgbm.train(every, data, rounds)


def _largest_difference(booster: lightgbm.Booster, rows: np.ndarray) -> float:
    predictor = OnnxEngine().load(lightgbm_to_onnx(booster, 4), FOUR)
    return float(np.abs(predictor.predict(rows) - booster.predict(rows)).max())


@pytest.mark.parametrize("missing", [True, False], ids=["missing in training", "nothing missing in training"])
@pytest.mark.parametrize("categorical", [(2,), (1, 2), ()], ids=["one category", "two", "none"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"use_missing": False}, {"boosting": "dart"}, {"num_leaves": 2}, {"is_unbalance": True}],
    ids=repr,
)
def test_both_forms_agree(missing: bool, categorical: tuple[int, ...], settings: dict[str, Any]) -> None:
    rows = _rows(missing=missing)
    if categorical == (1, 2):
        rows[:, 1] = np.where(rows[:, 1] < 0, -1, rows[:, 1])
    booster = _train(rows, categorical=categorical, **settings)
    assert _largest_difference(booster, rows) <= 1e-6
    # Rows that training never saw: a null and an unseen category in each input, and every threshold's edges.
    assert _largest_difference(booster, probe_rows(booster.model_to_string(), 4)) <= 1e-6


@pytest.mark.parametrize("objective", ["regression", "regression_l1", "huber", "quantile"])
def test_values_agree_too(objective: str) -> None:
    rows = _rows()
    assert _largest_difference(_train(rows, objective=objective), rows) <= 1e-5


def test_a_null_and_an_unseen_category_as_a_caller_sends_them() -> None:
    booster = _train(_rows())
    usual = {"wind": 0.3, "hour": 7, "carrier": "DL", "holiday": False}
    rows = [usual, *(usual | {name: None} for name in usual), usual | {"carrier": "ZZ"}]
    matrix = encode_rows(FOUR, rows)
    assert matrix[-1, 2] == -1.0
    answers = OnnxEngine().load(lightgbm_to_onnx(booster, 4), FOUR).predict(matrix)
    assert np.abs(answers - booster.predict(matrix)).max() <= 1e-6
    assert len(set(answers.round(6))) > 2


def test_the_same_model_gives_the_same_bytes() -> None:
    rows = _rows()
    first, second = lightgbm_to_onnx(_train(rows), 4), lightgbm_to_onnx(_train(rows), 4)
    assert first == second
    again = lightgbm.Booster(model_str=_train(rows).model_to_string())
    assert lightgbm_to_onnx(again, 4) == first
    assert b"OnnxMLTools" not in first


REFUSED: dict[str, dict[str, Any]] = {
    "zero_as_missing": {"zero_as_missing": True},
    "sigmoid": {"sigmoid": 2.0},
    "boosting=rf": {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
    "linear_tree": {"linear_tree": True, "categorical": ()},
    "objective=regression sqrt": {"objective": "regression", "reg_sqrt": True},
    "objective=poisson": {"objective": "poisson"},
    "objective=cross_entropy": {"objective": "cross_entropy"},
    "num_class": {"objective": "multiclass", "num_class": 2},
}


@pytest.mark.parametrize("setting", REFUSED)
def test_what_cannot_be_carried_over_is_refused_by_name(setting: str) -> None:
    booster = _train(_rows(missing=setting != "linear_tree"), **REFUSED[setting])
    with pytest.raises(ConversionRefused) as caught:
        lightgbm_to_onnx(booster, 4)
    assert caught.value.facts["setting"] == setting
    assert "lightgbm-text" in caught.value.remedy


@pytest.mark.parametrize("setting", ["zero_as_missing", "sigmoid", "boosting=rf", "linear_tree"])
def test_the_refused_settings_would_have_been_wrong_without_a_word(setting: str) -> None:
    """The bare converter accepts them and answers differently. When this fails, the refusal can go."""
    rows = _rows(missing=setting != "linear_tree")
    booster = _train(rows, **REFUSED[setting])
    model = convert_lightgbm(
        booster, initial_types=[("inputs", FloatTensorType([None, 4]))], zipmap=False, target_opset=13
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    actual = session.run(["probabilities"], {"inputs": rows})[0][:, 1]
    assert np.abs(actual - booster.predict(rows)).max() > 1e-3


def test_thresholds_split_float32_values_as_the_double_does() -> None:
    """Two neighbouring float32 values: the double between them rounds up to the larger one."""
    low = np.float32(1.0)
    while True:
        high = np.nextafter(low, np.float32(2))
        if np.float32((float(low) + float(high)) / 2) == high:
            break
        low = high
    rows = np.zeros((N, 4), dtype=np.float32)
    rows[:, 0] = np.where(np.arange(N) % 2, high, low)
    settings = {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_in_bin": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, np.arange(N) % 2, params=settings), 5)
    assert _largest_difference(booster, rows) <= 1e-6
    assert len(set(booster.predict(rows))) == 2


def test_a_wrong_conversion_does_not_leave_the_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison at the end catches what no rule foresaw; here the rule about thresholds is switched off."""
    monkeypatch.setattr(convert, "_float32_threshold", lambda value: np.float32(value))
    with pytest.raises(ConversionWrong, match="probe rows differ"):
        lightgbm_to_onnx(_train(_rows()), 4)


def test_another_number_of_features_is_refused() -> None:
    with pytest.raises(ConversionRefused, match="4 features"):
        lightgbm_to_onnx(_train(_rows()), 5)
