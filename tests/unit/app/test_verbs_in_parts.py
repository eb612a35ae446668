"""Parts of the verbs that need no project: the ladder of `ship`, a checkpoint that cannot be written, a far hub."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lockgate.adapters.identity.keys import KeyMissing
from lockgate.app.cli.main import Refused
from lockgate.app.cli.session import Session, WorkNeedsStore, told
from lockgate.app.cli.verbs.build import _ladder
from lockgate.core.messages import Reason, Refusal, RefusedCommand
from lockgate.workshop.config import ConfigInvalid, EnvironmentTable

ORDERS = {"prod-eu": 3, "dev": 1, "prod-us": 3, "staging": 2}


def session(hub_url: str | None = None, **control: Any) -> Session:
    made = Session("ann", json=False, project=None, hub_url=hub_url)
    made.__dict__["control"] = SimpleNamespace(**control)
    return made


@pytest.mark.parametrize(
    ("target", "ladder"),
    [
        ("dev", ["dev"]),
        ("prod-us", ["dev", "staging", "prod-us"]),
        ("prod-eu", ["dev", "staging", "prod-eu"]),
    ],
)
def test_the_ladder_leads_to_the_target_and_not_to_its_neighbours(target: str, ladder: list[str]) -> None:
    tables = {name: EnvironmentTable(order=order, trust=()) for name, order in ORDERS.items()}
    assert _ladder(session(config=SimpleNamespace(environments=tables)), target) == ladder


def test_an_unknown_target_is_told_with_its_near_matches() -> None:
    tables = {name: EnvironmentTable(order=order, trust=()) for name, order in ORDERS.items()}
    with pytest.raises(ConfigInvalid) as caught:
        _ladder(session(config=SimpleNamespace(environments=tables)), "stagin")
    assert "'staging'" in caught.value.remedy


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyMissing("no key", remedy="lockgate init", path="k")]
)
def test_a_checkpoint_that_cannot_be_written_is_only_a_warning(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    session(checkpoint=fail).seal()
    told = capsys.readouterr()
    assert told.out == ""
    assert "warning" in told.err and "no checkpoint was written" in told.err


def test_what_belongs_to_this_machine_is_refused_with_a_hub_elsewhere() -> None:
    with pytest.raises(WorkNeedsStore):
        session("http://127.0.0.1:1").work_here()


def test_with_a_hub_elsewhere_names_are_claimed_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    session("http://127.0.0.1:1").say_identity()
    assert "claimed, not proven: this hub believes any name" in capsys.readouterr().err


@pytest.mark.parametrize(("proof", "remedy"), [(None, "approve x --as NAME"), (lambda: "t", "approve x")])
def test_where_a_name_is_proven_nobody_is_told_to_claim_one(proof: Any, remedy: str) -> None:
    made = session("https://hub.example.org")
    made.__dict__["proof"] = proof
    reason = Reason(rule="governance.approval", message="m", remedy="approve x --as NAME")
    told = made.fitting(Refused(Refusal(reasons=(reason,), waiting=True), headline="h"))
    assert (told.refusal.reasons[0].remedy, told.refusal.waiting, told.headline) == (remedy, True, "h")


def test_what_the_workshop_was_refused_ends_the_verb_as_a_refusal() -> None:
    refusal = Refusal(reasons=(Reason(rule="hub.permission", message="ann may not"),))
    with pytest.raises(Refused, match="ann may not") as caught, told(session("https://hub.example.org")):
        raise RefusedCommand(refusal)
    assert caught.value.refusal == refusal
