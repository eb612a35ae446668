"""Profiles: which section of a dossier answers which article of a set of rules. Data in TOML, because rules change.

A profile says where to look, not that the rule is kept: whether what stands there is enough, people judge.
"""

from __future__ import annotations

import tomllib

import msgspec

from lockgate.core.errors import Invalid, did_you_mean
from lockgate.governance.dossier.document import Dossier, Reading, Requirement


class ProfileInvalid(Invalid):
    code = "governance.profile-invalid"


class Article(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One demand.

    Attributes:
        sections: ids of the sections that answer it; none when a dossier cannot.
    """

    ref: str
    asks: str
    sections: tuple[str, ...] = ()


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    title: str
    source: str
    note: str = ""
    article: tuple[Article, ...]


def parse_profile(text: str, *, where: str) -> Profile:
    """Read a profile. Raises `ProfileInvalid` with the place of the offending key."""
    try:
        return msgspec.convert(tomllib.loads(text), Profile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ProfileInvalid(
            f"{where} is no profile: {error}", remedy=f"correct {where}", where=where
        ) from error


def read_by(dossier: Dossier, profile: Profile) -> Dossier:
    """The dossier with what the profile asks of it. A demand is missing when one of its sections is.

    Raises:
        ProfileInvalid: the profile names a section that no dossier has.
    """
    known = {section.id: section for section in dossier.sections}
    requirements = []
    for article in profile.article:
        unknown = [name for name in article.sections if name not in known]
        if unknown:
            raise ProfileInvalid(
                f"{article.ref} of profile {profile.name} names the section {unknown[0]!r}",
                remedy=did_you_mean(unknown[0], known),
                where=profile.name,
            )
        missing = any(known[name].origin == "missing" for name in article.sections)
        requirements.append(
            Requirement(
                ref=article.ref,
                asks=article.asks,
                sections=article.sections,
                state="elsewhere" if not article.sections else "missing" if missing else "answered",
            )
        )
    reading = Reading(
        profile=profile.name,
        title=profile.title,
        source=profile.source,
        note=profile.note,
        requirements=tuple(requirements),
    )
    return msgspec.structs.replace(dossier, reading=reading)
