"""The bases of everything that travels through the one door.

`Command` asks for a change, `Query` asks a question, `Event` states what happened. All three are frozen
structs with a tag, so one union decodes each kind from the journal and from the wire. The actor is never
part of a message: it belongs to the hub session. A command carries its own id; sending it again returns the
receipt of the first time.

A tag is `ROOM.name` for commands and queries, `ROOM.name/N` for events. An event tag is never edited once a
store holds it: a new shape is a new N, and the room gains an upcaster.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest


class Scope(msgspec.Struct, frozen=True):
    """What a message concerns; empty text means "any". Permissions are granted over scopes.

    Attributes:
        target: what the message wants to set, where a role may set some values only: the role of an approver.
        within: the message confines itself to what its sender may see or owns; a grant over any part will do.
        whole: it concerns every tier and environment there; a grant over some of them will not do.
    """

    namespace: str = ""
    model: str = ""
    environment: str = ""
    target: str = ""
    within: bool = False
    whole: bool = False


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """Base of all commands. Imperative name; `permission` and `scope()` are declared by every subclass."""

    permission: ClassVar[str] = ""
    id: str

    def scope(self) -> Scope:
        raise NotImplementedError


class Query(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """Base of all queries. `answer` is the type of what comes back.

    `of_journal` says that the answer depends on the journal alone: while the head stands, so does the answer.
    """

    permission: ClassVar[str] = ""
    answer: ClassVar[Any] = None
    of_journal: ClassVar[bool] = False

    def scope(self) -> Scope:
        raise NotImplementedError


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all events: a past-tense fact of the business, one line long when summarised."""

    def summary(self) -> str:
        raise NotImplementedError


class Stamp(msgspec.Struct, frozen=True):
    """What the journal adds to an event: its place, time, actor and the command that caused it."""

    seq: int
    at: Micros
    actor: str
    command_id: str


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One ground of a refusal, with the figure that was measured and the limit it met."""

    rule: str
    message: str
    measured: str | None = None
    limit: str | None = None
    evidence: Digest | None = None
    remedy: str | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A decision not to do something, with *all* its reasons. A value, not an exception.

    `waiting` is true when time or another person can turn the answer: a missing approval, a bake.
    """

    reasons: tuple[Reason, ...]
    waiting: bool = False

    def without(self, words: str) -> Refusal:
        """The same with remedies that leave out what does not apply where they are read."""
        kept = (
            msgspec.structs.replace(one, remedy=one.remedy and one.remedy.replace(words, ""))
            for one in self.reasons
        )
        return msgspec.structs.replace(self, reasons=tuple(kept))


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What `execute` returns, stored with the command id: the events it wrote, or the refusal.

    `events` are in their JSON form. `effects` is `done` when nothing is left to carry out, else `pending`: a
    controller will.
    """

    command_id: str
    head: int
    events: tuple[dict[str, Any], ...] = ()
    refusal: Refusal | None = None
    effects: Literal["done", "pending"] = "done"


class Effect(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Something to be done outside after the commit. Idempotent, and fenced by `fence` per `subject`."""

    subject: str
    fence: int


class Decision(NamedTuple):
    """What a command leads to: the events to be written, and what is to be done outside afterwards."""

    events: tuple[Event, ...]
    effects: tuple[Effect, ...] = ()


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision may know beside the documents: who asks, when, and dated facts made before the lock.

    Attributes:
        person: whether the actor is one; a service never counts as somebody who approves.
        claimed: whether nobody proved the actor's name.
        credential: by what the name was proven, `token:ID` or `oidc:ISSUER`; empty when it was not.
        groups: those that the identity provider says the actor is in.
        started_by: who started the CI job that speaks, by the names its system has for him.
    """

    actor: str
    now: Micros
    person: bool = True
    claimed: bool = False
    credential: str = ""
    groups: tuple[str, ...] = ()
    started_by: tuple[str, ...] = ()
    facts: Mapping[str, Any] = msgspec.field(default_factory=dict)


def tag_of(message: type[Command] | type[Query] | type[Event] | type[Effect]) -> str:
    return str(message.__struct_config__.tag)


class RefusedCommand(Exception):
    """A command in the midst of some work was refused; carries the refusal to whoever shows it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reasons[0].message)
        self.refusal = refusal


def refuse(*reasons: Reason, waiting: bool = False) -> Refusal:
    return Refusal(reasons=reasons, waiting=waiting)
