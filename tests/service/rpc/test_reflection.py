"""Reflection: generic clients find the services, unless told not to be shown."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from served_wire import ServedWire, serve_wire

from windowkv_service.rpc.server import ServerSettings


async def reflect(
    wire: ServedWire, request: reflection_pb2.ServerReflectionRequest
) -> reflection_pb2.ServerReflectionResponse:
    async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield request

    stub = reflection_pb2_grpc.ServerReflectionStub(wire.channel)
    [answer] = [answer async for answer in stub.ServerReflectionInfo(requests())]
    return answer


async def test_the_services_are_listed(wire: ServedWire) -> None:
    answer = await reflect(wire, reflection_pb2.ServerReflectionRequest(list_services=""))
    assert {service.name for service in answer.list_services_response.service} == {
        "windowkv.v1.CacheService",
        "windowkv.v1.GenerationService",
        "windowkv.v1.ModelService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_a_service_is_described(wire: ServedWire) -> None:
    symbol = "windowkv.v1.GenerationService"
    answer = await reflect(wire, reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
    assert answer.file_descriptor_response.file_descriptor_proto


async def test_reflection_can_be_left_out() -> None:
    async with serve_wire(ServerSettings(listen="127.0.0.1:0", has_reflection=False)) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await reflect(wire, reflection_pb2.ServerReflectionRequest(list_services=""))
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
