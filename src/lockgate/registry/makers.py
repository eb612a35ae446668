"""Who made a version, and who is kept from judging it for that: everybody who had a hand in it.

Makers are told by whoever registers (of commits), by the token of a CI job (of who started it) and by the record of the
run. What is told only ever adds one, so that a lie makes the rules stricter; what is left out is what lies can do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from lockgate.access.aliases import Identity, identity_of, identity_refs
from lockgate.access.subjects import SERVICE, is_alias
from lockgate.core import semver
from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Context, Decision, Reason, Refusal
from lockgate.registry.messages import CommitPerson, Maker, MakersNamed, NameMakers
from lockgate.registry.state import VERSION, VersionState, earlier

MAX_PEOPLE = 200
"""How many people one command names."""
MAX_MAKERS = 400
"""How many makers a version has at most: a decision about it reads what is known of each."""
_COMMIT = re.compile(r"[0-9a-f]{0,64}\Z")
_NO_REPLY = re.compile(r"(?:[0-9]+\+)?([a-z0-9-]+)@users\.noreply\.github\.com\Z")
_WORDS = {
    "registered": "made {version}",
    "started": "started the job that made {version}",
    "ran": "ran the training of {version}",
    "authored": "wrote {commit}",
    "committed": "committed {commit}",
    "co-authored": "wrote {commit} with others",
    "named": "is said to have made {version}",
    "told": "told who made {version}",
}
# Their names were proven, or claimed, where they acted themselves.
_ACTED = frozenset({"registered", "ran", "told"})


def maker_of(person: CommitPerson) -> Maker:
    """A maker by what is said of him."""
    return Maker(name=person.name, did=person.did, commit=person.commit, also=_logins(person.name))


def _logins(*names: str) -> tuple[str, ...]:
    """An address by which GitHub hides somebody's own tells his login."""
    return tuple(f"github:{hidden[1]}" for name in names if (hidden := _NO_REPLY.match(name)))


def starters(context: Context) -> tuple[Maker, ...]:
    """Who started the CI job that speaks, as its own token says."""
    if not context.started_by:
        return ()
    first, *also = context.started_by
    return (Maker(name=first, did="started", also=(*also, *_logins(*context.started_by))),)


def untellable(people: Sequence[CommitPerson], told_since: str | None) -> list[Reason]:
    """What is wrong with what is said of makers."""
    if told_since:
        semver.parse(told_since)
    reasons = [
        Reason(
            rule="registry.maker-unreadable",
            message=f"{one.name!r} is nobody's name",
            measured=one.name[:200],
            limit="an address, or a name of a CI system, in small letters",
            remedy="write it as the commit has it, in small letters, and the commit by its digest",
        )
        for one in people
        if not is_alias(one.name) or _COMMIT.match(one.commit) is None
    ]
    return reasons[:10] + _too_many(len(people), MAX_PEOPLE)


def _too_many(n_people: int, limit: int) -> list[Reason]:
    if n_people <= limit:
        return []
    return [
        Reason(
            rule="registry.too-many-makers",
            message="more people are said to have made it than anybody could look at",
            measured=str(n_people),
            limit=str(limit),
            remedy="release more often, or squash what came in at once",
        )
    ]


def name_makers(version: VersionState, command: NameMakers, context: Context) -> Decision | Refusal:
    """Add makers. Whoever tells them is one from then on, so that nobody frees himself by telling half of it."""
    reasons = untellable(command.people, command.told_since)
    teller = Maker(name=context.actor, did="told")
    told = (*map(maker_of, command.people), *starters(context), teller)
    known = set(version.makers)
    news = tuple(one for one in dict.fromkeys(told) if one not in known)
    reasons += _too_many(len(known) + len(news), MAX_MAKERS)
    if reasons:
        return Refusal(reasons=tuple(reasons))
    since = earlier(version.told_since, command.told_since)
    if since == version.told_since and not set(news) - {teller, *starters(context)}:
        return Decision(())
    return Decision((MakersNamed(version=version.version, makers=news, told_since=command.told_since),))


class Found(NamedTuple):
    """A maker, and who that is."""

    maker: Maker
    identity: Identity

    @property
    def is_known(self) -> bool:
        return self.maker.did in _ACTED or self.identity.is_known

    @property
    def is_person(self) -> bool:
        acted = self.maker.did in _ACTED and not self.maker.name.startswith(SERVICE)
        return acted or bool(self.identity.people)


