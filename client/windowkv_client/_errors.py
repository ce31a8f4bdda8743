"""What can go wrong for a caller, and how a gRPC failure becomes it.

    WindowKVError
    ├── InvalidRequest          mend the request; .field names the culprit
    │   ├── EmptyPrompt · PromptTooLong · TokenOutOfVocabulary · InvalidText
    │   ├── BadSampling · BadBudget · UnknownMethod · BadOption
    │   └── BadName · BadPageToken · BadFilter · BadUpdateMask · BadTtl
    ├── Unauthenticated         the token is missing or wrong
    ├── CacheNotFound           unknown, foreign and deleted names are answered alike
    │   └── CacheExpired
    ├── ModelMismatch           the request names another model than the one served
    ├── UnsupportedModel
    ├── ResourceExhausted       no room now; try again after .retry_after_s
    │   ├── CacheFull
    │   └── QueueFull
    ├── Unavailable             no worker answered
    │   ├── TierDown            the bytes are only in a tier that cannot be reached
    │   └── Draining            the worker is going away
    ├── RequestCancelled
    ├── DeadlineExceeded
    └── InternalError           a fault of the service; .request_id finds it in its log

Every exception carries .reason (stable, the wire's ErrorReason), .status (the gRPC code's name), .message, .field,
.retry_after_s and .request_id; what does not apply is None.
"""

from __future__ import annotations

from collections.abc import Iterator


class WindowKVError(Exception):
    """Base of the family: catch it to catch everything the service can answer."""

    reason = "UNSPECIFIED"
    status = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        status: str | None = None,
        field: str | None = None,
        retry_after_s: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.status = status or type(self).status
        self.field = field
        self.retry_after_s = retry_after_s
        self.request_id = request_id


class InvalidRequest(WindowKVError):
    reason = "INVALID_REQUEST"
    status = "INVALID_ARGUMENT"


class EmptyPrompt(InvalidRequest):
    reason = "EMPTY_PROMPT"


class PromptTooLong(InvalidRequest):
    reason = "PROMPT_TOO_LONG"


class TokenOutOfVocabulary(InvalidRequest):
    reason = "TOKEN_OUT_OF_VOCABULARY"


class InvalidText(InvalidRequest):
    reason = "INVALID_TEXT"


class BadSampling(InvalidRequest):
    reason = "BAD_SAMPLING"


class BadBudget(InvalidRequest):
    reason = "BAD_BUDGET"


class UnknownMethod(InvalidRequest):
    reason = "UNKNOWN_METHOD"


class BadOption(InvalidRequest):
    reason = "BAD_OPTION"


class BadName(InvalidRequest):
    reason = "BAD_NAME"


class BadPageToken(InvalidRequest):
    reason = "BAD_PAGE_TOKEN"


class BadFilter(InvalidRequest):
    reason = "BAD_FILTER"


class BadUpdateMask(InvalidRequest):
    reason = "BAD_UPDATE_MASK"


class BadTtl(InvalidRequest):
    reason = "BAD_TTL"


class Unauthenticated(WindowKVError):
    reason = "UNAUTHENTICATED"
    status = "UNAUTHENTICATED"


class CacheNotFound(WindowKVError):
    reason = "CACHE_NOT_FOUND"
    status = "NOT_FOUND"


class CacheExpired(CacheNotFound):
    reason = "CACHE_EXPIRED"


class ModelMismatch(WindowKVError):
    reason = "MODEL_MISMATCH"
    status = "FAILED_PRECONDITION"


class UnsupportedModel(WindowKVError):
    reason = "UNSUPPORTED_MODEL"
    status = "FAILED_PRECONDITION"


class ResourceExhausted(WindowKVError):
    status = "RESOURCE_EXHAUSTED"


class CacheFull(ResourceExhausted):
    reason = "CACHE_FULL"


class QueueFull(ResourceExhausted):
    reason = "QUEUE_FULL"


class Unavailable(WindowKVError):
    status = "UNAVAILABLE"


class TierDown(Unavailable):
    reason = "TIER_DOWN"


class Draining(Unavailable):
    reason = "DRAINING"


class RequestCancelled(WindowKVError):
    reason = "CANCELLED"
    status = "CANCELLED"


class DeadlineExceeded(WindowKVError):
    reason = "DEADLINE_EXCEEDED"
    status = "DEADLINE_EXCEEDED"


class InternalError(WindowKVError):
    reason = "INTERNAL"
    status = "INTERNAL"


def family(root: type[WindowKVError] = WindowKVError) -> Iterator[type[WindowKVError]]:
    """The class and everything below it, parents before children."""
    yield root
    for child in root.__subclasses__():
        yield from family(child)


_BROADEST = (
    InvalidRequest,
    Unauthenticated,
    CacheNotFound,
    ResourceExhausted,
    Unavailable,
    RequestCancelled,
    DeadlineExceeded,
    InternalError,
)


def class_for(reason: str | None, status: str) -> type[WindowKVError]:
    """The exception for a reason; where this version knows none, the broadest of the status."""
    by_reason: dict[str, type[WindowKVError]] = {
        each.reason: each for each in family() if "reason" in vars(each)
    }
    del by_reason[WindowKVError.reason]
    by_status: dict[str, type[WindowKVError]] = {each.status: each for each in _BROADEST}
    return by_reason.get(reason or "", by_status.get(status, WindowKVError))
