"""Where blobs are at home, and for how long what somebody brought is his."""

from __future__ import annotations

from typing import Any

import pytest

from lockgate.access.roles import Grant
from lockgate.core.blobs import BlobMissing
from lockgate.core.digests import Digest, canonical, sha256
from lockgate.core.messages import Command
from lockgate.gates.messages import EvidenceLine, RecordEvidence
from lockgate.governance.messages import ApproveVersion
from lockgate.hub.authority import Session
from lockgate.hub.homes import BROUGHT_FOR, BlobSight, listed
from lockgate.pipeline.messages import RecordRun
from lockgate.testing.clock import FakeClock
from lockgate.testing.memory_journal import MemoryHomes, MemoryStore

LIST, ONE, TWO, OTHER = (sha256(name) for name in (b"list", b"one", b"two", b"other"))
RUN = RecordRun(id="c1", model="a/m", run=LIST, package=ONE, snapshots={"flights": TWO})


def session(*grants: Grant, actor: str = "ann", credential: str = "") -> Session:
    return Session(actor=actor, grants=grants, claimed=False, credential=credential)


AUTHOR = session(Grant(role="author", namespace="a"))
WHOLE = session(Grant(role="author"))


class Desk:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.homes = MemoryHomes(MemoryStore())
        self.sight = BlobSight(self.homes, {"a/m": "low", "a/h": "high"}.get, self.clock)
        self.lists: dict[Digest, bytes] = {}
        self.read_lists: list[Digest] = []

    def read(self, digest: Digest) -> bytes:
        self.read_lists.append(digest)
        if digest not in self.lists:
            raise BlobMissing("there is none", remedy="none", digest=digest)
        return self.lists[digest]

    def led(self, command: Command, who: Session) -> set[Digest]:
        found = self.sight.led_to(command, who, self.read)
        self.homes.fill(found)
        assert {home for _, home in found} <= {"a/m"}
        return {digest for digest, _ in found}


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_what_was_brought_is_ones_own_for_a_day(desk: Desk) -> None:
    desk.sight.brought(AUTHOR, ONE)
    assert desk.sight.sees(AUTHOR, ONE)
    assert not desk.sight.sees(session(Grant(role="author", namespace="a"), actor="bob"), ONE)
    desk.clock.advance(seconds=BROUGHT_FOR / 1_000_000 - 1)
    assert desk.sight.sees(AUTHOR, ONE)
    desk.clock.advance(seconds=1)
    assert not desk.sight.sees(AUTHOR, ONE)
    desk.sight.brought(AUTHOR, ONE)
    assert desk.sight.sees(AUTHOR, ONE)


def test_of_who_reads_everything_nothing_is_kept(desk: Desk) -> None:
    desk.sight.brought(WHOLE, ONE)
    assert desk.homes.of([ONE]) == {}
    assert desk.sight.among(WHOLE, [ONE, TWO]) == {ONE, TWO}


def test_a_command_leads_to_what_it_names_and_to_what_its_lists_hold(desk: Desk) -> None:
    desk.lists[LIST] = canonical({"steps": [{"output": {"digest": OTHER}}]})
    for digest in (LIST, ONE, TWO, OTHER):
        desk.sight.brought(AUTHOR, digest)
    assert desk.led(RUN, AUTHOR) == {LIST, ONE, TWO, OTHER}
    assert set(desk.read_lists) == {LIST, ONE, TWO}
    assert desk.led(RUN, AUTHOR) == set(), "all that is known"


def test_what_came_after_the_list_is_led_to_when_the_list_is_named_again(desk: Desk) -> None:
    desk.lists[ONE] = canonical({"layers": [{"digest": OTHER}]})
    desk.sight.brought(AUTHOR, ONE)
    assert desk.led(RUN, AUTHOR) == {ONE}
    desk.sight.brought(AUTHOR, OTHER)
    assert desk.led(RUN, AUTHOR) == {OTHER}


def test_a_list_that_its_sender_may_not_read_is_not_opened(desk: Desk) -> None:
    desk.lists[LIST] = canonical({"steps": [{"output": {"digest": OTHER}}]})
    desk.sight.brought(AUTHOR, OTHER)
    assert desk.led(RUN, AUTHOR) == set()
    assert desk.read_lists == []


def test_who_reads_everything_leads_to_everything(desk: Desk) -> None:
    desk.lists[LIST] = canonical({"steps": [{"output": {"digest": OTHER}}]})
    assert desk.led(RUN, WHOLE) == {LIST, ONE, TWO, OTHER}


def test_only_who_brings_bytes_for_a_living_gives_homes(desk: Desk) -> None:
    approving = ApproveVersion(
        id="c1", version="a/m@1.0.0", environment="prod", role="risk", evidence_set=ONE, comment=f"see {TWO}"
    )
    assert desk.led(approving, WHOLE) == set()
    line = EvidenceLine(
        gate="g",
        metric="m",
        verdict="pass",
        severity="block",
        value="1",
        threshold="0",
        summary=TWO,
        digest=ONE,
    )
    judging = RecordEvidence(id="c2", version="a/m@1.0.0", package=LIST, lines=(line,))
    assert desk.led(judging, WHOLE) == {LIST, ONE, TWO}


def test_a_grant_over_a_tier_reads_what_is_of_that_tier_or_of_none(desk: Desk) -> None:
    desk.homes.fill([(LIST, "a/"), (ONE, "a/m"), (TWO, "a/h"), (OTHER, "b/m")])
    low = session(Grant(role="viewer", namespace="a", tiers=("low",)))
    assert desk.sight.among(low, [LIST, ONE, TWO, OTHER]) == {LIST, ONE}
    assert desk.sight.among(session(), [LIST, ONE, TWO, OTHER]) == set()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (canonical({"files": [{"digest": ONE, "path": "x"}, {"digest": TWO}]}), {ONE, TWO}),
        (
            canonical({"config": {"digest": ONE}, "layers": [{"digest": TWO}], "subject": {"digest": OTHER}}),
            {ONE, TWO},
        ),
        (canonical({"steps": [{"output": {"digest": ONE}, "inputs": {"x": OTHER}}], "note": TWO}), {ONE}),
        (canonical({"files": OTHER}), set()),
        (canonical([{"digest": ONE}]), set()),
        (f"see {ONE}".encode(), set()),
        (b"\xff\xfe", set()),
        (b"", set()),
    ],
)
def test_a_list_is_known_by_its_form(data: bytes, found: set[Any]) -> None:
    assert listed(data) == found
