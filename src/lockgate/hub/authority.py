"""Who is asking, and whether that is enough.

Embedded mode has no way to prove an identity: whoever can open the store can claim any name. A session says so
(`claimed`), the CLI repeats it, and everything that depends on *who* (separation of duties) is decided on the
claimed name all the same. A hub for a team brings proven identities through the same type.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import msgspec

from lockgate.access.roles import CONTROLLER, PEOPLES_ROLES, ROLES, Grant, everywhere, holders, way_to
from lockgate.core.errors import Forbidden
from lockgate.core.messages import Command, Query, Reason, Refusal, Scope, refuse, tag_of


class Unauthenticated(Forbidden):
    """Nobody is proven by what the request brought: no token, or one that is unknown, expired or withdrawn."""

    code = "http.unauthenticated"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The actor of a hub session.

    Attributes:
        claimed: nobody proved the name.
        kind: a `service` never counts as somebody who approves.
        credential: by what the name was proven, `token:ID` or `oidc:ISSUER`; empty when it was not.
        groups: those that the identity provider says the actor is in.
        started_by: who started the CI job that the credential was given to, by the names its system has for him.
    """

    actor: str
    grants: tuple[Grant, ...]
    claimed: bool
    kind: Literal["person", "service"] = "person"
    credential: str = ""
    groups: tuple[str, ...] = ()
    started_by: tuple[str, ...] = ()

    @property
    def roles(self) -> frozenset[str]:
        return frozenset(grant.role for grant in self.grants)


def embedded(actor: str) -> Session:
    return Session(actor=actor, grants=everywhere(PEOPLES_ROLES), claimed=True)


def controller(actor: str = "lockgate-controller") -> Session:
    return Session(actor=actor, grants=everywhere({CONTROLLER}), claimed=False, kind="service")


class Sight:
    """What a session sees of an answer that concerns many things, by the permission its question asked for."""

    def __init__(self, session: Session, permission: str) -> None:
        self.session = session
        self._permission = permission
        self.is_whole = any(
            grant.is_over_everything and grant.covers(permission, Scope(), None) for grant in session.grants
        )

    def sees(self, scope: Scope, tier: str | None = None) -> bool:
        """Whether one thing is part of it; `tier` is that of the model which the scope names."""
        if self.is_whole:
            return True
        return bool(scope.namespace) and any(
            grant.covers(self._permission, scope, tier) for grant in self.session.grants
        )


def holds(session: Session, permissions: Collection[str]) -> bool:
    """Whether any grant gives one of the permissions, over whatever it is granted for."""
    return any(
        permission in ROLES.get(grant.role, {}) for grant in session.grants for permission in permissions
    )


def may(session: Session, message: Command | Query, tier: str | None = None) -> Refusal | None:
    """None when a grant of the session covers what the message asks for, or it asks for nothing but the session.

    Args:
        tier: of the model that the message is about; None when there is none.
    """
    return may_ever(session, type(message), message.scope(), tier)


def may_ever(
    session: Session, kind: type[Command] | type[Query], scope: Scope, tier: str | None = None
) -> Refusal | None:
    """What `may` says of any message of that kind over `scope`: for whoever has work to do before he has a message."""
    permission = kind.permission
    if not permission or any(grant.covers(permission, scope, tier) for grant in session.grants):
        return None
    needed = holders(permission, scope.target)
    held = sorted(session.roles & set(needed))
    place = "/".join(part for part in (scope.environment, scope.namespace, scope.model) if part)
    over = f" over {place or 'everything'}" + (f" (tier {tier})" if tier else "")
    return refuse(
        Reason(
            rule="hub.permission",
            message=f"{session.actor} may not {tag_of(kind)}" + (over if held else ""),
            measured=", ".join(sorted(session.roles)) or "no role",
            limit=" or ".join(needed),
            remedy=way_to(session.actor, session.kind, needed, scope),
        )
    )
