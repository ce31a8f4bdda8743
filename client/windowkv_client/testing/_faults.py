"""Failures on demand, and errors as rich gRPC statuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from windowkv_client._errors import WindowKVError
from windowkv_client._failures import REQUEST_ID_HEADER

T = TypeVar("T")
DOMAIN = "windowkv"


class Faults:
    """Failures that tests have ordered: each happens once, in the order it was ordered, to the method it names."""

    def __init__(self) -> None:
        self._planned: list[tuple[str, int, WindowKVError]] = []
        self._lock = threading.Lock()

    def plan(self, method: str, after: int, error: WindowKVError) -> None:
        with self._lock:
            self._planned.append((method, after, error))

    def take(self, method: str) -> tuple[int, WindowKVError] | None:
        """How many messages may still go out, and the error that follows them."""
        with self._lock:
            due = next((each for each in self._planned if each[0] in (method, "")), None)
            if due is None:
                return None
            self._planned.remove(due)
            return due[1], due[2]


def answer(context: grpc.ServicerContext, faults: Faults, method: str, work: Callable[[], T]) -> T:
    """One message, or the error as a status."""
    fault = faults.take(method)
    try:
        if fault is not None:
            raise fault[1]
        return work()
    except WindowKVError as error:
        _abort(context, error)
        raise AssertionError("abort returned") from error


def stream(
    context: grpc.ServicerContext, faults: Faults, method: str, work: Callable[[], Iterator[T]]
) -> Iterator[T]:
    """Messages, and where one is ordered or due, an error as the status behind them."""
    fault = faults.take(method)
    try:
        for index, message in enumerate(work()):
            if fault is not None and index >= fault[0]:
                break
            yield message
        if fault is not None:
            raise fault[1]
    except WindowKVError as error:
        _abort(context, error)


def _abort(context: grpc.ServicerContext, error: WindowKVError) -> None:
    request_id = dict(context.invocation_metadata()).get(REQUEST_ID_HEADER, "")
    context.abort_with_status(rpc_status.to_status(rich_status(error, str(request_id))))


def rich_status(error: WindowKVError, request_id: str) -> status_pb2.Status:
    """The error as the service would put it on the wire."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=DOMAIN, metadata={"request_id": request_id}
    )
    details: list[Message] = [info]
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(retry)
    code: Any = grpc.StatusCode[error.status].value[0]
    return status_pb2.Status(code=code, message=error.message, details=[_packed(each) for each in details])


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
