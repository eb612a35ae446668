"""Who may hold grants: a person `ann@example.org`, a service account `service:NAME`, a group `group:NAME`.

A person's name never holds a colon, so that nobody whom an identity provider names can pass for an account or a
group; and never starts as the machinery's own names do. An address is written in small letters, as it is compared.
"""

from __future__ import annotations

import re

from lockgate.core.errors import Invalid
from lockgate.core.names import check_part

SERVICE = "service:"
GROUP = "group:"
_RESERVED = "lockgate"
_NAME = re.compile(r"[^\s\x00-\x1f\x7f:*]{1,120}\Z")
_ALIAS = re.compile(r"[^\s\x00-\x1f\x7f*]{1,120}\Z")
_GROUP = re.compile(r"[^\x00-\x1f\x7f*]{1,120}\Z")


class BadSubject(Invalid):
    code = "access.bad-subject"


class BadAlias(Invalid):
    code = "access.bad-alias"


def check_subject(text: str) -> str:
    """Return `text` when it names a person, a service account or a group; raise `BadSubject` otherwise."""
    if text.startswith(SERVICE):
        check_part(text.removeprefix(SERVICE), what="service account")
        return text
    if text.startswith(GROUP):
        name = text.removeprefix(GROUP)
        good = _GROUP.match(name) is not None and name == name.strip()
    else:
        good = is_person(text)
    if not good:
        raise BadSubject(
            f"{text!r} names nobody who could hold a role",
            remedy="write a person's name or address in small letters, service:NAME or group:NAME",
            value=text,
        )
    return text


def is_person(text: str) -> bool:
    """Whether a text may be the name of a person."""
    small = "@" not in text or text == text.lower()
    return _NAME.match(text) is not None and small and not text.startswith(_RESERVED)


def is_service(subject: str) -> bool:
    return subject.startswith(SERVICE)


def alias_of(text: str) -> str:
    """A name that is met in commits and CI jobs, in the form in which it is compared."""
    return text.strip().lower()


def is_alias(text: str) -> bool:
    """Whether a text, in the form in which it is compared, may be such a name."""
    return _ALIAS.match(text) is not None and text == text.lower() and not text.startswith((SERVICE, GROUP))


def check_alias(text: str) -> str:
    """The name in the form in which it is compared; raise `BadAlias` when it is none."""
    alias = alias_of(text)
    if not is_alias(alias):
        raise BadAlias(
            f"{text!r} is no name that a commit or a CI job could have",
            remedy="write an address, github:LOGIN or gitlab:LOGIN",
            value=text,
        )
    return alias
