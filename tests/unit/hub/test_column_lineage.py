"""From source column to dashboard and back, and what a change of a column would break."""

from __future__ import annotations

import pytest

from lockgate.access.roles import Grant
from lockgate.hub.authority import Session
from lockgate.hub.messages import Impact, ImpactAnswer, Lineage, Status, VerifyAudit
from lockgate.registry.messages import TracedColumn, TracedInput
from lockgate.testing.hub_world import MODEL_NAME, HubWorld, Story, named_digest

V1, V2 = f"{MODEL_NAME}@1.0.0", f"{MODEL_NAME}@1.0.1"
COLUMN = "main/flights.dep_delay"


def traces(meaning: str, *columns: tuple[str, str]) -> tuple[TracedInput, ...]:
    return (
        TracedInput(
            input="distance", source="request", feature="", columns=(TracedColumn("main/flights.distance", "name"),)
        ),
        TracedInput(
            input="delay", source="queue:delay", feature=f"main/queue:delay@{meaning}",
            columns=tuple(TracedColumn(column, how) for column, how in columns),
        ),
        TracedInput(
            input="", source="flights/model.py", feature="", columns=(TracedColumn("main/flights.late", "code"),)
        ),
    )  # fmt: skip


@pytest.fixture
def world() -> HubWorld:
    world = HubWorld.in_memory()
    world.traces[named_digest("package", "one")] = traces(
        "aaa", (COLUMN, "value"), ("main/flights.origin", "rows")
    )
    world.traces[named_digest("package", "two")] = traces("bbb", ("main/flights.origin", "rows"))
    return world


def edges(story: Story, ref: str) -> set[tuple[str, str, str]]:
    found = story.ask(Lineage(ref=ref))
    return {(one.source, one.kind, one.target) for one in (*found.edges, *found.readers)}


def impact(story: Story, ref: str) -> ImpactAnswer:
    answer: ImpactAnswer = story.ask(Impact(ref=ref))
    return answer


DOWN = {
    (f"column:{COLUMN}", "value", "feature:main/queue:delay@aaa"),
    ("feature:main/queue:delay@aaa", "feeds", f"input:{V1}:delay"),
    (f"input:{V1}:delay", "input_of", f"version:{V1}"),
    (f"version:{V1}", "released_to", f"endpoint:dev/{MODEL_NAME}"),
    (f"version:{V1}", "released_to", f"endpoint:prod/{MODEL_NAME}"),
    (f"endpoint:dev/{MODEL_NAME}", "read_by", "consumer:app"),
    (f"endpoint:prod/{MODEL_NAME}", "read_by", "consumer:app"),
}


def test_a_column_leads_down_to_the_consumers_and_an_endpoint_up_to_the_columns(story: Story) -> None:
    story.release("one", V1)
    assert edges(story, f"column:{COLUMN}") == DOWN
    up = edges(story, f"endpoint:prod/{MODEL_NAME}")
    assert {(f"column:{COLUMN}", "value", "feature:main/queue:delay@aaa")} < up
    assert ("column:main/flights.distance", "name", f"input:{V1}:distance") in up
    assert ("column:main/flights.late", "code", f"version:{V1}") in up
    assert {one for one in DOWN if not one[0].startswith("endpoint:dev") and "dev/" not in one[2]} <= up
    # A consumer is where the way up can begin, too.
    assert (f"column:{COLUMN}", "value", "feature:main/queue:delay@aaa") in edges(story, "consumer:app")
    assert story.ask(VerifyAudit()).ok


def test_the_meaning_of_a_view_keeps_two_versions_apart(story: Story) -> None:
    story.release("one", V1)
    story.release("two", V2)
    assert edges(story, f"column:{COLUMN}") == DOWN
    shared = edges(story, "column:main/flights.origin")
    assert {source for source, kind, _ in shared if kind == "feeds"} == {
        "feature:main/queue:delay@aaa", "feature:main/queue:delay@bbb"
    }  # fmt: skip


def test_a_change_breaks_what_is_live_and_what_is_kept_for_the_way_back(story: Story) -> None:
    story.release("one", V1)
    story.release("two", V2)
    answer = impact(story, COLUMN)
    assert [(line.endpoint, line.version, line.role) for line in answer.lines] == [
        ("dev/flight-delay", "flight-delay@1.0.0", "previous"),
        ("prod/flight-delay", "flight-delay@1.0.0", "previous"),
    ]
    assert answer.lines[0].uses == ("delay by value through queue:delay",)
    assert answer.consumers == ("app",) and answer.untraced == ()
    assert {line.role for line in impact(story, "main/flights.origin").lines} == {"live", "previous"}
    assert impact(story, "main/flights.tailnum").lines == ()


def test_a_dataset_is_all_of_its_columns_and_a_feature_is_asked_for_by_its_name(story: Story) -> None:
    story.release("one", V1)
    (line, _) = impact(story, "main/flights").lines
    assert line.uses == (
        "distance by its name (distance)",
        "delay by value through queue:delay (dep_delay)",
        "delay by choosing rows through queue:delay (origin)",
        "flights/model.py by code that names it (late)",
    )
    assert impact(story, "main/queue:delay").lines[0].uses == ("delay is it",)
    assert impact(story, "main/flight").lines == ()


def test_versions_that_were_never_traced_are_named_instead_of_passed_over(
    world: HubWorld, story: Story
) -> None:
    world.traces.clear()
    story.release("one", V1)
    answer = impact(story, COLUMN)
    assert answer.lines == ()
    assert answer.untraced == (
        "flight-delay@1.0.0 on dev/flight-delay",
        "flight-delay@1.0.0 on prod/flight-delay",
    )


def test_a_misspelt_name_is_answered_with_those_like_it(story: Story) -> None:
    story.release("one", V1)
    table, _, column = COLUMN.rpartition(".")
    answer = impact(story, f"{table}.{column[:-1]}")
    assert answer.lines == () and answer.near[0] == COLUMN
    assert impact(story, "main/flihgts").near[0] == "main/flights"
    assert impact(story, COLUMN).near == ()


def test_whoever_sees_another_namespace_only_is_told_nothing(world: HubWorld, story: Story) -> None:
    story.release("one", V1)
    stranger = Session(actor="eve", grants=(Grant(role="viewer", namespace="other"),), claimed=False)
    questions = world.questions
    assert questions(Lineage(ref=f"column:{COLUMN}"), stranger).edges == ()
    assert questions(Impact(ref=COLUMN), stranger) == ImpactAnswer(ref=COLUMN, lines=(), untraced=())


def test_a_name_that_was_mistyped_is_answered_with_what_may_be_meant(story: Story) -> None:
    """`nothing is made from it` of a slip of the pen would be read as leave to go ahead."""
    story.release("one", V1)
    answer = impact(story, COLUMN[:-1])
    assert answer.lines == () and answer.near[0] == COLUMN
    assert impact(story, "main/elsewhere.entirely").near == ()
    assert impact(story, COLUMN).near == ()


def test_endpoints_say_where_they_stand_on_the_ladder(story: Story) -> None:
    """Over the wire an object has no order of its own."""
    story.release("one", V1)
    lines = story.ask(Status()).endpoints
    assert [lines[f"{name}/flight-delay"].order for name in ("dev", "prod")] == sorted(
        {line.order for line in lines.values()}
    )
