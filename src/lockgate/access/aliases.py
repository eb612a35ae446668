"""Who stands behind a name that is met in commits and CI jobs, and who says so.

Whoever says that a name is somebody else's, or a machine's, would free himself if it were his own. So he is taken for
whoever stands behind it until somebody else says the same; and nobody takes his own name off the list.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lockgate.access.messages import AliasNamed, AliasRemoved, NameAlias, NoteAddress, RemoveAlias
from lockgate.access.state import ALIAS, SUBJECT
from lockgate.access.subjects import GROUP, SERVICE, alias_of, check_alias, check_subject, is_alias, is_person
from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse

_HUB = "the hub"


def needs_alias(command: NameAlias | NoteAddress | RemoveAlias, docs: Docs) -> tuple[DocRef, ...]:
    return (DocRef(ALIAS.name, alias_of(command.alias)),)


def name_alias(docs: Docs, command: NameAlias | NoteAddress, context: Context) -> Decision | Refusal:
    """Said again by somebody else, it is confirmed; by the same, or a third time, it is no news."""
    alias, subject = check_alias(command.alias), check_subject(command.subject)
    if subject.startswith(GROUP):
        return refuse(
            Reason(
                rule="access.alias-of-group",
                message=f"behind {alias} stands a person, or a machine, and no group",
                measured=subject,
                remedy="name each person, or a service account: service:NAME",
            )
        )
    if isinstance(command, NameAlias) and not context.person:
        return refuse(_by_a_machine(context.actor))
    known = docs.get(ALIAS, alias)
    same = [one for one in (known.behind if known else ()) if one.subject == subject]
    if any(one.confirmed_by or one.named_by == context.actor for one in same):
        return Decision(())
    return Decision((AliasNamed(alias=alias, subject=subject),))


def remove_alias(docs: Docs, command: RemoveAlias, context: Context) -> Decision | Refusal:
    """By a person, and never of himself: with the name, what he made would no longer be his."""
    alias = check_alias(command.alias)
    known = docs.get(ALIAS, alias)
    if known is None or not any(one.subject == command.subject for one in known.behind):
        return refuse(
            Reason(
                rule="access.alias-unknown",
                message=f"nobody says that {command.subject} stands behind {alias}",
                measured=", ".join(one.subject for one in (known.behind if known else ())) or "nobody",
                remedy="lockgate access list",
            )
        )
    if not context.person:
        return refuse(_by_a_machine(context.actor))
    if alias_of(context.actor) == alias_of(command.subject):
        return refuse(
            Reason(
                rule="governance.separation-of-duties",
                message=f"{context.actor} cannot take his own name {alias} off",
                measured=context.actor,
                limit=f"not {command.subject}",
                remedy="ask somebody else who is admin, or of security",
            )
        )
    return Decision((AliasRemoved(alias=alias, subject=command.subject, reason=command.reason),))


def _by_a_machine(actor: str) -> Reason:
    return Reason(
        rule="access.persons-only",
        message=f"{actor} is a service, and who somebody is, a person says",
        measured="service",
        limit="person",
        remedy="ask an admin, or somebody of security",
    )


class Identity(NamedTuple):
    """Who is behind names that were told of one maker.

    Attributes:
        names: as they were told.
        people, machines: whom the hub knows to be behind them.
        named_by: who says so by an alias; given_by: who gave a person of that very name a role.
    """

    names: frozenset[str]
    people: frozenset[str]
    machines: frozenset[str]
    named_by: frozenset[str]
    given_by: frozenset[str]

    @property
    def is_known(self) -> bool:
        return bool(self.people or self.machines)

    def is_(self, actor: str) -> bool:
        """Whether it is, or may be, this person."""
        return alias_of(actor) in {alias_of(name) for name in self.names | self.people}

    def rests_on(self, actor: str, *, strict: bool) -> bool:
        """Whether only this person says who it is.

        Args:
            strict: also where he says so by having given somebody of that name a role.
        """
        vouchers = self.named_by | self.given_by
        return vouchers == {actor} and (strict or bool(self.named_by))


def identity_refs(names: Iterable[str]) -> tuple[DocRef, ...]:
    """The documents that `identity_of` asks for."""
    refs = []
    for name in filter(is_alias, map(alias_of, names)):
        refs += [DocRef(ALIAS.name, name), DocRef(SUBJECT.name, name)]
    return tuple(refs)


def identity_of(docs: Docs, names: Iterable[str]) -> Identity:
    """Who is behind these names, which are those of one maker. Declare `identity_refs` of them."""
    told = frozenset(names)
    people, machines = set[str](), {name for name in told if name.startswith(SERVICE)}
    named_by, given_by = set[str](), set[str]()
    for name in filter(is_alias, map(alias_of, told)):
        alias, subject = docs.get(ALIAS, name), docs.get(SUBJECT, name)
        for one in alias.behind if alias else ():
            (machines if one.subject.startswith(SERVICE) else people).add(one.subject)
            # What somebody says of himself frees nobody.
            named_by |= {by for by in one.vouchers if by != one.subject}
        # A name that holds nothing any more may have been made up for this.
        if subject is not None and is_person(name) and (subject.grants or subject.named_at is not None):
            people.add(name)
            given_by |= {held.granted_by for held in subject.grants}
            given_by |= {held.confirmed_by for held in subject.grants if held.confirmed_by}
            given_by |= {_HUB} if subject.named_at is not None else set()
    return Identity(told, frozenset(people), frozenset(machines), frozenset(named_by), frozenset(given_by))
