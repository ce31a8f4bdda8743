"""Errors as gRPC statuses with google.rpc details: always ErrorInfo; BadRequest, RetryInfo where they fit."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from windowkv_service.errors import WindowKVError
from windowkv_service.rpc.field_paths import wire_path

DOMAIN = "windowkv"
DETAILS_KEY = "grpc-status-details-bin"
MAX_MESSAGE = 300  # characters; statuses travel as metadata, of which both ends accept 8 KiB


def status_code(error: WindowKVError) -> grpc.StatusCode:
    return grpc.StatusCode[error.status]


def rich_status(error: WindowKVError, request_id: str, request: object) -> Status:
    """The error with everything that a program can act on."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata={"request_id": request_id})
    ]
    message = error.message[:MAX_MESSAGE]
    if error.field is not None:
        field = wire_path(error.field, request)
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    code: int = status_code(error).value[0]
    return Status(code=code, message=message, details=[_packed(detail) for detail in details])


def _packed(message: Message) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
