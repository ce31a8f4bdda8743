"""A failed gRPC call → the SDK's exception."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from windowkv_client._errors import WindowKVError, class_for

REQUEST_ID_HEADER = "x-request-id"


def failure(error: grpc.RpcError, request_id: str) -> WindowKVError:
    """The exception for a call that ended badly; request_id is what the call was sent with."""
    status: str = error.code().name
    details = _Details(error)
    return class_for(details.reason, status)(
        error.details() or status.lower(),
        reason=details.reason,
        status=status,
        field=details.field,
        retry_after_s=details.retry_after_s,
        request_id=details.request_id or request_id or None,
    )


class _Details:
    """The rich part of a status; a call that never reached the service has none."""

    def __init__(self, error: grpc.RpcError) -> None:
        self._messages: dict[str, Any] = _unpack(error)
        trailers: Any = error.trailing_metadata()
        self._trailers: dict[str, Any] = dict(trailers or ())

    @property
    def reason(self) -> str | None:
        info = self._messages.get("ErrorInfo")
        return info.reason if info else None

    @property
    def field(self) -> str | None:
        request = self._messages.get("BadRequest")
        return next((violation.field for violation in request.field_violations), None) if request else None

    @property
    def retry_after_s(self) -> float | None:
        retry = self._messages.get("RetryInfo")
        return retry.retry_delay.ToTimedelta().total_seconds() if retry else None

    @property
    def request_id(self) -> str | None:
        info = self._messages.get("ErrorInfo")
        return (info.metadata.get("request_id") if info else None) or self._trailers.get(REQUEST_ID_HEADER)


_KINDS: tuple[type[Message], ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.RetryInfo,
)


def _unpack(error: Any) -> dict[str, Any]:
    try:
        status: status_pb2.Status | None = rpc_status.from_call(error)
    except ValueError:  # a proxy answered with details that belong to another status
        return {}
    messages: dict[str, Any] = {}
    for detail in status.details if status else ():
        for kind in _KINDS:
            message = kind()
            if detail.Unpack(message):
                messages[kind.DESCRIPTOR.name] = message
    return messages
