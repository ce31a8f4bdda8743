"""What performs the steps of a flow over gRPC: with threads, or on an event loop."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc

from windowkv.v1 import cache_pb2_grpc, generation_pb2_grpc, model_pb2_grpc
from windowkv_client._calls import Call
from windowkv_client._channel import ROUTING_HEADER
from windowkv_client._errors import RequestCancelled, WindowKVError
from windowkv_client._failures import REQUEST_ID_HEADER, failure
from windowkv_client._flow import Flow, Open, Pause, Read, Unary

T = TypeVar("T")
Step = Unary | Open | Read | Pause


class _Stubs:
    """One stub per service on a channel, and the metadata that goes with every call."""

    def __init__(self, channel: Any, token: str | None) -> None:
        self._stubs = {
            "CacheService": cache_pb2_grpc.CacheServiceStub(channel),
            "GenerationService": generation_pb2_grpc.GenerationServiceStub(channel),
            "ModelService": model_pb2_grpc.ModelServiceStub(channel),
            "Health": health_pb2_grpc.HealthStub(channel),
        }
        self._authorization = (("authorization", f"Bearer {token}"),) if token else ()

    def start(self, call: Call) -> Any:
        method = getattr(self._stubs[call.service], call.method)
        routing = ((ROUTING_HEADER, call.routing_key),) if call.routing_key else ()
        request_id = ((REQUEST_ID_HEADER, call.request_id),) if call.request_id else ()
        metadata = (*self._authorization, *routing, *request_id)
        return method(call.request, timeout=call.timeout_s, metadata=metadata)


class _Started:
    """A gRPC stream and the id to report when it breaks."""

    def __init__(self, stream: Any, request_id: str) -> None:
        self.stream = stream
        self.request_id = request_id

    def cancel(self) -> None:
        self.stream.cancel()


class Transport:
    """Blocks the calling thread. Safe to share between threads."""

    def __init__(self, channel: grpc.Channel, token: str | None) -> None:
        self._stubs = _Stubs(channel, token)

    def run(self, flow: Flow[T]) -> T:
        outcome: object = None
        error: WindowKVError | None = None
        try:
            while True:
                step = flow.send(outcome) if error is None else flow.throw(error)
                outcome, error = None, None
                try:
                    outcome = self._perform(step)
                except WindowKVError as raised:
                    error = raised
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            flow.close()

    def _perform(self, step: Step) -> object:
        match step:
            case Pause(seconds):
                time.sleep(seconds)
                return None
            case Open(call):
                return _Started(self._stubs.start(call), call.request_id)
            case Read(_Started() as started):
                return self._wait(lambda: next(started.stream, None), started.request_id)
            case Unary(call):
                return self._wait(lambda: self._stubs.start(call), call.request_id)
        raise AssertionError(step)

    @staticmethod
    def _wait(answer: Any, request_id: str) -> object:
        try:
            return answer()
        except grpc.RpcError as error:
            raise failure(error, request_id) from error


class AsyncTransport:
    """Awaits on the running event loop; belongs to that loop."""

    def __init__(self, channel: grpc.aio.Channel, token: str | None) -> None:
        self._stubs = _Stubs(channel, token)

    async def run(self, flow: Flow[T]) -> T:
        outcome: object = None
        error: WindowKVError | None = None
        try:
            while True:
                step = flow.send(outcome) if error is None else flow.throw(error)
                outcome, error = None, None
                try:
                    outcome = await self._perform(step)
                except WindowKVError as raised:
                    error = raised
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            flow.close()

    async def _perform(self, step: Step) -> object:
        match step:
            case Pause(seconds):
                await asyncio.sleep(seconds)
                return None
            case Open(call):
                return _Started(self._stubs.start(call), call.request_id)
            case Read(_Started() as started):
                return await self._read(started)
            case Unary(call):
                return await self._wait(self._stubs.start(call), call.request_id)
        raise AssertionError(step)

    async def _read(self, started: _Started) -> object:
        message = await self._wait(started.stream.read(), started.request_id)
        return None if message is grpc.aio.EOF else message

    @staticmethod
    async def _wait(answer: Any, request_id: str) -> object:
        try:
            return await answer
        except grpc.RpcError as error:
            raise failure(error, request_id) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise RequestCancelled("the call was cancelled", request_id=request_id) from None
