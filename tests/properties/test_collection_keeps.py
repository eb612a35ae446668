"""Whatever happened before: a collection takes nothing that a load, a way back or a rebuilding needs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lockgate.core.blobs import BlobMissing
from lockgate.data.manifest import read_snapshot
from lockgate.data.state import DATASET as DATASETS
from lockgate.delivery.messages import RetireVersion
from lockgate.delivery.state import ENDPOINT
from lockgate.hub.holdings import bodies_of
from lockgate.hub.messages import VerifyAudit
from lockgate.registry.messages import LiftHold
from lockgate.registry.packages.package import open_package
from lockgate.registry.state import VERSION, VersionState
from lockgate.testing.house import House
from lockgate.testing.hub_world import MODEL_NAME, OPERATOR

ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "register",
                "release to dev",
                "release to prod",
                "roll back",
                "reject",
                "retire",
                "hold",
                "lift",
                "days",
                "collect",
                "erase",
                "stray",
            ]
        ),
        st.integers(0, 3),
    ),
    min_size=3,
    max_size=30,
)


def act(house: House, what: str, which: int) -> None:
    """One step of a history; what the state does not allow is refused, and that is fine."""
    story = house.story
    version = f"{MODEL_NAME}@1.0.{which}"
    known = {one.version for one in bodies_of(house.world.journal, VERSION)}
    match what:
        case "register":
            story.train(len(known))
            story.register(len(known))
        case "days":
            house.clock.advance(days=20 * which)
        case "collect":
            house.collect()
        case "stray":
            house.blobs.put(b"stray %d" % which)
        case _ if version not in known:
            return
        case "release to dev" | "release to prod":
            environment = what.rsplit(" ", 1)[-1]
            story.judge(version)
            story.validate(version)
            if environment == "prod":
                story.judge_for(version, "prod")
                story.approve(version)
            story.promote(version, environment, ticket="CHG-1")
            if which != 2:
                story.confirm(environment, applied=which != 3)
        case "roll back":
            story.roll_back("prod" if which % 2 else "dev")
            story.confirm("prod" if which % 2 else "dev")
        case "reject":
            house.reject(version)
        case "retire":
            command = RetireVersion(id=story.new_id(), version=version, reason="old")
            story.do(OPERATOR, command)
        case "hold":
            house.hold(version)
        case "lift":
            story.do("bob", LiftHold(id=story.new_id(), version=version, matter="case", reason="over"))
        case "erase":
            house.try_to_erase(story.named("snapshot", which))


def loads(house: House, version: VersionState) -> None:
    """Everything that a data plane reads, and what vouches for it."""
    package = open_package(version.package, house.blobs)
    for layer in package.layers:
        package.read(layer.path, house.blobs)
    for signature in version.signatures:
        house.blobs.get(signature)


def rebuilds(house: House, version: VersionState) -> None:
    """Everything that `reproduce` reads beside the package, unless it was erased."""
    house.blobs.get(version.run)
    for snapshot in open_package(version.package, house.blobs).config.snapshots.values():
        erased = house.is_erased(snapshot)
        for file in read_snapshot(snapshot, house.blobs).files:
            if not erased:
                house.blobs.get(file.digest)


@settings(max_examples=120)
@given(ACTS)
def test_a_collection_takes_nothing_that_anybody_needs(history: list[tuple[str, int]]) -> None:
    house = House()
    begins = [("register", 0), ("register", 0), ("release to dev", 0), ("register", 0)]
    for what, which in [*begins, *history, ("days", 2), ("collect", 0)]:
        act(house, what, which)
    journal = house.world.journal
    versions = {one.version: one for one in bodies_of(journal, VERSION)}
    for version in versions.values():
        if version.collected_at is None:
            loads(house, version)
            rebuilds(house, version)
        else:
            assert version.state in ("rejected", "retired")
            assert not version.holds
            # On record it stays what it was.
            assert open_package(version.package, house.blobs).config.model == MODEL_NAME
            house.blobs.get(version.run)
    for endpoint in bodies_of(journal, ENDPOINT):
        for use in (endpoint.live, endpoint.previous, endpoint.rollout):
            if use is not None:
                assert versions[use.served.version].collected_at is None
                loads(house, versions[use.served.version])
    for dataset in bodies_of(journal, DATASETS):
        if not house.is_erased(dataset.latest):
            for file in read_snapshot(dataset.latest, house.blobs).files:
                house.blobs.get(file.digest)
    assert house.world.ask(VerifyAudit()).ok


def test_the_oracle_can_fail() -> None:
    house = House()
    act(house, "register", 0)
    (version,) = bodies_of(house.world.journal, VERSION)
    house.blobs.delete(house.story.weights(0))
    try:
        loads(house, version)
    except BlobMissing:
        return
    raise AssertionError("a package without its weights was said to load")
