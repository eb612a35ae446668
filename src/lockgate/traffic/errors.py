"""Whose fault a failed request was, and the errors of this room.

An error rate that mixes a caller's typing mistake with a model that raises lets one misbehaving client abort
a good release. So every answer that is not a prediction falls into exactly one class, and only some classes
may be held against a version.
"""

from __future__ import annotations

from typing import Literal, get_args

from lockgate.core.errors import Conflict, Corrupt, Invalid, Unavailable, Unsupported

ErrorClass = Literal["client_error", "contract_error", "model_error", "upstream_degraded", "shed", "timeout"]
"""The class of a request that got no prediction.

    client_error        malformed, too large, unknown path, wrong content type: never reached a version
    contract_error      well-formed, but the version's contract does not admit it
    model_error         the version raised, or answered something its contract does not allow
    upstream_degraded   what the version needs was not there: nothing loaded, no feature store
    shed                refused to protect the others
    timeout             no answer within the deadline
"""

ERROR_CLASSES: tuple[ErrorClass, ...] = get_args(ErrorClass)

_HELD_AGAINST_VERSION = frozenset({"contract_error", "model_error", "upstream_degraded", "timeout"})


def held_against_version(error_class: ErrorClass) -> bool:
    """Whether an error of this class may count in a verdict about a version."""
    return error_class in _HELD_AGAINST_VERSION


class BadPlan(Invalid):
    code = "traffic.bad-plan"


class StalePlan(Conflict):
    """Somebody applied a newer plan meanwhile; nothing was written. Facts: `endpoint`, `given`, `current`."""

    code = "traffic.stale-plan"


class LocalPlanInForce(StalePlan):
    """Somebody went back without the hub, and the hub has not adopted that yet; nothing was written."""

    code = "traffic.local-plan-in-force"


class PlanTooLarge(Invalid):
    code = "traffic.plan-too-large"


class ControlFileCorrupt(Corrupt):
    """The file is no control file, or neither of its two plans verifies."""

    code = "traffic.control-file-corrupt"


class ControlFileVersion(Unsupported):
    code = "traffic.control-file-version"


class NoWorkerSlot(Unavailable):
    code = "traffic.no-worker-slot"


class TargetUnavailable(Unavailable):
    """The place where plans are written cannot be reached or written."""

    code = "traffic.target-unavailable"
