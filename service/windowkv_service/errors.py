"""Everything that can go wrong for a caller, one class per reason.

    WindowKVError
    ├── InvalidRequest          the caller can mend the request; names the field
    │   ├── EmptyPrompt · PromptTooLong · TokenOutOfVocabulary · InvalidText
    │   ├── BadSampling · BadBudget · UnknownMethod · BadOption
    │   └── BadName · BadPageToken · BadFilter · BadUpdateMask · BadTtl
    ├── Unauthenticated
    ├── CacheNotFound           unknown, foreign and deleted names are answered alike
    │   └── CacheExpired
    ├── ModelMismatch           the request names another model than the one served
    ├── UnsupportedModel        refused at start
    ├── CacheFull · QueueFull   no room now; carries retry_after_s
    ├── TierDown                the bytes are only in a tier that cannot be reached
    ├── Draining                the worker is going away
    └── RequestCancelled · DeadlineExceeded

`reason` is stable and travels as google.rpc.ErrorInfo.reason; `status` is a gRPC status code's name.
"""

from __future__ import annotations


class WindowKVError(Exception):
    """Base of the family; an instance of it alone is an internal fault."""

    reason = "INTERNAL"
    status = "INTERNAL"

    def __init__(self, message: str, *, field: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


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


class CacheFull(WindowKVError):
    reason = "CACHE_FULL"
    status = "RESOURCE_EXHAUSTED"


class QueueFull(WindowKVError):
    reason = "QUEUE_FULL"
    status = "RESOURCE_EXHAUSTED"


class TierDown(WindowKVError):
    reason = "TIER_DOWN"
    status = "UNAVAILABLE"


class Draining(WindowKVError):
    reason = "DRAINING"
    status = "UNAVAILABLE"


class RequestCancelled(WindowKVError):
    reason = "CANCELLED"
    status = "CANCELLED"


class DeadlineExceeded(WindowKVError):
    reason = "DEADLINE_EXCEEDED"
    status = "DEADLINE_EXCEEDED"
