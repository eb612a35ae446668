"""Given a store on disk, when processes die by SIGKILL in the middle of their work, then nothing acknowledged is lost,
nothing happens twice, and the next process carries on."""

from __future__ import annotations

from pathlib import Path

import pytest
from kill9_suite import KillNine


class TestKillNineOnSqlite(KillNine):
    @pytest.fixture
    def empty(self, tmp_path: Path) -> str:
        return f"sqlite:{tmp_path / 'journal.db'}"
