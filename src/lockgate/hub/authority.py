"""Who is asking, and what they may do.

Embedded mode has no way to prove an identity: whoever can open the store can claim any name. A session says so
(`claimed`), the CLI repeats it, and everything that depends on *who* (separation of duties) is decided on the
claimed name all the same. A hub for a team brings proven identities through the same type.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from lockgate.core.messages import Command, Query, Reason, Refusal, refuse, tag_of

# What each role may do. `author` gets a version as far as candidate, nothing more.
ROLES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "viewer": frozenset({"read"}),
        "auditor": frozenset({"read", "read.audit"}),
        "author": frozenset({"read", "data.write", "pipeline.write", "registry.register"}),
        "validator": frozenset({"read", "gates.record", "governance.validate"}),
        "approver": frozenset({"read", "governance.approve", "registry.reject"}),
        "operator": frozenset({"read", "delivery.promote", "delivery.rollback", "registry.retire"}),
        # What the machinery reports of targets and traffic; nobody gets it by claiming a name.
        "controller": frozenset({"read", "delivery.confirm"}),
        "security": frozenset({"read", "read.audit", "registry.quarantine", "registry.reject"}),
        "platform": frozenset({"read", "registry.declare", "delivery.declare", "governance.policy"}),
    }
)
CONTROLLER_ROLES = frozenset({"controller"})
EMBEDDED_ROLES = frozenset(ROLES) - CONTROLLER_ROLES


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The actor of a hub session. `claimed` is true when nobody proved the name."""

    actor: str
    roles: frozenset[str]
    claimed: bool


def embedded(actor: str) -> Session:
    return Session(actor=actor, roles=EMBEDDED_ROLES, claimed=True)


def may(session: Session, message: Command | Query) -> Refusal | None:
    """None when the session's roles hold the permission that the message's class declares."""
    permission = type(message).permission
    if any(permission in ROLES.get(role, frozenset()) for role in session.roles):
        return None
    holders = sorted(role for role, permissions in ROLES.items() if permission in permissions)
    return refuse(
        Reason(
            rule="hub.permission",
            message=f"{session.actor} may not {tag_of(type(message))}",
            measured=", ".join(sorted(session.roles)) or "no role",
            limit=" or ".join(holders),
        )
    )
