from __future__ import annotations

import pytest

from lockgate.pipeline.step import BadStep, StepOptions, step


def test_the_function_is_returned_unchanged() -> None:
    def train(x: int) -> int:
        return x + 1

    marked = step(train)
    assert marked is train
    assert train(1) == 2
    assert marked.__lockgate_step__ == StepOptions()  # type: ignore[attr-defined]


def test_options_are_attached() -> None:
    @step(slow=True, retries=2, retry_on=("ConnectionError",), timeout_s=60)
    def train() -> None: ...

    assert train.__lockgate_step__ == StepOptions(  # type: ignore[attr-defined]
        slow=True, retries=2, retry_on=("ConnectionError",), timeout_s=60
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"retries": 1}, "names no exception"),
        ({"retries": -1}, "-1 retries"),
        ({"timeout_s": 5.0}, "is not slow"),
        ({"slow": True, "timeout_s": 0.0}, "timeout of 0.0 s"),
    ],
)
def test_options_that_contradict_one_another_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(BadStep, match=says):
        step(**options)(lambda: None)  # type: ignore[call-overload]
