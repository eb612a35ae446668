from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.core.errors import Invalid
from lockgate.core.messages import Receipt
from lockgate.hub.messages import ExplainVersion, Lineage, ListVersions, Status, VersionOfPackage
from lockgate.registry.messages import DeclareModel, LiftQuarantine, QuarantineVersion, RejectVersion
from lockgate.registry.state import VersionState
from lockgate.testing.hub_world import (
    MODEL_NAME,
    SBOM,
    SIGNER,
    HubWorld,
    Story,
    accepted,
    named_digest,
    rules_of,
)

V1, V2 = f"{MODEL_NAME}@1.0.0", f"{MODEL_NAME}@1.0.1"


def version(story: Story, key: str) -> VersionState:
    state: VersionState = story.ask(ExplainVersion(version=key)).version
    return state


def number(receipt: Receipt) -> str:
    return str(accepted(receipt).events[0]["version"].partition("@")[2])


def test_a_model_is_declared_once_and_may_be_redeclared(story: Story) -> None:
    def declare(tier: Any, command_id: str) -> Receipt:
        return story.do(
            "petra", DeclareModel(id=command_id, model=MODEL_NAME, tier=tier, owner="team", purpose="delays")
        )

    assert accepted(declare("high", "a")).events == ()
    accepted(story.register("one"))
    assert len(accepted(declare("critical", "b")).events) == 1
    (model,) = story.ask(Status()).models
    assert (model.tier, model.latest, model.n_versions) == ("critical", V1, 1)


def test_a_version_of_an_undeclared_model_is_refused(world: HubWorld) -> None:
    assert rules_of(Story(world.hub).register("one")) == ["registry.model-unknown"]


def test_the_first_version_is_one_or_what_was_asked_for(world: HubWorld, story: Story) -> None:
    assert number(story.register("one", version="0.4.0")) == "0.4.0"
    assert version(story, f"{MODEL_NAME}@0.4.0").bump == "first"


def test_numbers_follow_the_smallest_bump_that_the_change_demands(world: HubWorld, story: Story) -> None:
    for name, bump, expected in (
        ("a", "patch", "1.0.0"),
        ("b", "patch", "1.0.1"),
        ("c", "minor", "1.1.0"),
        ("d", "major", "2.0.0"),
        ("e", "patch", "2.0.1"),
    ):
        world.bumps[named_digest("package", name)] = bump  # type: ignore[assignment]
        assert number(story.register(name)) == expected
    listed = [one.version.partition("@")[2] for one in story.ask(ListVersions(model=MODEL_NAME)).versions]
    assert listed == ["1.0.0", "1.0.1", "1.1.0", "2.0.0", "2.0.1"]


def test_versions_are_listed_as_numbers_not_as_text(world: HubWorld, story: Story) -> None:
    for asked in ("1.0.9", "1.0.10", "1.9.0", "1.10.0"):
        world.bumps[named_digest("package", asked)] = "patch"
        accepted(story.register(asked, version=asked))
    listed = [one.version.partition("@")[2] for one in story.ask(ListVersions(model=MODEL_NAME)).versions]
    assert listed == ["1.0.9", "1.0.10", "1.9.0", "1.10.0"]


@pytest.mark.parametrize(
    ("bump", "asked", "allowed"),
    [
        ("patch", "1.2.4", True),
        ("patch", "1.3.0", True),
        ("patch", "9.0.0", True),
        ("minor", "1.2.4", False),
        ("minor", "1.3.0", True),
        ("major", "1.9.9", False),
        ("major", "2.0.0", True),
        ("patch", "1.2.3", False),
        ("patch", "1.2.2", False),
        ("patch", "0.9.0", False),
    ],
)
def test_a_smaller_bump_than_the_change_demands_is_refused(
    world: HubWorld, story: Story, bump: Any, asked: str, allowed: bool
) -> None:
    accepted(story.register("one", version="1.2.3"))
    world.bumps[named_digest("package", "two")] = bump
    receipt = story.register("two", version=asked)
    assert rules_of(receipt) == ([] if allowed else ["registry.bump-too-small"])
    if receipt.refusal is not None:
        (reason,) = receipt.refusal.reasons
        assert reason.measured == f"1.2.3 -> {asked}"
        assert reason.limit is not None
        assert bump in reason.limit


@pytest.mark.parametrize("asked", ["1.0", "v1.0.0", "01.0.0", "", "1.0.0-rc1"])
def test_what_is_no_number_is_invalid(story: Story, asked: str) -> None:
    accepted(story.register("one"))
    with pytest.raises(Invalid):
        story.register("two", version=asked)


def test_a_package_gets_one_number(story: Story) -> None:
    accepted(story.register("one"))
    assert accepted(story.register("one")).events == ()
    assert accepted(story.register("one", version="7.0.0")).events == ()
    package = named_digest("package", "one")
    assert story.ask(VersionOfPackage(model=MODEL_NAME, package=package)).version == V1
    assert story.ask(VersionOfPackage(model=MODEL_NAME, package=named_digest("x"))).version is None


def test_a_number_of_a_rejected_version_is_not_used_again(world: HubWorld, story: Story) -> None:
    accepted(story.register("one"))
    accepted(story.do("bob", RejectVersion(id="r", version=V1, reason="bad")))
    assert number(story.register("two")) == "1.0.1"
    assert rules_of(story.register("three", version="1.0.0")) == ["registry.bump-too-small"]


