"""`lockgate demo`, as the README's first command runs it: twice, the second time on what the first left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

QUESTIONS = (
    "What runs where?",
    "Which data, features and code made it?",
    "Which evidence and whose approval let it in?",
    "What changed since the version before?",
    "Is the way back ready, and how long does it take?",
    "What would a change of it break?",
)


def demo(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "lockgate.app.cli", "demo", "--folder", "flights"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert not (folder / "flights" / ".lockgate" / "up.json").exists(), "what it started is stopped"
    # Verbs write their answers to one stream and their progress to the other; a terminal shows both.
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("demo")
    return demo(folder), demo(folder)


@pytest.mark.parametrize("question", QUESTIONS)
def test_it_ends_with_an_answer_to_each_question(told: tuple[str, str], question: str) -> None:
    for output in told:
        lines = output[output.index("== The six questions") :].splitlines()
        place = lines.index(f"  {question}")
        assert lines[place + 1].strip()


def test_each_step_shows_its_real_result(told: tuple[str, str]) -> None:
    for output in told:
        assert "column 'seats' is missing; did you mean 'seat_count'?" in output
        assert "1048.36058" in output
        assert "fail  perf.vs_champion auc -0.0" in output
        assert "0 failed" in output
        assert "identical: flight-delay@1.0.0 rebuilt as sha256:" in output
        assert "ALTERED" in output


def test_the_second_run_takes_what_is_cached_and_says_so(told: tuple[str, str]) -> None:
    first, second = told
    assert "flight-delay@1.1.0: 12 steps ran, 9 cached" in first
    assert "its step cache and blobs are used again" in second
    for version in ("1.0.0: 0 steps ran, 15", "1.1.0: 0 steps ran, 21", "1.2.0: 0 steps ran, 21"):
        assert f"flight-delay@{version} cached" in second
