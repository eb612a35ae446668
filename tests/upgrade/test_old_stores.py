"""A store of every release opens for ever: it verifies, answers as it did, and takes new commands."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from make_store import ASSETS, QUESTIONS, answers, make, world_of  # noqa: E402

from lockgate.adapters.sql.sqlite.opening import open_sqlite  # noqa: E402
from lockgate.core.digests import canonical, sha256  # noqa: E402
from lockgate.core.journal import EMPTY_HEAD, extend, root  # noqa: E402
from lockgate.core.version import VERSION_OF_LOCKGATE  # noqa: E402
from lockgate.data.manifest import Snapshot, SnapshotFile  # noqa: E402
from lockgate.data.state import SNAPSHOT  # noqa: E402
from lockgate.hub.homes import fill  # noqa: E402
from lockgate.hub.kernel import read_body  # noqa: E402
from lockgate.hub.messages import VerifyAudit  # noqa: E402
from lockgate.hub.refold import refold  # noqa: E402
from lockgate.registry.state import VERSION  # noqa: E402
from lockgate.testing.clock import CountingIds  # noqa: E402
from lockgate.testing.hub_world import HubWorld, Story, accepted  # noqa: E402

RELEASES = sorted(path.name for path in ASSETS.iterdir())


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def expected(release: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ASSETS / release / "expected.json").read_text())
    return found


@pytest.fixture
def world(release: str, tmp_path: Path) -> HubWorld:
    """The store, as a copy, opened as every composition root opens one: that may upgrade it."""
    shutil.copy(ASSETS / release / "journal.db", tmp_path / "journal.db")
    world = world_of(tmp_path / "journal.db")
    refold(world.journal, world.clock)
    return world


def changes_of_then(answer: Any, expected: dict[str, Any]) -> Any:
    """What was answered about the journal, without what opening the store has added to it."""
    if isinstance(answer, dict) and "changes" in answer:
        kept = [change for change in answer["changes"] if change["type"] != "hub.documents-refolded/1"]
        there = {name: expected["events"] for name in ("head", "read_to") if name in answer}
        return {**answer, "changes": kept, **there}
    return answer


def test_this_release_has_its_store() -> None:
    assert VERSION_OF_LOCKGATE in RELEASES


def test_an_old_store_verifies(world: HubWorld, expected: dict[str, Any]) -> None:
    answer = world.ask(VerifyAudit())
    assert answer.ok, answer.findings
    head = EMPTY_HEAD
    for entry in world.journal.entries(0, expected["events"]):
        head = extend(head, entry.body)
    assert (head.seq, head.hash.hex()) == (expected["events"], expected["head"])
    assert root(head.frontier).hex() == expected["root"]
    assert answer.events - expected["events"] in (0, 1)


@pytest.mark.parametrize("name", QUESTIONS)
def test_an_old_store_answers_as_it_did(world: HubWorld, expected: dict[str, Any], name: str) -> None:
    if name in expected["answers"]:
        now = changes_of_then(answers(world)[name], expected)
        assert differences(expected["answers"][name], now, name) == []


def test_an_old_store_keeps_what_is_still_to_be_done(world: HubWorld, expected: dict[str, Any]) -> None:
    assert world.outbox.open_rows() == expected["effects"] > 0
    row = world.outbox.lease(0, 1)
    assert row is not None
    assert json.loads(row.body)["type"].startswith("delivery.")


def test_an_old_store_takes_new_commands(world: HubWorld) -> None:
    story = Story(world.hub, CountingIds("later"))
    accepted(story.confirm("dev"))
    story.train("next")
    receipt = accepted(story.register("next"))
    version = receipt.events[0]["version"]
    accepted(story.judge(version))
    accepted(story.validate(version))
    accepted(story.promote(version, "dev"))
    answer = world.ask(VerifyAudit())
    assert answer.ok, answer.findings


def test_the_blobs_of_an_old_store_are_given_homes(release: str, tmp_path: Path) -> None:
    shutil.copy(ASSETS / release / "journal.db", tmp_path / "journal.db")
    store = open_sqlite(tmp_path / "journal.db")
    assert not store.homes.is_filled()
    versions = [read_body(VERSION, one) for one in store.journal.documents(VERSION.name)]
    snapshots = [read_body(SNAPSHOT, one) for one in store.journal.documents(SNAPSHOT.name)]
    manifest = Snapshot(
        dataset=snapshots[0].dataset,
        columns=(),
        n_rows=1,
        files=(SnapshotFile(path="x.parquet", digest=sha256(b"rows"), n_bytes=1, n_rows=1),),
    )
    # Of the store of then there is the journal alone; these are the bytes that it may have been over.
    there = {sha256(b"rows"): b"rows", sha256(b"of nobody"): b"of nobody"}
    there |= {one.package: b"a package" for one in versions}
    there |= {one.snapshot: canonical(manifest) for one in snapshots}
    sizes = {digest: len(data) for digest, data in there.items()}
    assert fill(store.journal, store.homes, lambda: sizes, there.__getitem__)
    homes = store.homes.of(there)
    assert versions and snapshots
    assert all(set(homes[one.package]) == {one.model} for one in versions)
    assert all(f"{one.dataset.partition('/')[0]}/" in homes[one.snapshot] for one in snapshots)
    assert "main/" in homes[sha256(b"rows")]
    assert sha256(b"of nobody") not in homes
    again = open_sqlite(tmp_path / "journal.db")
    assert not fill(again.journal, again.homes, dict, there.__getitem__)
    assert again.homes.of(there) == homes


def test_a_command_of_then_is_known_now(world: HubWorld, expected: dict[str, Any]) -> None:
    """A client that never got its answer may still send its command again."""
    before = world.journal.head().seq
    story = Story(world.hub)
    story.found()
    assert world.journal.head().seq == before


def test_the_same_code_makes_the_same_journal(tmp_path: Path) -> None:
    make(tmp_path / "first")
    make(tmp_path / "second")
    first, second = ((tmp_path / name / "expected.json").read_bytes() for name in ("first", "second"))
    assert first == second


def differences(then: Any, now: Any, where: str) -> list[str]:
    """Where the answer of now says something else than that of then; it may say more."""
    if isinstance(then, dict) and isinstance(now, dict):
        return [
            line
            for key, value in then.items()
            for line in (
                differences(value, now[key], f"{where}.{key}") if key in now else [f"{where}.{key} is gone"]
            )
        ]
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        return [
            line
            for i, pair in enumerate(zip(then, now, strict=True))
            for line in differences(*pair, f"{where}[{i}]")
        ]
    return [] if then == now else [f"{where}: {then!r} became {now!r}"]


def test_a_difference_is_told_by_its_place() -> None:
    assert differences({"a": [{"b": 1}]}, {"a": [{"b": 2, "c": 3}]}, "x") == ["x.a[0].b: 1 became 2"]
    assert differences({"a": 1, "b": 2}, {"b": 2}, "x") == ["x.a is gone"]
    assert differences([1], [1, 2], "x") == ["x: [1] became [1, 2]"]
