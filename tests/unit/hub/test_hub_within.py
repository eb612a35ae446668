"""What somebody with a grant over a part sees of questions over everything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from lockgate.access.roles import Grant
from lockgate.core.digests import Digest
from lockgate.core.messages import Command, Query
from lockgate.data.messages import RecordContractCheck, RecordSnapshot
from lockgate.delivery.messages import DeclareEndpoint, DeclareEnvironment
from lockgate.features.messages import OnlineView, RecordMaterialization
from lockgate.hub.authority import Session
from lockgate.hub.kernel import LocalHub, NotAllowed
from lockgate.hub.messages import (
    ChangesSince,
    ExplainVersion,
    FindReleases,
    FindSnapshots,
    Lineage,
    ListVersions,
    Queue,
    Status,
    VerifyAudit,
)
from lockgate.hub.ports import Edge
from lockgate.hub.questions import UnknownName
from lockgate.pipeline.messages import RecordRun
from lockgate.registry.messages import DeclareModel, RegisterVersion
from lockgate.testing.hub_world import HubWorld, named_digest
from lockgate.traffic.plan import Fallback

SHARED, OTHER = named_digest("shared"), named_digest("other")


def package(model: str) -> Digest:
    return named_digest("package", model)


def commands() -> Iterable[Command]:
    """Two namespaces, two tiers, two environments; one snapshot is read by all, one by `fraud` alone."""
    for order, environment in enumerate(("dev", "prod")):
        yield DeclareEnvironment(
            id=f"env-{environment}",
            environment=environment,
            order=order,
            sensitivity="open",
            target="local",
            trust=("key",),
        )
    for dataset, snapshot in (("main/a", SHARED), ("fraud/b", OTHER)):
        yield RecordSnapshot(
            id=f"s-{dataset}",
            dataset=dataset,
            snapshot=snapshot,
            n_rows=1,
            extracted_at=1,
            source="somewhere",
            transformation=named_digest("transformation"),
            storage="blobs",
        )
        yield RecordContractCheck(
            id=f"k-{dataset}", dataset=dataset, snapshot=snapshot, contract=named_digest("contract")
        )
    for model, tier in (("main/delay", "low"), ("main/risk", "high"), ("fraud/card", "low")):
        yield from of_model(model, tier)


def of_model(model: str, tier: Any) -> Iterable[Command]:
    run = named_digest("run", model)
    snapshots = {"main/a": SHARED} | ({"fraud/b": OTHER} if model.startswith("fraud/") else {})
    yield DeclareModel(id=f"d-{model}", model=model, tier=tier, owner="o", purpose="p")
    for environment in ("dev", "prod"):
        yield DeclareEndpoint(
            id=f"e-{environment}-{model}", endpoint=f"{environment}/{model}", fallback=Fallback()
        )
    yield RecordRun(id=f"r-{model}", run=run, model=model, package=package(model), snapshots=snapshots)
    yield RegisterVersion(
        id=f"v-{model}", model=model, package=package(model), run=run, signatures=(named_digest("s"),)
    )


@pytest.fixture
def world() -> HubWorld:
    world = HubWorld.in_memory()
    for command in commands():
        receipt = world.hub("ann").execute(command)
        assert receipt.refusal is None, receipt.refusal
    return world


def ask(world: HubWorld, query: Query, *grants: Grant) -> Any:
    session = Session(actor="eve", grants=grants, claimed=False)
    return LocalHub(world.journal, world.clock, session, answer=world.ask).ask(query)


MAIN = Grant(role="viewer", namespace="main")
FRAUD = Grant(role="viewer", namespace="fraud")


def test_status_shows_what_the_grant_reaches_and_nothing_beside_it(world: HubWorld) -> None:
    seen = ask(world, Status(), MAIN)
    assert sorted(seen.endpoints) == ["dev/delay", "dev/risk", "prod/delay", "prod/risk"]
    assert [one.model for one in seen.models] == ["main/delay", "main/risk"]
    assert list(ask(world, Status(), FRAUD).endpoints) == ["dev/fraud/card", "prod/fraud/card"]
    assert len(ask(world, Status(), MAIN, FRAUD).endpoints) == 6
    assert len(ask(world, Status(), Grant(role="viewer")).endpoints) == 6
    assert ask(world, Status(), Grant(role="viewer", namespace="none")).models == ()


def test_status_of_one_endpoint_tells_no_other_models(world: HubWorld) -> None:
    seen = ask(world, Status(endpoint="prod/main/delay"), MAIN)
    assert [one.model for one in seen.models] == ["main/delay", "main/risk"]
    with pytest.raises(NotAllowed):
        ask(world, Status(endpoint="prod/fraud/card"), MAIN)


def test_status_is_cut_by_tier_and_by_environment(world: HubWorld) -> None:
    assert list(ask(world, Status(), Grant(role="viewer", tiers=("high",))).endpoints) == [
        "dev/risk",
        "prod/risk",
    ]
    seen = ask(world, Status(), Grant(role="viewer", namespace="main", environments=("dev",)))
    assert sorted(seen.endpoints) == ["dev/delay", "dev/risk"]


def test_the_journal_is_read_by_parts_without_a_gap(world: HubWorld) -> None:
    auditor = Grant(role="auditor", namespace="fraud")
    seen, at = [], 0
    while True:
        answer = ask(world, ChangesSince(seq=at, limit=1), auditor)
        assert answer.read_to > at or answer.read_to == answer.head
        seen += [line.summary for line in answer.changes]
        at = answer.read_to
        if at == answer.head:
            break
    assert len(seen) == 7
    assert all("fraud" in summary for summary in seen)
    everything = ask(world, ChangesSince(limit=1000), Grant(role="auditor"))
    assert len(everything.changes) == everything.head == everything.read_to
    with pytest.raises(NotAllowed):
        ask(world, ChangesSince(), FRAUD)


def test_lineage_goes_on_only_to_what_is_seen(world: HubWorld) -> None:
    def ends(ref: str, *grants: Grant) -> set[str]:
        edges = ask(world, Lineage(ref=ref), *grants).edges
        return {end for edge in edges for end in (edge.source, edge.target)}

    shared, other = f"snapshot:{SHARED}", f"snapshot:{OTHER}"
    version = "version:fraud/card@1.0.0"
    assert {version, shared, other} <= ends(version, FRAUD)
    assert ends(version, MAIN) == set()
    assert ends(other, MAIN) == set()
    assert {end for end in ends(shared, MAIN) if end.startswith("version:")} == {
        "version:main/delay@1.0.0",
        "version:main/risk@1.0.0",
    }
    assert f"package:{package('fraud/card')}" not in ends(shared, MAIN)
    assert f"package:{package('fraud/card')}" in ends(shared, Grant(role="viewer"))
    assert ends(shared, Grant(role="viewer", tiers=("high",))) == {
        shared,
        f"run:{named_digest('run', 'main/risk')}",
        f"package:{package('main/risk')}",
        "version:main/risk@1.0.0",
    }


def test_what_an_online_store_was_filled_from_is_seen_with_its_namespace(world: HubWorld) -> None:
    online = OnlineView(
        view="spend",
        hash=named_digest("spend"),
        features=("total",),
        snapshots={"main/a": SHARED},
        n_rows=1,
        n_keys=1,
        n_new=1,
        newest_at=1,
    )
    for model in ("fraud/card", "main/delay"):
        command = RecordMaterialization(id=f"m-{model}", model=model, store="s", until=1, views=(online,))
        assert world.hub("ann").execute(command).refusal is None

    def stores(*grants: Grant) -> set[str]:
        readers = ask(world, Lineage(ref=f"snapshot:{SHARED}"), *grants).readers
        return {edge.target.partition("@")[0] for edge in readers if edge.kind == "pushed_to"}

    assert stores(FRAUD) == {"online:fraud/spend"}
    assert stores(MAIN) == {"online:main/spend"}
    assert stores(Grant(role="viewer")) == {"online:fraud/spend", "online:main/spend"}


def test_snapshots_are_found_by_the_beginning_of_their_digest_where_they_are_seen(world: HubWorld) -> None:
    def found(beginning: str, *grants: Grant) -> set[str]:
        answer = ask(world, FindSnapshots(beginning=beginning), *grants)
        return {one.snapshot for one in answer.snapshots}

    assert found("", Grant(role="viewer")) == {SHARED, OTHER}
    assert found(OTHER[:20], Grant(role="viewer")) == {OTHER}
    assert found("", MAIN) == {SHARED}
    assert found(OTHER, MAIN) == found("sha256:nothing", Grant(role="viewer")) == set()


def test_edges_of_a_kind_that_nobody_thought_of_are_hidden(world: HubWorld) -> None:
    version = "version:main/delay@1.0.0"
    world.journal.store.edges.add(Edge("wish:fraud/card", "led_to", version))  # type: ignore[attr-defined]
    world.journal.store.edges.add(Edge("release:dev/fraud/card#1", "led_to", version))  # type: ignore[attr-defined]

    def sources(*grants: Grant) -> set[str]:
        return {edge.source.partition(":")[0] for edge in ask(world, Lineage(ref=version), *grants).edges}

    assert {"wish", "release"} <= sources(Grant(role="viewer"))
    assert not {"wish", "release"} & sources(MAIN)


def test_what_waits_for_people_and_what_a_ticket_asked_for_is_cut_as_well(world: HubWorld) -> None:
    for query in (Queue(), FindReleases(ticket="OPS-1")):
        (found,) = msgspec.structs.astuple(ask(world, query, MAIN))
        assert found == ()
        with pytest.raises(NotAllowed):
            ask(world, query)


def test_whether_the_journal_holds_concerns_everybody_and_which_record_does_not(world: HubWorld) -> None:
    part = Grant(role="auditor", namespace="fraud")
    assert ask(world, VerifyAudit(), part).ok
    stored = world.journal.store.documents  # type: ignore[attr-defined]
    key = next(key for key in stored if key == ("model", "main/delay"))
    stored[key] = stored[key]._replace(body=stored[key].body.replace(b'"p"', b'"q"'))
    seen = ask(world, VerifyAudit(), part)
    assert not seen.ok
    assert "main/delay" not in " ".join(seen.findings)
    assert "main/delay" in " ".join(ask(world, VerifyAudit(), Grant(role="auditor")).findings)


def test_an_unknown_name_is_not_answered_with_names_of_others(world: HubWorld) -> None:
    for query in (ExplainVersion(version="main/dela@1.0.0"), ListVersions(model="main/dela")):
        with pytest.raises(UnknownName) as caught:
            ask(world, query, MAIN)
        assert "fraud" not in caught.value.remedy
        assert "delay" not in caught.value.remedy
    with pytest.raises(UnknownName) as caught:
        ask(world, ListVersions(model="main/dela"), Grant(role="viewer"))
    assert "delay" in caught.value.remedy


def test_a_version_that_is_seen_opens_no_endpoint_that_is_not(world: HubWorld) -> None:
    both = ExplainVersion(version="main/delay@1.0.0", endpoint="prod/fraud/card")
    with pytest.raises(NotAllowed):
        ask(world, both, MAIN)
