"""The contract suite of the `Hub` protocol: what every hub promises, in this process or over a wire.

Subclass `HubContract` and override `connect`: a way to get the hub of any actor over one fresh, empty store that
knows the package facts of `HubWorld`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lockgate.access.messages import NameAlias, RemoveAlias
from lockgate.core.errors import Conflict, Invalid, NotFound
from lockgate.core.messages import Receipt
from lockgate.delivery.messages import PromoteVersion
from lockgate.delivery.rollouts.policy import EndpointSettings, Guard, RolloutPolicy, RolloutStep
from lockgate.delivery.rollouts.verdict import Look, Segment, Tally
from lockgate.hub.kernel import Hub
from lockgate.hub.messages import (
    ChangesAnswer,
    ChangesSince,
    ExplainVersion,
    Lineage,
    ListVersions,
    RolloutAnswer,
    ShowRollout,
    Standing,
    Status,
    StatusAnswer,
    VerifyAudit,
    VersionAnswer,
    VersionLine,
    VersionOfPackage,
    WhoAmI,
    WhoAmIAnswer,
)
from lockgate.registry.messages import (
    CommitPerson,
    DeclareModel,
    NameMakers,
    QuarantineVersion,
    RejectVersion,
)
from lockgate.testing.hub_world import AUTHOR, MODEL_NAME, PLATFORM, Story, accepted, named_digest, rules_of

V1, V2 = f"{MODEL_NAME}@1.0.0", f"{MODEL_NAME}@1.0.1"


class HubContract:
    """Every promise of `Hub`, as tests."""

    @pytest.fixture
    def connect(self) -> Callable[[str], Hub]:
        raise NotImplementedError("override the fixture `connect` to return the hub of an actor")

    @pytest.fixture
    def story(self, connect: Callable[[str], Hub]) -> Story:
        story = Story(connect)
        story.found()
        return story

    def test_a_session_is_whose_it_is(self, connect: Callable[[str], Hub]) -> None:
        hub = connect("ann")
        assert hub.session.actor == "ann"
        told: WhoAmIAnswer = hub.ask(WhoAmI())
        assert (told.actor, told.claimed, told.grants) == ("ann", True, hub.session.grants)
        assert set(told.roles) == hub.session.roles

    def test_a_receipt_holds_the_events(self, story: Story) -> None:
        receipt = accepted(story.register("one"))
        assert [event["type"] for event in receipt.events] == ["registry.version-registered/2"]
        assert receipt.events[0]["version"] == V1
        assert receipt.effects == "done"

    def test_a_refusal_is_a_value_with_all_its_reasons(self, story: Story) -> None:
        accepted(story.register("one"))
        receipt = story.promote(V1, "prod")
        assert rules_of(receipt) == [
            "registry.state",
            "delivery.ladder",
            "perf.absolute",
            "perf.vs_champion",
            "governance.approval",
        ]
        assert [event["type"] for event in receipt.events] == ["hub.command-refused/1"]

    def test_a_retry_returns_the_first_receipt_and_does_nothing(
        self, story: Story, connect: Callable[[str], Hub]
    ) -> None:
        command = story.registering("one")
        first = connect(AUTHOR).execute(command)
        assert connect(AUTHOR).execute(command) == first
        assert connect("olga").ask(ChangesSince()).head == first.head

    def test_a_refused_command_stays_refused(self, story: Story, connect: Callable[[str], Hub]) -> None:
        accepted(story.register("one"))
        command = PromoteVersion(id="late", version=V1, environment="prod")
        first = connect("olga").execute(command)
        accepted(story.judge(V1))
        accepted(story.validate(V1))
        assert connect("olga").execute(command) == first

    def test_an_id_belongs_to_one_command(self, story: Story, connect: Callable[[str], Hub]) -> None:
        declare = DeclareModel(id="same", model=MODEL_NAME, tier="high", owner="team", purpose="other")
        accepted(connect(PLATFORM).execute(declare))
        with pytest.raises(Conflict) as caught:
            connect(PLATFORM).execute(RejectVersion(id="same", version=V1, reason="x"))
        assert caught.value.code == "hub.command-id-reused"
        assert caught.value.facts == {"command": "same"}
        assert not caught.value.retryable

    def test_an_id_belongs_to_one_person(self, story: Story, connect: Callable[[str], Hub]) -> None:
        """Else a second approver could be told that his approval counts when nothing was recorded."""
        declare = DeclareModel(id="same", model=MODEL_NAME, tier="high", owner="team", purpose="other")
        accepted(connect("petra").execute(declare))
        with pytest.raises(Conflict) as caught:
            connect("paul").execute(declare)
        assert caught.value.code == "hub.command-id-reused"

    @pytest.mark.parametrize("command_id", ["", "x" * 129])
    def test_an_id_has_a_length(self, connect: Callable[[str], Hub], command_id: str) -> None:
        command = DeclareModel(id=command_id, model=MODEL_NAME, tier="low", owner="team", purpose="x")
        with pytest.raises(Invalid) as caught:
            connect(PLATFORM).execute(command)
        assert caught.value.code == "hub.bad-command-id"

    @pytest.mark.parametrize(
        "model", ["flight-delay", "main/Flight", "main/x/y", "", "main/*", "*", "main/a b"]
    )
    def test_a_name_that_cannot_be_is_an_error_and_leaves_no_trace(
        self, connect: Callable[[str], Hub], model: str
    ) -> None:
        command = DeclareModel(id="c1", model=model, tier="low", owner="team", purpose="x")
        with pytest.raises(Invalid) as caught:
            connect(PLATFORM).execute(command)
        assert caught.value.code == "core.bad-name"
        assert caught.value.remedy
        assert connect("ann").ask(ChangesSince()).head == 0

    @pytest.mark.parametrize("version", ["*", "main/*", f"{MODEL_NAME}@1.0.*"])
    def test_a_star_names_nothing(self, story: Story, connect: Callable[[str], Hub], version: str) -> None:
        accepted(story.register("one"))
        with pytest.raises(Invalid):
            connect("sam").execute(QuarantineVersion(id="c", version=version, reason="x"))

    def test_what_is_not_there_says_what_is(self, story: Story, connect: Callable[[str], Hub]) -> None:
        accepted(story.register("one"))
        with pytest.raises(NotFound) as caught:
            connect("ann").ask(ExplainVersion(version=f"{MODEL_NAME}@1.0.9"))
        assert caught.value.code == "hub.unknown-name"
        assert "flight-delay@1.0.0" in caught.value.remedy
        assert caught.value.facts == {"name": "flight-delay@1.0.9"}

    def test_every_question_has_an_answer_of_its_type(
        self, story: Story, connect: Callable[[str], Hub]
    ) -> None:
        story.release("one", V1)
        story.release("two", V2)
        hub = connect("ann")
        for query in (
            Status(),
            Status(endpoint=f"prod/{MODEL_NAME}"),
            ExplainVersion(version=V1),
            ExplainVersion(endpoint=f"prod/{MODEL_NAME}"),
            ListVersions(model=MODEL_NAME),
            Standing(version=V2, environment="prod"),
            VersionOfPackage(model=MODEL_NAME, package=named_digest("package", "one")),
            ChangesSince(seq=3, limit=2),
            VerifyAudit(),
            Lineage(ref=f"version:{V1}"),
        ):
            assert isinstance(hub.ask(query), type(query).answer)

    def test_the_whole_way_and_back(self, story: Story) -> None:
        story.release("one", V1)
        story.release("two", V2)
        line = _endpoint(story.ask(Status(endpoint=f"prod/{MODEL_NAME}")))
        assert (line.live.version, line.previous.version) == ("flight-delay@1.0.1", "flight-delay@1.0.0")
        assert line.live.approved_by == ("bob",)
        assert accepted(story.roll_back("prod")).effects == "pending"
        accepted(story.confirm("prod"))
        line = _endpoint(story.ask(Status()), "prod/flight-delay")
        assert (line.live.version, line.previous.version) == ("flight-delay@1.0.0", "flight-delay@1.0.1")

        told: VersionAnswer = story.ask(ExplainVersion(version=V2))
        assert [release.state for release in told.releases] == ["live", "rolled_back"]
        told = story.ask(ExplainVersion(endpoint=f"prod/{MODEL_NAME}"))
        assert told.version.version == V1
        assert [release.state for release in told.releases] == ["superseded", "live"]
        changes: ChangesAnswer = story.ask(ChangesSince(limit=1000))
        assert [change.seq for change in changes.changes] == list(range(1, changes.head + 1))
        assert all("\n" not in change.summary for change in changes.changes)
        assert story.ask(VerifyAudit()).ok

    def test_makers_are_told_added_and_kept_from_approving(self, story: Story) -> None:
        """Whoever is named by a commit, and whoever is one by another name of his."""
        story.train("one")
        people = (CommitPerson(name="cy@home.example", did="co-authored", commit="3f2a91c0"),)
        accepted(story.register("one", people=people, told_since=""))
        more = (CommitPerson(name="dee", did="named"),)
        accepted(story.do(AUTHOR, NameMakers(id=story.new_id(), version=V1, people=more)))
        accepted(story.do(PLATFORM, NameAlias(id=story.new_id(), alias="cy@home.example", subject="cy")))
        answer: VersionAnswer = story.ask(ExplainVersion(version=V1))
        told = [(one.name, one.did, one.people) for one in answer.makers]
        assert told == [
            (AUTHOR, "registered", ()),
            (AUTHOR, "ran", ()),
            ("cy@home.example", "co-authored", ("cy",)),
            ("dee", "named", ()),
            (AUTHOR, "told", ()),
        ]
        assert answer.version.told_since == ""
        accepted(story.judge(V1))
        accepted(story.validate(V1))
        for maker in (AUTHOR, "cy", "dee"):
            assert rules_of(story.approve(V1, actor=maker)) == ["governance.separation-of-duties"]
        accepted(story.approve(V1))
        remove = RemoveAlias(id=story.new_id(), alias="cy@home.example", subject="cy")
        assert rules_of(story.do("cy", remove)) == ["governance.separation-of-duties"]

    def test_many_threads_at_once_lose_nothing(self, story: Story, connect: Callable[[str], Hub]) -> None:
        commands = [story.registering(number) for number in range(12)]

        def send(number: int) -> Receipt:
            return connect(AUTHOR).execute(commands[number % 12])

        # Every command twice, at the same time: still one version each.
        with ThreadPoolExecutor(4) as pool:
            receipts = list(pool.map(send, range(24)))
        assert receipts[:12] == receipts[12:]
        versions = story.ask(ListVersions(model=MODEL_NAME)).versions
        assert [one.version for one in versions] == [f"{MODEL_NAME}@1.0.{n}" for n in range(12)]
        assert story.ask(VerifyAudit()).ok

    def test_a_list_is_read_page_by_page(self, story: Story) -> None:
        for number in range(12):
            accepted(story.register(number))
        accepted(story.do("sam", QuarantineVersion(id="q", version=f"{MODEL_NAME}@1.0.7", reason="x")))
        whole = story.ask(ListVersions(model=MODEL_NAME))
        names = [line.version for line in whole.versions]
        assert (names, whole.next) == ([f"{MODEL_NAME}@1.0.{n}" for n in range(12)], None)
        assert whole.versions[0].package == named_digest("package", 0)
        seen: set[VersionLine] = set()
        after: str | None = ""
        n_pages = 0
        while after is not None:
            page = story.ask(ListVersions(model=MODEL_NAME, after=after, limit=5))
            assert not seen & set(page.versions)
            seen |= set(page.versions)
            after, n_pages = page.next, n_pages + 1
        assert (seen, n_pages) == (set(whole.versions), 3)
        assert story.ask(ListVersions(model=MODEL_NAME, limit=12)).next is None
        only = story.ask(ListVersions(model=MODEL_NAME, state="quarantined"))
        assert [(line.version, line.state) for line in only.versions] == [
            (f"{MODEL_NAME}@1.0.7", "quarantined")
        ]
        for limit in (-1, 0, 2**63):
            assert story.ask(ListVersions(model=MODEL_NAME, limit=limit)).versions[0] == whole.versions[0]
        assert story.ask(ListVersions(model=MODEL_NAME, after="zzz")).versions == ()

    def test_a_rollout_goes_forward_on_proof_and_back_on_harm(self, story: Story) -> None:
        """The verdict is the hub's own, over a wire as here."""
        steps = (
            RolloutStep(stage="shadow", weight=0, min_units=10, bake_s=0.0),
            RolloutStep(stage="canary", weight=5_000, min_units=10, bake_s=0.0),
        )
        policy = RolloutPolicy(steps=steps, guards={"errors": Guard(margin=None)})
        accepted(story.configure("prod", EndpointSettings(rollout=policy)))
        story.release("one", V1)
        story.release("two", V2)
        assert self._rollout(story) == ("shadow", 1)
        accepted(story.judge_rollout("prod", self._seen(steps, 0)))
        accepted(story.confirm("prod"))
        assert self._rollout(story) == ("canary", 2)
        receipt = accepted(story.judge_rollout("prod", self._seen(steps, 1, n_bad=300)))
        assert receipt.events[-1]["type"] == "delivery.endpoint-rolled-back/1"
        accepted(story.confirm("prod"))
        answer: RolloutAnswer = story.ask(ShowRollout(endpoint=f"prod/{MODEL_NAME}"))
        assert (answer.release.state, answer.line.rollout) == ("rolled_back", None)
        assert answer.rollout is not None and answer.rollout.verdict is not None
        assert answer.rollout.verdict.outcome == "fail"
        assert story.ask(VerifyAudit()).ok

    @staticmethod
    def _rollout(story: Story) -> tuple[str, int] | None:
        (line,) = story.ask(Status(endpoint=f"prod/{MODEL_NAME}")).endpoints.values()
        return None if line.rollout is None else (line.rollout.state, line.rollout.step)

    @staticmethod
    def _seen(steps: tuple[RolloutStep, ...], step: int, n_bad: int = 0) -> Look:
        tally = Tally(n_canary=1_000, n_control=1_000, bad_canary=n_bad)
        segment = Segment(
            step=step,
            stage=steps[step].stage,
            weight=steps[step].weight,
            n_canary=1_000,
            n_control=1_000,
            guards={"errors": tally},
        )
        return Look(segments=(segment,), since=1, until=2, n_dropped=0)


def _endpoint(answer: StatusAnswer, name: str = "prod/flight-delay") -> Any:
    return answer.endpoints[name]
