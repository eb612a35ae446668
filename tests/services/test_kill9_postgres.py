"""The same deaths of processes as on SQLite, with PostgreSQL holding the store."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "e2e"))
from kill9_suite import KillNine

pytestmark = pytest.mark.service


class TestKillNineOnPostgres(KillNine):
    @pytest.fixture
    def empty(self, database: str, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("LOCKGATE_TEST_DSN", database)
        return "env:LOCKGATE_TEST_DSN"

    # What differs from SQLite is who holds the lock when the process is gone; the steps are the kernel's.
    @pytest.mark.parametrize("step", ["locked", "decided"])
    def test_before_the_commit_nothing_happened(self, store: str, step: str) -> None:
        super().test_before_the_commit_nothing_happened(store, step)

    @pytest.mark.parametrize("step", ["committed"])
    def test_after_the_commit_the_outbox_remembers(self, store: str, tmp_path: Path, step: str) -> None:
        super().test_after_the_commit_the_outbox_remembers(store, tmp_path, step)

    @pytest.mark.parametrize("seed", range(2))
    def test_no_acknowledged_command_is_lost_at_any_moment(self, empty: str, seed: int) -> None:
        super().test_no_acknowledged_command_is_lost_at_any_moment(empty, seed)
