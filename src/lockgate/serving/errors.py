"""The errors a caller of the data plane can get, and the table of their HTTP status and class.

A caller's mistake is never a 5xx, because error rates are what a release is judged by: every refusal has one
status and one class.
"""

from __future__ import annotations

from typing import NamedTuple

from lockgate.core.errors import (
    Conflict,
    Corrupt,
    Invalid,
    LockgateError,
    NotFound,
    Unavailable,
    Unsupported,
)
from lockgate.registry.packages.contract import InputRejected
from lockgate.traffic.errors import ErrorClass


class UnknownEndpoint(NotFound):
    code = "serving.unknown-endpoint"


class UnknownPath(NotFound):
    code = "serving.unknown-path"


class MethodRefused(Unsupported):
    code = "serving.method-refused"


class ContentTypeRefused(Unsupported):
    code = "serving.content-type"


class BodyTooLarge(Invalid):
    code = "serving.body-too-large"


class BodyMalformed(Invalid):
    """The bytes are no JSON."""

    code = "serving.body-malformed"


class BodyTooSlow(Invalid):
    code = "serving.body-too-slow"


class RequestInvalid(Invalid):
    """It is JSON, but no request: no `inputs`, an unknown member, a row that is no object."""

    code = "serving.request-invalid"


class BatchTooLarge(Invalid):
    code = "serving.batch-too-large"


class EntityRejected(Invalid):
    """Keys by which the version cannot read its features. Facts: `field`, `view`, `row` (from 0), `reason`.

    `reason` is one of `missing` (no such key column), `wrong-type`, `sent-too` (the row carries a feature that is
    read by key), `no-keys` (the package was made before its views named their keys, and the row lacks the
    feature).
    """

    code = "serving.entity-rejected"


class FeaturesUnavailable(Unavailable):
    """A feature that is read by key could not be had, or is not what the version's contract admits."""

    code = "serving.features-unavailable"


class NothingLoaded(Unavailable):
    """The endpoint exists, no version of it can answer (yet), and it declares no fallback."""

    code = "serving.nothing-loaded"


class ModelFailed(Unavailable):
    """The version raised, or answered what its contract does not allow. Asking again will not help."""

    code = "serving.model-failed"
    retryable = False


class CaptureOff(Conflict):
    """The plan of the endpoint keeps nothing of its traffic, so a label has nothing to belong to."""

    code = "serving.capture-off"
    retryable = False


class CaptureUnavailable(Unavailable):
    """Labels could not be written down as a whole; sending them again is safe, the first one of a row counts."""

    code = "serving.capture-unavailable"


class PlaneFailed(Unavailable):
    """The data plane itself failed at this request; the class of the failure is in its log, its data is not."""

    code = "serving.plane-failed"
    retryable = False


class PackageUntrusted(Invalid):
    """No trusted keys are configured for the environment, so nothing can be loaded there."""

    code = "serving.package-untrusted"


class PackageMisplaced(Invalid):
    """The package is sound, and of another model than the plan says."""

    code = "serving.package-misplaced"


class ViewMisfit(Corrupt):
    """The package takes a feature from a view that, as the package itself describes it, has no such feature."""

    code = "serving.view-misfit"


class Refused(NamedTuple):
    """How one error reaches the caller."""

    status: int
    error_class: ErrorClass
    title: str


REFUSALS: dict[type[LockgateError], Refused] = {
    UnknownPath: Refused(404, "client_error", "Unknown path"),
    UnknownEndpoint: Refused(404, "client_error", "Unknown endpoint"),
    MethodRefused: Refused(405, "client_error", "Method not allowed"),
    ContentTypeRefused: Refused(415, "client_error", "Unsupported content type"),
    BodyTooLarge: Refused(413, "client_error", "Body too large"),
    BatchTooLarge: Refused(413, "client_error", "Too many rows"),
    BodyMalformed: Refused(400, "client_error", "Malformed body"),
    BodyTooSlow: Refused(408, "client_error", "Body too slow"),
    RequestInvalid: Refused(422, "client_error", "Invalid request"),
    CaptureOff: Refused(409, "client_error", "Nothing is captured"),
    InputRejected: Refused(422, "contract_error", "Input rejected"),
    EntityRejected: Refused(422, "contract_error", "Entity rejected"),
    FeaturesUnavailable: Refused(503, "upstream_degraded", "Features unavailable"),
    NothingLoaded: Refused(503, "upstream_degraded", "Nothing loaded"),
    CaptureUnavailable: Refused(503, "upstream_degraded", "Capture unavailable"),
    ModelFailed: Refused(500, "model_error", "Model failed"),
    PlaneFailed: Refused(500, "upstream_degraded", "Data plane failed"),
}
