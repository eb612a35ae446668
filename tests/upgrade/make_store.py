"""Writes the store that stands for this release: `python tests/upgrade/make_store.py`.

    assets/RELEASE/journal.db       a small store with something of everything in it
    assets/RELEASE/expected.json    its head, and what was answered about it when it was made

Time and ids stand still, so the same code writes the same journal. A store is made once, for a release; after the
release it is never made again, because the point of it is to have been written by the old code. While a release is
being built, `--replace` writes it anew.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from lockgate.adapters.sql.journal import SqliteJournal
from lockgate.adapters.sql.outbox import SqliteOutbox
from lockgate.adapters.sql.sqlite import SqliteStore
from lockgate.core.digests import canonical
from lockgate.core.journal import root
from lockgate.core.messages import Query
from lockgate.core.version import VERSION_OF_LOCKGATE
from lockgate.delivery.messages import RetireVersion
from lockgate.hub.messages import ChangesSince, ExplainVersion, Lineage, ListVersions, Standing, Status
from lockgate.registry.messages import LiftQuarantine, QuarantineVersion, RejectVersion
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted

ASSETS = Path(__file__).parent / "assets"
V1, V2, V3, V4, V5 = (f"{MODEL_NAME}@1.0.{patch}" for patch in range(5))
QUESTIONS: dict[str, Query] = {
    "status": Status(),
    "explain 1.0.0": ExplainVersion(version=V1),
    "explain 1.0.1": ExplainVersion(version=V2),
    "explain prod": ExplainVersion(endpoint=f"prod/{MODEL_NAME}"),
    "versions": ListVersions(model=MODEL_NAME),
    "standing 1.0.1": Standing(version=V2, environment="prod"),
    "changes": ChangesSince(limit=1000),
    "lineage 1.0.0": Lineage(ref=f"version:{V1}"),
}
"""What must still be answered alike, by the name it has in `expected.json`."""


def tell(story: Story) -> None:
    """Two releases and a rollback; a refusal; versions that were rejected, quarantined and retired; an open effect."""
    story.found()
    story.release("one", V1)
    story.release("two", V2)
    accepted(story.roll_back("prod", reason="complaints"))
    accepted(story.confirm("prod"))
    for name in ("three", "four", "five"):
        story.train(name)
        accepted(story.register(name))
    assert story.promote(V3, "prod").refusal is not None
    accepted(story.do("sam", QuarantineVersion(id="q1", version=V3, reason="a leak")))
    accepted(story.do("sue", LiftQuarantine(id="q2", version=V3, reason="no leak")))
    accepted(story.do("sam", QuarantineVersion(id="q3", version=V3, reason="a leak after all")))
    accepted(story.do("bob", RejectVersion(id="r1", version=V4, reason="too slow")))
    accepted(story.do("olga", RetireVersion(id="r2", version=V5, reason="superseded")))
    assert story.approve(V2, actor="ann").refusal is not None
    accepted(story.promote(V1, "dev"))
    accepted(story.confirm("dev", applied=False))
    accepted(story.promote(V1, "dev"))


def world_of(store: Path) -> HubWorld:
    opened = SqliteStore(store)
    return HubWorld(SqliteJournal(opened), SqliteOutbox(opened))


def answers(world: HubWorld) -> dict[str, Any]:
    """The answers to `QUESTIONS` as plain JSON."""
    return {name: json.loads(canonical(world.ask(query))) for name, query in QUESTIONS.items()}


def make(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "journal.db"
        world = world_of(path)
        tell(Story(world.hub))
        head = world.journal.head()
        expected = {
            "release": VERSION_OF_LOCKGATE,
            "events": head.seq,
            "head": head.hash.hex(),
            "root": root(head.frontier).hex(),
            "effects": world.outbox.open_rows(),
            "answers": answers(world),
        }
        # One file without a log beside it, and without pages that nothing uses.
        target = directory / "journal.db"
        target.unlink(missing_ok=True)
        connection = sqlite3.connect(path)
        connection.execute("VACUUM INTO ?", (str(target),))
        connection.close()
    text = json.dumps(expected, indent=1, sort_keys=True, ensure_ascii=False)
    (directory / "expected.json").write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replace", action="store_true", help="while the release is being built")
    chosen = parser.parse_args()
    directory = ASSETS / VERSION_OF_LOCKGATE
    if directory.exists() and not chosen.replace:
        parser.error(
            f"{directory.name} has its store; it is never made again once released (--replace before that)"
        )
    make(directory)
    print(f"wrote {directory.relative_to(Path(__file__).parent)}")


if __name__ == "__main__":
    main()
