"""The contract of the port `Engine` of packages, as tests. An engine passes by subclassing and bringing one model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from lockgate.registry.packages.contract import Matrix, ModelContract
from lockgate.registry.packages.ports import Engine, ModelUnusable


class EngineCase(NamedTuple):
    """A model of the engine's format, its contract, rows for it (some with NaN and -1) and the right answers."""

    engine: Engine
    model: bytes
    contract: ModelContract
    rows: Matrix
    expected: npt.NDArray[np.float64]


class EngineContract:
    """Override the fixture."""

    @pytest.fixture
    def make(self) -> EngineCase:
        raise NotImplementedError

    def test_answers_are_right_and_float64(self, make: EngineCase) -> None:
        answers = make.engine.load(make.model, make.contract).predict(make.rows)
        assert answers.dtype == np.float64
        assert answers.shape == (len(make.rows),)
        assert np.abs(answers - make.expected).max() <= 1e-6

    def test_the_same_rows_give_the_same_bits(self, make: EngineCase) -> None:
        predictor = make.engine.load(make.model, make.contract)
        again = make.engine.load(make.model, make.contract)
        assert predictor.predict(make.rows).tobytes() == again.predict(make.rows).tobytes()

    def test_a_row_alone_answers_as_among_others(self, make: EngineCase) -> None:
        predictor = make.engine.load(make.model, make.contract)
        alone = [predictor.predict(make.rows[number : number + 1])[0] for number in range(len(make.rows))]
        assert np.abs(np.array(alone) - predictor.predict(make.rows)).max() <= 1e-6

    def test_no_rows_no_answers(self, make: EngineCase) -> None:
        answers = make.engine.load(make.model, make.contract).predict(make.rows[:0])
        assert answers.shape == (0,)

    def test_a_matrix_of_another_width_is_refused(self, make: EngineCase) -> None:
        predictor = make.engine.load(make.model, make.contract)
        with pytest.raises(ModelUnusable):
            predictor.predict(make.rows[:, :-1])

    def test_a_contract_of_another_width_is_refused(self, make: EngineCase) -> None:
        narrow = msgspec.structs.replace(make.contract, inputs=make.contract.inputs[:-1])
        with pytest.raises(ModelUnusable):
            make.engine.load(make.model, narrow)

    @pytest.mark.parametrize("model", [b"", b"\x00" * 64, b"not a model", b"\x80\x04\x95\x00."])
    def test_other_bytes_are_refused(self, make: EngineCase, model: bytes) -> None:
        with pytest.raises(ModelUnusable):
            make.engine.load(model, make.contract)

    def test_half_a_model_is_refused(self, make: EngineCase) -> None:
        with pytest.raises(ModelUnusable):
            make.engine.load(make.model[: len(make.model) // 2], make.contract)

    def test_many_threads_share_a_predictor(self, make: EngineCase) -> None:
        predictor = make.engine.load(make.model, make.contract)
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(predictor.predict, [make.rows] * 16))
        assert all(answer.tobytes() == answers[0].tobytes() for answer in answers)
