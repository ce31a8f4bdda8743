"""What happens around every call: who is it, when must it end, how did it end. The room's only try/except."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import grpc
from grpc import aio

from windowkv_service.errors import InvalidText, WindowKVError
from windowkv_service.rpc.auth import DEFAULT_TENANT, Authenticator
from windowkv_service.rpc.call import (
    REQUEST_ID_KEY,
    Call,
    Context,
    choose_request_id,
    current_call,
    current_tenant,
    deadline_of,
    request_id_from,
)
from windowkv_service.rpc.status import DETAILS_KEY, rich_status, status_code
from windowkv_service.telemetry import get_logger, request_context

# Quoted: grpc's classes are generic for type checkers only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"

HEALTH = "/grpc.health.v1.Health/"
FAULTS = ("INTERNAL", "DATA_LOSS", "UNKNOWN")  # ours to look into
STRAINS = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")  # the operator's
DEADLINE_SLACK_S = 0.1

log = get_logger(__name__)


class CallMetrics(Protocol):
    """Where calls are counted; call_type is "unary" or "server_stream"."""

    def started(self, method: str, call_type: str) -> None: ...
    def handled(self, method: str, call_type: str, code: str) -> None: ...
    def observe(self, method: str, call_type: str, seconds: float) -> None: ...


class AuthInterceptor(aio.ServerInterceptor):
    """Finds the caller's tenant, or puts a refusal in the handler's place. Health is open to all."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(HEALTH):
            return handler
        try:
            current_tenant.set(self._authenticator.tenant_of(handler_call_details.invocation_metadata or ()))
        except WindowKVError as error:
            return _refusal(error, handler)
        return handler


@dataclass(frozen=True)
class Unreadable:
    """What a request becomes whose bytes are no message, or hold text that is not UTF-8."""


@dataclass
class Ending:
    """How a call ended, for its log line."""

    code: str = "OK"
    reason: str = ""


class CallInterceptor(aio.ServerInterceptor):
    """Outermost: sets the current call, turns errors into statuses, counts, logs one line at the end."""

    def __init__(self, metrics: CallMetrics | None = None) -> None:
        self._metrics = metrics

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:  # reflection; nothing of ours streams requests
            return handler
        method = handler_call_details.method
        deserialize = _tolerant(handler.request_deserializer)
        if handler.response_streaming:
            stream = self._stream(handler.unary_stream, method)
            return grpc.unary_stream_rpc_method_handler(stream, deserialize, handler.response_serializer)
        unary = self._unary(handler.unary_unary, method)
        return grpc.unary_unary_rpc_method_handler(unary, deserialize, handler.response_serializer)

    def _unary(self, behavior: Any, method: str) -> Callable[[Any, Context], Awaitable[Any]]:
        async def unary(request: Any, context: Context) -> Any:
            async with self._watched(method, "unary", request, context) as call:
                response = await behavior(request, context)
                await context.send_initial_metadata(((REQUEST_ID_KEY, call.request_id),))
                return response

        return unary

    def _stream(self, behavior: Any, method: str) -> Callable[[Any, Context], Awaitable[None]]:
        async def stream(request: Any, context: Context) -> None:
            async with (
                self._watched(method, "server_stream", request, context) as call,
                aclosing(behavior(request, context)) as messages,
            ):
                is_first = True
                async for message in messages:
                    if (
                        is_first
                    ):  # not earlier: a client retries a refusal only when nothing has come before it
                        await context.send_initial_metadata(((REQUEST_ID_KEY, call.request_id),))
                        is_first = False
                    await context.write(message)

        return stream

    @asynccontextmanager
    async def _watched(
        self, method: str, call_type: str, request: Any, context: Context
    ) -> AsyncIterator[Call]:
        started, ending = time.monotonic(), Ending()
        metadata = context.invocation_metadata() or ()
        request_id = request_id_from(metadata)
        if self._metrics is not None:
            self._metrics.started(method, call_type)
        try:
            request_id = choose_request_id(request, metadata)
            call = Call(current_tenant.get(DEFAULT_TENANT), request_id, deadline_of(context))
            current_call.set(call)
            with request_context(request_id):
                _require_readable(request)
                yield call
        except WindowKVError as error:
            await _abort(context, error, request_id, request, ending)
        except asyncio.CancelledError:
            ending.code = ending.reason = _why_cancelled(context)
            raise
        except aio.AbortError:
            ending.code = context.code().name
            raise
        except Exception:
            log.exception("call failed", method=method, request_id=request_id)
            await _abort(context, WindowKVError("internal error"), request_id, request, ending)
        finally:
            self._record(method, call_type, ending, request_id, time.monotonic() - started)

    def _record(self, method: str, call_type: str, ending: Ending, request_id: str, seconds: float) -> None:
        if self._metrics is not None:
            self._metrics.handled(method, call_type, ending.code)
            self._metrics.observe(method, call_type, seconds)
        log.log(
            _level(method, ending.code),
            "call",
            method=method,
            code=ending.code,
            reason=ending.reason,
            tenant=current_tenant.get(DEFAULT_TENANT),
            request_id=request_id,
            duration_s=round(seconds, 6),
        )


async def _abort(
    context: Context, error: WindowKVError, request_id: str, request: object, ending: Ending
) -> None:
    """End the call with the error's status and details. Raises, as gRPC's abort does."""
    ending.code, ending.reason = error.status, error.reason
    status = rich_status(error, request_id, request)
    details = ((DETAILS_KEY, status.SerializeToString()), (REQUEST_ID_KEY, request_id))
    await context.abort(status_code(error), status.message, details)


def _tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """gRPC answers INTERNAL when a request cannot be read; here it becomes one to be refused properly."""

    def tolerant(data: bytes) -> Any:
        try:
            return deserialize(data) if deserialize is not None else data
        except Exception:  # protobuf's decoders differ in what they raise
            return Unreadable()

    return tolerant


def _require_readable(request: object) -> None:
    if isinstance(request, Unreadable):
        raise InvalidText("the request is not a valid message; all text must be UTF-8")


def _refusal(error: WindowKVError, handler: Handler) -> Handler:
    """A handler of the same kind that only raises."""

    async def refuse(request: Any, context: Context) -> Any:
        raise error

    async def refuse_stream(request: Any, context: Context) -> AsyncIterator[Any]:
        yield await refuse(request, context)

    if handler.response_streaming and not handler.request_streaming:
        return grpc.unary_stream_rpc_method_handler(refuse_stream)
    return grpc.unary_unary_rpc_method_handler(refuse)


def _why_cancelled(context: Context) -> str:
    """The client's clock runs ahead by the time its request took to get here: it gives up just before we would."""
    remaining: float | None = context.time_remaining()
    is_late = remaining is not None and remaining < DEADLINE_SLACK_S
    return "DEADLINE_EXCEEDED" if is_late else "CANCELLED"


def _level(method: str, code: str) -> int:
    if method.startswith(HEALTH):
        return logging.DEBUG
    if code in FAULTS:
        return logging.ERROR
    return logging.WARNING if code in STRAINS else logging.INFO
