"""`audit log --follow` tells what happens while it happens, and ends on Ctrl-C."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from operator_story import OK, Worlds


def test_what_happens_is_told_as_it_happens(worlds: Worlds, tmp_path: Path) -> None:
    project = worlds.one.copy(tmp_path / "flights")
    n_before = len(project.journal())
    following = project.starts("audit log --follow --since 0 --json")
    try:
        assert following.stdout is not None
        told = [json.loads(following.stdout.readline()) for _ in range(n_before)]
        assert [one["seq"] for one in told] == list(range(1, n_before + 1))
        project.types("webhook add chat https://hooks.example.com --secret env:KEY", by="petra").must(OK)
        last = json.loads(following.stdout.readline())
        assert (last["type"], last["actor"]) == ("hub.subscription-added/1", "petra")
        following.send_signal(signal.SIGINT)
        assert following.wait(20) == 130
    finally:
        following.kill()
        following.communicate()
