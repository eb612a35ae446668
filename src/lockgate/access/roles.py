"""Roles, what each lets its holder do, and over what.

A role holds permissions; a message of the hub's table asks for exactly one. A permission may be bound to values of
what the message wants to set (`Scope.target`): `approver:risk` may approve in the name of risk, of nobody else. A
grant gives a role over a scope: a namespace, tiers of models, environments. Nobody has a role by default, not even to
read, and whoever makes something gets no right over it.

Roles are kept apart where one person must not do both: an `author` makes versions and never judges or approves them,
an `admin` says who has which role and what the rules are and never releases anything.
"""

from __future__ import annotations

import shlex
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


# Whoever holds any role may read, and may hold tokens of his own.
_BASIC = ("read", "access.token")
_MAKING = ("data.write", "pipeline.write", "registry.register", "governance.document")


def _approver(role: str, *more: str) -> Mapping[str, frozenset[str]]:
    """Who approves in the name of a role waives in its name too, and in that of no other."""
    shared = (*_BASIC, "registry.reject", "governance.review", *more)
    return _role(*shared, governance_approve=role, governance_waive=role)


ROLES: Mapping[str, Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "viewer": _role(*_BASIC),
        # Gets a version as far as candidate, and writes what approvers will read.
        "author": _role(*_BASIC, *_MAKING),
        # A service account that builds, and brings on what is free to try; its grant names the environments.
        "ci": _role(*_BASIC, *_MAKING, "delivery.promote", "delivery.pause"),
        "validator": _role(*_BASIC, "gates.record", "governance.validate"),
        "approver:owner": _approver("owner"),
        "approver:product": _approver("product", "governance.sign-off"),
        "approver:risk": _approver("risk", "registry.hold"),
        "approver:validation": _approver("validation"),
        "operator": _role(
            *_BASIC,
            "delivery.promote",
            "delivery.pause",
            "delivery.rollback",
            "delivery.drill",
            "registry.retire",
            "registry.collect",
        ),
        "incident": _role(
            *_BASIC,
            "delivery.pause",
            "delivery.rollback",
            "delivery.drill",
            "registry.quarantine",
            "governance.break-glass",
        ),
        "auditor": _role(*_BASIC, "read.audit", "access.read", "registry.hold"),
        "security": _role(
            *_BASIC,
            "read.audit",
            "access.read",
            "registry.quarantine",
            "registry.lift-quarantine",
            "registry.reject",
            "registry.revoke-key",
            "registry.erase",
            "access.revoke",
            "access.alias",
        ),
        "admin": _role(
            *_BASIC,
            "access.read",
            "registry.declare",
            "registry.import",
            "delivery.declare",
            "governance.policy",
            "access.manage",
            "access.revoke",
            "access.alias",
            "hub.subscribe",
        ),
        # What the machinery reports of targets, traffic and proofs of identity; nobody gets it by claiming a name.
        "controller": _role("read", "delivery.confirm", "delivery.drill", "access.vouch"),
    }
)
BRINGING = (*_MAKING, "gates.record", "registry.import")
"""Whoever holds one of these names bytes in commands, and may bring them."""
CONTROLLER = "controller"
PEOPLES_ROLES = frozenset(ROLES) - {CONTROLLER}
ADMIN = "admin"
TIERS = ("low", "moderate", "high", "critical")

PERSONS_ONLY = frozenset(role for role in ROLES if role.startswith("approver:")) | {ADMIN}
"""Roles that no service account is given: a machine approves nothing, and gives nobody a role."""

MACHINES = frozenset({"ci"})
"""Roles that are meant for service accounts; nobody is advised to give one to a person."""

HARMLESS = frozenset({"viewer", "author"})
"""Roles that move nothing: whoever gives them to himself by a detour gains nothing that others do not check."""


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
        if scope.within:
            return True
        if self.namespace not in (ANY, scope.namespace) or (
            scope.whole and (self.tiers or self.environments)
        ):
            return False
        if self.tiers and scope.model and tier not in self.tiers:
            return False
        return not (self.environments and scope.environment and scope.environment not in self.environments)

    @property
    def is_over_everything(self) -> bool:
        return self.namespace == ANY and not self.tiers and not self.environments

    @property
    def shown(self) -> str:
        parts = [self.role, "over", "everything" if self.namespace == ANY else self.namespace]
        parts += [f"tiers {', '.join(self.tiers)}"] if self.tiers else []
        parts += [f"in {', '.join(self.environments)}"] if self.environments else []
        return " ".join(parts)


def meet(one: Grant, other: Grant) -> Grant | None:
    """The widest grant that allows only what both allow; None when they share nothing."""
    role = _lesser(one.role, other.role)
    if role is None or (ANY not in (one.namespace, other.namespace) and one.namespace != other.namespace):
        return None
    namespace = other.namespace if one.namespace == ANY else one.namespace
    tiers, environments = _both(one.tiers, other.tiers), _both(one.environments, other.environments)
    if tiers is None or environments is None:
        return None
    return Grant(role=role, namespace=namespace, tiers=tiers, environments=environments)


def narrowed(held: Iterable[Grant], scope: Iterable[Grant]) -> tuple[Grant, ...]:
    """What is left of the grants that somebody holds when only `scope` is wanted of them."""
    wanted = tuple(scope)
    found = {both for one in held for other in wanted if (both := meet(one, other)) is not None}
    return tuple(sorted(found, key=lambda grant: grant.shown))


def is_within(grant: Grant, held: Iterable[Grant]) -> bool:
    """Whether one of the held grants alone allows all that `grant` allows."""
    return any(meet(grant, one) == grant for one in held)


def _lesser(one: str, other: str) -> str | None:
    """That of two roles whose permissions the other one has as well."""
    for lesser, greater in ((one, other), (other, one)):
        has = ROLES.get(greater, {})
        permissions = ROLES.get(lesser, {})
        if permissions and all(
            targets <= has.get(name, frozenset()) for name, targets in permissions.items()
        ):
            return lesser
    return None


def _both(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...] | None:
    """What two lists allow together, where an empty one allows all; None for nothing."""
    if not one or not other:
        return one or other
    return tuple(each for each in one if each in other) or None


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


def way_to(actor: str, kind: str, needed: Iterable[str], scope: Scope) -> str:
    """What somebody does who lacks a role: the narrowest grant that would do, as an admin types it.

    Args:
        kind: `person` or `service`.
        needed: the roles of which one would do.
    """
    open_to = [
        role for role in needed if role in PEOPLES_ROLES and (kind == "person" or role not in PERSONS_ONLY)
    ]
    if not open_to:
        nobody = "a service account" if kind == "service" else "anybody"
        return f"{' or '.join(needed)} is not given to {nobody}; somebody who may has to do it"
    suited = [role for role in open_to if (role in MACHINES) == (kind == "service")] or open_to
    role = "viewer" if "viewer" in suited else suited[0]
    parts = ["lockgate access grant", shlex.quote(actor), role]
    parts += ["--namespace", scope.namespace] if scope.namespace else []
    parts += ["--env", scope.environment] if scope.environment and role != ADMIN else []
    return f"ask an admin: {' '.join(parts)}"


def everywhere(roles: Iterable[str]) -> tuple[Grant, ...]:
    """Each role over everything."""
    return tuple(Grant(role=role) for role in sorted(roles))
