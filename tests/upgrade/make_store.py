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

from lockgate.adapters.sql.sqlite.journal import SqliteJournal
from lockgate.adapters.sql.sqlite.outbox import SqliteOutbox
from lockgate.adapters.sql.sqlite.store import SqliteStore
from lockgate.core.digests import canonical
from lockgate.core.journal import root
from lockgate.core.messages import Query
from lockgate.core.version import VERSION_OF_LOCKGATE
from lockgate.delivery.messages import (
    AdvanceRollout,
    DrillFigures,
    FinishDrill,
    PauseRollout,
    ResumeRollout,
    RetireVersion,
    StartDrill,
)
from lockgate.delivery.rollouts.policy import EndpointSettings, Guard, RolloutPolicy, RolloutStep
from lockgate.delivery.rollouts.verdict import Look, Segment, Tally
from lockgate.hub.messages import (
    ChangesSince,
    ExplainVersion,
    Lineage,
    ListVersions,
    ShowRollout,
    Standing,
    Status,
)
from lockgate.hub.questions import Questions
from lockgate.registry.messages import LiftQuarantine, QuarantineVersion, RejectVersion
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, accepted
from lockgate.traffic.observed import Observed

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
    "rollout": ShowRollout(endpoint=f"prod/{MODEL_NAME}"),
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
    roll_out(story)
    accepted(story.promote(V1, "dev"))
    accepted(story.confirm("dev", applied=False))
    accepted(story.promote(V1, "dev"))


ROLLOUT = RolloutPolicy(
    steps=(
        RolloutStep(stage="shadow", weight=0, min_units=10, bake_s=0.0),
        RolloutStep(stage="canary", weight=5_000, min_units=10, bake_s=0.0),
    ),
    guards={"errors": Guard(), "latency": Guard(bound=20_000.0), "labels": Guard(margin=None, bound=0.5)},
)
FIGURES = DrillFigures(
    n_flips=2,
    n_requests=9,
    n_failed=0,
    n_wrong=0,
    n_workers=1,
    first_p50_us=800,
    first_p99_us=1_200,
    all_p50_us=900,
    all_p99_us=1_500,
)


def looked(step: int, n_bad: int = 0) -> Look:
    tally = Tally(n_canary=1_000, n_control=1_000, bad_canary=n_bad)
    segment = Segment(
        step=step,
        stage=ROLLOUT.steps[step].stage,
        weight=ROLLOUT.steps[step].weight,
        n_canary=1_000,
        n_control=1_000,
        guards={"errors": tally},
    )
    return Look(segments=(segment,), since=1, until=2, n_dropped=0)


def roll_out(story: Story) -> None:
    """A release that is moved on by hand, one that harm takes back in its canary, and a drill."""
    name = f"prod/{MODEL_NAME}"
    new = story.new_id
    accepted(story.configure("prod", EndpointSettings(features="online", capture="scores", rollout=ROLLOUT)))
    accepted(story.promote(V2, "prod", ticket="CHG-2"))
    release = accepted(story.confirm("prod")).events[0]["release"]
    accepted(story.do("olga", PauseRollout(id=new(), endpoint=name, reason="holiday")))
    accepted(story.do("olga", ResumeRollout(id=new(), endpoint=name)))
    command = AdvanceRollout(id=new(), endpoint=name, release=release, step=0, full=True, reason="outage")
    accepted(story.do("olga", command))
    accepted(story.confirm("prod"))
    drill = accepted(story.do("olga", StartDrill(id=new(), endpoint=name, n_flips=2))).events[0]["drill"]
    accepted(story.do("olga", FinishDrill(id=new(), endpoint=name, drill=drill, figures=FIGURES)))
    accepted(story.roll_back("prod", reason="complaints"))
    accepted(story.confirm("prod"))
    accepted(story.promote(V2, "prod"))
    accepted(story.confirm("prod"))
    accepted(story.judge_rollout("prod", looked(0)))
    accepted(story.confirm("prod"))
    accepted(story.judge_rollout("prod", looked(1, n_bad=200)))
    accepted(story.confirm("prod"))


def world_of(store: Path) -> HubWorld:
    """The hub of a store; beside it is no data plane."""
    opened = SqliteStore(store)
    world = HubWorld(SqliteJournal(opened), SqliteOutbox(opened))
    world.questions = Questions(
        world.journal, world.outbox, world.clock, observe=lambda endpoint: Observed(endpoint=endpoint)
    )
    return world


def answers(world: HubWorld) -> dict[str, Any]:
    """The answers to `QUESTIONS` as plain JSON. A list held whole versions once; now each is asked for by itself."""
    found = {name: json.loads(canonical(world.ask(query))) for name, query in QUESTIONS.items()}
    for line in found["versions"]["versions"]:
        line |= json.loads(canonical(world.ask(ExplainVersion(version=line["version"])).version))
    return found


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
