"""What a failed call says, read back from the wire."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status


@dataclass(frozen=True)
class Refusal:
    """field is None without a violation, retry_after_s None without RetryInfo."""

    code: str
    reason: str
    field: str | None
    message: str
    retry_after_s: float | None
    request_id: str
    domain: str


async def refusal_of(call: Awaitable[Any]) -> Refusal:
    """Await a call that must fail, and say how."""
    try:
        await call
    except aio.AioRpcError as error:
        return read_refusal(error)
    raise AssertionError("the call was expected to fail")


def read_refusal(error: aio.AioRpcError) -> Refusal:
    status = rpc_status.from_call(error)
    assert status is not None, f"{error.code()} without details: {error.details()}"
    info = error_details_pb2.ErrorInfo()
    assert _unpack(status, info), "every refusal carries an ErrorInfo"
    bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    field = bad_request.field_violations[0].field if _unpack(status, bad_request) else None
    delay = retry.retry_delay.ToMilliseconds() / 1000 if _unpack(status, retry) else None
    return Refusal(
        code=error.code().name,
        reason=info.reason,
        field=field,
        message=status.message,
        retry_after_s=delay,
        request_id=info.metadata["request_id"],
        domain=info.domain,
    )


def _unpack(status: Any, message: Message) -> bool:
    return any(detail.Unpack(message) for detail in status.details)
