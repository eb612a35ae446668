"""What all tests share: the tools on the path, one Hypothesis profile, waiting without sleeping."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

T = TypeVar("T")

# The same commit gives the same verdict: examples are derived from the test, not from chance. LOCKGATE_FUZZ=1
# searches with fresh examples instead; what it finds becomes an @example.
settings.register_profile("lockgate", deadline=None, derandomize=True, print_blob=True, max_examples=60)
settings.register_profile(
    "fuzz", deadline=None, max_examples=1000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fuzz" if os.environ.get("LOCKGATE_FUZZ") else "lockgate")


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub or a store that somebody exported must not decide a test."""
    for name in [
        name for name in os.environ if name.startswith("LOCKGATE_") and not name.startswith("LOCKGATE_TEST_")
    ]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def eventually() -> Callable[..., object]:
    """`eventually(probe, timeout_s=20.0)`: the first true answer of `probe`, which is asked again and again.

    For what another process or thread does in its own time. Fails with the last answer when time is up; a
    test that is sure of its cause needs no such thing.
    """

    def wait(probe: Callable[[], T], timeout_s: float = 20.0) -> T:
        pause, end = threading.Event(), time.monotonic() + timeout_s
        while not (answer := probe()):
            if time.monotonic() > end:
                pytest.fail(f"still {answer!r} after {timeout_s:g} s")
            pause.wait(0.01)
        return answer

    return wait
