"""Roles, what each lets its holder do, and over what.

A role holds permissions; a message of the hub's table asks for exactly one. A permission may be bound to values of
what the message wants to set (`Scope.target`): `approver:risk` may approve in the name of risk, of nobody else. A
grant gives a role over a scope: a namespace, tiers of models, environments. Nobody has a role by default, not even to
read, and whoever makes something gets no right over it.

Roles are kept apart where one person must not do both: an `author` makes versions and never judges or approves them,
an `admin` says who has which role and what the rules are and never releases anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from lockgate.core.errors import Invalid, did_you_mean
from lockgate.core.messages import Scope

ANY = "*"


class UnknownRole(Invalid):
    code = "access.unknown-role"


def _role(*permissions: str, **bound: str) -> Mapping[str, frozenset[str]]:
    """Permissions for any target, and such for one (`governance_approve="risk"`)."""
    table = {permission: frozenset({ANY}) for permission in permissions}
    table |= {name.replace("_", ".", 1): frozenset({target}) for name, target in bound.items()}
    return MappingProxyType(table)


_MAKING = ("data.write", "pipeline.write", "registry.register", "governance.document")
_APPROVING = ("read", "registry.reject", "governance.waive", "governance.review")

ROLES: Mapping[str, Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "viewer": _role("read"),
        # Gets a version as far as candidate, and writes what approvers will read.
        "author": _role("read", *_MAKING),
        # A service account that builds, and brings on what is free to try; its grant names the environments.
        "ci": _role("read", *_MAKING, "delivery.promote"),
        "validator": _role("read", "gates.record", "governance.validate"),
        "approver:owner": _role(*_APPROVING, governance_approve="owner"),
        "approver:product": _role(*_APPROVING, "governance.sign-off", governance_approve="product"),
        "approver:risk": _role(*_APPROVING, "registry.hold", governance_approve="risk"),
        "approver:validation": _role(*_APPROVING, governance_approve="validation"),
        "operator": _role(
            "read", "delivery.promote", "delivery.rollback", "registry.retire", "registry.collect"
        ),
        "incident": _role("read", "delivery.rollback", "registry.quarantine", "governance.break-glass"),
        "auditor": _role("read", "read.audit", "registry.hold"),
        "security": _role(
            "read",
            "read.audit",
            "registry.quarantine",
            "registry.reject",
            "registry.revoke-key",
            "registry.erase",
            "access.revoke",
        ),
        "admin": _role(
            "read",
            "registry.declare",
            "registry.import",
            "delivery.declare",
            "governance.policy",
            "access.manage",
            "access.revoke",
            "hub.subscribe",
        ),
        # What the machinery reports of targets and traffic; nobody gets it by claiming a name.
        "controller": _role("read", "delivery.confirm"),
    }
)
CONTROLLER = "controller"
PEOPLES_ROLES = frozenset(ROLES) - {CONTROLLER}


class Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One role over a scope.

    Attributes:
        namespace: whose models, or `*`.
        tiers: of which models; empty for all.
        environments: which ones a message may name; empty for all. What names none is not bound by this.
    """

    role: str
    namespace: str = ANY
    tiers: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()

    def covers(self, permission: str, scope: Scope, tier: str | None) -> bool:
        """Whether the grant allows a message that asks for `permission` over `scope`.

        Args:
            tier: of the model that the scope names; None when there is none, or nobody declared it yet.
        """
        targets = ROLES.get(self.role, {}).get(permission, frozenset[str]())
        if ANY not in targets and scope.target not in targets:
            return False
        if self.namespace not in (ANY, scope.namespace):
            return False
        if self.tiers and scope.model and tier not in self.tiers:
            return False
        return not (self.environments and scope.environment and scope.environment not in self.environments)


def check_role(role: str) -> str:
    """Return `role` when people may be given it; raise `UnknownRole` with near matches otherwise."""
    if role not in PEOPLES_ROLES:
        raise UnknownRole(f"there is no role {role!r}", remedy=did_you_mean(role, PEOPLES_ROLES), role=role)
    return role


def holders(permission: str, target: str = "") -> list[str]:
    """The roles that hold a permission for a target, sorted."""
    return sorted(
        role
        for role, permissions in ROLES.items()
        if {ANY, target} & permissions.get(permission, frozenset[str]())
    )


def everywhere(roles: Iterable[str]) -> tuple[Grant, ...]:
    """Each role over everything."""
    return tuple(Grant(role=role) for role in sorted(roles))
