"""`lockgate demo`, as the README's first command runs it: twice, the second time on what the first left behind."""

from __future__ import annotations

import re
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
        # Verbs write their answers to one stream and their progress to the other; a terminal shows both.
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert not (folder / "flights" / ".lockgate" / "up.json").exists(), "what it started is stopped"
    return done.stdout


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


def test_a_flight_gets_the_same_answer_by_its_features_and_by_its_keys(told: tuple[str, str]) -> None:
    for output in told:
        raw, by_key = re.findall(r'^POST /prod/flight-delay (.*)\n\{"predictions": \[([^]]+)\]', output, re.M)
        assert '"entities"' not in raw[0] and '"origin_delay"' in raw[0]
        assert '"entities"' in by_key[0] and '"origin_delay"' not in by_key[0]
        assert raw[1] == by_key[1]


def test_a_better_version_arrives_by_canary(told: tuple[str, str]) -> None:
    for output in told:
        act = between(output, "== 8. flight-delay@1.1.0 by canary", "== 9.")
        assert "flight-delay@1.1.0 is on its way to prod/flight-delay in 5 steps" in act
        steps = re.findall(
            r"^  (.+?) +([\d,]+) requests, +([\d,]+) answered by 1\.1\.0; +([\d,]+) labels", act, re.M
        )
        assert [name for name, *_ in steps] == [
            "shadow", "canary at 10 %", "canary at 25 %", "canary at 50 %", "soak at 100 %"
        ]  # fmt: skip
        assert steps[0][2] == "0" and all(number(count) for _, *counts in steps[1:] for count in counts)
        assert len(re.findall(r"^      pass, ", act, re.M)) == 5
        n_requests = sum(number(sent) for _, sent, *_ in steps)
        assert f"flight-delay@1.1.0 is live after {n_requests:,} requests" in act


def test_the_way_back_is_rehearsed_and_shown(told: tuple[str, str]) -> None:
    for output in told:
        act = between(output, "== 9.", "== 10.")
        assert len(re.findall(r"last drill passed at .*: 20 flips to flight-delay@1\.0\.0", act)) == 3
        assert act.count("rollback ready: yes") == 2


def test_the_canary_finds_what_no_offline_gate_could(told: tuple[str, str]) -> None:
    for output in told:
        before = between(output, "== 11.", "== 12.")
        assert "  pass  features.compat n_unserved 0" in before
        assert not re.search(r"^  (fail|error) ", before, re.M)
        (version,) = set(re.findall(r"^(flight-delay@\S+) approved for prod by grace", before, re.M))
        act = between(output, "== 12.", "== 13.")
        found = re.search(
            r"taken back by the guard of labels, by itself: detected after (\d+) canary requests "
            r"\((\d+) labelled\), of ([\d,]+) in all",
            act,
        )
        assert found is not None, act
        canary, labelled, every = map(number, found.groups())
        assert 0 < labelled <= canary <= 120 and canary < every <= 2_000
        assert re.search(r"rollback of prod/main/flight-delay in effect after [\d.]+ ms", act)
        assert f"of {version} to prod/flight-delay: rolled_back" in act and "harm by labels" in act
        assert "the next request is answered by 1.1.0" in act


def test_the_second_run_takes_what_is_cached_and_says_so(told: tuple[str, str]) -> None:
    first, second = told
    assert "flight-delay@1.1.0: 12 steps ran, 9 cached" in first
    assert "its step cache and blobs are used again" in second
    for version in ("1.0.0: 0 steps ran, 15", "1.1.0: 0 steps ran, 21", "1.2.0: 0 steps ran, 21"):
        assert f"flight-delay@{version} cached" in second
    assert set(re.findall(r": (\d+) steps ran, ", second)) == {"0"}


def between(output: str, begin: str, end: str) -> str:
    """What was shown from one title to another."""
    return output[output.index(begin) : output.index(end)]


def number(text: str) -> int:
    return int(text.replace(",", ""))