class MakerLine(msgspec.Struct, frozen=True, kw_only=True):
    """A maker, for whoever reads about a version.

    Attributes:
        people: whom the hub knows to be behind the name: people, or accounts of machines.
        known: whether anybody is.
    """

    name: str
    did: str
    commit: str
    also: tuple[str, ...]
    people: tuple[str, ...]
    known: bool


def maker_texts(lines: Iterable[MakerLine]) -> list[str]:
    """Makers for people, each name once: `ada@home.example = ada@example.org (authored, committed 3f2a91c)`."""
    by_name = dict[str, list[MakerLine]]()
    for line in lines:
        by_name.setdefault(line.name, []).append(line)
    texts = []
    for name, told in by_name.items():
        behind = sorted({one for line in told for one in line.people} - {name})
        known = any(line.known for line in told)
        who = f" = {', '.join(behind)}" if behind else "" if known else " = nobody known"
        commits = dict.fromkeys(line.commit[:7] for line in told if line.commit)
        deeds = ", ".join(dict.fromkeys(line.did for line in told))
        texts.append(f"{name}{who} ({' '.join((deeds, *commits))})")
    return texts


class Makers:
    """Everybody who had a hand in a version, as far as it is known.

    Args:
        strict: whether it matters that each of them is known.
    """

    def __init__(self, version: VersionState, found: Iterable[Found], *, strict: bool = False) -> None:
        self.version = version
        self.found = tuple(found)
        self._strict = strict

    def deed_of(self, actor: str) -> str | None:
        """What somebody did with the version, as the end of a sentence; None when he is independent of it."""
        for maker, identity in self.found:
            if identity.is_(actor):
                behind = "" if actor in identity.names else f" as {maker.name}"
                return self._words(maker) + behind
        for maker, identity in self.found:
            if identity.rests_on(actor, strict=self._strict):
                return f"alone says who {maker.name} is, who {self._words(maker)},"
        return None

    def include(self, actor: str) -> bool:
        return self.deed_of(actor) is not None

    def _words(self, maker: Maker) -> str:
        commit = maker.commit[:7] or "a commit"
        return _WORDS[maker.did].format(version=self.version.version, commit=commit)

    @property
    def shown(self) -> str:
        """Who they are as far as that is known, else the name they go by; the first few of them."""
        names = list(
            dict.fromkeys(
                who
                for maker, identity in self.found
                for who in sorted(identity.people | identity.machines) or [maker.name]
            )
        )
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

    @property
    def lines(self) -> tuple[MakerLine, ...]:
        return tuple(
            MakerLine(
                name=maker.name,
                did=maker.did,
                commit=maker.commit,
                also=maker.also,
                people=tuple(sorted(identity.people | identity.machines)),
                known=Found(maker, identity).is_known,
            )
            for maker, identity in self.found
        )

    def unknown(self) -> Iterator[Maker]:
        """Those behind whose names nobody is known, each name once."""
        seen = set[str]()
        for one in self.found:
            if not one.is_known and one.maker.name not in seen:
                seen.add(one.maker.name)
                yield one.maker


def maker_refs(docs: Docs, key: str) -> tuple[DocRef, ...]:
    """The documents that tell who made a version; of whom, is known once the version is there."""
    ref = DocRef(VERSION.name, key)
    version = docs.get(VERSION, key) if docs.has(ref) and not key.endswith("*") else None
    more = () if version is None else identity_refs(name for one in version.makers for name in one.names)
    return (ref, *more)


def makers_of(docs: Docs, version: VersionState, *, strict: bool = False) -> Makers:
    """Declare `maker_refs` of the version."""
    found = (Found(one, identity_of(docs, one.names)) for one in version.makers)
    return Makers(version, found, strict=strict)


def not_by_a_maker(context: Context, makers: Makers, verb: str) -> list[Reason]:
    """Whoever had a hand in a version has no say about it."""
    deed = makers.deed_of(context.actor)
    if deed is None:
        return []
    alone = deed.startswith("alone ")
    return [
        Reason(
            rule="governance.separation-of-duties",
            message=f"{context.actor} {deed} and cannot {verb}",
            measured=context.actor,
            limit=f"not {makers.shown}",
            remedy="let another admin say the same: lockgate access alias"
            if alone
            else "somebody else types the same command --as NAME",
        )
    ]
