"""What goes on failing is told when it begins and when it is over, not every time."""

from __future__ import annotations

import pytest

from lockgate.app import chores
from lockgate.app.chores import Chores


def test_a_store_that_is_away_for_hours_is_told_when_it_goes_and_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chores, "_BACK_OFF_S", 0.0)
    work = Chores()

    def look(failure: Exception | None) -> None:
        with work.going_on("checkpoint"):
            if failure is not None:
                raise failure

    for failure in (None, OSError("away"), OSError("away"), OSError("no room"), None, None, OSError("away")):
        look(failure)
    assert capsys.readouterr().err.splitlines() == [
        "checkpoint: OSError: away",
        "checkpoint: OSError: no room",
        "checkpoint: works again",
        "checkpoint: OSError: away",
    ]
