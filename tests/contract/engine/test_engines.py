from __future__ import annotations

from collections.abc import Callable

import lightgbm
import numpy as np
import pytest

from lockgate.adapters.engines.convert import lightgbm_to_onnx
from lockgate.adapters.engines.lightgbm_engine import LightGbmEngine
from lockgate.adapters.engines.onnx_engine import OnnxEngine
from lockgate.registry.packages.contract import InputField, ModelContract, OutputField
from lockgate.registry.packages.ports import ModelUnusable
from lockgate.testing.engine_suite import EngineCase, EngineContract
from lockgate.testing.packages import CONTRACT, TinyEngine, TinyPredictor, tiny_model

FOUR = ModelContract(
    inputs=tuple(InputField(name=name, dtype="float") for name in "abcd"), output=OutputField(name="p")
)


@pytest.fixture(scope="module")
def trained() -> tuple[lightgbm.Booster, np.ndarray]:
    rng = np.random.default_rng(3)
    rows = np.column_stack(
        [rng.normal(size=800), rng.integers(0, 40, 800), rng.integers(-1, 5, 800), rng.integers(0, 2, 800)]
    ).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    label = (np.nan_to_num(rows[:, 0]) + (rows[:, 2] == 3) + rng.normal(size=800) > 0.5).astype(int)
    settings = {"objective": "binary", "verbose": -1, "num_threads": 1, "deterministic": True, "seed": 1}
    data = lightgbm.Dataset(rows, label, categorical_feature=[2], params=settings)
    return lightgbm.train(settings, data, 15), rows


class TestOnnxEngine(EngineContract):
    @pytest.fixture
    def make(self, trained: tuple[lightgbm.Booster, np.ndarray]) -> EngineCase:
        booster, rows = trained
        return EngineCase(OnnxEngine(), lightgbm_to_onnx(booster, 4), FOUR, rows, booster.predict(rows))


class TestLightGbmEngine(EngineContract):
    @pytest.fixture
    def make(self, trained: tuple[lightgbm.Booster, np.ndarray]) -> EngineCase:
        booster, rows = trained
        model = booster.model_to_string().encode()
        return EngineCase(LightGbmEngine(), model, FOUR, rows, booster.predict(rows))


class TestTinyEngine(EngineContract):
    @pytest.fixture
    def make(self) -> EngineCase:
        rows = np.array([[1, 2, -1, np.nan], [0, 5, 2, 1]], dtype=np.float32)
        predictor = TinyPredictor([0.1, 0.2, 0.3, 0.4])
        model = tiny_model((0.1, 0.2, 0.3, 0.4))
        return EngineCase(TinyEngine(), model, CONTRACT, rows, predictor.predict(rows))


def test_a_graph_with_other_names_is_refused(trained: tuple[lightgbm.Booster, np.ndarray]) -> None:
    model = lightgbm_to_onnx(trained[0], 4).replace(b"inputs", b"inputz")
    with pytest.raises(ModelUnusable, match="inputz"):
        OnnxEngine().load(model, FOUR)


def test_a_model_of_several_classes_is_refused() -> None:
    rng = np.random.default_rng(0)
    rows, label = rng.normal(size=(300, 4)), rng.integers(0, 3, 300)
    settings = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, label, params=settings), 2)
    with pytest.raises(ModelUnusable, match="several answers"):
        LightGbmEngine().load(booster.model_to_string().encode(), FOUR)


def test_cut_short_texts_never_end_the_process(trained: tuple[lightgbm.Booster, np.ndarray]) -> None:
    model = trained[0].model_to_string().encode()
    end = model.index(b"end of trees")
    refused: Callable[[int], None] = lambda at: LightGbmEngine().load(model[:at], FOUR)  # noqa: E731
    for at in range(0, end, end // 23):
        with pytest.raises(ModelUnusable):
            refused(at)
