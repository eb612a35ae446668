"""The decorator that marks a plain function as a step.

It attaches options and returns the function itself, so a step imports, is called and is unit-tested like any
other function, with or without Lockgate. The planner reads the same options from source text and imports
nothing, hence they must be written as literals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

import msgspec

from lockgate.core.errors import Invalid

F = TypeVar("F", bound=Callable[..., Any])


class BadStep(Invalid):
    """A step whose declaration cannot work."""

    code = "pipeline.bad-step"


class StepOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a step is run; never part of its key, because it cannot change the answer.

    Attributes:
        slow: run in a worker process of its own, in the slow stage (`lockgate train`, not `lockgate check`).
        retries: how many times to try again after an exception named in `retry_on`.
        retry_on: names of exception classes; a name stands for its subclasses too.
        timeout_s: seconds after which the worker is stopped; only for slow steps.
    """

    slow: bool = False
    retries: int = 0
    retry_on: tuple[str, ...] = ()
    timeout_s: float | None = None


def check_options(options: StepOptions, *, where: str) -> StepOptions:
    """Return the options, or raise `BadStep` saying what `where` must change."""
    if options.retries < 0:
        raise BadStep(f"{where} asks for {options.retries} retries", remedy="write retries=0 or more")
    if options.retries and not options.retry_on:
        raise BadStep(
            f"{where} asks for retries but names no exception",
            remedy='name the exceptions that may pass by themselves: retry_on=("ConnectionError",)',
        )
    if options.timeout_s is not None and not options.slow:
        raise BadStep(
            f"{where} has a timeout but is not slow",
            remedy="add slow=True: only a step in a worker process can be stopped",
        )
    if options.timeout_s is not None and options.timeout_s <= 0:
        raise BadStep(f"{where} has a timeout of {options.timeout_s} s", remedy="write a timeout_s above 0")
    return options


@overload
def step(function: F, /) -> F: ...


@overload
def step(
    *, slow: bool = False, retries: int = 0, retry_on: tuple[str, ...] = (), timeout_s: float | None = None
) -> Callable[[F], F]: ...


def step(
    function: F | None = None,
    /,
    *,
    slow: bool = False,
    retries: int = 0,
    retry_on: tuple[str, ...] = (),
    timeout_s: float | None = None,
) -> F | Callable[[F], F]:
    """Mark a function as a step: `@step` or `@step(slow=True)`.

    The names of its arguments wire it: to the step or data set of that name, or to the param of that name.
    `seed: int` and `rng: numpy.random.Generator` are given by the runner and depend on the step's key alone.

    Returns:
        The function itself, unchanged but for the attribute `__lockgate_step__`.

    Raises:
        BadStep: the options contradict one another; see `StepOptions`.

    Example:
        >>> @step(slow=True)
        ... def train(rows: list[float]) -> float:
        ...     return sum(rows)
        >>> train([1.0, 2.0])
        3.0
    """
    options = StepOptions(slow=slow, retries=retries, retry_on=tuple(retry_on), timeout_s=timeout_s)

    def mark(marked: F) -> F:
        check_options(options, where=f"step {getattr(marked, '__name__', marked)}()")
        marked.__lockgate_step__ = options  # type: ignore[attr-defined]
        return marked

    return mark if function is None else mark(function)
