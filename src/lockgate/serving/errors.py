"""The errors a caller of the data plane can get; plane.py holds the table of their HTTP status and class."""

from __future__ import annotations

from lockgate.core.errors import Invalid, NotFound, Unavailable, Unsupported


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


class NothingLoaded(Unavailable):
    """The endpoint exists, no version of it can answer (yet), and it declares no fallback."""

    code = "serving.nothing-loaded"


class ModelFailed(Unavailable):
    """The version raised, or answered what its contract does not allow. Asking again will not help."""

    code = "serving.model-failed"
    retryable = False


class PlaneFailed(Unavailable):
    """The data plane itself failed at this request; the class of the failure is in its log, its data is
    not."""

    code = "serving.plane-failed"
    retryable = False


class PackageUntrusted(Invalid):
    """No trusted keys are configured for the environment, so nothing can be loaded there."""

    code = "serving.package-untrusted"


class PackageMisplaced(Invalid):
    """The package is sound, and of another model than the plan says."""

    code = "serving.package-misplaced"