def test_a_version_remembers_who_made_it_and_from_what(story: Story) -> None:
    story.train("one")
    accepted(story.register("one", author="ann"))
    accepted(story.register("two", author="bob"))
    first, second = version(story, V1), version(story, V2)
    assert (first.author, first.state, first.previous, first.signed_by) == (
        "ann",
        "candidate",
        None,
        (SIGNER,),
    )
    assert (second.author, second.previous, second.bump) == ("bob", V1, "patch")
    edges = {(edge.kind, edge.target) for edge in story.ask(Lineage(ref=f"version:{V1}")).edges}
    package = f"package:{named_digest('package', 'one')}"
    assert ("registered_as", f"version:{V1}") in edges
    assert ("made", package) in edges
    assert ("read_by", f"run:{named_digest('run', 'one')}") in edges


def quarantine(story: Story, actor: str = "sam", key: str = V1) -> Receipt:
    return story.do(actor, QuarantineVersion(id=story.new_id(), version=key, reason="leak"))


def lift(story: Story, actor: str = "sue", key: str = V1) -> Receipt:
    return story.do(actor, LiftQuarantine(id=story.new_id(), version=key, reason="no leak"))


def reject(story: Story, key: str = V1) -> Receipt:
    return story.do("bob", RejectVersion(id=story.new_id(), version=key, reason="bad"))


def test_quarantine_returns_a_version_to_where_it_was(story: Story) -> None:
    accepted(story.register("one"))
    for state in ("candidate", "validated"):
        if state == "validated":
            accepted(story.judge(V1))
            accepted(story.validate(V1))
        accepted(quarantine(story))
        assert (version(story, V1).state, version(story, V1).quarantined_by) == ("quarantined", "sam")
        assert rules_of(quarantine(story)) == ["registry.state"]
        accepted(lift(story))
        shown = version(story, V1)
        assert (shown.state, shown.quarantined_by, shown.before_quarantine) == (state, None, None)


def test_the_person_who_quarantined_does_not_lift(story: Story) -> None:
    accepted(story.register("one"))
    accepted(quarantine(story, "sam"))
    receipt = lift(story, "sam")
    assert rules_of(receipt) == ["registry.second-person"]
    assert version(story, V1).state == "quarantined"


def test_what_is_not_quarantined_cannot_be_let_out(story: Story) -> None:
    accepted(story.register("one"))
    assert rules_of(lift(story)) == ["registry.state"]


def test_rejected_is_the_end(story: Story) -> None:
    accepted(story.register("one"))
    accepted(story.judge(V1))
    accepted(reject(story))
    for receipt in (
        reject(story),
        quarantine(story),
        lift(story),
        story.validate(V1),
        story.promote(V1, "dev"),
        story.do("eve", story.judging(V1, named_digest("package", "one"))),
    ):
        assert rules_of(receipt) == ["registry.state"]
    assert (version(story, V1).state, version(story, V1).reason) == ("rejected", "bad")


@pytest.mark.parametrize("send", [reject, quarantine, lift])
def test_an_unknown_version(story: Story, send: Any) -> None:
    assert rules_of(send(story, key=f"{MODEL_NAME}@9.9.9")) == ["registry.version-unknown"]


SCAN = "https://example.org/scan"


def attested(story: Story, key: str = V1) -> list[tuple[str, str]]:
    found = story.ask(ExplainVersion(version=key)).attestations
    return [(one.predicate_type, one.attached_by) for one in found]


def test_what_is_attested_of_a_version_is_listed_with_who_attached_it(story: Story) -> None:
    accepted(story.register("one"))
    assert attested(story) == []
    accepted(story.do("ann", story.attaching(V1, "bom")))
    accepted(story.do("ci", story.attaching(V1, "scan", SCAN)))
    assert attested(story) == [(SBOM, "ann"), (SCAN, "ci")]
    (first, second) = story.ask(ExplainVersion(version=V1)).attestations
    assert first.envelope == named_digest("envelope", "bom") and first.signed_by == SIGNER
    assert first.attached_at < second.attached_at


def test_the_same_statement_is_attached_once_however_often_it_is_signed(
    world: HubWorld, story: Story
) -> None:
    accepted(story.register("one"))
    first = story.attaching(V1, "bom")
    accepted(story.do("ann", first))
    again = story.attaching(V1, "bom signed again")
    fact = world.as_said(first)
    world.attested[again.envelope] = msgspec.structs.replace(fact, envelope=again.envelope)
    assert accepted(story.do("bob", again)).events == ()
    assert len(attested(story)) == 1


def test_a_statement_about_other_bytes_or_of_another_kind_is_refused_for_both_reasons(
    world: HubWorld, story: Story
) -> None:
    accepted(story.register("one"))
    command = story.attaching(V1, "bom")
    world.attested[command.envelope] = msgspec.structs.replace(
        world.as_said(command), package=named_digest("package", "two"), predicate_type=SCAN
    )
    assert rules_of(story.do("ann", command)) == ["registry.other-package", "registry.other-predicate"]
    assert attested(story) == []


def test_nothing_is_attached_to_a_version_that_is_not_there(story: Story) -> None:
    assert rules_of(story.do("ann", story.attaching(V2, "bom"))) == ["registry.version-unknown"]


def test_a_rejected_version_still_takes_statements(story: Story) -> None:
    accepted(story.register("one"))
    accepted(story.do("bob", RejectVersion(id="r", version=V1, reason="bad")))
    accepted(story.do("ann", story.attaching(V1, "scan", SCAN)))
    assert attested(story) == [(SCAN, "ann")]
