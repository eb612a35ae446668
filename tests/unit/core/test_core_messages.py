from __future__ import annotations

from typing import ClassVar

import msgspec
import pytest

from lockgate.core.digests import canonical
from lockgate.core.messages import (
    Command,
    Context,
    Event,
    Query,
    Reason,
    Receipt,
    Refusal,
    Scope,
    refuse,
    tag_of,
)


class RenameThing(Command, tag="things.rename"):
    permission: ClassVar[str] = "things.rename"
    thing: str

    def scope(self) -> Scope:
        return Scope(model=self.thing)


class ThingRenamed(Event, tag="things.renamed/1"):
    thing: str

    def summary(self) -> str:
        return f"{self.thing} was renamed"


class CountThings(Query, tag="things.count"):
    permission: ClassVar[str] = "things.read"
    answer: ClassVar[type] = int


def test_a_message_travels_under_its_tag():
    command = RenameThing(id="c1", thing="flight-delay")
    data = canonical(command)
    assert data == b'{"type":"things.rename","thing":"flight-delay","id":"c1"}'
    assert msgspec.json.decode(data, type=RenameThing) == command
    assert tag_of(RenameThing) == "things.rename"
    assert tag_of(ThingRenamed) == "things.renamed/1"


def test_a_command_with_a_field_we_do_not_know_is_refused():
    data = b'{"type":"things.rename","id":"c1","thing":"x","actor":"root"}'
    with pytest.raises(msgspec.ValidationError, match="actor"):
        msgspec.json.decode(data, type=RenameThing)


def test_an_event_of_a_later_release_may_say_more():
    data = b'{"type":"things.renamed/1","thing":"x","reason":"taste"}'
    assert msgspec.json.decode(data, type=ThingRenamed) == ThingRenamed(thing="x")


def test_a_message_of_another_tag_is_not_taken_for_this_one():
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"type":"things.other","id":"c1","thing":"x"}', type=RenameThing)


def test_messages_do_not_change():
    with pytest.raises(AttributeError):
        RenameThing(id="c1", thing="x").thing = "y"  # type: ignore[misc]


def test_what_a_subclass_must_declare_is_not_invented():
    with pytest.raises(NotImplementedError):
        CountThings().scope()
    with pytest.raises(NotImplementedError):
        Event().summary()


def test_a_refusal_holds_all_its_reasons():
    low = Reason(rule="auc", message="AUC is too low", measured="0.61", limit="0.70")
    old = Reason(rule="age", message="the evidence is too old")
    assert refuse(low, old) == Refusal(reasons=(low, old))
    assert refuse(old, waiting=True).waiting


def test_a_receipt_keeps_its_refusal_over_the_wire():
    receipt = Receipt(command_id="c1", head=7, refusal=refuse(Reason(rule="r", message="m")))
    assert msgspec.json.decode(canonical(receipt), type=Receipt) == receipt


def test_a_context_shares_nothing_with_another():
    assert Context(actor="a", now=1).facts is not Context(actor="a", now=1).facts
