"""Given a policy that has the tracker asked, when somebody promotes, then what the tracker says decides, and is shown
afterwards; in a project with its own store, and at the hub of a team."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from operator_story import Worlds
from rollout_rig import Eventually, Lamps, lamps
from rollout_rig import two_live as two_lamps
from test_exceptions_by_people import POLICY, WRONG
from test_team_hub import TeamHub

from lockgate.testing.ticket_desk import KEY, OPEN, TicketDesk, saying, ticket_desk

OK, REFUSED, NOT_FOUND, WAITING = 0, 3, 4, 8
ONE = "flight-delay@1.0.0"
TRACKER = """
[webhooks]
networks = ["127.0.0.0/8"]
[tracker]
url = "{url}"
secret = "env:TRACKER_KEY"
"""
KEYED = {"TRACKER_KEY": KEY}


@pytest.fixture
def desk() -> Iterator[TicketDesk]:
    with ticket_desk() as desk:
        yield desk


@pytest.fixture
def project(eventually: Eventually, desk: TicketDesk) -> Iterator[Lamps]:
    """A version that lacks nothing but a ticket."""
    with lamps(eventually, two_lamps) as made:
        made.write("strict.toml", POLICY.replace("waivers =", 'tracker = ["production"]\nwaivers ='))
        made.types("policy adopt strict.toml", by="petra").must(OK)
        made.write("lockgate.toml", made.read("lockgate.toml") + TRACKER.format(url=desk.url))
        made.is_ready()
        made.types(f"release-plan lamp@{WRONG} --for prod --accept", by="ada").must(OK)
        made.types(f"approve lamp@{WRONG} --for prod", by="grace").must(OK)
        yield made


def test_in_a_project(project: Lamps, desk: TicketDesk) -> None:
    promote = f"promote lamp@{WRONG} --to prod --ticket OPS-5"
    page = project.types(f"evidence lamp@{WRONG} --for prod --check").must(OK).out
    assert "a ticket that matches OPS-[0-9]+ and is open in the tracker" in page
    told = project.types(promote, by="ada").must(WAITING)
    assert "TRACKER_KEY is not set" in told.err and "break-glass" in told.err
    desk.reply = saying({"known": True, "open": False, "title": "Brighter"})
    told = project.types(promote, by="ada", env=KEYED).must(REFUSED)
    assert "ticket OPS-5 (Brighter) is not open" in told.err
    desk.reply = lambda question: (503, b"")
    told = project.types(promote, by="ada", env=KEYED).must(WAITING)
    assert "could not be asked about OPS-5: 503" in told.err
    desk.reply = saying({**OPEN, "approved": True})
    project.types(promote, by="ada", env=KEYED).must(WAITING)
    for line in (f"explain lamp@{WRONG}", "audit log"):
        told = project.types(line).must(OK)
        assert "Raise the roof, open and approved, https://tickets.example.com/OPS-1" in told.out, line
    releases = project.asks(f"explain lamp@{WRONG}")["releases"]
    assert releases[-1]["confirmed"]["approved"] is True
    assert f"lamp@{WRONG}" in project.types("ticket OPS-5").must(OK).out
    assert project.types("audit verify").must(OK).out.startswith("ok: ")
    assert KEY.removeprefix("whsec_").encode() not in (project.dot / "state.db").read_bytes()


@pytest.fixture
def team(worlds: Worlds, desk: TicketDesk, tmp_path: Path) -> Iterator[TeamHub]:
    trust = "".join(f"[trust.{name}]\nkeys = ['trust/signing.pub']\n" for name in ("dev", "staging", "prod"))
    team = TeamHub(
        tmp_path / "hub", trust + TRACKER.format(url=desk.url).replace("env:TRACKER_KEY", "file:key")
    )
    shutil.copytree(worlds.one.root / "trust", team.folder / "trust")
    (team.folder / "key").write_text(KEY)
    yield team.start()
    team.kill()


def test_at_the_hub_of_a_team(worlds: Worlds, team: TeamHub, desk: TicketDesk, tmp_path: Path) -> None:
    checkout = worlds.one.copy(tmp_path / "checkout")
    hub = {"LOCKGATE_HUB": team.url}
    checkout.types("declare", by="petra", env=hub).must(OK)
    shipped = resources.files("lockgate.app").joinpath("policies/default.toml").read_text()
    asking = "ticket.open = 'OPS-[0-9]+'\ntracker = [\"open\"]\nevidence_max_age_days"
    checkout.write(
        "asking.toml", re.sub(r"(?m)^evidence_max_age_days", asking, shipped).replace('"default"', '"ours"')
    )
    checkout.types("policy adopt asking.toml", by="petra", env=hub).must(OK)
    checkout.types("train", by="ada", env=hub).must(OK)
    promote = f"promote {ONE} --to dev --ticket OPS-5"
    desk.reply = saying({"known": False, "open": False})
    told = checkout.types(promote, by="ada", env=hub).must(REFUSED)
    assert "the tracker knows no ticket OPS-5" in told.err
    desk.reply = saying(OPEN)
    told = checkout.types(promote, by="ada", env=hub).must(WAITING)
    assert "no data plane" in told.err
    assert [one["actor"] for one in desk.asked] == ["ada", "ada"]
    told = checkout.types(f"explain {ONE}", env=hub).must(OK)
    assert (
        "ticket OPS-5 (Raise the roof, open, https://tickets.example.com/OPS-1; so the tracker at" in told.out
    )
    assert ONE in checkout.types("ticket OPS-5", env=hub).must(OK).out
    dossier = checkout.types(f"dossier {ONE}", env=hub).must(OK).out
    assert "https://tickets.example.com/OPS-1" in dossier
    check = f"hub --config {team.folder / 'hub.toml'} --check"
    assert "tracker: asked at http://127.0.0.1" in checkout.types(check).must(OK).out
    (team.folder / "key").unlink()
    assert "file:key cannot be read" in checkout.types(check).must(NOT_FOUND).err
